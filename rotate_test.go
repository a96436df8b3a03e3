package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessplus/sessplus"
)

// A session that is due gets another id at its first use, keeps all else, and the old id is another name of it for a
// while (SPEC 3.12).
func TestRotationGivesAnotherNameToTheSameSession(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(0),
			sessplus.Config{CookieName: "s", Backend: b, RotateEvery: 50 * time.Millisecond, Fields: sessplus.Exclude("color"), SignID: true, Lifetime: time.Hour},
			sessplus.Config{CookieName: "bound", BoundTo: "s", Fields: sessplus.Include("color")}))
		var id string
		var expires time.Time
		c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Set("user", "ann")
			s.Set("color", "red")
			s.SetPermanent("s", true)
			s.Save()
			id, expires = s.ID("s"), s.Expires("s")
		})
		old := c.withCookies(c.jar(c.client))
		time.Sleep(60 * time.Millisecond)

		if r := c.mustAsk(c.client, func(*sessplus.Session) {}); len(r.Header["Set-Cookie"]) > 0 {
			t.Errorf("a request that did not use the session is answered %q", r.Header["Set-Cookie"])
		}
		r := c.mustAsk(c.client, func(s *sessplus.Session) { s.Get("user") })
		if len(r.setCookies("s")) != 1 || r.Header.Get("Cache-Control") != "private, no-cache" || r.Header.Get("Vary") != "Cookie" {
			t.Errorf("the rotation is answered %v", r.Header)
		}
		var next string
		see := func(who *http.Client) *reply {
			return c.mustAsk(who, func(s *sessplus.Session) {
				if s.GetString("user") != "ann" || s.GetString("color") != "red" || !s.Permanent("s") || s.IsNew("s") {
					t.Errorf("the session holds %v", s.Values())
				}
				if next = s.ID("s"); next == id || next == "" {
					t.Errorf("the id is %q", next)
				}
				if got := s.Expires("s"); got.Sub(expires).Abs() > time.Millisecond {
					t.Errorf("it expires at %v, want %v as before", got, expires)
				}
			})
		}
		see(c.client)
		current := next
		if lines := see(old).setCookies("s"); len(lines) != 1 || next == id {
			t.Errorf("the old id is answered %q, want a Set-Cookie of the new one (%v)", lines, current)
		}
		stale := c.withCookies(map[string]string{"s": c.jar(c.client)["s"], "bound": c.jar(c.client)["bound"]})
		see(stale)
		if n := count(j.kinds("s"), sessplus.EventRotate); n < 1 {
			t.Error("there is no event of the rotation")
		}
	})
}

func count[T comparable](list []T, want T) (n int) {
	for _, v := range list {
		if v == want {
			n++
		}
	}
	return n
}

// SPEC 3.12: the old id saves into the same record, also when the rotation comes while its request runs.
func TestOldNameSavesIntoTheSameRecord(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, RotateEvery: 300 * time.Millisecond}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("gone", 1) })
		old := c.withCookies(c.jar(c.client))
		var slow []*slowRequest
		for i := range 3 {
			slow = append(slow, c.begin(c.withCookies(c.jar(old)), func(s *sessplus.Session) {
				switch i {
				case 0:
					s.Set("slow", 1)
				case 1:
					sessplus.Field[int]("n").Update(s, increment)
				case 2:
					if err := s.Reload(); err != nil {
						t.Errorf("Reload = %v", err)
					}
					s.Delete("gone")
				}
			}))
		}
		time.Sleep(310 * time.Millisecond)
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("quick", 1) })
		for i, r := range slow {
			answer := r.finish()
			if answer.StatusCode != http.StatusOK || len(answer.setCookies("s")) != 1 {
				t.Errorf("slow request %d is answered %d %q", i, answer.StatusCode, answer.setCookies("s"))
			}
		}
		c.mustAsk(c.withCookies(c.jar(old)), func(s *sessplus.Session) { s.Set("later", 1) })
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.GetInt("slow")+s.GetInt("n")+s.GetInt("quick")+s.GetInt("later") != 4 || s.Has("gone") || s.GetString("user") != "ann" {
				t.Errorf("the session holds %v", s.Values())
			}
		})
	})
}

