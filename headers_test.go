package sessplus_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 5.8
func TestVaryNamesCookieOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
	s.with(func(s *sessplus.Session) { s.Set("n", 1) })
	uses := map[string]func(*sessplus.Session){
		"read": func(s *sessplus.Session) { s.Get("n") },
		"has":  func(s *sessplus.Session) { s.Has("other") },
		"set":  func(s *sessplus.Session) { s.Set("n", time.Now()) },
		"id":   func(s *sessplus.Session) { s.ID("sid") },
		"save": func(s *sessplus.Session) {
			s.Set("n", time.Now())
			s.Save()
			s.Save()
		},
	}
	for _, vary := range [][]string{
		nil, {"Accept-Encoding"}, {"Cookie"}, {"cookie"}, {"COOKIE"}, {"Accept-Encoding, cookie"}, {"Cookie,Accept"},
		{"Accept", "Origin ,\tCookie , X"}, {"X-Cookie"}, {"Cookies", "Cookie2"}, {"*"}, {"Accept-Encoding,,Accept", ""},
	} {
		set := func(w http.ResponseWriter) {
			for _, line := range vary {
				w.Header().Add("Vary", line)
			}
		}
		for name, use := range uses {
			res := s.visit(func(w http.ResponseWriter, r *http.Request) {
				set(w)
				use(sessplus.Get(r))
				w.WriteHeader(404)
			})
			tokens := 0
			for token := range strings.SplitSeq(strings.Join(res.Header.Values("Vary"), ","), ",") {
				if strings.EqualFold(strings.TrimSpace(token), "cookie") {
					tokens++
				}
			}
			if got := res.Header.Values("Vary"); tokens != 1 || len(got) < len(vary) || !slices.Equal(got[:len(vary)], vary) {
				t.Errorf("%s: Vary = %q after the handler's %q, want Cookie once beside it", name, got, vary)
			}
		}
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sessplus.Get(r)
			set(w)
		})
		if got := res.Header.Values("Vary"); !slices.Equal(got, vary) {
			t.Errorf("Vary = %q of an untouched session, want the handler's %q", got, vary)
		}
	}
	res := s.visit(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Get("n")
		sessplus.Get(r).Save()
		w.Header().Set("Vary", "Accept")
	})
	if got := res.Header.Values("Vary"); !slices.Equal(got, []string{"Accept", "Cookie"}) {
		t.Errorf("Vary = %q, want Accept and Cookie", got)
	}
}

// SPEC 5.8
func TestCacheControlOfAResponseThatSetsASession(t *testing.T) {
	t.Parallel()
	const ours = "private, no-cache"
	set := func(w http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("n", rand.Text()) }
	then := func(more http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			set(w, r)
			if err := sessplus.Get(r).Save(); err != nil {
				t.Errorf("Save() = %v", err)
			}
			more(w, r)
		}
	}
	own := func(value string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", value) }
	}
	for _, c := range []struct {
		name string
		h    http.HandlerFunc
		want string
	}{
		{"no cookie", func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Has("m") }, ""},
		{"set", set, ours},
		{"destroy", func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() }, ours},
		{"the handler's own", func(w http.ResponseWriter, r *http.Request) {
			own("no-store")(w, r)
			set(w, r)
		}, "no-store"},
		{"the handler's own after Save", then(own("no-store")), "no-store"},
		{"the handler's own without a cookie", own("public, max-age=9"), "public, max-age=9"},
		{"Save, http.Error", then(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "x", 404) }), ours},
		// These take Cache-Control out of the header.
		{"Save, http.ServeFile of none", then(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "none") }), ours},
		{"Save, http.ServeContent of nothing that can be read", then(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "x", time.Time{}, noSeek{})
		}), ours},
	} {
		s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory(), MaxAge: time.Hour}))
		s.with(func(s *sessplus.Session) { s.Set("n", 1) })
		res := s.visit(c.h)
		if got := strings.Join(res.Header.Values("Cache-Control"), " | "); got != c.want {
			t.Errorf("%s: Cache-Control = %q with status %d and %d session cookies, want %q", c.name, got, res.StatusCode, len(res.setCookies("sid")), c.want)
		}
	}
}

