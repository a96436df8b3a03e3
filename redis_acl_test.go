package sessplus_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// aclOfRunbook gives the words of the command in docs/runbook.md that makes a user with the least rights, as a shell
// passes them to redis-cli.
func aclOfRunbook(t *testing.T) []any {
	t.Helper()
	text, err := os.ReadFile("docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "    redis-cli ACL")
	command, _, ends := strings.Cut(rest, "\n\n")
	if !found || !ends {
		t.Fatal("docs/runbook.md has no redis-cli ACL")
	}
	shell := exec.Command("sh", "-c", "printf '%s\\n' ACL"+command)
	shell.Dir = t.TempDir() // an unquoted > makes a file
	words, err := shell.Output()
	if err != nil {
		t.Fatalf("the shell does not read the runbook's redis-cli ACL: %v", err)
	}
	var args []any
	for word := range strings.FieldsSeq(string(words)) {
		args = append(args, word)
	}
	return args
}

// SPEC 6.9: with the rights that the runbook gives a Redis user, all works, through each kind of client; without any of
// those that a Client needs for sessions it does not.
func TestRightsOfRunbookSuffice(t *testing.T) {
	t.Parallel()
	acl := aclOfRunbook(t)
	single, node := servers.NewRedis(t), newCluster(t)
	allow := func(addr string, more ...any) {
		t.Helper()
		admin := redis.NewClient(&redis.Options{Addr: addr})
		defer admin.Close()
		if err := admin.Do(t.Context(), append(acl[:len(acl):len(acl)], more...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	allow(single.Addr)
	allow(node.Addr)
	const user, password = "sessplus", "PASSWORD"
	for name, client := range map[string]redis.UniversalClient{
		"client": redis.NewClient(&redis.Options{Addr: single.Addr, Username: user, Password: password, DB: 1, ClientName: "app"}),
		"ring": redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": single.Addr}, Username: user, Password: password,
			HeartbeatFrequency: 10 * time.Millisecond}),
		"cluster": redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{node.Addr}, Username: user, Password: password,
			RouteByLatency: !raceEnabled}), // go-redis 9.23 has a data race of its own there
	} {
		t.Run(name, func(t *testing.T) {
			time.Sleep(100 * time.Millisecond) // some heartbeats of the ring
			b := closing(t, client)
			livesALife(t, b)
		})
	}
	// what a script needs only at times is tried by taking it away
	for _, command := range []string{"hgetall", "hmget", "hset", "hdel", "hlen", "exists", "pexpireat", "evalsha", "eval", "del"} {
		script := single.Client()
		script.ScriptFlush(t.Context())
		script.Close()
		allow(single.Addr, "-"+command)
		client := redis.NewClient(&redis.Options{Addr: single.Addr, Username: user, Password: password})
		if failures(t, closing(t, client)) == 0 {
			t.Errorf("without +%s all works, too", command)
		}
		allow(single.Addr, "+"+command)
	}
}

// livesALife fails the test unless a session can be made, changed, touched, renewed, rotated, emptied and destroyed.
func livesALife(t *testing.T, b sessplus.Backend) {
	t.Helper()
	if n := failures(t, b); n > 0 {
		t.Errorf("%d requests failed", n)
	}
}

// failures is how many of the requests of a session's life fail.
func failures(t *testing.T, b sessplus.Backend) (failed int) {
	t.Helper()
	var j journal
	c := newCrowd(t, newManager(t, j.options(time.Second),
		sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user", "n"), IdleTimeout: time.Second, RotateEvery: 300 * time.Millisecond},
		sessplus.Config{CookieName: "t", Backend: b, Fields: sessplus.Include("other")}))
	for _, do := range []func(*sessplus.Session){
		func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("n", 1); s.Set("other", 1) },
		func(s *sessplus.Session) { s.Set("n", 2) },
		func(s *sessplus.Session) { sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 }) },
		func(s *sessplus.Session) { s.SetPermanent("t", true) },
		func(s *sessplus.Session) { s.Renew() },
		func(s *sessplus.Session) { s.Delete("other") },
		func(s *sessplus.Session) { time.Sleep(150 * time.Millisecond); s.Get("user") }, // a touch
		func(s *sessplus.Session) { time.Sleep(300 * time.Millisecond); s.Get("user") }, // a rotation
		func(s *sessplus.Session) { s.Get("user") },
		func(s *sessplus.Session) { s.Destroy() },
	} {
		if c.askWith(c.client, do).StatusCode != 200 {
			failed++
		}
	}
	if failed == 0 {
		kinds := make(map[sessplus.EventKind]bool)
		for _, k := range j.kinds("s") {
			kinds[k] = true
		}
		for _, want := range []sessplus.EventKind{sessplus.EventCreate, sessplus.EventSave, sessplus.EventRenew, sessplus.EventRotate, sessplus.EventDestroy} {
			if !kinds[want] {
				t.Errorf("no %v among the events %v", want, kinds)
			}
		}
	}
	if text := j.text(); failed == 0 && strings.Contains(text, "NOPERM") {
		failed++
	}
	return failed
}
