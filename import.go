package sessplus

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// An Importer finds sessions from before a program used this library, or from before its configs were changed. Package
// adopt has importers for other libraries.
//
// An importer gets what visitors send. It must limit the length of a value before decoding it, and no error text may
// contain any part of it.
type Importer interface {
	// Import returns the session that the value of the named cookie contains or identifies. It is called concurrently,
	// also with the same value by concurrent requests of one visitor, and must then return the same session each time.
	// It must return soon after ctx is done, which is when all importers together have taken [Options.Timeout] of the
	// request.
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

	Expires   time.Time // when the session would have ended; zero: as a new one does
	Permanent bool      // whether it is permanent, see [Session.SetPermanent]

	// Forget removes the old session, so that its cookie becomes worthless. It is called concurrently. Forgetting a
	// session that is gone is not an error. nil means that there is nothing to remove, or that the session stays.
	Forget func(ctx context.Context) error
}

// FromCookie returns an importer that reads the named cookie instead of that of the config. The response that sets the
// new cookie expires the old one. [Former] reads the cookie of its config without that.
func FromCookie(name string, i Importer) Importer {
	if f, ok := i.(*former); ok && name == f.CookieName() {
		return f
	}
	return fromCookie{i, name}
}

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
		from, wraps := importer.(fromCookie)
		if isNil(importer) || wraps && isNil(from.Importer) {
			v.add("Import", nil, "importer %d is nil; leave it out", i)
			continue
		}
		if f, ok := from.Importer.(*former); ok {
			v.add("Import", from.name, "is not the cookie of importer %d, a former config; leave out FromCookie: it reads %q", i, f.CookieName())
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
