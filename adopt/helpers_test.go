package adopt_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"

	"github.com/sessplus/sessplus"
)

// A site is a real server behind a manager, with a browser.
type site struct {
	testing.TB
	*sessplus.Manager
	server  *httptest.Server
	browser *http.Client
	handler http.HandlerFunc
}

func newSite(t testing.TB, configs ...sessplus.Config) *site {
	t.Helper()
	m, err := sessplus.New(configs, &sessplus.Options{
		Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{TB: t, Manager: m}
	s.server = httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handler(w, r) })))
	t.Cleanup(s.server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.browser = &http.Client{Jar: jar}
	return s
}

// serve makes a request of the browser, which must be answered with 200.
func (s *site) serve(h http.HandlerFunc) {
	s.Helper()
	s.handler = h
	r, err := s.browser.Get(s.server.URL)
	if err != nil {
		s.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		s.Errorf("status %d", r.StatusCode)
	}
}

// do is serve with a function of the session.
func (s *site) do(f func(*sessplus.Session)) {
	s.Helper()
	s.serve(func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
}

// signCookie makes a securecookie without a block key, written at any time.
func signCookie(key []byte, cookie string, date int64, payload []byte) string {
	text := fmt.Sprintf("%d|%s|", date, base64.URLEncoding.EncodeToString(payload))
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "%s|%s", cookie, text[:len(text)-1])
	return base64.URLEncoding.EncodeToString(m.Sum([]byte(text)))
}
