package sessplus

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// commit saves everything dirty, and keeps the Set-Cookie lines until the headers are sent; after that, it only saves
// what needs none. last means that the headers are about to be sent, again that saves that have failed before are
// retried. fatal is why the handler's response cannot be sent; soft is what was lost with an Optional backend.
func (s *Session) commit(last, again bool) (fatal, soft error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.refused != nil {
		return s.refused, nil
	}
	saves, now, late, err := s.begin(last, again)
	if len(saves) > 0 {
		saves = s.carryOut(saves, err)
	}
	fatal, soft = s.conclude(saves, err, now, last)
	for _, v := range saves {
		s.report(v)
	}
	s.reportMistake(saves, err)
	if late && fatal != nil && s.w != nil { // without a response, the caller gets the error
		s.m.log.ErrorContext(s.ctx, "sessplus: changes after the response headers were not saved", "error", fatal)
	}
	return fatal, soft
}

func (s *Session) begin(last, again bool) (saves []*save, now time.Time, late bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = s.uses
	for i := range s.parts {
		if p := &s.parts[i]; p.repeats && last && !s.sent {
			p.resend(true) // an earlier Save has set an id that others know, and it may have ended meanwhile
		}
	}
	if s.bundle != nil && !s.sent && s.writes() {
		s.useAll(s.m.every) // writing one value means writing all
	}
	saves, now, err = s.plan(again)
	return saves, now, s.sent, err
}

// over notes that the handler has returned. It reports whether there may be something to save since the last commit,
// because the session was read or changed, or because an expiry may have to be moved.
func (s *Session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	return s.uses != s.saved || s.m.ages
}

// conclude takes over what was saved. It modifies the header only with last, in the goroutine that responds, because a
// Save in another goroutine may run while the handler sets headers.
func (s *Session) conclude(saves []*save, err error, now time.Time, last bool) (fatal, soft error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fatal, soft = s.outcome(saves, err)
	for _, v := range saves {
		v.takeOver(now, fatal != nil, s.sent)
	}
	if !s.sent {
		for _, v := range saves {
			s.keepLines(v, now, fatal != nil)
			s.keepOffer(v, fatal != nil)
		}
		if b := s.bundle; b != nil && b.changed && len(saves) > 0 {
			s.parts[0].lines = b.lines(s, now)
		}
		if last {
			h := s.w.Header()
			if fatal != nil && s.alone == nil {
				s.clearContent(h)
			}
			s.sent = fatal == nil || s.alone == nil
			s.writeHeader(h)
		}
	}
	return fatal, soft
}

// writeHeader adds the Set-Cookie lines of all commits to the header, unless they are already there, and what caches
// must know about a response that depends on sessions or sets one. At its end it may release s.mu, to log.
func (s *Session) writeHeader(h http.Header) {
	if s.uses > 0 {
		s.noteUse(h)
	}
	sets := false
	if w := s.alone; w != nil { // a Save that has failed may have written lines, too
		h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(line string) bool { return slices.Contains(w.lines, line) })
		if w.lines = nil; len(h["Set-Cookie"]) == 0 {
			delete(h, "Set-Cookie")
		}
		for i := range s.parts {
			w.lines = append(w.lines, s.parts[i].lines...)
		}
	}
	for i := range s.parts {
		for n, line := range s.parts[i].lines {
			sets = true
			if all := h["Set-Cookie"]; len(all) == 0 {
				h["Set-Cookie"] = s.parts[i].lines[n : n+1 : n+1]
			} else if !slices.Contains(all, line) {
				h["Set-Cookie"] = append(all, line)
			}
		}
	}
	s.offerRegistrations(h)
	if sets {
		s.noteUse(h)
	}
	s.open = s.open && s.uses == 0 && !personal(h)
	if !sets {
		return
	}
	public := s.noteSetCookie(h)
	s.unlocked(func() {
		s.begunBefore()
		if public {
			s.warn("sessplus: a response with the Set-Cookie of a session was for shared caches, too; its Cache-Control was made private")
		}
	})
}

// answerInstead writes the header for the response of an ErrorHandler, which may have cleared what a commit has
// written.
func (s *Session) answerInstead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.open = true, false
	s.writeHeader(s.w.Header())
}

