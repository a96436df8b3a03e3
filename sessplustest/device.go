package sessplustest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/aged"
)

func init() { promises = append(promises, devicePromises...) }

// devicePromises are those of a DeviceKeeper.
var devicePromises = []promise{
	{"DeviceKey", "A DeviceKeeper returns the DeviceKey that a record was created with or has got since, whatever else is changed.", keeping(func(e *env) {
		long := strings.Repeat("k", 1024)
		for i, key := range []string{"key.1", long} {
			x := *e
			x.key = fmt.Sprint(e.key, "d", i)
			r := record("a", "1")
			r.Device, r.Rotated, r.Origin = "Browser (é; !x)", time.Now(), "0123"
			if i == 1 {
				r.DeviceKey = key
			}
			x.create(r)
			if got := x.load().DeviceKey; got != r.DeviceKey {
				x.breach("Create with the DeviceKey %.20q makes %.20q", r.DeviceKey, got)
			}
			on, owner := true, "owner@1"
			for j, c := range []*sessplus.Change{{DeviceKey: key}, {}, {Set: fields("a", "2")}, {Delete: []string{"a"}}, {Set: fields("b", "3")}, {Permanent: &on}, {Owner: &owner}, {DeviceKey: key, Set: fields("c", "4")}} {
				seen := x.load()
				c.Now, c.Expires = time.Now(), seen.Expires
				if j%2 == 0 {
					c.Seen = seen
				}
				x.update(c)
				got := x.load()
				if got.DeviceKey != key || got.Device != r.Device {
					x.breach("after change %d the DeviceKey is %.20q, want %.20q", j, got.DeviceKey, key)
				}
				if len(c.Set)+len(c.Delete) == 0 {
					d := difference{by: "want"}
					d.fields(got.Fields, seen.Fields)
					if d.time("Saved", got.Saved, seen.Saved, ""); d.lines != nil {
						x.breach("after change %d, which names no field, the %v", j, &d)
					}
				}
			}
			if got := x.end(take("t")); got.DeviceKey != key {
				x.breach("a take returns the DeviceKey %.20q, want %.20q", got.DeviceKey, key)
			}
			x.end(release("t"))
			if got := x.load().DeviceKey; got != key {
				x.breach("after a release the DeviceKey is %.20q, want %.20q", got, key)
			}
		}
	})},
	{"DeviceKeyOnce", "Of several DeviceKeys the first stays. Another one is an ErrConflict, and changes nothing.", keeping(func(e *env) {
		r := e.create(record("a", "1"))
		var won atomic.Int32
		e.together(8, func(i int) {
			c := change(r)
			c.DeviceKey = fmt.Sprint("key.", i)
			c.Set = fields("who", fmt.Sprint(i))
			switch _, err := e.Update(e.ctx, e.key, c); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, sessplus.ErrConflict):
				e.Errorf("Update with another DeviceKey = %v\nbreaks the promise: %s", err, e.rule)
			}
		})
		got := e.load()
		if won.Load() != 1 {
			e.breach("%d of 8 Updates with different DeviceKeys succeed, want 1", won.Load())
		}
		who, _ := strings.CutPrefix(got.DeviceKey, "key.")
		e.holds("a", "1", "who", who)
		c := change(r)
		c.DeviceKey, c.Seen = "key.other", got
		if _, err := e.Update(e.ctx, e.key, c); !errors.Is(err, sessplus.ErrConflict) {
			e.breach("Update with another DeviceKey = %v", err)
		}
		c.DeviceKey = got.DeviceKey
		e.update(c)
		e.end(end("", ""))
		if _, err := e.Update(e.ctx, e.key, c); !errors.As(err, new(*sessplus.EndedError)) {
			e.breach("Update with a DeviceKey of an ended record = %v", err)
		}
	})},
	{"DeviceTheft", "What a thief has copied of a bound session is worth nothing without the device's key.", keeping(theft)},
}

// keeping is a promise of a DeviceKeeper. Other backends need not keep it.
func keeping(test func(e *env)) func(e *env) {
	return func(e *env) {
		if _, ok := e.Backend.(sessplus.DeviceKeeper); !ok {
			e.Skip("the backend is no DeviceKeeper, which only DeviceBound needs")
		}
		test(e)
	}
}

// A boundSite is a program with bound sessions.
type boundSite struct {
	*env
	*httptest.Server
	unproven atomic.Int32
	lost     atomic.Bool // proofs do not arrive

	mu     sync.Mutex        // guards proofs
	proofs map[string]string // the last one for each path
}

