package sessplus

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How fields go from their former owners, once their new ones are saved; adopted.go says how a move works.

// A removal takes a field from its former owner, as far as that still has what is known of it.
type removal struct {
	from, to       *part
	former, record sessionName // of their records
	name           string      // of the field
	value          []byte      // what to has now, nil for none
	known          []byte      // what from had, or to had before
	had            []byte      // what to had before
	by             *save       // has moved it; nil: the program has set or deleted it, or it is a copy
	copied         bool        // from has kept it until the browser had the cookie of to
	deleted        bool        // and whoever moves it meanwhile moves it in vain
	call           *call
	yields         bool  // the call takes back what to has
	err            error // of the call, or of loading what from has
}

// removeMoved takes the fields that were moved or set from their former owners, once they are saved. It looks first
// what those have now. What is not known there was set meanwhile by a process from before, or after: then the cookie
// counts whose name is the greater one, for both. A moved field that is no longer there has been deleted, or set here
// since: then it is not taken back (movedField).
func (s *Session) removeMoved(saves []*save) []*save {
	if !s.m.adopting {
		return saves
	}
	removals := s.removals(saves)
	var notes []*call
	s.eachRecord(removals, formerOwner, func(r *removal, now []byte) {
		if r.decide(now) {
			notes = r.noteCopy(notes, now)
		}
	})
	var calls, last []*call
	for _, r := range removals {
		if r.call != nil {
			calls = append(calls, r.call)
		}
		if r.deleted {
			last = append(last, r.to.removing(r.record, RawField{r.name, r.known}))
		}
	}
	s.run(append(calls, notes...))
	for _, r := range removals {
		if r.by != nil && !r.yields && r.call != nil && errors.Is(r.call.err, ErrConflict) {
			r.takeBack() // it was changed in this moment
			last = append(last, r.call)
		}
	}
	s.run(last)
	for _, c := range notes {
		if c.err != nil && !errors.Is(c.err, ErrNoRecord) {
			s.warn("sessplus: it could not be noted that a session keeps a copy of fields that were moved to another cookie", "cookie", c.part.CookieName, "error", c.err)
		}
	}
	for _, r := range removals {
		saves = s.finishRemoval(r, saves)
	}
	s.keepCopied(removals)
	return saves
}

// decide plans the call of a removal for what the former owner has now, nil for none. It reports whether a note that
// this is a copy takes the place of a call.
func (r *removal) decide(now []byte) (copied bool) {
	moved := r.by != nil || r.copied
	remove := r.value == nil || string(now) == string(r.known) || string(now) == string(r.value) ||
		!moved && r.to.CookieName > r.from.CookieName
	switch {
	case now == nil && r.by == nil:
	case now == nil, !remove:
		r.takeBack()
	case r.by != nil && r.by.does == creates: // the copy stays until the browser has the new cookie
		return true
	default:
		r.call = r.from.removing(r.former, RawField{r.name, now})
	}
	return false
}

// finishRemoval adds what a removal has resulted in to the saves: the former owner ends with its last field, and the
// save of a field fails if the field could not be removed.
func (s *Session) finishRemoval(r *removal, saves []*save) []*save {
	if r.call != nil {
		r.err = r.call.err
	}
	switch err := r.err; {
	case r.yields || r.call == nil && err == nil:
	case err == nil && r.call.result.Empty && !s.sent:
		var v *save
		v, saves = saveFor(r.from, saves)
		v.does, v.send, v.drop, v.written = ends, false, true, true
	case err == nil, errors.Is(err, ErrNoRecord), errors.Is(err, ErrConflict):
	case r.by != nil || r.copied || r.value != nil: // it has the same value there
		s.warn("sessplus: a field was moved to another cookie, and could not be removed from its former one", "cookie", r.from.CookieName, "field", r.name, "error", err)
	default:
		var v *save
		v, saves = saveFor(r.to, saves)
		v.err = r.to.saveError(err)
	}
	return saves
}

