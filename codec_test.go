package sessplus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 2.1
func TestValuesAreCopies(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil, oneCookie(b)))
		want := map[string]any{"list": []any{"x", int64(1)}, "map": map[string]any{"k": "v"}}
		check := func(s *sessplus.Session, when string) {
			t.Helper()
			if got := s.Get("tree"); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: Get = %v, want %v", when, got, want)
			}
			if got := s.GetBytes("bytes"); string(got) != "bytes" {
				t.Errorf("%s: GetBytes = %q", when, got)
			}
		}
		spoil := func(s *sessplus.Session) {
			tree := s.Get("tree").(map[string]any)
			tree["list"].([]any)[0] = "changed"
			tree["map"].(map[string]any)["k"] = "changed"
			delete(tree, "map")
			copy(s.GetBytes("bytes"), "xxxxx")
			copy(sessplus.Field[[]byte]("bytes").Get(s), "yyyyy")
			var raw map[string]any
			if err := s.Decode("tree", &raw); err != nil {
				t.Error(err)
			}
			raw["list"].([]any)[0] = "changed"
		}
		s.with(func(s *sessplus.Session) {
			list, m, data := []any{"x", 1}, map[string]string{"k": "v"}, []byte("bytes")
			s.Set("tree", map[string]any{"list": list, "map": m})
			s.Set("bytes", data)
			list[0], m["k"] = "changed", "changed"
			copy(data, "zzzzz")
			check(s, "after a change of what was set")
			spoil(s)
			check(s, "after a change of what was got")
		})
		s.with(func(s *sessplus.Session) {
			check(s, "in the next request")
			spoil(s)
			check(s, "after a change of what was got in the next request")
			s.Fields()[0] = "changed"
			if got := s.Fields(); !slices.Equal(got, []string{"bytes", "tree"}) {
				t.Errorf("Fields = %q", got)
			}
		})
		s.with(func(s *sessplus.Session) { check(s, "in the third request") })
	})
}

type textual struct{ s string }

func (v textual) MarshalText() ([]byte, error) { return []byte(v.s), nil }

var codecTests = []struct {
	set, want any
}{
	{nil, nil},
	{true, true},
	{false, false},
	{"", ""},
	{"plain", "plain"},
	{"<b>&'\"\\/\u2028é😀\x00\x7f\t\n\r;, =%|", "<b>&'\"\\/\u2028é😀\x00\x7f\t\n\r;, =%|"},
	{"\ufffd \ufeff", "\ufffd \ufeff"},
	{"null", "null"},
	{"123", "123"},
	{42, int64(42)},
	{int8(-8), int64(-8)},
	{uint16(16), int64(16)},
	{int64(math.MaxInt64), int64(math.MaxInt64)},
	{int64(math.MinInt64), int64(math.MinInt64)},
	{int64(1<<53 + 1), int64(1<<53 + 1)},
	{uint64(math.MaxInt64), int64(math.MaxInt64)},
	{uint64(math.MaxInt64 + 1), uint64(math.MaxInt64 + 1)},
	{uint64(math.MaxUint64), uint64(math.MaxUint64)},
	{3.0, int64(3)},
	{0.1, 0.1},
	{-2.5e-10, -2.5e-10},
	{1e300, 1e300},
	{float64(1 << 60), int64(1 << 60)}, // of which the shortest text of a float64 is another whole number
	{float64(-1<<60 - 1<<8), int64(-1<<60 - 1<<8)},
	{float64(1 << 63), uint64(1 << 63)},
	{float64(1 << 64), float64(1 << 64)},
	{math.MaxFloat64, math.MaxFloat64},
	{math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64},
	{float32(0.1), 0.1},
	{[]any{}, []any{}},
	{[]string{"a", "b"}, []any{"a", "b"}},
	{[][]int{{1}, {2, 3}}, []any{[]any{int64(1)}, []any{int64(2), int64(3)}}}, // Firestore has no arrays of arrays
	{map[string]any{}, map[string]any{}},
	{map[string]any{"n": uint64(math.MaxUint64), "__x__": map[string]any{"": nil}}, map[string]any{"n": uint64(math.MaxUint64), "__x__": map[string]any{"": nil}}},
	{map[int]bool{1: true}, map[string]any{"1": true}},
	{struct {
		A int64 `json:"a"`
		B []any
		c int
	}{A: math.MaxInt64, B: []any{1.5}}, map[string]any{"a": int64(math.MaxInt64), "B": []any{1.5}}},
	{textual{"text"}, "text"},
	{(*int)(nil), nil},
	{[]byte("bytes"), "Ynl0ZXM="},
	{time.Date(2024, 2, 29, 1, 2, 3, 4, time.UTC), "2024-02-29T01:02:03.000000004Z"},
	{strings.Repeat("long ", 200), strings.Repeat("long ", 200)},
}

