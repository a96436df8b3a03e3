package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// heard returns the events since the last call.
func (j *journal) heard() []sessplus.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.events
	j.events = nil
	return list
}

// expect compares the events since the last time with those wanted, of the cookie s in b: in all that does not differ
// from run to run, and in whether there was a call.
func (j *journal) expect(t *testing.T, step string, b sessplus.Backend, want ...sessplus.Event) {
	t.Helper()
	got := j.heard()
	for i := range got {
		e := &got[i]
		called := b != sessplus.SecureCookie() && e.Kind != sessplus.EventReject
		if called != (e.Duration > 0) || called == e.Start.IsZero() || called && time.Since(e.Start) > time.Minute {
			t.Errorf("%s: %s began %v and took %v; was there a call: %v", step, e.Kind, e.Start, e.Duration, called)
		}
		e.Start, e.Duration = time.Time{}, 0
	}
	for i := range want {
		e := &want[i]
		e.Cookie, e.Backend = "s", fmt.Sprint(b)
		if e.Op == "" && e.Kind != sessplus.EventReject {
			e.Op = e.Kind
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s:\nheard %+v\nwant  %+v", step, got, want)
	}
}

// SPEC 8: each kind is told, once, with the session that it is about and how much was read or written.
func TestEvents(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		sealed := b == sessplus.SecureCookie()
		var j journal
		s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b}))
		var handle string
		saved := func(f func(*sessplus.Session)) {
			t.Helper()
			s.with(func(s *sessplus.Session) {
				f(s)
				if err := s.Save(); err != nil {
					t.Error(err)
				}
				handle = s.Handle("s")
				if (handle == "") != sealed {
					t.Fatalf("the handle is %q", handle)
				}
			})
		}
		type e = sessplus.Event
		const both = len("user") + len(`"ann"`) + len("n") + len("1")
		saved(func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("n", 1) })
		j.expect(t, "create", b, e{Kind: sessplus.EventCreate, Handle: handle, Fields: 2, Bytes: both})

		load := e{Kind: sessplus.EventLoad, Handle: handle, Fields: 2, Bytes: both}
		s.with(func(s *sessplus.Session) { s.Get("n") })
		j.expect(t, "read", b, load)

		s.with(func(s *sessplus.Session) {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() { s.Get("n") })
			}
			all.Wait()
		})
		j.expect(t, "read by several goroutines", b, load)

		saved(func(s *sessplus.Session) { s.Set("n", 23) })
		j.expect(t, "change", b, load, e{Kind: sessplus.EventSave, Handle: handle, Fields: 1, Bytes: len("n") + len("23")})

		load.Bytes++
		s.with(func(s *sessplus.Session) {
			if _, err := sessplus.Field[int]("n").Update(s, func(n int) int { return n - 20 }); err != nil {
				t.Error(err)
			}
		})
		j.expect(t, "Update", b, load, e{Kind: sessplus.EventSave, Handle: handle, Fields: 1, Bytes: len("n") + len("3")})

		load.Bytes--
		saved(func(s *sessplus.Session) { s.Delete("n") })
		j.expect(t, "Delete", b, load, e{Kind: sessplus.EventSave, Handle: handle, Fields: 1, Bytes: len("n")})

		load.Fields, load.Bytes = 1, len("user")+len(`"ann"`)
		if !sealed {
			s.with(func(s *sessplus.Session) {
				if s.Get("user"); s.Reload() != nil {
					t.Error("it cannot be loaded again")
				}
			})
			j.expect(t, "Reload", b, load, load)
		}

		before := s.jar(s.client)
		saved(func(s *sessplus.Session) { s.Renew() })
		renewed := e{Kind: sessplus.EventRenew, Handle: handle, Fields: 1, Bytes: load.Bytes}
		if sealed {
			renewed.Fields, renewed.Bytes = 0, 0 // nothing has changed
		} else if handle == load.Handle {
			t.Error("a renewal keeps the handle")
		}
		j.expect(t, "Renew", b, load, renewed)

		if !sealed {
			old := &crowd{site: s}
			s.visitAs(old.withCookies(before), func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("user") })
			j.expect(t, "the id from before", b, e{Kind: sessplus.EventMiss, Op: sessplus.EventLoad, Handle: load.Handle})
		}

		load.Handle = handle
		s.with(func(s *sessplus.Session) { s.Get("user"); s.Destroy() })
		j.expect(t, "Destroy", b, load, e{Kind: sessplus.EventDestroy, Handle: handle})

		forger := (&crowd{site: s}).withCookies(map[string]string{"s": "="})
		s.visitAs(forger, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("user") })
		j.expect(t, "a malformed cookie", b, e{Kind: sessplus.EventReject, Reason: "malformed"})
	})
}

