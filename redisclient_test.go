package sessplus_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 5.3: however many backends there are on a client, it gets one hook, and those of the program hear a call once.
func TestBackendsShareTheHookOfTheirClient(t *testing.T) {
	t.Parallel()
	plain := servers.NewRedis(t)
	for _, bounded := range []bool{false, true} {
		var stack, heard atomic.Int64
		client := redis.NewClient(&redis.Options{
			Addr: plain.Addr, ContextTimeoutEnabled: bounded, PoolSize: 1, PipelinePoolSize: -1,
			Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
				buf := make([]byte, 1<<20)
				stack.Store(int64(strings.Count(string(buf[:runtime.Stack(buf, false)]), "sessplus.detour.")))
				return new(net.Dialer).DialContext(ctx, network, addr)
			},
		})
		defer client.Close()
		hook := commandHook(func(_ context.Context, cmd redis.Cmder) error {
			if cmd.FullName() == "hgetall" {
				heard.Add(1)
			}
			return nil
		})
		client.AddHook(hook)
		for i := range 50 {
			s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(client)}))
			s.with(func(s *sessplus.Session) { s.Set("n", i) })
			before := heard.Load()
			s.with(func(s *sessplus.Session) {
				if s.GetInt("n") != i {
					t.Errorf("n = %d, want %d", s.GetInt("n"), i)
				}
			})
			if n := heard.Load() - before; n != 1 {
				t.Fatalf("a hook that was there before the backend heard %d loads, want 1", n)
			}
		}
		admin := plain.Client()
		defer admin.Close()
		admin.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes") // so that it dials again
		servers.WaitFor(t, "the client dials", 10*time.Second, func() bool {
			client.Ping(t.Context())
			return stack.Load() > 0
		})
		if n := stack.Load(); n != 1 {
			t.Errorf("%d hooks are on the client, want 1", n)
		}
	}
}

// A client that nobody uses any more goes, with what was added to it.
func TestBackendKeepsNoClientAlive(t *testing.T) {
	addr := servers.NewRedis(t).Addr
	var all []weak.Pointer[redis.Client]
	for i := range 4 {
		func() {
			client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: i%2 == 0})
			defer client.Close()
			b := sessplus.Redis(client)
			if _, err := b.Load(t.Context(), fmt.Sprint("session:none:", i)); err != sessplus.ErrNoRecord {
				t.Errorf("Load() = %v", err)
			}
			all = append(all, weak.Make(client))
		}()
	}
	servers.WaitFor(t, "the clients are collected", 20*time.Second, func() bool {
		runtime.GC()
		for _, c := range all {
			if c.Value() != nil {
				return false
			}
		}
		return true
	})
}

// SPEC 5.3: what a program has hooked onto its client, as redisotel does, hears of sessplus, too, and of which request
// it is.
func TestHooksOfTheRedisClientAreKept(t *testing.T) {
	t.Parallel()
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
