package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/sessplus/sessplus"
)

// SPEC 5.10: a browser knows a cookie that is Partitioned and one that is not as two. After a deployment has changed
// which it is, the former one does not outlive a login, nor bring anybody back after a logout.
func TestChangeOfPartitioned(t *testing.T) {
	keys := []sessplus.KeyPair{sessplus.GenerateKeyPair()}
	newSite := func(partitioned bool) http.Handler {
		m, err := sessplus.New([]sessplus.Config{{
			CookieName: "__Host-session", Secure: sessplus.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: partitioned,
		}}, &sessplus.Options{Keys: keys, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			switch r.URL.Path {
			case "/login":
				s.Renew()
				s.Set("user", r.URL.RawQuery)
			case "/logout":
				s.Destroy()
			}
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<!DOCTYPE html><title>Site</title><link rel="icon" href="data:,"><p id="user">user:%s</p>`, s.GetString("user"))
		}))
	}
	for _, partitioned := range []bool{true, false} {
		t.Run(fmt.Sprint(partitioned), func(t *testing.T) {
			var site atomic.Value
			site.Store(newSite(!partitioned))
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				site.Load().(http.Handler).ServeHTTP(w, r)
			}))
			defer server.Close()
			b := newTab(t)
			visit := func(path, want string, cookies int) {
				t.Helper()
				run(b, path, chromedp.Navigate(server.URL+path))
				if got := b.text("user"); got != "user:"+want {
					t.Errorf("%s shows %q, want %q", path, got, "user:"+want)
				}
				got, err := chromedp.CallBrowser(context.WithoutCancel(b.ctx), storage.GetCookies, storage.GetCookiesParams{})
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Cookies) != cookies {
					t.Errorf("after %s the browser has %d cookies, want %d", path, len(got.Cookies), cookies)
				}
			}
			visit("/login?ann", "ann", 1)
			site.Store(newSite(partitioned))
			visit("/", "ann", 1)
			visit("/login?bob", "bob", 2)
			visit("/login?eve", "eve", 1)
			visit("/logout", "", 0)
			visit("/", "", 0)
		})
	}
}
