package sessplus

import (
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// start makes s the session of a request. It loads nothing yet.
func (s *Session) start(m *Manager, w http.ResponseWriter, r *http.Request) {
	s.m, s.w, s.ctx, s.request, s.tls = m, w, r.Context(), r, m.secure(r)
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
	} else {
		m.readCookies(r, func(at slot, value string) {
			s.parts[at.cookie].bring(candidate{value, at.chunk})
		})
	}
	if len(m.formers)+len(m.formerChunks) > 0 {
		s.bringFormers(r)
	}
}

// loadEager loads what is not Lazy, before the handler runs. It returns the error of a part that is not Optional.
func (s *Session) loadEager() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loadAll(s.m.eager)
	for _, i := range s.m.eager {
		if p := &s.parts[i]; p.err != nil && !p.Optional {
			return p.err
		}
	}
	return nil
}

// use returns part i, loaded. It releases s.mu while it waits.
func (s *Session) use(i int) *part {
	if s.parts[i].state != loaded || s.m.feeds {
		s.useAll([]int{i})
	}
	return &s.parts[i]
}

// useAll makes sure that parts are loaded, concurrently and each once: if several goroutines need a part, they wait for
// one load. A cookie that is bound to a session can only be opened after that is loaded. useAll releases s.mu while it
// waits.
func (s *Session) useAll(indexes []int) {
	if !s.m.feeds {
		s.loadAll(indexes)
		return
	}
	for n := -1; ; {
		// Each load looks at all parts, and what another goroutine is loading nobody else may look at.
		s.await(s.m.every, func(p *part) bool { return p.state == loading })
		if indexes = s.feeders(indexes); n == len(indexes) {
			return
		}
		n = len(indexes) // a load may show that others are needed
		s.loadAll(indexes)
	}
}

// loadAll is useAll without the cookies that may hold fields of these.
func (s *Session) loadAll(indexes []int) {
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

// await waits until no part is being loaded by another goroutine.
func (s *Session) await(indexes []int, waits func(p *part) bool) {
	for slices.ContainsFunc(indexes, func(i int) bool { return waits(&s.parts[i]) }) {
		if s.ready == nil {
			s.ready = make(chan struct{})
		}
		ready := s.ready
		s.unlocked(func() { <-ready })
	}
}

// unlocked calls f with s.mu released. It acquires s.mu again even if f panics.
func (s *Session) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// load loads parts, with s.mu released in the meantime. A part that cannot be loaded gets an err.
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
		s.unlocked(func() {
			first, others := s.sourcesFirst(parts)
			s.lookUp(first, now)
			s.lookUp(others, now)
			for _, p := range parts {
				if p.sealer == nil {
					s.takeOverFormers(p, now)
				}
			}
		})
		s.spread(false, now)
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
		s.unlocked(func() {
			s.unseal(p, bound, now)
			s.takeOverFormers(p, now)
		})
	}
	s.spread(false, now)
	s.spread(true, now)
	if s.m.adopting {
		s.lookAgain()
		s.adoptFields()
	}
	for _, p := range parts {
		if p.crowded && p.rec == nil && p.err == nil {
			p.gone, p.replaced = true, true // one that was not tried may be the session: do not overwrite it
			s.warn("sessplus: too many cookies of one name came, and no session is among those that were tried", "cookie", p.CookieName)
		}
	}
	panicked = false
}

// lookUp loads the records of parts: first that of each part's first id, then, for those that found nothing, that of
// the next one, because a stray cookie may be in front of the good one.
func (s *Session) lookUp(parts []*part, now time.Time) {
	for {
		var calls []*call
		for _, p := range parts {
			for p.sealer == nil && p.rec == nil && p.err == nil && int(p.next) < len(p.texts) {
				text := p.texts[p.next].text
				p.next++
				id, older, err := p.parseID(text)
				if err != nil {
					if !p.stray(p.CookieName, text, err) {
						s.reject(p, err)
					}
					continue
				}
				p.resent() // for the previous cookie, which found nothing
				p.resend(older)
				name := p.nameOf(id)
				look := new(struct { // one allocation
					call
					list [1]*call
				})
				look.call = call{part: p, op: opLoad, sessionName: name}
				if calls == nil {
					calls = look.list[:0]
				}
				calls = append(calls, &look.call)
				break
			}
		}
		if len(calls) == 0 {
			return
		}
		s.run(calls)
		for _, c := range calls {
			p := c.part
			if p.answered(s, c, now); c.err == ErrNoRecord {
				p.stray(p.CookieName, p.texts[p.next-1].text, nil) // ids of a former library may look like ours
			}
		}
	}
}

