package sessplus_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 3.8: what belongs to a login is never stored under the id from before it, however the renewal is refused.
func TestLoginIsNeverStoredUnderTheIDFromBefore(t *testing.T) {
	login := func(s *sessplus.Session) { s.Renew(); s.Set("user", "ann") }
	refused := func(t *testing.T, s *sessplus.Session) {
		for range 2 {
			if err := s.Save(); !errors.Is(err, sessplus.ErrHeadersSent) {
				t.Errorf("Save = %v, want ErrHeadersSent", err)
			}
			s.Set("more", 1)
		}
		if _, err := sessplus.Field[int]("n").Update(s, increment); !errors.Is(err, sessplus.ErrHeadersSent) {
			t.Errorf("Update = %v, want ErrHeadersSent", err)
		}
	}
	for name, handle := range map[string]func(t *testing.T, b *s5Backend, w http.ResponseWriter, s *sessplus.Session){
		"after Flush": func(t *testing.T, _ *s5Backend, w http.ResponseWriter, s *sessplus.Session) {
			w.(http.Flusher).Flush()
			login(s)
			refused(t, s)
		},
		"after a commit that failed": func(t *testing.T, b *s5Backend, w http.ResponseWriter, s *sessplus.Session) {
			login(s)
			b.setHook(s5Down())
			w.Write([]byte("x"))
			b.setHook(nil)
			refused(t, s)
		},
		"after a status of 500": func(t *testing.T, _ *s5Backend, w http.ResponseWriter, s *sessplus.Session) {
			login(s)
			http.Error(w, "", http.StatusInternalServerError)
			refused(t, s)
		},
		"Update, then a status of 500": func(t *testing.T, _ *s5Backend, w http.ResponseWriter, s *sessplus.Session) {
			s.Renew()
			if name, err := sessplus.Field[string]("user").Update(s, func(string) string { return "ann" }); err != nil || name != "ann" {
				t.Errorf("Update = %q, %v", name, err)
			}
			w.WriteHeader(http.StatusInternalServerError)
		},
		"Update, then a Set that fails": func(t *testing.T, _ *s5Backend, _ http.ResponseWriter, s *sessplus.Session) {
			s.Renew()
			sessplus.Field[string]("user").Update(s, func(string) string { return "ann" })
			s.Set("", 1)
		},
		"Update, then a panic": func(t *testing.T, _ *s5Backend, _ http.ResponseWriter, s *sessplus.Session) {
			s.Renew()
			sessplus.Field[string]("user").Update(s, func(string) string { return "ann" })
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
				b := &s5Backend{Backend: inner}
				s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
				s.with(func(s *sessplus.Session) { s.Set("cart", 1) })
				planted := s.jar(s.client)["s"]
				do := func() {
					s.do <- func(w http.ResponseWriter, r *http.Request) { handle(t, b, w, sessplus.Get(r)) }
					if res, err := s.client.Post(s.URL, "text/plain", nil); err == nil { // which no client sends twice
						res.Body.Close()
					}
				}
				do()
				thief := &http.Client{}
				req, _ := http.NewRequest("GET", s.URL, nil)
				req.AddCookie(&http.Cookie{Name: "s", Value: planted})
				s.send(thief, req, func(_ http.ResponseWriter, r *http.Request) {
					if s := sessplus.Get(r); s.Has("user") || s.Has("more") || s.Has("n") {
						t.Errorf("under the id from before the login there is %v", s.Values())
					}
				})
			})
		})
	}
}

// SPEC 3.8: whoever holds the old id renews before the login's commit does, and does not get the login.
func TestThiefWhoRenewsFirstGetsNoLogin(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("cart", 1) })
		thief := c.withCookies(c.jar(c.client))
		slow := c.begin(c.client, func(s *sessplus.Session) {
			s.Renew()
			sessplus.Field[string]("user").Update(s, func(string) string { return "ann" })
		})
		c.mustAsk(thief, func(s *sessplus.Session) { s.Renew() })
		if r := slow.finish(); r.StatusCode != http.StatusOK {
			t.Errorf("the login is answered %d", r.StatusCode)
		}
		c.mustAsk(c.client, wantUser(t, "ann"))
		c.mustAsk(thief, func(s *sessplus.Session) {
			if s.Has("user") {
				t.Error("the thief has the login")
			}
		})
	})
}

// SPEC 3.8, 5.6: a panic inside the commit, which the program recovers, puts the plan back; a status of 500 stays one.
func TestPanicInsideTheCommitKeepsTheRenewal(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
		for _, step := range []string{"create", "take", "end"} {
			for _, status := range []int{http.StatusOK, http.StatusInternalServerError} {
				b := &s5Backend{Backend: inner}
				s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
				s.with(func(s *sessplus.Session) { s.Set("cart", 1) })
				planted := s.jar(s.client)["s"]
				b.setHook(func(_ context.Context, op string) error {
					if op == step {
						b.setHook(nil)
						panic("in a hook")
					}
					return nil
				})
				s.visit(func(w http.ResponseWriter, r *http.Request) {
					defer func() {
						if recover() == nil {
							t.Errorf("%s: no panic", step)
						}
						w.WriteHeader(status)
					}()
					sess := sessplus.Get(r)
					sess.Renew()
					sess.Set("user", "ann")
					w.WriteHeader(http.StatusOK)
				})
				s.with(func(s *sessplus.Session) {
					if s.Has("user") != (status == http.StatusOK) || !s.Has("cart") {
						t.Errorf("%s, %d: the session holds %v", step, status, s.Values())
					}
				})
				req, _ := http.NewRequest("GET", s.URL, nil)
				req.AddCookie(&http.Cookie{Name: "s", Value: planted})
				s.send(&http.Client{}, req, func(_ http.ResponseWriter, r *http.Request) {
					if sessplus.Get(r).Has("user") {
						t.Errorf("%s, %d: the login is under the id from before", step, status)
					}
				})
			}
		}
	})
}

