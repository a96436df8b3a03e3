package sessplus

import (
	"cmp"
	"errors"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// With Options.SingleCookie, the values of all configs share one cookie, for hosts that pass on only one (Firebase
// Hosting: __session). Its value is "NAME:TEXT" for each config that has one, joined by slashes, and "NAME:TEXT:END"
// for one with a MaxAge, which ends before the others; END is in Unix seconds. NAME is the CookieName with "." and "%"
// as in a URL, TEXT what the cookie of that config alone would hold. None of the separators is in a cookie's name or in
// base64.
//
// Writing the cookie writes the values of all configs, including those that have not changed. The id of a session that
// has ended in the meantime must not replace a newer one in the browser, so the backend is first asked whether these
// sessions still exist.

// A bundle is the one cookie, as a request brought it and as it will be sent.
type bundle struct {
	*cookie              // with the attributes that all configs have
	came, twice uint32   // as those of a part
	parts       []packed // by config
	changed     bool
	blocked     bool // a session in it has ended meanwhile: it would undo a login elsewhere
	destroyed   bool // the program ends a part of it, which the browser must drop in any case
}

// packed is what the bundle has, or will have, of one config.
type packed struct {
	text string // "": nothing
	end  int64  // in Unix seconds, 0 for none
	made bool   // by this request
}

// newSingleCookie makes the cookie of the bundle, which contains those of all configs. They agree on its attributes.
func newSingleCookie(name string, cookies []*cookie) *cookie {
	c := &cookie{Config: cookies[0].Config, index: len(cookies)}
	c.CookieName = name
	for _, o := range cookies {
		c.MaxChunks = max(c.MaxChunks, o.MaxChunks)
	}
	for _, o := range cookies {
		o.packed, o.MaxChunks = true, c.MaxChunks
	}
	c.prepareLines()
	return c
}

var (
	packedName   = strings.NewReplacer("%", "%25", ".", "%2E")
	unpackedName = strings.NewReplacer("%25", "%", "%2E", ".")
)

// unpack hands the parts their values. If several cookies of the name came, each contributes.
func (s *Session) unpack(r *http.Request, now time.Time) {
	b := &bundle{cookie: s.m.single, parts: make([]packed, len(s.parts))}
	s.bundle = b
	var all []candidate
	s.m.readCookies(r, func(at slot, value string) {
		bit := uint32(1) << at.chunk
		b.twice |= b.came & bit
		b.came |= bit
		all = append(all, candidate{value, at.chunk})
	})
	tried := 0
	for _, first := range all {
		if first.chunk > 0 {
			continue
		}
		if tried == maxCandidates {
			for i := range s.parts {
				s.parts[i].crowded = true
			}
			break
		}
		tried++
		text, err := join(first.text, all, b.MaxChunks)
		if err != nil {
			s.reject(&part{cookie: b.cookie}, err)
			continue
		}
		for item := range strings.SplitSeq(text, "/") {
			name, text, end := unpackItem(item)
			p := s.part(name)
			if p == nil || text == "" || end != 0 && end <= now.Unix() {
				continue
			}
			if b.parts[p.index].text == "" {
				b.parts[p.index] = packed{text: text, end: end}
			}
			p.bring(candidate{text, 0})
		}
	}
}

// unpackItem parses what a bundle has of one config.
func unpackItem(item string) (name, text string, end int64) {
	name, rest, _ := strings.Cut(item, ":")
	text, ends, _ := strings.Cut(rest, ":")
	end, _ = strconv.ParseInt(ends, 10, 64)
	return unpackedName.Replace(name), text, end
}

// plan makes sure that the bundle can be written, if one of the saves needs that: it adds a save that verifies each
// session in the bundle that this commit does not save. If one has ended, a request that changes something fails; a
// request that only read sends no cookie, and leaves touch and rotation to the next.
func (b *bundle) plan(s *Session, saves []*save, now time.Time) ([]*save, error) {
	if s.sent || !slices.ContainsFunc(saves, func(v *save) bool { return v.send || v.drop || v.rotates }) {
		return saves, nil
	}
	b.blocked = false
	changes := slices.ContainsFunc(saves, (*save).alters)
	for i := range s.parts {
		p := &s.parts[i]
		v := saveOf(p.cookie, saves)
		switch {
		case p.sealer != nil, p.err != nil, p.due == tellDrop:
		case p.gone && !p.replaced: // it is left out; only a concurrent login replaces it
		case p.gone && (v == nil || !v.creates()):
			if b.blocked = true; !changes {
				continue
			}
			v, saves = saveFor(p, saves)
			v.err = p.saveError(ErrSessionGone)
		case p.rec == nil || v != nil && v.main != nil:
			v.need(changes)
		case v != nil && v.rotates: // the rotation finds that out
		default:
			v, saves = saveFor(p, saves)
			v.planTouch(now, true)
			v.need(changes)
		}
	}
	b.starve(saves)
	return saves, b.fits(s, saves)
}

// starve is bundle.starve for who does not hold s.mu.
func (s *Session) starve(saves []*save) {
	if s.bundle != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.bundle.starve(saves)
	}
}

