package sessplus_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessplus/sessplus/internal/servers"

	"github.com/sessplus/sessplus"
)

// onEveryDeadID lets test have a client that still brings the id of a session which has ended a moment ago.
func onEveryDeadID(t *testing.T, config sessplus.Config, test func(t *testing.T, c *crowd, old *http.Client)) {
	ends := map[string]func(*sessplus.Session){
		"destroyed": func(s *sessplus.Session) { s.Destroy() },
		"renewed":   func(s *sessplus.Session) { s.Renew() },
	}
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				config := config
				config.CookieName, config.Backend = "s", b
				c := newCrowd(t, newManager(t, nil, config))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
				old := c.withCookies(c.jar(c.client))
				c.mustAsk(c.client, end)
				test(t, c, old)
			})
		}
	})
}

// SPEC 3.11
func TestDeadIDIsAbsentAndGetsNoCookie(t *testing.T) {
	t.Parallel()
	onEveryDeadID(t, sessplus.Config{}, func(t *testing.T, c *crowd, old *http.Client) {
		r := c.mustAsk(old, func(s *sessplus.Session) {
			if s.Has("user") || !s.IsNew("s") || s.ID("s") != "" {
				t.Errorf("a dead id reads %v, new %v", s.Values(), s.IsNew("s"))
			}
		})
		if lines := r.setCookies("s"); len(lines) > 0 {
			t.Errorf("a read is answered %q", lines)
		}
		r = c.askWith(old, func(s *sessplus.Session) { s.Set("user", "eve") })
		if lines := r.setCookies("s"); r.StatusCode != http.StatusConflict || len(lines) > 0 {
			t.Errorf("a change is answered %d %q, want 409 and no cookie", r.StatusCode, lines)
		}
		c.mustAsk(old, func(s *sessplus.Session) {
			s.Set("user", "eve")
			if err := s.Save(); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("Save = %v", err)
			}
			s.Delete("user")
			s.Renew()
		})
	})
}

// SPEC 3.11
func TestDeadIDWithDropIfGone(t *testing.T) {
	t.Parallel()
	onEveryDeadID(t, sessplus.Config{DropIfGone: true}, func(t *testing.T, c *crowd, old *http.Client) {
		r := c.mustAsk(old, func(s *sessplus.Session) { s.Set("user", "eve") })
		if lines := r.setCookies("s"); len(lines) > 0 {
			t.Errorf("a change is answered %q", lines)
		}
		c.mustAsk(old, func(s *sessplus.Session) {
			if s.Has("user") {
				t.Error("what was dropped has been saved")
			}
		})
	})
}

// SPEC 3.11
func TestLoginAndLogoutBeginAfreshFromADeadID(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*sessplus.Session){
		"Renew":       func(s *sessplus.Session) { s.Renew() },
		"Destroy":     func(s *sessplus.Session) { s.Destroy() },
		"after a Set": func(s *sessplus.Session) { s.Set("step", 1); s.Renew() },
	} {
		t.Run(name, func(t *testing.T) {
			onEveryDeadID(t, sessplus.Config{}, func(t *testing.T, c *crowd, old *http.Client) {
				before := c.jar(old)["s"]
				r := c.mustAsk(old, func(s *sessplus.Session) {
					begin(s)
					s.Set("login", "bob")
				})
				if len(r.setCookies("s")) != 1 || c.jar(old)["s"] == before {
					t.Fatalf("the answer has %q", r.setCookies("s"))
				}
				c.mustAsk(old, func(s *sessplus.Session) {
					if s.GetString("login") != "bob" || s.Has("user") {
						t.Errorf("the new session holds %v", s.Values())
					}
				})
			})
		})
	}
}

var burstRounds = flag.Int("burst.rounds", 0, "how many logins in the midst of a burst are tried; 0: a few")

