// Package sessplustest tells whether a [sessplus.Backend] keeps its promises. A backend's own test calls [TestBackend]:
//
//	func TestBackend(t *testing.T) {
//		sessplustest.TestBackend(t, func(t *testing.T) sessplus.Backend { return mybackend.New(t.TempDir()) })
//	}
package sessplustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// A promise is a rule of [sessplus.Backend], and the test that shows a breach of it.
type promise struct {
	name string
	rule string
	test func(e *env)
}

// env is what a test has: an open backend, and a key that nothing is stored under.
type env struct {
	*testing.T
	sessplus.Backend
	ctx  context.Context
	key  string
	rule string
}

// TestBackend runs the conformance suite, each promise as a subtest with a backend that open returns. The backends may
// share their records. A failure carries the promise that is broken.
func TestBackend(t *testing.T, open func(t *testing.T) sessplus.Backend) {
	for i, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			p.test(&env{
				T: t, Backend: open(t), ctx: t.Context(), rule: p.rule,
				key: fmt.Sprintf("session:test:%032x%032x", time.Now().UnixNano(), i),
			})
		})
	}
}

// breach fails the test with the promise and what was seen instead.
func (e *env) breach(format string, args ...any) {
	e.Helper()
	e.Fatalf("%s\nbreaks the promise: %s", fmt.Sprintf(format, args...), e.rule)
}

func fields(pairs ...string) []sessplus.RawField {
	var list []sessplus.RawField
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, sessplus.RawField{Name: pairs[i], Value: []byte(pairs[i+1])})
	}
	return list
}

// record is one that lives for an hour.
func record(pairs ...string) *sessplus.Record {
	now := time.Now().Truncate(time.Millisecond)
	return &sessplus.Record{Created: now, Saved: now, Expires: now.Add(time.Hour), Fields: fields(pairs...)}
}

// create stores r under e.key.
func (e *env) create(r *sessplus.Record) *sessplus.Record {
	e.Helper()
	if err := e.Create(e.ctx, e.key, r); err != nil {
		e.breach("Create: %v", err)
	}
	return r
}

// change is one that keeps the expiry.
func change(r *sessplus.Record) *sessplus.Change {
	return &sessplus.Change{Now: time.Now(), Expires: r.Expires}
}

func (e *env) update(c *sessplus.Change) sessplus.Result {
	e.Helper()
	result, err := e.Update(e.ctx, e.key, c)
	if err != nil {
		e.breach("Update: %v", err)
	}
	return result
}

func (e *env) load() *sessplus.Record {
	e.Helper()
	r, err := e.Load(e.ctx, e.key)
	if err != nil {
		e.breach("Load: %v", err)
	}
	return r
}

// missing fails unless the key has no record.
func (e *env) missing() {
	e.Helper()
	if r, err := e.Load(e.ctx, e.key); !errors.Is(err, sessplus.ErrNoRecord) {
		e.breach("Load = %v, %v, want ErrNoRecord", r, err)
	}
}

// holds fails unless the stored fields are exactly those.
func (e *env) holds(pairs ...string) *sessplus.Record {
	e.Helper()
	r := e.load()
	if got, want := text(r.Fields), text(fields(pairs...)); got != want {
		e.breach("the record holds %s, want %s", got, want)
	}
	return r
}

