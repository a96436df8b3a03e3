package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 5.12
func TestLazyLoadsOnceAtTheFirstUse(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	eager := &recorder{Backend: sessplus.Memory()}
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "lazy", Backend: b, Fields: sessplus.Include("lazy"), Lazy: true, IdleTimeout: time.Hour},
		sessplus.Config{CookieName: "eager", Backend: eager, Fields: sessplus.Auto()}))
	s.with(func(s *sessplus.Session) {
		s.Set("lazy", 1)
		s.Set("n", 1)
	})
	b.ops()
	res := s.with(func(s *sessplus.Session) {
		s.Set("n", s.GetInt("n")+1)
		s.Has("another")
	})
	if got := b.ops(); len(got) > 0 || len(res.setCookies("lazy")) > 0 {
		t.Errorf("calls without a use = %q, Set-Cookie = %q, want none", got, res.setCookies("lazy"))
	}
	s.with(func(s *sessplus.Session) {
		if got := b.ops(); len(got) > 0 {
			t.Errorf("calls before the first use = %q, want none", got)
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := s.GetInt("lazy"); got != 1 {
					t.Errorf("lazy = %d, want 1", got)
				}
			})
		}
		wg.Wait()
	})
	if got := b.ops(); !slices.Equal(got, []string{"load"}) {
		t.Errorf("calls by 50 goroutines = %q, want one load", got)
	}
	s.with(func(s *sessplus.Session) { s.Destroy("lazy") })
	if got := b.ops(); !slices.Equal(got, []string{"delete"}) {
		t.Errorf("calls of Destroy = %q, want one delete", got)
	}
}

// lazyLoadFails checks what a lazy load does that fails. The backend of the cookie "lazy" is down; the visitor has a
// session in it, with the field lazy, and one in the cookie "other".
func lazyLoadFails(t *testing.T, s *site) {
	t.Helper()
	if res := s.with(func(s *sessplus.Session) { s.Get("other") }); res.StatusCode != 200 {
		t.Errorf("status %d of a request that does not use it, want 200", res.StatusCode)
	}
	for name, use := range map[string]func(*sessplus.Session){
		"read":   func(s *sessplus.Session) { s.Has("lazy") },
		"set":    func(s *sessplus.Session) { s.Set("lazy", "new") },
		"delete": func(s *sessplus.Session) { s.Delete("lazy") },
	} {
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sess := sessplus.Get(r)
			sess.Set("other", name)
			use(sess)
			if got := sess.Get("lazy"); got != nil && name != "set" {
				t.Errorf("%s: lazy = %v, want nil", name, got)
			}
			if err := sess.Err(); !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("%s: Err() = %v, want ErrUnavailable", name, err)
			}
			io.WriteString(w, "the handler")
		})
		if res.StatusCode != 503 || strings.Contains(res.body, "the handler") || len(res.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: status %d, Set-Cookie %d, want 503 and none", name, res.StatusCode, len(res.Header.Values("Set-Cookie")))
		}
		s.visit(func(w http.ResponseWriter, r *http.Request) {
			use(sessplus.Get(r))
			if err := sessplus.Get(r).Save(); !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("%s: Save() = %v, want ErrUnavailable", name, err)
			}
		})
	}
}

// SPEC 5.12
func TestFailingLazyLoad(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "lazy", Backend: b, Fields: sessplus.Include("lazy"), Lazy: true},
		sessplus.Config{CookieName: "other", Backend: sessplus.Memory(), Fields: sessplus.Auto()}))
	s.with(func(s *sessplus.Session) {
		s.Set("lazy", "kept")
		s.Set("other", "kept")
	})
	b.setHook(downBut("create", "update", "delete", "take"))
	b.ops()
	lazyLoadFails(t, s)
	for _, op := range b.ops() {
		if op != "load" {
			t.Errorf("a failed lazy load was followed by %q, want nothing", op)
		}
	}
	b.setHook(nil)
	s.with(func(s *sessplus.Session) {
		if l, o := s.GetString("lazy"), s.GetString("other"); l != "kept" || o != "kept" {
			t.Errorf("lazy = %q, other = %q once the backend is back, want both kept", l, o)
		}
	})
}

