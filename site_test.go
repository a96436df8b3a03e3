package sessplus_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// A site is a real server whose handlers the test gives request by request, and a browser's cookie jar.
type site struct {
	testing.TB
	*httptest.Server
	client *http.Client
	do     chan http.HandlerFunc
}

// newSite serves behind the middleware of m, or of several from the outermost to the innermost.
func newSite(t testing.TB, managers ...*sessplus.Manager) *site {
	t.Helper()
	return newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		for _, m := range slices.Backward(managers) {
			h = m.Handler(h)
		}
		return h
	})
}

// newSiteOn is newSite for "HTTP/1.1" or "HTTP/2", with any middleware.
func newSiteOn(t testing.TB, proto string, wrap func(http.Handler) http.Handler) *site {
	t.Helper()
	s := &site{TB: t, do: make(chan http.HandlerFunc, 1)}
	s.serve(wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (<-s.do)(w, r) })), proto == "HTTP/2")
	return s
}

// serve starts the server of the site, whose goroutines can then be told from those of other tests.
func (s *site) serve(h http.Handler, http2 bool) {
	s.Server = httptest.NewUnstartedServer(h)
	s.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("test", s.Name())))
	if s.EnableHTTP2 = http2; http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	s.Server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 100 // a crowd would dial for most requests
	s.Cleanup(s.Close)
	s.client = s.visitor()
}

// visitor returns the client of a new browser, with an empty jar.
func (s *site) visitor() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &http.Client{Transport: s.Server.Client().Transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// A reply is a response, with its body read.
type reply struct {
	*http.Response
	body string
}

// visit makes a request of the site's own browser, which h handles. If the middleware answers instead of h, h is
// dropped.
func (s *site) visit(h http.HandlerFunc) *reply {
	s.Helper()
	return s.visitAs(s.client, h)
}

// visitAs is visit for another browser.
func (s *site) visitAs(c *http.Client, h http.HandlerFunc) *reply {
	s.Helper()
	req, err := http.NewRequest("GET", s.URL, nil)
	if err != nil {
		s.Fatal(err)
	}
	return s.send(c, req, h)
}

// send makes the request, which h handles. One request at a time.
func (s *site) send(c *http.Client, req *http.Request, h http.HandlerFunc) *reply {
	s.Helper()
	s.do <- h
	if c.Transport == nil { // whoever closes a test server closes the idle connections of the default one
		c = &http.Client{Transport: s.Server.Client().Transport, Jar: c.Jar, CheckRedirect: c.CheckRedirect}
	}
	res, err := c.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	select { // what the middleware did not let through
	case <-s.do:
	default:
	}
	return &reply{res, string(body)}
}

// with visits with a function of the session.
func (s *site) with(f func(*sessplus.Session)) *reply {
	s.Helper()
	return s.visit(func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
}

// jar returns the cookies that a browser would send to the site, by name.
func (s *site) jar(c *http.Client) map[string]string {
	u, err := url.Parse(s.URL)
	if err != nil {
		s.Fatal(err)
	}
	all := make(map[string]string)
	for _, k := range c.Jar.Cookies(u) {
		all[k.Name] = k.Value
	}
	return all
}

// setCookies returns the Set-Cookie lines of a response for the name.
func (r *reply) setCookies(name string) []string {
	var lines []string
	for _, line := range r.Header.Values("Set-Cookie") {
		if strings.HasPrefix(line, name+"=") {
			lines = append(lines, line)
		}
	}
	return lines
}

// visiting gives a function that makes a request in this process: from a visitor for whom first has been done, or from
// a new one.
func visiting(t testing.TB, m *sessplus.Manager, first, f func(*sessplus.Session)) func() {
	do := first
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do(sessplus.Get(r))
		w.WriteHeader(http.StatusNoContent)
	}))
	r := httptest.NewRequest("GET", "/", nil)
	if first != nil {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		for _, k := range rec.Result().Cookies() {
			r.AddCookie(k)
		}
	}
	do = f
	w := &discard{header: make(http.Header)}
	return func() {
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != http.StatusNoContent {
			t.Fatalf("status %d", w.status)
		}
	}
}

