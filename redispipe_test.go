package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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

// pipelines are the clients that send the commands of concurrent requests together.
var pipelines = map[string]func(t *testing.T, c *redis.Client, o redis.AutoPipelineOptions) redis.UniversalClient{
	"deferred": func(t *testing.T, c *redis.Client, o redis.AutoPipelineOptions) redis.UniversalClient {
		p, err := c.AsyncAutoPipelineWithOptions(&o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	},
	"blocking": func(t *testing.T, c *redis.Client, o redis.AutoPipelineOptions) redis.UniversalClient {
		p, err := c.AutoPipelineWithOptions(&o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	},
	"full duplex": func(t *testing.T, c *redis.Client, o redis.AutoPipelineOptions) redis.UniversalClient {
		o.FullDuplex = true
		p, err := c.AsyncAutoPipelineWithOptions(&o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	},
	"in a crowd": func(t *testing.T, c *redis.Client, o redis.AutoPipelineOptions) redis.UniversalClient {
		return closed(t, redis.NewClient(&redis.Options{Addr: c.Options().Addr, AutoPipelineOptions: &o}))
	},
}

func onEveryPipeline(t *testing.T, test func(t *testing.T, p redis.UniversalClient, s *servers.RedisServer)) {
	for name, open := range pipelines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers.NewRedis(t)
			c := s.Client()
			t.Cleanup(func() { c.Close() })
			test(t, open(t, c, redis.AutoPipelineOptions{}), s)
		})
	}
}

// SPEC 5.3: with one client for all of them, the calls of many requests go together, and a request costs no goroutine.
func TestAutoPipelineSendsCallsTogether(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"deferred", "in a crowd"} {
		t.Run(name, func(t *testing.T) { testCallsGoTogether(t, pipelines[name]) })
	}
}

func testCallsGoTogether(t *testing.T, open func(*testing.T, *redis.Client, redis.AutoPipelineOptions) redis.UniversalClient) {
	const requests = 100
	direct := servers.NewRedis(t).Client()
	defer direct.Close()
	client := open(t, direct, redis.AutoPipelineOptions{})
	var trips, under atomic.Int64
	client.AddHook(tripHook(func(...redis.Cmder) {
		trips.Add(1)
		time.Sleep(5 * time.Millisecond) // in which the others come
		under.Store(max(under.Load(), int64(len(goroutines(t, "(*redisBackend).within")))))
	}))
	b := sessplus.Redis(client)
	m := newManager(t, nil, sessplus.Config{CookieName: "a", Backend: b, Fields: sessplus.Include("a")},
		sessplus.Config{CookieName: "b", Backend: b, Fields: sessplus.Include("b")})
	c := newCrowd(t, m)
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("a", 1); s.Set("b", 2) })
	cookies := c.jar(c.client)
	trips.Store(0)
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			r := c.askWith(c.withCookies(cookies), func(s *sessplus.Session) {
				if s.GetInt("a") != 1 || s.GetInt("b") != 2 {
					t.Errorf("a, b = %v, %v, want 1, 2", s.Get("a"), s.Get("b"))
				}
			})
			if r.StatusCode != http.StatusOK {
				t.Errorf("status = %d, want 200", r.StatusCode)
			}
		})
	}
	wg.Wait()
	if n := trips.Load(); n > requests/2 {
		t.Errorf("%d requests of two loads took %d round trips, want fewer than requests", requests, n)
	}
	if n := under.Load(); n > 0 {
		t.Errorf("%d calls had a goroutine of their own, want none", n)
	}
}

