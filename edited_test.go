package sessplus_test

import (
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A document is one session in Firestore, and the visitor whose it is.
type document struct {
	*crowd
	journal
	ref *firestore.DocumentRef
}

func newDocument(t *testing.T, opts func(*sessplus.Options), f func(*sessplus.Session)) *document {
	t.Helper()
	d := &document{}
	o := d.options(0)
	if opts != nil {
		opts(o)
	}
	client := servers.Firestore(t)
	d.crowd = newCrowd(t, newManager(t, o, sessplus.Config{CookieName: "s", Backend: sessplus.Firestore(client, "sessions")}))
	d.mustAsk(d.client, f)
	docs, err := client.Collection("sessions").Documents(t.Context()).GetAll()
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v, want 1", len(docs), err)
	}
	d.ref = docs[0].Ref
	return d
}

// edit changes a value of the document, as a person does in the console.
func (d *document) edit(value any, path ...string) {
	d.Helper()
	if _, err := d.ref.Update(d.Context(), []firestore.Update{{FieldPath: path, Value: value}}); err != nil {
		d.Fatal(err)
	}
}

// stored is the value of a field in the document.
func (d *document) stored(name string) any {
	d.Helper()
	doc, err := d.ref.Get(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	return doc.Data()["fields"].(map[string]any)[name]
}

// SPEC 6.11: what a person types in the console is read as what it says, and costs nothing else.
func TestFieldEditedInTheConsole(t *testing.T) {
	t.Parallel()
	moment := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for name, tt := range map[string]struct {
		typed, want any
	}{
		"number":         {7, int64(7)},
		"large number":   {int64(math.MaxInt64), int64(math.MaxInt64)},
		"fraction":       {0.5, 0.5},
		"large fraction": {1e300, 1e300},
		"bool":           {true, true},
		"false":          {false, false},
		"null":           {nil, nil},
		"time":           {moment, "2026-01-02T03:04:05.000006Z"},
		"array":          {[]any{"a", 1, nil, true, []byte("b")}, []any{"a", int64(1), nil, true, "Yg=="}},
		"map":            {map[string]any{"b": "x", "a": map[string]any{"at": moment}}, map[string]any{"b": "x", "a": map[string]any{"at": "2026-01-02T03:04:05.000006Z"}}},
		"no array":       {[]any{}, []any{}},
		"word":           {"hello", "hello"},
		"words":          {`he said "no" {really}`, `he said "no" {really}`},
		"number as text": {"42", int64(42)},
		"JSON":           {`{"a": 1}`, map[string]any{"a": int64(1)}},
		"nothing":        {"", ""},
		"bytes":          {[]byte("hello"), "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDocument(t, nil, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("x", "s3cr3t"); s.Set("n", 1) })
			d.edit(tt.typed, "fields", "x")
			read := func(s *sessplus.Session) {
				t.Helper()
				if got, ok := s.Get("x"), s.Has("x"); !reflect.DeepEqual(got, tt.want) || !ok {
					t.Errorf("Get = %#v, Has = %v, want %#v", got, ok, tt.want)
				}
				if got := s.GetString("user"); got != "ann" {
					t.Errorf("user = %q, want ann", got)
				}
			}
			d.mustAsk(d.client, read)
			d.mustAsk(d.client, func(s *sessplus.Session) { read(s); s.Set("n", 2) }) // SPEC 4.1: beside it
			if _, asText := d.stored("x").(string); asText != (reflect.TypeOf(tt.typed) == reflect.TypeFor[string]()) {
				t.Errorf("a save of another field has made %T of it", d.stored("x"))
			}
			d.mustAsk(d.client, func(s *sessplus.Session) { // SPEC 4.5: on what is stored
				read(s)
				got, err := sessplus.Field[any]("x").Update(s, func(v any) any { return []any{v} })
				if want := []any{tt.want}; err != nil || !reflect.DeepEqual(got, any(want)) {
					t.Errorf("Update = %#v, %v, want %#v", got, err, want)
				}
			})
			d.mustAsk(d.client, func(s *sessplus.Session) {
				if got := s.Get("x"); !reflect.DeepEqual(got, []any{tt.want}) {
					t.Errorf("Get after Update = %#v", got)
				}
			})
			d.edit(tt.typed, "fields", "x")
			d.mustAsk(d.client, func(s *sessplus.Session) { read(s); s.Renew() })
			d.mustAsk(d.client, func(s *sessplus.Session) { read(s); s.Set("x", "new") })
			d.mustAsk(d.client, func(s *sessplus.Session) {
				if got := s.GetString("x"); got != "new" {
					t.Errorf("x = %q, want new", got)
				}
				s.Delete("x")
			})
			d.mustAsk(d.client, func(s *sessplus.Session) {
				if got := s.Fields(); !slices.Equal(got, []string{"n", "user"}) {
					t.Errorf("Fields = %q, want n and user", got)
				}
			})
			if text := d.text(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
				t.Errorf("the log has %s, want no warning", text)
			}
		})
	}
}

