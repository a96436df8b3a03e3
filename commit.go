package sessplus

import (
	"errors"
	"net/http"
	"slices"
	"time"
)

// commit saves everything dirty, then writes the Set-Cookie headers into h; once the headers have gone it saves what
// needs none. With last, they go now. fatal is why the response cannot be what the handler wants; soft is what was lost
// with an Optional backend.
func (s *Session) commit(h http.Header, last bool) (fatal, soft error) {
	s.saving.Lock()
	defer s.saving.Unlock()

	s.mu.Lock()
	now := wallNow()
	late := s.sent
	saves, err := s.plan(now, late)
	s.mu.Unlock()

	s.carryOut(saves, err)

	s.mu.Lock()
	fatal, soft = s.outcome(saves, err)
	for _, v := range saves {
		s.takeOver(v, now, fatal != nil)
	}
	if !late {
		if fatal != nil && last {
			clearContent(h)
		}
		if s.used {
			noteUse(h)
		}
		for _, v := range saves {
			s.writeCookies(h, v, now, fatal != nil)
		}
	}
	s.sent = s.sent || last
	s.mu.Unlock()
	for _, v := range saves {
		s.report(v)
	}
	return fatal, soft
}

// carryOut makes the calls of the saves: first all that create, change and delete, then those that end the old records of
// renewed sessions, so that a failure leaves the old ones as they were. With an error nothing is saved, but what was
// destroyed goes all the same: a logout does not depend on the rest of the request.
func (s *Session) carryOut(saves []*save, err error) {
	var calls []*call
	for _, v := range saves {
		calls = append(calls, v.deletes...)
		if v.main != nil && err == nil {
			calls = append(calls, v.main)
		}
	}
	s.run(calls)
	failed := false
	for _, v := range saves {
		v.check(err == nil)
		failed = failed || v.fails()
	}
	if err == nil && !failed {
		s.retire(saves)
	}
	s.undo(saves)
}

// fails reports whether the request fails with this save.
func (v *save) fails() bool { return v.err != nil && !v.part.tolerates(v.err) }

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
		if r := v.main.result; !v.touch && r.Empty {
			v.drop, v.send = true, false
		} else if r.Refilled {
			v.send = true // the request that took the last field has told the browser to drop the cookie
		}
	case v.touch:
		v.send = false // the request read, and that it did
	case errors.Is(err, ErrNoRecord):
		v.err = p.saveError(ErrSessionGone)
	default:
		v.err = p.saveError(err)
	}
}

// retire removes the old records of renewed sessions. What other requests saved there meanwhile goes into the new ones.
func (s *Session) retire(saves []*save) {
	var takes, updates []*call
	var renewed []*save
	for _, v := range saves {
		if v.take != nil && v.written {
			takes = append(takes, v.take)
			renewed = append(renewed, v)
		}
	}
	s.run(takes)
	for _, v := range renewed {
		switch err := v.take.err; {
		case err == nil:
			if v.missed = s.missed(v); v.missed != nil {
				updates = append(updates, &call{part: v.part, op: opUpdate, key: v.main.key, change: v.missed})
			}
		case errors.Is(err, ErrNoRecord): // another request destroyed or renewed it
			v.err = &Error{Cookie: v.part.CookieName, Op: "renew", Err: ErrSessionGone}
		default:
			v.err = &Error{Cookie: v.part.CookieName, Op: "renew", Err: err}
		}
	}
	s.run(updates)
	for _, c := range updates {
		for _, v := range renewed {
			if v.part == c.part && c.err != nil {
				v.err = v.part.saveError(c.err)
			}
		}
	}
}

