package sessplus

import (
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What an old session becomes: a record for each cookie that owns some of its fields, and content of secure cookies.

// establish creates the records of an imported session: those of other cookies, and then that of p. The record of p
// also has the fields of secure cookies, for concurrent requests.
func (s *Session) establish(p *part, v *stray, found *Imported, routed map[int][]RawField, made *call, now time.Time) error {
	own := routed[p.index]
	all := slices.Clone(own)
	for i := range s.parts {
		t := &s.parts[i]
		if t == p || len(routed[i]) == 0 {
			continue
		}
		if t.sealer == nil {
			if _, err := s.place(t, p, v, found, routed[i], now); err != nil && !errors.Is(err, ErrRecordExists) {
				return err
			}
		}
		if t.sealer != nil || len(own) == 0 {
			all = append(all, routed[i]...)
		}
	}
	if p.sealer != nil {
		p.receive(s.m, own, found.Expires, found.Permanent, now)
		p.brought = all
		s.event(p.cookie, EventImport, made, own)
		return nil
	}
	c, err := s.place(p, p, v, found, all, now)
	if err != nil {
		return err
	}
	p.name = c.sessionName
	p.take(s.m, c.record)
	p.brought = all
	c.began, c.took = made.began, made.took
	s.event(p.cookie, EventImport, c, own)
	return nil
}

// place creates the record of a session that v stood for, and the mark. The error matches ErrRecordExists if there is
// one.
func (s *Session) place(t, from *part, v *stray, found *Imported, fields []RawField, now time.Time) (*call, error) {
	name := from.imports.names(t.cookie, forSession, v)[0]
	r := &Record{Created: now, Saved: now, Expires: t.expiry(now, now, found.Permanent), Permanent: found.Permanent, Fields: fields, owned: now}
	if !found.Expires.IsZero() && found.Expires.Before(r.Expires) {
		r.Expires = found.Expires.Truncate(time.Millisecond)
	}
	r.Rotated = now // it had another id before
	r.Origin = origin(binding(name.id), tail(name.key), found.Expires)
	for _, f := range fields {
		if f.Name == t.IndexBy {
			r.Owner, _ = t.ownerBy(f.Value) // it is up to the program to correct a value that names nobody
		}
	}
	if t.IndexBy != "" {
		r.Device = device(s.agent)
	}
	c := &call{part: t, op: opCreate, sessionName: name, record: r}
	s.run([]*call{c})
	if errors.Is(c.err, ErrTooLarge) {
		return nil, &fieldError{largest(fields).Name, "is the largest of an imported session that its store does not take", ErrTooLarge}
	}
	if c.err != nil {
		return nil, c.err
	}
	return c, s.mark(t, from, v, found.Expires)
}

// mark creates the record that says that v has been imported. until is when the old session would have ended.
func (s *Session) mark(t, from *part, v *stray, until time.Time) error {
	now := wallNow()
	if until.IsZero() {
		until = now.Add(maxCookieAge)
	}
	c := &call{part: t, op: opCreate, sessionName: from.imports.names(t.cookie, forMark, v)[0], record: &Record{
		Created: now, Saved: now, Expires: until, Fields: []RawField{{"taken over", []byte("true")}}, owned: now,
	}}
	s.run([]*call{c})
	if errors.Is(c.err, ErrRecordExists) {
		return nil
	}
	return c.err
}

// receive gives a secure cookie fields of a session from before, unless it has such fields itself.
func (p *part) receive(m *Manager, fields []RawField, until time.Time, permanent bool, now time.Time) {
	r := &Record{Created: now, Saved: now, Permanent: permanent, Expires: now.Add(p.contentAge(permanent))}
	r.end(&legacy{until: until, at: now})
	if p.rec != nil {
		c := *p.rec
		r = &c
	}
	r.Fields = slices.Clone(r.Fields)
	for _, f := range fields {
		if e, known := p.entries.find(f.Name); !known || e.value == nil && e.saved == nil {
			r.Fields = append(r.Fields, f)
		}
	}
	p.take(m, r)
	p.foreign = nil
	p.arrive()
}

// spread gives the other cookies their fields of the old sessions that this request has brought. It releases s.mu
// meanwhile.
func (s *Session) spread(sealed bool, now time.Time) {
	for i := range s.parts {
		from := &s.parts[i]
		if !from.was() {
			continue
		}
		for j := range s.parts {
			t := &s.parts[j]
			if t == from || (t.sealer != nil) != sealed || t.state == unloaded || t.err != nil || t.gone || t.epoch > 0 || slices.Contains(from.spread, j) {
				continue
			}
			from.arrivals.spread = append(from.arrivals.spread, j)
			if sealed {
				s.carry(t, from, now)
			} else if t.rec == nil {
				s.spreadTo(t, from, now)
			}
		}
	}
}

// carry gives a secure cookie its fields of an old session.
func (s *Session) carry(t, from *part, now time.Time) {
	if from.rec == nil || t.boundTo != nil && s.parts[t.boundTo.index].rec == nil {
		return
	}
	var mine []RawField
	for _, f := range from.brought {
		if s.m.routes.owns(t.index, f.Name) {
			mine = append(mine, f)
		}
	}
	if len(mine) > 0 {
		t.receive(s.m, mine, from.rec.until(), from.rec.Permanent, now)
	}
}

// spreadTo looks for the record that was made for another cookie.
func (s *Session) spreadTo(t, from *part, now time.Time) {
	epoch := t.epoch
	var found *call
	s.unlocked(func() { found, _ = s.former(t, from, from.past) })
	if found == nil || t.rec != nil || t.epoch != epoch {
		return
	}
	if t.answered(s, found, now); t.rec != nil {
		t.arrive()
	}
}

// waits reports whether the record has fields of other cookies, for requests that still bring the former one.
func (p *part) waits(now time.Time) bool {
	return p.rec.imported() && now.Sub(p.rec.Rotated) < EndGrace
}

// keepers are the cookies whose records may have fields of an old session that belong to the given secure cookies.
func (s *Session) keepers(of []int) (list []int) {
	if !slices.ContainsFunc(of, func(i int) bool { return s.parts[i].sealer != nil }) {
		return nil
	}
	for i := range s.parts {
		if p := &s.parts[i]; p.imports != nil && p.sealer == nil {
			list = append(list, i)
		}
	}
	return list
}

// shed lets the records of other cookies lose the fields of the secure cookie p, which is destroyed.
func (s *Session) shed(p *part) {
	owned := func(name string) bool { return s.m.routes.owns(p.index, name) }
	for _, i := range s.keepers([]int{p.index}) {
		from := &s.parts[i]
		from.sheds = from.state == loaded && from.rec != nil && from.rec.imported() && slices.ContainsFunc(from.foreign, owned)
	}
}

// shedsLate reports whether the browser has had the cookies of an imported session for so long that no request waits
// for the fields of secure cookies in its record any more.
func (p *part) shedsLate() bool {
	return len(p.foreign) > 0 && p.rec.imported() && !p.was() && !p.waits(wallNow())
}

// origin is what a record says about its origin: the binding of its session, the tail of its first key and, if it was
// imported, when it ends at the latest, in Unix milliseconds.
func origin(binding []byte, first string, until time.Time) string {
	text := hex.EncodeToString(binding) + "." + first + "."
	if !until.IsZero() {
		text += strconv.FormatInt(until.UnixMilli(), 10)
	}
	return text
}

// until is when an imported session ends at the latest; zero: it has no such end.
func (r *Record) until() time.Time {
	if r.legacy != nil {
		return r.legacy.until
	}
	if !r.imported() {
		return time.Time{}
	}
	i := strings.LastIndexByte(r.Origin, '.')
	if n, err := strconv.ParseInt(r.Origin[i+1:], 10, 64); err == nil {
		return time.UnixMilli(n)
	}
	return time.Time{}
}

// imported reports whether the record was made from an old session.
func (r *Record) imported() bool { return strings.Count(r.Origin, ".") == 2 }
