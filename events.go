package sessplus

import (
	"context"
	"time"
)

// An Event tells [Options.OnEvent] what happened to one session.
type Event struct {
	Kind     EventKind     // what happened
	Cookie   string        // the CookieName of the config
	Handle   string        // of the session, "" for a secure cookie; never the id
	Duration time.Duration // of the backend call, with those that shared its round trip; 0 where there was none
	Fields   int           // read or written
	Bytes    int           // of their names and values, encoded
	Err      error         // why, for EventError
}

// EventKind is the kind of an [Event].
type EventKind string

const (
	EventLoad    EventKind = "load"    // a session was found
	EventMiss    EventKind = "miss"    // a well-formed cookie names no session
	EventCreate  EventKind = "create"  // a new session was saved
	EventSave    EventKind = "save"    // changes were saved
	EventTouch   EventKind = "touch"   // the end of a session was moved, by its use or by a changed config
	EventRenew   EventKind = "renew"   // a session got a new id, because the program asked for it
	EventRotate  EventKind = "rotate"  // a session got a new id, because of its age
	EventDestroy EventKind = "destroy" // a session was removed
	EventReject  EventKind = "reject"  // a cookie was refused: malformed, forged, expired, an unknown key; each one, where the log sums them up
	EventError   EventKind = "error"   // a call failed, or a save was dropped because the session had ended
)

// event reports to the program, if it listens: the call that was made, or nil, and the fields that were read or written.
func (s *Session) event(c *cookie, kind EventKind, made *call, fields []RawField) {
	if s.m.onEvent == nil {
		return
	}
	e := Event{Kind: kind, Cookie: c.CookieName, Fields: len(fields)}
	for _, f := range fields {
		e.Bytes += len(f.Name) + len(f.Value)
	}
	if made != nil {
		e.Handle = handle(made.key)
		e.Duration = made.took
		if kind == EventError {
			e.Err = made.err
		}
	}
	s.m.onEvent(context.WithoutCancel(s.ctx), e)
}
