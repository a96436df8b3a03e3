package sessplus_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
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

// ways are those in which code below the library can end a goroutine.
var ways = map[string]func(){
	"panic":     func() { panic("of a backend") },
	"nil panic": func() { panic(nil) },
	"goexit":    runtime.Goexit,
	"abort":     func() { panic(http.ErrAbortHandler) },
}

// SPEC 6.8, 5.6: one of several calls ends the goroutine that makes it, whichever that is; the others still end before the
// request does.
func TestPanicOfOneOfSeveralCalls(t *testing.T) {
	for way, quit := range ways {
		for quits := range 3 {
			for _, op := range []string{"load", "create"} {
				t.Run(fmt.Sprint(way, quits, op), func(t *testing.T) {
					var running atomic.Int64
					var armed atomic.Bool
					var configs []sessplus.Config
					for i := range 3 {
						b := &s5Backend{Backend: sessplus.Memory()}
						b.setHook(func(_ context.Context, o string) error {
							if o != op || !armed.Load() {
								return nil
							}
							if i == quits {
								quit()
							}
							running.Add(1)
							time.Sleep(50 * time.Millisecond)
							running.Add(-1)
							return nil
						})
						name := fmt.Sprint("f", i)
						configs = append(configs, sessplus.Config{CookieName: name, Backend: b, Fields: sessplus.Include(name)})
					}
					m := newManager(t, nil, configs...)
					var left atomic.Int64
					s := newSiteOf(t, func(next http.Handler) http.Handler {
						h := m.Handler(next)
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							defer func() { left.Add(running.Load()) }()
							h.ServeHTTP(w, r)
						})
					})
					set := func(_ http.ResponseWriter, r *http.Request) {
						for i := range 3 {
							sessplus.Get(r).Set(fmt.Sprint("f", i), 1)
						}
					}
					if op == "load" {
						s.visit(set)
					}
					armed.Store(true)
					for range 3 {
						if res, err := s.s5Post(set); err == nil {
							t.Errorf("status %d, want a request that is cut off", res.StatusCode)
						}
						select {
						case <-s.do:
						default:
						}
					}
					if n := left.Load(); n > 0 {
						t.Errorf("%d calls were under way when the request had ended", n)
					}
					armed.Store(false)
					if res, err := s.s5Post(set); err != nil || res.StatusCode != http.StatusOK {
						t.Errorf("the next request: %v, %v, want 200", res, err)
					}
					settle(t)
				})
			}
		}
	}
}

// newSiteOf is newSite for a middleware around the handlers.
func newSiteOf(t *testing.T, middleware func(http.Handler) http.Handler) *site {
	t.Helper()
	return s5Site(t, "HTTP/1.1", middleware)
}

// patientClients do not let go of a call when its context ends.
var patientClients = map[string]func(t *testing.T, addr string) redis.UniversalClient{
	"custom": func(t *testing.T, addr string) redis.UniversalClient {
		return struct{ redis.UniversalClient }{redis.NewClient(&redis.Options{Addr: addr, PoolSize: 5000, ReadTimeout: 20 * time.Second})}
	},
	"ring": func(t *testing.T, addr string) redis.UniversalClient {
		return redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": addr}, PoolSize: 5000, ReadTimeout: 20 * time.Second})
	},
	"cluster": func(t *testing.T, addr string) redis.UniversalClient {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}})
	},
}

// A quittingHook ends the goroutine in which a command is to run, once it is told to, and perhaps late.
type quittingHook struct {
	commandHook
	quit atomic.Pointer[func()]
}

func newQuittingHook() *quittingHook {
	h := new(quittingHook)
	h.commandHook = func(context.Context, redis.Cmder) error {
		if quit := h.quit.Load(); quit != nil {
			(*quit)()
		}
		return nil
	}
	return h
}