type noSeek struct{}

func (noSeek) Read([]byte) (int, error)       { return 0, os.ErrInvalid }
func (noSeek) Seek(int64, int) (int64, error) { return 0, os.ErrInvalid }

// SPEC 5.9
func TestAtMostOneSetCookiePerName(t *testing.T) {
	t.Parallel()
	const old, none, fresh, dropped = "the old one", "none", "a new one", "dropped"
	save := func(s *sessplus.Session) {
		if err := s.Save(); err != nil {
			t.Errorf("Save() = %v", err)
		}
	}
	for _, c := range []struct {
		name     string
		existing bool // the visitor has n = 1
		f        func(*sessplus.Session)
		record   string // the id in the cookie of a server-side session
		sealed   string // the same of a secure cookie, where any value but the old one counts as new
		n        int
	}{
		{"nothing", false, func(s *sessplus.Session) { s.GetInt("n") }, none, none, 0},
		{"read", true, func(s *sessplus.Session) { s.GetInt("n") }, none, none, 1},
		{"same value", true, func(s *sessplus.Session) { s.Set("n", 1) }, none, none, 1},
		{"there and back", true, func(s *sessplus.Session) { s.Set("n", 2); s.Set("n", 1) }, none, none, 1},
		{"delete of what is absent", true, func(s *sessplus.Session) { s.Delete("m"); save(s) }, none, none, 1},
		{"set and delete", false, func(s *sessplus.Session) { s.Set("n", 2); s.Delete("n") }, none, none, 0},
		{"renew of nothing", false, func(s *sessplus.Session) { s.Renew() }, none, none, 0},
		{"destroy of nothing", false, func(s *sessplus.Session) { s.Destroy() }, none, none, 0},
		{"three saves", false, func(s *sessplus.Session) {
			s.Set("n", 2)
			save(s)
			s.Set("n", 3)
			save(s)
			s.Set("n", 4)
			save(s)
		}, fresh, fresh, 4},
		{"save, no more", false, func(s *sessplus.Session) { s.Set("n", 2); save(s); save(s) }, fresh, fresh, 2},
		{"set, destroy, set", false, func(s *sessplus.Session) { s.Set("n", 2); s.Destroy(); s.Set("n", 3) }, fresh, fresh, 3},
		{"set, save, destroy, set", false, func(s *sessplus.Session) { s.Set("n", 2); save(s); s.Destroy(); s.Set("n", 3) }, fresh, fresh, 3},
		{"set, save, destroy", false, func(s *sessplus.Session) { s.Set("n", 2); save(s); s.Destroy() }, none, none, 0},
		{"set, save, delete", false, func(s *sessplus.Session) { s.Set("n", 2); save(s); s.Delete("n") }, none, none, 0},
		{"destroy, set", true, func(s *sessplus.Session) { s.Destroy(); s.Set("n", 3) }, fresh, fresh, 3},
		{"destroy, save, set", true, func(s *sessplus.Session) { s.Destroy(); save(s); s.Set("n", 3) }, fresh, fresh, 3},
		{"set, save, destroy, save", true, func(s *sessplus.Session) { s.Set("n", 2); save(s); s.Destroy(); save(s) }, dropped, dropped, 0},
		{"renew, save, renew, save", true, func(s *sessplus.Session) { s.Renew(); save(s); s.Renew(); save(s) }, fresh, fresh, 1},
		{"delete", true, func(s *sessplus.Session) { s.Delete("n") }, dropped, dropped, 0},
		{"delete, save", true, func(s *sessplus.Session) { s.Delete("n"); save(s) }, dropped, dropped, 0},
		{"delete, save, set", true, func(s *sessplus.Session) { s.Delete("n"); save(s); s.Set("n", 3) }, old, fresh, 3},
		{"permanent and back", true, func(s *sessplus.Session) { s.SetPermanent("k", true); s.SetPermanent("k", false) }, none, none, 1},
		{"permanent, save, and back", true, func(s *sessplus.Session) { s.SetPermanent("k", true); save(s); s.SetPermanent("k", false) }, old, fresh, 1},
	} {
		for kind, config := range map[string]sessplus.Config{
			"record":                 {CookieName: "k", Backend: sessplus.Memory()},
			"record with an age":     {CookieName: "k", Backend: sessplus.Memory(), MaxAge: time.Hour},
			"record with idle times": {CookieName: "k", Backend: sessplus.Memory(), MaxAge: time.Hour, IdleTimeout: time.Hour},
			"secure cookie":          {CookieName: "k"},
		} {
			s := newSite(t, newManager(t, nil, config))
			if c.existing {
				s.with(func(s *sessplus.Session) { s.Set("n", 1) })
			}
			before := s.jar(s.client)["k"]
			own := []string{"k2=own", "ok=own; Path=/x", "k.1=own"}
			res := s.visit(func(w http.ResponseWriter, r *http.Request) {
				for _, line := range own[:2] {
					w.Header().Add("Set-Cookie", line)
				}
				c.f(sessplus.Get(r))
				w.Header().Add("Set-Cookie", own[2])
			})
			lines := res.setCookies("k")
			got := none
			if len(lines) > 1 {
				t.Errorf("%s, %s: %d Set-Cookie lines, want at most one", kind, c.name, len(lines))
			}
			if len(lines) > 0 {
				k, err := http.ParseSetCookie(lines[len(lines)-1])
				switch {
				case err != nil:
					t.Errorf("%s, %s: Set-Cookie cannot be read: %v", kind, c.name, err)
				case k.MaxAge < 0:
					got = dropped
				case k.Value == before:
					got = old
				default:
					got = fresh
				}
			}
			want := c.record
			if config.Backend == nil {
				want = c.sealed
			}
			if got != want {
				t.Errorf("%s, %s: Set-Cookie is %s, want %s", kind, c.name, got, want)
			}
			rest := slices.DeleteFunc(res.Header.Values("Set-Cookie"), func(line string) bool { return strings.HasPrefix(line, "k=") })
			if !slices.Equal(rest, own) {
				t.Errorf("%s, %s: the handler's own cookies are %q, want %q", kind, c.name, rest, own)
			}
			s.with(func(s *sessplus.Session) {
				if got := s.GetInt("n"); got != c.n {
					t.Errorf("%s, %s: n = %d afterwards, want %d", kind, c.name, got, c.n)
				}
			})
		}
	}
}

