package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Results are what the parts have measured last.
type results struct {
	Machine    string            `json:"machine"`
	Runs       map[string]string `json:"runs"` // by part: command and date
	Request    []row             `json:"request"`
	Busy       []row             `json:"busy"` // the same while no CPU is idle
	Traffic    []traffic         `json:"traffic"`
	HTTP       []load            `json:"http"`
	Throughput []plot            `json:"throughput"`
	Growth     []plot            `json:"growth"`
	Size       []program         `json:"size"`
}

// loadResults reads what earlier runs have left, so that parts can be measured one by one.
func loadResults(dir string) (*results, error) {
	all := &results{Runs: map[string]string{}}
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err == nil {
		err = json.Unmarshal(b, all)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	all.Machine = machine()
	return all, err
}

// save writes the results, the tables and the charts.
func (all *results) save(dir string) error {
	rank := func(name string) int {
		return slices.IndexFunc(scenarios, func(s scenario) bool { return s.Name == name })
	}
	for _, rows := range [][]row{all.Request, all.Busy} {
		slices.SortFunc(rows, func(a, b row) int { return rank(a.Scenario) - rank(b.Scenario) })
	}
	slices.SortFunc(all.Traffic, func(a, b traffic) int { return rank(a.Scenario) - rank(b.Scenario) })
	slices.SortFunc(all.HTTP, func(a, b load) int { return rank(a.Scenario) - rank(b.Scenario) })
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{"results.json": string(b) + "\n", "results.md": all.markdown()}
	if len(all.Request) > 0 {
		files["requests.svg"] = bars(all.Request)
	}
	for _, p := range all.Throughput {
		files["throughput-"+p.Name+".svg"] = p.svg()
	}
	for _, p := range all.Growth {
		files["growth-"+p.Name+".svg"] = p.svg()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func machine() string {
	cpu := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range bytes.Lines(b) {
			if name, value, _ := strings.Cut(string(line), ":"); strings.HasPrefix(name, "model name") {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d CPUs, %s, %s", cpu, runtime.NumCPU(), runtime.GOOS, runtime.Version())
}

// A table is one of Markdown. The first line is the head.
type table struct{ b strings.Builder }

func (t *table) line(cells ...string) {
	head := t.b.Len() == 0
	fmt.Fprintf(&t.b, "| %s |\n", strings.Join(cells, " | "))
	if head {
		t.b.WriteString("|" + strings.Repeat("---|", len(cells)) + "\n")
	}
}

// markdown is all tables.
func (all *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results\n\n%s\n", all.Machine)
	section := func(part, title string, t *table) {
		if t.b.Len() > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s", title, all.Runs[part], t.b.String())
		}
	}
	section("request", "One request, in-process: time, CPU time, allocations, bytes allocated", requestTable(all.Request))
	section("request", "Other ways", otherTable(all.Request))
	section("busy", "The same requests while no CPU is idle", requestTable(all.Busy))
	section("traffic", "Redis, per request: commands, bytes sent and received", all.trafficTable())
	section("http", fmt.Sprintf("Loopback HTTP, %d keep-alive connections: requests per second, p50, p99", connections), all.httpTable())
	for _, p := range all.Throughput {
		section("throughput", p.Title+": "+p.Y, p.table())
	}
	for _, p := range all.Growth {
		section("growth", p.Title+": "+p.Y, p.table())
	}
	section("size", "A minimal program with cookie sessions (scs: in memory), stripped", all.sizeTable())
	return b.String()
}

func (s sample) String() string {
	cpu := "-"
	if s.CPU > 0 {
		cpu = duration(s.CPU)
	}
	return fmt.Sprintf("%s, %s, %.0f, %s", duration(s.Ns), cpu, s.Allocs, size(s.Bytes))
}

// cell is a library's figure, or a dash.
func cell[T any](m map[string]T, name string, text func(T) string) string {
	if v, ok := m[name]; ok {
		return text(v)
	}
	return "-"
}

func requestTable(rows []row) *table {
	t := &table{}
	text := func(ratio float64) string { return fmt.Sprintf("%.2f", ratio) }
	for i, r := range rows {
		if i == 0 {
			t.line("scenario", "hand", "scs", "gorilla", "sessplus", "sessplus / hand", "CPU: sessplus / hand", "goal", "met")
		}
		cells := []string{r.Scenario}
		for _, lib := range libraries {
			cells = append(cells, cell(r.Libs, lib.Name, sample.String))
		}
		met := "no"
		if r.Goal == "" {
			met = "-"
		} else if r.Met {
			met = "yes"
		}
		t.line(append(cells, text(r.Ratios["sessplus"]), cell(r.CPURatios, "sessplus", text), r.Goal, met)...)
	}
	return t
}

func otherTable(rows []row) *table {
	t := &table{}
	for _, r := range rows {
		for _, lib := range otherWays {
			if s, ok := r.Libs[lib.Name]; ok {
				if t.b.Len() == 0 {
					t.line("scenario", "way", "cost", "to hand", "sessplus / this")
				}
				t.line(r.Scenario, lib.Name, s.String(), fmt.Sprintf("%.2f", r.Ratios[lib.Name]),
					fmt.Sprintf("%.2f", r.Ratios["sessplus"]/r.Ratios[lib.Name]))
			}
		}
	}
	return t
}

func (all *results) trafficTable() *table {
	t := &table{}
	for i, r := range all.Traffic {
		if i == 0 {
			t.line("scenario", "hand", "scs", "gorilla", "sessplus")
		}
		cells := []string{r.Scenario}
		for _, lib := range libraries {
			cells = append(cells, cell(r.Libs, lib.Name, func(f flows) string {
				return fmt.Sprintf("%g, %s, %s", f.Commands, size(f.Sent), size(f.Received))
			}))
		}
		t.line(cells...)
	}
	return t
}

func (all *results) httpTable() *table {
	t := &table{}
	for i, r := range all.HTTP {
		if i == 0 {
			t.line("scenario", "hand", "scs", "gorilla", "sessplus", "sessplus / hand")
		}
		cells := []string{r.Scenario}
		for _, lib := range libraries {
			cells = append(cells, cell(r.Libs, lib.Name, func(s speed) string {
				return fmt.Sprintf("%.0f/s, %s, %s", s.PerSecond, duration(s.P50), duration(s.P99))
			}))
		}
		t.line(append(cells, fmt.Sprintf("%.2f", r.Ratio))...)
	}
	return t
}

func (all *results) sizeTable() *table {
	t := &table{}
	for i, p := range all.Size {
		if i == 0 {
			t.line("program", "binary", "package init", "start to exit")
		}
		t.line(p.Name, fmt.Sprintf("%.1f MB", float64(p.Bytes)/1e6), fmt.Sprintf("%.2f ms", p.InitMs), fmt.Sprintf("%.1f ms", p.RunMs))
	}
	return t
}

// duration in three figures.
func duration(ns float64) string {
	switch {
	case ns >= 10e6:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	case ns >= 100e3:
		return fmt.Sprintf("%.0f µs", ns/1e3)
	case ns >= 10e3:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	}
	return fmt.Sprintf("%.2f µs", ns/1e3)
}

// size is a number of bytes.
func size(n float64) string {
	if n >= 10e3 {
		return fmt.Sprintf("%.1f kB", n/1e3)
	}
	return fmt.Sprintf("%.0f B", n)
}
