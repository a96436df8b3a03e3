package sessplus

import (
	"errors"
	"net/http"
	"slices"
	"time"
)

// commit saves everything dirty, and keeps the Set-Cookie lines until the headers go; once they have gone it saves what needs
// none. With last, they go now. With again, what could not be saved before is tried once more. fatal is why the response cannot
// be what the handler wants; soft is what was lost with an Optional backend.
func (s *Session) commit(last, again bool) (fatal, soft error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.refused != nil {
		return s.refused, nil
	}
	saves, now, late, err := s.begin(again)
	if len(saves) > 0 {
		saves = s.carryOut(saves, err)
	}
	fatal, soft = s.conclude(saves, err, now, last)
	for _, v := range saves {
		s.report(v)
	}
	if late && fatal != nil {
		s.m.log.ErrorContext(s.ctx, "sessplus: changes after the response headers were not saved", "error", fatal)
	}
	return fatal, soft
}

func (s *Session) begin(again bool) (saves []*save, now time.Time, late bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = s.uses
	saves, now, err = s.plan(again)
	return saves, now, s.sent, err
}

// over notes that the handler has returned. It reports whether there may be something to save since the last commit: the
// session was read or changed, or an idle timeout may be due to be moved.
func (s *Session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	return s.uses != s.saved || s.m.idles
}

// conclude takes over what was saved. It touches the header only with last, in the goroutine that answers: a Save may run
// beside a handler that sets headers.
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
		}
		if last {
			h := s.w.Header()
			if fatal != nil {
				clearContent(h)
			}
			s.sent = true
			s.writeHeader(h)
		}
	}
	return fatal, soft
}

// writeHeader puts into the header, as it goes, the Set-Cookie lines of all commits, and what caches must know of a response
// that depends on sessions, or sets one. Lines that are there already stay alone. It lets go of s.mu, last, to log.
func (s *Session) writeHeader(h http.Header) {
	if s.uses > 0 {
		s.noteUse(h)
	}
	sets := false
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
	s.open = s.open && s.uses == 0 && !personal(h)
	if sets && s.noteSetCookie(h) {
		s.unlocked(func() {
			s.warn("sessplus: a response with the Set-Cookie of a session was for shared caches, too; its Cache-Control was made private")
		})
	}
}

// answerInstead writes the header for the answer of an ErrorHandler, which may have cleared what a commit has written.
func (s *Session) answerInstead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.open = true, false
	s.writeHeader(s.w.Header())
}

// passBy lets a response go out with which nothing is saved: of a handler that panicked, or with a status of 500 or more.
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

// carryOut makes the calls of the saves: first all that create, change and delete, then those that end the old records of
// renewed sessions, so that a failure leaves the old ones as they were. With an error nothing is saved, but what was
// destroyed goes all the same: a logout does not depend on the rest of the request.
func (s *Session) carryOut(saves []*save, err error) []*save {
	var calls []*call
	for _, v := range saves {
		calls = append(calls, v.deletes...)
		if v.main != nil && err == nil {
			calls = append(calls, v.main)
		}
	}
	s.run(calls)
	for _, v := range saves {
		v.check(err == nil)
	}
	saves = s.endBound(saves)
	if err == nil && !slices.ContainsFunc(saves, (*save).fails) {
		s.retire(saves)
	}
	s.undo(saves)
	return saves
}

// check takes the errors of the first calls.
func (v *save) check(made bool) {
	p := v.part
	for _, d := range v.deletes {
		if d.err != nil && v.err == nil {
			v.err = &Error{Cookie: p.CookieName, Op: "delete", Err: d.err}
		}
	}
	if v.main == nil || !made {
		return
	}
	switch err := v.main.err; {
	case err == nil, errors.Is(err, ErrRecordExists): // under an id just drawn: a try of ours whose answer was lost
		v.written = true
		if r := v.main.result; r.Empty || v.ends {
			v.drop, v.send = !v.touch, false
		} else if r.Refilled {
			v.send = true // the request that took the last field has told the browser to drop the cookie
		}
	case v.touch && !v.needed: // the request read, and that it did
	case errors.Is(err, ErrNoRecord):
		v.err = p.saveError(ErrSessionGone)
	default:
		v.err = p.saveError(err)
	}
}

// endBound lets cookies that are bound to a session go with it when its last field has gone.
func (s *Session) endBound(saves []*save) []*save {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range saves {
		if !b.written || b.touch || !b.main.result.Empty {
			continue
		}
		for i := range s.parts {
			p := &s.parts[i]
			if p.boundTo != b.part.cookie {
				continue
			}
			v := saveOf(p.cookie, saves)
			if v == nil {
				v = &save{part: p, epoch: p.epoch}
				saves = append(saves, v)
			}
			if v.sets() { // as another request has taken the other fields
				v.err = p.saveError(ErrSessionGone)
			}
			if p.state == unloaded {
				p.state = loaded // nothing is left to load
			}
			v.send, v.drop, v.ends = false, true, true
		}
	}
	return saves
}

