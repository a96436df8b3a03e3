// Package adopt takes over the sessions that a program's visitors have from another library, so that moving to sessplus
// logs nobody out. There is an importer for each library; a config names those that apply:
//
//		{CookieName: "session", Backend: sessplus.Redis(client), Import: []sessplus.Importer{
//			adopt.SCS(store, nil), // the store that the scs.SessionManager had
//		}}
//
//	  - alexedwards/scs/v2 on any store: [SCS], or [SCSRedis] for its Redis stores
//	  - gorilla/sessions with its CookieStore, gin-contrib/sessions/cookie, echo-contrib/session with a CookieStore:
//	    [Gorilla]
//	  - boj/redistore, gin-contrib/sessions/redis, echo-contrib/session with a RediStore: [RediStore]
//	  - rbcervilla/redisstore/v9: [RedisStore]
//	  - flask-session-plus: [FlaskSessionPlus] for its secure cookies, [FlaskFirestore] for its sessions there
//
// # What becomes of the values
//
// A field has the name of the old key, and the Go value that the old library gave the program, with these exceptions.
// Keys that are no text but a number or bool become their text; a field under another kind of key is lost. A
// map[any]any becomes a map[string]any by the same rule, also inside of lists and other such maps. Text that is not
// valid UTF-8 becomes a []byte. The codec of the manager then decides what [sessplus.Session.Get] gives: with JSON an
// int64 for an int or a uint, text for a [time.Time] and a []byte, a map for a struct, and the typed getters and
// [sessplus.Field] give the type that it was; with [sessplus.Gob] the old type itself. Flashes of gorilla/sessions
// are a list in the field "_flash".
//
// # Types that the program has registered
//
// Sessions that are stored as gobs name the types of their values, so keep the calls of [gob.Register] for as long as
// the importer is there. One type that is not registered costs the fields that have it, and a warning names those and
// the type. If a type has moved to another package since, [gob.RegisterName] gives it the old name.
//
// # What is refused
//
// What visitors send is bounded before it is decoded, and a value that needs a signature is not decoded without a
// good one. An importer answers [sessplus.ErrNoRecord], with the reason, to what is forged, damaged, expired, or not
// known to the old store. An old store that does not answer is another error, by which nobody is logged out; so are
// keys that cannot be used at all.
//
// Importers are safe for concurrent use and start no goroutines.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// Options say how the old library was set up. A nil *Options is the zero value: its defaults.
type Options struct {
	// Keep leaves the old session where it is until its own end, for running beside the old program. Otherwise it is
	// removed once it has been taken over. What a secure cookie holds is nowhere else, so there is nothing to remove.
	Keep bool

	// Until is when importing ends: from then on the importer knows no session. Zero: no end. A secure cookie is good
	// until then, or until its own end, whatever happened to the session meanwhile.
	Until time.Time

	// Prefix is that of the keys in the old store. "": the old library's default. No meaning for secure cookies, and
	// for SCS, whose store has it.
	Prefix string

	// MaxAge is how long a signed cookie is good for, from when it was written: as its codecs had it, to the second.
	// 0: the old library's default, which is 30 days for gorilla's and no limit for Flask's. <0: no limit. No meaning
	// for cookies without a time stamp.
	MaxAge time.Duration

	HashToken bool // SCS: HashTokenInStore was set
	JSON      bool // RediStore, RedisStore: the values are JSON, by the library's JSONSerializer, and not gobs
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

// earlier returns the earlier of two ends, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
