package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"testing"

	"github.com/sessplus/sessplus"
)

// newLateSite is a site whose visitor has a session with the field kept in the cookie sid and in the secure cookie
// sealed.
func newLateSite(t *testing.T, b sessplus.Backend, logged *errorLog, around func(http.Handler) http.Handler) *site {
	m := newManager(t, &sessplus.Options{Logger: slog.New(logged)},
		sessplus.Config{CookieName: "sid", Backend: b, Fields: sessplus.Exclude("sealed", "fresh")},
		sessplus.Config{CookieName: "fresh", Backend: b, Fields: sessplus.Include("fresh")},
		sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("sealed")})
	s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		if h = m.Handler(h); around != nil {
			h = around(h)
		}
		return h
	})
	s.with(func(s *sessplus.Session) {
		s.Set("kept", "before")
		s.Set("gone", "before")
		s.Set("sealed", "before")
	})
	return s
}

// SPEC 5.5: after the headers, a save that has failed is not made again when the handler returns, unless something has
// changed: it would cost the timeout once more.
func TestLateSaveThatFailedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	for changed, tries := range map[bool]int{false: 1, true: 2} {
		b := &recorder{Backend: sessplus.Memory()}
		s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b}))
		s.with(func(s *sessplus.Session) { s.Set("n", 1) })
		b.setHook(func(_ context.Context, op string) error {
			if op == "update" {
				return errors.New("down")
			}
			return nil
		})
		b.ops() // from before
		s.visit(func(w http.ResponseWriter, r *http.Request) {
			sess := sessplus.Get(r)
			http.NewResponseController(w).Flush()
			sess.Set("n", 2)
			if err := sess.Save(); !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("Save() = %v, want ErrUnavailable", err)
			}
			sess.Get("n")
			if changed {
				sess.Set("n", 3)
			}
		})
		want := append([]string{"load"}, slices.Repeat([]string{"update"}, tries)...)
		if got := b.ops(); !slices.Equal(got, want) {
			t.Errorf("changed=%t: the backend was asked for %v, want %v", changed, got, want)
		}
	}
}

// SPEC 5.5
func TestLateChangesAreSaved(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, save := range []bool{false, true} {
			logged := &errorLog{}
			s := newLateSite(t, b, logged, nil)
			s.visit(func(w http.ResponseWriter, r *http.Request) {
				sess := sessplus.Get(r)
				io.WriteString(w, "the headers go")
				http.NewResponseController(w).Flush()
				sess.Set("kept", "after")
				sess.Delete("gone")
				if save {
					if err := sess.Save(); err != nil {
						t.Errorf("Save() = %v", err)
					}
					sess.Set("more", 1)
				}
			})
			s.with(func(s *sessplus.Session) {
				if got := s.GetString("kept"); got != "after" || s.Has("gone") || s.Has("more") != save {
					t.Errorf("save=%t: kept = %q, gone is there: %t, more is there: %t", save, got, s.Has("gone"), s.Has("more"))
				}
			})
			if len(logged.errs) > 0 {
				t.Errorf("save=%t: the log has %v, want nothing", save, logged.errs)
			}
		}
	})
}

// SPEC 5.5: the client got the id with this very response.
func TestLateChangesOfANewSessionAreSaved(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
	s.visit(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("n", 1)
		w.WriteHeader(200)
		sessplus.Get(r).Set("n", 2)
	})
	s.with(func(s *sessplus.Session) {
		if got := s.GetInt("n"); got != 2 {
			t.Errorf("n = %d, want 2", got)
		}
	})
}

// SPEC 5.5
func TestLateChangesThatNeedACookieAreErrors(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*sessplus.Session){
		"new session":         func(s *sessplus.Session) { s.Set("fresh", 1) },
		"secure cookie":       func(s *sessplus.Session) { s.Set("sealed", "after") },
		"secure deletion":     func(s *sessplus.Session) { s.Delete("sealed") },
		"secure Destroy":      func(s *sessplus.Session) { s.Destroy("sealed") },
		"secure Renew":        func(s *sessplus.Session) { s.Renew("sealed") },
		"secure SetPermanent": func(s *sessplus.Session) { s.SetPermanent("sealed", true) },
		"Renew":               func(s *sessplus.Session) { s.Renew("sid") },
		"SetPermanent":        func(s *sessplus.Session) { s.SetPermanent("sid", true) },
		"Set after Destroy": func(s *sessplus.Session) {
			s.Destroy("sid")
			s.Set("kept", "after")
		},
	} {
		for _, save := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s save=%t", name, save), func(t *testing.T) {
				logged := &errorLog{}
				ended := make(chan struct{}, 2)
				s := newLateSite(t, sessplus.Memory(), logged, notifyEnd(ended))
				<-ended
				before := s.jar(s.client)
				res := s.visit(func(w http.ResponseWriter, r *http.Request) {
					sess := sessplus.Get(r)
					w.WriteHeader(200)
					change(sess)
					if save {
						if err := sess.Save(); !errors.Is(err, sessplus.ErrHeadersSent) {
							t.Errorf("Save() = %v, want ErrHeadersSent", err)
						}
					}
				})
				<-ended
				if !logged.has(sessplus.ErrHeadersSent) {
					t.Errorf("the log has %v, want ErrHeadersSent", logged.errs)
				}
				if res.StatusCode != 200 || len(res.Header.Values("Set-Cookie")) > 0 {
					t.Errorf("status %d, Set-Cookie %q, want 200 and none", res.StatusCode, res.Header.Values("Set-Cookie"))
				}
				if after := s.jar(s.client); after["sid"] != before["sid"] || after["sealed"] != before["sealed"] {
					t.Error("the browser's cookies have changed")
				}
			})
		}
	}
}

