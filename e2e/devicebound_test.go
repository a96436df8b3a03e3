package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/aged"
)

// A boundSite is a program with device-bound sessions, on two hosts that are two sites.
type boundSite struct {
	*testing.T
	server       *httptest.Server
	home, abroad string // its addresses

	mu     sync.Mutex
	down   bool     // the backend
	log    []string // the requests, and how they were answered
	events []sessplus.EventKind
	old    bool // the registration is long ago
}

// An unsteady backend fails while the site says so.
type unsteady struct {
	sessplus.Backend
	site *boundSite
}

func (unsteady) KeepsDeviceKeys() {}

func (b unsteady) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	b.site.mu.Lock()
	down, old := b.site.down, b.site.old
	b.site.mu.Unlock()
	switch {
	case down:
		return nil, io.ErrUnexpectedEOF
	case old:
		return aged.Keys{Backend: b.Backend}.Load(ctx, key)
	}
	return b.Backend.Load(ctx, key)
}

const homeHost, abroadHost = "sessplus-test.com", "abroad-test.com"

func newBoundSite(t *testing.T) *boundSite {
	t.Helper()
	s := &boundSite{T: t}
	m, err := sessplus.New([]sessplus.Config{{
		CookieName: "__Host-session", Backend: unsteady{sessplus.Memory(), s}, DeviceBound: 4 * time.Minute, Secure: sessplus.SecureAlways,
	}}, &sessplus.Options{
		Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}, Logger: slog.New(slog.DiscardHandler),
		OnEvent: func(_ context.Context, e sessplus.Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e.Kind)
			s.log = append(s.log, fmt.Sprintf("    event %s %s", e.Kind, e.Reason))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	page := func(w http.ResponseWriter, r *http.Request) {
		session := sessplus.Get(r)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		user := session.GetString("user")
		fmt.Fprintf(w, `<!DOCTYPE html><title>Site</title><link rel="icon" href="data:,"><p id="user">%s</p><p id="bound">%v</p>`, html.EscapeString(user), session.DeviceBound("__Host-session"))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", page)
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		session := sessplus.Get(r)
		session.Renew()
		session.Set("user", "Ann")
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /logout", func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Destroy()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	home := m.Handler(mux)
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, abroadHost) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(w, `<!DOCTYPE html><title>Abroad</title><link rel="icon" href="data:,"><a id="link" href="%s">there</a>`, html.EscapeString(r.FormValue("to")))
			return
		}
		rec := &statusWriter{ResponseWriter: w, status: 200}
		home.ServeHTTP(rec, r)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = append(s.log, fmt.Sprintf("%s %s [%s, skipped %q, proof %v] %d", r.Method, r.URL.Path, r.Header.Get("Sec-Fetch-Site"),
			r.Header.Get("Secure-Session-Skipped"), r.Header.Get("Secure-Session-Response") != "", rec.status))
	}))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	u, err := url.Parse(s.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.home, s.abroad = "https://"+homeHost+":"+u.Port(), "https://"+abroadHost+":"+u.Port()
	t.Cleanup(func() {
		if t.Failed() || os.Getenv("SESSPLUS_TRACE") != "" {
			t.Log("what the server saw:\n" + strings.Join(s.log, "\n"))
		}
	})
	return s
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// seen returns what the server has logged since the last call, of requests that begin so.
func (s *boundSite) seen(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.log {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

const refreshed = "POST /.sessplus/device/__Host-session/refresh"

// browser opens a Chromium that binds sessions, with software keys.
func (s *boundSite) browser(profile string, quota bool) *tab {
	s.Helper()
	pin := sha256.Sum256(s.server.Certificate().RawSubjectPublicKeyInfo)
	features := "DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting"
	if !quota {
		features = "DeviceBoundSessions:RefreshQuota/false,EnableBoundSessionCredentialsSoftwareKeysForManualTesting"
	}
	b := newTab(s.T, chromedp.UserDataDir(profile), chromedp.Flag("headless", "new"), chromedp.Flag("enable-features", features),
		chromedp.Flag("host-resolver-rules", "MAP "+homeHost+" 127.0.0.1, MAP "+abroadHost+" 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(pin[:])))
	return b
}

// open shows a page, and returns what it says of the user.
func (s *boundSite) open(b *tab, path string) string {
	s.Helper()
	run(b, "open "+path, chromedp.Navigate(s.home+path))
	return b.text("user")
}

func (s *boundSite) reads(b *tab, when, want string) {
	s.Helper()
	if got := s.open(b, "/"); got != want {
		s.Errorf("%s the page greets %q, want %q", when, got, want)
	}
}

// cookieNames are the cookies of the browser.
func (b *tab) jar() map[string]*network.Cookie {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	got, err := chromedp.CallBrowser(ctx, storage.GetCookies, storage.GetCookiesParams{})
	if err != nil {
		b.Fatal(err)
	}
	all := make(map[string]*network.Cookie)
	for _, c := range got.Cookies {
		all[c.Name] = c
	}
	return all
}

// expire drops the short-lived cookie, as its expiry does.
func (s *boundSite) expire(b *tab) {
	s.Helper()
	call(b, network.DeleteCookies, network.DeleteCookiesParams{Name: "__Host-session-bound", URL: s.home})
}

// waitBound waits until the browser has registered a key.
func (s *boundSite) waitBound(b *tab) {
	s.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if b.jar()["__Host-session-bound"] != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.old = true
			return
		}
		if time.Now().After(deadline) {
			s.Fatal("the browser registers no key")
		}
	}
}

// SPEC 14: a real browser, from the login to the logout.
func TestDeviceBound(t *testing.T) {
	s := newBoundSite(t)
	profile := t.TempDir()
	b := s.browser(profile, false)

	s.reads(b, "at first", "")
	if got := s.open(b, "/login"); got != "Ann" { // by a redirect
		t.Fatalf("after the login the page greets %q", got)
	}
	s.waitBound(b)
	s.reads(b, "bound,", "Ann")
	if got := b.text("bound"); got != "true" {
		t.Errorf("DeviceBound is %s", got)
	}

	// SPEC 14.4: the cookie expires, and the browser proves its key before it asks for the page.
	s.expire(b)
	s.reads(b, "after the expiry", "Ann")
	if n := s.seen(refreshed); n != 2 {
		t.Errorf("the browser has asked for the cookie %d times, want 2: for a challenge and with a proof", n)
	}

	// Six requests at once are held by one refresh.
	s.expire(b)
	before := s.seen(refreshed)
	got := run(b, "six requests", chromedp.Evaluate[[]string](`Promise.all([1,2,3,4,5,6].map(n => fetch('/?n=' + n).then(r => r.text()).then(t => new DOMParser().parseFromString(t, 'text/html').getElementById('user').innerText)))`, chromedp.EvalAwaitPromise))
	if strings.Join(got, " ") != "Ann Ann Ann Ann Ann Ann" {
		t.Errorf("six requests at once read %q", got)
	}
	if n := s.seen(refreshed) - before; n > 2 {
		t.Errorf("six requests are held by %d refreshes, want one of two requests", n)
	}

	icons := s.seen("GET /favicon.ico")
	// SPEC 14.6: links on another site.
	for _, to := range []string{"/page", "/page/", "/page?a=1&b=2", "/page/x:y?a=//b", "/page?a=1#part"} {
		s.expire(b)
		before := s.seen("GET ")
		run(b, "open the other site", chromedp.Navigate(s.abroad+"/?to="+url.QueryEscape(s.home+to)))
		b.click("link")
		want := s.home + strings.TrimSuffix(to, "#part")
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			at := run(b, "the address", chromedp.Evaluate[string]("document.readyState + ' ' + location.href + ' ' + (document.getElementById('user') || {}).innerText"))
			if at == "complete "+want+" Ann" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("a link to %s from another site leads to %q", to, at)
			}
		}
		if n := s.seen("GET ") - before; n-(s.seen("GET /favicon.ico")-icons) != 2 {
			t.Errorf("the page behind the link was asked for %d times, want 2", n)
		}
		icons = s.seen("GET /favicon.ico")
	}

	// SPEC 14.5: the backend is down for a while.
	s.expire(b)
	s.mu.Lock()
	s.down = true
	s.mu.Unlock()
	run(b, "open the page in an outage", chromedp.Navigate(s.home+"/"))
	if source := b.source(); !strings.Contains(source, "temporarily unavailable") {
		t.Errorf("in an outage the page says %s", source)
	}
	s.mu.Lock()
	s.down = false
	s.mu.Unlock()
	s.back(b)

	// A thief copies all cookies.
	thief := s.browser(t.TempDir(), false)
	thief.gets(s, b.jar())
	s.reads(thief, "for a thief, while the cookie is good,", "Ann")
	s.expire(thief)
	s.reads(thief, "for a thief, when the cookie has expired,", "")
	s.reads(b, "for its owner all the same", "Ann")
	s.expire(b)
	s.reads(b, "and after the expiry", "Ann")

	s.open(b, "/logout")
	s.reads(b, "after the logout", "")
	jar := b.jar()
	if jar["__Host-session"] != nil || jar["__Host-session-bound"] != nil {
		t.Errorf("after the logout the browser has the cookies %v", jar)
	}
	before = s.seen(refreshed)
	s.reads(b, "after that", "")
	if n := s.seen(refreshed) - before; n > 0 {
		t.Errorf("after the logout the browser still proves its key, %d times", n)
	}

	// The browser restarts: the cookies go, and what it knows of the session stays.
	s.unbound()
	if got := s.open(b, "/login"); got != "Ann" {
		t.Fatalf("after another login the page greets %q", got)
	}
	s.waitBound(b)
	b.close()
	b = s.browser(profile, false)
	s.reads(b, "after a restart", "")
	s.unbound()
	if got := s.open(b, "/login"); got != "Ann" {
		t.Fatalf("after a login in the restarted browser the page greets %q", got)
	}
	s.waitBound(b)
	s.expire(b)
	s.reads(b, "after a restart, a login and the expiry", "Ann")
}

// unbound lets the next registration be a recent one.
func (s *boundSite) unbound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.old = false
}

