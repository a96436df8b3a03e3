package sessplus_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 4.1, 4.3: a script of Redis gets more names and values than Lua unpacks at once (8000), and each is saved or removed.
func TestThousandsOfFieldsInRedis(t *testing.T) {
	const n = 5000
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(servers.Redis(t))}))
	name := func(i int) string { return fmt.Sprint("f", i) }
	for round := range 2 {
		c.mustAsk(c.client, func(s *sessplus.Session) {
			for i := range n {
				s.Set(name(i), i+round)
			}
		})
		c.mustAsk(c.client, func(s *sessplus.Session) {
			for i := range n {
				if got := s.GetInt(name(i)); got != i+round {
					t.Fatalf("round %d: %s = %d, want %d", round, name(i), got, i+round)
				}
			}
		})
	}
	c.mustAsk(c.client, func(s *sessplus.Session) {
		for i := range n - 1 {
			s.Delete(name(i + 1))
		}
	})
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.Fields(); len(got) != 1 || got[0] != name(0) {
			t.Errorf("%d fields are left, want only %s", len(got), name(0))
		}
	})
}

// SPEC 4.2, 3.5, 6.4: a record of Redis that has expired by its own account while a request runs, or lost its expiry, is gone,
// also when Redis still has the key.
func TestLateSaveToAnExpiredRecordThatIsStillStored(t *testing.T) {
	late := sessplus.Field[int]("late")
	for name, change := range map[string]func(*sessplus.Session){
		"set":            func(s *sessplus.Session) { s.Set("late", 1) },
		"delete":         func(s *sessplus.Session) { s.Delete("plan") },
		"clear":          func(s *sessplus.Session) { s.Clear() },
		"renew":          func(s *sessplus.Session) { s.Renew() },
		"no expiry, set": func(s *sessplus.Session) { s.Set("late", 1) },
		"update": func(s *sessplus.Session) {
			if _, err := late.Update(s, increment); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("Update() = %v, want ErrSessionGone", err)
			}
			s.Set("late", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := servers.Redis(t)
			b := &spy{Backend: sessplus.Redis(r)}
			c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("plan", "gold") })
			slow := c.begin(c.client, change)
			if key := b.keys[0]; strings.HasPrefix(name, "no expiry") {
				r.HDel(t.Context(), key, ":expires")
			} else {
				r.HSet(t.Context(), key, ":expires", time.Now().Add(-time.Second).UnixMilli())
			}
			before := fmt.Sprint(r.HGetAll(t.Context(), b.keys[0]).Val())
			answer := slow.finish()
			want := http.StatusConflict
			if strings.HasSuffix(name, "renew") { // it has nothing to lose
				want = http.StatusOK
			}
			if answer.StatusCode != want || len(answer.setCookies("s")) > 0 {
				t.Errorf("status = %d, Set-Cookie = %q, want %d and none", answer.StatusCode, answer.setCookies("s"), want)
			}
			if after := fmt.Sprint(r.HGetAll(t.Context(), b.keys[0]).Val()); after != before {
				t.Errorf("the record is now %s, want it as it was, %s", after, before)
			}
			if alive := b.alive(t); len(alive) > 0 {
				t.Errorf("there are the records %q, want none", alive)
			}
		})
	}
}
