package sessplus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
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
	ErrNoRecord     = errors.New("sessplus: no such record")
	ErrRecordExists = errors.New("sessplus: the record exists already")
	ErrConflict     = errors.New("sessplus: the record has changed meanwhile")
)

// A Record is what a [Backend] keeps under one key. Times are kept to the millisecond or better.
type Record struct {
	Created   time.Time
	Saved     time.Time // the last time a field was saved
	Expires   time.Time // never zero: from then on the record does not exist
	Permanent bool      // the session is permanent, see [Session.SetPermanent]
	Fields    []RawField

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
	Empty    bool   // the record has no field now
	Refilled bool   // it had none before and has one now
	Version  string // the new Record.Version
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
	return Result{Empty: after == 0, Refilled: before == 0 && after > 0}, nil
}

// wallNow is the time as records keep it: to the millisecond, and without the monotonic clock, which stands still while a
// machine sleeps.
func wallNow() time.Time { return time.Now().Truncate(time.Millisecond) }

// recordKey is the key of a session's record: the only trace of the id that a backend sees. A stolen store opens no
// session, because nobody finds an id from its SHA-256.
func recordKey(prefix, cookie, id string) string {
	sum := sha256.Sum256([]byte(id))
	b := make([]byte, 0, len(prefix)+len(cookie)+1+hex.EncodedLen(len(sum)))
	b = append(append(append(b, prefix...), cookie...), ':')
	return string(hex.AppendEncode(b, sum[:]))
}

// A batcher is a Backend that makes the calls of all cookies with an equal client in one round trip.
type batcher interface {
	client() any // comparable
	doAll(ctx context.Context, calls []*call)
}

// A call is one call of a Backend for one cookie of a request, with its answer.
type call struct {
	part *part
	op   op
	key  string

	record *Record // to create, or the answer of a load or a take
	change *Change // to update
	result Result
	err    error
	took   time.Duration
}

type op uint8

const (
	opLoad op = iota
	opCreate
	opUpdate
	opTake
	opDelete
)

// do makes the call at its backend.
func (c *call) do(ctx context.Context) {
	b := c.part.Backend
	switch c.op {
	case opLoad:
		c.record, c.err = b.Load(ctx, c.key)
	case opCreate:
		c.err = b.Create(ctx, c.key, c.record)
	case opUpdate:
		c.result, c.err = b.Update(ctx, c.key, c.change)
	case opTake:
		c.record, c.err = b.Take(ctx, c.key)
	case opDelete:
		c.err = b.Delete(ctx, c.key)
	}
}

// run makes the calls, all side by side and those to one client in one round trip, within the Timeout. The error of a
// call then matches ErrUnavailable, unless it is one that Backend names.
func (s *Session) run(calls []*call) {
	if len(calls) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.m.timeout)
	defer cancel()
	groups := group(calls)
	last := len(groups) - 1
	var wg sync.WaitGroup
	var thrown atomic.Value // a panic of another goroutine would end the process; net/http expects it in the request's own
	for _, g := range groups[:last] {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					thrown.Store(&p)
				}
			}()
			runGroup(ctx, g)
		})
	}
	runGroup(ctx, groups[last])
	wg.Wait()
	if p, ok := thrown.Load().(*any); ok {
		panic(*p)
	}
}

// group splits the calls by the client that can make them together.
func group(calls []*call) [][]*call {
	var groups [][]*call
next:
	for _, c := range calls {
		if c.part.batch != nil {
			for i, g := range groups {
				if b := g[0].part.batch; b != nil && b.client() == c.part.batch.client() {
					groups[i] = append(g, c)
					continue next
				}
			}
		}
		groups = append(groups, []*call{c})
	}
	return groups
}

func runGroup(ctx context.Context, calls []*call) {
	start := time.Now()
	if len(calls) == 1 {
		calls[0].do(ctx)
	} else {
		calls[0].part.batch.doAll(ctx, calls)
	}
	took := time.Since(start)
	for _, c := range calls {
		c.took = took
		switch err := c.err; {
		case err == nil, errors.Is(err, ErrNoRecord), errors.Is(err, ErrConflict), errors.Is(err, ErrRecordExists), errors.Is(err, ErrTooLarge):
		default:
			c.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// backendName is what Describe and the logs call a backend.
func backendName(b Backend) string {
	if s, ok := b.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", b)
}
