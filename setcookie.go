package sessplus

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// browser is what the browser knows about a cookie, and what it must be told.
type browser struct {
	came    uint32   // a bit for the cookie and for each chunk of which the request brought a value
	twice   uint32   // the same, for several values
	held    bool     // it has a cookie of this name
	repeats bool     // lines set an id that it had before this request, or that comes from a rotation
	due     notice   // what the next commit must tell it, whatever else is saved
	lines   []string // the Set-Cookie lines that go with the response
}

// A notice is what a response tells the browser about a cookie.
type notice uint8

const (
	tellNothing notice = iota
	tellSet            // the cookie, perhaps again: it was written with an older key or dropped, or its id was rotated
	tellDrop           // to drop it
	takeBack           // the cookie that an earlier Save has set, which would undo a login elsewhere
)

// resend notes that the browser must get the cookie again, if the argument says so.
func (b *browser) resend(again bool) {
	if again && b.due == tellNothing {
		b.due = tellSet
	}
}

// resent undoes resend, because this commit writes the cookie, or cannot.
func (b *browser) resent() {
	if b.due == tellSet {
		b.due = tellNothing
	}
}

// keepLines makes the Set-Cookie lines of a save, which replace those of an earlier commit.
func (s *Session) keepLines(v *save, now time.Time, failed bool) {
	p := v.part
	tells := v.notice(s.bundle != nil, failed)
	if tells == tellNothing {
		return
	}
	age := p.maxAge(p.permanent)
	if tells == tellSet && p.sealer == nil {
		v.values = append(v.value[:0], p.cookieText(p.name))
	}
	if tells == tellSet && age > 0 {
		age = max(min(age, p.rec.Expires.Sub(now)), time.Second)
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
			p.lines = p.dropOld(p.withDrops(p.lines, p.came, p.twice, now, s.tls), now, s.tls)
		}
		if tells == tellDrop {
			p.lines = p.dropProof(p.lines, now)
		}
	}
	if tells != takeBack {
		p.due, p.held = tellNothing, tells == tellSet
	}
	p.repeats = tells == tellSet && p.sealer == nil && !v.creates()
}

// notice decides what the browser is told about a save. If the commit failed, that is only which sessions were
// destroyed: a browser can log out even if the server cannot.
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
	case p.twice != 0 && p.mayHaveTwins() && saved && len(v.changed) > 0:
		return tellSet // instead of its twins
	}
	return tellNothing
}

// cookieText is the value of a server-side cookie: the id, signed if the config says so.
func (c *cookie) cookieText(name sessionName) string {
	if c.signer == nil {
		return name.id
	}
	text, err := c.signer.sign(c.CookieName, name.id)
	if err != nil { // signing draws no random IV, and so cannot fail
		panic(err)
	}
	return text
}

// withDrops adds the lines that make the browser drop what nothing replaces: chunks, and twins of the cookie. came and
// twice have a bit for each cookie or chunk of which the request brought one value, or several.
func (c *cookie) withDrops(lines []string, came, twice uint32, now time.Time, tls bool) []string {
	for n := len(lines); came>>n != 0; n++ {
		if came&(1<<n) != 0 {
			lines = append(lines, c.setCookie(chunkName(c.CookieName, n), "", -1, now, tls))
		}
	}
	for n := 0; twice != 0 && came>>n != 0; n++ { // first, for clients to whom all are one cookie
		if came&(1<<n) != 0 {
			lines = slices.Insert(lines, 0, c.dropTwins(chunkName(c.CookieName, n), now, tls)...)
		}
	}
	return lines
}

// setCookie is a Set-Cookie line for the cookie, or one that makes the browser drop it, for which age is negative. A
// browser drops a cookie only if Domain and Path are those it was set with, and ignores the line unless Secure and
// Partitioned match.
func (c *cookie) setCookie(name, value string, age time.Duration, now time.Time, tls bool) string {
	return line(name, value, c.scope, c.flagsOver(tls), age, now)
}

// Twins of a cookie are others of its name that the browser may hold since a deployment has changed the config: a
// host-only one, which would come before that of a Domain, and one that is Partitioned if the cookie is not, or the
// other way round.

func (c *cookie) mayHaveTwins() bool { return c.Domain != "" || c.twinFlags != "" }

// dropTwins are the lines that make the browser drop the twins.
func (c *cookie) dropTwins(name string, now time.Time, tls bool) (lines []string) {
	flags := c.flagsOver(tls)
	drop := func(scope, flags string) { lines = append(lines, line(name, "", scope, flags, -1, now)) }
	if c.Domain != "" {
		drop(c.hostScope, flags)
	}
	if c.twinFlags != "" {
		drop(c.scope, c.twinFlags)
	}
	if c.Domain != "" && c.twinFlags != "" {
		drop(c.hostScope, c.twinFlags)
	}
	return lines
}

// secureOver reports whether the cookie has the Secure attribute in a response that goes over TLS, or does not.
func (c *cookie) secureOver(tls bool) bool {
	return c.Secure == SecureAlways || c.Secure == SecureAuto && tls
}

func (c *cookie) flagsOver(tls bool) string {
	if c.secureOver(tls) {
		return c.secureFlags
	}
	return c.flags
}

func line(name, value, scope, flags string, age time.Duration, now time.Time) string {
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

// prepareLines prepares what all Set-Cookie lines of the cookie share: the scope before the age, and the flags after
// it. Only a cookie for pages of other sites may once have been Partitioned; as SameSite=None, it is always Secure.
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
	if c.Partitioned || c.SameSite == http.SameSiteNoneMode {
		k.Partitioned = !c.Partitioned
		c.twinFlags = strings.TrimPrefix(k.String(), scope)
	}
}

// covers reports whether a browser sends the cookie with a request like this one, whose target may have a query, or be
// a whole address: RFC 6265 section 5.1.4.
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
