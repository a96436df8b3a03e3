package adopt

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// maxStored is how much of a stored session is decoded.
const maxStored = 4 << 20

// decodeGob decodes into dst. It does not panic, whatever the methods of the program's types do.
func decodeGob(data []byte, dst any) (err error) {
	defer func() {
		if recover() != nil {
			err = errDamaged
		}
	}()
	if len(data) > maxStored {
		return errDamaged
	}
	return gob.NewDecoder(bytes.NewReader(data)).Decode(dst)
}

// fields returns the fields of a map[any]any or map[string]any, see the package comment. A value that cannot be kept is
// an error that says why.
func fields[K comparable](values map[K]any) map[string]any {
	all := make(map[string]any, len(values))
	for key, v := range values {
		name, ok := keyText(key)
		if !ok {
			name = fmt.Sprintf("(a key of type %T)", key)
			v = fmt.Errorf("a field needs a name, and a %T is none", key)
		} else if _, isText := any(key).(string); !isText {
			if _, taken := all[name]; taken {
				continue // by the field whose key is that text
			}
		}
		all[name] = kept(v)
	}
	return all
}

// keyText is the name that a key becomes.
func keyText(key any) (string, bool) {
	switch r := reflect.ValueOf(key); {
	case r.Kind() == reflect.String:
		return r.String(), true
	case r.CanInt():
		return strconv.FormatInt(r.Int(), 10), true
	case r.CanUint():
		return strconv.FormatUint(r.Uint(), 10), true
	case r.Kind() == reflect.Bool:
		return strconv.FormatBool(r.Bool()), true
	}
	return "", false
}

// kept is the value in a form that every codec takes, or an error.
func kept(v any) any {
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return []byte(v)
		}
	case []any:
		list := make([]any, len(v))
		for i, x := range v {
			if list[i] = kept(x); isError(list[i]) {
				return list[i]
			}
		}
		return list
	case map[any]any:
		return keptMap(v)
	case map[string]any:
		return keptMap(v)
	}
	if isReference(v) {
		return fmt.Errorf("a %T has no place in a session", v)
	}
	return v
}

func keptMap[K comparable](values map[K]any) any {
	m := fields(values)
	for _, v := range m {
		if isError(v) {
			return v
		}
	}
	return m
}

func isError(v any) bool {
	_, ok := v.(error)
	return ok
}
