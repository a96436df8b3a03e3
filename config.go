package sessplus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Config is one cookie and the session behind it: which fields it owns, where they are kept, how the cookie is written
// and how long both live. Only CookieName is required.
type Config struct {
	CookieName string  // required, unique; a token of RFC 6265
	Backend    Backend // where the fields are kept; nil: SecureCookie(), in the cookie itself
	Fields     Fields  // which fields it owns; zero value: every field

	Domain         string        // "": the host that set it, and no other
	Path           string        // "": "/"
	Secure         SecureMode    // zero value: SecureAuto; SecureAlways behind a proxy that ends TLS
	SameSite       http.SameSite // 0: Lax; http.SameSiteDefaultMode leaves the attribute out
	ScriptReadable bool          // true leaves HttpOnly off, so that scripts, also injected ones, can read the cookie
	Partitioned    bool          // one cookie per top-level site (CHIPS)

	// MaxAge is how long the browser keeps the cookie, at most 400 days. 0: until the browser closes. The content of a
	// secure cookie is good for as long from when it was last written, or for 30 days if this is 0.
	MaxAge time.Duration

	// MaxChunks is how many cookies a secure cookie may be split over: name, name.1, … 0 and 1: never split.
	MaxChunks int

	Lifetime          time.Duration // of a record, from creation or renewal; 0: 24 h; <0: no absolute end, IdleTimeout needed. No meaning on a secure cookie
	PermanentLifetime time.Duration // in place of Lifetime and MaxAge while the session is permanent, at most 400 days; 0: 31 days
	IdleTimeout       time.Duration // a record ends when it was not used for so long; 0: none. Server-side backends only
	KeyPrefix         string        // of the records' keys, printable ASCII; "": "session:". No meaning on a secure cookie
	SignID            bool          // sign the id in the cookie, so that a made-up one is refused without asking the backend
	Keys              []KeyPair     // newest first; nil: Options.Keys
	IndexBy           string        // a field of this session that names its user
	BoundTo           string        // the server-side cookie without whose session the content of this secure cookie is void

	Lazy     bool // load at the first use of one of its fields, not before the handler
	Optional bool // while the backend is down these fields are absent, and the request is served

	DropIfGone bool // a save to a session that has ended meanwhile is dropped and logged; otherwise it is ErrSessionGone
}

// SecureMode says when a cookie has the Secure attribute.
type SecureMode uint8

const (
	SecureAuto   SecureMode = iota // when the request came to this process over TLS
	SecureAlways                   // on every response: for production, also behind a proxy that ends TLS
	SecureNever                    // never; the cookie travels in clear text when the address is http
)

// Options holds what all cookies of a [Manager] share. The zero value is usable when no cookie needs keys.
type Options struct {
	// Keys seal secure cookies and sign ids, newest first: the first one writes, all of them read. A secure cookie that an
	// older one wrote is written anew with the next response.
	Keys []KeyPair

	// Codec encodes the values of fields. nil: JSON.
	Codec Codec

	// ErrorHandler answers in place of the handler when sessions cannot be loaded or saved. nil: plain text with status 503
	// for ErrUnavailable, 409 for ErrSessionGone and 500 otherwise, and a line in the log. It must write a response. The
	// error is for the log, not for the visitor.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	Logger  *slog.Logger  // nil: slog.Default() at the time of New
	Timeout time.Duration // of one backend call; 0: 5 s

	// OnEvent hears what happens to sessions, in the request's own goroutine and with its context. It must be safe for
	// concurrent use, and quick. nil: none.
	OnEvent func(ctx context.Context, e Event)

	// SingleCookie is the name of the one cookie in which the values of all configs ride. "": one cookie per config.
	SingleCookie string
}

const (
	defaultTimeout           = 5 * time.Second
	defaultLifetime          = 24 * time.Hour
	defaultPermanentLifetime = 31 * 24 * time.Hour
	defaultContentAge        = 30 * 24 * time.Hour  // of a secure cookie without MaxAge
	maxCookieAge             = 400 * 24 * time.Hour // RFC 6265bis section 5.5; browsers cut it there
	maxChunks                = 20
)

// A Manager makes one session out of many for each request. It is safe for concurrent use, starts no goroutine and
// needs no Close.
type Manager struct {
	cookies []*cookie
	routes  routes
	names   map[string]slot // where a cookie of a request belongs

	codec   Codec
	onError func(w http.ResponseWriter, r *http.Request, err error)
	log     *slog.Logger
	timeout time.Duration
	onEvent func(ctx context.Context, e Event)
}

// Format implements [fmt.Formatter] for every verb: a Manager holds keys, and prints none of them.
func (m *Manager) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "sessplus.Manager(%s)", m.cookieNames())
}

// LogValue implements [slog.LogValuer], without the keys.
func (m *Manager) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(m)) }

// MarshalText implements [encoding.TextMarshaler], and so JSON, without the keys.
func (m *Manager) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(m)), nil }

func (m *Manager) cookieNames() string {
	names := make([]string, len(m.cookies))
	for i, c := range m.cookies {
		names[i] = c.CookieName
	}
	return strings.Join(names, ", ")
}

