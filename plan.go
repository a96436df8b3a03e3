package sessplus

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"time"
)

// A save is what a commit does for one part. It is planned under Session.mu, carried out without it, and its outcome
// taken over under it again.
type save struct {
	part *part
	err  error // why nothing of this part is saved

	deletes []*call // of the records of destroyed sessions
	main    *call   // creates or updates the record
	take    *call   // removes the old record of a renewed session, once all else is saved
	newID   string  // with a create

	changed []RawField // the fields that this save makes equal in the store; nil values are deleted
	touch   bool       // it only moves the idle expiry
	missed  *Change    // what others saved while the session was renewed
	written bool       // what there was to save is saved

	send   bool     // the cookie is to be set: with the id, or with values
	values []string // of a secure cookie and its chunks
	drop   bool     // the browser is to drop the cookie, unless it is set
	epoch  int      // part.epoch at the time of the plan
}

// plan finds out what the parts have to save. late says that the headers have gone. A failed save has its err; an error
// of plan itself means that nothing at all may be saved.
func (s *Session) plan(now time.Time, late bool) ([]*save, error) {
	var saves []*save
	var sealed []*part
	for i := range s.parts {
		p := &s.parts[i]
		switch {
		case p.state != loaded: // untouched
		case p.sealer != nil:
			sealed = append(sealed, p)
		default:
			if v := p.planRecord(now, late); v != nil {
				saves = append(saves, v)
			}
		}
	}
	err := s.fatal
	for _, p := range sealed {
		v := p.planSealed(late)
		if v == nil {
			continue
		}
		if v.send && v.err == nil && err == nil {
			err = s.sealPart(v, saves)
		}
		saves = append(saves, v)
	}
	for _, v := range saves {
		if err == nil && !late && v.err != nil && !v.part.tolerates(v.err) {
			err = v.err
		}
	}
	return saves, err
}

// tolerates reports whether an error of the part leaves the request what it is.
func (p *part) tolerates(err error) bool {
	return p.Optional && errors.Is(err, ErrUnavailable) || p.DropIfGone && errors.Is(err, ErrSessionGone)
}

// fields returns all fields of the part, and those that differ from the store.
func (p *part) fields() (all, changed []RawField) {
	for i := range p.entries.list {
		e := &p.entries.list[i]
		if e.value != nil {
			all = append(all, RawField{e.name, e.value})
		}
		if e.dirty() {
			changed = append(changed, RawField{e.name, e.value})
		}
	}
	return all, changed
}

// planRecord plans the save of a server-side part, nil for none.
func (p *part) planRecord(now time.Time, late bool) *save {
	v := &save{part: p, epoch: p.epoch, drop: p.expire}
	for _, key := range p.ended {
		v.deletes = append(v.deletes, &call{part: p, op: opDelete, key: key})
	}
	all, changed := p.fields()
	repermanent := p.rec != nil && p.permanent != p.rec.Permanent
	switch {
	case p.err != nil && len(changed) > 0:
		v.err = p.saveError(p.err)
	case p.gone && len(changed) > 0:
		v.err = p.saveError(ErrSessionGone)
	case p.err != nil || p.gone:
	case p.rec == nil && len(all) == 0:
	case late && (p.rec == nil || p.renew && len(all) > 0 || repermanent):
		v.err = p.saveError(ErrHeadersSent)
	case p.rec == nil || p.renew && len(all) > 0:
		v.planCreate(all, changed, now)
	case len(changed) > 0 || repermanent:
		v.planUpdate(changed, now)
	default:
		v.planTouch(now)
	}
	if v.main == nil && v.err == nil && len(v.deletes) == 0 && !v.drop && !(p.rewrite && p.rec != nil && !late) {
		return nil
	}
	v.send = v.send || p.rewrite && p.rec != nil && v.err == nil
	return v
}

func (p *part) saveError(err error) error {
	return &Error{Cookie: p.CookieName, Op: "save", Err: err}
}

