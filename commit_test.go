package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

func answersStatus(code int) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(code)
		return nil
	}
}

// commitPoints are the ways to begin a response.
func commitPoints(t *testing.T) []commitPoint {
	file := filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []commitPoint{
		{"WriteHeader 200", false, answersStatus(200)},
		{"WriteHeader 204", false, answersStatus(204)},
		{"WriteHeader 302", false, answersStatus(302)},
		{"WriteHeader 304", false, answersStatus(304)},
		{"WriteHeader 404", false, answersStatus(404)},
		{"WriteHeader 499", false, answersStatus(499)},
		{"WriteHeader 101", true, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "test")
			w.WriteHeader(101)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return err
			}
			return conn.Close()
		}},
		{"Write", false, func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.Write([]byte("x"))
			return err
		}},
		{"Write of nothing", false, func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.Write(nil)
			return err
		}},
		{"io.WriteString", false, func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, "x")
			return err
		}},
		{"io.Copy", false, func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.Copy(w, plainReader{strings.NewReader("content")})
			return err
		}},
		{"http.ServeContent", false, func(w http.ResponseWriter, r *http.Request) error {
			http.ServeContent(w, r, "file.txt", time.Time{}, strings.NewReader("content"))
			return nil
		}},
		{"http.ServeFile", false, func(w http.ResponseWriter, r *http.Request) error {
			http.ServeFile(w, r, file)
			return nil
		}},
		{"Flusher", false, func(w http.ResponseWriter, _ *http.Request) error {
			w.(http.Flusher).Flush()
			return nil
		}},
		{"ResponseController.Flush", false, func(w http.ResponseWriter, _ *http.Request) error {
			return http.NewResponseController(w).Flush()
		}},
		{"Hijacker", true, func(w http.ResponseWriter, _ *http.Request) error {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return err
			}
			return writeRaw(w, conn, "200 OK")
		}},
		{"ResponseController.Hijack", true, func(w http.ResponseWriter, _ *http.Request) error {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return err
			}
			return writeRaw(w, conn, "200 OK")
		}},
	}
}

type commitPoint struct {
	name   string
	http1  bool // there only
	answer func(w http.ResponseWriter, r *http.Request) error
}

// SPEC 5.1
func TestCommitComesBeforeTheResponse(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, p := range commitPoints(t) {
			if proto == "HTTP/2" && p.http1 {
				continue
			}
			t.Run(proto+" "+p.name, func(t *testing.T) {
				b := &recorder{Backend: sessplus.Memory()}
				m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b})
				s := newSiteOn(t, proto, m.Handler)
				byNow := make(chan []string, 1)
				res := s.visit(func(w http.ResponseWriter, r *http.Request) {
					if r.Proto[:6] != proto[:6] {
						t.Errorf("the request came with %s, want %s", r.Proto, proto)
					}
					sessplus.Get(r).Set("n", 1)
					if err := p.answer(w, r); err != nil {
						t.Errorf("%s: %v", p.name, err)
					}
					byNow <- b.ops()
				})
				saved := <-byNow
				if !slices.Equal(saved, []string{"create"}) {
					t.Errorf("calls of the backend by the end of %s = %q, want one create", p.name, saved)
				}
				if got := len(res.setCookies("sid")); got != 1 {
					t.Errorf("Set-Cookie lines = %d, want 1", got)
				}
				s.with(func(s *sessplus.Session) {
					if got := s.GetInt("n"); got != 1 {
						t.Errorf("n = %d in the next request, want 1", got)
					}
				})
				if again := b.ops(); !slices.Equal(again, []string{"load"}) {
					t.Errorf("calls of the backend after %s = %q, want that load only", p.name, again)
				}
			})
		}
	}
}

// SPEC 5.1
func TestHandlerReturnCommits(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		b := &recorder{Backend: sessplus.Memory()}
		s := newSiteOn(t, proto, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b}).Handler)
		res := s.visit(func(_ http.ResponseWriter, r *http.Request) {
			sessplus.Get(r).Set("n", 1)
			if got := b.ops(); len(got) > 0 {
				t.Errorf("%s: calls before the return = %q, want none", proto, got)
			}
		})
		if got := b.ops(); !slices.Equal(got, []string{"create"}) || len(res.setCookies("sid")) != 1 {
			t.Errorf("%s: calls = %q, Set-Cookie = %q, want a create and a cookie", proto, got, res.setCookies("sid"))
		}
	}
}

