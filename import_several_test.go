package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 12.1, SPEC 12.2: into several cookies by the routes, six requests at once.
func TestImportIntoSeveralCookies(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for i, other := range []sessplus.Config{
			{CookieName: "t", Backend: b}, {CookieName: "t", Backend: b, Lazy: true}, {CookieName: "t"}, {CookieName: "t", BoundTo: "s"},
		} {
			other.Fields, other.KeyPrefix = sessplus.Include("theme"), fmt.Sprint("u", i, ":")
			if other.Backend == nil {
				other.KeyPrefix = ""
			}
			old := newOldStore(oldToken, sessplus.Imported{
				Fields: map[string]any{"user": "ann", "theme": "dark", "nobody": 1, "broken": errors.New("of a type that is gone")},
			})
			var j journal
			configs := []sessplus.Config{
				importing(sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user", "broken"), KeyPrefix: fmt.Sprint("v", i, ":"), Lazy: i == 1,
					IdleTimeout: time.Hour, RotateEvery: time.Hour, IndexBy: "user"}, old),
				other,
			}
			one, two := newCrowd(t, newManager(t, j.options(0), configs...)), newCrowd(t, newManager(t, j.options(0), configs...))
			replies := bursts(t, 6, "s="+oldToken, one, two)
			for _, r := range replies {
				if !strings.HasPrefix(r.body, "ann dark") || r.body != replies[0].body || len(r.setCookies("t")) != 1 {
					t.Errorf("%d: %d %q, and the first %q; the cookies are %q", i, r.StatusCode, r.body, replies[0].body, r.Header["Set-Cookie"])
				}
			}
			cookies := cookiesOf(replies[5])
			if r := two.raw(cookies, who); r.body != replies[0].body {
				t.Errorf("%d: with the new cookies: %d %q", i, r.StatusCode, r.body)
			}
			if log := j.text(); !strings.Contains(log, "nobody") || !strings.Contains(log, "of a type that is gone") {
				t.Errorf("the log says %s", log)
			}
			one.raw(cookies, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() })
			if r := two.raw("s="+oldToken, who); r.StatusCode != 401 {
				t.Errorf("%d: after the logout: %d %q", i, r.StatusCode, r.body)
			}
		}
	})
}

// SPEC 12.2: what a secure cookie has got of the session waits for requests with the old cookie for a minute, and goes
// at once with the secure cookie.
func TestImportBringsNothingBack(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(s *sessplus.Session){
		"Destroy": func(s *sessplus.Session) { s.Destroy("t") },
		"in time": func(s *sessplus.Session) { s.Get("user") },
	} {
		for _, lazy := range []bool{false, true} {
			t.Run(fmt.Sprint(name, lazy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					old := newOldStore(oldToken, sessplus.Imported{Fields: map[string]any{"user": "ann", "theme": "dark"}})
					m := newManager(t, nil,
						importing(sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), Fields: sessplus.Include("user"), Lazy: lazy}, old),
						sessplus.Config{CookieName: "t", Fields: sessplus.Include("theme")})
					replay := func(want string) {
						t.Helper()
						pass(m, "s="+oldToken, func(s *sessplus.Session) {
							if user, theme := s.GetString("user"), s.GetString("theme"); user != "ann" || theme != want {
								t.Errorf("the old cookie brings %q, %q, want %q, %q", user, theme, "ann", want)
							}
						})
					}
					cookies := cookiesOf(pass(m, "s="+oldToken, func(s *sessplus.Session) { s.Get("user") }))
					pass(m, cookies, func(s *sessplus.Session) { s.Get("user") })
					replay("dark")
					if name == "in time" {
						time.Sleep(time.Minute)
						replay("dark")
					}
					pass(m, cookies, leave)
					replay("")
				})
			})
		}
	}
}

