package sessplus_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 10.4: a user with very many sessions can list them, end one, and end all but one.
func TestUserWithVeryManySessions(t *testing.T) {
	slow(t)
	const n = 10_000
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		m := newManager(t, &sessplus.Options{Timeout: 2 * time.Minute}, indexed(b))
		h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			s.Set("user_id", "ann")
			s.Set("role", "admin")
		}))
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				for range (n + i) / 32 {
					h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
				}
			})
		}
		wg.Wait()
		t.Logf("%d logins took %v", n, time.Since(start).Round(time.Millisecond))
		measured := func(what string, f func()) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := time.Now()
			f()
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			t.Logf("%s: %v, %d MB allocated", what, took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20)
			if took > time.Minute {
				t.Errorf("%s took %v", what, took)
			}
		}
		ctx := context.Background()
		var list []sessplus.Info
		measured("list", func() { list, _ = m.Sessions(ctx, "session", "ann") })
		if len(list) != n {
			t.Fatalf("%d sessions are listed, want %d", len(list), n)
		}
		measured("revoke one", func() {
			if err := m.Revoke(ctx, "session", list[n/2].Handle); err != nil {
				t.Error(err)
			}
		})
		kept := list[0].Handle
		measured("revoke all but one", func() {
			if ended, err := m.RevokeAll(ctx, "session", "ann", kept); ended != n-2 || err != nil {
				t.Errorf("RevokeAll = %d, %v; want %d", ended, err, n-2)
			}
		})
		measured("list what is left", func() { list, _ = m.Sessions(ctx, "session", "ann") })
		if got := fmt.Sprint(len(list), " ", list[0].Handle == kept); got != "1 true" {
			t.Errorf("what is left is %s, want the one", got)
		}
	})
}
