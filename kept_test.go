package sessplus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

type (
	hidden    struct{ a, b int }
	visible   struct{ A string }
	texter    struct{ s string }
	embedding struct {
		sync.Mutex
		visible
		N int
	}
	inherits  struct{ hidden }
	twin      struct{ s string }
	ambiguous struct { // which has no method of either
		texter
		twin
		N visible
	}
	withHidden  struct{ Point hidden }
	withPointer struct{ Point *hidden }
	jsonError   struct{ text string }
	named       string
)

func (t texter) MarshalText() ([]byte, error)     { return []byte(t.s), nil }
func (t twin) MarshalText() ([]byte, error)       { return []byte(t.s), nil }
func (e jsonError) Error() string                 { return e.text }
func (e jsonError) MarshalJSON() ([]byte, error)  { return json.Marshal(e.text) }
func (e *jsonError) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &e.text) }

// SPEC 2.4: what the codec would not keep as it is, is an error that names the field and says what to do.
func TestValueThatWouldNotBeKept(t *testing.T) {
	t.Parallel()
	const bad = "caf\xe9"
	const text, none, fault, depth = "use []byte", "no exported field", "its text", "nested so deeply"
	deep := any(1)
	for range 10001 { // encoding/json decodes 10000 levels
		deep = []any{deep}
	}
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, backend := range []sessplus.Backend{b, nil} {
			s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: backend}))
			s.with(func(s *sessplus.Session) { s.Set("kept", 1); s.Set("x", "old") })
			for _, tt := range []struct {
				value any
				says  string
			}{
				{bad, text},
				{named(bad), text},
				{"plain and " + strings.Repeat("long", 1000) + "\xff", text},
				{map[string]any{"a": bad}, text},
				{map[string]string{bad: "a"}, text},
				{map[named]int{bad: 1}, text},
				{[]string{"a", bad}, text},
				{[]any{1, map[string]any{"b": []any{bad}}}, text},
				{[2]string{"a", bad}, text},
				{visible{bad}, text},
				{&visible{bad}, text},
				{embedding{visible: visible{bad}}, text},
				{texter{bad}, text},
				{map[texter]int{{bad}: 1}, text},
				{json.RawMessage(`"` + bad + `"`), text},
				{"\ufffd and " + bad, text},
				{hidden{1, 2}, none},
				{hidden{}, none},
				{&hidden{1, 2}, none},
				{[]hidden{{1, 2}}, none},
				{map[string]hidden{"a": {1, 2}}, none},
				{map[string]any{"a": &hidden{1, 2}}, none},
				{withHidden{hidden{1, 2}}, none},
				{inherits{hidden{1, 2}}, none},
				{[]any{ambiguous{texter{"a"}, twin{"b"}, visible{bad}}, hidden{}}, text},
				{withPointer{&hidden{1, 2}}, none},
				{*big.NewInt(7), none}, // its Marshaler is that of the pointer
				{errors.New("s3cr3t"), fault},
				{fmt.Errorf("a: %w", os.ErrNotExist), fault},
				{&os.PathError{Op: "open", Path: "s3cr3t", Err: os.ErrNotExist}, fault},
				{map[string]any{"err": errors.New("s3cr3t")}, fault},
				{[]error{errors.New("s3cr3t")}, fault},
				{deep, depth},
			} {
				var err error
				r := s.with(func(s *sessplus.Session) {
					s.Set("kept", 2)
					s.Set("x", tt.value)
					err = s.Err()
				})
				if err == nil || !strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("Set(%T %.20q): %v, want an error that names the field and has %q", tt.value, fmt.Sprint(tt.value), err, tt.says)
					continue
				}
				if strings.Contains(err.Error(), "caf") || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("Set(%T): the error quotes the value: %v", tt.value, err)
				}
				if r.StatusCode != http.StatusInternalServerError || len(r.setCookies("c")) > 0 {
					t.Errorf("Set(%T): status %d, want 500, and no cookie", tt.value, r.StatusCode)
				}
				s.with(func(s *sessplus.Session) {
					if s.GetInt("kept") != 1 || s.GetString("x") != "old" {
						t.Errorf("Set(%T): something was saved", tt.value)
					}
					if _, err := sessplus.Field[any]("x").Update(s, func(any) any { return tt.value }); err == nil {
						t.Errorf("Update to %T: no error", tt.value)
					}
				})
			}
		}
	})
}

