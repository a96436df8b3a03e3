package sessplus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Backend keeps records: the fields of one session of one cookie. [Redis], [Firestore] and [Memory] are backends;
// another needs five methods, and shows with sessplustest.TestBackend that it keeps the promises made here.
//
// A key is printable ASCII, unique to a session and useless as a cookie. Methods are called concurrently, also for one
// key, and each acts on its record in one atomic step. They return soon after ctx is done. They keep no struct or slice
// of structs that they are given, and give none away that they keep. The bytes of a value are never changed, by neither
// side, so both may share them. The text of an error holds no field's value.
//
// A record whose Expires has passed is no record, whether or not the store has removed it yet. A backend removes expired
// records by itself or lets its store do it.
//
// ErrNoRecord is the only error that means an ended session. Every other one counts as [ErrUnavailable], except one
// that is [ErrTooLarge].
type Backend interface {
	// Load returns the record of the key. The error matches [ErrNoRecord] if there is none that has not expired; if there
	// is one that cannot be read, it wraps ErrNoRecord together with the reason.
	Load(ctx context.Context, key string) (*Record, error)

	// Create stores a record under a key that must not be there; the error matches [ErrRecordExists] if it is.
	Create(ctx context.Context, key string, r *Record) error

	// Update changes the record of the key as c says, and nothing else of it. The error matches [ErrNoRecord] if there is
	// none, and [ErrConflict] if it does not meet c.Match; in both cases nothing is changed.
	Update(ctx context.Context, key string, c *Change) (Result, error)

	// Take removes the record of the key and returns it as it was last. The error matches [ErrNoRecord] if there is none.
	Take(ctx context.Context, key string) (*Record, error)

	// Delete removes the record of the key. That there is none is no error.
	Delete(ctx context.Context, key string) error
}

// What a [Backend] answers, for [errors.Is].
var (
	// ErrNoRecord means that there is no record under the key that has not expired, or none that can be read.
	ErrNoRecord = errors.New("sessplus: no such record")

	// ErrRecordExists means that there is a record under the key already.
	ErrRecordExists = errors.New("sessplus: the record exists already")

	// ErrConflict means that a field does not have the value that a change asks for.
	ErrConflict = errors.New("sessplus: the record has changed meanwhile")
)

// A Record is what a [Backend] keeps under one key. Times are kept to the millisecond or better.
type Record struct {
	Created   time.Time  // when the session was created or renewed
	Saved     time.Time  // the last time a field was saved
	Expires   time.Time  // never zero: from then on the record does not exist
	Permanent bool       // the session is permanent, see [Session.SetPermanent]
	Fields    []RawField // in no order, each name once

	// Version is for the backend's own use: what it needs in Change.Seen to recognise the state that it returned.
	// It may stay empty.
	Version string
}

// A RawField is a field with its encoded value, which is not nil. Its name is any valid UTF-8 text of 1 to 256 bytes.
type RawField struct {
	Name  string
	Value []byte
}

// A Change is what [Backend.Update] does to a record. Set and Delete name different fields. With neither, it only moves
// the expiry (a touch).
type Change struct {
	Set    []RawField // gives these fields these values, and sets Saved to Now
	Delete []string   // removes these fields; that one is absent is no error, and sets Saved to Now
	Match  []RawField // applies only if these fields have exactly these values in the store, nil for absent

	// Permanent, if not nil, replaces the record's flag.
	Permanent *bool

	// Expires is the record's new expiry. It applies if it is later than the stored one, or if Permanent is not nil, or
	// if the record had no field before. A record that has no field after the change keeps its expiry, but at most
	// until EmptyGrace from Now, so that it soon goes while a request that still adds a field finds it.
	Expires time.Time

	Now  time.Time // what counts as now
	Seen *Record   // the record as the caller last knew it, with its Version; may be nil
}

// EmptyGrace is how long a record lives on after its last field has gone.
const EmptyGrace = time.Minute

// A Result tells what [Backend.Update] found and made.
type Result struct {
	Empty    bool      // the record has no field now
	Refilled bool      // it had none before and has one now
	Expires  time.Time // of the record, as it is now
	Version  string    // the new Record.Version, if the backend uses it
}

// Apply makes the change to r, which it alters, or returns [ErrNoRecord] or [ErrConflict] and leaves r alone. It is the
// rule of [Backend.Update] as code, for backends that change records in this process.
func (c *Change) Apply(r *Record) (Result, error) {
	if !r.Expires.After(c.Now) {
		return Result{}, ErrNoRecord
	}
	at := func(name string) int {
		return slices.IndexFunc(r.Fields, func(f RawField) bool { return f.Name == name })
	}
	for _, want := range c.Match {
		i := at(want.Name)
		if (i < 0) != (want.Value == nil) || i >= 0 && !bytes.Equal(r.Fields[i].Value, want.Value) {
			return Result{}, ErrConflict
		}
	}
	before := len(r.Fields)
	for _, f := range c.Set {
		if i := at(f.Name); i >= 0 {
			r.Fields[i].Value = f.Value
		} else {
			r.Fields = append(r.Fields, f)
		}
	}
	for _, name := range c.Delete {
		if i := at(name); i >= 0 {
			r.Fields = slices.Delete(r.Fields, i, i+1)
		}
	}
	if len(c.Set)+len(c.Delete) > 0 {
		r.Saved = c.Now
	}
	if c.Permanent != nil {
		r.Permanent = *c.Permanent
	}
	after := len(r.Fields)
	switch {
	case after == 0:
		if end := c.Now.Add(EmptyGrace); end.Before(r.Expires) {
			r.Expires = end
		}
	case before == 0 || c.Permanent != nil || c.Expires.After(r.Expires):
		r.Expires = c.Expires
	}
	return Result{Empty: after == 0, Refilled: before == 0 && after > 0, Expires: r.Expires}, nil
}

// wallNow is the time as records keep it: to the millisecond, and without the monotonic clock, which stands still while a
// machine sleeps.
func wallNow() time.Time { return time.Now().Truncate(time.Millisecond) }

// A sessionName is the id of a session and, behind it, the key of its record.
type sessionName string

// nameOf gives the key to an id: the only trace of the id that a backend sees. A stolen store opens no session, because
// nobody finds an id from its SHA-256.
func (c *cookie) nameOf(id string) sessionName {
	b := append(make([]byte, 0, 256), id...) // on the stack, and so mostly all of it
	sum := sha256.Sum256(b)
	b = append(append(append(b, c.KeyPrefix...), c.CookieName...), ':')
	return sessionName(hex.AppendEncode(b, sum[:]))
}

func (n sessionName) id() string { return string(n[:min(len(n), idLength)]) }

func (n sessionName) key() string { return string(n[min(len(n), idLength):]) }

// backendName is what Describe and the logs call a backend.
func backendName(b Backend) string {
	if s, ok := b.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", b)
}