// SPEC 3.11: a browser sends six requests at once, one of them is the login.
func TestBurstAroundALoginLogsNobodyOut(t *testing.T) {
	t.Parallel()
	rounds := map[string]int{"memory": 40, "redis": 40, "autopipeline": 40, "firestore": 8}
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		n := *burstRounds
		if n == 0 {
			n = times(rounds[strings.TrimPrefix(t.Name(), "TestBurstAroundALoginLogsNobodyOut/")])
		}
		refused := atomic.Int64{}
		for round := range n {
			browser := c.visitor()
			c.mustAsk(browser, func(s *sessplus.Session) { s.Set("visited", true) })
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() {
					if i == round%6 {
						c.mustAsk(browser, func(s *sessplus.Session) {
							s.Renew()
							s.Set("user", round)
						})
						return
					}
					r := c.askWith(browser, func(s *sessplus.Session) { s.Set(fmt.Sprint("f", i), round) })
					if r.StatusCode != http.StatusOK && r.StatusCode != http.StatusConflict {
						t.Errorf("a request beside the login is answered %d", r.StatusCode)
					}
					if r.StatusCode == http.StatusConflict {
						refused.Add(1)
					}
				})
			}
			wg.Wait()
			c.mustAsk(browser, func(s *sessplus.Session) {
				if s.GetInt("user") != round || !s.Has("user") {
					t.Errorf("round %d: after the burst the session holds %v", round, s.Values())
				}
			})
		}
		t.Logf("%d bursts of 6, %d of %d changes beside the logins were refused", n, refused.Load(), 5*n)
	})
}

// SPEC 3.11: the login form is sent twice, both answers log in.
func TestLoginFormSentTwice(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		second := sessplus.Memory()
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user", "cart")},
			sessplus.Config{CookieName: "t", Backend: second, Fields: sessplus.Auto()}))
		for round := range times(20) {
			browser := c.visitor()
			c.mustAsk(browser, func(s *sessplus.Session) { s.Set("cart", 1); s.Set("other", 1) })
			cookies := c.jar(browser)
			var wg sync.WaitGroup
			for range 2 {
				mine := c.withCookies(cookies)
				wg.Go(func() {
					r := c.askWith(mine, func(s *sessplus.Session) {
						s.Renew()
						s.Set("user", "ann")
						s.Set("since", round)
					})
					if r.StatusCode != http.StatusOK {
						t.Errorf("a login is answered %d", r.StatusCode)
						return
					}
					c.mustAsk(mine, func(s *sessplus.Session) {
						if s.GetString("user") != "ann" || s.GetInt("since") != round {
							t.Errorf("after a login the session holds %v", s.Values())
						}
					})
				})
			}
			wg.Wait()
		}
	})
}

// SPEC 4.2: a Destroy that comes between the takes of a renewal of two cookies that fails.
func TestUndoneRenewalDoesNotUndoALogout(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, when := range []string{"take", "end"} {
			t.Run(when, func(t *testing.T) {
				first, second := &recorder{Backend: b}, &recorder{Backend: sessplus.Memory()}
				c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: first, Fields: sessplus.Include("user")},
					sessplus.Config{CookieName: "t", Backend: second, Fields: sessplus.Auto()}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("other", 1) })
				old := c.withCookies(c.jar(c.client))
				var once sync.Once
				second.setHook(func(_ context.Context, op string) error {
					if op != when {
						return nil
					}
					time.Sleep(50 * time.Millisecond) // the first backend is done with its step
					once.Do(func() {
						second.setHook(nil)
						c.mustAsk(old, func(s *sessplus.Session) { s.Destroy() })
					})
					return errDown
				})
				r := c.askWith(c.client, func(s *sessplus.Session) { s.Renew() })
				if r.StatusCode == http.StatusOK {
					t.Fatal("a renewal whose backend is down is answered 200")
				}
				c.mustAsk(old, func(s *sessplus.Session) {
					if s.Has("user") || s.Has("other") {
						t.Errorf("after a logout the session holds %v", s.Values())
					}
				})
			})
		}
	})
}

