package sessplus

import (
	"iter"
	"slices"
	"unsafe"
)

// An entry is one field of a part: its value now, and its value in the store as far as this request knows. Both are
// encoded; nil means absent.
type entry struct {
	name         string
	value, saved []byte

	doubt bool // the store may have another value than saved, because the result of a save is unknown
	again bool // and the value must be saved in any case
	moved bool // value comes from its former owner
}

func (e *entry) dirty() bool {
	return e.again || (e.value == nil) != (e.saved == nil) || string(e.value) != string(e.saved)
}

// sets reports whether the program has set or deleted the field.
func (e *entry) sets() bool { return e.dirty() && !e.moved }

// set gives the field a value, or removes it for nil. The value that it has in its former owner is no change.
func (e *entry) set(value []byte) {
	e.moved = e.moved && value != nil && string(value) == string(e.value)
	e.value, e.again = value, e.doubt
}

// keeps notes what the store has.
func (e *entry) keeps(value []byte) { e.saved, e.doubt, e.again, e.moved = value, false, false, false }

// The bytes of a name or value are never changed (see Backend), so that text and bytes can be turned into each other
// without a copy.

func bytesOf(s string) []byte {
	if s == "" {
		return []byte{} // nil would mean absent
	}
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// entries holds the fields of a part: as the store had them, and over them those that this request has touched. A read
// costs no copy of the record.
type entries struct {
	stored  []RawField // of a record; must not be modified
	touched []entry    // each replaces the stored field of its name

	long *indexes // of long lists, else nil
}

// find returns the entry of the name, and whether anything is known of the field.
func (s *entries) find(name string) (entry, bool) {
	if i := s.findTouched(name); i >= 0 {
		return s.touched[i], true
	}
	if i := s.findStored(name); i >= 0 {
		f := s.stored[i]
		return entry{name: name, value: f.Value, saved: f.Value}, true
	}
	return entry{}, false
}

// at returns the entry of the name, for modification; it is absent if nothing was known. It is valid until the next
// call.
func (s *entries) at(name string) *entry {
	i := s.findTouched(name)
	if i < 0 {
		e, _ := s.find(name)
		e.name = name
		i = len(s.touched)
		if s.touched == nil {
			s.touched = make([]entry, 0, max(1, fewFields-len(s.stored))) // a new session gets several
		}
		s.touched = append(s.touched, e)
		if s.long != nil {
			s.long.touched.add(name, i)
		}
	}
	return &s.touched[i]
}

// forget drops the entries of fields that are absent and were so in the record, too, when it was loaded. Those of a
// stream, which may set and delete ever new fields, would otherwise add up.
func (s *entries) forget() {
	before := len(s.touched)
	s.touched = slices.DeleteFunc(s.touched, func(e entry) bool {
		return e.value == nil && !e.doubt && !e.dirty() && s.findStored(e.name) < 0
	})
	if len(s.touched) < before && s.long != nil {
		s.long.touched = nameIndex{}
	}
}

// all iterates over the entries.
func (s *entries) all() iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for _, f := range s.stored {
			if s.findTouched(f.Name) < 0 && !yield(entry{name: f.Name, value: f.Value, saved: f.Value}) {
				return
			}
		}
		for _, e := range s.touched {
			if !yield(e) {
				return
			}
		}
	}
}

// findStored returns an index, or -1.
func (s *entries) findStored(name string) int {
	if len(s.stored) > fewNames {
		nth := func(i int) string { return s.stored[i].Name }
		if i, ok := s.indexes().stored.find(name, len(s.stored), nth); ok {
			return i
		}
	}
	for i := range s.stored {
		if s.stored[i].Name == name {
			return i
		}
	}
	return -1
}

// findTouched returns an index, or -1.
func (s *entries) findTouched(name string) int {
	if len(s.touched) > fewNames {
		nth := func(i int) string { return s.touched[i].name }
		if i, ok := s.indexes().touched.find(name, len(s.touched), nth); ok {
			return i
		}
	}
	for i := range s.touched {
		if s.touched[i].name == name {
			return i
		}
	}
	return -1
}

func (s *entries) indexes() *indexes {
	if s.long == nil {
		s.long = &indexes{}
	}
	return s.long
}

// indexes find names in long lists.
type indexes struct{ stored, touched nameIndex }

// A nameIndex finds names in a long list by a map, which it builds once many have been looked up.
type nameIndex struct {
	at       map[string]int
	searches int
}

const (
	fewFields   = 4
	fewNames    = 16
	fewSearches = 8
)

// find returns the index of the name among n, or -1, and whether there is a map that knows.
func (x *nameIndex) find(name string, n int, nth func(int) string) (i int, ok bool) {
	if x.searches++; x.at == nil && x.searches > fewSearches {
		x.at = make(map[string]int, n)
		for i := range n {
			x.at[nth(i)] = i
		}
	}
	i, found := x.at[name]
	if !found {
		i = -1
	}
	return i, x.at != nil
}

// add notes a name that was appended to the list.
func (x *nameIndex) add(name string, i int) {
	if x.at != nil {
		x.at[name] = i
	}
}
