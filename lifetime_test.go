package sessplus_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 3.5: Lifetime runs from creation, however often the session is used; with a negative one there is no such end.
func TestLifetimeEndsTheSession(t *testing.T) {
	t.Parallel()
	const life = 800 * time.Millisecond
	for name, adapt := range map[string]func(*sessplus.Config){
		"plain":     func(*sessplus.Config) {},
		"lazy idle": func(c *sessplus.Config) { c.Lazy, c.IdleTimeout, c.MaxAge = true, time.Hour, time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onStores(t, func(c *sessplus.Config) { adapt(c); c.Lifetime = life }, func(t *testing.T, c *sidSite) {
				t.Parallel()
				start := time.Now()
				id := c.start()
				created := time.Now()
				if c.st.rdb != nil { // the store's own expiry may fail
					c.st.rdb.Persist(t.Context(), recordKey(c.cfg, id))
				}
				old := c.jar(c.client)["sid"]
				for n := 0; time.Since(start) < 2*life; n++ {
					asked := time.Now()
					var has bool
					c.ok(c.bring("sid="+old, func(s *sessplus.Session) { has = s.Has("a") }))
					switch {
					case has && asked.After(created.Add(life)):
						t.Fatalf("the session is there after %v, want an end after %v", asked.Sub(created), life)
					case !has && time.Now().Before(start.Add(life)):
						t.Fatalf("the session is gone after %v, want it for %v", time.Since(start), life)
					}
					time.Sleep(life / 10)
				}
				if r, err := c.record(id); !errors.Is(err, sessplus.ErrNoRecord) { // the contract of Backend
					t.Errorf("Backend.Load of an expired record that is still stored = %v, %v, want %v", r, err, sessplus.ErrNoRecord)
				}
				if c.st.rdb != nil {
					c.st.rdb.Del(t.Context(), recordKey(c.cfg, id))
				}
			})
		})
	}
}

// SPEC 3.5, 4.2: a session whose lifetime ends while a request runs is gone for that request, too.
func TestSaveAfterTheLifetime(t *testing.T) {
	t.Parallel()
	onStores(t, func(c *sessplus.Config) { c.Lifetime = time.Second }, func(t *testing.T, c *sidSite) {
		c.start()
		slow := false
		r := c.with(func(s *sessplus.Session) {
			if slow = !s.Has("a"); slow {
				return
			}
			time.Sleep(1100 * time.Millisecond)
			s.Set("b", "2")
			if err := s.Save(); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("Save() = %v, want %v", err, sessplus.ErrSessionGone)
			}
			s.Set("c", "3")
		})
		if slow {
			t.Skip("the machine is too slow: the session ended before the request")
		}
		if lines := r.setCookies("sid"); r.StatusCode != http.StatusConflict || len(lines) > 0 {
			t.Errorf("status %d, Set-Cookie = %q, want 409 and none", r.StatusCode, lines)
		}
		c.wantFields(map[string]any{})
	})
}

// SPEC 3.5: each use moves the idle expiry, and without one it comes.
func TestIdleTimeoutEndsWhatIsNotUsed(t *testing.T) {
	t.Parallel()
	const idle = 1200 * time.Millisecond
	for name, adapt := range map[string]func(*sessplus.Config){
		"plain":        func(*sessplus.Config) {},
		"endless lazy": func(c *sessplus.Config) { c.Lifetime, c.Lazy, c.MaxAge = -1, true, time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onStores(t, func(c *sessplus.Config) { adapt(c); c.IdleTimeout = idle }, func(t *testing.T, c *sidSite) {
				t.Parallel()
				start, last := time.Now(), time.Now()
				c.start()
				old := c.jar(c.client)["sid"]
				use := func() (has bool) {
					c.ok(c.bring("sid="+old, func(s *sessplus.Session) { has = s.Has("a") }))
					return has
				}
				for time.Since(start) < idle*3/2 {
					time.Sleep(idle / 8)
					begun := time.Now()
					if has, gap := use(), time.Since(last); !has {
						if gap > idle*8/10 {
							t.Skipf("the machine is too slow: %v between two requests", gap)
						}
						t.Fatalf("gone %v after the last use, want it for %v", gap, idle)
					}
					last = begun
				}
				time.Sleep(idle + 50*time.Millisecond)
				if use() {
					t.Errorf("the session is there after an idle time of %v", idle)
				}
			})
		})
	}
}