// SPEC 6.1: a logout whose backend is down is an error, with Optional, too.
func TestLogoutOfAnOptionalBackendThatIsDown(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
		for _, lazy := range []bool{false, true} {
			b := &s5Backend{Backend: inner}
			s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Optional: true, Lazy: lazy}))
			s.with(func(s *sessplus.Session) { s.Set("user", "ann") })
			b.setHook(s5Down("load"))
			r := s.with(func(s *sessplus.Session) { s.Destroy() })
			b.setHook(nil)
			if r.StatusCode != http.StatusServiceUnavailable || len(r.setCookies("s")) != 1 {
				t.Errorf("lazy %v: the logout is answered %d %q", lazy, r.StatusCode, r.setCookies("s"))
			}
		}
	})
}

// SPEC 3.4: an Update fills an emptied session, and the call that lets the browser have the cookie again fails.
func TestRefilledSessionIsNotAnsweredWithoutACookie(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
		b := &s5Backend{Backend: inner}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		slow := c.begin(c.withCookies(c.jar(c.client)), func(s *sessplus.Session) {
			if _, err := sessplus.Field[int]("n").Update(s, increment); err != nil {
				t.Errorf("Update = %v", err)
			}
			b.setHook(s5Down())
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Clear() })
		r := slow.finish()
		b.setHook(nil)
		if r.StatusCode == http.StatusOK {
			t.Errorf("the answer is 200 with %q", r.setCookies("s"))
		}
	})
}

// SPEC 7.7: a renewal begins afresh because of a logout beside it. What was bound to the session from before that stays void,
// also when the request saves twice.
func TestBoundContentDoesNotOutliveALogout(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", BoundTo: "s", Fields: sessplus.Auto()}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("secret", 1) })
		tab := c.withCookies(c.jar(c.client))
		slow := c.begin(c.client, func(s *sessplus.Session) {
			s.Renew("s")
			s.Set("user", "bob")
			if err := s.Save(); err != nil {
				t.Errorf("Save = %v", err)
			}
			if s.Has("secret") {
				t.Error("the field of the session that has ended is there after Save")
			}
		})
		c.mustAsk(tab, func(s *sessplus.Session) { s.Destroy("s") })
		if r := slow.finish(); r.StatusCode != http.StatusOK {
			t.Fatalf("the login is answered %d", r.StatusCode)
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.GetString("user") != "bob" || s.Has("secret") {
				t.Errorf("the new session holds %v", s.Values())
			}
		})
	})
}

// SPEC 6.2: the answer to a save is lost, and the program sets back what it may have saved.
func TestSetBackAfterALostAnswer(t *testing.T) {
	number := sessplus.Field[int]("n")
	for name, change := range map[string]struct{ do, back func(*sessplus.Session) }{
		"Set, then Set":       {func(s *sessplus.Session) { s.Set("n", 2); s.Save() }, func(s *sessplus.Session) { s.Set("n", 1) }},
		"Set, then Renew":     {func(s *sessplus.Session) { s.Set("n", 2); s.Save() }, func(s *sessplus.Session) { s.Set("n", 1); s.Renew() }},
		"Set, then Clear":     {func(s *sessplus.Session) { s.Set("m", 2); s.Save() }, func(s *sessplus.Session) { s.Clear(); s.Set("n", 1) }},
		"Set, then Delete":    {func(s *sessplus.Session) { s.Set("m", 2); s.Save() }, func(s *sessplus.Session) { s.Delete("m") }},
		"Delete, then Set":    {func(s *sessplus.Session) { s.Delete("n"); s.Save() }, func(s *sessplus.Session) { s.Set("n", 1) }},
		"Update, then Set":    {func(s *sessplus.Session) { number.Update(s, increment) }, func(s *sessplus.Session) { s.Set("n", 1) }},
		"Update, then Delete": {func(s *sessplus.Session) { sessplus.Field[int]("m").Update(s, increment) }, func(s *sessplus.Session) { s.Delete("m") }},
		"SetPermanent": {func(s *sessplus.Session) { s.SetPermanent("s", true); s.Save() },
			func(s *sessplus.Session) { s.SetPermanent("s", false) }},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
				lossy := &afterBackend{Backend: b}
				s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: lossy}))
				s.with(func(s *sessplus.Session) { s.Set("n", 1); s.Set("other", 1) })
				r := s.with(func(s *sessplus.Session) {
					lossy.after = func(op string) error { return errors.New("the answer is lost") }
					change.do(s)
					lossy.after = nil
					change.back(s)
				})
				if r.StatusCode != http.StatusOK {
					t.Fatalf("the answer is %d", r.StatusCode)
				}
				s.with(func(s *sessplus.Session) {
					if s.GetInt("n") != 1 || s.Has("m") || s.Permanent("s") {
						t.Errorf("the session holds %v, permanent %v", s.Values(), s.Permanent("s"))
					}
				})
			})
		})
	}
}
