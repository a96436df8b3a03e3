package sessplus_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 4.5: the queue of the example: every message is taken once, whoever adds and takes at the same time.
func TestFlashQueueIsTakenOnce(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Minute}, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		var mu sync.Mutex
		var want, got []string
		take := func(s *sessplus.Session) {
			messages, err := takeFlash(s)
			if err != nil {
				t.Errorf("take: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, messages...)
		}
		var requests sync.WaitGroup
		for i := range 20 {
			message := fmt.Sprintf("message %02d", i)
			want = append(want, message)
			requests.Go(func() {
				c.mustAsk(c.client, func(s *sessplus.Session) {
					if err := addFlash(s, message); err != nil {
						t.Errorf("add: %v", err)
					}
				})
			})
			if i%3 == 0 {
				requests.Go(func() { c.mustAsk(c.client, take) })
			}
		}
		requests.Wait()
		c.mustAsk(c.client, take)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("taken: %q, want each of the 20 once", got)
		}
		c.mustAsk(c.client, take)
		if len(got) != len(want) {
			t.Errorf("%d more were taken from the empty queue", len(got)-len(want))
		}
	})
}
