package sessplus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessplus/sessplus"
)

// moving gives the configs from before and after a deployment that moves the user from cookie s to cookie t. Both can
// take back what the other has moved.
func moving(s, t sessplus.Backend) (before, after []sessplus.Config) {
	before = []sessplus.Config{
		{CookieName: "s", Backend: s, Fields: sessplus.Include("user", "theme"), Adopt: []string{"t"}},
		{CookieName: "t", Backend: t, Fields: sessplus.Include("cart")},
	}
	after = []sessplus.Config{
		{CookieName: "s", Backend: s, Fields: sessplus.Include("theme")},
		{CookieName: "t", Backend: t, Fields: sessplus.Include("cart", "user"), Adopt: []string{"s"}},
	}
	return before, after
}

// A wanderer is a browser that meets two processes in turn.
type wanderer struct {
	t   *testing.T
	jar map[string]string
}

func (w *wanderer) ask(c *crowd, f func(s *sessplus.Session)) *reply {
	w.t.Helper()
	var list []string
	for name, value := range w.jar {
		list = append(list, name+"="+value)
	}
	r := c.raw(strings.Join(list, "; "), func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
	if r.StatusCode != 200 {
		w.t.Errorf("status %d: %q", r.StatusCode, r.body)
	}
	for _, k := range r.Cookies() {
		if w.jar[k.Name] = k.Value; k.MaxAge < 0 {
			delete(w.jar, k.Name)
		}
	}
	return r
}

// SPEC 12.4: between all kinds of cookies, forth and back.
func TestAdopt(t *testing.T) {
	t.Parallel()
	onEveryHome(t, func(t *testing.T, b sessplus.Backend) {
		for name, o := range map[string]sessplus.Backend{"memory": sessplus.Memory(), "secure cookie": sessplus.SecureCookie(), "the same": b} {
			for _, full := range []bool{false, true} {
				t.Run(fmt.Sprint("from ", name, " ", full), func(t *testing.T) {
					before, after := moving(o, b)
					old, now := newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))
					old.raw("", who) // both serve
					w := &wanderer{t, map[string]string{}}
					has := func(c *crowd, user string) {
						t.Helper()
						r := w.ask(c, func(s *sessplus.Session) {
							if got := s.GetString("user"); got != user {
								t.Errorf("the user is %q, want %q", got, user)
							}
						})
						if len(r.Cookies()) > 0 {
							t.Errorf("a request that only read sets %q", r.Header["Set-Cookie"])
						}
					}
					w.ask(old, func(s *sessplus.Session) {
						s.Set("user", "ann")
						if full {
							s.Set("theme", "dark")
							s.Set("cart", "tea")
						}
					})
					has(now, "ann")
					has(old, "ann")
					for i, c := range []*crowd{now, old, now, now, old} {
						w.ask(c, func(s *sessplus.Session) { s.Set("cart", fmt.Sprint("tea ", i)) })
						has(now, "ann")
						has(old, "ann")
					}
					for i, c := range []*crowd{now, old, now, old, old} {
						user := fmt.Sprint("user ", i)
						w.ask(c, func(s *sessplus.Session) { s.Set("user", user) })
						has(old, user)
						has(now, user)
					}
					w.ask(now, func(s *sessplus.Session) { s.Renew() })
					has(old, "user 4")
					w.ask(old, func(s *sessplus.Session) { s.Delete("user") })
					has(now, "")
					has(old, "")
					w.ask(old, func(s *sessplus.Session) { s.Set("user", "bob") })
					w.ask(now, func(s *sessplus.Session) { s.Destroy("t") })
					has(now, "")
				})
			}
		}
	})
}

// SPEC 12.4: read from its former owner, written to the new one with the next save, and removed there.
func TestAdoptRemovesThere(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		before, after := moving(b, b)
		before[0].Adopt = nil
		old, now := newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))
		w := &wanderer{t, map[string]string{}}
		w.ask(old, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark"); s.Set("cart", "tea") })
		user := func(c *crowd, want string) {
			t.Helper()
			w.ask(c, func(s *sessplus.Session) {
				if got := s.GetString("user"); got != want {
					t.Errorf("the user is %q, want %q", got, want)
				}
			})
		}
		user(now, "ann")
		user(old, "ann")
		w.ask(now, func(s *sessplus.Session) { s.Set("theme", "light") })
		user(now, "ann")
		user(old, "")
		// The record that lost its last field has ended, and so has its cookie.
		w = &wanderer{t, map[string]string{}}
		w.ask(old, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("cart", "tea") })
		r := w.ask(now, func(s *sessplus.Session) { s.Set("cart", "milk") })
		if len(r.setCookies("t")) != 0 || len(r.setCookies("s")) != 1 || w.jar["s"] != "" {
			t.Errorf("the cookies are %q", r.Header["Set-Cookie"])
		}
		user(now, "ann")
	})
}

