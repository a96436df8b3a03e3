package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"time"
)

// discard is a response that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// A runner sends the same request to a handler again and again.
type runner struct {
	serve  http.Handler
	base   http.Request
	cancel func()       // never called
	req    http.Request // a copy of base for each run, as gorilla keeps the session of a request in it
	w      discard
	took   time.Duration // by the last request before the measurement
	server bool          // it asks a server, or takes as long
}

func newRunner(a *app, s scenario) (*runner, error) {
	r, err := a.logIn(s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context()) // that of a request in a server can end
	x := &runner{serve: a.serve, base: *r.WithContext(ctx), cancel: cancel, w: discard{header: make(http.Header)}}
	for range 10 { // connections, scripts, caches
		start := time.Now()
		if err := x.run(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		x.took = time.Since(start)
	}
	x.server = x.took > 20*time.Microsecond
	return x, nil
}

func (x *runner) run() error {
	x.req = x.base
	clear(x.w.header)
	x.w.status = 0
	x.serve.ServeHTTP(&x.w, &x.req)
	if x.w.status != http.StatusNoContent {
		return fmt.Errorf("status %d", x.w.status)
	}
	return nil
}

// A sample is the cost of one request.
type sample struct {
	Ns     float64 `json:"ns"`
	CPU    float64 `json:"cpu_ns"` // of this process, and not of servers; 0 where it is not known
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
}

// slice runs the request for about d, and at least once. Requests of a server are timed one by one, and the median
// counts: its hiccups are nobody's. Of quicker ones, and of the CPU time, the mean counts, so that each pays for its
// garbage.
func (x *runner) slice(d time.Duration) (ns, cpu float64, err error) {
	if !x.server { // else the first requests would pay for the caches that are lost
		runtime.GC() // so that nobody pays for what another left behind
	}
	var times []float64
	used, start, n, batch := cpuTime(), time.Now(), 0, 1
	elapsed := time.Duration(0)
	for n == 0 || elapsed < d {
		for range batch {
			if err := x.run(); err != nil {
				return 0, 0, err
			}
		}
		n += batch
		now := time.Since(start)
		times = append(times, float64(now-elapsed))
		elapsed = now
		if !x.server {
			batch = max(1, min(2*batch, int(float64(n)*float64(d-elapsed)/float64(elapsed+1))))
		}
	}
	cpu = float64(cpuTime()-used) / float64(n)
	if x.server {
		return middle(times), cpu, nil
	}
	return float64(elapsed) / float64(n), cpu, nil
}

// memory is what a request allocates, with the clients' goroutines.
func (x *runner) memory() (allocs, bytes float64, err error) {
	const n = 200
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		if err := x.run(); err != nil {
			return 0, 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / n, float64(after.TotalAlloc-before.TotalAlloc) / n, nil
}

// turns are what a request took in each turn of a runner, in nanoseconds.
type turns struct{ ns, cpu []float64 }

// roundRobin lets the runners take turns, so that what disturbs the machine disturbs all of them. Every round begins
// with another one. What takes longer than a 40th of a turn has turns of one request: in a row, the emulator of
// Firestore serves them slower.
func roundRobin(rounds int, d time.Duration, runners []*runner) ([]turns, error) {
	if took := runners[0].took; took > d/40 {
		rounds, d = rounds*max(1, int(d/took)), 0
	}
	all := make([]turns, len(runners))
	for round := range rounds {
		for i := range runners {
			k := (i + round) % len(runners)
			ns, cpu, err := runners[k].slice(d)
			if err != nil {
				return nil, err
			}
			all[k] = turns{append(all[k].ns, ns), append(all[k].cpu, cpu)}
		}
	}
	return all, nil
}

// middle is the median.
func middle(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is the median of the rounds' ratios. Two turns of one round ran next to each other.
func ratio(a, b []float64) float64 {
	list := make([]float64, min(len(a), len(b)))
	for i := range list {
		list[i] = a[i] / b[i]
	}
	return middle(list)
}

// A row is what one scenario costs.
type row struct {
	Scenario  string             `json:"scenario"`
	Libs      map[string]sample  `json:"libs"`
	Ratios    map[string]float64 `json:"ratios"`               // to "hand"
	CPURatios map[string]float64 `json:"cpu_ratios,omitempty"` // the same of the CPU time, where it is known
	Goal      string             `json:"goal,omitempty"`
	Met       bool               `json:"met"`
}

// measure times a scenario with every library that has it.
func measure(e *env, s scenario, rounds int, d time.Duration) (row, error) {
	var names []string
	var runners []*runner
	for _, lib := range slices.Concat(libraries, otherWays) {
		a := lib.open(e, s)
		if a == nil {
			continue
		}
		x, err := checkedRunner(a, s, lib.Name)
		if err != nil {
			return row{}, err
		}
		names, runners = append(names, lib.Name), append(runners, x)
	}
	if s.trips > 0 { // else the two would change places, and a request take half as long on one CPU as on two
		back, err := leaveLastCPU()
		if err != nil {
			return row{}, err
		}
		defer back()
	}
	all, err := roundRobin(rounds, d, runners)
	if err != nil {
		return row{}, fmt.Errorf("%s: %w", s.Name, err)
	}
	r := row{
		Scenario: s.Name, Libs: map[string]sample{}, Ratios: map[string]float64{}, CPURatios: map[string]float64{},
		Goal: s.goal.String(),
	}
	hand := all[slices.Index(names, "hand")]
	for i, name := range names {
		allocs, bytes, err := runners[i].memory()
		if err != nil {
			return row{}, fmt.Errorf("%s: %w", s.Name, err)
		}
		r.Libs[name] = sample{Ns: middle(all[i].ns), CPU: middle(all[i].cpu), Allocs: allocs, Bytes: bytes}
		r.Ratios[name] = ratio(all[i].ns, hand.ns)
		if middle(hand.cpu) > 0 {
			r.CPURatios[name] = ratio(all[i].cpu, hand.cpu)
		}
	}
	r.Met = s.goal.met(r)
	return r, nil
}

// repeat sends n requests of the one scenario to an app of the library, and measures nothing.
func repeat(e *env, chosen []scenario, lib string, n int) error {
	all := slices.Concat(libraries, otherWays)
	i := slices.IndexFunc(all, func(l library) bool { return l.Name == lib })
	if len(chosen) != 1 || i < 0 {
		return fmt.Errorf("-n needs a -scenario that matches one of them, not %d, and the name of a -lib", len(chosen))
	}
	a := all[i].open(e, chosen[0])
	if a == nil {
		return fmt.Errorf("%s has no scenario %s", lib, chosen[0].Name)
	}
	x, err := checkedRunner(a, chosen[0], lib)
	for ; err == nil && n > 0; n-- {
		err = x.run()
	}
	return err
}

func (g goal) met(r row) bool {
	own := r.Libs["sessplus"]
	return (g.ratio == 0 || r.Ratios["sessplus"] <= g.ratio) &&
		(g.ns == 0 || own.Ns <= g.ns) &&
		(g.allocs == 0 || own.Allocs < g.allocs+0.5) &&
		(g.gorilla == 0 || r.Libs["gorilla"].Ns >= g.gorilla*own.Ns)
}
