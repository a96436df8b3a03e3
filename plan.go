package sessplus

import (
	"errors"
	"slices"
	"time"
)

// A save is what a commit does for one part. It is planned with Session.mu held and carried out without it, and its
// results are taken over with it held again.
type save struct {
	part  *part
	epoch int32 // part.epoch at the time of the plan

	does   deed
	renews bool // the program asked for it
	named  bool // the session names a user by IndexBy, and did not before
	send   bool // set the cookie, to the id or to values

	err  error // why it was not saved
	late error // ErrHeadersSent, for the part of it that would need a Set-Cookie

	deletes  []*call // end the records of destroyed sessions
	forsaken []stray // old sessions to end
	main     *call   // creates or updates the record
	take     *call   // takes the old record of a renewed session
	amends   []*call // bring the new record up to date with what others have saved in the old one meanwhile
	finish   *call   // ends the old record, once all else is saved
	rotated  *call   // creates the record again under a new id, because of its age

	*moves             // of fields to this part, or nil
	changed []RawField // the fields that this save writes to the store; nil values are deleted
	drop    bool       // make the browser drop the cookie, unless it is set
	written bool       // everything was saved
	undead  bool       // a record that should have ended may still exist
	starves bool       // err keeps from the browser what other saves need to send: nobody tolerates it

	permanent bool // the session to renew is permanent
	lost      bool // it has ended meanwhile: the new one begins afresh with what this request has set
	void      bool // and that is nothing

	joined  bool        // another request has created the rotated record
	rotates bool        // it was rotated in the end
	name    sessionName // its name after the rotation
	origin  string

	values []string // of the cookie and its chunks, if it is set with them

	// The memory of changed, values, part.lines and the list of saves while each has one element.
	change      [1]RawField
	value, line [1]string
	list        [1]*save
}

// A deed is what a save does with the session.
type deed uint8

const (
	updates  deed = iota // the record or cookie that is there
	touches              // moves the expiry of the record; a request that only read succeeds even if this fails
	verifies             // asks whether the session lives, because a cookie depends on it; moves its expiry, too
	creates              // a record, where there was no session
	renews               // creates the session under another id, and ends the old one
	ends                 // a session past its Lifetime that is no longer permanent, or a cookie bound to one
	empties              // a secure cookie
)

// reads reports whether the deed leaves the content of the session as it is.
func (d deed) reads() bool { return d == touches || d == verifies }

// kind is what events call the deed.
func (d deed) kind() EventKind {
	return [...]EventKind{
		updates: EventSave, touches: EventTouch, verifies: EventTouch, creates: EventCreate, renews: EventRenew,
		ends: EventDestroy, empties: EventDestroy,
	}[d]
}

// creates reports whether the save makes a new record, under a new id.
func (v *save) creates() bool { return v.main != nil && v.main.op == opCreate }

// sets reports whether the save gives a field a value.
func (v *save) sets() bool { return setsAny(v.changed) }

func setsAny(changed []RawField) bool {
	return slices.ContainsFunc(changed, func(f RawField) bool { return f.Value != nil })
}

// fails reports whether the request fails with this save.
func (v *save) fails() bool {
	return v.err != nil && (v.undead || v.starves || !v.part.tolerates(v.err))
}

// tolerates reports whether the request succeeds despite the error.
func (c *cookie) tolerates(err error) bool {
	return c.Optional && errors.Is(err, ErrUnavailable) || c.DropIfGone && errors.Is(err, ErrSessionGone)
}

// plan determines what the parts have to save. After the headers were sent, saves that have failed before are retried
// only if again is set. A save that cannot be made has an err; an error of plan itself means that nothing at all may be
// saved.
func (s *Session) plan(again bool) (saves []*save, now time.Time, err error) {
	s.joinMoves()
	err = s.fatal
	if s.sent {
		s.fatal = nil // reported once, it does not block the rest of a long response
	}
	due := s.due(make([]*part, 0, 8), again)
	if len(due) == 0 {
		return nil, now, err // as for most requests
	}
	now = wallNow()
	saves = s.planRecords(due, now)
	if saves, err = s.planCookies(due, saves, now, err); s.bundle != nil && err == nil {
		saves, err = s.bundle.plan(s, saves, now)
	}
	if i := slices.IndexFunc(saves, (*save).fails); i >= 0 && err == nil && !s.sent {
		err = saves[i].err
	}
	return saves, now, err
}

