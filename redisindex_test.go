package sessplus_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplustest"
)

// indexSteps are what a session goes through.
var indexSteps = []struct {
	name string
	do   func(s *sessplus.Session)
}{
	{"create", func(s *sessplus.Session) { s.Set("user_id", "ann") }},
	{"load", func(s *sessplus.Session) { s.SkipTouch(); s.Get("user_id") }},
	{"touch", func(s *sessplus.Session) { s.Get("user_id") }},
	{"save", func(s *sessplus.Session) { s.Set("n", 1) }},
	{"permanent", func(s *sessplus.Session) { s.SetPermanent("session", true) }},
	{"permanent no longer", func(s *sessplus.Session) { s.SetPermanent("session", false) }},
	{"renew", func(s *sessplus.Session) { s.Renew() }},
	{"another owner", func(s *sessplus.Session) { s.Set("user_id", "eve") }},
	{"update", func(s *sessplus.Session) {
		sessplus.Field[string]("user_id").Update(s, func(string) string { return "ann" })
	}},
	{"no owner", func(s *sessplus.Session) { s.Delete("user_id") }},
	{"destroy", func(s *sessplus.Session) { s.Destroy() }},
}

// tripsOf counts the round trips of each step, where they are fewest: a server of a cluster that has not had a session
// in this step yet is sent its script first.
func tripsOf(t *testing.T, b sessplus.Backend, indexBy string, trips *atomic.Int64) map[string]int64 {
	t.Helper()
	counted := make(map[string]int64)
	m := newManager(t, nil, sessplus.Config{CookieName: "session", Backend: b, IndexBy: indexBy, IdleTimeout: 4 * time.Second})
	c := newCrowd(t, m)
	for range 8 {
		client := c.visitor()
		for _, step := range indexSteps {
			if step.name == "touch" {
				time.Sleep(410 * time.Millisecond) // a tenth of the IdleTimeout, which nothing else takes
			}
			trips.Store(0)
			c.mustAsk(client, step.do)
			if n, known := counted[step.name]; !known || trips.Load() < n {
				counted[step.name] = trips.Load()
			}
		}
	}
	return counted
}

// SPEC 10.4: the index costs no round trip.
func TestRedisIndexCostsNoRoundTrip(t *testing.T) {
	t.Parallel()
	direct := servers.Redis(t)
	addr, wire := newTripProxy(t, direct.Options().Addr)
	client := redis.NewClient(&redis.Options{Addr: addr, DB: direct.Options().DB, PoolSize: 1})
	defer client.Close()
	b := sessplus.Redis(client)
	without, with := tripsOf(t, b, "", wire), tripsOf(t, b, "user_id", wire)
	for _, step := range indexSteps {
		if without[step.name] == 0 || with[step.name] != without[step.name] {
			t.Errorf("%s: %d round trips with an index, %d without", step.name, with[step.name], without[step.name])
		}
	}
	if without["load"] != 1 || without["touch"] != 2 {
		t.Fatalf("a load makes %d round trips and a touch %d, want 1 and 2", without["load"], without["touch"])
	}
	m := newManager(t, nil, indexed(b))
	c := newCrowd(t, m)
	for range 100 {
		c.logIn("bob")
	}
	handles(t, m, "bob")
	wire.Store(0)
	if n := len(handles(t, m, "bob")); n != 100 || wire.Load() > 2 {
		t.Errorf("a list of %d sessions took %d round trips, want 100 in at most 2", n, wire.Load())
	}
}