// SPEC 3.6: each attribute is what the config says, and HttpOnly, Lax, and Secure over TLS where it says nothing.
func TestAttributesAreThoseOfTheConfig(t *testing.T) {
	t.Parallel()
	secure := map[sessplus.SecureMode]map[bool]bool{ // over TLS, and not
		sessplus.SecureAuto:   {true: true, false: false},
		sessplus.SecureAlways: {true: true, false: true},
		sessplus.SecureNever:  {true: false, false: false},
	}
	for _, base := range []sessplus.Config{
		{},
		{Domain: "example.test", Path: "/app", SameSite: http.SameSiteStrictMode, ScriptReadable: true},
		{Secure: sessplus.SecureAlways},
		{Secure: sessplus.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: true, MaxAge: time.Hour},
		{Secure: sessplus.SecureNever, MaxAge: 10 * time.Hour},
	} {
		for _, b := range []sessplus.Backend{sessplus.Memory(), nil} {
			for _, tls := range []bool{true, false} {
				config := base
				config.CookieName, config.Backend = "k", b
				s := newSiteOn(t, map[bool]string{true: "HTTP/2", false: "HTTP/1.1"}[tls], newManager(t, nil, config).Handler)
				before := time.Now()
				lines := s.with(func(s *sessplus.Session) { s.Set("n", 1) }).setCookies("k")
				if len(lines) != 1 {
					t.Fatalf("%+v, TLS %t: %d lines, want one", config, tls, len(lines))
				}
				k, err := http.ParseSetCookie(lines[0])
				if err != nil {
					t.Fatal(err)
				}
				want := http.Cookie{
					Name: "k", Value: k.Value, Domain: base.Domain, Path: cmp.Or(base.Path, "/"), Secure: secure[base.Secure][tls], HttpOnly: !base.ScriptReadable,
					SameSite: cmp.Or(base.SameSite, http.SameSiteLaxMode), Partitioned: base.Partitioned, MaxAge: int(base.MaxAge / time.Second),
				}
				if base.MaxAge > 0 {
					if want.Expires = k.Expires; k.Expires.Sub(before.Add(base.MaxAge)).Abs() > 5*time.Second {
						t.Errorf("%+v: Expires = %v, want %v from now", config, k.Expires, base.MaxAge)
					}
				}
				if lines[0] != want.String() {
					t.Errorf("%+v, TLS %t: %s, want %s", config, tls, lines[0], want.String())
				}
			}
		}
	}
}

