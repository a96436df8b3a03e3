package sessplus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 3.4
func TestSessionEndsWithItsLastField(t *testing.T) {
	t.Parallel()
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
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		for name, empty := range ways {
			id := c.start()
			r := c.ok(c.with(empty))
			if !dropsCookie(t, r, "sid") || c.jar(c.client)["sid"] != "" {
				t.Errorf("%s: Set-Cookie = %q, want a deletion", name, r.setCookies("sid"))
			}
			limit := time.Now().Add(time.Minute)
			if rec, err := c.record(id); err == nil && (len(rec.Fields) > 0 || rec.Expires.After(limit)) {
				t.Errorf("%s: the record has %v until %v, want nothing and at most a minute", name, rec.Fields, rec.Expires)
			}
			if c.st.rdb != nil {
				if ttl := c.st.rdb.PTTL(t.Context(), recordKey(c.cfg, id)).Val(); ttl > time.Minute {
					t.Errorf("%s: PTTL = %v, want at most a minute", name, ttl)
				}
			}
			c.wantFields(map[string]any{})
		}
	})
}

// SPEC 3.4
func TestFieldAddedMeanwhileKeepsTheSession(t *testing.T) {
	t.Parallel()
	ways := map[string]func(s *sessplus.Session){
		"Delete": func(s *sessplus.Session) { s.Delete("a") },
		"Pop":    func(s *sessplus.Session) { s.Pop("a") },
		"Clear":  func(s *sessplus.Session) { s.Clear() },
	}
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		for name, empty := range ways {
			c.client = c.visitor()
			id := c.start()
			r := c.ok(c.with(func(s *sessplus.Session) {
				s.Get("a")
				c.meanwhile(func(s *sessplus.Session) { s.Set("b", "2") })
				empty(s)
			}))
			if dropsCookie(t, r, "sid") {
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
	t.Parallel()
	empty := func(s *sessplus.Session) { s.Delete("a") }
	for name, add := range map[string]func(*sessplus.Session){
		"Set": func(s *sessplus.Session) { s.Set("b", "2") },
		"Update": func(s *sessplus.Session) {
			sessplus.Field[string]("b").Update(s, func(string) string { return "2" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryVariant(t, func(t *testing.T, c *sidSite) {
				id := c.start()
				before, _ := c.record(id)
				r := c.ok(c.with(func(s *sessplus.Session) {
					s.Get("a")
					if r := c.meanwhile(empty); !dropsCookie(t, r, "sid") {
						t.Errorf("emptying: Set-Cookie = %q, want a deletion", r.setCookies("sid"))
					}
					s.Set("a", "1") // as it was loaded: no change
					add(s)
				}))
				if k := setCookie(t, r, "sid"); k == nil || k.MaxAge < 0 {
					t.Errorf("adding: Set-Cookie = %v, want the cookie again", k)
				}
				c.wantFields(map[string]any{"b": "2"})
				rec, err := c.record(id)
				if err != nil || rec.Expires.Before(before.Expires.Add(-time.Second)) || rec.Permanent != c.permanent {
					t.Errorf("record = %v, %v; want it under the same id, until %v or later, permanent = %v", rec, err, before.Expires, c.permanent)
				}
				r = c.ok(c.with(func(s *sessplus.Session) { s.Clear(); s.Save(); add(s) }))
				if k := setCookie(t, r, "sid"); k != nil && k.MaxAge < 0 {
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
	t.Parallel()
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
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
		if k := setCookie(t, r, "sid"); k != nil && k.MaxAge >= 0 {
			t.Errorf("a request with the old cookie: Set-Cookie = %v, want none", k)
		}
		if ops := fmt.Sprint(c.st.ops()); ops != "[load]" { // SPEC 9.2
			t.Errorf("a request with the old cookie: backend calls %v, want [load]", ops)
		}
	})
}

// SPEC 3.4: a touch that was due when the session was emptied does not bring the cookie back.
func TestTouchOfAnEmptiedSessionSendsNoCookie(t *testing.T) {
	t.Parallel()
	onStores(t, func(c *sessplus.Config) { c.IdleTimeout, c.MaxAge = 5*time.Second, time.Hour }, func(t *testing.T, c *sidSite) {
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