// SPEC 12.1: an importer that fails is a backend that is down.
func TestImporterIsDown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]sessplus.Config{
		"eager": {CookieName: "s", Backend: sessplus.Memory()}, "optional": {CookieName: "s", Backend: sessplus.Memory(), Optional: true},
		"secure": {CookieName: "s"}, "lazy": {CookieName: "s", Backend: sessplus.Memory(), Lazy: true},
	} {
		t.Run(name, func(t *testing.T) {
			old := newOldStore("old", sessplus.Imported{Fields: map[string]any{"user": "ann"}})
			old.down = errors.New("old: the server does not answer")
			c := newCrowd(t, newManager(t, nil, importing(c, old)))
			ran := false
			r := c.raw("s=old", func(_ http.ResponseWriter, r *http.Request) {
				ran = true
				if name != "lazy" && name != "optional" {
					t.Error("the handler ran")
				}
				sessplus.Get(r).Get("user")
			})
			want := http.StatusServiceUnavailable
			if name == "optional" {
				want = http.StatusOK
			}
			if r.StatusCode != want || len(r.Header["Set-Cookie"]) > 0 || ran != (name == "lazy" || name == "optional") {
				t.Errorf("status %d, cookies %q", r.StatusCode, r.Header["Set-Cookie"])
			}
			r = c.raw("s=old", func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() })
			if name == "lazy" && (r.StatusCode != 503 || len(r.setCookies("s")) != 1) {
				t.Errorf("a logout: status %d, cookies %q", r.StatusCode, r.Header["Set-Cookie"])
			}
			old.mu.Lock()
			old.down = nil
			old.mu.Unlock()
			if r := c.raw("s=old", who); !strings.HasPrefix(r.body, "ann") {
				t.Errorf("once it is back: %d %q", r.StatusCode, r.body)
			}
		})
	}
}

// A hungImporter waits for the end of its context.
type hungImporter struct{}

func (hungImporter) Import(ctx context.Context, _, _ string) (*sessplus.Imported, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A deafImporter does not mind the end of its context. It waits for as long as it is told, or until it is released.
type deafImporter struct {
	pause    time.Duration
	released chan struct{}
	asked    atomic.Int64
}

func (d *deafImporter) wait() {
	select {
	case <-d.released:
	case <-time.After(d.pause):
	}
}

func (d *deafImporter) Import(context.Context, string, string) (*sessplus.Imported, error) {
	d.asked.Add(1)
	d.wait()
	return nil, fmt.Errorf("old: there is no such session: %w", sessplus.ErrNoRecord)
}

// SPEC 12.1, SPEC 6.3, SPEC 6.8: all foreign cookies of a request together are asked about within one Timeout, and an
// importer that does not mind its context is left to itself.
func TestDeafImporter(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for _, pause := range []time.Duration{timeout * 3 / 5, time.Hour} {
		for _, b := range []sessplus.Backend{sessplus.Memory(), sessplus.SecureCookie()} {
			t.Run(fmt.Sprintf("%s after %v", b, pause), func(t *testing.T) {
				t.Parallel()
				d := &deafImporter{pause: pause, released: make(chan struct{})}
				var configs []sessplus.Config
				for _, name := range []string{"s", "t", "u"} {
					configs = append(configs, importing(sessplus.Config{CookieName: name, Backend: b, Fields: sessplus.Include(name)}, d))
				}
				m := newManager(t, &sessplus.Options{Timeout: timeout}, configs...)
				start := time.Now()
				r := pass(m, "s=a; s=b; s=c; t=a; t=b; u=a; u=b", func(s *sessplus.Session) {
					s.Fields()
					s.Destroy()
				})
				if took := time.Since(start); r.StatusCode != 503 || took > timeout*9/5 {
					t.Errorf("status %d after %v, want 503 after %v", r.StatusCode, took, timeout)
				}
				close(d.released)
				settle(t)
			})
		}
	}
}

// SPEC 12.1, SPEC 6.3: nor may removing a session from where it was hold the request.
func TestDeafForget(t *testing.T) {
	const timeout = 200 * time.Millisecond
	d := &deafImporter{pause: time.Hour, released: make(chan struct{})}
	old := importerFunc(func(context.Context, string, string) (*sessplus.Imported, error) {
		return &sessplus.Imported{
			Fields: map[string]any{"user": "ann"},
			Forget: func(context.Context) error { d.wait(); return nil },
		}, nil
	})
	var j journal
	m := newManager(t, j.options(timeout), importing(sessplus.Config{CookieName: "s", Backend: sessplus.Memory()}, old))
	start := time.Now()
	r := pass(m, "s="+oldToken, func(s *sessplus.Session) {
		if user := s.GetString("user"); user != "ann" {
			t.Errorf("the user is %q", user)
		}
	})
	if took := time.Since(start); r.StatusCode != 200 || took > timeout*9/5 {
		t.Errorf("status %d after %v, want 200 after %v", r.StatusCode, took, timeout)
	}
	if !strings.Contains(j.text(), "could not be removed where it was before") {
		t.Errorf("the log says %s", j.text())
	}
	close(d.released)
	settle(t)
}

// An importerFunc is an importer.
type importerFunc func(ctx context.Context, cookie, value string) (*sessplus.Imported, error)

func (f importerFunc) Import(ctx context.Context, cookie, value string) (*sessplus.Imported, error) {
	return f(ctx, cookie, value)
}

// SPEC 12.1, SPEC 6.3: within the Timeout.
func TestImporterHangs(t *testing.T) {
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 50 * time.Millisecond},
		importing(sessplus.Config{CookieName: "s", Backend: sessplus.Memory()}, hungImporter{})))
	start := time.Now()
	if r := c.raw("s=a; s=b; s=c", who); r.StatusCode != 503 || time.Since(start) > 2*time.Second {
		t.Errorf("status %d after %v", r.StatusCode, time.Since(start))
	}
}

