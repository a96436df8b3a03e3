package sessplus_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

func fast(t *testing.T, test func(t *testing.T, b sessplus.Backend)) {
	for _, b := range backends[:2] {
		t.Run(b.name, func(t *testing.T) { test(t, b.open(t)) })
	}
}

// SPEC 10.1: the last used first, also after a deployment has shortened IdleTimeout.
func TestOrderAfterADeployment(t *testing.T) {
	fast(t, func(t *testing.T, b sessplus.Backend) {
		config := sessplus.Config{CookieName: "s", Backend: b, IndexBy: "user", IdleTimeout: time.Hour}
		before := newCrowd(t, newManager(t, nil, config))
		idle, used := before.visitor(), before.visitor()
		before.mustAsk(used, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("name", "used") })
		before.mustAsk(idle, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("name", "idle") })
		config.IdleTimeout = 10 * time.Minute
		m := newManager(t, nil, config)
		after := newCrowd(t, m)
		time.Sleep(20 * time.Millisecond)
		after.mustAsk(used, func(s *sessplus.Session) { s.Get("user") })
		list, err := m.Sessions(t.Context(), "s", "ann")
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		if list[0].Fields["name"] != "used" {
			t.Errorf("first is %v, want the one used last", list[0].Fields["name"])
		}
	})
}

// A random crowd of tabs with logins in two steps, rotations and single cookies.
func TestTabs(t *testing.T) {
	t.Parallel()
	fast(t, func(t *testing.T, b sessplus.Backend) {
		for _, single := range []string{"", "__session"} {
			t.Run("single "+single, func(t *testing.T) {
				m := newManager(t, &sessplus.Options{SingleCookie: single},
					sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: single, Fields: sessplus.Include("user", "step", "n"), IndexBy: "user", RotateEvery: 30 * time.Millisecond,
						SignID: true, MaxAge: time.Hour, IdleTimeout: time.Minute},
					sessplus.Config{CookieName: "d", Backend: b, KeyPrefix: single, Fields: sessplus.Include("user", "x"), IndexBy: "user", Lazy: true},
					sessplus.Config{CookieName: "c", Fields: sessplus.Include("bound"), BoundTo: "s"})
				c := newCrowd(t, m)
				var clients []*http.Client
				for range 3 {
					clients = append(clients, c.visitor())
				}
				user := "{x} a*\x00/b'" + strings.Repeat("é", 300)
				for i, client := range clients {
					c.mustAsk(client, func(s *sessplus.Session) { s.Set("step", 1) })
					time.Sleep(35 * time.Millisecond)
					c.mustAsk(client, func(s *sessplus.Session) { s.Renew(); s.Set("step", 2) })
					c.mustAsk(client, func(s *sessplus.Session) { s.Renew(); s.Set("user", user); s.Set("bound", i) })
				}
				for round := range 6 {
					time.Sleep(35 * time.Millisecond)
					var all sync.WaitGroup
					for i, client := range clients {
						for k := range 6 {
							all.Go(func() {
								r := c.askWith(client, func(s *sessplus.Session) {
									if s.GetString("user") != user || s.GetInt("bound") != i {
										t.Errorf("round %d: client %d is logged out: %v", round, i, len(s.Values()))
									}
									if k == 0 {
										s.Set("n", round)
									}
									if k == 1 && round == 3 {
										s.Set("x", round)
									}
								})
								if r.StatusCode != 200 {
									t.Errorf("round %d: %d", round, r.StatusCode)
								}
							})
						}
					}
					all.Wait()
					for _, cookie := range []string{"s", "d"} {
						list, err := m.Sessions(t.Context(), cookie, user)
						if err != nil || len(list) != 3 {
							t.Errorf("round %d: %s: %d sessions, %v", round, cookie, len(list), err)
						}
					}
				}
				var mine string
				c.mustAsk(clients[0], func(s *sessplus.Session) { mine = s.Handle("s") })
				time.Sleep(35 * time.Millisecond)
				c.mustAsk(clients[0], func(s *sessplus.Session) { s.Renew("s") })
				if n, err := m.RevokeAll(t.Context(), "s", user, mine); n != 2 || err != nil {
					t.Errorf("revoked %d, %v", n, err)
				}
				for i, client := range clients {
					c.askWith(client, func(s *sessplus.Session) {
						if in := s.Handle("s") != ""; in != (i == 0) {
							t.Errorf("client %d: logged in %v", i, in)
						}
					})
				}
			})
		}
	})
}

