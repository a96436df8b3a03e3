package sessplus_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

// A session that its visitor never sends back is a mistake in the config, which is told once.
func TestSessionMadeOutsideOfItsPathIsLogged(t *testing.T) {
	t.Parallel()
	const message = "outside of its Path"
	for _, c := range []struct {
		path, target string
		want         int
	}{
		{"/", "/", 0}, {"/", "/a/b", 0}, {"", "/a", 0},
		{"/app", "/app", 0}, {"/app", "/app/", 0}, {"/app", "/app/x?y=/z", 0}, {"/app/", "/app/x", 0}, {"/app", "/app?x", 0},
		{"/a%20b", "/a%20b/c", 0},
		{"/app", "/", 1}, {"/app", "/application", 1}, {"/app/", "/app", 1}, {"/app", "/App", 1}, {"/app", "/x/app", 1}, {"/app", "/x?/app", 1},
	} {
		for _, b := range []sessplus.Backend{sessplus.Memory(), nil} {
			for _, stripped := range []bool{false, true} {
				var j journal
				m := newManager(t, j.options(0),
					sessplus.Config{CookieName: "k", Backend: b, Path: c.path, Fields: sessplus.Include("n")},
					sessplus.Config{CookieName: "rest"})
				s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
					if h = m.Handler(h); stripped { // the browser's path is the one that counts
						h = http.StripPrefix("/", h)
					}
					return h
				})
				visit := func(f func(*sessplus.Session)) {
					req, _ := http.NewRequest("GET", s.URL+c.target, nil)
					s.send(s.client, req, func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
				}
				visit(func(s *sessplus.Session) { s.Get("n") })
				if got := j.warnings(message); got > 0 {
					t.Errorf("Path %q, %s: %d warnings of a session that was not made", c.path, c.target, got)
				}
				for range 2 {
					s.client.Jar = s.visitor().Jar
					visit(func(s *sessplus.Session) {
						s.Set("n", 1)
						s.Set("m", 1)
					})
				}
				if got := j.warnings(message); got != c.want || j.warnings("cookie=k") < c.want {
					t.Errorf("Path %q, %s: %d warnings, want %d: %s", c.path, c.target, got, c.want, j.text())
				}
				if strings.Contains(j.text(), "cookie=rest") {
					t.Errorf("the log: %s", j.text())
				}
			}
		}
	}
}

// A login page outside of the Path may well change a session that the visitor has from inside of it.
func TestChangeOfASessionIsNoCreate(t *testing.T) {
	t.Parallel()
	var j journal
	m := newManager(t, j.options(0), sessplus.Config{CookieName: "k", Backend: sessplus.Memory(), Path: "/app"})
	s := newSiteOn(t, "HTTP/1.1", m.Handler)
	visit := func(path, cookie string, f func(*sessplus.Session)) *reply {
		req, _ := http.NewRequest("GET", s.URL+path, nil)
		req.Header.Set("Cookie", cookie)
		return s.send(&http.Client{}, req, func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
	}
	made := visit("/app", "", func(s *sessplus.Session) { s.Set("n", 1) })
	cookie, _, _ := strings.Cut(made.setCookies("k")[0], ";")
	visit("/login", cookie, func(s *sessplus.Session) { s.Renew() })
	if text := j.text(); strings.Contains(text, "WARN") {
		t.Errorf("the log: %s", text)
	}
}