// A cookie is a Config that New has checked and completed. It is only read after New.
type cookie struct {
	Config
	index   int
	batch   batcher // of a backend that makes several calls in one round trip, else nil
	sealer  *sealer // of a secure cookie, else nil
	signer  *signer // with SignID, else nil
	boundTo *cookie // with BoundTo, else nil
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

// alive reports whether a record that a backend returned has not ended. Lifetime counts as it is configured now, so that
// a shorter one also ends the sessions that there are already.
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

// contentAge is how long the content of a secure cookie is good for.
func (c *cookie) contentAge(permanent bool) time.Duration {
	if age := c.maxAge(permanent); age > 0 {
		return age
	}
	return defaultContentAge
}

// New makes a Manager of the configs, in whose order several owners of a field are read. opts may be nil; no configs stand
// for one secure cookie named "session" that owns every field. The error joins a [ConfigError] for every mistake in
// every config. What is given is copied, so later changes of it have no effect.
func New(configs []Config, opts *Options) (*Manager, error) {
	if opts == nil {
		opts = &Options{}
	}
	if len(configs) == 0 {
		configs = []Config{{CookieName: "session"}}
	}
	v := validation{configs: configs, opts: opts}
	if errs := v.all(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	m := &Manager{
		codec: opts.Codec, onError: opts.ErrorHandler, log: opts.Logger,
		timeout: opts.Timeout, onEvent: opts.OnEvent,
	}
	if m.codec == nil {
		m.codec = jsonCodec{}
	}
	if m.log == nil {
		m.log = slog.Default()
	}
	if m.onError == nil {
		m.onError = m.defaultErrorHandler
	}
	if m.timeout == 0 {
		m.timeout = defaultTimeout
	}
	for i, c := range configs {
		m.cookies = append(m.cookies, newCookie(i, c, opts.Keys))
	}
	for _, c := range m.cookies {
		if i := slices.IndexFunc(m.cookies, func(o *cookie) bool { return o.CookieName == c.BoundTo }); i >= 0 {
			c.boundTo = m.cookies[i]
		}
	}
	m.routes = newRoutes(m.cookies)
	m.names = slots(m.cookies)
	return m, nil
}

// newCookie completes a config that is valid.
func newCookie(index int, c Config, keys []KeyPair) *cookie {
	if c.Backend == nil {
		c.Backend = SecureCookie()
	}
	if c.Keys == nil {
		c.Keys = keys
	}
	c.Keys = slices.Clone(c.Keys)
	for i := range c.Keys {
		c.Keys[i] = c.Keys[i].clone()
	}
	setDefault(&c.Path, "/")
	setDefault(&c.SameSite, http.SameSiteLaxMode)
	setDefault(&c.Lifetime, defaultLifetime)
	setDefault(&c.PermanentLifetime, defaultPermanentLifetime)
	setDefault(&c.KeyPrefix, "session:")
	setDefault(&c.MaxChunks, 1)
	c.Fields.names = slices.Clone(c.Fields.names)
	k := &cookie{Config: c, index: index}
	if c.Backend == SecureCookie() {
		k.sealer = newSealer(c.Keys)
	} else {
		k.batch, _ = c.Backend.(batcher)
		if c.SignID {
			k.signer = newSigner(c.Keys)
		}
	}
	return k
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

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
		if kind := v.backend(c); kind == secureCookieKind {
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

type backendKind uint8

const (
	secureCookieKind backendKind = iota
	serverSideKind
)

func (v *validation) backend(c *Config) backendKind {
	if c.Backend == nil || c.Backend == SecureCookie() {
		return secureCookieKind
	}
	if isNil(c.Backend) {
		v.add("Backend", "is a nil pointer")
	} else if b, ok := c.Backend.(interface{ problem() string }); ok && b.problem() != "" {
		v.add("Backend", "%s", b.problem())
	}
	return serverSideKind
}

func (v *validation) secureCookie(c *Config) {
	v.check(c.Keys == nil && len(v.opts.Keys) == 0 || c.Keys != nil && len(c.Keys) == 0, "Keys", "a secure cookie needs a pair")
	v.check(c.Lifetime < 0, "Lifetime", "is negative, and has no meaning on a secure cookie")
	const serverOnly = "a secure cookie has none: it is for server-side backends"
	v.check(c.IndexBy != "", "IndexBy", serverOnly)
	v.check(c.IdleTimeout > 0, "IdleTimeout", serverOnly)
	v.check(c.Lazy, "Lazy", "a secure cookie comes with the request: there is nothing to load")
	v.check(c.Optional, "Optional", "a secure cookie comes with the request: nothing can be down")
	v.check(c.SignID, "SignID", "a secure cookie has no id")
	if c.BoundTo != "" {
		i := slices.IndexFunc(v.configs, func(o Config) bool { return o.CookieName == c.BoundTo })
		v.check(i < 0 || v.configs[i].Backend == nil || v.configs[i].Backend == SecureCookie(),
			"BoundTo", "%q is not the cookie of a server-side config", c.BoundTo)
	}
}

func (v *validation) serverSide(i int, c *Config) {
	v.check(c.SignID && c.Keys == nil && len(v.opts.Keys) == 0 || c.SignID && c.Keys != nil && len(c.Keys) == 0,
		"SignID", "needs a pair of keys")
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
	if a, ok := a.(batcher); ok {
		if b, ok := b.(batcher); ok && !isNil(a) && !isNil(b) {
			return a.client() == b.client()
		}
	}
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && a == b
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

// String says whether the cookie has the Secure attribute.
func (s SecureMode) String() string {
	switch s {
	case SecureAuto:
		return "auto"
	case SecureAlways:
		return "always"
	case SecureNever:
		return "never"
	}
	return fmt.Sprintf("SecureMode(%d)", uint8(s))
}

// Format implements [fmt.Formatter]: the config without its keys.
func (c Config) Format(f fmt.State, _ rune) {
	backend := "secure cookie"
	if c.Backend != nil {
		backend = backendName(c.Backend)
	}
	io.WriteString(f, fmt.Sprintf("sessplus.Config(%s: %s in %s)", c.CookieName, c.Fields, backend))
}