// SPEC 10.4: what is kept without an index is what it was before there was one.
func TestRedisWithoutIndex(t *testing.T) {
	r := servers.NewRedis(t).Client()
	defer r.Close()
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "session", Backend: sessplus.Redis(r), IdleTimeout: time.Hour, RotateEvery: 50 * time.Millisecond}))
	record := func(pattern string) {
		t.Helper()
		keys := r.Keys(t.Context(), "*").Val()
		keys = slices.DeleteFunc(keys, func(key string) bool { return r.HExists(t.Context(), key, ":mark").Val() })
		if len(keys) != 1 || !strings.HasPrefix(keys[0], "session:session:") {
			t.Fatalf("the keys of records that live are %q, want one", keys)
		}
		if got := r.HGet(t.Context(), keys[0], ":record").Val(); !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
			t.Errorf(":record = %q, want %s", got, pattern)
		}
	}
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user_id", "ann") })
	record(`1 \d{13} -`)
	c.mustAsk(c.client, func(s *sessplus.Session) { s.SetPermanent("session", true); s.Set("user_id", "eve"); s.SkipTouch() })
	record(`1 \d{13} p`)
	time.Sleep(60 * time.Millisecond)
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Get("user_id") })
	record(`1 \d{13} p \d{13} [0-9a-f]+\.[0-9a-f]+`)
	if stats := r.Info(t.Context(), "commandstats").Val(); strings.Contains(stats, "cmdstat_z") {
		t.Errorf("a sorted set was used: %s", stats)
	}
}

// A cutter passes only so many commands on to a server, and then no more, as if the client had died there.
type cutter struct {
	l     net.Listener
	mu    sync.Mutex
	left  int // <0: no limit
	conns []net.Conn
}

func newCutter(t *testing.T, target string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &cutter{l: l, left: -1}
	t.Cleanup(func() { l.Close(); k.limit(0) })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			k.mu.Lock()
			k.conns = append(k.conns, client, server)
			k.mu.Unlock()
			go func() { defer client.Close(); io.Copy(client, server) }()
			go func() { defer server.Close(); k.pass(server, client) }()
		}
	}()
	return k
}

// limit lets n commands through from now on.
func (k *cutter) limit(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = n
}

// pass copies commands. With none left it takes them and does not answer.
func (k *cutter) pass(server, client net.Conn) {
	var pending []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		pending = append(pending, buf[:n]...)
		for size := commandSize(pending); size > 0; size = commandSize(pending) {
			k.mu.Lock()
			pass := k.left != 0
			if k.left > 0 {
				k.left--
			}
			k.mu.Unlock()
			if pass {
				server.Write(pending[:size])
			}
			pending = pending[size:]
		}
	}
}

// commandSize is how long the first command in b is, 0 if it is not whole.
func commandSize(b []byte) int {
	at := 0
	number := func() int {
		end := bytes.Index(b[at:], []byte("\r\n"))
		if end < 0 {
			return -1
		}
		n, _ := strconv.Atoi(string(b[at+1 : at+end]))
		at += end + 2
		return n
	}
	args := number()
	for ; args > 0; args-- {
		n := number()
		if at += n + 2; n < 0 || at > len(b) {
			return 0
		}
	}
	if args < 0 {
		return 0
	}
	return at
}

