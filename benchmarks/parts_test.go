package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
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
		all.Request, all.HTTP = append(all.Request, r), append(all.HTTP, l)
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