// starve makes the request fail, whatever the configs tolerate, if a session in the bundle has ended meanwhile and
// another save needs the bundle: for the id of a new session, or for fields of a secure cookie. It will not be written.
func (b *bundle) starve(saves []*save) {
	needs := func(v *save) bool {
		return v.err == nil && !v.void && (v.creates() || v.part.sealer != nil && len(v.changed) > 0)
	}
	destroys := func(v *save) bool { return v.part.due == tellDrop } // then it is written in any case
	if b == nil || !slices.ContainsFunc(saves, needs) || slices.ContainsFunc(saves, destroys) {
		return
	}
	for _, v := range saves {
		if v.void && v.err == nil {
			v.err = v.part.saveError(ErrSessionGone)
		}
		v.starves = errors.Is(v.err, ErrSessionGone)
	}
}

// alters reports whether the program has asked for what the save does, beyond reading.
func (v *save) alters() bool {
	return len(v.changed) > 0 || v.renews || v.drop || v.err != nil || len(v.deletes) > 0 || v.main != nil && !v.does.reads()
}

// stuck reports whether the bundle will not be written, so that no session may get another id.
func (b *bundle) stuck(saves []*save) bool {
	return b != nil && (b.blocked || slices.ContainsFunc(saves, func(v *save) bool {
		return errors.Is(v.err, ErrSessionGone) || v.does.reads() && v.main.err != nil
	}))
}

