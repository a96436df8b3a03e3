package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// FuzzWriter plays handlers against a real server, and compares what they do with a model of SPEC 5.1, 5.5, 5.6 and
// 5.9. The first byte says what the visitor brings, each other one is a step.
func FuzzWriter(f *testing.F) {
	for _, steps := range writerSeeds {
		for visitor := range byte(8) {
			f.Add(append([]byte{visitor}, writerScript(steps)...))
		}
	}
	m := newManager(f, nil,
		sessplus.Config{CookieName: "sid", Backend: sessplus.Memory(), Fields: sessplus.Include("a", "b"), Lifetime: time.Minute},
		sessplus.Config{CookieName: "sec", Fields: sessplus.Include("c")})
	ended := make(chan struct{}, 1)
	s := newSiteOn(f, "HTTP/1.1", func(h http.Handler) http.Handler { return notifyEnd(ended)(m.Handler(h)) })
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 || len(script) > 40 {
			t.Skip()
		}
		v := *s
		v.TB = t
		p := &writerPlay{T: t, site: &v, ended: ended}
		p.run(script[0], script[1:])
	})
}

// The steps of a handler, in the order of their bytes.
var writerSteps = []string{
	"status 100", "status 103", "status 200", "status 204", "status 302", "status 404", "status 500", "status 503",
	"Write", "WriteString", "ReadFrom", "Flush", "Hijack",
	"set a", "set b", "set c", "reset a", "reset c", "delete a", "delete b", "delete c",
	"Save", "Destroy", "Destroy sid", "Destroy sec", "Renew", "Renew sid", "Renew sec", "panic",
}

var writerSeeds = []string{
	"", "set a", "set a,set c,Write", "status 103,set a,status 200", "status 100,set c,Flush", "set a,status 500", "set a,Save,set a,status 503",
	"set a,Save,panic", "set a,set c,panic", "Write,set a", "Write,set c,Save", "Write,Renew,Save", "Write,Destroy,set a", "Write,Destroy",
	"Destroy,set a,set c", "set a,Save,Destroy,set a,Save", "delete a,delete b,Save,set a", "delete a,delete b,Write,set b,Save",
	"Renew,Save,Renew,ReadFrom", "set a,Hijack,set b", "Write,Hijack", "status 302,Write", "status 204,set a,Save", "set a,reset a,set c,reset c",
	"set b,Flush,delete b,Save,set b", "set b,Flush,delete b,Save,set b,Save", "status 500,set a,Save", "Destroy,Write,Destroy,Save", "WriteString,panic", "set c,Save,delete c",
	"Renew,status 500,Save", "status 503,Renew sid,delete b,Save", "Write,Renew sid,delete b,Save", "Destroy,status 503", "delete c,Save,Destroy,status 503,Save", "set a,status 404,set b,status 500",
}

func writerScript(steps string) (script []byte) {
	if steps == "" {
		return nil
	}
	for step := range strings.SplitSeq(steps, ",") {
		i := slices.Index(writerSteps, step)
		if i < 0 {
			panic("no step " + step)
		}
		script = append(script, byte(i))
	}
	return script
}

type writerFields map[string]string

// A writerPart is the model of one cookie.
type writerPart struct {
	sealed bool
	came   bool           // with the request
	now    writerFields   // what the handler sees
	saved  writerFields   // what is stored of it; nil: no session
	header string         // what the response does to the cookie: "", "set" or "drop"
	renew  bool           // asked for
	expire bool           // asked for by Destroy
	ended  []int          // records to remove
	stores []writerFields // of a server-side cookie: every record there was, nil when it is gone
	cur    int            // of stores
}

// has reports whether the browser has the cookie once the headers go as they are.
func (p *writerPart) has() bool { return p.header == "set" || p.came && p.header == "" }

func (p *writerPart) destroy() {
	if p.saved != nil && !p.sealed {
		p.ended = append(p.ended, p.cur)
	}
	p.now, p.saved, p.renew, p.expire = writerFields{}, nil, false, p.has()
}

