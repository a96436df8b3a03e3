package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 3.9, 6.2: a logout does not depend on the rest of the request: the record goes although the commit fails.
func TestDestroyGoesAheadWhenTheCommitFails(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		spied := &recorder{Backend: b}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: spied, Fields: sessplus.Include("user")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		answer := c.askWith(c.client, func(s *sessplus.Session) {
			s.Destroy()
			s.Set("nobody's", 1)
		})
		if answer.StatusCode != 500 || len(answer.setCookies("s")) != 1 {
			t.Errorf("status = %d, Set-Cookie = %q, want 500 and the deletion", answer.StatusCode, answer.setCookies("s"))
		}
		if alive := spied.alive(t); len(alive) > 0 || len(c.jar(c.client)) > 0 {
			t.Errorf("%d records and %d cookies are left, want none", len(alive), len(c.jar(c.client)))
		}
	})
}

// downAt is the hook of a backend that is down for these calls.
func downAt(op string) func(context.Context, string) error {
	return func(_ context.Context, call string) error {
		if call == op {
			return errors.New("down")
		}
		return nil
	}
}

// SPEC 3.8, 6.2: of two renewals one cannot end its old record; both sessions are then what they were.
func TestRenewalIsUndoneWhenAnotherCannotEnd(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		spied := &recorder{Backend: b}
		c := newCrowd(t, newManager(t, nil,
			sessplus.Config{CookieName: "good", Backend: spied, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bad", Backend: &recorder{Backend: sessplus.Memory(), hook: downAt("take")}, Fields: sessplus.Include("plan")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("plan", "gold") })
		answer := c.askWith(c.client, func(s *sessplus.Session) { s.Renew() })
		if lines := answer.Header.Values("Set-Cookie"); answer.StatusCode != 503 || len(lines) > 0 {
			t.Errorf("status = %d, Set-Cookie = %q, want 503 and none", answer.StatusCode, lines)
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.GetString("user") != "ann" || s.GetString("plan") != "gold" {
				t.Errorf("user = %q, plan = %q, want ann, gold", s.GetString("user"), s.GetString("plan"))
			}
		})
		if alive := spied.alive(t); len(alive) != 1 {
			t.Errorf("%d records are left, want 1", len(alive))
		}
	})
}

// SPEC 6.7: the answer to a create is lost, and the second try finds the record of the first.
func TestCreateWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	behindProxy(t, func(t *testing.T, f faulty) {
		created := make(chan string, 1)
		b := &recorder{Backend: f.backend}
		b.hook = func(_ context.Context, op string) error {
			if op == "create" {
				select {
				case created <- b.newest():
				default:
				}
			}
			return nil
		}
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 10 * time.Second}, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.visitor(), func(s *sessplus.Session) { s.Set("user", "bob") }) // Redis learns the script
		<-created
		muted := false
		f.proxy.watch(func(sent []byte) proxyMode {
			if muted || !bytes.Contains(sent, []byte("session:s:")) {
				return proxyServe
			}
			muted = true
			return proxyMute
		})
		answer := make(chan *reply)
		go func() { answer <- c.askWith(c.client, func(s *sessplus.Session) { s.Set("user", "ann") }) }()
		key := <-created
		servers.WaitFor(t, "the record is stored", 10*time.Second, func() bool {
			_, err := f.direct.Load(context.Background(), key)
			return err == nil
		})
		f.proxy.watch(nil)
		f.proxy.cut()
		f.proxy.set(proxyServe)
		if r := <-answer; r.StatusCode != 200 {
			t.Errorf("status = %d, want 200", r.StatusCode)
		}
		c.mustAsk(c.client, wantUser(t, "ann"))
	})
}

// SPEC 6.2, 6.3: the end of an old record is not answered within the Timeout, whether it was made or is on its way. The
// renewal is undone over another connection, and the visitor keeps the session.
func TestEndOfARenewalIsNotAnswered(t *testing.T) {
	const timeout = time.Second
	for name, mode := range map[string]proxyMode{"made": proxyMute, "on its way": proxyHang} {
		for client, open := range map[string]func(addr string) redis.UniversalClient{
			"client": func(addr string) redis.UniversalClient { return redis.NewClient(&redis.Options{Addr: addr}) },
			"ring": func(addr string) redis.UniversalClient {
				return redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": addr}, HeartbeatFrequency: time.Hour})
			},
		} {
			t.Run(name+", "+client, func(t *testing.T) {
				t.Parallel()
				p := newProxy(t, servers.NewRedis(t).Addr)
				c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout}, sessplus.Config{CookieName: "s", Backend: closing(t, open(p.addr()))}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew() }) // Redis learns the scripts
				ended := false
				p.watch(func(sent []byte) proxyMode {
					if ended || !bytes.Contains(sent, []byte("\r\nend\r\n")) {
						return proxyServe
					}
					ended = true
					return mode
				})
				within(t, timeout, func() {
					answer := c.askWith(c.client, func(s *sessplus.Session) { s.Set("user", "bob"); s.Renew() })
					if answer.StatusCode != 503 || len(answer.setCookies("s")) != 0 {
						t.Errorf("status = %d, Set-Cookie = %q, want 503 and none", answer.StatusCode, answer.setCookies("s"))
					}
				})
				p.watch(nil)
				p.set(proxyServe)
				if !ended {
					t.Error("no record has ended")
				}
				c.eventually(c.client, wantUser(t, "ann"))
			})
		}
	}
}

