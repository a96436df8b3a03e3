package sessplus_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 7.7
func TestBoundCookieIsVoidWithoutItsSession(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
		read := func(c map[string]string) string {
			s.Helper()
			return s.answerTo(readA, "login="+c["login"], "bound="+c["bound"]).body
		}
		if res := s.with(func(s *sessplus.Session) { s.Set("a", "1") }); res.StatusCode != http.StatusInternalServerError ||
			len(res.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("set without a session: status %d, want 500 and no Set-Cookie", res.StatusCode)
		}
		s.with(func(s *sessplus.Session) {
			s.Set("user", "ann")
			s.Set("a", "1")
		})
		ann := s.jar(s.client)
		if got := read(ann); got != "1" {
			t.Fatalf("a = %q, want 1", got)
		}
		if got := s.answerTo(readA, "bound="+ann["bound"]).body; got != "" {
			t.Errorf("without the session a = %q, want nothing", got)
		}

		other := s.visitor()
		s.visitAs(other, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user", "bob") })
		if got := read(map[string]string{"login": s.jar(other)["login"], "bound": ann["bound"]}); got != "" {
			t.Errorf("with another visitor's session a = %q, want nothing", got)
		}

		for _, names := range [][]string{nil, {"login"}} {
			before := s.jar(s.client)
			s.with(func(s *sessplus.Session) { s.Renew(names...) })
			after := s.jar(s.client)
			if got := read(after); got != "1" {
				t.Errorf("after Renew(%q) a = %q, want 1", names, got)
			}
			if got := read(map[string]string{"login": after["login"], "bound": before["bound"]}); got != "" {
				t.Errorf("the content from before Renew(%q) is good after it: a = %q", names, got)
			}
		}

		last := s.jar(s.client)
		s.with(func(s *sessplus.Session) { s.Destroy("login") })
		if left := s.jar(s.client); len(left) != 0 {
			t.Errorf("after the logout the browser has %v, want nothing", left)
		}
		s.with(func(s *sessplus.Session) { s.Set("user", "ann") })
		if got := read(map[string]string{"login": s.jar(s.client)["login"], "bound": last["bound"]}); got != "" {
			t.Errorf("the content from before the logout is good after the next login: a = %q", got)
		}
	})
}

// SPEC 3.4, 7.7: a session whose last field goes takes its bound cookie along.
func TestEmptiedSessionTakesItsBoundCookieAlong(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
		begin := func() {
			s.with(func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("a", "1") })
			if len(s.jar(s.client)) != 2 {
				t.Fatalf("cookies %v, want two", s.jar(s.client))
			}
		}
		begin()
		res := s.with(func(s *sessplus.Session) { s.Delete("user") })
		if jar := s.jar(s.client); len(jar) > 0 || res.StatusCode != http.StatusOK {
			t.Errorf("emptied: status %d, cookies %v, want 200 and none", res.StatusCode, jar)
		}

		begin()
		res = s.with(func(s *sessplus.Session) { s.Delete("user"); s.Set("a", "2") })
		if len(res.Header.Values("Set-Cookie")) > 0 || res.StatusCode != http.StatusInternalServerError {
			t.Errorf("set in the request that empties the session: status %d, want 500 and no Set-Cookie", res.StatusCode)
		}
		if got := s.answerTo(readA, "login="+s.jar(s.client)["login"], "bound="+s.jar(s.client)["bound"]).body; got != "1" {
			t.Errorf("after the failure a = %q, want 1", got)
		}

		// Two requests that take a field each, so that neither sees that it empties the session.
		other := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("x", "y")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
		other.with(func(s *sessplus.Session) { s.Set("x", 1); s.Set("y", 1); s.Set("a", "1") })
		var second http.Client
		res = other.visit(func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			s.Delete("x")
			s.Set("a", "2")
			again, _ := http.NewRequest("GET", other.URL, nil)
			again.Header["Cookie"] = r.Header["Cookie"]
			other.send(&second, again, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Delete("y") })
		})
		if len(res.Header.Values("Set-Cookie")) > 0 || res.StatusCode != http.StatusConflict {
			t.Errorf("set while the session is emptied: status %d, want 409 and no Set-Cookie", res.StatusCode)
		}
	})
}

// SPEC 7.7
func TestBoundToNamesAServerSideCookie(t *testing.T) {
	t.Parallel()
	server := sessplus.Config{CookieName: "server", Backend: sessplus.Memory(), Fields: sessplus.Include("s")}
	sealed := sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("x")}
	for _, name := range []string{"absent", "sealed", "bound"} {
		_, err := sessplus.New([]sessplus.Config{server, sealed, {CookieName: "bound", BoundTo: name}}, &sessplus.Options{Keys: testKeys})
		var mistake *sessplus.ConfigError
		if !errors.As(err, &mistake) || mistake.Cookie != "bound" || mistake.Field != "BoundTo" {
			t.Errorf("BoundTo %q: New = %v, want a ConfigError of BoundTo", name, err)
		}
	}
}

// SPEC 7.7: with the session Lazy, too.
func TestBoundCookieLoadsALazySession(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "login", Backend: sessplus.Memory(), Fields: sessplus.Include("user"), Lazy: true},
		sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
	s.with(func(s *sessplus.Session) {
		s.Set("user", "ann")
		s.Set("a", "1")
	})
	if got := s.visit(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, readA(sessplus.Get(r))) }).body; got != "1" {
		t.Errorf("a = %q, want 1", got)
	}
}

// SPEC 7.7: a request that has learned of the end of its session does not open what is bound to it.
func TestBoundCookieAfterTheEndOfItsSession(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("cart"), BoundTo: "login"}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("cart", "apples") })
		c.askWith(c.client, func(s *sessplus.Session) {
			s.Get("user")
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy("login") })
			if err := s.Reload(); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("Reload() = %v, want ErrSessionGone", err)
			}
			if got := s.Get("cart"); got != nil {
				t.Errorf("cart = %v after the session has ended, want nil", got)
			}
		})
	})
}
