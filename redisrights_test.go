package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// redisRights are the commands that the library sends, and those in its scripts.
var redisRights = []string{"hset", "hdel", "del", "pexpireat", "hget", "hmget", "hlen", "exists", "hgetall", "time", "evalsha", "eval"}

// weakRedis gives a client of the server for a user who may do all but one thing.
func weakRedis(t *testing.T, admin *redis.Client, lacks string) *redis.Client {
	t.Helper()
	err := admin.Do(t.Context(), "ACL", "SETUSER", "without-"+lacks, "on", ">pw", "~*", "+@all", "-"+lacks).Err()
	if err != nil {
		t.Skip("the server has no ACL: ", err)
	}
	weak := redis.NewClient(&redis.Options{Addr: admin.Options().Addr, Username: "without-" + lacks, Password: "pw"})
	t.Cleanup(func() { weak.Close() })
	return weak
}

// redisKeys returns what each key of the server holds, and fails the test for one that does not expire.
func redisKeys(t *testing.T, admin *redis.Client) map[string]string {
	t.Helper()
	ctx := context.Background()
	all := make(map[string]string)
	for _, key := range admin.Keys(ctx, "*").Val() {
		ttl := admin.PTTL(ctx, key).Val()
		if admin.Type(ctx, key).Val() == "zset" { // an index, which may name what there is not
			if ttl <= 0 {
				t.Errorf("an index expires in %v", ttl)
			}
			continue
		}
		hash := admin.HGetAll(ctx, key).Val()
		var expires int64
		fmt.Sscan(hash[":expires"], &expires)
		if off := ttl - time.Until(time.UnixMilli(expires)); ttl <= 0 || off.Abs() > time.Second {
			t.Errorf("a key expires in %v, and its record %v before or after that", ttl, off)
		}
		all[key] = fmt.Sprint(hash)
	}
	return all
}

