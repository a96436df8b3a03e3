package sessplus

import (
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// start makes s the session of a request, with nothing loaded.
func (s *Session) start(m *Manager, w http.ResponseWriter, r *http.Request) {
	s.m, s.w, s.ctx, s.tls = m, w, r.Context(), m.secure(r)
	if s.uri = r.RequestURI; s.uri == "" { // not from a server
		s.uri = r.URL.Path
	}
	s.open = r.Method == http.MethodGet || r.Method == http.MethodHead // others are not kept
	if m.indexes {
		s.agent = r.UserAgent()
	}
	for i, c := range m.cookies {
		s.parts[i].cookie = c
		if c.device != nil {
			s.parts[i].proof = &proof{skipped: r.Header.Get("Secure-Session-Skipped")}
		}
	}
	if m.single != nil {
		s.unpack(r, time.Now())
		return
	}
	m.readCookies(r, func(at slot, value string) {
		s.parts[at.cookie].bring(candidate{value, at.chunk})
	})
}

// loadEager loads what is not Lazy, before the handler runs. The error is that of a backend whose fields the request
// cannot do without.
func (s *Session) loadEager() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.useAll(s.m.eager)
	for _, i := range s.m.eager {
		if p := &s.parts[i]; p.err != nil && !p.Optional {
			return p.err
		}
	}
	return nil
}

// use returns part i, loaded. It lets go of s.mu while it waits.
func (s *Session) use(i int) *part {
	if s.parts[i].state != loaded {
		s.useAll([]int{i})
	}
	return &s.parts[i]
}

// useAll makes sure that parts are loaded, all side by side and each once: several goroutines wait for one load. A cookie
// that is bound to a session needs that first. It lets go of s.mu while it waits.
func (s *Session) useAll(indexes []int) {
	s.await(indexes, func(p *part) bool { return p.boundTo != nil && s.parts[p.boundTo.index].state == loading })
	due := make([]*part, 0, 8)
	add := func(p *part) {
		if p.state == unloaded && !slices.Contains(due, p) {
			due = append(due, p)
		}
	}
	for _, i := range indexes {
		p := &s.parts[i]
		if p.boundTo != nil {
			add(&s.parts[p.boundTo.index])
		}
		add(p)
	}
	if len(due) > 0 {
		s.load(due)
	}
	s.await(indexes, func(p *part) bool { return p.state == loading })
}

// await waits while another goroutine loads what one of the parts is waiting for.
func (s *Session) await(indexes []int, waits func(p *part) bool) {
	for slices.ContainsFunc(indexes, func(i int) bool { return waits(&s.parts[i]) }) {
		if s.ready == nil {
			s.ready = make(chan struct{})
		}
		ready := s.ready
		s.unlocked(func() { <-ready })
	}
}

// unlocked calls f without s.mu, and has it again also when f panics.
func (s *Session) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// load loads parts, and lets go of s.mu meanwhile. A part that cannot be loaded gets its err.
func (s *Session) load(parts []*part) {
	for _, p := range parts {
		p.state, p.next = loading, 0
	}
	panicked := true
	defer func() {
		for _, p := range parts {
			p.state = loaded
			if panicked {
				p.err = &Error{Cookie: p.CookieName, Op: "load", Err: errors.New("it panicked")}
			}
			if p.err != nil {
				s.note(p.err)
			}
		}
		if s.ready != nil {
			close(s.ready)
			s.ready = nil
		}
	}()
	for _, p := range parts {
		for ; p.refused > 0; p.refused-- {
			s.unlocked(func() { s.reject(p, errMalformed) })
		}
		for ; p.split > 0; p.split-- {
			s.unlocked(func() { s.reject(p, errSplit) })
		}
	}
	now := time.Now()
	if slices.ContainsFunc(parts, func(p *part) bool { return p.sealer == nil }) {
		s.unlocked(func() { s.lookUp(parts, now) })
	}
	for _, p := range parts {
		if p.sealer == nil {
			continue
		}
		var bound []byte
		if p.boundTo != nil {
			b := &s.parts[p.boundTo.index]
			if b.rec == nil {
				continue // void without that session, whatever it says
			}
			bound = b.binding()
		}
		s.unlocked(func() { s.unseal(p, bound, now) })
	}
	for _, p := range parts {
		if p.crowded && p.rec == nil && p.err == nil {
			p.gone, p.replaced = true, true // one that was not tried may be the session, and is not to be overwritten
			s.warn("sessplus: too many cookies of one name came, and no session is among those that were tried", "cookie", p.CookieName)
		}
	}
	panicked = false
}