// SPEC 5.1
func TestInformationalResponsesDoNotCommit(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, code := range []int{100, 102, 103} {
			t.Run(fmt.Sprint(proto, " ", code), func(t *testing.T) {
				b := &recorder{Backend: sessplus.Memory()}
				s := newSiteOn(t, proto, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b}).Handler)
				var seen []int
				var link string
				trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					seen, link = append(seen, code), h.Get("Link")
					return nil
				}}
				req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", s.URL, nil)
				res := s.send(s.client, req, func(w http.ResponseWriter, r *http.Request) {
					sess := sessplus.Get(r)
					sess.Set("early", 1)
					w.Header().Set("Link", "</style.css>; rel=preload")
					w.WriteHeader(code)
					if got := b.ops(); len(got) > 0 {
						t.Errorf("calls after WriteHeader(%d) = %q, want none", code, got)
					}
					sess.Set("late", 2)
					w.WriteHeader(http.StatusCreated)
				})
				if !slices.Equal(seen, []int{code}) || link == "" {
					t.Errorf("informational responses = %v with Link %q, want %d with one", seen, link, code)
				}
				if res.StatusCode != 201 || len(res.setCookies("sid")) != 1 {
					t.Errorf("status %d, Set-Cookie = %q, want 201 and one", res.StatusCode, res.setCookies("sid"))
				}
				s.with(func(s *sessplus.Session) {
					if got := s.Fields(); !slices.Equal(got, []string{"early", "late"}) {
						t.Errorf("Fields() = %q, want early and late", got)
					}
				})
			})
		}
	}
}

// recovering is what many programs have outside: it answers 500 to a panic, and hands on what it got.
func recovering(got chan<- any) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if v := recover(); v != nil {
					got <- v
					w.WriteHeader(500)
				}
			}()
			h.ServeHTTP(w, r)
		})
	}
}

// SPEC 5.6
func TestPanicSavesNothing(t *testing.T) {
	t.Parallel()
	for _, value := range []any{"oops", http.ErrAbortHandler, errDown} {
		for _, caught := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v caught=%t", value, caught), func(t *testing.T) {
				got := make(chan any, 1)
				var around func(http.Handler) http.Handler
				if caught {
					around = recovering(got)
				}
				s := newLateSite(t, sessplus.Memory(), &errorLog{}, around)
				res, err := s.post(func(_ http.ResponseWriter, r *http.Request) {
					sess := sessplus.Get(r)
					sess.Set("kept", "saved")
					if err := sess.Save(); err != nil {
						t.Errorf("Save() = %v", err)
					}
					for _, name := range []string{"kept", "fresh", "sealed", "gone"} {
						sess.Set(name, "lost")
					}
					sess.Renew("sid")
					panic(value)
				})
				if caught {
					if v := <-got; v != value {
						t.Errorf("the panic that went up is %v, want %v", v, value)
					}
					if res.StatusCode != 500 || len(res.Header.Values("Set-Cookie")) > 0 {
						t.Errorf("status %d, Set-Cookie %q, want 500 and none", res.StatusCode, res.Header.Values("Set-Cookie"))
					}
				} else if err == nil {
					t.Errorf("status %d, want a request that is cut off", res.StatusCode)
				}
				s.with(func(s *sessplus.Session) {
					if k, g, c := s.GetString("kept"), s.GetString("gone"), s.GetString("sealed"); k != "saved" || g != "before" || c != "before" || s.Has("fresh") {
						t.Errorf("kept, gone, sealed = %q, %q, %q, want what Save saved, before, before", k, g, c)
					}
				})
			})
		}
	}
}

// SPEC 5.6, 5.8
func TestPanicPageVaries(t *testing.T) {
	t.Parallel()
	s := newLateSite(t, sessplus.Memory(), &errorLog{}, recovering(make(chan any, 1)))
	res, err := s.post(func(_ http.ResponseWriter, r *http.Request) { panic(sessplus.Get(r).Get("kept")) })
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Vary"); got != "Cookie" {
		t.Errorf("Vary = %q of a page that follows a panic, want Cookie: the session was read", got)
	}
}