// notifyEnd tells ended when a request has ended.
func notifyEnd(ended chan<- struct{}) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { ended <- struct{}{} }()
			h.ServeHTTP(w, r)
		})
	}
}

// SPEC 5.5: an error of one cookie does not hold up another.
func TestLateChangeIsSavedBesideOneThatCannotBe(t *testing.T) {
	t.Parallel()
	s := newLateSite(t, sessplus.Memory(), &errorLog{}, nil)
	s.visit(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		sess := sessplus.Get(r)
		sess.Set("kept", "after")
		sess.Set("sealed", "after")
		if err := sess.Save(); !errors.Is(err, sessplus.ErrHeadersSent) {
			t.Errorf("Save() = %v, want ErrHeadersSent", err)
		}
	})
	s.with(func(s *sessplus.Session) {
		if k, c := s.GetString("kept"), s.GetString("sealed"); k != "after" || c != "before" {
			t.Errorf("kept = %q, sealed = %q, want after and before", k, c)
		}
	})
}

// SPEC 5.5, 3.8: a change that is told once to be late does not hold up what a long response saves later. But after a
// renewal that is late, nothing is stored under the id from before it.
func TestLateRenewalSavesNothing(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for name, change := range map[string]func(*sessplus.Session){
			"Renew":        func(s *sessplus.Session) { s.Renew() },
			"SetPermanent": func(s *sessplus.Session) { s.SetPermanent("sid", true) },
		} {
			s := newLateSite(t, b, &errorLog{}, nil)
			s.visit(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(200)
				sess := sessplus.Get(r)
				change(sess)
				sess.Set("kept", "with it")
				if err := sess.Save(); !errors.Is(err, sessplus.ErrHeadersSent) {
					t.Errorf("%s: Save() = %v, want ErrHeadersSent", name, err)
				}
				sess.Set("kept", "after")
				err := sess.Save()
				if name == "Renew" && !errors.Is(err, sessplus.ErrHeadersSent) || name != "Renew" && err != nil {
					t.Errorf("%s: the next Save() = %v", name, err)
				}
			})
			s.with(func(s *sessplus.Session) {
				want := "after"
				if name == "Renew" {
					want = "before"
				}
				if got := s.GetString("kept"); got != want || s.Permanent("sid") {
					t.Errorf("%s: kept = %q, permanent = %v, want %s, false", name, got, s.Permanent("sid"), want)
				}
			})
		}
	})
}

// SPEC 5.5: the browser was told to drop the cookie, so that nobody would ever see the field again.
func TestLateChangeOfADroppedSessionIsAnError(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for name, empty := range map[string]func(s *site, r *http.Request){
			"by this request": func(_ *site, r *http.Request) { sessplus.Get(r).Clear() },
			"by another":      nil,
		} {
			s := newLateSite(t, b, &errorLog{}, nil)
			var second http.Client // another connection
			s.visit(func(w http.ResponseWriter, r *http.Request) {
				sess := sessplus.Get(r)
				if empty != nil {
					empty(s, r)
				}
				w.WriteHeader(200)
				if empty == nil {
					other, _ := http.NewRequest("GET", s.URL, nil)
					other.Header["Cookie"] = r.Header["Cookie"]
					res := s.send(&second, other, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Clear() })
					if len(res.setCookies("sid")) != 1 {
						t.Errorf("Set-Cookie of the request that empties the session = %q, want a deletion", res.setCookies("sid"))
					}
				}
				if empty == nil { // SPEC 4.5
					_, err := sessplus.Field[string]("kept").Update(sess, func(string) string { return "after" })
					if !errors.Is(err, sessplus.ErrHeadersSent) {
						t.Errorf("emptied %s: Update() = %v, want ErrHeadersSent", name, err)
					}
					return
				}
				sess.Set("kept", "after")
				if err := sess.Save(); !errors.Is(err, sessplus.ErrHeadersSent) {
					t.Errorf("emptied %s: Save() = %v, want ErrHeadersSent", name, err)
				}
			})
		}
	})
}