// SPEC 10.4, SPEC 10.5: in a crowd, too, an entry of the index goes before its record in one round trip.
func TestIndexInACrowd(t *testing.T) {
	t.Parallel()
	direct := servers.NewRedis(t).Client()
	defer direct.Close()
	client := pipelines["in a crowd"](t, direct, redis.AutoPipelineOptions{})
	var crowded, pairs atomic.Int64
	client.AddHook(tripHook(func(cmds ...redis.Cmder) {
		time.Sleep(5 * time.Millisecond) // in which the others come
		entry := slices.IndexFunc(cmds, func(cmd redis.Cmder) bool { return strings.Contains(fmt.Sprint(cmd.Args()...), "session@") })
		switch {
		case entry < 0 && len(cmds) > 2:
			crowded.Add(1)
		case entry == 0 && len(cmds) == 2:
			pairs.Add(1)
		case entry >= 0 && len(cmds) > 1:
			t.Errorf("an entry is number %d of %d commands, want the first of two", entry, len(cmds))
		}
	}))
	c := newCrowd(t, newManager(t, nil, indexed(sessplus.Redis(client))))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			visitor := c.visitor()
			for k := range 4 { // a login, and others in the same session
				if r := c.askWith(visitor, func(s *sessplus.Session) { s.Set("user_id", fmt.Sprint(i, k)) }); r.StatusCode != http.StatusOK {
					t.Errorf("status = %d, want 200", r.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	if crowded.Load() == 0 || pairs.Load() < 4*32 {
		t.Errorf("%d round trips had commands of several requests, %d an entry and its record; want some, %d", crowded.Load(), pairs.Load(), 4*32)
	}
}

// SPEC 6.2: what was answered with an outage is not stored later, when the client comes to it.
func TestPipelineStoresNothingOfRequestsThatHaveFailed(t *testing.T) {
	t.Parallel()
	slow(t)
	onEveryPipeline(t, func(t *testing.T, p redis.UniversalClient, server *servers.RedisServer) {
		if !strings.HasSuffix(t.Name(), "deferred") && !strings.HasSuffix(t.Name(), "blocking") {
			t.Skip("the others send these commands at once, and what a server has got it may store")
		}
		const timeout = time.Second
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout}, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(p)}))
		first, second := c.visitor(), c.visitor()
		for _, visitor := range []*http.Client{first, second} {
			c.eventually(visitor, func(s *sessplus.Session) { s.Set("user", "ann") })
			c.eventually(visitor, func(s *sessplus.Session) { s.Set("n", 1) }) // Redis learns the script
		}
		blocking := c.begin(first, func(s *sessplus.Session) { s.Set("n", 2) })
		waiting := c.begin(second, func(s *sessplus.Session) { s.Set("n", 2) })
		server.Pause()
		defer server.Resume()
		answers := make(chan *reply)
		go func() { answers <- blocking.finish() }() // what is sent may be stored
		time.Sleep(timeout / 3)
		go func() { answers <- waiting.finish() }()
		for range 2 {
			if r := <-answers; r.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("status = %d, want 503", r.StatusCode)
			}
		}
		server.Resume()
		n := 0
		c.eventually(second, func(s *sessplus.Session) { n = s.GetInt("n") })
		time.Sleep(timeout) // for more that may come
		c.eventually(second, func(s *sessplus.Session) { n = max(n, s.GetInt("n")) })
		if n != 1 {
			t.Errorf("n = %d, want 1: the save that was answered 503 has come later", n)
		}
	})
}

// SPEC 9.1: calls that nobody waits for any more still send what they were given, and nothing of later requests.
func TestPipelineMixesUpNoMemory(t *testing.T) {
	t.Parallel()
	onEveryPipeline(t, func(t *testing.T, p redis.UniversalClient, server *servers.RedisServer) {
		b := sessplus.Redis(p)
		const visitors = 16
		own := func(i int) string { return strings.Repeat(string(rune('a'+i)), 2000) }
		serve := func(timeout time.Duration) *crowd {
			return newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout}, sessplus.Config{CookieName: "s", Backend: b}))
		}
		patient, hasty := serve(10*time.Second), serve(time.Millisecond)
		var wg sync.WaitGroup
		var failed atomic.Int64
		for i := range visitors {
			client := patient.visitor()
			patient.mustAsk(client, func(s *sessplus.Session) { s.Set("text", own(i)) })
			wg.Go(func() {
				for range times(30) {
					if r := hasty.askWith(client, func(s *sessplus.Session) {
						s.Set("text", own(i))
						s.Set(fmt.Sprint("n", time.Now().UnixNano()%7), own(i))
					}); r.StatusCode != http.StatusOK {
						failed.Add(1)
					}
					runtime.Gosched()
				}
				patient.mustAsk(client, func(s *sessplus.Session) {
					for _, name := range s.Fields() {
						if got := s.GetString(name); got != own(i) {
							t.Errorf("%s = %.20q of %d bytes, want what its visitor has set", name, got, len(got))
						}
					}
				})
			})
		}
		wg.Wait()
		if failed.Load() == 0 {
			t.Log("no request ran into its Timeout")
		}
	})
}

