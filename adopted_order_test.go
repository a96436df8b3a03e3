package sessplus_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessplus/sessplus"
)

// An ordered backend makes the calls of requests one after the other, in the order that pick says. The requests are
// numbered; those of others are made at once.
type ordered struct {
	sessplus.Backend
	mu      sync.Mutex // guards what follows
	waiting []orderedCall
}

type orderedCall struct {
	request int
	what    string
	goOn    chan struct{}
}

// requestNumber is the key of the number in the context of a request.
type requestNumber struct{}

func (b *ordered) await(ctx context.Context, key, format string, args ...any) {
	n, numbered := ctx.Value(requestNumber{}).(int)
	if !numbered {
		return
	}
	cookie := key[:strings.LastIndexByte(key, ':')]
	c := orderedCall{n, cookie + fmt.Sprintf(format, args...), make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()
	<-c.goOn
}

func (b *ordered) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	b.await(ctx, key, "load")
	return b.Backend.Load(ctx, key)
}

func (b *ordered) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	b.await(ctx, key, "update %v %v", len(c.Set), c.Match)
	return b.Backend.Update(ctx, key, c)
}

// run makes the requests side by side. pick chooses among those of which a call waits.
func (b *ordered) run(pick func(waiting []int) int, requests ...func(ctx context.Context)) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i, f := range requests {
		wg.Go(func() { f(context.WithValue(context.Background(), requestNumber{}, i)) })
	}
	go func() { wg.Wait(); close(done) }()
	for {
		synctest.Wait()
		select {
		case <-done:
			return
		default:
		}
		b.mu.Lock()
		slices.SortStableFunc(b.waiting, func(x, y orderedCall) int {
			return cmp.Or(x.request-y.request, strings.Compare(x.what, y.what))
		})
		var of []int
		for _, c := range b.waiting {
			of = append(of, c.request)
		}
		if len(of) > 0 {
			i := slices.Index(of, pick(of))
			close(b.waiting[i].goOn)
			b.waiting = slices.Delete(b.waiting, i, i+1)
		}
		b.mu.Unlock()
		if len(of) == 0 {
			time.Sleep(time.Millisecond) // as a request does
		}
	}
}

// A sessionDeed is what a request does with the session.
type sessionDeed func(s *sessplus.Session)

func setsUser(name string) sessionDeed { return func(s *sessplus.Session) { s.Set("user", name) } }
func deletesUser(s *sessplus.Session)  { s.Delete("user") }
func setsCart(s *sessplus.Session)     { s.Set("cart", "milk") }
func setsTheme(s *sessplus.Session)    { s.Set("theme", "light") }

func updatesUser(name string) sessionDeed {
	return func(s *sessplus.Session) {
		sessplus.Field[string]("user").Update(s, func(string) string { return name })
	}
}

// moveInOrder moves the user of a session while tabs, each of which makes some requests in turn, do something to it. In
// the end the user must be one of want, and remain so.
func moveInOrder(t *testing.T, pick func(waiting []int) int, want []string, tabs ...[]sessionDeed) {
	synctest.Test(t, func(t *testing.T) {
		b := &ordered{Backend: sessplus.Memory()}
		before, after := moving(b, b)
		before[0].Adopt = nil
		old, now := newManager(t, nil, before...), newManager(t, nil, after...)
		cookies := cookiesOf(pass(old, "", func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark"); s.Set("cart", "tea") }))
		var requests []func(ctx context.Context)
		for _, tab := range tabs {
			requests = append(requests, func(ctx context.Context) {
				for _, do := range tab {
					r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
					r.Header.Set("Cookie", cookies)
					w := httptest.NewRecorder()
					now.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(sessplus.Get(r)) })).ServeHTTP(w, r)
					if w.Code != 200 {
						t.Errorf("status %d: %q", w.Code, w.Body)
					}
				}
			})
		}
		b.run(pick, requests...)
		for range 2 { // the second one after another save
			pass(now, cookies, func(s *sessplus.Session) {
				user := s.GetString("user")
				if !slices.Contains(want, user) {
					t.Errorf("the user is %q, want one of %q", user, want)
				}
				want = []string{user}
				s.Set("cart", "water")
			})
		}
	})
}

// SPEC 12.4, SPEC 4.1: a request that moves the value which another one is just setting does not take it back when that
// has removed it from the former owner.
func TestMoveOfValueThatIsBeingSet(t *testing.T) {
	t.Parallel()
	next := strings.Split("setter setter setter mover mover mover mover setter setter setter mover mover", " ")
	pick := func(waiting []int) int {
		for len(next) > 0 {
			i := slices.Index([]string{"setter", "mover"}, next[0])
			if next = next[1:]; slices.Contains(waiting, i) {
				return i
			}
		}
		return waiting[0]
	}
	moveInOrder(t, pick, []string{"bob"}, []sessionDeed{setsUser("bob")}, []sessionDeed{setsTheme})
}

// SPEC 12.4, SPEC 4.1, SPEC 4.5: the order in which a backend gets the calls of concurrent requests makes no difference
// to a field that moves: no value is lost, and none that was replaced comes back.
func TestMovesInAnyOrder(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tab  []sessionDeed
		want []string
	}{
		"move":             {[]sessionDeed{setsCart}, []string{"ann"}},
		"Set":              {[]sessionDeed{setsUser("bob")}, []string{"bob"}},
		"Delete":           {[]sessionDeed{deletesUser}, []string{""}},
		"Update":           {[]sessionDeed{updatesUser("bob")}, []string{"bob"}},
		"Set twice":        {[]sessionDeed{setsUser("bob"), setsUser("ann")}, []string{"ann"}},
		"Set, then Delete": {[]sessionDeed{setsUser("bob"), deletesUser}, []string{""}},
		"Delete, then Set": {[]sessionDeed{deletesUser, setsUser("ann")}, []string{"ann"}},
		"Update, then Set": {[]sessionDeed{updatesUser("bob"), setsUser("ann")}, []string{"ann"}},
	} {
		for _, beside := range []string{"", "bob", "carol"} {
			t.Run(name+" beside "+beside, func(t *testing.T) {
				tabs, want := [][]sessionDeed{test.tab, {setsCart}, {setsTheme}}, test.want
				if beside != "" {
					tabs = append(tabs, []sessionDeed{setsUser(beside)})
					if want = append(slices.Clone(want), beside); name == "move" {
						want = want[1:]
					}
				}
				for seed := range uint64(times(300)) {
					random := rand.New(rand.NewPCG(seed, 0))
					stalled, since, left := random.IntN(len(tabs)), random.IntN(6), random.IntN(30)
					pick := func(waiting []int) int {
						i := waiting[random.IntN(len(waiting))]
						if others := slices.DeleteFunc(slices.Clone(waiting), func(i int) bool { return i == stalled }); i == stalled && len(others) > 0 {
							if since--; since < 0 && left > 0 { // the others go on for a while
								left--
								return others[random.IntN(len(others))]
							}
						}
						return i
					}
					moveInOrder(t, pick, want, tabs...)
				}
			})
		}
	}
}