// SPEC 2.1, 2.2
func TestValuesKeepTypeAndDigits(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil, oneCookie(b)))
		check := func(s *sessplus.Session) {
			for i, tt := range codecTests {
				if got := s.Get(strconv.Itoa(i)); !reflect.DeepEqual(got, tt.want) {
					t.Errorf("Get after Set(%#v) = %#v, want %#v", tt.set, got, tt.want)
				}
				if !s.Has(strconv.Itoa(i)) {
					t.Errorf("Has after Set(%#v) = false", tt.set)
				}
			}
		}
		s.with(func(s *sessplus.Session) {
			for i, tt := range codecTests {
				s.Set(strconv.Itoa(i), tt.set)
			}
			check(s)
		})
		s.with(check)
		s.with(func(s *sessplus.Session) { s.Set("one more", 1) })
		s.with(check)
	})
}

// SPEC 2.2
func TestGettersConvertWhatFits(t *testing.T) {
	t.Parallel()
	type zeros struct {
		S string
		I int
		J int64
		F float64
		B bool
		Y string // of GetBytes
		T string // of GetTime
	}
	moment := time.Date(2024, 2, 29, 1, 2, 3, 400, time.FixedZone("", 3600))
	for _, tt := range []struct {
		set  any
		want zeros
	}{
		{nil, zeros{}},
		{true, zeros{B: true}},
		{"text", zeros{S: "text", Y: "\xb5\xec\x6d"}}, // which happens to be base64
		{"text!", zeros{S: "text!"}},
		{"1", zeros{S: "1"}},
		{"true", zeros{S: "true", Y: "\xb6\xbb\x9e"}},
		{3, zeros{I: 3, J: 3, F: 3}},
		{1, zeros{I: 1, J: 1, F: 1}},
		{3.0, zeros{I: 3, J: 3, F: 3}},
		{3.5, zeros{F: 3.5}},
		{-1e18, zeros{I: -1e18, J: -1e18, F: -1e18}},
		{float64(1 << 60), zeros{I: 1 << 60, J: 1 << 60, F: 1 << 60}},
		{float64(-1<<60 - 1<<8), zeros{I: -1<<60 - 1<<8, J: -1<<60 - 1<<8, F: -1<<60 - 1<<8}},
		{float64(-1 << 63), zeros{I: -1 << 63, J: -1 << 63, F: -1 << 63}},
		{float64(-1<<63 - 1<<11), zeros{F: -1<<63 - 1<<11}},
		{math.Nextafter(1<<64, 0), zeros{F: math.Nextafter(1<<64, 0)}},
		{float64(1 << 64), zeros{F: 1 << 64}},
		{1e19, zeros{F: 1e19}},
		{1e300, zeros{F: 1e300}},
		{int64(1<<53 + 1), zeros{I: 1<<53 + 1, J: 1<<53 + 1}},
		{int64(math.MaxInt64), zeros{I: math.MaxInt64, J: math.MaxInt64}},
		{int64(math.MinInt64), zeros{I: math.MinInt64, J: math.MinInt64, F: math.MinInt64}},
		{uint64(1 << 63), zeros{F: 1 << 63}},
		{uint64(math.MaxUint64), zeros{}},
		{[]byte("bytes\x00\xff"), zeros{S: "Ynl0ZXMA/w==", Y: "bytes\x00\xff"}},
		{moment, zeros{S: "2024-02-29T01:02:03.0000004+01:00", T: moment.Format(time.RFC3339Nano)}},
		{"2024-02-29", zeros{S: "2024-02-29"}},
		{[]any{1}, zeros{}},
		{map[string]int{"a": 1}, zeros{}},
	} {
		s := newSite(t, newManager(t, nil))
		look := func(s *sessplus.Session) {
			got := zeros{s.GetString("f"), s.GetInt("f"), s.GetInt64("f"), s.GetFloat64("f"), s.GetBool("f"), string(s.GetBytes("f")), ""}
			if at := s.GetTime("f"); !at.IsZero() {
				got.T = at.Format(time.RFC3339Nano)
			}
			if strconv.IntSize == 64 && got != tt.want {
				t.Errorf("getters after Set(%#v) = %+v, want %+v", tt.set, got, tt.want)
			}
			if s.Err() != nil {
				t.Errorf("Err after getters of other types = %v", s.Err())
			}
		}
		s.with(func(s *sessplus.Session) {
			s.Set("f", tt.set)
			look(s)
		})
		s.with(look)
	}
	newSite(t, newManager(t, nil)).with(func(s *sessplus.Session) {
		if s.GetString("f") != "" || s.GetInt("f") != 0 || s.GetBytes("f") != nil || !s.GetTime("f").IsZero() || s.Get("f") != nil {
			t.Error("a getter of an absent field gives another value than zero")
		}
		if err := s.Decode("f", new(int)); !errors.Is(err, sessplus.ErrNoField) {
			t.Errorf("Decode of an absent field = %v, want ErrNoField", err)
		}
	})
}

