package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// outages are what can happen to the server of a backend, and to the way there.
var outages = []struct {
	name string
	mode proxyMode
}{
	{"refuses", proxyRefuse},
	{"hangs", proxyHang},
}

// onEveryOutage runs the test for each networked backend and outage. break does the harm, and repair undoes it.
func onEveryOutage(t *testing.T, test func(t *testing.T, f faulty, breakIt, repair func())) {
	behindProxy(t, func(t *testing.T, f faulty) {
		t.Parallel()
		for _, o := range outages {
			t.Run(o.name, func(t *testing.T) {
				test(t, f, func() {
					f.proxy.set(o.mode)
					if o.mode == proxyRefuse {
						f.proxy.cut()
					}
				}, func() {
					f.proxy.cut() // first, so that nothing of what was held arrives later
					f.proxy.set(proxyServe)
				})
			})
		}
	})
}

const outageTimeout = time.Second

// eventually makes the request again until it succeeds: the client of a backend may have to connect anew.
func (c *crowd) eventually(client *http.Client, f func(*sessplus.Session)) {
	c.Helper()
	servers.WaitFor(c, "the backend answers", 30*time.Second, func() bool { return c.askWith(client, f).StatusCode == 200 })
}

func wantUser(t testing.TB, want any) func(*sessplus.Session) {
	return func(s *sessplus.Session) {
		t.Helper()
		if got := s.Get("user"); got != want {
			t.Errorf("user = %v, want %v", got, want)
		}
	}
}

// SPEC 6.1, 6.3, 6.6, 6.8, 6.9
func TestBackendDownAtLoadIsNoLogout(t *testing.T) {
	t.Parallel()
	onEveryOutage(t, func(t *testing.T, f faulty, breakIt, repair func()) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(outageTimeout), sessplus.Config{CookieName: "s", Backend: f.backend}))
		defer repair()
		c.eventually(c.client, func(s *sessplus.Session) { s.Set("user", "ann the secret") })
		jar := c.jar(c.client)
		breakIt()
		ran := false
		var answer *reply
		within(t, outageTimeout+time.Second, func() {
			answer = c.askWith(c.client, func(*sessplus.Session) { ran = true })
		})
		if answer.StatusCode != http.StatusServiceUnavailable || ran {
			t.Errorf("status = %d, handler ran: %v, want 503 and false", answer.StatusCode, ran)
		}
		if lines := answer.Header.Values("Set-Cookie"); len(lines) > 0 {
			t.Errorf("Set-Cookie = %q, want none", lines)
		}
		if got := answer.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
			t.Errorf("Content-Type = %q, want plain text", got)
		}
		j.mustWarn(t)
		j.keepsSecret(t, []*reply{answer}, jar["s"], "ann the secret")
		settle(t)
		// SPEC 3.1: who has no session does not notice.
		c.mustAsk(c.visitor(), wantUser(t, nil))
		repair()
		c.eventually(c.client, wantUser(t, "ann the secret"))
		if got := c.jar(c.client)["s"]; got != jar["s"] {
			t.Error("the cookie has changed")
		}
	})
}

// SPEC 6.1
func TestErrorHandlerAnswersForABackendThatIsDown(t *testing.T) {
	t.Parallel()
	f, _ := redisBehindProxy(t)
	var got error
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: outageTimeout, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
		got = err
		http.Error(w, "out of order", http.StatusTeapot)
	}}, sessplus.Config{CookieName: "s", Backend: f.backend}))
	c.eventually(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	f.proxy.set(proxyRefuse)
	f.proxy.cut()
	ran := false
	answer := c.askWith(c.client, func(*sessplus.Session) { ran = true })
	if answer.StatusCode != http.StatusTeapot || answer.body != "out of order\n" || ran {
		t.Errorf("status = %d, body %q, handler ran: %v, want what the ErrorHandler wrote", answer.StatusCode, answer.body, ran)
	}
	var e *sessplus.Error
	if !errors.Is(got, sessplus.ErrUnavailable) || !errors.As(got, &e) || e.Cookie != "s" || e.Op != "load" {
		t.Errorf("the ErrorHandler got %v, want ErrUnavailable of cookie s, op load", got)
	}
}

