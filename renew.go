package sessplus

import (
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"
)

// How a session gets a new id: because the program calls Renew (a renewal), or because of its age (a rotation). See
// Ending for what happens to the old record.

// retire ends the old records of renewed sessions, which contend has taken. What other requests have saved in them in
// the meantime is copied to the new ones. If an old record has ended already, the new session is reduced to what this
// request has set: the fields of an ended session must not survive it.
func (s *Session) retire(saves []*save) {
	var renewed []*save
	for _, v := range saves {
		if v.take != nil && v.written {
			renewed = append(renewed, v)
		}
	}
	if len(renewed) == 0 {
		return
	}
	for _, v := range renewed {
		if v.lost = v.take.err != nil; v.lost {
			continue
		}
		if c := s.missed(v); c != nil {
			v.amend(c)
		}
	}
	s.amend(renewed, saves)
	if slices.ContainsFunc(renewed, (*save).fails) {
		return
	}
	var ends []*call
	for _, v := range renewed {
		if !v.lost && v.err == nil {
			v.finish = v.part.step(v.take.key, Ending{
				Step: StepEnd, Token: v.take.ending.Token, Next: v.main.key, Seen: v.take.record,
			})
			ends = append(ends, v.finish)
		}
	}
	s.run(ends)
	var late []*save
	for _, v := range renewed {
		switch {
		case v.finish == nil || v.finish.err == nil:
		case errors.Is(v.finish.err, ErrNoRecord): // a logout came in between
			v.lost = true
			late = append(late, v)
		default:
			v.err = v.part.renewError(v.finish.err)
		}
	}
	s.amend(late, saves)
}

func (c *cookie) renewError(err error) error {
	if errors.Is(err, ErrTaken) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &Error{Cookie: c.CookieName, Op: "renew", Err: err}
}

// contend takes the old records of sessions that are renewed, and waits for those that other requests have taken. It
// runs before the new records are created, so that whoever finds a new record by its user also finds that the old one
// is taken or has ended. Before each pause it releases the records it has taken, so that two renewals of the same
// sessions do not wait for each other forever. It reports whether the other saves may be made.
func (s *Session) contend(saves []*save) bool {
	var renewed []*save
	var takes []*call
	for _, v := range saves {
		if v.take != nil && v.main.err == nil {
			renewed, takes = append(renewed, v), append(takes, v.take)
		}
	}
	if len(renewed) == 0 {
		return true
	}
	for until := time.Now().Add(s.m.timeout); ; {
		s.run(takes)
		if !slices.ContainsFunc(renewed, func(v *save) bool { return errors.Is(v.take.err, ErrTaken) }) || time.Now().After(until) {
			break
		}
		var releases []*call
		takes = nil
		for _, v := range renewed {
			if v.take.err == nil {
				releases = append(releases, v.release())
			}
			if !errors.Is(v.take.err, ErrNoRecord) {
				takes = append(takes, v.take)
			}
		}
		s.run(releases)
		time.Sleep(mathrand.N(takenPause))
		for _, c := range takes {
			c.ending.Now = wallNow()
		}
	}
	for _, v := range renewed {
		if err := v.take.err; err != nil && !errors.Is(err, ErrNoRecord) {
			v.err, v.main = v.part.renewError(err), nil
		}
	}
	return !slices.ContainsFunc(renewed, (*save).fails)
}

// release returns the call that undoes what was done to the old record of a renewed session.
func (v *save) release() *call {
	return v.part.step(v.take.key, Ending{Step: StepRelease, Token: v.take.ending.Token})
}

// amend plans a change to the new record of a renewed session.
func (v *save) amend(c *Change) {
	v.part.fileChange(c) // the fields of others may name a user
	v.amends = append(v.amends, &call{part: v.part, op: opUpdate, sessionName: sessionName{key: v.main.key}, change: c})
}