// SPEC 5.9
func TestDeletionFitsTheCookie(t *testing.T) {
	t.Parallel()
	for _, base := range []sessplus.Config{
		{},
		{Path: "/app"},
		{Domain: "example.test"},
		{Domain: "example.test", Path: "/app", Secure: sessplus.SecureAlways, SameSite: http.SameSiteStrictMode},
		{Secure: sessplus.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: true, ScriptReadable: true},
		{Secure: sessplus.SecureNever, MaxAge: time.Hour},
	} {
		for _, b := range []sessplus.Backend{sessplus.Memory(), nil} {
			for name, end := range map[string]func(*sessplus.Session){
				"Destroy": func(s *sessplus.Session) { s.Destroy() }, "Clear": func(s *sessplus.Session) { s.Clear() },
			} {
				config := base
				config.CookieName, config.Backend = "k", b
				what := fmt.Sprintf("%s of %+v", name, config)
				s := newSiteOn(t, "HTTP/2", newManager(t, nil, config).Handler)
				addr := s.Listener.Addr().String()
				transport := s.client.Transport.(*http.Transport).Clone()
				transport.TLSClientConfig.ServerName = "example.com" // which the certificate names
				var dialer net.Dialer
				transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return dialer.DialContext(ctx, network, addr)
				}
				jar, _ := cookiejar.New(nil)
				client := &http.Client{Transport: transport, Jar: jar}
				visit := func(f func(*sessplus.Session)) *http.Cookie {
					req, _ := http.NewRequest("GET", "https://www.example.test/app/page", nil)
					res := s.send(client, req, func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
					lines := res.setCookies("k")
					if len(lines) != 1 {
						t.Fatalf("%s: Set-Cookie = %d lines, want one", what, len(lines))
					}
					k, err := http.ParseSetCookie(lines[0])
					if err != nil {
						t.Fatal(err)
					}
					return k
				}
				set := visit(func(s *sessplus.Session) { s.Set("n", 1) })
				drop := visit(end)
				if drop.MaxAge >= 0 || !drop.Expires.Before(time.Now().Add(-time.Hour)) || drop.Expires.IsZero() {
					t.Errorf("%s: Max-Age = %d, Expires = %v, want both past", what, drop.MaxAge, drop.Expires)
				}
				type attributes struct {
					domain, path                  string
					secure, partitioned, httpOnly bool
					sameSite                      http.SameSite
				}
				of := func(k *http.Cookie) attributes {
					return attributes{k.Domain, k.Path, k.Secure, k.Partitioned, k.HttpOnly, k.SameSite}
				}
				if of(set) != of(drop) {
					t.Errorf("%s: deletion has %+v, want %+v as when it was set", what, of(drop), of(set))
				}
				req, _ := http.NewRequest("GET", "https://www.example.test/app/page", nil)
				if left := jar.Cookies(req.URL); len(left) > 0 {
					t.Errorf("%s: the browser keeps %q", what, left[0].Name)
				}
			}
		}
	}
}
