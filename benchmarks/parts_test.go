package main

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestParts measures a little of everything, and looks at the files that come of it.
func TestParts(t *testing.T) {
	e := &env{tb: t}
	all := &results{Machine: machine(), Runs: map[string]string{}}
	for _, s := range scenarios {
		if s.Name != "read-cookie" && s.Name != "read-redis" {
			continue
		}
		r, err := measure(e, s, 1, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		l, err := measureHTTP(e, s, 1, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if s.place == inRedis {
			p, err := measureThroughput(e, s, 1, time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			all.Throughput = append(all.Throughput, p)
		}
		for name, own := range r.Libs {
			if runtime.GOOS == "linux" && (own.CPU <= 0 || r.CPURatios[name] <= 0) {
				t.Errorf("%s: the CPU time of %s is %v ns, %v of that by hand, want more", s.Name, name, own.CPU, r.CPURatios[name])
			}
		}
		all.Request, all.HTTP, all.Busy = append(all.Request, r), append(all.HTTP, l), append(all.Busy, r)
	}
	for _, grow := range growths(e, 1, time.Millisecond, 1000) {
		p, err := grow()
		if err != nil {
			t.Fatal(err)
		}
		all.Growth = append(all.Growth, p...)
	}
	dir := t.TempDir()
	if err := all.save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := loadResults(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.markdown(), all.markdown(); got != want {
		t.Errorf("results that were saved and loaded give\n%s\nwant\n%s", got, want)
	}
	charts, _ := filepath.Glob(filepath.Join(dir, "*.svg"))
	if len(charts) != 9 {
		t.Errorf("there are %d charts, want 9: %q", len(charts), charts)
	}
	for _, chart := range charts {
		b, err := os.ReadFile(chart)
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(string(b)))
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) || regexp.MustCompile(`NaN|Inf`).Match(b) {
			t.Errorf("%s: %v\n%s", filepath.Base(chart), err, b)
		}
	}
}

// TestCPUTime sees that only what this process computes counts.
func TestCPUTime(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the CPU time is known on Linux only")
	}
	spend := func(d time.Duration) {
		for end := cpuTime() + int64(d); cpuTime() < end; {
		}
	}
	wait := func(d time.Duration) { time.Sleep(d) }
	const turn, each = 50 * time.Millisecond, 5 * time.Millisecond
	cost := func(f func(time.Duration)) float64 {
		x := &runner{serve: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			f(each)
			w.WriteHeader(http.StatusNoContent)
		}), w: discard{header: make(http.Header)}, server: true}
		all, err := roundRobin(5, turn, []*runner{x})
		if err != nil {
			t.Fatal(err)
		}
		return middle(all[0].cpu)
	}
	if got := cost(spend); got < 0.9*float64(each) || got > 1.5*float64(each) {
		t.Errorf("a request that computes for %v of CPU time costs %v", each, time.Duration(got))
	}
	if got := cost(wait); got > 0.2*float64(each) {
		t.Errorf("a request that waits for %v costs %v of CPU time", each, time.Duration(got))
	}
}

// TestRepeat sees that n requests more are made, and which of the flags are refused.
func TestRepeat(t *testing.T) {
	e := &env{tb: t}
	named := func(names ...string) (list []scenario) {
		for _, s := range scenarios {
			if slices.Contains(names, s.Name) {
				list = append(list, s)
			}
		}
		return list
	}
	made := func(n int) int64 {
		before := changes.Load()
		if err := repeat(e, named("change-cookie"), "hand", n); err != nil {
			t.Fatal(err)
		}
		return changes.Load() - before
	}
	if few, many := made(10), made(110); many-few != 100 {
		t.Errorf("100 requests more made %d changes more", many-few)
	}
	for _, tt := range []struct {
		chosen []scenario
		lib    string
	}{
		{named("read-cookie", "change-cookie"), "hand"}, {nil, "hand"},
		{named("read-cookie"), "nobody"}, {named("read-cookie"), "scs"},
	} {
		if err := repeat(e, tt.chosen, tt.lib, 1); err == nil {
			t.Errorf("repeat(%d scenarios, %s) = nil", len(tt.chosen), tt.lib)
		}
	}
}

func TestGoalMet(t *testing.T) {
	g := goal{ratio: 1.5, gorilla: 5, allocs: 6}
	for _, tt := range []struct {
		ns, ratio, gorilla, allocs float64
		want                       bool
	}{
		{10, 1.5, 50, 6, true},
		{10, 1.6, 50, 6, false},
		{10, 1.5, 49, 6, false},
		{10, 1.5, 50, 7, false},
	} {
		r := row{
			Libs:   map[string]sample{"sessplus": {Ns: tt.ns, Allocs: tt.allocs}, "gorilla": {Ns: tt.gorilla}},
			Ratios: map[string]float64{"sessplus": tt.ratio},
		}
		if got := g.met(r); got != tt.want {
			t.Errorf("%+v: met is %v, want %v", tt, got, tt.want)
		}
	}
}

func TestCounter(t *testing.T) {
	const text = "*2\r\n$3\r\nGET\r\n$4\r\n*\r\n1\r\n*1\r\n$4\r\nPING\r\n"
	for size := 1; size <= len(text); size++ {
		var c counter
		got := int64(0)
		for i := 0; i < len(text); i += size {
			got += c.count([]byte(text[i:min(i+size, len(text))]))
		}
		if got != 2 {
			t.Errorf("in pieces of %d: %d commands, want 2", size, got)
		}
	}
}