// amend brings the new records up to date, and strips those whose old records have ended to what this request has set.
func (s *Session) amend(renewed, saves []*save) {
	var calls []*call
	for _, v := range renewed {
		if v.lost {
			v.leave(v.moved()...)
			v.void = !v.sets()
			s.reseal(v, saves)
		}
		switch {
		case v.void:
			v.written = false
			calls = append(calls, v.part.endCall(v.main.key))
			continue
		case v.lost:
			if c := v.stripped(); c != nil {
				v.amend(c)
			}
		}
		if n := len(v.amends); n > 0 && v.amends[n-1].result.Expires.IsZero() {
			calls = append(calls, v.amends[n-1])
		}
	}
	s.run(calls)
	for _, c := range calls {
		v := saveOf(c.part.cookie, saves)
		switch {
		case v.void:
		case errors.Is(c.err, ErrNoRecord): // it was revoked before it was announced
			v.err = v.part.saveError(ErrSessionGone)
		case c.err != nil:
			v.err = v.part.saveError(c.err)
		case c.result.Empty:
			v.drop, v.send = true, false
		}
	}
}

// stripped returns the change that leaves only what this request has set in the new record, or nil.
func (v *save) stripped() *Change {
	r := v.main.record
	c := &Change{Now: wallNow(), Seen: r, Expires: r.Expires}
	stale := slices.Clone(r.Fields)
	for _, a := range v.amends {
		stale = append(stale, a.change.Set...)
	}
	for _, f := range stale {
		set := func(mine RawField) bool { return mine.Name == f.Name && mine.Value != nil }
		if !slices.ContainsFunc(v.changed, set) && !slices.Contains(c.Delete, f.Name) {
			c.Delete = append(c.Delete, f.Name)
		}
	}
	if r.Permanent && v.permanent {
		off := false
		c.Permanent, c.Expires = &off, v.part.expiry(r.Created, c.Now, off)
	}
	if len(c.Delete) == 0 && c.Permanent == nil {
		return nil
	}
	return c
}

// missed compares the last state of a renewed session's old record with what this request knew of it. It returns what
// other requests have changed in fields that this one has not changed, or nil.
func (s *Session) missed(v *save) *Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := v.part
	if p.epoch != v.epoch {
		return nil // destroyed meanwhile
	}
	r := v.main.record
	c := &Change{Now: wallNow(), Seen: r, Expires: r.Expires}
	last := make(map[string]bool, len(v.take.record.Fields))
	for _, f := range v.take.record.Fields {
		last[f.Name] = true
		e, known := p.entries.find(f.Name)
		if now := p.formerly(f.Name); now != nil {
			e, known = entry{value: now, saved: now}, true
		}
		if !known && s.m.routes.owns(p.index, f.Name) || known && !e.sets() && string(e.saved) != string(f.Value) {
			c.Set = append(c.Set, f)
		}
	}
	for e := range p.entries.all() {
		if e.saved != nil && !e.sets() && !last[e.name] {
			c.Delete = append(c.Delete, e.name)
		}
	}
	for _, f := range p.leaving {
		if !last[f.Name] {
			c.Delete = append(c.Delete, f.Name)
		}
	}
	if permanent := v.take.record.Permanent; permanent != p.rec.Permanent && r.Permanent == p.rec.Permanent {
		c.Permanent, c.Expires = &permanent, p.expiry(r.Created, c.Now, permanent)
	}
	if len(c.Set)+len(c.Delete) == 0 && c.Permanent == nil {
		return nil
	}
	for _, f := range c.Set {
		v.leave(f.Name)
	}
	v.leave(c.Delete...)
	return c
}

