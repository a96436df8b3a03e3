package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 3.8: what belongs to a login is never stored under the id from before it, however the renewal is refused.
func TestLoginIsNeverStoredUnderTheIDFromBefore(t *testing.T) {
	t.Parallel()
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
	for name, handle := range map[string]func(t *testing.T, b *recorder, w http.ResponseWriter, s *sessplus.Session){
		"after Flush": func(t *testing.T, _ *recorder, w http.ResponseWriter, s *sessplus.Session) {
			w.(http.Flusher).Flush()
			login(s)
			refused(t, s)
		},
		"after a commit that failed": func(t *testing.T, b *recorder, w http.ResponseWriter, s *sessplus.Session) {
			login(s)
			b.setHook(downBut())
			w.Write([]byte("x"))
			b.setHook(nil)
			refused(t, s)
		},
		"after a status of 500": func(t *testing.T, _ *recorder, w http.ResponseWriter, s *sessplus.Session) {
			login(s)
			http.Error(w, "", http.StatusInternalServerError)
			refused(t, s)
		},
		"Update, then a status of 500": func(t *testing.T, _ *recorder, w http.ResponseWriter, s *sessplus.Session) {
			s.Renew()
			if name, err := sessplus.Field[string]("user").Update(s, func(string) string { return "ann" }); err != nil || name != "ann" {
				t.Errorf("Update = %q, %v", name, err)
			}
			w.WriteHeader(http.StatusInternalServerError)
		},
		"Update, then a Set that fails": func(t *testing.T, _ *recorder, _ http.ResponseWriter, s *sessplus.Session) {
			s.Renew()
			sessplus.Field[string]("user").Update(s, func(string) string { return "ann" })
			s.Set("", 1)
		},
		"Update, then a panic": func(t *testing.T, _ *recorder, _ http.ResponseWriter, s *sessplus.Session) {
			s.Renew()
			sessplus.Field[string]("user").Update(s, func(string) string { return "ann" })
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
				b := &recorder{Backend: inner}
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
	t.Parallel()
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
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
		for _, step := range []string{"create", "take", "end"} {
			for _, status := range []int{http.StatusOK, http.StatusInternalServerError} {
				b := &recorder{Backend: inner}
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
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
		for _, lazy := range []bool{false, true} {
			b := &recorder{Backend: inner}
			s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Optional: true, Lazy: lazy}))
			s.with(func(s *sessplus.Session) { s.Set("user", "ann") })
			b.setHook(downBut("load"))
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
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
		b := &recorder{Backend: inner}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		slow := c.begin(c.withCookies(c.jar(c.client)), func(s *sessplus.Session) {
			if _, err := sessplus.Field[int]("n").Update(s, increment); err != nil {
				t.Errorf("Update = %v", err)
			}
			b.setHook(downBut())
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Clear() })
		r := slow.finish()
		b.setHook(nil)
		if r.StatusCode == http.StatusOK {
			t.Errorf("the answer is 200 with %q", r.setCookies("s"))
		}
	})
}

// SPEC 7.7: a renewal begins afresh because of a logout beside it. What was bound to the session from before that stays
// void, also when the request saves twice.
func TestBoundContentDoesNotOutliveALogout(t *testing.T) {
	t.Parallel()
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
				lossy := &recorder{Backend: b}
				s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: lossy}))
				s.with(func(s *sessplus.Session) { s.Set("n", 1); s.Set("other", 1) })
				r := s.with(func(s *sessplus.Session) {
					lossy.setAfter(func(op string) error { return errors.New("the answer is lost") })
					change.do(s)
					lossy.setAfter(nil)
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

// SPEC 3.8
func TestRenewGivesANewIDAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		id := c.start()
		old := c.jar(c.client)["sid"]
		before, _ := c.record(id)
		c.st.ops()
		time.Sleep(2 * time.Millisecond) // the unit of a record's times is the millisecond
		var renewed string
		r := c.ok(c.with(func(s *sessplus.Session) {
			s.Renew("sid")
			s.Set("b", "2")
			s.Save()
			if renewed = s.ID("sid"); s.Get("a") != "1" || s.IsNew("sid") {
				t.Errorf("after Renew and Save: Get = %v, IsNew() = %v; want 1, false", s.Get("a"), s.IsNew("sid"))
			}
		}))
		k := setCookie(t, r, "sid")
		if k == nil || k.Value == old || renewed == id || c.jar(c.client)["sid"] != k.Value {
			t.Fatalf("Set-Cookie = %v, ID() = %q; want new ones", k, renewed)
		}
		if ops := c.st.ops(); fmt.Sprint(ops) != "[load take create end]" {
			t.Errorf("backend calls %v, want load, take, create and end", ops)
		}
		c.wantFields(map[string]any{"a": "1", "b": "2"})
		after, err := c.record(renewed)
		if err != nil || !after.Created.After(before.Created) || !after.Expires.After(before.Expires) || after.Permanent != c.permanent {
			t.Errorf("record = %v, %v; want it later than %v, permanent = %v", after, err, before, c.permanent)
		}
		if _, err := c.record(id); !errors.Is(err, sessplus.ErrNoRecord) {
			t.Errorf("the old record: error %v, want %v", err, sessplus.ErrNoRecord)
		}
		c.ok(c.bring("sid="+old, func(s *sessplus.Session) {
			if s.Has("a") || s.ID("sid") != "" {
				t.Error("the old cookie still opens the session")
			}
		}))
	})
}