// due appends the parts that may have something to save.
func (s *Session) due(list []*part, again bool) []*part {
	for i := range s.parts {
		p := &s.parts[i]
		if p.state == loaded && (again || !s.sent || !p.tried) && (p.unsaved() || p.ages() && p.rec != nil || p.touchDue(time.Time{})) {
			list = append(list, p)
		}
	}
	return list
}

// planRecords plans the saves of server-side parts.
func (s *Session) planRecords(due []*part, now time.Time) (saves []*save) {
	for _, p := range due {
		if p.sealer == nil && (p.unsaved() || p.touchDue(now) || p.rotationDue(now)) {
			if v := p.planRecord(now, s.sent); v != nil {
				s.file(v)
				s.setThere(v)
				saves = v.join(saves)
			}
		}
	}
	return saves
}

// planCookies appends the saves of secure cookies. Unless there is already an err they are sealed now, so that nothing
// is saved if one is too large, with the ids that the other saves will set.
func (s *Session) planCookies(due []*part, saves []*save, now time.Time, err error) ([]*save, error) {
	for _, p := range due {
		if p.sealer == nil {
			continue
		}
		v := p.planSealed(s.sent)
		if v == nil {
			continue
		}
		if v.send && v.err == nil && err == nil {
			if p.boundTo != nil {
				saves = s.verifyBound(p, saves, now)
			}
			err = s.seal(v, saves, now)
		}
		saves = v.join(saves)
	}
	return saves, err
}

// writes reports whether a loaded part may have something to save or a cookie to send.
func (s *Session) writes() bool {
	now := wallNow()
	for i := range s.parts {
		p := &s.parts[i]
		if p.state == loaded && (p.unsaved() || p.rotationDue(now) || p.maxAge(p.permanent) > 0 && p.touchDue(now)) {
			return true
		}
	}
	return false
}

// unsaved reports whether there may be something to save other than a touch.
func (p *part) unsaved() bool {
	if p.renew || p.due == tellDrop || p.resends() || p.err != nil || p.trial != noTrial || p.reflags() || p.misfiled() ||
		p.forsakes() || len(p.ended)+len(p.expelled) > 0 || p.sheds || p.shedsLate() {
		return true
	}
	for i := range p.entries.touched {
		if e := &p.entries.touched[i]; e.dirty() && (!e.moved || p.moving) {
			return true
		}
	}
	return false
}

// reflags reports whether the record must become permanent, or stop being so.
func (p *part) reflags() bool { return p.rec != nil && (p.doubt || p.permanent != p.rec.Permanent) }

// appendFields appends all fields of the part.
func (p *part) appendFields(list []RawField) []RawField {
	for e := range p.entries.all() {
		if e.value != nil {
			list = append(list, RawField{e.name, e.value})
		}
	}
	return list
}

// changes returns the fields that differ from the store, in list if it has room for them.
func (p *part) changes(list []RawField) []RawField {
	changed := slices.Grow(list, len(p.entries.touched))
	for i := range p.entries.touched {
		if e := &p.entries.touched[i]; e.dirty() && (!e.moved || p.moving) {
			changed = append(changed, RawField{e.name, e.value})
		}
	}
	return changed
}

// filled reports whether the part has a field.
func (p *part) filled() bool {
	for e := range p.entries.all() {
		if e.value != nil {
			return true
		}
	}
	return false
}

func (c *cookie) saveError(err error) error {
	return &Error{Cookie: c.CookieName, Op: "save", Err: err}
}