// takeProofs returns what browsers have proven so far.
func (s *boundSite) takeProofs() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.proofs)
}

func newBoundSite(e *env) *boundSite {
	s := &boundSite{env: e, proofs: make(map[string]string)}
	m, err := sessplus.New([]sessplus.Config{{
		CookieName: "s", Backend: aged.Keys{Backend: e.Backend}, DeviceBound: 10 * time.Minute, KeyPrefix: e.key + ":", Secure: sessplus.SecureAlways,
	}}, &sessplus.Options{
		Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}, Logger: slog.New(slog.DiscardHandler),
		OnEvent: func(_ context.Context, event sessplus.Event) {
			if event.Kind == sessplus.EventUnproven {
				s.unproven.Add(1)
			}
		},
	})
	if err != nil {
		e.Fatal(err)
	}
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session := sessplus.Get(r)
		switch r.URL.Path {
		case "/login":
			session.Renew()
			session.Set("user", r.FormValue("user"))
		case "/logout":
			session.Destroy()
		case "/set":
			session.Set("n", 1)
		default:
			fmt.Fprint(w, session.GetString("user"))
		}
	}))
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if proof := r.Header.Get("Secure-Session-Response"); proof != "" {
			if s.lost.Load() {
				panic(http.ErrAbortHandler)
			}
			s.mu.Lock()
			s.proofs[r.URL.Path] = proof
			s.mu.Unlock()
		}
		h.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	e.Cleanup(s.Close)
	return s
}

// get makes a request of the browser.
func (s *boundSite) get(b *Browser, path string) (*http.Response, string) {
	s.Helper()
	res, err := (&http.Client{Transport: b}).Get(s.URL + path)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return res, string(body)
}

// login returns a new browser with a bound session.
func (s *boundSite) login(user string) *Browser {
	s.Helper()
	b := NewBrowser(s.Client().Transport)
	s.get(b, "/login?user="+user)
	if len(b.Bound()) != 1 || b.Cookie("s-bound") == "" {
		s.breach("after a login the browser has the keys %q", b.Bound())
	}
	s.reads("a browser that has logged in", b, user)
	return b
}

func (s *boundSite) reads(who string, b *Browser, want string) {
	s.Helper()
	if _, got := s.get(b, "/"); got != want {
		s.breach("%s reads the user %q, want %q", who, got, want)
	}
}

// post sends a proof with a browser's cookies, and returns the status and the body.
func (s *boundSite) post(b *Browser, path, proof string) (int, string, http.Header) {
	s.Helper()
	r, err := http.NewRequest("POST", s.URL+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	if proof != "" {
		r.Header.Set("Secure-Session-Response", proof)
	}
	r.Header.Set("Sec-Fetch-Site", "cross-site") // so that the browser does nothing by itself
	res, err := b.RoundTrip(r)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body), res.Header
}

const (
	registrationPath = "/.sessplus/device/s/registration"
	refreshPath      = "/.sessplus/device/s/refresh"
)

func newDeviceKey(e *env) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		e.Fatal(err)
	}
	return key
}

// proof answers a challenge in a header.
func (s *boundSite) proof(key *ecdsa.PrivateKey, challenge string, registers bool) string {
	s.Helper()
	proof, err := Proof(key, challenge, registers)
	if err != nil {
		s.Fatal(err)
	}
	return proof
}