// gets gives the tab the cookies of another browser.
func (b *tab) gets(s *boundSite, jar map[string]*network.Cookie) {
	b.Helper()
	var list []*network.CookieParam
	for _, c := range jar {
		list = append(list, &network.CookieParam{Name: c.Name, Value: c.Value, URL: s.home, Path: "/", Secure: true, HTTPOnly: true, SameSite: c.SameSite})
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if _, err := chromedp.CallBrowser(ctx, storage.SetCookies, storage.SetCookiesParams{Cookies: list}); err != nil {
		b.Fatal(err)
	}
}

// SPEC 14.1: with the browser's own quota a visitor who asks for a page every five seconds is never locked out. It
// takes as long as SESSPLUS_DEVICE_QUOTA says, 11m is enough, and is left out without.
func TestDeviceBoundQuota(t *testing.T) {
	long, err := time.ParseDuration(os.Getenv("SESSPLUS_DEVICE_QUOTA"))
	if err != nil {
		t.Skip("takes minutes: SESSPLUS_DEVICE_QUOTA=11m")
	}
	s := newBoundSite(t)
	b := s.browser(t.TempDir(), true)
	if got := s.open(b, "/login"); got != "Ann" {
		t.Fatalf("after the login the page greets %q", got)
	}
	s.waitBound(b)
	thief := s.browser(t.TempDir(), true)
	thief.gets(s, b.jar())
	begin := time.Now()
	robbed := time.Duration(0)
	for time.Since(begin) < long {
		s.reads(b, fmt.Sprintf("after %v", time.Since(begin).Round(time.Second)), "Ann")
		if got := s.open(thief, "/"); got == "Ann" {
			robbed = time.Since(begin)
		}
		time.Sleep(5 * time.Second)
	}
	t.Logf("in %v: %d requests for the cookie; a thief's copy of all cookies was good for %v", long, s.seen(refreshed), robbed.Round(time.Second))
	if robbed > 4*time.Minute+10*time.Second {
		t.Errorf("a thief's copy was good for %v", robbed)
	}
}

// back waits until the session is back after an outage: the browser may pause before it tries again.
func (s *boundSite) back(b *tab) {
	s.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		if got := s.open(b, "/"); got == "Ann" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatal("the session is not back after an outage")
		}
	}
}
