package sessplus_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sessplus/sessplus"
)

// What is in this file fails: findings without a mend.

// SPEC 4.2: two tabs. One creates a token, another logs in.
func TestAttackSingleCookieTwoTabs(t *testing.T) {
	b := sessplus.Memory()
	c := newCrowd(t, newManager(t, &sessplus.Options{SingleCookie: "__session"},
		sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
		sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("token")},
		sessplus.Config{CookieName: "plan", Fields: sessplus.Include("plan")}))
	slow := slowly(c, func(s *sessplus.Session) { s.Set("token", "t") })
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Renew(); s.Set("user", "ann") })
	slow.finish()
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.GetString("user"); got != "ann" {
			t.Errorf("login beside a first token: user = %q, want ann", got)
		}
	})
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("plan", "gold") })
	slow = slowly(c, func(s *sessplus.Session) { s.Set("token", "t2") })
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy("plan") })
	slow.finish()
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.GetString("plan"); got != "" {
			t.Errorf("the end of a secure cookie beside another's change is undone: %q", got)
		}
	})
}

// SPEC 5.11, SPEC 11.1: a Handler behind a Load of the same Manager.
func TestAttackHandlerBehindLoad(t *testing.T) {
	m := newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Memory()})
	inner := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("user", "ann")
		w.WriteHeader(200)
	}))
	rec := httptest.NewRecorder()
	_, r, err := m.Load(rec, httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	inner.ServeHTTP(rec, r)
	if got := rec.Header()["Set-Cookie"]; len(got) != 1 {
		t.Errorf("Set-Cookie = %q; what the handler has set is lost without a word", got)
	}
}

// SPEC 10.5: two requests of a session from before the index, one of which is a login as somebody else.
func TestAttackMisfiledByARace(t *testing.T) {
	fast(t, func(t *testing.T, b sessplus.Backend) {
		config := sessplus.Config{CookieName: "s", Backend: b}
		before := newCrowd(t, newManager(t, nil, config))
		before.mustAsk(before.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		config.IndexBy = "user"
		m := newManager(t, nil, config)
		c := newCrowd(t, m)
		c.client = before.client
		slow := c.begin(c.client, func(s *sessplus.Session) { s.Set("n", 1) })
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "bob") })
		slow.finish()
		list, err := m.Sessions(t.Context(), "s", "bob")
		if err != nil || len(list) != 1 {
			t.Errorf("bob has %d sessions, %v; want 1", len(list), err)
		}
		n, err := m.RevokeAll(t.Context(), "s", "bob")
		if n != 1 || err != nil {
			t.Errorf("revoked %d of bob's, %v", n, err)
		}
	})
}
