package sessplus

// Field is the name of a field together with the type of its value, so that both are written once:
//
//	const UserID sessplus.Field[int64] = "user_id"
//
// A value of another type in the store reads as absent.
type Field[T any] string

// Get returns the value, or the zero value if the field is absent.
func (f Field[T]) Get(s *Session) T {
	v, _ := f.Lookup(s)
	return v
}

// Lookup returns the value, and whether the field is there.
func (f Field[T]) Lookup(s *Session) (T, bool) { return f.decode(s, s.raw(string(f))) }

func (f Field[T]) decode(s *Session, data []byte) (T, bool) {
	var v, zero T
	if data == nil || s.decode(string(f), data, &v) != nil {
		return zero, false
	}
	return v, true
}

// Set gives the field a value, as [Session.Set] does.
func (f Field[T]) Set(s *Session, v T) { s.Set(string(f), v) }

// Delete removes the field, as [Session.Delete] does.
func (f Field[T]) Delete(s *Session) { s.Delete(string(f)) }

// Pop returns the value, or the zero value if the field is absent, and removes the field.
func (f Field[T]) Pop(s *Session) T {
	v, _ := f.decode(s, s.pop(string(f)))
	return v
}
