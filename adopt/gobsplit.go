package adopt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// encoding/gob gives up a whole session for one type that is not registered, or that has changed, and has no way to
// go on behind it. What follows reads just enough of the format (see the package comment of encoding/gob) to take a
// map apart, so that encoding/gob can decode each of its entries alone. It is used only on what encoding/gob has
// refused.

// splitMap decodes a gob of a map[any]any. A value that cannot be decoded is an error in its place.
func splitMap(data []byte) (values map[any]any, err error) {
	err = split(data, func(s *splitter) {
		id := s.typeSequence()
		s.expectZero()
		values = decodeEntries[any](s, id, s.entries(id))
	})
	return values, err
}

// splitSCS does the same for a gob of scs.
func splitSCS(data []byte) (deadline time.Time, values map[string]any, err error) {
	err = split(data, func(s *splitter) {
		id := s.typeSequence()
		t := s.types[id]
		if t.kind != structKind {
			panic(errDamaged)
		}
		var deadlineOnly []byte
		var list []entry
		mapID := 0
		s.fields(func(n int) {
			switch f := t.part(n); f.name {
			case "Deadline":
				deadlineOnly = append(appendUint(appendInt(nil, id), n), s.value(f.id)...)
			case "Values":
				mapID = f.id
				list = s.entries(mapID)
			default:
				panic(errDamaged)
			}
		})
		if deadlineOnly != nil {
			var session struct{ Deadline time.Time }
			if decodeGob(s.stream(append(deadlineOnly, 0)), &session) != nil {
				panic(errDamaged)
			}
			deadline = session.Deadline
		}
		values = decodeEntries[string](s, mapID, list)
	})
	return deadline, values, err
}

// split calls f, which panics with errDamaged when the data are not as gob writes them.
func split(data []byte, f func(s *splitter)) (err error) {
	if len(data) > maxStored {
		return errDamaged
	}
	defer func() {
		if p := recover(); p != nil {
			if p != any(errDamaged) {
				panic(p)
			}
			err = errDamaged
		}
	}()
	f(&splitter{rest: data, types: make(map[int]wireType)})
	return nil
}

// A splitter goes through a gob. Definitions of types may stand anywhere in it where a value of type any begins, and
// cut up what they stand in; its methods return bytes without them, as they would be if all types were defined
// before.
type splitter struct {
	buf, rest []byte // of the message that is being read, and behind it
	types     map[int]wireType
	defs      []byte   // the messages that define them
	names     []string // of the types of values of type any
	depth     int
}

type wireType struct {
	kind  int
	parts []part // the element; key and element; or the fields
}

type part struct {
	name string
	id   int
}

// part returns the nth part.
func (t wireType) part(n int) part {
	if n < 1 || n > len(t.parts) {
		panic(errDamaged)
	}
	return t.parts[n-1]
}

// The kinds are the fields of gob's wireType; the others there are all encoded as bytes.
const (
	arrayKind = iota + 1
	sliceKind
	structKind
	mapKind
	gobEncoderKind
	binaryMarshalerKind
	textMarshalerKind
)

// The ids of gob's built-in types.
const (
	boolID = iota + 1
	intID
	uintID
	floatID
	bytesID
	stringID
	complexID
	anyID
)

const maxDepth = 1000

func (s *splitter) take(n int) []byte {
	if n < 0 || n > len(s.buf) {
		panic(errDamaged)
	}
	data := s.buf[:n:n]
	s.buf = s.buf[n:]
	return data
}

// length is uint for a number of things that follow, each of a byte at least.
func (s *splitter) length() int {
	n := s.uint()
	if n > maxStored {
		panic(errDamaged)
	}
	return int(n)
}

func (s *splitter) uint() (n uint64) {
	b := s.take(1)[0]
	if b < 0x80 {
		return uint64(b)
	}
	size := -int(int8(b))
	if size > 8 {
		panic(errDamaged)
	}
	for _, b := range s.take(size) {
		n = n<<8 | uint64(b)
	}
	return n
}

func (s *splitter) int() int {
	u := s.uint()
	if u>>1 > maxStored {
		panic(errDamaged) // no id or length is as large
	}
	if u&1 != 0 {
		return ^int(u >> 1)
	}
	return int(u >> 1)
}

func (s *splitter) bytes() []byte { return s.take(s.length()) }

func appendUint[N int | uint64](b []byte, n N) []byte {
	if n <= 0x7f {
		return append(b, byte(n))
	}
	size := (bits.Len64(uint64(n)) + 7) / 8
	b = append(b, byte(-size))
	all := binary.BigEndian.AppendUint64(nil, uint64(n))
	return append(b, all[8-size:]...)
}

func appendInt(b []byte, n int) []byte {
	if n < 0 {
		return appendUint(b, uint64(^n)<<1|1)
	}
	return appendUint(b, uint64(n)<<1)
}

func appendBytes(b, data []byte) []byte { return append(appendUint(b, len(data)), data...) }

// fields calls f for each field of a struct that is there; f reads it.
func (s *splitter) fields(f func(n int)) {
	for n := 0; ; {
		delta := s.length()
		if delta == 0 {
			return
		}
		n += delta
		f(n)
	}
}

