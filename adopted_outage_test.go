package sessplus_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 12.4, SPEC 6.1: if one of the two backends fails while a field moves, the answer says whether the change was
// made, and no value is lost.
func TestMoveMeetsOutage(t *testing.T) {
	for what, do := range map[string]struct {
		do   func(s *sessplus.Session)
		want string // after a success
	}{
		"Set":     {func(s *sessplus.Session) { s.Set("user", "bob") }, "bob"},
		"Delete":  {func(s *sessplus.Session) { s.Delete("user") }, ""},
		"Destroy": {func(s *sessplus.Session) { s.Destroy("t") }, ""},
		"login":   {func(s *sessplus.Session) { s.Renew(); s.Set("user", "bob") }, "bob"},
		"a move":  {func(s *sessplus.Session) { s.Set("cart", "tea") }, "ann"},
	} {
		for _, outage := range []string{"s load", "s update", "t load", "t update", "t create", "t all"} {
			for _, copied := range []bool{false, true} {
				for _, optional := range []string{"", "s", "t"} {
					t.Run(fmt.Sprint(what, "/", outage, "/", copied, "/", optional), func(t *testing.T) {
						var down atomic.Bool
						backend := func(name string) sessplus.Backend {
							loads := 0
							r := &recorder{Backend: sessplus.Memory()}
							r.hook = func(_ context.Context, op string) error {
								if !down.Load() {
									return nil
								}
								if op == "load" {
									loads++
								}
								first := op == "load" && loads == 1
								if outage == name+" all" || strings.Contains(outage, name+" "+op) && !first {
									return sessplus.ErrUnavailable
								}
								return nil
							}
							return r
						}
						before, after := moving(backend("s"), backend("t"))
						before[0].Adopt = nil
						after[0].Optional, after[1].Optional = optional == "s", optional == "t"
						old, now := newManager(t, nil, before...), newManager(t, nil, after...)
						cookies := cookiesOf(pass(old, "", func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("theme", "dark") }))
						if copied {
							cookies += "; " + cookiesOf(pass(now, cookies, func(s *sessplus.Session) { s.Set("cart", "milk") }))
						}
						down.Store(true)
						r := pass(now, cookies, do.do)
						down.Store(false)
						if made := cookiesOf(r); made != "" {
							cookies = made + "; " + cookies
						}
						want := []string{do.want}
						if r.StatusCode != 200 || optional == "t" { // whose changes may be dropped
							want = append(want, "ann")
						}
						pass(now, cookies, func(s *sessplus.Session) {
							user := s.GetString("user")
							if user != want[0] && user != want[len(want)-1] {
								t.Errorf("status %d, and then the user is %q, want one of %q", r.StatusCode, user, want)
							}
						})
					})
				}
			}
		}
	}
}
