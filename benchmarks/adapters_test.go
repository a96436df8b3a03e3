package main

import (
	"slices"
	"testing"
)

// TestAdapters sees that each app does what its scenario says.
func TestAdapters(t *testing.T) {
	e := &env{tb: t}
	e.redis()
	e.firestore() // the subtests share both
	for _, s := range scenarios {
		for _, lib := range slices.Concat(libraries, otherWays) {
			a := lib.open(e, s)
			if a == nil {
				continue
			}
			t.Run(s.Name+"/"+lib.Name, func(t *testing.T) {
				if err := a.check(s, lib.Name); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestCommands sees what each scenario asks of Redis.
func TestCommands(t *testing.T) {
	e := &env{tb: t}
	e.redis()
	others := map[string]int{ // with scs csrf and prefs are in Redis, too
		"scs untouched-redis": 1, "scs three-changed": 2, "scs three-one": 1,
		"hand-blind change-redis": 1, "hand-blind big-change": 1,
	}
	for _, s := range scenarios {
		if !s.usesRedis() {
			continue
		}
		for _, lib := range slices.Concat(libraries, otherWays) {
			want, known := others[lib.Name+" "+s.Name]
			if !known {
				want = s.trips
			}
			f, ok, err := count(e, s, lib, 5)
			if err != nil {
				t.Fatal(err)
			}
			commands := want
			if lib.Name == "hand-pipeline" {
				commands = 2
			}
			if ok && (f.Commands != float64(commands) || f.Trips != float64(want)) {
				t.Errorf("%s with %s: %v commands in %v round trips, want %d in %d", s.Name, lib.Name, f.Commands, f.Trips, commands, want)
			}
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	e := &env{tb: b}
	for _, s := range scenarios {
		b.Run("scenario="+s.Name, func(b *testing.B) {
			for _, lib := range slices.Concat(libraries, otherWays) {
				a := lib.open(e, s)
				if a == nil {
					continue
				}
				b.Run("lib="+lib.Name, func(b *testing.B) {
					x, err := checkedRunner(a, s, lib.Name)
					if err != nil {
						b.Fatal(err)
					}
					b.ReportAllocs()
					before := cpuTime()
					for b.Loop() {
						if err := x.run(); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op") // without servers
				})
			}
		})
	}
}