// SPEC 12.4: what moves to a new cookie is kept for requests without it, of which another may be the one whose answer
// arrives.
func TestAdoptIntoNewCookie(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := sessplus.Memory()
		before, after := moving(b, b)
		before[0].Adopt = nil
		old, now := newManager(t, nil, before...), newManager(t, nil, after...)
		has := func(m *sessplus.Manager, cookies, want string) {
			t.Helper()
			pass(m, cookies, func(s *sessplus.Session) {
				if user := s.GetString("user"); user != want {
					t.Errorf("the user is %q, want %q", user, want)
				}
			})
		}
		s := cookiesOf(pass(old, "", func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark") }))
		lost := pass(now, s, func(s *sessplus.Session) { s.Set("theme", "light") })
		if len(lost.setCookies("t")) != 1 {
			t.Errorf("the cookies are %q", lost.Header["Set-Cookie"])
		}
		has(now, s, "ann")
		both := s + "; " + cookiesOf(pass(now, s, func(s *sessplus.Session) { s.Set("theme", "blue") }))
		if !strings.Contains(both, "t=") {
			t.Errorf("the cookies are %q", both)
		}
		time.Sleep(time.Minute)
		if r := pass(now, both, func(s *sessplus.Session) { s.Set("cart", "tea") }); r.StatusCode != 200 {
			t.Errorf("status %d: %q", r.StatusCode, r.body)
		}
		has(old, s, "")
		has(now, both, "ann")
	})
}

// SPEC 12.4: the copy that the former owner keeps stands in the way of nothing, and brings nothing back.
func TestWhileFormerOwnerKeepsCopy(t *testing.T) {
	t.Parallel()
	for name, home := range map[string]sessplus.Backend{"memory": sessplus.Memory(), "secure cookie": sessplus.SecureCookie()} {
		for what, test := range map[string]struct {
			do   func(s *sessplus.Session)
			want string
		}{
			"Delete":           {func(s *sessplus.Session) { s.Delete("user") }, ""},
			"Set, then Delete": {func(s *sessplus.Session) { s.Set("user", "bob"); s.Save(); s.Delete("user") }, ""},
			"Clear":            {func(s *sessplus.Session) { s.Clear() }, ""},
			"Destroy":          {func(s *sessplus.Session) { s.Destroy("t") }, ""},
			"Destroy there":    {func(s *sessplus.Session) { s.Destroy("s") }, "ann"},
			"Renew":            {func(s *sessplus.Session) { s.Renew("t") }, "ann"},
			"Renew there":      {func(s *sessplus.Session) { s.Renew("s") }, "ann"},
			"login":            {func(s *sessplus.Session) { s.Renew(); s.Set("user", "bob") }, "bob"},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				before, after := moving(sessplus.Memory(), home)
				before[0].Adopt = nil
				old, now := newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))
				w := &wanderer{t, map[string]string{}}
				w.ask(old, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark") })
				w.ask(now, func(s *sessplus.Session) { s.Set("cart", "tea") })
				w.ask(now, test.do)
				for range 2 { // the second one after another save
					w.ask(now, func(s *sessplus.Session) {
						if user := s.GetString("user"); user != test.want {
							t.Errorf("the user is %q, want %q", user, test.want)
						}
						s.Set("cart", "milk")
					})
				}
			})
		}
	}
}

// SPEC 10.2, SPEC 12.4: what a former owner keeps for a minute does not bring back what was revoked in the new cookie.
func TestRevokedBesideCopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := sessplus.Memory()
		before, after := moving(b, b)
		before[0].Adopt = nil
		for i := range after {
			if after[i].CookieName == "t" {
				after[i].IndexBy = "user"
			}
		}
		old, now := newManager(t, nil, before...), newManager(t, nil, after...)
		s := cookiesOf(pass(old, "", func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark") }))
		both := s + "; " + cookiesOf(pass(now, s, func(s *sessplus.Session) { s.Set("cart", "tea") }))
		if n, err := now.RevokeAll(t.Context(), "t", "ann"); n != 1 || err != nil {
			t.Fatalf("RevokeAll = %d, %v, want 1, nil", n, err)
		}
		for _, pause := range []time.Duration{0, 2 * time.Minute, time.Minute} {
			time.Sleep(pause)
			pass(now, both, func(s *sessplus.Session) {
				if user, theme := s.GetString("user"), s.GetString("theme"); user != "" || theme != "dark" {
					t.Errorf("%v later the user is %q, want none; the theme is %q, want %q", pause, user, theme, "dark")
				}
				if fields := s.Fields(); !slices.Equal(fields, []string{"theme"}) {
					t.Errorf("%v later the fields are %q, want theme alone", pause, fields)
				}
			})
		}
		pass(now, s, func(s *sessplus.Session) {
			if user := s.GetString("user"); user != "" {
				t.Errorf("with the old cookie alone the user is %q, want none", user)
			}
		})
		pass(old, s, func(s *sessplus.Session) {
			if fields := s.Fields(); !slices.Equal(fields, []string{"theme"}) {
				t.Errorf("the former owner has %q, want theme alone", fields)
			}
		})
	})
}

