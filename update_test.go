package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

const counter sessplus.Field[int] = "counter"

func increment(n int) int { return n + 1 }

// SPEC 4.5: several managers and many clients, as on several machines.
func TestConcurrentUpdatesAddUp(t *testing.T) {
	t.Parallel()
	sizes := map[string]struct{ clients, each int }{
		"memory": {40, 25}, "redis": {40, 25}, "autopipeline": {40, 25}, "firestore": {20, 10},
	}
	for _, backend := range backends {
		t.Run(backend.name, func(t *testing.T) {
			size := sizes[backend.name]
			size.each = times(size.each)
			b := backend.open(t)
			var crowds []*crowd
			for range 3 {
				crowds = append(crowds, newCrowd(t, newManager(t, &sessplus.Options{Timeout: 2 * time.Minute},
					sessplus.Config{CookieName: "s", Backend: b})))
			}
			first := crowds[0]
			first.mustAsk(first.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			jar := first.jar(first.client)
			var wg sync.WaitGroup
			for i := range size.clients {
				c := crowds[i%len(crowds)]
				client := c.withCookies(jar)
				wg.Go(func() {
					for range size.each {
						c.askWith(client, func(s *sessplus.Session) {
							if _, err := counter.Update(s, increment); err != nil {
								t.Errorf("Update() = %v", err)
							}
						})
					}
				})
			}
			wg.Wait()
			first.mustAsk(first.client, func(s *sessplus.Session) {
				if got, want := counter.Get(s), size.clients*size.each; got != want {
					t.Errorf("counter = %d, want %d", got, want)
				}
			})
		})
	}
}

// The environment variables that make the test binary one of several processes of a program.
const (
	workerRedis  = "SESSPLUS_TEST_WORKER_REDIS"
	workerDB     = "SESSPLUS_TEST_WORKER_DB"
	workerCookie = "SESSPLUS_TEST_WORKER_COOKIE"
	workerCount  = "SESSPLUS_TEST_WORKER_COUNT"
)

// SPEC 4.5: several processes of the operating system.
func TestUpdatesOfSeveralProcessesAddUp(t *testing.T) {
	t.Parallel()
	const processes, clients, each = 4, 5, 50
	r := servers.Redis(t)
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(r)}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range processes {
		cmd := exec.Command(program, "-test.run=^TestUpdateWorker$", "-test.count=1")
		cmd.Env = append(os.Environ(), workerRedis+"="+r.Options().Addr, workerDB+"="+strconv.Itoa(r.Options().DB),
			workerCookie+"="+c.jar(c.client)["s"], fmt.Sprintf("%s=%d", workerCount, each))
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
				t.Errorf("a process ended with %v: %s", err, out)
			}
		})
	}
	wg.Wait()
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got, want := counter.Get(s), processes*clients*each; got != want {
			t.Errorf("counter = %d, want %d", got, want)
		}
	})
}

// TestUpdateWorker is a process of TestUpdatesOfSeveralProcessesAddUp.
func TestUpdateWorker(t *testing.T) {
	t.Parallel()
	addr := os.Getenv(workerRedis)
	if addr == "" {
		t.Skip("runs in a process of TestUpdatesOfSeveralProcessesAddUp")
	}
	db, _ := strconv.Atoi(os.Getenv(workerDB))
	each, _ := strconv.Atoi(os.Getenv(workerCount))
	r := redis.NewClient(&redis.Options{Addr: addr, DB: db})
	defer r.Close()
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Minute}, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(r)}))
	var wg sync.WaitGroup
	for range 5 {
		client := c.withCookies(map[string]string{"s": os.Getenv(workerCookie)})
		wg.Go(func() {
			for range each {
				c.askWith(client, func(s *sessplus.Session) {
					if _, err := counter.Update(s, increment); err != nil {
						t.Errorf("Update() = %v", err)
					}
				})
			}
		})
	}
	wg.Wait()
}

// SPEC 4.5: the function sees the stored value, and the commit does not put an older one back.
func TestUpdateSeesWhatOthersStored(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { counter.Set(s, 1) })
		updated, goOn, answer := make(chan struct{}), make(chan struct{}), make(chan *reply)
		slow := c.begin(c.client, func(s *sessplus.Session) {
			s.Set("other", true)
			calls := 0
			n, err := counter.Update(s, func(n int) int { calls++; return n * 10 })
			if n != 20 || err != nil {
				t.Errorf("Update() = %d, %v, want 20, nil", n, err)
			}
			if calls < 2 {
				t.Errorf("the function was called %d times, want it again with the new value", calls)
			}
			if got := counter.Get(s); got != 20 {
				t.Errorf("Get() = %d after Update, want 20", got)
			}
			close(updated)
			<-goOn
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { counter.Set(s, 2) })
		go func() { answer <- slow.finish() }()
		<-updated
		// Saved at once: others see it, and change it, before the commit.
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if n, err := counter.Update(s, increment); n != 21 || err != nil {
				t.Errorf("Update() = %d, %v, want 21, nil", n, err)
			}
		})
		close(goOn)
		if r := <-answer; r.StatusCode != 200 {
			t.Errorf("status = %d, want 200", r.StatusCode)
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := counter.Get(s); got != 21 || !s.GetBool("other") {
				t.Errorf("counter = %d, other = %v, want 21, true", got, s.Get("other"))
			}
		})
	})
}