// SPEC 3.5: however many requests only read, the record is touched once per tenth of the timeout, by a small command.
func TestTouchIsRareAndSmall(t *testing.T) {
	t.Parallel()
	const tenth = 300 * time.Millisecond
	onStores(t, func(c *sessplus.Config) { c.IdleTimeout = 10 * tenth }, func(t *testing.T, c *sidSite) {
		t.Parallel()
		id := c.start()
		c.with(func(s *sessplus.Session) { s.Set("large", strings.Repeat("x", 50_000)) })
		start := time.Now()
		c.st.ops()
		touches := 0
		for time.Since(start) < 5*tenth {
			before, _ := c.record(id)
			c.st.ops()
			c.with(func(s *sessplus.Session) { s.Get("a") })
			c.st.mu.Lock()
			trips, change := strings.Join(c.st.trips, "\n"), c.st.last
			c.st.mu.Unlock()
			if !strings.Contains(fmt.Sprint(c.st.ops()), "update") {
				continue
			}
			touches++
			after, err := c.record(id)
			if err != nil || !after.Expires.After(before.Expires) || !after.Saved.Equal(before.Saved) || len(after.Fields) != 2 {
				t.Errorf("touched record: %v, want only its expiry moved", err)
			}
			if len(change.Set)+len(change.Delete) > 0 || len(trips) > 1000 && touches > 1 { // one may bring a script
				t.Errorf("a touch sets %d fields, and sends %d bytes to Redis", len(change.Set), len(trips))
			}
		}
		if most := int(time.Since(start)/tenth) + 1; touches > most || touches < 2 {
			t.Errorf("%d touches in %v, want 2 to %d", touches, time.Since(start), most)
		}
	})
}

// SPEC 3.5: a response that takes long uses its session until its end.
func TestEndOfALongResponseIsAUse(t *testing.T) {
	t.Parallel()
	onStores(t, func(c *sessplus.Config) { c.IdleTimeout = 5 * time.Second }, func(t *testing.T, c *sidSite) {
		id := c.start()
		before, err1 := c.record(id)
		const long = 600 * time.Millisecond // more than a tenth
		c.visit(func(w http.ResponseWriter, r *http.Request) {
			sessplus.Get(r).Get("a")
			w.(http.Flusher).Flush()
			time.Sleep(long)
		})
		after, err2 := c.record(id)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if moved := after.Expires.Sub(before.Expires); moved < long {
			t.Errorf("the expiry moved by %v, want at least %v", moved, long)
		}
	})
}

// SPEC 3.5: a touch that fails is in the log, and the response is the handler's.
func TestFailedTouchIsNoError(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	client := server.Client()
	defer client.Close()
	var log journal
	m := newManager(t, &sessplus.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Timeout: time.Second},
		sessplus.Config{CookieName: "sid", Backend: sessplus.Redis(client), IdleTimeout: 4 * time.Second, MaxAge: time.Hour})
	c := &sidSite{site: newSite(t, m)}
	c.start()
	time.Sleep(500 * time.Millisecond)
	r := c.ok(c.visit(func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		if s.Get("a") != "1" {
			t.Error("the session is not there")
		}
		server.Kill()
		fmt.Fprint(w, "hello")
	}))
	if lines := r.setCookies("sid"); r.body != "hello" || len(lines) > 0 {
		t.Errorf("body %q, Set-Cookie = %q; want hello and none", r.body, lines)
	}
	if !strings.Contains(log.text(), "level=WARN") || strings.Contains(log.text(), c.jar(c.client)["sid"]) {
		t.Errorf("log = %q, want a warning without the id", log.text())
	}
}