// retire removes the old records of renewed sessions. What other requests saved there meanwhile goes into the new ones.
func (s *Session) retire(saves []*save) {
	var renewed []*save
	var takes, updates []*call
	for _, v := range saves {
		if v.take != nil && v.written {
			renewed = append(renewed, v)
			takes = append(takes, v.take)
		}
	}
	s.run(takes)
	for _, v := range renewed {
		switch err := v.take.err; {
		case errors.Is(err, ErrNoRecord): // another request destroyed or renewed it
			v.err = &Error{Cookie: v.part.CookieName, Op: "renew", Err: ErrSessionGone}
		case err != nil:
			v.err = &Error{Cookie: v.part.CookieName, Op: "renew", Err: err}
		default:
			if c := s.missed(v); c != nil {
				v.missed = &call{part: v.part, op: opUpdate, key: v.main.key, change: c}
				updates = append(updates, v.missed)
			}
		}
	}
	s.run(updates)
	for _, v := range renewed {
		switch {
		case v.missed == nil:
		case v.missed.err != nil:
			v.err = v.part.saveError(v.missed.err)
		case v.missed.result.Empty:
			v.drop, v.send = true, false
		}
	}
}

// missed compares the old record of a renewed session, as it was last, with what this request knew of it, and returns
// what other requests have changed in fields that this one has not, or nil.
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
		if !known && s.m.routes.owns(p.index, f.Name) || known && !e.dirty() && string(e.saved) != string(f.Value) {
			c.Set = append(c.Set, f)
		}
	}
	for e := range p.entries.all() {
		if e.saved != nil && !e.dirty() && !last[e.name] {
			c.Delete = append(c.Delete, e.name)
		}
	}
	if permanent := v.take.record.Permanent; permanent != p.rec.Permanent && r.Permanent == p.rec.Permanent {
		c.Permanent, c.Expires = &permanent, p.expiry(r.Created, c.Now, permanent)
	}
	if len(c.Set)+len(c.Delete) == 0 && c.Permanent == nil {
		return nil
	}
	return c
}

// undo removes the records that were created for nothing, because no cookie will name them, and puts back the old ones
// of renewed sessions. It does what it can: what stays behind expires. A cookie that is bound to a session which could
// not be saved is not saved either.
func (s *Session) undo(saves []*save) {
	failed := slices.ContainsFunc(saves, (*save).fails)
	var calls []*call
	for _, v := range saves {
		if v.part.boundTo != nil {
			if b := saveOf(v.part.boundTo, saves); b != nil && b.err != nil {
				v.send = false
			}
		}
		if !v.written || !v.creates() || !failed && v.err == nil {
			continue
		}
		v.written = false
		calls = append(calls, &call{part: v.part, op: opDelete, key: v.main.key})
		if v.take != nil && v.take.record != nil {
			calls = append(calls, &call{part: v.part, op: opCreate, key: v.take.key, record: v.take.record})
		}
	}
	s.run(calls)
}

// outcome sums up the errors: those that the request fails with, and those that it does not.
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

// takeOver brings the part up to date with what was saved.
func (v *save) takeOver(now time.Time, failed, late bool) {
	p := v.part
	for _, d := range v.deletes {
		if d.err == nil {
			p.ended = slices.DeleteFunc(p.ended, func(key string) bool { return key == d.key })
		}
	}
	if p.sealer != nil {
		v.written = !failed && v.err == nil && (v.send || v.drop)
	}
	switch {
	case p.epoch != v.epoch: // destroyed meanwhile, so what was just created is to go, too
		if v.written && v.creates() {
			p.ended = append(p.ended, v.main.key)
		}
		v.send, v.drop, p.expire = false, true, true
	case errors.Is(v.err, ErrSessionGone):
		p.end()
	case !v.written:
		p.renew = p.renew || v.renews
		p.tried = v.err != nil || v.touch
	default:
		v.saved(now)
		p.emptied = late && v.main != nil && v.main.result.Empty
	}
}

// saved notes that the store now has what was planned.
func (v *save) saved(now time.Time) {
	p := v.part
	for _, f := range v.changed {
		p.entries.at(f.Name).saved = f.Value
	}
	switch {
	case v.ends:
		p.content = content{}
	case p.sealer != nil:
		p.renew, p.rewrite = false, false
		if p.rec == nil {
			p.rec = new(Record)
		}
		*p.rec = Record{Created: now, Saved: now, Expires: now.Add(p.contentAge(p.permanent)), Permanent: p.permanent}
	case !v.creates():
		v.main.change.update(p.rec, v.main.result)
		p.rewrite = false
		if !v.touch {
			p.foreign = nil
		}
	default:
		p.name, p.rec, p.foreign, p.rewrite = v.main.name, v.main.record, nil, false
		if v.missed != nil {
			c := v.missed.change
			for _, f := range c.Set {
				*p.entries.at(f.Name) = entry{f.Name, f.Value, f.Value}
			}
			for _, name := range c.Delete {
				*p.entries.at(name) = entry{name: name}
			}
			if c.Permanent != nil {
				p.permanent = *c.Permanent
			}
			c.update(p.rec, v.missed.result)
		}
	}
}