// SPEC 5.6: a hook that panics ends the request, not the process: in the goroutine of the request while that waits, and in
// nobody's afterwards.
func TestPanicOfAHookEndsTheRequestOnly(t *testing.T) {
	const env = "SESSPLUS_TEST_HOOK"
	if os.Getenv(env) == "" {
		for kind := range patientClients {
			for way := range ways {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
				cmd.Env = append(os.Environ(), env+"="+kind+"/"+way)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s, %s: the process ended with %v: %.500s", kind, way, err, bytes.TrimSpace(out))
				}
			}
		}
		return
	}
	kind, way, _ := strings.Cut(os.Getenv(env), "/")
	addr := ""
	if kind == "cluster" {
		addr = newCluster(t).Addr
	} else {
		addr = servers.NewRedis(t).Addr
	}
	client := patientClients[kind](t, addr)
	defer client.Close()
	h := newQuittingHook()
	client.AddHook(h)
	const timeout = 500 * time.Millisecond
	s := s5Site(t, "HTTP/1.1", newManager(t, &sessplus.Options{Timeout: timeout},
		sessplus.Config{CookieName: "sid", Backend: sessplus.Redis(client)}).Handler)
	read := func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("n") }
	s.with(func(s *sessplus.Session) { s.Set("n", 1) })
	quit := ways[way]
	h.quit.Store(&quit)
	if res, err := s.s5Post(read); err == nil {
		t.Errorf("status %d, want a request that is cut off", res.StatusCode)
	}
	select {
	case <-s.do:
	default:
	}
	late := func() { time.Sleep(2 * timeout); quit() }
	h.quit.Store(&late)
	if res, err := s.s5Post(read); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a hook that takes longer than the Timeout: %v, %v, want 503", res, err)
	}
	select {
	case <-s.do:
	default:
	}
	time.Sleep(3 * timeout)
	h.quit.Store(nil)
	if res, err := s.s5Post(read); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("the next request: %v, %v, want 200", res, err)
	}
	settle(t)
}

// SPEC 6.3: calls that a client does not let go of are bounded in number.
func TestCallsLeftToThemselvesAreBounded(t *testing.T) {
	const timeout, most = 300 * time.Millisecond, 1000
	for _, kind := range []string{"custom", "ring"} {
		t.Run(kind, func(t *testing.T) {
			server := servers.NewRedis(t, "--tcp-backlog", "4096") // connections that hang, too, have to be accepted
			client := patientClients[kind](t, server.Addr)
			b := closing(t, client)
			var j journal
			c := newCrowd(t, newManager(t, j.options(timeout), sessplus.Config{CookieName: "s", Backend: b}))
			c.eventually(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			server.Pause()
			defer server.Resume()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			id := c.jar(c.client)["s"]
			ask := func() (status int, took time.Duration) {
				req, _ := http.NewRequestWithContext(ctx, "GET", c.URL+"/?n=none", nil)
				req.Header.Set("Cookie", "s="+id)
				start := time.Now()
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Errorf("no answer: %v", err)
					return 0, 0
				}
				res.Body.Close()
				return res.StatusCode, time.Since(start)
			}
			peak := 0
			for range 4 {
				var wg sync.WaitGroup
				for range most / 2 {
					wg.Go(func() {
						if status, _ := ask(); status != http.StatusServiceUnavailable {
							t.Errorf("status = %d, want 503", status)
						}
					})
				}
				wg.Wait()
				peak = max(peak, len(callsUnderWay()))
			}
			if peak < most*9/10 || peak > most {
				t.Errorf("%d calls are under way, want %d at most, and nearly so many", peak, most)
			}
			if _, took := ask(); took > timeout/2 {
				t.Errorf("one more call takes %v, want that it fails at once", took)
			}
			if text := j.text(); !strings.Contains(text, "have not ended yet") {
				t.Errorf("the log does not say so: %.500s", text)
			}
			server.Resume()
			c.eventually(c.client, wantUser(t, "ann"))
			servers.WaitFor(t, "no goroutine is left", 30*time.Second, func() bool { return len(callsUnderWay()) == 0 })
			c.mustAsk(c.client, wantUser(t, "ann"))
		})
	}
}

// callsUnderWay are the goroutines in which a call to Redis may be left to itself.
func callsUnderWay() []string {
	buf := make([]byte, 64<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return slices.DeleteFunc(stacks, func(s string) bool { return !strings.Contains(s, "exchange(") })
}

// SPEC 9.1: a burst of requests is no outage, at whatever client.
func TestBurstAtAPatientClient(t *testing.T) {
	client := patientClients["ring"](t, servers.Redis(t).Options().Addr)
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: closing(t, client)}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	req, _ := http.NewRequest("GET", c.URL, nil)
	for _, k := range c.client.Jar.Cookies(req.URL) {
		req.AddCookie(k)
	}
	h := newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(client)}).Handler(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { wantUser(t, "ann")(sessplus.Get(r)) }))
	var wg sync.WaitGroup
	for range 3000 { // without connections of their own, which would be the bottleneck
		wg.Go(func() {
			w := &discard{header: make(http.Header)}
			h.ServeHTTP(w, req.Clone(t.Context()))
			if w.status >= 500 {
				t.Errorf("status = %d", w.status)
			}
		})
	}
	wg.Wait()
}
