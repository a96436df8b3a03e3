package sessplus_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// newRing returns a client of the servers that notices soon when one of them is down.
func newRing(t *testing.T, addrs map[string]string) *redis.Ring {
	r := redis.NewRing(&redis.RingOptions{Addrs: addrs, HeartbeatFrequency: 50 * time.Millisecond, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { r.Close() })
	return r
}

// awaitShards waits until so many shards of the ring are up.
func awaitShards(t *testing.T, r *redis.Ring, n int) {
	t.Helper()
	servers.WaitFor(t, "the ring notices", 20*time.Second, func() bool { return r.Len() == n })
}

// SPEC 4.2, 6.1, 6.2, 6.3: while a Ring lacks a shard, no logout is undone and no login lost.
func TestRingThatLacksAShardIsDown(t *testing.T) {
	t.Parallel()
	slow(t)
	one, two := servers.NewRedis(t), servers.NewRedis(t)
	r := newRing(t, map[string]string{"one": one.Addr, "two": two.Addr})
	backend := sessplus.Redis(r)
	var j journal
	c := newCrowd(t, newManager(t, j.options(2*time.Second),
		sessplus.Config{CookieName: "s", Backend: backend, RotateEvery: 24 * time.Hour}))
	const visitors = 20
	login := func() (client, copied *http.Client) {
		client = c.visitor()
		c.mustAsk(client, func(s *sessplus.Session) { s.Set("user", "ann") })
		return client, c.withCookies(c.jar(client))
	}
	type pair struct{ client, copied *http.Client }
	var readers, leavers []pair
	for range visitors {
		client, copied := login()
		readers = append(readers, pair{client, copied})
		client, copied = login()
		leavers = append(leavers, pair{client, copied})
	}
	two.Pause()
	awaitShards(t, r, 1)

	read := 0
	for _, v := range readers {
		switch answer := c.askWith(v.client, wantUser(t, "ann")); {
		case answer.StatusCode == http.StatusOK:
			read++
		case answer.StatusCode != http.StatusServiceUnavailable:
			t.Errorf("a read is answered %d", answer.StatusCode)
		}
		if answer := c.askWith(v.client, func(s *sessplus.Session) { s.Set("n", 1); s.Renew() }); answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a renewal is answered %d, want 503", answer.StatusCode)
		}
		if answer := c.askWith(c.visitor(), func(s *sessplus.Session) { s.Set("user", "new") }); answer.StatusCode != http.StatusServiceUnavailable ||
			len(answer.setCookies("s")) > 0 {
			t.Errorf("a login is answered %d, want 503 and no cookie", answer.StatusCode)
		}
	}
	if read == 0 || read == visitors {
		t.Errorf("%d of %d sessions are read, want those of the shard that is up", read, visitors)
	}
	out := 0
	for i, v := range leavers {
		answer := c.askWith(v.client, func(s *sessplus.Session) { s.Destroy() })
		if answer.StatusCode == http.StatusOK {
			leavers[i].client = nil // it must stay ended
			out++
		}
	}
	if out == 0 || out == visitors {
		t.Errorf("%d of %d logouts succeed, want those of the shard that is up", out, visitors)
	}
	if !strings.Contains(j.text(), "a shard of the Ring is down") {
		t.Errorf("the log does not say what is wrong: %.500s", j.text())
	}
	two.Resume()
	awaitShards(t, r, 2)
	for _, v := range readers {
		c.mustAsk(v.client, wantUser(t, "ann"))
	}
	for _, v := range leavers {
		if v.client == nil {
			c.mustAsk(v.copied, wantUser(t, nil))
		} else {
			c.mustAsk(v.copied, wantUser(t, "ann")) // it was told so
		}
	}
	c.mustAsk(c.visitor(), func(s *sessplus.Session) { s.Set("user", "new") })
}

// SPEC 6.2: a Destroy that finds a shard of a Ring gone expires the cookie.
func TestDestroyAtARingThatLosesAShardExpiresTheCookie(t *testing.T) {
	t.Parallel()
	slow(t)
	one, two := servers.NewRedis(t), servers.NewRedis(t)
	r := newRing(t, map[string]string{"one": one.Addr, "two": two.Addr})
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 2 * time.Second}, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(r)}))
	var visitors []*slowRequest
	for range 12 {
		client := c.visitor()
		c.mustAsk(client, func(s *sessplus.Session) { s.Set("user", "ann") })
		visitors = append(visitors, c.begin(client, func(s *sessplus.Session) { s.Destroy() }))
	}
	two.Pause()
	defer two.Resume()
	awaitShards(t, r, 1)
	status := make(map[int]int)
	for _, v := range visitors {
		answer := v.finish()
		status[answer.StatusCode]++
		if lines := answer.setCookies("s"); len(lines) != 1 || !strings.Contains(lines[0], "Max-Age=0") {
			t.Errorf("Set-Cookie = %q, want that it expires", lines)
		}
	}
	if status[http.StatusOK] == 0 || status[http.StatusServiceUnavailable] == 0 || len(status) != 2 {
		t.Errorf("answers by status: %v, want some 200 and some 503", status)
	}
}

// SPEC 6.3: every answer of the backend that depends on a missing shard is an error, and no ErrNoRecord.
func TestAnswersOfARingThatLacksAShard(t *testing.T) {
	t.Parallel()
	slow(t)
	one, two := servers.NewRedis(t), servers.NewRedis(t)
	addrs := map[string]string{"one": one.Addr, "two": two.Addr}
	two.Pause()
	r := newRing(t, addrs)
	awaitShards(t, r, 1)
	b := sessplus.Redis(r) // which has never seen the second one
	ctx := t.Context()
	now := time.Now()
	calls := map[string]func(key string) error{
		"load": func(key string) error { _, err := b.Load(ctx, key); return err },
		"create": func(key string) error {
			return b.Create(ctx, key, &sessplus.Record{Created: now, Saved: now, Expires: now.Add(time.Hour)})
		},
		"update": func(key string) error {
			_, err := b.Update(ctx, key, &sessplus.Change{Now: now, Expires: now.Add(time.Hour)})
			return err
		},
		"take": func(key string) error {
			_, err := b.End(ctx, key, &sessplus.Ending{Step: sessplus.StepTake, Token: "t", Now: now})
			return err
		},
		"delete": func(key string) error {
			_, err := b.End(ctx, key, &sessplus.Ending{Step: sessplus.StepEnd, Now: now})
			return err
		},
	}
	check := func(whole bool) {
		t.Helper()
		for name, call := range calls {
			err := call("session:s:" + name)
			switch none := errors.Is(err, sessplus.ErrNoRecord); {
			case !whole && (err == nil || none):
				t.Errorf("%s while a shard is down = %v, want another error", name, err)
			case whole && name != "create" && !none, whole && name == "create" && err != nil:
				t.Errorf("%s = %v", name, err)
			}
		}
		for _, s := range []*servers.RedisServer{one, two} {
			if whole {
				client := s.Client()
				client.FlushAll(context.Background())
				client.Close()
			}
		}
	}
	check(false)
	two.Resume()
	awaitShards(t, r, 2)
	check(true)
	three := servers.NewRedis(t)
	r.SetAddrs(map[string]string{"one": one.Addr, "three": three.Addr}) // another one in its place
	check(true)
	three.Pause()
	awaitShards(t, r, 1)
	check(false)
	r.SetAddrs(map[string]string{"one": one.Addr}) // the program does without
	check(true)
	three.Resume()
}
