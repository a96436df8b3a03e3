package sessplus_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

var testKeys = []sessplus.KeyPair{sessplus.DeriveKeyPair([]byte("a secret of thirty-two bytes or more"))}

// newManager fails the test if the configs are refused. Keys and a silent Logger are filled in where opts has none.
func newManager(t testing.TB, opts *sessplus.Options, configs ...sessplus.Config) *sessplus.Manager {
	t.Helper()
	var o sessplus.Options
	if opts != nil {
		o = *opts
	}
	if o.Keys == nil {
		o.Keys = testKeys
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := sessplus.New(configs, &o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

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
	s := &site{TB: t, do: make(chan http.HandlerFunc, 1)}
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (<-s.do)(w, r) })
	for i := len(managers) - 1; i >= 0; i-- {
		h = managers[i].Handler(h)
	}
	s.Server = httptest.NewServer(h)
	t.Cleanup(s.Close)
	s.client = s.visitor()
	return s
}

// visitor returns the client of a new browser, with an empty jar.
func (s *site) visitor() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// A reply is a response, with its body read.
type reply struct {
	*http.Response
	body string
}

// visit makes a request of the site's own browser, which h handles. If the middleware answers instead of h, h is dropped.
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

// visiting gives a function that makes a request in this process: from a visitor for whom first has been done, or from a
// new one.
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

// stepName is what tests call a step of Backend.End.
func stepName(e *sessplus.Ending) string {
	switch {
	case e.Step == sessplus.StepTake:
		return "take"
	case e.Step == sessplus.StepRelease:
		return "release"
	case e.Token == "":
		return "delete"
	}
	return "end"
}
