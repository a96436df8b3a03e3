package sessplus_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A framework has a context and a writer of its own, as fasthttp or a binding for another language has: its handlers
// never see an http.ResponseWriter that was wrapped, and its answer goes out when they have returned.
type framework struct {
	m *sessplus.Manager
	h func(c *frameContext) error
}

type frameContext struct {
	s      *sessplus.Session
	r      *http.Request
	status int
	header http.Header
	body   bytes.Buffer
}

func (c *frameContext) Header() http.Header         { return c.header }
func (c *frameContext) WriteHeader(status int)      { c.status = status }
func (c *frameContext) Write(b []byte) (int, error) { return c.body.Write(b) }

func (f *framework) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &frameContext{status: 200, header: make(http.Header)}
	var err error
	if c.s, c.r, err = f.m.Load(c, r); err == nil {
		if err = f.h(c); err == nil {
			err = c.s.Save()
		}
	}
	if err != nil {
		c.status = 500
		if errors.Is(err, sessplus.ErrUnavailable) {
			c.status = 503
		}
	}
	for name, values := range c.header {
		w.Header()[name] = values
	}
	w.WriteHeader(c.status)
	w.Write(c.body.Bytes())
}

// SPEC 11.1: a framework that the middleware cannot be put around.
func TestLoadForAFramework(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		m := newManager(t, nil,
			sessplus.Config{CookieName: "session", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "data", Fields: sessplus.Auto(), BoundTo: "session"})
		f := &framework{m: m}
		srv := httptest.NewServer(f)
		t.Cleanup(srv.Close)
		jar, _ := cookiejar.New(nil)
		client := &http.Client{Jar: jar}
		visit := func(h func(c *frameContext) error) *http.Response {
			t.Helper()
			f.h = h
			res, err := client.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res
		}
		if res := visit(func(c *frameContext) error { return nil }); len(res.Cookies()) > 0 || res.Header.Get("Vary") != "" {
			t.Errorf("a request that does not use the session: %v", res.Header)
		}
		res := visit(func(c *frameContext) error {
			if sessplus.Get(c.r) != c.s || m.Get(c.r) != c.s {
				t.Error("the request does not carry the session")
			}
			c.s.Renew()
			c.s.Set("user", "ann")
			c.s.Set("color", "blue")
			return nil
		})
		if len(res.Cookies()) != 2 || res.Header.Get("Vary") != "Cookie" || res.Header.Get("Cache-Control") != "private, no-cache" {
			t.Errorf("the answer to a login: %v", res.Header)
		}
		visit(func(c *frameContext) error {
			if got := c.s.GetString("user") + c.s.GetString("color"); got != "annblue" {
				t.Errorf("the next request sees %q", got)
			}
			c.s.Set("user", "nobody")
			return errors.New("a handler that fails")
		})
		visit(func(c *frameContext) error {
			if got := c.s.GetString("user"); got != "ann" {
				t.Errorf("user = %q: something was saved without Save", got)
			}
			c.s.Destroy()
			return nil
		})
		u, _ := url.Parse(srv.URL)
		if left := jar.Cookies(u); len(left) > 0 {
			t.Errorf("after a logout the browser has %v", left)
		}
	})
}

// SPEC 11.1: Save is the commit; afterwards it is as after the headers.
func TestLoadSavesOnce(t *testing.T) {
	t.Parallel()
	m := newManager(t, nil, sessplus.Config{CookieName: "session", Backend: sessplus.Memory(), Fields: sessplus.Include("a", "b")},
		sessplus.Config{CookieName: "data", Fields: sessplus.Include("c")})
	w := httptest.NewRecorder()
	s, r, err := m.Load(w, httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	if again, _, _ := m.Load(w, r); again != s {
		t.Error("Load of a request that was loaded gives another session")
	}
	s.Set("a", 1)
	if err := s.Save(); err != nil || len(w.Header()["Set-Cookie"]) != 1 {
		t.Fatalf("Save: %v, %q", err, w.Header())
	}
	s.Set("b", 2)
	if err := s.Save(); err != nil || len(w.Header()["Set-Cookie"]) != 1 {
		t.Errorf("a second Save: %v, %q", err, w.Header())
	}
	s.Set("c", 3)
	if err := s.Save(); !errors.Is(err, sessplus.ErrHeadersSent) {
		t.Errorf("a Save that needs a Set-Cookie now: %v, want ErrHeadersSent", err)
	}
	back := httptest.NewRequest("GET", "/", nil)
	back.Header.Set("Cookie", w.Result().Cookies()[0].String())
	s, _, err = m.Load(nil, back) // its response has begun
	if err != nil || s.GetInt("a") != 1 || s.GetInt("b") != 2 {
		t.Errorf("Load without a writer: a = %v, b = %v, %v", s.Get("a"), s.Get("b"), err)
	}
	s.Set("b", 4)
	err1 := s.Save()
	s.Renew()
	s.Set("a", 5)
	if err2 := s.Save(); err1 != nil || !errors.Is(err2, sessplus.ErrHeadersSent) {
		t.Errorf("Save without a writer: %v, and after Renew %v, want ErrHeadersSent", err1, err2)
	}
	// behind the middleware there is one session, and one commit
	site := newSite(t, m)
	if res := site.visit(func(w http.ResponseWriter, r *http.Request) {
		s, _, err := m.Load(w, r)
		if err != nil || s != sessplus.Get(r) {
			t.Errorf("Load behind the middleware gives another session, %v", err)
		}
		s.Set("a", 1)
		s.Save()
		s.Set("c", 1)
	}); len(res.Cookies()) != 2 {
		t.Errorf("behind the middleware: %q", res.Header["Set-Cookie"])
	}
}

// SPEC 11.1, 6.1: an outage is no logged-out visitor, and what was not saved can be saved later.
func TestLoadInAnOutage(t *testing.T) {
	f, _ := redisBehindProxy(t)
	m := newManager(t, &sessplus.Options{Timeout: 200 * time.Millisecond}, sessplus.Config{CookieName: "session", Backend: f.backend})
	w := httptest.NewRecorder()
	s, _, err := m.Load(w, httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	f.proxy.set(proxyHang)
	f.proxy.cut()
	s.Set("a", 1)
	w.Header().Set("Content-Type", "text/plain")
	if err := s.Save(); !errors.Is(err, sessplus.ErrUnavailable) || fmt.Sprint(w.Header()["Set-Cookie"]) != "[]" || w.Header().Get("Content-Type") == "" {
		t.Errorf("Save while Redis is down: %v, %v", err, w.Header())
	}
	f.proxy.set(proxyServe)
	f.proxy.cut()
	// Not at once: a busy machine may need longer than the Timeout.
	servers.WaitFor(t, "Save when it is back", 10*time.Second, func() bool { return s.Save() == nil })
	if len(w.Header()["Set-Cookie"]) != 1 {
		t.Fatalf("Save when it is back: %v", w.Header())
	}
	f.proxy.set(proxyHang)
	f.proxy.cut()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", w.Result().Cookies()[0].String())
	if s, _, err := m.Load(w, r); !errors.Is(err, sessplus.ErrUnavailable) || s != nil {
		t.Errorf("Load while Redis is down: %v, %v", s, err)
	}
}

func TestMust(t *testing.T) {
	t.Parallel()
	if sessplus.Must(sessplus.New(nil, &sessplus.Options{Keys: testKeys})) == nil {
		t.Error("Must returns nil")
	}
	defer func() {
		if recover() == nil {
			t.Error("Must does not panic")
		}
	}()
	sessplus.Must(sessplus.New(nil, nil)) // which needs keys
}