// SPEC 6.1, SPEC 6.8: a pipeline, or its client, may be closed while requests run; each of them is answered.
func TestPipelineThatIsClosedWhileRequestsRun(t *testing.T) {
	t.Parallel()
	for name, open := range pipelines {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(name, whole), func(t *testing.T) {
				t.Parallel()
				client := servers.NewRedis(t).Client()
				defer client.Close()
				p := open(t, client, redis.AutoPipelineOptions{})
				whole = whole && name != "in a crowd" // which is the client
				var j journal
				c := newCrowd(t, newManager(t, j.options(2*time.Second), sessplus.Config{CookieName: "s", Backend: sessplus.Redis(p)}))
				var wg sync.WaitGroup
				var closing atomic.Bool
				for range 16 {
					visitor := c.visitor()
					c.mustAsk(visitor, func(s *sessplus.Session) { s.Set("n", 0) })
					wg.Go(func() {
						for end := 0; end < 3; {
							begun := time.Now()
							late := closing.Load()
							r := c.askWith(visitor, func(s *sessplus.Session) { s.Set("n", s.GetInt("n")+1) })
							if ok := r.StatusCode == http.StatusOK; !ok && (r.StatusCode != http.StatusServiceUnavailable || !closing.Load()) {
								t.Errorf("status = %d, want 200, or 503 after Close", r.StatusCode)
							} else if !ok {
								end++
							} else if late && time.Since(begun) > time.Second {
								t.Errorf("a request after Close took %v", time.Since(begun))
							}
						}
					})
				}
				time.Sleep(50 * time.Millisecond)
				closing.Store(true)
				if !whole {
					p.Close()
				} else if err := client.Close(); err != nil {
					t.Errorf("Close() = %v", err)
				}
				wg.Wait()
				settle(t)
				if text := j.text(); !strings.Contains(text, "closed") {
					t.Errorf("the log does not say why: %.500s", text)
				}
			})
		}
	}
}

// SPEC 4.6, SPEC 5.3: a server that has forgotten the scripts is sent them again, whoever else uses the pipeline.
func TestPipelineAfterAScriptFlush(t *testing.T) {
	t.Parallel()
	onEveryPipeline(t, func(t *testing.T, p redis.UniversalClient, server *servers.RedisServer) {
		admin := closed(t, server.Client())
		c := newCrowd(t, newManager(t, nil, indexed(sessplus.Redis(p))))
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				visitor := c.visitor()
				for i := range 20 {
					r := c.askWith(visitor, func(s *sessplus.Session) {
						if i > 0 && s.GetInt("n") != i-1 {
							t.Errorf("n = %v, want %d", s.Get("n"), i-1)
						}
						s.Set("n", i)
						s.Set("user_id", fmt.Sprint("user", i%3))
					})
					if r.StatusCode != http.StatusOK {
						t.Errorf("status = %d, want 200", r.StatusCode)
					}
				}
			})
		}
		for range 20 {
			if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
				t.Errorf("ScriptFlush() = %v", err)
			}
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
	})
}

// rush lets many requests of one visitor load its session at the same time, and counts the answers by their status.
func (c *crowd) rush(cookies map[string]string) map[int]int {
	c.Helper()
	const requests = 50
	answers := make(chan int)
	for range requests {
		go func() {
			answers <- c.askWith(c.withCookies(cookies), func(s *sessplus.Session) { s.Fields() }).StatusCode
		}()
	}
	count := make(map[int]int)
	for range requests {
		count[<-answers]++
	}
	return count
}

