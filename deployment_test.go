package sessplus_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// redeploy serves the same store under another config, to the same browser.
func (c *sidSite) redeploy(adapt func(*sessplus.Config)) *sidSite {
	c.Helper()
	cfg := sessplus.Config{CookieName: "sid", Backend: c.st}
	adapt(&cfg)
	next := &sidSite{site: newSite(c.TB, newManager(c.TB, nil, cfg)), st: c.st, cfg: cfg, permanent: c.permanent}
	next.client = (&crowd{site: next.site}).withCookies(c.jar(c.client))
	return next
}

// A deployment changes the config of sessions that there are. The new end runs from creation, or from the use.
type deployment struct {
	name      string
	old, new  func(*sessplus.Config)
	permanent bool
	life      time.Duration // from creation
	idle      time.Duration // or from the use
}

const day = 24 * time.Hour

var deployments = []deployment{
	{name: "IdleTimeout shortened", idle: time.Minute,
		old: func(c *sessplus.Config) { c.IdleTimeout = time.Hour },
		new: func(c *sessplus.Config) { c.IdleTimeout = time.Minute }},
	{name: "IdleTimeout lengthened", idle: 2 * time.Hour,
		old: func(c *sessplus.Config) { c.IdleTimeout = time.Hour },
		new: func(c *sessplus.Config) { c.IdleTimeout = 2 * time.Hour }},
	{name: "IdleTimeout added", idle: time.Minute,
		old: func(*sessplus.Config) {},
		new: func(c *sessplus.Config) { c.IdleTimeout = time.Minute }},
	{name: "IdleTimeout added to an endless one", idle: time.Minute,
		old: func(c *sessplus.Config) { c.Lifetime, c.IdleTimeout = -1, day },
		new: func(c *sessplus.Config) { c.Lifetime, c.IdleTimeout = -1, time.Minute }},
	{name: "IdleTimeout removed", life: day,
		old: func(c *sessplus.Config) { c.IdleTimeout = time.Minute },
		new: func(*sessplus.Config) {}},
	{name: "Lifetime shortened", life: time.Minute,
		old: func(*sessplus.Config) {},
		new: func(c *sessplus.Config) { c.Lifetime = time.Minute }},
	{name: "Lifetime lengthened", life: 3 * day,
		old: func(*sessplus.Config) {},
		new: func(c *sessplus.Config) { c.Lifetime = 3 * day }},
	{name: "Lifetime shortened by little", life: 23 * time.Hour,
		old: func(c *sessplus.Config) { c.IdleTimeout = 40 * time.Hour },
		new: func(c *sessplus.Config) { c.Lifetime, c.IdleTimeout = 23*time.Hour, 40*time.Hour }},
	{name: "Lifetime lengthened by little", life: 25 * time.Hour,
		old: func(c *sessplus.Config) { c.IdleTimeout = 40 * time.Hour },
		new: func(c *sessplus.Config) { c.Lifetime, c.IdleTimeout = 25*time.Hour, 40*time.Hour }},
	{name: "PermanentLifetime shortened", life: 2 * day, permanent: true,
		old: func(*sessplus.Config) {},
		new: func(c *sessplus.Config) { c.PermanentLifetime = 2 * day }},
	{name: "PermanentLifetime lengthened", life: 90 * day, permanent: true,
		old: func(*sessplus.Config) {},
		new: func(c *sessplus.Config) { c.PermanentLifetime = 90 * day }},
}

