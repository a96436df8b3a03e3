package sessplus_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

func rawAsk(c *crowd, cookies string, f func(*sessplus.Session)) *reply {
	n := fmt.Sprint(c.count.Add(1))
	c.handlers.Store(n, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) }))
	req, _ := http.NewRequest("GET", c.URL+"/?n="+n, nil)
	req.Header.Set("Cookie", cookies)
	res, err := c.Server.Client().Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return &reply{res, string(body)}
}

// SPEC 5.9, SPEC 11.1: Saves of a loaded session: twice, failed and repeated.
func TestTwoSavesOfALoad(t *testing.T) {
	f, _ := redisBehindProxy(t)
	{
		m := newManager(t, &sessplus.Options{Timeout: 300 * time.Millisecond}, sessplus.Config{CookieName: "s", Backend: f.backend, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "c", Fields: sessplus.Include("token")})
		rec := httptest.NewRecorder()
		s, _, err := m.Load(rec, httptest.NewRequest("GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		s.Set("user", "ann")
		s.Set("token", "t")
		if err := s.Save(); err != nil {
			t.Fatal(err)
		}
		s.Set("user", "bob")
		if err := s.Save(); err != nil {
			t.Error(err)
		}
		names(t, rec, "c s")
		req := httptest.NewRequest("GET", "/", nil)
		for _, k := range rec.Result().Cookies() {
			req.AddCookie(k)
		}
		rec = httptest.NewRecorder()
		s, _, err = m.Load(rec, req)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.GetString("user"); got != "bob" {
			t.Errorf("user = %q", got)
		}
		s.Destroy("s")
		s.Set("user", "carl")
		f.proxy.set(proxyRefuse)
		f.proxy.cut()
		if err := s.Save(); err == nil {
			t.Error("a Save without a backend succeeded")
		}
		f.proxy.set(proxyServe)
		if err := s.Save(); err != nil {
			t.Error(err)
		}
		names(t, rec, "s")
	}
}

func names(t *testing.T, rec *httptest.ResponseRecorder, want string) {
	t.Helper()
	var got []string
	for _, line := range rec.Header()["Set-Cookie"] {
		name, _, _ := strings.Cut(line, "=")
		got = append(got, name)
	}
	slices.Sort(got)
	if strings.Join(got, " ") != want {
		t.Errorf("Set-Cookie of %v, want %s", got, want)
	}
}

// SPEC 5.11, SPEC 11.1: a Handler behind a Load of the same Manager.
func TestHandlerBehindLoad(t *testing.T) {
	t.Parallel()
	m := newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Memory()})
	inner := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("user", "ann")
		w.WriteHeader(200)
	}))
	rec := httptest.NewRecorder()
	_, r, err := m.Load(rec, httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	inner.ServeHTTP(rec, r)
	if got := rec.Header()["Set-Cookie"]; len(got) != 1 {
		t.Errorf("Set-Cookie = %q; what the handler has set is lost without a word", got)
	}
}
