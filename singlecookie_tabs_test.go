package sessplus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

func slowly(c *crowd, later func(*sessplus.Session)) *slowRequest {
	r := &slowRequest{make(chan struct{}), make(chan *reply, 1)}
	begun := make(chan struct{})
	go func() {
		r.answer <- c.askWith(c.client, func(s *sessplus.Session) {
			close(begun)
			<-r.goOn
			later(s)
		})
	}()
	<-begun
	return r
}

// SPEC 5.13, SPEC 4.2: a rotation of one session does not bring back the id from before the login of another.
func TestSingleCookieRotationUndoesALogin(t *testing.T) {
	t.Parallel()
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprint("lazy ", lazy), func(t *testing.T) {
			b := sessplus.Memory()
			c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
				sessplus.Config{CookieName: "visit", Backend: b, Fields: sessplus.Include("seen"), RotateEvery: 40 * time.Millisecond},
				sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user"), Lazy: lazy}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("seen", 1); s.Set("user", "guest") })
			due()
			slow := slowly(c, func(s *sessplus.Session) { s.Get("seen") })
			c.mustAsk(c.client, func(s *sessplus.Session) { s.SkipTouch(); s.Renew("login"); s.Set("user", "ann") })
			if r := slow.finish(); r.StatusCode != 200 || len(r.Header["Set-Cookie"]) > 0 {
				t.Errorf("the request that only read: %d, %q; want 200 and no cookie", r.StatusCode, r.Header["Set-Cookie"])
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := s.GetString("user"); got != "ann" {
					t.Errorf("after a login and a rotation beside it: user = %q, want ann", got)
				}
			})
		})
	}
}

// SPEC 5.13, SPEC 4.2: nor does a touch.
func TestSingleCookieTouchUndoesALogin(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprint("lazy ", lazy), func(t *testing.T) {
			b := sessplus.Memory()
			c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
				sessplus.Config{CookieName: "visit", Backend: b, Fields: sessplus.Include("seen"), MaxAge: time.Hour, IdleTimeout: 2 * time.Second},
				sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user"), Lazy: lazy}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("seen", 1); s.Set("user", "guest") })
			time.Sleep(300 * time.Millisecond)
			slow := slowly(c, func(s *sessplus.Session) { s.Get("seen") })
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew("login"); s.Set("user", "ann") })
			if r := slow.finish(); r.StatusCode != 200 || len(r.Header["Set-Cookie"]) > 0 {
				t.Errorf("the request that only read: %d, %q; want 200 and no cookie", r.StatusCode, r.Header["Set-Cookie"])
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := s.GetString("user"); got != "ann" {
					t.Errorf("after a login and a touch beside it: user = %q, want ann", got)
				}
			})
		})
	}
}

// SPEC 3.11, SPEC 4.2: with DropIfGone a change is dropped, and the request succeeds.
func TestSingleCookieDropIfGone(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	m := newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user"), IndexBy: "user", DropIfGone: true},
		sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("token")})
	c := newCrowd(t, m)
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	if n, err := m.RevokeAll(t.Context(), "login", "ann"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	r := c.askWith(c.client, func(s *sessplus.Session) { s.Set("token", "t") })
	if r.StatusCode != 200 {
		t.Errorf("a login page with a token, after a revocation: %d, %q", r.StatusCode, r.Header["Set-Cookie"])
	}
	r = c.askWith(c.client, func(s *sessplus.Session) { s.Renew("login"); s.Set("user", "ann"); s.Set("token", "t") })
	if r.StatusCode != 200 {
		t.Errorf("login after a revocation: %d, %q", r.StatusCode, r.Header["Set-Cookie"])
	}
}

// What an early Save has dropped must not cost a later login its cookie.
func TestSingleCookieLoginAfterADroppedSave(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	m := newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user", "n"), IndexBy: "user", DropIfGone: true},
		sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("token")})
	c := newCrowd(t, m)
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	if n, err := m.RevokeAll(t.Context(), "login", "ann"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	r := c.askWith(c.client, func(s *sessplus.Session) {
		s.Set("n", 1)
		t.Log(s.Save())
		s.Destroy()
		s.Set("user", "ann")
	})
	t.Log(r.StatusCode, r.Header["Set-Cookie"])
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.GetString("user"); got != "ann" {
			t.Errorf("user = %q, want ann", got)
		}
	})
}

