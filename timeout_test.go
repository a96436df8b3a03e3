package sessplus_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// hangingServers are real servers, and clients of all kinds, each opened once for all configs. A client that waits says
// that it goes on by itself for as long as its own time-outs say.
var hangingServers = []struct {
	name  string
	open  func(t *testing.T) (sessplus.Backend, *servers.Process)
	waits bool
}{
	{"redis", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return closing(t, s.Client()), s.Process
	}, false},
	{"redis without retries", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return closing(t, redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, ReadTimeout: -1, WriteTimeout: -1})), s.Process
	}, false},
	{"redis with a small pool", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return closing(t, redis.NewClient(&redis.Options{Addr: s.Addr, PoolSize: 1, ContextTimeoutEnabled: true})), s.Process
	}, false},
	{"a client of another type", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return closing(t, struct{ redis.UniversalClient }{s.Client()}), s.Process
	}, true},
	{"autopipeline", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return sessplus.Redis(autoPipeline(t, closed(t, s.Client()))), s.Process
	}, false},
	{"autopipeline in a crowd", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return closing(t, redis.NewClient(&redis.Options{Addr: s.Addr, AutoPipelineOptions: &redis.AutoPipelineOptions{}})), s.Process
	}, true},
	{"autopipeline that waits", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		p, err := closed(t, s.Client()).AutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		return sessplus.Redis(p), s.Process
	}, true},
	{"autopipeline of a cluster", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := newCluster(t)
		return sessplus.Redis(autoPipeline(t, closed(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.Addr}})))), s.Process
	}, false},
	{"cluster", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := newCluster(t)
		return closing(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.Addr}})), s.Process
	}, true},
	{"cluster with context timeout", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := newCluster(t)
		return closing(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.Addr}, ContextTimeoutEnabled: true})), s.Process
	}, false},
	{"ring", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return closing(t, redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": s.Addr}})), s.Process
	}, true},
	{"ring with context timeout", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		s := servers.NewRedis(t)
		return closing(t, redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": s.Addr}, ContextTimeoutEnabled: true})), s.Process
	}, false},
	{"firestore", func(t *testing.T) (sessplus.Backend, *servers.Process) {
		servers.Firestore(t) // the shared one first: this one takes the place of none
		p, addr := servers.NewFirestoreEmulator(t)
		return sessplus.Firestore(servers.FirestoreAt(t, addr, "hung"), "sessions"), p
	}, false},
}

func closing(t *testing.T, c redis.UniversalClient) sessplus.Backend {
	return sessplus.Redis(closed(t, c))
}

// closed gives the client, and closes it when the test has ended.
func closed(t *testing.T, c redis.UniversalClient) redis.UniversalClient {
	t.Cleanup(func() { c.Close() })
	return c
}

// newCluster starts a Redis Cluster of one node.
func newCluster(t *testing.T) *servers.RedisServer {
	t.Helper()
	s := servers.NewRedis(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(servers.FreePort(t)))
	c := s.Client()
	defer c.Close()
	if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	servers.WaitFor(t, "the cluster is up", 20*time.Second, func() bool {
		return c.Set(t.Context(), "probe", 1, time.Minute).Err() == nil
	})
	return s
}