// SPEC 3.12: Renew and Destroy end both names at once.
func TestEndOfARotatedSessionEndsBothNames(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		t.Parallel()
		for name, end := range map[string]func(*sessplus.Session){
			"Destroy": func(s *sessplus.Session) { s.Destroy() },
			"Renew":   func(s *sessplus.Session) { s.Renew() },
		} {
			for _, byOld := range []bool{false, true} {
				for _, lazy := range []bool{false, true} {
					c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, RotateEvery: 200 * time.Millisecond, Lazy: lazy}))
					c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
					old := c.withCookies(c.jar(c.client))
					time.Sleep(210 * time.Millisecond)
					c.mustAsk(c.client, func(s *sessplus.Session) { s.Get("user") })
					renamed := c.withCookies(c.jar(c.client))
					both := []*http.Client{old, renamed}
					who := c.client
					if byOld {
						who = c.withCookies(c.jar(old))
					}
					c.mustAsk(who, end)
					for i, dead := range both {
						c.mustAsk(dead, func(s *sessplus.Session) {
							if s.Has("user") {
								t.Errorf("%s by the old name %v, lazy %v: name %d still opens the session", name, byOld, lazy, i)
							}
						})
					}
				}
			}
		}
	})
}

// SPEC 3.12: a burst of requests on a session that is due rotates once, and answers all.
func TestBurstRotatesOnce(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		t.Parallel()
		for range 5 {
			var j journal
			c := newCrowd(t, newManager(t, j.options(20*time.Second), sessplus.Config{CookieName: "s", Backend: b, RotateEvery: time.Second}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			time.Sleep(1010 * time.Millisecond)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					r := c.askWith(c.client, func(s *sessplus.Session) {
						if s.GetString("user") != "ann" {
							t.Errorf("the session holds %v", s.Values())
						}
						if i%2 == 0 {
							s.Set(fmt.Sprint("f", i), 1)
						}
					})
					if r.StatusCode != http.StatusOK {
						t.Errorf("a request of the burst is answered %d %q", r.StatusCode, r.body)
					}
				})
			}
			wg.Wait()
			if n := count(j.kinds("s"), sessplus.EventRotate); n != 1 {
				t.Errorf("the burst rotated %d times", n)
			}
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if len(s.Fields()) != 5 {
					t.Errorf("afterwards the session holds %v", s.Values())
				}
			})
		}
	})
}

// SPEC 3.12: requests in flight while another one rotates their session are answered with the new id, too: of them all,
// one answer may be the only one that arrives. None of them brings back a session that has ended.
func TestRequestsInFlightJoinARotation(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(0),
			sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Exclude("color"), RotateEvery: 50 * time.Millisecond},
			sessplus.Config{CookieName: "bound", BoundTo: "s", Fields: sessplus.Include("color")}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("color", "red") })
		time.Sleep(60 * time.Millisecond)
		inFlight := func(later func(*sessplus.Session)) *slowRequest {
			return c.begin(c.withCookies(c.jar(c.client)), later)
		}
		reads := func(s *sessplus.Session) { s.Get("user") }
		var slow []*slowRequest
		for _, later := range []func(*sessplus.Session){reads, reads, func(s *sessplus.Session) { s.Set("n", 1) }, reads} {
			slow = append(slow, inFlight(later))
		}
		late := inFlight(reads)
		var next string
		for i, r := range slow {
			got := r.finish().setCookies("s")
			if len(got) != 1 {
				t.Errorf("request %d is answered %q, want one Set-Cookie", i, got)
				continue
			}
			id, _, _ := strings.Cut(strings.TrimPrefix(got[0], "s="), ";")
			if next == "" {
				next = id
			}
			if id != next {
				t.Errorf("request %d got another id than the first", i)
			}
		}
		if n := count(j.kinds("s"), sessplus.EventRotate); n != 1 {
			t.Errorf("%d rotations", n)
		}
		moved := c.withCookies(map[string]string{"s": next, "bound": c.jar(c.client)["bound"]})
		c.mustAsk(moved, func(s *sessplus.Session) {
			if s.GetString("user") != "ann" || s.GetString("color") != "red" || s.GetInt("n") != 1 {
				t.Errorf("the session holds %v", s.Values())
			}
			s.Destroy()
		})
		if got := late.finish().setCookies("s"); len(got) > 0 {
			t.Errorf("after the logout a request in flight is answered %v", got)
		}
	})
}