// lookUp asks the backends for the records of parts: for the first id of each part that has any, then for the next id of
// those that found nothing.
func (s *Session) lookUp(parts []*part, now time.Time) {
	for {
		var calls []*call
		for _, p := range parts {
			for p.sealer == nil && p.rec == nil && p.err == nil && int(p.next) < len(p.texts) {
				text := p.texts[p.next].text
				p.next++
				id, older, err := p.parseID(text)
				if err != nil {
					s.reject(p, err)
					continue
				}
				p.resent() // by the cookie before, which found nothing
				p.resend(older)
				name := p.nameOf(id)
				calls = append(calls, &call{part: p, op: opLoad, sessionName: name})
				break
			}
		}
		if len(calls) == 0 {
			return
		}
		s.run(calls)
		for _, c := range calls {
			c.part.answered(s, c, now)
		}
	}
}

// answered takes the answer of a load.
func (p *part) answered(s *Session, c *call, now time.Time) {
	switch {
	case errors.Is(c.err, ErrNoRecord):
		if endedBy(c.err) != nil {
			p.gone, p.replaced = true, nextKey(c.err) != ""
		} else if c.err != ErrNoRecord {
			s.warn("sessplus: a record cannot be read, and counts as no session", "cookie", p.CookieName, "error", c.err)
		}
	case c.err != nil:
		p.err = &Error{Cookie: p.CookieName, Op: "load", Err: c.err}
		if p.Optional {
			s.warn("sessplus: a session could not be loaded, and its fields are absent", "cookie", p.CookieName, "error", p.err)
		}
	case !p.alive(c.record, now):
	case !s.admits(c, now):
		p.gone, p.replaced = true, true
		return
	default:
		p.gone = false
		p.moved(c)
		p.take(s.m, c.record)
		s.tellForeign(p.cookie, p.foreign)
	}
	s.loaded(c, now)
}

// moved takes the name under which a call has found the session. If it has been rotated, the browser is to hear of it.
func (p *part) moved(c *call) {
	p.name = c.sessionName
	p.resend(c.moved)
}

// rename takes the name that the session has got by a rotation of another request.
func (p *part) rename(name sessionName, now time.Time) {
	p.rec.Origin = p.origin()
	p.name, p.rec.Rotated = name, now
}

// binding names the part's session inside the content of a cookie that is bound to it. A rotation keeps it.
func (p *part) binding() []byte { return p.rec.binding(p.name.id) }

// binding is that of a record whose id is now id.
func (r *Record) binding(id string) []byte {
	text, _, _ := strings.Cut(r.Origin, ".")
	if b, err := hex.DecodeString(text); err == nil && len(b) > 0 {
		return b
	}
	return binding(id)
}

// origin is what a record says of its session, once that is rotated: its binding, and the tail of its first key.
func (p *part) origin() string {
	return hex.EncodeToString(p.binding()) + "." + p.rec.first(p.name.key)
}

