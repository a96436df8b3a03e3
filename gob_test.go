package sessplus_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// The types of a program, of which the last is not registered.
type (
	gobUser struct {
		ID   uint
		Tags []string
	}
	gobPart    struct{ ID uint }
	gobRole    string
	gobLevel   int
	gobHidden  struct{ id int }
	gobUnknown struct{ ID int }
)

func init() {
	for _, v := range []any{gobUser{}, gobRole(""), gobLevel(0), gobHidden{}} {
		gob.Register(v)
	}
}

// With Gob every value has the type that was set, in the request that set it and in later ones, on every backend, and
// the typed getters convert (SPEC 2.1, SPEC 2.2).
func TestGobKeepsTypes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 5, time.UTC)
	values := map[string]any{
		"uint": uint(7), "int": 42, "int8": int8(-8), "float32": float32(1.5), "float": 3.0, "bool": true, "text": "é", "raw": "\xff",
		"bytes": []byte{0, 1}, "time": now, "struct": gobUser{7, []string{"a"}}, "role": gobRole("admin"), "level": gobLevel(3),
		"list": []any{1, "b", nil, gobUser{ID: 1}}, "map": map[string]any{"n": int64(1), "nil": nil}, "nil": nil,
	}
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, &sessplus.Options{Codec: sessplus.Gob()}, sessplus.Config{CookieName: "session", Backend: b}))
		check := func(x *sessplus.Session) {
			for name, want := range values {
				if got := x.Get(name); !reflect.DeepEqual(got, want) {
					t.Errorf("Get(%q) = %#v, want %#v", name, got, want)
				}
				if !x.Has(name) {
					t.Errorf("Has(%q) = false", name)
				}
			}
			got := []any{
				x.GetInt("uint"), x.GetInt64("int8"), x.GetFloat64("int"), x.GetFloat64("float32"), x.GetInt("float"), x.GetInt("level"),
				x.GetString("role"), x.GetBool("bool"), x.GetBytes("bytes"), x.GetTime("time"), x.GetString("int"), x.GetInt("nil"),
			}
			want := []any{7, int64(-8), 42.0, 1.5, 3, 3, "admin", true, []byte{0, 1}, now, "", 0}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the typed getters give %#v, want %#v", got, want)
			}
			var user gobUser
			if err := x.Decode("struct", &user); err != nil || user.ID != 7 {
				t.Errorf("Decode = %v, %v", user, err)
			}
		}
		s.with(func(x *sessplus.Session) {
			for name, v := range values {
				x.Set(name, v)
			}
			check(x)
		})
		s.with(check)
	})
}

// A Field reads the type it names, by gob's rules for what has changed, and anything else as absent, with a line in
// the log that does not hold the value (SPEC 2.4, SPEC 7.3).
func TestGobFields(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := newSite(t, newManager(t, &sessplus.Options{Codec: sessplus.Gob(), Logger: slog.New(slog.NewTextHandler(&log, nil))},
		sessplus.Config{CookieName: "session", Backend: sessplus.Memory()}))
	s.with(func(x *sessplus.Session) {
		x.Set("user", &gobUser{7, []string{"a"}})
		x.Set("none", (*gobUser)(nil))
		x.Set("n", 4211)
		x.Set("count", uint(1))
	})
	s.with(func(x *sessplus.Session) {
		if got := x.Get("user"); !reflect.DeepEqual(got, gobUser{7, []string{"a"}}) {
			t.Errorf("Get of a pointer = %#v, want what it points to", got)
		}
		if got := sessplus.Field[*gobUser]("user").Get(x); got == nil || got.ID != 7 {
			t.Errorf("Field[*gobUser] = %v", got)
		}
		if got := sessplus.Field[gobPart]("user").Get(x); got.ID != 7 {
			t.Errorf("a struct with fewer fields = %v", got)
		}
		if got, ok := sessplus.Field[*gobUser]("none").Lookup(x); got != nil || !ok {
			t.Errorf("Field[*gobUser] of a nil pointer = %v, %t", got, ok)
		}
		if got := sessplus.Field[any]("n").Get(x); got != 4211 {
			t.Errorf("Field[any] = %#v", got)
		}
		if got := sessplus.Field[int64]("n").Get(x); got != 4211 {
			t.Errorf("Field[int64] of an int = %d", got)
		}
		if got, ok := sessplus.Field[int8]("n").Lookup(x); ok {
			t.Errorf("Field[int8] of 4211 = %d", got)
		}
		if got, ok := sessplus.Field[string]("n").Lookup(x); ok {
			t.Errorf("Field[string] of an int = %q", got)
		}
		if n, err := sessplus.Field[uint]("count").Update(x, func(n uint) uint { return n + 1 }); n != 2 || err != nil {
			t.Errorf("Update = %d, %v", n, err)
		}
		if got := sessplus.Field[int]("n").Pop(x); got != 4211 || x.Has("n") {
			t.Errorf("Pop = %d, and it is there: %t", got, x.Has("n"))
		}
	})
	if text := log.String(); !strings.Contains(text, "field=n type=int8") || strings.Contains(text, "4211") {
		t.Errorf("the log has %q", text)
	}
}

