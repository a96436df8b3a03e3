package sessplus

import (
	"errors"
	"iter"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A candidate is a value that came under the name of a cookie, or of one of its chunks.
type candidate struct {
	text  string
	chunk int
}

// maxCandidates is how many well-formed cookies of one name are tried: a browser sends one per Domain and Path that it has.
const maxCandidates = 8

// A slot is where the value of a cookie belongs: the config, and the chunk of a secure cookie. From MaxChunks on it is
// what a former config may have left behind.
type slot struct {
	cookie, chunk int
}

// slots finds the slot of every name that a request may bring.
func slots(cookies []*cookie) map[string]slot {
	m := make(map[string]slot)
	for i, c := range cookies {
		for n := range c.MaxChunks {
			m[chunkName(c.CookieName, n)] = slot{i, n}
		}
	}
	for i, c := range cookies {
		for n := c.MaxChunks; n < maxChunks; n++ {
			name := chunkName(c.CookieName, n)
			if _, taken := m[name]; !taken {
				m[name] = slot{i, n}
			}
		}
	}
	return m
}

// readCookies hands each cookie of the request that has a slot to put, in the order of the header. It reads the Cookie
// header as RFC 6265 section 4.2.1 writes it, and passes over what it does not understand.
func (m *Manager) readCookies(r *http.Request, put func(s slot, value string)) {
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			name, value, found := strings.Cut(textproto.TrimString(pair), "=")
			if !found {
				continue
			}
			if s, ok := m.names[textproto.TrimString(name)]; ok {
				if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
					value = value[1 : n-1]
				}
				put(s, value)
			}
		}
	}
}

// browser is what the browser has of a cookie, and what it is to be told.
type browser struct {
	came    uint32   // a bit for the cookie and for each chunk of which the request brought a value
	twice   uint32   // the same, for several values
	held    bool     // it has a cookie of this name
	repeats bool     // lines have an id that it had before this request, or that a rotation gave it
	due     notice   // what the next commit is to tell it, whatever else there is to save
	lines   []string // the Set-Cookie lines that go with the response
}

// A notice is what a response tells the browser of a cookie.
type notice uint8

const (
	tellNothing notice = iota
	tellSet            // the cookie, maybe again: an older key wrote it, it was told to go, or its id was rotated
	tellDrop           // to drop it
	takeBack           // what an earlier Save has set, which would undo a login elsewhere
)

// resend notes that the browser is to get the cookie again, if so.
func (b *browser) resend(again bool) {
	if again && b.due == tellNothing {
		b.due = tellSet
	}
}

// resent undoes resend, as the cookie is written with this commit, or cannot be.
func (b *browser) resent() {
	if b.due == tellSet {
		b.due = tellNothing
	}
}

// bring notes a value that came with the request. The form of the first one of its name is looked at when it is used; of
// several, those that are malformed make no room scarce for the others.
func (p *part) bring(c candidate) {
	bit := uint32(1) << c.chunk
	if c.chunk >= p.MaxChunks { // only to be expired, if it is one
		if looksLikeChunk(c.text) {
			p.held, p.came, p.twice = true, p.came|bit, p.twice|p.came&bit
		}
		return
	}
	p.held = true
	if p.came&bit == 0 {
		p.came |= bit
		if p.texts == nil {
			p.texts = p.first[:0]
		}
		p.texts = append(p.texts, c)
		return
	}
	if p.twice&bit == 0 {
		p.twice |= bit
		p.texts = slices.DeleteFunc(p.texts, func(o candidate) bool { return o.chunk == c.chunk && p.malformed(o) })
	}
	if slices.Contains(p.texts, c) || p.malformed(c) {
		return
	}
	same := 0
	for _, o := range p.texts {
		if o.chunk == c.chunk {
			same++
		}
	}
	if same == maxCandidates {
		p.crowded = true
		return
	}
	p.texts = append(p.texts, c)
}

// malformed notes a value that cannot be of this cookie. No more are noted than are tried.
func (p *part) malformed(c candidate) bool {
	switch p.form(c) {
	case nil:
		return false
	case errSplit:
		p.split = min(p.split+1, maxCandidates)
	default:
		p.refused = min(p.refused+1, maxCandidates)
	}
	return true
}

// form returns nil for a value that may be one that this cookie was given, as far as that costs next to nothing.
func (c *cookie) form(v candidate) error {
	ok := false
	switch {
	case len(v.text) > maxCookieBytes && !c.packed:
	case c.sealer == nil && c.signer == nil:
		ok = validID(v.text)
	case v.chunk > 0:
		ok = looksLikeChunk(v.text)
	default:
		n, _, text, whole := firstChunk(v.text)
		_, dated := writtenAt(text)
		ok = whole && dated && isBase64(text)
		if ok && c.sealer != nil && n > c.MaxChunks && n <= maxChunks {
			return errSplit
		}
		ok = ok && n <= c.MaxChunks
	}
	if !ok {
		return errMalformed
	}
	return nil
}

