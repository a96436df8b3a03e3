package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
)

// growths are the plots, one function each; a function may give several.
func growths(e *env, rounds int, d time.Duration, sessions int) []func() ([]plot, error) {
	one := func(p plot, err error) ([]plot, error) { return []plot{p}, err }
	return []func() ([]plot, error){
		func() ([]plot, error) { return one(growConfigs(e, rounds, d)) },
		func() ([]plot, error) { return one(growFields(e, rounds, d)) },
		func() ([]plot, error) { return one(growBytes(e, rounds, d)) },
		func() ([]plot, error) { return growSessions(e, sessions) },
		func() ([]plot, error) { return one(growConcurrency(e, rounds, d)) },
		func() ([]plot, error) { return one(growLatency(e, rounds, d)) },
	}
}

// A subject is a line of a plot, with an app for each x.
type subject struct {
	name string
	open func(x int) *app
}

// grow times the subjects for each x, in turns.
func grow(p plot, xs []int, rounds int, d time.Duration, subjects []subject) (plot, error) {
	p.Y = "µs per request"
	p.Lines = make([]series, len(subjects))
	for _, x := range xs {
		var runners []*runner
		for _, s := range subjects {
			r, err := newRunner(s.open(x), scenario{Name: s.name, do: read})
			if err != nil {
				return p, err
			}
			runners = append(runners, r)
		}
		all, err := roundRobin(rounds, d, runners)
		if err != nil {
			return p, err
		}
		for i, s := range subjects {
			p.Lines[i].Name = s.name
			p.Lines[i].Y = append(p.Lines[i].Y, middle(all[i].ns)/1e3)
		}
	}
	return p, nil
}

func labels(xs []int, unit string) []string {
	list := make([]string, len(xs))
	for i, x := range xs {
		switch {
		case x >= 1_000_000 && x%1_000_000 == 0:
			list[i] = fmt.Sprintf("%d M", x/1_000_000)
		case x >= 1000 && x%1000 == 0:
			list[i] = fmt.Sprintf("%d k", x/1000)
		default:
			list[i] = fmt.Sprintf("%d ", x)
		}
		list[i] = strings.TrimSpace(list[i] + unit)
	}
	return list
}

func fieldName(i int) string { return fmt.Sprintf("f%04d", i) }

// fillFields sets the fields 0 to n-1.
func fillFields(n int) func(k *sessplus.Session) {
	return func(k *sessplus.Session) {
		for i := range n {
			k.Set(fieldName(i), i+1)
		}
	}
}

// readFields reads the fields 0 to n-1.
func readFields(n int) func(k *sessplus.Session) bool {
	names := make([]string, n)
	for i := range names {
		names[i] = fieldName(i)
	}
	return func(k *sessplus.Session) bool {
		ok := true
		for i, name := range names {
			ok = ok && k.GetInt(name) == i+1
		}
		return ok
	}
}

func growConfigs(e *env, rounds int, d time.Duration) (plot, error) {
	// configs makes n of them with a field each.
	configs := func(n int, backend sessplus.Backend, lazy bool) *sessplus.Manager {
		list := make([]sessplus.Config, n)
		for i := range list {
			list[i] = sessplus.Config{CookieName: fmt.Sprintf("c%d", i), Fields: sessplus.Include(fieldName(i)), Backend: backend, Lazy: lazy}
		}
		return newManager(e, list...)
	}
	xs := []int{1, 4, 16}
	return grow(plot{Name: "configs", Title: "Number of configs", X: labels(xs, "")}, xs, rounds, d, []subject{
		{"secure cookies, all read", func(n int) *app { return sessplusApp(configs(n, nil, false), fillFields(n), readFields(n)) }},
		{"secure cookies, one read", func(n int) *app { return sessplusApp(configs(n, nil, false), fillFields(n), readFields(1)) }},
		{"Redis, all read", func(n int) *app {
			return sessplusApp(configs(n, sessplus.Redis(e.redis()), false), fillFields(n), readFields(n))
		}},
		{"Redis, lazy, one read", func(n int) *app {
			return sessplusApp(configs(n, sessplus.Redis(e.redis()), true), fillFields(n), readFields(1))
		}},
	})
}

