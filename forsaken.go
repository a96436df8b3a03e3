package sessplus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// How the old session ends where it was: once this library has it, and when the program ends it here.

// abandon notes that the old sessions whose cookies the request has brought must end.
func (p *part) abandon() {
	if p.imports == nil {
		return
	}
	if p.rec != nil && p.rec.legacy != nil {
		p.stray(p.rec.legacy.old.cookie, p.rec.legacy.old.value, errMalformed)
	}
	for _, t := range p.texts {
		if id, _, err := p.parseID(t.text); p.sealer != nil || err != nil || id != p.name.id {
			p.stray(p.CookieName, t.text, errMalformed)
		}
	}
	if p.arrivals != nil {
		p.forsaken, p.strays, p.past, p.brought = append(p.forsaken, p.strays...), nil, nil, nil
	}
}

// forsakes reports whether old sessions must end.
func (p *part) forsakes() bool { return p.arrivals != nil && len(p.forsaken) > 0 }

// takeForsaken returns the old sessions that must end, for the save that ends them. Those of a Destroy while that is
// under way are for the next commit.
func (p *part) takeForsaken() (list []stray) {
	if p.arrivals != nil {
		list, p.forsaken = p.forsaken, nil
	}
	return list
}

// keepForsaken leaves them to the next commit, because this one has failed.
func (v *save) keepForsaken() {
	if len(v.forsaken) > 0 {
		v.part.forsaken = append(v.forsaken, v.part.forsaken...)
	}
}

// forsake ends old sessions that the program has destroyed: both what they became and the originals.
func (s *Session) forsake(v *save) {
	p := v.part
	for i := range v.forsaken {
		switch err := s.forsakeOne(p, &v.forsaken[i]); {
		case err == nil || v.err != nil:
		case v.epoch == 0: // it lives on here
			s.notForgotten(p, err)
		default:
			v.err, v.undead = &Error{Cookie: p.CookieName, Op: "delete", Err: fmt.Errorf("%w: %w", ErrUnavailable, err)}, true
		}
	}
}

func (s *Session) forsakeOne(p *part, v *stray) error {
	if err := s.endMade(p, v); err != nil {
		return err
	}
	before := cmp.Or(v.id, v.value)
	found, _, err := s.ask(p, v)
	if v.id != "" && v.id != before {
		if err := s.endMade(p, v); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, ErrNoRecord):
		return nil
	case err != nil:
		return err
	}
	if p.sealer == nil {
		if err := s.mark(p, p, v, found.Expires); err != nil {
			return err
		}
	}
	if found.Forget == nil {
		return nil
	}
	return s.letForget(p, found)
}

// endMade ends the record that was made of what v stands for.
func (s *Session) endMade(p *part, v *stray) error {
	if p.sealer != nil {
		return nil
	}
	var ends []*call
	for _, name := range p.imports.names(p.cookie, forSession, v) {
		ends = append(ends, p.endCall(name.key))
	}
	s.run(ends)
	for _, c := range ends {
		if c.err != nil && !errors.Is(c.err, ErrNoRecord) {
			return c.err
		}
	}
	return nil
}

// letForget lets an importer remove a session from where it was.
func (s *Session) letForget(p *part, found *Imported) error {
	var failed error
	if err := s.outside(p, func(ctx context.Context) { failed = found.Forget(ctx) }); err != nil {
		return err
	}
	return failed
}

func (s *Session) notForgotten(p *part, err error) {
	s.warn("sessplus: a session was taken over, but could not be removed where it was before", "cookie", p.CookieName, "error", err)
}

// settle makes the commit remove the old session that a secure cookie still names, if it is time, or the session is
// renewed.
func (p *part) settle(now time.Time) {
	if p.imports != nil && p.rec != nil && p.rec.legacy != nil && (p.renew || p.rec.legacy.overdue(now)) && p.rec.legacy.old.value != "" {
		a := p.meet()
		a.forsaken = append(a.forsaken, p.rec.legacy.old)
	}
}

// legacy is what the content of a secure cookie says about the session that it was imported from. It is stored as a
// field with an empty name, which no other field has: "UNTIL AT COOKIE VALUE", of which the last two may be missing.
//
// Concurrent requests with the old cookie cannot know that one of them has imported the session. So the old session
// stays for EndGrace, and the content says what to remove after that, or when it ends.
type legacy struct {
	until time.Time // when it ends at the latest; zero: as a new one
	at    time.Time // when it was imported
	old   stray     // the former cookie, if its session must still be removed
}

// outlive adds the legacy that must be kept to the fields of a secure cookie.
func (p *part) outlive(fields []RawField, now time.Time) []RawField {
	l := p.legacyAfter(now)
	if l == nil {
		return fields
	}
	text := strconv.FormatInt(max(l.until.UnixMilli(), 0), 10) + " " + strconv.FormatInt(l.at.UnixMilli(), 10)
	if l.old.value != "" {
		text += " " + l.old.cookie + " " + l.old.value
	}
	return append(fields, RawField{"", []byte(text)})
}

// legacyAfter is the legacy that a save at that time leaves in a secure cookie: none if the session is renewed.
func (p *part) legacyAfter(now time.Time) *legacy {
	if p.rec == nil || p.rec.legacy == nil || p.renew {
		return nil
	}
	l := *p.rec.legacy
	if p.imports == nil || l.overdue(now) {
		l.old = stray{}
	}
	return &l
}

// overdue reports whether it is time to remove the old session.
func (l *legacy) overdue(now time.Time) bool { return l.old.value != "" && now.Sub(l.at) >= EndGrace }

// inherit is the inverse of outlive.
func (r *Record) inherit() {
	last := len(r.Fields) - 1
	if last < 0 || r.Fields[last].Name != "" {
		return
	}
	words := strings.SplitN(string(r.Fields[last].Value), " ", 4)
	r.Fields = r.Fields[:last]
	l := &legacy{}
	if until, err := strconv.ParseInt(words[0], 10, 64); err == nil && until > 0 {
		l.until = time.UnixMilli(until)
	}
	if len(words) > 1 {
		at, _ := strconv.ParseInt(words[1], 10, 64)
		l.at = time.UnixMilli(at)
	}
	if len(words) == 4 {
		l.old = stray{cookie: words[2], value: words[3], why: errMalformed}
	}
	r.end(l)
}

// end makes the record of a secure cookie end when the old session would have.
func (r *Record) end(l *legacy) {
	if r.legacy = l; l != nil && !l.until.IsZero() && l.until.Before(r.Expires) {
		r.Expires = l.until
	}
}
