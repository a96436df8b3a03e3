package sessplus

import "fmt"

// A Field is the name of a field together with the type of its value, so that both are written once:
//
//	const UserID sessplus.Field[int64] = "user_id"
//
// A stored value that does not decode into T reads as absent and is logged; Update returns an error instead.
type Field[T any] string

// Get returns the value, or the zero value if the field is absent.
func (f Field[T]) Get(s *Session) T {
	v, _ := f.Lookup(s)
	return v
}

// Lookup returns the value, and whether the field exists.
func (f Field[T]) Lookup(s *Session) (T, bool) { return f.read(s, s.raw(string(f))) }

// read decodes a value, nil for an absent one.
func (f Field[T]) read(s *Session, data []byte) (v T, ok bool) {
	if data == nil {
		return v, false
	}
	v, err := f.decode(s, data)
	if err != nil {
		s.unreadable(string(f), fmt.Sprintf("%T", v))
	}
	return v, err == nil
}

// decode gives the zero value for an absent one, and with an error.
func (f Field[T]) decode(s *Session, data []byte) (T, error) {
	var v, zero T
	if data == nil {
		return zero, nil
	}
	if err := s.decode(string(f), data, &v); err != nil {
		return zero, err
	}
	return v, nil
}

// Set sets the field, as [Session.Set] does.
func (f Field[T]) Set(s *Session, v T) { s.Set(string(f), v) }

// Delete deletes the field, as [Session.Delete] does.
func (f Field[T]) Delete(s *Session) { s.Delete(string(f)) }

// Pop returns the value, or the zero value if the field is absent, and deletes the field. Like [Session.Pop] it is not
// atomic; Update is.
func (f Field[T]) Pop(s *Session) T {
	v, _ := f.read(s, s.pop(string(f)))
	return v
}