// passBy lets a response begin without saving anything: after a panic, or with a status of 500 or more. What Save has
// saved before is still announced to the browser.
func (s *Session) passBy() {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sent {
		s.sent = true
		s.writeHeader(s.w.Header())
	}
}

// carryOut makes the calls of the saves: first those that take the old records of renewed sessions; then those that
// create, change and end records; then those that end the old records, so that a failure leaves them as they were. With
// an error nothing is saved, but what was destroyed still ends: a logout does not depend on the rest of the request.
func (s *Session) carryOut(saves []*save, err error) []*save {
	done := false
	defer func() {
		if !done {
			s.putBack(saves)
		}
	}()
	made := err == nil
	if made {
		s.setFormers(saves)
		made = s.contend(saves)
	}
	var calls []*call
	for _, v := range saves {
		calls = append(calls, v.deletes...)
		if made && v.main != nil && v.main.err == nil {
			calls = append(calls, v.main)
		}
	}
	s.run(calls)
	for _, v := range saves {
		s.forsake(v)
	}
	s.concede(saves)
	s.redraw(saves)
	saves = s.check(saves, made)
	if made && !slices.ContainsFunc(saves, (*save).fails) {
		s.retire(saves)
		s.starve(saves)
	}
	failed := !made || slices.ContainsFunc(saves, (*save).fails)
	s.undo(saves, failed)
	if !failed {
		saves = s.removeMoved(saves)
	}
	if !failed && !s.bundle.stuck(saves) {
		s.rotate(saves)
		saves = s.bundle.catchUp(s, saves)
		s.starve(saves)
		if slices.ContainsFunc(saves, (*save).fails) {
			s.undo(saves, true)
		}
	}
	done = true
	return saves
}

// putBack returns the plan of a commit that has panicked to the next commit, and undoes what the backends have done, as
// far as possible.
func (s *Session) putBack(saves []*save) {
	s.mu.Lock()
	for _, v := range saves {
		v.keepForsaken()
		if v.part.epoch == v.epoch {
			v.part.renew = v.part.renew || v.renews
			v.doubts()
		}
	}
	s.mu.Unlock()
	defer func() { recover() }() // the first panic is the one to report
	for _, v := range saves {
		v.written = v.creates()
	}
	s.undo(saves, true)
}

// doubts notes that a change whose reply was lost may have been made, or not. So setting a field back to its old value
// counts as a change, too.
func (v *save) doubts() {
	if v.main == nil || v.main.op != opUpdate || v.main.err != nil && !errors.Is(v.main.err, ErrUnavailable) {
		return
	}
	p := v.part
	for _, f := range v.changed {
		e := p.entries.at(f.Name)
		e.doubt, e.again = true, true
	}
	p.doubt = p.doubt || v.main.change.Permanent != nil
}

// maxDraws is how many ids are drawn for one session.
const maxDraws = 8

// redraw creates records under other ids, if an id that was drawn already has a record, which is another session's.
func (s *Session) redraw(saves []*save) {
	for range maxDraws {
		var calls []*call
		for _, v := range saves {
			if v.creates() && errors.Is(v.main.err, ErrRecordExists) {
				v.main.sessionName = v.part.nameOf(newID())
				s.reseal(v, saves)
				calls = append(calls, v.main)
			}
		}
		if len(calls) == 0 {
			return
		}
		s.run(calls)
	}
}

// reseal seals again the secure cookies that this commit binds to the session of v, whose id or fate is not what was
// planned.
func (s *Session) reseal(v *save, saves []*save) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range saves {
		if w.part.boundTo != v.part.cookie || !w.send || w.err != nil {
			continue
		}
		if w.lost = v.lost; v.void && w.sets() {
			w.err = w.part.saveError(ErrSessionGone)
		} else if w.lost && !w.sets() {
			w.send, w.drop = false, false
		} else if err := s.seal(w, saves, wallNow()); err != nil {
			w.err = err
		}
	}
}

// check finds out what the calls of the saves have come to. Other goroutines may change the parts meanwhile.
func (s *Session) check(saves []*save, made bool) []*save {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range saves {
		v.check(made)
	}
	saves = s.endBound(saves)
	s.bundle.starve(saves)
	return saves
}

