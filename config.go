package sessplus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A Config describes one cookie and the session behind it: which fields it owns, where they are stored, how the cookie
// is written, and how long both live. Only CookieName is required.
type Config struct {
	CookieName string  // required, unique; a token (RFC 6265) of at most 256 bytes
	Backend    Backend // where the fields are stored; nil: SecureCookie(), in the cookie itself
	Fields     Fields  // which fields it owns; zero value: every field

	// If Domain is "", browsers send the cookie only to the host that set it. Otherwise Domain is "localhost" or a
	// domain of two labels or more, and browsers send the cookie to its subdomains, too. If a request brings cookies of
	// both kinds, a response that sets or drops the cookie expires the host-only one.
	Domain string

	Path           string        // "": "/"; a session created by a request outside of Path is logged, once
	Secure         SecureMode    // zero value: SecureAuto; behind a proxy that terminates TLS see Options.SecureRequest
	SameSite       http.SameSite // 0: Lax; http.SameSiteDefaultMode omits the attribute
	ScriptReadable bool          // omits HttpOnly, so that scripts, including injected ones, can read the cookie
	Partitioned    bool          // one cookie per top-level site (CHIPS); if it changes, the former cookie is expired

	// MaxAge is how long the browser keeps the cookie: one second to 400 days, or 0 for until it closes. The content of
	// a secure cookie is valid for MaxAge after it was last written, or for 30 days if MaxAge is 0.
	MaxAge time.Duration

	// MaxChunks is the number of cookies that a secure cookie may be split over (name, name.1, …), at most 20. 0 and 1
	// mean that it is never split. If MaxChunks is lowered, the next response that sets or drops the cookie expires the
	// chunks that are left over.
	MaxChunks int

	// Lifetime is the time from the creation or renewal of a record to its end, at least a millisecond. 0 means 24
	// hours. If it is negative there is no absolute end, and IdleTimeout is required. It does not apply to secure
	// cookies.
	//
	// A deployment that changes Lifetime, PermanentLifetime or IdleTimeout also changes the end of existing sessions,
	// at their next use.
	Lifetime time.Duration

	PermanentLifetime time.Duration // replaces Lifetime and MaxAge of a permanent session; 1 s to 400 days; 0: 31 days
	IdleTimeout       time.Duration // a record ends if no request reads or changes it for this long; 0: none

	// RotateEvery is the age, at least a millisecond, at which a session gets a new id with its next use; 0 means
	// never. The old id remains valid for a minute, so a stream should call [Session.Reload] once a minute. Server-side
	// backends only.
	RotateEvery time.Duration

	// DeviceBound binds sessions to a key that cannot leave the visitor's device, in browsers that support it (Device
	// Bound Session Credentials). It is how long a proof of that key is valid: at least 4 minutes, usually 10; 0 means
	// off. It requires a server-side backend that is a [DeviceKeeper], Keys, and a Secure cookie without a Domain and
	// with the Path "/". EXPERIMENTAL: see the repository's docs/device.md.
	DeviceBound time.Duration

	KeyPrefix string    // of the records' keys: printable ASCII without spaces, at most 512 bytes; "": "session:"
	SignID    bool      // sign the id in the cookie, so that an invented one is rejected without a backend call
	Keys      []KeyPair // newest first; nil: Options.Keys

	// BoundTo binds this secure cookie to the session of the named server-side cookie. Without that session, the
	// content of this cookie is void, and saving a field in it is an error, unless the same request creates the
	// session.
	BoundTo string

	// IndexBy is a field of this session that identifies its user by a string, number or bool, for [Manager.Sessions],
	// Revoke, RevokeAll and Edit. It requires a server-side backend that is an [Indexer]. "": none.
	IndexBy string

	// Import finds visitors' earlier sessions: those of another library (package adopt), or of this one under an
	// earlier config ([Former]). If a request brings a cookie that names no session here, the importers are tried in
	// order, before the handler or, for a Lazy cookie, at its first use. See [Importer]. Import needs Keys, the same on
	// every machine.
	Import []Importer

	// Adopt names cookies of this Manager that owned fields of this one before a deployment changed the configs. Their
	// values of these fields read as if this cookie had stored them; the next save of either cookie moves them to this
	// one. If this cookie is new, the other one keeps copies that count for a minute. A named cookie is loaded with
	// this one, even if it is Lazy. A concurrent request that sets or deletes such a field wins over one that moves
	// it. The exception is a named secure cookie: a request that brings its content cannot know that a concurrent one
	// has deleted a field, and may bring it back.
	//
	// While the backend of a named Optional config is down, a request that sets or deletes such a field succeeds
	// without it. If the field has not moved yet, its former value is back when the backend is: do not make a config
	// Optional while others adopt a login from it. A cookie that is BoundTo a named one cannot take over the last
	// field of that session, which would end it: such a save fails unless the request sets another field there.
	//
	// While processes with the old configs run beside those with the new ones, or if you may have to roll back, each
	// side needs an Adopt that names the other's cookie: deploy the old configs with it first. During that time, a
	// concurrent change of such a field may be lost, and a request may occasionally read it as absent: see the
	// repository's docs/runbook.md.
	Adopt []string

	Lazy     bool // load at the first use of one of its fields, not before the handler
	Optional bool // while the backend is down these fields are absent, and the request is served

	DropIfGone bool // drop and log a save to a session that has ended, instead of failing with ErrSessionGone
}

