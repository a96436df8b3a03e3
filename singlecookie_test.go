package sessplus_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// stripping puts a proxy before the crowd that passes on no cookie but those, as Firebase Hosting does.
func stripping(c *crowd, names ...string) {
	target, _ := url.Parse(c.URL)
	p := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Del("Cookie")
		for _, k := range r.In.Cookies() {
			if slices.Contains(names, k.Name) {
				r.Out.AddCookie(k)
			}
		}
	}}
	srv := httptest.NewServer(p)
	c.Cleanup(srv.Close)
	c.URL = srv.URL
}

func single(b sessplus.Backend) []sessplus.Config {
	return []sessplus.Config{
		{CookieName: "session", Backend: b, Fields: sessplus.Include("user"), SignID: true},
		{CookieName: "a.b%c", Backend: b, KeyPrefix: "x:", Fields: sessplus.Include("plan")},
		{CookieName: "csrf", Fields: sessplus.Include("token")},
		{CookieName: "draft", Fields: sessplus.Include("draft"), BoundTo: "session"},
	}
}

// SPEC 5.13: behind a proxy that strips every other cookie.
func TestSingleCookie(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"}, single(b)...))
		stripping(c, "__session")
		want := func(what, want string) {
			t.Helper()
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := fmt.Sprint(s.Values()); got != "map["+want+"]" {
					t.Errorf("%s: the next request sees %s, want map[%s]", what, got, want)
				}
			})
		}
		one := func(what string, r *reply) {
			t.Helper()
			if got := r.Header["Set-Cookie"]; len(got) != 1 || !strings.HasPrefix(got[0], "__session=") {
				t.Errorf("%s: Set-Cookie = %q, want __session once", what, got)
			}
		}
		want("a new visitor", "")
		one("a new visitor", c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("token", "t") }))
		want("a new visitor", "token:t")
		one("a login", c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Renew()
			s.Set("user", "ann")
			s.Set("plan", "gold")
			s.Set("draft", "d")
		}))
		want("a login", "draft:d plan:gold token:t user:ann")
		if r := c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann2"); s.Set("plan", "x") }); len(r.Header["Set-Cookie"]) > 0 {
			t.Errorf("a change in the store sets a cookie: %q", r.Header["Set-Cookie"])
		}
		one("one part", c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("token", "u") }))
		want("one part", "draft:d plan:x token:u user:ann2")
		one("a renewal", c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew("session") }))
		want("a renewal", "draft:d plan:x token:u user:ann2")
		one("the end of a part", c.mustAsk(c.client, func(s *sessplus.Session) { s.Delete("token") }))
		want("the end of a part", "draft:d plan:x user:ann2")
		one("a logout", c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy("session") }))
		want("a logout", "plan:x")
		one("a logout of all", c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy() }))
		if jar := c.jar(c.client); len(jar) > 0 {
			t.Errorf("after a logout of all the browser has %v", jar)
		}
	})
}

// SPEC 5.13: the cookie lives as long as its longest part, and each part ends at its own time.
func TestPartsOfASingleCookieEndOnTheirOwn(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "a", Fields: sessplus.Include("a"), MaxAge: time.Second},
		sessplus.Config{CookieName: "b", Fields: sessplus.Include("b"), MaxAge: time.Hour},
		sessplus.Config{CookieName: "c", Fields: sessplus.Include("c"), Backend: b, MaxAge: time.Second}))
	r := c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("a", 1); s.Set("b", 2); s.Set("c", 3) })
	if got := r.Cookies(); len(got) != 1 || got[0].MaxAge < 3598 || got[0].MaxAge > 3600 {
		t.Errorf("Set-Cookie = %q, want Max-Age of an hour", r.Header["Set-Cookie"])
	}
	time.Sleep(2100 * time.Millisecond)
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := fmt.Sprint(s.Values()); got != "map[b:2]" {
			t.Errorf("after two seconds: %s, want map[b:2]", got)
		}
		s.Set("b", 3)
	})
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := fmt.Sprint(s.Values()); got != "map[b:3]" {
			t.Errorf("after a change: %s, want map[b:3]", got)
		}
	})
	mixed := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "a", Fields: sessplus.Include("a"), MaxAge: time.Hour},
		sessplus.Config{CookieName: "c", Fields: sessplus.Include("c"), Backend: b, Lifetime: 3 * time.Hour}))
	age := func(set ...string) int {
		r := mixed.mustAsk(mixed.visitor(), func(s *sessplus.Session) {
			for _, name := range set {
				s.Set(name, 1)
			}
		})
		return r.Cookies()[0].MaxAge
	}
	if got := age("c"); got != 0 {
		t.Errorf("Max-Age with a part until the browser closes = %d, want none", got)
	}
	if got := age("a", "c"); got != 3*3600 {
		t.Errorf("Max-Age with both = %d, want that of the session, which must not end before its time", got)
	}
}