// SPEC 2.2: also where the digits are inside of a tree that is decoded with a type.
func TestDigitsInsideOfTypedTrees(t *testing.T) {
	t.Parallel()
	const id = int64(1<<53 + 1)
	s := newSite(t, newManager(t, nil))
	s.with(func(s *sessplus.Session) { s.Set("f", map[string]any{"id": id}) })
	s.with(func(s *sessplus.Session) {
		var m map[string]any
		if err := s.Decode("f", &m); err != nil || m["id"] != id {
			t.Errorf("Decode into a map[string]any: %v, %T %v, want the int64 %v", err, m["id"], m["id"], id)
		}
		if m := sessplus.Field[map[string]any]("f").Get(s); m["id"] != id {
			t.Errorf("Field[map[string]any].Get: %T %v, want the int64 %v", m["id"], m["id"], id)
		}
		var st struct{ ID int64 }
		if err := s.Decode("f", &st); err != nil || st.ID != id {
			t.Errorf("Decode into a struct: %v, %v, want %v", err, st.ID, id)
		}
	})
}

type embeddedTree struct{ Inner any }

// A typedTree has an any wherever a type may have one.
type typedTree struct {
	embeddedTree
	Any    any
	List   []any
	Maps   []map[string]any
	Lists  map[string][]any
	Array  [1]any
	Nodes  map[string]typedTree
	Next   *typedTree
	Digits json.Number
	Raw    json.RawMessage
	Itself ownTree
	Other  any `json:"-"`
}

// An ownTree decodes itself, and keeps the number that it has found.
type ownTree struct{ Number any }

func (o *ownTree) UnmarshalJSON(data []byte) error {
	o.Number = json.Number(data)
	return nil
}

func (o ownTree) MarshalJSON() ([]byte, error) { return json.Marshal(o.Number) }

