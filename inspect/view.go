package inspect

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/inspection"
)

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"clock":   func(t time.Time) string { return t.Format("15:04:05.000") },
	"machine": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"span":    span,
	"left":    func(f fact) string { return f.left(time.Now()) },
	"plural":  plural,
	"bar":     func(value, most int) bar { return bar{value, most} },
	"deeds":   func() []deed { return deeds },
}).ParseFS(files, "page.html"))

// maxCookieBytes is what browsers keep of a cookie's name and value together.
const maxCookieBytes = 4096

// A view is what the page shows.
type view struct {
	Token    string
	Problem  string // why the sessions cannot be shown
	Done     string // what the button has done
	Single   string // the one cookie for all
	Routes   []route
	Sessions []session
	Held     []held
	HeldSize int // of the whole Cookie header
	Events   []event
	Last     int // number of the last event
	Listens  bool
}

// A route says where a field is stored.
type route struct {
	sessplus.FieldRoute
	Name                 string
	Readers              string
	Ends, Idle, Rotation string
}

// readers says who can read a field.
var readers = map[sessplus.Visibility]string{
	sessplus.VisibleNever:     "the server",
	sessplus.VisibleEncrypted: "the server; the browser holds it encrypted",
	sessplus.VisibleSigned:    "the server and the visitor; signed, not encrypted",
}

func routesOf(mgr *sessplus.Manager, setup inspection.Setup) []route {
	var list []route
	for _, f := range mgr.Describe() {
		c := setup.Configs[slices.IndexFunc(setup.Configs, func(c inspection.Config) bool { return c.Cookie == f.Cookie })]
		r := route{FieldRoute: f, Name: f.Field, Readers: readers[f.Visibility], Ends: span(f.Lifetime), Idle: "–", Rotation: "–"}
		if c.IdleTimeout > 0 {
			r.Idle = span(c.IdleTimeout)
		}
		if c.RotateEvery > 0 {
			r.Rotation = "every " + span(c.RotateEvery)
		}
		list = append(list, r)
	}
	return list
}

// A session is a card of the page.
type session struct {
	inspection.Session
	Config  inspection.Config
	Backend string
	State   string
	Facts   []fact
	Cookies []held // that it has in the browser
	Limit   int    // what all of them may have
	Size    int    // what they have
	Total   int    // the bytes of its fields
	Values  bool   // are shown
	Deeds   []deed
}

// A fact is a line about a session: a text, or an end that is counted down to.
type fact struct {
	Name, Text string
	End        time.Time
	Past       string // what it says once that has come
}

// A bar shows a size against the largest one.
type bar struct{ Value, Max int }

// Percent is the length of the bar. What is there is seen.
func (b bar) Percent() float64 { return min(max(100*float64(b.Value)/float64(b.Max), 0.75), 100) }

// A held is a cookie that the browser has sent.
type held struct {
	Name  string
	Size  int // of its name and value
	Owner *inspection.Config
}

func (h *handler) view(w http.ResponseWriter, r *http.Request) *view {
	q := r.URL.Query()
	v := &view{Token: h.token, Single: h.setup.Single, Routes: h.routes, Listens: h.events != nil}
	if d := deedNamed(q.Get("did")); d != nil && h.config(q.Get("cookie")) != nil {
		v.Done = q.Get("cookie") + " " + d.Done + "."
	}
	if v.Listens {
		v.Events, _ = h.events.since(0)
		slices.Reverse(v.Events)
		if len(v.Events) > 0 {
			v.Last = v.Events[0].No
		}
	}
	for _, c := range r.Cookies() {
		k := held{c.Name, len(c.Name) + len(c.Value), h.owner(c.Name)}
		v.Held = append(v.Held, k)
		v.HeldSize += k.Size
	}
	_, i, err := h.load(w, r.WithContext(context.WithValue(r.Context(), own{}, true)))
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	for n, looked := range i.Look(func(cookie string) bool { return slices.Contains(q["show"], cookie) }) {
		v.Sessions = append(v.Sessions, h.session(looked, h.setup.Configs[n], slices.Contains(q["show"], looked.Cookie), v.Held))
	}
	return v
}

