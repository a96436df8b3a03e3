package sessplus_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A load is visitors who each keep counting in a session of their own, over HTTP, and what they were answered.
type load struct {
	*httptest.Server
	visitors []*visitor
	stop     atomic.Bool
	wg       sync.WaitGroup

	mu     sync.Mutex
	since  time.Time // when counting began
	took   []time.Duration
	status map[int]int   // how many answers had it
	killed time.Time     // when a server was killed
	first  time.Duration // from then to the first good answer that was asked for afterwards
}

type visitor struct {
	client *http.Client
	acked  atomic.Int64 // the newest count that a response confirmed
	tried  int64        // the newest count that was asked for
	lost   atomic.Int64 // confirmed counts that were not there any more
	ended  bool
}

// newLoad serves a manager over the backend, and lets n visitors begin a session each.
func newLoad(t *testing.T, b sessplus.Backend, n int) *load {
	m := newManager(t, &sessplus.Options{Timeout: 3 * time.Second},
		sessplus.Config{CookieName: "session", Backend: b, IdleTimeout: time.Hour},
		sessplus.Config{CookieName: "second", Backend: b, Fields: sessplus.Include("second")})
	l := &load{since: time.Now(), status: make(map[int]int)}
	l.Server = httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		before := fmt.Sprint(s.GetInt("n"), " ", s.GetInt("second"))
		switch r.URL.Path {
		case "/set":
			var n int
			fmt.Sscan(r.URL.RawQuery, &n)
			s.Set("n", n)
			s.Set("second", n)
		case "/end":
			s.Destroy()
			return
		}
		if s.IsNew("session") && r.URL.Path != "/new" {
			s.Clear()
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/new" {
			s.Set("n", 0)
			s.Set("second", 0)
		}
		io.WriteString(w, before)
	})))
	t.Cleanup(l.Close)
	site := &site{TB: t, Server: l.Server}
	for range n {
		v := &visitor{client: site.visitor()}
		if status, _ := l.ask(v, "/new"); status != http.StatusOK {
			t.Fatalf("a new session: status %d", status)
		}
		l.visitors = append(l.visitors, v)
	}
	return l
}

// ask makes one request of the visitor.
func (l *load) ask(v *visitor, path string) (status int, body string) {
	start := time.Now()
	res, err := v.client.Get(l.URL + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, time.Since(start))
	l.status[res.StatusCode]++
	if l.first == 0 && start.After(l.killed) && !l.killed.IsZero() && res.StatusCode == http.StatusOK {
		l.first = time.Since(l.killed)
	}
	return res.StatusCode, string(text)
}

// begin lets the visitors count until end.
func (l *load) begin(t *testing.T) {
	for _, v := range l.visitors {
		l.wg.Go(func() {
			for !l.stop.Load() && !v.ended {
				v.tried++
				switch status, body := l.ask(v, fmt.Sprintf("/set?%d", v.tried)); status {
				case http.StatusOK:
					var n, second int64
					fmt.Sscan(body, &n, &second)
					if acked := v.acked.Load(); n < acked || second < acked {
						v.lost.Add(1) // asynchronous replication allows it
					}
					v.acked.Store(v.tried)
				case http.StatusServiceUnavailable:
				default:
					t.Errorf("a visitor was answered %d %q, want 200 or 503", status, body)
					return
				}
			}
		})
	}
}

func (l *load) end() {
	l.stop.Store(true)
	l.wg.Wait()
}

// check fails unless each session holds what was last confirmed, or something that was asked for later, and those that
// ended stay ended.
func (l *load) check(t *testing.T) {
	t.Helper()
	for i, v := range l.visitors {
		status, body := l.ask(v, "/get")
		if v.ended {
			if status != http.StatusUnauthorized {
				t.Errorf("visitor %d logged out, and is answered %d %q", i, status, body)
			}
			continue
		}
		var n, second int64
		fmt.Sscan(body, &n, &second)
		if acked := v.acked.Load(); status != http.StatusOK || n < acked || n > v.tried || second < acked || second > v.tried {
			t.Errorf("visitor %d: status %d, stored %q, confirmed %d, asked for %d", i, status, body, acked, v.tried)
		}
	}
}

// logOut ends the sessions of some visitors, whose browsers keep the cookies all the same.
func (l *load) logOut(t *testing.T, n int) {
	for _, v := range l.visitors[:n] {
		u, err := url.Parse(l.URL)
		if err != nil {
			t.Fatal(err)
		}
		stolen := v.client.Jar.Cookies(u)
		if status, body := l.ask(v, "/end"); status != http.StatusOK {
			t.Fatalf("logout: %d %q", status, body)
		}
		v.client.Jar.SetCookies(u, stolen)
		v.ended = true
	}
}

