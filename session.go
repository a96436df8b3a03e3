// Package sessplus gives a net/http program one session made of many. Each cookie is a session with a backend of its own,
// each field belongs to the cookies that claim it, and a handler sees one set of fields:
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
// [Manager.Handler] loads the sessions of a request, and commits them once, before the response headers go: it saves the
// fields that have changed, and then writes the Set-Cookie headers.
//
// # Backends
//
// [SecureCookie] keeps fields in the cookie itself. [Redis], [Firestore] and [Memory] keep a record under an id that is in
// the cookie; a [Backend] of your own does, too.
//
// # Concurrency
//
// Requests of one visitor that run at the same time lose nothing: a save writes the fields that changed, and no others.
// Of two changes of one field the later wins; [Field.Update] makes changes that build on each other. A session that was
// destroyed, renewed or has expired stays dead: what a slower request saves to it afterwards is [ErrSessionGone]. A
// Manager is safe for concurrent use, and a Session for the goroutines of its request.
//
// # Security
//
// Cookies are HttpOnly, SameSite=Lax, and Secure when the request came over TLS; behind a proxy that ends TLS set
// [SecureAlways], or Options.SecureRequest. Ids have 256 random bits, are never adopted from a request, and reach a backend
// only as SHA-256. Call [Session.Renew] at login and [Session.Destroy] at logout. An outage is an error and never looks like
// a logged-out visitor. Errors and logs hold no id, cookie value, key or field value. SECURITY.md goes through OWASP's
// session management cheat sheet row by row.
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

// Session is what one request sees of all its sessions: one set of fields, each kept by the cookies that own it. It is
// safe for concurrent use by the goroutines of its request. Changes are saved by the commit, once, before the response
// headers go.
//
// Read a session before the first Write of the response that depends on it. The headers then tell caches that the page is the
// visitor's own (Vary: Cookie); a page that reads for the first time afterwards is logged as a warning, once per request.
//
// Methods that name cookies by their CookieName ignore one that no config has, except that the changing ones
// ([Session.Renew], [Session.Destroy], [Session.SetPermanent]) make the commit fail: it is a mistake in the program.
type Session struct {
	*session // a pointer, so that fmt does not reach the fields either where it cannot call Format: in a struct of the program's
}

// A session is what a Session stands for.
type session struct {
	m   *Manager
	ctx context.Context     // the request's
	w   http.ResponseWriter // the one below the middleware
	uri string              // what the browser asked for

	agent string // what the browser calls itself, if some cookie wants to know

	bundle *bundle // with Options.SingleCookie, else nil

	refused error // the load failed, the ErrorHandler answers, and nothing is saved

	saving sync.Mutex // held by a commit, so that there is one at a time; taken before mu

	mu    sync.Mutex // guards what follows; never held across a call of a backend
	parts []part
	ready chan struct{} // closed when a load ends; nil while nobody waits for one
	hung  []Backend     // those that did not answer this request within the Timeout
	err   error         // the first error, for Err
	fatal error         // the first mistake of the program, with which commits fail
	uses  int           // how often it was read or changed
	saved int           // uses when the last commit began
	tls   bool          // the request came over TLS
	sent  bool          // the headers have gone
	alone bool          // no middleware answers the request: Save writes the headers
	wrote []string      // the Set-Cookie lines that a Save has written so
	open  bool          // shared caches may keep the response and hand it to others, for all that it says

	vary, cacheControl [1]string // what holds these headers
}

// A part is the state of one cookie in one request.
type part struct {
	*cookie
	texts []candidate  // what came under the cookie's name and those of its chunks, and is to be tried in turn
	first [1]candidate // what holds texts while there is one

	browser
	proof   *proof // with DeviceBound, else nil
	content        // of the session, as this request has it

	ended []ended // records to end

	epoch   int32 // counts Destroy, so that a commit under way notices one
	state   partState
	refused uint8 // how many of the cookies that came were malformed, and are to be told of
	split   uint8 // the same, for those that are split over more cookies than MaxChunks
	next    uint8 // of texts, to look up
	chosen  uint8 // of texts, the content of the secure cookie
	found   bool  // a session came with the request
	crowded bool  // more came under one name than are tried
	tried   bool  // what it has to save could not be saved, and there is nothing new since
	used    bool  // the program has read or changed it
	quiet   bool  // and that is no use for the idle timeout
}

// ended is a record to end, as it was last seen.
type ended struct {
	key  string
	seen *Record
}

// content is what Destroy leaves nothing of.
type content struct {
	err     *Error      // why the load failed; the fields then read as absent
	name    sessionName // of the session that the client has; zero for none and for a secure cookie
	rec     *Record     // as it was last seen; nil: there is no session
	entries entries
	foreign []string // stored fields that this cookie does not own; the next save removes them

	permanent bool // as the program wants it
	doubt     bool // the store may have it otherwise than rec, because a save did not end well
	renew     bool
	emptied   bool // by this request after the headers, so that the browser has not heard of it
	refilled  bool // an Update has filled an emptied session, which the browser must hear of
	gone      bool // the session has ended while this request ran
	replaced  bool // gone, and perhaps because of another that the browser has or gets
}

