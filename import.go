package sessplus

import (
	"context"
	"time"
)

// An Importer finds the sessions that a program's visitors have from before it used this library, or from before its
// configs were changed. Package adopt has importers for other libraries; a program's own needs this one method.
//
// It is given what visitors send: a value may be anything, is to be bounded before it is decoded, and nothing of it may
// appear in the text of an error.
type Importer interface {
	// Import returns the session that the value of the named cookie held, or was the id of. It is called concurrently,
	// also for one value, by all requests of a visitor that come side by side, and must return the same session to each
	// of them. It returns soon after ctx is done.
	//
	// The error matches [ErrNoRecord] if the value is none of the importer's, or its session has ended; its text says
	// why. Any other error counts as [ErrUnavailable]: the former store is down, and nobody is logged out by that.
	Import(ctx context.Context, cookie, value string) (*Imported, error)
}

// Imported is a session that an [Importer] has found. It belongs to the caller, with all that is in it.
type Imported struct {
	// Fields are what the session held, by name, as [Session.Set] takes it. A value that the codec cannot encode costs
	// that field, and a warning names it. So an importer leaves an error in place of a field that it could not read.
	Fields map[string]any

	Expires   time.Time // when the session ends, as it did before; zero: as a new one
	Permanent bool      // it is permanent, see [Session.SetPermanent]

	// Forget removes the former session, so that its cookie is worth nothing any more. It is called concurrently, and
	// that the session is gone already is no error. nil: there is nothing to remove, or it is to stay.
	Forget func(ctx context.Context) error
}
