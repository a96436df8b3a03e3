package sessplus_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessplus/sessplus"
)

// fourFields is a record of four small fields.
func fourFields() *sessplus.Record {
	now := time.Now()
	return &sessplus.Record{Created: now, Saved: now, Expires: now.Add(time.Hour), Fields: []sessplus.RawField{
		{Name: "user_id", Value: []byte("42")}, {Name: "name", Value: []byte(`"Ann"`)},
		{Name: "visits", Value: []byte("0")}, {Name: "plan", Value: []byte(`"gold"`)},
	}}
}

// setFields is a change that sets the fields and keeps the expiry.
func setFields(r *sessplus.Record, fields ...sessplus.RawField) *sessplus.Change {
	return &sessplus.Change{Set: fields, Now: r.Created, Expires: r.Expires}
}

// memoryKey is a key as long as that of a config with the default KeyPrefix.
func memoryKey(i int) string { return fmt.Sprintf("session:session:%064x", i) }

// heapOf returns the bytes that what f makes takes on the heap.
func heapOf(f func() any) int {
	heap := func() int {
		runtime.GC()
		runtime.GC() // what the first one has found in pools, too
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	made := f()
	size := heap() - before
	runtime.KeepAlive(made)
	return size
}

// A session of four small fields takes at most 300 bytes, also after a change, and what has expired makes room.
func TestMemoryPerSession(t *testing.T) {
	n := times(100_000)
	create := func(t *testing.T, b sessplus.Backend, from int) {
		r := fourFields()
		for i := range n {
			if err := b.Create(t.Context(), memoryKey(from+i), r); err != nil {
				t.Fatalf("Create = %v", err)
			}
		}
	}
	plain := heapOf(func() any {
		m := make(map[string][]byte)
		for i := range n {
			m[fmt.Sprintf("%043d", i)] = make([]byte, 20)
		}
		return m
	}) / n
	for name, f := range map[string]func(*testing.T) any{
		"new": func(t *testing.T) any {
			b := sessplus.Memory()
			create(t, b, 0)
			return b
		},
		"changed": func(t *testing.T) any {
			b := sessplus.Memory()
			create(t, b, 0)
			c := setFields(fourFields(), sessplus.RawField{Name: "visits", Value: []byte("12")})
			for i := range n {
				if _, err := b.Update(t.Context(), memoryKey(i), c); err != nil {
					t.Fatalf("Update = %v", err)
				}
			}
			return b
		},
		"in place of expired ones": func(t *testing.T) (b any) {
			synctest.Test(t, func(t *testing.T) {
				m := sessplus.Memory()
				create(t, m, 0)
				time.Sleep(2 * time.Hour)
				create(t, m, n)
				b = m
			})
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := heapOf(func() any { return f(t) }) / n
			t.Logf("%d bytes per session, and %d in a plain map", got, plain)
			if got > 300 || got > 3*plain {
				t.Errorf("%d bytes per session, want at most 300 and three times the %d of a plain map", got, plain)
			}
		})
	}
}

