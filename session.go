// Package sessplus lets net/http handlers use one session whose fields are stored in several cookies and backends. Each
// cookie has a backend of its own, each field belongs to the cookies that claim it, and a handler sees a single set of
// fields:
//
//	mgr, err := sessplus.New([]sessplus.Config{
//		{CookieName: "csrf", Fields: sessplus.Include("csrf_token")},
//		{CookieName: "session", Fields: sessplus.Include("user_id"), Backend: sessplus.Redis(client)},
//		{CookieName: "data", Fields: sessplus.Auto()},
//	}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.DeriveKeyPair(secret)}})
//	if err != nil {
//		log.Fatal(err) // every mistake in the configs at once
//	}
//	http.ListenAndServe(":8080", mgr.Handler(mux))
//
//	func handler(w http.ResponseWriter, r *http.Request) {
//		s := sessplus.Get(r)
//		s.Set("user_id", 42)
//	}
//
// [Manager.Handler] loads the sessions of a request and commits them once, before the response headers are sent: it
// saves the changed fields, and then writes the Set-Cookie headers.
//
// # Backends
//
// [SecureCookie] stores fields in the cookie itself. [Redis], [Firestore], [Memory] and package sessplussql store them
// in a record, and the cookie holds its id. You can write a [Backend] of your own.
//
// # Concurrency
//
// Concurrent requests of one visitor do not overwrite each other's changes, because a save writes only the fields that
// have changed. If two requests change the same field, the later save wins; use [Field.Update] for changes that depend
// on the old value. A session that was destroyed, renewed or has expired stays dead: a request that loaded it before
// and saves it afterwards gets [ErrSessionGone]. A Manager is safe for concurrent use, and a Session is safe for use by
// the goroutines of its request.
//
// # Security
//
// Cookies are HttpOnly, SameSite=Lax, and Secure if the request came over TLS. Behind a proxy that terminates TLS, use
// [SecureAlways] or set Options.SecureRequest. An id has 256 random bits, is never adopted from a request, and reaches
// a backend only as its SHA-256. Call [Session.Renew] at login and [Session.Destroy] at logout. A backend that is down
// is an error, and never looks like a logged-out visitor. Errors and log lines contain no ids, cookie values, keys or
// field values. SECURITY.md goes through OWASP's session management cheat sheet row by row.
package sessplus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Session is one request's view of all its sessions: a single set of fields, each stored by the cookies that own it.
// It is safe for concurrent use by the goroutines of its request. Changes are saved by the commit: once, before the
// response headers are sent.
//
// Read the session before the first Write of a response that depends on it. Only then can the headers tell caches that
// the page is the visitor's own (Vary: Cookie). If the first read of a GET or HEAD request comes later, and the
// response may be cached, a warning is logged.
//
// Methods that take the CookieName of a config return the zero value if no config has it. Those that change something
// ([Session.Renew], [Session.Destroy], [Session.SetPermanent]) make the commit fail, because that is a programming
// error.
type Session struct {
	*session // a pointer: fmt cannot call Format on an unexported field of another struct, and would print the fields
}

// A session is the state behind a Session.
type session struct {
	m       *Manager
	ctx     context.Context     // the request's
	w       http.ResponseWriter // the one that the middleware was given
	request *http.Request       // what the session was made for; nil outside of any

	agent string // the User-Agent, if some config has an IndexBy

	bundle *bundle // with Options.SingleCookie, else nil

	refused error // why the load failed: the ErrorHandler answers, and nothing is saved

	saving sync.Mutex // held during a commit, so that there is one at a time; acquired before mu

	mu    sync.Mutex // guards what follows; never held across a backend call
	parts []part
	ready chan struct{} // closed when a load ends; nil while nobody waits for one
	err   error         // the first error, for Err
	fatal error         // the first programming error, which makes commits fail
	uses  uint32        // how often it was read or changed
	saved uint32        // uses when the last commit began
	spent uint32        // of the Timeout, by importers, in microseconds
	tls   bool          // the request came over TLS
	sent  bool          // the headers have been sent
	open  bool          // shared caches may store the response, and give it to other visitors
	alone *written      // by Manager.Load, without the middleware: Save writes the headers; else nil

	vary, cacheControl [1]string // the values of these headers
	encoding           string    // Content-Encoding, as middleware outside has set it that encodes every response
}

// written has the Set-Cookie lines that Save has written to the headers.
type written struct{ lines []string }