func growFields(e *env, rounds int, d time.Duration) (plot, error) {
	changeOne := func(k *sessplus.Session) bool {
		k.Set(fieldName(0), next())
		return true
	}
	open := func(backend func() sessplus.Backend, do func(k *sessplus.Session) bool) func(n int) *app {
		return func(n int) *app {
			return sessplusApp(newManager(e, sessplus.Config{CookieName: "session", Backend: backend()}), fillFields(n), do)
		}
	}
	redis := func() sessplus.Backend { return sessplus.Redis(e.redis()) }
	xs := []int{1, 10, 100, 1000}
	return grow(plot{Name: "fields", Title: "Number of fields in the record", X: labels(xs, "")}, xs, rounds, d, []subject{
		{"Redis, one read", open(redis, readFields(1))},
		{"Redis, one changed", open(redis, changeOne)},
		{"Redis by hand (HGETALL), one read", func(n int) *app { return handFields(e.redis(), n) }},
		{"memory, one read", open(sessplus.Memory, readFields(1))},
		{"memory, one changed", open(sessplus.Memory, changeOne)},
	})
}

// handFields reads a hash of n fields, and decodes one.
func handFields(rdb *redis.Client, n int) *app {
	return &app{
		login: func(w http.ResponseWriter, r *http.Request) error {
			var more []any
			for i := range n {
				more = append(more, fieldName(i), i+1)
			}
			return createRecord(w, r, rdb, more...)
		},
		serve: handler(func(_ http.ResponseWriter, r *http.Request) bool {
			hash, err := rdb.HGetAll(r.Context(), recordKey(sessionID(r))).Result()
			return err == nil && atoi(hash[fieldName(0)]) == 1
		}),
	}
}

func growBytes(e *env, rounds int, d time.Duration) (plot, error) {
	open := func(backend func() sessplus.Backend, do func(k *sessplus.Session, big string) bool) func(n int) *app {
		return func(n int) *app {
			big := strings.Repeat("0123456789", n/10)
			return sessplusApp(newManager(e, sessplus.Config{CookieName: "session", Backend: backend()}), func(k *sessplus.Session) {
				fillUser(k)
				k.Set("big", big)
			}, func(k *sessplus.Session) bool { return do(k, big) })
		}
	}
	readSmall := func(k *sessplus.Session, _ string) bool { return k.GetInt("user_id") == userID }
	changeSmall := func(k *sessplus.Session, _ string) bool {
		k.Set("visits", next())
		return true
	}
	changeBig := func(k *sessplus.Session, big string) bool {
		k.Set("big", fmt.Sprintf("%010d", next())+big[10:])
		return true
	}
	redis := func() sessplus.Backend { return sessplus.Redis(e.redis()) }
	xs := []int{10, 100, 1000, 10_000, 100_000}
	return grow(plot{Name: "bytes", Title: "Bytes of one field beside four small ones", X: labels(xs, "B")}, xs, rounds, d, []subject{
		{"Redis, a small field read", open(redis, readSmall)},
		{"Redis, a small field changed", open(redis, changeSmall)},
		{"Redis, the large field changed", open(redis, changeBig)},
		{"memory, a small field read", open(sessplus.Memory, readSmall)},
		{"memory, a small field changed", open(sessplus.Memory, changeSmall)},
	})
}

