package sessplus_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// spec3Dropped reports whether the response makes the browser drop the cookie.
func spec3Dropped(t *testing.T, r *reply, name string) bool {
	t.Helper()
	k := spec3SetCookie(t, r, name)
	return k != nil && k.MaxAge < 0 && k.Value == "" && k.Expires.Before(time.Now().Add(-time.Hour))
}

// meanwhile makes a request of the same browser while a handler runs.
func (c *spec3Case) meanwhile(f func(*sessplus.Session)) *reply {
	c.Helper()
	return c.ok(c.with(f))
}

// SPEC 3.4
func TestSessionEndsWithItsLastField(t *testing.T) {
	ways := map[string]func(s *sessplus.Session){
		"Delete":       func(s *sessplus.Session) { s.Delete("a") },
		"Pop":          func(s *sessplus.Session) { s.Pop("a") },
		"Clear":        func(s *sessplus.Session) { s.Clear() },
		"Field.Delete": func(s *sessplus.Session) { sessplus.Field[string]("a").Delete(s) },
		"Field.Pop":    func(s *sessplus.Session) { sessplus.Field[string]("a").Pop(s) },
		"Save":         func(s *sessplus.Session) { s.Delete("a"); s.Save() },
		"with another": func(s *sessplus.Session) { s.Set("b", 1); s.Delete("b"); s.Delete("a") },
		"with Renew":   func(s *sessplus.Session) { s.Renew(); s.Clear() },
		"permanent":    func(s *sessplus.Session) { s.SetPermanent("sid", true); s.Clear() },
	}
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		for name, empty := range ways {
			id := c.start()
			r := c.ok(c.with(empty))
			if !spec3Dropped(t, r, "sid") || c.jar(c.client)["sid"] != "" {
				t.Errorf("%s: Set-Cookie = %q, want a deletion", name, r.setCookies("sid"))
			}
			limit := time.Now().Add(time.Minute)
			if rec, err := c.record(id); err == nil && (len(rec.Fields) > 0 || rec.Expires.After(limit)) {
				t.Errorf("%s: the record has %v until %v, want nothing and at most a minute", name, rec.Fields, rec.Expires)
			}
			if c.st.rdb != nil {
				if ttl := c.st.rdb.PTTL(t.Context(), spec3Key(c.cfg, id)).Val(); ttl > time.Minute {
					t.Errorf("%s: PTTL = %v, want at most a minute", name, ttl)
				}
			}
			c.wantFields(map[string]any{})
		}
	})
}

// SPEC 3.4
func TestFieldAddedMeanwhileKeepsTheSession(t *testing.T) {
	ways := map[string]func(s *sessplus.Session){
		"Delete": func(s *sessplus.Session) { s.Delete("a") },
		"Pop":    func(s *sessplus.Session) { s.Pop("a") },
		"Clear":  func(s *sessplus.Session) { s.Clear() },
	}
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		for name, empty := range ways {
			c.client = c.visitor()
			id := c.start()
			r := c.ok(c.with(func(s *sessplus.Session) {
				s.Get("a")
				c.meanwhile(func(s *sessplus.Session) { s.Set("b", "2") })
				empty(s)
			}))
			if spec3Dropped(t, r, "sid") {
				t.Errorf("%s: Set-Cookie = %q, want no deletion", name, r.setCookies("sid"))
			}
			c.wantFields(map[string]any{"b": "2"})
			if rec, err := c.record(id); err != nil || time.Until(rec.Expires) < 50*time.Minute {
				t.Errorf("%s: record = %v, %v; want it for as long as before", name, rec, err)
			}
		}
	})
}