func (h *handler) session(s inspection.Session, c inspection.Config, values bool, all []held) session {
	v := session{Session: s, Config: c, Limit: c.Chunks * maxCookieBytes, Values: values}
	for _, r := range h.routes {
		if r.Cookie == c.Cookie {
			v.Backend = r.Backend
		}
	}
	for _, f := range s.Fields {
		v.Total += f.Bytes
	}
	for _, k := range all {
		if k.Owner != nil && k.Owner.Cookie == c.Cookie {
			v.Cookies = append(v.Cookies, k)
			v.Size += k.Size
		}
	}
	for _, d := range deeds {
		if c.ServerSide || !d.serverSide {
			v.Deeds = append(v.Deeds, d)
		}
	}
	v.State, v.Facts = stateOf(s, len(v.Cookies) > 0), factsOf(s, c)
	return v
}

func stateOf(s inspection.Session, sent bool) string {
	switch {
	case s.Err != nil:
		return "cannot be loaded"
	case s.Ended:
		return "has ended"
	case s.Exists:
		return "live"
	case sent:
		return "its cookie names none"
	}
	return "no session"
}

// factsOf lists what is known about a session besides its fields.
func factsOf(s inspection.Session, c inspection.Config) []fact {
	var list []fact
	text := func(name, text string) { list = append(list, fact{Name: name, Text: text}) }
	if s.Err != nil {
		text("Problem", s.Err.Error())
	}
	if !s.Exists {
		return list
	}
	list = append(list, fact{Name: "Ends", End: s.Expires, Past: "has ended"})
	if c.IdleTimeout > 0 {
		text("Idle timeout", span(c.IdleTimeout)+"; this page is no use of the session")
	}
	when := func(name string, t time.Time) {
		if !t.IsZero() {
			text(name, t.Local().Format("2006-01-02 15:04:05"))
		}
	}
	when("Created", s.Created)
	when("Written", s.Saved)
	when("Rotated", s.Rotated)
	if c.RotateEvery > 0 {
		since := s.Created
		if s.Rotated.After(since) {
			since = s.Rotated
		}
		list = append(list, fact{Name: "Next rotation", End: since.Add(c.RotateEvery), Past: "at its next use"})
	}
	if s.Permanent {
		text("Permanent", "yes")
	}
	switch {
	case s.Bound:
		text("Device", "bound to its key")
	case c.DeviceBound > 0:
		text("Device", "not bound")
	}
	if s.Handle != "" {
		text("Handle", s.Handle)
	}
	if len(s.Foreign) > 0 {
		text("Not its own", strings.Join(s.Foreign, ", ")+"; the next save removes "+plural(len(s.Foreign), "it", "them"))
	}
	return list
}

// chunk is what follows the name of a cookie in those that it is split over.
var chunk = regexp.MustCompile(`^(\.[0-9]+)?$`)

// owner finds the config of a cookie. That of Options.SingleCookie has none of its own.
func (h *handler) owner(name string) *inspection.Config {
	for i := range h.setup.Configs {
		c := &h.setup.Configs[i]
		if rest, ok := strings.CutPrefix(name, c.Cookie); ok && h.setup.Single == "" && chunk.MatchString(rest) {
			return c
		}
	}
	return nil
}

// span is a duration for a person to read, in its two largest units.
func span(d time.Duration) string {
	if d < 0 {
		return "no end"
	}
	for _, unit := range []struct {
		size, next time.Duration
		name, sub  string
	}{
		{24 * time.Hour, time.Hour, "d", "h"},
		{time.Hour, time.Minute, "h", "min"},
		{time.Minute, time.Second, "min", "s"},
		{time.Second, time.Millisecond, "s", "ms"},
	} {
		if d < unit.size {
			continue
		}
		text := fmt.Sprintf("%d %s", d/unit.size, unit.name)
		if rest := d % unit.size / unit.next; rest > 0 {
			text += fmt.Sprintf(" %d %s", rest, unit.sub)
		}
		return text
	}
	return d.Round(time.Microsecond).String()
}

// left is the time until the end, to the second.
func (f fact) left(now time.Time) string {
	d := f.End.Sub(now).Truncate(time.Second)
	if d <= 0 {
		return f.Past
	}
	return "in " + span(d)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