// growSessions fills memory with up to most sessions, and looks at their size and at the longest request: what a busy
// machine adds to it is not in each of three turns, so the least counts.
func growSessions(e *env, most int) ([]plot, error) {
	var xs []int
	for _, n := range []int{1000, 100_000, 1_000_000} {
		if n <= most {
			xs = append(xs, n)
		}
	}
	bytes := plot{Name: "sessions", Title: "Live sessions in memory", X: labels(xs, ""), Y: "bytes per session"}
	pause := plot{Name: "pause", Title: "Live sessions in memory: the longest of all requests", X: labels(xs, ""), Y: "µs"}
	subjects := []struct {
		name string
		open func() (create, read http.Handler)
	}{
		{"sessplus.Memory", func() (create, read http.Handler) {
			m := newManager(e, sessplus.Config{CookieName: "session", Backend: sessplus.Memory()})
			fill := sessplusApp(m, fillUser, func(k *sessplus.Session) bool {
				fillUser(k)
				return true
			})
			return fill.serve, sessplusApp(m, fillUser, func(k *sessplus.Session) bool { return k.GetInt("user_id") == userID }).serve
		}},
		{"map[string][]byte by hand", plainMap},
	}
	for _, s := range subjects {
		bytes.Lines, pause.Lines = append(bytes.Lines, series{Name: s.name}), append(pause.Lines, series{Name: s.name})
	}
	for k, n := range xs {
		for turn := range 3 {
			for i, s := range subjects {
				perSession, longest, err := live(s.open, n)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", s.name, err)
				}
				b, p := &bytes.Lines[i], &pause.Lines[i]
				if turn == 0 {
					b.Y, p.Y = append(b.Y, perSession), append(p.Y, longest)
				}
				b.Y[k], p.Y[k] = min(b.Y[k], perSession), min(p.Y[k], longest)
			}
		}
	}
	return []plot{bytes, pause}, nil
}

// live makes n sessions and reads some. It returns the bytes per session and the microseconds of the longest request.
func live(open func() (create, read http.Handler), n int) (perSession, longest float64, err error) {
	const readers = 1000
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	create, read := open()
	x := &runner{serve: create, base: *httptest.NewRequest("GET", "/", nil), w: discard{header: make(http.Header)}}
	run := func() error {
		start := time.Now()
		err := x.run()
		longest = max(longest, float64(time.Since(start))/1e3)
		return err
	}
	var cookies []string
	for i := range n {
		if err := run(); err != nil {
			return 0, 0, err
		}
		if i%(n/readers) == 0 {
			cookie, _, _ := strings.Cut(x.w.header.Get("Set-Cookie"), ";")
			cookies = append(cookies, cookie)
		}
	}
	clear(x.w.header)
	perSession = (heap() - before) / float64(n)
	x.serve = read
	for range 20 * readers {
		x.base.Header = http.Header{"Cookie": {cookies[rand.IntN(len(cookies))]}}
		if err := run(); err != nil {
			return 0, 0, err
		}
	}
	runtime.KeepAlive(create)
	return perSession, longest, nil
}

// plainMap keeps sessions as CBOR in a map.
func plainMap() (create, read http.Handler) {
	var mu sync.RWMutex // guards sessions
	sessions := make(map[string][]byte)
	create = handler(func(w http.ResponseWriter, _ *http.Request) bool {
		id := newID()
		b, err := cbor.Marshal(&user{UserID: userID, Name: name, Plan: plan})
		mu.Lock()
		sessions[id] = b
		mu.Unlock()
		setCookie(w, "session", id)
		return err == nil
	})
	return create, handler(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.RLock()
		b := sessions[sessionID(r)]
		mu.RUnlock()
		var u user
		return cbor.Unmarshal(b, &u) == nil && u.UserID == userID
	})
}

// growConcurrency lets many requests run at once, each with a session of its own.
func growConcurrency(e *env, rounds int, d time.Duration) (plot, error) {
	xs := []int{1, 4, 16, 64, 256, 512}
	p := plot{Name: "concurrency", Title: "Concurrent requests", X: labels(xs, ""), Y: "µs of the whole machine per request"}
	var entrants []entrant
	for _, s := range []scenario{{Name: "Redis", place: inRedis, do: read}, {Name: "secure cookie", place: inCookie, do: read}, {Name: "memory", place: inMemory, do: read}} {
		for _, lib := range []library{{"hand", openHand}, {"sessplus", openSessplus}} {
			entrants = append(entrants, entrant{s.Name + ", " + lib.Name, s, lib.open})
		}
	}
	return race(e, p, xs, rounds, d, entrants, func(ns float64) float64 { return ns / 1e3 })
}

// measureThroughput says how many requests on Redis are served with so many at once, and one client for all of them.
// The last two send their commands together, from a number of them on, or always.
func measureThroughput(e *env, s scenario, rounds int, d time.Duration) (plot, error) {
	xs := []int{1, 8, 64, 256, 1024}
	p := plot{Name: s.Name, Title: "Concurrent requests, " + s.What, X: labels(xs, ""), Y: "requests per second"}
	return race(e, p, xs, rounds, d, []entrant{
		{"hand", s, openHand}, {"scs", s, openSCS}, {"sessplus", s, openSessplus},
		{"sessplus, AutoPipelineOptions", s, openSessplusCrowded},
		{"sessplus, AsyncAutoPipeline", s, openSessplusPipeline},
	}, func(ns float64) float64 { return 1e9 / ns })
}