// SPEC 3.5: what the store has not removed yet does not count.
func TestExpiredRecordThatIsStillStored(t *testing.T) {
	t.Parallel()
	onStores(t, func(*sessplus.Config) {}, func(t *testing.T, c *sidSite) {
		id := c.start()
		key, past := recordKey(c.cfg, id), time.Now().Add(-time.Second)
		switch {
		case c.st.fs != nil:
			doc := c.st.fs.Collection("sessions").Doc(key)
			snap, err := doc.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			end, _ := snap.Data()["expires_at"].(time.Time)
			if d := time.Until(end); d < 23*time.Hour || d > 24*time.Hour {
				t.Errorf("expires_at is %v ahead, want the Lifetime of 24h", d)
			}
			if _, err := doc.Update(t.Context(), []firestore.Update{{Path: "expires_at", Value: past}}); err != nil {
				t.Fatal(err)
			}
		case c.st.rdb != nil:
			if ttl := c.st.rdb.PTTL(t.Context(), key).Val(); ttl < 23*time.Hour || ttl > 24*time.Hour {
				t.Errorf("PTTL = %v, want the Lifetime of 24h", ttl)
			}
			for name, value := range c.st.rdb.HGetAll(t.Context(), key).Val() {
				if strings.Contains(name, "expires") {
					value = fmt.Sprint(past.UnixMilli())
					c.st.rdb.HSet(t.Context(), key, name, value)
				}
			}
		default:
			t.Skip("nobody can write to it")
		}
		c.ok(c.with(func(s *sessplus.Session) {
			if s.Has("a") || s.ID("sid") != "" {
				t.Error("an expired record was loaded")
			}
			s.Set("b", "2")
			s.Save()
			if s.ID("sid") == id {
				t.Error("its id was adopted")
			}
		}))
		if c.st.rdb != nil {
			c.st.rdb.Del(t.Context(), key)
		}
	})
}

// SPEC 3.6
func TestMaxAgeOfAServerSideCookie(t *testing.T) {
	t.Parallel()
	const h, none = time.Hour, -1
	for _, test := range []struct {
		maxAge, lifetime, idle time.Duration
		permanent              time.Duration // 0: not permanent
		created, saved         time.Duration // want of Max-Age
	}{
		{0, 0, 0, 0, 0, none},
		{0, 0, h, 0, 0, none},
		{0, -1, h, 0, 0, none},
		{h, 0, 0, 0, h, h},
		{48 * h, 0, 0, 0, 24 * h, 24 * h},
		{48 * h, 2 * h, 0, 0, 2 * h, 2 * h},
		{48 * h, -1, h, 0, h, h},
		{48 * h, -1, 72 * h, 0, 48 * h, 48 * h},
		{h, 0, h / 2, 0, h / 2, h / 2},
		{0, 0, 0, 72 * h, 72 * h, 72 * h},
		{h, 0, 0, 72 * h, 72 * h, 72 * h},
		{0, 0, h, 72 * h, h, h},
		{0, -1, h, 72 * h, h, h},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			onStores(t, func(c *sessplus.Config) {
				c.MaxAge, c.Lifetime, c.IdleTimeout, c.PermanentLifetime = test.maxAge, test.lifetime, test.idle, test.permanent
			}, func(t *testing.T, c *sidSite) {
				r := c.ok(c.with(func(s *sessplus.Session) { s.Set("a", "1"); s.SetPermanent("sid", test.permanent > 0) }))
				wantMaxAge(t, "creation", r, test.created)
				wantMaxAge(t, "read", c.ok(c.with(func(s *sessplus.Session) { s.Get("a") })), none)
				wantMaxAge(t, "no change", c.ok(c.with(func(s *sessplus.Session) { s.Set("a", "1") })), none)
				wantMaxAge(t, "save", c.ok(c.with(func(s *sessplus.Session) { s.Set("a", "2") })), test.saved)
				wantMaxAge(t, "removal", c.ok(c.with(func(s *sessplus.Session) { s.Set("b", "2"); s.Save(); s.Delete("b") })), test.saved)
				r = c.ok(c.with(func(s *sessplus.Session) {
					if _, err := sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 }); err != nil {
						t.Errorf("Update: %v", err)
					}
				}))
				wantMaxAge(t, "update", r, test.saved)
				wantMaxAge(t, "renewal", c.ok(c.with(func(s *sessplus.Session) { s.Renew() })), test.created)
			})
		})
	}
}