// What gob would refuse or lose makes the commit fail, names the field, and saves nothing (SPEC 2.4).
func TestGobRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		value any
		says  string
	}{
		{"an unregistered struct", gobUnknown{7}, "a sessplus_test.gobUnknown is or has a type that is not registered with encoding/gob"},
		{"one inside of a list", []any{gobUnknown{7}}, "call gob.Register"},
		{"an error", errors.New("x"), "not registered"},
		{"a function", func() {}, "a func() is or has"},
		{"a struct that exports nothing", gobHidden{7}, "cannot be encoded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var failed error
			s := newSite(t, newManager(t, &sessplus.Options{
				Codec: sessplus.Gob(),
				ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
					failed = err
					w.WriteHeader(http.StatusTeapot)
				},
			}, sessplus.Config{CookieName: "session", Backend: sessplus.Memory()}))
			r := s.with(func(x *sessplus.Session) {
				x.Set("other", 1)
				x.Set("the field", test.value)
			})
			if r.StatusCode != http.StatusTeapot || len(r.setCookies("session")) > 0 {
				t.Errorf("status %d, %q", r.StatusCode, r.setCookies("session"))
			}
			if failed == nil || !strings.Contains(failed.Error(), `"the field"`) || !strings.Contains(failed.Error(), test.says) {
				t.Errorf("the error is %v, want one that says %q", failed, test.says)
			}
		})
	}
}

// Setting a field to the value that it has saves nothing (SPEC 2.3), as far as the bytes of a gob are equal.
func TestGobSameValue(t *testing.T) {
	t.Parallel()
	saves := 0
	s := newSite(t, newManager(t, &sessplus.Options{Codec: sessplus.Gob()},
		sessplus.Config{CookieName: "session", Backend: countSaves{sessplus.Memory(), &saves}}))
	set := func(x *sessplus.Session) {
		x.Set("n", uint(7))
		x.Set("user", gobUser{7, []string{"a"}})
		x.Set("nothing", nil)
	}
	s.with(set)
	s.with(set)
	if saves != 1 {
		t.Errorf("%d saves, want 1", saves)
	}
}

type countSaves struct {
	sessplus.Backend
	n *int
}

func (b countSaves) Create(ctx context.Context, key string, r *sessplus.Record) error {
	*b.n++
	return b.Backend.Create(ctx, key, r)
}

func (b countSaves) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	if len(c.Set) > 0 {
		*b.n++
	}
	return b.Backend.Update(ctx, key, c)
}

// Whatever the store returns, decoding it neither panics nor makes a value of a type that the program has not
// registered (SPEC 7.4).
func FuzzGob(f *testing.F) {
	c := sessplus.Gob()
	for _, v := range []any{nil, 7, "text", []byte("x"), gobUser{7, []string{"a"}}, []any{gobUser{}}, map[string]any{"a": 1}, time.Now()} {
		data, err := c.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	var unknown bytes.Buffer
	if err := gob.NewEncoder(&unknown).Encode(gobUnknown{7}); err != nil {
		f.Fatal(err)
	}
	f.Add(unknown.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		if err := c.Unmarshal(data, &v); err != nil {
			return
		}
		if _, ok := v.(gobUnknown); ok {
			t.Fatal("a value of a type that is not registered")
		}
		var user gobUser
		c.Unmarshal(data, &user)
		var n int
		c.Unmarshal(data, &n)
	})
}
