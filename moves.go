package sessplus

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
)

// What a commit does before and while it saves fields that move to another cookie; adopted.go says how a move works.

// joinMoves lets the commit move fields between the parts of which it saves something.
func (s *Session) joinMoves() {
	if !s.m.adopting {
		return
	}
	for i := range s.parts {
		t := &s.parts[i]
		t.moving = false
		if len(t.adopts) == 0 || t.state != loaded {
			continue
		}
		for _, from := range s.sources(t, loaded) {
			out := s.sent && (from.sealer != nil || t.sealer != nil || t.rec == nil || !t.held)
			from.expelled = s.overridden(from)
			due := t.unsaved() || from.unsaved() || from.updated
			t.moving = t.moving || due && !out && t.adopted()
			if from.sealer != nil && !s.sent && due && len(from.leaving)+len(from.expelled) > 0 {
				// It was written again, without them.
				from.movedOut = true
				from.resend(true)
			}
		}
	}
}

// moves are what a save does about moved fields.
type moves struct {
	names []string // of those in save.changed that are only moved here from their former owner
	there []*call  // set fields that the program has set in their former owners, too
	token string   // of the moves
}

// planMoves finds the fields that this commit moves to the part.
func (p *part) planMoves() *moves {
	if len(p.adopts) == 0 {
		return nil
	}
	m := new(moves)
	for _, e := range p.entries.touched {
		if p.moving && e.moved && e.dirty() {
			m.names = append(m.names, e.name)
		}
	}
	if len(m.names) > 0 {
		m.token = rand.Text()
	}
	return m
}

// movedField is the name of a field that no program sees, beside one that was moved. It has the token of that move, and
// goes when anybody sets or deletes the field. So a request takes back only its own move, even if the field has been
// set to the same value since.
func movedField(name string) string {
	if len(movedPrefix)+len(name) > maxFieldName {
		name = hashOf(RawField{Name: name})
	}
	return movedPrefix + name
}

const movedPrefix = copiesField + " moved "

// mark lets the change set the tokens of the fields that it moves, and remove those of the others.
func (v *save) mark(c *Change) {
	if v.moves == nil {
		return
	}
	c.Set = slices.Clip(c.Set)
	for _, f := range v.changed {
		if slices.Contains(v.moved(), f.Name) {
			c.Set = append(c.Set, RawField{movedField(f.Name), []byte(v.token)})
		} else {
			c.Delete = append(c.Delete, movedField(f.Name))
		}
	}
}

// unsure reports whether the field was moved to the part by a request that may still take it back.
func (p *part) unsure(name string) bool {
	return len(p.adopts) > 0 && p.rec != nil && p.rec.valueOf(movedField(name)) != nil
}

// isNote reports whether a field is one of ours, which no program sees.
func isNote(name string) bool { return name == copiesField || strings.HasPrefix(name, movedPrefix) }

// moved names the fields that the save only moves.
func (v *save) moved() []string {
	if v.moves == nil {
		return nil
	}
	return v.moves.names
}

// setFormers sets fields in their former owners first: who sees the new value here does not see the old one there. A
// save whose fields cannot be set there fails.
func (s *Session) setFormers(saves []*save) {
	var calls []*call
	for _, v := range saves {
		if v.moves != nil {
			calls = append(calls, v.there...)
		}
	}
	s.run(calls)
	for _, v := range saves {
		if v.moves == nil {
			continue
		}
		for _, c := range v.there {
			if c.err != nil && !errors.Is(c.err, ErrNoRecord) && !errors.Is(c.err, ErrConflict) {
				v.main.err = c.err
			}
		}
	}
}

// setThere lets the save set a field in its former owner, too, which counts until it is removed there.
func (s *Session) setThere(v *save) {
	if v.moves == nil || v.main == nil || v.err != nil {
		return
	}
	for _, from := range s.sources(v.part, loaded) {
		for _, f := range v.changed {
			known := from.formerly(f.Name)
			if from.sealer == nil && known != nil && f.Value != nil && !slices.Contains(v.moved(), f.Name) {
				v.there = append(v.there, from.replacing(from.name, RawField{f.Name, known}, f.Value))
			}
		}
	}
}

// concede makes again the changes whose condition was not met: without the fields that were to be moved, because
// another request has moved or set them, and without the Owner for a record from before there was an index, which
// another request has set.
func (s *Session) concede(saves []*save) {
	var calls []*call
	for _, v := range saves {
		if v.main != nil && v.main.op == opUpdate && errors.Is(v.main.err, ErrConflict) {
			c := v.main.change
			c.Owner, c.Match = nil, nil
			for _, name := range v.moved() {
				c.Set = without(c.Set, name, movedField(name))
			}
			v.leave(v.moved()...)
			v.part.fileChange(c) // the value has been looked at
			calls = append(calls, v.main)
		}
	}
	s.run(calls)
}

// leave takes fields that were to be moved from the save.
func (v *save) leave(names ...string) {
	if v.moves != nil {
		v.changed = without(v.changed, names...)
		v.names = slices.DeleteFunc(slices.Clone(v.names), func(name string) bool { return slices.Contains(names, name) })
	}
}

// without are the fields that have none of the names.
func without(fields []RawField, names ...string) []RawField {
	return slices.DeleteFunc(slices.Clone(fields), func(f RawField) bool { return slices.Contains(names, f.Name) })
}

// changing is a call that makes a change and moves no end.
func (p *part) changing(name sessionName, c Change) *call {
	c.Now = wallNow()
	c.Expires = c.Now
	return &call{part: p, op: opUpdate, sessionName: name, patient: true, change: &c}
}

// removing is one that removes a field which has that value.
func (p *part) removing(name sessionName, field RawField) *call {
	return p.changing(name, Change{Delete: []string{field.Name, movedField(field.Name)}, Match: []RawField{field}})
}

// replacing is one that gives another value to a field which has that value, nil for none.
func (p *part) replacing(name sessionName, field RawField, value []byte) *call {
	return p.changing(name, Change{Set: []RawField{{field.Name, value}}, Delete: []string{movedField(field.Name)}, Match: []RawField{field}})
}
