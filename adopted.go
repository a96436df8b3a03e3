package sessplus

import (
	"errors"
	"slices"
)

// How a field moves to another cookie when a deployment changes the configs (Config.Adopt). What the former owner has
// stored is read from there. The next commit that saves something of either cookie writes it to the new owner, and then
// removes it from the former one, if it is still the same there.
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
	for _, f := range from.leaving {
		for _, i := range s.m.adopters(from.index, f.Name) {
			t := &s.parts[i]
			if j := t.entries.findTouched(f.Name); j >= 0 && !t.entries.touched[j].moved && (t.sealer == nil || t.entries.touched[j].value == nil) && !known(f.Name) {
				names = append(names, f.Name)
			}
		}
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
			due := t.unsaved() || from.unsaved()
			t.moving = t.moving || due && !out && t.adopted()
			if from.sealer != nil && !s.sent && due && len(from.leaving)+len(from.expelled) > 0 {
				// It was written again, without them.
				from.movedOut = true
				from.resend(true)
			}
		}
	}
}

// A removal takes a field from its former owner, as far as that still has what is known of it.
type removal struct {
	from, to *part
	record   sessionName // of to
	name     string      // of the field
	moved    bool        // to has what from had; else the program has set or deleted it
	value    []byte      // what to has now, nil for none
	known    []byte      // what from had, or to had before
	call     *call
	yields   bool // the call takes back what to has
}

// removeMoved takes the fields that were moved or set from their former owners, once they are saved. It looks first
// what those have now. What is not known there was set meanwhile by a process from before, or after: then the cookie
// counts whose name is the greater one, for both.
func (s *Session) removeMoved(saves []*save) []*save {
	if !s.m.adopting {
		return saves
	}
	removals := s.removals(saves)
	s.eachRecord(removals, func(r *removal) *part { return r.from }, func(r *removal, now []byte) {
		switch {
		case now == nil:
		case r.value == nil, string(now) == string(r.known), !r.moved && r.to.CookieName > r.from.CookieName:
			r.call = r.from.removing(r.from.name, RawField{r.name, now})
		default:
			r.call, r.yields = r.to.removing(r.record, RawField{r.name, r.value}), true
		}
	})
	var calls []*call
	for _, r := range removals {
		if r.call != nil {
			calls = append(calls, r.call)
		}
	}
	s.run(calls)
	for _, r := range removals {
		if r.call == nil || r.yields {
			continue
		}
		switch err := r.call.err; {
		case err == nil && r.call.result.Empty && !s.sent:
			var v *save
			v, saves = saveFor(r.from, saves)
			v.does, v.send, v.drop, v.written = ends, false, true, true
		case err == nil, errors.Is(err, ErrNoRecord), errors.Is(err, ErrConflict):
		case r.moved:
			s.warn("sessplus: a field was moved to another cookie, and could not be removed from its former one", "cookie", r.from.CookieName, "field", r.name, "error", err)
		default:
			var v *save
			v, saves = saveFor(r.from, saves)
			v.err = r.from.saveError(err)
		}
	}
	s.keepMoved(removals)
	return saves
}

// keepMoved makes sure that a field which was moved is still where it has been moved to: another process may have moved
// it back at the same time, and each has removed the other's.
func (s *Session) keepMoved(removals []removal) {
	moved := slices.DeleteFunc(slices.Clone(removals), func(r removal) bool { return !r.moved || r.yields || r.call == nil || r.call.err != nil })
	var lost []removal
	s.eachRecord(moved, func(r *removal) *part { return r.to }, func(r *removal, now []byte) {
		if now == nil {
			lost = append(lost, *r)
		}
	})
	var calls []*call
	s.eachRecord(lost, func(r *removal) *part { return r.from }, func(r *removal, now []byte) {
		if now == nil { // nor has it been set there
			c := r.to.removing(r.record, RawField{r.name, nil})
			c.change.Delete, c.change.Set = nil, []RawField{{r.name, r.value}}
			calls = append(calls, c)
		}
	})
	s.run(calls)
}

// eachRecord loads the records of the parts that the removals are about, and calls f with the value that each field has
// there, nil for none. What cannot be loaded is left out.
func (s *Session) eachRecord(removals []removal, of func(r *removal) *part, f func(r *removal, now []byte)) {
	loads := make(map[*part]*call)
	var calls []*call
	for i := range removals {
		if p := of(&removals[i]); loads[p] == nil {
			name := p.name
			if p == removals[i].to && p != removals[i].from {
				name = removals[i].record
			}
			loads[p] = &call{part: p, op: opLoad, sessionName: name}
			calls = append(calls, loads[p])
		}
	}
	s.run(calls)
	for i := range removals {
		if c := loads[of(&removals[i])]; c.err == nil {
			f(&removals[i], c.record.valueOf(removals[i].name))
		}
	}
}

// removals finds what removeMoved has to do.
func (s *Session) removals(saves []*save) (list []removal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		from := &s.parts[i]
		if from.sealer != nil || from.rec == nil || from.epoch > 0 || from.gone {
			continue
		}
		if v := saveOf(from.cookie, saves); v != nil && (v.err != nil || v.creates() || v.does == ends) {
			continue
		}
		had := func(name string) []byte {
			for _, f := range from.leaving {
				if f.Name == name {
					return f.Value
				}
			}
			return nil
		}
		for _, v := range saves {
			t := v.part
			if !v.written || v.err != nil || t.sealer != nil || !slices.Contains(t.adopts, i) {
				continue
			}
			for _, f := range v.changed {
				if s.m.routes.owns(i, f.Name) {
					continue
				}
				e, _ := t.entries.find(f.Name)
				r := removal{from: from, to: t, record: v.record(), name: f.Name, moved: e.moved, value: f.Value, known: had(f.Name)}
				if r.known == nil {
					r.known = e.saved
				}
				list = append(list, r)
			}
		}
		for _, name := range s.overridden(from) {
			if !slices.ContainsFunc(list, func(r removal) bool { return r.from == from && r.name == name }) {
				list = append(list, removal{from: from, to: from, name: name})
			}
		}
		gone := func(f RawField) bool {
			return slices.ContainsFunc(list, func(r removal) bool { return r.from == from && r.name == f.Name })
		}
		from.leaving, from.expelled = slices.DeleteFunc(slices.Clone(from.leaving), gone), nil
	}
	return list
}

// removing is a call that removes a field which has that value, and moves no end.
func (p *part) removing(name sessionName, field RawField) *call {
	now := wallNow()
	return &call{part: p, op: opUpdate, sessionName: name, patient: true,
		change: &Change{Delete: []string{field.Name}, Match: []RawField{field}, Now: now, Expires: now}}
}

// record is the name of the record that a save has written.
func (v *save) record() sessionName {
	if v.main != nil && v.main.op != opEnd {
		return v.main.sessionName
	}
	return v.part.name
}

// disown lets a part that is destroyed leave to others what they have taken over from it, and nothing of its own
// anywhere else.
func (s *Session) disown(p *part) {
	if !s.m.adopting {
		return
	}
	for _, from := range s.sources(p) {
		for _, f := range from.leaving {
			if s.m.routes.owns(p.index, f.Name) {
				from.expelled = append(from.expelled, f.Name)
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
