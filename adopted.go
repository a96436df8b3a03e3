package sessplus

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How a field moves to another cookie when a deployment changes the configs (Config.Adopt). What the former owner has
// stored is read from there. The next commit that saves something of either cookie writes it to the new owner, and then
// removes it from the former one, if it is still the same there. If the new cookie did not come with the request, the
// former owner keeps a copy for a minute, because the response with the cookie may not arrive.
//
// A move is not a change of the field, and gives way to changes by other requests. It applies only if the new owner
// still has what was seen there (Change.Match), and is undone if the former owner has lost the field meanwhile, unless
// somebody has touched the field since (movedField). A request that sets a field first sets it in the former owner,
// too, whose value counts, and removes it there in the end. One that deletes a field removes it there, and then once
// more from the new owner. Field.Update changes the field where it is, and leaves it to a move.
//
// Processes of before and after the deployment may run side by side, each with an Adopt for the other's cookie. So what
// the former owner has is the newer value: whoever moves a field removes it there, and whoever sets one removes it as
// well, in case it has just been moved back.

// adoptions finds the mistakes of Config.Adopt.
func (v *validation) adoptions(c *Config) {
	for i, name := range c.Adopt {
		known := slices.ContainsFunc(v.configs, func(o Config) bool { return o.CookieName == name })
		v.check(!known, "Adopt", name, "is not the cookie of another config")
		v.check(name == c.CookieName && known, "Adopt", name, "is this cookie; name those that owned its fields before")
		v.check(slices.Contains(c.Adopt[:i], name), "Adopt", name, "is there twice; once is enough")
	}
}

// link finds the cookies that Adopt names.
func (c *cookie) link(cookies []*cookie) {
	for i, o := range cookies {
		if slices.Contains(c.Adopt, o.CookieName) {
			c.adopts = append(c.adopts, i)
		}
	}
}

// adopters are the cookies that take a stored field over from another one.
func (m *Manager) adopters(from int, field string) (list []int) {
	for _, i := range m.routes.owners(field) {
		if slices.Contains(m.cookies[i].adopts, from) {
			list = append(list, i)
		}
	}
	return list
}

// trades reports whether the cookie takes fields over from others, or others from it.
func (m *Manager) trades(c *cookie) bool {
	return m.adopting && (len(c.adopts) > 0 || slices.ContainsFunc(m.cookies, func(o *cookie) bool { return slices.Contains(o.adopts, c.index) }))
}

// sources are the parts whose fields t takes over, as far as they are loaded.
func (s *Session) sources(t *part) (list []*part) {
	for _, i := range t.adopts {
		if p := &s.parts[i]; p.state != unloaded && p.rec != nil {
			list = append(list, p)
		}
	}
	return list
}

// sourcesFirst splits parts into those whose fields others take over, and the others. A field is written to its new
// owner before it goes from its former one, so who loads them in that order does not miss it between the two.
func (s *Session) sourcesFirst(parts []*part) (sources, others []*part) {
	if !s.m.adopting {
		return parts, nil
	}
	for _, p := range parts {
		if slices.ContainsFunc(parts, func(t *part) bool { return slices.Contains(t.adopts, p.index) }) {
			sources = append(sources, p)
		} else {
			others = append(others, p)
		}
	}
	return sources, others
}

// lookAgain loads former owners once more whose fields have other values in their new cookies: who has set them removes
// them there in a moment. It releases s.mu meanwhile.
func (s *Session) lookAgain() {
	var calls []*call
	for i := range s.parts {
		from := &s.parts[i]
		differs := func(f RawField) bool {
			return slices.ContainsFunc(s.m.adopters(i, f.Name), func(j int) bool {
				e, _ := s.parts[j].entries.find(f.Name)
				return e.saved != nil && !e.dirty() && string(e.saved) != string(f.Value)
			})
		}
		if from.sealer == nil && slices.ContainsFunc(from.leaving, differs) {
			calls = append(calls, &call{part: from, op: opLoad, sessionName: from.name, asked: from.name.key})
		}
	}
	s.unlocked(func() { s.run(calls) })
	for _, c := range calls {
		if p := c.part; c.err == nil && p.rec != nil && p.name.key == c.asked {
			p.moved(c)
			p.take(s.m, c.record)
		}
	}
}