// takeBack undoes what the new owner has got. A record that was created only for moved fields ends, because another
// request may have created one.
func (r *removal) takeBack() {
	now := RawField{r.name, r.value}
	r.call, r.yields = r.to.removing(r.record, now), true
	switch v := r.by; {
	case v == nil:
	case v.does == creates && len(v.moved()) == len(v.changed):
		r.call = r.to.endCall(r.record.key)
		v.written, v.send = false, false
	default:
		if r.had != nil {
			r.call = r.to.replacing(r.record, now, r.had)
		}
		v.leave(r.name)
	}
	if c := r.call.change; c != nil && r.by != nil && !r.by.creates() {
		c.Match = append(c.Match, RawField{movedField(r.name), []byte(r.by.token)})
	}
}

// copiesField is a field in the record of a former owner, which no program sees: for each field of which it keeps a
// copy, the time of the move in Unix milliseconds, ":", and a hash. A copy counts for as long as an id that was
// replaced does. After that it would bring back what has been revoked in the new cookie.
const copiesField = "sessplus copies"

// noteCopy adds the field to a call that notes copies of its former owner.
func (r *removal) noteCopy(notes []*call, value []byte) []*call {
	i := slices.IndexFunc(notes, func(c *call) bool { return c.part == r.from })
	if i < 0 {
		c := Change{Set: []RawField{{copiesField, slices.Clone(r.from.rec.valueOf(copiesField))}}}
		i, notes = len(notes), append(notes, r.from.changing(r.former, c))
	}
	change := notes[i].change
	change.Set[0].Value = fmt.Appendf(change.Set[0].Value, "%d:%s ", change.Now.UnixMilli(), hashOf(RawField{r.name, value}))
	return notes
}

// staleCopy reports whether the field is a copy that does not count any more.
func (r *Record) staleCopy(f RawField) bool {
	notes := string(r.valueOf(copiesField))
	for note := range strings.FieldsSeq(notes) {
		at, hash, _ := strings.Cut(note, ":")
		if milli, err := strconv.ParseInt(at, 10, 64); err == nil && hash == hashOf(f) {
			return wallNow().Sub(time.UnixMilli(milli)) >= EndGrace
		}
	}
	return false
}

// hashOf tells a field with its value from others. In the store it reveals nothing that does not lie beside it.
func hashOf(f RawField) string {
	sum := sha256.Sum256(append(append([]byte(f.Name), 0), f.Value...))
	return hex.EncodeToString(sum[:8])
}

// keepCopied makes sure that the new owner still has a field whose copy was removed: another process may have moved it
// back at the same time, and each has removed the other's.
func (s *Session) keepCopied(removals []*removal) {
	copies := slices.DeleteFunc(removals, func(r *removal) bool { return !r.copied || r.yields || r.call == nil || r.call.err != nil })
	var lost []*removal
	s.eachRecord(copies, newOwner, func(r *removal, now []byte) {
		if now == nil {
			lost = append(lost, r)
		}
	})
	var calls []*call
	s.eachRecord(lost, formerOwner, func(r *removal, now []byte) {
		if now == nil { // nor has it been set there
			calls = append(calls, r.to.replacing(r.record, RawField{r.name, nil}, r.value))
		}
	})
	s.run(calls)
}

// formerOwner and newOwner are the records that a removal is about.
func formerOwner(r *removal) (*part, sessionName) { return r.from, r.former }

func newOwner(r *removal) (*part, sessionName) { return r.to, r.record }

// eachRecord loads the records that the removals are about, and calls f with the value that each field has there, nil
// for none. What cannot be loaded is left out, and has an err.
func (s *Session) eachRecord(removals []*removal, of func(r *removal) (*part, sessionName), f func(r *removal, now []byte)) {
	loads := make(map[*part]*call)
	var calls []*call
	for _, r := range removals {
		if p, name := of(r); loads[p] == nil {
			loads[p] = &call{part: p, op: opLoad, sessionName: name}
			calls = append(calls, loads[p])
		}
	}
	s.run(calls)
	for _, r := range removals {
		p, _ := of(r)
		if r.err = loads[p].err; r.err == nil {
			f(r, loads[p].record.valueOf(r.name))
		}
	}
}