// SPEC 5.13: an id that has ended meanwhile does not come back with another part, to undo a login.
func TestSingleCookieUndoesNoLogin(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, lazy := range []bool{false, true} {
			configs := single(b)
			configs[0].Lazy = lazy
			c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"}, configs...))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "guest"); s.Set("token", "t") })
			slow := &slowRequest{make(chan struct{}), make(chan *reply, 1)}
			begun := make(chan struct{})
			go func() {
				slow.answer <- c.askWith(c.client, func(s *sessplus.Session) {
					close(begun)
					<-slow.goOn
					s.Set("token", "late")
				})
			}()
			<-begun
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew(); s.Set("user", "ann") })
			if r := slow.finish(); r.StatusCode != http.StatusConflict || len(r.Header["Set-Cookie"]) > 0 {
				t.Errorf("lazy %v: the slow request: %d, %q; want 409 and no cookie", lazy, r.StatusCode, r.Header["Set-Cookie"])
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := s.GetString("user") + s.GetString("token"); got != "annt" {
					t.Errorf("lazy %v: user and token = %q, want annt", lazy, got)
				}
			})
		}
	})
}

// SPEC 5.13, 6.5: the size limit counts the whole.
func TestSizeOfASingleCookie(t *testing.T) {
	t.Parallel()
	for chunks, most := range map[int]int{0: 1, 3: 3} {
		c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
			sessplus.Config{CookieName: "a", Fields: sessplus.Include("a"), MaxChunks: chunks},
			sessplus.Config{CookieName: "b", Fields: sessplus.Include("b", "small")}))
		half := strings.Repeat("x", 1200*most)
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("a", half) })
		var failure error
		for _, size := range []int{100, 1200 * most} {
			r := c.askWith(c.client, func(s *sessplus.Session) {
				s.Set("b", strings.Repeat("y", size))
				s.Set("small", 1)
				failure = s.Save()
			})
			for _, k := range r.Cookies() {
				if len(k.Name)+len(k.Value) > 4096 {
					t.Errorf("MaxChunks %d: a cookie of %d bytes", chunks, len(k.Name)+len(k.Value))
				}
			}
			var e *sessplus.Error
			if size > 100 && (!errors.Is(failure, sessplus.ErrTooLarge) || !errors.As(failure, &e) || e.Cookie != "b" || !strings.Contains(failure.Error(), `"b"`)) {
				t.Errorf("MaxChunks %d: %v, want ErrTooLarge that names b", chunks, failure)
			}
			if size == 100 && failure != nil {
				t.Errorf("MaxChunks %d: %v", chunks, failure)
			}
		}
		if got := len(c.jar(c.client)); got > most || most > 1 && got == 1 {
			t.Errorf("MaxChunks %d: %d cookies", chunks, got)
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.GetString("a") != half || len(s.GetString("b")) != 100 {
				t.Errorf("MaxChunks %d: %d and %d bytes are left, want the old ones", chunks, len(s.GetString("a")), len(s.GetString("b")))
			}
			s.Set("a", "short")
		})
		if jar := c.jar(c.client); len(jar) != 1 {
			t.Errorf("MaxChunks %d: left-over chunks: %d cookies", chunks, len(jar))
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.GetString("a") != "short" || len(s.GetString("b")) != 100 {
				t.Errorf("MaxChunks %d: after shrinking: %q", chunks, s.Fields())
			}
		})
	}
}

// SPEC 5.13, 7.3: what nobody has written is no session, and never a 500.
func TestForeignSingleCookies(t *testing.T) {
	t.Parallel()
	j := &journal{}
	opts := j.options(time.Second)
	opts.SingleCookie, opts.Keys = "__session", testKeys
	c := newCrowd(t, newManager(t, opts, single(sessplus.Memory())...))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("token", "t") })
	whole := c.jar(c.client)["__session"]
	for _, value := range []string{
		"", "/", ":", "//::", "session", "session:", "session:x", "unknown:abc", whole + "/", "/" + whole, whole + "/session:AAAA", "session::::",
		strings.Repeat("a", 9000), "3." + whole, "2.abc.def", strings.ReplaceAll(whole, "csrf", "draft"), whole[:len(whole)-3], "session:x:99999999999999999999", "%", "%2E",
	} {
		r := c.askWith(c.withCookies(map[string]string{"__session": value}), func(s *sessplus.Session) {
			if user := s.GetString("user"); user != "" && !strings.Contains(value, whole) && user != "ann" {
				t.Errorf("%.40q: user %q", value, user)
			}
			s.Set("token", "new")
		})
		if r.StatusCode != 200 {
			t.Errorf("%.40q: status %d", value, r.StatusCode)
		}
	}
	j.keepsSecret(t, nil, whole, "AAAA")
}