// A SecureMode says when a cookie has the Secure attribute.
type SecureMode uint8

const (
	SecureAuto   SecureMode = iota // if the request came over TLS; see Options.SecureRequest
	SecureAlways                   // always: for production, also behind a proxy that terminates TLS
	SecureNever                    // never: over plain HTTP the cookie can be read on the way
)

// Options are the settings that all cookies of a [Manager] share. The zero value is valid if no cookie needs keys.
type Options struct {
	// Keys seal secure cookies and sign ids. The first pair writes; all of them read, even if they differ only in Hash
	// or Block. To change keys, put the new pair first. A secure cookie that was written with an older pair is
	// rewritten by the next response.
	Keys []KeyPair

	// Codec encodes the values of fields. nil means JSON, which rejects what it would not preserve: text that is not
	// valid UTF-8, structs without exported fields, and errors.
	Codec Codec

	// ErrorHandler answers instead of the handler if sessions cannot be loaded or saved. It must write a response, and
	// is called concurrently. The error is meant for the log, not for the visitor. The request carries the session:
	// what was loaded can be read, and after a failed load nothing is saved.
	//
	// nil means plain text with status 503 for [ErrUnavailable], 409 for [ErrSessionGone] and 500 otherwise, and a line
	// in the log with level Error.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// Logger receives what is reported nowhere else. Error: changes after the response headers that were not saved, and
	// what the default ErrorHandler answers. Warn: what somebody should look at, such as records that cannot be read,
	// failures of Optional backends, saves dropped by DropIfGone, and rejected cookies (at most one line a minute per
	// cookie and reason). Debug: cookies that are too old. nil means slog.Default() at the time of [New].
	Logger *slog.Logger

	// Timeout limits each backend call, at least a millisecond. 0 means 5 seconds.
	Timeout time.Duration

	// OnEvent is called for everything that happens to sessions, in the goroutines of the request and with its context,
	// which is not canceled when the client disconnects. It is called concurrently, must be quick, and must not use the
	// session. nil means none.
	OnEvent func(ctx context.Context, e Event)

	// SingleCookie is the name of one cookie that holds the values of all configs, for hosts that pass on only one:
	// "__session" behind Firebase Hosting. CookieNames then only name the configs, which must agree on the attributes
	// of the cookie. Each value ends at its own time; one without a MaxAge may outlive the browser session if another
	// has one. "" means one cookie per config. With MaxChunks above 1 the cookie may be split over several, which those
	// hosts do not pass on.
	//
	// The cookie is written as a whole. A response that would write it while one of its sessions is being renewed or
	// has ended is [ErrSessionGone], so that it cannot undo a login; so is, even with DropIfGone, one that starts a
	// session or changes a secure cookie. But if two concurrent responses change secure cookies, or one of them is the
	// first login of a visitor, the browser keeps the later one, so change little during a login.
	SingleCookie string

	// DevicePath is the path below which [Manager.Handler] serves browsers that register or prove a device's key, for
	// configs with DeviceBound; "" means "/.sessplus/device". Nothing in front of the Handler may limit, redirect or
	// reject requests below it: see the repository's docs/device.md.
	DevicePath string

	// SecureRequest reports whether a request came over TLS, for [SecureAuto] behind a trusted proxy that says so in a
	// header that visitors cannot set. It is called once per request, concurrently. nil means r.TLS != nil.
	SecureRequest func(r *http.Request) bool
}