// SPEC 2.4: and what it does keep is none.
func TestValueThatIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c"}))
	for want, value := range map[string]any{
		`"\ufffd"`:                            `\ufffd`,
		"\"\ufffd\"":                          "\ufffd",
		`"café <b> \"q\""`:                    `café <b> "q"`,
		`{}`:                                  struct{}{},
		`{"a":{}}`:                            map[string]struct{}{"a": {}},
		`{"":{}}`:                             map[string]map[string]int{"": {}},
		`"{}"`:                                "{}",
		`{"A":"x","N":1}`:                     &embedding{visible: visible{"x"}, N: 1},
		`{"Point":{}}`:                        withHidden{},
		`{"Point":null}`:                      withPointer{},
		`7`:                                   big.NewInt(7),
		`"é"`:                                 texter{"é"},
		`"gone"`:                              jsonError{"gone"},
		`"//8="`:                              []byte{0xff, 0xff},
		`["//8="]`:                            [][]byte{{0xff, 0xff}},
		`"2026-01-02T03:04:05Z"`:              time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		`{"a":"\ufffd"}`:                      json.RawMessage(`{"a":"\ufffd"}`),
		`{"a":[{},{"b":"\\ufffd"}],"b":null}`: map[string]any{"a": []any{struct{}{}, map[string]string{"b": `\ufffd`}}, "b": nil},
	} {
		r := s.with(func(s *sessplus.Session) {
			s.Set("x", value)
			if err := s.Err(); err != nil {
				t.Errorf("Set(%#v): %v", value, err)
			}
		})
		if r.StatusCode != http.StatusOK {
			t.Errorf("Set(%#v): status %d", value, r.StatusCode)
		}
		s.with(func(s *sessplus.Session) {
			var got, tree any
			if err := s.Decode("x", &got); err != nil {
				t.Errorf("Decode of %s: %v", want, err)
			}
			if strings.Contains(want, `\\ufffd`) || want == `"\ufffd"` {
				return // what it decodes to is another matter
			}
			if err := json.Unmarshal([]byte(want), &tree); err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			if a, b := fmt.Sprint(got), fmt.Sprint(tree); a != b {
				t.Errorf("%s was kept as %s", b, a)
			}
		})
	}
}

// SPEC 2.4: a stored value of another type reads as absent, whoever asks, and the log names the field. Update does not
// begin from nothing in its place.
func TestValueOfAnotherType(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, backend := range []sessplus.Backend{b, nil} {
			var j journal
			s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "c", Backend: backend}))
			s.with(func(s *sessplus.Session) {
				s.Set("text", "s3cr3t")
				s.Set("map", map[string]any{"A": 1})
				s.Set("half", 1.5)
				s.Set("null", nil)
			})
			lines := 0
			logged := func(what string, want bool) {
				t.Helper()
				n := strings.Count(j.text(), "reads as absent")
				if (n > lines) != want {
					t.Errorf("%s: %d lines in the log, want some: %v", what, n-lines, want)
				}
				lines = n
			}
			number, shape := sessplus.Field[int]("text"), sessplus.Field[visible]("map")
			for what, read := range map[string]func(s *sessplus.Session) bool{
				"GetInt":        func(s *sessplus.Session) bool { return s.GetInt("text") == 0 },
				"GetInt64":      func(s *sessplus.Session) bool { return s.GetInt64("half") == 0 },
				"GetFloat64":    func(s *sessplus.Session) bool { return s.GetFloat64("text") == 0 },
				"GetBool":       func(s *sessplus.Session) bool { return !s.GetBool("text") },
				"GetString":     func(s *sessplus.Session) bool { return s.GetString("map") == "" },
				"GetBytes":      func(s *sessplus.Session) bool { return s.GetBytes("map") == nil },
				"GetTime":       func(s *sessplus.Session) bool { return s.GetTime("text").IsZero() },
				"Field.Get":     func(s *sessplus.Session) bool { return number.Get(s) == 0 },
				"Field.Lookup":  func(s *sessplus.Session) bool { v, ok := number.Lookup(s); return v == 0 && !ok },
				"of a struct":   func(s *sessplus.Session) bool { v, ok := shape.Lookup(s); return v == visible{} && !ok },
				"of a fraction": func(s *sessplus.Session) bool { v, ok := sessplus.Field[int]("half").Lookup(s); return v == 0 && !ok },
			} {
				s.with(func(s *sessplus.Session) {
					if !read(s) {
						t.Errorf("%s: does not read as absent", what)
					}
				})
				logged(what, true)
			}
			s.with(func(s *sessplus.Session) {
				s.Get("text")
				s.GetInt("absent")
				number.Get(s)
				s.GetString("null")
				s.GetTime("absent")
			})
			lines = strings.Count(j.text(), "reads as absent") // of number
			s.with(func(s *sessplus.Session) {
				s.GetString("text")
				s.GetInt("absent")
				s.GetString("null")
				s.GetFloat64("half")
			})
			logged("what is there, or absent", false)
			s.with(func(s *sessplus.Session) {
				v, err := number.Update(s, func(v int) int { t.Error("Update: the function is called"); return v + 1 })
				var typed *sessplus.Error
				if v != 0 || !errors.As(err, &typed) || typed.Op != "decode" || !strings.Contains(err.Error(), `"text"`) || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("Update() = %v, %v, want an error that names the field", v, err)
				}
				if err := s.Decode("text", new(int)); err == nil {
					t.Error("Decode(): no error")
				}
			})
			s.with(func(s *sessplus.Session) {
				if got := s.GetString("text"); got != "s3cr3t" {
					t.Errorf("after Update the value is %q", got)
				}
				if v, err := sessplus.Field[int]("new").Update(s, func(v int) int { return v + 1 }); v != 1 || err != nil {
					t.Errorf("Update of an absent field = %v, %v, want 1", v, err)
				}
			})
			s.with(func(s *sessplus.Session) {
				lines = strings.Count(j.text(), "reads as absent")
				if v := number.Pop(s); v != 0 {
					t.Errorf("Pop() = %d, want 0", v)
				}
				logged("Field.Pop", true)
			})
			j.keepsSecret(t, nil, "s3cr3t")
		}
	})
}
