package sessplus

import (
	"cmp"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	maxCookieName = 256
	maxKeyPrefix  = 512
)

// A validation collects the mistakes of configs and opts.
type validation struct {
	configs []Config
	opts    *Options
	cookie  string // of the current config
	errs    []error
}

// add notes a mistake: the value of the field, unless it is nil because it may hold a key, and what is wrong with it.
func (v *validation) add(field string, value any, format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	if value != nil {
		reason = quoteValue(value) + " " + reason
	}
	v.errs = append(v.errs, &ConfigError{Cookie: v.cookie, Field: field, Reason: reason})
}

// check adds the mistake if there is one.
func (v *validation) check(mistake bool, field string, value any, format string, args ...any) {
	if mistake {
		v.add(field, value, format, args...)
	}
}

// quoteValue is how a ConfigError shows a value.
func quoteValue(value any) string {
	switch value := value.(type) {
	case string:
		return quote(value)
	case http.SameSite:
		if value == http.SameSiteNoneMode {
			return "None"
		}
	}
	return fmt.Sprint(value)
}

func (v *validation) all() []error {
	v.options()
	for i := range v.configs {
		c := &v.configs[i]
		v.cookie = c.CookieName
		if v.cookie == "" {
			v.cookie = fmt.Sprintf("#%d", i)
		}
		v.name(i, c)
		v.fields(c)
		v.imports(c)
		v.adoptions(c)
		v.attributes(c)
		v.domain(c)
		v.lifetimes(c)
		v.deviceBound(c)
		if c.isSecureCookie() {
			v.secureCookie(c)
		} else {
			v.serverSide(i, c)
		}
	}
	v.singleCookie()
	return v.errs
}

func (v *validation) options() {
	o := v.opts
	v.check(o.Timeout < 0, "Timeout", o.Timeout, "is negative; 0 stands for %v", defaultTimeout)
	v.check(o.Timeout > 0 && o.Timeout < time.Millisecond, "Timeout", o.Timeout,
		"is below 1ms: in Go a number alone counts nanoseconds; five seconds are 5*time.Second")
	if o.Codec != nil && isNil(o.Codec) {
		v.add("Codec", nil, "%T is the type of a nil pointer; leave the Codec nil for JSON", o.Codec)
	}
	v.keys("Keys", o.Keys)
	if p := o.DevicePath; p != "" {
		v.check(p[0] != '/' || path.Clean(p) != p || p == "/" || !printable(p) || strings.ContainsAny(p, "\"\\%?#;"), "DevicePath", p,
			`is no path of plain characters that begins with "/" and does not end with it, as %s`, quote(defaultDevicePath))
	}
}

func (v *validation) keys(field string, keys []KeyPair) {
	for i, k := range keys {
		if p := k.problem(); p != "" {
			v.add(field, nil, "pair %d: %s", i, p)
		}
	}
}

func (v *validation) name(i int, c *Config) {
	name := c.CookieName
	if name == "" {
		v.add("CookieName", name, `is no name; each config needs one, as in "session"`)
		return
	}
	v.check(!isToken(name), "CookieName", name, "has a character that RFC 6265 does not allow in a cookie's name; take letters, digits, - and _")
	v.check(len(name) > maxCookieName, "CookieName", name, "has %d bytes; %d is the most", len(name), maxCookieName)
	for j := range v.configs {
		other := &v.configs[j]
		v.check(j < i && other.CookieName == name, "CookieName", name, "is the name of config #%d, too; give this one another name", j)
		v.check(isChunk(name, other), "CookieName", name, "is the name of a chunk of cookie %s, whose MaxChunks is %d; give this one another name",
			quote(other.CookieName), other.MaxChunks)
	}
}

// isChunk reports whether name is that of a chunk of c.
func isChunk(name string, c *Config) bool {
	for n := 1; n < c.MaxChunks && n < maxChunks; n++ {
		if name == chunkName(c.CookieName, n) {
			return true
		}
	}
	return false
}