// looksLikeChunk reports whether a value may be that of a chunk after the first.
func looksLikeChunk(value string) bool {
	tag, text, _ := strings.Cut(value, ".")
	return len(value) <= maxCookieBytes && tag != "" && isBase64(text)
}

// covers reports whether a browser sends the cookie with a request like this one, whose target may have a query, or be a
// whole address: RFC 6265 section 5.1.4.
func (c *cookie) covers(uri string) bool {
	if c.Path == "/" {
		return true
	}
	if !strings.HasPrefix(uri, "/") {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return true // nothing to compare with, as for OPTIONS *
		}
		uri = u.EscapedPath()
	}
	path, _, _ := strings.Cut(uri, "?")
	rest, ok := strings.CutPrefix(path, c.Path)
	return ok && (rest == "" || strings.HasSuffix(c.Path, "/") || rest[0] == '/')
}

// setCookie is a Set-Cookie line for the cookie, or one that makes the browser drop it, for which age is negative.
// A browser drops a cookie only when Domain and Path are those it was set with, and takes notice of the line only when
// Secure and Partitioned fit.
func (c *cookie) setCookie(name, value string, age time.Duration, now time.Time, tls bool) string {
	return c.line(c.scope, name, value, age, now, tls)
}

// dropHostOnly is a line that makes the browser drop the cookie which it keeps for this host alone, as from before the config
// had a Domain.
func (c *cookie) dropHostOnly(name string, now time.Time, tls bool) string {
	return c.line(c.hostScope, name, "", -1, now, tls)
}

func (c *cookie) line(scope, name, value string, age time.Duration, now time.Time, tls bool) string {
	flags := c.flags
	if c.Secure == SecureAlways || c.Secure == SecureAuto && tls {
		flags = c.secureFlags
	}
	life := make([]byte, 0, 64)
	if age != 0 {
		seconds, expires := 0, time.Unix(1, 0)
		if age > 0 {
			seconds = max(1, int(age/time.Second))
			expires = now.Add(time.Duration(seconds) * time.Second)
		}
		life = expires.UTC().AppendFormat(append(life, "; Expires="...), http.TimeFormat)
		life = strconv.AppendInt(append(life, "; Max-Age="...), int64(seconds), 10)
	}
	return name + "=" + value + scope + string(life) + flags
}

// keepLines makes the Set-Cookie lines of a save, which take the place of those of an earlier commit.
func (s *Session) keepLines(v *save, now time.Time, failed bool) {
	p := v.part
	tells := v.notice(s.bundle != nil, failed)
	if tells == tellNothing {
		return
	}
	age := p.maxAge(p.permanent)
	if tells == tellSet && p.sealer == nil {
		v.values = append(v.value[:0], p.cookieText(p.name))
		if age > 0 {
			age = max(min(age, p.rec.Expires.Sub(now)), time.Second)
		}
	}
	p.lines = v.line[:0]
	if s.bundle != nil {
		s.bundle.note(v, tells, age, now)
	} else {
		if tells == tellSet {
			for i, value := range v.values {
				p.lines = append(p.lines, p.setCookie(chunkName(p.CookieName, i), value, age, now, s.tls))
			}
		}
		if tells != takeBack {
			p.lines = p.withDrops(p.lines, p.came, p.twice, now, s.tls)
		}
	}
	if tells != takeBack {
		p.due, p.held = tellNothing, tells == tellSet
	}
	p.repeats = tells == tellSet && p.sealer == nil && !v.creates()
}

// notice decides what the browser is told of a save. When the commit failed it hears only of destroyed sessions: it logs
// out even when the server cannot.
func (v *save) notice(single, failed bool) notice {
	p := v.part
	saved := v.written && !failed
	switch {
	case v.send && saved:
		return tellSet
	case v.drop && (p.due == tellDrop || saved):
		return tellDrop
	case errors.Is(v.err, ErrSessionGone), v.void, v.does.reads() && errors.Is(v.main.err, ErrNoRecord):
		return takeBack
	case single && v.does.reads() && v.err == nil && v.main.err != nil: // it may have ended
		return takeBack
	case p.twice != 0 && p.Domain != "" && saved && len(v.changed) > 0:
		return tellSet // in the place of a cookie for this host alone, which would come before that of the Domain
	}
	return tellNothing
}

