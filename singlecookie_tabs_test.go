package sessplus_test

import (
	"fmt"
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

// SPEC 5.10: one that was not tried may be the session, and is not to be overwritten.
func TestNineSingleCookies(t *testing.T) {
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