// slowTrips makes a crowd of requests that come at the same time.
func slowTrips(c *redis.Client) *redis.Client {
	c.AddHook(tripHook(func(...redis.Cmder) { time.Sleep(5 * time.Millisecond) }))
	return c
}

// SPEC 6.1: what the program does with an AutoPipeliner of its own, from the same client, is no outage.
func TestCrowdBesideAnAutoPipelinerOfTheProgram(t *testing.T) {
	t.Parallel()
	client := slowTrips(redis.NewClient(&redis.Options{
		Addr:                servers.NewRedis(t).Addr,
		AutoPipelineOptions: &redis.AutoPipelineOptions{MaxQueuedCommands: 4},
	}))
	defer client.Close()
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(client)}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	for _, when := range []string{"before", "after"} {
		if count := c.rush(c.jar(c.client)); count[http.StatusOK] != 50 {
			t.Errorf("%s the program has closed its AutoPipeliner, statuses = %v, want 50 of 200", when, count)
		}
		own, err := client.AsyncAutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		if err := own.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}
}

// SPEC 5.3: the program's hooks see each command of a crowd once, and those of the program itself as ever.
func TestHooksInACrowd(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{
		Addr: servers.NewRedis(t).Addr, AutoPipelineOptions: &redis.AutoPipelineOptions{},
	})
	defer client.Close()
	var loads, largest atomic.Int64
	client.AddHook(tripHook(func(cmds ...redis.Cmder) {
		n := int64(0)
		for _, cmd := range cmds {
			if cmd.FullName() == "hgetall" {
				n++
			}
		}
		loads.Add(n)
		largest.Store(max(largest.Load(), n))
		time.Sleep(5 * time.Millisecond)
	}))
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(client)}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	loads.Store(0)
	c.rush(c.jar(c.client))
	if n, most := loads.Load(), largest.Load(); n != 50 || most < 2 {
		t.Errorf("a hook has seen %d loads of 50 requests, at most %d together, want 50, and several together", n, most)
	}
}

// SPEC 6.1, SPEC 6.3: a connection that has died silently holds up the calls that were sent on it, and no later ones.
func TestCrowdLeavesADeadConnection(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	p := newProxy(t, servers.NewRedis(t).Addr)
	client := slowTrips(redis.NewClient(&redis.Options{
		Addr: p.addr(), ReadTimeout: 4 * timeout, AutoPipelineOptions: &redis.AutoPipelineOptions{},
	}))
	defer client.Close()
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout},
		sessplus.Config{CookieName: "s", Backend: sessplus.Redis(client)}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	cookies := c.jar(c.client)
	c.rush(cookies)
	p.lose()
	if count := c.rush(cookies); count[http.StatusServiceUnavailable] == 0 {
		t.Errorf("statuses = %v while the connections are dead, want some 503", count)
	}
	count := c.rush(cookies)
	if count[http.StatusOK] < 40 { // a few may still get one of the dead connections, and the machine be busy
		count = c.rush(cookies)
	}
	if count[http.StatusOK] < 40 {
		t.Errorf("statuses = %v after the Timeout, want 40 of 200 or more", count)
	}
}

// SPEC 5.6, SPEC 6.9: a hook of the program that panics or exits costs the requests whose commands it has seen.
func TestPipelineWhoseHookFails(t *testing.T) {
	t.Parallel()
	for name, open := range pipelines {
		for way, quit := range ways {
			t.Run(name+"/"+way, func(t *testing.T) {
				if name == "full duplex" && way == "goexit" {
					t.Skip("go-redis 9.23 runs the hook in a goroutine of its own, and waits for it for ever")
				}
				t.Parallel()
				if name == "in a crowd" {
					t.Skip("a lone request has the goroutine to itself, as with any Client")
				}
				client := servers.NewRedis(t).Client()
				defer client.Close()
				h := newQuittingHook()
				client.AddHook(h)
				p := open(t, client, redis.AutoPipelineOptions{})
				c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Second}, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(p)}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
				h.quit.Store(&quit)
				if r := c.askWith(c.client, func(*sessplus.Session) {}); r.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("status = %d, want 503", r.StatusCode)
				}
				h.quit.Store(nil)
				c.mustAsk(c.client, wantUser(t, "ann"))
				settle(t)
			})
		}
	}
}