// SPEC 6.11, 4.5: the compared value is the one in the document, also when it changes again meanwhile.
func TestUpdateOfAnEditedField(t *testing.T) {
	t.Parallel()
	d := newDocument(t, nil, func(s *sessplus.Session) { s.Set("n", 1) })
	d.edit(41, "fields", "n")
	d.mustAsk(d.client, func(s *sessplus.Session) {
		tries := 0
		got, err := sessplus.Field[int]("n").Update(s, func(n int) int {
			if tries++; tries == 1 {
				d.edit("7", "fields", "n")
			}
			return n + 1
		})
		if got != 8 || err != nil || tries != 2 {
			t.Errorf("Update = %d, %v after %d tries, want 8 after 2", got, err, tries)
		}
	})
	if got := d.stored("n"); got != "8" {
		t.Errorf("the document has %v, want 8", got)
	}
}

// SPEC 6.11, 2.4: what cannot be read costs that field, which the log names, and can be set again.
func TestFieldEditedBeyondReading(t *testing.T) {
	t.Parallel()
	this := (*firestore.DocumentRef)(nil) // stands for the document's own
	for name, typed := range map[string]any{
		"reference":      this,
		"list of them":   []any{1, this},
		"map of them":    map[string]any{"at": this},
		"no number":      math.NaN(),
		"infinite":       []any{math.Inf(1)},
		"half an object": `{"s3cr3t": `,
		"half a list":    ` [1, 2`,
		"half a text":    `"s3cr3t`,
		"two texts":      `"a" "b"`,
		"noise":          []byte{0xff, 0xfe},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDocument(t, nil, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("x", "s3cr3t") })
			switch v := typed.(type) {
			case *firestore.DocumentRef:
				typed = d.ref
			case []any:
				if v[len(v)-1] == this {
					typed = []any{1, d.ref}
				}
			case map[string]any:
				typed = map[string]any{"at": d.ref}
			}
			d.edit(typed, "fields", "x")
			edited := d.stored("x")
			d.mustAsk(d.client, func(s *sessplus.Session) {
				if got := s.GetString("user"); got != "ann" {
					t.Errorf("user = %q, want ann", got)
				}
				if got := s.Get("x"); got != nil {
					t.Errorf("x = %v, want it absent", got)
				}
				if v, err := sessplus.Field[any]("x").Update(s, func(any) any { return "zero" }); err == nil || v != nil {
					t.Errorf("Update = %v, %v, want an error", v, err)
				}
				s.Set("other", 1)
			})
			if text := d.text(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "field=x") {
				t.Errorf("the log does not name the field: %s", text)
			}
			if got := d.stored("x"); reflect.TypeOf(got) != reflect.TypeOf(edited) {
				t.Errorf("a save of another field has made %T of it", got)
			}
			d.mustAsk(d.client, func(s *sessplus.Session) { s.Renew() })
			d.mustAsk(d.client, func(s *sessplus.Session) {
				if got := s.Get("x"); got != nil || s.GetInt("other") != 1 {
					t.Errorf("x = %v, other = %d, want it absent and 1", got, s.GetInt("other"))
				}
				s.Set("x", "new")
			})
			d.mustAsk(d.client, func(s *sessplus.Session) {
				if got := s.GetString("x"); got != "new" {
					t.Errorf("x = %q, want new", got)
				}
			})
			d.keepsSecret(t, nil, "s3cr3t")
		})
	}
}