// SPEC 3.8: what other requests save while the session is renewed is in the new record.
func TestRenewLosesNothingOfOthers(t *testing.T) {
	t.Parallel()
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		id := c.start()
		c.with(func(s *sessplus.Session) {
			s.Set("change", "old")
			s.Set("delete", "old")
			s.Set("mine", "old")
			s.Set("undone", "old")
		})
		var renewed string
		c.ok(c.with(func(s *sessplus.Session) {
			s.Set("mine", "first")
			s.Renew()
			c.meanwhile(func(s *sessplus.Session) {
				s.Set("change", "new")
				s.Set("add", "new")
				s.Set("mine", "second")
				s.Set("undone", "new")
				s.Delete("delete")
				s.SetPermanent("sid", true)
			})
			s.Set("undone", "x")
			s.Set("undone", "old") // back to what was loaded is no change
			if err := s.Save(); err != nil {
				t.Errorf("Save() = %v, want nil", err)
			}
			renewed = s.ID("sid")
			if s.Get("change") != "new" || s.Get("add") != "new" || s.Has("delete") || !s.Permanent("sid") {
				t.Error("the request that renewed does not see what others saved")
			}
			s.Set("more", "new")
		}))
		c.wantFields(map[string]any{"a": "1", "add": "new", "change": "new", "mine": "first", "more": "new", "undone": "new"})
		rec, err := c.record(renewed)
		if err != nil || !rec.Permanent {
			t.Errorf("record = %v, %v; want a permanent one", rec, err)
		}
		if _, err := c.record(id); !errors.Is(err, sessplus.ErrNoRecord) {
			t.Errorf("the old record: error %v, want %v", err, sessplus.ErrNoRecord)
		}
	})
}

// SPEC 3.4, 3.8: the new record has no field either, so the browser gets no cookie for it.
func TestRenewOfASessionEmptiedMeanwhile(t *testing.T) {
	t.Parallel()
	onStores(t, func(*sessplus.Config) {}, func(t *testing.T, c *sidSite) {
		c.start()
		c.ok(c.with(func(s *sessplus.Session) {
			s.Renew()
			c.meanwhile(func(s *sessplus.Session) { s.Clear() })
		}))
		if text := c.jar(c.client)["sid"]; text != "" {
			t.Errorf("the browser has the cookie %q of a session without fields, want none", text)
		}
	})
}

// SPEC 3.11, 4.2: of two that renew the session at once one wins, and the other, which has nothing to lose, is well; a
// session that was destroyed is not brought back.
func TestRenewOfASessionThatIsGone(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*sessplus.Session){
		"renewed":   func(s *sessplus.Session) { s.Renew() },
		"destroyed": func(s *sessplus.Session) { s.Destroy() },
	} {
		t.Run(name, func(t *testing.T) {
			onEveryVariant(t, func(t *testing.T, c *sidSite) {
				c.start()
				var jar, want string
				r := c.with(func(s *sessplus.Session) {
					s.Renew()
					c.meanwhile(end)
					jar = c.jar(c.client)["sid"]
					want = fmt.Sprint(c.st.text(t))
				})
				if lines := r.setCookies("sid"); r.StatusCode != http.StatusOK || len(lines) > 0 || c.jar(c.client)["sid"] != jar {
					t.Errorf("status %d, Set-Cookie = %q; want 200 and none", r.StatusCode, lines)
				}
				if got := fmt.Sprint(c.st.text(t)); got != want {
					t.Errorf("the store holds %v, want %v as before", got, want)
				}
			})
		})
	}
}

