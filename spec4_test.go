package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// A spy passes everything on, and remembers the keys. Before a Create it may act.
type spy struct {
	sessplus.Backend
	mu           sync.Mutex
	keys         []string
	writes       int
	beforeCreate func(key string)
	beforeTake   func()
	afterTake    func()
}

func (s *spy) note(key string, write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.keys, key) {
		s.keys = append(s.keys, key)
	}
	if write {
		s.writes++
	}
}

func (s *spy) Create(ctx context.Context, key string, r *sessplus.Record) error {
	if s.beforeCreate != nil {
		s.beforeCreate(key)
	}
	s.note(key, true)
	return s.Backend.Create(ctx, key, r)
}

func (s *spy) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	s.note(key, false)
	return s.Backend.Load(ctx, key)
}

func (s *spy) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	s.note(key, true)
	return s.Backend.Update(ctx, key, c)
}

func (s *spy) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	if e.Step != sessplus.StepTake {
		return s.Backend.End(ctx, key, e)
	}
	if s.beforeTake != nil {
		s.beforeTake()
	}
	r, err := s.Backend.End(ctx, key, e)
	if s.afterTake != nil {
		s.afterTake()
	}
	return r, err
}

// alive returns the records that there are of the keys seen, as text.
func (s *spy) alive(t testing.TB) []string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []string{}
	for _, key := range s.keys {
		r, err := s.Backend.Load(t.Context(), key)
		switch {
		case err == nil:
			slices.SortFunc(r.Fields, func(a, b sessplus.RawField) int { return strings.Compare(a.Name, b.Name) })
			list = append(list, fmt.Sprintf("%s %s", key, r.Fields))
		case !errors.Is(err, sessplus.ErrNoRecord):
			t.Fatal(err)
		}
	}
	return list
}

// SPEC 4.1
func TestChangesOfDifferentFieldsAllStay(t *testing.T) {
	const n = 16
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Minute}, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Set("still", "here")
			for i := range n {
				s.Set(fmt.Sprintf("old%d", i), i)
				s.Set(fmt.Sprintf("changed%d", i), "before")
			}
		})
		var slow []*slowRequest
		for i := range n {
			slow = append(slow, c.begin(c.client, func(s *sessplus.Session) {
				s.Set(fmt.Sprintf("new%d", i), i)
				s.Set(fmt.Sprintf("changed%d", i), "after")
				s.Delete(fmt.Sprintf("old%d", i))
			}))
		}
		for _, r := range slow {
			close(r.goOn)
		}
		for i, r := range slow {
			if answer := <-r.answer; answer.StatusCode != 200 {
				t.Errorf("request %d: status = %d, want 200", i, answer.StatusCode)
			}
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := s.GetString("still"); got != "here" {
				t.Errorf("the field that nobody changed = %q, want %q", got, "here")
			}
			for i := range n {
				if got := s.Get(fmt.Sprintf("new%d", i)); got != int64(i) {
					t.Errorf("new%d = %v, want %d", i, got, i)
				}
				if got := s.Get(fmt.Sprintf("changed%d", i)); got != "after" {
					t.Errorf("changed%d = %v, want after", i, got)
				}
				if name := fmt.Sprintf("old%d", i); s.Has(name) {
					t.Errorf("%s is there, want it deleted", name)
				}
			}
		})
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
	{"past its lifetime", sessplus.Config{Lifetime: 400 * time.Millisecond}, func(*crowd) { time.Sleep(500 * time.Millisecond) }, false},
	{"past its idle timeout", sessplus.Config{IdleTimeout: 400 * time.Millisecond}, func(*crowd) { time.Sleep(500 * time.Millisecond) }, false},
}

// onEveryEnding runs the test on every backend for every ending.
func onEveryEnding(t *testing.T, test func(t *testing.T, b *spy, config sessplus.Config, end func(*crowd), kept bool)) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, e := range endings {
			t.Run(e.name, func(t *testing.T) {
				e.config.CookieName = "s"
				s := &spy{Backend: b}
				e.config.Backend = s
				test(t, s, e.config, e.end, e.kept)
			})
		}
	})
}