// SPEC 6.2: the record is taken, and the answer to that is lost.
func TestLostAnswerOfATakeLeavesTheSession(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, step := range []string{"take", "end"} {
			t.Run(step, func(t *testing.T) {
				lossy := &recorder{Backend: b}
				c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: lossy}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
				lossy.setAfter(func(op string) error {
					if op == step {
						lossy.setAfter(nil)
						return errors.New("the answer is lost")
					}
					return nil
				})
				if r := c.askWith(c.client, func(s *sessplus.Session) { s.Renew() }); r.StatusCode != http.StatusServiceUnavailable {
					t.Fatalf("the renewal is answered %d", r.StatusCode)
				}
				c.mustAsk(c.client, func(s *sessplus.Session) {
					if s.GetString("user") != "ann" {
						t.Errorf("the session holds %v", s.Values())
					}
					s.Set("more", 1)
				})
			})
		}
	})
}

// SPEC 3.11, SPEC 4.2: a logout that comes after a renewal has ended the old id ends what that has become.
func TestLogoutEndsWhatTheOldIDHasBecome(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, lazy := range []bool{false, true} {
			c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Lazy: lazy}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			old := c.withCookies(c.jar(c.client))
			slow := c.begin(old, func(s *sessplus.Session) { s.Destroy() })
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew() })
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew() })
			if r := slow.finish(); r.StatusCode != http.StatusOK {
				t.Fatalf("the logout is answered %d", r.StatusCode)
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if s.Has("user") {
					t.Errorf("lazy %v: after the logout the renewed session holds %v", lazy, s.Values())
				}
			})
		}
	})
}

// While a renewal is under way, and may fail yet, another tab has its session, and what it saves is not lost
// (SPEC 4.1).
func TestRenewalUnderWayHidesNothing(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, fails := range []bool{true, false} {
			t.Run(fmt.Sprint("fails ", fails), func(t *testing.T) {
				second := &recorder{Backend: sessplus.Memory()}
				c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user", "tab")},
					sessplus.Config{CookieName: "t", Backend: second, Fields: sessplus.Auto()}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("other", 1) })
				tab := c.withCookies(c.jar(c.client))
				entered, goOn := make(chan struct{}), make(chan struct{})
				second.setHook(func(_ context.Context, op string) error {
					if op == "end" || op == "release" {
						return nil
					}
					if op == "take" {
						close(entered)
						<-goOn
						if fails {
							return errDown
						}
					}
					return nil
				})
				answer := make(chan *reply, 1)
				go func() { answer <- c.askWith(c.client, func(s *sessplus.Session) { s.Renew() }) }()
				<-entered
				time.Sleep(50 * time.Millisecond)
				c.mustAsk(tab, func(s *sessplus.Session) {
					if s.GetString("user") != "ann" {
						t.Errorf("meanwhile the session holds %v", s.Values())
					}
				})
				saved := make(chan *reply, 1)
				go func() { saved <- c.askWith(tab, func(s *sessplus.Session) { s.Set("tab", 1) }) }()
				time.Sleep(50 * time.Millisecond)
				close(goOn)
				renewal, tabbed := <-answer, <-saved
				wantRenewal, wantTab := http.StatusOK, http.StatusConflict
				if fails {
					wantRenewal, wantTab = http.StatusServiceUnavailable, http.StatusOK
				}
				if renewal.StatusCode != wantRenewal || tabbed.StatusCode != wantTab {
					t.Errorf("renewal and save are answered %d and %d, want %d and %d", renewal.StatusCode, tabbed.StatusCode, wantRenewal, wantTab)
				}
				c.mustAsk(c.client, func(s *sessplus.Session) {
					if s.GetString("user") != "ann" || s.Has("tab") != fails {
						t.Errorf("afterwards the session holds %v", s.Values())
					}
				})
			})
		}
	})
}

