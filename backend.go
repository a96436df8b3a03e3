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

// A Backend keeps records: the fields of one session of one cookie. [Redis], [Firestore] and [Memory] are backends;
// another needs four methods, and shows with sessplustest.TestBackend that it keeps the promises made here.
//
// A key is printable ASCII, unique to a session and useless as a cookie. Methods are called concurrently, also for one
// key, and each acts on its record in one atomic step. They return soon after ctx is done. They keep no struct or slice
// of structs that they are given, and give none away that they keep. The bytes of a value are never changed, by neither
// side, so both may share them. The text of an error holds no field's value.
//
// A record whose Expires has passed is no record, whether or not the store has removed it yet. A backend removes expired
// records by itself or lets its store do it. A record that was ended is known as such for [EndGrace]: an [*EndedError]
// then tells it apart from one that never was.
//
// An error that matches ErrNoRecord is the only one that means an ended session. Every other one counts as
// [ErrUnavailable], except one that is [ErrTooLarge].
type Backend interface {
	// Load returns the record of the key, also one that is taken. The error matches [ErrNoRecord] if there is none that
	// has not expired, and is an [*EndedError] if it was ended; if there is one that cannot be read, it wraps ErrNoRecord
	// together with the reason.
	Load(ctx context.Context, key string) (*Record, error)

	// Create stores a record under a key that must not be there, not even of an ended record; the error matches
	// [ErrRecordExists] if it is.
	Create(ctx context.Context, key string, r *Record) error

	// Update changes the record of the key as c says, and nothing else of it. The error is as that of Load if there is
	// none, [ErrTaken] if somebody is about to end it, and [ErrConflict] if it does not meet c.Match or c.DeviceKey; in these cases
	// nothing is changed. [Change.Apply] is the rule as code.
	Update(ctx context.Context, key string, c *Change) (Result, error)

	// End takes the record of the key towards its end, or back, as e says; after StepTake it returns the record. The error
	// is as that of Load if there is none, and [ErrTaken] if it is taken by somebody else. [Ending.Apply] is the rule as
	// code.
	End(ctx context.Context, key string, e *Ending) (*Record, error)
}

// An Indexer is a [Backend] that finds the records of one owner, which [Config.IndexBy] needs. [Redis], [Firestore] and
// [Memory] are Indexers.
type Indexer interface {
	Backend

	// Owned returns all records that have this [Record.Owner], which is not "", and are neither expired nor ended,
	// with their keys and in no order, each once, and with its Mark if it is taken. A record whose Create, or whose
	// Update to this Owner, has returned is not missing, even if the process that made it has died since. In the
	// place of one that is ended during the call stands what it has become, as [Ending.Next] says. Owned may be slow;
	// it is for a page that lists a user's sessions.
	Owned(ctx context.Context, owner string) ([]KeyedRecord, error)
}

// A KeyedRecord is a [Record] with its key.
type KeyedRecord struct {
	Key string // as the record was stored under
	*Record
}

// What a [Backend] answers, for [errors.Is].
var (
	// ErrNoRecord means that there is no record under the key that has not expired, or none that can be read.
	ErrNoRecord = errors.New("sessplus: no such record")

	// ErrRecordExists means that there is a record under the key already.
	ErrRecordExists = errors.New("sessplus: the record exists already")

	// ErrConflict means that a field does not have the value that a change asks for.
	ErrConflict = errors.New("sessplus: the record has changed meanwhile")

	// ErrTaken means that somebody else is about to end the record, and it is not known yet whether it ends.
	ErrTaken = errors.New("sessplus: the record is taken by somebody else")
)

// EndedError means that there was a record under the key, and that it was ended less than [EndGrace] ago. It matches
// [ErrNoRecord].
type EndedError struct {
	Next string // what [Ending.Next] said

	forGood bool // nobody may bring it back
}

func (e *EndedError) Error() string { return "sessplus: the record was ended" }

// Is reports whether target is [ErrNoRecord].
func (e *EndedError) Is(target error) bool { return target == ErrNoRecord }

// A Record is what a [Backend] keeps under one key. Times are kept to the millisecond or better.
type Record struct {
	Created   time.Time  // when the session was created or renewed
	Saved     time.Time  // the last time a field was saved
	Expires   time.Time  // never zero: from then on the record does not exist
	Permanent bool       // the session is permanent, see [Session.SetPermanent]
	Rotated   time.Time  // when it last got another id by its age; zero: never
	Origin    string     // printable ASCII, "" unless it was rotated: names the id that it had first, without giving it away
	Fields    []RawField // in no order, each name once

	// Owner is what an [Indexer] finds the record by: printable ASCII without spaces, at most 1,024 bytes, or "". Device is
	// the User-Agent that made the session, valid UTF-8 of at most 256 bytes, or "". Without [Config.IndexBy] both are "".
	Owner, Device string

	// DeviceKey is the key that the session is bound to, and more: printable ASCII without spaces, at most 1,024 bytes, or ""
	// for none. Without [Config.DeviceBound] it is "". Only a [DeviceKeeper] has to keep it.
	DeviceKey string

	owned time.Time // since when Redis has it under its Owner

	// Mark is for the backend's own use: who takes the record, or that it has ended. nil for most, and for a record that
	// Create is given. It is replaced, never changed.
	Mark *Mark

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

	Permanent *bool   // if not nil, replaces the record's flag
	Owner     *string // if not nil, replaces the record's Owner

	// DeviceKey, if it is not "", is the record's from now on. If the record has another one already, the change is an
	// [ErrConflict].
	DeviceKey string

	// Expires is the record's new expiry, unless the stored one holds:
	//
	//	no field is left after the change         the stored one, but at most EmptyGrace from Now
	//	no field before, or Permanent is not nil  Expires
	//	Expires is later than the stored one      Expires
	//	earlier, Exact, and still as in Seen      Expires
	//	earlier                                   the stored one
	//
	// So an empty record soon goes, while a request that still adds a field finds it.
	Expires time.Time

	// Exact lets Expires hold although it is earlier, if expiry (to the millisecond) and flag of the record are those of
	// Seen. Otherwise another request has set the record's end meanwhile, and perhaps knew better.
	Exact bool

	Now  time.Time // what counts as now
	Seen *Record   // the record as the caller last knew it, with its Version; may be nil
}