// staysEnded fails the test unless what the slow request left behind is what was there before it ended.
func staysEnded(t *testing.T, c *crowd, b *spy, before []string, jar map[string]string, kept bool, answer *reply) {
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
	changes := []struct {
		name   string
		change func(*sessplus.Session)
	}{
		{"set", func(s *sessplus.Session) { s.Set("late", true) }},
		{"delete", func(s *sessplus.Session) { s.Delete("user") }},
		{"renew", func(s *sessplus.Session) { s.Renew() }},
		{"permanent", func(s *sessplus.Session) { s.SetPermanent("s", true) }},
	}
	onEveryEnding(t, func(t *testing.T, b *spy, config sessplus.Config, end func(*crowd), kept bool) {
		for _, change := range changes {
			t.Run(change.name, func(t *testing.T) {
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
		}
	})
}

// SPEC 4.2
func TestSaveAndReloadTellOfAnEndedSession(t *testing.T) {
	onEveryEnding(t, func(t *testing.T, b *spy, config sessplus.Config, end func(*crowd), kept bool) {
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
	onEveryEnding(t, func(t *testing.T, b *spy, config sessplus.Config, end func(*crowd), kept bool) {
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
	onEveryEnding(t, func(t *testing.T, b *spy, config sessplus.Config, end func(*crowd), kept bool) {
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
	onEveryEnding(t, func(t *testing.T, b *spy, config sessplus.Config, end func(*crowd), kept bool) {
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
	for _, drop := range []bool{false, true} {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("drop=%v both=%v", drop, both), func(t *testing.T) {
				onEveryEnding(t, func(t *testing.T, b *spy, config sessplus.Config, end func(*crowd), kept bool) {
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

// SPEC 3.11: of two that renew at once one wins, and the other, which has nothing to lose, leaves no record behind.
func TestOneOfTwoRenewalsWins(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		s := &spy{Backend: b}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: s}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		renew := func(s *sessplus.Session) { s.Renew() }
		one, two := c.begin(c.client, renew), c.begin(c.client, renew)
		close(one.goOn)
		close(two.goOn)
		statuses := []int{(<-one.answer).StatusCode, (<-two.answer).StatusCode}
		slices.Sort(statuses)
		if want := []int{200, 200}; !slices.Equal(statuses, want) {
			t.Errorf("statuses = %v, want %v", statuses, want)
		}
		if alive := s.alive(t); len(alive) != 1 {
			t.Errorf("%d records are left, want 1", len(alive))
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if got := s.Get("user"); got != "ann" {
				t.Errorf("user = %v, want ann", got)
			}
		})
	})
}

// SPEC 4.1, 4.2: what is acknowledged while another request renews is in the renewed session.
func TestRenewalLosesNoAcknowledgedChange(t *testing.T) {
	const rounds, n = 5, 6
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Minute}, sessplus.Config{CookieName: "s", Backend: b}))
		for range rounds {
			visitor := c.visitor()
			c.mustAsk(visitor, func(s *sessplus.Session) { s.Set("user", "ann") })
			var slow []*slowRequest
			for i := range n {
				slow = append(slow, c.begin(visitor, func(s *sessplus.Session) { s.Set(fmt.Sprint("f", i), i) }))
			}
			renewal := c.begin(visitor, func(s *sessplus.Session) { s.Renew() })
			for _, r := range append(slow, renewal) {
				close(r.goOn)
			}
			if answer := <-renewal.answer; answer.StatusCode != 200 {
				t.Fatalf("the renewal's status = %d, want 200", answer.StatusCode)
			}
			for i, r := range slow {
				answer := <-r.answer
				c.mustAsk(visitor, func(s *sessplus.Session) {
					if has := s.Has(fmt.Sprint("f", i)); has != (answer.StatusCode == 200) {
						t.Errorf("a change answered with %d is there: %v", answer.StatusCode, has)
					}
				})
			}
		}
	})
}

// SPEC 4.3
func TestNewRecordReplacesNone(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var taken string
		s := &spy{Backend: b, beforeCreate: func(key string) {
			taken = key
			now := time.Now()
			if err := b.Create(context.Background(), key, &sessplus.Record{
				Created: now, Saved: now, Expires: now.Add(time.Hour), Fields: []sessplus.RawField{{Name: "owner", Value: []byte(`"bob"`)}},
			}); err != nil {
				t.Error(err)
			}
		}}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: s}))
		c.askWith(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		r, err := b.Load(t.Context(), taken)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s", r.Fields); got != `[{owner "bob"}]` {
			t.Errorf("the record that was there is now %s, want it unchanged", got)
		}
	})
}

// SPEC 4.4
func TestLaterSaveOfAFieldWinsWhole(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("prefs", map[string]int{"base": 0}) })
		first := c.begin(c.client, func(s *sessplus.Session) { s.Set("prefs", map[string]int{"base": 0, "one": 1}) })
		second := c.begin(c.client, func(s *sessplus.Session) { s.Set("prefs", map[string]int{"base": 0, "two": 2}) })
		third := c.begin(c.client, func(s *sessplus.Session) { s.Delete("prefs"); s.Set("other", true) })
		for i, step := range []struct {
			slow *slowRequest
			want string
		}{{second, "map[base:0 two:2]"}, {first, "map[base:0 one:1]"}, {third, "<nil>"}} {
			if answer := step.slow.finish(); answer.StatusCode != 200 {
				t.Fatalf("save %d: status = %d, want 200", i, answer.StatusCode)
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := fmt.Sprint(s.Get("prefs")); got != step.want {
					t.Errorf("after save %d prefs = %v, want %v", i, got, step.want)
				}
			})
		}
	})
}

// SPEC 3.4, 4.1: whether a field is the last one is decided where the record is, also by the second save of a request that
// has not seen what others added before its first.
func TestSecondSaveOfARequestKnowsOfOthersFields(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "session", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("a", 1) })
		slow := c.begin(c.client, func(s *sessplus.Session) {
			s.Set("b", 1)
			if err := s.Save(); err != nil {
				t.Error(err)
			}
			s.Delete("a")
			s.Delete("b")
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("x", 1) })
		if r := slow.finish(); r.StatusCode != 200 || len(r.setCookies("session")) > 0 {
			t.Errorf("the answer: %d, %q; want 200 and no cookie", r.StatusCode, r.setCookies("session"))
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if left := time.Until(s.Expires("session")); !s.Has("x") || left < time.Hour {
				t.Errorf("x is there: %v, and the session ends in %v, want a day", s.Has("x"), left)
			}
		})
	})
}
