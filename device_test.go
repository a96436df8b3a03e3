package sessplus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/aged"
	"github.com/sessplus/sessplus/sessplustest"
)

// A boundSite is a program with device-bound sessions in the cookie "s", and a browser that binds them.
type boundSite struct {
	testing.TB
	*httptest.Server
	*sessplustest.Browser
	m *sessplus.Manager
	j *journal
}

// bound is a config with device-bound sessions, whose registrations are long ago.
func bound(b sessplus.Backend) sessplus.Config {
	return sessplus.Config{CookieName: "s", Backend: aged.Keys{Backend: b}, DeviceBound: 10 * time.Minute}
}

// newBoundSite serves pages that each do what their path says.
func newBoundSite(t testing.TB, configs ...sessplus.Config) *boundSite {
	t.Helper()
	j := &journal{}
	m := newManager(t, j.options(0), configs...)
	return serveBound(t, m, j)
}

func serveBound(t testing.TB, m *sessplus.Manager, j *journal) *boundSite {
	s := &boundSite{TB: t, m: m, j: j}
	s.Server = httptest.NewTLSServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session := sessplus.Get(r)
		switch r.URL.Path {
		case "/login":
			session.Renew("s")
			session.Set("user", r.FormValue("user"))
		case "/renew":
			session.Renew("s")
		case "/set":
			session.Set(r.FormValue("name"), r.FormValue("value"))
		case "/update":
			if _, err := sessplus.Field[string]("n").Update(session, func(string) string { return "1" }); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		case "/logout":
			session.Destroy()
		case "/static":
		case "/bound":
			fmt.Fprint(w, session.DeviceBound("s"))
		case "/theme":
			fmt.Fprint(w, session.GetString("theme"))
		default:
			fmt.Fprint(w, session.GetString("user"))
		}
	})))
	t.Cleanup(s.Close)
	s.Browser = sessplustest.NewBrowser(s.Client().Transport)
	return s
}

// get makes a request, by default of the site's own browser, with pairs of headers.
func (s *boundSite) get(path string, headers ...string) *reply {
	s.Helper()
	return s.getAs(s.Browser, path, headers...)
}

func (s *boundSite) getAs(b *sessplustest.Browser, path string, headers ...string) *reply {
	s.Helper()
	return s.request(b, "GET", path, headers...)
}

