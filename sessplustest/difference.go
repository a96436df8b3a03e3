package sessplustest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// clock is how messages show a time.
const clock = "15:04:05.000"

// A difference says how something differs from what it should be, in a line for each part that does.
type difference struct {
	by    string // what leads to the wanted value, such as "want"
	lines []string
}

func (d *difference) String() string { return strings.Join(d.lines, "\n") }

func (d *difference) add(name string, got, want any) {
	if got != want {
		d.lines = append(d.lines, fmt.Sprintf("%s is %v, %s %v", name, got, d.by, want))
	}
}

// text is add for what is quoted.
func (d *difference) text(name, got, want string) {
	if got != want {
		d.add(name, brief(got), brief(want))
	}
}

// time is add for times. The rule, if it is not "", says why this one is wanted.
func (d *difference) time(name string, got, want time.Time, rule string) {
	if near(got, want) {
		return
	}
	const shown = time.Millisecond // a store need not keep more
	off, side := want.Truncate(shown).Sub(got.Truncate(shown)), "later"
	if off < 0 {
		off, side = -off, "earlier"
	}
	d.add(name, got.Format(clock), fmt.Sprintf("%s, %v %s%s", want.Format(clock), off, side, rule))
}

// fields compares fields, whose order does not matter.
func (d *difference) fields(got, want []sessplus.RawField) {
	var names []string
	for _, f := range slices.Concat(got, want) {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		g, w := valuesOf(got, name), valuesOf(want, name)
		switch {
		case g == w:
		case len(d.lines) == 5: // which is enough to see what is wrong
			d.lines = append(d.lines, "…")
			return
		default:
			d.add(fmt.Sprintf("field %.40q", name), g, w)
		}
	}
}

// valuesOf describes what a list has of a field: one value, if all is well.
func valuesOf(list []sessplus.RawField, name string) string {
	var values []string
	for _, f := range list {
		switch {
		case f.Name == name && f.Value == nil:
			values = append(values, "nil")
		case f.Name == name:
			values = append(values, brief(string(f.Value)))
		}
	}
	if values == nil {
		return "absent"
	}
	return strings.Join(values, " and ")
}

// brief quotes a text, of which it leaves out the middle if it is long.
func brief(s string) string {
	if len(s) <= 60 {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…%q (%d bytes)", s[:20], s[len(s)-20:], len(s))
}

// record compares records but for Mark and Version, which are the backend's. The rule says why want expires when it
// does.
func (d *difference) record(got, want *sessplus.Record, rule string) {
	d.fields(got.Fields, want.Fields)
	d.time("Created", got.Created, want.Created, "")
	d.time("Saved", got.Saved, want.Saved, "")
	d.time("Expires", got.Expires, want.Expires, rule)
	d.add("Permanent", got.Permanent, want.Permanent)
	d.time("Rotated", got.Rotated, want.Rotated, "")
	d.text("Origin", got.Origin, want.Origin)
	d.text("Owner", got.Owner, want.Owner)
	d.text("Device", got.Device, want.Device)
	d.text("DeviceKey", got.DeviceKey, want.DeviceKey)
}

// same fails the test if the record is not as it should be. The format says where it was seen.
func (e *env) same(got, want *sessplus.Record, format string, args ...any) {
	e.Helper()
	if got == nil {
		e.breach("%s: no record", fmt.Sprintf(format, args...))
	}
	d := difference{by: "want"}
	if d.record(got, want, ""); d.lines != nil {
		e.breach("%s the %v", fmt.Sprintf(format, args...), &d)
	}
}