// SPEC 5.13, 5.9: two visitors' tabs, a stream, and an outage.
func TestSingleCookieInAnOutage(t *testing.T) {
	f, _ := redisBehindProxy(t)
	configs := single(f.backend)
	configs[1].Optional = true
	configs = slices.Delete(configs, 0, 1)[:2]
	c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session", Timeout: 200 * time.Millisecond}, configs...))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("plan", "gold"); s.Set("token", "t") })
	f.proxy.set(proxyHang)
	f.proxy.cut()
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("token", "u") })
	f.proxy.set(proxyServe)
	f.proxy.cut()
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.GetString("plan") + s.GetString("token"); got != "goldu" {
			t.Errorf("after the outage: %q, want goldu: the part of a backend that was down stays in the cookie", got)
		}
	})
	full := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session", Timeout: 200 * time.Millisecond}, single(f.backend)...))
	full.mustAsk(full.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("token", "t") })
	r := full.ask(full.client, func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		f.proxy.set(proxyHang)
		f.proxy.cut()
		s.Destroy()
		io.WriteString(w, "bye")
	})
	f.proxy.set(proxyServe)
	f.proxy.cut()
	if len(full.jar(full.client)) > 0 || r.StatusCode != 503 {
		t.Errorf("a logout while Redis is down: %d, the browser has %v; want 503 and nothing (SPEC 6.2)", r.StatusCode, full.jar(full.client))
	}
}

// SPEC 5.13, 1.4: configs must agree.
func TestSingleCookieConfigsAgree(t *testing.T) {
	t.Parallel()
	base := sessplus.Config{CookieName: "a", Domain: "example.com", Path: "/x", Secure: sessplus.SecureAlways, SameSite: http.SameSiteStrictMode, ScriptReadable: true, Partitioned: true}
	_, err := sessplus.New([]sessplus.Config{base, {CookieName: "b", Fields: sessplus.Auto()}}, &sessplus.Options{Keys: testKeys, SingleCookie: "s"})
	for _, field := range []string{"Domain", "Path", "Secure", "SameSite", "ScriptReadable", "Partitioned"} {
		if !strings.Contains(fmt.Sprint(err), "b: "+field) && !strings.Contains(fmt.Sprint(err), field) {
			t.Errorf("New = %v, want it to name %s", err, field)
		}
	}
	for _, name := range []string{"a b", "__Host-s", strings.Repeat("s", 300)} {
		if _, err := sessplus.New([]sessplus.Config{{CookieName: "a"}}, &sessplus.Options{Keys: testKeys, SingleCookie: name}); err == nil {
			t.Errorf("SingleCookie %.20q: New is content", name)
		}
	}
	if _, err := sessplus.New([]sessplus.Config{{CookieName: "a"}, {CookieName: "b", Path: "/", SameSite: http.SameSiteLaxMode}}, &sessplus.Options{Keys: testKeys, SingleCookie: "a"}); err != nil {
		t.Errorf("defaults and what they stand for: %v", err)
	}
}

// SPEC 5.13, 10.2: on a device that was logged out from elsewhere, pages that write what belongs to no login go on.
func TestSingleCookieAfterALogoutElsewhere(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		configs := single(b)
		configs[0].IndexBy = "user"
		m := newManager(t, &sessplus.Options{SingleCookie: "__session"}, configs...)
		c := newCrowd(t, m)
		c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Set("user", "ann")
			s.Set("plan", "gold")
			s.Set("token", "t")
			s.Set("draft", "d")
		})
		if n, err := m.RevokeAll(t.Context(), "session", "ann"); n != 1 || err != nil {
			t.Fatalf("RevokeAll = %d, %v", n, err)
		}
		for range 2 {
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := s.GetString("user") + s.GetString("plan") + s.GetString("draft"); got != "gold" {
					t.Errorf("user, plan and draft = %q, want gold alone", got)
				}
				s.Set("token", s.GetString("token")+"t")
			})
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := s.GetString("token"); got != "ttt" {
				t.Errorf("token = %q, want ttt", got)
			}
			s.Renew()
			s.Set("user", "ann")
		})
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := s.GetString("user"); got != "ann" {
				t.Errorf("after a login user = %q, want ann", got)
			}
		})
	})
}