// SPEC 8: what happens to a session because time passes.
func TestEventsOfAge(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		t.Parallel()
		var j journal
		s := newSite(t, newManager(t, j.options(0),
			sessplus.Config{CookieName: "s", Backend: b, IdleTimeout: 20 * time.Second}))
		read := func(s *sessplus.Session) { s.Get("n") }
		var handle string
		created := func(s *sessplus.Session) {
			s.Set("n", 1)
			s.Save()
			s.SkipTouch() // however slow it was
			handle = s.Handle("s")
		}
		s.with(created)
		j.heard()
		s.with(read)
		type e = sessplus.Event
		load := e{Kind: sessplus.EventLoad, Handle: handle, Fields: 1, Bytes: 2}
		j.expect(t, "at once", b, load)
		time.Sleep(2100 * time.Millisecond) // a tenth of the timeout
		s.with(read)
		j.expect(t, "later", b, load, e{Kind: sessplus.EventTouch, Handle: handle})

		m := newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, RotateEvery: 500 * time.Millisecond})
		s = newSite(t, m)
		s.with(created)
		time.Sleep(510 * time.Millisecond)
		j.heard()
		load.Handle = handle
		s.with(read)
		s.with(func(s *sessplus.Session) { s.SkipTouch() })
		j.expect(t, "a rotation", b, load, e{Kind: sessplus.EventRotate, Handle: handle, Fields: 1, Bytes: 2}, load)
	})
}

// SPEC 8: of a user's sessions, the handles are those of Info.
func TestEventsOfSessionsOfAUser(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		m := newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, IndexBy: "user"})
		s := newSite(t, m)
		s.with(func(s *sessplus.Session) { s.Set("user", "ann") })
		list, err := m.Sessions(t.Context(), "s", "ann")
		if err != nil || len(list) != 1 {
			t.Fatalf("Sessions = %v, %v, want one", list, err)
		}
		handle, bytes := list[0].Handle, len("user")+len(`"ann"`)
		type e = sessplus.Event
		j.expect(t, "create", b, e{Kind: sessplus.EventCreate, Handle: handle, Fields: 1, Bytes: bytes})
		set := func(s *sessplus.Session) error { s.Set("n", 1); return nil }
		if err := m.Edit(t.Context(), "s", handle, set); err != nil {
			t.Error(err)
		}
		j.expect(t, "Edit", b, e{Kind: sessplus.EventLoad, Handle: handle, Fields: 1, Bytes: bytes},
			e{Kind: sessplus.EventSave, Handle: handle, Fields: 1, Bytes: 2})
		if n, err := m.RevokeAll(t.Context(), "s", "ann"); n != 1 || err != nil {
			t.Errorf("RevokeAll = %v, %v", n, err)
		}
		j.expect(t, "RevokeAll", b, e{Kind: sessplus.EventDestroy, Handle: handle})
		if err := m.Edit(t.Context(), "s", handle, set); !errors.Is(err, sessplus.ErrSessionGone) {
			t.Errorf("Edit = %v", err)
		}
		j.expect(t, "Edit of one that has ended", b, e{Kind: sessplus.EventMiss, Op: sessplus.EventLoad, Handle: handle})
	})
}

// breakable runs the test on each backend, and lets it go down.
func breakable(t *testing.T, test func(t *testing.T, b sessplus.Backend, down func(bool))) {
	t.Run("memory", func(t *testing.T) {
		b := &recorder{Backend: sessplus.Memory()}
		test(t, b, func(down bool) {
			if b.setHook(nil); down {
				b.setHook(downBut())
			}
		})
	})
	behindProxy(t, func(t *testing.T, f faulty) {
		test(t, f.backend, func(down bool) {
			if f.proxy.set(proxyServe); down {
				f.proxy.set(proxyRefuse)
				f.proxy.cut()
			}
		})
	})
}

