package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// s5Three is three configs, each with a backend and a field of its own.
func s5Three(lazy bool, open func(i int) sessplus.Backend) []sessplus.Config {
	var configs []sessplus.Config
	for i := range 3 {
		name := fmt.Sprint("c", i)
		configs = append(configs, sessplus.Config{CookieName: name, Backend: open(i), Fields: sessplus.Include(name), Lazy: lazy})
	}
	return configs
}

func s5SetAll(s *sessplus.Session, v any) {
	for i := range 3 {
		s.Set(fmt.Sprint("c", i), v)
	}
}

// An s5Meeting lets calls go on only when all of them are under way.
type s5Meeting struct {
	mu      sync.Mutex
	want    int
	arrived int
	all     chan struct{}
}

func (m *s5Meeting) start(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want, m.arrived, m.all = n, 0, make(chan struct{})
}

func (m *s5Meeting) hook(ctx context.Context, op string) error {
	m.mu.Lock()
	m.arrived++
	all := m.all
	if m.arrived == m.want {
		close(all)
	}
	m.mu.Unlock()
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s alone: %w", op, ctx.Err())
	}
}

// SPEC 5.3
func TestBackendCallsRunSideBySide(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lazy=%t", lazy), func(t *testing.T) {
			var meeting s5Meeting
			m := newManager(t, &sessplus.Options{Timeout: 2 * time.Second}, s5Three(lazy, func(int) sessplus.Backend {
				return &s5Backend{Backend: sessplus.Memory(), hook: meeting.hook}
			})...)
			s := newSite(t, m)
			check := func(what string, res *reply) {
				t.Helper()
				if res.StatusCode != 200 {
					t.Errorf("%s: status %d, want 200: the calls do not run side by side", what, res.StatusCode)
				}
			}
			meeting.start(3)
			check("create", s.with(func(s *sessplus.Session) { s5SetAll(s, 1) }))
			for what, read := range map[string]func(s *sessplus.Session){
				"Fields": func(s *sessplus.Session) { s.Fields() },
				"Renew": func(sess *sessplus.Session) {
					sess.Renew()
					panic(http.ErrAbortHandler)
				},
				"Clear": func(sess *sessplus.Session) {
					sess.Clear()
					panic(http.ErrAbortHandler)
				},
			} {
				meeting.start(3)
				failed := make(chan error, 1)
				s.s5Post(func(_ http.ResponseWriter, r *http.Request) {
					defer func() { failed <- sessplus.Get(r).Err() }()
					read(sessplus.Get(r))
				})
				select {
				case err := <-failed:
					if err != nil {
						t.Errorf("%s: Err() = %v: the loads do not run side by side", what, err)
					}
				case <-s.do:
					t.Errorf("%s: the middleware answers: the loads do not run side by side", what)
				}
			}
			if lazy {
				return
			}
			meeting.start(3)
			check("update", s.with(func(s *sessplus.Session) {
				meeting.start(3)
				s5SetAll(s, 2)
			}))
			meeting.start(3)
			check("destroy", s.with(func(s *sessplus.Session) {
				meeting.start(3)
				s.Destroy()
			}))
		})
	}
}

// SPEC 5.3
func TestRequestWaitsForTheSlowestBackendOnly(t *testing.T) {
	const delay = 300 * time.Millisecond
	m := newManager(t, nil, s5Three(false, func(int) sessplus.Backend {
		return &s5Backend{Backend: sessplus.Memory(), hook: func(context.Context, string) error {
			time.Sleep(delay)
			return nil
		}}
	})...)
	s := newSite(t, m)
	for _, step := range []struct {
		name   string
		rounds int
		f      func(*sessplus.Session)
	}{
		{"create", 1, func(s *sessplus.Session) { s5SetAll(s, 1) }},
		{"load", 1, func(s *sessplus.Session) { s.Fields() }},
		{"load and update", 2, func(s *sessplus.Session) { s5SetAll(s, 2) }},
	} {
		start := time.Now()
		s.with(step.f)
		least := time.Duration(step.rounds) * delay
		if took := time.Since(start); took < least || took > 2*least+delay/2 {
			t.Errorf("%s took %v, want about %v", step.name, took, least)
		}
	}
}