// SPEC 12.4: a field that its new owner has not stored yet does not end with its former owner, whether that is loaded
// or not.
func TestFormerOwnerIsDestroyed(t *testing.T) {
	t.Parallel()
	onEveryHome(t, func(t *testing.T, b sessplus.Backend) {
		for _, lazy := range []bool{false, true} {
			if lazy && b == sessplus.SecureCookie() {
				continue // it always is
			}
			before, after := moving(b, sessplus.Memory())
			after[0].Lazy, after[1].Lazy = lazy, lazy
			old, now := newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))
			w := &wanderer{t, map[string]string{}}
			w.ask(old, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark") })
			w.ask(now, func(s *sessplus.Session) { s.Destroy("s") })
			w.ask(now, func(s *sessplus.Session) {
				if user, theme := s.GetString("user"), s.GetString("theme"); user != "ann" || theme != "" {
					t.Errorf("Lazy %t: the user is %q, want %q; the theme is %q, want none", lazy, user, "ann", theme)
				}
			})
		}
	})
}

// SPEC 12.4: a request beside one that moves a field finds it, here or there.
func TestAdoptMissesNoFieldOnItsWay(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		former := &recorder{Backend: b}
		before, after := moving(former, b)
		before[0].Adopt = nil
		c := newCrowd(t, newManager(t, nil, before...))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark"); s.Set("cart", 1) })
		next := newCrowd(t, newManager(t, nil, after...))
		here, there := next.withCookies(c.jar(c.client)), next.withCookies(c.jar(c.client))
		var moved atomic.Bool
		former.mu.Lock()
		former.hook = func(_ context.Context, op string) error {
			if op == "load" && moved.CompareAndSwap(false, true) {
				time.Sleep(50 * time.Millisecond) // whoever loads the other cookie beside this one has done so
				next.mustAsk(there, func(s *sessplus.Session) { s.Set("cart", 2) })
			}
			return nil
		}
		former.mu.Unlock()
		next.mustAsk(here, func(s *sessplus.Session) {
			if user := s.GetString("user"); user != "ann" {
				t.Errorf("the user is %q", user)
			}
		})
	})
}

// SPEC 12.4: old and new processes side by side under load lose nothing that is stored, in both directions.
func TestAdoptUnderLoad(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		before, after := moving(b, b)
		sides := []*crowd{newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))}
		until := time.Now().Add(time.Duration(times(3000)) * time.Millisecond)
		var wg sync.WaitGroup
		var mu sync.Mutex
		requests := 0
		var missed atomic.Int64
		for range 4 {
			wg.Go(func() {
				w := &wanderer{t, map[string]string{}}
				w.ask(sides[0], func(s *sessplus.Session) { s.Set("user", "0"); s.Set("theme", "dark"); s.Set("cart", "tea") })
				user := "0"
				for n := 1; time.Now().Before(until) && !t.Failed(); n++ {
					next, round := fmt.Sprint(n), *w
					var burst sync.WaitGroup
					for i := range 6 {
						burst.Go(func() {
							c := &wanderer{t, map[string]string{"s": round.jar["s"], "t": round.jar["t"]}}
							c.ask(sides[rand.IntN(2)], func(s *sessplus.Session) {
								if s.GetString("user") != user { // read here before it moved, and there after
									missed.Add(1)
								}
								if i%2 == 0 {
									s.Set("cart", fmt.Sprint(next, i))
								} else {
									s.Set("theme", fmt.Sprint(next, i))
								}
							})
						})
					}
					burst.Wait()
					if n%2 == 0 {
						w.ask(sides[rand.IntN(2)], func(s *sessplus.Session) { s.Set("user", next) })
						user = next
					}
					for _, side := range sides {
						w.ask(side, func(s *sessplus.Session) {
							if got := s.GetString("user"); got != user {
								t.Errorf("after the burst the user is %q, want %q", got, user)
							}
						})
					}
					mu.Lock()
					requests += 8
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		t.Logf("%d requests, of which %d met a move between their two loads", requests, missed.Load())
	})
}

// SPEC 12.4: a field with the longest name moves, too, and no name that a backend gets is longer.
func TestMoveOfTheLongestName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 256)
	b := &recorder{Backend: sessplus.Memory()}
	before, after := moving(b, b)
	before[0].Fields, after[1].Fields = sessplus.Include(long), sessplus.Include(long, "cart")
	old, now := newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))
	w := &wanderer{t, map[string]string{}}
	w.ask(old, func(s *sessplus.Session) { s.Set(long, "ann"); s.Set("cart", "tea") })
	w.ask(now, func(s *sessplus.Session) { s.Set("cart", "milk") })
	names := make(map[string]bool)
	for _, key := range b.keys {
		if r, err := b.Backend.Load(t.Context(), key); err == nil {
			for _, f := range r.Fields {
				names[f.Name] = true
				if len(f.Name) > 256 {
					t.Errorf("the backend has a field whose name has %d bytes", len(f.Name))
				}
			}
		}
	}
	if len(names) != 3 || !names[long] {
		t.Errorf("%d names, want the field, cart and the token of the move", len(names))
	}
	w.ask(now, func(s *sessplus.Session) {
		if s.GetString(long) != "ann" || len(s.Fields()) != 2 {
			t.Errorf("the field is %q, and there are %d", s.GetString(long), len(s.Fields()))
		}
	})
}
