package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessplus/sessplus"
)

// An oldStore is what a former library has left: sessions by the value of their cookie.
type oldStore struct {
	mu       sync.Mutex
	sessions map[string]sessplus.Imported
	sealed   bool  // the sessions were in the cookies, so nothing forgets them
	down     error // what it answers instead
	asked    int
	forgot   int
	failing  error // of Forget
}

func newOldStore(value string, s sessplus.Imported) *oldStore {
	return &oldStore{sessions: map[string]sessplus.Imported{value: s}}
}

func (o *oldStore) Import(ctx context.Context, cookie, value string) (*sessplus.Imported, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	if o.down != nil {
		return nil, o.down
	}
	found, ok := o.sessions[value]
	if !ok {
		return nil, fmt.Errorf("old: the value is unknown: %w", sessplus.ErrNoRecord)
	}
	if !o.sealed {
		found.Forget = func(context.Context) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.forgot++
			if o.failing == nil {
				delete(o.sessions, value)
			}
			return o.failing
		}
	}
	return &found, nil
}

func (o *oldStore) has(value string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.sessions[value]
	return ok
}

// oldToken is one of scs, which looks like an id of ours.
const oldToken = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func importing(c sessplus.Config, from ...sessplus.Importer) sessplus.Config {
	c.Import = from
	return c
}

// bursts makes n requests side by side with the cookies, in turn to each of the servers.
func bursts(t *testing.T, n int, cookies string, servers ...*crowd) []*reply {
	t.Helper()
	replies := make([]*reply, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { replies[i] = servers[i%len(servers)].raw(cookies, who) })
	}
	wg.Wait()
	return replies
}

// raw makes a request with this Cookie header, of no browser.
func (c *crowd) raw(cookies string, h http.HandlerFunc) *reply {
	client := *http.DefaultClient
	client.Transport = withHeader{"Cookie", cookies}
	return c.ask(&client, h)
}

type withHeader struct{ name, value string }