type partState uint8

const (
	unloaded partState = iota
	loading
	loaded
)

// Format implements [fmt.Formatter] for every verb, so that no log shows a field's value.
func (s *Session) Format(f fmt.State, _ rune) { io.WriteString(f, "sessplus.Session") }

// Get returns the value of the field, or nil if it is absent. It is a copy: changing it changes no session. With the
// JSON codec its type is string, bool, int64 (uint64 if only that fits), float64, []any or map[string]any; Decode and
// [Field] give other types. A number that none of these holds (1e400, a [math/big.Int] over 64 bits) is an
// [encoding/json.Number] with all its digits, and Field[*big.Int] gives the latter back.
func (s *Session) Get(name string) any {
	v, _ := s.value(name)
	return v
}

// value decodes the field into what the codec gives for an any.
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

// unreadable notes a field that is not what the program asks for.
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

// look notes that the program reads the session. It lets go of s.mu when it has to say that this comes late.
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

// read returns the value that Get reads: that of the last owner which has one, or nil.
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

// Set gives the field a value, in every cookie that owns it. The value is encoded at once. An error (no owner, an
// illegal name, a value that cannot be encoded as it is) makes the commit fail and is what [Session.Err] returns.
//
// nil is a value, and no Delete: Has and [Field.Lookup] then report that the field is there, Get returns nil, and the
// typed getters return the zero value. The JSON codec stores it as null.
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

// encode checks the name and encodes the value. The error does not wrap the codec's, whose text may quote the value.
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

// put gives the field an encoded value, or removes it for nil.
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
		p.entries.at(name).set(data)
	}
}

// note keeps the first error for Err.
func (s *Session) note(err error) {
	if s.err == nil {
		s.err = err
	}
}

// fail keeps the first mistake of the program for Err and for the commit.
func (s *Session) fail(err error) {
	s.note(err)
	if s.fatal == nil {
		s.fatal = err
	}
}

// Delete removes the field from every cookie that owns it. That it is absent is no error.
func (s *Session) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	s.put(name, nil)
}

// Pop returns the value of the field, as Get does, and removes it. It is no atomic take: two requests at the same time
// may both get the value, and what another one sets between the load of this request and its save goes with it, unseen.
// [Field.Update] takes atomically: see the example Flash.
func (s *Session) Pop(name string) any {
	v, _ := s.decodeAny(name, s.pop(name))
	return v
}

// pop removes the field and returns the encoded value that it had.
func (s *Session) pop(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := s.read(name)
	s.put(name, nil)
	return data
}

// Has reports whether the field is there.
func (s *Session) Has(name string) bool { return s.raw(name) != nil }

// Fields returns the names of all fields, sorted. It loads what is Lazy.
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

// Values returns all fields with their values, as Get gives them. A field that cannot be decoded is left out. It loads what
// is Lazy.
func (s *Session) Values() map[string]any {
	all := make(map[string]any)
	for _, name := range s.Fields() {
		if v, ok := s.value(name); ok {
			all[name] = v
		}
	}
	return all
}

// Clear removes every field that this request sees. Unlike Destroy it keeps a session to which another request adds a
// field meanwhile.
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

// Decode decodes the field into dst, a pointer, as the codec does. The error matches [ErrNoField] when it is absent.
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

// get is the common part of the typed getters. A value of another type reads as absent, with a line in the log.
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
	if v != nil { // a nil was set, and is the zero value of every type
		s.unreadable(name, fmt.Sprintf("%T", zero))
	}
	return zero
}

func is[T any](v any) (T, bool) {
	t, ok := v.(T)
	return t, ok
}

// GetString returns the field if it is a string, else "".
func (s *Session) GetString(name string) string { return get(s, name, is[string]) }

// GetInt returns the field if it is a whole number that fits, else 0.
func (s *Session) GetInt(name string) int {
	return get(s, name, func(v any) (int, bool) {
		n, ok := toInt64(v)
		return int(n), ok && int64(int(n)) == n
	})
}

// GetInt64 returns the field if it is a whole number that fits, else 0.
func (s *Session) GetInt64(name string) int64 { return get(s, name, toInt64) }

// GetFloat64 returns the field if it is a number that a float64 holds exactly, else 0.
func (s *Session) GetFloat64(name string) float64 { return get(s, name, toFloat64) }

// GetBool returns the field if it is a bool, else false.
func (s *Session) GetBool(name string) bool { return get(s, name, is[bool]) }

// GetBytes returns the field if it is a []byte or, as JSON has it, its base64 text; else nil.
func (s *Session) GetBytes(name string) []byte { return get(s, name, toBytes) }