// SPEC 3.9, SPEC 6.2: a logout reaches the browser, whatever has become of the other sessions in its cookie.
func TestSingleCookieLogoutBesideADeadPart(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{true, false} {
		b := sessplus.Memory()
		c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
			sessplus.Config{CookieName: "login", Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "cart", Backend: b, Fields: sessplus.Include("cart")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("cart", "c") })
		old := c.withCookies(c.jar(c.client))
		if early {
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew("cart") })
		}
		c.askWith(old, func(s *sessplus.Session) {
			s.Get("cart")
			if !early {
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew("cart") })
			}
			s.Destroy("login")
		})
		c.mustAsk(old, func(s *sessplus.Session) {
			if s.Has("user") {
				t.Errorf("cart renewed before the request %v: a logged-out browser still has its user", early)
			}
		})
	}
}

// SPEC 5.13, SPEC 4.2: a login, or a change of a secure cookie, that cannot be sent because another session in the
// cookie has ended meanwhile is an error, and costs nothing of what there was.
func TestSingleCookieBesideASessionThatEnds(t *testing.T) {
	t.Parallel()
	ends := map[string]func(*sessplus.Session){
		"destroyed": func(s *sessplus.Session) { s.Destroy("cart") },
		"renewed":   func(s *sessplus.Session) { s.Renew("cart") },
	}
	changes := map[string]func(*sessplus.Session){
		"login":           func(s *sessplus.Session) { s.Renew("login"); s.Set("user", "ann") },
		"login, all":      func(s *sessplus.Session) { s.Renew(); s.Set("user", "ann") },
		"a secure cookie": func(s *sessplus.Session) { s.Set("token", "new") },
	}
	for ended, end := range ends {
		for name, change := range changes {
			for _, drop := range []bool{false, true} {
				t.Run(fmt.Sprint(ended, ", ", name, ", DropIfGone ", drop), func(t *testing.T) {
					b := sessplus.Memory()
					m := newManager(t, &sessplus.Options{SingleCookie: "__session"},
						sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user", "lang"), IndexBy: "user"},
						sessplus.Config{CookieName: "cart", Backend: b, Fields: sessplus.Include("cart"), DropIfGone: drop},
						sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("token")})
					c := newCrowd(t, m)
					c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("lang", "de"); s.Set("cart", "c"); s.Set("token", "old") })
					slow := slowly(c, change)
					c.mustAsk(c.client, end)
					if r := slow.finish(); r.StatusCode != 409 || len(r.Header["Set-Cookie"]) > 0 {
						t.Errorf("%d, %q; want 409 and no cookie", r.StatusCode, r.Header["Set-Cookie"])
					}
					c.mustAsk(c.client, func(s *sessplus.Session) {
						if got := fmt.Sprint(s.Get("user"), " ", s.Get("lang"), " ", s.Get("token")); got != "<nil> de old" {
							t.Errorf("then user, lang and token = %q, want what there was before", got)
						}
					})
					if infos, err := m.Sessions(t.Context(), "login", "ann"); len(infos) > 0 || err != nil {
						t.Errorf("sessions of a user who is not logged in: %d, %v", len(infos), err)
					}
				})
			}
		}
	}
}

// SPEC 5.13, SPEC 3.12: no response gives the browser the former id of a session that another request has rotated,
// which is good for a minute only: neither one that has to send the new id of another session, nor one that rotates
// another.
func TestSingleCookieBesideARotation(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]func(*sessplus.Session){
		"follows": func(s *sessplus.Session) { s.SkipTouch(); s.Set("seen", 2) },
		"rotates": func(s *sessplus.Session) { s.Get("seen") },
	} {
		t.Run(name, func(t *testing.T) {
			b := &recorder{Backend: sessplus.Memory()}
			c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
				sessplus.Config{CookieName: "visit", Backend: b, Fields: sessplus.Include("seen"), RotateEvery: rotates},
				sessplus.Config{CookieName: "login", Backend: sessplus.Memory(), Fields: sessplus.Include("user"), RotateEvery: rotates}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("seen", 1); s.Set("user", "ann") })
			login := func() string {
				_, id, _ := strings.Cut(c.jar(c.client)["__session"], "login:")
				id, _, _ = strings.Cut(id, "/")
				return id
			}
			due()
			former, id := login(), ""
			b.setHook(func(_ context.Context, op string) error {
				if op == "take" || op == "update" && name == "follows" {
					b.setHook(nil)
					c.askWith(c.client, func(s *sessplus.Session) { s.Fields() })
					id = login()
				}
				return nil
			})
			c.mustAsk(c.client, slow)
			if got := login(); got != id || got == former {
				t.Errorf("the browser has the former id: %v; the request beside has rotated it: %v", got == former, id != former)
			}
		})
	}
}