// SPEC 12.1: what is no importer's is rejected as without them; each of several cookies is tried; keys are rotated
// meanwhile.
func TestImportAmongOthers(t *testing.T) {
	t.Parallel()
	newer := []sessplus.KeyPair{sessplus.DeriveKeyPair([]byte("a newer secret of thirty-two bytes or more")), testKeys[0]}
	b := sessplus.Memory()
	old := newOldStore("old", sessplus.Imported{Fields: map[string]any{"user": "ann"}})
	old.sealed = true
	var j journal
	c := importing(sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user")}, old)
	options := j.options(0)
	one := newCrowd(t, newManager(t, options, c))
	options = j.options(0)
	options.Keys = newer
	two := newCrowd(t, newManager(t, options, c))
	if r := one.raw("s=bad; s="+oldToken, who); r.StatusCode != 401 || len(r.Header["Set-Cookie"]) > 0 {
		t.Errorf("status %d, cookies %q", r.StatusCode, r.Header["Set-Cookie"])
	}
	if kinds := fmt.Sprint(j.kinds("s")); kinds != "[miss reject]" || !strings.Contains(j.text(), "old: the value is unknown") {
		t.Errorf("the events are %v; the log says %s", kinds, j.text())
	}
	first := one.raw("s=bad; s="+oldToken+"; s=old", who)
	if second := two.raw("s=old", who); !strings.HasPrefix(first.body, "ann") || second.body != first.body {
		t.Errorf("%q, and with newer keys %q", first.body, second.body)
	}
	if r := two.raw("s=old; s="+strings.TrimPrefix(cookiesOf(first), "s="), func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() }); r.StatusCode != 200 {
		t.Errorf("a logout: %d", r.StatusCode)
	}
	if r := one.raw("s=old", who); r.StatusCode != 401 {
		t.Errorf("after the logout: %d %q", r.StatusCode, r.body)
	}
}

// SPEC 12.1, SPEC 6.5: what does not fit is named, and not what the cookie remembers of the old session.
func TestImportIsTooLarge(t *testing.T) {
	t.Parallel()
	many := map[string]any{"user": "ann"}
	for i := range 500 {
		many[fmt.Sprint("item", i)] = "x"
	}
	for largest, fields := range map[string]map[string]any{
		"basket": {"user": "ann", "basket": strings.Repeat("x", 5000)},
		"user":   many,
	} {
		old := newOldStore("old", sessplus.Imported{Fields: fields})
		var j journal
		c := newCrowd(t, newManager(t, j.options(0), importing(sessplus.Config{CookieName: "s"}, old)))
		r := c.raw("s=old", who)
		if log := j.text(); r.StatusCode != 500 || !strings.Contains(log, `field \"`+largest+`\"`) || !old.has("old") {
			t.Errorf("status %d; the log says %s, want %s", r.StatusCode, log, largest)
		}
	}
}

