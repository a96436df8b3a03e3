package sessplus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 4.1
func TestChangesOfDifferentFieldsAllStay(t *testing.T) {
	t.Parallel()
	const n = 16
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Minute}, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Set("still", "here")
			for i := range n {
				s.Set(fmt.Sprintf("old%d", i), i)
				s.Set(fmt.Sprintf("changed%d", i), "before")
			}
		})
		var slow []*slowRequest
		for i := range n {
			slow = append(slow, c.begin(c.client, func(s *sessplus.Session) {
				s.Set(fmt.Sprintf("new%d", i), i)
				s.Set(fmt.Sprintf("changed%d", i), "after")
				s.Delete(fmt.Sprintf("old%d", i))
			}))
		}
		for _, r := range slow {
			close(r.goOn)
		}
		for i, r := range slow {
			if answer := <-r.answer; answer.StatusCode != 200 {
				t.Errorf("request %d: status = %d, want 200", i, answer.StatusCode)
			}
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := s.GetString("still"); got != "here" {
				t.Errorf("the field that nobody changed = %q, want %q", got, "here")
			}
			for i := range n {
				if got := s.Get(fmt.Sprintf("new%d", i)); got != int64(i) {
					t.Errorf("new%d = %v, want %d", i, got, i)
				}
				if got := s.Get(fmt.Sprintf("changed%d", i)); got != "after" {
					t.Errorf("changed%d = %v, want after", i, got)
				}
				if name := fmt.Sprintf("old%d", i); s.Has(name) {
					t.Errorf("%s is there, want it deleted", name)
				}
			}
		})
	})
}

// SPEC 4.3
func TestNewRecordReplacesNone(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var taken string
		s := &recorder{Backend: b}
		s.hook = func(_ context.Context, op string) error {
			if op != "create" {
				return nil
			}
			taken = s.newest()
			now := time.Now()
			if err := b.Create(context.Background(), taken, &sessplus.Record{
				Created: now, Saved: now, Expires: now.Add(time.Hour), Fields: []sessplus.RawField{{Name: "owner", Value: []byte(`"bob"`)}},
			}); err != nil {
				t.Error(err)
			}
			return nil
		}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: s}))
		c.askWith(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		r, err := b.Load(t.Context(), taken)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s", r.Fields); got != `[{owner "bob"}]` {
			t.Errorf("the record that was there is now %s, want it unchanged", got)
		}
	})
}

// SPEC 4.4
func TestLaterSaveOfAFieldWinsWhole(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("prefs", map[string]int{"base": 0}) })
		first := c.begin(c.client, func(s *sessplus.Session) { s.Set("prefs", map[string]int{"base": 0, "one": 1}) })
		second := c.begin(c.client, func(s *sessplus.Session) { s.Set("prefs", map[string]int{"base": 0, "two": 2}) })
		third := c.begin(c.client, func(s *sessplus.Session) { s.Delete("prefs"); s.Set("other", true) })
		for i, step := range []struct {
			slow *slowRequest
			want string
		}{{second, "map[base:0 two:2]"}, {first, "map[base:0 one:1]"}, {third, "<nil>"}} {
			if answer := step.slow.finish(); answer.StatusCode != 200 {
				t.Fatalf("save %d: status = %d, want 200", i, answer.StatusCode)
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := fmt.Sprint(s.Get("prefs")); got != step.want {
					t.Errorf("after save %d prefs = %v, want %v", i, got, step.want)
				}
			})
		}
	})
}

// SPEC 3.4, 4.1: whether a field is the last one is decided where the record is, also by the second save of a request
// that has not seen what others added before its first.
func TestSecondSaveOfARequestKnowsOfOthersFields(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "session", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("a", 1) })
		slow := c.begin(c.client, func(s *sessplus.Session) {
			s.Set("b", 1)
			if err := s.Save(); err != nil {
				t.Error(err)
			}
			s.Delete("a")
			s.Delete("b")
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("x", 1) })
		if r := slow.finish(); r.StatusCode != 200 || len(r.setCookies("session")) > 0 {
			t.Errorf("the answer: %d, %q; want 200 and no cookie", r.StatusCode, r.setCookies("session"))
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if left := time.Until(s.Expires("session")); !s.Has("x") || left < time.Hour {
				t.Errorf("x is there: %v, and the session ends in %v, want a day", s.Has("x"), left)
			}
		})
	})
}