func (s *boundSite) request(rt http.RoundTripper, method, path string, headers ...string) *reply {
	s.Helper()
	r, err := http.NewRequest(method, s.URL+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := rt.RoundTrip(r)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return &reply{res, string(body)}
}

// offered logs the user in, and returns the Cookie header for that session and the challenge of its registration. The
// browser of the site takes no part.
func (s *boundSite) offered(user string) (cookie, challenge string) {
	s.Helper()
	r := s.request(s.Client().Transport, "GET", "/login?user="+user)
	cookie, _, _ = strings.Cut(r.setCookies("s")[0], ";")
	_, challenge, _ = strings.Cut(r.Header.Get("Secure-Session-Registration"), `challenge="`)
	return cookie, strings.TrimSuffix(challenge, `"`)
}

// proves answers the challenge of a registration with a new key.
func (s *boundSite) proves(challenge string) (proof string) {
	s.Helper()
	proof, err := sessplustest.Proof(newECKey(s), challenge, true)
	if err != nil {
		s.Fatal(err)
	}
	return proof
}

// endpoint sends a request to an endpoint with the browser's cookies, of which it does nothing by itself.
func (s *boundSite) endpoint(b *sessplustest.Browser, path string, headers ...string) *reply {
	s.Helper()
	return s.request(b, "POST", path, append(headers, "Sec-Fetch-Site", "cross-site")...)
}

const (
	registrationPath = "/.sessplus/device/s/registration"
	refreshPath      = "/.sessplus/device/s/refresh"
)

func (s *boundSite) login(user string) {
	s.Helper()
	s.get("/login?user=" + user)
	if s.Cookie("s-bound") == "" || len(s.Bound()) == 0 {
		s.Fatalf("after a login the browser is not bound; log: %s", s.j.text())
	}
}

func (s *boundSite) reads(when, want string) {
	s.Helper()
	if got := s.get("/").body; got != want {
		s.Errorf("%s the page reads %q, want %q", when, got, want)
	}
}

func (s *boundSite) u() *url.URL {
	u, err := url.Parse(s.URL)
	if err != nil {
		s.Fatal(err)
	}
	return u
}

// SPEC 14.1, 1.9
func TestDeviceBoundIsRefused(t *testing.T) {
	t.Parallel()
	keys := &sessplus.Options{Keys: testKeys}
	for name, tt := range map[string]struct {
		change func(c *sessplus.Config)
		opts   *sessplus.Options
		want   string
	}{
		"on a secure cookie":             {func(c *sessplus.Config) { c.Backend = nil }, keys, "secure cookie"},
		"on a secure cookie by name":     {func(c *sessplus.Config) { c.Backend = sessplus.SecureCookie() }, keys, "secure cookie"},
		"without keys":                   {func(c *sessplus.Config) {}, nil, "needs a pair of keys"},
		"with no keys of its own":        {func(c *sessplus.Config) { c.Keys = []sessplus.KeyPair{} }, keys, "needs a pair of keys"},
		"below four minutes":             {func(c *sessplus.Config) { c.DeviceBound = 4*time.Minute - 1 }, keys, "below 4m0s"},
		"as a number of seconds":         {func(c *sessplus.Config) { c.DeviceBound = 600 }, keys, "below 4m0s"},
		"negative":                       {func(c *sessplus.Config) { c.DeviceBound = -time.Minute }, keys, "below 4m0s"},
		"as long as the Lifetime":        {func(c *sessplus.Config) { c.Lifetime = 10 * time.Minute }, keys, "Lifetime of 10m0s"},
		"as long as the usual Lifetime":  {func(c *sessplus.Config) { c.DeviceBound = 24 * time.Hour }, keys, "Lifetime of 24h0m0s"},
		"as the PermanentLifetime":       {func(c *sessplus.Config) { c.PermanentLifetime = 5 * time.Minute }, keys, "PermanentLifetime of 5m0s"},
		"as long as the IdleTimeout":     {func(c *sessplus.Config) { c.IdleTimeout = 10 * time.Minute }, keys, "IdleTimeout of 10m0s"},
		"with a Domain":                  {func(c *sessplus.Config) { c.Domain = "example.com" }, keys, "Domain"},
		"with a Path":                    {func(c *sessplus.Config) { c.Path = "/app" }, keys, "Path"},
		"with Partitioned":               {func(c *sessplus.Config) { c.Partitioned, c.Secure = true, sessplus.SecureAlways }, keys, "Partitioned"},
		"with SameSite=None":             {func(c *sessplus.Config) { c.SameSite, c.Secure = http.SameSiteNoneMode, sessplus.SecureAlways }, keys, "SameSite=None"},
		"with SecureNever":               {func(c *sessplus.Config) { c.Secure = sessplus.SecureNever }, keys, "SecureAlways"},
		"with SingleCookie":              {func(c *sessplus.Config) {}, &sessplus.Options{Keys: testKeys, SingleCookie: "one"}, "SingleCookie"},
		"on a backend that keeps no key": {func(c *sessplus.Config) { c.Backend = &recorder{Backend: sessplus.Memory()} }, keys, "DeviceKeeper"},
	} {
		c := sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), DeviceBound: 10 * time.Minute}
		tt.change(&c)
		_, err := sessplus.New([]sessplus.Config{c}, tt.opts)
		var mistake *sessplus.ConfigError
		found := false
		for _, e := range unjoin(err) {
			found = found || errors.As(e, &mistake) && mistake.Field == "DeviceBound" && mistake.Cookie == "s" && strings.Contains(mistake.Reason, tt.want)
		}
		if !found {
			t.Errorf("%s: New = %v, want a ConfigError of DeviceBound with %q", name, err, tt.want)
		}
	}
	for _, suffix := range []string{"-bound", "-reload"} {
		_, err := sessplus.New([]sessplus.Config{bound(sessplus.Memory()), {CookieName: "s" + suffix, Fields: sessplus.Include("a")}}, keys)
		if err == nil || !strings.Contains(err.Error(), suffix) {
			t.Errorf("with another cookie s%s: New = %v", suffix, err)
		}
	}
	for _, path := range []string{"device", "/", "/a/", "//a", "/a?b", "/a b", "/ä", `/a"b`, "/a/../b", "/a%20b"} {
		_, err := sessplus.New([]sessplus.Config{bound(sessplus.Memory())}, &sessplus.Options{Keys: testKeys, DevicePath: path})
		var mistake *sessplus.ConfigError
		if !errors.As(err, &mistake) || mistake.Field != "DevicePath" {
			t.Errorf("DevicePath %q: New = %v, want a ConfigError of DevicePath", path, err)
		}
	}
	for _, c := range []sessplus.Config{
		{DeviceBound: 4 * time.Minute}, {DeviceBound: 10 * time.Minute, Lifetime: -1, IdleTimeout: time.Hour}, {DeviceBound: time.Hour, Keys: testKeys},
		{DeviceBound: time.Hour, Path: "/", Secure: sessplus.SecureAlways, SameSite: http.SameSiteStrictMode, SignID: true, Lazy: true, Optional: true, RotateEvery: time.Hour},
	} {
		c.CookieName, c.Backend = "s", sessplus.Memory()
		if _, err := sessplus.New([]sessplus.Config{c}, &sessplus.Options{Keys: testKeys, DevicePath: "/x"}); err != nil {
			t.Errorf("New of %+v = %v", c, err)
		}
	}
}