// SPEC 3.5: the next use under a new config sets the end that it says, whatever the use is, and one use is enough.
func TestDeploymentSetsTheEndOfTheSessionsThatThereAre(t *testing.T) {
	t.Parallel()
	uses := []struct {
		name string
		use  func(s *sessplus.Session)
	}{
		{"Get", func(s *sessplus.Session) { s.Get("a") }},
		{"Set", func(s *sessplus.Session) { s.Set("b", "2") }},
		{"Delete", func(s *sessplus.Session) { s.Delete("c") }},
		{"Update", func(s *sessplus.Session) {
			sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 })
		}},
	}
	for _, d := range deployments {
		for _, u := range uses {
			t.Run(d.name+"/"+u.name, func(t *testing.T) {
				onStores(t, d.old, func(t *testing.T, c *sidSite) {
					c.permanent = d.permanent
					id := c.start()
					c.with(func(s *sessplus.Session) { s.Set("c", "3") })
					before, err := c.record(id)
					if err != nil {
						t.Fatal(err)
					}
					next := c.redeploy(d.new)
					want := func() time.Time {
						if d.idle > 0 {
							return time.Now().Add(d.idle)
						}
						return before.Created.Add(d.life)
					}
					off := func(end time.Time) bool { return end.Sub(want()).Abs() > 5*time.Second }
					next.ok(next.with(func(s *sessplus.Session) {
						if end := s.Expires("sid"); off(end) && want().Before(before.Expires) {
							t.Errorf("before the commit Expires() = %v, want %v", end, want())
						}
						u.use(s)
						s.Save()
						if end := s.Expires("sid"); off(end) {
							t.Errorf("after the commit Expires() = %v, want %v", end, want())
						}
					}))
					after, err := next.record(id)
					if err != nil || off(after.Expires) || after.Permanent != d.permanent {
						t.Fatalf("the record ends at %v, %v; want %v (before: %v)", after.Expires, err, want(), before.Expires)
					}
					c.st.ops()
					next.ok(next.with(func(s *sessplus.Session) {
						s.Get("a")
						if end := s.Expires("sid"); end.Sub(after.Expires).Abs() >= time.Millisecond {
							t.Errorf("later Expires() = %v, want %v", end, after.Expires)
						}
					}))
					if ops := fmt.Sprint(c.st.ops()); ops != "[load]" { // SPEC 9.2
						t.Errorf("a use that changes nothing: backend calls %v, want [load]", ops)
					}
				})
			})
		}
	}
}

// SPEC 3.5: what is no use sets no end.
func TestDeploymentWithoutAUseSetsNoEnd(t *testing.T) {
	t.Parallel()
	for _, d := range deployments {
		t.Run(d.name, func(t *testing.T) {
			onStores(t, d.old, func(t *testing.T, c *sidSite) {
				c.permanent = d.permanent
				id := c.start()
				before, _ := c.record(id)
				next := c.redeploy(d.new)
				c.st.ops()
				next.ok(next.with(func(*sessplus.Session) {}))
				next.ok(next.with(func(s *sessplus.Session) { s.SkipTouch(); s.Get("a") }))
				if ops := fmt.Sprint(c.st.ops()); ops != "[load load]" {
					t.Errorf("backend calls %v, want [load load]", ops)
				}
				next.ok(next.with(func(s *sessplus.Session) { s.SkipTouch(); s.Set("b", "2") }))
				next.ok(next.with(func(s *sessplus.Session) {
					s.SkipTouch()
					sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 })
				}))
				if after, err := c.record(id); err != nil || !after.Expires.Equal(before.Expires) || len(after.Fields) != 3 {
					t.Errorf("record = %v, %v; want three fields and the end %v", after, err, before.Expires)
				}
			})
		})
	}
}

// SPEC 3.5: an hour becomes a second, and the session is over when that has passed.
func TestSessionEndsByTheIdleTimeoutOfADeployment(t *testing.T) {
	t.Parallel()
	onStores(t, func(c *sessplus.Config) { c.IdleTimeout = time.Hour }, func(t *testing.T, c *sidSite) {
		t.Parallel()
		c.start()
		next := c.redeploy(func(c *sessplus.Config) { c.IdleTimeout = 3 * time.Second })
		next.wantFields(map[string]any{"a": "1"})
		time.Sleep(3100 * time.Millisecond)
		next.wantFields(map[string]any{})
		c.wantFields(map[string]any{}) // under the old config, too
	})
}