// SPEC 4.3: a record that was there is never taken for one's own.
func TestRecordThatExistsIsNotOnesOwn(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var clashes atomic.Int32
		clashing := &clashingBackend{Backend: b, clashes: &clashes}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: clashing, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", BoundTo: "s", Fields: sessplus.Auto()}))
		clashes.Store(3)
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("color", "red") })
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.GetString("user") != "ann" || s.GetString("color") != "red" {
				t.Errorf("the session holds %v", s.Values())
			}
		})
		if clashes.Load() > 0 {
			t.Error("the record was taken for one's own")
		}
		clashes.Store(1 << 20)
		if r := c.askWith(c.visitor(), func(s *sessplus.Session) { s.Set("user", "eve") }); r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("where every id is taken the answer is %d", r.StatusCode)
		}
	})
}

// A clashingBackend has a record already under the next ids.
type clashingBackend struct {
	sessplus.Backend
	clashes *atomic.Int32
}

func (b *clashingBackend) Create(ctx context.Context, key string, r *sessplus.Record) error {
	if b.clashes.Add(-1) >= 0 {
		other := *r
		other.Fields = []sessplus.RawField{{Name: "user", Value: []byte(`"somebody else"`)}}
		if err := b.Backend.Create(ctx, key, &other); err != nil {
			return err
		}
	}
	return b.Backend.Create(ctx, key, r)
}

// SPEC 3.11, 4.2: a login whose session is ended while its request runs begins afresh: nothing of the old session comes
// back, not what was bound to it either.
func TestLoginBesideALogoutBringsNothingBack(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Exclude("color", "size")},
			sessplus.Config{CookieName: "bound", BoundTo: "s", Fields: sessplus.Include("color", "size")}))
		for name, end := range map[string]func(*sessplus.Session){
			"Destroy": func(s *sessplus.Session) { s.Destroy() },
			"Renew":   func(s *sessplus.Session) { s.Set("seen", 1); s.Renew() },
		} {
			client := c.visitor()
			c.mustAsk(client, func(s *sessplus.Session) {
				s.Set("user", "ann")
				s.Set("color", "red")
				s.SetPermanent("s", true)
			})
			slow := c.begin(client, func(s *sessplus.Session) {
				s.Renew()
				s.Set("login", "bob")
				s.Set("size", 3)
			})
			c.mustAsk(c.withCookies(c.jar(client)), end)
			if r := slow.finish(); r.StatusCode != http.StatusOK {
				t.Fatalf("%s: the login is answered %d %q", name, r.StatusCode, r.body)
			}
			c.mustAsk(client, func(s *sessplus.Session) {
				if got := fmt.Sprint(s.Values()); got != "map[login:bob size:3]" || s.Permanent("s") {
					t.Errorf("%s: the new session holds %s, permanent %v", name, got, s.Permanent("s"))
				}
			})
		}
	})
}

// endings are the ways in which a session ends while a request that has loaded it runs.
var endings = []struct {
	name   string
	config sessplus.Config
	end    func(c *crowd)
	kept   bool // the browser has a session afterwards
}{
	{"destroyed", sessplus.Config{}, func(c *crowd) {
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy() })
	}, false},
	{"renewed", sessplus.Config{}, func(c *crowd) {
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew() })
	}, true},
	{"destroyed, with idle timeout and age", sessplus.Config{IdleTimeout: 3 * time.Second, MaxAge: time.Hour}, func(c *crowd) {
		time.Sleep(350 * time.Millisecond) // so that a touch is due
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy() })
	}, false},
	{"renewed, with idle timeout and age", sessplus.Config{IdleTimeout: 3 * time.Second, MaxAge: time.Hour}, func(c *crowd) {
		time.Sleep(350 * time.Millisecond)
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew() })
	}, true},
	{"past its lifetime", sessplus.Config{Lifetime: 1500 * time.Millisecond}, func(*crowd) { time.Sleep(1600 * time.Millisecond) }, false},
	{"past its idle timeout", sessplus.Config{IdleTimeout: 1500 * time.Millisecond}, func(*crowd) { time.Sleep(1600 * time.Millisecond) }, false},
}

