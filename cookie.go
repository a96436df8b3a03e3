package sessplus

import (
	"cmp"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A cookie is a Config that New has checked and completed. It is only read after New, except for strayed.
type cookie struct {
	Config
	index   int
	batch   batcher  // of a backend that makes several calls in one round trip, else nil
	sealer  *sealer  // of a secure cookie, else nil
	signer  *signer  // with SignID, else nil
	imports *imports // with Import, else nil
	adopts  []int    // the cookies that Adopt names
	boundTo *cookie  // with BoundTo, else nil
	device  *dbsc    // with DeviceBound, else nil
	codec   Codec    // of the Manager
	store   string   // the name of its backend
	packed  bool     // its value is part of Options.SingleCookie

	scope, hostScope, flags, secureFlags, twinFlags string // attributes of the Set-Cookie lines for it

	strayed atomic.Bool // the log has said that a session was created outside its Path
}

// lifetime is the time from creation to the absolute end of a record, or negative if it has none.
func (c *cookie) lifetime(permanent bool) time.Duration {
	if permanent {
		return c.PermanentLifetime
	}
	return c.Lifetime
}

// expiry is when a record ends that was created then and is used now.
func (c *cookie) expiry(created, now time.Time, permanent bool) time.Time {
	var end time.Time
	if life := c.lifetime(permanent); life > 0 {
		end = created.Add(life)
	}
	if c.IdleTimeout > 0 {
		if idle := now.Add(c.IdleTimeout); end.IsZero() || idle.Before(end) {
			end = idle
		}
	}
	return end
}

// moves reports whether a use at that time should move the expiry of the record, because it would move by a tenth of
// IdleTimeout, or because a deployment has changed the config. It returns the new expiry, and whether it is earlier
// than the stored one.
func (c *cookie) moves(r *Record, now time.Time, permanent bool) (end time.Time, due, earlier bool) {
	end = c.expiry(r.Created, now, permanent)
	if r.Origin != "" {
		if until := r.until(); !until.IsZero() && until.Before(end) {
			end = until // an imported session keeps its end
		}
	}
	slack := time.Second // an end set by Lifetime does not change with use
	if c.IdleTimeout > 0 && (c.IdleTimeout/10 < slack || end.Equal(now.Add(c.IdleTimeout))) {
		slack = c.IdleTimeout / 10
	}
	ahead := end.Sub(r.Expires)
	return end, ahead.Abs() >= slack, -ahead >= slack
}

// alive reports whether a record that a backend returned has not ended. The current Lifetime applies, so that a shorter
// one also ends existing sessions.
func (c *cookie) alive(r *Record, now time.Time) bool {
	life := c.lifetime(r.Permanent)
	return r.Expires.After(now) && (life < 0 || r.Created.Add(life).After(now))
}

// maxAge is how long the browser keeps the cookie, 0 until it closes.
func (c *cookie) maxAge(permanent bool) time.Duration {
	if permanent {
		return c.PermanentLifetime
	}
	return c.MaxAge
}

// contentAge is how long the content of a secure cookie is valid.
func (c *cookie) contentAge(permanent bool) time.Duration {
	if age := c.maxAge(permanent); age > 0 {
		return age
	}
	return defaultContentAge
}

// newCookie completes a config that is valid.
func newCookie(index int, c Config, keys []KeyPair) *cookie {
	if c.Backend == nil {
		c.Backend = SecureCookie()
	}
	if c.Keys != nil {
		keys = c.Keys
	}
	past := newImports(&c, keys)
	c.Import, c.Adopt = nil, slices.Clone(c.Adopt)
	c.Keys = nil // the Manager only keeps the codecs made of them
	c.Path = cmp.Or(c.Path, "/")
	c.SameSite = cmp.Or(c.SameSite, http.SameSiteLaxMode)
	c.Lifetime = cmp.Or(c.Lifetime, defaultLifetime)
	c.PermanentLifetime = cmp.Or(c.PermanentLifetime, defaultPermanentLifetime)
	c.KeyPrefix = cmp.Or(c.KeyPrefix, defaultKeyPrefix)
	c.MaxChunks = max(c.MaxChunks, 1)
	c.Fields.names = slices.Clone(c.Fields.names)
	k := &cookie{Config: c, index: index, store: backendName(c.Backend), imports: past}
	k.prepareLines()
	if c.Backend == SecureCookie() {
		k.sealer = newSealer(keys)
	} else {
		k.batch, _ = c.Backend.(batcher)
		if c.SignID {
			k.signer = newSigner(keys)
		}
		if c.DeviceBound > 0 {
			k.prepareDevice(keys)
		}
	}
	return k
}

// A candidate is a value that came under the name of a cookie, or of one of its chunks.
type candidate struct {
	text  string
	chunk int
}

// maxCandidates is how many well-formed cookies of one name are tried: a browser sends one per Domain and Path that it
// has.
const maxCandidates = 8

// A slot is where the value of a cookie belongs: the config, and the chunk of a secure cookie. Chunks from MaxChunks on
// are what a former config may have left behind.
type slot struct {
	cookie, chunk int
}

// proofSlot stands for the chunk of a cookie that proves the device.
const proofSlot = -1

// slots finds the slot of every name that a request may bring.
func slots(cookies []*cookie) map[string]slot {
	m := make(map[string]slot)
	for i, c := range cookies {
		for n := range c.MaxChunks {
			m[chunkName(c.CookieName, n)] = slot{i, n}
		}
		if c.device != nil {
			m[c.device.bound.CookieName] = slot{i, proofSlot}
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

// readCookies passes each cookie of the request that has a slot to put.
func (m *Manager) readCookies(r *http.Request, put func(s slot, value string)) {
	eachCookie(r, func(name, value string) {
		if s, ok := m.names[name]; ok {
			put(s, value)
		}
	})
}

// eachCookie passes each cookie of the request to f, in the order of the header. It parses the Cookie header by RFC
// 6265 section 4.2.1, and skips what is malformed.
func eachCookie(r *http.Request, f func(name, value string)) {
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			name, value, found := strings.Cut(textproto.TrimString(pair), "=")
			if !found {
				continue
			}
			if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			f(textproto.TrimString(name), value)
		}
	}
}

// bring notes a value that came with the request. The form of the first value of its name is checked when it is used;
// of several, malformed ones take no room from the others.
func (p *part) bring(c candidate) {
	if c.chunk == proofSlot {
		p.bringProof(c.text)
		return
	}
	bit := uint32(1) << c.chunk
	if c.chunk >= p.MaxChunks { // to be expired, if it is a chunk
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

// malformed notes a value that cannot belong to this cookie. It notes no more than are tried.
func (p *part) malformed(c candidate) bool {
	err := p.form(c)
	if err != nil && c.chunk == 0 && p.stray(p.CookieName, c.text, err) {
		return true
	}
	switch err {
	case nil:
		return false
	case errSplit:
		p.split = min(p.split+1, maxCandidates)
	default:
		p.refused = min(p.refused+1, maxCandidates)
	}
	return true
}

// form returns nil for a value that may have been set as this cookie, as far as that is cheap to check.
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