// GetTime returns the field if it is a time or, as JSON has it, its RFC 3339 text; else the zero time.
func (s *Session) GetTime(name string) time.Time { return get(s, name, toTime) }

// Err returns the first error of this session: of a Set, of a lazy load, or of an Optional backend, and nil if there was
// none. All but those of Optional backends make the commit fail.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// part returns the part of the cookie with that name, or nil.
func (s *Session) part(cookie string) *part {
	for i := range s.parts {
		if s.parts[i].CookieName == cookie {
			return &s.parts[i]
		}
	}
	return nil
}

// each loads the parts of the cookies named, or all, side by side, and calls f for them.
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
	if load {
		due := slices.Clone(parts)
		for _, i := range parts {
			s.withBound(&s.parts[i], func(p *part) { due = append(due, p.index) })
		}
		s.useAll(due)
	}
	for _, i := range parts {
		p := &s.parts[i]
		p.tried, p.used = false, true
		f(p)
	}
}

// withBound calls f for the part, and for those whose cookies are bound to it.
func (s *Session) withBound(p *part, f func(p *part)) {
	f(p)
	for i := range s.parts {
		if s.parts[i].boundTo == p.cookie {
			f(&s.parts[i])
		}
	}
}

// Renew gives the sessions of the cookies named, or of all, a new id and a new lifetime at the commit. They keep their
// fields. Call it when a visitor logs in or gains rights, so that an id planted or seen before is worth nothing (OWASP:
// session fixation). The content of a secure cookie is written anew, also that of one that is BoundTo a renewed session.
//
// A request whose session has ended meanwhile, or a moment ago, begins a new one with the fields that it sets, so that a
// login form that is sent twice logs in both times; with none it saves nothing, and that is no error. After the headers
// have gone Renew is [ErrHeadersSent], and nothing more of that session is saved.
func (s *Session) Renew(cookies ...string) {
	s.each(cookies, "renew", true, func(p *part) {
		s.withBound(p, func(p *part) { p.renew = true })
	})
}

// Destroy ends the sessions of the cookies named, or of all: fields, record and cookie go at the commit. That a record is
// gone already is no error; what a renewal has made of it up to a minute ago ends as well. A field set afterwards starts a
// new session with a new id. After the headers have gone it still removes the record. Cookies that are BoundTo a session
// that ends, end with it.
func (s *Session) Destroy(cookies ...string) {
	s.each(cookies, "delete", false, func(p *part) { s.withBound(p, s.destroy) })
}

// destroy ends the session of p for this request. What was not loaded need not be: every session whose id came with the
// request is removed.
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
	p.state, p.content = loaded, content{}
	if p.due = tellNothing; p.held {
		p.due = tellDrop
	}
	p.epoch++
}

// SkipTouch takes back that this request is a use of its sessions for IdleTimeout: for a page that polls while nobody sits
// before it. What it changes is saved all the same.
func (s *Session) SkipTouch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		s.parts[i].quiet = true
	}
}

// SetPermanent makes the session of the cookie permanent, or no longer so: PermanentLifetime then takes the place of
// Lifetime and of MaxAge ("remember me"). It is kept with the session, once that has a field. A session that is past its
// Lifetime ends when it is no longer permanent.
func (s *Session) SetPermanent(cookie string, on bool) {
	s.each([]string{cookie}, "save", true, func(p *part) { p.permanent = on })
}

// Permanent reports whether the session of the cookie is permanent.
func (s *Session) Permanent(cookie string) bool {
	return inspect(s, cookie, func(p *part) bool { return p.permanent })
}

// Handle returns what names the session of the cookie in events, in [Info] and for [Manager.Revoke]. It cannot be used as a
// cookie. A rotation keeps it; a renewal, or another user by [Config.IndexBy], makes it another one. It is "" for a secure
// cookie, and before the first save.
func (s *Session) Handle(cookie string) string {
	return inspect(s, cookie, func(p *part) string {
		if p.rec == nil || p.name.key == "" {
			return ""
		}
		return p.rec.handle(p.name.key)
	})
}

// ID returns the id of the cookie's session, as it is in the cookie before signing. It is a secret. It is "" for a secure
// cookie, and before the first save.
func (s *Session) ID(cookie string) string {
	return inspect(s, cookie, func(p *part) string { return p.name.id })
}

// IsNew reports whether no session of this cookie came with the request, or it was destroyed.
func (s *Session) IsNew(cookie string) bool {
	return inspect(s, cookie, func(p *part) bool { return !p.found || p.epoch > 0 })
}

// Expires returns when the session of the cookie ends, or the zero time when it is not stored: as it is stored, or earlier
// if a deployment has made that earlier.
func (s *Session) Expires(cookie string) time.Time {
	return inspect(s, cookie, func(p *part) time.Time {
		if p.rec == nil {
			return time.Time{}
		}
		return p.expires(wallNow())
	})
}

// inspect loads the part of the cookie and looks at it. Without one the answer is the zero value.
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
