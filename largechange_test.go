package sessplus

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// largeChange gives a record of n fields, and a change that concerns all of them: a third each is matched and set, set
// anew, and deleted.
func largeChange(n int) (*Record, *Change) {
	now := wallNow()
	r := &Record{Created: now, Saved: now, Expires: now.Add(time.Hour)}
	c := &Change{Now: now, Expires: r.Expires}
	for i := range n {
		f := RawField{fmt.Sprint("field", i), []byte("1")}
		switch i % 3 {
		case 0:
			r.Fields = append(r.Fields, f)
			c.Match = append(c.Match, f)
			c.Set = append(c.Set, RawField{f.Name, []byte("2")})
		case 1:
			c.Set = append(c.Set, f)
		case 2:
			r.Fields = append(r.Fields, f)
			c.Delete = append(c.Delete, f.Name)
		}
	}
	slices.Reverse(c.Delete)
	return r, c
}

// SPEC 9.1, SPEC 4.1: a change of many fields takes not much longer than as many small ones, because all of a shard
// waits for it.
func TestTimeOfAChangeGrowsWithItsSize(t *testing.T) {
	took := func(changes, fields int) time.Duration {
		records, list := make([]*Record, changes), make([]*Change, changes)
		best := time.Hour
		for range 7 {
			for i := range changes {
				records[i], list[i] = largeChange(fields)
			}
			runtime.GC()
			start := time.Now()
			for i, c := range list {
				if _, err := c.Apply(records[i]); err != nil {
					t.Fatal(err)
				}
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	// Looking for each field among all would make it 30 times as long. What no longer fits the CPU's caches makes it
	// nine times as long with the race detector.
	small, large := took(30, 1_000), took(1, 30_000)
	t.Logf("30 changes of 1,000 fields take %v, one of 30,000 takes %v", small, large)
	if large > 15*small {
		t.Errorf("a change of 30,000 fields takes %v, and 30 of 1,000 %v: want at most 15 times as long", large, small)
	}
}

// SPEC 4.1: a change of many fields makes the same of a record as one field after the other does.
func TestLargeChangeIsManySmallOnes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 40, 48, 51, 60, 2_000} {
		whole, c := largeChange(n)
		single := whole.clone()
		result, err := c.Apply(whole)
		if err != nil {
			t.Fatalf("%d fields: %v", n, err)
		}
		step := func(one Change) {
			one.Now, one.Expires = c.Now, c.Expires
			if _, err := one.Apply(single); err != nil {
				t.Fatalf("%d fields, one by one: %v", n, err)
			}
		}
		for i := range c.Match {
			step(Change{Match: c.Match[i : i+1]})
		}
		for i := range c.Set {
			step(Change{Set: c.Set[i : i+1]})
		}
		for i := range c.Delete {
			step(Change{Delete: c.Delete[i : i+1]})
		}
		if got, want := fmt.Sprint(whole.Fields), fmt.Sprint(single.Fields); got != want || result.Empty {
			t.Errorf("%d fields: the record has %.200s, want %.200s", n, got, want)
		}
		before := whole.clone()
		if _, err := c.Apply(whole); err != ErrConflict || fmt.Sprint(*whole) != fmt.Sprint(*before) {
			t.Errorf("%d fields: once more it is %v, want %v and no change", n, err, ErrConflict)
		}
	}
}

// SPEC 9.1: most changes are small, and need no memory.
func TestSmallChangeAllocatesNothing(t *testing.T) {
	r, _ := largeChange(2_000)
	c := &Change{Now: r.Created, Expires: r.Expires, Set: slices.Clone(r.Fields[:fewNames]), Delete: make([]string, fewNames)}
	if n := testing.AllocsPerRun(100, func() { c.Apply(r) }); n > 0 {
		t.Errorf("a change of %d fields takes %v allocations", fewNames, n)
	}
}
