package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

// lines returns the lines of the log that hold the text.
func (j *journal) lines(text string) (list []string) {
	for line := range strings.Lines(j.text()) {
		if strings.Contains(line, text) {
			list = append(list, line)
		}
	}
	return list
}

// SPEC 1.1, 1.4: several configs that own every field are allowed, and named in the log once.
func TestSeveralOwnersOfEveryFieldAreNamedInTheLog(t *testing.T) {
	t.Parallel()
	all := func(name string) sessplus.Config { return sessplus.Config{CookieName: name} }
	named := sessplus.Config{CookieName: "named", Fields: sessplus.Include("x")}
	for _, tt := range []struct {
		name    string
		configs []sessplus.Config
		want    []string
	}{
		{"none", nil, nil},
		{"one", []sessplus.Config{all("first"), named}, nil},
		{"two", []sessplus.Config{all("first"), named, all("second")}, []string{"first", "second"}},
		{"three", []sessplus.Config{all("first"), all("second"), all("third")}, []string{"first", "second", "third"}},
		{"one that says so", []sessplus.Config{all("first"), {CookieName: "second", Fields: sessplus.Exclude()}}, nil},
		{"one for the rest", []sessplus.Config{all("first"), {CookieName: "second", Fields: sessplus.Auto()}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var j journal
			s := newSite(t, newManager(t, j.options(0), tt.configs...))
			got := j.lines("own every field")
			if len(got) != min(1, len(tt.want)) {
				t.Fatalf("New has logged %q, want one line for %q", got, tt.want)
			}
			for _, name := range tt.want {
				if !strings.Contains(got[0], name) || !strings.Contains(got[0], "level=WARN") || strings.Contains(got[0], "named") {
					t.Errorf("New has logged %q, want a warning for %q and no others", got[0], tt.want)
				}
			}
			for range 3 {
				s.with(func(s *sessplus.Session) { s.Set("x", s.GetInt("x")+1) })
			}
			if again := j.lines("own every field"); len(again) != len(got) {
				t.Errorf("with requests there are %d lines, want %d", len(again), len(got))
			}
		})
	}
}

// SPEC 1.2: the error says what there is to choose from.
func TestTheErrorForAFieldWithoutOwnerNamesTheCookies(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Fields: sessplus.Include("user_id"), Backend: b},
			sessplus.Config{CookieName: "prefs", Fields: sessplus.Exclude("theme")},
			sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("csrf_token")}))
		check := func(err error) {
			t.Helper()
			if !errors.Is(err, sessplus.ErrNoOwner) {
				t.Fatalf("the error is %v, want ErrNoOwner", err)
			}
			for _, part := range []string{`"theme"`, "login, prefs, csrf", "Auto()"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error %q does not say %s", err, part)
				}
			}
		}
		s.with(func(s *sessplus.Session) {
			s.Set("theme", "dark")
			check(s.Err())
			check(s.Save())
		})
		s.with(func(s *sessplus.Session) {
			_, err := sessplus.Field[string]("theme").Update(s, func(string) string { return "dark" })
			check(err)
		})
		s.with(func(s *sessplus.Session) {
			s.Set("user_id", 1)
			if err := s.Err(); err != nil {
				t.Errorf("a field with an owner: %v", err)
			}
		})
	})
}