// failures returns what failed, as "OP: COOKIE", and fails the test unless each error is one of kind and, with a
// session, names it.
func (j *journal) failures(t *testing.T, kind error, handle string) (list []string) {
	t.Helper()
	for _, e := range j.heard() {
		if e.Kind != sessplus.EventError {
			continue
		}
		list = append(list, fmt.Sprintf("%s: %s", e.Op, e.Cookie))
		if !errors.Is(e.Err, kind) {
			t.Errorf("the error of %s is %v, want %v", e.Op, e.Err, kind)
		}
		if e.Handle != handle && handle != "" {
			t.Errorf("the error of %s names %q, want %q", e.Op, e.Handle, handle)
		}
	}
	return list
}

// SPEC 8: every call that fails is an event, once, which says what was tried.
func TestEventsOfFailures(t *testing.T) {
	t.Parallel()
	breakable(t, func(t *testing.T, b sessplus.Backend, down func(bool)) {
		var j journal
		s := newSite(t, newManager(t, j.options(700*time.Millisecond), sessplus.Config{CookieName: "s", Backend: b}))
		var handle string
		for _, tt := range []struct {
			name string
			want string
			f    func(*sessplus.Session)
		}{
			{"change", "save: s", func(s *sessplus.Session) { s.Set("n", 2) }},
			{"Update", "save: s", func(s *sessplus.Session) {
				sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 })
			}},
			{"Destroy", "destroy: s", func(s *sessplus.Session) { s.Destroy() }},
			{"Reload", "load: s", func(s *sessplus.Session) { s.Reload() }},
		} {
			up := false
			for until := time.Now().Add(20 * time.Second); !up && time.Now().Before(until); { // gRPC waits a second
				s.client = s.visitor()
				s.with(func(s *sessplus.Session) {
					s.Set("n", 1)
					up = s.Save() == nil
					handle = s.Handle("s")
				})
			}
			j.heard()
			s.with(func(s *sessplus.Session) {
				s.Get("n")
				down(true)
				tt.f(s)
			})
			if got := j.failures(t, sessplus.ErrUnavailable, handle); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("%s: failures %q, want %q", tt.name, got, tt.want)
			}
			down(false)
		}
		down(true)
		s.with(func(*sessplus.Session) {})
		if got := j.failures(t, sessplus.ErrUnavailable, handle); !slices.Equal(got, []string{"load: s"}) {
			t.Errorf("load: failures %q", got)
		}
		s.client = s.visitor()
		s.with(func(s *sessplus.Session) { s.Set("n", 1) })
		if got := j.failures(t, sessplus.ErrUnavailable, ""); !slices.Equal(got, []string{"create: s"}) {
			t.Errorf("new session: failures %q", got)
		}
		down(false)
	})
}

// SPEC 8: a rotation that fails is no error of the request, but an event.
func TestEventsOfFailedRotations(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, inner sessplus.Backend) {
		for _, op := range []string{"take", "create"} {
			var j journal
			b := &recorder{Backend: inner}
			s := newSite(t, newManager(t, j.options(0),
				sessplus.Config{CookieName: "s", Backend: b, RotateEvery: time.Millisecond}))
			s.with(func(s *sessplus.Session) { s.Set("n", 1); s.SkipTouch() })
			time.Sleep(2 * time.Millisecond)
			b.setHook(func(_ context.Context, called string) error {
				if called == op {
					return errDown
				}
				return nil
			})
			j.heard()
			if r := s.with(func(s *sessplus.Session) { s.Get("n") }); r.StatusCode != http.StatusOK {
				t.Errorf("%s fails: status %d", op, r.StatusCode)
			}
			if got := j.failures(t, sessplus.ErrUnavailable, ""); !slices.Equal(got, []string{"rotate: s"}) {
				t.Errorf("%s fails: failures %q", op, got)
			}
		}
	})
}