// SPEC 10.5: wherever a process dies, no session that lives is missing from the list.
func TestRedisIndexWhenAProcessDies(t *testing.T) {
	t.Parallel()
	slow(t)
	for _, step := range indexSteps {
		if step.name == "load" || step.name == "destroy" {
			continue
		}
		most := 3
		if step.name == "renew" {
			most = 6
		}
		for n := range most {
			t.Run(fmt.Sprintf("%s after %d commands", step.name, n), func(t *testing.T) {
				t.Parallel()
				server := servers.Redis(t)
				k := newCutter(t, server.Options().Addr)
				through := redis.NewClient(&redis.Options{Addr: k.l.Addr().String(), DB: server.Options().DB, PoolSize: 1, MaxRetries: -1})
				defer through.Close()
				config := func(r *redis.Client) sessplus.Config {
					c := indexed(sessplus.Redis(r))
					c.IdleTimeout = 4 * time.Second
					return c
				}
				// The one that dies sees nothing of it in time to tidy up.
				dying := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 500 * time.Millisecond}, config(through)))
				m := newManager(t, nil, config(server))
				// For a connection, and the script.
				dying.mustAsk(dying.visitor(), func(s *sessplus.Session) { s.Set("user_id", "bob") })
				client := dying.visitor()
				if step.name != "create" {
					dying.mustAsk(client, func(s *sessplus.Session) { s.Set("user_id", "ann") })
				}
				time.Sleep(450 * time.Millisecond) // so that a touch is due
				dying.askWith(client, func(s *sessplus.Session) {
					s.Get("user_id")
					k.limit(n)
					step.do(s)
				})
				check := func() {
					t.Helper()
					live := 0
					for _, key := range server.Keys(t.Context(), "session:session:*").Val() {
						r, err := sessplus.Redis(server).Load(t.Context(), key)
						if err != nil || r.Owner == "" {
							continue
						}
						live++
						user := strings.Trim(string(r.Fields[slices.IndexFunc(r.Fields, func(f sessplus.RawField) bool { return f.Name == "user_id" })].Value), `"`)
						list, err := sessplus.Redis(server).(sessplus.Indexer).Owned(t.Context(), r.Owner)
						if err != nil || !slices.ContainsFunc(list, func(o sessplus.KeyedRecord) bool { return o.Key == key }) {
							t.Errorf("a session of %s lives, and is in no list: %v", user, err)
						}
						if step.name == "renew" {
							continue // what nobody was told of is not shown beside what is still there
						}
						if tail := key[strings.LastIndex(key, ":")+1:]; !slices.ContainsFunc(handles(t, m, user), func(h string) bool { return strings.HasPrefix(h, tail) }) {
							t.Errorf("a session of %s lives, and is not listed", user)
						}
					}
					if live == 0 && !strings.HasPrefix(step.name, "no") {
						t.Error("no session lives")
					}
				}
				check()
				if n < 2 {
					return
				}
				if keys := server.Keys(t.Context(), "*@*").Val(); len(keys) == 0 {
					t.Error("there is no index")
				}
			})
		}
	}
}

// expires is when a key of Redis does.
func expires(t *testing.T, r *redis.Client, key string) time.Time {
	t.Helper()
	ms, err := r.Do(t.Context(), "PEXPIRETIME", key).Int64()
	if err != nil || ms == -1 {
		t.Fatalf("the key %s has no expiry: %d, %v", key, ms, err)
	}
	return time.UnixMilli(ms)
}

// SPEC 10.4: the index cleans itself, and goes with the last of the sessions.
func TestRedisIndexCleansItself(t *testing.T) {
	r := servers.NewRedis(t).Client()
	defer r.Close()
	config := indexed(sessplus.Redis(r))
	config.IdleTimeout, config.RotateEvery, config.PermanentLifetime = time.Minute, 100*time.Millisecond, 48*time.Hour
	m := newManager(t, nil, config)
	c := newCrowd(t, m)
	ctx := t.Context()
	one, two := c.logIn("ann"), c.logIn("ann")
	keys := r.Keys(ctx, "*@*").Val()
	if len(keys) != 1 {
		t.Fatalf("the index has the keys %q, want one", keys)
	}
	index := keys[0]
	longest := func() (last time.Time) {
		for _, key := range r.Keys(ctx, "session:session:*").Val() {
			if e := expires(t, r, key); e.After(last) && !r.HExists(ctx, key, ":mark").Val() {
				last = e
			}
		}
		return last
	}
	exact := func(what string) {
		t.Helper()
		if got, want := expires(t, r, index), longest(); !got.Equal(want) {
			t.Errorf("after %s the index expires at %v, the last session at %v", what, got, want)
		}
	}
	exact("two logins")
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		c.mustAsk(one, func(s *sessplus.Session) { s.Set("n", time.Now().Unix()); s.Set("m", time.Now().UnixNano()) })
		exact("a save")
	}
	c.mustAsk(two, func(s *sessplus.Session) { s.Renew() })
	exact("a renewal")
	time.Sleep(120 * time.Millisecond)
	c.mustAsk(two, func(s *sessplus.Session) { s.Get("user_id") })
	exact("a rotation")
	c.mustAsk(two, func(s *sessplus.Session) { s.SetPermanent("session", true) })
	exact("permanence")
	c.mustAsk(two, func(s *sessplus.Session) { s.SetPermanent("session", false) })
	if expires(t, r, index).Before(longest()) {
		t.Error("the index ends before the last session")
	}
	// what has expired goes with the next login, and what has ended when it is listed
	for i := range 50 {
		r.ZAdd(ctx, index, redis.Z{Score: float64(time.Now().Add(-2 * time.Minute).UnixMilli()), Member: fmt.Sprintf("%d session:session:%064d", 1000+i, i)})
	}
	for range 5 {
		c.logIn("ann")
	}
	if n := r.ZCard(ctx, index).Val(); n > 5+2+8 { // a renewal and rotations leave entries, more on a slow machine
		t.Errorf("the index has %d entries, want those of 7 sessions and of a few former ids", n)
	}
	left := c.logIn("ann")
	if n, err := m.RevokeAll(ctx, "session", "ann", handleOf(c, left)); n != 7 || err != nil {
		t.Fatalf("RevokeAll = %d, %v; want 7", n, err)
	}
	c.mustAsk(left, func(s *sessplus.Session) { s.Destroy() })
	if n := len(handles(t, m, "ann")); n != 0 {
		t.Fatalf("%d sessions are listed, want none", n)
	}
	for _, entry := range r.ZRange(ctx, index, 0, -1).Val() {
		_, key, _ := strings.Cut(entry, " ")
		if mark := r.HGet(ctx, key, ":mark").Val(); strings.HasPrefix(mark, "e - ") || mark == "" {
			t.Errorf("an ended session has left an entry, with the mark %q", mark)
		}
	}
	stats := r.Info(ctx, "commandstats").Val()
	for _, word := range []string{"cmdstat_scan", "cmdstat_hscan", "cmdstat_zscan", "cmdstat_subscribe", "cmdstat_psubscribe"} {
		if strings.Contains(stats, word) {
			t.Errorf("there was a %s", word)
		}
	}

	// a user who has ended all sessions, without renewals in between, leaves nothing
	for range 3 {
		c.mustAsk(c.logIn("zoe"), func(s *sessplus.Session) { s.Destroy() })
	}
	handles(t, m, "zoe")
	if keys := r.Keys(ctx, "*@*").Val(); len(keys) > 1 || len(keys) == 1 && keys[0] != index {
		t.Errorf("the index of a user without sessions is there: %q", keys)
	}
}