// answered takes over the result of a load.
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
		if !c.record.imported() { // where they have waited for their owner
			s.tellForeign(p.cookie, p.foreign)
		}
	}
	s.loaded(c, now)
}

// moved takes over the name under which a call has found the session. If it was rotated, the browser is sent the new
// id.
func (p *part) moved(c *call) {
	p.name = c.sessionName
	p.resend(c.moved)
}

// rename takes over the name that the session got when another request rotated it.
func (p *part) rename(name sessionName, now time.Time) {
	p.rec.Origin = p.origin()
	p.name, p.rec.Rotated = name, now
}

// binding identifies the part's session in the content of cookies that are bound to it. It survives rotations.
func (p *part) binding() []byte { return p.rec.binding(p.name.id) }

// binding is that of a record whose id is now id.
func (r *Record) binding(id string) []byte {
	text, _, _ := strings.Cut(r.Origin, ".")
	if b, err := hex.DecodeString(text); err == nil && len(b) > 0 {
		return b
	}
	return binding(id)
}

// origin returns what the record of a rotated session retains of its first id: the binding, and the tail of the first
// key.
func (p *part) origin() string {
	if p.rec.imported() {
		return origin(p.binding(), p.rec.first(p.name.key), p.rec.until())
	}
	return hex.EncodeToString(p.binding()) + "." + p.rec.first(p.name.key)
}

// take makes r the record of the part, and drops the fields that the cookie does not own (SPEC 1.3). Changes of this
// request remain.
func (p *part) take(m *Manager, r *Record) {
	mine := p.entries.touched
	if p.rec == nil || p.permanent == p.rec.Permanent {
		p.permanent = r.Permanent
	}
	p.rec, p.found, p.foreign, p.leaving, p.doubt = r, true, nil, nil, false
	p.entries = entries{stored: r.Fields}
	foreign := func(f RawField) bool {
		return !m.routes.owns(p.index, f.Name) || nameProblem(f.Name) != ""
	}
	if slices.ContainsFunc(r.Fields, foreign) {
		p.entries.stored = slices.DeleteFunc(slices.Clone(r.Fields), foreign) // r keeps what is stored
		for _, f := range r.Fields {
			switch {
			case !foreign(f), m.adopting && isNote(f.Name):
			case m.adopting && r.staleCopy(f):
				p.expelled = append(p.expelled, f.Name, copiesField)
			case m.adopting && nameProblem(f.Name) == "" && len(m.adopters(p.index, f.Name)) > 0:
				p.leaving = append(p.leaving, f)
			default:
				p.foreign = append(p.foreign, f.Name)
			}
		}
	}
	for _, e := range mine {
		if e.dirty() && !e.moved { // adoptFields moves it again
			p.entries.at(e.name).value = e.value
		}
	}
}

// unseal reads the content of a secure cookie, which must be bound to that session. If several came, the one written
// last counts: a deployment has changed Domain or Path, and the others are older.
func (s *Session) unseal(p *part, bound []byte, now time.Time) {
	var last *Record
	for i, first := range p.texts {
		if first.chunk > 0 {
			continue
		}
		r, older, err := p.cookie.unseal(first.text, p.texts, bound, now)
		if err != nil {
			if !p.stray(p.CookieName, first.text, err) {
				s.reject(p, err)
			}
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
	if p.take(s.m, last); last.legacy != nil && p.imports != nil {
		p.resend(last.legacy.overdue(now))
	}
	s.tellForeign(p.cookie, p.foreign)
	p.foreign = nil // they are gone once the cookie is rewritten
	s.event(p.cookie, EventLoad, nil, last.Fields)
}

// parseID returns the id in the text of a cookie, and whether an older key has signed it. A malformed id never reaches
// a backend.
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

// Reload loads again the sessions that this request has loaded, for long-running handlers. Unsaved changes remain on
// top of what it loads. The error matches [ErrSessionGone] if a session has ended in the meantime; its fields are then
// absent.
func (s *Session) Reload() error {
	s.askAgain()
	s.saving.Lock()
	defer s.saving.Unlock()
	return s.reload()
}

// reload is Reload while no commit is under way.
func (s *Session) reload() error {
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
	s.adoptFields()
	return errors.Join(errs...)
}

// end notes that the session has ended while this request ran: its fields are absent, and it can save nothing more.
func (p *part) end() {
	p.gone, p.replaced, p.rec, p.foreign, p.renew = true, true, nil, nil, false
	p.entries = entries{}
}