// An s5Trips counts the round trips of a go-redis client.
type s5Trips struct{ n atomic.Int64 }

func (*s5Trips) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h *s5Trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.n.Add(1)
		return next(ctx, cmd)
	}
}
func (h *s5Trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.n.Add(1)
		return next(ctx, cmds)
	}
}

// s5Proxy passes connections on to addr. It counts how often a client speaks again after the server has answered.
func s5Proxy(t *testing.T, addr string) (string, *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var trips atomic.Int64
	pass := func(to, from net.Conn, chunk func()) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				chunk()
				to.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			var asked atomic.Bool
			go pass(server, client, func() {
				if !asked.Swap(true) {
					trips.Add(1)
				}
			})
			go pass(client, server, func() { asked.Store(false) })
		}
	}()
	return l.Addr().String(), &trips
}

// SPEC 5.3, SPEC 9.3
func TestConfigsOnOneRedisClientShareRoundTrips(t *testing.T) {
	direct := servers.Redis(t)
	addr, wire := s5Proxy(t, direct.Options().Addr)
	client := redis.NewClient(&redis.Options{Addr: addr, DB: direct.Options().DB, PoolSize: 1, ContextTimeoutEnabled: true})
	defer client.Close()
	hook := &s5Trips{}
	client.AddHook(hook)
	for _, c := range []struct {
		name string
		one  sessplus.Backend
	}{{"one Backend", sessplus.Redis(client)}, {"a Backend each", nil}} {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, nil, s5Three(false, func(int) sessplus.Backend {
				if c.one != nil {
					return c.one
				}
				return sessplus.Redis(client)
			})...)
			s := newSite(t, m)
			s.with(func(s *sessplus.Session) { s5SetAll(s, 1) }) // Redis learns the scripts
			s.with(func(s *sessplus.Session) { s5SetAll(s, 2) })
			s.with(func(s *sessplus.Session) { s.Set("c0", 3) }) // go-redis has other connections for single commands
			s.client = s.visitor()
			for _, step := range []struct {
				name       string
				load, save int64
				f          func(*sessplus.Session)
			}{
				{"create", 0, 1, func(s *sessplus.Session) { s5SetAll(s, 1) }},
				{"read", 1, 0, func(s *sessplus.Session) { s.Fields() }},
				{"update", 1, 1, func(s *sessplus.Session) { s5SetAll(s, 2) }},
				{"update of one", 1, 1, func(s *sessplus.Session) { s.Set("c1", 3) }},
				{"destroy, set", 1, 1, func(s *sessplus.Session) {
					s.Destroy("c0")
					s5SetAll(s, 4)
				}},
				{"destroy", 1, 1, func(s *sessplus.Session) { s.Destroy() }},
				{"nothing", 0, 0, func(s *sessplus.Session) { s.Fields() }},
			} {
				hook.n.Store(0)
				wire.Store(0)
				var loads, wireLoads int64
				s.with(func(sess *sessplus.Session) {
					loads, wireLoads = hook.n.Load(), wire.Load()
					step.f(sess)
				})
				if saves := hook.n.Load() - loads; loads != step.load || saves != step.save {
					t.Errorf("%s: the client made %d round trips to load and %d to save, want %d and %d", step.name, loads, saves, step.load, step.save)
				}
				if saves := wire.Load() - wireLoads; wireLoads != step.load || saves != step.save {
					t.Errorf("%s: %d round trips on the wire to load and %d to save, want %d and %d", step.name, wireLoads, saves, step.load, step.save)
				}
			}
		})
	}
}

