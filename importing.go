package sessplus

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

// How an old session becomes one of ours. Machines need not coordinate: each derives the same id from the old cookie
// with a key. So all of them look for the same record, and one of them creates it.
//
//	load the record of the derived id: another request was here before
//	else ask the importers, unless the mark says that the session was imported and has ended since
//	else load it again: another request has imported the session, and its old store has forgotten it
//	create it, then the mark; if there is one, load it
//
// The mark is a record of its own, under another derived id. It lives as long as the old session would have, so that an
// old cookie cannot bring back a session that has ended here, even if the old one cannot be removed.

// A stray is a value that came under the name of a cookie but names no session of ours.
type stray struct {
	cookie, value string
	id            string // of the session of this library that it names, which may have other values; "": unknown
	why           error  // why it cannot be one of ours; nil: it might be
}

// arrivals is what a request has of old sessions, for one cookie.
type arrivals struct {
	strays   []stray
	past     *stray      // the one that the session was, or is, the former cookie of
	brought  []RawField  // fields of the old session, for secure cookies
	spread   []int       // the cookies that have received their fields of it
	old      []string    // the names of other cookies that came, to be dropped when the new one is set
	forsaken []stray     // those whose sessions the program has ended
	chunks   []candidate // of former secure cookies
	took     bool        // this cookie has received fields of an old session, and must be sent
}

// imports is what a cookie with Config.Import knows.
type imports struct {
	sources []source
	keys    [][]byte // for deriving ids, newest first
	loose   *looseCalls
}

// A source is an importer, and the cookie that it reads.
type source struct {
	Importer
	cookie string
}

func newImports(c *Config, keys []KeyPair) *imports {
	if len(c.Import) == 0 {
		return nil
	}
	m := &imports{keys: deriveKeys(keys, "import"), loose: newLooseCalls()}
	for _, i := range c.Import {
		m.sources = append(m.sources, source{i, readsCookie(i, c.CookieName)})
	}
	return m
}

// bind gives the importers of this library's own sessions what they share with m.
func (m *imports) bind(manager *Manager, keys []KeyPair) {
	if m == nil {
		return
	}
	for i, s := range m.sources {
		if f, ok := s.Importer.(*former); ok {
			m.sources[i].Importer = f.bind(manager, keys)
		}
	}
}

// What ids are derived for.
const (
	forSession = "session"
	forMark    = "mark"
)

// names are the possible names of the session that v stands for, or of its mark; a new one gets the first.
func (m *imports) names(c *cookie, purpose string, v *stray) []sessionName {
	list := make([]sessionName, len(m.keys))
	for i, key := range m.keys {
		h := hmac.New(sha256.New, key)
		for _, text := range []string{purpose, c.CookieName, v.cookie} { // none of them has a NUL
			io.WriteString(h, text+"\x00")
		}
		io.WriteString(h, cmp.Or(v.id, v.value))
		list[i] = c.nameOf(encodeID([idBytes]byte(h.Sum(nil))))
	}
	return list
}

// formers finds the cookies with an importer that reads another cookie, or whose own is part of a single cookie.
func formers(cookies []*cookie) map[string][]int {
	m := make(map[string][]int)
	for i, c := range cookies {
		if c.imports == nil {
			continue
		}
		for _, s := range c.imports.sources {
			if (s.cookie != c.CookieName || c.packed) && !slices.Contains(m[s.cookie], i) {
				m[s.cookie] = append(m[s.cookie], i)
			}
		}
	}
	return m
}

// bringFormers notes the cookies that came under names which importers read, other than those of the configs.
func (s *Session) bringFormers(r *http.Request) {
	eachCookie(r, func(name, value string) {
		for _, at := range s.m.formerChunks[name] {
			p := &s.parts[at.cookie]
			a := p.meet()
			a.chunks = append(a.chunks, candidate{value, at.chunk})
			if _, ours := s.m.names[name]; !ours {
				p.old = append(p.old, name)
			}
		}
		for _, i := range s.m.formers[name] {
			p := &s.parts[i]
			if _, ours := s.m.names[name]; p.stray(name, value, errMalformed) && !ours && !slices.Contains(p.old, name) {
				p.old = append(p.old, name)
			}
		}
	})
}

// stray notes a value that names no session of ours, if there are importers to ask about it. It reports whether it did.
func (p *part) stray(cookie, value string, why error) bool {
	if p.imports == nil || value == "" || len(value) > maxCookieBytes {
		return false
	}
	p.meet()
	same := func(v stray) bool { return v.cookie == cookie && v.value == value }
	if slices.ContainsFunc(p.strays, same) {
		return false
	}
	if len(p.strays) >= 2*maxCandidates {
		p.crowded = true
		return false
	}
	p.strays = append(p.strays, stray{cookie: cookie, value: value, why: why})
	return true
}