// SPEC 4.2, SPEC 5.13, SPEC 7.7: a request that finds out at a rotation that another one has renewed the session sends
// nothing that would undo the login: neither an id, nor a cookie that is bound to it.
func TestLoginBesideARotation(t *testing.T) {
	t.Parallel()
	for _, single := range []string{"", "__session"} {
		t.Run(fmt.Sprintf("SingleCookie %q", single), func(t *testing.T) {
			b := &recorder{Backend: sessplus.Memory()}
			c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: single},
				sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user", "lang"), RotateEvery: rotates},
				sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("token"), BoundTo: "login"}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "guest"); s.Set("token", "t") })
			due()
			b.setHook(func(_ context.Context, op string) error {
				if op == "take" {
					b.setHook(nil)
					c.askWith(c.client, func(s *sessplus.Session) { s.Renew(); s.Set("user", "ann") })
				}
				return nil
			})
			r := c.askWith(c.client, func(s *sessplus.Session) { s.Set("lang", "de"); s.Set("token", "slow") })
			if r.StatusCode != 409 || len(r.Header["Set-Cookie"]) > 0 {
				t.Errorf("the slow request: %d, %q; want 409 and no cookie", r.StatusCode, r.Header["Set-Cookie"])
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := s.GetString("user") + " " + s.GetString("token"); got != "ann t" {
					t.Errorf("after the login user and token = %q, want %q", got, "ann t")
				}
			})
		})
	}
}

// SPEC 5.13: the age of the cookie is right also if a Save has written it, and nothing was left to save.
func TestAgeOfASingleCookieAfterSave(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("token"), MaxAge: time.Hour}))
	r := c.mustAsk(c.client, func(s *sessplus.Session) {
		s.Set("token", "t")
		if err := s.Save(); err != nil {
			t.Error(err)
		}
	})
	for _, k := range r.Cookies() {
		if k.MaxAge < 3590 || k.MaxAge > 3600 || time.Until(k.Expires).Round(time.Minute) != time.Hour {
			t.Errorf("Max-Age = %d, Expires = %v; want an hour", k.MaxAge, k.Expires)
		}
	}
}

// SPEC 5.10: one that was not tried may be the session, and is not to be overwritten.
func TestNineSingleCookies(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	good := c.jar(c.client)["__session"]
	header := ""
	for i := range 8 {
		header += fmt.Sprintf("__session=login:%043d; ", i)
	}
	r := rawAsk(c, header+"__session="+good, func(s *sessplus.Session) { s.Set("user", "mallory") })
	t.Log(r.StatusCode, r.Header["Set-Cookie"])
	if len(r.Header["Set-Cookie"]) > 0 {
		t.Errorf("a session that was not tried is overwritten: %d", r.StatusCode)
	}
}

// SPEC 5.13, SPEC 3.9: a Destroy by another goroutine at any moment of a commit, which the race detector watches.
func TestSingleCookieDestroyAtAnyMoment(t *testing.T) {
	t.Parallel()
	entered := make(chan string, 10)
	free := make(chan struct{})
	close(free)
	b := &recorder{Backend: sessplus.Memory(), hook: holdSaves(entered, free)}
	c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
		sessplus.Config{CookieName: "prefs", Fields: sessplus.Include("theme")}))
	for n := range 30 {
		destroyed := make(chan struct{})
		c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Set("user", n)
			s.Set("theme", n)
			go func() {
				defer close(destroyed)
				<-entered
				s.Destroy("login")
			}()
			if err := s.Save(); err != nil {
				t.Errorf("Save() = %v", err)
			}
			<-destroyed
		})
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.Has("user") || s.GetInt("theme") != n {
				t.Errorf("user is there: %t, theme = %d; want false, %d", s.Has("user"), s.GetInt("theme"), n)
			}
		})
	}
}
