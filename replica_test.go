package sessplus_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// replicaLag is how far a replica is behind its master, and clientLag how much farther away the master is from clients.
const (
	replicaLag = 40 * time.Millisecond
	clientLag  = 2 * time.Millisecond
)

// lagging returns the address of a proxy that holds back what the server sends: a little to clients, more to a replica.
func lagging(t *testing.T, target string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			go serveLagging(down, target)
		}
	}()
	return l.Addr().String()
}

func serveLagging(down net.Conn, target string) {
	defer down.Close()
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer up.Close()
	lags := make(chan time.Duration, 1)
	lags <- clientLag
	go func() {
		defer up.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := down.Read(buf)
			if bytes.Contains(bytes.ToUpper(buf[:n]), []byte("PSYNC")) {
				<-lags
				lags <- replicaLag
			}
			if _, err2 := up.Write(buf[:n]); err != nil || err2 != nil {
				return
			}
		}
	}()
	type chunk struct {
		due  time.Time
		data []byte
	}
	held := make(chan chunk, 10_000)
	go func() {
		defer down.Close()
		for c := range held {
			time.Sleep(time.Until(c.due))
			if _, err := down.Write(c.data); err != nil {
				return
			}
		}
	}()
	defer close(held)
	for buf := make([]byte, 64<<10); ; {
		n, err := up.Read(buf)
		if err != nil {
			return
		}
		lag := <-lags
		lags <- lag
		held <- chunk{time.Now().Add(lag), bytes.Clone(buf[:n])}
	}
}

// newLaggingCluster starts a Redis Cluster of a master and a replica that is behind, and returns their addresses.
func newLaggingCluster(t *testing.T) []string {
	t.Helper()
	var nodes []*servers.RedisServer
	var clients []*redis.Client
	var bus []int
	for range 2 {
		port := servers.FreePort(t)
		bus = append(bus, port)
		s := servers.NewRedis(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(port), "--repl-diskless-sync-delay", "0")
		c := s.Client()
		t.Cleanup(func() { c.Close() })
		nodes, clients = append(nodes, s), append(clients, c)
	}
	near := lagging(t, nodes[0].Addr)
	host, port, _ := net.SplitHostPort(near)
	ctx := t.Context()
	for _, err := range []error{
		clients[0].ConfigSet(ctx, "cluster-announce-port", port).Err(),
		clients[0].ClusterAddSlotsRange(ctx, 0, 16383).Err(),
		clients[1].Do(ctx, "cluster", "meet", host, port, bus[0]).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	id := clients[0].ClusterMyID(ctx).Val()
	servers.WaitFor(t, "the replica follows", 20*time.Second, func() bool { return clients[1].ClusterReplicate(ctx, id).Err() == nil })
	servers.WaitFor(t, "the cluster is complete", 20*time.Second, func() bool {
		return strings.Contains(clients[1].Info(ctx, "replication").Val(), "master_link_status:up") &&
			strings.Contains(clients[1].ClusterInfo(ctx).Val(), "cluster_state:ok") &&
			strings.Count(clients[0].ClusterNodes(ctx).Val(), "connected") == 2 &&
			strings.Contains(clients[0].ClusterNodes(ctx).Val(), "slave")
	})
	return []string{near, nodes[1].Addr}
}

// newLaggingSentinel starts a master with a replica that is behind, and a sentinel, whose address it returns.
func newLaggingSentinel(t *testing.T) string {
	t.Helper()
	near := lagging(t, servers.NewRedis(t, "--repl-diskless-sync-delay", "0").Addr)
	host, port, _ := net.SplitHostPort(near)
	replica := servers.NewRedis(t, "--replicaof", host+" "+port).Client()
	defer replica.Close()
	addr := fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t))
	_, own, _ := net.SplitHostPort(addr)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %s\nsentinel monitor sessions %s %s 1\n", own, host, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := servers.Start("redis-server", config, "--sentinel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	c := redis.NewSentinelClient(&redis.Options{Addr: addr})
	defer c.Close()
	servers.WaitFor(t, "the sentinel knows the replica", 30*time.Second, func() bool {
		m, err := c.Master(t.Context(), "sessions").Result()
		return err == nil && m["num-slaves"] == "1" &&
			strings.Contains(replica.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	servers.WaitFor(t, "go-redis takes the replica for one", 30*time.Second, func() bool {
		c := redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: "sessions", SentinelAddrs: []string{addr}, ReplicaOnly: true,
		})
		defer c.Close()
		role, err := c.Do(t.Context(), "role").Slice()
		return err == nil && len(role) > 0 && role[0] == "slave"
	})
	return addr
}