// onEveryEnding runs the test on every backend for every ending.
func onEveryEnding(t *testing.T, test func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool)) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, e := range endings {
			t.Run(e.name, func(t *testing.T) {
				t.Parallel()
				e.config.CookieName = "s"
				s := &recorder{Backend: b}
				e.config.Backend = s
				test(t, s, e.config, e.end, e.kept)
			})
		}
	})
}

// staysEnded fails the test unless what the slow request left behind is what was there before it ended.
func staysEnded(t *testing.T, c *crowd, b *recorder, before []string, jar map[string]string, kept bool, answer *reply) {
	t.Helper()
	if lines := answer.Header.Values("Set-Cookie"); len(lines) > 0 {
		t.Errorf("Set-Cookie = %q, want none", lines)
	}
	if got := c.jar(c.client); fmt.Sprint(got) != fmt.Sprint(jar) {
		t.Error("the browser's cookies have changed")
	}
	for _, record := range b.alive(t) { // one of an earlier test may expire meanwhile
		if !slices.Contains(before, record) {
			t.Errorf("there is the record %q, before there were %q", record, before)
		}
	}
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.GetString("user"); (got == "ann") != kept {
			t.Errorf("user = %q in the next request, want it there: %v", got, kept)
		}
		if s.Has("late") {
			t.Error("the late change is there in the next request")
		}
	})
}

// SPEC 4.2
func TestEndedSessionRefusesALateSave(t *testing.T) {
	t.Parallel()
	changes := []struct {
		name   string
		change func(*sessplus.Session)
	}{
		{"set", func(s *sessplus.Session) { s.Set("late", true) }},
		{"delete", func(s *sessplus.Session) { s.Delete("user") }},
		{"renew", func(s *sessplus.Session) { s.Renew() }},
		{"permanent", func(s *sessplus.Session) { s.SetPermanent("s", true) }},
	}
	for _, change := range changes {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			onEveryEnding(t, func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool) {
				c := newCrowd(t, newManager(t, nil, config))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
				slow := c.begin(c.client, change.change)
				end(c)
				before, jar := b.alive(t), c.jar(c.client)
				answer := slow.finish()
				want := http.StatusConflict
				if change.name == "renew" { // it has nothing to lose
					want = http.StatusOK
				}
				if answer.StatusCode != want {
					t.Errorf("status = %d, want %d", answer.StatusCode, want)
				}
				staysEnded(t, c, b, before, jar, kept, answer)
			})
		})
	}
}

// SPEC 4.2
func TestSaveAndReloadTellOfAnEndedSession(t *testing.T) {
	t.Parallel()
	onEveryEnding(t, func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool) {
		c := newCrowd(t, newManager(t, nil, config))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		saver := c.begin(c.client, func(s *sessplus.Session) {
			s.Set("late", true)
			if err := s.Save(); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("Save() = %v, want ErrSessionGone", err)
			}
		})
		reloader := c.begin(c.client, func(s *sessplus.Session) {
			if err := s.Reload(); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("Reload() = %v, want ErrSessionGone", err)
			}
			if got := s.Get("user"); got != nil {
				t.Errorf("user = %v after Reload, want it absent", got)
			}
		})
		end(c)
		before, jar := b.alive(t), c.jar(c.client)
		staysEnded(t, c, b, before, jar, kept, saver.finish())
		staysEnded(t, c, b, before, jar, kept, reloader.finish())
	})
}

