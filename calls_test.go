package sessplus_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// threeConfigs is three configs, each with a backend and a field of its own.
func threeConfigs(lazy bool, open func(i int) sessplus.Backend) []sessplus.Config {
	var configs []sessplus.Config
	for i := range 3 {
		name := fmt.Sprint("c", i)
		configs = append(configs, sessplus.Config{CookieName: name, Backend: open(i), Fields: sessplus.Include(name), Lazy: lazy})
	}
	return configs
}

func setThree(s *sessplus.Session, v any) {
	for i := range 3 {
		s.Set(fmt.Sprint("c", i), v)
	}
}

// ways are those in which code below the library can end a goroutine.
var ways = map[string]func(){
	"panic":     func() { panic("of a backend") },
	"nil panic": func() { panic(nil) },
	"goexit":    runtime.Goexit,
	"abort":     func() { panic(http.ErrAbortHandler) },
}

// SPEC 6.8, 5.6: one of several calls ends the goroutine that makes it, whichever that is; the others still end before
// the request does.
func TestPanicOfOneOfSeveralCalls(t *testing.T) {
	t.Parallel()
	for way, quit := range ways {
		for quits := range 3 {
			for _, op := range []string{"load", "create"} {
				t.Run(fmt.Sprint(way, quits, op), func(t *testing.T) {
					var running atomic.Int64
					var armed atomic.Bool
					var configs []sessplus.Config
					for i := range 3 {
						b := &recorder{Backend: sessplus.Memory()}
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
					s := newSiteOn(t, "HTTP/1.1", func(next http.Handler) http.Handler {
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
						if res, err := s.post(set); err == nil {
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
					if res, err := s.post(set); err != nil || res.StatusCode != http.StatusOK {
						t.Errorf("the next request: %v, %v, want 200", res, err)
					}
					settle(t)
				})
			}
		}
	}
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

// SPEC 5.6: a hook that panics ends the request, not the process: in the goroutine of the request while that waits, and
// in nobody's afterwards.
func TestPanicOfAHookEndsTheRequestOnly(t *testing.T) {
	t.Parallel()
	slow(t)
	const env = "SESSPLUS_TEST_HOOK"
	if os.Getenv(env) == "" {
		run := "-test.run=^" + t.Name() + "$"
		for kind := range patientClients {
			for way := range ways {
				t.Run(kind+"/"+way, func(t *testing.T) {
					t.Parallel()
					cmd := exec.CommandContext(t.Context(), os.Args[0], run, "-test.timeout=60s")
					cmd.Env = append(os.Environ(), env+"="+kind+"/"+way)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Errorf("the process ended with %v: %.500s", err, bytes.TrimSpace(out))
					}
				})
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
	s := newSiteOn(t, "HTTP/1.1", newManager(t, &sessplus.Options{Timeout: timeout},
		sessplus.Config{CookieName: "sid", Backend: sessplus.Redis(client)}).Handler)
	read := func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("n") }
	s.with(func(s *sessplus.Session) { s.Set("n", 1) })
	quit := ways[way]
	h.quit.Store(&quit)
	if res, err := s.post(read); err == nil {
		t.Errorf("status %d, want a request that is cut off", res.StatusCode)
	}
	select {
	case <-s.do:
	default:
	}
	late := func() { time.Sleep(2 * timeout); quit() }
	h.quit.Store(&late)
	if res, err := s.post(read); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a hook that takes longer than the Timeout: %v, %v, want 503", res, err)
	}
	select {
	case <-s.do:
	default:
	}
	time.Sleep(3 * timeout)
	h.quit.Store(nil)
	if res, err := s.post(read); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("the next request: %v, %v, want 200", res, err)
	}
	settle(t)
}

// SPEC 6.3: calls that a client does not let go of are bounded in number.
func TestCallsLeftToThemselvesAreBounded(t *testing.T) {
	slow(t)
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
				res, err := c.Server.Client().Do(req)
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
				peak = max(peak, len(callsUnderWay(t)))
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
			servers.WaitFor(t, "no goroutine is left", 30*time.Second, func() bool { return len(callsUnderWay(t)) == 0 })
			c.mustAsk(c.client, wantUser(t, "ann"))
		})
	}
}

// callsUnderWay are the goroutines in which a call to Redis may be left to itself.
func callsUnderWay(t testing.TB) []string { return goroutines(t, "exchange+0x") }

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

// A rendezvous lets calls go on only when all of them are under way.
type rendezvous struct {
	mu      sync.Mutex
	want    int
	arrived int
	all     chan struct{}
}

func (m *rendezvous) start(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want, m.arrived, m.all = n, 0, make(chan struct{})
}

func (m *rendezvous) hook(ctx context.Context, op string) error {
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
			var meeting rendezvous
			m := newManager(t, &sessplus.Options{Timeout: 2 * time.Second}, threeConfigs(lazy, func(int) sessplus.Backend {
				return &recorder{Backend: sessplus.Memory(), hook: meeting.hook}
			})...)
			s := newSite(t, m)
			check := func(what string, res *reply) {
				t.Helper()
				if res.StatusCode != 200 {
					t.Errorf("%s: status %d, want 200: the calls do not run side by side", what, res.StatusCode)
				}
			}
			meeting.start(3)
			check("create", s.with(func(s *sessplus.Session) { setThree(s, 1) }))
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
				s.post(func(_ http.ResponseWriter, r *http.Request) {
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
				setThree(s, 2)
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
	const delay = 150 * time.Millisecond
	m := newManager(t, nil, threeConfigs(false, func(int) sessplus.Backend {
		return &recorder{Backend: sessplus.Memory(), hook: func(context.Context, string) error {
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
		{"create", 1, func(s *sessplus.Session) { setThree(s, 1) }},
		{"load", 1, func(s *sessplus.Session) { s.Fields() }},
		{"load and update", 2, func(s *sessplus.Session) { setThree(s, 2) }},
	} {
		start := time.Now()
		s.with(step.f)
		least := time.Duration(step.rounds) * delay
		if took := time.Since(start); took < least || took > 2*least+delay/2 {
			t.Errorf("%s took %v, want about %v", step.name, took, least)
		}
	}
}

// newTripProxy passes connections on to addr. It counts how often a client speaks again after the server has answered.
func newTripProxy(t *testing.T, addr string) (string, *atomic.Int64) {
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
	addr, wire := newTripProxy(t, direct.Options().Addr)
	client := redis.NewClient(&redis.Options{Addr: addr, DB: direct.Options().DB, PoolSize: 1, ContextTimeoutEnabled: true})
	defer client.Close()
	var trips atomic.Int64
	client.AddHook(tripHook(func(...redis.Cmder) { trips.Add(1) }))
	for _, c := range []struct {
		name string
		one  sessplus.Backend
	}{{"one Backend", sessplus.Redis(client)}, {"a Backend each", nil}} {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, nil, threeConfigs(false, func(int) sessplus.Backend {
				if c.one != nil {
					return c.one
				}
				return sessplus.Redis(client)
			})...)
			s := newSite(t, m)
			s.with(func(s *sessplus.Session) { setThree(s, 1) }) // Redis learns the scripts
			s.with(func(s *sessplus.Session) { setThree(s, 2) })
			s.with(func(s *sessplus.Session) { s.Set("c0", 3) }) // go-redis has other connections for single commands
			s.with(func(s *sessplus.Session) { s.Destroy() })
			s.client = s.visitor()
			for _, step := range []struct {
				name       string
				load, save int64
				f          func(*sessplus.Session)
			}{
				{"create", 0, 1, func(s *sessplus.Session) { setThree(s, 1) }},
				{"read", 1, 0, func(s *sessplus.Session) { s.Fields() }},
				{"update", 1, 1, func(s *sessplus.Session) { setThree(s, 2) }},
				{"update of one", 1, 1, func(s *sessplus.Session) { s.Set("c1", 3) }},
				{"destroy, set", 1, 1, func(s *sessplus.Session) {
					s.Destroy("c0")
					setThree(s, 4)
				}},
				{"destroy", 1, 1, func(s *sessplus.Session) { s.Destroy() }},
				{"nothing", 0, 0, func(s *sessplus.Session) { s.Fields() }},
			} {
				trips.Store(0)
				wire.Store(0)
				var loads, wireLoads int64
				s.with(func(sess *sessplus.Session) {
					loads, wireLoads = trips.Load(), wire.Load()
					step.f(sess)
				})
				if saves := trips.Load() - loads; loads != step.load || saves != step.save {
					t.Errorf("%s: the client made %d round trips to load and %d to save, want %d and %d", step.name, loads, saves, step.load, step.save)
				}
				if saves := wire.Load() - wireLoads; wireLoads != step.load || saves != step.save {
					t.Errorf("%s: %d round trips on the wire to load and %d to save, want %d and %d", step.name, wireLoads, saves, step.load, step.save)
				}
			}
		})
	}
}
