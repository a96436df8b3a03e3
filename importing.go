package sessplus

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How an old session becomes one of ours. Machines need not coordinate: each derives the same id from the old cookie
// with a key. So all of them look for the same record, and one of them creates it.
//
//	load the record of the derived id: another request was here before
//	else ask the importers, unless the mark says that the session was imported and has ended since
//	else load it again: another request has imported the session, and its old store has forgotten it
//	create it, then the mark; if there is one, load it
//
// The mark is a record of its own, under another derived id. It lives as long as the old session would have, so that an
// old cookie cannot bring back a session that has ended here, even if the old one cannot be removed.

// A stray is a value that came under the name of a cookie but names no session of ours.
type stray struct {
	cookie, value string
	id            string // of the session of this library that it names, which may have other values; "": unknown
	why           error  // why it cannot be one of ours; nil: it might be
}

// arrivals is what a request has of old sessions, for one cookie.
type arrivals struct {
	strays   []stray
	past     *stray      // the one that the session was, or is, the former cookie of
	brought  []RawField  // fields of the old session, for secure cookies
	spread   []int       // the cookies that have received their fields of it
	old      []string    // the names of other cookies that came, to be dropped when the new one is set
	forsaken []stray     // those whose sessions the program has ended
	chunks   []candidate // of former secure cookies
	took     bool        // this cookie has received fields of an old session, and must be sent
}

// imports is what a cookie with Config.Import knows.
type imports struct {
	sources []source
	keys    [][]byte // for deriving ids, newest first
	loose   *looseCalls
}

// A source is an importer, and the cookie that it reads.
type source struct {
	Importer
	cookie string
}

func newImports(c *Config, keys []KeyPair) *imports {
	if len(c.Import) == 0 {
		return nil
	}
	m := &imports{keys: deriveKeys(keys, "import"), loose: newLooseCalls()}
	for _, i := range c.Import {
		m.sources = append(m.sources, source{i, readsCookie(i, c.CookieName)})
	}
	return m
}

// bind gives the importers of this library's own sessions what they share with m.
func (m *imports) bind(manager *Manager, keys []KeyPair) {
	if m == nil {
		return
	}
	for i, s := range m.sources {
		if f, ok := s.Importer.(*former); ok {
			m.sources[i].Importer = f.bind(manager, keys)
		}
	}
}

// What ids are derived for.
const (
	forSession = "session"
	forMark    = "mark"
)

// names are the possible names of the session that v stands for, or of its mark; a new one gets the first.
func (m *imports) names(c *cookie, purpose string, v *stray) []sessionName {
	list := make([]sessionName, len(m.keys))
	for i, key := range m.keys {
		h := hmac.New(sha256.New, key)
		for _, text := range []string{purpose, c.CookieName, v.cookie} { // none of them has a NUL
			io.WriteString(h, text+"\x00")
		}
		io.WriteString(h, cmp.Or(v.id, v.value))
		list[i] = c.nameOf(encodeID([idBytes]byte(h.Sum(nil))))
	}
	return list
}

// formers finds the cookies with an importer that reads another cookie, or whose own is part of a single cookie.
func formers(cookies []*cookie) map[string][]int {
	m := make(map[string][]int)
	for i, c := range cookies {
		if c.imports == nil {
			continue
		}
		for _, s := range c.imports.sources {
			if (s.cookie != c.CookieName || c.packed) && !slices.Contains(m[s.cookie], i) {
				m[s.cookie] = append(m[s.cookie], i)
			}
		}
	}
	return m
}

// bringFormers notes the cookies that came under names which importers read, other than those of the configs.
func (s *Session) bringFormers(r *http.Request) {
	eachCookie(r, func(name, value string) {
		for _, at := range s.m.formerChunks[name] {
			p := &s.parts[at.cookie]
			p.meet().chunks = append(p.chunks, candidate{value, at.chunk})
			if _, ours := s.m.names[name]; !ours {
				p.old = append(p.old, name)
			}
		}
		for _, i := range s.m.formers[name] {
			p := &s.parts[i]
			if _, ours := s.m.names[name]; p.stray(name, value, errMalformed) && !ours && !slices.Contains(p.old, name) {
				p.old = append(p.old, name)
			}
		}
	})
}