// typeSequence reads the definitions that stand before a value, and returns the value's type.
func (s *splitter) typeSequence() int {
	for {
		if len(s.buf) == 0 {
			s.buf, s.rest = s.rest, nil
			n := s.length()
			message := s.take(n)
			s.buf, s.rest = message, s.buf
		}
		id := s.int()
		if id >= 0 {
			return id
		}
		s.define(-id)
		if len(s.buf) > 0 {
			s.uint() // the length of what the definition has cut off
		}
	}
}

// define reads the definition of a type.
func (s *splitter) define(id int) {
	before := s.buf
	var t wireType
	s.fields(func(kind int) {
		t.kind = kind
		s.fields(func(n int) {
			switch {
			case n == 1: // the name of the type and its id
				s.fields(func(n int) {
					if n == 1 {
						s.bytes()
					} else {
						s.int()
					}
				})
			case kind == structKind:
				for range s.length() {
					var p part
					s.fields(func(n int) {
						if n == 1 {
							p.name = string(s.bytes())
						} else {
							p.id = s.int()
						}
					})
					t.parts = append(t.parts, p)
				}
			case kind == arrayKind && n == 3:
				s.int() // its length, which also stands before the elements
			default:
				t.parts = append(t.parts, part{id: s.int()})
			}
		})
	})
	if _, twice := s.types[id]; twice || t.kind < arrayKind || t.kind > textMarshalerKind {
		panic(errDamaged)
	}
	s.types[id] = t
	definition := before[:len(before)-len(s.buf)]
	s.defs = appendBytes(s.defs, append(appendInt(nil, -id), definition...))
}

func (s *splitter) expectZero() {
	if s.uint() != 0 {
		panic(errDamaged)
	}
}

// value reads a value of the type.
func (s *splitter) value(id int) []byte {
	if s.depth++; s.depth > maxDepth {
		panic(errDamaged)
	}
	defer func() { s.depth-- }()
	switch id {
	case boolID, intID, uintID, floatID:
		return appendUint(nil, s.uint())
	case complexID:
		return appendUint(appendUint(nil, s.uint()), s.uint())
	case bytesID, stringID:
		return appendBytes(nil, s.bytes())
	case anyID:
		return s.any()
	}
	t, ok := s.types[id]
	switch {
	case !ok:
		panic(errDamaged)
	case t.kind == structKind:
		var all []byte
		last := 0
		s.fields(func(n int) {
			all = append(appendUint(all, n-last), s.value(t.part(n).id)...)
			last = n
		})
		return append(all, 0)
	case t.kind >= gobEncoderKind:
		return appendBytes(nil, s.bytes())
	}
	n := s.length()
	all := appendUint(nil, n)
	for range n {
		if t.kind == mapKind {
			all = append(append(all, s.value(t.part(1).id)...), s.value(t.part(2).id)...)
		} else {
			all = append(all, s.value(t.part(1).id)...)
		}
	}
	return all
}

// any reads a value of type any, with its type.
func (s *splitter) any() []byte {
	name := s.bytes()
	all := appendBytes(nil, name)
	if len(name) == 0 {
		return all // nil
	}
	s.names = append(s.names, string(name))
	id := s.typeSequence()
	s.uint() // the length, which is another one without definitions
	var value []byte
	if s.types[id].kind != structKind {
		s.expectZero()
		value = []byte{0}
	}
	value = append(value, s.value(id)...)
	return appendBytes(appendInt(all, id), value)
}

// An entry is one of a map.
type entry struct {
	key, value []byte
	names      []string // of the types in its value
}

// entries reads a map of the type, with values of type any.
func (s *splitter) entries(id int) (list []entry) {
	t := s.types[id]
	if t.kind != mapKind || t.part(2).id != anyID {
		panic(errDamaged)
	}
	for range s.length() {
		e := entry{key: s.value(t.part(1).id)}
		s.names = nil
		e.value = s.value(anyID)
		e.names = s.names
		list = append(list, e)
	}
	return list
}

// stream is a gob of one value, given with its type.
func (s *splitter) stream(value []byte) []byte {
	return appendBytes(append([]byte(nil), s.defs...), value)
}

// decodeEntries decodes each entry of a map of the type alone.
func decodeEntries[K comparable](s *splitter, id int, list []entry) map[K]any {
	all := make(map[K]any, len(list))
	for _, e := range list {
		decode := func(value []byte) (map[K]any, error) {
			var one map[K]any
			entry := append(append(append(appendInt(nil, id), 0, 1), e.key...), value...)
			err := decodeGob(s.stream(entry), &one)
			return one, err
		}
		one, err := decode(e.value)
		if err != nil {
			lost := lostValue(err, e.names)
			if one, err = decode([]byte{0}); err != nil { // nil in place of the value
				var key K
				reflect.ValueOf(&key).Elem().Set(reflect.ValueOf("(a key that cannot be decoded)"))
				one = map[K]any{key: nil}
			}
			for key := range one {
				one[key] = lost
			}
		}
		for key, v := range one {
			all[key] = v
		}
	}
	return all
}

// lostValue says why a value with these types was not decoded. Other words of gob's error may quote the value.
func lostValue(err error, names []string) error {
	if strings.Contains(err.Error(), "not registered") {
		for _, name := range names {
			if strings.Contains(err.Error(), strconv.Quote(name)) {
				return fmt.Errorf("it has the type %s, which is not registered with encoding/gob", name)
			}
		}
	}
	return errors.New("it does not fit the types that are registered with encoding/gob now")
}