// seesWhatWasSaved lets visitors log in, change a field and log out, each with a request right after that looks.
func seesWhatWasSaved(t *testing.T, b sessplus.Backend) {
	t.Helper()
	for name, configs := range map[string][]sessplus.Config{
		"one config":  {{CookieName: "s", Backend: b}},
		"two configs": {{CookieName: "s", Backend: b, Fields: sessplus.Include("user")}, {CookieName: "t", Backend: b, Fields: sessplus.Auto()}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, newManager(t, nil, configs...))
			lost, old, alive := 0, 0, 0
			const visitors = 8
			for range visitors {
				client := c.visitor()
				c.mustAsk(client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("n", 1) })
				for n := range 3 {
					c.mustAsk(client, func(s *sessplus.Session) {
						switch {
						case s.GetString("user") != "ann":
							lost++
						case s.GetInt("n") != n+1:
							old++
						default:
							s.Set("n", n+2)
						}
					})
				}
				time.Sleep(replicaLag * 3 / 2) // a replica that is behind has the record by now
				ended := c.withCookies(c.jar(client))
				c.mustAsk(client, func(s *sessplus.Session) { s.Destroy() })
				c.mustAsk(ended, func(s *sessplus.Session) {
					if s.Has("user") || s.Has("n") {
						alive++
					}
				})
			}
			if lost+old+alive > 0 {
				t.Errorf("of %d visitors the next request missed the login %d times and a change %d times, and %d ended sessions were alive",
					visitors, lost, old, alive)
			}
		})
	}
}

// SPEC 6.10: a load goes to the master, whatever the client does with reads.
func TestLoadsDoNotGoToReplicas(t *testing.T) {
	t.Parallel()
	slow(t)
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		addrs := newLaggingCluster(t)
		for name, o := range map[string]redis.ClusterOptions{
			"ReadOnly":                 {ReadOnly: true},
			"RouteByLatency":           {RouteByLatency: true},
			"RouteRandomly":            {RouteRandomly: true},
			"without routing policies": {ReadOnly: true, DisableRoutingPolicies: true},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if o.RouteByLatency && raceEnabled {
					t.Skip("go-redis 9.23 has a data race of its own there: updateLatency beside NewClusterClient")
				}
				o.Addrs = addrs
				client := redis.NewClusterClient(&o)
				seesWhatWasSaved(t, closing(t, client))
				t.Run("AutoPipeline", func(t *testing.T) {
					t.Parallel()
					pipe, err := client.AutoPipeline()
					if err != nil {
						t.Fatal(err)
					}
					seesWhatWasSaved(t, sessplus.Redis(pipe))
				})
			})
		}
	})
	t.Run("sentinel", func(t *testing.T) {
		t.Parallel()
		addrs := []string{newLaggingSentinel(t)}
		for name, o := range map[string]redis.FailoverOptions{
			"no option":      {},
			"RouteByLatency": {RouteByLatency: true},
			"RouteRandomly":  {RouteRandomly: true},
			"ReplicaOnly":    {ReplicaOnly: true},
		} {
			o.MasterName, o.SentinelAddrs = "sessions", addrs
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if o.RouteByLatency && raceEnabled {
					t.Skip("the same race")
				}
				seesWhatWasSaved(t, closing(t, redis.NewFailoverClusterClient(&o)))
			})
		}
		for _, bounded := range []bool{false, true} {
			o := redis.FailoverOptions{MasterName: "sessions", SentinelAddrs: addrs, ContextTimeoutEnabled: bounded}
			t.Run(fmt.Sprint("client", bounded), func(t *testing.T) { t.Parallel(); seesWhatWasSaved(t, closing(t, redis.NewFailoverClient(&o))) })
			t.Run(fmt.Sprint("client of replicas in a crowd", bounded), func(t *testing.T) {
				t.Parallel()
				o := o
				o.ReplicaOnly, o.AutoPipelineOptions = true, &redis.AutoPipelineOptions{}
				c := newCrowd(t, newManager(t, nil,
					sessplus.Config{CookieName: "s", Backend: closing(t, slowTrips(redis.NewFailoverClient(&o)))}))
				if count := c.rush(map[string]string{"s": strings.Repeat("A", 43)}); count[503] != 50 {
					t.Errorf("statuses = %v, want 50 of 503", count)
				}
			})
			t.Run(fmt.Sprint("client of replicas", bounded), func(t *testing.T) {
				t.Parallel()
				o := o
				o.ReplicaOnly = true
				var j journal
				c := newCrowd(t, newManager(t, j.options(3*time.Second),
					sessplus.Config{CookieName: "s", Backend: closing(t, redis.NewFailoverClient(&o))}))
				start := time.Now()
				for _, client := range []bool{true, false} { // a load, a create
					visitor := c.visitor()
					if client {
						visitor = c.withCookies(map[string]string{"s": strings.Repeat("A", 43)})
					}
					if r := c.askWith(visitor, func(s *sessplus.Session) { s.Set("user", "ann") }); r.StatusCode != 503 {
						t.Errorf("status = %d, want 503", r.StatusCode)
					}
				}
				if took := time.Since(start); took > 2*time.Second || !strings.Contains(j.text(), "ReplicaOnly") {
					t.Errorf("after %v the log says %q, want at once what is wrong", took, j.text())
				}
			})
		}
	})
}

