package sessplus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Backend stores the records of server-side sessions: one record for each session of each cookie. [Redis],
// [Firestore] and [Memory] are backends, and so is package sessplussql's. To write another, implement these four
// methods and run sessplustest.TestBackend. The repository's docs/backend.md walks through one.
//
// A backend must follow these rules:
//
//   - Its methods may be called concurrently, also for the same key. Each acts on its record in one atomic step.
//   - A key is case-sensitive, printable ASCII without spaces, and at most 833 bytes long. It cannot be used as a
//     cookie.
//   - Methods must not retain the records, changes or field slices they are passed, and must return copies. The
//     bytes of a value may be shared, because nobody modifies them.
//   - A field's value may be empty, but is not nil. An empty value is not an absent field. A record may have no
//     fields.
//   - From its Expires on, a record does not exist, whether or not the store has removed it. Update and End use
//     [Change.Now] and [Ending.Now]; Load, Create and Owned, which are passed no time, use the clock of the backend or
//     its store. Expired records must be removed eventually.
//   - For [EndGrace] after a record has ended, Load, Update and End return an [*EndedError], and Create returns
//     [ErrRecordExists].
//   - Methods must return soon after ctx is done: with their result, or with an error that matches none of those
//     below, such as ctx.Err(). The caller then assumes that the call may have taken effect.
//   - Only an error that matches [ErrNoRecord] means that there is no session. Any error not mentioned here is reported
//     as [ErrUnavailable], except one that matches [ErrTooLarge], for a record that is too large for the store. No
//     error text may contain a field's value.
//
// If the backend is a [fmt.Stringer], its String names it in [Manager.Describe], [Event.Backend] and the log;
// otherwise its type does. Configs whose backends are equal (==) share one store.
//
// # What the conformance suite cannot test
//
// The suite runs in one process, on a store that works. It does not test that records survive a crash or a failover,
// that the steps are atomic across processes, that a load sees what another machine has saved, how the backend
// behaves when its store is down, hangs or loses a reply (a compare-and-set that was applied must not be sent again),
// that the store's own error texts contain no values, or that expired records are ever removed.
//
// # Wrapping a backend
//
// A type that wraps [Redis] or another built-in backend, for logging or metrics, makes it slower: the calls of several
// configs on one client are no longer sent in one round trip, and [New] cannot tell that two wrappers share a client.
// It is an [Indexer] only if it has a method Owned of its own. [Options.OnEvent] reports every call without that. Do
// not wrap [SecureCookie]: the wrapper counts as a server-side backend, and no session in it can be saved.
type Backend interface {
	// Load returns the record stored under key, even if it is taken. The error matches [ErrNoRecord] if there is
	// none, and is an [*EndedError] if it was ended. If the record cannot be read (it is corrupt, or was written by a
	// later version), the error wraps ErrNoRecord and states the reason.
	Load(ctx context.Context, key string) (*Record, error)

	// Create stores r under key. The error matches [ErrRecordExists] if there is a record that has not expired, even if
	// it was ended. Create must not replace such a record.
	Create(ctx context.Context, key string, r *Record) error

	// Update applies c to the record, and changes nothing else in it. The errors are those of Load, [ErrTaken] if
	// somebody else is about to end the record, and [ErrConflict] if it does not meet c.Match or c.DeviceKey; the
	// record is then unchanged. [Change.Apply] defines the rule in Go.
	Update(ctx context.Context, key string, c *Change) (Result, error)

	// End makes the step e. After StepTake it returns the record; after the other steps the result is ignored. The
	// errors are those of Load, and [ErrTaken] if the step is not e.Token's to make. [Ending.Apply] defines the rule
	// in Go.
	End(ctx context.Context, key string, e *Ending) (*Record, error)
}