// SPEC 3.4
func TestFieldAddedToEmptiedSessionRevivesIt(t *testing.T) {
	empty := func(s *sessplus.Session) { s.Delete("a") }
	for name, add := range map[string]func(*sessplus.Session){
		"Set": func(s *sessplus.Session) { s.Set("b", "2") },
		"Update": func(s *sessplus.Session) {
			sessplus.Field[string]("b").Update(s, func(string) string { return "2" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec3Each(t, func(t *testing.T, c *spec3Case) {
				id := c.start()
				before, _ := c.record(id)
				r := c.ok(c.with(func(s *sessplus.Session) {
					s.Get("a")
					if r := c.meanwhile(empty); !spec3Dropped(t, r, "sid") {
						t.Errorf("emptying: Set-Cookie = %q, want a deletion", r.setCookies("sid"))
					}
					s.Set("a", "1") // as it was loaded: no change
					add(s)
				}))
				if k := spec3SetCookie(t, r, "sid"); k == nil || k.MaxAge < 0 {
					t.Errorf("adding: Set-Cookie = %v, want the cookie again", k)
				}
				c.wantFields(map[string]any{"b": "2"})
				rec, err := c.record(id)
				if err != nil || rec.Expires.Before(before.Expires.Add(-time.Second)) || rec.Permanent != c.permanent {
					t.Errorf("record = %v, %v; want it under the same id, until %v or later, permanent = %v", rec, err, before.Expires, c.permanent)
				}
				r = c.ok(c.with(func(s *sessplus.Session) { s.Clear(); s.Save(); add(s) }))
				if k := spec3SetCookie(t, r, "sid"); k != nil && k.MaxAge < 0 {
					t.Errorf("emptied and filled by one request: Set-Cookie = %v, want no deletion", k)
				}
				c.wantFields(map[string]any{"b": "2"})
			})
		})
	}
}

// SPEC 3.4: a request that changes nothing does not undo the end of the session in the browser, nor does it keep
// moving the end of what is left.
func TestReadingAnEmptiedSessionSendsNoCookie(t *testing.T) {
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		c.start()
		old := c.jar(c.client)["sid"]
		r := c.ok(c.with(func(s *sessplus.Session) {
			s.Get("a")
			c.meanwhile(func(s *sessplus.Session) { s.Clear() })
		}))
		if lines := r.setCookies("sid"); len(lines) > 0 || c.jar(c.client)["sid"] != "" {
			t.Errorf("a request that loaded before: Set-Cookie = %q, want none", lines)
		}
		c.st.ops()
		r = c.ok(c.bring("sid="+old, func(s *sessplus.Session) { s.Get("a") }))
		if k := spec3SetCookie(t, r, "sid"); k != nil && k.MaxAge >= 0 {
			t.Errorf("a request with the old cookie: Set-Cookie = %v, want none", k)
		}
		if ops := fmt.Sprint(c.st.ops()); ops != "[load]" { // SPEC 9.2
			t.Errorf("a request with the old cookie: backend calls %v, want [load]", ops)
		}
	})
}

// SPEC 3.4: a touch that was due when the session was emptied does not bring the cookie back.
func TestTouchOfAnEmptiedSessionSendsNoCookie(t *testing.T) {
	spec3OnStores(t, func(c *sessplus.Config) { c.IdleTimeout, c.MaxAge = 5*time.Second, time.Hour }, func(t *testing.T, c *spec3Case) {
		c.start()
		time.Sleep(600 * time.Millisecond) // more than a tenth: a touch is due
		r := c.ok(c.with(func(s *sessplus.Session) {
			s.Get("a")
			c.meanwhile(func(s *sessplus.Session) { s.Clear() })
		}))
		if lines := r.setCookies("sid"); len(lines) > 0 || c.jar(c.client)["sid"] != "" {
			t.Errorf("Set-Cookie = %q, want none", lines)
		}
	})
}