// planRecord plans the save of a server-side part, or returns nil if there is nothing to do.
func (p *part) planRecord(now time.Time, late bool) *save {
	v := &save{part: p, epoch: p.epoch, drop: p.due == tellDrop, forsaken: p.takeForsaken()}
	v.changed = p.changes(v.change[:0])
	v.moves = p.planMoves()
	if p.rec == nil {
		v.does = creates
	}
	for _, e := range p.ended {
		c := p.endCall(e.key)
		c.ending.Seen = e.seen
		v.deletes = append(v.deletes, c)
	}
	filled := p.filled()
	if err := v.obstacle(filled, late); err != nil {
		v.err = p.saveError(err)
	} else if !v.idle(filled) {
		v.planMain(filled, now, late)
	}
	if v.main == nil && v.err == nil && p.leaves(filled) && !late {
		v.drop, v.written = true, true
	}
	if filled && !late && v.err == nil && !v.creates() && v.does != ends && p.rotationDue(now) {
		v.rotates, v.name, v.origin = true, p.name, p.origin()
		p.trial = noTrial
	}
	if v.main == nil && v.err == nil && v.late == nil && len(v.deletes)+len(v.forsaken)+len(p.expelled) == 0 && !v.drop && !v.rotates {
		return nil
	}
	return v
}

// obstacle returns why the changes cannot be saved, or nil.
func (v *save) obstacle(filled, late bool) error {
	p := v.part
	changed := len(v.changed) > 0
	switch {
	case p.err != nil && (changed || !p.Optional):
		return p.err
	case p.gone && changed && !(p.renew && v.sets()): // a login may begin afresh
		return ErrSessionGone
	case !late || v.idle(filled):
		return nil
	case p.rec == nil, !p.held && filled && changed:
		return ErrHeadersSent
	case p.renew && filled: // what belongs to a login is never stored under the id from before it
		return ErrHeadersSent
	}
	return nil
}

// idle reports whether the part has no record to create or change. It may still have records to end.
func (v *save) idle(filled bool) bool {
	p := v.part
	return p.err != nil || p.gone && !v.sets() || p.rec == nil && !filled
}

// planMain plans what becomes of the record.
func (v *save) planMain(filled bool, now time.Time, late bool) {
	p := v.part
	if late && p.reflags() { // reported once, it does not block the rest of a long response
		v.late = p.saveError(ErrHeadersSent)
		p.permanent = p.rec.Permanent
		if len(v.changed) == 0 {
			return
		}
	}
	switch {
	case p.rec == nil || p.renew && filled:
		v.planCreate(now)
	case len(v.changed) > 0 || p.reflags() || p.sheds:
		v.planUpdate(now)
	case filled || p.shedsLate():
		v.planTouch(now, p.resends() && !late)
	}
}

// step returns a call that makes one step on the old record of a session that is renewed or rotated. It does not follow
// the record to its successor.
func (p *part) step(key string, e Ending) *call {
	e.Now = wallNow()
	return &call{part: p, op: opEnd, sessionName: sessionName{key: key}, still: true, ending: &e}
}

// endCall returns a call that ends the record of the key, and its successor, for good.
func (p *part) endCall(key string) *call {
	return &call{part: p, op: opEnd, sessionName: sessionName{key: key}, asked: key, ending: &Ending{Step: StepEnd, Now: wallNow()}}
}

// planCreate plans a new record, and the end of the old one if the session is renewed.
func (v *save) planCreate(now time.Time) {
	p := v.part
	fields := v.changed
	if p.rec != nil {
		fields = append(p.appendFields(make([]RawField, 0, len(p.entries.stored)+len(fields))), p.leaving...)
	}
	name := p.nameOf(newID())
	v.send = true
	made := new(struct { // one allocation
		call
		Record
	})
	made.Record = Record{Created: now, Saved: now, Expires: p.expiry(now, now, p.permanent), Permanent: p.permanent, Fields: fields, owned: now}
	made.call = call{part: p, op: opCreate, sessionName: name, record: &made.Record}
	v.main = &made.call
	v.renews = p.renew
	if p.rec != nil {
		v.does, v.permanent = renews, p.rec.Permanent
		v.take = &call{part: p, op: opEnd, sessionName: p.name, ending: &Ending{
			Step: StepTake, Token: tail(name.key), Now: now, Seen: p.rec,
		}}
	}
	p.renew = false // again, if the save fails
}