// An Indexer is a [Backend] that can find the records of an owner, as [Config.IndexBy] requires. [Redis], [Firestore],
// [Memory] and package sessplussql's backend are Indexers.
type Indexer interface {
	Backend

	// Owned returns the records with this [Record.Owner], which is not "", and their keys: each once, in any order,
	// including taken ones (with their Mark), but none that has expired or ended. It must not miss a record whose
	// Create, or whose Update to this Owner, has returned, even if the process that called it has died since. If a
	// record ends during the call, what it has become ([Ending.Next]) takes its place. Owned may be slow: it is
	// called to list a user's sessions.
	Owned(ctx context.Context, owner string) ([]KeyedRecord, error)
}

// A KeyedRecord is a [Record] with its key.
type KeyedRecord struct {
	Key string // the key the record is stored under
	*Record
}

// The errors of a [Backend], for [errors.Is].
var (
	// ErrNoRecord means that there is no record under the key, that it has expired, or that it cannot be read.
	ErrNoRecord = errors.New("sessplus: no such record")

	// ErrRecordExists means that there is already a record under the key.
	ErrRecordExists = errors.New("sessplus: the record exists already")

	// ErrConflict means that a field does not have the value that [Change.Match] asks for, or that the record has
	// another [Change.DeviceKey].
	ErrConflict = errors.New("sessplus: the record has changed meanwhile")

	// ErrTaken means that somebody else is about to end the record, and that it is not yet known whether they will.
	ErrTaken = errors.New("sessplus: the record is taken by somebody else")
)

// EndedError means that the record under the key was ended less than [EndGrace] ago. It matches [ErrNoRecord].
type EndedError struct {
	Next string // the [Ending.Next] of the step that ended it

	forGood bool // nobody may bring it back
}

func (e *EndedError) Error() string { return "sessplus: the record was ended" }

// Is reports whether target is [ErrNoRecord].
func (e *EndedError) Is(target error) bool { return target == ErrNoRecord }

// A Record is what a [Backend] stores under one key. Times must be accurate to the millisecond.
type Record struct {
	Created   time.Time  // when the session was created or renewed
	Saved     time.Time  // when a field was last saved
	Expires   time.Time  // never zero; from then on the record does not exist
	Permanent bool       // the session is permanent, see [Session.SetPermanent]
	Rotated   time.Time  // when it last got a new id by its age; zero: never
	Origin    string     // printable ASCII, "" unless it was rotated: identifies its first id without revealing it
	Fields    []RawField // in any order, each name once; may be empty

	// Owner is what an [Indexer] finds the record by: printable ASCII without spaces, at most 1,024 bytes, or "".
	// Device is the User-Agent that created the session: valid UTF-8, at most 256 bytes, or "". Both are "" without
	// [Config.IndexBy].
	Owner, Device string

	// DeviceKey is the key the session is bound to: printable ASCII without spaces, at most 1,024 bytes, or "". It is
	// "" without [Config.DeviceBound]. Only a [DeviceKeeper] must store it.
	DeviceKey string

	legacy *legacy // of the content of a secure cookie, if it was imported

	owned time.Time // since when Redis has it under its Owner

	// Mark says that the record is taken or has ended. Only the backend uses it: it stores what [Ending.Apply] makes
	// of it, and Load returns it while the record is taken. It is nil in most records, and in those passed to Create.
	// A Mark is never modified, only replaced.
	Mark *Mark

	// Version is for the backend alone: whatever it needs to recognize, in Change.Seen, a state that it has returned.
	// It may be empty.
	Version string
}

// A RawField is a field and its encoded value, which may be empty but is not nil. The name is valid UTF-8 of 1 to 256
// bytes.
type RawField struct {
	Name  string
	Value []byte
}