// SPEC 4.6, SPEC 10.1: on every kind of client.
func TestRedisIndexOnEveryClient(t *testing.T) {
	t.Parallel()
	slow(t)
	t.Run("cluster", func(t *testing.T) {
		client := servers.NewRedisCluster(t).Client(t)
		var trips atomic.Int64
		client.AddHook(tripHook(func(...redis.Cmder) { trips.Add(1) }))
		b := sessplus.Redis(client)
		sessionsOfAUser(t, b)
		without, with := tripsOf(t, b, "", &trips), tripsOf(t, b, "user_id", &trips)
		for _, step := range indexSteps {
			most := without[step.name]
			if strings.Contains(step.name, "owner") || step.name == "update" {
				most++ // the entry of another owner goes first
			}
			if with[step.name] > most {
				t.Errorf("%s: %d rounds of commands with an index, %d without", step.name, with[step.name], without[step.name])
			}
		}
		sessplustest.TestBackend(t, func(*testing.T) sessplus.Backend { return b })
	})
	t.Run("ring", func(t *testing.T) {
		ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": servers.NewRedis(t).Addr, "b": servers.NewRedis(t).Addr, "c": servers.NewRedis(t).Addr}})
		t.Cleanup(func() { ring.Close() })
		b := sessplus.Redis(ring)
		sessionsOfAUser(t, b)
		sessplustest.TestBackend(t, func(*testing.T) sessplus.Backend { return b })
	})
	t.Run("sentinel", func(t *testing.T) {
		set := servers.NewSentinelSet(t)
		b := sessplus.Redis(set.Client(t))
		sessionsOfAUser(t, b)
		m := newManager(t, nil, indexed(b))
		c := newCrowd(t, m)
		for range 5 {
			c.logIn("max")
		}
		servers.WaitFor(t, "the replica has it all", 10*time.Second, func() bool {
			return set.Replica.Client().ZCard(context.Background(), set.Master.Client().Keys(context.Background(), "*@*").Val()[0]).Val() > 0
		})
		set.Master.Kill()
		servers.WaitFor(t, "the sessions are listed by the new master", 30*time.Second, func() bool {
			infos, err := m.Sessions(context.Background(), "session", "max")
			return err == nil && len(infos) == 5
		})
	})
}