func (v *validation) fields(c *Config) {
	f := c.Fields
	v.check(f.rule == includeFields && len(f.names) == 0, "Fields", nil, "Include() names no field; Auto() owns all that no other config includes")
	for i, name := range f.names {
		v.check(nameProblem(name) != "", "Fields", name, "names no field: the name is valid UTF-8 of 1 to %d bytes", maxFieldName)
		v.check(slices.Contains(f.names[:i], name), "Fields", name, "is there twice; once is enough")
	}
}

func (v *validation) attributes(c *Config) {
	const needsTLS = "needs Secure: SecureAlways, or browsers refuse the cookie"
	always := c.Secure == SecureAlways
	v.check(c.Secure > SecureNever, "Secure", c.Secure, "is none of SecureAuto, SecureAlways and SecureNever")
	v.check(c.SameSite < 0 || c.SameSite > http.SameSiteNoneMode, "SameSite", c.SameSite,
		"is none of http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode and http.SameSiteDefaultMode")
	v.check(c.SameSite == http.SameSiteNoneMode && !always, "SameSite", c.SameSite, needsTLS)
	v.check(c.Partitioned && !always, "Partitioned", c.Partitioned, needsTLS)
	if c.Path != "" {
		probe := http.Cookie{Name: "n", Path: c.Path}
		v.check(c.Path[0] != '/', "Path", c.Path, `does not begin with "/"`)
		v.check(probe.Valid() != nil, "Path", c.Path, "has a character that is not allowed; take printable ASCII without semicolons")
	}
	v.prefixes(c)
}

// prefixes finds why browsers would refuse the cookie because of the prefix of its name, which is case-insensitive (RFC
// 6265bis section 5.7).
func (v *validation) prefixes(c *Config) {
	always := c.Secure == SecureAlways
	prefix := func(p string) bool {
		return len(c.CookieName) >= len(p) && strings.EqualFold(c.CookieName[:len(p)], p)
	}
	host := prefix("__Host-")
	v.check((host || prefix("__Secure-") || prefix("__Http-")) && !always, "Secure", c.Secure,
		"is not enough: the prefix of the cookie's name needs SecureAlways, or browsers refuse the cookie")
	v.check(host && c.Domain != "", "Domain", c.Domain, "makes browsers refuse a __Host- cookie; leave it empty")
	v.check(host && c.Path != "" && c.Path != "/", "Path", c.Path, `makes browsers refuse a __Host- cookie, whose path is "/"`)
	v.check((prefix("__Http-") || prefix("__Host-Http-")) && c.ScriptReadable, "ScriptReadable", true,
		"makes browsers refuse the cookie, because of the prefix of its name; leave it false")
}

// domain finds why browsers would drop the cookie, so that every request would begin a new session.
func (v *validation) domain(c *Config) {
	const example = `as in "example.com", or leave it empty for the host that sets the cookie`
	name := strings.TrimPrefix(c.Domain, ".") // browsers ignore it (RFC 6265 section 5.2.3)
	probe := http.Cookie{Name: "n", Domain: c.Domain}
	switch {
	case c.Domain == "":
	case probe.Valid() != nil:
		v.add("Domain", c.Domain, "is no domain name; give it without scheme, port and path, and letters beyond ASCII as xn--…, "+example)
	case strings.HasSuffix(name, "."):
		v.add("Domain", c.Domain, "ends in a dot, for which browsers drop the cookie; without it the domain is %s", quote(strings.TrimSuffix(name, ".")))
	case !strings.Contains(name, ".") && !strings.EqualFold(name, "localhost"):
		v.add("Domain", c.Domain, "is one label, for which browsers drop the cookie; give a domain of your own, "+example)
	}
}