// SPEC 6.11: what the session cannot do without costs it, and the log says which part that was.
func TestDocumentEditedBeyondReading(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"saved_at", "created_at", "expires_at", "fields", "permanent"} {
		for name, value := range map[string]any{"text": "s3cr3t", "number": 7, "null": nil, "nothing": firestore.Delete} {
			if part == "permanent" && value == firestore.Delete {
				continue // as in every session that is not
			}
			t.Run(part+" as "+name, func(t *testing.T) {
				d := newDocument(t, nil, func(s *sessplus.Session) { s.Set("user", "ann") })
				d.edit(value, part)
				d.mustAsk(d.client, func(s *sessplus.Session) {
					if got := s.Fields(); len(got) > 0 {
						t.Errorf("Fields = %q, want no session", got)
					}
				})
				text := d.text()
				if !strings.Contains(text, "no such record: "+part+" missing") {
					t.Errorf("the log should name %s and no other: %s", part, text)
				}
				d.keepsSecret(t, nil, "s3cr3t")
			})
		}
	}
	d := newDocument(t, nil, func(s *sessplus.Session) { s.Set("user", "ann") })
	d.edit(1, "saved_at")
	d.edit(1, "expires_at")
	d.mustAsk(d.client, func(s *sessplus.Session) { s.Get("user") })
	if text := d.text(); !strings.Contains(text, "saved_at, expires_at missing") {
		t.Errorf("the log does not name both: %s", text)
	}
}

// SPEC 6.11: so it is with Redis, where all is text.
func TestFieldEditedInRedis(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]any{
		"hello":           "hello",
		" two  words ":    " two  words ",
		"7":               int64(7),
		"7\n":             int64(7), // as redis-cli -x takes it from a shell
		"7 apples":        "7 apples",
		"-":               "-",
		"True":            "True",
		"true":            true,
		"null":            nil,
		"NaN":             "NaN",
		"0123":            "0123",
		"2026-01-02":      "2026-01-02",
		"it's \"quoted\"": "it's \"quoted\"",
		"é\x00\t":         "é\x00\t",
		"":                "",
	} {
		r := servers.Redis(t)
		var j journal
		b := &recorder{Backend: sessplus.Redis(r)}
		c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("x", "old"); s.Set("user", "ann") })
		r.HSet(t.Context(), b.keys[0], "x", typed)
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := s.Get("x"); !reflect.DeepEqual(got, want) || !s.Has("x") || s.GetString("user") != "ann" {
				t.Errorf("%q reads as %#v, want %#v", typed, got, want)
			}
			if text, ok := want.(string); ok {
				if got, ok := sessplus.Field[string]("x").Lookup(s); got != text || !ok || s.GetString("x") != text {
					t.Errorf("%q reads as %q, %v through a Field", typed, got, ok)
				}
				if _, ok := sessplus.Field[int]("x").Lookup(s); ok { // SPEC 2.4
					t.Errorf("%q reads as an int", typed)
				}
				var into visible
				if err := s.Decode("x", &into); err == nil {
					t.Errorf("%q decodes into a struct", typed)
				}
			}
			if got, err := sessplus.Field[any]("x").Update(s, func(v any) any { return []any{v} }); err != nil || !reflect.DeepEqual(got, any([]any{want})) {
				t.Errorf("Update of %q = %#v, %v", typed, got, err)
			}
		})
		if got, _ := r.HGet(t.Context(), b.keys[0], "x").Result(); !json.Valid([]byte(got)) {
			t.Errorf("after Update of %q the record has %q", typed, got)
		}
	}
}

// wrappedJSON is a codec of JSON that a program brings.
type wrappedJSON struct{}

func (wrappedJSON) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (wrappedJSON) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// SPEC 6.11: another codec gets JSON for what is no text, and what it does not take costs that field.
func TestEditedFieldsWithAnotherCodec(t *testing.T) {
	t.Parallel()
	d := newDocument(t, func(o *sessplus.Options) { o.Codec = wrappedJSON{} }, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("n", 1); s.Set("x", "a") })
	d.edit(7, "fields", "n")
	d.edit("hello", "fields", "x")
	d.mustAsk(d.client, func(s *sessplus.Session) {
		if s.GetInt("n") != 7 || s.Get("x") != nil || s.GetString("user") != "ann" {
			t.Errorf("n = %v, x = %v, user = %v, want 7, nothing and ann", s.Get("n"), s.Get("x"), s.Get("user"))
		}
	})
	if text := d.text(); !strings.Contains(text, "field=x") || strings.Contains(text, "field=n") {
		t.Errorf("the log should name x and no other: %s", text)
	}
}