// A Change is what [Backend.Update] does to a record. Set and Delete name different fields. If both are empty, the
// change only moves the expiry (a touch).
type Change struct {
	Set    []RawField // sets these fields; if not empty, Saved becomes Now
	Delete []string   // removes these fields, whether or not they exist; if not empty, Saved becomes Now

	// Match is a condition: the change applies only if these fields have exactly these values in the store. A nil value
	// means that the field is absent, an empty one that it exists and is empty.
	Match []RawField

	Permanent *bool   // if not nil, replaces the record's flag
	Owner     *string // if not nil, replaces the record's Owner

	// DeviceKey, if not "", becomes the record's. If the record already has another one, Update returns [ErrConflict].
	DeviceKey string

	// Expires is the new expiry, subject to these rules:
	//
	//	Fields left by the change                        The record then expires at
	//	none                                             the stored time, but at most EmptyGrace from Now
	//	some, and: there were none before,               Expires
	//	  or Permanent is not nil, or Exact applies
	//	some, otherwise                                  the later of Expires and the stored time
	//
	// So an emptied record soon expires, and a request that adds a field in the meantime still finds it.
	Expires time.Time

	// Exact applies if the record's expiry (to the millisecond) and flag are those of Seen, and makes Expires count
	// even if it is earlier. Otherwise Exact is ignored, because another request has moved the expiry in the meantime.
	Exact bool

	Now  time.Time // the current time, instead of the backend's own clock
	Seen *Record   // a hint: the record as the caller last knew it, with its Version; may be nil or out of date
}

// How long a record remains in the store after its session has ended.
const (
	EmptyGrace = time.Minute // how long a record remains after its last field was removed
	EndGrace   = time.Minute // how long an ended record is told apart from one that never existed
)

// TakeGrace is how long a take lasts if the process that made it dies. It is less than the default [Options.Timeout],
// so that a request that waits for the record gets it.
const TakeGrace = 3 * time.Second

// An Ending is one step of [Backend.End]. A renewal takes the record it replaces, and then ends it or, if the commit
// fails, releases it. A taken record can still be loaded, but a request that wants to change it waits. An Ending
// without a Token ends the session at once, and overrides a renewal in progress.
type Ending struct {
	Step  EndStep   // what to do
	Token string    // who takes the record, printable ASCII; only StepEnd may have "", which overrides any take
	Next  string    // what the record has become, for [EndedError]: printable ASCII and spaces, at most 1,024 bytes
	Now   time.Time // the current time, instead of the backend's own clock
	Seen  *Record   // a hint: the record as the caller last knew it, with its Version; may be nil or out of date
}

// EndStep is what an [Ending] does.
type EndStep uint8

const (
	StepTake    EndStep = iota // takes the record for Token and returns it; may be repeated with the same Token
	StepRelease                // undoes a StepTake or StepEnd with the same Token; otherwise does nothing
	StepEnd                    // ends the record that Token has taken; without a Token, ends any record
)

// A Mark is what [Ending.Apply] leaves in a record.
type Mark struct {
	Token string    // who has taken or ended the record; "" if it cannot be released
	Ended bool      // whether it has ended, or is only taken
	At    time.Time // if taken, when that lapses; if ended, when the record would have expired
	Next  string    // if ended, Ending.Next
}

// live returns nil if r exists at that time, taken or not, and otherwise the error of Load.
func (r *Record) live(now time.Time) error {
	switch {
	case !r.Expires.After(now):
		return ErrNoRecord
	case r.Mark != nil && r.Mark.Ended:
		return &EndedError{r.Mark.Next, r.Mark.Token == ""}
	}
	return nil
}

// taken reports whether somebody is about to end r: a take lapses.
func (r *Record) taken(now time.Time) bool {
	return r.Mark != nil && !r.Mark.Ended && r.Mark.At.After(now)
}

