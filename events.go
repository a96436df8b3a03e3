package sessplus

import (
	"context"
	"errors"
	"time"
)

// An Event tells [Options.OnEvent] what happened to one session. There is one for each load, save and end of a
// session, however many goroutines waited for it, and one for each cookie that was refused. Kind, Op, Cookie, Backend
// and Reason have few values, so metrics can be counted by them.
type Event struct {
	Kind     EventKind     // what happened
	Op       EventKind     // what was done or failed: Kind, but EventLoad for EventMiss, "" for EventReject; of EventUnproven EventLoad, EventBind or EventProve
	Cookie   string        // the CookieName of the config; "" for an error that concerns none
	Backend  string        // what Describe calls the config's backend
	Handle   string        // of the session, as in Info; "" for a secure cookie or where none is known; never the id
	Start    time.Time     // of the backend call; zero where there was none
	Duration time.Duration // of the backend call, with those that shared its round trip; 0 where there was none
	Fields   int           // read, or set and deleted
	Bytes    int           // of their names and values, encoded
	Reason   string        // of EventReject: malformed, forged, expired, future, foreign, version, unbound or split; of EventUnproven see docs/device.md
	Err      error         // of EventError
}

// EventKind is the kind of an [Event].
type EventKind string

const (
	EventLoad     EventKind = "load"     // a session was found
	EventMiss     EventKind = "miss"     // a well-formed cookie names no session
	EventCreate   EventKind = "create"   // a new session was saved
	EventSave     EventKind = "save"     // changes were saved
	EventTouch    EventKind = "touch"    // the end of a session was moved, or the backend was asked if it still lives
	EventRenew    EventKind = "renew"    // a session got a new id, because the program asked for it
	EventRotate   EventKind = "rotate"   // a session got a new id, because of its age
	EventDestroy  EventKind = "destroy"  // a session was removed
	EventBind     EventKind = "bind"     // a device's key was registered for a session, with DeviceBound
	EventProve    EventKind = "prove"    // a device has proven that it has the session's key
	EventUnproven EventKind = "unproven" // a bound session was asked for without that proof, and read as absent; or what was to prove it did not
	EventReject   EventKind = "reject"   // a cookie was refused; each one is told, where the log sums them up
	EventError    EventKind = "error"    // a call failed, or something was not saved, as when the session had ended
)

// Outcome sums the event up in one of a few words, whatever an error says, for labels of metrics: "ok"; "miss"; "unproven"; and of an
// [EventError] "gone" for [ErrSessionGone], "unavailable" for [ErrUnavailable], otherwise "failed".
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

// rejectReason is the [Event.Reason] of a cookie that is no session.
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

// event reports to the program, if it listens: the call that was made, or nil, and the fields that were read or
// written.
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

// loaded reports what became of a load.
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

// failed reports what was tried in vain, by the call that was made for it, or nil. c is nil if it concerns no cookie.
func (s *Session) failed(c *cookie, op EventKind, made *call, err error) {
	if s.m.onEvent != nil {
		s.tell(c, Event{Kind: EventError, Op: op, Err: err}, made)
	}
}

// rejected reports a cookie that is no session.
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
	s.m.onEvent(context.WithoutCancel(s.ctx), e)
}

// kind is the event of a call that succeeded, as far as the call alone tells.
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