// SPEC 5.6
func TestServerErrorSavesNothing(t *testing.T) {
	t.Parallel()
	for status, saves := range map[int]bool{499: true, 500: false, 502: false, 503: false, 599: false} {
		for name, change := range map[string]func(*sessplus.Session){
			"Set":     func(s *sessplus.Session) { setEach(s, "after") },
			"Delete":  func(s *sessplus.Session) { s.Clear() },
			"Destroy": func(s *sessplus.Session) { s.Destroy() },
			"Renew":   func(s *sessplus.Session) { s.Renew() },
		} {
			s := newLateSite(t, sessplus.Memory(), &errorLog{}, nil)
			before := s.jar(s.client)
			res := s.visit(func(w http.ResponseWriter, r *http.Request) {
				change(sessplus.Get(r))
				w.WriteHeader(status)
				io.WriteString(w, "x")
			})
			if got := len(res.Header.Values("Set-Cookie")) > 0; got != saves {
				t.Errorf("%d after %s: Set-Cookie is there: %t, want %t", status, name, got, saves)
			}
			if saves {
				continue
			}
			if vary := res.Header.Get("Vary"); vary != "Cookie" {
				t.Errorf("%d after %s: Vary = %q, want Cookie", status, name, vary)
			}
			s.with(func(sess *sessplus.Session) {
				if k, c := sess.GetString("kept"), sess.GetString("sealed"); k != "before" || c != "before" || sess.Has("fresh") {
					t.Errorf("%d after %s: kept, sealed = %q, %q, want before", status, name, k, c)
				}
				if got := sess.ID("sid"); got != before["sid"] {
					t.Errorf("%d after %s: another session", status, name)
				}
			})
		}
	}
}

func setEach(s *sessplus.Session, v any) {
	for _, name := range []string{"kept", "fresh", "sealed"} {
		s.Set(name, v)
	}
}

// SPEC 5.6
func TestSaveBeforeAServerErrorStays(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
	res := s.visit(func(w http.ResponseWriter, r *http.Request) {
		sess := sessplus.Get(r)
		sess.Set("n", 1)
		if err := sess.Save(); err != nil {
			t.Errorf("Save() = %v", err)
		}
		sess.Set("n", 2)
		w.WriteHeader(500)
		sess.Set("n", 3)
	})
	if len(res.setCookies("sid")) != 1 {
		t.Errorf("Set-Cookie = %q, want that of Save", res.setCookies("sid"))
	}
	s.with(func(s *sessplus.Session) {
		if got := s.GetInt("n"); got != 1 {
			t.Errorf("n = %d, want 1", got)
		}
	})
}

// SPEC 5.7
func TestClientThatHangsUpDoesNotCancelTheSave(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		outside := &recorder{Backend: b, hook: func(ctx context.Context, op string) error {
			if err := ctx.Err(); err != nil {
				t.Errorf("%s with a context that is done: %v", op, err)
			}
			if end, ok := ctx.Deadline(); !ok || time.Until(end) > 20*time.Second {
				t.Errorf("%s: the deadline %v is not that of the Timeout", op, end)
			}
			return nil
		}}
		for name, b := range map[string]sessplus.Backend{"built in": b, "somebody else's": outside} {
			m := newManager(t, &sessplus.Options{Timeout: 20 * time.Second}, sessplus.Config{CookieName: "sid", Backend: b})
			ended := make(chan struct{}, 8)
			s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler { return notifyEnd(ended)(m.Handler(h)) })
			s.with(func(s *sessplus.Session) { s.Set("n", 1) })
			<-ended
			ctx, hangUp := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
			s.do <- func(_ http.ResponseWriter, r *http.Request) {
				hangUp()
				<-r.Context().Done()
				sessplus.Get(r).Set("n", 2)
			}
			if _, err := s.client.Do(req); err == nil {
				t.Errorf("%s: the request has an answer, want none", name)
			}
			<-ended
			s.with(func(s *sessplus.Session) {
				if got := s.GetInt("n"); got != 2 {
					t.Errorf("%s: n = %d, want 2", name, got)
				}
			})
		}
	})
}