// SPEC 6.10: a load does not come from the client's own cache.
func TestLoadsDoNotComeFromTheCacheOfTheClient(t *testing.T) {
	t.Parallel()
	for _, bounded := range []bool{false, true} {
		client := redis.NewClient(&redis.Options{
			Addr: servers.NewRedis(t).Addr, Protocol: 3, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}, ContextTimeoutEnabled: bounded,
		})
		seesWhatWasSaved(t, closing(t, client))
		pipe, err := client.AutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		seesWhatWasSaved(t, sessplus.Redis(pipe))
		if stats := client.Get(t.Context(), "other"); stats.Err() != redis.Nil {
			t.Errorf("the program's own commands: %v", stats.Err())
		}
	}
}

// SPEC 6.10, SPEC 10.2: why not. The cache of the client is told what has changed by the connection that has read it.
// While that hangs, a session that has ended elsewhere lives on in the cache; a load ends with an outage.
func TestCacheOfTheClientKeepsWhatHasEnded(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	p := newProxy(t, server.Addr)
	client := redis.NewClient(&redis.Options{Addr: p.addr(), Protocol: 3, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}})
	direct := closed(t, server.Client())
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Second}, indexed(closing(t, client))))
	elsewhere := newManager(t, nil, indexed(sessplus.Redis(direct)))
	visitor := c.logIn("ann")
	key := direct.Keys(t.Context(), "session:session:*").Val()[0]
	cached := func() bool { return client.HGetAll(t.Context(), key).Val()["user_id"] == `"ann"` }
	cached() // from now on
	if !cached() || c.user(visitor) != "ann" {
		t.Fatal("there is no session to begin with")
	}
	p.set(proxyHang)
	if n, err := elsewhere.RevokeAll(t.Context(), "session", "ann"); n != 1 || err != nil {
		t.Fatalf("RevokeAll() = %d, %v, want 1, nil", n, err)
	}
	time.Sleep(100 * time.Millisecond) // an invalidation that arrives does so in a few milliseconds
	if !cached() {
		t.Error("the cache of the client has heard of it by another way: see whether loads may come from it")
	}
	if r := c.askWith(visitor, func(s *sessplus.Session) {}); r.StatusCode != 503 {
		t.Errorf("status = %d, want 503", r.StatusCode)
	}
	p.cut()
	p.set(proxyServe)
	c.eventually(visitor, func(s *sessplus.Session) {
		if got := s.Get("user_id"); got != nil {
			t.Errorf("user_id = %v after the end, want none", got)
		}
	})
}