// SPEC 2.1, 2.2: an any inside of another type gets the types that Get gives, and Update writes back what was stored.
func TestDigitsInsideOfOtherTypes(t *testing.T) {
	t.Parallel()
	const id, large = int64(1<<53 + 1), uint64(math.MaxUint64)
	type named map[string]any
	tree := func() typedTree {
		return typedTree{
			embeddedTree: embeddedTree{id}, Any: map[string]any{"a": []any{id, nil, "x", 1.5}}, List: []any{id, large},
			Maps: []map[string]any{{"id": id}, nil}, Lists: map[string][]any{"a": {id}}, Array: [1]any{id},
			Digits: "9007199254740993", Raw: json.RawMessage("9007199254740993"), Itself: ownTree{json.Number("7")},
		}
	}
	want := tree()
	next := tree()
	want.Next, want.Nodes = &next, map[string]typedTree{"n": tree()}
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
	s.with(func(s *sessplus.Session) {
		s.Set("tree", want)
		s.Set("named", named{"id": id})
		s.Set("maps", []map[string]any{{"id": id}})
	})
	s.with(func(s *sessplus.Session) {
		if got := sessplus.Field[typedTree]("tree").Get(s); !reflect.DeepEqual(got, want) {
			t.Errorf("Field[typedTree].Get = %+v, want %+v", got, want)
		}
		if got := sessplus.Field[*typedTree]("tree").Get(s); !reflect.DeepEqual(got, &want) {
			t.Errorf("Field[*typedTree].Get = %+v, want %+v", got, &want)
		}
		if got := sessplus.Field[named]("named").Get(s); !reflect.DeepEqual(got, named{"id": id}) {
			t.Errorf("Field[named].Get = %T %v, want an int64 with all digits", got["id"], got["id"])
		}
		if _, ok := sessplus.Field[[]map[string]any]("named").Lookup(s); ok {
			t.Error("an object reads as a list")
		}
		list, err := sessplus.Field[[]map[string]any]("maps").Update(s, func(list []map[string]any) []map[string]any {
			return append(list, map[string]any{"id": 2})
		})
		if err != nil || len(list) != 2 {
			t.Errorf("Update = %v, %v", list, err)
		}
		other := typedTree{Other: json.Number("1")}
		if err := s.Decode("tree", &other); err != nil || other.Other != json.Number("1") {
			t.Errorf("Decode = %v, and changes what is not of JSON to %v", err, other.Other)
		}
		for _, dst := range []any{nil, typedTree{}, (*typedTree)(nil), named{}} {
			if s.Decode("tree", dst) == nil {
				t.Errorf("Decode into a %T succeeds", dst)
			}
		}
	})
	if got, want := s.fields()["maps"], []any{map[string]any{"id": id}, map[string]any{"id": int64(2)}}; !reflect.DeepEqual(got, want) {
		t.Errorf("after Update the field is %v, want %v", got, want)
	}
}

// SPEC 2.3
func TestNoChangeIsNotSaved(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		var writes writeCounter
		c := oneCookie(b)
		c.MaxAge = time.Hour
		s := newSite(t, newManager(t, &sessplus.Options{OnEvent: writes.hear}, c,
			sessplus.Config{CookieName: "second", Backend: b, MaxAge: time.Hour, Fields: sessplus.Include("n")}))
		tree := map[string]any{"b": 1, "a": []int{1, 2}, "c": 0.5}
		s.with(func(s *sessplus.Session) {
			s.Set("n", 1)
			s.Set("s", "text")
			s.Set("tree", tree)
			s.Set("null", nil)
		})
		if writes.take() == 0 && b != sessplus.SecureCookie() {
			t.Fatal("the first save was not heard of")
		}
		all := func(s *sessplus.Session) {
			s.Set("n", 1.0)
			s.Set("s", "text")
			s.Set("tree", map[string]any{"c": 0.5, "a": []any{1, 2.0}, "b": int8(1)})
			s.Set("null", nil)
		}
		for name, change := range map[string]func(s *sessplus.Session){
			"the same values": all,
			"there and back": func(s *sessplus.Session) {
				s.Set("n", 2)
				s.Set("n", 1)
				s.Set("s", nil)
				s.Set("s", "text")
			},
			"deleted and set": func(s *sessplus.Session) {
				s.Delete("n")
				s.Delete("null")
				s.Pop("s")
				all(s)
			},
			"cleared and set":    func(s *sessplus.Session) { s.Clear(); all(s) },
			"set and deleted":    func(s *sessplus.Session) { s.Set("new", 1); s.Delete("new"); s.Set("new", 2); s.Pop("new") },
			"nothing to delete":  func(s *sessplus.Session) { s.Delete("new"); s.Pop("new") },
			"read":               func(s *sessplus.Session) { s.Get("n"); s.Fields(); s.Has("s"); s.GetString("s") },
			"saved by the way":   func(s *sessplus.Session) { all(s); s.Save(); all(s); s.Save() },
			"a field, back":      func(s *sessplus.Session) { f := sessplus.Field[int]("n"); f.Set(s, f.Get(s)+1); f.Set(s, 1) },
			"permanent and back": func(s *sessplus.Session) { s.SetPermanent("s", true); s.SetPermanent("s", false) },
		} {
			res := s.with(change)
			if n := writes.take(); n > 0 || len(res.Header["Set-Cookie"]) > 0 || res.StatusCode != http.StatusOK {
				t.Errorf("%s: %d writes, Set-Cookie %q, status %d, want none, none, 200", name, n, res.Header["Set-Cookie"], res.StatusCode)
			}
		}
		res := s.with(func(s *sessplus.Session) { s.Set("s", "other") })
		if len(res.setCookies("s")) != 1 || len(res.setCookies("second")) > 0 {
			t.Errorf("after one change Set-Cookie %q, want one of its cookie", res.Header["Set-Cookie"])
		}
		if n := writes.take(); n > 1 {
			t.Errorf("one change made %d writes", n)
		}
	})
}