// holdSaves is a backend whose calls wait until they are let go, after entered has heard of them.
func holdSaves(entered chan<- string, release <-chan struct{}) func(context.Context, string) error {
	return func(_ context.Context, op string) error {
		if op == "create" || op == "update" {
			entered <- op
			<-release
		}
		return nil
	}
}

// SPEC 5.5, 4.7: a Save that succeeds has sent its cookie, also when another goroutine of the request answers
// meanwhile.
func TestSaveBesideTheAnswer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 500} {
		entered, release := make(chan string, 1), make(chan struct{})
		b := &recorder{Backend: sessplus.Memory(), hook: holdSaves(entered, release)}
		s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b}))
		saved := make(chan error, 1)
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sess := sessplus.Get(r)
			sess.Set("n", 1)
			go func() { saved <- sess.Save() }()
			<-entered
			answered := make(chan struct{})
			go func() {
				select { // whoever waits for the Save is let go; nobody else need be waited for
				case <-answered:
				case <-time.After(300 * time.Millisecond):
				}
				close(release)
			}()
			w.WriteHeader(status)
			close(answered)
			if err := <-saved; err == nil {
				saved <- nil
			} else if !errors.Is(err, sessplus.ErrHeadersSent) {
				t.Errorf("Save() = %v", err)
			}
		})
		select {
		case <-saved:
			if len(res.setCookies("sid")) != 1 {
				t.Errorf("status %d: Save() = nil, and no cookie was sent", status)
			}
		default:
			if len(res.setCookies("sid")) != 0 {
				t.Errorf("status %d: Save() is an error, and a cookie was sent", status)
			}
		}
	}
}

// SPEC 3.9, 4.7, 5.9: a Destroy by another goroutine while a save is under way wins.
func TestDestroyBesideASave(t *testing.T) {
	t.Parallel()
	for _, age := range []time.Duration{0, time.Hour} {
		for _, existing := range []bool{false, true} {
			entered, release := make(chan string, 1), make(chan struct{})
			b := &recorder{Backend: sessplus.Memory()}
			s := newSiteOn(t, "HTTP/1.1", newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b, MaxAge: age}).Handler)
			if existing {
				s.with(func(s *sessplus.Session) { s.Set("n", 1) })
			}
			b.setHook(holdSaves(entered, release))
			panicked := make(chan any, 1)
			res, err := s.post(func(w http.ResponseWriter, r *http.Request) {
				sess := sessplus.Get(r)
				sess.Set("n", 2)
				go func() {
					<-entered
					sess.Destroy()
					close(release)
				}()
				defer func() {
					if v := recover(); v != nil {
						panicked <- v
						panic(http.ErrAbortHandler)
					}
				}()
				w.WriteHeader(200)
			})
			select {
			case v := <-panicked:
				t.Errorf("MaxAge=%v existing=%t: the commit panics: %v", age, existing, v)
				continue
			default:
			}
			if err != nil {
				t.Fatal(err)
			}
			lines := (&reply{res, ""}).setCookies("sid")
			for _, line := range lines {
				if k, err := http.ParseSetCookie(line); err != nil || k.MaxAge >= 0 {
					t.Errorf("MaxAge=%v existing=%t: a destroyed session sets a cookie of %d bytes with Max-Age %d", age, existing, len(k.Value), k.MaxAge)
				}
			}
			if existing && len(lines) == 0 {
				t.Errorf("MaxAge=%v: the browser keeps the cookie of a destroyed session", age)
			}
			s.with(func(s *sessplus.Session) {
				if s.Has("n") {
					t.Errorf("MaxAge=%v existing=%t: the destroyed session is back", age, existing)
				}
			})
		}
	}
}

// SPEC 6.2: a Create that fails with an error that only an Update should have is a backend that is down.
func TestCreateThatAnswersConflict(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory(), hook: func(_ context.Context, op string) error {
		if op == "create" {
			return sessplus.ErrConflict
		}
		return nil
	}}
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b}))
	if res := c.askWith(c.client, func(s *sessplus.Session) { s.Set("n", 1) }); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status = %d, want 503", res.StatusCode)
	}
}