// stray notes a value that names no session of ours, if there are importers to ask about it. It reports whether it did.
func (p *part) stray(cookie, value string, why error) bool {
	if p.imports == nil || value == "" || len(value) > maxCookieBytes {
		return false
	}
	p.meet()
	same := func(v stray) bool { return v.cookie == cookie && v.value == value }
	if slices.ContainsFunc(p.strays, same) {
		return false
	}
	if len(p.strays) >= 2*maxCandidates {
		p.crowded = true
		return false
	}
	p.strays = append(p.strays, stray{cookie: cookie, value: value, why: why})
	return true
}

// comes reports whether the request has something that may be an old session of the cookie.
func (p *part) comes() bool {
	return p.imports != nil && (len(p.texts) > 0 || p.arrivals != nil && len(p.strays) > 0)
}

// was reports whether the session was found by an old cookie.
func (p *part) was() bool { return p.arrivals != nil && p.past != nil }

// resends reports whether this request must send the cookie again: because the program has used it, or because the
// browser still has the old one.
func (p *part) resends() bool { return p.due == tellSet && (p.used || p.taken() || p.movedOut) }

// taken reports whether this request has imported fields of an old session into this cookie.
func (p *part) taken() bool { return p.arrivals != nil && p.took }

// leaves reports whether the browser must drop the former cookie, because all fields of its session belong to other
// cookies.
func (p *part) leaves(filled bool) bool {
	return !filled && p.due == tellSet && (p.movedOut || p.taken() && len(p.brought) > 0)
}

// takeOverFormers looks up what the strays of a part stand for, until one of them is a session.
func (s *Session) takeOverFormers(p *part, now time.Time) {
	if p.arrivals == nil {
		return
	}
	for i := range p.strays {
		v := &p.strays[i]
		if p.rec == nil && p.err == nil && !p.gone {
			if s.takeOverFormer(p, v, now); p.rec != nil {
				p.past = v
				p.arrive()
			}
			if p.rec != nil || p.err != nil || p.gone {
				continue
			}
		}
		if v.why != nil && p.err == nil {
			s.reject(p, v.why)
		}
	}
}

// arrive notes that the cookie must be sent.
func (p *part) arrive() {
	p.meet().took = true
	p.resend(true)
}

// meet returns the part's arrivals, for modification.
func (p *part) meet() *arrivals {
	if p.arrivals == nil {
		p.arrivals = new(arrivals)
	}
	return p.arrivals
}

// takeOverFormer makes the session that v stands for, if any, that of p.
func (s *Session) takeOverFormer(p *part, v *stray, now time.Time) {
	if p.sealer != nil {
		s.importFor(p, v)
		return
	}
	found, marked := s.former(p, p, v)
	if found == nil && !marked && s.importFor(p, v) {
		return
	}
	if found == nil && p.err == nil {
		found, marked = s.former(p, p, v)
	}
	if found == nil || p.err != nil {
		return
	}
	p.answered(s, found, now)
	if p.rec == nil {
		return
	}
	if p.brought = p.rec.Fields; !marked { // whoever has made it has not come so far
		if err := s.mark(p, p, v, p.rec.until()); err != nil {
			p.content = content{}
			s.importFailed(p, nil, err)
		}
	}
}