// SPEC 8: what a program would be surprised to lose is an event, although no call has failed.
func TestEventsOfLostChanges(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(0),
			sessplus.Config{CookieName: "s", Fields: sessplus.Include("n"), Backend: b},
			sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("text")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("n", 1) })
		update := func(s *sessplus.Session) { sessplus.Field[int]("n").Update(s, func(int) int { return 2 }) }
		set := func(s *sessplus.Session) { s.Set("n", 2) }
		for name, f := range map[string]func(*sessplus.Session){"Set": set, "Update": update} {
			j.heard()
			slow := c.begin(c.client, f)
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy("s") })
			slow.finish()
			if got := j.failures(t, sessplus.ErrSessionGone, ""); !slices.Equal(got, []string{"save: s"}) {
				t.Errorf("%s after the end: failures %q", name, got)
			}
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("n", 1) })
		}
		c.askWith(c.client, func(s *sessplus.Session) { s.Set("nobody's", 1) })
		if got := j.failures(t, sessplus.ErrNoOwner, ""); !slices.Equal(got, []string{"save: "}) {
			t.Errorf("no owner: failures %q", got)
		}
		c.askWith(c.client, func(s *sessplus.Session) { s.Set("text", strings.Repeat("x", 5000)) })
		if got := j.failures(t, sessplus.ErrTooLarge, ""); !slices.Equal(got, []string{"save: sealed"}) {
			t.Errorf("too large: failures %q", got)
		}
		c.ask(c.visitor(), func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			sessplus.Get(r).Set("n", 1)
		})
		if got := j.failures(t, sessplus.ErrHeadersSent, ""); !slices.Equal(got, []string{"create: s"}) {
			t.Errorf("too late: failures %q", got)
		}
	})
}

// SPEC 8: of each refused cookie, the reason is one of a few.
func TestEventsOfRejectedCookies(t *testing.T) {
	t.Parallel()
	var j journal
	own := sessplus.Config{CookieName: "s", MaxAge: time.Hour}
	chunked := own
	chunked.MaxChunks = 3
	value := func(c sessplus.Config, keys []sessplus.KeyPair, bytes int) string {
		s := newSite(t, newManager(t, &sessplus.Options{Keys: keys}, c))
		s.with(func(s *sessplus.Session) { s.Set("n", strings.Repeat("x", bytes)) })
		return s.jar(s.client)["s"]
	}
	dated := func(shift time.Duration) string {
		return rewrite(t, "s", sealContent(t, "\x01\x00\x01a\x011"), time.Now().Add(shift))
	}
	s := newSite(t, newManager(t, j.options(0), own))
	for reason, text := range map[string]string{
		"malformed": "=",
		"forged":    value(own, []sessplus.KeyPair{sessplus.GenerateKeyPair()}, 1),
		"expired":   dated(-48 * time.Hour),
		"future":    dated(48 * time.Hour),
		"foreign":   sealContent(t, strings.Repeat("\x00", 40)),
		"version":   sealContent(t, "\x01\x80later"),
		"split":     value(chunked, testKeys, 4000),
	} {
		s.visitAs((&crowd{site: s}).withCookies(map[string]string{"s": text}),
			func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("n") })
		j.expect(t, reason, sessplus.SecureCookie(), sessplus.Event{Kind: sessplus.EventReject, Reason: reason})
	}

	s = newSite(t, newManager(t, j.options(0),
		sessplus.Config{CookieName: "id", Fields: sessplus.Include("user"), Backend: sessplus.Memory()},
		sessplus.Config{CookieName: "s", Fields: sessplus.Auto(), BoundTo: "id"}))
	login := func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("n", 1) }
	s.with(login)
	stolen := s.jar(s.client)["s"]
	s.client = s.visitor()
	s.with(login)
	mine := s.jar(s.client)["id"]
	s.visitAs((&crowd{site: s}).withCookies(map[string]string{"id": mine, "s": stolen}),
		func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("n") })
	list := j.heard()
	if last := list[len(list)-1]; last.Kind != sessplus.EventReject || last.Cookie != "s" || last.Reason != "unbound" {
		t.Errorf("another visitor's cookie: heard %+v", last)
	}
}

// SPEC 8: the context is that of the request, and outlives it.
func TestEventsHaveTheContextOfTheRequest(t *testing.T) {
	type key struct{}
	heard := 0
	m := newManager(t, &sessplus.Options{OnEvent: func(ctx context.Context, e sessplus.Event) {
		heard++
		if ctx.Value(key{}) != "the request's" || ctx.Err() != nil {
			t.Errorf("%s: the context is another, or has ended (%v)", e.Kind, ctx.Err())
		}
	}}, sessplus.Config{CookieName: "s", Backend: sessplus.Memory()})
	h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("n", 1) }))
	ctx, hangUp := context.WithCancel(context.WithValue(t.Context(), key{}, "the request's"))
	hangUp()
	r, err := http.NewRequestWithContext(ctx, "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.ServeHTTP(&discard{header: make(http.Header)}, r)
	if heard != 1 {
		t.Errorf("%d events were heard, want 1", heard)
	}
}
