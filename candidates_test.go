package sessplus_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// crowdedConfigs are the kinds of cookies that may come several times.
func crowdedConfigs() map[string]sessplus.Config {
	return map[string]sessplus.Config{
		"secure cookie":    {CookieName: "k"},
		"split":            {CookieName: "k", MaxChunks: 3},
		"server-side":      {CookieName: "k", Backend: sessplus.Memory()},
		"server-side lazy": {CookieName: "k", Backend: sessplus.Memory(), Lazy: true},
		"signed id":        {CookieName: "k", Backend: sessplus.Memory(), SignID: true},
	}
}

func randomID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// behind makes a request with the cookies of the jar, each behind those that stray gives for it.
func (s *site) behind(strays int, stray func(i int, name, good string) string, h http.HandlerFunc) *reply {
	s.Helper()
	var pairs []string
	for name, good := range s.jar(s.client) {
		for i := range strays {
			pairs = append(pairs, name+"="+stray(i, name, good))
		}
		pairs = append(pairs, name+"="+good)
	}
	req, err := http.NewRequest("GET", s.URL, nil)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Cookie", strings.Join(pairs, "; "))
	return s.send(&http.Client{}, req, h)
}

// SPEC 5.10: a malformed value takes no place from a good one, however many come.
func TestMalformedCookiesShadowNothing(t *testing.T) {
	t.Parallel()
	strays := map[string]func(i int, name, good string) string{
		"words":    func(i int, _, _ string) string { return fmt.Sprint("stray", i) },
		"too long": func(i int, _, good string) string { return good + strings.Repeat("A", 4100+4*i) },
		"cut":      func(i int, _, good string) string { return good[1+i%20:] },
		"spoilt": func(i int, _, good string) string {
			return good[:len(good)/2] + "!" + fmt.Sprint(i) + good[len(good)/2:]
		},
		"dots":      func(i int, _, good string) string { return fmt.Sprintf("%d..%s", i, good) },
		"empty":     func(int, string, string) string { return "" },
		"many more": func(i int, _, _ string) string { return strings.Repeat("a", i%7) + fmt.Sprint(i) },
	}
	for kind, config := range crowdedConfigs() {
		for name, stray := range strays {
			t.Run(kind+"/"+name, func(t *testing.T) {
				var j journal
				s := newSite(t, newManager(t, j.options(0), config))
				s.with(func(s *sessplus.Session) {
					s.Set("user", "ann")
					if config.MaxChunks > 1 {
						s.Set("payload", noise(6000))
					}
				})
				n := 50
				if name == "too long" {
					n = 9
				}
				if name == "many more" {
					n = 5000
				}
				r := s.behind(n, stray, func(_ http.ResponseWriter, r *http.Request) {
					if got := sessplus.Get(r).GetString("user"); got != "ann" {
						t.Errorf("user = %q, want ann", got)
					}
				})
				if r.StatusCode != http.StatusOK || len(r.setCookies("k")) > 0 {
					t.Errorf("status %d, %d cookies set, want 200 and none", r.StatusCode, len(r.setCookies("k")))
				}
				rejected := strings.Count(j.text(), "rejected")
				if rejected < 1 || rejected > 9*max(1, config.MaxChunks) {
					t.Errorf("%d lines in the log, want some and not one for each", rejected)
				}
			})
		}
	}
}