// A part is what one request knows about one cookie.
type part struct {
	*cookie
	texts []candidate  // the values that came under the cookie's name and those of its chunks, to be tried in turn
	first [1]candidate // backs texts if there is only one

	browser
	proof   *proof // with DeviceBound, else nil
	content        // of the session, as this request sees it

	ended []ended // records to end

	*arrivals // old sessions to import, nil if there are none

	expelled []string // fields to be removed, which belong to another cookie now
	moving   bool     // this commit saves what others have stored for the cookie
	updated  bool     // Update has changed a field here that belongs to another cookie now
	movedOut bool     // fields of another cookie must be removed, so the secure cookie must be sent

	epoch   int32 // counts calls of Destroy, so that a commit in progress notices one
	state   partState
	refused uint8 // how many of the cookies that came were malformed, and have not been reported yet
	split   uint8 // the same, for those that are split over more cookies than MaxChunks
	next    uint8 // index of the next text to look up
	chosen  uint8 // index of the text that the secure cookie's content is from
	hung    bool  // its backend did not answer this request within the Timeout
	found   bool  // a session came with the request
	crowded bool  // more values came under one name than are tried
	tried   bool  // a save has failed, and nothing has changed since
	used    bool  // the program has read or changed it
	sheds   bool  // its record must lose the fields of an old session that belong to a destroyed secure cookie
	quiet   bool  // which does not count as a use for the idle timeout
}

// ended is a record to end, as it was last seen.
type ended struct {
	key  string
	seen *Record
}

// content is what Destroy resets.
type content struct {
	err     *Error      // why the load failed; the fields then read as absent
	name    sessionName // of the session the client has; zero if there is none, and for a secure cookie
	rec     *Record     // as it was last seen; nil if there is no session
	entries entries
	foreign []string   // stored fields that this cookie does not own; the next save removes them
	leaving []RawField // stored fields that another cookie will adopt

	trial     trial // what package inspect makes happen to it
	permanent bool  // what the program has asked for
	doubt     bool  // the flag in the store may differ from rec's, because a save has failed
	renew     bool
	emptied   bool // by this request after the headers were sent, so the browser still has the cookie
	refilled  bool // an Update has added a field to an emptied session, so the browser needs the cookie again
	gone      bool // the session has ended while this request ran
	replaced  bool // it is gone, and the browser may have got, or be about to get, another one
}

type partState uint8

const (
	unloaded partState = iota
	loading
	loaded
)

// Format implements [fmt.Formatter]. For every verb it writes the name of the type, and no field.
func (s *Session) Format(f fmt.State, _ rune) { io.WriteString(f, "sessplus.Session") }

// Get returns the value of the field, or nil if it is absent. The value is a copy: modifying it does not change the
// session. With the JSON codec its type is string, bool, int64 (uint64 if only that fits), float64, []any or
// map[string]any; use [Session.Decode] or [Field] for other types. A number that fits none of these (1e400, a
// [math/big.Int] of more than 64 bits) is an [encoding/json.Number] with all its digits; a Field[*big.Int] reads it.
func (s *Session) Get(name string) any {
	v, _ := s.value(name)
	return v
}

// value decodes the field into an any.
func (s *Session) value(name string) (v any, ok bool) { return s.decodeAny(name, s.raw(name)) }

func (s *Session) decodeAny(name string, data []byte) (v any, ok bool) {
	if data == nil {
		return nil, false
	}
	v, err := decodeAny(s.m.codec, data)
	if err != nil {
		s.unreadable(name, "")
		return nil, false
	}
	return v, true
}

// unreadable logs a field that does not have the type the program asks for.
func (s *Session) unreadable(name, want string) {
	if want == "" {
		s.warn("sessplus: a stored field cannot be decoded, and reads as absent", "field", name)
		return
	}
	s.warn("sessplus: a stored field is not of the type that is asked for, and reads as absent", "field", name, "type", want)
}

// raw returns the encoded value of the field, or nil if it is absent.
func (s *Session) raw(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(name)
}

// look notes that the program reads the session. It releases s.mu to log that the read comes too late.
func (s *Session) look() {
	s.uses++
	if s.sent && s.open {
		s.open = false
		s.unlocked(func() {
			s.warn("sessplus: a session was read for the first time after the response had begun, so that it has no Vary: Cookie, " +
				"and a shared cache may give it to other visitors; read before writing")
		})
	}
}