// SPEC 3.5: a full Redis ends no session that is used, and forgets none.
func TestFullRedisKeepsTheIndex(t *testing.T) {
	t.Parallel()
	r := servers.NewRedis(t).Client()
	defer r.Close()
	config := sessplus.Config{CookieName: "session", Backend: sessplus.Redis(r), IdleTimeout: 2 * time.Second}
	old := newCrowd(t, newManager(t, nil, config))
	config.IndexBy = "user_id"
	m := newManager(t, nil, config)
	c := newCrowd(t, m)
	client, before := c.logIn("ann"), old.logIn("eve") // from before there was an index
	time.Sleep(300 * time.Millisecond)
	c.mustAsk(client, func(s *sessplus.Session) { s.Get("user_id") })
	r.ConfigSet(t.Context(), "maxmemory", "1")
	if answer := c.askWith(c.visitor(), func(s *sessplus.Session) { s.Set("user_id", "ann") }); answer.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("a new session in a full Redis is answered %d", answer.StatusCode)
	}
	for range 8 {
		time.Sleep(400 * time.Millisecond)
		c.mustAsk(client, func(s *sessplus.Session) { s.Get("user_id") })
		c.mustAsk(before, func(s *sessplus.Session) { s.Get("user_id") })
		if got, want := handles(t, m, "ann"), []string{handleOf(c, client)}; !slices.Equal(got, want) {
			t.Fatalf("Sessions = %q, want %q", got, want)
		}
	}
	if c.user(before) != "eve" || len(handles(t, m, "eve")) != 1 {
		t.Errorf("a session from before there was an index: its user is %q, and %d are listed", c.user(before), len(handles(t, m, "eve")))
	}
	if n, err := m.RevokeAll(t.Context(), "session", "ann"); n != 1 || err != nil {
		t.Errorf("RevokeAll in a full Redis = %d, %v; want 1", n, err)
	}
}

// SPEC 4.6: a server that has forgotten the scripts is sent them again.
func TestRedisIndexAfterAScriptFlush(t *testing.T) {
	t.Parallel()
	r := servers.NewRedis(t).Client()
	defer r.Close()
	m := newManager(t, nil, indexed(sessplus.Redis(r)))
	c := newCrowd(t, m)
	flush := func() {
		if err := r.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	client := c.logIn("ann")
	flush()
	c.mustAsk(client, func(s *sessplus.Session) { s.Set("user_id", "eve") })
	flush()
	if n := len(handles(t, m, "eve")); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	flush()
	if n, err := m.RevokeAll(t.Context(), "session", "eve"); n != 1 || err != nil {
		t.Errorf("RevokeAll = %d, %v; want 1", n, err)
	}
	flush()
	if n := len(handles(t, m, "eve")); n != 0 || r.Exists(t.Context(), r.Keys(t.Context(), "*@*").Val()...).Val() > 1 {
		t.Errorf("%d sessions, want none", n)
	}
}

// SPEC 10.2: a key of the index that holds something else is an outage of the index, and not the end of a session.
func TestRedisIndexKeyOfSomebodyElse(t *testing.T) {
	t.Parallel()
	r := servers.NewRedis(t).Client()
	defer r.Close()
	m := newManager(t, nil, indexed(sessplus.Redis(r)))
	c := newCrowd(t, m)
	client := c.logIn("ann")
	index := r.Keys(t.Context(), "*@*").Val()[0]
	r.Set(t.Context(), index, "x", 0)
	if answer := c.askWith(client, func(s *sessplus.Session) { s.SetPermanent("session", true) }); answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a change of the expiry is answered %d, want 503", answer.StatusCode)
	}
	if _, err := m.Sessions(t.Context(), "session", "ann"); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("Sessions: %v, want an error that says what is there", err)
	}
	r.Del(t.Context(), index)
	c.mustAsk(client, func(s *sessplus.Session) { s.SetPermanent("session", true); s.Set("n", 1) })
	if c.user(client) != "ann" {
		t.Error("the session has ended")
	}
}