// SPEC 3.5, 6.2: a script that fails midway, because the user of Redis may not do all that it does, has done nothing.
func TestRedisScriptsDoAllOrNothing(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	admin := server.Client()
	defer admin.Close()
	strong := sessplus.Redis(admin)
	now := time.Now().Truncate(time.Millisecond)
	on, owner := true, "ann"
	var many []sessplus.RawField
	for i := range 1500 {
		many = append(many, sessplus.RawField{Name: fmt.Sprint("m", i), Value: []byte("1")})
	}
	set := func(names ...string) (list []sessplus.RawField) {
		for _, name := range names {
			list = append(list, sessplus.RawField{Name: name, Value: []byte("new")})
		}
		return list
	}
	record := func() *sessplus.Record {
		r := &sessplus.Record{Created: now, Saved: now.Add(-time.Second), Expires: now.Add(time.Hour)}
		r.Fields = []sessplus.RawField{{Name: "a", Value: []byte("1")}, {Name: "b", Value: []byte("2")}}
		return r
	}
	sooner, later := now.Add(time.Minute), now.Add(2*time.Hour)
	update := func(c sessplus.Change) func(b sessplus.Backend, key string) error {
		return func(b sessplus.Backend, key string) error {
			c := c
			c.Now = time.Now()
			if c.Exact {
				c.Seen = record()
			}
			_, err := b.Update(t.Context(), key, &c)
			return err
		}
	}
	end := func(step sessplus.EndStep, token string) func(b sessplus.Backend, key string) error {
		return func(b sessplus.Backend, key string) error {
			_, err := b.End(t.Context(), key, &sessplus.Ending{Step: step, Token: token, Next: "next", Now: time.Now()})
			if ended := new(sessplus.EndedError); errors.As(err, &ended) {
				return nil
			}
			return err
		}
	}
	type step = func(b sessplus.Backend, key string) error
	after := func(steps ...step) step {
		return func(b sessplus.Backend, key string) error {
			for _, do := range steps {
				if err := do(b, key); err != nil {
					return err
				}
			}
			return nil
		}
	}
	create := func(b sessplus.Backend, key string) error { return b.Create(t.Context(), key, record()) }
	taken, ended := end(sessplus.StepTake, "t"), end(sessplus.StepEnd, "t")
	lapsed := func(b sessplus.Backend, key string) error {
		return admin.HSet(t.Context(), key, ":mark", fmt.Sprint("t other ", now.UnixMilli()-1)).Err()
	}
	for name, op := range map[string]struct {
		prepare, do step
	}{
		"create": {after(), create},
		"create many": {after(), func(b sessplus.Backend, key string) error {
			r := record()
			r.Fields = many
			return b.Create(t.Context(), key, r)
		}},
		"set":                     {create, update(sessplus.Change{Set: set("a", "c"), Expires: now})},
		"set, later":              {create, update(sessplus.Change{Set: set("a", "c"), Expires: later})},
		"set, exactly sooner":     {create, update(sessplus.Change{Set: set("a", "c"), Expires: sooner, Exact: true})},
		"set many":                {create, update(sessplus.Change{Set: many, Expires: later})},
		"set after a lapsed take": {after(create, lapsed), update(sessplus.Change{Set: set("a"), Expires: later})},
		"set and delete":          {create, update(sessplus.Change{Set: set("c"), Delete: []string{"a"}, Expires: later})},
		"set and delete, sooner":  {create, update(sessplus.Change{Set: set("c"), Delete: []string{"a"}, Expires: sooner, Exact: true})},
		"delete":                  {create, update(sessplus.Change{Delete: []string{"a"}, Expires: now})},
		"delete all":              {create, update(sessplus.Change{Delete: []string{"a", "b"}, Expires: later})},
		"refill": {after(create, update(sessplus.Change{Delete: []string{"a", "b"}})),
			update(sessplus.Change{Set: set("c"), Expires: later})},
		"touch":           {create, update(sessplus.Change{Expires: later})},
		"touch, sooner":   {create, update(sessplus.Change{Expires: sooner, Exact: true})},
		"owner":           {create, update(sessplus.Change{Set: set("a"), Owner: &owner, Expires: later})},
		"permanent":       {create, update(sessplus.Change{Permanent: &on, Expires: later})},
		"permanent, set":  {create, update(sessplus.Change{Permanent: &on, Set: set("c"), Expires: sooner})},
		"match":           {create, update(sessplus.Change{Match: record().Fields, Set: set("a"), Expires: later})},
		"take":            {create, taken},
		"release":         {after(create, taken), end(sessplus.StepRelease, "t")},
		"end":             {after(create, taken), ended},
		"undo an end":     {after(create, taken, ended), end(sessplus.StepRelease, "t")},
		"end for good":    {create, end(sessplus.StepEnd, "")},
		"end a taken one": {after(create, taken), end(sessplus.StepEnd, "")},
		"end once more":   {after(create, taken, ended), end(sessplus.StepEnd, "")},
	} {
		failures := 0
		for _, lacks := range redisRights {
			admin.FlushDB(t.Context())
			if lacks == "eval" {
				admin.ScriptFlush(t.Context())
			}
			if err := op.prepare(strong, "key"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			before := redisKeys(t, admin)
			if err := op.do(sessplus.Redis(weakRedis(t, admin, lacks)), "key"); err == nil {
				if same := maps.Equal(before, redisKeys(t, admin)); same {
					t.Errorf("%s without %s is no error, and changes nothing", name, lacks)
				}
				continue
			} else if errors.Is(err, sessplus.ErrNoRecord) || errors.Is(err, sessplus.ErrRecordExists) || errors.Is(err, sessplus.ErrTaken) {
				t.Errorf("%s without %s: error %v, want one that means an outage", name, lacks, err)
			}
			failures++
			left := redisKeys(t, admin)
			if name == "set after a lapsed take" { // that the mark is gone is no harm
				after(lapsed)(strong, "key")
				left = redisKeys(t, admin)
			}
			if !maps.Equal(left, before) {
				t.Errorf("%s without %s leaves %.300v, want %.300v", name, lacks, left, before)
			}
		}
		if failures < 3 {
			t.Errorf("%s failed with %d rights missing", name, failures)
		}
	}
}

// SPEC 3.5, 6.2: whatever the user of Redis may not do, the answer is 503 and the session reads as before, or what was
// asked for is done.
func TestRedisUserWithoutARightLosesNothing(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	admin := server.Client()
	defer admin.Close()
	manager := func(r *redis.Client, idle, rotate time.Duration) *sessplus.Manager {
		return newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(r), IdleTimeout: idle, RotateEvery: rotate})
	}
	ops := []struct {
		name   string
		rotate time.Duration
		do     func(s *sessplus.Session)
		done   string // what the session holds then
		soft   bool   // that it fails is in the log, and the request succeeds
	}{
		{"read", 0, func(s *sessplus.Session) { s.Get("a") }, "[a=1 b=2]", true},
		{"set", 0, func(s *sessplus.Session) { s.Set("c", "3") }, "[a=1 b=2 c=3]", false},
		{"set and delete", 0, func(s *sessplus.Session) { s.Set("c", "3"); s.Delete("a") }, "[b=2 c=3]", false},
		{"clear", 0, func(s *sessplus.Session) { s.Clear() }, "[]", false},
		{"permanent", 0, func(s *sessplus.Session) { s.SetPermanent("s", true) }, "[a=1 b=2]", false},
		{"renew", 0, func(s *sessplus.Session) { s.Renew() }, "[a=1 b=2]", false},
		{"login", 0, func(s *sessplus.Session) { s.Renew(); s.Set("c", "3") }, "[a=1 b=2 c=3]", false},
		{"rotate", time.Millisecond, func(s *sessplus.Session) { s.Get("a") }, "[a=1 b=2]", true},
		{"rotate and set", time.Millisecond, func(s *sessplus.Session) { s.Set("c", "3") }, "[a=1 b=2 c=3]", false},
		{"destroy", 0, func(s *sessplus.Session) { s.Destroy() }, "[]", false},
	}
	holds := func(c *crowd) (text string) {
		var all []string
		c.mustAsk(c.client, func(s *sessplus.Session) {
			for _, name := range s.Fields() {
				all = append(all, name+"="+s.GetString(name))
			}
		})
		slices.Sort(all)
		return fmt.Sprint(all)
	}
	for _, lacks := range redisRights {
		t.Run(lacks, func(t *testing.T) {
			weak := weakRedis(t, admin, lacks)
			refused := 0
			fresh := newCrowd(t, manager(weak, time.Hour, 0))
			if answer := fresh.askWith(fresh.client, func(s *sessplus.Session) { s.Set("a", "1") }); answer.StatusCode == 503 {
				refused++
				if cookies := fresh.jar(fresh.client); len(cookies) > 0 {
					t.Errorf("a create that fails sets the cookies %q", cookies)
				}
			}
			for _, op := range ops {
				admin.FlushDB(t.Context())
				if lacks == "eval" {
					admin.ScriptFlush(t.Context())
				}
				strong := newCrowd(t, manager(admin, time.Hour, 0))
				strong.mustAsk(strong.client, func(s *sessplus.Session) { s.Set("a", "1"); s.Set("b", "2") })
				old := strong.jar(strong.client)
				time.Sleep(2 * time.Millisecond)                           // an age at which to rotate
				c := newCrowd(t, manager(weak, 30*time.Minute, op.rotate)) // with which a touch is due
				c.client = c.withCookies(old)
				answer := c.askWith(c.client, op.do)
				redisKeys(t, admin)
				want := op.done
				switch {
				case answer.StatusCode == http.StatusOK:
					strong.client = strong.withCookies(c.jar(c.client))
				case answer.StatusCode == http.StatusServiceUnavailable:
					if refused++; op.soft && !strings.HasPrefix(lacks, "hgetall") {
						t.Errorf("%s: status 503, want 200", op.name)
					}
					want, strong.client = "[a=1 b=2]", strong.withCookies(old)
				default:
					t.Fatalf("%s: status %d", op.name, answer.StatusCode)
				}
				if got := holds(strong); got != want {
					t.Errorf("%s, answered %d: the session holds %s, want %s", op.name, answer.StatusCode, got, want)
				}
			}
			if refused == 0 && lacks != "time" && lacks != "hget" && lacks != "exists" {
				t.Error("nothing was refused")
			}
		})
	}
}