// SPEC 6.7: each of these answers of Redis passes, and is asked about again for longer than go-redis does.
func TestAnswersOfAFailoverAreRetried(t *testing.T) {
	t.Parallel()
	slow(t)
	for _, answer := range []string{"CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "MOVED", "ASK", redis6Refusal + "READONLY"} {
		t.Run(answer, func(t *testing.T) {
			r := servers.Redis(t)
			client := redis.NewClient(&redis.Options{Addr: r.Options().Addr, DB: r.Options().DB, ContextTimeoutEnabled: true})
			defer client.Close()
			left := 0
			client.AddHook(commandHook(func(context.Context, redis.Cmder) error {
				if left--; left >= 0 {
					return replyError(answer + " 1234 127.0.0.1:1")
				}
				return nil
			}))
			c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 20 * time.Second}, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(client)}))
			left = 6
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			left = 6
			c.mustAsk(c.client, func(s *sessplus.Session) {
				wantUser(t, "ann")(s)
				left = 6
				s.Set("user", "bob")
			})
			c.mustAsk(c.client, wantUser(t, "bob"))
		})
	}
}

// redis6Refusal is how Redis 6.0 and 6.2 begin an error of a command inside a script.
const redis6Refusal = "ERR Error running script (call to f_6049387058fe13062993fcc83a6403cf2946459d): @user_script:7: @user_script: 7: -"

// SPEC 6.7: a cluster elects another master, and so does Sentinel, so that one which refuses connections is waited for.
func TestRestartOfAClusterIsNotNoticed(t *testing.T) {
	t.Parallel()
	slow(t)
	onBothFaces(t, func(t *testing.T, face func(redis.UniversalClient) sessplus.Backend) {
		server := newCluster(t)
		testRestart(t, server, face, redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr}, ContextTimeoutEnabled: true}))
	})
}

// SPEC 6.7
func TestRestartBehindSentinelIsNotNoticed(t *testing.T) {
	t.Parallel()
	slow(t)
	onBothFaces(t, func(t *testing.T, face func(redis.UniversalClient) sessplus.Backend) {
		server := servers.NewRedis(t)
		testRestart(t, server, face, redis.NewClient(&redis.Options{ // as NewFailoverClient makes it
			Addr: "FailoverClient",
			Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, server.Addr)
			},
		}))
	})
}

func testRestart(t *testing.T, server *servers.RedisServer, face func(redis.UniversalClient) sessplus.Backend, client redis.UniversalClient) {
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 30 * time.Second}, sessplus.Config{CookieName: "s", Backend: face(closed(t, client))}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	server.Kill()
	answer := make(chan *reply)
	visitor := c.visitor()
	go func() { answer <- c.askWith(visitor, func(s *sessplus.Session) { s.Set("user", "bob") }) }()
	time.Sleep(4 * time.Second) // longer than go-redis tries
	server.Restart(t)
	if r := <-answer; r.StatusCode != http.StatusOK {
		t.Errorf("status = %d, want 200", r.StatusCode)
	}
	c.mustAsk(visitor, wantUser(t, "bob"))
}

// SPEC 6.1, 6.6, 7.7: that the session of a bound cookie cannot be loaded is an outage, and not a session that is
// missing.
func TestBoundCookieOfASessionThatIsDown(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	c := newCrowd(t, newManager(t, nil,
		sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user"), Optional: true},
		sessplus.Config{CookieName: "bound", Fields: sessplus.Include("cart"), BoundTo: "login"}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("cart", "apples") })
	jar := c.jar(c.client)
	b.setHook(downAt("load"))
	answer := c.askWith(c.client, func(s *sessplus.Session) { s.Set("cart", "pears") })
	if lines := answer.Header.Values("Set-Cookie"); answer.StatusCode != http.StatusServiceUnavailable || len(lines) > 0 {
		t.Errorf("status = %d, Set-Cookie = %q, want 503 and none", answer.StatusCode, lines)
	}
	b.setHook(nil)
	if got := c.jar(c.client); fmt.Sprint(got) != fmt.Sprint(jar) {
		t.Error("the browser's cookies have changed")
	}
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.Get("cart"); got != "apples" {
			t.Errorf("cart = %v, want apples", got)
		}
	})
}

// SPEC 5.4, 6.2: the cookie of what was saved is not sent again when another save fails.
func TestSavedSessionSendsNoCookieBesideAFailure(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil,
			sessplus.Config{CookieName: "good", Backend: b, Fields: sessplus.Include("user"), MaxAge: time.Hour},
			sessplus.Config{CookieName: "bad", Backend: &recorder{Backend: sessplus.Memory(), hook: downAt("update")}, Fields: sessplus.Include("plan")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("plan", "gold") })
		for name, change := range map[string]func(s *sessplus.Session){
			"changed": func(s *sessplus.Session) { s.Set("user", "bob") },
			"emptied": func(s *sessplus.Session) { s.Delete("user") },
		} {
			answer := c.askWith(c.client, func(s *sessplus.Session) { change(s); s.Set("plan", "free") })
			if lines := answer.Header.Values("Set-Cookie"); answer.StatusCode != http.StatusServiceUnavailable || len(lines) > 0 {
				t.Errorf("%s: status = %d, Set-Cookie = %q, want 503 and none", name, answer.StatusCode, lines)
			}
		}
	})
}
