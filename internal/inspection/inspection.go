// Package inspection is what package inspect sees of a session, and may do to it, beyond what programs may.
package inspection

import "time"

// An Inspector looks at a session.
type Inspector interface {
	// Setup returns how the cookies of its manager are configured.
	Setup() Setup

	// Look returns a Session for each cookie, in the order of the configs. It loads what is Lazy, and does not count as
	// a use of the session. A cookie's values are left out unless values reports true for it.
	Look(values func(cookie string) bool) []Session

	// Expire makes the next commit end the session of a cookie on the server, as its Lifetime does.
	Expire(cookie string)

	// Rotate makes the next commit give it a new id, as its age does.
	Rotate(cookie string)
}

// A Key finds the Inspector of a *sessplus.Session in the context of its request.
type Key struct{ Session any }

// RequestKey finds in the context of an event the *http.Request to whose session it happened. It is nil for an event
// that happened outside a request.
type RequestKey struct{}

// A Setup is how the cookies of a manager are configured.
type Setup struct {
	Configs []Config
	Single  string // Options.SingleCookie
}

// A Config is what [sessplus.FieldRoute] does not say of a cookie.
type Config struct {
	Cookie      string
	ServerSide  bool
	Attributes  string        // of its Set-Cookie lines, as in "Path=/; HttpOnly"
	MaxAge      time.Duration // how long the browser keeps it; 0: until it closes
	Chunks      int
	IdleTimeout time.Duration
	RotateEvery time.Duration
	DeviceBound time.Duration
}

// A Session is what one cookie of a request stands for.
type Session struct {
	Cookie    string
	Err       error // why it could not be loaded
	Exists    bool
	Ended     bool // it was ended a moment ago, and the browser still has its cookie
	Permanent bool
	Bound     bool // to a device's key
	Handle    string

	Created, Saved, Rotated time.Time // zero if they are not known
	Expires                 time.Time
	Fields                  []Field
	Foreign                 []string // stored fields that the config does not own
}

// A Field is one of a session.
type Field struct {
	Name  string
	Bytes int    // of its name and its encoded value
	Value string // as the store has it if that is text, else as Go prints it; "" unless it is wanted
}