func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// SPEC 14.2: who logs in over TLS is offered a registration, and nobody else.
func TestDeviceBoundIsOffered(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		cfg := bound(b)
		cfg.IndexBy = "user"
		s := newBoundSite(t, cfg)
		plain := s.Client().Transport // a browser that knows nothing of it
		offers := func(name string, want bool, path string, cookie string) (next string) {
			t.Helper()
			r := s.request(plain, "GET", path, "Cookie", cookie)
			offer := r.Header.Values("Secure-Session-Registration")
			if got := len(offer) == 1 && regexp.MustCompile(`^\(ES256 RS256\);path="/.sessplus/device/s/registration";challenge="[A-Za-z0-9_-]+"$`).MatchString(offer[0]); got != want {
				t.Errorf("%s: the response offers %q, want one: %v", name, offer, want)
			}
			for _, line := range r.setCookies("s") {
				cookie, _, _ = strings.Cut(line, ";")
			}
			return cookie
		}
		offers("a visitor who does nothing", false, "/static", "")
		offers("a renewal of nothing", false, "/renew", "")
		cart := offers("a visitor with a cart", false, "/set?name=cart&value=1", "")
		offers("a cart that is read", false, "/", cart)
		cart = offers("a user who appears", true, "/set?name=user&value=ann", cart)
		offers("a user who stays", false, "/set?name=cart&value=2", cart)
		offers("a renewal", true, "/renew", cart)
		offers("a login", true, "/login?user=ann", "")
		offers("a user in a new session", true, "/set?name=user&value=ann", "")
		offers("a user who is nobody", false, "/set?name=user&value=", "")

		cart = offers("another cart", false, "/set?name=cart&value=1", "")
		cfg.RotateEvery = time.Millisecond
		s = newBoundSite(t, cfg)
		time.Sleep(2 * time.Millisecond) // the age at which it rotates
		offers("a rotation", true, "/", cart)

		http1 := httptest.NewServer(s.Config.Handler) // SecureAuto
		defer http1.Close()
		res, err := http.Get(http1.URL + "/login?user=ann")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if offer := res.Header.Values("Secure-Session-Registration"); offer != nil {
			t.Errorf("over plain http a login offers %q", offer)
		}
	})
}