// catchUp finds out what has become of the other sessions in the bundle, if it will be written because of an id that
// was rotated, or a record that was empty: what plan has asked may be long ago, or was not asked. The browser must get
// neither the id of a session that has ended, nor the former id of one that another request has rotated.
func (b *bundle) catchUp(s *Session, saves []*save) []*save {
	settled := func(v *save) bool {
		return v.rotated != nil || v.main != nil && (v.main.moved || v.main.result.Refilled)
	}
	if b == nil || !slices.ContainsFunc(saves, settled) {
		return saves
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var loads []*call
	for i := range s.parts {
		p := &s.parts[i]
		v := saveOf(p.cookie, saves)
		if !s.sent && p.sealer == nil && p.rec != nil && (v == nil || v.err == nil && !v.drop && !v.creates() && !settled(v)) {
			loads = append(loads, &call{part: p, op: opLoad, sessionName: p.name})
		}
	}
	for until := time.Now().Add(joinWait); len(loads) > 0; {
		s.unlocked(func() { s.run(loads) })
		var taken []*call
		for _, c := range loads {
			switch {
			case errors.Is(c.err, ErrNoRecord):
				var v *save
				v, saves = saveFor(c.part, saves)
				s.unlocked(func() { s.endedMeanwhile(v, saves) })
			case c.moved:
				var v *save
				v, saves = saveFor(c.part, saves)
				v.rotated, v.joined = c, true
				s.loaded(c, wallNow())
			case c.err == nil && c.record.Mark != nil && time.Now().Before(until): // it is being renewed or rotated
				taken = append(taken, c)
			}
		}
		if loads = taken; len(loads) > 0 {
			s.unlocked(func() { time.Sleep(mathrand.N(takenPause)) })
		}
	}
	return saves
}

// fits returns ErrTooLarge if the bundle would be larger than browsers keep.
func (b *bundle) fits(s *Session, saves []*save) error {
	text := 0
	largest := b.cookie
	var field RawField
	for i := range s.parts {
		p := &s.parts[i]
		v := saveOf(p.cookie, saves)
		n := len(b.parts[i].text)
		switch {
		case v == nil || !v.send:
		case p.sealer == nil:
			n = len(p.cookieText(sessionName{id: strings.Repeat("x", idLength)}))
		case len(v.values) > 0:
			n = len(v.values[0])
			for _, f := range p.appendFields(nil) {
				if len(f.Value) >= len(field.Value) {
					largest, field = p.cookie, f
				}
			}
		}
		text += len(packedName.Replace(p.CookieName)) + len("::1234567890/") + n
	}
	if split(b.CookieName, strings.Repeat("x", text), b.MaxChunks, nil) != nil {
		return nil
	}
	return &Error{Cookie: largest.CookieName, Op: "encode", Err: tooLargeError(field.Name, len(b.CookieName)+text)}
}

// note records what a save tells the browser.
func (b *bundle) note(v *save, tells notice, age time.Duration, now time.Time) {
	k := packed{made: true}
	switch tells {
	case takeBack:
		b.blocked = true
		return
	case tellDrop:
		b.destroyed = b.destroyed || v.part.due == tellDrop
	case tellSet:
		if k.text = v.values[0]; age > 0 {
			k.end = now.Add(age).Unix()
		}
	}
	b.changed, b.parts[v.part.index] = true, k
}

// lines makes the Set-Cookie lines.
func (b *bundle) lines(s *Session, now time.Time) (lines []string) {
	if b.blocked && !b.destroyed {
		return nil
	}
	var items []string
	var age time.Duration // of the part that lives longest
	bounded := false      // some part does not end with the browser session
	for i := range s.parts {
		p := &s.parts[i]
		k := b.parts[i]
		down := p.err != nil || p.boundTo != nil && s.parts[p.boundTo.index].err != nil
		if k.text == "" || !k.made && p.state == loaded && p.rec == nil && !down {
			continue // it was no session
		}
		if !k.made && p.state == loaded && p.sealer != nil && p.rec != nil {
			k.text = p.texts[p.chosen].text
		} else if !k.made && p.rec != nil {
			k.text = p.cookieText(p.name)
		}
		item := packedName.Replace(p.CookieName) + ":" + k.text
		if k.end > 0 {
			item += ":" + strconv.FormatInt(k.end, 10)
			bounded = true
			age = max(age, time.Unix(k.end, 0).Sub(now).Round(time.Second))
		} else {
			age = max(age, p.unboundedAge())
		}
		items = append(items, item)
	}
	if !bounded {
		age = 0
	}
	if len(items) > 0 {
		for i, value := range split(b.CookieName, strings.Join(items, "/"), b.MaxChunks, nil) {
			lines = append(lines, b.setCookie(chunkName(b.CookieName, i), value, age, now, s.tls))
		}
	}
	lines = b.withDrops(lines, b.came, b.twice, now, s.tls)
	for i := range s.parts {
		lines = s.parts[i].dropOld(lines, now, s.tls)
	}
	return lines
}

// unboundedAge is how long the value of a session-only cookie may be used, if the browser does not close.
func (p *part) unboundedAge() time.Duration {
	switch {
	case p.sealer != nil:
		return p.contentAge(p.permanent)
	case p.lifetime(p.permanent) > 0:
		return min(p.lifetime(p.permanent), maxCookieAge)
	}
	return maxCookieAge
}

// singleCookie finds the mistakes of Options.SingleCookie.
func (v *validation) singleCookie() {
	name := v.opts.SingleCookie
	if name == "" || len(v.configs) == 0 {
		return
	}
	v.cookie = ""
	v.check(!isToken(name), "SingleCookie", name, "has a character that RFC 6265 does not allow in a cookie's name; take letters, digits, - and _")
	v.check(len(name) > maxCookieName, "SingleCookie", name, "has %d bytes; %d is the most", len(name), maxCookieName)
	first := v.configs[0]
	for i := range v.configs[1:] {
		c := &v.configs[i+1]
		v.cookie = c.CookieName
		const same = "is not that of config #0, %v; they ride in one cookie, because of Options.SingleCookie"
		differs := func(field string, mine, its any) { v.check(mine != its, field, mine, same, its) }
		differs("Domain", c.Domain, first.Domain)
		differs("Path", cmp.Or(c.Path, "/"), cmp.Or(first.Path, "/"))
		differs("Secure", c.Secure, first.Secure)
		differs("SameSite", cmp.Or(c.SameSite, http.SameSiteLaxMode), cmp.Or(first.SameSite, http.SameSiteLaxMode))
		differs("ScriptReadable", c.ScriptReadable, first.ScriptReadable)
		differs("Partitioned", c.Partitioned, first.Partitioned)
	}
	first.CookieName, v.cookie = name, name
	v.prefixes(&first)
}