// removals finds what removeMoved has to do.
func (s *Session) removals(saves []*save) (list []*removal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		from := &s.parts[i]
		if from.state != loaded || from.sealer != nil || from.rec == nil || from.epoch > 0 || from.gone {
			continue
		}
		v := saveOf(from.cookie, saves)
		if v != nil && (v.err != nil || v.lost || v.does == ends) {
			continue
		}
		c := clearance{Session: s, from: from, own: v, saves: saves}
		c.addChanged()
		c.addCopied()
		c.addOverridden()
		list = append(list, c.list...)
		gone := func(f RawField) bool {
			return slices.ContainsFunc(c.list, func(r *removal) bool { return r.name == f.Name })
		}
		from.leaving, from.expelled = slices.DeleteFunc(slices.Clone(from.leaving), gone), nil
	}
	return list
}

// A clearance finds what is to go from one former owner.
type clearance struct {
	*Session
	from  *part
	own   *save // the former owner's, or nil
	saves []*save
	list  []*removal
}

func (c *clearance) add(to *part, name string) *removal {
	r := &removal{from: c.from, to: to, former: c.own.nameOr(c.from), name: name, known: c.from.formerly(name)}
	r.record = saveOf(to.cookie, c.saves).nameOr(to)
	c.list = append(c.list, r)
	return r
}

// addChanged adds the fields that their new owners have saved.
func (c *clearance) addChanged() {
	for _, v := range c.saves {
		t := v.part
		if !v.hasChanged() || t.sealer != nil || !slices.Contains(t.adopts, c.from.index) {
			continue
		}
		for _, f := range v.changed {
			if c.m.routes.owns(c.from.index, f.Name) {
				continue
			}
			r := c.add(t, f.Name)
			r.value, r.deleted = f.Value, f.Value == nil && r.known != nil
			if r.known == nil {
				r.known = t.stored(f.Name)
			}
			if slices.Contains(v.moved(), f.Name) {
				if r.by = v; !t.unsure(f.Name) {
					r.had = t.stored(f.Name)
				}
			}
		}
	}
}

// addCopied adds the fields that another request has moved.
func (c *clearance) addCopied() {
	for _, f := range c.from.leaving {
		for _, i := range c.m.adopters(c.from.index, f.Name) {
			t := &c.parts[i]
			if t.sealer != nil || !t.found || t.epoch > 0 {
				continue
			}
			v := saveOf(t.cookie, c.saves)
			e, _ := t.entries.find(f.Name)
			// Until then another process may just be moving it back.
			same := !e.dirty() && string(e.value) == string(f.Value) && wallNow().Sub(c.from.rec.Saved) >= EndGrace
			// The other request does not find the renewed record.
			conceded := c.own.hasChanged() && c.own.creates() && v.hasChanged() && t.moving && e.moved && e.dirty() && !slices.Contains(v.moved(), f.Name)
			if same && (v.hasChanged() || c.own.hasChanged()) || conceded {
				r := c.add(t, f.Name)
				r.value, r.copied = f.Value, true
			}
		}
	}
}

// addOverridden adds the fields that the program has changed in their new owners, and that are not added yet.
func (c *clearance) addOverridden() {
	for _, name := range c.overridden(c.from) {
		if slices.ContainsFunc(c.list, func(r *removal) bool { return r.name == name }) {
			continue
		}
		n, unsaved, to := len(c.list), false, c.from
		for _, i := range c.m.adopters(c.from.index, name) {
			t := &c.parts[i]
			to = t
			e, known := t.entries.find(name)
			if known && e.value == nil && t.sealer == nil && t.rec != nil {
				c.add(t, name).deleted = true
			}
			unsaved = unsaved || e.value != nil && saveOf(t.cookie, c.saves).failed()
		}
		if len(c.list) == n && !unsaved {
			c.add(to, name)
		}
	}
}

// hasChanged reports whether a save, which may be nil, has changed what is stored.
func (v *save) hasChanged() bool { return v != nil && v.written && v.err == nil && !v.does.reads() }

// failed reports whether there is a save, which has not been made.
func (v *save) failed() bool { return v != nil && v.err != nil }

// nameOr is the name of the record that a save has written, if it has, else that of the part.
func (v *save) nameOr(p *part) sessionName {
	if v != nil && v.main != nil && v.main.op != opEnd {
		return v.main.sessionName
	}
	return p.name
}