// SPEC 3.5, 3.7: a slower request, which knows the session from before it became permanent, does not shorten its life,
// whether its end is another then or happens to be the same.
func TestSlowRequestDoesNotUndoPermanence(t *testing.T) {
	t.Parallel()
	for name, life := range map[string]time.Duration{"another end": day, "the same end": 31 * day} {
		t.Run(name, func(t *testing.T) {
			onStores(t, func(c *sessplus.Config) { c.Lifetime = life }, func(t *testing.T, c *sidSite) {
				for _, use := range []func(*sessplus.Session){
					func(s *sessplus.Session) { s.Get("a") },
					func(s *sessplus.Session) { s.Set("b", "2") },
					func(s *sessplus.Session) { s.Delete("a") },
				} {
					c.client = c.visitor()
					c.permanent = false
					id := c.start()
					c.with(func(s *sessplus.Session) { s.Set("c", "3") })
					next := c.redeploy(func(c *sessplus.Config) { c.Lifetime = time.Hour })
					next.ok(next.with(func(s *sessplus.Session) {
						s.Get("a")
						next.meanwhile(func(s *sessplus.Session) { s.SetPermanent("sid", true) })
						use(s)
					}))
					r, err := next.record(id)
					if err != nil || !r.Permanent || r.Expires.Before(r.Created.Add(30*day)) {
						t.Errorf("record = %+v, %v; want a permanent one for 31 days", r, err)
					}
				}
			})
		})
	}
}

// SPEC 3.5, 9.2: where no config has changed, no end is moved, not of a rotated session either.
func TestNoDeploymentMovesNoEnd(t *testing.T) {
	t.Parallel()
	for name, adapt := range map[string]func(*sessplus.Config){
		"plain":   func(*sessplus.Config) {},
		"MaxAge":  func(c *sessplus.Config) { c.MaxAge = time.Hour },
		"short":   func(c *sessplus.Config) { c.Lifetime = 5 * time.Second },
		"rotated": func(c *sessplus.Config) { c.RotateEvery = time.Second },
		"idle":    func(c *sessplus.Config) { c.IdleTimeout = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			onStores(t, adapt, func(t *testing.T, c *sidSite) {
				c.start()
				read := func(s *sessplus.Session) { s.Get("a") }
				if name == "rotated" {
					time.Sleep(1100 * time.Millisecond)
					old := c.jar(c.client)["sid"]
					if c.ok(c.with(read)); c.jar(c.client)["sid"] == old {
						t.Fatal("the session was not rotated")
					}
				}
				other := c.redeploy(adapt)
				c.st.ops()
				c.ok(c.with(read))
				other.ok(other.with(read))
				if ops := fmt.Sprint(c.st.ops()); ops != "[load load]" {
					t.Errorf("backend calls %v, want [load load]", ops)
				}
			})
		})
	}
}

// SPEC 3.5, 3.6: after the headers have gone, a use sets the end as well, and the Max-Age of a cookie is not past it.
func TestDeploymentAndTheCookie(t *testing.T) {
	t.Parallel()
	onStores(t, func(c *sessplus.Config) { c.MaxAge = day }, func(t *testing.T, c *sidSite) {
		id := c.start()
		shorter := c.redeploy(func(c *sessplus.Config) { c.MaxAge, c.Lifetime = day, time.Hour })
		r := shorter.ok(shorter.with(func(s *sessplus.Session) { s.Get("a") }))
		wantMaxAge(t, "after Lifetime was shortened", r, time.Hour)
		longer := shorter.redeploy(func(c *sessplus.Config) { c.MaxAge, c.Lifetime = day, 2*day })
		longer.visit(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			sessplus.Get(r).Get("a")
		})
		if rec, err := longer.record(id); err != nil || time.Until(rec.Expires) < 47*time.Hour {
			t.Errorf("record = %v, %v; want it for two days", rec, err)
		}
	})
}
