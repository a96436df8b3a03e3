package sessplus

import (
	"errors"
	"fmt"
	"strconv"
)

// The errors that a program can decide upon, for [errors.Is].
var (
	// ErrNoField is what [Session.Decode] returns when the session has no such field.
	ErrNoField = errors.New("sessplus: no such field")

	// ErrNoOwner reports a Set of a field that no config owns: a config with [Auto] would own it, as no other includes it.
	// The commit fails with it and saves nothing.
	ErrNoOwner = errors.New("sessplus: no config owns the field")

	// ErrTooLarge reports fields that do not fit: a cookie larger than browsers keep (4096 bytes of name and value,
	// RFC 6265 section 6.1), or a record larger than its store takes.
	ErrTooLarge = errors.New("sessplus: too large")

	// ErrSessionGone reports a change of a session that was destroyed, renewed or has expired while this request ran, or
	// was destroyed or renewed up to a minute ([EndGrace]) before. It is not saved, and no cookie is sent for that session.
	ErrSessionGone = errors.New("sessplus: the session has ended")

	// ErrHeadersSent reports a change that needs a Set-Cookie header and came after the headers had gone.
	ErrHeadersSent = errors.New("sessplus: the response headers have been sent")

	// ErrUnavailable reports a backend that did not answer, or answered that it cannot serve.
	ErrUnavailable = errors.New("sessplus: backend unavailable")
)

// Error is the type of the errors that concern one cookie, for [errors.As]. Its text holds no session id, cookie
// value, key or field value.
type Error struct {
	Cookie string // the CookieName of the config that it concerns, or "" when it concerns none
	Op     string // "load", "save", "delete", "renew", "update", "encode" or "decode"
	Err    error  // what went wrong; [errors.Is] finds the sentinels of this package in it
}

func (e *Error) Error() string {
	if e.Cookie == "" {
		return "sessplus: " + e.Op + ": " + e.Err.Error()
	}
	return "sessplus: cookie " + strconv.Quote(e.Cookie) + ": " + e.Op + ": " + e.Err.Error()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// ConfigError is one mistake in what [New] or [ParseConfigs] was given, for [errors.As]. Both report all mistakes
// at once, joined by [errors.Join].
type ConfigError struct {
	Cookie string // the CookieName of the config, "#2" for the third one if that has none, or "" for Options
	Field  string // of Config or Options; for ParseConfigs the name of the property
	Reason string // the value, unless it may hold a key, what is wrong with it, and what would be right; for a person
}

func (e *ConfigError) Error() string {
	if e.Cookie == "" {
		return fmt.Sprintf("sessplus: %s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("sessplus: config of cookie %q: %s: %s", e.Cookie, e.Field, e.Reason)
}

// fieldError says what is wrong with one field, and is errors.Is its kind. It never holds the text of a codec's
// error, because that quotes what it read.
type fieldError struct {
	field  string
	reason string
	kind   error // may be nil
}

func (e *fieldError) Error() string {
	return "field " + quote(e.field) + ": " + e.reason
}

func (e *fieldError) Unwrap() error { return e.kind }

// quote is strconv.Quote of as much of s as a line of text has room for.
func quote(s string) string {
	if len(s) > maxFieldName {
		s = s[:maxFieldName] + "…"
	}
	return strconv.Quote(s)
}
