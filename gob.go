package sessplus

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
)

// Gob returns a codec for programs that come from a library which stores sessions as gobs, and that assert Go types:
// [Session.Get] gives the type that was set, as in v.(uint), where JSON would give an int64. Every other way to read
// works, too: the typed getters, [Session.Decode] and [Field] also take another type if encoding/gob can decode one
// into the other (int as int64, a struct as one that shares fields), but no int as a uint or float64.
//
// A type that is not built in must be registered with [gob.Register], as for those libraries, also time.Time, []any and
// map[string]any; a Set of another one makes the commit fail. A value that was set as a pointer comes back as the type
// that was registered.
//
// Choose JSON if you can. The name of a Go type becomes part of what is stored, so that renaming or moving the type, or
// no longer registering it, makes the field absent, with a line in the log. Nothing but Go reads it. Fields of a struct
// that are not exported, and functions and channels, are dropped without a word. A map, or a struct that another
// process has encoded, seldom has the same bytes twice, so that setting it to an equal value is a save. And decoding
// runs the GobDecode and UnmarshalBinary methods of the types that the program has registered, on what the store
// returns: whoever can write to the store chooses among them.
func Gob() Codec { return gobCodec{} }

// gobCodec encodes each value as an interface, and so with the name of its type. No bytes at all are nil, which gob
// cannot encode.
type gobCodec struct{}

const errNotRegistered lossError = "is or has a type that is not registered with encoding/gob; call gob.Register"

func (gobCodec) Marshal(v any) ([]byte, error) {
	if r := reflect.ValueOf(v); v == nil || r.Kind() == reflect.Pointer && r.IsNil() {
		return []byte{}, nil
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&v); err != nil {
		if strings.Contains(err.Error(), "type not registered for interface") {
			return nil, errNotRegistered
		}
		return nil, err
	}
	return b.Bytes(), nil
}

func (gobCodec) Unmarshal(data []byte, dst any) error {
	to := reflect.ValueOf(dst)
	if to.Kind() != reflect.Pointer || to.IsNil() {
		return errors.New("the destination is no pointer")
	}
	to = to.Elem()
	if len(data) == 0 {
		to.SetZero()
		return nil
	}
	var v any
	r := bytes.NewReader(data)
	if err := gob.NewDecoder(r).Decode(&v); err != nil {
		return err
	}
	if r.Len() > 0 || v == nil {
		return errors.New("not one value")
	}
	if from := reflect.ValueOf(v); from.Type().AssignableTo(to.Type()) {
		to.Set(from)
		return nil
	}
	return convertGob(v, to)
}

// convertGob gives to the value of v, which is of another type, by the rules of gob.
func convertGob(v any, to reflect.Value) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	fresh := reflect.New(to.Type()) // gob would leave in a map or a struct what it does not find in v
	if err := gob.NewDecoder(&b).DecodeValue(fresh); err != nil {
		return err
	}
	to.Set(fresh.Elem())
	return nil
}

// basic returns the value as the basic type that its type is made from, and whether it is of a type of the program's
// that is made from one: a codec that keeps Go types gives those as well.
func basic(v any) (any, bool) {
	r := reflect.ValueOf(v)
	if _, digits := v.(json.Number); digits || !r.IsValid() || r.Type().PkgPath() == "" {
		return v, false
	}
	switch {
	case r.CanInt():
		return r.Int(), true
	case r.CanUint():
		return r.Uint(), true
	case r.CanFloat():
		return r.Float(), true
	case r.Kind() == reflect.Bool:
		return r.Bool(), true
	case r.Kind() == reflect.String:
		return r.String(), true
	case r.Kind() == reflect.Slice && r.Type().Elem().Kind() == reflect.Uint8:
		return r.Bytes(), true
	}
	return v, false
}