// SPEC 3.5, 5.8: a request that did not use the session moves no idle timeout and gets no cookie, and SkipTouch takes
// back that a use counts.
func TestWhatIsNoUseMovesNothing(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		t.Parallel()
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, IdleTimeout: 2 * time.Second, MaxAge: time.Hour}))
		for name, f := range map[string]func(*sessplus.Session){
			"nothing":   func(*sessplus.Session) {},
			"SkipTouch": func(s *sessplus.Session) { s.Get("user"); s.SkipTouch() },
			"SkipTouch and an Update": func(s *sessplus.Session) {
				s.SkipTouch()
				sessplus.Field[int]("n").Update(s, increment)
			},
			"SkipTouch and a change": func(s *sessplus.Session) {
				s.SkipTouch()
				s.Set("n", s.GetInt("n")+1)
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				client := c.visitor()
				c.mustAsk(client, func(s *sessplus.Session) { s.Set("user", "ann") })
				for range 6 {
					time.Sleep(400 * time.Millisecond)
					r := c.mustAsk(client, f)
					if lines := r.setCookies("s"); len(lines) > 0 && !strings.Contains(name, "and") {
						t.Errorf("%s: Set-Cookie = %q", name, lines)
					}
					if vary := r.Header.Get("Vary"); vary != "" && name == "nothing" {
						t.Errorf("Vary = %q", vary)
					}
				}
				c.mustAsk(client, func(s *sessplus.Session) {
					if s.Has("user") {
						t.Errorf("%s: the session lives longer than its idle timeout", name)
					}
				})
			})
		}
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		for range 8 {
			time.Sleep(400 * time.Millisecond)
			c.mustAsk(c.client, wantUser(t, "ann"))
		}
	})
}

// SPEC 3.2, 3.12: what a rotation leaves in the store does not tell the new id.
func TestRotationLeavesNoIDInTheStore(t *testing.T) {
	onStores(t, func(c *sessplus.Config) { c.RotateEvery = 20 * time.Millisecond }, func(t *testing.T, c *sidSite) {
		if c.st.rdb == nil {
			t.Skip("only the text of a hash is looked at")
		}
		ids := []string{c.start()}
		for range 3 {
			time.Sleep(30 * time.Millisecond)
			c.ok(c.with(func(s *sessplus.Session) { s.Get("a") }))
			c.ok(c.with(func(s *sessplus.Session) { ids = append(ids, s.ID("sid")) }))
		}
		ctx := t.Context()
		keys := c.st.rdb.Keys(ctx, "*").Val()
		if len(keys) < 3 {
			t.Fatalf("the store has %d keys, want those of the former names, too", len(keys))
		}
		for _, key := range keys {
			all := key + fmt.Sprint(c.st.rdb.HGetAll(ctx, key).Val())
			for _, id := range ids {
				if strings.Contains(all, id) {
					t.Errorf("the store holds %s", all)
				}
			}
		}
	})
}

// SPEC 3.12, 6.1, 6.2: a step of a rotation that fails, or whose answer is lost, costs neither the session nor time.
func TestRotationThatFailsLeavesTheSession(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, step := range []string{"take", "create", "end"} {
			for _, lost := range []bool{false, true} {
				t.Run(fmt.Sprint(step, " lost ", lost), func(t *testing.T) {
					failing := &recorder{Backend: b}
					c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: failing, RotateEvery: 100 * time.Millisecond}))
					c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
					old := c.withCookies(c.jar(c.client))
					time.Sleep(110 * time.Millisecond)
					if lost {
						failing.setAfter(func(op string) error {
							if op == step {
								failing.setAfter(nil)
								return errDown
							}
							return nil
						})
					} else {
						failing.setHook(func(_ context.Context, op string) error {
							if op == step {
								failing.setHook(nil)
								return errDown
							}
							return nil
						})
					}
					c.mustAsk(c.client, wantUser(t, "ann"))
					begun := time.Now()
					for _, who := range []*http.Client{c.client, old} {
						c.mustAsk(who, func(s *sessplus.Session) {
							wantUser(t, "ann")(s)
							s.Set("more", 1)
						})
					}
					if took := time.Since(begun); took > 2*time.Second {
						t.Errorf("the next changes took %v", took)
					}
				})
			}
		}
	})
}

// SPEC 4.7: a Destroy in another goroutine while the id rotates.
func TestDestroyBesideARotation(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"take", "create", "end"} {
		b := &recorder{Backend: sessplus.Memory()}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, RotateEvery: time.Millisecond}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		old := c.withCookies(c.jar(c.client))
		time.Sleep(2 * time.Millisecond)
		c.mustAsk(c.client, func(s *sessplus.Session) {
			s.Get("user")
			b.setHook(func(_ context.Context, op string) error {
				if op == step {
					b.setHook(nil)
					s.Destroy()
				}
				return nil
			})
			if err := s.Save(); err != nil {
				t.Errorf("%s: Save = %v", step, err)
			}
		})
		for _, who := range []*http.Client{c.client, old} {
			c.mustAsk(who, func(s *sessplus.Session) {
				if s.Has("user") {
					t.Errorf("%s: the session lives after Destroy", step)
				}
			})
		}
	}
}

