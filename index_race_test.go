package sessplus_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A watchedIndexer lets a test do something in the midst of what is done with a backend, once.
type watchedIndexer struct {
	sessplus.Indexer
	listed, ending atomic.Pointer[func()] // after a list was made; before a record is ended by who has taken it
	refused        atomic.Pointer[func()] // when the record is taken by somebody else
	forgotten      atomic.Value           // the key of a record that was rotated long ago
}

func (b *watchedIndexer) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	if b.forgotten.Load() == key {
		return nil, sessplus.ErrNoRecord
	}
	return b.Indexer.Load(ctx, key)
}

func once(f *atomic.Pointer[func()]) {
	if f := f.Swap(nil); f != nil {
		(*f)()
	}
}

func (b *watchedIndexer) Owned(ctx context.Context, owner string) ([]sessplus.KeyedRecord, error) {
	list, err := b.Indexer.Owned(ctx, owner)
	once(&b.listed)
	return list, err
}

func (b *watchedIndexer) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	if e.Step == sessplus.StepEnd && e.Token != "" {
		once(&b.ending)
	}
	r, err := b.Indexer.End(ctx, key, e)
	if errors.Is(err, sessplus.ErrTaken) {
		once(&b.refused)
	}
	return r, err
}

// askAround makes a request that gives the session another id, and calls meanwhile before the old record ends.
func (b *watchedIndexer) askAround(c *crowd, client *http.Client, name string, move func(*sessplus.Session), meanwhile func()) {
	c.Helper()
	b.ending.Store(&meanwhile)
	c.askWith(client, move)
	if b.ending.Load() != nil {
		c.Fatalf("%s: the session has not got another id", name)
	}
}

// onEveryIndexer runs the test on each backend, which the test can watch.
func onEveryIndexer(t *testing.T, test func(t *testing.T, b *watchedIndexer)) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) { test(t, &watchedIndexer{Indexer: b.(sessplus.Indexer)}) })
}

const rotates = 40 * time.Millisecond // in tests that want a rotation at a certain time

// due waits until a session that has just got its id is to be rotated.
func due() { time.Sleep(rotates + 10*time.Millisecond) }

func renews(s *sessplus.Session) { s.Renew() }
func reads(s *sessplus.Session)  { s.Get("user_id") }

// SPEC 10.1, SPEC 10.2: "log out everywhere else" spares the session of the request, whatever id it gets meanwhile.
func TestRevokeAllSparesASessionThatMovesOn(t *testing.T) {
	t.Parallel()
	onEveryIndexer(t, func(t *testing.T, b *watchedIndexer) {
		config := indexed(b)
		config.RotateEvery = rotates
		m := newManager(t, nil, config)
		c := newCrowd(t, m)
		for _, moves := range [][]func(*sessplus.Session){{renews}, {reads}, {renews, renews}, {reads, reads}, {reads, renews}, {renews, reads}} {
			for early := range len(moves) + 1 { // how many of the moves are made before the list
				client, other := c.logIn("ann"), c.logIn("ann")
				handle := handleOf(c, client)
				move := func(f func(*sessplus.Session)) {
					before := c.jar(client)["session"]
					due()
					if c.mustAsk(client, f); c.jar(client)["session"] == before {
						t.Error("the session has kept its id")
					}
				}
				for _, f := range moves[:early] {
					move(f)
				}
				later := func() {
					for _, f := range moves[early:] {
						move(f)
					}
				}
				b.listed.Store(&later)
				if n, err := m.RevokeAll(t.Context(), "session", "ann", handle); n != 1 || err != nil {
					t.Errorf("RevokeAll = %d, %v; want 1", n, err)
				}
				if c.user(client) != "ann" || c.user(other) != "" {
					t.Errorf("%d moves, %d before the list: the users are %q and %q, want the first one logged in", len(moves), early, c.user(client), c.user(other))
				}
				if n, err := m.RevokeAll(t.Context(), "session", "ann"); n != 1 || err != nil {
					t.Errorf("RevokeAll of the rest = %d, %v; want 1", n, err)
				}
			}
		}
	})
}

