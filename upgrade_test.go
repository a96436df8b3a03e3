package sessplus_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// upgrade does what gorilla/websocket does: it takes the connection over and writes a response of its own, with the
// header that it is given.
func upgrade(t *testing.T, w http.ResponseWriter, header http.Header) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Errorf("Hijack: %v", err)
		return
	}
	defer conn.Close()
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n")
	header.Write(&b)
	fmt.Fprint(conn, b.String(), "\r\n")
}

// SPEC 11.4
func TestUpgradeWithoutTheCookieIsLogged(t *testing.T) {
	t.Parallel()
	const message = "connection was taken over"
	set := func(s *sessplus.Session) { s.Set("n", 1) }
	save := func(s *sessplus.Session) {
		s.Set("n", 1)
		if err := s.Save(); err != nil {
			t.Errorf("Save() = %v", err)
		}
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { upgrade(t, w, nil) }))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		use    func(*sessplus.Session)
		answer http.HandlerFunc
		cookie bool   // reaches the visitor
		want   [2]int // warnings after one request and after two
	}{
		{"another header", set, func(w http.ResponseWriter, _ *http.Request) { upgrade(t, w, nil) }, false, [2]int{1, 2}},
		{"another header after Save", save, func(w http.ResponseWriter, _ *http.Request) { upgrade(t, w, nil) }, false, [2]int{1, 2}},
		// Whether the program passes the header on cannot be seen, so it is told once what to check.
		{"w.Header()", set, func(w http.ResponseWriter, _ *http.Request) { upgrade(t, w, w.Header()) }, true, [2]int{1, 1}},
		{"w.Header(), after it has the connection", set, httputil.NewSingleHostReverseProxy(target).ServeHTTP, true, [2]int{1, 1}},
		{"another header below one that sets headers", set, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Frame-Options", "DENY")
			upgrade(t, w, nil)
		}, false, [2]int{1, 1}},
		{"WriteHeader", set, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "test")
			w.WriteHeader(http.StatusSwitchingProtocols)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("Hijack: %v", err)
				return
			}
			conn.Close()
		}, true, [2]int{}},
		{"no cookie", func(s *sessplus.Session) { s.Has("n") }, func(w http.ResponseWriter, _ *http.Request) { upgrade(t, w, nil) }, false, [2]int{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var j journal
			ended := make(chan struct{}, 1)
			m := newManager(t, j.options(0),
				sessplus.Config{CookieName: "sid", Backend: sessplus.Memory(), Fields: sessplus.Include("n")},
				sessplus.Config{CookieName: "other", Fields: sessplus.Include("m")})
			s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler { return notifyEnd(ended)(m.Handler(h)) })
			for _, want := range c.want {
				s.do <- func(w http.ResponseWriter, r *http.Request) {
					c.use(sessplus.Get(r))
					c.answer(w, r)
				}
				req, _ := http.NewRequest("GET", s.URL, nil)
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "test")
				res, err := (&http.Client{Transport: s.client.Transport}).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				bufio.NewReader(res.Body).ReadByte()
				res.Body.Close()
				within(t, 5*time.Second, func() { <-ended })
				if got := len((&reply{res, ""}).setCookies("sid")) == 1; got != c.cookie {
					t.Errorf("the visitor gets the cookie: %t, want %t", got, c.cookie)
				}
				if got := j.warnings(message); got != want || j.warnings("") != got {
					t.Errorf("%d warnings, want %d: %s", got, want, j.text())
				}
			}
			if c.want[0] > 0 && (j.warnings("cookies=sid") == 0 || j.warnings("w.Header()") == 0) {
				t.Errorf("the log tells neither which cookie nor what to do: %s", j.text())
			}
		})
	}
}