// update makes r the record as it is once the change is made. Its fields are kept up only for a backend that compares
// them.
func (c *Change) update(r *Record, result Result) {
	if r.Version != "" {
		r.Fields = slices.Clone(r.Fields) // the others may be read yet
		c.Apply(r)
	} else if c.Permanent != nil {
		r.Permanent = *c.Permanent
	}
	r.Expires, r.Version = result.Expires, result.Version
}

// keepLines makes the Set-Cookie lines of a save, which take the place of those of an earlier commit. When the commit failed
// only those of destroyed sessions go out: the browser logs out even when the server cannot.
func (s *Session) keepLines(v *save, now time.Time, failed bool) {
	p := v.part
	send := v.send && v.written && !failed
	drop := v.drop && (p.expire || v.written && !failed)
	gone := errors.Is(v.err, ErrSessionGone) // what an earlier Save has set would undo a login elsewhere
	if !send && !drop && !gone {
		return
	}
	lines := v.line[:0]
	if send {
		age := p.maxAge(p.permanent)
		if p.sealer == nil {
			v.values = append(v.value[:0], p.cookieText())
			if age > 0 {
				age = max(min(age, p.rec.Expires.Sub(now)), time.Second)
			}
		}
		for i, value := range v.values {
			lines = append(lines, p.setCookie(chunkName(p.CookieName, i), value, age, now, s.tls))
		}
	}
	for n := len(lines); n < p.MaxChunks && (drop || !gone); n++ { // what the browser has, and nothing takes the place of
		if p.came(n) {
			lines = append(lines, p.setCookie(chunkName(p.CookieName, n), "", -1, now, s.tls))
		}
	}
	if !gone {
		p.expire, p.held = false, send
	}
	p.lines = lines
}

// came reports whether the request brought the cookie, or its nth chunk.
func (p *part) came(n int) bool {
	return slices.ContainsFunc(p.texts, func(c candidate) bool { return c.chunk == n })
}

// cookieText is the value of a server-side cookie: the id, signed if the config says so.
func (p *part) cookieText() string {
	if p.signer == nil {
		return p.name.id()
	}
	text, err := p.signer.sign(p.CookieName, p.name.id())
	if err != nil { // without a random IV to draw, signing cannot fail
		panic(err)
	}
	return text
}

// report tells the log and the events what became of a save.
func (s *Session) report(v *save) {
	c := v.part.cookie
	for _, d := range v.deletes {
		kind := EventDestroy
		if d.err != nil {
			kind = EventError
		}
		s.event(c, kind, d, nil)
	}
	switch {
	case v.touch && v.err == nil && v.main.err != nil:
		if !errors.Is(v.main.err, ErrNoRecord) {
			s.warn("sessplus: the idle timeout of a session could not be moved", "cookie", c.CookieName, "error", v.main.err)
			s.event(c, EventError, v.main, nil)
		}
	case v.err != nil:
		if !v.fails() {
			s.warn("sessplus: changes of a session were not saved", "cookie", c.CookieName, "error", v.err)
		}
		failed := &call{err: v.err}
		if v.main != nil {
			failed.key, failed.took = v.main.key, v.main.took
		}
		s.event(c, EventError, failed, nil)
	case v.written:
		fields := v.changed
		if v.creates() {
			fields = v.main.record.Fields
		}
		s.event(c, v.kind(), v.main, fields)
		if v.fresh && v.send && !c.covers(s.uri) && !c.strayed.Swap(true) {
			s.warn("sessplus: a session was made for a request outside of its Path, with which its cookie does not come back: "+
				"a visitor who stays there gets another one with each request, unless a proxy in front changes paths", "cookie", c.CookieName, "path", c.Path)
		}
	}
}

// kind is what a save that succeeded is called.
func (v *save) kind() EventKind {
	switch {
	case v.ends:
		return EventDestroy
	case v.touch:
		return EventTouch
	case v.renews:
		return EventRenew
	case v.drop && v.part.sealer != nil:
		return EventDestroy
	case v.fresh:
		return EventCreate
	}
	return EventSave
}

// Save commits now what the commit would save before the response. It may be called again, and by any goroutine: it does not
// touch the response's header. The Set-Cookie headers of what it has saved are written when the response begins, whatever
// becomes of that: a status of 500, a panic, a header that was cleared. After that a change that would need one is
// [ErrHeadersSent], and the rest is saved. The error joins those of all cookies, also of Optional backends.
//
// A response that begins past the writer of the middleware, in the one that its Unwrap returns, has no Set-Cookie headers.
func (s *Session) Save() error {
	s.askAgain()
	fatal, soft := s.commit(false, true)
	return errors.Join(fatal, soft)
}
