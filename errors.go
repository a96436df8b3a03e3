package sessplus

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Errors that a program can act on, for [errors.Is].
var (
	// ErrNoField is returned by [Session.Decode] if the session has no such field.
	ErrNoField = errors.New("sessplus: no such field")

	// ErrNoOwner means that a field was set that no config owns. The commit fails and saves nothing. A config with
	// [Auto] owns every field that no other config includes.
	ErrNoOwner = errors.New("sessplus: no config owns the field")

	// ErrTooLarge means that fields do not fit: the cookie is larger than browsers accept (4096 bytes of name and
	// value, RFC 6265 section 6.1), or the record is larger than its store accepts.
	ErrTooLarge = errors.New("sessplus: too large")

	// ErrSessionGone means that a change was not saved because the session was destroyed, was renewed or has expired
	// while the request ran, or was destroyed or renewed up to a minute ([EndGrace]) before. No cookie is sent for it.
	ErrSessionGone = errors.New("sessplus: the session has ended")

	// ErrHeadersSent means that a change needs a Set-Cookie header, but the response headers have been sent.
	ErrHeadersSent = errors.New("sessplus: the response headers have been sent")

	// ErrUnavailable means that a backend did not answer, or answered with an error of its own.
	ErrUnavailable = errors.New("sessplus: backend unavailable")
)

// An Error says which cookie and operation an error is about, for [errors.As]. Its text contains no session id, cookie
// value, key or field value.
type Error struct {
	Cookie string // the CookieName of the config, or "" if the error concerns no single cookie
	Op     string // "load", "save", "delete", "renew", "update", "import", "list", "revoke", "edit", "encode", "decode"
	Err    error  // what went wrong; [errors.Is] finds the sentinels of this package in it
}

func (e *Error) Error() string {
	reason := strings.ReplaceAll(e.Err.Error(), "sessplus: ", "") // said once, whatever is wrapped
	if e.Cookie == "" {
		return "sessplus: " + e.Op + ": " + reason
	}
	return "sessplus: cookie " + strconv.Quote(e.Cookie) + ": " + e.Op + ": " + reason
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// A ConfigError is a mistake in the arguments of [New] or [ParseConfigs], for [errors.As]. Both report all mistakes at
// once, with [errors.Join].
type ConfigError struct {
	Cookie string // the CookieName of the config; "#2" if the third config has none; "" for Options
	Field  string // of Config or Options; from ParseConfigs, the name of the property
	Reason string // the value (unless it may contain a key), what is wrong with it, and what would be right
}

func (e *ConfigError) Error() string {
	if e.Cookie == "" {
		return fmt.Sprintf("sessplus: %s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("sessplus: config of cookie %q: %s: %s", e.Cookie, e.Field, e.Reason)
}

// A fieldError says what is wrong with a field, and matches its kind. It never contains the text of a codec's error,
// because that quotes what it read.
type fieldError struct {
	field  string
	reason string
	kind   error // may be nil
}

func (e *fieldError) Error() string {
	return "field " + quote(e.field) + ": " + e.reason
}

func (e *fieldError) Unwrap() error { return e.kind }

// quote is strconv.Quote, and shortens what is too long for a line of text.
func quote(s string) string {
	if len(s) > maxFieldName {
		s = s[:maxFieldName] + "…"
	}
	return strconv.Quote(s)
}