// SPEC 5.10, 7.2: more well-formed values than are tried are no session, and what they hide is not overwritten.
func TestTooManyCookiesOverwriteNothing(t *testing.T) {
	t.Parallel()
	for kind, config := range crowdedConfigs() {
		for _, drops := range []bool{false, true} {
			config.DropIfGone = drops
			t.Run(fmt.Sprint(kind, "/", drops), func(t *testing.T) {
				s := newSite(t, newManager(t, nil, config))
				login := func(s *sessplus.Session) {
					s.Set("user", "ann")
					if config.MaxChunks > 1 {
						s.Set("payload", noise(6000))
					}
				}
				s.with(login)
				strays := make(map[string][]string) // of other visitors
				for range 9 {
					other := s.visitor()
					s.visitAs(other, func(_ http.ResponseWriter, r *http.Request) { login(sessplus.Get(r)) })
					for name, value := range s.jar(other) {
						strays[name] = append(strays[name], value)
					}
				}
				stray := func(i int, name, _ string) string {
					text := strays[name][i]
					if config.Backend != nil && !config.SignID {
						return randomID()
					}
					return flipDigit(text, len(text)-30)
				}
				for _, n := range []int{7, 9} {
					read := func(_ http.ResponseWriter, r *http.Request) {
						want := map[int]string{7: "ann", 9: ""}[n]
						if got := sessplus.Get(r).GetString("user"); got != want {
							t.Errorf("behind %d: user = %q, want %q", n, got, want)
						}
					}
					if r := s.behind(n, stray, read); r.StatusCode != 200 || len(r.setCookies("k")) > 0 {
						t.Errorf("behind %d: status %d, Set-Cookie %q", n, r.StatusCode, r.setCookies("k"))
					}
				}
				r := s.behind(9, stray, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user", "eve") })
				if want := map[bool]int{false: http.StatusConflict, true: http.StatusOK}[drops]; r.StatusCode != want || len(r.setCookies("k")) > 0 {
					t.Errorf("a save: status %d, Set-Cookie %q; want %d and none", r.StatusCode, r.setCookies("k"), want)
				}
				s.with(func(s *sessplus.Session) {
					if got := s.GetString("user"); got != "ann" {
						t.Errorf("afterwards: user = %q, want ann", got)
					}
				})
				// A program that starts afresh does so.
				r = s.behind(9, stray, func(_ http.ResponseWriter, r *http.Request) {
					sessplus.Get(r).Destroy()
					sessplus.Get(r).Set("user", "eve")
				})
				if r.StatusCode != http.StatusOK || len(r.setCookies("k")) != 1 {
					t.Errorf("after Destroy: status %d, Set-Cookie %q; want 200 and one", r.StatusCode, r.setCookies("k"))
				}
			})
		}
	}
}

// flipDigit changes one digit of a base64 text.
func flipDigit(text string, at int) string {
	digit := "A"
	if text[at] == 'A' {
		digit = "B"
	}
	return text[:at] + digit + text[at+1:]
}

// A host is a browser that reaches the site under a name.
type host struct {
	*http.Client
	url string
}

// as returns a new browser that finds the site at http://name/.
func (s *site) as(name string) *host {
	c := s.visitor()
	c.Transport = &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
	}}
	s.Cleanup(c.CloseIdleConnections)
	return &host{c, "http://" + name}
}

// visit makes a request below the path, and says what the Cookie header was.
func (h *host) visit(s *site, path string, f func(*sessplus.Session)) (r *reply, sent string) {
	s.Helper()
	req, err := http.NewRequest("GET", h.url+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	r = s.send(h.Client, req, func(_ http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("Cookie")
		f(sessplus.Get(r))
	})
	return r, sent
}

// howMany cookies a Cookie header has.
func howMany(header string) int {
	if header == "" {
		return 0
	}
	return strings.Count(header, ";") + 1
}

// SPEC 5.10: a deployment that changes Domain or Path is followed by everybody's next save.
func TestChangeOfDomainOrPath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		old, new  sessplus.Config
		path      string
		keepsBoth bool // the old one is of another path, which nobody knows any more
	}{
		{name: "a Domain", new: sessplus.Config{Domain: "example.test"}},
		{name: "a Domain, with MaxAge", old: sessplus.Config{MaxAge: time.Hour}, new: sessplus.Config{MaxAge: time.Hour, Domain: "example.test"}},
		{name: "a Domain, below a path", old: sessplus.Config{Path: "/app"}, new: sessplus.Config{Path: "/app", Domain: "example.test"}, path: "/app/"},
		{name: "a shorter path", old: sessplus.Config{Path: "/app"}, path: "/app/", keepsBoth: true},
		{name: "a longer path", new: sessplus.Config{Path: "/app"}, path: "/app/", keepsBoth: true},
		{name: "no Domain any more", old: sessplus.Config{Domain: "example.test"}, keepsBoth: true},
		{name: "smaller", old: sessplus.Config{MaxChunks: 3}, new: sessplus.Config{MaxChunks: 3, Domain: "example.test"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.old.CookieName, tt.new.CookieName = "k", "k"
			before, after := newSite(t, newManager(t, nil, tt.old)), newSite(t, newManager(t, nil, tt.new))
			browser := before.as("www.example.test")
			browser.visit(before, tt.path, func(s *sessplus.Session) {
				s.Set("user", "ann")
				if tt.old.MaxChunks > 1 {
					s.Set("payload", noise(6000))
				}
			})
			jar := browser.Jar
			browser = after.as("www.example.test")
			browser.Jar = jar
			for _, user := range []string{"ann", "bob", "eve"} {
				if user != "ann" {
					time.Sleep(2 * time.Millisecond) // the date of a cookie has milliseconds
					browser.visit(after, tt.path, func(s *sessplus.Session) { s.Set("user", user); s.Delete("payload") })
				}
				browser.visit(after, tt.path, func(s *sessplus.Session) {
					if got := s.GetString("user"); got != user {
						t.Errorf("user = %q, want %q", got, user)
					}
				})
			}
			_, sent := browser.visit(after, tt.path, func(*sessplus.Session) {})
			if n := howMany(sent); (n > 1) != tt.keepsBoth {
				t.Errorf("the browser has %d cookies: %s", n, sent)
			}
			if tt.keepsBoth {
				return
			}
			r, _ := browser.visit(after, tt.path, func(s *sessplus.Session) { s.Set("user", "joe") })
			if n := len(r.setCookies("k")); n != 1 {
				t.Errorf("%d Set-Cookie lines once there is one cookie, want one", n)
			}
			browser.visit(after, tt.path, func(s *sessplus.Session) { s.Destroy() })
			if _, sent := browser.visit(after, tt.path, func(*sessplus.Session) {}); sent != "" {
				t.Errorf("after Destroy the browser has %s", sent)
			}
		})
	}
}

