package sessplus

import "slices"

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

// sources are the parts whose fields t takes over, as far as they have come to that state: loaded, or loading for who
// loads them.
func (s *Session) sources(t *part, state partState) (list []*part) {
	for _, i := range t.adopts {
		if p := &s.parts[i]; p.state >= state && p.rec != nil {
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
		for _, from := range s.sources(t, loading) {
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
	for _, name := range from.remains() {
		for _, i := range s.m.adopters(from.index, name) {
			t := &s.parts[i]
			j := t.entries.findTouched(name)
			if j < 0 || slices.Contains(names, name) {
				continue
			}
			if e := t.entries.touched[j]; !e.moved && (t.sealer == nil || e.value == nil) {
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

// formerly is the value of a field that another cookie is to take over, nil for none.
func (p *part) formerly(name string) []byte {
	for _, f := range p.leaving {
		if f.Name == name {
			return f.Value
		}
	}
	return nil
}

// disown lets a part that is destroyed leave to others what they have taken over from it, and nothing of its own
// anywhere else.
func (s *Session) disown(p *part) {
	if !s.m.adopting {
		return
	}
	for _, from := range s.sources(p, loaded) {
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
