package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// A program is a minimal one, as it was built.
type program struct {
	Name   string  `json:"name"`
	Bytes  int64   `json:"bytes"`
	InitMs float64 `json:"init_ms"` // of all packages together
	RunMs  float64 `json:"run_ms"`  // from start to exit, without serving
}

// initClock is what the runtime says of a package with GODEBUG=inittrace=1.
var initClock = regexp.MustCompile(`(?m)^init \S+ @\S+ ms, (\S+) ms clock`)

// measureSize builds the programs below size/ in dir, and starts each a few times. The current directory is the
// module's.
func measureSize(dir string, rounds int) ([]program, error) {
	list := []program{{Name: "hand"}, {Name: "scs"}, {Name: "gorilla"}, {Name: "sessplus"}}
	sources := []string{"hand", "scs", "gorilla", "sessplus", "sessplus", "sessplus"}
	tags := []string{"", "", "", "", "nofirestore", "nofirestore,noredis"}
	for _, t := range tags[4:] {
		list = append(list, program{Name: "sessplus, -tags " + t})
	}
	binary := func(i int) string { return filepath.Join(dir, strconv.Itoa(i)) }
	for i := range list {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags="+tags[i], "-o", binary(i), "./size/"+sources[i])
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", list[i].Name, err, out)
		}
		info, err := os.Stat(binary(i))
		if err != nil {
			return nil, err
		}
		list[i].Bytes = info.Size()
	}
	inits, runs := make([][]float64, len(list)), make([][]float64, len(list))
	for range rounds {
		for i := range list {
			start := time.Now()
			if err := exec.Command(binary(i)).Run(); err != nil {
				return nil, fmt.Errorf("%s: %w", list[i].Name, err)
			}
			runs[i] = append(runs[i], float64(time.Since(start))/1e6)
			traced := exec.Command(binary(i))
			traced.Env = append(os.Environ(), "GODEBUG=inittrace=1")
			out, err := traced.CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", list[i].Name, err)
			}
			sum := 0.0
			for _, m := range initClock.FindAllSubmatch(out, -1) {
				ms, err := strconv.ParseFloat(string(m[1]), 64)
				if err != nil {
					return nil, err
				}
				sum += ms
			}
			inits[i] = append(inits[i], sum)
		}
	}
	for i := range list {
		list[i].InitMs, list[i].RunMs = middle(inits[i]), middle(runs[i])
	}
	return list, nil
}