// SPEC 6.3, 6.8: a server that accepts and never answers costs Timeout, once per request, however many configs it has.
func TestHungServerCostsTimeout(t *testing.T) {
	t.Parallel()
	slow(t)
	const timeout = 2 * time.Second
	for _, h := range hangingServers {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			b, server := h.open(t)
			var j journal
			configs := []sessplus.Config{
				{CookieName: "a", Backend: b, Fields: sessplus.Include("user")},
				{CookieName: "b", Backend: b, Fields: sessplus.Include("plan")},
				{CookieName: "c", Backend: b, Fields: sessplus.Include("theme"), IdleTimeout: time.Hour},
			}
			c := newCrowd(t, newManager(t, j.options(timeout), configs...))
			start := func(s *sessplus.Session) {
				s.Set("user", "ann")
				s.Set("plan", "gold")
				s.Set("theme", "dark")
			}
			c.eventually(c.client, start)
			fresh := c.visitor()
			defer server.Resume()
			steps := []struct {
				name   string
				client *http.Client
				during func(s *sessplus.Session)
			}{
				{"load", c.client, nil},
				{"create", fresh, start},
				{"many", c.client, nil},
			}
			server.Pause()
			for _, step := range steps {
				requests := 1
				if step.name == "many" {
					requests = 40
				}
				within(t, timeout, func() {
					var wg sync.WaitGroup
					for range requests {
						wg.Go(func() {
							answer := c.askWith(step.client, func(s *sessplus.Session) {
								if step.during == nil {
									t.Errorf("%s: the handler ran", step.name)
									return
								}
								step.during(s)
							})
							if answer.StatusCode != 503 {
								t.Errorf("%s: status = %d, want 503", step.name, answer.StatusCode)
							}
						})
					}
					wg.Wait()
				})
			}
			if !h.waits {
				settle(t)
			}
			server.Resume()
			c.eventually(c.client, wantUser(t, "ann"))
			for name, change := range map[string]func(*sessplus.Session){
				"change":  func(s *sessplus.Session) { s.Set("user", "bob"); s.Set("plan", "free"); s.Set("theme", "light") },
				"renew":   func(s *sessplus.Session) { s.Renew() },
				"destroy": func(s *sessplus.Session) { s.Destroy() },
			} {
				t.Run(name, func(t *testing.T) {
					visitor := c.visitor()
					c.eventually(visitor, start)
					slow := c.begin(visitor, change)
					server.Pause()
					defer server.Resume()
					within(t, timeout, func() {
						if answer := slow.finish(); answer.StatusCode != 503 {
							t.Errorf("status = %d, want 503", answer.StatusCode)
						}
					})
					if !h.waits {
						settle(t)
					}
				})
			}
			servers.WaitFor(t, "no goroutine is left", 30*time.Second, func() bool { return len(libraryGoroutines(t)) == 0 })
		})
	}
}

// SPEC 6.3: the loads of Lazy configs, and the save after an Optional load, wait for a hung server once.
func TestHungServerCostsTimeoutOncePerRequest(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	server := servers.NewRedis(t)
	rdb := server.Client()
	defer rdb.Close()
	b := sessplus.Redis(rdb)
	config := func(name string, lazy, optional bool) sessplus.Config {
		return sessplus.Config{CookieName: name, Backend: b, Fields: sessplus.Include("field " + name), Lazy: lazy, Optional: optional}
	}
	tests := []struct {
		name    string
		configs []sessplus.Config
		during  func(s *sessplus.Session)
	}{
		{"lazy configs", []sessplus.Config{config("a", true, true), config("b", true, true), config("c", true, true)},
			func(s *sessplus.Session) { s.Get("field a"); s.Get("field b"); s.Get("field c") }},
		{"all fields of lazy configs", []sessplus.Config{config("a", true, true), config("b", true, true), config("c", true, true)},
			func(s *sessplus.Session) { s.Fields() }},
		{"optional load, then a save", []sessplus.Config{config("a", false, true), config("new", false, true)},
			func(s *sessplus.Session) { s.Set("field new", 1) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout}, test.configs...))
			c.eventually(c.client, func(s *sessplus.Session) {
				for _, config := range test.configs {
					if config.CookieName != "new" {
						s.Set("field "+config.CookieName, 1)
					}
				}
			})
			server.Pause()
			defer server.Resume()
			within(t, timeout, func() { c.mustAsk(c.client, test.during) })
		})
	}
}

// SPEC 6.3: several candidates for one cookie, and several backends that hang.
func TestHungServersAreWaitedForSideBySide(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	one, two := servers.NewRedis(t), servers.NewRedis(t)
	r1, r2 := one.Client(), two.Client()
	defer r1.Close()
	defer r2.Close()
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout},
		sessplus.Config{CookieName: "a", Backend: sessplus.Redis(r1), Fields: sessplus.Include("user")},
		sessplus.Config{CookieName: "b", Backend: sessplus.Redis(r2), Fields: sessplus.Include("plan")}))
	set := func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("plan", "gold") }
	c.eventually(c.client, set)
	one.Pause()
	two.Pause()
	defer one.Resume()
	defer two.Resume()
	for _, client := range []*http.Client{c.client, c.visitor()} {
		within(t, timeout, func() {
			if answer := c.askWith(client, set); answer.StatusCode != 503 {
				t.Errorf("status = %d, want 503", answer.StatusCode)
			}
		})
	}
	settle(t)
}

