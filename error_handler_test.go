package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 5.4, 6.1: the ErrorHandler's request carries the session, at a failed load as at a failed save.
func TestErrorHandlerHasTheSession(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"load", "save"} {
		t.Run(op, func(t *testing.T) {
			b := &recorder{Backend: sessplus.Memory()}
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
				b.setHook(downBut())
				want = "defalse"
			} else {
				b.setHook(downBut("load"))
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
	t.Parallel()
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
				bad := &recorder{Backend: sessplus.Memory()}
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
				bad.setHook(downBut())
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

// A quoter is a backend whose errors quote what they must not.
type quoter struct {
	sessplus.Backend
	err error
}

func (q *quoter) Update(context.Context, string, *sessplus.Change) (sessplus.Result, error) {
	return sessplus.Result{}, q.err
}

// SPEC 6.6, 6.9
func TestDefaultErrorHandler(t *testing.T) {
	t.Parallel()
	const inside = "tcp 10.0.0.7:6379: the inside"
	tests := []struct {
		name   string
		err    error // of the backend's Update
		change func(s *sessplus.Session)
		want   int
	}{
		{"unavailable", errors.New(inside), func(s *sessplus.Session) { s.Set("user", "bob") }, 503},
		{"gone", sessplus.ErrNoRecord, func(s *sessplus.Session) { s.Set("user", "bob") }, 409},
		{"too large for the backend", errors.Join(sessplus.ErrTooLarge, errors.New(inside)), func(s *sessplus.Session) { s.Set("user", "bob") }, 500},
		{"no owner", nil, func(s *sessplus.Session) { s.Set("nobody's", 1) }, 500},
		{"cannot be encoded", nil, func(s *sessplus.Session) { s.Set("user", func() {}) }, 500},
		{"too large for a cookie", nil, func(s *sessplus.Session) { s.Set("sealed", noise(5000)) }, 500},
		{"no such cookie", nil, func(s *sessplus.Session) { s.Renew("nobody's") }, 500},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var j journal
			c := newCrowd(t, newManager(t, j.options(0),
				sessplus.Config{CookieName: "s", Backend: &quoter{sessplus.Memory(), test.err}, Fields: sessplus.Include("user")},
				sessplus.Config{CookieName: "c", Fields: sessplus.Include("sealed")}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			answer := c.ask(c.client, func(w http.ResponseWriter, r *http.Request) {
				test.change(sessplus.Get(r))
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("Cache-Control", "public, max-age=3600")
				w.Header().Set("ETag", `"x"`)
				w.WriteHeader(201)
				if _, err := w.Write([]byte("<p>from the handler")); err == nil {
					t.Error("Write() = nil, want the error of the commit")
				}
			})
			if answer.StatusCode != test.want {
				t.Errorf("status = %d, want %d", answer.StatusCode, test.want)
			}
			if got := answer.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
				t.Errorf("Content-Type = %q, want plain text", got)
			}
			if got := answer.Header.Get("Cache-Control"); strings.Contains(got, "public") || answer.Header.Get("ETag") != "" {
				t.Errorf("Cache-Control = %q, ETag = %q, want nothing of the handler's", got, answer.Header.Get("ETag"))
			}
			if answer.body == "" {
				t.Error("the body is empty")
			}
			for _, word := range []string{"handler", "sessplus", "backend", "inside", "cookie", "user", "10.0.0.7", "field", "bob", "ann"} {
				if strings.Contains(answer.body, word) {
					t.Errorf("body = %q, want nothing of the inside (%q)", answer.body, word)
				}
			}
			if !strings.Contains(j.text(), "level=ERROR") {
				t.Errorf("log = %q, want the error", j.text())
			}
			if lines := answer.Header.Values("Set-Cookie"); len(lines) > 0 {
				t.Errorf("Set-Cookie = %q, want none", lines)
			}
		})
	}
}