// check takes over the results of the first calls.
func (v *save) check(made bool) {
	p := v.part
	for _, d := range v.deletes {
		if d.astray() && v.err == nil {
			v.err, v.undead = &Error{Cookie: p.CookieName, Op: "delete", Err: ErrSessionGone}, true
		}
		if d.err != nil && !errors.Is(d.err, ErrNoRecord) && v.err == nil {
			v.err, v.undead = &Error{Cookie: p.CookieName, Op: "delete", Err: d.err}, true
		}
	}
	if v.main == nil || !made {
		return
	}
	switch err := v.main.err; {
	case err == nil, v.main.op == opEnd && errors.Is(err, ErrNoRecord):
		v.written = true
		v.send = v.send || v.main.moved
		if r := v.main.result; r.Empty || v.does == ends {
			v.drop, v.send = !v.does.reads(), false
		} else if r.Refilled {
			v.send = true // the request that removed the last field has told the browser to drop the cookie
		}
	case v.does == touches && !(p.arrived() && errors.Is(err, ErrUnavailable)):
		// The request only read, and that succeeded. But the new cookies that replace a former one are sent together.
	case errors.Is(err, ErrNoRecord):
		v.err = p.saveError(ErrSessionGone)
	case errors.Is(err, ErrRecordExists):
		v.err = p.saveError(fmt.Errorf("%w: every id drawn is there already", ErrUnavailable))
	default:
		v.err = p.saveError(err)
	}
}

// astray reports whether the record to be ended was missing. The session may live on under another id, if it was
// rotated so long ago that the tombstone is gone.
func (c *call) astray() bool {
	seen := c.ending.Seen
	return c.part.RotateEvery > 0 && errors.Is(c.err, ErrNoRecord) && endedBy(c.err) == nil && seen != nil && seen.Expires.After(c.ending.Now)
}

// endBound drops the cookies that are bound to a session which has just lost its last field.
func (s *Session) endBound(saves []*save) []*save {
	if s.w == nil {
		return saves // an Edit sees no cookies
	}
	for _, b := range saves {
		if !b.written || b.main == nil || b.does.reads() || !b.main.result.Empty {
			continue
		}
		for i := range s.parts {
			p := &s.parts[i]
			if p.boundTo != b.part.cookie {
				continue
			}
			var v *save
			v, saves = saveFor(p, saves)
			if v.sets() { // another request has removed the other fields
				v.err = p.saveError(ErrSessionGone)
			}
			if p.state == unloaded {
				p.state = loaded // nothing is left to load
			}
			v.send, v.drop, v.does = false, true, ends
		}
	}
	return saves
}

// undo ends the records that were created in vain, because no cookie will name them, and releases the old records of
// renewed sessions. If it fails, no harm is done: what remains expires, and a take lapses. A cookie bound to a session
// that could not be saved is not sent either.
func (s *Session) undo(saves []*save, failed bool) {
	var calls []*call
	for _, v := range saves {
		if v.part.boundTo != nil {
			if b := saveOf(v.part.boundTo, saves); b != nil && b.err != nil {
				v.send = false
			}
		}
		if !failed && v.err == nil {
			continue
		}
		if v.written && v.creates() {
			v.written = false
			calls = append(calls, v.part.endCall(v.main.key))
		}
		if v.take != nil && !v.lost {
			release := v.release()
			release.insists = v.finish != nil
			calls = append(calls, release)
		}
	}
	s.run(calls)
}

// outcome returns the errors that make the request fail, and those that do not.
func (s *Session) outcome(saves []*save, err error) (fatal, soft error) {
	var fatals, softs []error
	if err != nil {
		fatals = append(fatals, err)
	}
	for _, v := range saves {
		if v.late == nil && s.sent && v.main != nil && v.main.result.Refilled && !v.part.emptied {
			v.late = v.part.saveError(ErrHeadersSent) // the browser has dropped the cookie
		}
		if v.late != nil {
			fatals = append(fatals, v.late)
		}
		switch {
		case v.err == nil || v.err == err:
		case v.fails():
			fatals = append(fatals, v.err)
		case errors.Is(v.err, ErrUnavailable):
			softs = append(softs, v.err)
			s.note(v.err)
		}
	}
	return errors.Join(fatals...), errors.Join(softs...)
}