// planUpdate plans a change of the record that is there.
func (v *save) planUpdate(now time.Time) {
	p := v.part
	c := &Change{Now: now, Seen: p.rec, Set: v.changed}
	for _, name := range v.moved() {
		c.Match = append(c.Match, RawField{name, p.stored(name)})
	}
	c.Expires, _, c.Exact = p.moves(p.rec, now, p.permanent)
	if p.quiet && len(p.rec.Fields) > 0 && p.permanent == p.rec.Permanent {
		c.Expires = p.rec.Expires
	}
	absent := func(f RawField) bool { return f.Value == nil }
	if slices.ContainsFunc(v.changed, absent) {
		c.Set = slices.DeleteFunc(slices.Clone(v.changed), absent)
		for _, f := range v.changed {
			if absent(f) {
				c.Delete = append(c.Delete, f.Name)
			}
		}
	}
	v.mark(c)
	if p.sheds || !p.waits(now) {
		c.Delete = append(c.Delete, p.foreign...)
	}
	v.send = p.due == tellSet || p.maxAge(p.permanent) > 0
	if p.reflags() {
		flag := p.permanent
		c.Permanent = &flag
		v.send = true
		if !c.Expires.After(now) {
			v.does, v.main = ends, p.endCall(p.name.key)
			return
		}
	}
	v.main = &call{part: p, op: opUpdate, sessionName: p.name, change: c, patient: true}
}

// planTouch moves the expiry of the record, if that is due. With verify it always asks the backend whether the session
// still exists: before its cookie is sent again, because the id of an ended session must not replace a newer one in the
// browser, and before a cookie bound to it is sent.
func (v *save) planTouch(now time.Time, verify bool) {
	p := v.part
	expire := p.trial == tryExpiry
	c := &Change{Now: now, Seen: p.rec}
	if p.shedsLate() {
		c.Delete = p.foreign
	}
	if !verify && !expire && !p.touchDue(now) && !p.misfiled() && len(c.Delete) == 0 {
		return
	}
	c.Expires, _, c.Exact = p.moves(p.rec, now, p.permanent)
	switch {
	case expire:
		c.Expires, c.Exact, p.trial = now, true, noTrial
	case p.quiet || !p.used:
		c.Expires = p.rec.Expires
	}
	v.does = touches
	v.send = p.resends() || p.maxAge(p.permanent) > 0
	v.main = &call{part: p, op: opUpdate, sessionName: p.name, patient: verify, change: c}
	if p.refilled || expire {
		v.need(true)
	}
}

// touchDue reports whether the expiry of the record should be moved. The time does not matter for a config without an
// IdleTimeout.
func (p *part) touchDue(now time.Time) bool {
	if !p.used || p.quiet || p.rec == nil || p.sealer != nil {
		return false
	}
	_, due, _ := p.moves(p.rec, now, p.permanent)
	return due
}

// expires returns when the session ends: the stored time, or an earlier one if the config has become stricter.
func (p *part) expires(now time.Time) time.Time {
	if p.sealer != nil {
		return p.rec.Expires
	}
	end := p.ends(p.rec)
	if moved, _, earlier := p.moves(p.rec, now, p.rec.Permanent); earlier && !p.quiet {
		end = moved
	}
	return end
}

// rotationDue reports whether the session is old enough to get a new id.
func (p *part) rotationDue(now time.Time) bool {
	switch {
	case p.rec == nil || p.gone:
		return false
	case p.trial == tryRotation:
		return true
	case p.RotateEvery <= 0 || !p.used || p.quiet:
		return false
	}
	since := p.rec.Rotated
	if since.Before(p.rec.Created) {
		since = p.rec.Created
	}
	return !now.Before(since.Add(p.RotateEvery))
}

// ages reports whether sessions of the cookie may need a touch or a rotation although nothing has changed.
func (c *cookie) ages() bool { return c.IdleTimeout > 0 || c.RotateEvery > 0 }