// SPEC 10.1, SPEC 10.2: in the midst of a renewal or rotation a session is listed once, and what is done with it then
// holds.
func TestListInTheMidstOfARenewal(t *testing.T) {
	t.Parallel()
	onEveryIndexer(t, func(t *testing.T, b *watchedIndexer) {
		config := indexed(b)
		config.RotateEvery = rotates
		m := newManager(t, nil, config)
		for name, move := range map[string]func(*sessplus.Session){"renewal": renews, "rotation": reads} {
			for what, act := range map[string]func(c *crowd, handle string) (stays bool){
				"nothing": func(c *crowd, handle string) bool { return true },
				"Revoke": func(c *crowd, handle string) bool {
					if err := m.Revoke(t.Context(), "session", handle); err != nil {
						t.Error(err)
					}
					return false
				},
				"RevokeAll": func(c *crowd, handle string) bool {
					if n, err := m.RevokeAll(t.Context(), "session", "ann"); n != 2 || err != nil {
						t.Errorf("RevokeAll = %d, %v; want 2", n, err)
					}
					return false
				},
				"RevokeAll but for it": func(c *crowd, handle string) bool {
					if n, err := m.RevokeAll(t.Context(), "session", "ann", handle); n != 1 || err != nil {
						t.Errorf("RevokeAll = %d, %v; want 1", n, err)
					}
					return true
				},
			} {
				c := newCrowd(t, m)
				client := c.logIn("ann")
				handle := handleOf(c, client)
				due()
				desk := c.logIn("ann") // with the same User-Agent
				want := []string{handle, handleOf(c, desk)}
				slices.Sort(want)
				var stays bool
				meanwhile := func() {
					got := handles(t, m, "ann")
					slices.Sort(got)
					if !slices.Equal(got, want) {
						t.Errorf("%s: the list is %q, want %q", name, got, want)
					}
					stays = act(c, handle)
				}
				b.askAround(c, client, name, move, meanwhile)
				if got := c.user(client); stays != (got == "ann") {
					t.Errorf("%s, %s: the user is %q", name, what, got)
				}
				if _, err := m.RevokeAll(t.Context(), "session", "ann"); err != nil || len(handles(t, m, "ann")) != 0 {
					t.Errorf("after RevokeAll there are %d sessions, %v", len(handles(t, m, "ann")), err)
				}
			}
		}
	})
}

// SPEC 10.2: a session is spared in the midst of a renewal or rotation also if the id in its handle is forgotten.
func TestRevokeAllSparesASessionThatHasRotatedLongAgo(t *testing.T) {
	t.Parallel()
	onEveryIndexer(t, func(t *testing.T, b *watchedIndexer) {
		config := indexed(b)
		config.RotateEvery = rotates
		m := newManager(t, nil, config)
		for name, move := range map[string]func(*sessplus.Session){"renewal": renews, "rotation": reads} {
			c := newCrowd(t, m)
			client := c.logIn("ann")
			handle := handleOf(c, client)
			due()
			c.mustAsk(client, reads)
			b.forgotten.Store(keyOf(handle))
			due()
			meanwhile := func() {
				if n, err := m.RevokeAll(t.Context(), "session", "ann", handle); n != 0 || err != nil {
					t.Errorf("%s: RevokeAll = %d, %v; want 0", name, n, err)
				}
			}
			b.askAround(c, client, name, move, meanwhile)
			if got := c.user(client); got != "ann" {
				t.Errorf("%s: the user is %q, want ann", name, got)
			}
			if n, err := m.RevokeAll(t.Context(), "session", "ann"); n != 1 || err != nil {
				t.Errorf("%s: RevokeAll = %d, %v; want 1", name, n, err)
			}
		}
	})
}

// keyOf is the key that the record with the handle had first.
func keyOf(handle string) string {
	first, _, _ := strings.Cut(handle, "-")
	return "session:session:" + first
}