// missed compares the old record of a renewed session, as it was last, with what this request knew of it, and returns
// what other requests have changed in fields that this one has not, or nil.
func (s *Session) missed(v *save) *Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := v.part
	r := v.main.record
	c := &Change{Now: wallNow(), Seen: r, Expires: r.Expires}
	last := make(map[string]bool, len(v.take.record.Fields))
	for _, f := range v.take.record.Fields {
		last[f.Name] = true
		e := p.entries.find(f.Name)
		if e == nil && s.m.routes.owns(p.index, f.Name) || e != nil && !e.dirty() && string(e.saved) != string(f.Value) {
			c.Set = append(c.Set, f)
		}
	}
	for i := range p.entries.list {
		if e := &p.entries.list[i]; e.saved != nil && !e.dirty() && !last[e.name] {
			c.Delete = append(c.Delete, e.name)
		}
	}
	if v.take.record.Permanent != p.rec.Permanent && r.Permanent == p.rec.Permanent {
		permanent := v.take.record.Permanent
		c.Permanent, c.Expires = &permanent, p.expiry(r.Created, c.Now, permanent)
	}
	if len(c.Set)+len(c.Delete) == 0 && c.Permanent == nil {
		return nil
	}
	return c
}

// undo removes the records that were created for nothing, because no cookie will name them, and puts back the old ones
// of renewed sessions. It does what it can: what stays behind expires.
func (s *Session) undo(saves []*save) {
	failed := slices.ContainsFunc(saves, (*save).fails)
	var calls []*call
	for _, v := range saves {
		if !v.written || v.newID == "" || !failed && v.err == nil {
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
func (s *Session) takeOver(v *save, now time.Time, failed bool) {
	p := v.part
	for _, d := range v.deletes {
		if d.err == nil {
			p.ended = slices.DeleteFunc(p.ended, func(key string) bool { return key == d.key })
		}
	}
	if p.sealer != nil {
		v.written = !failed && v.err == nil
	}
	switch {
	case p.epoch != v.epoch: // destroyed meanwhile, so what was just created is to go, too
		if v.written && v.newID != "" {
			p.ended = append(p.ended, v.main.key)
			p.expire = true
		}
		return
	case errors.Is(v.err, ErrSessionGone):
		p.end()
		return
	case !v.written:
		return
	}
	for _, f := range v.changed {
		p.entries.at(f.Name).saved = f.Value
	}
	if v.touch || p.sealer == nil && v.main != nil && v.main.op == opUpdate {
		p.rec = v.main.change.after(p.rec, v.main.result)
		if !v.touch {
			p.foreign = nil
		}
		return
	}
	p.renew, p.rewrite = false, false
	if p.sealer != nil {
		p.rec = &Record{Created: now, Saved: now, Expires: now.Add(p.contentAge(p.permanent)), Permanent: p.permanent}
		return
	}
	if v.main == nil {
		return
	}
	p.id, p.foreign = v.newID, nil
	p.rec = v.main.record
	p.rec.Version = v.main.result.Version
	if v.missed != nil {
		for _, f := range v.missed.Set {
			*p.entries.at(f.Name) = entry{f.Name, f.Value, f.Value}
		}
		for _, name := range v.missed.Delete {
			*p.entries.at(name) = entry{name: name}
		}
		if v.missed.Permanent != nil {
			p.permanent = *v.missed.Permanent
		}
	}
}

// after is the record once the change is made to it, as far as it is known.
func (c *Change) after(r *Record, result Result) *Record {
	known := *r
	known.Fields = slices.Clone(r.Fields)
	c.Apply(&known)
	known.Version = result.Version
	return &known
}

// writeCookies puts the Set-Cookie lines of a save into the header, in place of those of an earlier commit. When the
// commit failed only those of destroyed sessions go out: the browser logs out even when the server cannot.
func (s *Session) writeCookies(h http.Header, v *save, now time.Time, failed bool) {
	p := v.part
	failed = failed || v.err != nil || p.boundTo != nil && s.parts[p.boundTo.index].gone
	var lines []string
	var set []string // the names that get a value
	tell := func(name, value string, age time.Duration) {
		lines = append(lines, p.setCookie(name, value, age, now, s.tls))
	}
	if v.send && !failed {
		values, age := v.values, p.maxAge(p.permanent)
		if p.sealer == nil {
			values = []string{s.cookieText(p)}
			if age > 0 {
				age = max(min(age, p.rec.Expires.Sub(now)), time.Second)
			}
		}
		for i, value := range values {
			set = append(set, chunkName(p.CookieName, i))
			tell(set[i], value, age)
		}
	} else if !v.drop || failed && !p.expire {
		return
	}
	for n := range p.MaxChunks { // what the browser has, and nothing takes the place of
		if name := chunkName(p.CookieName, n); p.came(n) && !slices.Contains(set, name) {
			tell(name, "", -1)
		}
	}
	p.expire = false
	sent := slices.DeleteFunc(h["Set-Cookie"], func(line string) bool { return slices.Contains(p.lines, line) })
	if sent = append(sent, lines...); len(sent) > 0 {
		h["Set-Cookie"] = sent
	} else {
		delete(h, "Set-Cookie")
	}
	if p.lines = lines; len(lines) > 0 {
		noteSetCookie(h)
	}
}

// came reports whether the request brought the cookie, or its nth chunk.
func (p *part) came(n int) bool {
	if n == 0 {
		return len(p.texts) > 0
	}
	return p.chunks != nil && len(p.chunks[n-1]) > 0
}

// cookieText is the value of a server-side cookie: the id, signed if the config says so.
func (s *Session) cookieText(p *part) string {
	if p.signer == nil {
		return p.id
	}
	text, err := p.signer.sign(p.CookieName, p.id)
	if err != nil { // without a random IV to draw, signing cannot fail
		panic(err)
	}
	return text
}

// report tells the log and the events what became of a save.
func (s *Session) report(v *save) {
	p := v.part
	for _, d := range v.deletes {
		kind := EventDestroy
		if d.err != nil {
			kind = EventError
		}
		s.m.event(s.ctx, p.cookie, kind, d, 0, 0)
	}
	switch {
	case v.touch && v.main.err != nil:
		if !errors.Is(v.main.err, ErrNoRecord) {
			s.m.warn(s.ctx, "sessplus: the idle timeout of a session could not be moved", "cookie", p.CookieName, "error", v.main.err)
			s.m.event(s.ctx, p.cookie, EventError, v.main, 0, 0)
		}
	case v.touch:
		s.m.event(s.ctx, p.cookie, EventTouch, v.main, 0, 0)
	case v.err != nil:
		if !v.fails() {
			s.m.warn(s.ctx, "sessplus: changes of a session were not saved", "cookie", p.CookieName, "error", v.err)
		}
		s.m.event(s.ctx, p.cookie, EventError, &call{key: v.callKey(), err: v.err}, 0, 0)
	case v.written:
		kind, fields := EventSave, v.changed
		if v.newID != "" {
			kind, fields = EventCreate, v.main.record.Fields
		}
		if v.take != nil {
			kind = EventRenew
		}
		s.m.event(s.ctx, p.cookie, kind, v.main, len(fields), size(fields))
	}
}

// callKey is the key of the record that the save was about, "" for none.
func (v *save) callKey() string {
	if v.main == nil {
		return ""
	}
	return v.main.key
}

// Save commits now what the commit would save before the response. It may be called again. Before the headers have gone
// it writes the Set-Cookie headers; afterwards a change that would need one is [ErrHeadersSent], and the rest is saved.
// The error joins those of all cookies, also of Optional backends.
func (s *Session) Save() error {
	fatal, soft := s.commit(s.w.Header(), false)
	return errors.Join(fatal, soft)
}

// finish saves what was changed after the headers, when the handler has returned. Nobody is left to hear of an error but
// the log.
func (s *Session) finish() {
	if fatal, _ := s.commit(s.w.Header(), true); fatal != nil {
		s.m.log.ErrorContext(s.ctx, "sessplus: changes after the response headers were not saved", "error", fatal)
	}
}