// planSealed plans the writing of a secure cookie, or returns nil if there is nothing to do.
func (p *part) planSealed(late bool) *save {
	filled := p.filled()
	renew := p.renew && filled
	permanent := p.rec != nil && p.permanent != p.rec.Permanent && filled
	v := &save{part: p, epoch: p.epoch, renews: renew, send: filled, drop: !filled}
	v.changed = p.changes(v.change[:0])
	// After the headers a bound cookie cannot be dropped, but is void without its session.
	expire := p.due == tellDrop && !(late && p.boundTo != nil) || p.leaves(filled) && !late
	dirty := len(v.changed) > 0 || permanent || renew || expire
	if !dirty && !(p.resends() && filled && !late) && !p.forsakes() {
		return nil
	}
	p.settle(wallNow())
	v.forsaken = p.takeForsaken()
	switch {
	case !filled:
		v.does = empties
	case p.rec == nil:
		v.does = creates
	case renew:
		v.does = renews
	}
	if p.gone {
		v.err, v.send, v.drop = p.saveError(ErrSessionGone), false, false
		return v
	}
	if dirty && late {
		v.err = p.saveError(ErrHeadersSent)
		p.renew, v.renews = false, false
		if p.rec != nil {
			p.permanent = p.rec.Permanent
		}
	}
	return v
}

// verifyBound makes sure that this commit asks the backend for the session that the secure cookie p is bound to.
func (s *Session) verifyBound(p *part, saves []*save, now time.Time) []*save {
	b := &s.parts[p.boundTo.index]
	v := saveOf(b.cookie, saves)
	if b.rec == nil || b.gone || v != nil && (v.main != nil || v.err != nil) {
		v.need(true)
		return saves
	}
	v, saves = saveFor(b, saves)
	v.planTouch(now, true)
	v.need(true)
	return saves
}

// need makes the save wait for a taken record, because another cookie depends on whether the session still exists. With
// fails, the request fails if it has ended. v may be nil.
func (v *save) need(fails bool) {
	if v == nil || v.main == nil || v.main.op != opUpdate {
		return
	}
	v.main.patient = true
	if fails && v.does == touches {
		v.does = verifies
	}
}

// seal produces the text of a secure cookie. saves has the saves of the server-side parts: a cookie bound to one of
// them is sealed with the id that the session will have.
func (s *Session) seal(v *save, saves []*save, now time.Time) error {
	p := v.part
	all := p.appendFields(make([]RawField, 0, fewNames)) // not in the heap
	if v.lost {
		all = slices.DeleteFunc(slices.Clone(v.changed), func(f RawField) bool { return f.Value == nil })
	}
	var bound []byte
	if p.boundTo != nil {
		b := &s.parts[p.boundTo.index]
		other := saveOf(p.boundTo, saves)
		created := other != nil && other.creates()
		switch {
		case b.err != nil:
			return p.saveError(b.err)
		case created:
			bound = binding(other.main.id)
		case b.gone:
			return p.saveError(ErrSessionGone)
		case b.name.key == "" || b.rec != nil && !b.filled() && v.sets():
			return p.saveError(&fieldError{all[0].Name, "is bound to cookie " + quote(b.CookieName) +
				", in which there is no session; set a field there in the same request", nil})
		default:
			bound = b.binding()
		}
	}
	var err error
	if v.values, err = p.cookie.seal(&sealedContent{now, p.permanent, bound, p.outlive(all, now)}, v.value[:0]); err != nil {
		return &Error{Cookie: p.CookieName, Op: "encode", Err: err}
	}
	return nil
}

// saveFor returns the save of the part, and appends one if there is none.
func saveFor(p *part, saves []*save) (*save, []*save) {
	if v := saveOf(p.cookie, saves); v != nil {
		return v, saves
	}
	v := &save{part: p, epoch: p.epoch}
	return v, v.join(saves)
}

// join appends the save to the list.
func (v *save) join(saves []*save) []*save {
	if saves == nil {
		saves = v.list[:0]
	}
	return append(saves, v)
}

// saveOf returns the save of the cookie, or nil.
func saveOf(c *cookie, saves []*save) *save {
	for _, v := range saves {
		if v.part.cookie == c {
			return v
		}
	}
	return nil
}
