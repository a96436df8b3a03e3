package sessplus

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// A Codec encodes and decodes the values of fields. Its methods are called concurrently, and must not retain or modify
// the slices they are passed or return. Equal values should encode to equal bytes, because a field that is set to the
// bytes it already has is not saved. Unmarshal into a *any determines the types that [Session.Get] returns.
//
// The texts of its errors are neither logged nor returned, because they quote their input. The JSON codec reads stored
// text that is not JSON, and does not begin with {, [ or ", as a string, because somebody must have typed it into the
// store.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// jsonCodec is encoding/json, except that whole numbers become int64 in an any, also one inside of another type, or
// uint64 where only that fits, so that no digit is lost, and that what it would silently change or drop is an error
// (see marshalKept).
type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error) {
	// The values that sessions mostly hold, without reflection; the bytes are those of encoding/json, but for float64.
	switch v := v.(type) {
	case nil:
		return []byte("null"), nil
	case bool:
		return strconv.AppendBool(nil, v), nil
	case int:
		return strconv.AppendInt(nil, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	case float64:
		// All digits of a whole number that reads as an integer: the shortest text of 1<<60 is that of another integer.
		if v == math.Trunc(v) && v >= math.MinInt64 && v < math.MaxUint64 {
			return strconv.AppendFloat(nil, v, 'f', 0, 64), nil
		}
	case string:
		if plain(v) {
			b := make([]byte, 0, len(v)+2)
			return append(append(append(b, '"'), v...), '"'), nil
		}
	}
	return marshalKept(v)
}

// decodeAny decodes into an any.
func decodeAny(c Codec, data []byte) (any, error) {
	if _, ok := c.(jsonCodec); ok {
		return unmarshalAny(data)
	}
	var v any // escapes to the heap, unlike with the JSON codec
	err := c.Unmarshal(data, &v)
	return v, err
}

func (jsonCodec) Unmarshal(data []byte, v any) error {
	var tree any
	var err error
	switch dst := v.(type) {
	case *any:
		*dst, err = unmarshalAny(data)
		return err
	case *map[string]any:
		tree, err = unmarshalAny(data)
		if m, ok := tree.(map[string]any); ok {
			*dst = m
			return err
		}
	case *[]any:
		tree, err = unmarshalAny(data)
		if list, ok := tree.([]any); ok {
			*dst = list
			return err
		}
	}
	if err = unmarshalInto(data, v); err != nil {
		if text, ok := plainText(data); ok {
			data, _ = json.Marshal(text) // it is valid UTF-8
			return json.Unmarshal(data, v)
		}
	}
	return err
}

// unmarshalAny decodes into the types that Get gives.
func unmarshalAny(data []byte) (any, error) {
	v, err := unmarshalTree(data)
	if err != nil {
		if text, ok := plainText(data); ok {
			return text, nil
		}
	}
	return v, err
}

// plainText returns what a person has typed into the store instead of JSON: hello, not "hello". What begins as an
// object, a list or a string of JSON is none of that, but broken.
func plainText(data []byte) (text string, ok bool) {
	start := bytes.TrimLeft(data, " \t\r\n")
	if len(start) > 0 && strings.IndexByte("{[\"", start[0]) >= 0 {
		return "", false
	}
	return string(data), utf8.Valid(data) && !json.Valid(data)
}

func unmarshalTree(data []byte) (any, error) {
	if len(data) > 0 {
		switch c := data[0]; {
		case c == '"':
			return unquote(data)
		case c == '-' || '0' <= c && c <= '9':
			if n, ok := wholeNumber(data); ok {
				return n, nil
			}
			if !json.Valid(data) {
				return nil, errors.New("not a number")
			}
			return number(string(bytes.TrimRight(data, " \t\r\n")))
		}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if d.InputOffset() != int64(len(bytes.TrimRight(data, " \t\r\n"))) {
		return nil, errors.New("text after the value")
	}
	return numbers(tree)
}

// plain reports whether s is its own JSON text: printable ASCII that encoding/json escapes nothing of.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if !plainBytes[s[i]] {
			return false
		}
	}
	return true
}

var plainBytes = func() (list [256]bool) {
	for c := ' '; c <= '~'; c++ {
		list[c] = !strings.ContainsRune("\"\\<>&", c)
	}
	return list
}()

func unquote(data []byte) (string, error) {
	if n := len(data); n >= 2 && data[n-1] == '"' {
		if s := string(data[1 : n-1]); plain(s) {
			return s, nil
		}
	}
	var s string
	err := json.Unmarshal(data, &s)
	return s, err
}