// SPEC 10.1, SPEC 10.2: a session whose renewal waits, because somebody else has taken the record, is listed once and
// spared.
func TestListWhileARenewalWaits(t *testing.T) {
	t.Parallel()
	onEveryIndexer(t, func(t *testing.T, b *watchedIndexer) {
		m := newManager(t, nil, indexed(b))
		c := newCrowd(t, m)
		client := c.logIn("ann")
		handle := handleOf(c, client)
		step := func(step sessplus.EndStep) {
			e := &sessplus.Ending{Step: step, Token: "another", Now: time.Now()}
			if _, err := b.Indexer.End(t.Context(), keyOf(handle), e); err != nil {
				t.Fatal(err)
			}
		}
		step(sessplus.StepTake)
		waits := make(chan bool)
		again := func() { close(waits) }
		refused := func() { b.refused.Store(&again) }
		b.refused.Store(&refused)
		slow := make(chan *reply)
		go func() { slow <- c.askWith(client, renews) }()
		<-waits
		if got := handles(t, m, "ann"); !slices.Equal(got, []string{handle}) {
			t.Errorf("the list is %q, want %q", got, handle)
		}
		if n, err := m.RevokeAll(t.Context(), "session", "ann", handle); n != 0 || err != nil {
			t.Errorf("RevokeAll = %d, %v; want 0", n, err)
		}
		step(sessplus.StepRelease)
		if a := <-slow; a.StatusCode != http.StatusOK || handleOf(c, client) == handle {
			t.Errorf("the renewal is answered %d", a.StatusCode)
		}
		if got := c.user(client); got != "ann" {
			t.Errorf("the user is %q, want ann", got)
		}
	})
}

// SPEC 10.1: each live session is in the list once, however many rotate at that moment.
func TestListBesideRotations(t *testing.T) {
	t.Parallel()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			config := indexed(b.open(t))
			const sessions = 4
			every := 40 * time.Millisecond
			if b.name == "firestore" {
				every = time.Second
			}
			config.RotateEvery = every
			m := newManager(t, nil, config)
			c := newCrowd(t, m)
			var wg sync.WaitGroup
			var stop atomic.Bool
			var rotated sync.Map
			for range sessions {
				client := c.logIn("ann")
				for range 2 {
					wg.Go(func() {
						for !stop.Load() {
							c.mustAsk(client, func(s *sessplus.Session) {
								if s.GetString("user_id") != "ann" {
									t.Error("a session has ended")
								}
								rotated.Store(s.ID("session"), true)
							})
							time.Sleep(every / 50) // other tests need the processors, too
						}
					})
				}
			}
			ids := func() (n int) {
				rotated.Range(func(_, _ any) bool { n++; return true })
				return n
			}
			lists := 0
			for end := time.Now().Add(time.Minute); time.Now().Before(end) && ids() < 5*sessions; lists++ {
				infos, err := m.Sessions(t.Context(), "session", "ann")
				if err != nil || len(infos) != sessions {
					t.Errorf("%d sessions are listed, want %d; %v", len(infos), sessions, err)
				}
				time.Sleep(every / 50)
			}
			stop.Store(true)
			wg.Wait()
			if t.Logf("%d lists beside %d ids", lists, ids()); ids() < 3*sessions {
				t.Errorf("there were %d ids, want rotations", ids())
			}
		})
	}
}

// SPEC 10.5: a request that knows nothing of a login beside it moves the expiry, and the index with it.
func TestLoginBesideAnotherRequest(t *testing.T) {
	r := servers.NewRedis(t).Client()
	defer r.Close()
	config := indexed(sessplus.Redis(r))
	config.IdleTimeout = time.Hour
	m := newManager(t, nil, config)
	for name, later := range map[string]func(*sessplus.Session){
		"save":   func(s *sessplus.Session) { s.Set("n", 1) },
		"delete": func(s *sessplus.Session) { s.Delete("n") },
		"permanent": func(s *sessplus.Session) {
			s.SetPermanent("session", true)
		},
		"update": func(s *sessplus.Session) {
			sessplus.Field[int]("m").Update(s, func(int) int { return 1 })
		},
	} {
		c := newCrowd(t, m)
		client := c.visitor()
		c.mustAsk(client, func(s *sessplus.Session) { s.Set("n", 0) })
		slow := c.begin(client, later)
		c.mustAsk(client, func(s *sessplus.Session) { s.Set("user_id", name) })
		time.Sleep(20 * time.Millisecond)
		if a := slow.finish(); a.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", name, a.StatusCode)
		}
		owned, err := sessplus.Redis(r).(sessplus.Indexer).Owned(t.Context(), ownerOf(name))
		if err != nil || len(owned) != 1 {
			t.Fatalf("%s: Owned gives %d records, %v", name, len(owned), err)
		}
		if got := expires(t, r, ownerOf(name)); got.Before(owned[0].Expires) {
			t.Errorf("%s: the index expires at %v, the session at %v", name, got, owned[0].Expires)
		}
	}
}