// SPEC 6.1
func TestOptionalBackendThatIsDownCostsItsFieldsOnly(t *testing.T) {
	t.Parallel()
	onEveryOutage(t, func(t *testing.T, f faulty, breakIt, repair func()) {
		for _, lazy := range []bool{false, true} {
			var j journal
			c := newCrowd(t, newManager(t, j.options(outageTimeout),
				sessplus.Config{CookieName: "opt", Backend: f.backend, Fields: sessplus.Include("user", "theme"), Optional: true, Lazy: lazy},
				sessplus.Config{CookieName: "other", Backend: sessplus.Memory(), Fields: sessplus.Include("visits")}))
			defer repair()
			c.eventually(c.client, func(s *sessplus.Session) {
				s.Set("user", "ann the secret")
				s.Set("visits", 1)
			})
			jar := c.jar(c.client)
			breakIt()
			var answer *reply
			within(t, outageTimeout+time.Second, func() {
				answer = c.mustAsk(c.client, func(s *sessplus.Session) {
					wantUser(t, nil)(s)
					if s.Has("theme") || len(s.Fields()) != 1 {
						t.Errorf("Fields() = %q, want only visits", s.Fields())
					}
					if err := s.Err(); !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("Err() = %v, want ErrUnavailable", err)
					}
					s.Set("visits", 2)
				})
			})
			if lines := answer.setCookies("opt"); len(lines) > 0 {
				t.Errorf("Set-Cookie = %q, want none", lines)
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				s.Set("theme", "dark")
				s.Set("visits", 3)
				if err := s.Save(); !errors.Is(err, sessplus.ErrUnavailable) {
					t.Errorf("Save() = %v, want ErrUnavailable", err)
				}
			})
			j.mustWarn(t)
			j.keepsSecret(t, []*reply{answer}, jar["opt"], "ann the secret")
			settle(t)
			repair()
			servers.WaitFor(t, "the backend is back", 20*time.Second, func() bool {
				user := ""
				c.askWith(c.client, func(s *sessplus.Session) { user = s.GetString("user") })
				return user == "ann the secret"
			})
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if s.Has("theme") || s.GetInt("visits") != 3 {
					t.Errorf("theme = %v, visits = %v, want <nil>, 3", s.Get("theme"), s.Get("visits"))
				}
				if err := s.Err(); err != nil {
					t.Errorf("Err() = %v, want nil", err)
				}
			})
			if got := c.jar(c.client)["opt"]; got != jar["opt"] {
				t.Error("the cookie has changed")
			}
		}
	})
}

// SPEC 6.1, 6.2: a new visitor of an Optional backend gets no session, and no error.
func TestOptionalBackendThatIsDownAtTheSave(t *testing.T) {
	t.Parallel()
	onEveryOutage(t, func(t *testing.T, f faulty, breakIt, repair func()) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(outageTimeout),
			sessplus.Config{CookieName: "opt", Backend: f.backend, Fields: sessplus.Include("user"), Optional: true},
			sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("visits")}))
		defer repair()
		breakIt()
		answer := c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Set("user", "ann the secret")
			s.Set("visits", 1)
		})
		if opt, sealed := answer.setCookies("opt"), answer.setCookies("sealed"); len(opt) != 0 || len(sealed) != 1 {
			t.Errorf("Set-Cookie = %q and %q, want none and one", opt, sealed)
		}
		j.mustWarn(t)
		j.keepsSecret(t, nil, "ann the secret")
	})
}

// SPEC 6.1, 5.12
func TestLazyBackendThatIsDownFailsTheCommit(t *testing.T) {
	t.Parallel()
	onEveryOutage(t, func(t *testing.T, f faulty, breakIt, repair func()) {
		memory := sessplus.Memory()
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: outageTimeout},
			sessplus.Config{CookieName: "lazy", Backend: f.backend, Fields: sessplus.Include("user"), Lazy: true},
			sessplus.Config{CookieName: "other", Backend: memory, Fields: sessplus.Include("visits")}))
		defer repair()
		c.eventually(c.client, func(s *sessplus.Session) {
			s.Set("user", "ann")
			s.Set("visits", 1)
		})
		jar := c.jar(c.client)
		breakIt()
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Get("visits") }) // does without
		answer := c.askWith(c.client, func(s *sessplus.Session) {
			wantUser(t, nil)(s)
			if err := s.Err(); !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("Err() = %v, want ErrUnavailable", err)
			}
			s.Set("visits", 2)
		})
		if answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("status = %d, want 503", answer.StatusCode)
		}
		if lines := answer.Header.Values("Set-Cookie"); len(lines) > 0 {
			t.Errorf("Set-Cookie = %q, want none", lines)
		}
		repair()
		servers.WaitFor(t, "the backend is back", 30*time.Second, func() bool {
			user := ""
			c.askWith(c.client, func(s *sessplus.Session) { user = s.GetString("user") })
			return user == "ann"
		})
		if got := c.jar(c.client); fmt.Sprint(got) != fmt.Sprint(jar) {
			t.Error("the cookies have changed")
		}
	})
}