// Format implements [fmt.Formatter]. It leaves out the keys, for every verb.
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

// A Manager gives each request one session out of several cookies and backends. It is safe for concurrent use, starts
// no goroutines and needs no Close.
type Manager struct {
	cookies      []*cookie
	routes       routes
	names        map[string]slot   // where a cookie of a request belongs
	formers      map[string][]int  // which cookies have importers for a name other than their own
	formerChunks map[string][]slot // where chunks of former secure cookies belong
	single       *cookie           // of Options.SingleCookie, else nil
	every        []int             // all cookies
	eager        []int             // those that are loaded before the handler
	ages         bool              // sessions of one of them age, see cookie.ages
	indexes      bool              // one of them has an IndexBy
	feeds        bool              // one of them may have fields of another
	adopting     bool              // one of them has an Adopt

	endpoints map[string]deviceEndpoint // by their paths; nil without DeviceBound

	codec   Codec
	onError func(w http.ResponseWriter, r *http.Request, err error)
	secure  func(r *http.Request) bool
	log     *slog.Logger
	timeout time.Duration
	onEvent func(ctx context.Context, e Event)

	rejected    rejections // how many lines the log has about them
	foreign     namesTold
	dropped     namesTold   // of imported sessions
	takenOver   atomic.Bool // the log has said what to check for connections that are taken over
	begunBefore atomic.Bool // the log has said that a response began before its session was saved
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

// New returns a Manager for the configs. If a field has several owners, the value of the last one is read. No configs
// mean one secure cookie named "session" that owns every field. opts may be nil. The error joins a [*ConfigError] for
// every mistake in every config. New copies its arguments, so later changes have no effect. Several configs that own
// every field because their Fields is the zero value are allowed, and logged.
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
		m.cookies = append(m.cookies, newCookie(i, c, opts.Keys))
	}
	for i, c := range m.cookies {
		m.every = append(m.every, i)
		if c.sealer == nil && !c.Lazy || c.sealer != nil && c.imports != nil { // others are opened at their first use
			m.eager = append(m.eager, i)
		}
		c.codec = m.codec
		c.imports.bind(m, slices.Concat(opts.Keys, configs[i].Keys))
		m.ages, m.indexes = m.ages || c.ages(), m.indexes || c.IndexBy != ""
		if j := slices.IndexFunc(m.cookies, func(o *cookie) bool { return o.CookieName == c.BoundTo }); j >= 0 {
			c.boundTo = m.cookies[j]
		}
	}
	m.routes, m.endpoints = newRoutes(m.cookies), deviceEndpoints(m.cookies, opts.DevicePath)
	m.warnOfEveryField()
	if opts.SingleCookie != "" {
		m.single = newSingleCookie(opts.SingleCookie, m.cookies) // which sets packed in them
		m.names = slots([]*cookie{m.single})
	} else {
		m.names = slots(m.cookies)
	}
	m.formers, m.formerChunks = formers(m.cookies), formerChunks(m.cookies)
	for _, c := range m.cookies {
		c.link(m.cookies)
		m.adopting = m.adopting || len(c.adopts) > 0
		m.feeds = m.feeds || len(c.adopts) > 0 || len(m.cookies) > 1 && c.imports != nil
	}
	return m, nil
}

// Must returns m, and panics if err is not nil. It is for package variables:
//
//	var sessions = sessplus.Must(sessplus.New(configs, opts))
func Must(m *Manager, err error) *Manager {
	if err != nil {
		panic(err)
	}
	return m
}

// warnOfEveryField logs the configs that own every field because their Fields are not set, if there are several: each
// of them stores every field.
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

// String returns "auto", "always" or "never".
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

// Format implements [fmt.Formatter]. It leaves out the keys, for every verb.
func (c Config) Format(f fmt.State, _ rune) {
	backend := "secure cookie"
	if c.Backend != nil {
		backend = backendName(c.Backend)
	}
	fmt.Fprintf(f, "sessplus.Config(%s: %s in %s)", c.CookieName, c.Fields, backend)
}
