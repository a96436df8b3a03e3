package sessplus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 12.4, SPEC 4.1: a request that moves a field undoes nothing that others have done to it since it has loaded the
// sessions.
func TestMoveUndoesNothing(t *testing.T) {
	t.Parallel()
	visits := sessplus.Field[int]("visits")
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		before, after := moving(b, b)
		before[0].Adopt = nil
		before[0].Fields = sessplus.Include("user", "theme", "visits")
		after[1].Fields = sessplus.Include("cart", "user", "visits")
		after[1].IndexBy = "user"
		old, now := newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))
		for name, meanwhile := range map[string]struct {
			do         sessionDeed
			old        bool // by a process that has the former configs
			want       string
			wantVisits int
		}{
			"Set":                      {func(s *sessplus.Session) { s.Set("user", "bob") }, false, "bob", 1},
			"Delete":                   {func(s *sessplus.Session) { s.Delete("user") }, false, "", 1},
			"Pop":                      {func(s *sessplus.Session) { s.Set("cart", "milk"); s.Pop("user") }, false, "", 1},
			"Update":                   {func(s *sessplus.Session) { visits.Update(s, add(1)) }, false, "ann", 2},
			"a move":                   {func(s *sessplus.Session) { s.Set("cart", "milk") }, false, "ann", 1},
			"Set in an old process":    {func(s *sessplus.Session) { s.Set("user", "bob") }, true, "bob", 1},
			"Delete in an old process": {func(s *sessplus.Session) { s.Delete("user") }, true, "", 1},
		} {
			for what, move := range map[string]sessionDeed{
				"there":  func(s *sessplus.Session) { s.Set("cart", "tea") },
				"here":   func(s *sessplus.Session) { s.Set("theme", "light") },
				"Renew":  func(s *sessplus.Session) { s.Renew() },
				"Reload": func(s *sessplus.Session) { s.Reload(); s.Set("cart", "tea") },
			} {
				for _, both := range []bool{true, false} {
					if sets := name == "Set" || name == "Update"; sets && !both && (what == "there" || what == "Reload") {
						continue // two that set something in a new session make two, of which the browser keeps one
					}
					t.Run(fmt.Sprint(name, "/", what, "/", both), func(t *testing.T) {
						former := old.visitor()
						old.mustAsk(former, func(s *sessplus.Session) {
							s.Set("user", "ann")
							s.Set("theme", "dark")
							s.Set("visits", 1)
							if both {
								s.Set("cart", "water")
							}
						})
						browser := now.withCookies(old.jar(former))
						slow := now.begin(browser, move)
						if meanwhile.old {
							old.mustAsk(former, meanwhile.do)
						} else {
							now.mustAsk(browser, meanwhile.do)
						}
						if r := slow.finish(); r.StatusCode != 200 {
							t.Errorf("status %d: %q", r.StatusCode, r.body)
						}
						for range 2 { // the second one after another save
							now.mustAsk(browser, func(s *sessplus.Session) {
								if user, n := s.GetString("user"), visits.Get(s); user != meanwhile.want || n != meanwhile.wantVisits {
									t.Errorf("the user is %q, want %q; the visits are %d, want %d", user, meanwhile.want, n, meanwhile.wantVisits)
								}
								s.Set("cart", "water")
							})
						}
					})
				}
			}
		}
	})
}

// SPEC 12.4: a Reload reads from the former owner again.
func TestReloadOfMovingField(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	before, after := moving(b, b)
	old, now := newManager(t, nil, before...), newManager(t, nil, after...)
	cookies := cookiesOf(pass(old, "", func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("cart", "tea") }))
	pass(now, cookies, func(s *sessplus.Session) {
		if err := s.Reload(); err != nil || s.GetString("user") != "ann" {
			t.Errorf("Reload() = %v; the user is %q, want %q", err, s.GetString("user"), "ann")
		}
		pass(old, cookies, func(s *sessplus.Session) { s.Set("user", "bob") })
		if err := s.Reload(); err != nil || s.GetString("user") != "bob" {
			t.Errorf("Reload() = %v; the user is %q, want %q", err, s.GetString("user"), "bob")
		}
	})
}

func add(n int) func(int) int { return func(i int) int { return i + n } }

// SPEC 12.4: once the former configs are gone no request misses a field, and none undoes what another one has done to
// it.
func TestMovesUnderLoad(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		before, after := moving(b, b)
		before[0].Adopt = nil
		old, now := newCrowd(t, newManager(t, nil, before...)), newCrowd(t, newManager(t, nil, after...))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for n := range times(25) {
					w := &wanderer{t, map[string]string{}}
					w.ask(old, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark"); s.Set("cart", "tea") })
					want := [...]string{"bob", "", "ann"}[n%3]
					var burst sync.WaitGroup
					for i := range 6 {
						burst.Go(func() {
							c := &wanderer{t, map[string]string{"s": w.jar["s"], "t": w.jar["t"]}}
							c.ask(now, func(s *sessplus.Session) {
								if user := s.GetString("user"); user != "ann" && user != want {
									t.Errorf("the user is %q, want %q or %q", user, "ann", want)
								}
								switch {
								case i == 5 && want == "":
									s.Delete("user")
								case i == 5:
									s.Set("user", want)
								case i%2 == 0:
									s.Set("cart", fmt.Sprint("tea ", i))
								default:
									s.Set("theme", fmt.Sprint("dark ", i))
								}
							})
						})
					}
					burst.Wait()
					w.ask(now, func(s *sessplus.Session) {
						if user := s.GetString("user"); user != want {
							t.Errorf("after the burst the user is %q, want %q", user, want)
						}
					})
				}
			})
		}
		wg.Wait()
	})
}

// SPEC 12.4, SPEC 4.7: a field is not absent because another goroutine is just loading the cookie that has it.
func TestAdoptWaitsForALoadUnderWay(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	before := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "old", Backend: b}))
	before.mustAsk(before.client, func(s *sessplus.Session) { s.Set("mine", 1); s.Set("moved", 2) })
	entered, release := make(chan string, 10), make(chan struct{})
	b.setHook(func(context.Context, string) error {
		entered <- "load"
		<-release
		return nil
	})
	after := newCrowd(t, newManager(t, nil,
		sessplus.Config{CookieName: "old", Backend: b, Fields: sessplus.Include("mine"), Lazy: true},
		sessplus.Config{CookieName: "new", Backend: b, Fields: sessplus.Include("moved"), Adopt: []string{"old"}, Lazy: true}))
	after.mustAsk(after.withCookies(before.jar(before.client)), func(s *sessplus.Session) {
		var wg sync.WaitGroup
		wg.Go(func() { s.Get("mine") })
		<-entered
		wg.Go(func() {
			if got := s.GetInt("moved"); got != 2 {
				t.Errorf("moved = %d, want 2", got)
			}
		})
		time.Sleep(20 * time.Millisecond)
		close(release)
		wg.Wait()
	})
}