type secretError struct{ text string }

func (e secretError) MarshalJSON() ([]byte, error) {
	return nil, errors.New("cannot marshal " + e.text)
}

// SPEC 2.4, 7.3
func TestWhatCannotBeEncodedFailsTheCommit(t *testing.T) {
	t.Parallel()
	cycle := map[string]any{}
	cycle["self"] = cycle
	type loop struct{ Next *loop }
	ring := &loop{}
	ring.Next = ring
	values := map[string]any{
		"channel": make(chan int), "function": func() {}, "complex": 1i, "NaN": math.NaN(), "infinity": math.Inf(-1),
		"map of maps": map[any]any{"a": 1}, "cycle": cycle, "ring": ring, "inner": []any{1, func() {}},
		"marshaler": secretError{"hunter2"}, "year": time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		var failed error
		var writes writeCounter
		m := newManager(t, &sessplus.Options{OnEvent: writes.hear, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			failed = err
			w.WriteHeader(http.StatusInternalServerError)
		}}, sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Exclude("other")}, sessplus.Config{CookieName: "o", Fields: sessplus.Include("other")})
		s := newSite(t, m)
		s.with(func(s *sessplus.Session) { s.Set("f", "before") })
		writes.take()
		for name, value := range values {
			failed = nil
			res := s.with(func(s *sessplus.Session) {
				s.Set("g", 1)
				s.Set("other", 1)
				s.Set("f", value)
				if got := s.Get("f"); got != "before" {
					t.Errorf("%s: Get after the failed Set = %v, want the value before", name, got)
				}
				if s.Err() == nil {
					t.Errorf("%s: Err = nil", name)
				}
				s.Set("f", "fine again") // a program that goes on has not seen the error
			})
			if failed == nil || !strings.Contains(failed.Error(), `"f"`) || strings.Contains(failed.Error(), "hunter2") {
				t.Errorf("%s: the ErrorHandler got %v, want an error that names the field, and not the value", name, failed)
			}
			var e *sessplus.Error
			if !errors.As(failed, &e) || e.Op != "encode" {
				t.Errorf("%s: the error is %#v, want an Error with Op encode", name, failed)
			}
			if n := writes.take(); n > 0 || len(res.Header["Set-Cookie"]) > 0 || res.StatusCode != http.StatusInternalServerError {
				t.Errorf("%s: %d writes, Set-Cookie %q, status %d, want none, none, 500", name, n, res.Header["Set-Cookie"], res.StatusCode)
			}
		}
		if got, want := s.fields(), map[string]any{"f": "before"}; !reflect.DeepEqual(got, want) {
			t.Errorf("afterwards %v is stored, want %v", got, want)
		}
	})
}