// A commandHook sees each command that is sent alone, and may answer it with an error in place of the server.
type commandHook func(ctx context.Context, cmd redis.Cmder) error

func (h commandHook) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h commandHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := h(ctx, cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}
func (h commandHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// SPEC 5.3: what a program has hooked onto its client, as redisotel does, hears of sessplus, too, and of which request it is.
func TestHooksOfTheRedisClientAreKept(t *testing.T) {
	for _, bounded := range []bool{false, true} {
		direct := servers.Redis(t)
		client := redis.NewClient(&redis.Options{Addr: direct.Options().Addr, DB: direct.Options().DB, ContextTimeoutEnabled: bounded})
		defer client.Close()
		type traceKey struct{}
		var trace atomic.Value
		client.AddHook(commandHook(func(ctx context.Context, _ redis.Cmder) error {
			if t := ctx.Value(traceKey{}); t != nil {
				trace.Store(t)
			}
			return nil
		}))
		s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Redis(client)}))
		handler := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), traceKey{}, "the request's")))
		})
		s.with(func(s *sessplus.Session) { s.Set("n", 1) })
		if got := trace.Load(); got != "the request's" {
			t.Errorf("ContextTimeoutEnabled=%t: the hook found the trace %v", bounded, got)
		}
	}
}

// SPEC 5.11
func TestSameManagerTwiceActsOnce(t *testing.T) {
	b := &s5Backend{Backend: sessplus.Memory()}
	m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b})
	between := newManager(t, nil, sessplus.Config{CookieName: "other", Backend: sessplus.Memory()})
	for name, s := range map[string]*site{"twice": newSite(t, m, m), "with another between": newSite(t, m, between, m)} {
		b.calls()
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			m.Get(r).Set("n", 1)
			io.WriteString(w, "x")
		})
		if got := b.calls(); !slices.Equal(got, []string{"create"}) || len(res.setCookies("sid")) != 1 {
			t.Errorf("%s: calls = %q, Set-Cookie = %q, want one of each", name, got, res.setCookies("sid"))
		}
		s.visit(func(_ http.ResponseWriter, r *http.Request) { m.Get(r).Set("n", m.Get(r).GetInt("n")+1) })
		if got := b.calls(); !slices.Equal(got, []string{"load", "update"}) {
			t.Errorf("%s: calls = %q, want one load and one update", name, got)
		}
	}
}

// SPEC 5.11
func TestTwoManagersNest(t *testing.T) {
	outer := newManager(t, nil, sessplus.Config{CookieName: "outer", Backend: sessplus.Memory()})
	inner := newManager(t, nil, sessplus.Config{CookieName: "inner"})
	stranger := newManager(t, nil, sessplus.Config{CookieName: "stranger"})
	s := newSite(t, outer, inner)
	res := s.visit(func(w http.ResponseWriter, r *http.Request) {
		if sessplus.Get(r) != inner.Get(r) || inner.Get(r) == outer.Get(r) {
			t.Error("Get is not the innermost manager's session")
		}
		if got, ok := sessplus.FromContext(r.Context()); !ok || got != inner.Get(r) {
			t.Errorf("FromContext = %v, %t, want the innermost session", got, ok)
		}
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "Handler") {
					t.Errorf("Get of a manager that is not in the chain panics with %v, want a word about Handler", v)
				}
			}()
			stranger.Get(r)
		}()
		outer.Get(r).Set("n", "outer")
		inner.Get(r).Set("n", "inner")
		io.WriteString(w, "x")
	})
	if len(res.setCookies("outer")) != 1 || len(res.setCookies("inner")) != 1 {
		t.Errorf("Set-Cookie = %d lines, want one of each manager", len(res.Header.Values("Set-Cookie")))
	}
	if got := res.Header.Values("Vary"); !slices.Equal(got, []string{"Cookie"}) {
		t.Errorf("Vary = %q, want Cookie once", got)
	}
	s.visit(func(w http.ResponseWriter, r *http.Request) {
		if o, i := outer.Get(r).GetString("n"), inner.Get(r).GetString("n"); o != "outer" || i != "inner" {
			t.Errorf("n = %q and %q, want outer and inner", o, i)
		}
		outer.Get(r).Set("n", "lost")
		inner.Get(r).Set("n", "lost")
		w.WriteHeader(500)
	})
	s.visit(func(_ http.ResponseWriter, r *http.Request) {
		if o, i := outer.Get(r).GetString("n"), inner.Get(r).GetString("n"); o != "outer" || i != "inner" {
			t.Errorf("n = %q and %q after a 500, want outer and inner", o, i)
		}
	})
}