// SPEC 3.6: with a MaxAge a touch sends the cookie again, without one it does not.
func TestMaxAgeAfterATouch(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []time.Duration{0, time.Hour} {
		onStores(t, func(c *sessplus.Config) { c.IdleTimeout, c.MaxAge = 3*time.Second, maxAge }, func(t *testing.T, c *sidSite) {
			c.start()
			time.Sleep(400 * time.Millisecond)
			c.st.ops()
			r := c.ok(c.with(func(s *sessplus.Session) { s.Get("a") }))
			if ops := fmt.Sprint(c.st.ops()); ops != "[load update]" {
				t.Fatalf("backend calls %v, want a touch", ops)
			}
			k := setCookie(t, r, "sid")
			if (k != nil) != (maxAge > 0) || k != nil && (k.MaxAge < 2 || k.MaxAge > 3) {
				t.Errorf("MaxAge %v: Set-Cookie = %v, want one of 3 s with a MaxAge", maxAge, k)
			}
		})
	}
}

// SPEC 3.6: the server checks the age of a secure cookie's content, whatever the browser does.
func TestAgeOfASecureCookie(t *testing.T) {
	t.Parallel()
	const h, short = time.Hour, 2 * time.Second
	for _, test := range []struct {
		name              string
		maxAge, permanent time.Duration // the latter 0: not permanent
		age, expires      time.Duration // want
		ends              bool          // within short
	}{
		{"until the browser closes", 0, 0, 0, 30 * 24 * h, false},
		{"an hour", h, 0, h, h, false},
		{"short", short, 0, short, short, true},
		{"permanent", short, h, h, h, false},
		{"permanent and short", h, short, short, short, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := sessplus.Config{CookieName: "sid", MaxAge: test.maxAge, PermanentLifetime: test.permanent}
			c := &sidSite{site: newSite(t, newManager(t, nil, cfg))}
			start := time.Now()
			r := c.ok(c.with(func(s *sessplus.Session) {
				s.Set("a", "1")
				s.SetPermanent("sid", test.permanent > 0)
				s.Save()
				if d := time.Until(s.Expires("sid")); d > test.expires || d < test.expires-30*time.Second {
					t.Errorf("Expires() is %v ahead, want %v", d, test.expires)
				}
			}))
			written := time.Now()
			wantMaxAge(t, "creation", r, test.age)
			text := setCookie(t, r, "sid").Value
			replay := func() (has, permanent bool) {
				r := c.ok(c.bring("sid="+text, func(s *sessplus.Session) { has, permanent = s.Get("a") == "1", s.Permanent("sid") }))
				wantMaxAge(t, "read", r, -1)
				return has, permanent
			}
			has, permanent := replay()
			if time.Since(start) < test.expires-time.Second && (!has || permanent != (test.permanent > 0)) {
				t.Errorf("at once: there = %v, permanent = %v; want true, %v", has, permanent, test.permanent > 0)
			}
			time.Sleep(time.Until(written.Add(short + 50*time.Millisecond)))
			if has, _ := replay(); has == test.ends {
				t.Errorf("after %v: there = %v, want %v", time.Since(written), has, !test.ends)
			}
			r = c.ok(c.bring("sid="+text, func(s *sessplus.Session) { s.Set("b", 1) }))
			wantMaxAge(t, "save", r, map[bool]time.Duration{false: test.age, true: test.maxAge}[test.ends])
		})
	}
}