// SPEC 3.9, 3.12: a logout by an id from many rotations ago.
func TestDestroyAfterManyRotations(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b, RotateEvery: time.Millisecond}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		slow := c.begin(c.withCookies(c.jar(c.client)), func(s *sessplus.Session) { s.Destroy() })
		for range 20 {
			time.Sleep(2 * time.Millisecond)
			c.mustAsk(c.client, wantUser(t, "ann"))
		}
		if r := slow.finish(); r.StatusCode != http.StatusOK {
			t.Fatalf("the logout is answered %d", r.StatusCode)
		}
		c.mustAsk(c.client, func(s *sessplus.Session) {
			if s.Has("user") {
				t.Error("the session lives after the logout")
			}
		})
	})
}

// SPEC 3.11: a cookie that an early Save has to send, of a session that ends before the response begins.
func TestEarlySaveDoesNotUndoALogin(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, config := range []sessplus.Config{{MaxAge: time.Hour}, {RotateEvery: time.Millisecond}} {
			config.CookieName, config.Backend = "s", b
			c := newCrowd(t, newManager(t, nil, config))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("cart", 1) })
			time.Sleep(2 * time.Millisecond)
			saved := make(chan struct{})
			slow := &slowRequest{make(chan struct{}), make(chan *reply, 1)}
			go func() {
				slow.answer <- c.askWith(c.client, func(s *sessplus.Session) {
					s.Set("progress", 1)
					s.Save()
					close(saved)
					<-slow.goOn
				})
			}()
			<-saved
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew(); s.Set("user", "ann") })
			slow.finish()
			c.mustAsk(c.client, wantUser(t, "ann"))
		}
	})
}

// SPEC 6.6: a change of a bound cookie while another request ends the session's record, which is not known to end yet.
func TestBoundCookieWaitsForARecordThatIsTaken(t *testing.T) {
	f := &recorder{Backend: sessplus.Memory()}
	c := newCrowd(t, newManager(t, nil,
		sessplus.Config{CookieName: "s", Backend: f, RotateEvery: 200 * time.Millisecond, IdleTimeout: time.Second, Fields: sessplus.Include("user")},
		sessplus.Config{CookieName: "b", BoundTo: "s", Fields: sessplus.Auto()}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("color", "red") })
	tab := c.withCookies(c.jar(c.client))
	time.Sleep(210 * time.Millisecond)
	slow := c.begin(tab, func(s *sessplus.Session) { s.Set("color", "blue") })
	entered, goOn := make(chan struct{}), make(chan struct{})
	f.setHook(func(_ context.Context, op string) error {
		if op == "end" {
			f.setHook(nil)
			close(entered)
			<-goOn
		}
		return nil
	})
	first := make(chan *reply, 1)
	go func() { first <- c.askWith(c.client, func(s *sessplus.Session) { s.Get("user") }) }()
	<-entered
	time.AfterFunc(100*time.Millisecond, func() { close(goOn) })
	if r := slow.finish(); r.StatusCode != http.StatusOK {
		t.Errorf("status = %d, want 200", r.StatusCode)
	}
	<-first
}

// SPEC 3.9, 3.12: a stream that has slept through a rotation does not know the session's id any more, and is told so.
func TestLogoutOfAStreamThatSleptThroughARotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), RotateEvery: 15 * time.Minute})
		ask := func(id string, f func(w http.ResponseWriter, s *sessplus.Session)) string {
			r := httptest.NewRequest("GET", "/", nil)
			if id != "" {
				r.AddCookie(&http.Cookie{Name: "s", Value: id})
			}
			w := httptest.NewRecorder()
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, sessplus.Get(r)) })).ServeHTTP(w, r)
			for _, k := range w.Result().Cookies() {
				id = k.Value
			}
			return id
		}
		id := ask("", func(_ http.ResponseWriter, s *sessplus.Session) { s.Set("user", "ann") })
		time.Sleep(14 * time.Minute)
		done := make(chan struct{})
		for _, reload := range []bool{false, true} {
			go ask(id, func(w http.ResponseWriter, s *sessplus.Session) {
				s.Get("user")
				w.(http.Flusher).Flush()
				for range 12 {
					time.Sleep(30 * time.Second)
					if reload {
						s.Reload()
					}
				}
				s.Destroy()
				if err := s.Save(); errors.Is(err, sessplus.ErrSessionGone) == reload {
					t.Errorf("reload %v: Save = %v", reload, err)
				}
				done <- struct{}{}
			})
			time.Sleep(2 * time.Minute)
			id = ask(id, func(_ http.ResponseWriter, s *sessplus.Session) { s.Get("user") })
			<-done
			ask(id, func(_ http.ResponseWriter, s *sessplus.Session) {
				if s.Has("user") == reload {
					t.Errorf("reload %v: afterwards user is there: %v", reload, s.Has("user"))
				}
			})
			time.Sleep(9 * time.Minute) // the next rotation is due in a minute
		}
	})
}