// former asks the backend of p for the record of the session that v stands for, and for the mark. found is nil if there
// is no record, not even one that has just ended.
func (s *Session) former(p, from *part, v *stray) (found *call, marked bool) {
	sessions, marks := from.imports.names(p.cookie, forSession, v), from.imports.names(p.cookie, forMark, v)
	var calls []*call
	for _, name := range slices.Concat(sessions, marks) {
		calls = append(calls, &call{part: p, op: opLoad, sessionName: name})
	}
	s.run(calls)
	for i, c := range calls {
		switch isMark := i >= len(sessions); {
		case isMark && c.err == nil:
			marked = true
		case isMark && errors.Is(c.err, ErrNoRecord), c.err == ErrNoRecord:
		case found == nil || found.err != nil && c.err == nil:
			found = c
		}
	}
	return found, marked
}

// importFor asks the importers for the session that v stands for, and gives its fields to p and the other cookies that
// own them. It reports whether it did.
func (s *Session) importFor(p *part, v *stray) bool {
	found, made, err := s.ask(p, v)
	now := wallNow()
	switch {
	case errors.Is(err, ErrNoRecord):
		if v.why != nil {
			v.why = &notImported{v.why, err}
		}
		return false
	case err != nil:
		s.importFailed(p, made, err)
		return false
	case !found.Expires.IsZero() && !found.Expires.After(now):
		return false
	}
	routed := s.route(p, found)
	if len(routed) == 0 {
		return false
	}
	switch err := s.establish(p, v, found, routed, made, now); {
	case errors.Is(err, ErrRecordExists): // another request was faster
		return false
	case err != nil:
		s.importFailed(p, made, err)
		return false
	}
	switch {
	case found.Forget == nil:
	case p.sealer != nil && (p.sealer.encrypts || !p.ScriptReadable):
		p.rec.legacy.old = stray{cookie: v.cookie, value: v.value, why: errMalformed}
	default:
		if err := s.letForget(p, found); err != nil {
			s.notForgotten(p, err)
		}
	}
	return true
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

// outside calls f, which calls an importer. All calls of importers by a request share one Timeout. What has not
// returned by then is abandoned.
func (s *Session) outside(p *part, f func(ctx context.Context)) error {
	s.mu.Lock()
	left := s.m.timeout - time.Duration(s.spent)*time.Microsecond
	s.mu.Unlock()
	if left <= 0 {
		return context.DeadlineExceeded
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), left)
	defer cancel()
	err := p.imports.loose.within(ctx, func() { f(ctx) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent += uint32(min(time.Since(start).Microseconds(), math.MaxUint32-int64(s.spent)))
	return err
}

// ask asks the importers in turn. The call has the time that it took, for events.
func (s *Session) ask(p *part, v *stray) (found *Imported, made *call, err error) {
	start := time.Now()
	err = ErrNoRecord
	for _, i := range p.imports.sources {
		if i.cookie == v.cookie && errors.Is(err, ErrNoRecord) {
			found, err = s.askOne(p, i, v)
		}
	}
	return found, &call{part: p, began: start.UnixNano(), took: time.Since(start)}, err
}

// askOne asks one importer. It completes v: with the id of the session, and with its newest value.
func (s *Session) askOne(p *part, i source, v *stray) (*Imported, error) {
	var found *Imported
	var same stray
	var failed error
	cookie, value := v.cookie, v.value
	texts := append([]candidate{{value, 0}}, p.chunks...)
	err := s.outside(p, func(ctx context.Context) {
		if f, ok := i.Importer.(*former); ok {
			found, same, failed = f.find(ctx, texts)
		} else {
			found, failed = i.Import(ctx, cookie, value)
		}
	})
	if err != nil { // it may not have returned yet
		return nil, err
	}
	v.id, v.value = cmp.Or(same.id, v.id), cmp.Or(same.value, v.value)
	if failed == nil && found == nil {
		return nil, errors.New("the importer returned neither a session nor an error")
	}
	return found, failed
}

// importFailed notes that it is unknown what a stray stands for. That logs nobody out.
func (s *Session) importFailed(p *part, made *call, err error) {
	if !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.err = &Error{Cookie: p.CookieName, Op: "import", Err: err}
	s.failed(p.cookie, EventImport, made, p.err)
	if p.Optional {
		s.warn("sessplus: a session could not be loaded, and its fields are absent", "cookie", p.CookieName, "error", p.err)
	}
}

// notImported is why a cookie is rejected whose session no importer knows.
type notImported struct{ form, importer error }

func (e *notImported) Error() string { return e.form.Error() + "; " + e.importer.Error() }
func (e *notImported) Unwrap() error { return e.form }

// route encodes the fields of an imported session, by the index of the cookie that owns them. What nobody owns, or
// cannot be read or encoded, is dropped, and named in the log once.
func (s *Session) route(p *part, found *Imported) map[int][]RawField {
	routed := make(map[int][]RawField)
	reasons := make(map[string]string)
	for name, value := range found.Fields {
		data, err := s.encodeImported(name, value)
		if err != nil {
			reasons[name] = quote(name) + ": " + reasonOf(err)
			continue
		}
		for _, i := range s.m.routes.owners(name) {
			routed[i] = append(routed[i], RawField{name, data})
		}
	}
	if lost := s.m.dropped.add(p.index, slices.Sorted(maps.Keys(reasons))); len(lost) > 0 {
		why := make([]string, len(lost))
		for i, name := range lost {
			why[i] = reasons[name]
		}
		s.warn("sessplus: an imported session has fields that were dropped", "cookie", p.CookieName, "fields", lost, "reasons", why)
	}
	return routed
}

// encodeImported encodes the value of a field of an imported session.
func (s *Session) encodeImported(name string, value any) ([]byte, error) {
	switch value := value.(type) {
	case error:
		return nil, value
	case encodedValue:
		_, err := s.encode(name, nil) // the name
		return value, err
	}
	return s.encode(name, value)
}

// reasonOf is what an error says of a field that was not imported.
func reasonOf(err error) string {
	if f := (*fieldError)(nil); errors.As(err, &f) {
		return f.reason
	}
	return err.Error()
}

// establish creates the records of an imported session: those of other cookies, and then that of p. The record of p
// also has the fields of secure cookies, for concurrent requests.
func (s *Session) establish(p *part, v *stray, found *Imported, routed map[int][]RawField, made *call, now time.Time) error {
	own := routed[p.index]
	all := slices.Clone(own)
	for i := range s.parts {
		t := &s.parts[i]
		if t == p || len(routed[i]) == 0 {
			continue
		}
		if t.sealer == nil {
			if _, err := s.place(t, p, v, found, routed[i], now); err != nil && !errors.Is(err, ErrRecordExists) {
				return err
			}
		}
		if t.sealer != nil || len(own) == 0 {
			all = append(all, routed[i]...)
		}
	}
	if p.sealer != nil {
		p.receive(s.m, own, found.Expires, found.Permanent, now)
		p.brought = all
		s.event(p.cookie, EventImport, made, own)
		return nil
	}
	c, err := s.place(p, p, v, found, all, now)
	if err != nil {
		return err
	}
	p.name = c.sessionName
	p.take(s.m, c.record)
	p.brought = all
	c.began, c.took = made.began, made.took
	s.event(p.cookie, EventImport, c, own)
	return nil
}

// place creates the record of a session that v stood for, and the mark. The error matches ErrRecordExists if there is
// one.
func (s *Session) place(t, from *part, v *stray, found *Imported, fields []RawField, now time.Time) (*call, error) {
	name := from.imports.names(t.cookie, forSession, v)[0]
	r := &Record{Created: now, Saved: now, Expires: t.expiry(now, now, found.Permanent), Permanent: found.Permanent, Fields: fields, owned: now}
	if !found.Expires.IsZero() && found.Expires.Before(r.Expires) {
		r.Expires = found.Expires.Truncate(time.Millisecond)
	}
	r.Rotated = now // it had another id before
	r.Origin = origin(binding(name.id), tail(name.key), found.Expires)
	for _, f := range fields {
		if f.Name == t.IndexBy {
			r.Owner, _ = t.ownerBy(f.Value) // it is up to the program to correct a value that names nobody
		}
	}
	if t.IndexBy != "" {
		r.Device = device(s.agent)
	}
	c := &call{part: t, op: opCreate, sessionName: name, record: r}
	s.run([]*call{c})
	if errors.Is(c.err, ErrTooLarge) {
		return nil, &fieldError{largest(fields).Name, "is the largest of an imported session that its store does not take", ErrTooLarge}
	}
	if c.err != nil {
		return nil, c.err
	}
	return c, s.mark(t, from, v, found.Expires)
}

// mark creates the record that says that v has been imported. until is when the old session would have ended.
func (s *Session) mark(t, from *part, v *stray, until time.Time) error {
	now := wallNow()
	if until.IsZero() {
		until = now.Add(maxCookieAge)
	}
	c := &call{part: t, op: opCreate, sessionName: from.imports.names(t.cookie, forMark, v)[0], record: &Record{
		Created: now, Saved: now, Expires: until, Fields: []RawField{{"taken over", []byte("true")}}, owned: now,
	}}
	s.run([]*call{c})
	if errors.Is(c.err, ErrRecordExists) {
		return nil
	}
	return c.err
}

// receive gives a secure cookie fields of a session from before, unless it has such fields itself.
func (p *part) receive(m *Manager, fields []RawField, until time.Time, permanent bool, now time.Time) {
	r := &Record{Created: now, Saved: now, Permanent: permanent, Expires: now.Add(p.contentAge(permanent))}
	r.end(&legacy{until: until, at: now})
	if p.rec != nil {
		c := *p.rec
		r = &c
	}
	r.Fields = slices.Clone(r.Fields)
	for _, f := range fields {
		if e, known := p.entries.find(f.Name); !known || e.value == nil && e.saved == nil {
			r.Fields = append(r.Fields, f)
		}
	}
	p.take(m, r)
	p.foreign = nil
	p.arrive()
}

// spread gives the other cookies their fields of the old sessions that this request has brought. It releases s.mu
// meanwhile.
func (s *Session) spread(sealed bool, now time.Time) {
	for i := range s.parts {
		from := &s.parts[i]
		if !from.was() {
			continue
		}
		for j := range s.parts {
			t := &s.parts[j]
			if t == from || (t.sealer != nil) != sealed || t.state == unloaded || t.err != nil || t.gone || t.epoch > 0 || slices.Contains(from.spread, j) {
				continue
			}
			from.arrivals.spread = append(from.arrivals.spread, j)
			if sealed {
				s.carry(t, from, now)
			} else if t.rec == nil {
				s.spreadTo(t, from, now)
			}
		}
	}
}

// carry gives a secure cookie its fields of an old session.
func (s *Session) carry(t, from *part, now time.Time) {
	if from.rec == nil || t.boundTo != nil && s.parts[t.boundTo.index].rec == nil {
		return
	}
	var mine []RawField
	for _, f := range from.brought {
		if s.m.routes.owns(t.index, f.Name) {
			mine = append(mine, f)
		}
	}
	if len(mine) > 0 {
		t.receive(s.m, mine, from.rec.until(), from.rec.Permanent, now)
	}
}

// spreadTo looks for the record that was made for another cookie.
func (s *Session) spreadTo(t, from *part, now time.Time) {
	epoch := t.epoch
	var found *call
	s.unlocked(func() { found, _ = s.former(t, from, from.past) })
	if found == nil || t.rec != nil || t.epoch != epoch {
		return
	}
	if t.answered(s, found, now); t.rec != nil {
		t.arrive()
	}
}

// feeders adds to the list the cookies that must be loaded before others, because they may have fields of theirs.
func (s *Session) feeders(indexes []int) []int {
	all := indexes
	for i := range s.parts {
		if p := &s.parts[i]; p.state == unloaded && p.comes() && !slices.Contains(all, i) {
			all = append(slices.Clip(all), i)
		}
	}
	if s.m.adopting {
		all = s.withAdoptions(all)
	}
	return all
}

// dropOld adds the lines that make the browser drop the former cookies under other names.
func (p *part) dropOld(lines []string, now time.Time, tls bool) []string {
	if p.arrivals == nil {
		return lines
	}
	for _, name := range p.old {
		c := p.cookie
		for _, s := range p.imports.sources {
			if f, ok := s.Importer.(*former); ok && f.m != nil && (name == s.cookie || strings.HasPrefix(name, s.cookie+".")) {
				c = f.m.cookies[0] // as it was set
			}
		}
		lines = append(lines, c.setCookie(name, "", -1, now, tls))
	}
	return lines
}

// waits reports whether the record has fields of other cookies, for requests that still bring the former one.
func (p *part) waits(now time.Time) bool {
	return p.rec.imported() && now.Sub(p.rec.Rotated) < EndGrace
}

// keepers are the cookies whose records may have fields of an old session that belong to the given secure cookies.
func (s *Session) keepers(of []int) (list []int) {
	if !slices.ContainsFunc(of, func(i int) bool { return s.parts[i].sealer != nil }) {
		return nil
	}
	for i := range s.parts {
		if p := &s.parts[i]; p.imports != nil && p.sealer == nil {
			list = append(list, i)
		}
	}
	return list
}

// shed lets the records of other cookies lose the fields of the secure cookie p, which is destroyed.
func (s *Session) shed(p *part) {
	owned := func(name string) bool { return s.m.routes.owns(p.index, name) }
	for _, i := range s.keepers([]int{p.index}) {
		from := &s.parts[i]
		from.sheds = from.rec != nil && from.rec.imported() && slices.ContainsFunc(from.foreign, owned)
	}
}

// shedsLate reports whether the browser has had the cookies of an imported session for so long that no request waits
// for the fields of secure cookies in its record any more.
func (p *part) shedsLate() bool {
	return len(p.foreign) > 0 && p.rec.imported() && !p.was() && !p.waits(wallNow())
}

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

// forsake ends old sessions that the program has destroyed: both what they became and the originals.
func (s *Session) forsake(v *save) {
	p := v.part
	if !p.forsakes() {
		return
	}
	for i := range p.forsaken {
		switch err := s.forsakeOne(p, &p.forsaken[i]); {
		case err == nil || v.err != nil:
		case p.epoch == 0: // it lives on here
			s.notForgotten(p, err)
		default:
			v.err, v.undead = &Error{Cookie: p.CookieName, Op: "delete", Err: fmt.Errorf("%w: %w", ErrUnavailable, err)}, true
		}
	}
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

// origin is what a record says about its origin: the binding of its session, the tail of its first key and, if it was
// imported, when it ends at the latest, in Unix milliseconds.
func origin(binding []byte, first string, until time.Time) string {
	text := hex.EncodeToString(binding) + "." + first + "."
	if !until.IsZero() {
		text += strconv.FormatInt(until.UnixMilli(), 10)
	}
	return text
}

// until is when an imported session ends at the latest; zero: it has no such end.
func (r *Record) until() time.Time {
	if r.legacy != nil {
		return r.legacy.until
	}
	if !r.imported() {
		return time.Time{}
	}
	i := strings.LastIndexByte(r.Origin, '.')
	if n, err := strconv.ParseInt(r.Origin[i+1:], 10, 64); err == nil {
		return time.UnixMilli(n)
	}
	return time.Time{}
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

// settle makes the commit remove the old session that a secure cookie still names, if it is time, or the session is
// renewed.
func (p *part) settle(now time.Time) {
	if p.imports != nil && p.rec != nil && p.rec.legacy != nil && (p.renew || p.rec.legacy.overdue(now)) && p.rec.legacy.old.value != "" {
		p.meet().forsaken = append(p.forsaken, p.rec.legacy.old)
	}
}

// imported reports whether the record was made from an old session.
func (r *Record) imported() bool { return strings.Count(r.Origin, ".") == 2 }