// Apply makes the step on r. It defines [Backend.End] in Go, for backends that change records in this process. If it
// returns nil or an [*EndedError], r must be stored; after any other error it is unchanged.
func (e *Ending) Apply(r *Record) error {
	mine := r.Mark != nil && r.Mark.Token == e.Token && e.Token != ""
	err := r.live(e.Now)
	ended := r.Mark != nil && r.Mark.Ended
	switch {
	case err == ErrNoRecord:
		return err
	case e.Step == StepRelease:
		if mine && ended {
			r.Expires = r.Mark.At
		}
		if mine {
			r.Mark = nil
		}
		return nil
	case ended && mine && e.Step == StepEnd:
		return nil // the answer to the first try was lost
	case ended:
		if e.Step == StepEnd && e.Token == "" { // nobody may bring it back any more
			r.Mark, r.Fields = &Mark{Ended: true, At: r.Expires, Next: r.Mark.Next}, nil
		}
		return err
	case e.Step == StepTake && (mine || !r.taken(e.Now)):
		r.Mark = &Mark{Token: e.Token, At: e.Now.Add(TakeGrace)}
		return nil
	case e.Step == StepEnd && (mine || e.Token == ""):
		r.Mark = &Mark{Token: e.Token, Ended: true, At: r.Expires, Next: e.Next}
		r.Expires = e.Now.Add(EndGrace)
		if e.Token == "" {
			r.Fields = nil
		}
		return nil
	}
	return ErrTaken
}

// String returns the mark as Redis and Firestore store it: "t TOKEN MILLISECONDS" or "e TOKEN MILLISECONDS NEXT".
func (m *Mark) String() string {
	kind, token := "t", m.Token
	if m.Ended {
		kind = "e"
	}
	if token == "" {
		token = "-"
	}
	text := fmt.Sprintf("%s %s %d", kind, token, m.At.UnixMilli())
	if m.Next != "" {
		text += " " + m.Next
	}
	return text
}

// parseMark is the inverse of [Mark.String].
func parseMark(text string) (*Mark, bool) {
	part := strings.SplitN(text, " ", 4)
	if len(part) < 3 || part[0] != "t" && part[0] != "e" {
		return nil, false
	}
	at, err := strconv.ParseInt(part[2], 10, 64)
	m := &Mark{Token: part[1], Ended: part[0] == "e", At: time.UnixMilli(at)}
	if m.Token == "-" {
		m.Token = ""
	}
	if len(part) == 4 {
		m.Next = part[3]
	}
	return m, err == nil
}

// A Result is what [Backend.Update] has done to a record.
type Result struct {
	Empty bool // the record has no fields now, so the browser is told to drop the cookie

	// Refilled means that the record had no fields before the change, and has some now. The request that removed the
	// last one has told the browser to drop the cookie, so the cookie must be sent again.
	Refilled bool

	Expires time.Time // the record's expiry now
	Version string    // the new Record.Version, if the backend uses it and the record was as in Seen; otherwise ""
}

// replace sets the flag, the owner and the device's key of r, if the change does.
func (c *Change) replace(r *Record) {
	if c.Permanent != nil {
		r.Permanent = *c.Permanent
	}
	if c.Owner != nil {
		r.Owner, r.owned = *c.Owner, c.Now
	}
	if c.DeviceKey != "" {
		r.DeviceKey = c.DeviceKey
	}
}

