package sessplus_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// everything is each method of a Session, to be called at the same time as the others.
func everything(i int) map[string]func(s *sessplus.Session) {
	name := fmt.Sprintf("field%d", i%3)
	typed := sessplus.Field[int](name)
	return map[string]func(s *sessplus.Session){
		"Get":          func(s *sessplus.Session) { s.Get(name) },
		"Set":          func(s *sessplus.Session) { s.Set(name, i) },
		"Delete":       func(s *sessplus.Session) { s.Delete(name) },
		"Pop":          func(s *sessplus.Session) { s.Pop(name) },
		"Has":          func(s *sessplus.Session) { s.Has(name) },
		"Fields":       func(s *sessplus.Session) { s.Fields() },
		"Clear":        func(s *sessplus.Session) { s.Clear() },
		"Decode":       func(s *sessplus.Session) { var v any; s.Decode(name, &v) },
		"GetInt":       func(s *sessplus.Session) { s.GetInt(name) },
		"Save":         func(s *sessplus.Session) { s.Save() },
		"Reload":       func(s *sessplus.Session) { s.Reload() },
		"Err":          func(s *sessplus.Session) { s.Err() },
		"Renew":        func(s *sessplus.Session) { s.Renew("kept") },
		"Destroy":      func(s *sessplus.Session) { s.Destroy("kept") },
		"SetPermanent": func(s *sessplus.Session) { s.SetPermanent("kept", i%2 == 0) },
		"Permanent":    func(s *sessplus.Session) { s.Permanent("kept") },
		"ID":           func(s *sessplus.Session) { s.ID("kept") },
		"IsNew":        func(s *sessplus.Session) { s.IsNew("lazy") },
		"Expires":      func(s *sessplus.Session) { s.Expires("lazy") },
		"Update":       func(s *sessplus.Session) { typed.Update(s, func(n int) int { return n + 1 }) },
		"Field.Pop":    func(s *sessplus.Session) { typed.Pop(s) },
		"Format":       func(s *sessplus.Session) { _ = fmt.Sprint(s) },
	}
}

// atOnce calls everything n times, all at the same time.
func atOnce(n int) func(*sessplus.Session) {
	return func(s *sessplus.Session) {
		var wg sync.WaitGroup
		for i := range n {
			for _, f := range everything(i) {
				wg.Go(func() { f(s) })
			}
		}
		wg.Wait()
	}
}

// SPEC 4.7: under -race.
func TestGoroutinesOfARequestShareItsSession(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 10 * time.Second},
			sessplus.Config{CookieName: "kept", Backend: b, Fields: sessplus.Include("field0", "shared"), IdleTimeout: time.Hour, MaxAge: time.Hour},
			sessplus.Config{CookieName: "lazy", Backend: b, Fields: sessplus.Include("field1", "shared"), Lazy: true, DropIfGone: true},
			sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("field2")},
			sessplus.Config{CookieName: "bound", BoundTo: "kept", Fields: sessplus.Include("field3")},
		))
		for round := range 4 {
			c.askWith(c.client, func(s *sessplus.Session) {
				for i := range 3 {
					s.Set(fmt.Sprintf("field%d", i), i)
				}
				s.Set("shared", round)
			})
			c.askWith(c.client, atOnce(6))
		}
		settle(t)
	})
}