// SPEC 6.2, 6.8, 6.9
func TestBackendDownAtSaveChangesNothing(t *testing.T) {
	t.Parallel()
	changes := []struct {
		name   string
		change func(s *sessplus.Session)
	}{
		{"set", func(s *sessplus.Session) { s.Set("user", "a late value"); s.Set("sealed", 2) }},
		{"delete", func(s *sessplus.Session) { s.Delete("user"); s.Set("sealed", 2) }},
		{"clear", func(s *sessplus.Session) { s.Clear() }},
		{"renew", func(s *sessplus.Session) { s.Renew() }},
		{"permanent", func(s *sessplus.Session) { s.SetPermanent("s", true) }},
	}
	onEveryOutage(t, func(t *testing.T, f faulty, breakIt, repair func()) {
		for _, change := range changes {
			t.Run(change.name, func(t *testing.T) {
				var j journal
				c := newCrowd(t, newManager(t, j.options(outageTimeout),
					sessplus.Config{CookieName: "s", Backend: f.backend, Fields: sessplus.Include("user"), MaxAge: time.Hour},
					sessplus.Config{CookieName: "c", Fields: sessplus.Include("sealed")}))
				defer repair()
				c.eventually(c.client, func(s *sessplus.Session) {
					s.Set("user", "ann the secret")
					s.Set("sealed", 1)
				})
				jar := c.jar(c.client)
				var answer *reply
				within(t, outageTimeout+time.Second, func() {
					answer = c.ask(c.client, func(w http.ResponseWriter, r *http.Request) {
						breakIt()
						change.change(sessplus.Get(r))
						w.Header().Set("Content-Disposition", "attachment")
						if _, err := w.Write([]byte("what the handler says")); err == nil {
							t.Error("Write() = nil, want the error of the save")
						}
					})
				})
				if answer.StatusCode != http.StatusServiceUnavailable || strings.Contains(answer.body, "handler") {
					t.Errorf("status = %d, body %q, want 503 and not what the handler says", answer.StatusCode, answer.body)
				}
				if got := answer.Header.Get("Content-Disposition"); got != "" {
					t.Errorf("Content-Disposition = %q, want none", got)
				}
				if lines := answer.Header.Values("Set-Cookie"); len(lines) > 0 {
					t.Errorf("Set-Cookie = %q, want none", lines)
				}
				j.mustWarn(t)
				j.keepsSecret(t, []*reply{answer}, jar["s"], jar["c"], "ann the secret", "a late value")
				settle(t)
				repair()
				c.eventually(c.client, func(s *sessplus.Session) {
					wantUser(t, "ann the secret")(s)
					if got := s.GetInt("sealed"); got != 1 || s.Permanent("s") {
						t.Errorf("sealed = %d, permanent = %v, want 1, false", got, s.Permanent("s"))
					}
				})
				if got := c.jar(c.client)["s"]; got != jar["s"] && !strings.Contains(change.name, "renew") {
					t.Error("the cookie has changed")
				}
			})
		}
	})
}

// SPEC 6.2
func TestDestroyExpiresTheCookiesAlsoWhenTheBackendIsDown(t *testing.T) {
	t.Parallel()
	onEveryOutage(t, func(t *testing.T, f faulty, breakIt, repair func()) {
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: outageTimeout},
			sessplus.Config{CookieName: "s", Backend: f.backend, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "lazy", Backend: f.backend, Fields: sessplus.Include("plan"), Lazy: true},
			sessplus.Config{CookieName: "bound", BoundTo: "s", Fields: sessplus.Include("cart")},
			sessplus.Config{CookieName: "kept", Fields: sessplus.Include("theme")}))
		defer repair()
		c.eventually(c.client, func(s *sessplus.Session) {
			for _, name := range []string{"user", "plan", "cart", "theme"} {
				s.Set(name, "value")
			}
		})
		answer := c.askWith(c.client, func(s *sessplus.Session) {
			breakIt()
			s.Set("theme", "dark")
			s.Destroy("s", "lazy")
		})
		if answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("status = %d, want 503", answer.StatusCode)
		}
		for _, name := range []string{"s", "lazy", "bound"} {
			if lines := answer.setCookies(name); len(lines) != 1 || !strings.Contains(lines[0], name+"=;") || !strings.Contains(lines[0], "Max-Age=0") {
				t.Errorf("Set-Cookie of %s = %q, want it to expire", name, lines)
			}
		}
		if lines := answer.setCookies("kept"); len(lines) > 0 {
			t.Errorf("Set-Cookie of kept = %q, want none", lines)
		}
		repair()
		c.eventually(c.client, wantUser(t, nil))
	})
}