// read returns the encoded value of the field, or nil. If several owners have one, the last owner's counts.
func (s *Session) read(name string) []byte {
	s.look()
	owners := s.m.routes.owners(name)
	for i := len(owners) - 1; i >= 0; i-- {
		p := s.use(owners[i])
		p.used = true
		if e, _ := p.entries.find(name); e.value != nil {
			return e.value
		}
	}
	return nil
}

// Set sets the field in every cookie that owns it. The value is encoded at once. If no config owns the field, the name
// is invalid (a name is valid UTF-8 of 1 to 256 bytes), or the value cannot be encoded without loss, the commit fails
// and [Session.Err] returns the error.
//
// Setting nil does not delete the field: Has and [Field.Lookup] report that it exists, Get returns nil, and the typed
// getters return the zero value. The JSON codec stores it as null.
func (s *Session) Set(name string, value any) {
	data, err := s.encode(name, value)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	if err != nil {
		s.fail(err)
		return
	}
	s.put(name, data)
}

// encode checks the name and encodes the value. Its error does not wrap the codec's, whose text may quote the value.
func (s *Session) encode(name string, value any) ([]byte, error) {
	if p := nameProblem(name); p != "" {
		return nil, &Error{Op: "encode", Err: &fieldError{name, p, nil}}
	}
	if len(s.m.routes.owners(name)) == 0 {
		return nil, &Error{Op: "save", Err: &fieldError{name, "none of the configs (" + s.m.cookieNames() +
			") owns it; one with Fields: sessplus.Auto() would", ErrNoOwner}}
	}
	data, err := s.m.codec.Marshal(value)
	if err != nil {
		reason := "cannot be encoded"
		if lost, ok := err.(lossError); ok {
			reason = lost.Error()
		}
		return nil, &Error{Op: "encode", Err: &fieldError{name, fmt.Sprintf("a %T %s", value, reason), nil}}
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

// put sets the field to an encoded value, or removes it if data is nil.
func (s *Session) put(name string, data []byte) {
	owners := s.m.routes.owners(name)
	s.useAll(owners)
	for _, i := range owners {
		p := &s.parts[i]
		p.tried, p.used = false, true
		if data == nil {
			if e, _ := p.entries.find(name); e.value == nil && !e.doubt {
				continue
			}
		}
		e := p.entries.at(name)
		e.doubt = e.doubt || p.unsure(name)
		e.set(data)
	}
}

// note records the first error, for Err.
func (s *Session) note(err error) {
	if s.err == nil {
		s.err = err
	}
}

// fail records the first programming error, for Err and for the commit.
func (s *Session) fail(err error) {
	s.note(err)
	if s.fatal == nil {
		s.fatal = err
	}
}

// Delete removes the field from every cookie that owns it. Deleting an absent field is not an error.
func (s *Session) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	s.put(name, nil)
}

// Pop returns the value of the field, as Get does, and deletes the field. It is not atomic: two concurrent requests may
// both get the value, and a value that another request sets between this request's load and save is deleted unseen. To
// take a value atomically use [Field.Update], as the example Flash does.
func (s *Session) Pop(name string) any {
	v, _ := s.decodeAny(name, s.pop(name))
	return v
}

// pop removes the field and returns the encoded value it had.
func (s *Session) pop(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := s.read(name)
	s.put(name, nil)
	return data
}

// Has reports whether the field exists.
func (s *Session) Has(name string) bool { return s.raw(name) != nil }

// Fields returns the names of all fields, sorted. It loads Lazy configs, too.
func (s *Session) Fields() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	names := []string{}
	s.useAll(s.m.every)
	for i := range s.parts {
		s.parts[i].used = true
		for e := range s.parts[i].entries.all() {
			if e.value != nil {
				names = append(names, e.name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Values returns all fields and their values, as Get returns them, without fields that cannot be decoded. It loads Lazy
// configs, too.
func (s *Session) Values() map[string]any {
	all := make(map[string]any)
	for _, name := range s.Fields() {
		if v, ok := s.value(name); ok {
			all[name] = v
		}
	}
	return all
}

// Clear deletes every field that this request sees. Unlike [Session.Destroy], it does not end a session to which
// another request adds a field in the meantime.
func (s *Session) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	s.useAll(s.m.every)
	for i := range s.parts {
		p := &s.parts[i]
		p.tried, p.used = false, true
		for e := range p.entries.all() {
			p.entries.at(e.name).set(nil)
		}
	}
}

// Decode decodes the field into dst, which must be a pointer, with the codec. The error matches [ErrNoField] if the
// field is absent.
func (s *Session) Decode(name string, dst any) error {
	data := s.raw(name)
	if data == nil {
		return &Error{Op: "decode", Err: &fieldError{name, "is absent", ErrNoField}}
	}
	return s.decode(name, data, dst)
}

func (s *Session) decode(name string, data []byte, dst any) error {
	if err := s.m.codec.Unmarshal(data, dst); err != nil {
		return &Error{Op: "decode", Err: &fieldError{name, fmt.Sprintf("cannot be decoded into a %T", dst), nil}}
	}
	return nil
}

// get implements the typed getters. A value of another type reads as absent, and is logged.
func get[T any](s *Session, name string, convert func(any) (T, bool)) T {
	var zero T
	v, ok := s.value(name)
	if !ok {
		return zero
	}
	if t, ok := convert(v); ok {
		return t
	}
	if b, ok := basic(v); ok {
		if t, ok := convert(b); ok {
			return t
		}
	}
	if v != nil { // nil counts as the zero value of every type
		s.unreadable(name, fmt.Sprintf("%T", zero))
	}
	return zero
}

func is[T any](v any) (T, bool) {
	t, ok := v.(T)
	return t, ok
}

// GetString returns the field if it is a string, and otherwise "".
func (s *Session) GetString(name string) string { return get(s, name, is[string]) }

// GetInt returns the field if it is a whole number that fits an int, and otherwise 0.
func (s *Session) GetInt(name string) int {
	return get(s, name, func(v any) (int, bool) {
		n, ok := toInt64(v)
		return int(n), ok && int64(int(n)) == n
	})
}

// GetInt64 returns the field if it is a whole number that fits an int64, and otherwise 0.
func (s *Session) GetInt64(name string) int64 { return get(s, name, toInt64) }

// GetFloat64 returns the field if it is a number that a float64 represents exactly, and otherwise 0.
func (s *Session) GetFloat64(name string) float64 { return get(s, name, toFloat64) }

// GetBool returns the field if it is a bool, and otherwise false.
func (s *Session) GetBool(name string) bool { return get(s, name, is[bool]) }

// GetBytes returns the field if it is a []byte or, as in JSON, base64 text, and otherwise nil.
func (s *Session) GetBytes(name string) []byte { return get(s, name, toBytes) }

// GetTime returns the field if it is a time or, as in JSON, RFC 3339 text, and otherwise the zero time.
func (s *Session) GetTime(name string) time.Time { return get(s, name, toTime) }

// Err returns the first error of this session, such as that of a Set, a lazy load or an Optional backend, or nil if
// there was none. All errors except those of Optional backends make the commit fail. An error of Set persists, even if
// the field is then set to something else or deleted.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// part returns the part of the named cookie, or nil.
func (s *Session) part(cookie string) *part {
	for i := range s.parts {
		if s.parts[i].CookieName == cookie {
			return &s.parts[i]
		}
	}
	return nil
}

// each calls f for the parts of the named cookies, or for all parts. With load it loads them first, concurrently.
func (s *Session) each(cookies []string, op string, load bool, f func(p *part)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	var parts []int
	for i := range s.parts {
		if len(cookies) == 0 || slices.Contains(cookies, s.parts[i].CookieName) {
			parts = append(parts, i)
		}
	}
	for _, name := range cookies {
		if s.part(name) == nil {
			s.fail(&Error{Cookie: name, Op: op, Err: errors.New("no config has this cookie")})
		}
	}
	due := make([]int, 0, len(s.parts))
	for _, i := range parts {
		s.withBound(&s.parts[i], func(p *part) {
			if load || p.comes() || s.m.trades(p.cookie) {
				due = append(due, p.index)
			}
		})
	}
	if !load {
		due = append(due, s.keepers(parts)...)
	}
	s.useAll(due)
	for _, i := range parts {
		p := &s.parts[i]
		p.tried, p.used = false, true
		f(p)
	}
}

// withBound calls f for the part and for the parts whose cookies are bound to it.
func (s *Session) withBound(p *part, f func(p *part)) {
	f(p)
	for i := range s.parts {
		if s.parts[i].boundTo == p.cookie {
			f(&s.parts[i])
		}
	}
}

// Renew gives the sessions of the named cookies, or of all cookies, a new id and a new lifetime at the commit. They
// keep their fields. Call it when a visitor logs in or gains rights, so that an id that was planted or seen before is
// worthless (OWASP: session fixation). Secure cookies are rewritten, including those BoundTo a renewed session.
//
// If the session has ended in the meantime, or did so up to a minute ago, Renew starts a new one with the fields that
// this request sets, so that a login form that is sent twice logs in both times. If it sets none, nothing is saved,
// which is not an error. After the headers have been sent, Renew is [ErrHeadersSent], and nothing more of that session
// is saved.
func (s *Session) Renew(cookies ...string) {
	s.each(cookies, "renew", true, func(p *part) {
		s.withBound(p, func(p *part) { p.renew = true })
	})
}

// Destroy ends the sessions of the named cookies, or of all cookies: the commit removes fields, record and cookie. It
// is not an error if the record is gone already. A session that replaced it up to a minute ago ends, too, as do cookies
// that are BoundTo it. A field set after Destroy starts a new session with a new id. After the headers have been sent,
// Destroy still removes the record.
func (s *Session) Destroy(cookies ...string) {
	s.each(cookies, "delete", false, func(p *part) { s.withBound(p, s.destroy) })
}

// destroy ends the session of p for this request. It need not load it: every session whose id came with the request is
// ended.
func (s *Session) destroy(p *part) {
	for p.state == loading {
		s.use(p.index)
	}
	if p.sealer == nil {
		if p.name.key != "" {
			p.ended = append(p.ended, ended{p.name.key, p.rec})
		}
		for _, t := range p.texts {
			if id, _, err := p.parseID(t.text); err == nil && id != p.name.id {
				p.ended = append(p.ended, ended{p.nameOf(id).key, nil})
			}
		}
	}
	p.abandon()
	s.disown(p)
	s.shed(p)
	p.state, p.content, p.sheds = loaded, content{}, false
	if p.due = tellNothing; p.held {
		p.due = tellDrop
	}
	p.epoch++
}

// SkipTouch makes this request not count as a use for IdleTimeout. Call it in requests that a page sends by itself,
// such as polling. Changes are saved nevertheless.
func (s *Session) SkipTouch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		s.parts[i].quiet = true
	}
}

// SetPermanent sets whether the session of the cookie is permanent ("remember me"): its PermanentLifetime then replaces
// Lifetime and MaxAge. The flag is stored with the session, which needs a field for that. A session that is past its
// Lifetime ends when it stops being permanent.
func (s *Session) SetPermanent(cookie string, on bool) {
	s.each([]string{cookie}, "save", true, func(p *part) { p.permanent = on })
}

// Permanent reports whether the session of the cookie is permanent.
func (s *Session) Permanent(cookie string) bool {
	return inspect(s, cookie, func(p *part) bool { return p.permanent })
}

// Handle returns the name of the cookie's session in events, in [Info] and for [Manager.Revoke]. It cannot be used as a
// cookie. It survives a rotation, and changes with a renewal or if the session gets another user by [Config.IndexBy].
// It is "" for a secure cookie and before the first save.
func (s *Session) Handle(cookie string) string {
	return inspect(s, cookie, func(p *part) string {
		if p.rec == nil || p.name.key == "" {
			return ""
		}
		return p.rec.handle(p.name.key)
	})
}

// ID returns the id of the cookie's session, without a signature. It is a secret. It is "" for a secure cookie and
// before the first save.
func (s *Session) ID(cookie string) string {
	return inspect(s, cookie, func(p *part) string { return p.name.id })
}

// IsNew reports whether the request came without a session of this cookie, or has destroyed it.
func (s *Session) IsNew(cookie string) bool {
	return inspect(s, cookie, func(p *part) bool { return !p.found || p.epoch > 0 })
}

// Expires returns when the session of the cookie ends, or the zero time if it has not been saved. It is the stored
// time, or an earlier one if the config has become stricter since.
func (s *Session) Expires(cookie string) time.Time {
	return inspect(s, cookie, func(p *part) time.Time {
		if p.rec == nil {
			return time.Time{}
		}
		return p.expires(wallNow())
	})
}

// inspect loads the part of the named cookie and returns look's answer, or the zero value if no config has the cookie.
func inspect[T any](s *Session, cookie string, look func(p *part) T) (answer T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	if p := s.part(cookie); p != nil {
		p.used = true
		answer = look(s.use(p.index))
	}
	return answer
}
