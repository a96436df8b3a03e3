// Package adopt imports sessions from other libraries, so that moving a program to sessplus logs nobody out. A config
// lists the importers that apply:
//
//	{CookieName: "session", Backend: sessplus.Redis(client), Import: []sessplus.Importer{
//		adopt.SCS(store, nil), // the store that the scs.SessionManager had
//	}}
//
// There is an importer for each library:
//
//   - alexedwards/scs/v2 on any store: [SCS], or [SCSRedis] for its Redis stores
//   - gorilla/sessions with its CookieStore, gin-contrib/sessions/cookie, echo-contrib/session with a CookieStore:
//     [Gorilla]
//   - boj/redistore, gin-contrib/sessions/redis, echo-contrib/session with a RediStore: [RediStore]
//   - rbcervilla/redisstore/v9: [RedisStore]
//   - flask-session-plus: [FlaskSessionPlus] for its secure cookies, [FlaskFirestore] for its sessions in Firestore
//
// # How values are converted
//
// A field has the name of the old key, and the value that the old library returned to the program, with these
// exceptions: Keys that are numbers or bools become text; fields with other kinds of keys are lost. A map[any]any
// becomes a map[string]any by the same rule, even inside lists and other maps. Text that is not valid UTF-8 becomes a
// []byte. Flashes of gorilla/sessions are a list in the field "_flash".
//
// The codec of the Manager then determines what [sessplus.Session.Get] returns. With JSON that is an int64 for an int
// or a uint, text for a [time.Time] or a []byte, and a map for a struct; the typed getters and [sessplus.Field] return
// the old type. With [sessplus.Gob] Get returns the old type, too.
//
// # Registered types
//
// Sessions that are stored as gobs contain the names of types, so keep the calls to [gob.Register] as long as you keep
// the importer. Fields of a type that is not registered are lost, and a warning names the fields and the type. If a
// type has moved to another package, register it under its old name with [gob.RegisterName].
//
// # What is rejected
//
// The length of a value is checked before it is decoded, and a signed value is not decoded unless its signature is
// valid. For a value that is forged, damaged, expired, or unknown to the old store, an importer returns
// [sessplus.ErrNoRecord] with the reason. If the old store does not answer, or the keys cannot be used at all, it
// returns another error, and nobody is logged out.
//
// Importers are safe for concurrent use, and start no goroutines.
//
// The build tags nofirestore and noredis leave out the importers that need such a client, as in package sessplus.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// Options describe how the old library was configured. The zero value and a nil *Options mean its defaults.
type Options struct {
	// Keep leaves the old session in its store until it expires, so that the old program can run side by side with the
	// new one. Otherwise the session is removed once it has been imported. It does not apply to secure cookies, which
	// have no store.
	Keep bool

	// Until is when importing ends: from then on, the importer finds no sessions. The zero time means no end. A secure
	// cookie can be imported until then, or until it expires, even if its session has ended in the meantime.
	Until time.Time

	// Prefix is the prefix of the keys in the old store. "" means the old library's default. It does not apply to
	// secure cookies and to SCS, whose store has it.
	Prefix string

	// MaxAge is how long a signed cookie is valid after it was written, in whole seconds, as set in the old codecs. 0
	// means the old library's default, which is 30 days for gorilla and no limit for Flask. A negative MaxAge means no
	// limit. It does not apply to cookies without a time stamp.
	MaxAge time.Duration

	HashToken bool // SCS: HashTokenInStore was set
	JSON      bool // RediStore, RedisStore: values are JSON, from the library's JSONSerializer, and not gobs
}

// An importer is what all the functions of this package return.
type importer struct {
	name string // of the function
	Options
	bad  string // what the program has to change before it can work
	read func(ctx context.Context, cookie, value string) (*sessplus.Imported, error)
}

func newImporter(name string, o *Options) *importer {
	i := &importer{name: name}
	if o != nil {
		i.Options = *o
	}
	return i
}

// String keeps the options and what read holds out of logs.
func (i *importer) String() string { return "adopt." + i.name }

// Import implements [sessplus.Importer].
func (i *importer) Import(ctx context.Context, cookie, value string) (*sessplus.Imported, error) {
	found, err := i.find(ctx, cookie, value)
	if err != nil {
		return nil, fmt.Errorf("adopt: %s: %w", i.name, err)
	}
	return found, nil
}

func (i *importer) find(ctx context.Context, cookie, value string) (*sessplus.Imported, error) {
	now := time.Now()
	switch {
	case i.bad != "":
		return nil, errors.New(i.bad)
	case !i.Until.IsZero() && !now.Before(i.Until):
		return nil, none("importing has ended (Options.Until)")
	case len(value) > maxCookie:
		return nil, errNotOurs
	}
	found, err := i.read(ctx, cookie, value)
	switch {
	case err != nil:
		return nil, err
	case !found.Expires.IsZero() && !found.Expires.After(now):
		return nil, errExpired
	case i.Keep:
		found.Forget = nil
	}
	return found, nil
}

// prefix is the prefix of keys, or the library's default.
func (i *importer) prefix(standard string) string {
	if i.Prefix != "" {
		return i.Prefix
	}
	return standard
}

// maxCookie is how long a cookie's value can be: browsers keep no more.
const maxCookie = 4096

// none says why a value names no session. It matches [sessplus.ErrNoRecord].
type none string

func (n none) Error() string { return string(n) }

func (none) Is(target error) bool { return target == sessplus.ErrNoRecord }

const (
	errNotOurs = none("the value is not of this library's form")
	errForged  = none("the value is damaged, or signed with another key")
	errExpired = none("the session has expired")
	errUnknown = none("the store has no such session")
	errDamaged = none("the stored session cannot be decoded")
)

// down is the error of a store, without the ids that drivers quote.
func down(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	return &storeError{err, secrets}
}

type storeError struct {
	err     error
	secrets []string
}

func (e *storeError) Error() string {
	text := e.err.Error()
	for _, s := range e.secrets {
		text = strings.ReplaceAll(text, s, "…")
	}
	return "the former store: " + text
}

func (e *storeError) Is(target error) bool {
	return target != sessplus.ErrNoRecord && errors.Is(e.err, target)
}

// earlier returns the earlier of two times, where zero means none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