var awkwardNames = []string{
	"a", "A", "a.b", "a.b.c", ".", "..", "`x`", "`", "``", "__x__", "__name__", "__", "____", "_", "~", "~~", "~__x__", "~x", "a/b", "/", "//", "*", "**", "é", "e\u0301", "日本", "😀",
	":", "::", ":record", ":expires", ":saved", "::record", "fields", "expires_at", "created_at", "saved_at", "version", "permanent",
	" ", "  ", " a", "a ", "\t", "\n", "a\r\nSet-Cookie: x=y", "\x00", "\x00a", "a\x00", "\x7f", "\\", "\\x", `"`, `'`, "[", "]", "[0]", "a[0]", "{", "%", "%25", "%2F", "#", "$", "=", ";", ",", "|", "&", "<", "?", "!", "@", "-", "0", "-1", "1e3", "true", "null", "\u2028", "\ufffd", "\ufeff", "\U0010ffff",
	strings.Repeat("x", 256), strings.Repeat("é", 128), strings.Repeat("😀", 64), "__" + strings.Repeat("y", 254), strings.Repeat("~", 256), strings.Repeat(":", 256),
}

// SPEC 2.5
func TestEveryNameIsAField(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		c := oneCookie(b)
		if c.MaxChunks > 0 {
			c.MaxChunks = 12
		}
		s := newSite(t, newManager(t, nil, c))
		want := make(map[string]any)
		check := func(when string) {
			t.Helper()
			got := s.fields()
			for name, v := range want {
				if got[name] != v {
					t.Errorf("%s: Get(%q) = %v, want %v", when, name, got[name], v)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %d fields, want %d", when, len(got), len(want))
			}
		}
		do := func(when string, f func(s *sessplus.Session)) {
			t.Helper()
			if res := s.with(f); res.StatusCode != http.StatusOK {
				t.Fatalf("%s: status %d", when, res.StatusCode)
			}
			check(when)
		}
		do("all created", func(s *sessplus.Session) {
			for i, name := range awkwardNames {
				s.Set(name, int64(i))
				want[name] = int64(i)
			}
		})
		do("every second one changed", func(s *sessplus.Session) {
			for i := 0; i < len(awkwardNames); i += 2 {
				s.Set(awkwardNames[i], awkwardNames[i])
				want[awkwardNames[i]] = awkwardNames[i]
			}
		})
		do("every one updated", func(s *sessplus.Session) {
			for _, name := range awkwardNames {
				if _, err := sessplus.Field[any](name).Update(s, func(v any) any { return fmt.Sprint(v) }); err != nil {
					t.Errorf("Update of %q: %v", name, err)
				}
				want[name] = fmt.Sprint(want[name])
			}
		})
		do("renewed", func(s *sessplus.Session) { s.Renew() })
		do("every third one deleted, every fourth one set", func(s *sessplus.Session) {
			for i, name := range awkwardNames {
				if i%3 == 0 {
					s.Delete(name)
					delete(want, name)
				} else if i%4 == 0 {
					s.Set(name, true)
					want[name] = true
				}
			}
		})
		do("one by one", func(s *sessplus.Session) {
			for i, name := range awkwardNames {
				if i%10 == 1 && want[name] != nil {
					s.Pop(name)
					delete(want, name)
					if err := s.Save(); err != nil {
						t.Errorf("Save without %q: %v", name, err)
					}
				}
			}
		})
	})
}

// SPEC 2.5
func TestAwkwardNamesAreRouted(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		names := awkwardNames[:60]
		s := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "inc", Backend: b, Fields: sessplus.Include(names...)}, sessplus.Config{CookieName: "rest", Backend: b, Fields: sessplus.Auto()}))
		s.with(func(s *sessplus.Session) {
			for _, name := range awkwardNames {
				s.Set(name, 1)
			}
		})
		if got := len(s.through(sessplus.Config{CookieName: "inc", Backend: b}).fields()); got != len(names) {
			t.Errorf("%d fields went to their config, want %d", got, len(names))
		}
	})
}

// SPEC 2.5
func TestWhatIsNoNameFailsTheCommit(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		for _, name := range []string{"", strings.Repeat("x", 257), "\xff", "a\xc3", strings.Repeat("é", 129), "\xed\xa0\x80", strings.Repeat("x", 1<<20)} {
			var failed error
			s := newSite(t, newManager(t, &sessplus.Options{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				failed = err
				w.WriteHeader(http.StatusInternalServerError)
			}}, sessplus.Config{CookieName: "s", Backend: b}))
			res := s.with(func(s *sessplus.Session) {
				s.Set("fine", 1)
				s.Set(name, 1)
				if s.Has(name) || s.Err() == nil {
					t.Errorf("Set(%.20q): Has = %v, Err = %v", name, s.Has(name), s.Err())
				}
				s.Delete(name)
			})
			if failed == nil || len(failed.Error()) > 1000 || len(res.Header["Set-Cookie"]) > 0 {
				t.Errorf("after Set(%.20q): error %.80v, Set-Cookie %q, want a short error and none", name, failed, res.Header["Set-Cookie"])
			}
		}
	})
}