// theft goes through what a thief can try (SPEC 14.3, 14.4, 14.5, 14.7).
func theft(e *env) {
	s := newBoundSite(e)
	ann := s.login("ann")
	site, err := url.Parse(s.URL)
	if err != nil {
		e.Fatal(err)
	}

	ann.Forget("s-bound") // it expires
	s.reads("the browser that proves its key", ann, "ann")
	if ann.Proofs() != 1 {
		e.breach("the browser has proven its key %d times, want once", ann.Proofs())
	}

	proofs := s.takeProofs()

	// The id cookie alone.
	thief := ann.Stolen()
	thief.Forget("s-bound")
	before := s.unproven.Load()
	s.reads("a thief with the id", thief, "")
	if s.unproven.Load() != before+1 {
		e.breach("the theft is told by %d events, want one", s.unproven.Load()-before)
	}
	if res, _ := s.get(thief, "/set"); res.StatusCode != http.StatusConflict || len(res.Cookies()) > 0 {
		e.breach("a thief who sets a field is answered %d with the cookies %v, want 409 without any", res.StatusCode, res.Cookies())
	}
	s.reads("the browser, after a thief has tried", ann, "ann")

	// With a short-lived cookie that is another session's, or made up.
	bob := s.login("bob")
	for _, value := range []string{bob.Cookie("s-bound"), strings.Repeat("A", len(bob.Cookie("s-bound"))), "", "x"} {
		thief.Forget("s-bound")
		thief.SetCookie(site, &http.Cookie{Name: "s-bound", Value: value})
		s.reads("a thief with another cookie", thief, "")
	}

	// Both cookies are good for the minutes that the second one has, and no longer.
	thief = ann.Stolen()
	s.reads("a thief with both cookies", thief, "ann")
	thief.Forget("s-bound")
	s.reads("a thief, when the second cookie has expired", thief, "")

	// A key of his own, with a challenge that he is given.
	key := newDeviceKey(e)
	thief = ann.Stolen()
	status, _, header := s.post(thief, refreshPath, "")
	m := challengeHeader.FindStringSubmatch(header.Get("Secure-Session-Challenge"))
	if status != http.StatusForbidden || m == nil {
		e.breach("a refresh without a proof is answered %d, %q; want 403 with a challenge", status, header)
	}
	for _, try := range []struct {
		path      string
		registers bool
	}{{refreshPath, false}, {refreshPath, true}, {registrationPath, true}} {
		if status, body, header := s.post(thief, try.path, s.proof(key, m[1], try.registers)); status != http.StatusForbidden || len(header["Set-Cookie"]) > 0 {
			e.breach("a proof of another key at %s is answered %d %s", try.path, status, body)
		}
	}
	s.reads("the browser, after that", ann, "ann")

	// Proofs of the browser's, at the other endpoint, and for another session.
	eve := s.login("eve").Stolen()
	for at, other := range map[string]string{refreshPath: registrationPath, registrationPath: refreshPath} {
		proof, ok := proofs[at]
		if !ok {
			e.breach("the browser has sent no proof to %s", at)
		}
		for _, try := range []struct {
			browser *Browser
			path    string
		}{{ann.Stolen(), other}, {eve, at}, {eve, other}} {
			if status, body, header := s.post(try.browser, try.path, proof); status != http.StatusForbidden || len(header["Set-Cookie"]) > 0 {
				e.breach("a proof for %s is answered at %s for another session: %d %s", at, try.path, status, body)
			}
		}
	}

	// A registration that is sent before the browser's.
	s.lost.Store(true)
	late := NewBrowser(s.Client().Transport)
	res, _ := s.get(late, "/login?user=late")
	s.lost.Store(false)
	m = registrationHeader.FindStringSubmatch(res.Header.Get("Secure-Session-Registration"))
	if m == nil {
		e.breach("a login offers the registration %q", res.Header.Get("Secure-Session-Registration"))
	}
	before = s.unproven.Load()
	for _, try := range []struct {
		key  *ecdsa.PrivateKey
		want int
	}{{key, http.StatusOK}, {newDeviceKey(e), http.StatusForbidden}, {key, http.StatusOK}} {
		if status, body, _ := s.post(late.Stolen(), m[2], s.proof(try.key, m[3], true)); status != try.want {
			e.breach("a registration is answered %d %s, want %d: the first key stays", status, body, try.want)
		}
	}
	if s.unproven.Load() != before+1 {
		e.breach("the other key is told by %d events, want one", s.unproven.Load()-before)
	}
	s.reads("the browser whose registration came too late", late, "")
	s.get(late, "/login?user=late") // nobody is locked out
	s.reads("the same, after another login", late, "late")

	// After a renewal, and after a logout.
	thief = ann.Stolen()
	s.get(ann, "/login?user=ann2")
	s.reads("the browser after Renew", ann, "ann2")
	gone := func(when string) {
		e.Helper()
		s.reads("a thief "+when, thief, "")
		if status, body, _ := s.post(thief, refreshPath, ""); status != http.StatusOK || strings.TrimSpace(body) != `{"continue":false}` {
			e.breach("a refresh %s is answered %d %s, want 200 and an end", when, status, body)
		}
	}
	gone("after Renew")
	thief = ann.Stolen()
	s.get(ann, "/logout")
	if ann.Cookie("s")+ann.Cookie("s-bound") != "" {
		e.breach("after a logout the browser has the cookies %q and %q", ann.Cookie("s"), ann.Cookie("s-bound"))
	}
	gone("after a logout")
	s.reads("the browser after a logout", ann, "")
	if len(ann.Bound()) > 0 {
		e.breach("after a logout the browser has the keys %q", ann.Bound())
	}
}