// comes reports whether the request has something that may be an old session of the cookie.
func (p *part) comes() bool {
	return p.imports != nil && (len(p.texts) > 0 || p.arrivals != nil && len(p.strays) > 0)
}

// was reports whether the session was found by an old cookie.
func (p *part) was() bool { return p.arrivals != nil && p.past != nil }

// resends reports whether this request must send the cookie again: because the program has used it, or because the
// browser still has the old one.
func (p *part) resends() bool { return p.due == tellSet && (p.used || p.arrived() || p.movedOut) }

// arrived reports whether this request has imported fields of an old session into this cookie.
func (p *part) arrived() bool { return p.arrivals != nil && p.took }

// leaves reports whether the browser must drop the former cookie, because all fields of its session belong to other
// cookies.
func (p *part) leaves(filled bool) bool {
	return !filled && p.due == tellSet && (p.movedOut || p.arrived() && len(p.brought) > 0)
}

// takeOverFormers looks up what the strays of a part stand for, until one of them is a session.
func (s *Session) takeOverFormers(p *part, now time.Time) {
	if p.arrivals == nil {
		return
	}
	for i := range p.strays {
		v := &p.strays[i]
		if p.rec == nil && p.err == nil && !p.gone {
			if s.takeOverFormer(p, v, now); p.rec != nil {
				p.past = v
				p.arrive()
			}
			if p.rec != nil || p.err != nil || p.gone {
				continue
			}
		}
		if v.why != nil && p.err == nil {
			s.reject(p, v.why)
		}
	}
}

// arrive notes that the cookie must be sent.
func (p *part) arrive() {
	p.meet().took = true
	p.resend(true)
}

// meet returns the part's arrivals, for modification.
func (p *part) meet() *arrivals {
	if p.arrivals == nil {
		p.arrivals = new(arrivals)
	}
	return p.arrivals
}

// takeOverFormer makes the session that v stands for, if any, that of p.
func (s *Session) takeOverFormer(p *part, v *stray, now time.Time) {
	if p.sealer != nil {
		s.importFor(p, v)
		return
	}
	found, marked := s.former(p, p, v)
	if found == nil && !marked && s.importFor(p, v) {
		return
	}
	if found == nil && p.err == nil {
		found, marked = s.former(p, p, v)
	}
	if found == nil || p.err != nil {
		return
	}
	p.answered(s, found, now)
	if p.rec == nil {
		return
	}
	if p.brought = p.rec.Fields; !marked { // whoever has made it has not come so far
		if err := s.mark(p, p, v, p.rec.until()); err != nil {
			p.content = content{}
			s.importFailed(p, nil, err)
		}
	}
}

// former asks the backend of p for the record of the session that v stands for, and for the mark. found is nil if there
// is no record, not even one that has just ended.
func (s *Session) former(p, from *part, v *stray) (found *call, marked bool) {
	sessions, marks := from.imports.names(p.cookie, forSession, v), from.imports.names(p.cookie, forMark, v)
	var calls []*call
	for _, name := range slices.Concat(sessions, marks) {
		calls = append(calls, &call{part: p, op: opLoad, sessionName: name})
	}
	s.run(calls)
	for i, c := range calls {
		switch isMark := i >= len(sessions); {
		case isMark && c.err == nil:
			marked = true
		case isMark && errors.Is(c.err, ErrNoRecord), c.err == ErrNoRecord:
		case found == nil || found.err != nil && c.err == nil:
			found = c
		}
	}
	return found, marked
}

// importFor asks the importers for the session that v stands for, and gives its fields to p and the other cookies that
// own them. It reports whether it did.
func (s *Session) importFor(p *part, v *stray) bool {
	found, made, err := s.ask(p, v)
	now := wallNow()
	switch {
	case errors.Is(err, ErrNoRecord):
		if v.why != nil {
			v.why = &notImported{v.why, err}
		}
		return false
	case err != nil:
		s.importFailed(p, made, err)
		return false
	case !found.Expires.IsZero() && !found.Expires.After(now):
		return false
	}
	routed := s.route(p, found)
	if len(routed) == 0 {
		return false
	}
	switch err := s.establish(p, v, found, routed, made, now); {
	case errors.Is(err, ErrRecordExists): // another request was faster
		return false
	case err != nil:
		s.importFailed(p, made, err)
		return false
	}
	switch {
	case found.Forget == nil:
	case p.sealer != nil && (p.sealer.encrypts || !p.ScriptReadable):
		p.rec.legacy.old = stray{cookie: v.cookie, value: v.value, why: errMalformed}
	default:
		if err := s.letForget(p, found); err != nil {
			s.notForgotten(p, err)
		}
	}
	return true
}