// SPEC 6.8
func TestNoGoroutineIsLeft(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil,
			sessplus.Config{CookieName: "a", Backend: b, Fields: sessplus.Include("user"), IdleTimeout: time.Hour},
			sessplus.Config{CookieName: "b", Backend: b, Fields: sessplus.Include("counter"), Lazy: true},
			sessplus.Config{CookieName: "c"}))
		for range 20 {
			c.mustAsk(c.client, func(s *sessplus.Session) {
				s.Set("user", time.Now())
				counter.Update(s, increment)
				s.Renew("a")
			})
		}
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy() })
		settle(t)
	})
}

// newMute returns the address of a server that accepts and never answers.
func newMute(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	return l.Addr().String()
}

// SPEC 6.3: a server that hangs from the start costs the Timeout, whatever client was given and however it is set.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	slow(t)
	const timeout, requests = 500 * time.Millisecond, 20
	addr := newMute(t)
	slots := func(context.Context) ([]redis.ClusterSlot, error) {
		return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: addr}}}}, nil
	}
	for _, bounded := range []bool{false, true} {
		piped := autoPipeline(t, closed(t, redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: bounded})))
		pipedCluster := autoPipeline(t, closed(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, ContextTimeoutEnabled: bounded})))
		for name, client := range map[string]redis.UniversalClient{
			"autopipeline":              piped,
			"autopipeline in a crowd":   redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: bounded, AutoPipelineOptions: &redis.AutoPipelineOptions{}}),
			"autopipeline of a cluster": pipedCluster,
			"client":                    redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: bounded}),
			"caching":                   redis.NewClient(&redis.Options{Addr: addr, Protocol: 3, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}, ContextTimeoutEnabled: bounded}),
			"small":                     redis.NewClient(&redis.Options{Addr: addr, PoolSize: 1, ContextTimeoutEnabled: bounded}),
			"cluster":                   redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, ContextTimeoutEnabled: bounded}),
			"cluster with slots": redis.NewClusterClient(&redis.ClusterOptions{
				Addrs: []string{addr}, ClusterSlots: slots, ContextTimeoutEnabled: bounded}),
			"cluster with slots and replicas": redis.NewClusterClient(&redis.ClusterOptions{
				Addrs: []string{addr}, ClusterSlots: slots, RouteRandomly: true, ContextTimeoutEnabled: bounded}),
			"ring": redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": addr}, ContextTimeoutEnabled: bounded}),
			"sentinel": redis.NewFailoverClient(&redis.FailoverOptions{
				MasterName: "m", SentinelAddrs: []string{addr}, ContextTimeoutEnabled: bounded}),
			"sentinel cluster": redis.NewFailoverClusterClient(&redis.FailoverOptions{
				MasterName: "m", SentinelAddrs: []string{addr}, RouteByLatency: true, ContextTimeoutEnabled: bounded}),
		} {
			t.Run(fmt.Sprint(name, bounded), func(t *testing.T) {
				t.Parallel()
				c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout},
					sessplus.Config{CookieName: "a", Backend: closing(t, client), Fields: sessplus.Include("a")},
					sessplus.Config{CookieName: "b", Backend: sessplus.Redis(client), Fields: sessplus.Include("b")}))
				var wg sync.WaitGroup
				start := time.Now()
				for i := range requests {
					wg.Go(func() {
						answer := c.askWith(c.visitor(), func(s *sessplus.Session) { // one create, or two side by side
							s.Set("a", 1)
							if i%2 == 0 {
								s.Set("b", 1)
							}
						})
						if answer.StatusCode != http.StatusServiceUnavailable {
							t.Errorf("status = %d, want 503", answer.StatusCode)
						}
					})
				}
				wg.Wait()
				if took := time.Since(start); took > 5*timeout {
					t.Errorf("%d requests took %v, want little more than %v", requests, took, timeout)
				}
			})
		}
	}
	servers.WaitFor(t, "no goroutine is left", 60*time.Second, func() bool { return len(libraryGoroutines(t)) == 0 })
}