// commit saves, and reports whether it was too late for that.
func (p *writerPart) commit(late bool) (tooLate bool) {
	for _, i := range p.ended {
		p.stores[i] = nil
	}
	p.ended = nil
	changed := !maps.Equal(p.now, p.saved)
	create := len(p.now) > 0 && (p.saved == nil || p.renew) // of a secure cookie: write
	switch {
	case p.sealed && (changed || create || p.expire):
		if late {
			p.renew = false
			return true
		}
	case create && late:
		return true // after a renewal no change goes into the record from before it
	case create:
	case changed:
		if late && !p.has() {
			return true
		}
	case !p.expire:
		return false
	}
	if !late {
		switch {
		case len(p.now) == 0 && p.came:
			p.header = "drop"
		case len(p.now) == 0:
			p.header = ""
		case create || p.sealed || len(p.saved) == 0:
			p.header = "set"
		}
		p.expire = false
	}
	switch {
	case create:
		if p.saved != nil && !p.sealed {
			p.stores[p.cur] = nil
		}
		p.cur, p.renew = len(p.stores), false
		p.stores = append(p.stores, nil)
	case !changed:
		return tooLate
	}
	p.saved = maps.Clone(p.now)
	p.stores[p.cur] = p.saved
	return tooLate
}

// A writerPlay is one request, and its model.
type writerPlay struct {
	*testing.T
	site  *site
	ended chan struct{}

	sid, sec writerPart
	status   int
	sent     bool // the headers have gone
	rejected bool // with a status of 500 or more
	hijacked bool
	panicked bool
	steps    []string
}

func (p *writerPlay) parts() []*writerPart { return []*writerPart{&p.sid, &p.sec} }

// answer is what the model does before the headers go.
func (p *writerPlay) answer(status int) {
	if p.sent {
		return
	}
	p.sent, p.status = true, status
	if p.rejected = status >= 500; !p.rejected {
		p.save(false)
	}
}

func (p *writerPlay) save(late bool) (tooLate bool) {
	for _, part := range p.parts() {
		tooLate = part.commit(late) || tooLate
	}
	return tooLate
}

// request makes one with these cookies, and returns the response and the handler's session once it has ended.
func (p *writerPlay) request(cookies string, h http.HandlerFunc) (*http.Response, *sessplus.Session) {
	var sess *sessplus.Session
	p.site.do <- func(w http.ResponseWriter, r *http.Request) {
		sess = sessplus.Get(r)
		h(w, r)
	}
	trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "POST", p.site.URL, nil)
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Cookie", cookies)
	req.Close = true // a handler may end the connection, and no later request shall meet that
	client := http.Client{Transport: p.site.client.Transport, CheckRedirect: p.site.client.CheckRedirect}
	res, err := client.Do(req)
	<-p.ended
	if err != nil {
		return nil, sess
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res, sess
}

// fields returns what a request with these cookies sees.
func (p *writerPlay) fields(cookies string) writerFields {
	seen := writerFields{}
	p.request(cookies, func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		for _, name := range s.Fields() {
			seen[name] = s.GetString(name)
		}
	})
	return seen
}

func (p *writerPlay) run(visitor byte, script []byte) {
	p.sec.sealed = true
	p.sid.now, p.sec.now = writerFields{}, writerFields{}
	for bit, name := range []string{"a", "b", "c"} {
		part := &p.sid
		if name == "c" {
			part = &p.sec
		}
		if visitor>>bit&1 == 1 {
			part.came, part.now[name] = true, "0"
		}
	}
	var cookies []string
	if p.sid.came || p.sec.came {
		res, _ := p.request("", func(_ http.ResponseWriter, r *http.Request) {
			for _, part := range p.parts() {
				for name, value := range part.now {
					sessplus.Get(r).Set(name, value)
				}
			}
		})
		for _, k := range res.Cookies() {
			cookies = append(cookies, k.Name+"="+k.Value)
		}
	}
	for _, part := range p.parts() {
		if part.came {
			part.saved = maps.Clone(part.now)
			part.stores = []writerFields{part.saved}
		}
	}
	res, sess := p.request(strings.Join(cookies, "; "), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "own=1")
		for i, b := range script {
			p.step(w, sessplus.Get(r), writerSteps[int(b)%len(writerSteps)], fmt.Sprint(i+1))
		}
	})
	if !p.panicked {
		p.answer(200)
		if !p.rejected {
			p.save(true)
		}
	}
	p.check(res, sess, cookies)
	if p.Failed() {
		p.Logf("visitor %03b (c, b, a), the handler does %q", visitor&7, p.steps)
	}
}