// takeOver brings the part up to date with what was saved. Other goroutines may have changed it meanwhile.
func (v *save) takeOver(now time.Time, failed, late bool) {
	p := v.part
	v.takeEnds()
	if p.sealer != nil {
		v.written = !failed && v.err == nil && (v.send || v.drop)
		if !failed && v.err == nil {
			p.expelled = nil
		}
	}
	switch {
	case p.epoch != v.epoch: // destroyed meanwhile, so what was just created must go, too
		if v.written && v.creates() {
			p.ended = append(p.ended, ended{key: v.main.key})
		}
		if v.rotated != nil {
			p.ended = append(p.ended, ended{key: v.rotated.key})
		}
		v.send, v.drop, p.due = false, true, tellDrop
	case errors.Is(v.err, ErrSessionGone), v.void:
		p.end()
	case p.sealer != nil && v.lost && !v.written && v.err == nil && !failed:
		p.content = content{} // what was bound to the ended session is not carried over to the new one
	case !v.written:
		p.renew = p.renew || v.renews
		p.tried = v.err != nil || v.does.reads()
		v.doubts()
	default:
		v.saved(now)
		p.emptied = late && v.main != nil && v.main.result.Empty
	}
	if v.rotated != nil && p.epoch == v.epoch {
		v.takeRotation(now)
	}
}

// takeEnds notes what has ended, so that no later commit ends it again.
func (v *save) takeEnds() {
	p := v.part
	if v.err != nil {
		v.keepForsaken()
	}
	for _, d := range v.deletes {
		if d.err == nil || errors.Is(d.err, ErrNoRecord) {
			p.ended = slices.DeleteFunc(p.ended, func(e ended) bool { return e.key == d.asked })
		}
	}
}

// takeRotation gives the part the id that the session has got.
func (v *save) takeRotation(now time.Time) {
	if p := v.part; v.joined {
		p.rename(v.rotated.sessionName, now)
	} else {
		p.name, p.rec = v.rotated.sessionName, v.rotated.record
	}
	v.send, v.written = true, true
}

// saved notes that the store now has what was planned.
func (v *save) saved(now time.Time) {
	p := v.part
	for _, f := range v.changed {
		p.entries.at(f.Name).keeps(f.Value)
	}
	if len(p.adopts) == 0 { // what was deleted there must not be adopted again
		p.entries.forget()
	}
	switch {
	case v.does == ends:
		p.content = content{}
	case p.sealer != nil:
		v.sealed(now)
	case v.main == nil:
	case v.creates():
		v.created()
	default:
		v.updated(now)
	}
}

// sealed notes what the secure cookie has now.
func (v *save) sealed(now time.Time) {
	p := v.part
	past := p.legacyAfter(now)
	p.renew = false
	p.resent()
	if v.lost {
		p.entries = entries{}
		for _, f := range v.changed {
			if f.Value != nil {
				*p.entries.at(f.Name) = entry{name: f.Name, value: f.Value, saved: f.Value}
			}
		}
	}
	if p.rec == nil {
		p.rec = new(Record)
	}
	*p.rec = Record{Created: now, Saved: now, Expires: now.Add(p.contentAge(p.permanent)), Permanent: p.permanent}
	p.rec.end(past)
}

// created notes that the part has the new record, with what was copied into it.
func (v *save) created() {
	p := v.part
	p.name, p.rec, p.foreign, p.gone, p.doubt = v.main.sessionName, v.main.record, nil, false, false
	p.resent()
	for _, a := range v.amends {
		c := a.change
		for _, f := range c.Set {
			*p.entries.at(f.Name) = entry{name: f.Name, value: f.Value, saved: f.Value}
		}
		for _, name := range c.Delete {
			*p.entries.at(name) = entry{name: name}
		}
		if c.Permanent != nil {
			p.permanent = *c.Permanent
		}
		c.update(p.rec, a.result)
	}
}