// SPEC 6.2, 3.8: a renewal of one session fails with the save of another, and leaves it as it was.
func TestRenewalIsUndoneWhenAnotherSaveFails(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		f, _ := redisBehindProxy(t)
		s := &recorder{Backend: b}
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: outageTimeout},
			sessplus.Config{CookieName: "good", Backend: s, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bad", Backend: f.backend, Fields: sessplus.Include("plan")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		answer := c.askWith(c.client, func(s *sessplus.Session) {
			f.proxy.set(proxyRefuse)
			f.proxy.cut()
			s.Set("plan", "gold")
			s.Renew("good")
		})
		if lines := answer.Header.Values("Set-Cookie"); answer.StatusCode != 503 || len(lines) > 0 {
			t.Errorf("status = %d, Set-Cookie = %q, want 503 and none", answer.StatusCode, lines)
		}
		c.mustAsk(c.client, wantUser(t, "ann"))
		if alive := s.alive(t); len(alive) != 1 {
			t.Errorf("%d records are left, want 1", len(alive))
		}
	})
}

// SPEC 6.1, 6.2: a server that answers, but not to the question, is down too.
func TestServerThatAnswersWithAnErrorIsDown(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		args   []string // of its command line
		set    [2]string
		loads  bool // it still answers reads
		repair string
	}{
		{"out of memory", nil, [2]string{"maxmemory", "1"}, true, "0"},
		{"wants a password", nil, [2]string{"requirepass", "a password"}, false, ""},
		{"wants replicas", nil, [2]string{"min-replicas-to-write", "3"}, true, "0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := servers.NewRedis(t, test.args...)
			rdb := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetryBackoff: time.Millisecond})
			defer rdb.Close()
			admin := server.Client()
			defer admin.Close()
			var j journal
			c := newCrowd(t, newManager(t, j.options(2*time.Second), sessplus.Config{CookieName: "s", Backend: sessplus.Redis(rdb)}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann the secret") })
			jar := c.jar(c.client)
			conn := admin.Conn()
			defer conn.Close()
			if err := conn.ConfigSet(t.Context(), test.set[0], test.set[1]).Err(); err != nil {
				t.Fatal(err)
			}
			conn.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes")
			ran := false
			answer := c.askWith(c.client, func(s *sessplus.Session) {
				ran = true
				wantUser(t, "ann the secret")(s)
				s.Set("user", "a late value")
			})
			if answer.StatusCode != 503 || ran != test.loads {
				t.Errorf("status = %d, handler ran: %v, want 503, %v", answer.StatusCode, ran, test.loads)
			}
			j.mustWarn(t)
			j.keepsSecret(t, []*reply{answer}, jar["s"], "ann the secret", "a late value", "a password")
			if err := conn.ConfigSet(t.Context(), test.set[0], test.repair).Err(); err != nil {
				t.Fatal(err)
			}
			c.mustAsk(c.client, wantUser(t, "ann the secret"))
		})
	}
}

// SPEC 6.2: a server that dies has stored nothing of a save that failed.
func TestServerThatIsKilledAtSaveKeepsItsRecords(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := server.Client()
	defer rdb.Close()
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Second}, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(rdb)}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	answer := c.askWith(c.client, func(s *sessplus.Session) {
		server.Kill()
		s.Set("user", "bob")
	})
	if answer.StatusCode != 503 {
		t.Errorf("status = %d, want 503", answer.StatusCode)
	}
	server.Restart(t)
	c.eventually(c.client, wantUser(t, "ann"))
}