// SPEC 2.2, 2.4: a number that no type of 64 bits holds keeps its digits, whoever has written them.
func TestNumbersBeyond64Bits(t *testing.T) {
	t.Parallel()
	const digits = "12345678901234567890123456789"
	large, _ := new(big.Int).SetString(digits, 10)
	number := func(s string) json.Number { return json.Number(s) }
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		for i, tt := range []struct{ set, want any }{
			{large, number(digits)},
			{number(digits), number(digits)},
			{json.RawMessage(digits), number(digits)},
			{number("-" + digits), number("-" + digits)},
			{number("1e400"), number("1e400")},
			{json.RawMessage("-1e400"), number("-1e400")},
			{json.RawMessage(" 1e-400 "), number("1e-400")},
			{number("18446744073709551616"), number("18446744073709551616")},
			{number("18446744073709551615"), uint64(math.MaxUint64)},
			{[]any{number("1e400"), 1}, []any{number("1e400"), int64(1)}},
			{map[string]json.Number{"a": "1e400"}, map[string]any{"a": number("1e400")}},
			{struct{ A json.RawMessage }{json.RawMessage("[1e400]")}, map[string]any{"A": []any{number("1e400")}}},
			{number("0.10"), 0.1},
			{1e20, 1e20},
			{123456789012345680000.0, 123456789012345680000.0},
			{-math.MaxFloat64, -math.MaxFloat64},
			{math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64},
		} {
			s := newSite(t, newManager(t, nil, oneCookie(b)))
			check := func(s *sessplus.Session) {
				t.Helper()
				if got := s.Get("f"); !reflect.DeepEqual(got, tt.want) {
					t.Errorf("%d: Get after Set(%T) = %T %v, want %T %v", i, tt.set, got, got, tt.want, tt.want)
				}
				if _, kept := tt.want.(json.Number); kept && (s.GetFloat64("f") != 0 || s.GetInt64("f") != 0 || s.GetString("f") != "") {
					t.Errorf("%d: a getter gives %v, %v, %q of what it cannot hold", i, s.GetFloat64("f"), s.GetInt64("f"), s.GetString("f"))
				}
				if err := s.Err(); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
			s.with(func(s *sessplus.Session) { s.Set("f", tt.set); check(s) })
			s.with(func(s *sessplus.Session) { check(s); s.Set("f", s.Get("f")) })
			s.with(check)
		}
		s := newSite(t, newManager(t, nil, oneCookie(b)))
		s.with(func(s *sessplus.Session) {
			s.Set("f", number("0e999"))
			if got := s.Get("f"); got != 0.0 {
				t.Errorf("0e999 reads as %T %v, want 0", got, got)
			}
			s.Set("f", large)
		})
		s.with(func(s *sessplus.Session) {
			if got := sessplus.Field[*big.Int]("f").Get(s); got == nil || got.Cmp(large) != 0 {
				t.Errorf("Field[*big.Int].Get = %v, want all digits", got)
			}
			if got := sessplus.Field[json.Number]("f").Get(s); got != digits {
				t.Errorf("Field[json.Number].Get = %v, want all digits", got)
			}
			if got, ok := sessplus.Field[uint64]("f").Lookup(s); ok {
				t.Errorf("Field[uint64].Lookup = %v, want nothing", got)
			}
		})
	})
}

// SPEC 2.1: a field that was set to nil is there, and reads as the zero value of whatever is asked for.
func TestNilIsAValue(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		s := newSite(t, newManager(t, j.options(0), oneCookie(b)))
		check := func(s *sessplus.Session) {
			if !s.Has("f") || !slices.Equal(s.Fields(), []string{"f"}) || s.Get("f") != nil {
				t.Errorf("Has = %v, Fields = %q, Get = %v, want it there, and nil", s.Has("f"), s.Fields(), s.Get("f"))
			}
			if v, ok := s.Values()["f"]; v != nil || !ok {
				t.Errorf("Values has %v, %v, want nil", v, ok)
			}
			if s.GetString("f") != "" || s.GetInt("f") != 0 || s.GetBytes("f") != nil || !s.GetTime("f").IsZero() || s.GetBool("f") {
				t.Error("a getter gives another value than zero")
			}
			if v, ok := sessplus.Field[int]("f").Lookup(s); v != 0 || !ok {
				t.Errorf("Lookup of an int = %v, %v, want 0, true", v, ok)
			}
			if v, ok := sessplus.Field[*visible]("f").Lookup(s); v != nil || !ok {
				t.Errorf("Lookup of a pointer = %v, %v, want nil, true", v, ok)
			}
			n := 1
			if err := s.Decode("f", &n); err != nil || n != 1 { // as encoding/json has it
				t.Errorf("Decode = %v, and n = %d, want no error and n as it was", err, n)
			}
		}
		s.with(func(s *sessplus.Session) { s.Set("f", nil); check(s) })
		s.with(check)
		if text := j.text(); strings.Contains(text, "absent") {
			t.Errorf("the log has %s", text)
		}
	})
}