func (v *validation) lifetimes(c *Config) {
	const tooLong = "is over 400 days, the longest that browsers keep a cookie"
	v.check(c.MaxAge < 0, "MaxAge", c.MaxAge, "is negative; 0 is until the browser closes")
	v.check(c.MaxAge > maxCookieAge, "MaxAge", c.MaxAge, tooLong)
	v.short("MaxAge", c.MaxAge, time.Second)
	v.check(c.PermanentLifetime < 0, "PermanentLifetime", c.PermanentLifetime, "is negative; 0 stands for %v", defaultPermanentLifetime)
	v.check(c.PermanentLifetime > maxCookieAge, "PermanentLifetime", c.PermanentLifetime, tooLong)
	v.short("PermanentLifetime", c.PermanentLifetime, time.Second)
	v.short("Lifetime", c.Lifetime, time.Millisecond)
	v.check(c.IdleTimeout < 0, "IdleTimeout", c.IdleTimeout, "is negative; 0 is for none")
	v.short("IdleTimeout", c.IdleTimeout, time.Millisecond)
	v.check(c.RotateEvery < 0, "RotateEvery", c.RotateEvery, "is negative; 0 is for never")
	v.short("RotateEvery", c.RotateEvery, time.Millisecond)
	v.check(c.MaxChunks < 0, "MaxChunks", c.MaxChunks, "is negative; 0 is for a cookie that is never split")
	v.check(c.MaxChunks > maxChunks, "MaxChunks", c.MaxChunks, "is more than servers and browsers take; %d is the most", maxChunks)
	v.keys("Keys", c.Keys)
}

// short finds a number of seconds passed as a duration, as in gorilla/sessions and flask.
func (v *validation) short(field string, d, least time.Duration) {
	v.check(d > 0 && d < least, field, d, "is below %v: in Go a number alone counts nanoseconds, where gorilla counts seconds; a day is 24*time.Hour", least)
}

// isSecureCookie reports whether the fields are kept in the cookie itself.
func (c *Config) isSecureCookie() bool { return c.Backend == nil || c.Backend == SecureCookie() }

// noKeys reports whether there is nothing to seal or sign the cookie with.
func (v *validation) noKeys(c *Config) bool {
	if c.Keys != nil {
		return len(c.Keys) == 0
	}
	return len(v.opts.Keys) == 0
}

func (v *validation) backend(c *Config) {
	if isNil(c.Backend) {
		v.add("Backend", nil, "%T is the type of a nil pointer; leave the Backend nil for a secure cookie", c.Backend)
	} else if b, ok := c.Backend.(interface{ problem() string }); ok && b.problem() != "" {
		v.add("Backend", nil, "%s", b.problem())
	}
}

const pairHint = "in Options.Keys or Config.Keys: DeriveKeyPair makes one of a secret, GenerateKeyPair a random one for tests"

func (v *validation) secureCookie(c *Config) {
	v.check(v.noKeys(c), "Keys", nil, "a secure cookie needs a pair "+pairHint)
	v.check(c.Lifetime < 0, "Lifetime", c.Lifetime, "is negative, and has no meaning on a secure cookie, whose content is good for its MaxAge")
	const noLoad = "has no meaning on a secure cookie, which comes with the request; leave it false"
	v.check(c.IndexBy != "", "IndexBy", c.IndexBy, "has no meaning on a secure cookie: it is for server-side backends")
	v.check(c.IdleTimeout > 0, "IdleTimeout", c.IdleTimeout,
		"has no meaning on a secure cookie, whose content is good for its MaxAge: it is for server-side backends")
	v.check(c.RotateEvery > 0, "RotateEvery", c.RotateEvery, "has no meaning on a secure cookie, which has no id: it is for server-side backends")
	v.check(c.Lazy, "Lazy", true, noLoad)
	v.check(c.Optional, "Optional", true, noLoad)
	v.check(c.SignID, "SignID", true, "has no meaning on a secure cookie, which has no id and is signed anyway; leave it false")
	if c.BoundTo != "" {
		var names []string
		for _, o := range v.configs {
			if !o.isSecureCookie() {
				names = append(names, o.CookieName)
			}
		}
		v.check(!slices.Contains(names, c.BoundTo), "BoundTo", c.BoundTo, "is not the cookie of a server-side config; those are %q", names)
	}
}

