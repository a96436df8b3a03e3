package sessplus

import (
	"errors"
	"time"

	"github.com/sessplus/sessplus/internal/inspection"
)

// An Event tells [Options.OnEvent] what happened to a session. There is one event for each load, save and end of a
// session, no matter how many goroutines waited for it, and one for each rejected cookie. Kind, Op, Cookie, Backend and
// Reason have few values, so they can be labels of metrics.
type Event struct {
	Kind EventKind // what happened

	// Op is what was done or, for an EventError, what failed. It is EventLoad for an EventMiss, "" for an EventReject,
	// EventLoad, EventBind or EventProve for an EventUnproven, and otherwise Kind.
	Op EventKind

	Cookie   string        // the CookieName of the config; "" for an error that concerns no single cookie
	Backend  string        // the backend's name, as in Describe
	Handle   string        // of the session, as in Info, never the id; "" for a secure cookie, or if it is unknown
	Start    time.Time     // of the backend call; zero if there was none
	Duration time.Duration // of the backend call, including those that shared its round trip; 0 if there was none
	Fields   int           // how many were read, or set and deleted
	Bytes    int           // of their names and encoded values

	// Reason is why a cookie was rejected (EventReject): malformed, forged, expired, future, foreign, version, unbound
	// or split. For those of EventUnproven, see docs/device.md.
	Reason string

	Err error // of EventError
}

// EventKind is the kind of an [Event].
type EventKind string

const (
	EventLoad     EventKind = "load"     // a session was found
	EventMiss     EventKind = "miss"     // a well-formed cookie names no session
	EventCreate   EventKind = "create"   // a new session was saved
	EventSave     EventKind = "save"     // changes were saved
	EventTouch    EventKind = "touch"    // the expiry was moved, or the backend was asked if the session still exists
	EventRenew    EventKind = "renew"    // a session got a new id because the program called Renew
	EventRotate   EventKind = "rotate"   // a session got a new id because of its age
	EventDestroy  EventKind = "destroy"  // a session was ended
	EventImport   EventKind = "import"   // an earlier session was imported; Duration is that of its importer
	EventBind     EventKind = "bind"     // a device's key was registered for a session, with DeviceBound
	EventProve    EventKind = "prove"    // a browser proved that it has the session's key
	EventUnproven EventKind = "unproven" // a bound session came without a proof, or a proof was rejected
	EventReject   EventKind = "reject"   // a cookie was rejected; the log has only some of these
	EventError    EventKind = "error"    // a call failed, or a change was not saved
)

// Outcome returns the result of the event as one of six words, for labels of metrics: "ok", "miss", "unproven", and for
// an [EventError] "gone" ([ErrSessionGone]), "unavailable" ([ErrUnavailable]) or "failed".
func (e Event) Outcome() string {
	switch {
	case e.Kind == EventMiss:
		return "miss"
	case e.Kind == EventUnproven:
		return "unproven"
	case e.Kind != EventError:
		return "ok"
	case errors.Is(e.Err, ErrSessionGone):
		return "gone"
	case errors.Is(e.Err, ErrUnavailable):
		return "unavailable"
	}
	return "failed"
}

// rejectReason returns the [Event.Reason] of a rejected cookie.
func rejectReason(err error) string {
	for _, r := range rejectReasons {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return "malformed"
}

var rejectReasons = []struct {
	err  error
	name string
}{
	{errForged, "forged"},   // altered, or signed with a key that is not among Keys
	{errExpired, "expired"}, // older than its age allows
	{errFuture, "future"},   // written more than a minute ahead of this machine's clock
	{errForeign, "foreign"}, // not written by sessplus
	{errVersion, "version"}, // written by a later version of sessplus
	{errUnbound, "unbound"}, // not written under the session that BoundTo names
	{errSplit, "split"},     // over more cookies than MaxChunks
}

// event reports to OnEvent what a call did, which is nil for a secure cookie, and the fields that were read or written.
func (s *Session) event(c *cookie, kind EventKind, made *call, fields []RawField) {
	if s.m.onEvent == nil {
		return
	}
	e := Event{Kind: kind, Op: kind, Fields: len(fields)}
	for _, f := range fields {
		e.Bytes += len(f.Name) + len(f.Value)
	}
	switch {
	case kind == EventMiss:
		e.Op = EventLoad
	case kind == EventError:
		e.Op, e.Err = made.op.kind(), made.err
	}
	s.tell(c, e, made)
}

// loaded reports the result of a load.
func (s *Session) loaded(made *call, now time.Time) {
	c := made.part.cookie
	switch {
	case errors.Is(made.err, ErrNoRecord) || made.err == nil && !c.alive(made.record, now):
		s.event(c, EventMiss, made, nil)
	case made.err != nil:
		s.event(c, EventError, made, nil)
	default:
		s.event(c, EventLoad, made, made.record.Fields)
	}
}

// failed reports an operation that failed, and the call that was made for it, or nil. c is nil if the error concerns no
// single cookie.
func (s *Session) failed(c *cookie, op EventKind, made *call, err error) {
	if s.m.onEvent != nil {
		s.tell(c, Event{Kind: EventError, Op: op, Err: err}, made)
	}
}

// rejected reports a cookie that was rejected.
func (s *Session) rejected(c *cookie, reason error) {
	if s.m.onEvent != nil {
		s.tell(c, Event{Kind: EventReject, Reason: rejectReason(reason)}, nil)
	}
}

func (s *Session) tell(c *cookie, e Event, made *call) {
	if c != nil {
		e.Cookie, e.Backend = c.CookieName, c.store
	}
	if made != nil {
		e.Handle, e.Duration = made.handle(), made.took
		if made.began != 0 {
			e.Start = time.Unix(0, made.began)
		}
	}
	s.m.onEvent(eventContext{s.session}, e)
}

// An eventContext is the context of a request without its cancellation: what happened is reported whether or not the
// client has disconnected.
type eventContext struct{ *session }

func (eventContext) Deadline() (end time.Time, ok bool) { return time.Time{}, false }
func (eventContext) Done() <-chan struct{}              { return nil }
func (eventContext) Err() error                         { return nil }
func (eventContext) String() string                     { return "sessplus.Context" }

func (c eventContext) Value(key any) any {
	if key == (inspection.RequestKey{}) {
		return c.request
	}
	return c.ctx.Value(key)
}

// kind returns the event of a successful call, as far as the call alone determines it.
func (o op) kind() EventKind {
	switch o {
	case opCreate:
		return EventCreate
	case opUpdate:
		return EventSave
	case opEnd:
		return EventDestroy
	}
	return EventLoad
}