// updated notes what has changed in the record.
func (v *save) updated(now time.Time) {
	p := v.part
	v.main.change.update(p.rec, v.main.result)
	p.doubt = p.doubt && v.main.change.Permanent == nil
	p.refilled = false
	p.resent()
	if v.main.moved {
		p.rename(v.main.sessionName, now)
	}
	if len(p.foreign) == 0 || slices.Contains(v.main.change.Delete, p.foreign[0]) { // all of them went, or none
		p.foreign, p.sheds = nil, false
	}
}

// update makes r what the record is after the change. Its fields are updated only for a backend that compares versions.
func (c *Change) update(r *Record, result Result) {
	if r.Version != "" {
		r.Fields = slices.Clone(r.Fields) // the others may be read yet
		c.Apply(r)
	} else {
		c.replace(r)
	}
	r.Expires, r.Version = result.Expires, result.Version
	if c.Seen == nil { // the change was made to the successor of r, whose other fields are unknown
		r.Version = ""
	}
}

// report tells the log and OnEvent the result of a save.
func (s *Session) report(v *save) {
	c := v.part.cookie
	for _, d := range v.deletes {
		if d.err == nil || errors.Is(d.err, ErrNoRecord) && !d.astray() {
			s.event(c, EventDestroy, d, nil)
		} else {
			s.failed(c, EventDestroy, d, v.err)
		}
	}
	switch {
	case v.does.reads() && v.err == nil && v.main.err != nil:
		if !errors.Is(v.main.err, ErrNoRecord) && !errors.Is(v.main.err, ErrTaken) {
			s.warn("sessplus: the end of a session could not be moved", "cookie", c.CookieName, "error", v.main.err)
			s.failed(c, EventTouch, v.main, v.main.err)
		}
	case v.err != nil:
		if !v.fails() {
			s.warn("sessplus: changes of a session were not saved", "cookie", c.CookieName, "error", v.err)
		}
		if !v.undead { // otherwise the event is that of a delete
			s.failed(c, v.does.kind(), cmp.Or(v.main, v.take), v.err)
		}
	case v.written && (v.main != nil || v.part.sealer != nil):
		fields := v.changed
		if v.creates() {
			fields = v.main.record.Fields
		}
		s.event(c, v.does.kind(), v.main, fields)
		if v.does == creates && v.send && !c.covers(s.uri()) && !c.strayed.Swap(true) {
			s.warn("sessplus: a session was made for a request outside of its Path, with which its cookie does not come back: "+
				"a visitor who stays there gets another one with each request, unless a proxy in front changes paths", "cookie", c.CookieName, "path", c.Path)
		}
	}
	if v.late != nil {
		s.failed(c, v.does.kind(), nil, v.late)
	}
	if v.rotated != nil && !v.joined {
		s.event(c, EventRotate, v.rotated, v.rotated.record.Fields)
	}
}

// reportMistake tells OnEvent the error because of which a commit has saved nothing, unless it is the error of a save,
// which report tells.
func (s *Session) reportMistake(saves []*save, err error) {
	if err == nil || slices.ContainsFunc(saves, func(v *save) bool { return v.err == err }) {
		return
	}
	var c *cookie
	if at := (*Error)(nil); errors.As(err, &at) {
		if p := s.part(at.Cookie); p != nil {
			c = p.cookie
		}
	}
	s.failed(c, EventSave, nil, err)
}

// Save commits now, instead of before the response. It may be called more than once, and by any goroutine, because it
// does not modify the response header: the Set-Cookie headers of what it has saved are written when the response
// begins, even if the status is 500, the handler panics, or the header is cleared. After that, changes that need a
// Set-Cookie header are [ErrHeadersSent], and all others are saved. The error joins those of all cookies, including
// Optional ones. If Save returns [ErrSessionGone], the changes are dropped, and the handler decides how to respond. Any
// other error makes the commit of the response fail as well, unless what it names can be saved by then.
//
// A response that bypasses the middleware's writer, by writing to the one that Unwrap returns, has no Set-Cookie
// headers. For a session from [Manager.Load], Save is the commit, and writes to the header at once.
func (s *Session) Save() error {
	s.askAgain()
	fatal, soft := s.commit(s.alone != nil, true)
	return errors.Join(fatal, soft)
}