func (v *validation) serverSide(i int, c *Config) {
	v.backend(c)
	v.check(c.SignID && v.noKeys(c), "SignID", true, "needs a pair of keys "+pairHint)
	v.check(c.Lifetime < 0 && c.IdleTimeout <= 0, "Lifetime", c.Lifetime,
		"is negative, so the session has no absolute end and needs an IdleTimeout")
	v.check(c.MaxChunks > 1, "MaxChunks", c.MaxChunks, "is for a secure cookie: an id is never split; leave it 0")
	v.check(c.BoundTo != "", "BoundTo", c.BoundTo, "is for a secure cookie; leave it empty")
	v.check(!printable(c.KeyPrefix) || len(c.KeyPrefix) > maxKeyPrefix, "KeyPrefix", c.KeyPrefix,
		"is not printable ASCII, without spaces, of at most %d bytes", maxKeyPrefix)
	if c.IndexBy != "" {
		included := slices.ContainsFunc(v.configs, func(o Config) bool { return o.Fields.includes(c.IndexBy) })
		v.check(!c.Fields.owns(c.IndexBy, included), "IndexBy", c.IndexBy, "is not a field of this config, which owns %v", c.Fields)
		if _, ok := c.Backend.(Indexer); !ok && c.Backend != nil {
			v.add("IndexBy", c.IndexBy, "needs a backend that is an Indexer; %s is none", backendName(c.Backend))
		}
	}
	prefix := func(c *Config) string { return cmp.Or(c.KeyPrefix, defaultKeyPrefix) }
	key := func(c *Config) string { return prefix(c) + c.CookieName }
	for j := range v.configs[:i] {
		if o := &v.configs[j]; o.CookieName != c.CookieName && sameBackend(o.Backend, c.Backend) && key(o) == key(c) {
			v.add("KeyPrefix", prefix(c), "and the cookie's name together are those of cookie %s: they would share records; give one of them another prefix",
				quote(o.CookieName))
		}
	}
}

// deviceBound finds settings that browsers would refuse to bind, or that would lock visitors out.
func (v *validation) deviceBound(c *Config) {
	d := c.DeviceBound
	if d == 0 {
		return
	}
	refuse := func(mistake bool, format string, args ...any) { v.check(mistake, "DeviceBound", d, format, args...) }
	refuse(d < minDeviceBound, "is below %v, for which browsers do not sign often enough; 10*time.Minute is usual, 0 is off", minDeviceBound)
	for _, life := range []struct {
		name string
		d    time.Duration
	}{
		{"Lifetime", cmp.Or(c.Lifetime, defaultLifetime)}, {"PermanentLifetime", cmp.Or(c.PermanentLifetime, defaultPermanentLifetime)},
		{"IdleTimeout", c.IdleTimeout},
	} {
		refuse(life.d > 0 && d >= life.d, "is not below the %s of %v, within which a proof has to be renewed", life.name, life.d)
	}
	const noScope = "is for a cookie of one host and all its pages: "
	refuse(c.Domain != "", noScope+"leave the Domain empty, not %s", quote(c.Domain))
	refuse(c.Path != "" && c.Path != "/", noScope+`the Path must be "/", not %s`, quote(c.Path))
	refuse(c.Partitioned, "is not for cookies that are Partitioned, which browsers do not bind")
	refuse(c.SameSite == http.SameSiteNoneMode, "is not for SameSite=None, with which other sites could end the browser's part of it")
	refuse(c.Secure == SecureNever, "needs a cookie that is Secure: SecureAlways or SecureAuto")
	refuse(v.opts.SingleCookie != "", "needs a cookie of its own beside that of the session, which SingleCookie does not leave")
	for _, suffix := range []string{boundSuffix, reloadSuffix} {
		other := func(o Config) bool { return o.CookieName == c.CookieName+suffix }
		refuse(slices.ContainsFunc(v.configs, other), "uses the cookie %s, which another config has", quote(c.CookieName+suffix))
	}
	if c.isSecureCookie() {
		refuse(true, "has no meaning on a secure cookie, which has no record to keep a key in: it is for server-side backends")
		return
	}
	refuse(v.noKeys(c), "needs a pair of keys "+pairHint)
	if _, ok := c.Backend.(DeviceKeeper); !ok {
		refuse(true, "needs a backend that keeps keys, which is a DeviceKeeper; %s is none", backendName(c.Backend))
	}
}

// isToken reports whether s is a token, the form of a cookie's name (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
