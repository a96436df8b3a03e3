package sessplus_test

import (
	"errors"
	"math"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

type profile struct {
	Name  string            `json:"name"`
	Tags  []string          `json:"tags,omitempty"`
	Since time.Time         `json:"since"`
	Extra map[string]uint64 `json:"extra,omitempty"`
}

// fieldRoundTrip sets a value, and gets it in the same request and in the next one.
func fieldRoundTrip[T any](v T) func(t *testing.T, b sessplus.Backend) {
	return func(t *testing.T, b sessplus.Backend) {
		const f sessplus.Field[T] = "f"
		var zero T
		s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		check := func(s *sessplus.Session, want T, present bool) {
			t.Helper()
			if got := f.Get(s); !reflect.DeepEqual(got, want) {
				t.Errorf("Get = %#v, want %#v", got, want)
			}
			if got, ok := f.Lookup(s); !reflect.DeepEqual(got, want) || ok != present {
				t.Errorf("Lookup = %#v, %v, want %#v, %v", got, ok, want, present)
			}
		}
		s.with(func(s *sessplus.Session) {
			check(s, zero, false)
			f.Set(s, v)
			check(s, v, true)
		})
		s.with(func(s *sessplus.Session) {
			check(s, v, true)
			if got := f.Pop(s); !reflect.DeepEqual(got, v) {
				t.Errorf("Pop = %#v, want %#v", got, v)
			}
			check(s, zero, false)
			if got := f.Pop(s); !reflect.DeepEqual(got, zero) {
				t.Errorf("Pop of an absent field = %#v, want zero", got)
			}
			f.Set(s, v)
		})
		s.with(func(s *sessplus.Session) {
			f.Delete(s)
			check(s, zero, false)
			if s.Has("f") {
				t.Error("Has after Delete = true")
			}
			f.Delete(s)
		})
		s.with(func(s *sessplus.Session) { check(s, zero, false) })
	}
}

// SPEC 2.1, 2.2, 2.6
func TestFieldKeepsItsType(t *testing.T) {
	t.Parallel()
	n := 5
	tests := map[string]func(t *testing.T, b sessplus.Backend){
		"int64":       fieldRoundTrip(int64(math.MaxInt64)),
		"uint64":      fieldRoundTrip(uint64(math.MaxUint64)),
		"int8":        fieldRoundTrip(int8(-128)),
		"float64":     fieldRoundTrip(math.MaxFloat64),
		"float32":     fieldRoundTrip(float32(0.1)),
		"whole float": fieldRoundTrip(3.0),
		"string":      fieldRoundTrip("<é>\x00"),
		"bool":        fieldRoundTrip(true),
		"bytes":       fieldRoundTrip([]byte{0, 255, '"'}),
		"time":        fieldRoundTrip(time.Date(2024, 2, 29, 1, 2, 3, 4, time.UTC)),
		"duration":    fieldRoundTrip(time.Hour + 1),
		"slice":       fieldRoundTrip([]string{"a", "", "c"}),
		"map":         fieldRoundTrip(map[string]uint64{"a": math.MaxUint64}),
		"array":       fieldRoundTrip([2]int{1, 2}),
		"pointer":     fieldRoundTrip(&n),
		"any":         fieldRoundTrip[any](int64(1<<53 + 1)),
		"empty slice": fieldRoundTrip([]string{}),
		"struct":      fieldRoundTrip(profile{"Ann", []string{"x"}, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), map[string]uint64{"id": math.MaxUint64}}),
	}
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { test(t, b) })
		}
	})
}

