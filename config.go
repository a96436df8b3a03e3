package sessplus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Config is one cookie and the session behind it: which fields it owns, where they are kept, how the cookie is written
// and how long both live. Only CookieName is required.
type Config struct {
	CookieName string  // required, unique; a token of RFC 6265
	Backend    Backend // where the fields are kept; nil: SecureCookie(), in the cookie itself
	Fields     Fields  // which fields it owns; zero value: every field

	Domain         string        // "": the host that set it, and no other; else "localhost" or two labels and more. Where both kinds came, a save expires that of the host
	Path           string        // "": "/"; a session that is made for a request outside of it is logged, once
	Secure         SecureMode    // zero value: SecureAuto; behind a proxy that ends TLS SecureAlways, or Options.SecureRequest
	SameSite       http.SameSite // 0: Lax; http.SameSiteDefaultMode leaves the attribute out
	ScriptReadable bool          // true leaves HttpOnly off, so that scripts, also injected ones, can read the cookie
	Partitioned    bool          // one cookie per top-level site (CHIPS)

	// MaxAge is how long the browser keeps the cookie, from a second to 400 days. 0: until the browser closes. The content of a
	// secure cookie is good for as long from when it was last written, or for 30 days if this is 0.
	MaxAge time.Duration

	// MaxChunks is how many cookies a secure cookie may be split over: name, name.1, … 0 and 1: never split. What a larger
	// one has left in the browser is expired by the next response that sets or drops the cookie.
	MaxChunks int

	// A deployment that changes one of these three moves the end of existing sessions, to earlier or later, at their next
	// use.
	Lifetime          time.Duration // of a record, from creation or renewal, a millisecond or more; 0: 24 h; <0: no absolute end, IdleTimeout needed. No meaning on a secure cookie
	PermanentLifetime time.Duration // in place of Lifetime and MaxAge while the session is permanent, from a second to 400 days; 0: 31 days
	IdleTimeout       time.Duration // a record ends if no request uses (reads or changes) it for this long; 0: none

	RotateEvery time.Duration // 0: never; else the id is renewed at the first use after so long, a millisecond or more; a stream should Reload once a minute to keep up. Server-side backends only
	KeyPrefix   string        // of the records' keys, printable ASCII; "": "session:". No meaning on a secure cookie
	SignID      bool          // sign the id in the cookie, so that a made-up one is refused without asking the backend
	Keys        []KeyPair     // newest first; nil: Options.Keys
	BoundTo     string        // the server-side cookie without whose session the content of this secure cookie is void

	// DeviceBound binds sessions to a key that cannot leave the visitor's device, in browsers that can do it (Device Bound
	// Session Credentials), and is how long a proof of that key is good for: 4 minutes or more, 10 are usual. 0: off.
	// Only for a server-side backend that is a [DeviceKeeper], with Keys, a cookie that is Secure, without Domain, and for
	// the Path "/". EXPERIMENTAL: see docs/device.md.
	DeviceBound time.Duration

	// IndexBy is a field of this session that names its user, by text, a number or a bool, for [Manager.Sessions], Revoke,
	// RevokeAll and Edit. Only for a server-side backend that is an [Indexer]. "": none.
	IndexBy string

	Lazy     bool // load at the first use of one of its fields, not before the handler
	Optional bool // while the backend is down these fields are absent, and the request is served

	DropIfGone bool // a save to a session that has ended meanwhile is dropped and logged; otherwise it is ErrSessionGone
}

// SecureMode says when a cookie has the Secure attribute.
type SecureMode uint8

const (
	SecureAuto   SecureMode = iota // when the request came over TLS: to this process, or as Options.SecureRequest says
	SecureAlways                   // on every response: for production, also behind a proxy that ends TLS
	SecureNever                    // never; the cookie travels in clear text when the address is http
)

// Options holds what all cookies of a [Manager] share. The zero value is usable when no cookie needs keys.
type Options struct {
	// Keys seal secure cookies and sign ids, newest first: the first one writes, all of them read, also when they differ in
	// Hash or Block only. A secure cookie that an older one wrote is written anew with the next response.
	Keys []KeyPair

	// Codec encodes the values of fields. nil: JSON, which takes no text that is not valid UTF-8, no struct of which nothing
	// is exported, and no error.
	Codec Codec

	// ErrorHandler answers in place of the handler when sessions cannot be loaded or saved. nil: plain text with status 503
	// for ErrUnavailable, 409 for ErrSessionGone and 500 otherwise, and a line in the log. It must write a response. The
	// error is for the log, not for the visitor. The request carries the session: what could be loaded can be read, and after a
	// failed load nothing of it is saved.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	Logger  *slog.Logger  // nil: slog.Default() at the time of New
	Timeout time.Duration // of one backend call, a millisecond or more; 0: 5 s

	// OnEvent hears what happens to sessions, in the request's own goroutines and with its context. It must be safe for
	// concurrent use and quick, and must not use the session. nil: none.
	OnEvent func(ctx context.Context, e Event)

	// SingleCookie is the name of one cookie that carries the values of all configs, for hosts that pass on no other:
	// "__session" behind Firebase Hosting. The CookieNames then only name the configs. Configs must agree on the
	// attributes of a cookie. Each value ends at its own time; one without a MaxAge may outlive the browser session if
	// another has one. "": one cookie per config.
	//
	// The cookie is written as a whole. A response that would write it while one of its sessions is renewed or ended is
	// [ErrSessionGone], so that it undoes no login. But of two concurrent responses that change secure cookies, or one of
	// which is the first login of a visitor, the browser keeps the later one: change little beside a login.
	SingleCookie string

	// DevicePath is where [Manager.Handler] answers browsers that register a device's key, or prove that they have it, for
	// configs with DeviceBound. "": "/.sessplus/device". Nothing in front of the Handler may limit, redirect or refuse
	// requests below it: see docs/device.md.
	DevicePath string

	// SecureRequest reports whether a request came over TLS, for [SecureAuto]: behind a trusted proxy that says so in a header
	// which visitors cannot set. It is asked once per request, concurrently. nil: r.TLS != nil.
	SecureRequest func(r *http.Request) bool
}