// SPEC 4.2
func TestEndedSessionDropsALateSaveIfTheConfigSaysSo(t *testing.T) {
	t.Parallel()
	onEveryEnding(t, func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool) {
		var j journal
		config.DropIfGone = true
		c := newCrowd(t, newManager(t, j.options(0), config))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		slow := c.begin(c.client, func(s *sessplus.Session) { s.Set("late", "a late value") })
		end(c)
		before, jar := b.alive(t), c.jar(c.client)
		j.kinds("s")
		answer := slow.finish()
		if answer.StatusCode != 200 {
			t.Errorf("status = %d, want 200", answer.StatusCode)
		}
		if kinds := j.kinds("s"); !slices.Equal(kinds, []sessplus.EventKind{sessplus.EventError}) {
			t.Errorf("events = %v, want one error", kinds)
		}
		j.mustWarn(t)
		j.keepsSecret(t, nil, "a late value", jar["s"])
		staysEnded(t, c, b, before, jar, kept, answer)
	})
}

// SPEC 4.2
func TestReaderOfAnEndedSessionSucceedsAndTouchesNothing(t *testing.T) {
	t.Parallel()
	onEveryEnding(t, func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool) {
		c := newCrowd(t, newManager(t, nil, config))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		slow := c.begin(c.client, func(s *sessplus.Session) { s.Get("user") })
		end(c)
		before, jar := b.alive(t), c.jar(c.client)
		answer := slow.finish()
		if answer.StatusCode != 200 {
			t.Errorf("status = %d, want 200", answer.StatusCode)
		}
		staysEnded(t, c, b, before, jar, kept, answer)
	})
}

// SPEC 4.2, 3.10: a reader whose cookie an older key has signed is about to send it again.
func TestReaderOfAnEndedSessionDoesNotSignItsIDAgain(t *testing.T) {
	t.Parallel()
	onEveryEnding(t, func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool) {
		config.SignID = true
		c := newCrowd(t, newManager(t, nil, config))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })

		keys := append([]sessplus.KeyPair{sessplus.GenerateKeyPair()}, testKeys...)
		rotated := newCrowd(t, newManager(t, &sessplus.Options{Keys: keys}, config))
		rotated.client = rotated.withCookies(c.jar(c.client))
		slow := rotated.begin(rotated.client, func(s *sessplus.Session) { s.Get("user") })
		end(rotated)
		before, jar := b.alive(t), rotated.jar(rotated.client)
		staysEnded(t, rotated, b, before, jar, kept, slow.finish())
	})
}

// SPEC 4.2, 7.7
func TestEndedSessionTakesItsBoundCookieAlong(t *testing.T) {
	t.Parallel()
	for _, drop := range []bool{false, true} {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("drop=%v both=%v", drop, both), func(t *testing.T) {
				t.Parallel()
				onEveryEnding(t, func(t *testing.T, b *recorder, config sessplus.Config, end func(*crowd), kept bool) {
					config.Fields, config.DropIfGone = sessplus.Include("user", "late"), drop
					c := newCrowd(t, newManager(t, nil, config,
						sessplus.Config{CookieName: "bound", BoundTo: "s", Fields: sessplus.Include("cart")}))
					c.mustAsk(c.client, func(s *sessplus.Session) {
						s.Set("user", "ann")
						s.Set("cart", "apples")
					})
					slow := c.begin(c.client, func(s *sessplus.Session) {
						s.Set("cart", "pears")
						if both {
							s.Set("late", true)
						}
					})
					end(c)
					before, jar := b.alive(t), c.jar(c.client)
					answer := slow.finish()
					if answer.StatusCode == 200 && !drop {
						t.Error("status = 200, want an error: the field could not be set")
					}
					staysEnded(t, c, b, before, jar, kept, answer)
					c.mustAsk(c.client, func(s *sessplus.Session) {
						want := ""
						if kept {
							want = "apples"
						}
						if got := s.GetString("cart"); got != want {
							t.Errorf("cart = %q, want %q", got, want)
						}
					})
				})
			})
		}
	}
}

// SPEC 4.2, 3.5, 6.4: a record of Redis that has expired by its own account while a request runs, or lost its expiry,
// is gone, also when Redis still has the key.
func TestLateSaveToAnExpiredRecordThatIsStillStored(t *testing.T) {
	t.Parallel()
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
			b := &recorder{Backend: sessplus.Redis(r)}
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