// cookieText is the value of a server-side cookie: the id, signed if the config says so.
func (c *cookie) cookieText(name sessionName) string {
	if c.signer == nil {
		return name.id
	}
	text, err := c.signer.sign(c.CookieName, name.id)
	if err != nil { // without a random IV to draw, signing cannot fail
		panic(err)
	}
	return text
}

// withDrops adds the lines that make the browser drop what it has, and nothing takes the place of: chunks, and what it keeps
// for this host alone, which would come before the cookie of a Domain. came and twice have a bit for each cookie or chunk of
// which the request brought a value, or several.
func (c *cookie) withDrops(lines []string, came, twice uint32, now time.Time, tls bool) []string {
	for n := len(lines); came>>n != 0; n++ {
		if came&(1<<n) != 0 {
			lines = append(lines, c.setCookie(chunkName(c.CookieName, n), "", -1, now, tls))
		}
	}
	for n := 0; c.Domain != "" && twice != 0 && came>>n != 0; n++ { // first, for clients to whom both are one cookie
		if came&(1<<n) != 0 {
			lines = slices.Insert(lines, 0, c.dropHostOnly(chunkName(c.CookieName, n), now, tls))
		}
	}
	return lines
}

// prepareLines writes down what all Set-Cookie lines of the cookie have: its scope before the age, and flags after it.
func (c *cookie) prepareLines() {
	k := http.Cookie{Name: "n", Path: c.Path}
	c.hostScope = strings.TrimPrefix(k.String(), "n=")
	k.Domain = c.Domain
	scope := k.String()
	c.scope = strings.TrimPrefix(scope, "n=")
	k.HttpOnly, k.SameSite, k.Partitioned = !c.ScriptReadable, c.SameSite, c.Partitioned
	c.flags = strings.TrimPrefix(k.String(), scope)
	k.Secure = true
	c.secureFlags = strings.TrimPrefix(k.String(), scope)
}

// noteUse adds what keeps shared caches from mixing up visitors: Vary for a response that depends on a session.
func (s *Session) noteUse(h http.Header) {
	vary := h["Vary"]
	if varies(vary) {
		return
	}
	if vary == nil {
		vary = s.vary[:0]
	}
	h["Vary"] = append(vary, "Cookie")
}

// varies reports whether the lines of a Vary header name the Cookie header.
func varies(lines []string) bool {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(name, " \t"), "Cookie") {
				return true
			}
		}
	}
	return false
}

// noteSetCookie keeps a response that sets a session out of shared caches. What the handler says of caching stays, but for
// what lets those keep it: then this reports true.
func (s *Session) noteSetCookie(h http.Header) (changed bool) {
	own := false
	rest := []string{"private"}
	for name, directive := range directives(h["Cache-Control"]) {
		own = true
		switch name {
		case "public", "s-maxage":
			changed = true
		case "private": // also one that is private for some headers only
		default:
			rest = append(rest, directive)
		}
	}
	switch {
	case !own:
		h["Cache-Control"] = append(s.cacheControl[:0], "private, no-cache")
	case changed:
		h["Cache-Control"] = []string{strings.Join(rest, ", ")}
	}
	return changed
}

// personal reports whether shared caches keep such a response to the one visitor: without a Set-Cookie, as it goes.
func personal(h http.Header) bool {
	for name := range directives(h["Cache-Control"]) {
		if name == "private" || name == "no-store" {
			return true
		}
	}
	return varies(h["Vary"])
}

// directives yields those of a Cache-Control header, each with its name in lower case: RFC 9111 section 5.2. An argument in
// quotes may have commas.
func directives(lines []string) iter.Seq2[string, string] {
	return func(yield func(name, directive string) bool) {
		for _, line := range lines {
			quoted := false
			for i := 0; i < len(line); i++ {
				switch {
				case line[i] == '"':
					quoted = !quoted
				case line[i] == '\\' && quoted:
					i++
				case line[i] == ',' && !quoted:
					if !yieldDirective(line[:i], yield) {
						return
					}
					line, i = line[i+1:], -1
				}
			}
			if !yieldDirective(line, yield) {
				return
			}
		}
	}
}

// yieldDirective yields a directive unless it is empty, as RFC 9110 section 5.6.1 allows in lists.
func yieldDirective(text string, yield func(name, directive string) bool) bool {
	text = textproto.TrimString(text)
	if text == "" {
		return true
	}
	name, _, _ := strings.Cut(text, "=")
	return yield(strings.ToLower(textproto.TrimString(name)), text)
}

// clearContent takes from the header what the handler has said of a response that will not be sent.
func clearContent(h http.Header) {
	for _, name := range []string{
		"Accept-Ranges", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
		"Content-Range", "Content-Type", "Etag", "Expires", "Last-Modified", "Location", "Trailer",
	} {
		h.Del(name)
	}
}