// planCreate plans a new record, and the end of the old one if the session is renewed.
func (v *save) planCreate(all, changed []RawField, now time.Time) {
	p := v.part
	v.newID = newID()
	v.changed = changed
	v.send = true
	v.main = &call{part: p, op: opCreate, key: p.key(v.newID), record: &Record{
		Created: now, Saved: now, Expires: p.expiry(now, now, p.permanent), Permanent: p.permanent, Fields: all,
	}}
	if p.rec != nil {
		v.take = &call{part: p, op: opTake, key: p.key(p.id)}
	}
}

// planUpdate plans a change of the record that is there.
func (v *save) planUpdate(changed []RawField, now time.Time) {
	p := v.part
	c := &Change{Now: now, Seen: p.rec, Expires: p.expiry(p.rec.Created, now, p.permanent)}
	for _, f := range changed {
		if f.Value != nil {
			c.Set = append(c.Set, f)
		} else {
			c.Delete = append(c.Delete, f.Name)
		}
	}
	c.Delete = append(c.Delete, p.foreign...)
	if permanent := p.permanent; permanent != p.rec.Permanent {
		c.Permanent = &permanent
		v.send = true
	}
	if !c.Expires.After(now) { // no longer permanent, and past its lifetime
		v.deletes = append(v.deletes, &call{part: p, op: opDelete, key: p.key(p.id)})
		v.drop, v.send = true, false
		p.entries, p.rec, p.id = entries{}, nil, ""
		return
	}
	v.changed = changed
	v.send = v.send || p.maxAge(p.permanent) > 0
	v.main = &call{part: p, op: opUpdate, key: p.key(p.id), change: c}
}

// planTouch moves the idle expiry, once it is due by a tenth of the timeout.
func (v *save) planTouch(now time.Time) {
	p := v.part
	if p.IdleTimeout <= 0 {
		return
	}
	end := p.expiry(p.rec.Created, now, p.permanent)
	if end.Sub(p.rec.Expires) < p.IdleTimeout/10 {
		return
	}
	v.touch = true
	v.send = p.maxAge(p.permanent) > 0
	v.main = &call{part: p, op: opUpdate, key: p.key(p.id), change: &Change{Now: now, Seen: p.rec, Expires: end}}
}

// planSealed plans the writing of a secure cookie, nil for none.
func (p *part) planSealed(late bool) *save {
	all, changed := p.fields()
	permanent := p.rec != nil && p.permanent != p.rec.Permanent && len(all) > 0
	ordered := len(changed) > 0 || permanent || p.renew && len(all) > 0 || p.expire
	if !ordered && !(p.rewrite && len(all) > 0 && !late) {
		return nil
	}
	v := &save{part: p, epoch: p.epoch, changed: changed, send: len(all) > 0, drop: len(all) == 0}
	if late {
		v.err = p.saveError(ErrHeadersSent)
	}
	return v
}

// sealPart writes the text of a secure cookie. saves holds those of the server-side parts: a cookie that is bound to one
// of them is sealed with the id that it is going to have.
func (s *Session) sealPart(v *save, saves []*save) error {
	p := v.part
	all, _ := p.fields()
	var bound []byte
	if p.boundTo != nil {
		b := &s.parts[p.boundTo.index]
		id := b.id
		for _, other := range saves {
			if other.part == b && other.newID != "" {
				id = other.newID
			}
		}
		if b.err != nil {
			return p.saveError(b.err)
		}
		if id == "" || b.gone {
			return p.saveError(&fieldError{all[0].Name, "the cookie is bound to " + b.CookieName + ", which has no session", nil})
		}
		bound = binding(id)
	}
	var err error
	if v.values, err = p.sealFields(all, p.permanent, bound); err != nil {
		return &Error{Cookie: p.CookieName, Op: "encode", Err: err}
	}
	return nil
}

func newID() string {
	var b [idBytes]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