// SPEC 4.7: the same with what lets a commit touch several cookies: after a deployment that moves fields or gives the
// cookies other names, in a single cookie, and while ids rotate.
func TestGoroutinesOfARequestAfterADeployment(t *testing.T) {
	t.Parallel()
	type deployment struct{ before, after []sessplus.Config }
	for name, deploy := range map[string]func(b sessplus.Backend) deployment{
		"adopt": func(b sessplus.Backend) deployment {
			return deployment{[]sessplus.Config{{CookieName: "old", Backend: b}}, []sessplus.Config{
				{CookieName: "old", Backend: b, Fields: sessplus.Include("field0"), RotateEvery: 10 * time.Millisecond},
				{CookieName: "new", Backend: b, Fields: sessplus.Include("field1", "shared"), Adopt: []string{"old"}, Lazy: true},
				{CookieName: "sealed", Fields: sessplus.Include("field2", "field3"), Adopt: []string{"old"}},
			}}
		},
		"adopt from a secure cookie": func(b sessplus.Backend) deployment {
			return deployment{[]sessplus.Config{{CookieName: "old"}}, []sessplus.Config{
				{CookieName: "old", Fields: sessplus.Include("field0")},
				{CookieName: "new", Backend: b, Fields: sessplus.Include("field1", "field2", "field3", "shared"), Adopt: []string{"old"}},
			}}
		},
		"import": func(b sessplus.Backend) deployment {
			old := sessplus.Config{CookieName: "old", Backend: b}
			from := []sessplus.Importer{sessplus.FromCookie("old", sessplus.Former(old))}
			return deployment{[]sessplus.Config{old}, []sessplus.Config{
				{CookieName: "new", Backend: b, Fields: sessplus.Include("field0", "field1"), Import: from, RotateEvery: 10 * time.Millisecond},
				{CookieName: "sealed", Fields: sessplus.Include("field2", "field3", "shared"), BoundTo: "new"},
			}}
		},
	} {
		for _, single := range []string{"", "__session"} {
			t.Run(name+" "+single, func(t *testing.T) {
				d := deploy(sessplus.Memory())
				before := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: single}, d.before...))
				after := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: single}, d.after...))
				for round := range 8 {
					visitor := before.visitor()
					before.mustAsk(visitor, func(s *sessplus.Session) {
						for i := range 4 {
							s.Set(fmt.Sprintf("field%d", i), i)
						}
						s.Set("shared", round)
					})
					visitor = after.withCookies(before.jar(visitor))
					for range 2 {
						after.askWith(visitor, atOnce(3))
					}
				}
				settle(t)
			})
		}
	}
}

// SPEC 4.7: changes of different fields by the goroutines of one request all stay.
func TestGoroutinesOfARequestLoseNothing(t *testing.T) {
	t.Parallel()
	const n = 40
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil,
			sessplus.Config{CookieName: "a", Backend: b, Fields: sessplus.Exclude("counter")},
			sessplus.Config{CookieName: "b", Backend: b, Fields: sessplus.Include("counter"), Lazy: true}))
		counter := sessplus.Field[int]("counter")
		c.mustAsk(c.client, func(s *sessplus.Session) { counter.Set(s, 0) })
		c.mustAsk(c.client, func(s *sessplus.Session) {
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					s.Set(fmt.Sprint("f", i), i)
					if i%4 == 0 {
						if err := s.Save(); err != nil {
							t.Errorf("Save() = %v", err)
						}
						if _, err := counter.Update(s, func(n int) int { return n + 1 }); err != nil {
							t.Errorf("Update() = %v", err)
						}
					}
				})
			}
			wg.Wait()
		})
		c.mustAsk(c.client, func(s *sessplus.Session) {
			for i := range n {
				if got := s.GetInt(fmt.Sprint("f", i)); got != i {
					t.Errorf("f%d = %d, want %d", i, got, i)
				}
			}
			if got := counter.Get(s); got != n/4 {
				t.Errorf("counter = %d, want %d", got, n/4)
			}
		})
	})
}

// SPEC 4.7: of several goroutines one takes a field, and Err goes beside what fails.
func TestGoroutinesOfARequestTakeAFieldOnce(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Exclude("nobody's")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		c.askWith(c.client, func(s *sessplus.Session) {
			for range 200 {
				s.Set("once", 1)
				var taken atomic.Int64
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						if s.Pop("once") != nil {
							taken.Add(1)
						}
					})
				}
				wg.Wait()
				if n := taken.Load(); n != 1 {
					t.Fatalf("%d goroutines took the field, want 1", n)
				}
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { s.Err() })
				wg.Go(func() { s.Set("nobody's", 1) })
			}
			wg.Wait()
		})
	})
}