// Format implements [fmt.Formatter] for every verb: the options without their keys.
func (o Options) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "sessplus.Options(%d pairs of keys, timeout %v)", len(o.Keys), o.Timeout)
}

const (
	defaultTimeout           = 5 * time.Second
	defaultLifetime          = 24 * time.Hour
	defaultPermanentLifetime = 31 * 24 * time.Hour
	defaultContentAge        = 30 * 24 * time.Hour  // of a secure cookie without MaxAge
	maxCookieAge             = 400 * 24 * time.Hour // RFC 6265bis section 5.5; browsers cut it there
	defaultKeyPrefix         = "session:"
	maxChunks                = 20
)

// A Manager makes one session out of many for each request. It is safe for concurrent use, starts no goroutine and
// needs no Close.
type Manager struct {
	cookies []*cookie
	routes  routes
	names   map[string]slot // where a cookie of a request belongs
	single  *cookie         // of Options.SingleCookie, else nil
	every   []int           // all cookies
	eager   []int           // those that are loaded before the handler
	ages    bool            // one of them does
	indexes bool            // one of them has an IndexBy

	endpoints map[string]deviceEndpoint // by their paths; nil without DeviceBound

	codec   Codec
	onError func(w http.ResponseWriter, r *http.Request, err error)
	secure  func(r *http.Request) bool
	log     *slog.Logger
	timeout time.Duration
	onEvent func(ctx context.Context, e Event)

	rejected    rejections // what the log has said of them
	foreign     namesTold
	takenOver   atomic.Bool // it was said what to check of connections that are taken over
	begunBefore atomic.Bool // it was said that a response began before its session was saved
}

// String names the cookies.
func (m *Manager) String() string { return "sessplus.Manager(" + m.cookieNames() + ")" }

func (m *Manager) cookieNames() string {
	names := make([]string, len(m.cookies))
	for i, c := range m.cookies {
		names[i] = c.CookieName
	}
	return strings.Join(names, ", ")
}

// New makes a Manager of the configs, in whose order several owners of a field are read. opts may be nil; no configs stand
// for one secure cookie named "session" that owns every field. The error joins a [ConfigError] for every mistake in
// every config. What is given is copied, so later changes of it have no effect. Several configs that own every field,
// because their Fields is the zero value, are allowed, and named in the log.
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
		timeout: opts.Timeout, onEvent: opts.OnEvent, secure: opts.SecureRequest,
	}
	if m.secure == nil {
		m.secure = func(r *http.Request) bool { return r.TLS != nil }
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
		m.cookies = append(m.cookies, newCookie(i, c, opts))
	}
	for i, c := range m.cookies {
		m.every = append(m.every, i)
		if c.sealer == nil && !c.Lazy { // a secure cookie is opened at its first use
			m.eager = append(m.eager, i)
		}
		c.codec = m.codec
		m.ages, m.indexes = m.ages || c.ages(), m.indexes || c.IndexBy != ""
		if j := slices.IndexFunc(m.cookies, func(o *cookie) bool { return o.CookieName == c.BoundTo }); j >= 0 {
			c.boundTo = m.cookies[j]
		}
	}
	m.routes, m.endpoints = newRoutes(m.cookies), deviceEndpoints(m.cookies)
	m.warnOfEveryField()
	if opts.SingleCookie != "" {
		m.single = newSingleCookie(opts.SingleCookie, m.cookies) // and packs them into it
		m.names = slots([]*cookie{m.single})
	} else {
		m.names = slots(m.cookies)
	}
	return m, nil
}

// Must returns m, and panics if err is not nil, for package variables: var sessions = sessplus.Must(sessplus.New(configs, opts)).
func Must(m *Manager, err error) *Manager {
	if err != nil {
		panic(err)
	}
	return m
}

// warnOfEveryField logs which configs own every field because nobody has said what they own, if they are several: each
// field is then kept as often.
func (m *Manager) warnOfEveryField() {
	var names []string
	for _, c := range m.cookies {
		if c.Fields.rule == everyField {
			names = append(names, c.CookieName)
		}
	}
	if len(names) > 1 {
		m.log.Warn("sessplus: several configs own every field, as their Fields are not set: each field is kept by all of them. "+
			"Exclude() says that it is meant, Auto() takes what no other config includes", "cookies", names)
	}
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