// SPEC 1.1
func TestFieldsGoToTheirOwners(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		configs := []sessplus.Config{
			{CookieName: "inc", Fields: sessplus.Include("a")},
			{CookieName: "exc", Fields: sessplus.Exclude("a", "b"), Backend: b},
			{CookieName: "auto", Fields: sessplus.Auto()},
			{CookieName: "all", Backend: b},
			{CookieName: "auto2", Fields: sessplus.Auto(), Backend: b},
		}
		s := newSite(t, newManager(t, nil, configs...))
		stored := func(want map[string]string) {
			t.Helper()
			for _, c := range configs {
				c.Fields = sessplus.Fields{}
				got := ""
				for name := range s.through(c).fields() {
					got += name
				}
				if got = sorted(got); got != want[c.CookieName] {
					t.Errorf("cookie %q holds the fields %q, want %q", c.CookieName, got, want[c.CookieName])
				}
			}
		}
		s.with(func(s *sessplus.Session) {
			for _, name := range []string{"a", "b", "c"} {
				s.Set(name, 1)
			}
		})
		stored(map[string]string{"inc": "a", "exc": "c", "auto": "bc", "all": "abc", "auto2": "bc"})
		s.with(func(s *sessplus.Session) { s.Delete("c") })
		stored(map[string]string{"inc": "a", "auto": "b", "all": "ab", "auto2": "b"})
		s.with(func(s *sessplus.Session) { s.Pop("a") })
		stored(map[string]string{"auto": "b", "all": "b", "auto2": "b"})
		s.with(func(s *sessplus.Session) { s.Clear() })
		stored(nil)
	})
}

func sorted(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}

// SPEC 1.1
func TestOfSeveralOwnersTheLastIsRead(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		configs := []sessplus.Config{{CookieName: "one", Backend: b}, {CookieName: "two"}, {CookieName: "three", Backend: b}}
		s := newSite(t, newManager(t, nil, configs...))
		for _, c := range configs {
			s.through(c).with(func(s *sessplus.Session) { s.Set("f", c.CookieName) })
		}
		for i := len(configs) - 1; i >= 0; i-- {
			want := configs[i].CookieName
			s.with(func(s *sessplus.Session) {
				if got := s.Get("f"); got != want {
					t.Errorf("Get = %v, want that of the last owner, %q", got, want)
				}
				if got := s.Fields(); !slices.Equal(got, []string{"f"}) {
					t.Errorf("Fields = %q, want each name once", got)
				}
			})
			s.through(configs[i]).with(func(s *sessplus.Session) { s.Delete("f") })
		}
	})
}

// SPEC 1.2
func TestAFieldWithoutOwnerFailsTheCommit(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		var failed error
		saved := 0
		m := newManager(t, &sessplus.Options{
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				failed = err
				w.WriteHeader(http.StatusTeapot)
			},
			OnEvent: func(_ context.Context, e sessplus.Event) {
				if e.Kind != sessplus.EventError {
					saved++
				}
			},
		}, sessplus.Config{CookieName: "s", Fields: sessplus.Include("mine"), Backend: b})
		s := newSite(t, m)
		res := s.with(func(s *sessplus.Session) {
			s.Set("mine", 1)
			s.Set("nobody's", 2)
			s.Set("mine", 3)
			if err := s.Err(); !errors.Is(err, sessplus.ErrNoOwner) {
				t.Errorf("Err = %v, want ErrNoOwner", err)
			}
			if err := s.Save(); !errors.Is(err, sessplus.ErrNoOwner) {
				t.Errorf("Save = %v, want ErrNoOwner", err)
			}
		})
		if !errors.Is(failed, sessplus.ErrNoOwner) || !strings.Contains(fmt.Sprint(failed), `"nobody's"`) {
			t.Errorf("the ErrorHandler got %v, want ErrNoOwner with the name of the field", failed)
		}
		if res.StatusCode != http.StatusTeapot || len(res.Header["Set-Cookie"]) > 0 || saved > 0 {
			t.Errorf("status %d, Set-Cookie %q, %d events, want the ErrorHandler's answer and nothing saved",
				res.StatusCode, res.Header["Set-Cookie"], saved)
		}
		s.with(func(s *sessplus.Session) {
			s.Delete("nobody's")
			if v := s.Get("nobody's"); v != nil || s.Has("nobody's") || s.Err() != nil {
				t.Errorf("Get = %v, Err = %v: to read or delete what nobody owns is no error", v, s.Err())
			}
		})
	})
}
