// Command benchmarks compares sessplus with code written by hand for one program, scs and gorilla/sessions, and writes
// results/. README.md says what is measured.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var parts = []string{"request", "traffic", "http", "throughput", "growth", "size"}

func main() {
	part := flag.String("part", strings.Join(parts, ","), "what to measure, separated by commas")
	rounds := flag.Int("rounds", 101, "how often the libraries take turns; over HTTP, and for sizes, a tenth of it")
	benchtime := flag.Duration("benchtime", 10*time.Millisecond, "how long a turn is; over HTTP fifty times as long")
	pattern := flag.String("scenario", "", "measure only the scenarios that match this regular expression")
	out := flag.String("out", "results", "the directory for tables and charts")
	busy := flag.Bool("busy", false, "let another program keep every CPU busy during -part request")
	n := flag.Int("n", 0, "only send this many requests of one -scenario to one -lib, for a tool that counts instructions")
	lib := flag.String("lib", "sessplus", "the library of -n")
	sessions := flag.Int("sessions", 1_000_000, "the most live sessions of -part growth")
	flag.Parse()

	os.Setenv("JAVA", "exec java") // the Firestore emulator runs for long enough to be compiled thoroughly

	tb := &process{}
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	go func() {
		<-interrupt
		tb.Fatal("interrupted")
	}()
	match, err := regexp.Compile(*pattern)
	if err != nil {
		tb.Fatal(err)
	}
	e := &env{tb: tb}
	all, err := loadResults(*out)
	e.must(err)
	var chosen []scenario
	for _, s := range scenarios {
		if match.MatchString(s.Name) {
			chosen = append(chosen, s)
		}
	}
	if *n > 0 {
		e.must(repeat(e, chosen, *lib, *n))
		tb.end()
		return
	}
	for p := range strings.SplitSeq(*part, ",") {
		if !slices.Contains(parts, p) || *rounds < 1 {
			tb.Fatal("see -help: no such part, or no rounds")
		}
		run, how, requests := p, "", &all.Request
		if *busy && p == "request" {
			run, how, requests = "busy", " -busy", &all.Busy
		}
		all.Runs[run] = fmt.Sprintf("`go run . -part %s%s -rounds %d -benchtime %v`, %s", p, how, *rounds, *benchtime, time.Now().Format(time.DateOnly))
		switch p {
		case "request":
			apart := &env{tb: tb, redisArgs: onOwnCPU()}
			idle := func() {}
			if *busy {
				idle = occupy(tb)
			}
			for _, s := range chosen {
				progress(s.Name)
				r, err := measure(apart, s, *rounds, *benchtime)
				e.must(err)
				if *busy { // goals are for a machine that has nothing else to do
					r.Goal, r.Met = "", false
				}
				*requests = put(*requests, r, func(r row) string { return r.Scenario })
			}
			idle()
		case "traffic":
			for _, s := range chosen {
				if s.usesRedis() {
					progress("traffic of " + s.Name)
					t, err := measureTraffic(e, s)
					e.must(err)
					all.Traffic = put(all.Traffic, t, func(t traffic) string { return t.Scenario })
				}
			}
		case "http":
			for _, s := range chosen {
				if slices.Contains(overHTTP, s.Name) {
					progress("HTTP: " + s.Name)
					l, err := measureHTTP(e, s, (*rounds+9)/10, 50**benchtime)
					e.must(err)
					all.HTTP = put(all.HTTP, l, func(l load) string { return l.Scenario })
				}
			}
		case "throughput":
			for _, s := range chosen {
				if s.Name == "read-redis" || s.Name == "change-redis" {
					progress("throughput: " + s.Name)
					p, err := measureThroughput(e, s, *rounds, *benchtime)
					e.must(err)
					all.Throughput = put(all.Throughput, p, func(p plot) string { return p.Name })
				}
			}
		case "growth":
			for _, grow := range growths(e, *rounds, *benchtime, *sessions) {
				p, err := grow()
				e.must(err)
				for _, p := range p {
					progress("growth: " + p.Title)
					all.Growth = put(all.Growth, p, func(p plot) string { return p.Name })
				}
			}
		case "size":
			progress("size")
			all.Size, err = measureSize(tb.TempDir(), (*rounds+9)/10)
			e.must(err)
		}
		e.must(all.save(*out))
	}
	tb.end()
	fmt.Print(all.markdown())
}

func progress(what string) { fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), what) }

// put replaces the item with the key of the new one, or appends it.
func put[T any](list []T, item T, key func(T) string) []T {
	if i := slices.IndexFunc(list, func(t T) bool { return key(t) == key(item) }); i >= 0 {
		list[i] = item
		return list
	}
	return append(list, item)
}

// A process is what the servers of a program take for a test. Only these of its methods are called.
type process struct {
	testing.TB
	mu       sync.Mutex // guards cleanups
	cleanups []func()
}

func (p *process) Helper() {}

func (p *process) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}

func (p *process) TempDir() string {
	dir, err := os.MkdirTemp("", "benchmarks")
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (p *process) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	p.end()
	os.Exit(1)
}

func (p *process) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }

func (p *process) Skip(args ...any) { p.Fatal(args...) }

func (p *process) end() {
	p.mu.Lock()
	list := p.cleanups
	p.cleanups = nil
	p.mu.Unlock()
	for _, f := range slices.Backward(list) {
		f()
	}
}