// rotate gives a new id to the sessions that are old enough. It takes the record, creates it again under the new id,
// and ends the old one, which for EndGrace names its successor. Of several concurrent requests, the one that takes the
// record rotates it, and the others join it. A failure is not an error of the request: a later request will rotate the
// session.
func (s *Session) rotate(saves []*save) {
	var due []*save
	for _, v := range saves {
		if v.rotates && v.err == nil && !v.drop && (v.main == nil || !v.main.moved && v.main.err == nil) {
			due = append(due, v)
		}
	}
	if len(due) == 0 {
		return
	}
	step := func(v *save, e Ending) *call { return v.part.step(v.name.key, e) }
	names, takes := make([]sessionName, len(due)), make([]*call, len(due))
	for i, v := range due {
		names[i] = v.part.nameOf(newID())
		takes[i] = step(v, Ending{Step: StepTake, Token: tail(names[i].key)})
	}
	s.run(takes)
	var creates, ends []*call
	var others []*save // which another request rotates
	for i, v := range due {
		switch err := takes[i].err; {
		case err == nil:
		case errors.Is(err, ErrNoRecord), errors.Is(err, ErrTaken):
			others = append(others, v)
			continue
		default:
			s.notRotated(v, takes[i], err)
			ends = append(ends, step(v, Ending{Step: StepRelease, Token: takes[i].ending.Token}))
			continue
		}
		r := takes[i].record.clone()
		r.Mark, r.Version, r.Rotated = nil, "", wallNow()
		r.Origin, r.owned = v.origin, r.Rotated
		v.rotated = &call{part: v.part, op: opCreate, sessionName: names[i], record: r}
		creates = append(creates, v.rotated)
	}
	s.run(creates)
	for i, v := range due {
		if v.rotated == nil {
			continue
		}
		e := Ending{Step: StepEnd, Token: takes[i].ending.Token, Seen: takes[i].record}
		if v.rotated.err != nil {
			e.Step = StepRelease
		} else {
			e.Next = v.rotated.key + " " + sealID(v.name.id, v.rotated.id)
		}
		ends = append(ends, step(v, e))
	}
	s.run(ends)
	var releases, undone []*call
	for _, c := range ends {
		v := saveOf(c.part.cookie, due)
		switch {
		case v.rotated == nil:
		case v.rotated.err != nil:
			s.notRotated(v, v.rotated, v.rotated.err)
			v.rotated = nil
		case c.err == nil:
		case errors.Is(c.err, ErrNoRecord): // the session has ended meanwhile
			undone = append(undone, c.part.endCall(v.rotated.key))
			v.rotated = nil
			s.endedMeanwhile(v, saves)
		default: // it may have been made: the old record must be back before the new one ends
			s.notRotated(v, c, c.err)
			releases = append(releases, step(v, Ending{Step: StepRelease, Token: c.ending.Token}))
		}
	}
	s.run(releases)
	for _, c := range releases {
		v := saveOf(c.part.cookie, due)
		if c.err == nil {
			undone = append(undone, c.part.endCall(v.rotated.key))
		}
		v.rotated = nil
	}
	s.run(undone)
	s.join(others, saves)
}

// endedMeanwhile notes that the session of v has ended since it was saved. What this response would send because of it
// could undo a login in the browser.
func (s *Session) endedMeanwhile(v *save, saves []*save) {
	v.lost, v.void, v.send = true, true, false
	s.reseal(v, saves)
}

// join gives sessions that another request has rotated, or is about to, the id they got from it, because that request's
// response may never arrive. The record is loaded by the old id, so this succeeds only if the session lives.
func (s *Session) join(others, saves []*save) {
	for until := time.Now().Add(joinWait); len(others) > 0; {
		loads := make([]*call, len(others))
		for i, v := range others {
			loads[i] = &call{part: v.part, op: opLoad, sessionName: v.name}
		}
		s.run(loads)
		var waiting []*save
		for i, v := range others {
			switch c := loads[i]; {
			case errors.Is(c.err, ErrNoRecord):
				s.endedMeanwhile(v, saves)
			case c.err != nil || !v.part.alive(c.record, wallNow()):
			case c.moved:
				s.loaded(c, wallNow())
				v.rotated, v.joined = c, true
			case time.Now().Before(until):
				waiting = append(waiting, v)
			}
		}
		if others = waiting; len(others) > 0 {
			time.Sleep(mathrand.N(takenPause))
		}
	}
}

// joinWait is the longest a request waits for another one that rotates the session. Its own id remains valid.
const joinWait = time.Second

func (s *Session) notRotated(v *save, made *call, err error) {
	s.warn("sessplus: the id of a session could not be rotated", "cookie", v.part.CookieName, "error", err)
	s.failed(v.part.cookie, EventRotate, made, err)
}

// sealID seals the new id of a rotated session for its old record, so that only a visitor with the old id can read it.
// It is an exclusive or with a hash of the old id that has no other use.
func sealID(old, id string) string {
	b := aliasPad(old)
	for i, c := range decodeID(id) {
		b[i] ^= c
	}
	return encodeID(b)
}

// openID is the inverse of sealID. It returns "" for text that is not a sealed id.
func openID(old, sealed string) string {
	if !validID(sealed) {
		return ""
	}
	return sealID(old, sealed)
}

func aliasPad(old string) [idBytes]byte { return sha256.Sum256([]byte("sessplus rotated from " + old)) }
