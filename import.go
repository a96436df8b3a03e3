package sessplus

import (
	"context"
	"time"
)

// An Importer finds sessions from before a program used this library, or from before its configs were changed. Package
// adopt has importers for other libraries.
//
// An importer gets what visitors send. It must limit the length of a value before decoding it, and no error text may
// contain any part of it.
type Importer interface {
	// Import returns the session that the value of the named cookie contains, or is the id of. It is called
	// concurrently, also with the same value by concurrent requests of one visitor, and must then return the same
	// session each time. It must return soon after ctx is done.
	//
	// The error matches [ErrNoRecord] if the value is not one of the importer's, or its session has ended, and its text
	// says why. Any other error means [ErrUnavailable]: the old store is down, which must not log anybody out.
	Import(ctx context.Context, cookie, value string) (*Imported, error)
}

// An Imported is a session that an [Importer] has found. The importer must not retain it or anything in it.
type Imported struct {
	// Fields are the session's values by name, as for [Session.Set]. A value that the codec cannot encode is left out
	// with a warning that names the field, so an importer puts an error in place of a value that it cannot read.
	Fields map[string]any

	Expires   time.Time // the end that the session had; zero: that of a new one
	Permanent bool      // whether it is permanent, see [Session.SetPermanent]

	// Forget removes the old session, so that its cookie becomes worthless. It is called concurrently. Forgetting a
	// session that is gone is not an error. nil means that there is nothing to remove, or that the session stays.
	Forget func(ctx context.Context) error
}