func (h withHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	if r = r.Clone(r.Context()); h.value != "" {
		r.Header.Set(h.name, h.value)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// who answers the user, and the ids of the sessions.
func who(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if !s.Has("user") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	fmt.Fprint(w, s.GetString("user"), " ", s.GetString("theme"), " ", s.ID("s"), " ", s.ID("t"))
}

// cookiesOf are those that a response sets, as a browser sends them.
func cookiesOf(r *reply) string {
	var list []string
	for _, k := range r.Cookies() {
		if k.MaxAge >= 0 {
			list = append(list, k.Name+"="+k.Value)
		}
	}
	return strings.Join(list, "; ")
}

// onEveryHome is onEveryBackend, and for a secure cookie.
func onEveryHome(t *testing.T, test func(t *testing.T, b sessplus.Backend)) {
	onEveryBackend(t, test)
	t.Run("secure cookie", func(t *testing.T) { test(t, sessplus.SecureCookie()) })
}

// SPEC 12.1, SPEC 12.2: six requests at once on two machines, which share only keys and the backend.
func TestImport(t *testing.T) {
	t.Parallel()
	onEveryHome(t, func(t *testing.T, b sessplus.Backend) {
		for _, value := range []string{oldToken, "not_an_id/of ours", "MTc5NTY5MzUwOXw="} {
			for _, signed := range []bool{false, true} {
				secure := b == sessplus.SecureCookie()
				if signed && secure {
					continue
				}
				ends := time.Now().Add(time.Hour).Truncate(time.Millisecond)
				old := newOldStore(value, sessplus.Imported{Fields: map[string]any{"user": "ann", "theme": "dark"}, Expires: ends})
				var j journal
				c := importing(sessplus.Config{CookieName: "s", Backend: b, SignID: signed, KeyPrefix: "p:" + value[3:5] + fmt.Sprint(signed)}, old)
				one, two := newCrowd(t, newManager(t, j.options(0), c)), newCrowd(t, newManager(t, nil, c))
				replies := bursts(t, 6, "s="+value, one, two)
				for _, r := range replies {
					if r.StatusCode != 200 || !strings.HasPrefix(r.body, "ann dark ") || r.body != replies[0].body {
						t.Errorf("%s: %d %q, and the first %q", value, r.StatusCode, r.body, replies[0].body)
					}
					if len(r.setCookies("s")) != 1 {
						t.Errorf("the cookies are %q", r.Header["Set-Cookie"])
					}
				}
				if old.has(value) != secure { // see TestImportIntoSecureCookieForgets
					t.Errorf("the old session is there: %t", old.has(value))
				}
				asked := old.asked
				r := two.raw(cookiesOf(replies[0]), func(w http.ResponseWriter, r *http.Request) {
					s := sessplus.Get(r)
					defer who(w, r)
					if got := s.Expires("s"); got.After(ends) || got.Before(ends.Add(-time.Second)) {
						t.Errorf("it expires %v, want %v", got, ends)
					}
					s.Set("theme", "light") // a save does not move the end
				})
				if r.body != strings.Replace(replies[0].body, "dark", "light", 1) || old.asked != asked {
					t.Errorf("with the new cookie: %d %q, and the importer was asked %d times", r.StatusCode, r.body, old.asked-asked)
				}
				cookies := cookiesOf(replies[0])
				if secure {
					cookies = cookiesOf(r)
				}
				one.raw(cookies, func(w http.ResponseWriter, r *http.Request) {
					s := sessplus.Get(r)
					if got := s.Expires("s"); got.After(ends) || s.GetString("theme") != "light" {
						t.Errorf("after a save it expires %v, want %v; the theme is %q", got, ends, s.GetString("theme"))
					}
				})
				imports := 0
				for _, kind := range j.kinds("s") {
					if kind == sessplus.EventImport {
						imports++
					}
				}
				if imports > 3 || !secure && imports > 1 {
					t.Errorf("%d imports were told", imports)
				}
				j.keepsSecret(t, nil, value, cookiesOf(replies[0]))
			}
		}
	})
}

// SPEC 12.2: neither comes back, long after the minute in which an ended id is known.
func TestFormerCookieIsReplayedAfterLogout(t *testing.T) {
	for name, end := range map[string]func(s *sessplus.Session){
		"Destroy":          func(s *sessplus.Session) { s.Destroy() },
		"Renew":            func(s *sessplus.Session) { s.Renew(); s.Set("user", "bob") },
		"the last field":   func(s *sessplus.Session) { s.Clear() },
		"Revoke":           nil,
		"the idle timeout": func(*sessplus.Session) { time.Sleep(2 * time.Hour) },
	} {
		for _, failing := range []bool{false, true} {
			t.Run(fmt.Sprint(name, failing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					old := newOldStore(oldToken, sessplus.Imported{Fields: map[string]any{"user": "ann"}, Expires: time.Now().Add(20 * time.Hour)})
					if old.sealed = !failing; failing {
						old.failing = errors.New("old: it cannot be removed")
					}
					m := newManager(t, nil, importing(sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), IndexBy: "user", IdleTimeout: time.Hour}, old))
					read := func(s *sessplus.Session) {
						if s.GetString("user") != "ann" {
							t.Errorf("the user is %q", s.GetString("user"))
						}
					}
					cookie := cookiesOf(pass(m, "s="+oldToken, read))
					pass(m, cookie, read)
					if end == nil {
						if n, err := m.RevokeAll(t.Context(), "s", "ann"); n != 1 || err != nil {
							t.Errorf("RevokeAll = %d, %v", n, err)
						}
					} else {
						pass(m, cookie, end)
					}
					for range 5 {
						r := pass(m, "s="+oldToken, func(s *sessplus.Session) {
							if s.Has("user") {
								t.Error("the old cookie is good again")
							}
						})
						if len(r.Header["Set-Cookie"]) > 0 {
							t.Errorf("it sets %q", r.Header["Set-Cookie"])
						}
						time.Sleep(3 * time.Hour)
					}
				})
			})
		}
	}
}

// pass makes a request in this process, for tests in which time passes.
func pass(m *sessplus.Manager, cookies string, f func(s *sessplus.Session)) *reply {
	r := httptest.NewRequest("GET", "/", nil)
	if cookies != "" {
		r.Header.Set("Cookie", cookies)
	}
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })).ServeHTTP(w, r)
	return &reply{w.Result(), w.Body.String()}
}