// An entrant is a line of a plot whose requests run at once.
type entrant struct {
	name string
	s    scenario
	open func(e *env, s scenario) *app
}

// race times the entrants for each number of concurrent requests, in turns. y makes its result of the nanoseconds per
// request.
func race(e *env, p plot, xs []int, rounds int, d time.Duration, entrants []entrant, y func(ns float64) float64) (plot, error) {
	p.Lines = make([]series, len(entrants))
	for _, n := range xs {
		teams := make([][]*runner, len(entrants))
		for i, entrant := range entrants {
			a := entrant.open(e, entrant.s)
			teams[i] = make([]*runner, n)
			for k := range teams[i] {
				x, err := newRunner(a, entrant.s)
				if err != nil {
					return p, err
				}
				teams[i][k] = x
			}
		}
		costs := make([][]float64, len(teams))
		for turn := range (rounds + 4) / 5 {
			for k := range teams {
				i := (turn + k) % len(teams) // nobody always follows the same one
				cost, err := together(teams[i], 5*d)
				if err != nil {
					return p, err
				}
				costs[i] = append(costs[i], cost)
			}
		}
		for i, entrant := range entrants {
			p.Lines[i].Name = entrant.name
			p.Lines[i].Y = append(p.Lines[i].Y, y(middle(costs[i])))
		}
	}
	return p, nil
}

// together runs all for about d, and returns the nanoseconds that passed per request.
func together(runners []*runner, d time.Duration) (float64, error) {
	var all sync.WaitGroup
	counts, errs := make([]int, len(runners)), make([]error, len(runners))
	start := time.Now()
	for i, x := range runners {
		all.Go(func() {
			for more := true; more; more = errs[i] == nil && time.Since(start) < d {
				errs[i] = x.run()
				counts[i]++
			}
		})
	}
	all.Wait()
	elapsed, total := time.Since(start), 0
	for i, n := range counts {
		total += n
		if errs[i] != nil {
			return 0, errs[i]
		}
	}
	return float64(elapsed) / float64(total), nil
}

// growLatency puts servers far away. A request with several waits for the slowest, not for the sum.
func growLatency(e *env, rounds int, d time.Duration) (plot, error) {
	e.redis() // starts the server
	far := func(ms int) sessplus.Backend {
		p := newProxy(e.tb, e.redisAddr, time.Duration(ms)*time.Millisecond)
		return sessplus.Redis((&env{tb: e.tb, redisAddr: p.addr}).redis())
	}
	// open makes three configs with these backends and a field each.
	open := func(backends ...sessplus.Backend) *sessplus.Manager {
		var list []sessplus.Config
		for i, b := range backends {
			list = append(list, sessplus.Config{CookieName: fmt.Sprintf("c%d", i), Fields: sessplus.Include(fieldName(i)), Backend: b})
		}
		return newManager(e, list...)
	}
	changeAll := func(k *sessplus.Session) bool {
		for i := range 3 {
			k.Set(fieldName(i), next())
		}
		return true
	}
	xs := []int{1, 5, 20}
	return grow(plot{Name: "latency", Title: "Latency of Redis, one way", X: labels(xs, "ms")}, xs, rounds, d, []subject{
		{"one config, read", func(ms int) *app { return sessplusApp(open(far(ms)), fillFields(1), readFields(1)) }},
		{"three on one client, read", func(ms int) *app {
			b := far(ms)
			return sessplusApp(open(b, b, b), fillFields(3), readFields(3))
		}},
		{"three on servers of their own, read", func(ms int) *app {
			return sessplusApp(open(far(ms), far(ms), far(ms)), fillFields(3), readFields(3))
		}},
		{"three on servers of their own, read and changed", func(ms int) *app {
			return sessplusApp(open(far(ms), far(ms), far(ms)), fillFields(3), changeAll)
		}},
	})
}