// SPEC 10.3: beside requests of all kinds no edit is lost, and no change of a request.
func TestEditBesideRenewals(t *testing.T) {
	t.Parallel()
	onEveryIndexer(t, func(t *testing.T, b *watchedIndexer) {
		config := indexed(b)
		config.RotateEvery = rotates
		m := newManager(t, nil, config)
		for name, move := range map[string]func(*sessplus.Session){"renewal": renews, "rotation": reads, "renewal with a change": func(s *sessplus.Session) { s.Renew(); s.Set("n", 1) }} {
			c := newCrowd(t, m)
			client := c.logIn("ann")
			handle := handleOf(c, client)
			due()
			done := make(chan error, 1)
			meanwhile := func() {
				began := make(chan bool)
				go func() {
					done <- m.Edit(context.WithoutCancel(t.Context()), "session", handle, func(s *sessplus.Session) error {
						s.Set("role", "guest")
						s.Set("user_id", "eve")
						close(began)
						return nil
					})
				}()
				<-began
				time.Sleep(20 * time.Millisecond) // it waits for the record
			}
			b.ending.Store(&meanwhile)
			c.mustAsk(client, move)
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			c.mustAsk(client, func(s *sessplus.Session) {
				if s.GetString("role") != "guest" || s.GetString("user_id") != "eve" || (s.GetInt("n") == 1) != strings.HasSuffix(name, "change") {
					t.Errorf("%s: the role is %q, the user %q, n %d", name, s.GetString("role"), s.GetString("user_id"), s.GetInt("n"))
				}
			})
			if got, want := handles(t, m, "eve"), []string{handleOf(c, client)}; !slices.Equal(got, want) || len(handles(t, m, "ann")) > 0 {
				t.Errorf("%s: Sessions(eve) = %q, want %q", name, got, want)
			}
			if err := m.Revoke(t.Context(), "session", handle); err != nil {
				t.Error(err)
			}
		}
	})
}

// SPEC 10.2: of what a revocation ends in the midst of a renewal that fails, nothing comes back.
func TestRevokeInTheMidstOfAFailingRenewal(t *testing.T) {
	t.Parallel()
	onEveryIndexer(t, func(t *testing.T, b *watchedIndexer) {
		broken := &brokenBackend{Backend: sessplus.Memory()}
		m := newManager(t, nil, indexed(b), sessplus.Config{CookieName: "other", Backend: broken, Fields: sessplus.Include("x")})
		c := newCrowd(t, m)
		client := c.logIn("ann")
		before := c.jar(client)
		broken.meanwhile = func() {
			for _, handle := range handles(t, m, "ann") {
				if err := m.Revoke(t.Context(), "session", handle); err != nil {
					t.Error(err)
				}
			}
		}
		if a := c.askWith(client, func(s *sessplus.Session) { s.Renew("session"); s.Set("x", 1) }); a.StatusCode == http.StatusOK {
			t.Error("the request has not failed")
		}
		if got := c.user(c.withCookies(before)) + c.user(client); got != "" || len(handles(t, m, "ann")) > 0 {
			t.Errorf("a revoked session has come back: %q", got)
		}
	})
}

// A brokenBackend takes its time to fail.
type brokenBackend struct {
	sessplus.Backend
	meanwhile func()
}

func (b *brokenBackend) Create(context.Context, string, *sessplus.Record) error {
	time.Sleep(50 * time.Millisecond)
	b.meanwhile()
	return errors.New("broken")
}

func ownerOf(user string) string { return fmt.Sprintf("session:session@%x", sha128(user)) }

// sha128 is half of a SHA-256, as an owner is named by it.
func sha128(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:16]
}
