package adopt

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/gorilla/sessions"
	"github.com/sessplus/sessplus"
)

// Store makes the session of a cookie of m available to libraries that require a gorilla store, such as gothic:
//
//	gothic.Store = adopt.Store(mgr, "oauth")
//
// Each key of the library's session is a field of the cookie, whatever name it gives the session. Use a config of its
// own, which includes the fields that the library uses, or with Auto: Save deletes the cookie's other fields. A
// negative Options.MaxAge, with which gothic ends its session, destroys it. All other Options are ignored in favor of
// the config.
//
// The request must have passed through [sessplus.Manager.Handler], or Get and New panic. Save changes the session of
// the request, which Handler saves with the response. Values come back with the types that were set: strings and bools
// are stored as they are, all others as gobs, whose types must be registered with [gob.Register], as for gorilla's own
// stores.
func Store(m *sessplus.Manager, cookie string) sessions.Store {
	s := &store{manager: m, cookie: cookie, named: make(map[string]bool)}
	for _, r := range m.Describe() {
		mine := r.Cookie == cookie
		s.known = s.known || mine
		if r.Field == "" {
			s.others = s.others || mine
		} else {
			s.named[r.Field] = s.named[r.Field] || mine
		}
	}
	return s
}

type store struct {
	manager *sessplus.Manager
	cookie  string
	known   bool            // there is such a cookie
	named   map[string]bool // whether it owns the field
	others  bool            // it owns those that no config names
}

func (s *store) owns(field string) bool {
	if mine, named := s.named[field]; named {
		return mine
	}
	return s.others
}

// Get returns the session that the request has under the name already, or a new one.
func (s *store) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

// New returns the session as the request has it now.
func (s *store) New(r *http.Request, name string) (*sessions.Session, error) {
	session := sessions.NewSession(s, name)
	session.Options = &sessions.Options{Path: "/"}
	session.IsNew = true
	if !s.known {
		return session, s.unknown()
	}
	ours := s.manager.Get(r)
	session.IsNew = ours.IsNew(s.cookie)
	for _, field := range ours.Fields() {
		if s.owns(field) {
			session.Values[field] = unpacked(ours.Get(field))
		}
	}
	return session, nil
}

// Save makes the session of the request what the session says.
func (s *store) Save(r *http.Request, _ http.ResponseWriter, session *sessions.Session) error {
	if !s.known {
		return s.unknown()
	}
	ours := s.manager.Get(r)
	if session.Options != nil && session.Options.MaxAge < 0 {
		ours.Destroy(s.cookie)
		return nil
	}
	values := make(map[string]any, len(session.Values))
	for key, v := range session.Values {
		field, ok := key.(string)
		if !ok {
			return fmt.Errorf("adopt: Store: a key is a %T, and only a string names a field", key)
		}
		if !s.owns(field) {
			return fmt.Errorf("adopt: Store: the cookie %q does not own the field %q: %w", s.cookie, field, sessplus.ErrNoOwner)
		}
		var err error
		if values[field], err = packed(v); err != nil {
			return fmt.Errorf("adopt: Store: field %q: a %T cannot be encoded with encoding/gob: register it", field, v)
		}
	}
	for _, field := range ours.Fields() {
		if _, has := values[field]; !has && s.owns(field) {
			ours.Delete(field)
		}
	}
	for field, v := range values {
		ours.Set(field, v)
	}
	return ours.Err()
}

func (s *store) unknown() error {
	return fmt.Errorf("adopt: Store: the manager has no cookie %q", s.cookie)
}

// packedMark begins the list of two texts that stands for a value of another type.
const packedMark = "gob of adopt.Store"

// packed is what every codec returns unchanged.
func packed(v any) (any, error) {
	switch text, isText := v.(string); {
	case isText && utf8.ValidString(text):
		return v, nil
	case v == nil, v == true, v == false:
		return v, nil
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&v); err != nil {
		return nil, err
	}
	return []string{packedMark, base64.StdEncoding.EncodeToString(b.Bytes())}, nil
}

// unpacked undoes packed. What it cannot undo stays as it is: the program has set it.
func unpacked(v any) any {
	var list [2]any
	switch v := v.(type) {
	case []string:
		if len(v) == 2 {
			list = [2]any{v[0], v[1]}
		}
	case []any:
		if len(v) == 2 {
			list = [2]any(v)
		}
	}
	if list[0] != packedMark {
		return v
	}
	text, _ := list[1].(string)
	data, err := base64.StdEncoding.DecodeString(text)
	var value any
	if err != nil || decodeGob(data, &value) != nil {
		return v
	}
	return value
}