// recovers kills a server, waits until every visitor has been answered well again, and says how long that took.
func (l *load) recovers(t *testing.T, killed *servers.RedisServer) {
	t.Helper()
	start := time.Now()
	l.mu.Lock()
	l.killed = start
	l.mu.Unlock()
	killed.Kill()
	before := make([]int64, len(l.visitors))
	for i, v := range l.visitors {
		before[i] = v.acked.Load()
	}
	servers.WaitFor(t, "every visitor is served again", 60*time.Second, func() bool {
		for i, v := range l.visitors {
			if !v.ended && v.acked.Load() < before[i]+2 { // one may have been under way
				return false
			}
		}
		return true
	})
	t.Logf("after a master died the first good answer came after %v, and every visitor had one after %v", l.first, time.Since(start))
}

func (l *load) figures(t *testing.T, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.took)
	n, lost := len(l.took), int64(0)
	for _, v := range l.visitors {
		lost += v.lost.Load()
	}
	t.Logf("%s: answers by status %v, %.0f a second, p50 %v, p99 %v, slowest %v; %d confirmed changes were lost so far", what,
		l.status, float64(n)/time.Since(l.since).Seconds(), l.took[n/2], l.took[n*99/100], l.took[n-1], lost)
	l.since, l.took, l.status = time.Now(), nil, make(map[int]int)
}

// everyKeyExpires fails if a server has a key without an expiry (SPEC 3.5).
func everyKeyExpires(t *testing.T, c *redis.Client) {
	t.Helper()
	ctx := context.Background()
	keys, err := c.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if ttl := c.PTTL(ctx, key).Val(); ttl == -1 {
			t.Errorf("the key %s has no expiry", key)
		}
	}
}

// onBothFaces runs the test with a client of several servers as it is, and with one that sends commands together.
func onBothFaces(t *testing.T, test func(t *testing.T, face func(redis.UniversalClient) sessplus.Backend)) {
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		test(t, func(c redis.UniversalClient) sessplus.Backend { return sessplus.Redis(c) })
	})
	t.Run("autopipeline", func(t *testing.T) {
		t.Parallel()
		test(t, func(c redis.UniversalClient) sessplus.Backend {
			if cluster, ok := c.(*redis.ClusterClient); ok {
				o := *cluster.Options()
				o.ClusterStateReloadInterval = time.Second // it cannot be told to look for a new master
				c = closed(t, redis.NewClusterClient(&o))
			}
			return sessplus.Redis(autoPipeline(t, c))
		})
	})
}

// On a Redis Cluster requests succeed or are answered 503 while a master dies and its replica takes over, and while a
// slot moves (SPEC 4.6, SPEC 6.7).
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	slow(t)
	onBothFaces(t, testRedisCluster)
}

func testRedisCluster(t *testing.T, face func(redis.UniversalClient) sessplus.Backend) {
	cluster := servers.NewRedisCluster(t)
	client := cluster.Client(t)
	l := newLoad(t, face(client), 64)
	l.logOut(t, 4)
	l.begin(t)
	time.Sleep(3 * time.Second)
	l.figures(t, "undisturbed")

	key, err := anyKey(cluster.Masters[1].Client())
	if err != nil {
		t.Fatal(err)
	}
	slot := int(client.ClusterKeySlot(context.Background(), key).Val())
	cluster.MoveSlot(t, slot, cluster.Masters[1], cluster.Masters[2], func() { time.Sleep(200 * time.Millisecond) })
	l.mu.Lock()
	if failed := l.status[http.StatusServiceUnavailable]; failed > 0 {
		t.Errorf("%d requests failed while a slot moved", failed)
	}
	l.mu.Unlock()
	l.figures(t, "a slot moved")

	l.recovers(t, cluster.Masters[0])
	l.end()
	l.figures(t, "a master died")
	l.check(t)
	for _, s := range append(cluster.Masters[1:], cluster.Replicas[0]) {
		everyKeyExpires(t, s.Client())
	}
}

func anyKey(c *redis.Client) (string, error) {
	defer c.Close()
	return c.RandomKey(context.Background()).Result()
}

// With Sentinel requests succeed or are answered 503 while the master dies and the replica takes over (SPEC 4.6,
// SPEC 6.7).
func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	slow(t)
	onBothFaces(t, testRedisSentinel)
}

func testRedisSentinel(t *testing.T, face func(redis.UniversalClient) sessplus.Backend) {
	set := servers.NewSentinelSet(t)
	l := newLoad(t, face(set.Client(t)), 64)
	l.logOut(t, 4)
	l.begin(t)
	time.Sleep(3 * time.Second)
	l.figures(t, "undisturbed")
	l.recovers(t, set.Master)
	l.end()
	l.figures(t, "a master died")
	l.check(t)
	everyKeyExpires(t, set.Replica.Client())
}