// SPEC 4.5
func TestUpdateWithoutARecordIsAPlainChange(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		config func(b sessplus.Backend) sessplus.Config
		before func(s *sessplus.Session)
		want   int
	}{
		{"session not saved yet", func(b sessplus.Backend) sessplus.Config { return sessplus.Config{Backend: b} }, nil, 1},
		{"session not saved yet, field set", func(b sessplus.Backend) sessplus.Config { return sessplus.Config{Backend: b} },
			func(s *sessplus.Session) { counter.Set(s, 5) }, 6},
		{"secure cookie", func(sessplus.Backend) sessplus.Config { return sessplus.Config{} }, nil, 1},
		{"secure cookie, field set", func(sessplus.Backend) sessplus.Config { return sessplus.Config{} },
			func(s *sessplus.Session) { counter.Set(s, 5) }, 6},
	}
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				config := test.config(b)
				config.CookieName = "s"
				var w *recorder
				if b == config.Backend {
					w = &recorder{Backend: b}
					config.Backend = w
				}
				c := newCrowd(t, newManager(t, nil, config))
				update := func(s *sessplus.Session, want int) {
					if n, err := counter.Update(s, increment); n != want || err != nil {
						t.Errorf("Update() = %d, %v, want %d, nil", n, err, want)
					}
				}
				r := c.mustAsk(c.client, func(s *sessplus.Session) {
					if test.before != nil {
						test.before(s)
					}
					update(s, test.want)
					if w != nil && slices.ContainsFunc(w.ops(), func(op string) bool { return op != "load" }) {
						t.Error("a record was written before the commit")
					}
				})
				if lines := r.setCookies("s"); len(lines) != 1 {
					t.Errorf("Set-Cookie = %q, want one", lines)
				}
				c.mustAsk(c.client, func(s *sessplus.Session) { update(s, test.want+1) })
				c.mustAsk(c.client, func(s *sessplus.Session) {
					if got := counter.Get(s); got != test.want+1 {
						t.Errorf("counter = %d, want %d", got, test.want+1)
					}
				})
			})
		}
	})
}

// SPEC 4.5
func TestUpdateOfUnusualFields(t *testing.T) {
	t.Parallel()
	m := newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), Fields: sessplus.Include("counter")})
	c := newCrowd(t, m)
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("counter", "a text") })
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if n, err := counter.Update(s, increment); n != 0 || err == nil {
			t.Errorf("Update() of a text = %d, %v, want 0 and an error", n, err)
		}
		s.Delete("counter")
		if n, err := counter.Update(s, increment); n != 1 || err != nil {
			t.Errorf("Update() of what this request has deleted = %d, %v, want 1, nil", n, err)
		}
		if _, err := sessplus.Field[int]("nobody's").Update(s, increment); !errors.Is(err, sessplus.ErrNoOwner) {
			t.Errorf("Update() of a field without owner = %v, want ErrNoOwner", err)
		}
		if _, err := sessplus.Field[any]("counter").Update(s, func(any) any { return make(chan int) }); err == nil {
			t.Error("Update() to a value that cannot be encoded = nil, want an error")
		}
	})
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := counter.Get(s); got != 1 {
			t.Errorf("counter = %d, want 1", got)
		}
	})
}

// SPEC 2.6, 4.5: what this request has set or deleted and not saved comes before what is stored.
func TestUpdateOfAnUnsavedChange(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		for _, tt := range []struct {
			name   string
			change func(s *sessplus.Session)
			want   int
		}{
			{"set", func(s *sessplus.Session) { counter.Set(s, 10) }, 11},
			{"deleted", func(s *sessplus.Session) { counter.Delete(s) }, 1},
		} {
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); counter.Set(s, 2) })
			c.mustAsk(c.client, func(s *sessplus.Session) {
				tt.change(s)
				c.mustAsk(c.client, func(s *sessplus.Session) { counter.Set(s, 5) })
				if n, err := counter.Update(s, increment); n != tt.want || err != nil {
					t.Errorf("%s: Update() = %d, %v, want %d, nil", tt.name, n, err, tt.want)
				}
			})
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := counter.Get(s); got != tt.want {
					t.Errorf("%s: counter = %d, want %d", tt.name, got, tt.want)
				}
			})
		}
	})
}

