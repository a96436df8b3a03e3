package sessplus

import (
	"iter"
	"unsafe"
)

// An entry is one field of a part: its value now, and its value in the store as far as this request knows. Both are
// encoded, and nil for absent.
type entry struct {
	name         string
	value, saved []byte
}

func (e *entry) dirty() bool {
	return (e.value == nil) != (e.saved == nil) || string(e.value) != string(e.saved)
}

// The bytes of a name or value are never changed (see Backend), so that text and bytes can be turned into each other
// without a copy.

func bytesOf(s string) []byte {
	if s == "" {
		return []byte{} // nil would be no value
	}
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// entries holds the fields of a part: as the store had them, and over them those that this request has touched. A read
// costs no copy of the record.
type entries struct {
	stored  []RawField // of a record, and not to be changed
	touched []entry    // each takes the place of the stored one of its name

	storedIndex, touchedIndex nameIndex
}

// find returns the entry of the name, and whether anything is known of the field.
func (s *entries) find(name string) (entry, bool) {
	if i := s.findTouched(name); i >= 0 {
		return s.touched[i], true
	}
	if i := s.findStored(name); i >= 0 {
		f := s.stored[i]
		return entry{name, f.Value, f.Value}, true
	}
	return entry{}, false
}

// at returns the entry of the name to be changed, as absent if nothing was known. It is valid until the next call.
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
		s.touchedIndex.add(name, i)
	}
	return &s.touched[i]
}

// all goes through the entries, each name once.
func (s *entries) all() iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for i, f := range s.stored {
			if s.findTouched(f.Name) < 0 && s.findStored(f.Name) == i && !yield(entry{f.Name, f.Value, f.Value}) {
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

func (s *entries) findStored(name string) int {
	return s.storedIndex.find(name, len(s.stored), func(i int) string { return s.stored[i].Name })
}

func (s *entries) findTouched(name string) int {
	return s.touchedIndex.find(name, len(s.touched), func(i int) string { return s.touched[i].name })
}

// A nameIndex finds names in a list: one after the other while they are few, or few are looked for, by a map then.
type nameIndex struct {
	at       map[string]int
	searches int // of a long list
}

const (
	fewFields   = 4
	fewNames    = 16
	fewSearches = 8
)

// find returns the first index of the name among n, or -1.
func (x *nameIndex) find(name string, n int, nth func(int) string) int {
	if x.at == nil && n > fewNames {
		if x.searches++; x.searches > fewSearches {
			x.at = make(map[string]int, n)
			for i := n - 1; i >= 0; i-- {
				x.at[nth(i)] = i
			}
		}
	}
	if x.at != nil {
		if i, ok := x.at[name]; ok {
			return i
		}
		return -1
	}
	for i := range n {
		if nth(i) == name {
			return i
		}
	}
	return -1
}

// add notes a name that the list has got.
func (x *nameIndex) add(name string, i int) {
	if x.at != nil {
		x.at[name] = i
	}
}
