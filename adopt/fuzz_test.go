package adopt_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
)

// Whatever is stored or signed, no reader panics, makes a value of a type that is not registered, or gives fields
// other than encoding/gob does (SPEC 6.4, SPEC 7.4).

var fuzzKey = []byte("a hash key")

func gobSeeds(f *testing.F) {
	for name := range importers {
		for _, data := range readSample(f, name).Store {
			f.Add(data)
		}
	}
	f.Add(gobOf(f, map[any]any{"a": []any{Cart{}, []any{Cart{}, map[string]any{"x": Cart{}}}}, 1: nil, "c": 1i, "f": -1.5, "n": -7}))
	f.Add(gobOf(f, map[any]any{"later": Cart{}, "first": 1}))
	f.Add(gobOf(f, map[string]any{"a": at}))
}

func checkFields(t *testing.T, fields map[string]any, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, sessplus.ErrNoRecord) {
		t.Fatalf("the error %v does not match ErrNoRecord", err)
	}
	for name, v := range fields {
		if v != nil && reflect.TypeOf(v).Name() == "Legacy" {
			t.Fatalf("%s is a %T", name, v)
		}
	}
}

func FuzzGorilla(f *testing.F) {
	gobSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			return // no cookie holds it
		}
		value := signCookie(fuzzKey, "session", time.Now().Unix(), data)
		found, err := adopt.Gorilla(nil, fuzzKey).Import(ctx, "session", value)
		if err != nil {
			found = &sessplus.Imported{}
		}
		checkFields(t, found.Fields, err)
	})
}

// FuzzGorillaValue is for what visitors send.
func FuzzGorillaValue(f *testing.F) {
	for name := range importers {
		f.Add(readSample(f, name).Value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if _, err := adopt.Gorilla(nil, fuzzKey).Import(ctx, "session", value); !errors.Is(err, sessplus.ErrNoRecord) {
			t.Fatalf("the error is %v", err)
		}
	})
}

// oneSession is an scs store that has the same session under every token.
type oneSession []byte

func (s oneSession) FindCtx(context.Context, string) ([]byte, bool, error) { return s, true, nil }
func (oneSession) Find(string) ([]byte, bool, error)                       { panic("it takes a context") }
func (oneSession) Delete(string) error                                     { return nil }
func (oneSession) Commit(string, []byte, time.Time) error                  { return nil }

func FuzzSCS(f *testing.F) {
	gobSeeds(f)
	token := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := adopt.SCS(oneSession(data), nil).Import(ctx, "session", token)
		if err != nil {
			found = &sessplus.Imported{}
		}
		checkFields(t, found.Fields, err)
	})
}

func FuzzFlask(f *testing.F) {
	s := readFlask(f)
	f.Add(s.Cookie)
	f.Add(s.Small)
	f.Add(s.SID)
	f.Fuzz(func(t *testing.T, value string) {
		if _, err := adopt.FlaskSessionPlus("another secret", nil).Import(ctx, "session", value); !errors.Is(err, sessplus.ErrNoRecord) {
			t.Fatalf("the error is %v", err)
		}
	})
}

// A session in which one type is not registered loses that field, wherever in it the definitions of the other types
// stand, and what is left is what encoding/gob gives without that field.
func FuzzLostType(f *testing.F) {
	f.Add("a", "text", int64(-1), 1.5, []byte("x"), uint8(7))
	f.Add("", "\xff", int64(1<<62), 0.0, []byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, name, text string, n int64, x float64, raw []byte, mask uint8) {
		if len(text)+len(raw)+len(name) > 500 {
			return
		}
		all := []any{
			text, n, x, raw, Cart{[]Item{{text}}}, []any{Cart{}, n, []any{Cart{[]Item{{"deep"}}}, nil, map[any]any{name: raw}}}, at,
			map[string]any{name: []any{at, true}},
		}
		values := map[any]any{"other": "kept"}
		for i, v := range all {
			if mask>>i&1 != 0 {
				values[name+string(rune('0'+i))] = v
			}
		}
		want := decoded(t, gobOf(t, values))
		// Its name is as long as Cart's, which takes its place in the bytes.
		values["lost"] = []any{"before", marked{[]Item{{text}}}}
		data := gobOf(t, values)
		if bytes.Count(data, []byte("example.com/shop.Mark")) != 1 {
			return // it is also in a text
		}
		data = bytes.Replace(data, []byte("example.com/shop.Mark"), []byte("example.com/shop.Gone"), 1)
		found, err := adopt.Gorilla(nil, fuzzKey).Import(ctx, "session", signCookie(fuzzKey, "session", time.Now().Unix(), data))
		if err != nil {
			if len(data) > 2000 {
				return
			}
			t.Fatal(err)
		}
		lost, _ := found.Fields["lost"].(error)
		if lost == nil || !strings.Contains(lost.Error(), "the type example.com/shop.Gone") {
			t.Errorf("lost = %v", found.Fields["lost"])
		}
		delete(found.Fields, "lost")
		if !reflect.DeepEqual(found.Fields, want) {
			t.Errorf("the fields are %#v,\nwant %#v", found.Fields, want)
		}
	})
}

type marked struct{ Items []Item }

func init() { gob.RegisterName("example.com/shop.Mark", marked{}) }

// decoded is what the importer gives for a session that encoding/gob decodes.
func decoded(t *testing.T, data []byte) map[string]any {
	t.Helper()
	found, err := adopt.Gorilla(nil, fuzzKey).Import(ctx, "session", signCookie(fuzzKey, "session", time.Now().Unix(), data))
	if err != nil {
		t.Skip(err)
	}
	return found.Fields
}