// SPEC 4.5, 4.7: an Update of one goroutine, while another saves a renewal, is neither lost nor told that the session
// has ended.
func TestUpdateBesideARenewal(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		spied := &recorder{Backend: b}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: spied}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		c.mustAsk(c.client, func(s *sessplus.Session) {
			var wg sync.WaitGroup
			var err error
			spied.setAfter(func(op string) error {
				if op == "take" { // the old record is gone, and the session does not know the new one yet
					wg.Go(func() { _, err = counter.Update(s, increment) })
					time.Sleep(100 * time.Millisecond)
				}
				return nil
			})
			s.Renew()
			saved := s.Save()
			wg.Wait()
			if saved != nil || err != nil {
				t.Errorf("Save() = %v, Update() = %v, want nil", saved, err)
			}
		})
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.GetString("user") != "ann" || counter.Get(s) != 1 {
				t.Errorf("user = %q, counter = %d, want ann, 1", s.GetString("user"), counter.Get(s))
			}
		})
	})
}

// SPEC 4.2, 4.5
func TestUpdateOfAnEndedSession(t *testing.T) {
	t.Parallel()
	onEveryEnding(t, func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool) {
		c := newCrowd(t, newManager(t, nil, config))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		late := sessplus.Field[int]("late")
		slow := c.begin(c.client, func(s *sessplus.Session) {
			for range 2 {
				if n, err := late.Update(s, increment); n != 0 || !errors.Is(err, sessplus.ErrSessionGone) {
					t.Errorf("Update() = %d, %v, want 0, ErrSessionGone", n, err)
				}
			}
		})
		end(c)
		before, jar := b.alive(t), c.jar(c.client)
		staysEnded(t, c, b, before, jar, kept, slow.finish())
	})
}

// SPEC 4.5, 6.7: an answer that is lost, so that it is not known whether the update happened, is not a second update.
func TestUpdateWhoseAnswerIsLostHappensOnce(t *testing.T) {
	t.Parallel()
	behindProxy(t, func(t *testing.T, f faulty) {
		b := &recorder{Backend: f.backend}
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 10 * time.Second}, sessplus.Config{CookieName: "s", Backend: b}))
		for _, warm := range []bool{false, true} { // Redis learns a script with the first call of it
			visitor := c.visitor()
			c.mustAsk(visitor, func(s *sessplus.Session) { s.Set("user", "ann") })
			key := b.newest()
			stored := func() string {
				r, err := f.direct.Load(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range r.Fields {
					if f.Name == string(counter) {
						return string(f.Value)
					}
				}
				return ""
			}
			var err error
			c.ask(visitor, func(w http.ResponseWriter, r *http.Request) {
				s := sessplus.Get(r)
				s.Get("user")
				done := make(chan struct{})
				muted := false
				f.proxy.watch(func(sent []byte) proxyMode {
					if muted || bytes.Contains(sent, []byte("evalsha")) && !warm { // let NOSCRIPT through
						return proxyServe
					}
					muted = true
					return proxyMute
				})
				go func() {
					defer close(done)
					_, err = counter.Update(s, increment)
				}()
				servers.WaitFor(t, "the update is stored", 10*time.Second, func() bool { return stored() == "1" })
				f.proxy.cut()
				f.proxy.set(proxyServe)
				<-done
			})
			f.proxy.watch(nil)
			if got := stored(); got != "1" {
				t.Errorf("warm=%v: counter = %s after one update (its error: %v), want 1", warm, got, err)
			}
			if err != nil && !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("warm=%v: Update() = %v, want nil or ErrUnavailable", warm, err)
			}
		}
	})
}

// SPEC 4.5: an Update that others always come before ends with the timeout.
func TestUpdateGivesUpWithTheTimeout(t *testing.T) {
	const timeout = 300 * time.Millisecond
	b := &recorder{Backend: sessplus.Memory()}
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: timeout}, sessplus.Config{CookieName: "s", Backend: b}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	c.askWith(c.client, func(s *sessplus.Session) {
		until := time.Now().Add(20 * timeout)
		b.setHook(func(_ context.Context, op string) error {
			switch {
			case op != "update":
				return nil
			case time.Now().Before(until):
				return sessplus.ErrConflict // somebody else has just changed it
			}
			return sessplus.ErrNoRecord
		})
		if _, err := counter.Update(s, increment); !errors.Is(err, sessplus.ErrUnavailable) || time.Now().After(until) {
			t.Errorf("Update() = %v, want ErrUnavailable after the timeout", err)
		}
	})
}

// SPEC 4.5: a field that another request removes meanwhile counts as absent.
func TestUpdateOfAFieldThatIsRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { counter.Set(s, 5); s.Set("user", "ann") })
		slow := c.begin(c.client, func(s *sessplus.Session) {
			if n, err := counter.Update(s, increment); n != 1 || err != nil {
				t.Errorf("Update() = %d, %v, want 1, nil", n, err)
			}
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { counter.Delete(s) })
		if answer := slow.finish(); answer.StatusCode != 200 {
			t.Errorf("status = %d, want 200", answer.StatusCode)
		}
	})
}
