package sessplus

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"time"
)

// Gob returns a codec for programs that used a library that stores sessions as gobs, and that assert Go types:
// [Session.Get] returns the type that was set, so v.(uint) works where JSON would return an int64. The typed getters,
// [Session.Decode] and [Field] work, too. They also read a value of another type if encoding/gob can decode it (an int
// as an int64, a struct as one with some of its fields), but not an int as a uint or float64.
//
// Types of the program must be registered with [gob.Register], as for those libraries. Gob registers time.Time,
// time.Duration, []any, map[string]any and map[any]any. Setting a value of an unregistered type makes the commit fail.
// A value that was set as a pointer comes back as the type that was registered.
//
// Use JSON if you can. A gob contains the names of Go types, so a field becomes absent, and is logged, when its type is
// renamed, moved or no longer registered. Only Go programs can read it. Unexported struct fields, functions and
// channels are dropped silently. A map, or a struct that another process has encoded, rarely has the same bytes twice,
// so setting it to an equal value is saved again. And decoding calls the GobDecode and UnmarshalBinary methods of
// registered types with what the store returns: whoever can write to the store chooses among them.
func Gob() Codec {
	for _, v := range []any{time.Time{}, time.Duration(0), []any(nil), map[string]any(nil), map[any]any(nil)} {
		registerGob(v)
	}
	return gobCodec{}
}

// registerGob registers the type of v, unless the program has given it another name: for that gob panics.
func registerGob(v any) {
	defer func() { recover() }()
	gob.Register(v)
}

// gobCodec encodes each value as an interface, and so with the name of its type. An empty slice stands for nil, which
// gob cannot encode.
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
