package sessplus

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"unicode/utf8"
)

// A lossError says why a value would not be kept as it is. Its text is a constant, and fit for an error.
type lossError string

func (e lossError) Error() string { return string(e) }

const (
	errNotText   lossError = "has text that is not valid UTF-8, of which JSON would keep something else; use []byte"
	errNoExports lossError = "has a struct with no exported field, of which JSON would keep nothing"
	errIsError   lossError = "is or has an error, of which JSON would not keep what it says; use its text"
	errTooDeep   lossError = "is nested so deeply that encoding/json cannot decode it"
)

// maxDepth is how deeply lists and objects may be nested for encoding/json to decode them.
const maxDepth = 10000

// marshalKept is encoding/json, but rejects what that would silently change. Only if the text looks as if something was
// changed, which is rare, is the value itself inspected.
func marshalKept(v any) ([]byte, error) {
	if _, ok := v.(error); ok && !marshals(reflect.ValueOf(v)) {
		return nil, errIsError
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(data, []byte(`{}`)) || bytes.Contains(data, []byte(`\ufffd`)) || bytes.Contains(data, []byte("\ufffd")) {
		if err := loss(reflect.ValueOf(v)); err != nil {
			return nil, err
		}
	}
	if !utf8.Valid(data) { // as a Marshaler gave it
		return nil, errNotText
	}
	// To parse long text once more would cost a multiple of counting.
	if bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > maxDepth && !json.Valid(data) {
		return nil, errTooDeep
	}
	return data, nil
}

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// marshals reports whether encoding/json asks the value itself for its text.
func marshals(v reflect.Value) bool { return has(v, jsonMarshaler) || has(v, textMarshaler) }

func has(v reflect.Value, t reflect.Type) bool {
	return v.Type().Implements(t) || v.CanAddr() && reflect.PointerTo(v.Type()).Implements(t)
}

// loss says what encoding/json, which has encoded the value, does not keep of it.
func loss(v reflect.Value) error {
	switch k := v.Kind(); {
	case k == reflect.Invalid, (k == reflect.Interface || k == reflect.Pointer) && v.IsNil():
		return nil
	case has(v, jsonMarshaler):
		return nil
	case has(v, textMarshaler):
		return lossOfText(v)
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return loss(v.Elem())
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return errNotText
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := loss(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			if err := loss(key); err != nil {
				return err
			}
			if err := loss(value); err != nil {
				return err
			}
		}
	case reflect.Struct:
		return lossOfStruct(v)
	}
	return nil
}

// lossOfText is loss for a value that encodes itself.
func lossOfText(v reflect.Value) error {
	m, ok := v.Interface().(encoding.TextMarshaler)
	if !ok {
		m = v.Addr().Interface().(encoding.TextMarshaler)
	}
	if text, err := m.MarshalText(); err == nil && !utf8.Valid(text) {
		return errNotText
	}
	return nil
}

// lossOfStruct is loss for a struct, whose embedded structs count as their fields.
func lossOfStruct(v reflect.Value) error {
	t := v.Type()
	exported := t.NumField() == 0 // an empty struct has nothing to lose
	for i := range t.NumField() {
		f, field := t.Field(i), v.Field(i)
		if f.Anonymous && f.Tag.Get("json") == "" {
			if field.Kind() == reflect.Pointer && !field.IsNil() {
				field = field.Elem()
			}
			if field.Kind() == reflect.Struct {
				err := lossOfStruct(field)
				if err != nil && err != errNoExports {
					return err
				}
				exported = exported || err == nil
				continue
			}
		}
		if !f.IsExported() {
			continue
		}
		exported = true
		if f.Tag.Get("json") != "-" && !field.IsZero() { // of a zero value nothing is lost
			if err := loss(field); err != nil {
				return err
			}
		}
	}
	switch {
	case exported:
		return nil
	case reflect.PointerTo(t).Implements(reflect.TypeFor[error]()): // as errors.New gives it
		return errIsError
	}
	return errNoExports
}