// adoptFields gives the parts what others have stored for them.
func (s *Session) adoptFields() {
	for i := range s.parts {
		t := &s.parts[i]
		if len(t.adopts) == 0 || t.state == unloaded || t.err != nil || t.gone || t.epoch > 0 {
			continue
		}
		for _, from := range s.sources(t) {
			for _, f := range from.leaving {
				if s.m.routes.owns(i, f.Name) && t.yields(from, f) {
					*t.entries.at(f.Name) = entry{name: f.Name, value: f.Value, saved: t.stored(f.Name), moved: true}
				} else if e, _ := t.entries.find(f.Name); t.sealer != nil && e.value != nil && !e.dirty() {
					// The browser has it.
					from.foreign = append(from.foreign, f.Name)
				}
			}
			from.leaving = slices.DeleteFunc(slices.Clone(from.leaving), func(f RawField) bool { return slices.Contains(from.foreign, f.Name) })
		}
	}
}

// yields reports whether the value that the former owner of a field has takes the place of that of p. An old copy of a
// secure cookie can be brought back, and one that was just set may not arrive: then the time decides.
func (p *part) yields(from *part, f RawField) bool {
	e, _ := p.entries.find(f.Name)
	switch {
	case e.moved:
		return true
	case e.dirty():
		return false
	case e.value == nil:
		return p.entries.findTouched(f.Name) < 0
	case from.sealer != nil: // which has lost the field whenever p was saved by a process of now
		return p.rec == nil || !p.rec.Saved.After(from.rec.Saved)
	case p.sealer != nil:
		return p.rec == nil || from.rec.Saved.After(p.rec.Saved)
	}
	return true
}

// stored is the value of a field in the store, as far as it is known.
func (p *part) stored(name string) []byte {
	e, _ := p.entries.find(name)
	return e.saved
}

// adopted reports whether fields of others are to be saved with the part.
func (p *part) adopted() bool {
	return slices.ContainsFunc(p.entries.touched, func(e entry) bool { return e.moved })
}

// overridden are the fields that the part is to remove because the program has set or deleted them in their new cookie,
// or has destroyed that.
func (s *Session) overridden(from *part) (names []string) {
	names = slices.Clone(from.expelled)
	known := func(name string) bool { return slices.Contains(names, name) }
	for _, name := range from.remains() {
		for _, i := range s.m.adopters(from.index, name) {
			t := &s.parts[i]
			if j := t.entries.findTouched(name); j >= 0 && !t.entries.touched[j].moved && (t.sealer == nil || t.entries.touched[j].value == nil) && !known(name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// remains are the fields of other cookies that the part still has stored.
func (p *part) remains() []string {
	names := slices.Clone(p.foreign)
	for _, f := range p.leaving {
		names = append(names, f.Name)
	}
	return names
}

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
		for _, from := range s.sources(t) {
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
	for _, from := range s.sources(v.part) {
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
		if v.main != nil && errors.Is(v.main.err, ErrConflict) {
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
		moved := r.by != nil || r.copied
		switch {
		case now == nil && r.by != nil:
			r.takeBack()
		case now == nil:
		case r.value == nil, string(now) == string(r.known), string(now) == string(r.value), !moved && r.to.CookieName > r.from.CookieName:
			if r.by == nil || r.by.does != creates { // else a copy stays until the browser has the new cookie
				r.call = r.from.removing(r.former, RawField{r.name, now})
			} else {
				notes = r.noteCopy(notes, now)
			}
		default:
			r.takeBack()
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
	}
	s.keepCopied(removals)
	return saves
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
func newOwner(r *removal) (*part, sessionName)    { return r.to, r.record }

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
		if from.sealer != nil || from.rec == nil || from.epoch > 0 || from.gone {
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

// formerly is the value of a field that another cookie is to take over, nil for none.
func (p *part) formerly(name string) []byte {
	for _, f := range p.leaving {
		if f.Name == name {
			return f.Value
		}
	}
	return nil
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

// disown lets a part that is destroyed leave to others what they have taken over from it, and nothing of its own
// anywhere else.
func (s *Session) disown(p *part) {
	if !s.m.adopting {
		return
	}
	for _, from := range s.sources(p) {
		for _, name := range from.remains() {
			if s.m.routes.owns(p.index, name) {
				from.expelled = append(from.expelled, name)
			}
		}
	}
	for i := range s.parts {
		if t := &s.parts[i]; slices.Contains(t.adopts, p.index) {
			for j := range t.entries.touched {
				t.entries.touched[j].moved = false
			}
		}
	}
}

// withAdoptions adds to the cookies those whose fields they take over, and those that take over what these have.
func (s *Session) withAdoptions(indexes []int) []int {
	all := slices.Clip(indexes)
	add := func(i int) {
		if s.parts[i].state == unloaded && !slices.Contains(all, i) {
			all = append(all, i)
		}
	}
	for _, i := range indexes {
		for _, j := range s.parts[i].adopts {
			add(j)
		}
	}
	for i := range s.parts {
		for _, f := range s.parts[i].leaving {
			for _, j := range s.m.adopters(i, f.Name) {
				add(j)
			}
		}
	}
	return all
}
