package sessplustest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// A walk is a random history of one record: what the backend is asked to do is also done, with Change.Apply and
// Ending.Apply, to a record in memory (SPEC 13.2).
type walk struct {
	*env
	model *sessplus.Record
	seen  *sessplus.Record // as the backend returned it last
	now   time.Time
	done  []string // the steps so far
}

// history takes random walks, and compares the backend's record with the model after each step.
func history(e *env) {
	_, indexes := e.Backend.(sessplus.Indexer)
	_, keeps := e.Backend.(sessplus.DeviceKeeper)
	owners := []string{e.key + "@ann", e.key + "@eve"}
	for round := range 6 {
		w := &walk{env: e.with(fmt.Sprint(e.key, "h", round)), now: time.Now()}
		w.model = w.create(record("a", "1"))
		w.model.Fields = slices.Clone(w.model.Fields)
		w.seen = w.load()
		for range 40 {
			w.now = w.now.Add(time.Millisecond)
			if rand.IntN(12) == 0 {
				w.now = w.now.Add(sessplus.TakeGrace)
			}
			known := []*sessplus.Record{nil, w.seen}[rand.IntN(2)]
			if rand.IntN(3) > 0 {
				c := w.randomChange()
				c.Seen = known
				if indexes && rand.IntN(4) == 0 {
					c.Owner = &[]string{"", owners[0], owners[1]}[rand.IntN(3)]
				}
				if keeps && rand.IntN(8) == 0 {
					c.DeviceKey = []string{"key.1", "key.2"}[rand.IntN(2)]
				}
				w.updateBoth(c)
			} else {
				step := &sessplus.Ending{
					Step: sessplus.EndStep(rand.IntN(3)), Token: []string{"t1", "t2"}[rand.IntN(2)], Next: "next of it", Now: w.now, Seen: known,
				}
				if rand.IntN(20) == 0 {
					step.Step, step.Token = sessplus.StepEnd, ""
				}
				w.endBoth(step)
			}
			if indexes && rand.IntN(4) == 0 {
				w.listed(owners)
			}
		}
		e.End(e.ctx, w.key, end("", "")) // or its owner had it in the next round
	}
}

// randomChange returns a change that may fit the record.
func (w *walk) randomChange() *sessplus.Change {
	c := &sessplus.Change{Now: w.now, Expires: w.now.Add(time.Duration(rand.IntN(120)) * time.Minute).Add(time.Hour)}
	for _, name := range []string{"a", ":b", "__c__"} {
		switch rand.IntN(6) {
		case 0:
			c.Set = append(c.Set, sessplus.RawField{Name: name, Value: []byte(fmt.Sprint(rand.IntN(3)))})
		case 1, 2:
			c.Delete = append(c.Delete, name)
		case 3:
			if rand.IntN(3) == 0 {
				c.Match = append(c.Match, sessplus.RawField{Name: name})
			} else if i := slices.IndexFunc(w.model.Fields, func(f sessplus.RawField) bool { return f.Name == name }); i >= 0 {
				c.Match = append(c.Match, w.model.Fields[i])
			}
		}
	}
	c.Exact = rand.IntN(2) == 0
	if rand.IntN(8) == 0 {
		c.Permanent = new(rand.IntN(2) == 0)
	}
	return c
}

func (w *walk) updateBoth(c *sessplus.Change) {
	w.Helper()
	w.did("Update "+changeText(c), c.Seen)
	before := *w.model
	result, got := w.Update(w.ctx, w.key, c)
	wanted, want := c.Apply(w.model)
	rule := expiryRule(c, &before, w.model)
	d := difference{by: "and by Change.Apply it is"}
	d.add("the error of Update", errorName(got), errorName(want))
	w.compare(&d, rule)
	if got == nil {
		d.add("Result.Empty", result.Empty, wanted.Empty)
		d.add("Result.Refilled", result.Refilled, wanted.Refilled)
		d.time("Result.Expires", result.Expires, wanted.Expires, rule)
		w.check(&d)
	}
}

func (w *walk) endBoth(step *sessplus.Ending) {
	w.Helper()
	w.did("End with "+stepText(step), step.Seen)
	_, got := w.End(w.ctx, w.key, step)
	want := step.Apply(w.model)
	d := difference{by: "and by Ending.Apply it is"}
	d.add("the error of End", errorName(got), errorName(want))
	w.compare(&d, "")
}