func TestFieldOfAnotherTypeReadsAsAbsent(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil))
	s.with(func(s *sessplus.Session) {
		s.Set("text", "text")
		s.Set("float", 1.5)
		s.Set("big", 300)
		s.Set("list", []any{1, "two"})
		s.Set("null", nil)
	})
	s.with(func(s *sessplus.Session) {
		if v, ok := sessplus.Field[int]("text").Lookup(s); ok || v != 0 {
			t.Errorf("Lookup of text as int = %v, %v", v, ok)
		}
		if v, ok := sessplus.Field[int]("float").Lookup(s); ok || v != 0 {
			t.Errorf("Lookup of 1.5 as int = %v, %v", v, ok)
		}
		if v, ok := sessplus.Field[int8]("big").Lookup(s); ok || v != 0 {
			t.Errorf("Lookup of 300 as int8 = %v, %v", v, ok)
		}
		if v, ok := sessplus.Field[[]int]("list").Lookup(s); ok || v != nil {
			t.Errorf("Lookup of a mixed list as []int = %v, %v, want nothing of it", v, ok)
		}
		if v := sessplus.Field[profile]("list").Pop(s); !reflect.DeepEqual(v, profile{}) || s.Has("list") {
			t.Errorf("Pop of a list as struct = %v, Has = %v, want zero, and the field gone", v, s.Has("list"))
		}
		if s.Err() != nil {
			t.Errorf("Err = %v, want none: a read is no mistake", s.Err())
		}
	})
}

// SPEC 2.1
func TestFieldValuesAreCopies(t *testing.T) {
	t.Parallel()
	const f sessplus.Field[map[string][]int] = "f"
	s := newSite(t, newManager(t, nil))
	s.with(func(s *sessplus.Session) {
		v := map[string][]int{"a": {1}}
		f.Set(s, v)
		v["a"][0] = 2
		f.Get(s)["a"][0] = 3
		if got := f.Get(s)["a"][0]; got != 1 {
			t.Errorf("Get = %v, want 1", got)
		}
		f.Update(s, func(v map[string][]int) map[string][]int {
			v["a"][0] = 4
			return map[string][]int{"a": {5}}
		})
		if got := f.Get(s)["a"][0]; got != 5 {
			t.Errorf("Get after Update = %v, want 5", got)
		}
	})
}

// SPEC 4.5: the plain part; the concurrent one has tests of its own.
func TestFieldUpdate(t *testing.T) {
	t.Parallel()
	const visits sessplus.Field[int] = "visits"
	add := func(n int) int { return n + 1 }
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		var writes writeCounter
		s := newSite(t, newManager(t, &sessplus.Options{OnEvent: writes.hear},
			sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Exclude("foreign", "other")}, sessplus.Config{CookieName: "o", Fields: sessplus.Include("other")}))
		for want := 1; want <= 3; want++ {
			s.with(func(s *sessplus.Session) {
				if got, err := visits.Update(s, add); got != want || err != nil {
					t.Errorf("Update = %v, %v, want %v", got, err, want)
				}
				if got := visits.Get(s); got != want {
					t.Errorf("Get after Update = %v, want %v", got, want)
				}
			})
		}
		s.with(func(s *sessplus.Session) {
			s.Set("visits", "text")
			s.Save()
			if got, err := visits.Update(s, add); got != 0 || err == nil {
				t.Errorf("Update of a value of another type = %v, %v, want 0 and an error", got, err)
			}
			s.Set("visits", 1)
			s.Save()
		})
		writes.take()
		s.with(func(s *sessplus.Session) {
			got, err := sessplus.Field[int]("foreign").Update(s, add)
			if !errors.Is(err, sessplus.ErrNoOwner) || got != 0 {
				t.Errorf("Update of a field without owner = %v, %v, want 0, ErrNoOwner", got, err)
			}
			if f, err := sessplus.Field[float64]("visits").Update(s, func(float64) float64 { return math.NaN() }); err == nil || f != 0 {
				t.Errorf("Update to what cannot be encoded = %v, %v, want 0 and an error", f, err)
			}
			if got := visits.Get(s); got != 1 {
				t.Errorf("Get after failed Updates = %v, want 1", got)
			}
			if s.Err() != nil {
				t.Errorf("Err = %v; Update has returned its errors", s.Err())
			}
		})
		if n := writes.take(); n > 0 {
			t.Errorf("failed Updates made %d writes", n)
		}
		res := s.with(func(s *sessplus.Session) {
			sessplus.Field[string]("other").Set(s, "x")
			if got, err := sessplus.Field[string]("other").Update(s, func(v string) string { return v + "y" }); got != "xy" || err != nil {
				t.Errorf("Update of this request's copy = %q, %v, want xy", got, err)
			}
		})
		if res.StatusCode != http.StatusOK || len(res.setCookies("o")) != 1 {
			t.Errorf("status %d, Set-Cookie %q, want 200 and one", res.StatusCode, res.Header["Set-Cookie"])
		}
	})
}