// SPEC 6.3: calls that a pipeline has not made yet are bounded in number, and cost no goroutine.
func TestPipelineKeepsFewCalls(t *testing.T) {
	t.Parallel()
	const timeout, most = 300 * time.Millisecond, 1000
	server := servers.NewRedis(t)
	// One more than most would be refused by go-redis, with an error of its own.
	client := server.Client()
	defer client.Close()
	p := pipelines["deferred"](t, client, redis.AutoPipelineOptions{MaxQueuedCommands: most})
	b := sessplus.Redis(p)
	var j journal
	m := newManager(t, j.options(timeout), sessplus.Config{CookieName: "s", Backend: b})
	c := newCrowd(t, m)
	c.eventually(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	req, _ := http.NewRequest("GET", c.URL, nil)
	for _, k := range c.client.Jar.Cookies(req.URL) {
		req.AddCookie(k)
	}
	h := m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ask := func() time.Duration {
		start := time.Now()
		w := &discard{header: make(http.Header)}
		h.ServeHTTP(w, req.Clone(t.Context()))
		if w.status != http.StatusServiceUnavailable {
			t.Errorf("status = %d, want 503", w.status)
		}
		return time.Since(start)
	}
	server.Pause()
	defer server.Resume()
	for range 4 {
		var wg sync.WaitGroup
		for range most / 2 {
			wg.Go(func() { ask() })
		}
		wg.Wait()
	}
	if took := ask(); took > timeout/2 {
		t.Errorf("one more call takes %v, want that it fails at once", took)
	}
	settle(t)
	text := j.text()
	if !strings.Contains(text, "have not ended yet") || strings.Contains(text, "queue full") {
		t.Errorf("the log says %.500s, want that calls have not ended yet, and not that the queue is full", text)
	}
	server.Resume()
	c.eventually(c.client, wantUser(t, "ann"))
	for range most + 1 { // those that were left have given up their places
		h.ServeHTTP(&discard{header: make(http.Header)}, req.Clone(t.Context()))
	}
	c.mustAsk(c.client, wantUser(t, "ann"))
}

// SPEC 6.3: calls that were left to themselves give up their places however they end, also with a cancellation that is
// not theirs, as of a dialer of the program.
func TestPipelineWhoseCallsAreCanceled(t *testing.T) {
	t.Parallel()
	addr := servers.NewRedis(t).Addr
	var dials atomic.Bool
	dial := func(context.Context, string, string) (net.Conn, error) {
		if dials.Load() {
			return net.Dial("tcp", addr)
		}
		time.Sleep(30 * time.Millisecond)
		return nil, context.Canceled
	}
	client := redis.NewClient(&redis.Options{Dialer: dial, DialerRetries: 1, MaxRetries: -1})
	defer client.Close()
	const timeout = 20 * time.Millisecond
	b := sessplus.Redis(pipelines["deferred"](t, client, redis.AutoPipelineOptions{}))
	load := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := b.Load(ctx, "key")
		return err
	}
	for range 3 {
		var wg sync.WaitGroup
		for range 400 {
			wg.Go(func() { load(timeout) })
		}
		wg.Wait()
		time.Sleep(10 * timeout)
	}
	dials.Store(true)
	servers.WaitFor(t, "a load, once the dialer connects", 5*time.Second, func() bool {
		return errors.Is(load(time.Second), sessplus.ErrNoRecord)
	})
}

// A history of concurrent requests, now through one connection, now through many (SPEC 4.1, SPEC 4.2, SPEC 4.4,
// SPEC 4.5, SPEC 10.5).
func TestHistoryInACrowd(t *testing.T) {
	t.Parallel()
	o := *servers.Redis(t).Options()
	client := redis.NewClient(&redis.Options{Addr: o.Addr, DB: o.DB, AutoPipelineOptions: redis.DefaultAutoPipelineOptions()})
	defer client.Close()
	seed := *historySeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	checkHistory(t, sessplus.Redis(client), seed, 100**historyTimes)
}