// SPEC 3.5, SPEC 10: lifetimes that a deployment changes.
func TestChangedLifetimes(t *testing.T) {
	t.Parallel()
	fast(t, func(t *testing.T, b sessplus.Backend) {
		for i, l := range [][4]time.Duration{ // Lifetime, Idle before; after
			{time.Hour, 0, 2 * time.Hour, 0}, {2 * time.Hour, 0, time.Hour, 0}, {time.Hour, time.Hour, 2 * time.Hour, time.Minute},
			{-1, time.Hour, time.Hour, 0}, {time.Hour, 0, -1, time.Minute}, {time.Hour, time.Minute, time.Hour, 0},
		} {
			config := sessplus.Config{CookieName: fmt.Sprint("s", i), Backend: b, IndexBy: "user", Lifetime: l[0], IdleTimeout: l[1], MaxAge: 90 * time.Minute}
			before := newCrowd(t, newManager(t, nil, config))
			before.mustAsk(before.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			config.Lifetime, config.IdleTimeout = l[2], l[3]
			m := newManager(t, nil, config)
			c := newCrowd(t, m)
			c.client = before.client
			want := l[2]
			if l[3] > 0 && (want < 0 || l[3] < want) {
				want = l[3]
			}
			r := c.mustAsk(c.client, func(s *sessplus.Session) { s.Get("user") })
			list, err := m.Sessions(t.Context(), config.CookieName, "ann")
			if err != nil || len(list) != 1 {
				t.Fatal(i, list, err)
			}
			if off := time.Until(list[0].Expires) - want; off.Abs() > 2*time.Second {
				t.Errorf("%d: ends %v off what the config says; cookies %q", i, off, r.Header["Set-Cookie"])
			}
			age := min(want, 90*time.Minute)
			for _, k := range r.Cookies() {
				if d := time.Duration(k.MaxAge)*time.Second - age; d.Abs() > 2*time.Second {
					t.Errorf("%d: Max-Age %d", i, k.MaxAge)
				}
			}
		}
	})
}

// SPEC 5.13, SPEC 6.1: Optional in a single cookie.
func TestSingleCookieOptional(t *testing.T) {
	t.Parallel()
	f, _ := redisBehindProxy(t)
	for _, lazy := range []bool{false, true} {
		m := newManager(t, &sessplus.Options{SingleCookie: "__session", Timeout: 2 * time.Second},
			sessplus.Config{CookieName: fmt.Sprint("s", lazy), Backend: f.backend, Fields: sessplus.Include("user", "n"), IndexBy: "user", RotateEvery: 30 * time.Millisecond, Optional: true, Lazy: lazy, MaxAge: time.Hour},
			sessplus.Config{CookieName: "m", Backend: sessplus.Memory(), Fields: sessplus.Include("m"), RotateEvery: 30 * time.Millisecond},
			sessplus.Config{CookieName: "c", Fields: sessplus.Include("token")},
			sessplus.Config{CookieName: "b", Fields: sessplus.Include("bound"), BoundTo: fmt.Sprint("s", lazy)})
		c := newCrowd(t, m)
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("token", "t"); s.Set("bound", 7); s.Set("m", 1) })
		time.Sleep(40 * time.Millisecond)
		f.proxy.set(proxyRefuse)
		f.proxy.cut()
		for i := range 3 {
			c.mustAsk(c.client, func(s *sessplus.Session) {
				s.Set("token", fmt.Sprint("t", i))
				s.Get("m")
				if i == 1 {
					s.Get("bound")
				}
			})
			time.Sleep(40 * time.Millisecond)
		}
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Get("m") })
		f.proxy.set(proxyServe)
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := fmt.Sprint(s.Values()); got != "map[bound:7 m:1 token:t2 user:ann]" {
				t.Errorf("lazy %v: after an outage: %s", lazy, got)
			}
		})
	}
}

// SPEC 10.5: two requests of a session from before the index, one of which is a login as somebody else.
func TestMisfiledByARace(t *testing.T) {
	t.Parallel()
	fast(t, func(t *testing.T, b sessplus.Backend) {
		config := sessplus.Config{CookieName: "s", Backend: b}
		before := newCrowd(t, newManager(t, nil, config))
		before.mustAsk(before.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		config.IndexBy = "user"
		m := newManager(t, nil, config)
		c := newCrowd(t, m)
		c.client = before.client
		slow := c.begin(c.client, func(s *sessplus.Session) { s.Set("n", 1) })
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "bob") })
		slow.finish()
		list, err := m.Sessions(t.Context(), "s", "bob")
		if err != nil || len(list) != 1 {
			t.Errorf("bob has %d sessions, %v; want 1", len(list), err)
		}
		n, err := m.RevokeAll(t.Context(), "s", "bob")
		if n != 1 || err != nil {
			t.Errorf("revoked %d of bob's, %v", n, err)
		}
	})
}