// through is the site's browser at another program, whose manager has these configs.
func (s *site) through(configs ...sessplus.Config) *site {
	s.Helper()
	other := newSite(s.TB, newManager(s.TB, nil, configs...))
	other.client = s.client // a jar does not tell ports apart
	return other
}

// fields returns what the next request of the site's browser sees, by the names of its fields.
func (s *site) fields() map[string]any {
	s.Helper()
	all := make(map[string]any)
	r := s.with(func(s *sessplus.Session) {
		for _, name := range s.Fields() {
			all[name] = s.Get(name)
		}
	})
	if r.StatusCode != http.StatusOK {
		s.Fatalf("status = %d (%s), want 200", r.StatusCode, r.body)
	}
	return all
}

// setCookie returns the cookie that a response sets, or nil.
func setCookie(t testing.TB, r *reply, name string) *http.Cookie {
	t.Helper()
	lines := r.setCookies(name)
	if len(lines) == 0 {
		return nil
	}
	if len(lines) > 1 {
		t.Errorf("Set-Cookie = %q, want one of each name", lines)
	}
	k, err := http.ParseSetCookie(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// wantMaxAge fails unless the response sets the cookie with a Max-Age of about want and an Expires that says the same;
// zero stands for neither, negative for no cookie at all.
func wantMaxAge(t *testing.T, what string, r *reply, want time.Duration) {
	t.Helper()
	k := setCookie(t, r, "sid")
	if k == nil || want < 0 {
		if k != nil || want >= 0 {
			t.Errorf("%s: Set-Cookie = %v, want Max-Age %v (negative: no cookie)", what, k, want)
		}
		return
	}
	got := time.Duration(k.MaxAge) * time.Second
	const slack = 30 * time.Second
	if want == 0 && (k.MaxAge != 0 || !k.Expires.IsZero()) || want > 0 && (got > want || got < want-slack) {
		t.Errorf("%s: Set-Cookie = %v, want Max-Age %v", what, k, want)
	}
	if want > 0 && time.Until(k.Expires).Abs() > got+2*time.Second || want > 0 && time.Until(k.Expires) < got-slack {
		t.Errorf("%s: Set-Cookie = %v, want an Expires that says the same as Max-Age", what, k)
	}
}

// dropsCookie reports whether the response makes the browser drop the cookie.
func dropsCookie(t *testing.T, r *reply, name string) bool {
	t.Helper()
	k := setCookie(t, r, name)
	return k != nil && k.MaxAge < 0 && k.Value == "" && k.Expires.Before(time.Now().Add(-time.Hour))
}

// post makes a request that no client repeats, and returns the error of the round trip.
func (s *site) post(h http.HandlerFunc) (*http.Response, error) {
	s.Helper()
	s.do <- h
	res, err := s.client.Post(s.URL, "text/plain", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res, err
}

const cookieLimit = 4096 // of name and value together

// sizes returns name and value of each Set-Cookie that sets one, by name.
func (r *reply) sizes() map[string]int {
	m := make(map[string]int)
	for _, k := range r.Cookies() {
		if k.MaxAge >= 0 {
			m[k.Name] = len(k.Name) + len(k.Value)
		}
	}
	return m
}

// answerTo makes a request with exactly these cookies, as "name=value" texts, and returns what the handler f answers.
func (s *site) answerTo(f func(*sessplus.Session) string, cookies ...string) *reply {
	s.Helper()
	req, err := http.NewRequest("GET", s.URL, nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, c := range cookies {
		req.Header.Add("Cookie", c)
	}
	return s.send(&http.Client{}, req, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, f(sessplus.Get(r))) })
}

// bring makes a request with that Cookie header and no jar.
func (s *site) bring(cookies string, f func(*sessplus.Session)) *reply {
	s.Helper()
	return s.answerTo(func(s *sessplus.Session) string {
		f(s)
		return ""
	}, cookies)
}

func readA(s *sessplus.Session) string { return s.GetString("a") }
