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
	const timeout, requests = 200 * time.Millisecond, 20
	addr := newMute(t)
	slots := func(context.Context) ([]redis.ClusterSlot, error) {
		return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: addr}}}}, nil
	}
	for _, bounded := range []bool{false, true} {
		for name, client := range map[string]redis.UniversalClient{
			"client":  redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: bounded}),
			"caching": redis.NewClient(&redis.Options{Addr: addr, Protocol: 3, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}, ContextTimeoutEnabled: bounded}),
			"small":   redis.NewClient(&redis.Options{Addr: addr, PoolSize: 1, ContextTimeoutEnabled: bounded}),
			"cluster": redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, ContextTimeoutEnabled: bounded}),
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
	servers.WaitFor(t, "no goroutine is left", 60*time.Second, func() bool { return len(libraryGoroutines()) == 0 })
}