func text(list []sessplus.RawField) string {
	lines := make([]string, len(list))
	for i, f := range list {
		lines[i] = fmt.Sprintf("%q=%q", f.Name, f.Value)
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// near compares times as a backend must keep them: to the millisecond.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < 2*time.Millisecond }

// awkward names are those that a store may want to read as something else.
var awkward = []string{
	"a.b", "a/b", "`x`", "__x__", "__name__", "*", "é", " ", ":", "::", ":expires", ":record", ":saved", "~", "~x", "~__x__", "expires_at", "fields",
	"permanent", "version", "[0]", "a[b]", "$set", "\x00", "\n", "'", "\"", "\\", "{}", "日本語", strings.Repeat("n", 256), strings.Repeat("é", 128),
}

var promises = []promise{
	{"Missing", "Load, Update and Take of a key without a record are ErrNoRecord; Delete of one is no error.", func(e *env) {
		e.missing()
		if _, err := e.Update(e.ctx, e.key, &sessplus.Change{Set: fields("a", "1"), Now: time.Now(), Expires: time.Now().Add(time.Hour)}); !errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Update = %v", err)
		}
		if _, err := e.Take(e.ctx, e.key); !errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Take = %v", err)
		}
		if err := e.Delete(e.ctx, e.key); err != nil {
			e.breach("Delete = %v", err)
		}
		e.missing()
	}},
	{"RoundTrip", "Load returns the record as Create was given it, times to the millisecond.", func(e *env) {
		want := record("name", `"Ann"`, "n", "42", "empty", "", "binary", "\xff\x00\xfe")
		want.Permanent = true
		want.Created = want.Created.Add(-time.Minute)
		e.create(want)
		got := e.holds("name", `"Ann"`, "n", "42", "empty", "", "binary", "\xff\x00\xfe")
		if !near(got.Created, want.Created) || !near(got.Saved, want.Saved) || !near(got.Expires, want.Expires) || !got.Permanent {
			e.breach("Load = %+v, want %+v", got, want)
		}
		for _, f := range got.Fields {
			if f.Value == nil {
				e.breach("the value of %q is nil", f.Name)
			}
		}
	}},
	{"Names", "Any valid UTF-8 text of 1 to 256 bytes is the name of a field.", func(e *env) {
		var all []string
		for i, name := range awkward {
			all = append(all, name, fmt.Sprint(i))
		}
		r := e.create(record(all...))
		e.holds(all...)
		c := change(r)
		for i := range awkward {
			all[2*i+1] += "0"
		}
		c.Set = fields(all...)
		e.update(c)
		e.holds(all...)
		for i, name := range awkward {
			c := change(r)
			c.Delete = []string{name}
			if result := e.update(c); result.Empty != (i == len(awkward)-1) {
				e.breach("after %d of %d fields Empty = %v", i+1, len(awkward), result.Empty)
			}
			e.holds(all[2*(i+1):]...)
		}
	}},
	{"CreateExists", "Create of a key that has a record is ErrRecordExists, and leaves it alone.", func(e *env) {
		e.create(record("a", "1"))
		if err := e.Create(e.ctx, e.key, record("b", "2")); !errors.Is(err, sessplus.ErrRecordExists) {
			e.breach("Create = %v", err)
		}
		e.holds("a", "1")
	}},
	{"UpdateOnlyThat", "Update changes the fields that it names, and no other.", func(e *env) {
		r := e.create(record("a", "1", "b", "2", "c", "3"))
		c := change(r)
		c.Set, c.Delete = fields("a", "10", "d", "4"), []string{"b", "absent"}
		c.Now = time.Now().Add(time.Second)
		if result := e.update(c); result.Empty || result.Refilled {
			e.breach("Update = %+v", result)
		}
		got := e.holds("a", "10", "c", "3", "d", "4")
		if !near(got.Created, r.Created) || !near(got.Expires, r.Expires) || got.Permanent || !near(got.Saved, c.Now) {
			e.breach("Update made %+v of %+v", got, r)
		}
	}},
	{"Large", "A record of several hundred fields and several hundred kilobytes is stored whole, and so is a large change.", func(e *env) {
		var pairs []string
		for i := range 600 {
			pairs = append(pairs, fmt.Sprintf("field%d", i), strings.Repeat("x", 500))
		}
		r := e.create(record(pairs...))
		e.holds(pairs...)
		for i := range 600 {
			pairs[2*i+1] = strings.Repeat("y", 500)
		}
		c := change(r)
		c.Set = fields(pairs...)
		e.update(c)
		e.holds(pairs...)
		c = change(r)
		for i := range 599 {
			c.Delete = append(c.Delete, pairs[2*i])
		}
		e.update(c)
		e.holds(pairs[2*599:]...)
	}},
	{"Touch", "An Update without fields moves the expiry, and touches nothing else.", func(e *env) {
		r := e.create(record("a", "1"))
		c := change(r)
		c.Expires = r.Expires.Add(time.Hour)
		c.Now = time.Now().Add(time.Minute)
		e.update(c)
		if got := e.holds("a", "1"); !near(got.Expires, c.Expires) || !near(got.Saved, r.Saved) {
			e.breach("a touch made %+v of %+v", got, r)
		}
	}},
	{"ExpiresForward", "A save moves the expiry, too, but an Expires that is earlier than the stored one has no effect.", func(e *env) {
		r := e.create(record("a", "1", "b", "2"))
		want := r.Expires
		for _, moved := range []time.Duration{-time.Minute, time.Hour} {
			for _, c := range []*sessplus.Change{{Set: fields("a", "3")}, {Delete: []string{"c"}}, {Set: fields("a", "1"), Delete: []string{"c"}}} {
				c.Now, c.Expires = time.Now(), want.Add(moved)
				if moved > 0 {
					want = c.Expires
				}
				if result := e.update(c); !near(result.Expires, want) {
					e.breach("an Update with an Expires %v later answers %v, want %v", moved, result.Expires, want)
				}
				if got := e.load(); !near(got.Expires, want) {
					e.breach("after an Update with an Expires %v later it is %v, want %v", moved, got.Expires, want)
				}
			}
		}
	}},
	{"Permanent", "With Permanent the flag and the expiry are replaced, be it earlier or later.", func(e *env) {
		r := e.create(record("a", "1"))
		for _, on := range []bool{true, false} {
			c := change(r)
			c.Permanent = &on
			c.Expires = r.Expires.Add(-time.Minute)
			if on {
				c.Expires = r.Expires.Add(time.Hour)
			}
			e.update(c)
			if got := e.holds("a", "1"); got.Permanent != on || !near(got.Expires, c.Expires) || !near(got.Created, r.Created) {
				e.breach("Update with Permanent %v and %v made %+v", on, c.Expires, got)
			}
		}
	}},
	{"Expired", "A record whose Expires has passed is none: for Load, Update, Take and Create.", func(e *env) {
		r := record("a", "1")
		r.Expires = time.Now().Add(time.Second)
		e.create(r)
		if _, err := e.Load(e.ctx, e.key); err != nil && time.Now().Before(r.Expires) {
			e.breach("Load before Expires = %v", err)
		}
		time.Sleep(time.Until(r.Expires) + 20*time.Millisecond)
		e.missing()
		c := change(r)
		c.Set, c.Expires, c.Seen = fields("b", "2"), time.Now().Add(time.Hour), r
		if _, err := e.Update(e.ctx, e.key, c); !errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Update = %v", err)
		}
		if _, err := e.Take(e.ctx, e.key); !errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Take = %v", err)
		}
		e.missing()
		e.create(record("c", "3"))
		e.holds("c", "3")
	}},
	{"Emptied", "Update says when no field is left, the record then ends within a minute, and a field that is added before brings it back with its Expires.", func(e *env) {
		r := e.create(record("a", "1"))
		c := change(r)
		c.Delete = []string{"a"}
		if result := e.update(c); !result.Empty {
			e.breach("Update = %+v, want Empty", result)
		}
		if got := e.holds(); got.Expires.After(time.Now().Add(sessplus.EmptyGrace + time.Second)) {
			e.breach("an empty record expires in %v", time.Until(got.Expires))
		}
		touch := change(r)
		e.update(touch)
		if got := e.holds(); got.Expires.After(time.Now().Add(sessplus.EmptyGrace + time.Second)) {
			e.breach("a touch makes an empty record expire in %v", time.Until(got.Expires))
		}
		c = change(r)
		c.Set = fields("b", "2")
		if result := e.update(c); result.Empty || !result.Refilled {
			e.breach("Update = %+v, want Refilled", result)
		}
		if got := e.holds("b", "2"); !near(got.Expires, r.Expires) {
			e.breach("a refilled record expires at %v, want %v", got.Expires, r.Expires)
		}
	}},
	{"EmptiedTogether", "Of two Updates that each remove one of the last two fields exactly one finds the record Empty.", func(e *env) {
		r := e.create(record("a", "1", "b", "2"))
		seen := e.load()
		var empty [2]bool
		e.together(2, func(i int) {
			c := change(r)
			c.Delete, c.Seen = []string{string(rune('a' + i))}, seen
			empty[i] = e.update(c).Empty
		})
		if empty[0] == empty[1] {
			e.breach("Empty = %v", empty)
		}
	}},
	{"Match", "With Match an Update applies only if the fields have exactly those values, else it is ErrConflict and changes nothing.", func(e *env) {
		r := e.create(record("n", "1", "empty", ""))
		absent := func(name string) []sessplus.RawField { return []sessplus.RawField{{Name: name}} }
		for _, tt := range []struct {
			match []sessplus.RawField
			ok    bool
		}{
			{fields("n", "1"), true},
			{fields("n", "2"), false},
			{fields("n", ""), false},
			{absent("n"), false},
			{fields("empty", ""), true},
			{absent("empty"), false},
			{fields("other", ""), false},
			{absent("other"), true},
			{fields("n", "1", "empty", ""), true},
			{fields("n", "1", "empty", "x"), false},
		} {
			for _, seen := range []*sessplus.Record{nil, r, e.load()} {
				c := change(r)
				c.Match, c.Seen = tt.match, seen
				c.Set = fields("changed", "yes")
				_, err := e.Update(e.ctx, e.key, c)
				if tt.ok && err != nil || !tt.ok && !errors.Is(err, sessplus.ErrConflict) {
					e.breach("Update with Match %s = %v", text(tt.match), err)
				}
				if !tt.ok {
					e.holds("n", "1", "empty", "")
					continue
				}
				e.holds("n", "1", "empty", "", "changed", "yes")
				c = change(r)
				c.Delete = []string{"changed"}
				e.update(c)
			}
		}
	}},
	{"Take", "Take removes the record and returns it as it was last.", func(e *env) {
		r := e.create(record("a", "1"))
		c := change(r)
		c.Set = fields("b", "2")
		e.update(c)
		got, err := e.Take(e.ctx, e.key)
		if err != nil || text(got.Fields) != text(fields("a", "1", "b", "2")) || !near(got.Created, r.Created) || !near(got.Expires, r.Expires) {
			e.breach("Take = %+v, %v", got, err)
		}
		e.missing()
	}},
	{"TakeOnce", "Of several Takes at the same time one gets the record.", func(e *env) {
		e.create(record("a", "1"))
		var mu sync.Mutex
		got := 0
		e.together(8, func(int) {
			_, err := e.Take(e.ctx, e.key)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got++
			} else if !errors.Is(err, sessplus.ErrNoRecord) {
				e.Errorf("Take: %v", err)
			}
		})
		if got != 1 {
			e.breach("%d Takes got it", got)
		}
	}},
	{"Delete", "Delete removes the record, and it stays removed: an Update that saw it before does not bring it back.", func(e *env) {
		e.create(record("a", "1"))
		seen := e.load()
		if err := e.Delete(e.ctx, e.key); err != nil {
			e.breach("Delete: %v", err)
		}
		c := change(seen)
		c.Set, c.Seen = fields("b", "2"), seen
		if _, err := e.Update(e.ctx, e.key, c); !errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Update = %v", err)
		}
		e.missing()
	}},
	{"Stale", "Seen is only a hint: an Update with an old one keeps what others have saved.", func(e *env) {
		r := e.create(record("a", "1", "b", "2"))
		seen := e.load()
		c := change(r)
		c.Set, c.Delete, c.Seen = fields("a", "10"), []string{"b"}, seen
		e.update(c)
		c = change(r)
		c.Set, c.Seen = fields("c", "3"), seen
		e.update(c)
		e.holds("a", "10", "c", "3")
		c = change(r)
		c.Set, c.Seen = fields("d", "4"), r
		e.update(c)
		e.holds("a", "10", "c", "3", "d", "4")
	}},
	{"Version", "A Version that Update returns fits the record it made: it can be Seen again.", func(e *env) {
		e.create(record("a", "1"))
		seen := e.load()
		for i := range 5 {
			c := change(seen)
			c.Set, c.Seen = fields(fmt.Sprintf("f%d", i), "1"), seen
			seen.Version = e.update(c).Version
			seen.Fields = append(seen.Fields, c.Set...)
		}
		e.holds("a", "1", "f0", "1", "f1", "1", "f2", "1", "f3", "1", "f4", "1")
	}},
	{"CreateOnce", "Of several Creates of one key at the same time one succeeds.", func(e *env) {
		var mu sync.Mutex
		created := 0
		e.together(8, func(i int) {
			err := e.Create(e.ctx, e.key, record("a", fmt.Sprint(i)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				created++
			} else if !errors.Is(err, sessplus.ErrRecordExists) {
				e.Errorf("Create: %v", err)
			}
		})
		if created != 1 {
			e.breach("%d Creates succeeded", created)
		}
	}},
	{"ConcurrentFields", "Updates of different fields at the same time all stay.", func(e *env) {
		const n = 20
		r := e.create(record("a", "1"))
		seen := e.load()
		want := []string{"a", "1"}
		for i := range n {
			want = append(want, fmt.Sprintf("f%d", i), fmt.Sprint(i))
		}
		e.together(n, func(i int) {
			c := change(r)
			c.Set, c.Seen = fields(want[2+2*i], want[3+2*i]), seen
			if _, err := e.Update(e.ctx, e.key, c); err != nil {
				e.Errorf("Update: %v", err)
			}
		})
		e.holds(want...)
	}},
	{"ConcurrentStreak", "Updates of different fields that follow each other at the same time all stay.", func(e *env) {
		r := e.create(record("a", "1"))
		end := time.Now().Add(time.Second / 2)
		e.together(4, func(i int) {
			name := fmt.Sprintf("f%d", i)
			for k := 1; time.Now().Before(end); k++ {
				c := change(r)
				c.Set = fields(name, fmt.Sprint(k))
				if _, err := e.Update(e.ctx, e.key, c); err != nil {
					e.Errorf("Update: %v", err)
					return
				}
				got, err := e.Load(e.ctx, e.key)
				if err != nil || !strings.Contains(text(got.Fields), text(c.Set)) {
					e.Errorf("Load after Update with %s = %+v, %v\nbreaks the promise: %s", text(c.Set), got, err, e.rule)
					return
				}
			}
		})
	}},
	{"CompareAndSet", "Of several Updates with the same Match at the same time one succeeds, the others are ErrConflict.", func(e *env) {
		r := e.create(record("n", "0"))
		seen := e.load()
		var mu sync.Mutex
		won := 0
		e.together(8, func(i int) {
			c := change(r)
			c.Match, c.Set, c.Seen = fields("n", "0"), fields("n", fmt.Sprint(i+1)), seen
			_, err := e.Update(e.ctx, e.key, c)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, sessplus.ErrConflict) {
				e.Errorf("Update: %v", err)
			}
		})
		if won != 1 {
			e.breach("%d Updates succeeded", won)
		}
	}},
	{"Copies", "A backend keeps no struct or slice of structs that it is given, and gives none away that it keeps.", func(e *env) {
		r := e.create(record("a", "1", "b", "2"))
		r.Fields[0] = sessplus.RawField{Name: "x", Value: []byte("9")}
		got := e.holds("a", "1", "b", "2")
		got.Fields[0] = sessplus.RawField{Name: "x", Value: []byte("9")}
		c := change(r)
		c.Set = fields("c", "3")
		e.update(c)
		c.Set[0] = sessplus.RawField{Name: "x", Value: []byte("9")}
		e.holds("a", "1", "b", "2", "c", "3")
	}},
	{"Apart", "Records of different keys have nothing to do with each other.", func(e *env) {
		first := e.key
		e.create(record("a", "1"))
		e.key = first + "x"
		e.create(record("b", "2"))
		if err := e.Delete(e.ctx, e.key); err != nil {
			e.breach("Delete: %v", err)
		}
		e.missing()
		e.key = first
		e.holds("a", "1")
	}},
	{"Keys", "A key is any printable ASCII.", func(e *env) {
		base := e.key
		for _, odd := range []string{"a/b", "..", ".", "__x__", "%2F", "#?&", "{tag}", "*", "$", strings.Repeat("k", 600)} {
			e.key = odd + base
			e.create(record("k", odd))
			e.holds("k", odd)
			if err := e.Delete(e.ctx, e.key); err != nil {
				e.breach("Delete(%q): %v", odd, err)
			}
			e.missing()
		}
	}},
	{"Context", "A call whose context is done returns soon, and its error is not ErrNoRecord.", func(e *env) {
		e.create(record("a", "1"))
		ctx, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
		defer cancel()
		start := time.Now()
		if _, err := e.Load(ctx, e.key); errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Load = %v", err)
		}
		if _, err := e.Update(ctx, e.key, change(record())); errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Update = %v", err)
		}
		if took := time.Since(start); took > 2*time.Second {
			e.breach("the calls took %v", took)
		}
	}},
	{"NoSecrets", "The text of an error holds no field's value.", func(e *env) {
		secret := []byte("s3cr3t-value")
		r := e.create(record("a", "1"))
		c := change(r)
		c.Set = []sessplus.RawField{{Name: "a", Value: secret}}
		c.Match = fields("a", "other")
		_, err := e.Update(e.ctx, e.key, c)
		if err == nil || bytes.Contains([]byte(err.Error()), secret) {
			e.breach("Update = %v", err)
		}
	}},
}

// together calls f for 0 to n-1 at the same time, and waits.
func (e *env) together(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}