// Apply applies the change to r, or returns the error of [Backend.Update] and leaves r unchanged. It defines Update in
// Go, for backends that change records in this process. It may modify r.Fields in place.
func (c *Change) Apply(r *Record) (Result, error) {
	if err := r.live(c.Now); err != nil {
		return Result{}, err
	}
	if r.taken(c.Now) {
		return Result{}, ErrTaken
	}
	var index map[string]int // of r.Fields, if the change is large: the time must not grow with the square of its size
	if len(c.Match)+len(c.Set) > fewNames {
		index = make(map[string]int, len(r.Fields)+len(c.Set))
		for i, f := range r.Fields {
			index[f.Name] = i
		}
	}
	at := func(name string) int {
		if index == nil {
			return slices.IndexFunc(r.Fields, func(f RawField) bool { return f.Name == name })
		}
		if i, ok := index[name]; ok {
			return i
		}
		return -1
	}
	for _, want := range c.Match {
		i := at(want.Name)
		if (i < 0) != (want.Value == nil) || i >= 0 && !bytes.Equal(r.Fields[i].Value, want.Value) {
			return Result{}, ErrConflict
		}
	}
	if c.DeviceKey != "" && r.DeviceKey != "" && c.DeviceKey != r.DeviceKey {
		return Result{}, ErrConflict
	}
	r.Mark = nil // it has lapsed
	exact := c.Exact && c.Seen != nil && c.Seen.Permanent == r.Permanent && c.Seen.Expires.UnixMilli() == r.Expires.UnixMilli()
	before := len(r.Fields)
	for _, f := range c.Set {
		if i := at(f.Name); i >= 0 {
			r.Fields[i].Value = f.Value
		} else {
			if index != nil {
				index[f.Name] = len(r.Fields)
			}
			r.Fields = append(r.Fields, f)
		}
	}
	c.delete(r)
	if len(c.Set)+len(c.Delete) > 0 {
		r.Saved = c.Now
	}
	c.replace(r)
	after := len(r.Fields)
	switch {
	case after == 0:
		if end := c.Now.Add(EmptyGrace); end.Before(r.Expires) {
			r.Expires = end
		}
	case before == 0 || c.Permanent != nil || exact || c.Expires.After(r.Expires):
		r.Expires = c.Expires
	}
	return Result{Empty: after == 0, Refilled: before == 0 && after > 0, Expires: r.Expires}, nil
}

// delete removes c.Delete from r.
func (c *Change) delete(r *Record) {
	if len(c.Delete) == 0 {
		return
	}
	gone := func(f RawField) bool { return slices.Contains(c.Delete, f.Name) }
	if len(c.Delete) > fewNames {
		names := make(map[string]bool, len(c.Delete))
		for _, name := range c.Delete {
			names[name] = true
		}
		gone = func(f RawField) bool { return names[f.Name] }
	}
	r.Fields = slices.DeleteFunc(r.Fields, gone)
}

// wallNow returns the time as records store it: to the millisecond, and without the monotonic clock, which stands still
// while a machine sleeps.
func wallNow() time.Time { return time.Now().Truncate(time.Millisecond) }

// A sessionName identifies a session: by its id, which only the visitor has, and by the key of its record.
type sessionName struct{ id, key string }

// nameOf adds the key to an id. The key is all that a backend sees of the id, so a stolen store opens no session:
// nobody can compute an id from its SHA-256.
func (c *cookie) nameOf(id string) sessionName {
	sum := sha256.Sum256(append(make([]byte, 0, 64), id...))
	b := make([]byte, 0, 256) // on the stack, and long enough for usual names
	b = append(append(append(b, c.KeyPrefix...), c.CookieName...), ':')
	return sessionName{id, string(hex.AppendEncode(b, sum[:]))}
}

// backendName is the name of a backend in Describe, events and logs.
func backendName(b Backend) string {
	if s, ok := b.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", b)
}

// newRecord returns an empty record with room for n fields. Few of them are in one piece of memory with it.
func newRecord(n int) *Record {
	if n > fewFields {
		return &Record{Fields: make([]RawField, 0, n)}
	}
	r := new(struct {
		Record
		fields [fewFields]RawField
	})
	r.Fields = r.fields[:0]
	return &r.Record
}

func (r *Record) clone() *Record {
	c := *r
	c.Fields = slices.Clone(r.Fields)
	return &c
}

// valueOf returns the value of a field, or nil if the record has none of that name.
func (r *Record) valueOf(name string) []byte {
	if i := slices.IndexFunc(r.Fields, func(f RawField) bool { return f.Name == name }); i >= 0 {
		return r.Fields[i].Value
	}
	return nil
}

// sameBackend reports whether two backends share one store.
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
