package sessplus_test

import (
	"net/http"
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 11.3: behind a trusted proxy the program knows which requests came over TLS.
func TestSecureRequestTellsSecureAuto(t *testing.T) {
	t.Parallel()
	byHeader := func(r *http.Request) bool { return r.Header.Get("X-Forwarded-Proto") == "https" }
	for _, c := range []struct {
		name   string
		mode   sessplus.SecureMode
		ask    func(*http.Request) bool
		header string
		tls    bool
		want   bool
	}{
		{"https", sessplus.SecureAuto, byHeader, "https", false, true},
		{"http", sessplus.SecureAuto, byHeader, "http", false, false},
		{"no header", sessplus.SecureAuto, byHeader, "", false, false},
		{"TLS without the header", sessplus.SecureAuto, byHeader, "", true, false},
		{"nil", sessplus.SecureAuto, nil, "https", false, false},
		{"nil over TLS", sessplus.SecureAuto, nil, "", true, true},
		{"always", sessplus.SecureAlways, byHeader, "http", false, true},
		{"never", sessplus.SecureNever, byHeader, "https", false, false},
	} {
		for _, b := range []sessplus.Backend{sessplus.Memory(), nil} {
			m := newManager(t, &sessplus.Options{SecureRequest: c.ask}, sessplus.Config{CookieName: "k", Backend: b, Secure: c.mode})
			s := newSiteOn(t, map[bool]string{true: "HTTP/2", false: "HTTP/1.1"}[c.tls], m.Handler)
			var cookies []*http.Cookie
			for _, f := range []func(*sessplus.Session){func(s *sessplus.Session) { s.Set("n", 1) }, func(s *sessplus.Session) { s.Destroy() }} {
				req, _ := http.NewRequest("GET", s.URL, nil)
				req.Header.Set("X-Forwarded-Proto", c.header)
				for _, k := range cookies {
					req.AddCookie(k)
				}
				res := s.send(&http.Client{Transport: s.client.Transport}, req, func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
				cookies = res.Cookies()
				if len(cookies) != 1 || cookies[0].Secure != c.want {
					t.Errorf("%s: Set-Cookie = %v, want one with Secure=%t", c.name, res.setCookies("k"), c.want)
				}
			}
		}
	}
}