// SPEC 5.10: a logout reaches the cookie from before the config had a Domain, too.
func TestDestroyReachesTheHostOnlyCookie(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, backend := range []sessplus.Backend{nil, b} {
			for _, end := range []func(*sessplus.Session){
				func(s *sessplus.Session) { s.Destroy() },
				func(s *sessplus.Session) { s.Delete("user") },
			} {
				narrow := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "k", Backend: backend, KeyPrefix: "one:"}))
				wide := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "k", Backend: backend, KeyPrefix: "one:", Domain: "example.test"}))
				// Two logins, each as if it were the only one, leave two cookies behind.
				browser := narrow.as("www.example.test")
				browser.visit(narrow, "/", func(s *sessplus.Session) { s.Set("user", "ann") })
				other := wide.as("www.example.test")
				other.visit(wide, "/", func(s *sessplus.Session) { s.Set("user", "bob") })
				req, _ := http.NewRequest("GET", "http://www.example.test/", nil)
				k := other.Jar.Cookies(req.URL)[0]
				browser.Jar.SetCookies(req.URL, []*http.Cookie{{Name: "k", Value: k.Value, Domain: "example.test", Path: "/"}})
				jar := browser.Jar
				browser = wide.as("www.example.test")
				browser.Jar = jar
				if _, sent := browser.visit(wide, "/", func(*sessplus.Session) {}); howMany(sent) != 2 {
					t.Fatalf("the browser has %q, want two cookies", sent)
				}
				r, _ := browser.visit(wide, "/", end)
				if _, sent := browser.visit(wide, "/", func(*sessplus.Session) {}); sent != "" {
					t.Errorf("%T: after the end the browser has %q; Set-Cookie was %q", backend, sent, r.setCookies("k"))
				}
			}
		}
	})
}

// SPEC 5.10: of several live ids the first counts, and a save leaves the browser with it alone.
func TestSaveLeavesOneOfSeveralIDs(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		config := sessplus.Config{CookieName: "k", Backend: b}
		narrow := newSite(t, newManager(t, nil, config))
		config.Domain = "example.test"
		wide := newSite(t, newManager(t, nil, config))
		browser := narrow.as("www.example.test")
		browser.visit(narrow, "/", func(s *sessplus.Session) { s.Set("user", "ann") })
		req, _ := http.NewRequest("GET", "http://www.example.test/", nil)
		browser.Jar.SetCookies(req.URL, []*http.Cookie{{Name: "k", Value: randomID(), Domain: "example.test", Path: "/"}})
		jar := browser.Jar
		browser = wide.as("www.example.test")
		browser.Jar = jar
		r, sent := browser.visit(wide, "/", func(s *sessplus.Session) { s.Get("user") })
		if howMany(sent) != 2 || len(r.setCookies("k")) > 0 {
			t.Errorf("a read: the browser has %q, Set-Cookie %q; want two and none", sent, r.setCookies("k"))
		}
		r, _ = browser.visit(wide, "/", func(s *sessplus.Session) { s.Set("n", 1) })
		_, sent = browser.visit(wide, "/", func(s *sessplus.Session) {
			if s.GetString("user") != "ann" || s.GetInt("n") != 1 {
				t.Errorf("after a save the fields are %q", s.Fields())
			}
		})
		if howMany(sent) != 1 {
			t.Errorf("after a save the browser has %q, want one; Set-Cookie was %q", sent, r.setCookies("k"))
		}
	})
}

