package sessplus_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// What may stand between Save and the response, and takes lines out of the header.
func clearers(t *testing.T) map[string]http.HandlerFunc {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Set-Cookie", "other=1")
		io.WriteString(w, "x")
	}))
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
	// The cookie of the handler below takes the place of the whole list.
	below := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "other", Value: "1"})
		io.WriteString(w, "x")
	}), time.Minute, "")
	return map[string]http.HandlerFunc{
		"nothing":                  func(http.ResponseWriter, *http.Request) {},
		"httputil.ReverseProxy":    proxy.ServeHTTP,
		"http.TimeoutHandler":      below.ServeHTTP,
		"a cleared header":         func(w http.ResponseWriter, _ *http.Request) { clear(w.Header()) },
		"a header that is deleted": func(w http.ResponseWriter, _ *http.Request) { w.Header().Del("Set-Cookie") },
		"another list of cookies": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Set-Cookie"] = []string{"other=1"}
			w.WriteHeader(http.StatusFound)
		},
		"status 500": func(w http.ResponseWriter, _ *http.Request) {
			clear(w.Header())
			w.WriteHeader(http.StatusInternalServerError)
		},
		"a panic": func(w http.ResponseWriter, _ *http.Request) {
			clear(w.Header())
			panic("oops")
		},
	}
}

// answersPanics is what many programs have outside: a panic is answered with 500.
func answersPanics(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// SPEC 5.10, 5.9, 5.6: what Save has stored reaches the browser, whatever becomes of the header in between.
func TestCookieOfASaveIsPutBack(t *testing.T) {
	t.Parallel()
	between := clearers(t)
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		m := newManager(t, nil,
			sessplus.Config{CookieName: "sid", Backend: b, Fields: sessplus.Include("a", "b")},
			sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("c"), MaxAge: time.Hour})
		s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler { return answersPanics(m.Handler(h)) })
		for name, clears := range between {
			for _, saves := range []int{1, 2} {
				visit := func(f func(*sessplus.Session)) *reply {
					return s.visit(func(w http.ResponseWriter, r *http.Request) {
						for range saves {
							f(sessplus.Get(r))
							if err := sessplus.Get(r).Save(); err != nil {
								t.Errorf("Save() = %v", err)
							}
						}
						clears(w, r)
					})
				}
				s.client = s.visitor()
				s.client.Transport = s.Server.Client().Transport
				made := visit(func(s *sessplus.Session) {
					s.Set("a", "kept")
					s.Set("c", "kept")
				})
				s.with(func(s *sessplus.Session) {
					if got := s.GetString("a") + s.GetString("c"); got != "keptkept" {
						t.Errorf("%s after %d Saves: the visitor has %q", name, saves, got)
					}
				})
				ended := visit(func(s *sessplus.Session) { s.Destroy() })
				if jar := s.jar(s.client); jar["sid"]+jar["sealed"] != "" {
					t.Errorf("%s after Destroy and %d Saves: the browser keeps the cookies", name, saves)
				}
				for what, res := range map[string]*reply{"Set": made, "Destroy": ended} {
					if len(res.setCookies("sid")) != 1 || len(res.setCookies("sealed")) != 1 {
						t.Errorf("%s after %s and %d Saves: %d and %d lines, want one of each", name, what, saves, len(res.setCookies("sid")), len(res.setCookies("sealed")))
					}
					if res.Header.Get("Vary") != "Cookie" || res.Header.Get("Cache-Control") != "private, no-cache" {
						t.Errorf("%s after %s: Vary %q, Cache-Control %q", name, what, res.Header["Vary"], res.Header["Cache-Control"])
					}
				}
			}
		}
	})
}

// SPEC 5.10: also an ErrorHandler may clear the header, and the logout goes out.
func TestErrorHandlerThatClearsTheHeader(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	opts := &sessplus.Options{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
		clear(w.Header())
		http.Error(w, "down", http.StatusServiceUnavailable)
	}}
	s := newSite(t, newManager(t, opts, sessplus.Config{CookieName: "sid", Backend: b}))
	s.with(func(s *sessplus.Session) { s.Set("n", 1) })
	b.setHook(downBut("load"))
	res := s.with(func(s *sessplus.Session) { s.Destroy() })
	if res.StatusCode != 503 || len(res.setCookies("sid")) != 1 {
		t.Errorf("status %d, Set-Cookie %q, want 503 and a deletion", res.StatusCode, res.setCookies("sid"))
	}
	if res.Header.Get("Vary") != "Cookie" || res.Header.Get("Cache-Control") != "private, no-cache" {
		t.Errorf("Vary %q, Cache-Control %q", res.Header["Vary"], res.Header["Cache-Control"])
	}
}

// SPEC 4.7: Save touches no header of the response, which the handler may be writing meanwhile.
func TestSaveBesideTheHandlersHeaders(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		m := newManager(t, nil,
			sessplus.Config{CookieName: "sid", Backend: b, Fields: sessplus.Exclude("sealed")},
			sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("sealed")})
		s := newSite(t, m)
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sess := sessplus.Get(r)
			var saves sync.WaitGroup
			done := make(chan struct{})
			for i := range 3 {
				saves.Go(func() {
					for n := range 10 {
						sess.Set(fmt.Sprint("f", i), n)
						sess.Set("sealed", n)
						if err := sess.Save(); err != nil && !errors.Is(err, sessplus.ErrHeadersSent) {
							t.Errorf("Save() = %v", err)
						}
					}
				})
			}
			go func() {
				saves.Wait()
				close(done)
			}()
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
					w.Header().Set("X-Step", fmt.Sprint(n))
					w.Header().Set("Vary", "Accept")
				}
			}
		})
		if len(res.setCookies("sid")) != 1 || len(res.setCookies("sealed")) != 1 || res.Header.Get("X-Step") == "" {
			t.Errorf("Set-Cookie = %d lines, want one of each", len(res.Header["Set-Cookie"]))
		}
		if got := strings.Join(res.Header["Vary"], ", "); got != "Accept, Cookie" {
			t.Errorf("Vary = %q, want Accept, Cookie", got)
		}
	})
}
