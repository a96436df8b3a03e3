package sessplus

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// A validation collects the mistakes of configs and opts.
type validation struct {
	configs []Config
	opts    *Options
	cookie  string // of the config at hand
	errs    []error
}

func (v *validation) add(field, format string, args ...any) {
	v.errs = append(v.errs, &ConfigError{Cookie: v.cookie, Field: field, Reason: fmt.Sprintf(format, args...)})
}

// check adds the mistake if there is one.
func (v *validation) check(mistake bool, field, format string, args ...any) {
	if mistake {
		v.add(field, format, args...)
	}
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
		v.attributes(c)
		v.lifetimes(c)
		if c.isSecureCookie() {
			v.secureCookie(c)
		} else {
			v.serverSide(i, c)
		}
	}
	return v.errs
}

func (v *validation) options() {
	o := v.opts
	v.check(o.Timeout < 0, "Timeout", "is negative")
	v.check(o.SingleCookie != "", "SingleCookie", "is not built yet")
	v.check(o.Codec != nil && isNil(o.Codec), "Codec", "is a nil pointer")
	v.keys("Keys", o.Keys)
}

func (v *validation) keys(field string, keys []KeyPair) {
	for i, k := range keys {
		if p := k.problem(); p != "" {
			v.add(field, "pair %d: %s", i, p)
		}
	}
}

func (v *validation) name(i int, c *Config) {
	if c.CookieName == "" {
		v.add("CookieName", "is required")
		return
	}
	v.check(!isToken(c.CookieName), "CookieName", "has a character that RFC 6265 does not allow in a cookie's name")
	v.check(len(c.CookieName) > 256, "CookieName", "is longer than 256 bytes")
	for j := range v.configs {
		other := &v.configs[j]
		if j < i {
			v.check(other.CookieName == c.CookieName, "CookieName", "is the name of config %d, too", j)
		}
		v.check(isChunk(c.CookieName, other), "CookieName", "is the name of a chunk of cookie %q", other.CookieName)
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
	v.check(f.rule == includeFields && len(f.names) == 0, "Fields", "includes no field")
	for i, name := range f.names {
		if p := nameProblem(name); p != "" {
			v.add("Fields", "%s", p)
			continue
		}
		v.check(slices.Contains(f.names[:i], name), "Fields", "names %q twice", name)
	}
}

func (v *validation) attributes(c *Config) {
	const needsTLS = "needs Secure: SecureAlways, or browsers refuse the cookie"
	always := c.Secure == SecureAlways
	v.check(c.Secure > SecureNever, "Secure", "is no SecureMode")
	v.check(c.SameSite < 0 || c.SameSite > http.SameSiteNoneMode, "SameSite", "is no http.SameSite")
	v.check(c.SameSite == http.SameSiteNoneMode && !always, "SameSite", "None "+needsTLS)
	v.check(c.Partitioned && !always, "Partitioned", needsTLS)
	if c.Domain != "" {
		probe := http.Cookie{Name: "n", Domain: c.Domain}
		v.check(probe.Valid() != nil, "Domain", "is no domain name")
	}
	if c.Path != "" {
		probe := http.Cookie{Name: "n", Path: c.Path}
		v.check(probe.Valid() != nil || c.Path[0] != '/', "Path", `does not begin with "/", or has a character that is not allowed`)
	}
	// Browsers read the prefixes in any case (RFC 6265bis section 5.7).
	prefix := func(p string) bool {
		return len(c.CookieName) >= len(p) && strings.EqualFold(c.CookieName[:len(p)], p)
	}
	host := prefix("__Host-")
	if (host || prefix("__Secure-") || prefix("__Http-")) && !always {
		v.add("Secure", "the prefix of the cookie's name needs SecureAlways, or browsers refuse the cookie")
	}
	v.check(host && c.Domain != "", "Domain", "a __Host- cookie has none")
	v.check(host && c.Path != "" && c.Path != "/", "Path", `that of a __Host- cookie is "/"`)
	v.check((prefix("__Http-") || prefix("__Host-Http-")) && c.ScriptReadable, "ScriptReadable",
		"the prefix of the cookie's name forbids it")
}

func (v *validation) lifetimes(c *Config) {
	v.check(c.MaxAge < 0, "MaxAge", "is negative")
	v.check(c.MaxAge > maxCookieAge, "MaxAge", "is over 400 days, the longest that browsers keep a cookie")
	v.check(c.PermanentLifetime < 0, "PermanentLifetime", "is negative")
	v.check(c.PermanentLifetime > maxCookieAge, "PermanentLifetime", "is over 400 days, the longest that browsers keep a cookie")
	v.check(c.IdleTimeout < 0, "IdleTimeout", "is negative")
	v.check(c.MaxChunks < 0, "MaxChunks", "is negative")
	v.check(c.MaxChunks > maxChunks, "MaxChunks", "is over %d, more than servers and browsers take", maxChunks)
	v.keys("Keys", c.Keys)
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
		v.add("Backend", "is a nil pointer")
	} else if b, ok := c.Backend.(interface{ problem() string }); ok && b.problem() != "" {
		v.add("Backend", "%s", b.problem())
	}
}