// SPEC 14.3, 14.7: a rotation keeps the identifier and the binding, a renewal makes a new one, and the former one ends.
func TestDeviceBoundIdentifier(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		cfg := bound(b)
		cfg.RotateEvery, cfg.SignID = time.Hour, true
		s := newBoundSite(t, cfg)
		s.login("ann")
		first, id := s.Bound(), s.Cookie("s")
		fast := cfg
		fast.RotateEvery = time.Millisecond
		rotating := serveBound(t, newManager(t, s.j.options(0), fast), s.j)
		for range 3 {
			rotating.Browser = sessplustest.NewBrowser(rotating.Client().Transport)
			for _, name := range []string{"s", "s-bound"} {
				rotating.SetCookie(rotating.u(), &http.Cookie{Name: name, Value: s.Cookie(name)})
			}
			time.Sleep(2 * time.Millisecond) // the age at which it rotates
			r := rotating.get("/")
			if r.body != "ann" || rotating.Cookie("s") == id || r.Header.Get("Secure-Session-Registration") != "" {
				t.Fatalf("a rotation reads %q, and offers %q", r.body, r.Header.Get("Secure-Session-Registration"))
			}
			id = rotating.Cookie("s")
			s.SetCookie(s.u(), &http.Cookie{Name: "s", Value: id, HttpOnly: true, Secure: true})
		}
		s.Forget("s-bound")
		s.reads("after rotations and the expiry", "ann")
		if !slices.Equal(s.Bound(), first) || s.Proofs() != 1 {
			t.Errorf("after rotations the browser has %q and %d proofs, want %q and 1", s.Bound(), s.Proofs(), first)
		}
		s.get("/renew")
		if now := s.Bound(); len(now) != 2 {
			t.Fatalf("after a renewal the browser has %q", now)
		}
		s.Forget("s-bound")
		s.reads("after a renewal and the expiry", "ann")
		if now := s.Bound(); len(now) != 1 || now[0] == first[0] {
			t.Errorf("after a renewal the browser has %q, want another one than %q", now, first)
		}
		// A session that is not bound yet ends what the browser knows from before.
		plain := s.request(s.Client().Transport, "GET", "/login?user=ann")
		cookie, _, _ := strings.Cut(plain.setCookies("s")[0], ";")
		r := s.request(s.Client().Transport, "POST", refreshPath, "Cookie", cookie, "Sec-Secure-Session-Id", first[0])
		if r.StatusCode != 200 || strings.TrimSpace(r.body) != `{"continue":false}` {
			t.Errorf("an identifier that fits no key is answered %d %s", r.StatusCode, r.body)
		}
	})
}

// SPEC 14.3: of two registrations at once, through two Managers, one stays.
func TestDeviceBoundRegistrationsAtOnce(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		j := &journal{}
		one := serveBound(t, newManager(t, j.options(0), bound(b)), j)
		two := serveBound(t, newManager(t, j.options(0), bound(b)), j)
		for range 5 {
			cookie, challenge := one.offered("ann")
			j.kinds("s")
			var wg sync.WaitGroup
			status := make([]int, 2)
			for i, s := range []*boundSite{one, two} {
				key := newECKey(t)
				wg.Go(func() {
					proof, err := sessplustest.Proof(key, challenge, true)
					if err != nil {
						t.Error(err)
						return
					}
					status[i] = s.request(s.Client().Transport, "POST", registrationPath, "Cookie", cookie, "Secure-Session-Response", proof).StatusCode
				})
			}
			wg.Wait()
			slices.Sort(status)
			kinds := j.kinds("s")
			if !slices.Equal(status, []int{200, 403}) || !slices.Contains(kinds, sessplus.EventBind) || !slices.Contains(kinds, sessplus.EventUnproven) {
				t.Errorf("two registrations at once are answered %v, with the events %v; want 200 and 403, bind and unproven", status, kinds)
			}
		}
	})
}

