package sessplus_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sessplus/sessplus"
)

const foreignLine = "its cookie does not own"

// SPEC 1.3: what another config of the cookie has stored is dropped, and the log says so once.
func TestForeignFieldsAreNamedInTheLogOnce(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		const secret = "a value that is nobody's business"
		var j journal
		wide := sessplus.Config{CookieName: "s", Backend: b}
		narrow := newManager(t, j.options(0),
			sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("theme", "n")},
			sessplus.Config{CookieName: "other", Backend: b, Fields: sessplus.Include("user_id")})
		s := newSite(t, newManager(t, nil, wide))
		rollBack := func(fields ...string) {
			s.with(func(s *sessplus.Session) {
				for _, f := range fields {
					s.Set(f, secret)
				}
			})
		}
		at := newSite(t, narrow)
		at.client = s.client
		change := func() { at.with(func(s *sessplus.Session) { s.Set("n", s.GetInt("n")+1) }) }
		check := func(when string, want ...[]string) {
			t.Helper()
			lines := j.lines(foreignLine)
			if len(lines) != len(want) {
				t.Fatalf("%s: %d lines about foreign fields, want %d: %q", when, len(lines), len(want), lines)
			}
			for i, names := range want {
				for _, part := range append(names, "cookie=s ", "level=WARN") {
					if !strings.Contains(lines[i], part) {
						t.Errorf("%s: line %d is %q, want %q in it", when, i, lines[i], part)
					}
				}
				if strings.Contains(lines[i], "theme") || strings.Contains(lines[i], "cookie=other") {
					t.Errorf("%s: line %d is %q, which names what is not foreign", when, i, lines[i])
				}
			}
		}
		rollBack("theme")
		change()
		check("with fields of its own")

		rollBack("user_id", "plan")
		change()
		check("with two foreign fields", []string{"user_id", "plan"})
		if got := s.fields(); !reflect.DeepEqual(got, map[string]any{"theme": secret, "n": int64(2)}) {
			t.Errorf("after a save there are %v, want theme and n", got)
		}
		rollBack("user_id")
		change()
		check("with one of them again", []string{"user_id", "plan"})
		rollBack("user_id", "color")
		change()
		check("with a new one", []string{"user_id", "plan"}, []string{"color"})
		if line := j.lines(foreignLine)[1]; strings.Contains(line, "user_id") {
			t.Errorf("the second line is %q, which names a field of the first", line)
		}
		j.keepsSecret(t, nil, secret)
	})
}

// SPEC 1.3: also when the handler loads a long request's session again.
func TestForeignFieldsAreNamedAtReload(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		wide := sessplus.Config{CookieName: "s", Backend: b}
		s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("a")}))
		s.with(func(s *sessplus.Session) { s.Set("a", 1) })
		other := s.through(wide)
		s.with(func(session *sessplus.Session) {
			session.GetInt("a")
			other.with(func(s *sessplus.Session) { s.Set("foreign", 1) })
			if lines := j.lines(foreignLine); len(lines) > 0 {
				t.Errorf("before Reload the log says %q", lines)
			}
			if err := session.Reload(); err != nil {
				t.Error(err)
			}
			if lines := j.lines(foreignLine); len(lines) != 1 || !strings.Contains(lines[0], "foreign") {
				t.Errorf("after Reload the log says %q, want a line with the field", lines)
			}
			session.Set("a", 2)
		})
		if got := s.through(wide).fields(); !reflect.DeepEqual(got, map[string]any{"a": int64(2)}) {
			t.Errorf("after the save there are %v, want a", got)
		}
	})
}

// SPEC 1.3: requests side by side say it once, and what is remembered has an end.
func TestLinesAboutForeignFieldsAreBounded(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	var j journal
	wide := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
	c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("mine")}))
	c.client = wide.client
	long := strings.Repeat("x", 256)
	const visits, fields = 30, 50 // more names than are remembered
	for i := range visits {
		wide.with(func(s *sessplus.Session) {
			s.Clear()
			s.Set("mine", i)
			for k := range fields {
				s.Set(fmt.Sprint("f", i, "-", k, long)[:256], 1)
			}
		})
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { c.askWith(c.client, func(s *sessplus.Session) { s.GetInt("mine") }) })
		}
		all.Wait()
	}
	if lines := j.lines(foreignLine); len(lines) < 1000/fields || len(lines) > 1000/fields+4 {
		t.Errorf("%d visits with %d new foreign fields each are %d lines, want one for each until 1,000 are named", visits, fields, len(lines))
	}
	for _, line := range j.lines(foreignLine) {
		if n := strings.Count(line, "xxxx "); len(line) > 16<<10 || n > fields {
			t.Errorf("a line has %d bytes", len(line))
		}
	}
}

// SPEC 1.3
func TestForeignFieldsAreDropped(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		for name, fields := range map[string]sessplus.Fields{
			"include": sessplus.Include("theme"), "exclude": sessplus.Exclude("user_id"), "auto": sessplus.Auto(),
		} {
			for _, renew := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " renew ", renew), func(t *testing.T) {
					wide := sessplus.Config{CookieName: "s", Backend: b}
					narrow := []sessplus.Config{
						{CookieName: "users", Backend: b, Fields: sessplus.Include("user_id")},
						{CookieName: "s", Backend: b, Fields: fields},
					}
					s := newSite(t, newManager(t, nil, wide))
					s.with(func(s *sessplus.Session) {
						s.Set("user_id", 1)
						s.Set("theme", "dark")
					})
					s.through(narrow...).with(func(s *sessplus.Session) {
						var id int
						if s.Get("user_id") != nil || s.Has("user_id") || s.GetInt("user_id") != 0 ||
							!errors.Is(s.Decode("user_id", &id), sessplus.ErrNoField) {
							t.Errorf("a foreign user_id was read")
						}
						if got := s.Fields(); !slices.Equal(got, []string{"theme"}) {
							t.Errorf("Fields = %q, want theme only", got)
						}
						if s.GetString("theme") != "dark" || s.Pop("user_id") != nil {
							t.Errorf("theme = %v, and a foreign user_id was popped, or not", s.Get("theme"))
						}
					})
					if got := s.fields(); len(got) != 2 {
						t.Errorf("after a read %v are left, want both", got)
					}
					s.through(narrow...).with(func(s *sessplus.Session) {
						if renew {
							s.Renew("s")
						} else {
							s.Set("theme", "light")
						}
					})
					want := map[string]any{"theme": map[bool]string{true: "dark", false: "light"}[renew]}
					if got := s.fields(); !reflect.DeepEqual(got, want) {
						t.Errorf("after a save %v are left, want %v", got, want)
					}
				})
			}
		}
	})
}
