package sessplus_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 5.4, 6.1: the ErrorHandler's request carries the session, at a failed load as at a failed save.
func TestErrorHandlerHasTheSession(t *testing.T) {
	for _, op := range []string{"load", "save"} {
		t.Run(op, func(t *testing.T) {
			b := &s5Backend{Backend: sessplus.Memory()}
			var m *sessplus.Manager
			opts := &sessplus.Options{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				if !errors.Is(err, sessplus.ErrUnavailable) {
					t.Errorf("the ErrorHandler got %v", err)
				}
				if r.Context().Value(http.ServerContextKey) == nil {
					t.Error("the context lacks what the server has put into it")
				}
				text := fmt.Sprint(m.Get(r).GetString("language"), sessplus.Get(r).Has("bad"))
				w.WriteHeader(http.StatusServiceUnavailable)
				io.WriteString(w, text)
			}}
			outer := newManager(t, nil, sessplus.Config{CookieName: "outer"})
			m = newManager(t, opts,
				sessplus.Config{CookieName: "bad", Backend: b, Fields: sessplus.Include("bad")},
				sessplus.Config{CookieName: "good", Backend: sessplus.Memory(), Fields: sessplus.Include("language")})
			s := newSite(t, outer, m)
			s.with(func(s *sessplus.Session) {
				s.Set("bad", 1)
				s.Set("language", "de")
			})
			want := "detrue"
			if op == "load" {
				b.setHook(s5Down())
				want = "defalse"
			} else {
				b.setHook(s5Down("load"))
			}
			res := s.with(func(s *sessplus.Session) { s.Set("bad", 2) })
			if res.StatusCode != 503 || res.body != want {
				t.Errorf("answer = %d %q, want 503 %q", res.StatusCode, res.body, want)
			}
			if got := res.Header.Get("Vary"); got != "Cookie" {
				t.Errorf("Vary = %q, want Cookie: the session was read", got)
			}
		})
	}
}

// SPEC 6.1: when the load has failed nothing is saved, whatever the ErrorHandler does with the session.
func TestNothingIsSavedAfterAFailedLoad(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, backend sessplus.Backend) {
		for name, use := range map[string]func(*sessplus.Session) error{
			"Set": func(s *sessplus.Session) error {
				s.Set("n", 2)
				s.Set("fresh", 2)
				s.Set("sealed", 2)
				return s.Save()
			},
			"Destroy": func(s *sessplus.Session) error {
				s.Destroy()
				return s.Save()
			},
			"Renew": func(s *sessplus.Session) error {
				s.Renew()
				return s.Save()
			},
			"Update": func(s *sessplus.Session) error {
				_, err := sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 })
				return err
			},
			"Update of a new field": func(s *sessplus.Session) error {
				_, err := sessplus.Field[int]("fresh").Update(s, func(n int) int { return n + 1 })
				return err
			},
			"Save": func(s *sessplus.Session) error { return s.Save() },
		} {
			for _, answered := range []bool{false, true} {
				bad := &s5Backend{Backend: sessplus.Memory()}
				opts := &sessplus.Options{ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) {
					if answered {
						io.WriteString(w, "x")
					}
					if err := use(sessplus.Get(r)); !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("%s = %v, want ErrUnavailable", name, err)
					}
				}}
				s := newSite(t, newManager(t, opts,
					sessplus.Config{CookieName: "bad", Backend: bad, Fields: sessplus.Include("bad")},
					sessplus.Config{CookieName: "good", Backend: backend, Fields: sessplus.Include("n")},
					sessplus.Config{CookieName: "fresh", Backend: backend, Fields: sessplus.Include("fresh")},
					sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("sealed")}))
				s.with(func(s *sessplus.Session) {
					s.Set("bad", 1)
					s.Set("n", 1)
					s.Set("sealed", 1)
				})
				bad.setHook(s5Down())
				res := s.visit(func(http.ResponseWriter, *http.Request) { t.Error("the handler runs") })
				if got := res.Header.Values("Set-Cookie"); len(got) > 0 {
					t.Errorf("%s: %d cookies are set, want none", name, len(got))
				}
				bad.setHook(nil)
				s.with(func(s *sessplus.Session) {
					if s.GetInt("bad") != 1 || s.GetInt("n") != 1 || s.GetInt("sealed") != 1 || s.Has("fresh") {
						t.Errorf("%s: bad, n, sealed = %v, %v, %v, want 1 each as before", name, s.Get("bad"), s.Get("n"), s.Get("sealed"))
					}
				})
			}
		}
	})
}