// SPEC 5.10
func TestStrayCookiesDoNotShadowTheGoodOne(t *testing.T) {
	t.Parallel()
	random := func() string {
		b := make([]byte, 32)
		rand.Read(b)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	strays := map[string]func(i int, good string) string{
		"malformed": func(i int, _ string) string { return fmt.Sprint("stray", i) },
		"unknown":   func(int, string) string { return random() },
		"forged": func(i int, good string) string {
			return flipDigit(good, len(good)-5-i)
		},
		"quoted and empty": func(i int, _ string) string { return `"` + strings.Repeat(" ", i) + `"` },
	}
	for kind, config := range map[string]sessplus.Config{
		"secure cookie":    {CookieName: "k"},
		"server-side":      {CookieName: "k", Backend: sessplus.Memory()},
		"server-side lazy": {CookieName: "k", Backend: sessplus.Memory(), Lazy: true},
		"signed id":        {CookieName: "k", Backend: sessplus.Memory(), SignID: true},
	} {
		s := newSite(t, newManager(t, nil, config))
		s.with(func(s *sessplus.Session) { s.Set("n", 1) })
		good := s.jar(s.client)["k"]
		for name, stray := range strays {
			for before := range 9 {
				for _, lines := range []bool{false, true} {
					var pairs []string
					for i := range before {
						pairs = append(pairs, "k="+stray(i, good))
					}
					pairs = append(pairs, "k="+good, "other=1", "k="+stray(20, good))
					req, _ := http.NewRequest("GET", s.URL, nil)
					if lines {
						req.Header["Cookie"] = pairs
					} else {
						req.Header.Set("Cookie", strings.Join(pairs, "; "))
					}
					want := 1
					wellFormed := name == "forged" || name == "unknown" && config.Backend != nil && !config.SignID
					if before == 8 && wellFormed {
						want = 0 // the ninth is ignored
					}
					res := s.send(&http.Client{}, req, func(w http.ResponseWriter, r *http.Request) {
						if got := sessplus.Get(r).GetInt("n"); got != want {
							t.Errorf("%s: n = %d behind %d %s strays, want %d", kind, got, before, name, want)
						}
					})
					if res.StatusCode != 200 || len(res.setCookies("k")) > 0 {
						t.Errorf("%s: status %d, %d cookies set, want 200 and none", kind, res.StatusCode, len(res.setCookies("k")))
					}
				}
			}
		}
		if config.Backend == nil {
			continue
		}
		req, _ := http.NewRequest("GET", s.URL, nil)
		req.Header.Set("Cookie", "k="+random()+"; k="+good)
		res := s.send(&http.Client{}, req, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("n", 2) })
		if len(res.setCookies("k")) > 0 {
			t.Errorf("%s: a save behind a stray cookie sets another one", kind)
		}
		s.with(func(s *sessplus.Session) {
			if got := s.GetInt("n"); got != 2 {
				t.Errorf("%s: n = %d after a save behind a stray cookie, want 2", kind, got)
			}
			s.Set("n", 1)
		})
	}
}

// SPEC 5.10: a deployment that sets Partitioned, or no longer does, leaves browsers with one cookie, too, and nobody
// logged in after a logout.
func TestChangeOfPartitioned(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		for _, partitioned := range []bool{false, true} {
			for _, domain := range []string{"", "example.test"} {
				to := fmt.Sprintf("to Partitioned %v, Domain %q", partitioned, domain)
				config := sessplus.Config{CookieName: "k", Backend: b, Secure: sessplus.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: !partitioned}
				before := newSite(t, newManager(t, nil, config))
				config.Partitioned, config.Domain = partitioned, domain
				after := newSite(t, newManager(t, nil, config))
				type identity struct {
					partitioned bool
					domain      string
				}
				jar := make(map[identity]string) // a browser knows these two as cookies of their own
				visit := func(s *site, f func(*sessplus.Session)) *reply {
					var cookies []string
					for _, value := range jar {
						cookies = append(cookies, "k="+value)
					}
					r := s.bring(strings.Join(cookies, "; "), f)
					for _, k := range r.Cookies() {
						if id := (identity{k.Partitioned, k.Domain}); k.MaxAge < 0 {
							delete(jar, id)
						} else {
							jar[id] = k.Value
						}
					}
					time.Sleep(2 * time.Millisecond) // the date of a cookie has milliseconds
					return r
				}
				login := func(name string) func(*sessplus.Session) {
					return func(s *sessplus.Session) {
						s.Renew()
						s.Set("user", name)
					}
				}
				visit(before, login("ann"))
				visit(after, func(s *sessplus.Session) {
					if got := s.GetString("user"); got != "ann" {
						t.Errorf("%s: user = %q, want ann", to, got)
					}
					s.Renew()
				})
				visit(after, login("bob"))
				visit(after, func(s *sessplus.Session) {
					if got := s.GetString("user"); got != "bob" || len(jar) != 1 {
						t.Errorf("%s: after a login user = %q, want bob; the browser has %d cookies, want one", to, got, len(jar))
					}
				})
				visit(after, func(s *sessplus.Session) { s.Destroy() })
				r := visit(after, func(s *sessplus.Session) {
					if got := s.GetString("user"); got != "" || len(jar) > 0 {
						t.Errorf("%s: after the logout user = %q, and the browser has %d cookies; want none", to, got, len(jar))
					}
					s.Set("csrf", "x")
				})
				if r.StatusCode != http.StatusOK || len(r.setCookies("k")) != 1 {
					t.Errorf("%s: a new session: status %d, Set-Cookie %q; want 200 and one", to, r.StatusCode, r.setCookies("k"))
				}
			}
		}
	})
}