// take makes the record that of the part, and keeps what it owns of the fields (SPEC 1.3). What this request has changed
// stays changed.
func (p *part) take(m *Manager, r *Record) {
	mine := p.entries.touched
	if p.rec == nil || p.permanent == p.rec.Permanent {
		p.permanent = r.Permanent
	}
	p.rec, p.found, p.foreign, p.doubt = r, true, nil, false
	p.entries = entries{stored: r.Fields}
	foreign := func(f RawField) bool { return !m.routes.owns(p.index, f.Name) || nameProblem(f.Name) != "" }
	if slices.ContainsFunc(r.Fields, foreign) {
		p.entries.stored = slices.DeleteFunc(slices.Clone(r.Fields), foreign) // r keeps what is stored
		for _, f := range r.Fields {
			if foreign(f) {
				p.foreign = append(p.foreign, f.Name)
			}
		}
	}
	for _, e := range mine {
		if e.dirty() {
			p.entries.at(e.name).value = e.value
		}
	}
}

// unseal reads the content of a secure cookie, which must be bound to that session. Of several the one written last counts:
// the others are from before a change of Domain or Path, or of what the visitor did since.
func (s *Session) unseal(p *part, bound []byte, now time.Time) {
	var last *Record
	for i, first := range p.texts {
		if first.chunk > 0 {
			continue
		}
		r, older, err := p.cookie.unseal(first.text, p.texts, bound, now)
		if err != nil {
			s.reject(p, err)
			continue
		}
		if last == nil || !r.Saved.Before(last.Saved) {
			last, p.chosen = r, uint8(i)
			p.resent()
			p.resend(older)
		}
	}
	if last == nil {
		return
	}
	p.take(s.m, last)
	s.tellForeign(p.cookie, p.foreign)
	p.foreign = nil // they go when the cookie is written again
	s.event(p.cookie, EventLoad, nil, last.Fields)
}

// parseID gives the id in the text of a cookie, and whether an older key signed it.
func (c *cookie) parseID(text string) (id string, older bool, err error) {
	id = text
	if c.signer != nil {
		if id, older, err = c.signer.verify(c.CookieName, text); err != nil {
			return "", false, err
		}
	}
	if !validID(id) {
		return "", false, errMalformed
	}
	return id, older, nil
}

// Reload loads again the sessions that this request has loaded, for handlers that run long. Changes of this request that
// were not saved yet stay, on top of what was loaded. The error matches [ErrSessionGone] when a session has ended
// meanwhile; its fields are then absent.
func (s *Session) Reload() error {
	s.askAgain()
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	var calls []*call
	var failed []*part
	for i := range s.parts {
		switch p := &s.parts[i]; {
		case p.state == unloaded || p.sealer != nil:
		case s.use(i).err != nil:
			failed = append(failed, p)
		case p.name.key != "":
			p.used = true
			calls = append(calls, &call{part: p, op: opLoad, sessionName: p.name, asked: p.name.key})
		}
	}
	for _, p := range failed {
		p.err = nil
	}
	if len(failed) > 0 {
		s.load(failed)
	}
	s.unlocked(func() {
		s.run(calls)
		for _, c := range calls {
			s.loaded(c, time.Now())
		}
	})
	var errs []error
	for _, p := range failed {
		if p.err != nil {
			errs = append(errs, p.err)
		}
	}
	now := time.Now()
	for _, c := range calls {
		p := c.part
		if p.name.key != c.asked {
			continue // destroyed meanwhile by another goroutine
		}
		switch {
		case errors.Is(c.err, ErrNoRecord) || c.err == nil && !p.alive(c.record, now) || p.gone:
			p.end()
			errs = append(errs, &Error{Cookie: p.CookieName, Op: "load", Err: ErrSessionGone})
		case c.err != nil:
			errs = append(errs, &Error{Cookie: p.CookieName, Op: "load", Err: c.err})
		default:
			p.moved(c)
			p.take(s.m, c.record)
			if foreign := p.foreign; len(foreign) > 0 {
				s.unlocked(func() { s.tellForeign(p.cookie, foreign) }) // a log may be slow
			}
		}
	}
	return errors.Join(errs...)
}

// end notes that the session has ended while this request ran: what it had is absent, and it can save nothing more.
func (p *part) end() {
	p.gone, p.replaced, p.rec, p.foreign, p.renew = true, true, nil, nil, false
	p.entries = entries{}
}