// outside calls f, which calls an importer. All calls of importers by a request share one Timeout. What has not
// returned by then is abandoned.
func (s *Session) outside(p *part, f func(ctx context.Context)) error {
	s.mu.Lock()
	left := s.m.timeout - time.Duration(s.spent)*time.Microsecond
	s.mu.Unlock()
	if left <= 0 {
		return context.DeadlineExceeded
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), left)
	defer cancel()
	err := p.imports.loose.within(ctx, func() { f(ctx) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent += uint32(min(time.Since(start).Microseconds(), math.MaxUint32-int64(s.spent)))
	return err
}

// ask asks the importers in turn. The call has the time that it took, for events.
func (s *Session) ask(p *part, v *stray) (found *Imported, made *call, err error) {
	start := time.Now()
	err = ErrNoRecord
	for _, i := range p.imports.sources {
		if i.cookie == v.cookie && errors.Is(err, ErrNoRecord) {
			found, err = s.askOne(p, i, v)
		}
	}
	return found, &call{part: p, began: start.UnixNano(), took: time.Since(start)}, err
}

// askOne asks one importer. It completes v: with the id of the session, and with its newest value.
func (s *Session) askOne(p *part, i source, v *stray) (*Imported, error) {
	var found *Imported
	var same stray
	var failed error
	cookie, value := v.cookie, v.value
	texts := append([]candidate{{value, 0}}, p.chunks...)
	err := s.outside(p, func(ctx context.Context) {
		if f, ok := i.Importer.(*former); ok {
			found, same, failed = f.find(ctx, texts)
		} else {
			found, failed = i.Import(ctx, cookie, value)
		}
	})
	if err != nil { // it may not have returned yet
		return nil, err
	}
	v.id, v.value = cmp.Or(same.id, v.id), cmp.Or(same.value, v.value)
	if failed == nil && found == nil {
		return nil, errors.New("the importer returned neither a session nor an error")
	}
	return found, failed
}

// importFailed notes that it is unknown what a stray stands for. That logs nobody out.
func (s *Session) importFailed(p *part, made *call, err error) {
	if !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.err = &Error{Cookie: p.CookieName, Op: "import", Err: err}
	s.failed(p.cookie, EventImport, made, p.err)
	if p.Optional {
		s.warn("sessplus: a session could not be loaded, and its fields are absent", "cookie", p.CookieName, "error", p.err)
	}
}

// notImported is why a cookie is rejected whose session no importer knows.
type notImported struct{ form, importer error }

func (e *notImported) Error() string { return e.form.Error() + "; " + e.importer.Error() }

func (e *notImported) Unwrap() error { return e.form }

// route encodes the fields of an imported session, by the index of the cookie that owns them. What nobody owns, or
// cannot be read or encoded, is dropped, and named in the log once.
func (s *Session) route(p *part, found *Imported) map[int][]RawField {
	routed := make(map[int][]RawField)
	reasons := make(map[string]string)
	for name, value := range found.Fields {
		data, err := s.encodeImported(name, value)
		if err != nil {
			reasons[name] = quote(name) + ": " + reasonOf(err)
			continue
		}
		for _, i := range s.m.routes.owners(name) {
			routed[i] = append(routed[i], RawField{name, data})
		}
	}
	if lost := s.m.dropped.add(p.index, slices.Sorted(maps.Keys(reasons))); len(lost) > 0 {
		why := make([]string, len(lost))
		for i, name := range lost {
			why[i] = reasons[name]
		}
		s.warn("sessplus: an imported session has fields that were dropped", "cookie", p.CookieName, "fields", lost, "reasons", why)
	}
	return routed
}

// encodeImported encodes the value of a field of an imported session.
func (s *Session) encodeImported(name string, value any) ([]byte, error) {
	switch value := value.(type) {
	case error:
		return nil, value
	case encodedValue:
		_, err := s.encode(name, nil) // the name
		return value, err
	}
	return s.encode(name, value)
}

// reasonOf is what an error says of a field that was not imported.
func reasonOf(err error) string {
	if f := (*fieldError)(nil); errors.As(err, &f) {
		return f.reason
	}
	return err.Error()
}

// feeders adds to the list the cookies that must be loaded before others, because they may have fields of theirs.
func (s *Session) feeders(indexes []int) []int {
	all := indexes
	for i := range s.parts {
		if p := &s.parts[i]; p.state == unloaded && p.comes() && !slices.Contains(all, i) {
			all = append(slices.Clip(all), i)
		}
	}
	if s.m.adopting {
		all = s.withAdoptions(all)
	}
	return all
}

// dropOld adds the lines that make the browser drop the former cookies under other names.
func (p *part) dropOld(lines []string, now time.Time, tls bool) []string {
	if p.arrivals == nil {
		return lines
	}
	for _, name := range p.old {
		c := p.cookie
		for _, s := range p.imports.sources {
			if f, ok := s.Importer.(*former); ok && f.m != nil && (name == s.cookie || strings.HasPrefix(name, s.cookie+".")) {
				c = f.m.cookies[0] // as it was set
			}
		}
		lines = append(lines, c.setCookie(name, "", -1, now, tls))
	}
	return lines
}
