package sessplus

import (
	"cmp"
	"context"
	"slices"
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

// FromCookie lets an importer read another cookie than the one of the config. Its visitors' old cookie is expired by the
// response that sets the new one.
func FromCookie(name string, i Importer) Importer { return fromCookie{i, name} }

// fromCookie is an importer that reads the cookie of that name. So is any other with a method CookieName.
type fromCookie struct {
	Importer
	name string
}

// CookieName returns the name of the cookie that the importer is asked about.
func (f fromCookie) CookieName() string { return f.name }

// readsCookie is the name of the cookie that the importer reads, in a config for another one or the same.
func readsCookie(i Importer, own string) string {
	if i, ok := i.(interface{ CookieName() string }); ok {
		return cmp.Or(i.CookieName(), own)
	}
	return own
}

// imports finds the mistakes of Config.Import.
func (v *validation) imports(c *Config) {
	for i, importer := range c.Import {
		if isNil(importer) {
			v.add("Import", nil, "importer %d is nil; leave it out", i)
			continue
		}
		if f, ok := importer.(*former); ok {
			b := f.bind(&Manager{codec: jsonCodec{}}, slices.Concat(v.opts.Keys, c.Keys))
			v.check(b.err != nil, "Import", nil, "the config of importer %d, a former one, has mistakes: %v", i, b.err)
		}
		name := readsCookie(importer, c.CookieName)
		v.check(!isToken(name), "Import", name, "is not the name of a cookie, which importer %d is to read", i)
	}
	if len(c.Import) > 0 && !c.isSecureCookie() && v.noKeys(c) {
		v.add("Import", nil, "needs a pair of keys "+pairHint+"; the ids of imported sessions are derived with it")
	}
}