// SPEC 12.2, SPEC 12.3: nothing tells requests side by side that one of them has made a secure cookie of the session,
// so that it stays where it was for a minute, or until the session ends.
func TestImportIntoSecureCookieForgets(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *sessplus.Session){
		"in time": func(s *sessplus.Session) { time.Sleep(time.Minute); s.Get("user") },
		"Destroy": func(s *sessplus.Session) { s.Destroy() },
		"Renew":   func(s *sessplus.Session) { s.Renew() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(2 * 366 * 24 * time.Hour) // no securecookie is from 2000
				ends := time.Now().Add(time.Hour)
				old := newOldStore(oldToken, sessplus.Imported{Fields: map[string]any{"user": "ann"}, Expires: ends})
				m := newManager(t, nil, importing(sessplus.Config{CookieName: "s", MaxAge: 10 * time.Hour}, old))
				r := pass(m, "s="+oldToken, func(*sessplus.Session) {})
				cookie := cookiesOf(r)
				if age := r.Cookies()[0].MaxAge; age < 3590 || age > 3600 {
					t.Errorf("the cookie is for %d s, want an hour", age)
				}
				r = pass(m, cookie, func(s *sessplus.Session) { s.Set("theme", "dark") })
				cookie = cookiesOf(r)
				if !old.has(oldToken) {
					t.Error("requests beside the first one do not find it any more")
				}
				if name == "in time" {
					time.Sleep(time.Minute)
					r = pass(m, cookie, func(s *sessplus.Session) {})
					if len(r.Cookies()) > 0 || !old.has(oldToken) {
						t.Errorf("a request that did not use the session sets %q", r.Header["Set-Cookie"])
					}
				}
				r = pass(m, cookie, end)
				if old.has(oldToken) {
					t.Error("the old session is still there")
				}
				if len(r.Cookies()) == 0 {
					t.Error("no cookie is set")
				}
				asked := old.asked
				if cookie = cookiesOf(r); cookie != "" {
					pass(m, cookie, func(s *sessplus.Session) {
						late := s.Expires("s").After(ends)
						if !s.Has("user") || late != (name == "Renew") {
							t.Errorf("the user is there: %t; it expires %v, and the old session %v", s.Has("user"), s.Expires("s"), ends)
						}
						s.Set("theme", "light")
					})
				}
				time.Sleep(2 * time.Hour)
				if pass(m, cookie, func(s *sessplus.Session) {
					if s.Has("user") != (name == "Renew") {
						t.Errorf("two hours later the user is there: %t", s.Has("user"))
					}
				}); name == "Renew" && old.asked != asked {
					t.Error("the importer is asked again")
				}
			})
		})
	}
}

// SPEC 4.7, SPEC 12.2: a Destroy by another goroutine while a save is under way ends the old session, too.
func TestDestroyOfAnOldSessionBesideASave(t *testing.T) {
	t.Parallel()
	entered, release := make(chan bool), make(chan bool)
	b := &recorder{Backend: sessplus.Memory(), hook: func(_ context.Context, op string) error {
		if op == "end" {
			entered <- true
			<-release
		}
		return nil
	}}
	old := newOldStore(oldToken, sessplus.Imported{Fields: map[string]any{"user": "ann"}})
	c := newCrowd(t, newManager(t, nil,
		importing(sessplus.Config{CookieName: "s", Fields: sessplus.Include("user", "theme")}, old),
		sessplus.Config{CookieName: "t", Fields: sessplus.Auto(), Backend: b}))
	first := c.raw("", func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("n", 1) })
	c.raw("s="+oldToken+"; "+cookiesOf(first), func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		s.Set("theme", "dark")
		s.Renew("t")
		saved := make(chan error)
		go func() { saved <- s.Save() }()
		<-entered
		s.Destroy("s")
		release <- true
		if err := <-saved; err != nil {
			t.Errorf("Save() = %v", err)
		}
	})
	if old.has(oldToken) {
		t.Error("the old session is still there")
	}
}
