// Package sessplustest helps test programs and backends.
//
// In a test of a program, [With] makes a logged-in user's request, and [Serve] returns a handler's response and what it
// leaves in the session.
//
// In a test of a [sessplus.Backend], call [TestBackend] to check that it follows the rules:
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

// A promise is a rule of [sessplus.Backend] and the test that detects a violation.
type promise struct {
	name string
	rule string
	test func(e *env)
}

// env is what a test works with: an open backend, and a key that has no record.
type env struct {
	*testing.T
	sessplus.Backend
	ctx  context.Context
	key  string
	rule string
}

// TestBackend runs the conformance suite. Each promise is a subtest, which calls open once; the backends that open
// returns may share one store. A failure states the promise that is broken. The promises about [sessplus.Indexer] are
// skipped for other backends. The documentation of [sessplus.Backend] says what the suite cannot test.
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

// breach fails the test, stating what was seen and the promise it breaks.
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

// record returns a record that expires in an hour.
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

// change returns a Change that leaves the expiry of r alone.
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

func take(token string) *sessplus.Ending {
	return &sessplus.Ending{Step: sessplus.StepTake, Token: token, Now: time.Now()}
}

func release(token string) *sessplus.Ending {
	return &sessplus.Ending{Step: sessplus.StepRelease, Token: token, Now: time.Now()}
}

func end(token, next string) *sessplus.Ending {
	return &sessplus.Ending{Step: sessplus.StepEnd, Token: token, Next: next, Now: time.Now()}
}

// end makes a step, which must succeed. Only StepRelease may find that the record has ended.
func (e *env) end(step *sessplus.Ending) *sessplus.Record {
	e.Helper()
	r, err := e.End(e.ctx, e.key, step)
	if err != nil && !(step.Step == sessplus.StepRelease && errors.As(err, new(*sessplus.EndedError))) {
		e.breach("End with %s = %v", stepText(step), err)
	}
	return r
}

func (e *env) load() *sessplus.Record {
	e.Helper()
	r, err := e.Load(e.ctx, e.key)
	if err != nil {
		e.breach("Load: %v", err)
	}
	return r
}

// missing fails the test if the key has a record.
func (e *env) missing() {
	e.Helper()
	if r, err := e.Load(e.ctx, e.key); !errors.Is(err, sessplus.ErrNoRecord) {
		if err == nil {
			e.breach("Load returns a record with %.200s, want ErrNoRecord", text(r.Fields))
		}
		e.breach("Load = %v, want ErrNoRecord", err)
	}
}

