package sessplus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Update calls change with the stored value, stores its result, and returns it, atomically across requests, processes
// and machines: if another request changes the field in between, change is called again with the new value. The result
// is saved at once, and not by the commit. An absent field counts as the zero value. A stored value that does not
// decode into T is an error, and is not changed. change must not use the session.
//
// To take a value, have change assign it to a variable of the caller on each call, and return what is to remain; see
// the Flash example.
//
// A value that this request has set and not yet saved counts as the stored one. On a secure cookie, and on a session
// that has not been saved yet or is to be renewed, Update only changes this request's copy. The error matches
// [ErrSessionGone] if the session has ended, and [ErrUnavailable] if the backend does not answer, or if other requests
// were faster until [Options.Timeout] expired. If the backend's reply is lost, the update may have been made.
func (f Field[T]) Update(s *Session, change func(T) T) (T, error) {
	var v T
	err := s.update(string(f), func(data []byte) ([]byte, error) {
		old, err := f.decode(s, data)
		if err != nil {
			return nil, err
		}
		v = change(old)
		return s.encode(string(f), v)
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

// update stores the result of change for the encoded value of the field, which is nil if it is absent.
func (s *Session) update(name string, change func(data []byte) ([]byte, error)) error {
	s.saving.Lock() // a commit must not save the field meanwhile
	defer s.saving.Unlock()
	if s.refused != nil {
		return s.refused
	}
	return s.updateBefore(time.Now().Add(s.m.timeout), name, change)
}

// updateBefore is update while no commit is under way. It tries until the deadline.
func (s *Session) updateBefore(deadline time.Time, name string, change func(data []byte) ([]byte, error)) error {
	t, err := s.target(name)
	if err != nil {
		s.failed(t.part.cookie, EventSave, nil, err)
		return err
	}
	p, known, seen := t.part, t.known, t.rec
	if p == nil {
		data, err := change(known)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.put(name, data)
		return nil
	}
	failed := func(made *call, err error) error {
		err = &Error{Cookie: p.CookieName, Op: "update", Err: err}
		s.failed(p.cookie, EventSave, made, err)
		return err
	}
	for stored := t.stored; ; {
		data, err := change(known)
		if err != nil {
			return err
		}
		now := wallNow()
		c := &call{part: p, op: opUpdate, sessionName: t.name, patient: true, change: &Change{
			Set: []RawField{{name, data}}, Now: now, Seen: seen,
		}}
		if len(p.adopts) > 0 {
			c.change.Delete = []string{movedField(name)}
		}
		c.change.Expires, _, c.change.Exact = p.moves(seen, now, seen.Permanent)
		if t.quiet && len(seen.Fields) > 0 {
			c.change.Expires = seen.Expires
		}
		if err := p.fileChange(c.change); err != nil {
			return failed(nil, err)
		}
		if !t.set {
			c.change.Match = []RawField{{name, stored}}
		}
		s.run([]*call{c})
		switch {
		case c.err == nil:
			t.name = c.sessionName
			s.event(p.cookie, EventSave, c, c.change.Set)
			if !s.updated(t, name, data, c) {
				return failed(nil, ErrHeadersSent)
			}
			return nil
		case t.former && errors.Is(c.err, ErrNoRecord): // the field may have moved
		case errors.Is(c.err, ErrNoRecord):
			s.lost(t)
			return failed(c, ErrSessionGone)
		case !errors.Is(c.err, ErrConflict):
			s.doubts(t, name)
			return failed(c, c.err)
		case now.After(deadline):
			return failed(c, fmt.Errorf("%w: others were faster: %w", ErrUnavailable, context.DeadlineExceeded))
		}
		time.Sleep(rand.N(5 * time.Millisecond)) // so that many do not collide again
		if t.former {
			if err := s.reload(); err != nil && !errors.Is(err, ErrSessionGone) {
				return failed(nil, err)
			}
			return s.updateBefore(deadline, name, change)
		}
		l := &call{part: p, op: opLoad, sessionName: c.sessionName}
		s.run([]*call{l})
		s.loaded(l, time.Now())
		t.name, t.moved = l.sessionName, t.moved || c.moved || l.moved
		switch {
		case errors.Is(l.err, ErrNoRecord):
			s.lost(t)
			return failed(l, ErrSessionGone)
		case l.err != nil:
			return failed(nil, l.err) // the load has been reported
		}
		seen, stored = l.record, l.record.valueOf(name)
		known = stored
	}
}

// A target is the record that an update changes, as this request knows it.
type target struct {
	part   *part // nil: there is none, and the update is a plain change
	epoch  int32
	name   sessionName
	quiet  bool // it does not count as a use for the idle timeout
	moved  bool // name is that of the record's successor
	rec    *Record
	known  []byte // the field's value there or in its former owner, or that of this request if there is no record
	stored []byte // its value there
	set    bool   // known is what this request has set or deleted and not saved yet: it wins over what is stored
	former bool   // part is the former owner of the field, which has it yet
}

// target finds the part that stores the field: the one that Get reads, or otherwise the one that Get will read.
func (s *Session) target(name string) (target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	owners := s.m.routes.owners(name)
	s.useAll(owners)
	if len(owners) == 0 {
		return target{}, nil // what change returns cannot be encoded
	}
	p := &s.parts[owners[len(owners)-1]]
	for _, i := range owners {
		s.parts[i].used = true
		if e, _ := s.parts[i].entries.find(name); e.value != nil {
			p = &s.parts[i]
		}
	}
	e, _ := p.entries.find(name)
	switch {
	case p.err != nil:
		return target{part: p}, &Error{Cookie: p.CookieName, Op: "update", Err: p.err}
	case p.gone:
		return target{part: p}, &Error{Cookie: p.CookieName, Op: "update", Err: ErrSessionGone}
	case p.renew && s.sent:
		return target{part: p}, &Error{Cookie: p.CookieName, Op: "update", Err: ErrHeadersSent}
	case p.sealer != nil || p.rec == nil || p.renew: // a login's fields are not stored under the old id
		return target{known: e.value}, nil
	}
	t := target{part: p, known: e.value, stored: e.saved, set: e.dirty() && !e.moved}
	for _, from := range s.sources(p, loaded) {
		if from.sealer == nil && e.moved && string(from.formerly(name)) == string(e.value) {
			t.part, t.stored, t.former = from, e.value, true
		}
	}
	t.epoch, t.name, t.rec, t.quiet = t.part.epoch, t.part.name, t.part.rec, t.part.quiet
	return t, nil
}

// updated takes over what an update has saved. It reports whether the browser still has the session's cookie, or gets
// it.
func (s *Session) updated(t target, name string, data []byte, c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := t.part
	if p.epoch != t.epoch {
		return true // destroyed meanwhile by another goroutine
	}
	if p.updated = p.updated || t.former; t.former {
		p.leaving = append(without(p.leaving, name), RawField{name, data})
		s.adoptFields()
	} else {
		s.put(name, data)
		p.entries.at(name).keeps(data)
	}
	if seen := c.change.Seen; seen != nil { // otherwise the record is its successor
		p.rec = seen
	}
	c.change.update(p.rec, c.result)
	// The browser keeps the cookie for as long as the record lives, and dropped it if another request had emptied that.
	p.resend(c.result.Refilled || p.maxAge(p.permanent) > 0 || t.moved || c.moved)
	p.refilled = p.refilled || c.result.Refilled
	if t.name != p.name {
		p.rename(t.name, c.change.Now)
	}
	return !s.sent || !c.result.Refilled || p.emptied
}

// doubts notes that it is unknown whether the field was changed in the store. What this request sets it to is saved in
// any case.
func (s *Session) doubts(t target, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.part.epoch == t.epoch {
		t.part.entries.at(name).doubt = true
	}
}

// lost notes that the session has ended.
func (s *Session) lost(t target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.part.epoch == t.epoch {
		t.part.end()
	}
}