// SPEC 3.7
func TestPermanentTakesThePlaceOfLifetimeAndMaxAge(t *testing.T) {
	t.Parallel()
	const h = time.Hour
	for _, lazy := range []bool{false, true} {
		onStores(t, func(c *sessplus.Config) { c.PermanentLifetime, c.Lazy = 90*24*h, lazy }, func(t *testing.T, c *sidSite) {
			see := func(want bool, expires time.Duration) {
				t.Helper()
				c.ok(c.with(func(s *sessplus.Session) {
					d := time.Until(s.Expires("sid"))
					if s.Permanent("sid") != want || d > expires || d < expires-time.Minute {
						t.Errorf("Permanent() = %v, Expires() in %v; want %v, %v", s.Permanent("sid"), d, want, expires)
					}
					rec, err := c.record(s.ID("sid"))
					if err != nil || rec.Permanent != want || rec.Expires.Sub(s.Expires("sid")).Abs() > time.Millisecond {
						t.Errorf("record = %v, %v; want it as the session says", rec, err)
					}
				}))
			}
			set := func(on bool) func(s *sessplus.Session) {
				return func(s *sessplus.Session) { s.SetPermanent("sid", on) }
			}
			c.permanent = true
			c.start()
			see(true, 90*24*h)
			wantMaxAge(t, "on again", c.ok(c.with(set(true))), -1)
			wantMaxAge(t, "off", c.ok(c.with(set(false))), 0)
			see(false, 24*h)
			wantMaxAge(t, "off again", c.ok(c.with(set(false))), -1)
			wantMaxAge(t, "on and off", c.ok(c.with(func(s *sessplus.Session) { set(true)(s); set(false)(s) })), -1)
			wantMaxAge(t, "on", c.ok(c.with(set(true))), 90*24*h)
			see(true, 90*24*h)
			wantMaxAge(t, "save", c.ok(c.with(func(s *sessplus.Session) { s.Set("b", 1) })), 90*24*h)
			wantMaxAge(t, "renewal", c.ok(c.with(func(s *sessplus.Session) { s.Renew() })), 90*24*h)
			see(true, 90*24*h)
			c.wantFields(map[string]any{"a": "1", "b": 1})
		})
	}
	t.Run("secure cookie", func(t *testing.T) {
		c := &sidSite{site: newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", PermanentLifetime: 90 * 24 * h}))}
		c.with(func(s *sessplus.Session) { s.Set("a", "1") })
		on := func(s *sessplus.Session) { s.SetPermanent("sid", true) }
		wantMaxAge(t, "on", c.ok(c.with(on)), 90*24*h)
		wantMaxAge(t, "on again", c.ok(c.with(on)), -1)
		wantMaxAge(t, "save", c.ok(c.with(func(s *sessplus.Session) { s.Set("b", 1) })), 90*24*h)
		wantMaxAge(t, "off", c.ok(c.with(func(s *sessplus.Session) { s.SetPermanent("sid", false) })), 0)
		c.wantFields(map[string]any{"a": "1", "b": 1})
	})
}

// SPEC 3.7: a permanent session outlives Lifetime, and ends with it at once when it is no longer permanent.
func TestPermanentSessionOutlivesLifetime(t *testing.T) {
	t.Parallel()
	onStores(t, func(c *sessplus.Config) { c.Lifetime = time.Second }, func(t *testing.T, c *sidSite) {
		c.permanent = true
		c.start()
		time.Sleep(1100 * time.Millisecond)
		c.wantFields(map[string]any{"a": "1"})
		r := c.with(func(s *sessplus.Session) { s.SetPermanent("sid", false); s.Set("\xff", 1) })
		if r.StatusCode != http.StatusInternalServerError {
			t.Errorf("status = %d, want 500", r.StatusCode)
		}
		c.wantFields(map[string]any{"a": "1"}) // a commit that fails saves nothing
		if r := c.ok(c.with(func(s *sessplus.Session) { s.SetPermanent("sid", false) })); !dropsCookie(t, r, "sid") {
			t.Errorf("Set-Cookie = %q, want a deletion", r.setCookies("sid"))
		}
		if all := c.st.text(t); len(all) > 0 {
			t.Errorf("the store holds %v, want nothing", all)
		}
	})
}