// did notes a step, and the record it is made on.
func (w *walk) did(what string, seen *sessplus.Record) {
	on := fmt.Sprintf("has %s and expires %s", cmp.Or(text(w.model.Fields), "no fields"), w.model.Expires.Format(clock))
	if m := w.model.Mark; m != nil && m.Ended {
		on = fmt.Sprintf("was ended by %q", m.Token)
	} else if m != nil {
		on += fmt.Sprintf(", and is taken by %q until %s", m.Token, m.At.Format(clock))
	}
	if seen == nil {
		on += ", without Seen"
	}
	w.done = append(w.done, fmt.Sprintf("%s %s; the record %s", w.now.Format(clock), what, on))
}

// compare fails the test if d has found something, or else if the backend's record is not the model.
func (w *walk) compare(d *difference, rule string) {
	w.Helper()
	w.check(d)
	r, err := w.Load(w.ctx, w.key)
	var want error
	if m := w.model.Mark; m != nil && m.Ended {
		want = &sessplus.EndedError{Next: m.Next}
	}
	d.add("the error of Load", errorName(err), errorName(want))
	w.check(d)
	if err == nil {
		d.record(r, w.model, rule)
		w.check(d)
		w.seen = r
	}
}

// check fails the test if d has found something.
func (w *walk) check(d *difference) {
	w.Helper()
	if d.lines != nil {
		w.breach("after %s\n%v", w.story(), d)
	}
}

// story tells how many steps there were, and the last two.
func (w *walk) story() string {
	last := w.done[max(0, len(w.done)-2):]
	return fmt.Sprintf("%d random steps, the last of which were\n\t%s", len(w.done), strings.Join(last, "\n\t"))
}

// listed fails the test unless Owned gives the record to its owner alone.
func (w *walk) listed(owners []string) {
	w.Helper()
	e := w.with(w.key)
	e.rule = fmt.Sprintf("%s\nafter %s", w.rule, w.story())
	for _, owner := range owners {
		var keys []string
		if w.model.Owner == owner && !(w.model.Mark != nil && w.model.Mark.Ended) {
			keys = []string{w.key}
		}
		e.owns(owner, keys...)
	}
}

// expiryRule names the row of the table at Change.Expires that decides when the record expires after the change.
func expiryRule(c *sessplus.Change, before, after *sessplus.Record) string {
	switch {
	case len(after.Fields) == 0:
		return " (without fields: the stored time, but at most EmptyGrace from Now)"
	case len(before.Fields) == 0:
		return " (there were no fields before: Change.Expires)"
	case c.Permanent != nil:
		return " (Permanent is set: Change.Expires)"
	case after.Expires.Equal(c.Expires) && c.Exact:
		return " (Exact: Change.Expires)"
	}
	return " (the later of Change.Expires and the stored time)"
}

// changeText describes what a change asks for.
func changeText(c *sessplus.Change) string {
	words := []string{"to expire " + c.Expires.Format(clock)}
	for _, f := range c.Set {
		words = append(words, fmt.Sprintf("set %q to %s", f.Name, brief(string(f.Value))))
	}
	for _, name := range c.Delete {
		words = append(words, fmt.Sprintf("delete %q", name))
	}
	for _, f := range c.Match {
		condition := "absent"
		if f.Value != nil {
			condition = brief(string(f.Value))
		}
		words = append(words, fmt.Sprintf("if %q is %s", f.Name, condition))
	}
	if c.Permanent != nil {
		words = append(words, fmt.Sprintf("Permanent %v", *c.Permanent))
	}
	if c.Owner != nil {
		words = append(words, fmt.Sprintf("Owner %q", *c.Owner))
	}
	if c.DeviceKey != "" {
		words = append(words, fmt.Sprintf("DeviceKey %q", c.DeviceKey))
	}
	if c.Exact {
		words = append(words, "Exact")
	}
	return strings.Join(words, ", ")
}

// stepText describes a step of End.
func stepText(e *sessplus.Ending) string {
	name := map[sessplus.EndStep]string{
		sessplus.StepTake: "StepTake", sessplus.StepRelease: "StepRelease", sessplus.StepEnd: "StepEnd",
	}[e.Step]
	return fmt.Sprintf("%s of token %q", name, e.Token)
}

// errorName returns the name of an error that the documentation of Backend has, and otherwise its text.
func errorName(err error) string {
	var dead *sessplus.EndedError
	switch {
	case err == nil:
		return "nil"
	case errors.As(err, &dead):
		return fmt.Sprintf("an EndedError with Next %q", dead.Next)
	case errors.Is(err, sessplus.ErrNoRecord):
		return "ErrNoRecord"
	case errors.Is(err, sessplus.ErrTaken):
		return "ErrTaken"
	case errors.Is(err, sessplus.ErrConflict):
		return "ErrConflict"
	}
	return err.Error()
}