// wholeNumber returns the number that data is if it is one of the usual form.
func wholeNumber(data []byte) (n int64, ok bool) {
	if len(data) > 18 || data[0] == '0' && len(data) > 1 {
		return 0, false
	}
	for _, c := range data {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// number gives the text of a JSON number the Go type that holds it: int64, uint64 or float64, or json.Number for one
// out of their range, and for a whole one of which a float64 would lose digits.
func number(s string) (any, error) {
	if s == "-0" {
		return math.Copysign(0, -1), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	digits, _, exponent := strings.Cut(strings.ToLower(s), "e")
	switch {
	case errors.Is(err, strconv.ErrRange), f == 0 && strings.ContainsAny(digits, "123456789"):
		return json.Number(s), nil
	case !exponent && !strings.Contains(s, ".") && strconv.FormatFloat(f, 'f', -1, 64) != s:
		return json.Number(s), nil
	}
	return f, err
}

// numbers replaces each json.Number in tree, in place.
func numbers(tree any) (any, error) {
	var err error
	switch t := tree.(type) {
	case json.Number:
		return number(t.String())
	case []any:
		for i := range t {
			if t[i], err = numbers(t[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range t {
			if t[k], err = numbers(t[k]); err != nil {
				return nil, err
			}
		}
	}
	return tree, nil
}

// unmarshalInto decodes into a variable of any type. Each any in it gets the types that Get gives.
func unmarshalInto(data []byte, dst any) error {
	if !holdsAny(reflect.TypeOf(dst)) || !json.Valid(data) {
		return json.Unmarshal(data, dst)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(dst); err != nil {
		return err
	}
	return numbersIn(reflect.ValueOf(dst))
}

// numbersIn is numbers for each any that v holds.
func numbersIn(v reflect.Value) (err error) {
	if !holdsAny(v.Type()) {
		return nil
	}
	switch v.Kind() {
	case reflect.Interface:
		if tree := v.Interface(); tree != nil {
			if tree, err = numbers(tree); err == nil {
				v.Set(reflect.ValueOf(tree))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			err = numbersIn(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := 0; i < v.Len() && err == nil; i++ {
			err = numbersIn(v.Index(i))
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			settable := reflect.New(value.Type()).Elem()
			settable.Set(value)
			if err = numbersIn(settable); err != nil {
				return err
			}
			v.SetMapIndex(key, settable)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField() && err == nil; i++ {
			if decodes(v.Type().Field(i)) {
				err = numbersIn(v.Field(i))
			}
		}
	}
	return err
}

// holdsAny reports whether encoding/json may decode into an any inside of the type.
func holdsAny(t reflect.Type) bool {
	known, ok := holders.Load(t)
	if !ok {
		known = findAny(t, make(map[reflect.Type]bool))
		holders.Store(t, known)
	}
	return known.(bool)
}

var holders sync.Map // what findAny has found out about types

func findAny(t reflect.Type, seen map[reflect.Type]bool) bool {
	unmarshaler := reflect.TypeFor[json.Unmarshaler]()
	if t == nil || seen[t] || t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return t.NumMethod() == 0
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return findAny(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); decodes(f) && findAny(f.Type, seen) {
				return true
			}
		}
	}
	return false
}

// decodes reports whether encoding/json decodes into a field of a struct, or into the fields of one that is embedded.
func decodes(f reflect.StructField) bool {
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return f.Tag.Get("json") != "-" && (f.IsExported() || f.Anonymous && t.Kind() == reflect.Struct)
}

// The conversions of the typed getters. They take what any codec may give for the type, and refuse what would lose
// something on the way.

func toInt64(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint64:
		return int64(v), v <= math.MaxInt64
	case uint:
		return int64(v), uint64(v) <= math.MaxInt64
	case uint32:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint8:
		return int64(v), true
	case float64:
		// Both ends are exact as float64: -2^63 is an int64, 2^63 is none.
		return int64(v), v == math.Trunc(v) && v >= math.MinInt64 && v < -math.MinInt64
	case float32:
		return toInt64(float64(v))
	}
	return 0, false
}

func toFloat64(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case float32:
		return float64(v), true
	case uint64:
		f := float64(v)
		return f, f < math.MaxUint64 && uint64(f) == v
	case uint:
		return toFloat64(uint64(v))
	}
	n, ok := toInt64(v)
	f := float64(n)
	return f, ok && f < -math.MinInt64 && int64(f) == n
}

func toBytes(v any) ([]byte, bool) {
	switch v := v.(type) {
	case []byte:
		return v, true
	case string:
		b, err := base64.StdEncoding.DecodeString(v)
		return b, err == nil
	}
	return nil, false
}

func toTime(v any) (time.Time, bool) {
	switch v := v.(type) {
	case time.Time:
		return v, true
	case string:
		t, err := time.Parse(time.RFC3339Nano, v)
		return t, err == nil
	}
	return time.Time{}, false
}
