package sessplus_test

import (
	"errors"
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