// SPEC 3.8: of one cookie, of several, of all, and of one that has no session yet.
func TestRenewReachesTheCookiesNamed(t *testing.T) {
	t.Parallel()
	onStores(t, func(c *sessplus.Config) { c.Fields = sessplus.Include("a") }, func(t *testing.T, c *sidSite) {
		names := []string{"sid", "lazy", "new", "sealed"}
		c.site = newSite(t, newManager(t, nil, c.cfg,
			sessplus.Config{CookieName: "lazy", Fields: sessplus.Include("b"), Backend: c.st, Lazy: true},
			sessplus.Config{CookieName: "new", Fields: sessplus.Include("c"), Backend: c.st.Backend},
			sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("d")}))
		c.with(func(s *sessplus.Session) { s.Set("a", "1"); s.Set("b", "2"); s.Set("d", "4") })
		for _, renew := range [][]string{{"sid"}, {"lazy"}, {"sid", "lazy"}, {"sealed"}, {"new"}, {}, {"sid", "sid"}} {
			before := c.jar(c.client)
			c.ok(c.with(func(s *sessplus.Session) { s.Renew(renew...) }))
			after := c.jar(c.client)
			for _, name := range names {
				named := len(renew) == 0 || strings.Contains(fmt.Sprint(renew), name)
				if want := named && name != "new"; (before[name] != after[name]) != want {
					t.Errorf("Renew(%q): cookie %q changed = %v, want %v", renew, name, !want, want)
				}
			}
			c.wantFields(map[string]any{"a": "1", "b": "2", "d": "4"})
		}
		c.ok(c.with(func(s *sessplus.Session) { s.Renew(); s.Set("c", "3"); s.Renew("new") }))
		c.wantFields(map[string]any{"a": "1", "b": "2", "c": "3", "d": "4"})
	})
}

// SPEC 3.8, 5.5: a new id needs a header.
func TestRenewAfterTheHeaders(t *testing.T) {
	t.Parallel()
	onStores(t, func(*sessplus.Config) {}, func(t *testing.T, c *sidSite) {
		c.start()
		c.visit(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			s := sessplus.Get(r)
			s.Renew()
			if err := s.Save(); !errors.Is(err, sessplus.ErrHeadersSent) {
				t.Errorf("Save() = %v, want %v", err, sessplus.ErrHeadersSent)
			}
		})
		c.wantFields(map[string]any{"a": "1"})
	})
}

// SPEC 3.11: of two that renew at once one wins, and the other, which has nothing to lose, leaves no record behind.
func TestOneOfTwoRenewalsWins(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		s := &recorder{Backend: b}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: s}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		renew := func(s *sessplus.Session) { s.Renew() }
		one, two := c.begin(c.client, renew), c.begin(c.client, renew)
		close(one.goOn)
		close(two.goOn)
		statuses := []int{(<-one.answer).StatusCode, (<-two.answer).StatusCode}
		slices.Sort(statuses)
		if want := []int{200, 200}; !slices.Equal(statuses, want) {
			t.Errorf("statuses = %v, want %v", statuses, want)
		}
		if alive := s.alive(t); len(alive) != 1 {
			t.Errorf("%d records are left, want 1", len(alive))
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := s.Get("user"); got != "ann" {
				t.Errorf("user = %v, want ann", got)
			}
		})
	})
}

// SPEC 4.1, 4.2: what is acknowledged while another request renews is in the renewed session.
func TestRenewalLosesNoAcknowledgedChange(t *testing.T) {
	t.Parallel()
	const rounds, n = 5, 6
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Minute}, sessplus.Config{CookieName: "s", Backend: b}))
		for range rounds {
			visitor := c.visitor()
			c.mustAsk(visitor, func(s *sessplus.Session) { s.Set("user", "ann") })
			var slow []*slowRequest
			for i := range n {
				slow = append(slow, c.begin(visitor, func(s *sessplus.Session) { s.Set(fmt.Sprint("f", i), i) }))
			}
			renewal := c.begin(visitor, func(s *sessplus.Session) { s.Renew() })
			for _, r := range append(slow, renewal) {
				close(r.goOn)
			}
			if answer := <-renewal.answer; answer.StatusCode != 200 {
				t.Fatalf("the renewal's status = %d, want 200", answer.StatusCode)
			}
			for i, r := range slow {
				answer := <-r.answer
				c.mustAsk(visitor, func(s *sessplus.Session) {
					if has := s.Has(fmt.Sprint("f", i)); has != (answer.StatusCode == 200) {
						t.Errorf("a change answered with %d is there: %v", answer.StatusCode, has)
					}
				})
			}
		}
	})
}
