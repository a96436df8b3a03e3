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
}

func newRunner(a *app, s scenario) (*runner, error) {
	r, err := a.logIn(s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context()) // that of a request in a server can end
	x := &runner{serve: a.serve, base: *r.WithContext(ctx), cancel: cancel, w: discard{header: make(http.Header)}}
	for range 3 { // connections, scripts, caches
		if err := x.run(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
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
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
}

// single is how long a request must take to be timed alone.
const single = 20 * time.Microsecond

// slice runs the request for about d. Requests of a server are timed one by one, and the median counts: its hiccups are
// nobody's. Of quicker ones the mean counts, so that each pays for its garbage. Allocations count whole: also those of the
// clients' goroutines.
func (x *runner) slice(d time.Duration) (sample, error) {
	runtime.GC() // so that nobody pays for what another left behind
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var alone []float64
	start, n, batch := time.Now(), 0, 1
	elapsed, last := time.Duration(0), time.Duration(0)
	for elapsed < d {
		for range batch {
			if err := x.run(); err != nil {
				return sample{}, err
			}
		}
		n += batch
		last, elapsed = elapsed, time.Since(start)
		if batch == 1 {
			alone = append(alone, float64(elapsed-last))
		}
		if elapsed < time.Duration(n)*single {
			batch = max(1, min(2*batch, int(float64(n)*float64(d-elapsed)/float64(elapsed+1))))
		}
	}
	runtime.ReadMemStats(&after)
	s := sample{
		Ns:     float64(elapsed) / float64(n),
		Allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		Bytes:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}
	if len(alone) == n {
		s.Ns = middle(alone)
	}
	return s, nil
}

// roundRobin lets the runners take turns, so that what disturbs the machine disturbs all of them, and returns each
// runner's samples. Every round begins with another one.
func roundRobin(rounds int, d time.Duration, runners []*runner) ([][]sample, error) {
	samples := make([][]sample, len(runners))
	for round := range rounds {
		for i := range runners {
			k := (i + round) % len(runners)
			s, err := runners[k].slice(d)
			if err != nil {
				return nil, err
			}
			samples[k] = append(samples[k], s)
		}
	}
	return samples, nil
}

// median of the samples, each figure for itself.
func median(list []sample) sample {
	of := func(value func(s sample) float64) float64 {
		values := make([]float64, len(list))
		for i, s := range list {
			values[i] = value(s)
		}
		return middle(values)
	}
	return sample{
		Ns:     of(func(s sample) float64 { return s.Ns }),
		Allocs: of(func(s sample) float64 { return s.Allocs }),
		Bytes:  of(func(s sample) float64 { return s.Bytes }),
	}
}

func middle(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is the median of the rounds' ratios. Two slices of one round ran next to each other.
func ratio(a, b []sample) float64 {
	list := make([]float64, min(len(a), len(b)))
	for i := range list {
		list[i] = a[i].Ns / b[i].Ns
	}
	return middle(list)
}

// A row is what one scenario costs.
type row struct {
	Scenario string             `json:"scenario"`
	Libs     map[string]sample  `json:"libs"`
	Ratios   map[string]float64 `json:"ratios"` // to "hand"
	Goal     string             `json:"goal,omitempty"`
	Met      bool               `json:"met"`
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
	samples, err := roundRobin(rounds, d, runners)
	if err != nil {
		return row{}, fmt.Errorf("%s: %w", s.Name, err)
	}
	r := row{Scenario: s.Name, Libs: map[string]sample{}, Ratios: map[string]float64{}, Goal: s.goal.String()}
	hand := samples[slices.Index(names, "hand")]
	for i, name := range names {
		r.Libs[name] = median(samples[i])
		r.Ratios[name] = ratio(samples[i], hand)
	}
	r.Met = s.goal.met(r)
	return r, nil
}

func (g goal) met(r row) bool {
	own := r.Libs["sessplus"]
	return (g.ratio == 0 || r.Ratios["sessplus"] <= g.ratio) &&
		(g.ns == 0 || own.Ns <= g.ns) &&
		(g.allocs == 0 || own.Allocs < g.allocs+0.5) &&
		(g.gorilla == 0 || r.Libs["gorilla"].Ns >= g.gorilla*own.Ns)
}