// SPEC 2.6
func TestARequestSeesItsOwnChanges(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}, sessplus.Config{CookieName: "all", Fields: sessplus.Exclude("solo")}))
		see := func(s *sessplus.Session, want map[string]any) {
			t.Helper()
			if got := s.Fields(); len(got) != len(want) || !slices.IsSorted(got) {
				t.Errorf("Fields = %q, want those of %v", got, want)
			}
			for _, name := range []string{"a", "b", "c", "solo"} {
				v, ok := want[name]
				var decoded any
				err := s.Decode(name, &decoded)
				typed, found := sessplus.Field[any](name).Lookup(s)
				if s.Get(name) != v || s.Has(name) != ok || found != ok || typed != v || decoded != v || errors.Is(err, sessplus.ErrNoField) == ok {
					t.Errorf("%q: Get = %v, Has = %v, Lookup = %v, %v, Decode = %v, %v, want %v, %v", name, s.Get(name), s.Has(name), typed, found, decoded, err, v, ok)
				}
			}
		}
		type m = map[string]any
		s.with(func(s *sessplus.Session) {
			see(s, m{})
			s.Set("b", "1")
			s.Set("a", "1")
			s.Set("solo", "1")
			see(s, m{"a": "1", "b": "1", "solo": "1"})
		})
		s.with(func(s *sessplus.Session) {
			see(s, m{"a": "1", "b": "1", "solo": "1"})
			s.Set("a", "2")
			s.Set("c", nil)
			see(s, m{"a": "2", "b": "1", "c": nil, "solo": "1"})
			s.Delete("a")
			if got := s.Pop("b"); got != "1" {
				t.Errorf("Pop = %v, want 1", got)
			}
			if got := s.Pop("b"); got != nil {
				t.Errorf("Pop again = %v, want nil", got)
			}
			see(s, m{"c": nil, "solo": "1"})
			s.Set("a", "3")
			see(s, m{"a": "3", "c": nil, "solo": "1"})
			s.Clear()
			see(s, m{})
			s.Set("b", "4")
			see(s, m{"b": "4"})
			if err := s.Save(); err != nil {
				t.Error(err)
			}
			see(s, m{"b": "4"})
			s.Set("solo", "5")
			if err := s.Reload(); err != nil {
				t.Error(err)
			}
			see(s, m{"b": "4", "solo": "5"})
		})
		s.with(func(s *sessplus.Session) {
			see(s, m{"b": "4", "solo": "5"})
			s.Destroy()
			see(s, m{})
			s.Set("a", "6")
			see(s, m{"a": "6"})
		})
		s.with(func(s *sessplus.Session) { see(s, m{"a": "6"}) })
	})
}

// SPEC 7.4: what a cookie or a record holds is data. Nothing registers types, and a deep or long text ends as one
// field.
func TestDecodingIsBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: sessplus.Memory()}))
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	s.with(func(s *sessplus.Session) { s.Set("a", rawJSON(deep)) })
	res := s.answerTo(func(s *sessplus.Session) string { return fmt.Sprint(s.Get("a") == nil) }, "c="+s.jar(s.client)["c"])
	if res.StatusCode != http.StatusOK {
		t.Errorf("status %d, want 200", res.StatusCode)
	}
	for _, file := range libraryFiles(t) {
		// Only Gob may use it, for those who ask for it.
		if strings.Contains(file, `"encoding/gob"`) && !strings.Contains(file, "func Gob() Codec") {
			t.Error("the library imports encoding/gob")
		}
	}
}

// rawJSON is JSON text as it stands.
type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func libraryFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, string(data))
		}
	}
	return files
}