// SPEC 5.12
func TestLazyLoadFromKilledRedis(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	client := server.Client()
	defer client.Close()
	s := newSite(t, newManager(t, &sessplus.Options{Timeout: 500 * time.Millisecond},
		sessplus.Config{CookieName: "lazy", Backend: sessplus.Redis(client), Fields: sessplus.Include("lazy"), Lazy: true},
		sessplus.Config{CookieName: "other", Backend: sessplus.Memory(), Fields: sessplus.Auto()}))
	s.with(func(s *sessplus.Session) {
		s.Set("lazy", "kept")
		s.Set("other", "kept")
	})
	server.Kill()
	lazyLoadFails(t, s)
}

// SPEC 5.6: of a backend, an OnEvent or a Logger, too. It must end the request, not the process.
func TestPanicDuringLoadEndsTheRequestOnly(t *testing.T) {
	t.Parallel()
	const env = "SESSPLUS_TEST_PANIC"
	lazy := os.Getenv(env) == "lazy"
	if os.Getenv(env) == "" {
		for _, kind := range []string{"eager", "lazy"} {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), env+"="+kind)
			if out, err := cmd.CombinedOutput(); err != nil {
				first, _, _ := bytes.Cut(out, []byte("\n"))
				t.Errorf("%s load: the process ended with %v: %s", kind, err, first)
			}
		}
		return
	}
	b := &recorder{Backend: sessplus.Memory()}
	s := newSiteOn(t, "HTTP/1.1", newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b, Lazy: lazy}).Handler)
	read := func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("n") }
	s.with(func(s *sessplus.Session) { s.Set("n", 1) })
	b.setHook(func(context.Context, string) error { panic("of the backend") })
	if res, err := s.post(read); err == nil {
		t.Errorf("status %d, want a request that is cut off", res.StatusCode)
	}
	select {
	case <-s.do:
	default:
	}
	b.setHook(nil)
	if res, err := s.post(read); err != nil || res.StatusCode != 200 {
		t.Errorf("the next request: %v, %v, want 200", res, err)
	}
}

// SPEC 11.1: Reload leaves what the request has asked for and not saved yet: fields, and the permanence.
func TestReloadLeavesChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
	s.with(func(s *sessplus.Session) { s.Set("a", 1) })
	s.with(func(s *sessplus.Session) {
		s.Set("a", 2)
		s.SetPermanent("sid", true)
		if err := s.Reload(); err != nil {
			t.Error(err)
		}
		if got := s.GetInt("a"); got != 2 || !s.Permanent("sid") {
			t.Errorf("after Reload a is %d, permanent: %t; want 2, true", got, s.Permanent("sid"))
		}
	})
	s.with(func(s *sessplus.Session) {
		if got := s.GetInt("a"); got != 2 || !s.Permanent("sid") {
			t.Errorf("in the next request a is %d, permanent: %t; want 2, true", got, s.Permanent("sid"))
		}
	})
}

// SPEC 6.3: a backend that hangs costs a request the Timeout once. Reload, which the program calls, asks it again.
func TestReloadAsksAgain(t *testing.T) {
	b := &recorder{Backend: sessplus.Memory()}
	s := newSite(t, newManager(t, &sessplus.Options{Timeout: 50 * time.Millisecond},
		sessplus.Config{CookieName: "sid", Backend: b, Optional: true}))
	s.with(func(s *sessplus.Session) { s.Set("a", 1) })
	b.setHook(func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	})
	s.with(func(s *sessplus.Session) {
		if s.Has("a") {
			t.Error("a backend that hangs has answered")
		}
		b.setHook(nil)
		if err := s.Reload(); err != nil || s.GetInt("a") != 1 {
			t.Errorf("Reload() = %v, and a is %d; want nil, 1", err, s.GetInt("a"))
		}
	})
}
