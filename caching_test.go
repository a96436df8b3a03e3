package sessplus_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// warnings counts the lines of the log that have this text.
func (j *journal) warnings(text string) (n int) {
	for line := range strings.Lines(j.text()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// SPEC 5.8: no shared cache keeps a response that sets a session, also when the handler says that it may.
func TestSharedCachesKeepNoSessionCookie(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		own  []string
		want string // "": as the handler has it
	}{
		{[]string{"public"}, "private"},
		{[]string{"PUBLIC, Max-Age=60"}, "private, Max-Age=60"},
		{[]string{"max-age=60, public, no-transform"}, "private, max-age=60, no-transform"},
		{[]string{"s-maxage=60"}, "private"},
		{[]string{"max-age=5", "S-MaxAge = 60 , must-revalidate"}, "private, max-age=5, must-revalidate"},
		{[]string{"", "public"}, "private"},
		{[]string{"private, public"}, "private"},
		{[]string{`private="x-a, public", public`}, "private"},
		{[]string{`no-cache="x-a, x-b" , ext="a\", public" , s-maxage=1`}, `private, no-cache="x-a, x-b", ext="a\", public"`},
		{[]string{"no-store"}, ""},
		{[]string{"max-age=60, x-public, public-key=1"}, ""},
		{[]string{`ext="public, s-maxage=60"`}, ""},
		{[]string{`no-cache="x`}, ""},
		{[]string{""}, "private, no-cache"},
		{[]string{"", ","}, "private, no-cache"},
	} {
		var j journal
		s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
		set := func(w http.ResponseWriter) { w.Header()["Cache-Control"] = slices.Clone(c.own) }
		plain := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sessplus.Get(r).Has("n")
			set(w)
		})
		if got := plain.Header.Values("Cache-Control"); !slices.Equal(got, c.own) || j.warnings("") > 0 {
			t.Errorf("without a cookie: Cache-Control %q and %d warnings, want the handler's %q and none", got, j.warnings(""), c.own)
		}
		for _, change := range []func(*sessplus.Session){func(s *sessplus.Session) { s.Set("n", 1) }, func(s *sessplus.Session) { s.Destroy() }} {
			before := j.warnings("")
			res := s.visit(func(w http.ResponseWriter, r *http.Request) {
				change(sessplus.Get(r))
				set(w)
			})
			want, warned := []string{c.want}, 1
			if c.want == "" {
				want = c.own
			}
			if c.want == "" || c.want == "private, no-cache" {
				warned = 0
			}
			if got := res.Header.Values("Cache-Control"); !slices.Equal(got, want) || len(res.setCookies("sid")) != 1 {
				t.Errorf("Cache-Control = %q of a response with %d session cookies, want %q in place of %q", got, len(res.setCookies("sid")), want, c.own)
			}
			if got := j.warnings("Cache-Control") - before; got != warned {
				t.Errorf("%d warnings about %q, want %d", got, c.own, warned)
			}
		}
	}
}

// SPEC 5.8: a page that reads the session when its headers have gone is not marked as personal, which is said.
func TestFirstReadAfterTheHeadersIsLogged(t *testing.T) {
	t.Parallel()
	reads := map[string]func(*sessplus.Session){
		"Get":    func(s *sessplus.Session) { s.Get("n") },
		"Has":    func(s *sessplus.Session) { s.Has("n") },
		"Fields": func(s *sessplus.Session) { s.Fields() },
		"Field":  func(s *sessplus.Session) { sessplus.Field[int]("n").Get(s) },
		"IsNew":  func(s *sessplus.Session) { s.IsNew("sid") },
		"after a Set": func(s *sessplus.Session) {
			s.Set("n", 2)
			s.Get("n")
		},
	}
	const message = "after the response had begun"
	for name, read := range reads {
		for _, c := range []struct {
			method string
			answer http.HandlerFunc
			want   int
		}{
			{"GET", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") }, 1},
			{"GET", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(404)
			}, 1},
			{"POST", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") }, 0},
			{"GET", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Vary", "accept, cookie")
				io.WriteString(w, "x")
			}, 0},
			{"GET", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "No-Store")
				io.WriteString(w, "x")
			}, 0},
			{"GET", func(w http.ResponseWriter, r *http.Request) {
				sessplus.Get(r).Has("x")
				io.WriteString(w, "x")
			}, 0},
			{"GET", func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Errorf("Hijack: %v", err)
					return
				}
				writeRaw(w, conn, "200 OK")
			}, 0},
			{"GET", func(http.ResponseWriter, *http.Request) {}, 0},
		} {
			var j journal
			s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
			s.with(func(s *sessplus.Session) { s.Set("n", 1) })
			req, _ := http.NewRequest(c.method, s.URL, nil)
			s.send(s.client, req, func(w http.ResponseWriter, r *http.Request) {
				c.answer(w, r)
				read(sessplus.Get(r))
				read(sessplus.Get(r))
			})
			if got := j.warnings(message); got != c.want {
				t.Errorf("%s: %d warnings, want %d; the log: %s", name, got, c.want, j.text())
			}
		}
	}
}

// SPEC 5.8, SPEC 11.2: what a program does with a session when the response has ended makes no page.
func TestReadAfterTheRequestIsNotLogged(t *testing.T) {
	t.Parallel()
	var j journal
	ended := make(chan struct{}, 1)
	s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		return notifyEnd(ended)(newManager(t, j.options(0), sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}).Handler(h))
	})
	for _, status := range []int{200, 500} {
		var sess *sessplus.Session
		s.visit(func(w http.ResponseWriter, r *http.Request) {
			sess = sessplus.Get(r)
			w.WriteHeader(status)
		})
		<-ended
		within(t, 5*time.Second, func() { sess.Get("n") })
	}
	if text := j.text(); strings.Contains(text, "WARN") {
		t.Errorf("the log: %s", text)
	}
}