// SPEC 3.8
func TestRenewGivesANewIDAndKeepsTheRest(t *testing.T) {
	spec3Each(t, func(t *testing.T, c *spec3Case) {
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
		k := spec3SetCookie(t, r, "sid")
		if k == nil || k.Value == old || renewed == id || c.jar(c.client)["sid"] != k.Value {
			t.Fatalf("Set-Cookie = %v, ID() = %q; want new ones", k, renewed)
		}
		ops := c.st.ops()
		slices.Sort(ops) // create and take are side by side
		if fmt.Sprint(ops) != "[create end load take]" {
			t.Errorf("backend calls %v, want load, create, take and end", ops)
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
	spec3Each(t, func(t *testing.T, c *spec3Case) {
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
	spec3OnStores(t, func(*sessplus.Config) {}, func(t *testing.T, c *spec3Case) {
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

// SPEC 3.11, 4.2: of two that renew the session at once one wins, and the other, which has nothing to lose, is well; a session
// that was destroyed is not brought back.
func TestRenewOfASessionThatIsGone(t *testing.T) {
	for name, end := range map[string]func(*sessplus.Session){
		"renewed":   func(s *sessplus.Session) { s.Renew() },
		"destroyed": func(s *sessplus.Session) { s.Destroy() },
	} {
		t.Run(name, func(t *testing.T) {
			spec3Each(t, func(t *testing.T, c *spec3Case) {
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
	spec3OnStores(t, func(c *sessplus.Config) { c.Fields = sessplus.Include("a") }, func(t *testing.T, c *spec3Case) {
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
	spec3OnStores(t, func(*sessplus.Config) {}, func(t *testing.T, c *spec3Case) {
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

// SPEC 3.9
func TestDestroyRemovesRecordAndCookie(t *testing.T) {
	ways := map[string]func(s *sessplus.Session){
		"all":         func(s *sessplus.Session) { s.Destroy() },
		"named":       func(s *sessplus.Session) { s.Destroy("sid") },
		"twice":       func(s *sessplus.Session) { s.Destroy(); s.Destroy() },
		"saved":       func(s *sessplus.Session) { s.Destroy(); s.Save(); s.Destroy(); s.Save() },
		"after Set":   func(s *sessplus.Session) { s.Set("b", 1); s.Destroy() },
		"after Renew": func(s *sessplus.Session) { s.Renew(); s.Save(); s.Destroy() },
		"then Renew":  func(s *sessplus.Session) { s.Destroy(); s.Renew() },
		"then Delete": func(s *sessplus.Session) { s.Destroy(); s.Delete("a"); s.SetPermanent("sid", true) },
	}
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		for name, end := range ways {
			c.start()
			old := c.jar(c.client)["sid"]
			r := c.ok(c.with(func(s *sessplus.Session) {
				end(s)
				if s.Has("a") || s.ID("sid") != "" || !s.IsNew("sid") || !s.Expires("sid").IsZero() {
					t.Errorf("%s: after Destroy: fields %v, IsNew() = %v; want nothing", name, s.Fields(), s.IsNew("sid"))
				}
			}))
			if !spec3Dropped(t, r, "sid") || c.jar(c.client)["sid"] != "" {
				t.Errorf("%s: Set-Cookie = %q, want a deletion", name, r.setCookies("sid"))
			}
			if all := c.st.text(t); len(all) > 0 {
				t.Errorf("%s: the store holds %v, want nothing", name, all)
			}
			c.ok(c.bring("sid="+old, func(s *sessplus.Session) {
				if s.Has("a") {
					t.Errorf("%s: the old cookie still opens the session", name)
				}
			}))
		}
	})
}

// SPEC 3.9
func TestDestroyOfWhatWasJustCreated(t *testing.T) {
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		r := c.ok(c.with(func(s *sessplus.Session) { s.Set("a", "1"); s.Save(); s.Destroy() }))
		if k := spec3SetCookie(t, r, "sid"); k != nil && k.MaxAge >= 0 || len(c.jar(c.client)) > 0 {
			t.Errorf("Set-Cookie = %v, want none", k)
		}
		if all := c.st.text(t); len(all) > 0 {
			t.Errorf("the store holds %v, want nothing", all)
		}
	})
}

// SPEC 3.9
func TestDestroyOfASecureCookie(t *testing.T) {
	c := &spec3Case{site: newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", MaxChunks: 4}))}
	c.ok(c.with(func(s *sessplus.Session) { s.Set("a", strings.Repeat("x", 5000)); s.SetPermanent("sid", true) }))
	if n := len(c.jar(c.client)); n < 2 {
		t.Fatalf("%d cookies, want chunks", n)
	}
	c.ok(c.with(func(s *sessplus.Session) {
		s.Destroy()
		s.Set("b", "2")
		if s.Has("a") || s.Permanent("sid") || !s.IsNew("sid") {
			t.Errorf("after Destroy: fields %v, Permanent() = %v; want a new session", s.Fields(), s.Permanent("sid"))
		}
	}))
	c.wantFields(map[string]any{"b": "2"})
	c.ok(c.with(func(s *sessplus.Session) { s.Destroy() }))
	if jar := c.jar(c.client); len(jar) > 0 {
		t.Errorf("the browser has %v, want no cookie", jar)
	}
}

// SPEC 3.9: a logout does not load first what it removes.
func TestDestroyOfALazySessionLoadsNothing(t *testing.T) {
	for _, sign := range []bool{false, true} {
		spec3OnStores(t, func(c *sessplus.Config) { c.Lazy, c.SignID = true, sign }, func(t *testing.T, c *spec3Case) {
			c.start()
			c.st.ops()
			c.ok(c.with(func(s *sessplus.Session) { s.Destroy() }))
			if ops := fmt.Sprint(c.st.ops()); ops != "[delete]" {
				t.Errorf("backend calls %v, want [delete]", ops)
			}
		})
	}
}

// SPEC 3.9: that the record is gone already is no error, and the cookie goes all the same.
func TestDestroyOfWhatIsGone(t *testing.T) {
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		c.start()
		old := c.jar(c.client)["sid"]
		r := c.ok(c.with(func(s *sessplus.Session) {
			s.Get("a")
			c.meanwhile(func(s *sessplus.Session) { s.Destroy() })
			s.Destroy()
		}))
		if !spec3Dropped(t, r, "sid") {
			t.Errorf("destroyed meanwhile: Set-Cookie = %q, want a deletion", r.setCookies("sid"))
		}
		for _, text := range []string{old, "malformed", ""} {
			if r := c.ok(c.bring("sid="+text, func(s *sessplus.Session) { s.Destroy() })); !spec3Dropped(t, r, "sid") {
				t.Errorf("Destroy of %q: Set-Cookie = %q, want a deletion", text, r.setCookies("sid"))
			}
		}
	})
}

// SPEC 3.9
func TestDestroyAfterTheHeaders(t *testing.T) {
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		for _, save := range []bool{false, true} {
			c.client = c.visitor() // the other has still the cookie of the session that has ended
			c.start()
			c.visit(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				s := sessplus.Get(r)
				s.Destroy()
				if save {
					if err := s.Save(); err != nil {
						t.Errorf("Save() = %v, want nil", err)
					}
				}
			})
			// The response ends only after the handler has returned and the record is gone.
			if all := c.st.text(t); len(all) > 0 {
				t.Errorf("save %v: the store holds %v, want nothing", save, all)
			}
			c.wantFields(map[string]any{})
		}
	})
}

// SPEC 3.9
func TestSetAfterDestroyStartsANewSession(t *testing.T) {
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		id := c.start()
		var next string
		r := c.ok(c.with(func(s *sessplus.Session) {
			s.Destroy()
			s.Set("b", "2")
			s.Save()
			next = s.ID("sid")
			if s.Has("a") || s.Permanent("sid") || !s.IsNew("sid") {
				t.Errorf("fields %v, Permanent() = %v, IsNew() = %v; want a new session", s.Fields(), s.Permanent("sid"), s.IsNew("sid"))
			}
		}))
		if k := spec3SetCookie(t, r, "sid"); k == nil || k.MaxAge < 0 || next == id || next == "" {
			t.Errorf("Set-Cookie = %v, ID() = %q; want a new id", k, next)
		}
		c.wantFields(map[string]any{"b": "2"})
		if all := c.st.text(t); len(all) != 1 {
			t.Errorf("the store holds %v, want the new record only", all)
		}
		if rec, err := c.record(next); err != nil || rec.Permanent {
			t.Errorf("record = %v, %v; want one that is not permanent", rec, err)
		}
	})
}

// SPEC 3.9, 5.9: a browser drops a cookie only when the deletion has the attributes it was set with.
func TestDeletionRepeatsTheAttributes(t *testing.T) {
	for name, adapt := range map[string]func(*sessplus.Config){
		"defaults": func(*sessplus.Config) {},
		"domain":   func(c *sessplus.Config) { c.Domain, c.Path = "example.com", "/app" },
		"cross": func(c *sessplus.Config) {
			c.Secure, c.SameSite, c.Partitioned = sessplus.SecureAlways, http.SameSiteNoneMode, true
		},
		"strict": func(c *sessplus.Config) {
			c.SameSite, c.ScriptReadable, c.MaxAge = http.SameSiteStrictMode, true, time.Hour
		},
	} {
		for kind, b := range map[string]sessplus.Backend{"memory": sessplus.Memory(), "secure cookie": sessplus.SecureCookie()} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				c := spec3Open(t, &spec3Store{Backend: sessplus.Memory()}, func(c *sessplus.Config) { adapt(c); c.Backend = b })
				set := spec3SetCookie(t, c.ok(c.with(func(s *sessplus.Session) { s.Set("a", 1) })), "sid")
				for how, end := range map[string]func(*sessplus.Session){
					"Destroy": func(s *sessplus.Session) { s.Destroy() },
					"Clear":   func(s *sessplus.Session) { s.Clear() },
				} {
					r := c.bring("sid="+set.Value, end)
					k := spec3SetCookie(t, r, "sid")
					if how == "Clear" && k == nil {
						continue // destroyed before
					}
					if !spec3Dropped(t, r, "sid") || k.Domain != set.Domain || k.Path != set.Path || k.Secure != set.Secure ||
						k.SameSite != set.SameSite || k.Partitioned != set.Partitioned || k.HttpOnly != set.HttpOnly {
						t.Errorf("%s: deletion %q of %q", how, k, set)
					}
				}
			})
		}
	}
}