// holds fails the test unless the stored fields are exactly these.
func (e *env) holds(pairs ...string) *sessplus.Record {
	e.Helper()
	r := e.load()
	d := difference{by: "want"}
	if d.fields(r.Fields, fields(pairs...)); d.lines != nil {
		e.breach("in the record %v", &d)
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

// near reports whether two times are equal to the millisecond, which is all that a backend must preserve.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < 2*time.Millisecond }

// awkward is a list of names that have a meaning of their own in some store.
var awkward = []string{
	"a.b", "a/b", "`x`", "__x__", "__name__", "*", "é", " ", ":", "::", ":expires", ":record", ":saved", "~", "~x", "~__x__", "expires_at", "fields",
	"permanent", "version", "[0]", "a[b]", "$set", "\x00", "\n", "'", "\"", "\\", "{}", "日本語", strings.Repeat("n", 256), strings.Repeat("é", 128),
}

var promises = []promise{
	{"Missing", "On a key without a record, Load, Update and every step of End return ErrNoRecord and not an EndedError.", func(e *env) {
		e.missing()
		if _, err := e.Update(e.ctx, e.key, &sessplus.Change{Set: fields("a", "1"), Now: time.Now(), Expires: time.Now().Add(time.Hour)}); !errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("Update = %v", err)
		}
		for _, step := range []*sessplus.Ending{take("t"), release("t"), end("t", ""), end("", "")} {
			if _, err := e.End(e.ctx, e.key, step); !errors.Is(err, sessplus.ErrNoRecord) || errors.As(err, new(*sessplus.EndedError)) {
				e.breach("End with %s = %v", stepText(step), err)
			}
		}
		e.missing()
	}},
	{"RoundTrip", "Load returns the record that was passed to Create, with times accurate to the millisecond.", func(e *env) {
		want := record("name", `"Ann"`, "n", "42", "empty", "", "binary", "\xff\x00\xfe")
		want.Permanent = true
		want.Created = want.Created.Add(-time.Minute)
		want.Rotated, want.Origin = want.Created.Add(time.Second), "0123abc"
		e.create(want)
		e.same(e.load(), want, "after Create")
	}},
	{"Names", "A field name is any valid UTF-8 string of 1 to 256 bytes.", func(e *env) {
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
	{"CreateExists", "Create on a key that has a record returns ErrRecordExists and leaves the record alone.", func(e *env) {
		e.create(record("a", "1"))
		if err := e.Create(e.ctx, e.key, record("b", "2")); !errors.Is(err, sessplus.ErrRecordExists) {
			e.breach("Create = %v", err)
		}
		e.holds("a", "1")
	}},
	{"UpdateOnlyThat", "Update changes the fields it names and no others.", func(e *env) {
		r := e.create(record("a", "1", "b", "2", "c", "3"))
		c := change(r)
		c.Set, c.Delete = fields("a", "10", "d", "4"), []string{"b", "absent"}
		c.Now = time.Now().Add(time.Second)
		if result := e.update(c); result.Empty || result.Refilled {
			e.breach("Update = Empty %v, Refilled %v, want false, false", result.Empty, result.Refilled)
		}
		want := *r
		want.Fields, want.Saved = fields("a", "10", "c", "3", "d", "4"), c.Now
		e.same(e.load(), &want, "after an Update of some fields")
	}},
	{"Large", "A record of several hundred fields and several hundred kilobytes is stored in full, and so is a large change.", func(e *env) {
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
	{"Touch", "An Update without fields moves the expiry and touches nothing else.", func(e *env) {
		r := e.create(record("a", "1"))
		c := change(r)
		c.Expires = r.Expires.Add(time.Hour)
		c.Now = time.Now().Add(time.Minute)
		e.update(c)
		want := *r
		want.Expires = c.Expires
		e.same(e.load(), &want, "after a touch")
	}},
	{"ExpiresForward", "A save moves the expiry, too, but without Exact an Expires that is earlier than the stored one has no effect.", func(e *env) {
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
	{"Exact", "With Exact an earlier Expires holds, too, be it for a save or a touch.", func(e *env) {
		e.create(record("a", "1", "b", "2"))
		for _, on := range []bool{false, true} {
			c := change(e.load())
			c.Permanent = &on
			e.update(c)
			for _, c := range []*sessplus.Change{
				{}, {Set: fields("a", "3")}, {Delete: []string{"c"}}, {Set: fields("a", "1"), Delete: []string{"c"}}, {Match: fields("a", "1")},
			} {
				seen := e.load()
				c.Now, c.Seen, c.Exact = time.Now(), seen, true
				for _, moved := range []time.Duration{time.Minute, -2 * time.Minute} {
					want := seen.Expires.Add(moved)
					c.Expires = want
					if result := e.update(c); !near(result.Expires, want) {
						e.breach("an Exact Update with an Expires %v later answers %v, want %v", moved, result.Expires, want)
					}
					got := e.load()
					if !near(got.Expires, want) || got.Permanent != on {
						e.breach("after an Exact Update with an Expires %v later it is %v, want %v", moved, got.Expires, want)
					}
					seen = got
					c.Seen = got
				}
			}
		}
		e.holds("a", "1", "b", "2")
	}},
	{"ExactStale", "Exact has no effect when the expiry or the flag of the record is no longer what Seen says, or with no Seen.", func(e *env) {
		r := e.create(record("a", "1"))
		seen := e.load()
		on := true
		c := change(r)
		c.Permanent = &on // which leaves the expiry as it is
		e.update(c)
		want := e.load()
		moved := *want
		moved.Expires, moved.Version = moved.Expires.Add(-10*time.Millisecond), ""
		for i, stale := range []*sessplus.Record{seen, &moved, nil} {
			for _, set := range [][]sessplus.RawField{nil, fields("a", fmt.Sprint(i))} {
				c := change(r)
				c.Exact, c.Seen, c.Set, c.Expires = true, stale, set, r.Expires.Add(-time.Minute)
				if result := e.update(c); !near(result.Expires, want.Expires) {
					e.breach("%d: an Update answers %v, want %v", i, result.Expires, want.Expires)
				}
				if set != nil {
					want.Fields, want.Saved = set, c.Now
				}
				e.same(e.load(), want, "%d: after an Update that is Exact without reason", i)
			}
		}
		e.holds("a", "2")
	}},
	{"Permanent", "With Permanent the flag and the expiry are replaced, whether that is earlier or later.", func(e *env) {
		r := e.create(record("a", "1"))
		for _, on := range []bool{true, false} {
			c := change(r)
			c.Permanent = &on
			c.Expires = r.Expires.Add(-time.Minute)
			if on {
				c.Expires = r.Expires.Add(time.Hour)
			}
			e.update(c)
			want := *r
			want.Permanent, want.Expires = on, c.Expires
			e.same(e.load(), &want, "after an Update with Permanent %v", on)
		}
	}},
	{"Expired", "To Load, Update, End and Create, a record whose Expires has passed does not exist.", func(e *env) {
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
		if _, err := e.End(e.ctx, e.key, take("t")); !errors.Is(err, sessplus.ErrNoRecord) {
			e.breach("End = %v", err)
		}
		e.missing()
		e.create(record("c", "3"))
		e.holds("c", "3")
	}},
	{"Emptied", "Update reports that no field is left. The record then ends within a minute, unless a field is added before: that restores it with its former Expires.", func(e *env) {
		r := e.create(record("a", "1"))
		c := change(r)
		c.Delete = []string{"a"}
		if result := e.update(c); !result.Empty {
			e.breach("Result.Empty is false, want true: no field is left")
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
			e.breach("Update = Empty %v, Refilled %v, want false, true", result.Empty, result.Refilled)
		}
		if got := e.holds("b", "2"); !near(got.Expires, r.Expires) {
			e.breach("a refilled record expires at %v, want %v", got.Expires, r.Expires)
		}
	}},
	{"EmptiedTogether", "If two Updates each remove one of the last two fields, exactly one of them reports Empty.", func(e *env) {
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
	{"Match", "With Match, an Update applies only if the fields have exactly those values; otherwise it returns ErrConflict and changes nothing.", func(e *env) {
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
	{"Take", "StepTake returns the current record. Others can still load it, but cannot change or take it.", func(e *env) {
		r := e.create(record("a", "1"))
		seen := e.load()
		c := change(r)
		c.Set = fields("b", "2")
		e.update(c)
		step := take("mine")
		step.Seen = seen
		got, err := e.End(e.ctx, e.key, step)
		if err != nil {
			e.breach("End with StepTake = %v", err)
		}
		want := *r
		want.Fields, want.Saved = fields("a", "1", "b", "2"), c.Now
		e.same(got, &want, "as returned by StepTake")
		if m := e.load().Mark; m == nil || m.Ended || m.Token != "mine" {
			e.breach("Load gives the Mark %v of a record that was taken by mine", m)
		}
		for _, seen := range []*sessplus.Record{nil, e.holds("a", "1", "b", "2")} {
			c = change(r)
			c.Set, c.Seen = fields("b", "3"), seen
			if _, err := e.Update(e.ctx, e.key, c); !errors.Is(err, sessplus.ErrTaken) {
				e.breach("Update of a taken record = %v", err)
			}
			for _, step := range []*sessplus.Ending{take("other"), end("other", "")} {
				step.Seen = seen
				if _, err := e.End(e.ctx, e.key, step); !errors.Is(err, sessplus.ErrTaken) {
					e.breach("End of a taken record with %s = %v", stepText(step), err)
				}
			}
			e.end(release("other"))
			e.same(e.end(take("mine")), &want, "as returned by a second StepTake of the same token")
		}
		e.holds("a", "1", "b", "2")
	}},
	{"Release", "StepRelease restores a record that was taken or ended with the same Token.", func(e *env) {
		r := e.create(record("a", "1"))
		for _, steps := range [][]*sessplus.Ending{{take("mine")}, {take("mine"), end("mine", "next")}} {
			for _, step := range steps {
				e.end(step)
			}
			e.end(release("mine"))
			if got := e.holds("a", "1"); !near(got.Expires, r.Expires) {
				e.breach("a released record expires at %v, want %v", got.Expires, r.Expires)
			}
			c := change(r)
			c.Set = fields("b", "2")
			e.update(c)
			c = change(r)
			c.Delete = []string{"b"}
			e.update(c)
		}
	}},
	{"Lapsed", "A take lapses after TakeGrace. From then on an Update removes it, unless it is refused, and another token may take the record.", func(e *env) {
		r := e.create(record("a", "1"))
		e.end(take("mine"))
		other := take("other")
		other.Now = other.Now.Add(sessplus.TakeGrace + time.Second)
		e.end(other)
		c := change(r)
		c.Set, c.Now = fields("b", "2"), other.Now.Add(sessplus.TakeGrace+time.Second)
		refused := *c
		refused.Match = fields("a", "2")
		if _, err := e.Update(e.ctx, e.key, &refused); !errors.Is(err, sessplus.ErrConflict) {
			e.breach("Update with a Match that does not hold = %v, want ErrConflict", err)
		}
		back := take("other")
		back.Step, back.Now = sessplus.StepRelease, c.Now
		again := *back
		again.Step = sessplus.StepEnd
		if _, err := e.End(e.ctx, e.key, &again); err != nil {
			e.breach("StepEnd by a take that has lapsed, after an Update was refused = %v", err)
		}
		e.end(back)
		if result := e.update(c); result.Refilled || result.Empty {
			e.breach("Update = Empty %v, Refilled %v, want false, false", result.Empty, result.Refilled)
		}
		e.holds("a", "1", "b", "2")
		if _, err := e.End(e.ctx, e.key, end("mine", "")); !errors.Is(err, sessplus.ErrTaken) {
			e.breach("StepEnd after the take had lapsed and the record changed = %v", err)
		}
	}},
	{"End", "For a minute, every method but Create answers an ended record with an EndedError that has its Next, and the record stays ended.", func(e *env) {
		for i, steps := range [][]*sessplus.Ending{{end("", "one two")}, {take("mine"), end("mine", "one two"), end("mine", "one two")}, {take("mine"), end("", "one two")}} {
			e.key += "x"
			r := e.create(record("a", "1"))
			seen := e.load()
			steps[len(steps)-1].Seen = seen
			for _, step := range steps {
				e.end(step)
			}
			_, loaded := e.Load(e.ctx, e.key)
			c := change(r)
			c.Set, c.Seen = fields("b", "2"), seen
			_, updated := e.Update(e.ctx, e.key, c)
			_, taken := e.End(e.ctx, e.key, take("other"))
			_, ended := e.End(e.ctx, e.key, end("", "three"))
			_, again := e.End(e.ctx, e.key, end("", "three"))
			for _, err := range []error{loaded, updated, taken, ended, again} {
				var dead *sessplus.EndedError
				if !errors.As(err, &dead) || dead.Next != "one two" || !errors.Is(err, sessplus.ErrNoRecord) {
					e.breach("%d: after the end Load, Update, StepTake and StepEnd twice = %v, %v, %v, %v, %v", i, loaded, updated, taken, ended, again)
				}
			}
			e.end(release("mine")) // who ends with no Token has the last word
			e.missing()
			if err := e.Create(e.ctx, e.key, record("b", "2")); !errors.Is(err, sessplus.ErrRecordExists) {
				e.breach("Create after the end = %v", err)
			}
		}
	}},
	{"TakeOnce", "Of several concurrent StepTakes one gets the record, and the others return ErrTaken.", func(e *env) {
		e.create(record("a", "1"))
		var mu sync.Mutex
		got := 0
		e.together(8, func(i int) {
			_, err := e.End(e.ctx, e.key, take(fmt.Sprint("t", i)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got++
			} else if !errors.Is(err, sessplus.ErrTaken) {
				e.Errorf("End: %v", err)
			}
		})
		if got != 1 {
			e.breach("%d StepTakes got it", got)
		}
	}},
	{"History", "After any history, Update and End do what Change.Apply and Ending.Apply do.", history},
	{"Stale", "Seen is only a hint: an Update with a stale one preserves what others have saved.", func(e *env) {
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
	{"Version", "The Version that Update returns is that of the record it has written, which can be passed as Seen.", func(e *env) {
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
	{"CreateOnce", "Of several concurrent Creates on one key exactly one succeeds.", func(e *env) {
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
	{"ConcurrentFields", "Concurrent Updates of different fields all persist.", func(e *env) {
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
	{"ConcurrentStreak", "Concurrent series of Updates, each series of its own field, all persist.", func(e *env) {
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
				if err != nil {
					e.Errorf("Load: %v", err)
					return
				}
				if got := valuesOf(got.Fields, name); got != valuesOf(c.Set, name) {
					e.Errorf("after an Update the field %q is %s, want %s\nbreaks the promise: %s", name, got, valuesOf(c.Set, name), e.rule)
					return
				}
			}
		})
	}},
	{"CompareAndSet", "Of several concurrent Updates with the same Match one succeeds, and the others return ErrConflict.", func(e *env) {
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
	{"Copies", "Methods must not retain the records, changes or field slices they are passed, and must return copies.", func(e *env) {
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
	{"Apart", "Records of different keys are independent.", func(e *env) {
		first := e.key
		e.create(record("a", "1"))
		e.key = first + "x"
		e.create(record("b", "2"))
		e.end(end("", ""))
		e.missing()
		e.key = first
		e.holds("a", "1")
	}},
	{"Keys", "A key is case-sensitive, any string of printable ASCII without spaces, and at most 833 bytes long.", func(e *env) {
		longest := e.key + strings.Repeat("k", 832-len(e.key))
		keys := []string{e.key, strings.ToUpper(e.key), longest + "1", longest + "2"}
		for _, odd := range []string{"a/b", "..", ".", "__x__", "%2F", "#?&", "{tag}", "*", "$"} {
			keys = append(keys, odd+e.key)
		}
		for _, e.key = range keys {
			e.create(record("k", e.key))
		}
		for _, e.key = range keys {
			e.holds("k", e.key)
		}
		for _, e.key = range keys {
			e.end(end("", ""))
			e.missing()
		}
	}},
	{"Context", "A call whose context is done returns promptly, and its error is not ErrNoRecord.", func(e *env) {
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
	{"OwnedCreate", "Owned returns the records with exactly this Owner, each once, as Load does, with their keys.", indexed(func(e *env) {
		ann, keys := e.key+"@ann", make(map[string][]string)
		owners := []string{ann, ann, ann + "x", ann[:len(ann)-1], ann + "*", strings.ToUpper(ann), "", "@", "{ann}" + e.key, e.key + "/a:b#c%20[d]"}
		for i, owner := range owners {
			x := e.with(fmt.Sprint(e.key, "o", i))
			r := record("n", fmt.Sprint(i))
			r.Owner, r.Device, r.Permanent = owner, fmt.Sprint("Browser/", i, " (é; @x #y)"), i == 1
			r.Device += strings.Repeat("é", (256-len(r.Device))/2) // which is the longest
			x.create(r)
			if got := x.holds("n", fmt.Sprint(i)); got.Owner != owner || got.Device != r.Device {
				e.breach("Load = Owner %q and Device %q, want %q and %q", got.Owner, got.Device, owner, r.Device)
			}
			keys[owner] = append(keys[owner], x.key)
		}
		for owner, keys := range keys {
			if owner != "" && owner != "@" { // which others may have used before
				e.owns(owner, keys...)
			}
		}
		e.owns(e.key + "@nobody")
		e.owns(ann+"*", keys[ann+"*"]...)
	})},
	{"OwnedUpdate", "An Update with Owner moves the record to that owner, \"\" to none, and back again; without, it keeps its owner.", indexed(func(e *env) {
		ann, eve := e.key+"@ann", e.key+"@eve"
		other := record("b", "2")
		other.Owner = ann
		e.with(e.key + "other").create(other)
		r := e.create(record("a", "1"))
		e.owns(ann, e.key+"other")
		was := r
		for i, owner := range []string{ann, eve, ann, "", eve, eve, ann} {
			c := change(r)
			c.Now = c.Now.Add(time.Duration(i) * time.Millisecond)
			c.Owner, c.Seen = &owner, []*sessplus.Record{nil, was, e.load()}[i%3]
			if i%2 == 0 {
				c.Set = fields("a", fmt.Sprint(i))
			}
			was = e.load()
			e.update(c)
			if got := e.load().Owner; got != owner {
				e.breach("after an Update with the Owner %q it is %q", owner, got)
			}
			want := map[string][]string{ann: {e.key + "other"}}
			if want[owner] = append(want[owner], e.key); owner != "" {
				e.owns(owner, want[owner]...)
			}
			for _, o := range []string{ann, eve} {
				e.owns(o, want[o]...)
			}
		}
		for name, alter := range map[string]func(c *sessplus.Change){
			"a touch":                  func(c *sessplus.Change) { c.Expires = r.Expires.Add(time.Hour) },
			"a save":                   func(c *sessplus.Change) { c.Set = fields("c", "3") },
			"the loss of a field":      func(c *sessplus.Change) { c.Delete = []string{"c"} },
			"a permanence":             func(c *sessplus.Change) { c.Permanent, c.Expires = new(true), r.Expires.Add(24*time.Hour) },
			"the end of permanence":    func(c *sessplus.Change) { c.Permanent = new(false) },
			"a change that is refused": func(c *sessplus.Change) { c.Match, c.Owner = fields("a", "x"), new(eve) },
		} {
			c := change(r)
			alter(c)
			if _, err := e.Update(e.ctx, e.key, c); err != nil && c.Match == nil {
				e.breach("%s: %v", name, err)
			}
			if got := e.load().Owner; got != ann {
				e.breach("after %s the Owner is %q", name, got)
			}
			e.owns(ann, e.key, e.key+"other")
			e.owns(eve)
		}
	})},
	{"OwnedLives", "Owned returns a record for as long as it lives, however an Update has moved its expiry, and whatever Seen was.", indexed(func(e *env) {
		moves := []func(seen, created *sessplus.Record) *sessplus.Change{
			func(seen, r *sessplus.Record) *sessplus.Change { return &sessplus.Change{Seen: seen} },
			func(seen, r *sessplus.Record) *sessplus.Change {
				return &sessplus.Change{Set: fields("b", "2"), Seen: seen}
			},
			func(seen, r *sessplus.Record) *sessplus.Change { return &sessplus.Change{Set: fields("b", "2")} },
			func(seen, r *sessplus.Record) *sessplus.Change {
				return &sessplus.Change{Permanent: new(true), Seen: r}
			},
			func(seen, r *sessplus.Record) *sessplus.Change {
				return &sessplus.Change{Delete: []string{"b"}, Seen: r}
			},
		}
		var last time.Time
		var owners, keys []string
		for i, move := range moves {
			for j := range 2 {
				x := e.with(fmt.Sprintf("%sl%d-%d", e.key, i, j))
				ann := x.key + "@ann"
				r := record("a", "1")
				r.Owner, r.Expires = ann, time.Now().Add(1500*time.Millisecond)
				if j > 0 {
					r.Owner = ""
				}
				x.create(r)
				seen := x.load()
				if j > 0 { // and this is not seen
					c := change(r)
					c.Owner = &ann
					x.update(c)
				}
				c := move(seen, r)
				c.Now, c.Expires = time.Now(), r.Expires.Add(time.Hour)
				x.update(c)
				owners, keys, last = append(owners, ann), append(keys, x.key), r.Expires
			}
		}
		gone := e.with(e.key + "gone")
		r := record("a", "1")
		r.Owner, r.Expires = e.key+"@ann", last
		gone.create(r)
		time.Sleep(time.Until(last) + 100*time.Millisecond)
		for i, owner := range owners {
			e.owns(owner, keys[i])
		}
		e.owns(e.key + "@ann")
	})},
	{"OwnedEnds", "Owned returns a record that is taken, and none that has ended or expired; one whose end was undone is there again.", indexed(func(e *env) {
		ann := e.key + "@ann"
		r := record("a", "1")
		r.Owner = ann
		e.create(r)
		e.end(take("t"))
		if list := e.owns(ann, e.key); list[0].Mark == nil || list[0].Mark.Token != "t" {
			e.breach("Owned gives the Mark %v of a record that was taken by t", list[0].Mark)
		}
		e.end(end("t", e.key+"next"))
		e.owns(ann)
		e.owns(ann)
		e.end(release("t"))
		e.owns(ann, e.key)
		next := e.with(e.key + "next") // as a rotation does
		e.end(take("t"))
		next.create(r)
		e.owns(ann, e.key, next.key)
		e.end(end("t", next.key))
		e.owns(ann, next.key)
		next.end(end("", ""))
		e.owns(ann)
	})},
	{"OwnedCopies", "The records that Owned returns are the caller's.", indexed(func(e *env) {
		r := record("a", "1")
		r.Owner = e.key + "@ann"
		e.create(r)
		list := e.owns(r.Owner, e.key)
		list[0].Fields[0] = sessplus.RawField{Name: "x", Value: []byte("9")}
		list[0].Owner = "x"
		e.holds("a", "1")
		e.owns(r.Owner, e.key)
	})},
	{"OwnedTogether", "A record whose Create, or Update to an Owner, has returned is not missing, whatever happens beside it.", indexed(func(e *env) {
		ann, eve := e.key+"@ann", e.key+"@eve"
		const n = 24
		var all []string
		for i := range n {
			all = append(all, fmt.Sprint(e.key, "t", i))
		}
		e.together(n, func(i int) {
			r := record("n", fmt.Sprint(i))
			r.Owner = ann
			if i%2 > 0 {
				r.Owner = ""
			}
			if err := e.Create(e.ctx, all[i], r); err != nil {
				e.Errorf("Create: %v", err)
				return
			}
			if i%2 > 0 {
				c := change(r)
				c.Owner = &ann
				if _, err := e.Update(e.ctx, all[i], c); err != nil {
					e.Errorf("Update: %v", err)
					return
				}
			}
			list, err := e.Backend.(sessplus.Indexer).Owned(e.ctx, ann)
			if err != nil || !slices.ContainsFunc(list, func(r sessplus.KeyedRecord) bool { return r.Key == all[i] }) {
				e.Errorf("Owned lacks a record that has this Owner, %v\nbreaks the promise: %s", err, e.rule)
			}
		})
		e.owns(ann, all...)
		e.together(n, func(i int) {
			switch i % 3 {
			case 0:
				if _, err := e.End(e.ctx, all[i], end("", "")); err != nil {
					e.Errorf("End: %v", err)
				}
			case 1:
				c := change(record())
				c.Owner = &eve
				if _, err := e.Update(e.ctx, all[i], c); err != nil {
					e.Errorf("Update: %v", err)
				}
			}
		})
		var stay, moved []string
		for i := range n {
			switch i % 3 {
			case 1:
				moved = append(moved, all[i])
			case 2:
				stay = append(stay, all[i])
			}
		}
		e.owns(ann, stay...)
		e.owns(eve, moved...)
	})},
	{"OwnedContext", "Owned returns an error soon after its context is done.", indexed(func(e *env) {
		r := record("a", "1")
		r.Owner = e.key + "@ann"
		e.create(r)
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		start := time.Now()
		if list, err := e.Backend.(sessplus.Indexer).Owned(ctx, r.Owner); err == nil || time.Since(start) > 2*time.Second {
			e.breach("Owned = %d records, %v, after %v", len(list), err, time.Since(start))
		}
	})},
	{"StaleSeen", "What an Update finds is decided by the record, also after one with a Seen that had become stale.", func(e *env) {
		e.create(record("a", "1"))
		seen := e.load()
		c := change(seen)
		c.Set = fields("x", "1")
		e.update(c)
		c = change(seen)
		c.Seen, c.Set = seen, fields("b", "1")
		result := e.update(c)
		known := *seen
		known.Fields, known.Version, known.Expires = fields("a", "1", "b", "1"), result.Version, result.Expires
		c = change(seen)
		c.Seen, c.Delete = &known, []string{"a", "b"}
		if result = e.update(c); result.Empty {
			e.breach("Update says that the record is empty, which still has x")
		}
		if got := e.holds("x", "1"); !near(got.Expires, seen.Expires) {
			e.breach("Update has moved the expiry to %v, want %v", got.Expires, seen.Expires)
		}
	}},
	{"NoSecrets", "No error text contains a field's value.", func(e *env) {
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

// indexed is a promise of an Indexer. Other backends need not keep it.
func indexed(test func(e *env)) func(e *env) {
	return func(e *env) {
		if _, ok := e.Backend.(sessplus.Indexer); !ok {
			e.Skip("the backend is no Indexer, which only IndexBy needs")
		}
		test(e)
	}
}

// with returns the env for another key.
func (e *env) with(key string) *env {
	other := *e
	other.key = key
	return &other
}

// owns fails unless the owner has exactly the records of these keys, as Load returns them.
func (e *env) owns(owner string, keys ...string) []sessplus.KeyedRecord {
	e.Helper()
	list, err := e.Backend.(sessplus.Indexer).Owned(e.ctx, owner)
	if err != nil {
		e.breach("Owned: %v", err)
	}
	got := make([]string, len(list))
	for i, r := range list {
		got[i] = r.Key
		loaded, err := e.Load(e.ctx, r.Key)
		if err != nil {
			e.breach("Owned(%q) gives a record for which Load = %v", owner, err)
		}
		d := difference{by: "and in that of Load it is"}
		d.record(r.Record, loaded, "")
		if d.text("Owner", r.Owner, owner); d.lines != nil {
			e.breach("in a record of Owned(%q) %v", owner, &d)
		}
	}
	slices.Sort(got)
	slices.Sort(keys)
	if !slices.Equal(got, keys) {
		e.breach("Owned(%q) gives the keys %q, want %q", owner, got, keys)
	}
	return list
}

// together calls f with 0 to n-1 concurrently, and waits for all calls.
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