// SPEC 9.2: a change of one small field in a record of 50 KB copies that field, whether the others are few or many, and
// came with the first save or later.
func TestMemoryChangeOfALargeRecord(t *testing.T) {
	const size, changes = 50 << 10, 1000
	for _, each := range []int{size, 1000, 10} {
		var others []sessplus.RawField
		for i := range size / each {
			others = append(others, sessplus.RawField{Name: fmt.Sprint("f", i), Value: make([]byte, each)})
		}
		for _, later := range []bool{false, true} {
			b, r := sessplus.Memory(), fourFields()
			set := func(fields ...sessplus.RawField) {
				if _, err := b.Update(t.Context(), "key", setFields(r, fields...)); err != nil {
					t.Fatalf("Update = %v", err)
				}
			}
			if !later {
				r.Fields = append(r.Fields, others...)
			}
			if err := b.Create(t.Context(), "key", r); err != nil {
				t.Fatalf("Create = %v", err)
			}
			for i := range others {
				if later {
					set(others[i])
				}
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range changes {
				set(sessplus.RawField{Name: "visits", Value: []byte("12")})
			}
			runtime.ReadMemStats(&after)
			if got := (after.TotalAlloc - before.TotalAlloc) / changes; got > 1000 {
				t.Errorf("%d fields of %d bytes, saved later: %v: a change allocates %d bytes, want at most 1000",
					len(others), each, later, got)
			}
		}
	}
}

// A large field that is replaced is gone.
func TestMemoryForgetsALargeValue(t *testing.T) {
	const n, size = 100, 50 << 10
	got := heapOf(func() any {
		b, r := sessplus.Memory(), fourFields()
		for i := range n {
			r.Fields = append(fourFields().Fields, sessplus.RawField{Name: "large", Value: make([]byte, size)})
			if err := b.Create(t.Context(), memoryKey(i), r); err != nil {
				t.Fatalf("Create = %v", err)
			}
			c := setFields(r, sessplus.RawField{Name: "large", Value: make([]byte, size)})
			if _, err := b.Update(t.Context(), memoryKey(i), c); err != nil {
				t.Fatalf("Update = %v", err)
			}
		}
		return b
	}) / n
	if got > 3*size/2 {
		t.Errorf("%d bytes per session with a field of %d that was replaced, want at most %d", got, size, 3*size/2)
	}
}

// SPEC 13.2: a record follows Change.Apply while it grows and shrinks, and what was loaded does not change with it.
func TestMemoryRecordsOfAllSizes(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 50 {
		fields := func(most int) (list []sessplus.RawField) {
			for i := range 12 {
				if rng.IntN(3) == 0 {
					value := bytes.Repeat([]byte{byte(rng.Int())}, rng.IntN(most))
					list = append(list, sessplus.RawField{Name: fmt.Sprint("field", i), Value: value})
				}
			}
			return list
		}
		b, key := sessplus.Memory(), memoryKey(round)
		now := time.Now().Truncate(time.Millisecond)
		model := &sessplus.Record{Created: now, Saved: now, Expires: now.Add(time.Hour), Owner: "a", Fields: fields(300)}
		if rng.IntN(2) == 0 {
			model.Permanent, model.Rotated, model.Origin = true, now, "first"
			model.Device, model.DeviceKey = "browser", "P-256"
		}
		if err := b.Create(t.Context(), key, model); err != nil {
			t.Fatalf("Create = %v", err)
		}
		model.Fields = slices.Clone(model.Fields)
		type state struct {
			loaded *sessplus.Record
			text   string
		}
		var states []state
		for step := range 20 {
			now = now.Add(time.Millisecond)
			c := &sessplus.Change{Set: fields([]int{30, 300, 2000}[rng.IntN(3)]), Now: now, Expires: now.Add(time.Hour)}
			for _, f := range model.Fields {
				named := func(s sessplus.RawField) bool { return s.Name == f.Name }
				if rng.IntN(5) == 0 && !slices.ContainsFunc(c.Set, named) {
					c.Delete = append(c.Delete, f.Name)
				}
			}
			if rng.IntN(5) == 0 {
				c.Owner = &[]string{"a", "b"}[rng.IntN(2)]
			}
			got, err := b.Update(t.Context(), key, c)
			if want, wantErr := c.Apply(model); got != want || err != wantErr {
				t.Fatalf("seed %d, round %d, step %d: Update = %+v, %v, want %+v, %v",
					seed, round, step, got, err, want, wantErr)
			}
			loaded, err := b.Load(t.Context(), key)
			if err != nil || recordText(loaded) != recordText(model) {
				t.Fatalf("seed %d, round %d, step %d: Load = %s, %v, want %s",
					seed, round, step, recordText(loaded), err, recordText(model))
			}
			states = append(states, state{loaded, recordText(loaded)})
		}
		for _, s := range states {
			if got := recordText(s.loaded); got != s.text {
				t.Errorf("seed %d, round %d: a record that was loaded became %s, want %s", seed, round, got, s.text)
			}
		}
		for _, owner := range []string{"a", "b"} {
			list, err := b.(sessplus.Indexer).Owned(t.Context(), owner)
			if err != nil || (len(list) == 1) != (model.Owner == owner) {
				t.Errorf("seed %d, round %d: Owned(%q) = %d records, %v, while the owner is %q",
					seed, round, owner, len(list), err, model.Owner)
			}
		}
	}
}

// recordText is all that there is to r.
func recordText(r *sessplus.Record) string {
	if r == nil {
		return "no record"
	}
	byName := func(a, b sessplus.RawField) int { return cmp.Compare(a.Name, b.Name) }
	var milli []int64
	for _, t := range []time.Time{r.Created, r.Saved, r.Expires, r.Rotated} {
		milli = append(milli, t.UnixMilli())
	}
	return fmt.Sprintf("%d %v %v %q %q %q %q %q", milli, r.Rotated.IsZero(), r.Permanent, r.Origin, r.Owner, r.Device,
		r.DeviceKey, slices.SortedFunc(slices.Values(r.Fields), byName))
}

// SPEC 9.1: no new session waits for work that grows with the others. Among many, the longest step is not much more
// than that of a plain map, nor is the sum. It may be one that helps the garbage collector; work on all records would
// take far longer.
func TestMemoryLongestStep(t *testing.T) {
	slow(t)
	if raceEnabled {
		t.Skip("the race detector's own work is measured, too: run this without -race")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, ok := threadTime(); !ok {
		t.Skip("this needs the CPU time of a thread, which only Linux tells here")
	}
	const runs = 5
	n := times(100_000)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = memoryKey(i)
	}
	// fill returns the CPU time of the longest of n steps, and of all.
	fill := func(step func(key string)) (longest, sum time.Duration) {
		runtime.GC()
		start, _ := threadTime()
		last := start
		for _, key := range keys {
			step(key)
			now, _ := threadTime()
			longest, last = max(longest, now-last), now
		}
		return longest, last - start
	}
	plain, plainSum, got, gotSum := time.Hour, time.Hour, time.Hour, time.Hour
	for range runs { // what the machine adds to one is not in all of them
		m := make(map[string][]byte)
		longest, sum := fill(func(key string) { m[key] = make([]byte, 20) })
		plain, plainSum = min(plain, longest), min(plainSum, sum)
		b, r := sessplus.Memory(), fourFields()
		longest, sum = fill(func(key string) {
			if err := b.Create(context.Background(), key, r); err != nil {
				t.Errorf("Create = %v", err)
			}
		})
		got, gotSum = min(got, longest), min(gotSum, sum)
	}
	t.Logf("the longest of %d took %v, all of them %v; in a plain map %v and %v", n, got, gotSum, plain, plainSum)
	if got > 10*plain || gotSum > 6*plainSum {
		t.Errorf("the longest of %d Creates took %v, all of them %v, want at most 10 and 6 times a plain map's %v and %v",
			n, got, gotSum, plain, plainSum)
	}
}