// SPEC 6.2, 6.7: the answer to the last step of a renewal is lost. Whatever became of it, the visitor keeps the
// session.
func TestRenewalWhoseAnswerIsLostKeepsTheSession(t *testing.T) {
	t.Parallel()
	behindProxy(t, func(t *testing.T, f faulty) {
		b := &recorder{Backend: f.backend}
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 4 * time.Second}, sessplus.Config{CookieName: "s", Backend: b}))
		dead := func(key string) bool {
			_, err := f.direct.Load(context.Background(), key)
			return errors.Is(err, sessplus.ErrNoRecord)
		}
		for range 2 { // the first one makes Redis learn the scripts
			visitor := c.visitor()
			c.mustAsk(visitor, func(s *sessplus.Session) { s.Set("user", "ann") })
			old := b.newest()
			c.mustAsk(visitor, func(s *sessplus.Session) { s.Renew() })
			if !dead(old) {
				t.Fatal("the old record is there after a renewal")
			}
		}
		visitor := c.visitor()
		c.mustAsk(visitor, func(s *sessplus.Session) { s.Set("user", "ann") })
		old := b.newest()
		var muted atomic.Bool
		b.setHook(func(_ context.Context, op string) error {
			if op != "take" {
				return nil
			}
			reads := 0
			f.proxy.watch(func(sent []byte) proxyMode {
				if reads < 0 || !bytes.Contains(sent, []byte(old)) {
					return proxyServe
				}
				if reads++; reads == 1 && !bytes.Contains(sent, []byte("evalsha")) { // Firestore reads, then writes
					return proxyServe
				}
				reads = -1
				muted.Store(true)
				return proxyMute
			})
			return nil
		})
		slow := c.begin(visitor, func(s *sessplus.Session) { s.Renew() })
		close(slow.goOn)
		servers.WaitFor(t, "the old record is taken", 10*time.Second, muted.Load)
		time.Sleep(50 * time.Millisecond)
		f.proxy.watch(nil)
		f.proxy.cut()
		f.proxy.set(proxyServe)
		answer := <-slow.answer
		if answer.StatusCode != 200 && answer.StatusCode != 503 {
			t.Errorf("status = %d, want 200 or 503", answer.StatusCode)
		}
		c.eventually(visitor, wantUser(t, "ann"))
	})
}

// SPEC 6.7
func TestOutageShorterThanTheTimeoutIsNotNoticed(t *testing.T) {
	t.Parallel()
	behindProxy(t, func(t *testing.T, f faulty) {
		t.Parallel()
		for _, length := range []time.Duration{300 * time.Millisecond, 4 * time.Second} {
			t.Run(length.String(), func(t *testing.T) {
				if length > time.Second {
					slow(t)
				}
				c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 20 * time.Second}, sessplus.Config{CookieName: "s", Backend: f.backend}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
				outage := func() {
					f.proxy.set(proxyRefuse)
					f.proxy.cut()
					time.AfterFunc(length, func() { f.proxy.set(proxyServe) })
				}
				outage()
				c.mustAsk(c.client, wantUser(t, "ann"))
				c.mustAsk(c.client, func(s *sessplus.Session) {
					outage()
					s.Set("user", "bob")
				})
				c.mustAsk(c.client, wantUser(t, "bob"))
			})
		}
	})
}

// SPEC 6.7: a real restart, with the scripts gone and the records kept.
func TestRestartOfRedisIsNotNoticed(t *testing.T) {
	server := servers.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := server.Client()
	defer rdb.Close()
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 20 * time.Second},
		sessplus.Config{CookieName: "a", Backend: sessplus.Redis(rdb), Fields: sessplus.Include("user")},
		sessplus.Config{CookieName: "b", Backend: sessplus.Redis(rdb), Fields: sessplus.Include("plan")}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("plan", "free") })
	server.Kill()
	answers := make(chan *reply)
	go func() {
		answers <- c.askWith(c.client, func(s *sessplus.Session) {
			wantUser(t, "ann")(s)
			s.Set("user", "bob")
			s.Set("plan", "gold")
		})
	}()
	server.Restart(t)
	if answer := <-answers; answer.StatusCode != 200 {
		t.Fatalf("status = %d, want 200", answer.StatusCode)
	}
	c.mustAsk(c.client, func(s *sessplus.Session) {
		wantUser(t, "bob")(s)
		if got := s.Get("plan"); got != "gold" {
			t.Errorf("plan = %v, want gold", got)
		}
	})
}
