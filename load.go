package sessplus

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"
)

// start makes s the session of a request, with nothing loaded.
func (s *Session) start(m *Manager, w http.ResponseWriter, r *http.Request, outer *Session) {
	s.m, s.w, s.ctx, s.tls, s.outer = m, w, r.Context(), r.TLS != nil, outer
	s.ready.L = &s.mu
	s.parts = make([]part, len(m.cookies))
	for i, c := range m.cookies {
		s.parts[i].cookie = c
	}
	m.readCookies(r, func(at slot, value string) {
		p := &s.parts[at.cookie]
		p.held = true
		if at.chunk == 0 {
			if p.texts == nil {
				p.texts = p.first[:0]
			}
			p.texts = addCandidate(p.texts, value)
			return
		}
		if p.chunks == nil {
			p.chunks = make([][]string, p.MaxChunks-1)
		}
		p.chunks[at.chunk-1] = addCandidate(p.chunks[at.chunk-1], value)
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
		s.ready.Wait()
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
		s.ready.Broadcast()
	}()
	now := time.Now()
	s.unlocked(func() { s.lookUp(parts, now) })
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
			bound = binding(b.id)
		}
		s.unlocked(func() { s.unseal(p, bound, now) })
	}
	panicked = false
}

// lookUp asks the backends for the records of parts: for the first id of each part that has any, then for the next id of
// those that found nothing.
func (s *Session) lookUp(parts []*part, now time.Time) {
	for {
		var calls []*call
		for _, p := range parts {
			for p.sealer == nil && p.rec == nil && p.err == nil && p.next < len(p.texts) {
				text := p.texts[p.next]
				p.next++
				id, older, err := p.parseID(text)
				if err != nil {
					s.m.reject(s.ctx, p, err)
					continue
				}
				p.rewrite = older
				calls = append(calls, &call{part: p, op: opLoad, key: p.key(id), id: id})
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
		if c.err != ErrNoRecord {
			s.m.warn(s.ctx, "sessplus: a record cannot be read, and counts as no session", "cookie", p.CookieName)
		}
		s.m.event(s.ctx, p.cookie, EventMiss, c, 0, 0)
	case c.err != nil:
		p.err = &Error{Cookie: p.CookieName, Op: "load", Err: c.err}
		if p.Optional {
			s.m.warn(s.ctx, "sessplus: a session could not be loaded, and its fields are absent", "cookie", p.CookieName, "error", p.err)
		}
		s.m.event(s.ctx, p.cookie, EventError, c, 0, 0)
	case !p.alive(c.record, now):
		s.m.event(s.ctx, p.cookie, EventMiss, c, 0, 0)
	default:
		p.id = c.id
		p.take(s.m, c.record)
		s.m.event(s.ctx, p.cookie, EventLoad, c, len(c.record.Fields), size(c.record.Fields))
	}
}

// take makes the record that of the part, and keeps what it owns of the fields (SPEC 1.3). What this request has changed
// stays changed.
func (p *part) take(m *Manager, r *Record) {
	mine := p.entries.touched
	if p.rec == nil || p.permanent == p.rec.Permanent {
		p.permanent = r.Permanent
	}
	p.rec, p.found, p.foreign = r, true, nil
	foreign := func(f RawField) bool { return nameProblem(f.Name) != "" || !m.routes.owns(p.index, f.Name) }
	p.entries = entries{stored: r.Fields}
	if slices.ContainsFunc(r.Fields, foreign) {
		p.entries.stored = nil
		for _, f := range r.Fields {
			if foreign(f) {
				p.foreign = append(p.foreign, f.Name)
			} else {
				p.entries.stored = append(p.entries.stored, f)
			}
		}
	}
	for _, e := range mine {
		if e.dirty() {
			p.entries.at(e.name).value = e.value
		}
	}
}

// unseal reads the content of a secure cookie, which must be bound to that session.
func (s *Session) unseal(p *part, bound []byte, now time.Time) {
	for _, text := range p.texts {
		r, older, err := p.cookie.unseal(text, p.chunks, bound, now)
		if err != nil {
			s.m.reject(s.ctx, p, err)
			continue
		}
		p.take(s.m, r)
		p.foreign = nil // they go when the cookie is written again
		p.rewrite = older
		s.m.event(s.ctx, p.cookie, EventLoad, nil, len(r.Fields), size(r.Fields))
		return
	}
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

func (c *cookie) key(id string) string { return recordKey(c.KeyPrefix, c.CookieName, id) }

// size is how many bytes the names and values of fields have.
func size(fields []RawField) int {
	n := 0
	for _, f := range fields {
		n += len(f.Name) + len(f.Value)
	}
	return n
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
	s.used = true
	var calls []*call
	var failed []*part
	for i := range s.parts {
		switch p := &s.parts[i]; {
		case p.state == unloaded || p.sealer != nil:
		case s.use(i).err != nil:
			failed = append(failed, p)
		case p.id != "":
			calls = append(calls, &call{part: p, op: opLoad, key: p.key(p.id)})
		}
	}
	for _, p := range failed {
		p.err = nil
	}
	if len(failed) > 0 {
		s.load(failed)
	}
	s.unlocked(func() { s.run(calls) })
	var errs []error
	for _, p := range failed {
		if p.err != nil {
			errs = append(errs, p.err)
		}
	}
	now := time.Now()
	for _, c := range calls {
		p := c.part
		if p.id == "" || p.key(p.id) != c.key {
			continue // destroyed meanwhile by another goroutine
		}
		switch {
		case errors.Is(c.err, ErrNoRecord) || c.err == nil && !p.alive(c.record, now) || p.gone:
			p.end()
			errs = append(errs, &Error{Cookie: p.CookieName, Op: "load", Err: ErrSessionGone})
		case c.err != nil:
			errs = append(errs, &Error{Cookie: p.CookieName, Op: "load", Err: c.err})
		default:
			p.take(s.m, c.record)
		}
	}
	return errors.Join(errs...)
}

// end notes that the session has ended while this request ran: what it had is absent, and it can save nothing more.
func (p *part) end() {
	p.gone, p.rec, p.foreign, p.renew = true, nil, nil, false
	p.entries = entries{}
}

// warn writes a line to the log. It never gets an id, the value of a cookie or of a field, or the text of a foreign error.
func (m *Manager) warn(ctx context.Context, msg string, attrs ...any) {
	m.log.Log(ctx, slog.LevelWarn, msg, attrs...)
}

// reject notes a cookie of the request that is no session.
func (m *Manager) reject(ctx context.Context, p *part, reason error) {
	level := slog.LevelWarn
	if errors.Is(reason, errExpired) {
		level = slog.LevelDebug // what every visitor's cookie comes to
	}
	m.log.Log(ctx, level, "sessplus: a cookie was rejected", "cookie", p.CookieName, "reason", reason.Error())
	m.event(ctx, p.cookie, EventReject, nil, 0, 0)
}