func (v *validation) secureCookie(c *Config) {
	v.check(v.noKeys(c), "Keys", "a secure cookie needs a pair")
	v.check(c.Lifetime < 0, "Lifetime", "is negative, and has no meaning on a secure cookie")
	const serverOnly = "a secure cookie has none: it is for server-side backends"
	v.check(c.IndexBy != "", "IndexBy", serverOnly)
	v.check(c.IdleTimeout > 0, "IdleTimeout", serverOnly)
	v.check(c.Lazy, "Lazy", "a secure cookie comes with the request: there is nothing to load")
	v.check(c.Optional, "Optional", "a secure cookie comes with the request: nothing can be down")
	v.check(c.SignID, "SignID", "a secure cookie has no id")
	if c.BoundTo != "" {
		i := slices.IndexFunc(v.configs, func(o Config) bool { return o.CookieName == c.BoundTo })
		v.check(i < 0 || v.configs[i].isSecureCookie(),
			"BoundTo", "%q is not the cookie of a server-side config", c.BoundTo)
	}
}

func (v *validation) serverSide(i int, c *Config) {
	v.backend(c)
	v.check(c.SignID && v.noKeys(c), "SignID", "needs a pair of keys")
	v.check(c.Lifetime < 0 && c.IdleTimeout <= 0, "Lifetime", "is negative, so the session has no absolute end and needs an IdleTimeout")
	v.check(c.MaxChunks > 1, "MaxChunks", "is for a secure cookie: an id is never split")
	v.check(c.BoundTo != "", "BoundTo", "is for a secure cookie")
	v.check(!printable(c.KeyPrefix) || len(c.KeyPrefix) > 512, "KeyPrefix", "is not printable ASCII of at most 512 bytes")
	if c.IndexBy != "" {
		included := slices.ContainsFunc(v.configs, func(o Config) bool { return o.Fields.includes(c.IndexBy) })
		v.check(!c.Fields.owns(c.IndexBy, included), "IndexBy", "the config does not own the field %q", c.IndexBy)
		v.add("IndexBy", "is not built yet")
	}
	key := func(c *Config) string {
		prefix := c.KeyPrefix
		setDefault(&prefix, "session:")
		return prefix + c.CookieName
	}
	for j := range v.configs[:i] {
		if o := &v.configs[j]; o.CookieName != c.CookieName && sameBackend(o.Backend, c.Backend) && key(o) == key(c) {
			v.add("KeyPrefix", "the prefix and the cookie's name together are those of cookie %q: they would share records", o.CookieName)
		}
	}
}

// sameBackend reports whether two backends keep their records in one place.
func sameBackend(a, b Backend) bool {
	type placed interface{ client() any }
	if a, ok := a.(placed); ok {
		b, ok := b.(placed)
		return ok && a.client() == b.client()
	}
	return a != nil && b != nil && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// isNil reports whether v is nil, or a nil pointer, map, … inside an interface.
func isNil(v any) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan, reflect.Interface:
		return r.IsNil()
	}
	return false
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