// step does one step, and the model with it.
func (p *writerPlay) step(w http.ResponseWriter, s *sessplus.Session, step, value string) {
	verb, arg, _ := strings.Cut(step, " ")
	response := strings.Contains("status Write WriteString ReadFrom Flush Hijack", verb)
	if response && p.hijacked {
		return
	}
	p.steps = append(p.steps, step)
	var part *writerPart
	switch {
	case arg == "a" || arg == "b":
		part = &p.sid
	case arg == "c":
		part = &p.sec
	}
	switch verb {
	case "status":
		var code int
		fmt.Sscan(arg, &code)
		w.WriteHeader(code)
		if code >= 200 {
			p.answer(code)
		}
	case "Write":
		w.Write([]byte("x"))
		p.answer(200)
	case "WriteString":
		io.WriteString(w, "x")
		p.answer(200)
	case "ReadFrom":
		io.Copy(w, plainReader{strings.NewReader("x")})
		p.answer(200)
	case "Flush":
		w.(http.Flusher).Flush()
		p.answer(200)
	case "Hijack":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			p.Errorf("Hijack: %v", err)
			return
		}
		p.hijacked = true
		if p.sent {
			conn.Close()
			return
		}
		writeRaw(w, conn, "200 OK")
		p.answer(200)
	case "set", "reset":
		if verb == "reset" {
			value = "0"
		}
		s.Set(arg, value)
		part.now[arg] = value
	case "delete":
		s.Delete(arg)
		delete(part.now, arg)
	case "Save":
		err := s.Save()
		switch want := p.save(p.sent); {
		case want && !errors.Is(err, sessplus.ErrHeadersSent):
			p.Errorf("Save() = %v, want ErrHeadersSent", err)
		case !want && err != nil:
			p.Errorf("Save() = %v, want nil", err)
		}
	case "Destroy", "Renew":
		var names []string
		if arg != "" {
			names = []string{arg}
		}
		for i, part := range p.parts() {
			switch {
			case arg != "" && arg != []string{"sid", "sec"}[i]:
			case verb == "Destroy":
				part.destroy()
			default:
				part.renew = true
			}
		}
		if verb == "Destroy" {
			s.Destroy(names...)
		} else {
			s.Renew(names...)
		}
	case "panic":
		p.panicked = true
		panic(http.ErrAbortHandler)
	}
}

// check compares the response, and what is stored, with the model.
func (p *writerPlay) check(res *http.Response, sess *sessplus.Session, cookies []string) {
	if res == nil {
		if !p.panicked {
			p.Error("the request has no answer")
		}
	} else {
		p.checkResponse(res)
	}
	if p.sid.came {
		want := p.sid.stores[0]
		if got := p.fields(cookies[slices.IndexFunc(cookies, func(c string) bool { return strings.HasPrefix(c, "sid=") })]); !maps.Equal(got, want) {
			p.Errorf("under the id that came there is %v, want %v", got, want)
		}
	}
	if id := sess.ID("sid"); id != "" && p.sid.saved != nil {
		want := p.sid.stores[p.sid.cur]
		if got := p.fields("sid=" + id); !maps.Equal(got, want) {
			p.Errorf("under the last id there is %v, want %v", got, want)
		}
	} else if (id != "") != (p.sid.saved != nil) {
		p.Errorf("the session has an id: %t, want %t", id != "", p.sid.saved != nil)
	}
}

func (p *writerPlay) checkResponse(res *http.Response) {
	if res.StatusCode != p.status {
		p.Errorf("status %d, want %d", res.StatusCode, p.status)
	}
	lines := map[string][]*http.Cookie{}
	for _, k := range res.Cookies() {
		lines[k.Name] = append(lines[k.Name], k)
	}
	if len(lines["own"]) != 1 {
		p.Errorf("%d of the handler's own cookie, want 1", len(lines["own"]))
	}
	for i, name := range []string{"sid", "sec"} {
		part := p.parts()[i]
		got := ""
		for _, k := range lines[name] {
			if got += "set"; k.MaxAge < 0 {
				got = strings.TrimSuffix(got, "set") + "drop"
			}
		}
		if got != part.header {
			p.Errorf("Set-Cookie for %s: %q, want %q", name, got, part.header)
			continue
		}
		if got != "set" {
			continue
		}
		want := part.stores[len(part.stores)-1]
		if seen := p.fields(name + "=" + lines[name][0].Value); !maps.Equal(seen, want) {
			p.Errorf("the new cookie %s opens %v, want %v", name, seen, want)
		}
	}
}