// SPEC 5.12
func TestLazyLoadsOnceAtTheFirstUse(t *testing.T) {
	b := &s5Backend{Backend: sessplus.Memory()}
	eager := &s5Backend{Backend: sessplus.Memory()}
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "lazy", Backend: b, Fields: sessplus.Include("lazy"), Lazy: true, IdleTimeout: time.Hour},
		sessplus.Config{CookieName: "eager", Backend: eager, Fields: sessplus.Auto()}))
	s.with(func(s *sessplus.Session) {
		s.Set("lazy", 1)
		s.Set("n", 1)
	})
	b.calls()
	res := s.with(func(s *sessplus.Session) {
		s.Set("n", s.GetInt("n")+1)
		s.Has("another")
	})
	if got := b.calls(); len(got) > 0 || len(res.setCookies("lazy")) > 0 {
		t.Errorf("calls without a use = %q, Set-Cookie = %q, want none", got, res.setCookies("lazy"))
	}
	s.with(func(s *sessplus.Session) {
		if got := b.calls(); len(got) > 0 {
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
	if got := b.calls(); !slices.Equal(got, []string{"load"}) {
		t.Errorf("calls by 50 goroutines = %q, want one load", got)
	}
	s.with(func(s *sessplus.Session) { s.Destroy("lazy") })
	if got := b.calls(); !slices.Equal(got, []string{"delete"}) {
		t.Errorf("calls of Destroy = %q, want one delete", got)
	}
}

// s5LazyFails checks what a lazy load does that fails. The backend of the cookie "lazy" is down; the visitor has a
// session in it, with the field lazy, and one in the cookie "other".
func s5LazyFails(t *testing.T, s *site) {
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
	b := &s5Backend{Backend: sessplus.Memory()}
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "lazy", Backend: b, Fields: sessplus.Include("lazy"), Lazy: true},
		sessplus.Config{CookieName: "other", Backend: sessplus.Memory(), Fields: sessplus.Auto()}))
	s.with(func(s *sessplus.Session) {
		s.Set("lazy", "kept")
		s.Set("other", "kept")
	})
	b.setHook(s5Down("create", "update", "delete", "take"))
	b.calls()
	s5LazyFails(t, s)
	for _, op := range b.calls() {
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
	s5LazyFails(t, s)
}

// SPEC 5.6: of a backend, an OnEvent or a Logger, too. It must end the request, not the process.
func TestPanicDuringLoadEndsTheRequestOnly(t *testing.T) {
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
	b := &s5Backend{Backend: sessplus.Memory()}
	s := s5Site(t, "HTTP/1.1", newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b, Lazy: lazy}).Handler)
	read := func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("n") }
	s.with(func(s *sessplus.Session) { s.Set("n", 1) })
	b.setHook(func(context.Context, string) error { panic("of the backend") })
	if res, err := s.s5Post(read); err == nil {
		t.Errorf("status %d, want a request that is cut off", res.StatusCode)
	}
	select {
	case <-s.do:
	default:
	}
	b.setHook(nil)
	if res, err := s.s5Post(read); err != nil || res.StatusCode != 200 {
		t.Errorf("the next request: %v, %v, want 200", res, err)
	}
}