// How long a record that is gone leaves a trace.
const (
	EmptyGrace = time.Minute // a record lives on for so long after its last field has gone
	EndGrace   = time.Minute // an ended record is told apart from one that never was
)

// TakeGrace is how long a take holds, if the one who took the record is not heard of again. It is less than the usual
// Timeout, so that those who wait for the record get it then.
const TakeGrace = 3 * time.Second

// An Ending is one step of [Backend.End]. A renewal takes the record that it replaces, then ends it or, if the commit
// fails, releases it. A record that is taken is still loaded by others; who wants to change it waits. To end a session
// at once takes no Token, and wins over a renewal that has not ended it yet.
type Ending struct {
	Step  EndStep   // what to do
	Token string    // of who takes the record, printable ASCII; "" ends it whoever has it. It names what comes next
	Next  string    // printable ASCII and spaces, at most 1,024 bytes: what the record has become, for [EndedError]
	Now   time.Time // what counts as now
	Seen  *Record   // the record as the caller last knew it, with its Version; may be nil
}

// EndStep is what an [Ending] does.
type EndStep uint8

const (
	StepTake    EndStep = iota // marks the record, and returns it as it is; once more for the same Token
	StepRelease                // undoes StepTake or StepEnd of that Token, else it does nothing
	StepEnd                    // ends the record, which that Token has taken or ended; with "", ends any
)

// A Mark is what [Ending.Apply] leaves in a record.
type Mark struct {
	Token string    // of who takes or has ended the record; "" if nobody may bring it back
	Ended bool      // it is ended, and not only taken
	At    time.Time // if taken, when that lapses; if ended, when the record would have expired
	Next  string    // if ended, Ending.Next
}

// live returns nil if r is a record at that time, taken or not, and else the error of Load.
func (r *Record) live(now time.Time) error {
	switch {
	case !r.Expires.After(now):
		return ErrNoRecord
	case r.Mark != nil && r.Mark.Ended:
		return &EndedError{r.Mark.Next, r.Mark.Token == ""}
	}
	return nil
}

// taken reports whether somebody is about to end r.
func (r *Record) taken(now time.Time) bool {
	return r.Mark != nil && !r.Mark.Ended && r.Mark.At.After(now)
}

// Apply makes the step in r, which it alters also when it returns an [*EndedError]. With [ErrTaken] and other errors it
// leaves r alone. It is the rule of [Backend.End] as code.
func (e *Ending) Apply(r *Record) error {
	mine := r.Mark != nil && r.Mark.Token == e.Token && e.Token != ""
	err := r.live(e.Now)
	ended := r.Mark != nil && r.Mark.Ended
	switch {
	case err != nil && !ended, ended && err == ErrNoRecord:
		return ErrNoRecord
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

// String gives the mark as Redis and Firestore keep it: "t TOKEN MILLISECONDS" or "e TOKEN MILLISECONDS NEXT".
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

// parseMark undoes [Mark.String].
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

// A Result tells what [Backend.Update] found and made.
type Result struct {
	Empty    bool      // the record has no field now
	Refilled bool      // it had none before and has one now
	Expires  time.Time // of the record, as it is now
	Version  string    // the new Record.Version, if the backend uses it and the record was as Seen; else ""
}

// replace gives r the flag, the owner and the key that the change says.
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

// Apply makes the change to r, which it alters, or returns the error of [Backend.Update] and leaves r alone. It is the rule
// of Update as code, for backends that change records in this process.
func (c *Change) Apply(r *Record) (Result, error) {
	if err := r.live(c.Now); err != nil {
		return Result{}, err
	}
	if r.taken(c.Now) {
		return Result{}, ErrTaken
	}
	var index map[string]int // of the fields, if the change has many: time must not grow with the square of its size
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

// delete removes from r the fields that c deletes.
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

// wallNow is the time as records keep it: to the millisecond, and without the monotonic clock, which stands still while a
// machine sleeps.
func wallNow() time.Time { return time.Now().Truncate(time.Millisecond) }

// A sessionName is what names one session: its id, which only the visitor has, and the key of its record.
type sessionName struct{ id, key string }

// nameOf gives the key to an id: the only trace of the id that a backend sees. A stolen store opens no session, because
// nobody finds an id from its SHA-256.
func (c *cookie) nameOf(id string) sessionName {
	sum := sha256.Sum256(append(make([]byte, 0, 64), id...))
	b := make([]byte, 0, 256) // on the stack, and so mostly all of it
	b = append(append(append(b, c.KeyPrefix...), c.CookieName...), ':')
	return sessionName{id, string(hex.AppendEncode(b, sum[:]))}
}

// backendName is what Describe and the logs call a backend.
func backendName(b Backend) string {
	if s, ok := b.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", b)
}

// sameBackend reports whether two backends keep their records in one place.
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