// SPEC 12.1, SPEC 5.13: another cookie, into a single one; the former one goes.
func TestImportFromAnotherCookie(t *testing.T) {
	t.Parallel()
	for _, single := range []string{"", "__session"} {
		old := newOldStore("old", sessplus.Imported{Fields: map[string]any{"user": "ann", "theme": "dark"}, Permanent: true})
		c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: single},
			importing(sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), Fields: sessplus.Include("user")}, sessplus.FromCookie("sid", old)),
			sessplus.Config{CookieName: "t"}))
		replies := bursts(t, 6, "sid=old", c)
		for _, r := range replies {
			if !strings.HasPrefix(r.body, "ann dark") || len(r.setCookies("sid")) != 1 || !strings.Contains(r.setCookies("sid")[0], "Max-Age=0") {
				t.Errorf("%d %q, cookies %q", r.StatusCode, r.body, r.Header["Set-Cookie"])
			}
		}
		if r := c.raw(cookiesOf(replies[3]), who); !strings.HasPrefix(r.body, "ann dark") {
			t.Errorf("with the new cookie: %d %q", r.StatusCode, r.body)
		}
	}
}

// SPEC 12.1: the new cookies come together or not at all, since the first one takes the place of the old one.
func TestImportMeetsOutage(t *testing.T) {
	t.Parallel()
	for failing := range 5 {
		old := newOldStore(oldToken, sessplus.Imported{Fields: map[string]any{"user": "ann", "theme": "dark"}})
		var updates atomic.Int64
		b := &recorder{Backend: sessplus.Memory()}
		b.hook = func(_ context.Context, op string) error {
			if op != "update" {
				return nil
			}
			if updates.Add(1) == int64(failing) {
				return sessplus.ErrUnavailable
			}
			return nil
		}
		m := newManager(t, nil, importing(sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user")}, old),
			sessplus.Config{CookieName: "t", Backend: b, Fields: sessplus.Include("theme")})
		r := pass(m, "s="+oldToken, func(s *sessplus.Session) { s.Get("user") })
		if cookies := len(r.Cookies()); r.StatusCode == 200 && cookies != 2 || r.StatusCode != 200 && cookies != 0 {
			t.Errorf("update %d fails: status %d, cookies %q", failing, r.StatusCode, r.Header["Set-Cookie"])
		}
		pass(m, "s="+oldToken, func(s *sessplus.Session) {
			if user, theme := s.GetString("user"), s.GetString("theme"); user != "ann" || theme != "dark" {
				t.Errorf("update %d has failed: the user is %q, the theme %q, want %q, %q", failing, user, theme, "ann", "dark")
			}
		})
	}
}

// SPEC 12.2: a secure cookie that the program destroys does not come back with the former cookie, also if the request
// has saved something before.
func TestDestroyedSecureCookieOfAnOldSessionAfterASave(t *testing.T) {
	t.Parallel()
	for _, saves := range []bool{false, true} {
		old := newOldStore(oldToken, sessplus.Imported{Fields: map[string]any{"user": "ann", "theme": "dark"}})
		c := newCrowd(t, newManager(t, nil,
			importing(sessplus.Config{CookieName: "s", Fields: sessplus.Exclude("theme"), Backend: sessplus.Memory()}, old),
			sessplus.Config{CookieName: "t", Fields: sessplus.Include("theme")}))
		first := c.raw("s="+oldToken, who)
		c.raw(cookiesOf(first), func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			if saves {
				s.Set("n", 1)
				if err := s.Save(); err != nil {
					t.Errorf("Save() = %v", err)
				}
			}
			s.Destroy("t")
		})
		c.raw("s="+oldToken, func(_ http.ResponseWriter, r *http.Request) {
			if s := sessplus.Get(r); !s.Has("user") || s.Has("theme") {
				t.Errorf("after a Save (%t) and a Destroy there are %q, want the user alone", saves, s.Fields())
			}
		})
	}
}
