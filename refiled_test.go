package sessplus_test

import (
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 10.1, 10.5: sessions from before there was an IndexBy, or from when it was another field, are listed from the next
// request on that reads or changes them, if only to poll.
func TestSessionsFromBeforeTheIndex(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		before := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "session", Backend: b}))
		client := before.logIn("ann")
		before.mustAsk(client, func(s *sessplus.Session) { s.Set("team", "blue") })

		m := newManager(t, nil, indexed(b))
		now := newCrowd(t, m)
		client = now.withCookies(before.jar(client))
		if got := handles(t, m, "ann"); len(got) != 0 {
			t.Errorf("before a request %d sessions are listed, want none", len(got))
		}
		now.mustAsk(client, func(s *sessplus.Session) { s.Get("user_id"); s.SkipTouch() })
		if got, want := handles(t, m, "ann"), handleOf(now, client); len(got) != 1 || got[0] != want {
			t.Errorf("after the next request the sessions are %q, want %q", got, want)
		}

		byTeam := indexed(b)
		byTeam.IndexBy = "team"
		m = newManager(t, nil, byTeam)
		later := newCrowd(t, m)
		client = later.withCookies(now.jar(client))
		later.mustAsk(client, func(s *sessplus.Session) { s.Get("user_id") })
		if blue, ann := handles(t, m, "blue"), handles(t, m, "ann"); len(blue) != 1 || len(ann) != 0 {
			t.Errorf("by another field: %d sessions of the new one and %d of the old, want 1 and 0", len(blue), len(ann))
		}
	})
}