// SPEC 14.4: without the proof a session reads as absent, by whatever way, and neither record nor cookie is touched.
func TestDeviceBoundUnproven(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *sessplus.Config){
		"plain":        func(*sessplus.Config) {},
		"lazy":         func(c *sessplus.Config) { c.Lazy = true },
		"optional":     func(c *sessplus.Config) { c.Optional = true },
		"drop if gone": func(c *sessplus.Config) { c.DropIfGone = true },
		"moving": func(c *sessplus.Config) {
			c.IdleTimeout, c.MaxAge, c.RotateEvery = time.Hour, 2*time.Hour, time.Millisecond
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
				cfg := bound(b)
				change(&cfg)
				s := newBoundSite(t, cfg)
				s.login("ann")
				if got := s.get("/bound").body; got != "true" { // SPEC 14.9
					t.Errorf("DeviceBound of a proven request = %s", got)
				}
				thief := s.Stolen()
				thief.Forget("s-bound")
				key := recordKey(cfg, thief.Cookie("s"))
				before, err := cfg.Backend.Load(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				for path, want := range map[string]int{"/": 200, "/set?name=n&value=1": 409, "/update": 409, "/static": 200, "/bound": 200, "/renew": 200} {
					if cfg.DropIfGone && strings.HasPrefix(path, "/set") {
						want = 200
					}
					r := s.getAs(thief, path)
					if r.StatusCode != want || strings.Contains(r.body, "ann") || r.body == "true" || len(r.Header["Set-Cookie"]) > 0 || r.Header.Get("Refresh") != "" {
						t.Errorf("%s without a proof is answered %d %q with the cookies %q, want %d", path, r.StatusCode, r.body, r.Header["Set-Cookie"], want)
					}
				}
				after, err := cfg.Backend.Load(t.Context(), key)
				if err != nil || !after.Expires.Equal(before.Expires) || !after.Saved.Equal(before.Saved) || len(after.Fields) != len(before.Fields) {
					t.Errorf("requests without a proof make %+v of %+v, %v", after, before, err)
				}
				if !slices.Contains(s.j.kinds("s"), sessplus.EventUnproven) {
					t.Error("no event tells of them")
				}
				// Whose key is lost logs in, and the other session stays what it is.
				s.getAs(thief, "/login?user=eve")
				thief.Forget("s-bound")
				if got := s.getAs(thief, "/").body; got != "eve" {
					t.Errorf("after a login of its own the page reads %q, want eve", got)
				}
				s.reads("the other browser:", "ann")
			})
		})
	}
}

// SPEC 14.4: in the first minute after the registration requests may be under way that could not know of it.
func TestDeviceBoundFirstMinute(t *testing.T) {
	t.Parallel()
	cfg := bound(sessplus.Memory())
	cfg.Backend = sessplus.Memory()
	s := newBoundSite(t, cfg)
	s.login("ann")
	thief := s.Stolen()
	thief.Forget("s-bound")
	if got := s.getAs(thief, "/").body; got != "ann" {
		t.Errorf("just after the registration the page reads %q, want ann", got)
	}
	if got := s.getAs(thief, "/bound").body; got != "false" { // SPEC 14.9
		t.Errorf("DeviceBound without a proof = %s", got)
	}
	old := cfg
	old.Backend = aged.Keys{Backend: cfg.Backend}
	later := serveBound(t, newManager(t, s.j.options(0), old), s.j)
	if got := later.request(later.Client().Transport, "GET", "/", "Cookie", "s="+thief.Cookie("s")).body; got != "" {
		t.Errorf("later the page reads %q, want nothing", got)
	}
}

// SPEC 14.4, 5.10: a stray cookie of the same name does not shadow the good one, and many cost no more than eight
// HMACs.
func TestDeviceBoundStrayCookies(t *testing.T) {
	t.Parallel()
	s := newBoundSite(t, bound(sessplus.Memory()))
	s.login("ann")
	for n, want := range map[int]string{1: "ann", 7: "ann", 8: ""} {
		cookies := strings.Repeat("s-bound=stray; ", n) + "s=" + s.Cookie("s") + "; s-bound=" + s.Cookie("s-bound")
		if got := s.request(s.Client().Transport, "GET", "/", "Cookie", cookies).body; got != want {
			t.Errorf("after %d stray cookies the page reads %q, want %q", n, got, want)
		}
	}
}

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// SPEC 14.2, SPEC 3.12: a burst that rotates a session offers one registration.
func TestDeviceRegistrationIsOfferedOnceByABurst(t *testing.T) {
	t.Parallel()
	b := aged.Keys{Backend: sessplus.Memory()}
	var j journal
	o := j.options(0)
	o.Keys = []sessplus.KeyPair{sessplus.GenerateKeyPair()}
	before := serveBound(t, newManager(t, o, sessplus.Config{CookieName: "s", Backend: b}), &j)
	before.get("/login?user=ann")
	after := bound(b)
	after.RotateEvery = time.Second // longer than the burst
	time.Sleep(1100 * time.Millisecond)
	s := serveBound(t, newManager(t, o, after), &j)
	offers := make(chan int, 6)
	for range 6 {
		go func() {
			r := s.request(s.Client().Transport, "GET", "/", "Cookie", "s="+before.Cookie("s"))
			offers <- len(r.Header["Secure-Session-Registration"])
		}()
	}
	n := 0
	for range 6 {
		n += <-offers
	}
	if n != 1 {
		t.Errorf("%d registrations were offered, want 1", n)
	}
}
