package sessplus_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 3.5: a Redis that is full ends no session that is used, and lets visitors log out.
func TestFullRedisKeepsTheSessionsThatAreUsed(t *testing.T) {
	t.Parallel()
	r := servers.NewRedis(t).Client()
	defer r.Close()
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(r), IdleTimeout: 2 * time.Second}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	time.Sleep(300 * time.Millisecond)
	c.mustAsk(c.client, wantUser(t, "ann")) // from here on Redis knows the script
	other := c.visitor()
	c.mustAsk(other, func(s *sessplus.Session) { s.Set("user", "bob"); s.Set("cart", 1) })
	c.mustAsk(other, func(s *sessplus.Session) { s.Delete("cart") })
	r.ConfigSet(t.Context(), "maxmemory", "1")
	if answer := c.askWith(c.visitor(), func(s *sessplus.Session) { s.Set("user", "eve") }); answer.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("a new session in a full Redis is answered %d", answer.StatusCode)
	}
	if answer := c.askWith(c.client, func(s *sessplus.Session) { s.Set("more", "x") }); answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a save in a full Redis is answered %d", answer.StatusCode)
	}
	c.mustAsk(other, wantUser(t, "bob"))
	c.mustAsk(other, func(s *sessplus.Session) { s.Clear() })
	for range 8 {
		time.Sleep(400 * time.Millisecond)
		c.mustAsk(c.client, wantUser(t, "ann"))
	}
	old := c.withCookies(c.jar(c.client))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy() })
	c.mustAsk(old, func(s *sessplus.Session) {
		if s.Has("user") {
			t.Error("after a logout the id opens the session")
		}
	})
}

// SPEC 3.5: a Redis user who may not set an expiry leaves no record without one.
func TestRedisUserWithoutExpiryLeavesNoRecord(t *testing.T) {
	t.Parallel()
	admin := servers.NewRedis(t)
	r := admin.Client()
	defer r.Close()
	if err := r.Do(t.Context(), "ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-pexpireat").Err(); err != nil {
		t.Skip("the server has no ACL: ", err)
	}
	weak := redis.NewClient(&redis.Options{Addr: admin.Addr, Username: "weak", Password: "pw"})
	defer weak.Close()
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(weak)}))
	if answer := c.askWith(c.client, func(s *sessplus.Session) { s.Set("user", "ann") }); answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status = %d, want 503", answer.StatusCode)
	}
	if keys := r.Keys(t.Context(), "*").Val(); len(keys) > 0 {
		t.Errorf("there are the keys %q", keys)
	}
}

// SPEC 4.1, 4.3: a script of Redis gets more names and values than Lua unpacks at once (8000), and each is saved or
// removed.
func TestThousandsOfFieldsInRedis(t *testing.T) {
	t.Parallel()
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
