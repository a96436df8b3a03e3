package sessplussql_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// handles returns those of the user's sessions, which must be so many.
func (s *site) handles(t testing.TB, user string, n int) (list []string) {
	t.Helper()
	infos, err := s.Sessions(t.Context(), "session", user)
	if err != nil || len(infos) != n {
		t.Fatalf("Sessions(%q) = %d sessions, %v, want %d", user, len(infos), err, n)
	}
	for _, i := range infos {
		list = append(list, i.Handle)
	}
	return list
}

// anonymous fails the test unless the visitor is logged out.
func (s *site) anonymous(t testing.TB, c *http.Client) {
	t.Helper()
	if status, body := s.ask(c, "/get?name=n"); status != http.StatusUnauthorized {
		t.Errorf("the visitor of an ended session is answered %d %q", status, body)
	}
}

// handleOf is what the visitor's own session is named.
func (s *site) handleOf(t testing.TB, c *http.Client) string {
	t.Helper()
	_, handle := s.ask(c, "/handle")
	return handle
}

// SPEC 10.1, 10.2, 10.3, 10.6
func TestSessionsOfAUser(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		s := newSite(t, d.backend, 30*time.Second)
		var visitors []*http.Client
		for range 4 {
			c := visitor()
			s.must(t, c, "/login?name=ann", "")
			visitors = append(visitors, c)
			time.Sleep(2 * time.Millisecond) // the last used first
		}
		bob := visitor()
		s.must(t, bob, "/login?name=bob", "")
		large := strings.Repeat("x", 3000) // in rows of their own
		s.must(t, visitors[0], "/set?name=n&value="+large, "")
		s.must(t, visitors[0], "/set?name=m&value="+large, "")

		infos, err := s.Sessions(t.Context(), "session", "ann")
		if err != nil || len(infos) != 4 {
			t.Fatalf("Sessions = %d, %v, want 4", len(infos), err)
		}
		for i, info := range infos {
			who := []int{0, 3, 2, 1}[i]
			if info.Handle != s.handleOf(t, visitors[who]) || info.Device != "Go-http-client/1.1" || info.Fields["user"] != "ann" {
				t.Errorf("%d: %+v is not the session of visitor %d", i, info, who)
			}
		}
		if n, m := infos[0].Fields["n"], infos[0].Fields["m"]; n != large || m != large {
			t.Errorf("large fields are listed as %.20q and %.20q", n, m)
		}

		if err := s.Revoke(t.Context(), "session", infos[0].Handle); err != nil {
			t.Fatal(err)
		}
		s.anonymous(t, visitors[0])
		s.handles(t, "ann", 3)

		err = s.Edit(t.Context(), "session", s.handleOf(t, visitors[1]), func(session *sessplus.Session) error {
			session.Set("n", "edited")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.must(t, visitors[1], "/get?name=n", "edited")
		err = s.Edit(t.Context(), "session", infos[0].Handle, func(*sessplus.Session) error { return nil })
		if !errors.Is(err, sessplus.ErrSessionGone) {
			t.Errorf("Edit of an ended session = %v", err)
		}

		s.must(t, visitors[3], "/login?name=eve", "ann") // a renewal
		s.handles(t, "ann", 2)
		s.handles(t, "eve", 1)
		s.must(t, visitors[3], "/set?name=user&value=bob", "eve") // in the same session
		s.handles(t, "eve", 0)
		s.handles(t, "bob", 2)
		s.must(t, visitors[3], "/logout", "bob")
		s.handles(t, "bob", 1)

		if n, err := s.RevokeAll(t.Context(), "session", "ann", s.handleOf(t, visitors[2])); n != 1 || err != nil {
			t.Errorf("RevokeAll = %d, %v, want 1", n, err)
		}
		s.anonymous(t, visitors[1])
		s.must(t, visitors[2], "/get?name=user", "ann")
		s.must(t, bob, "/get?name=user", "bob")
		if s.log.Len() > 0 {
			t.Errorf("log: %s", s.log.String())
		}
	})
}

// manySessions is 10,000, but with the race detector.
var manySessions = 1000

// SPEC 10.4: a user with 10,000 sessions works.
func TestSessionsOfABusyUser(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		s, first, second := newSite(t, d.backend, 30*time.Second), visitor(), visitor()
		s.must(t, first, "/login?name=ann", "")
		s.must(t, second, "/login?name=ann", "")
		id, _, _ := strings.Cut(s.handleOf(t, first), "-") // the tail of its key, until it is rotated or renewed
		like := mustLoad(t, d.backend, "session:session:"+id)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				for n := i; n < manySessions-2; n += 50 {
					r := *like
					r.Version, r.Saved, r.Expires = "", r.Saved.Add(-time.Minute), r.Expires.Add(-time.Minute)
					if err := d.backend.Create(t.Context(), fmt.Sprintf("session:session:%064x", n), &r); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		start := time.Now()
		took := func(what string) {
			t.Logf("%s: %v", what, time.Since(start).Round(time.Millisecond))
			start = time.Now()
		}
		handles := s.handles(t, "ann", manySessions)
		took(fmt.Sprintf("list %d", manySessions))
		if !slices.Contains(handles[:2], s.handleOf(t, first)) {
			t.Error("the session that was used last is not listed first")
		}
		start = time.Now()
		if err := s.Revoke(t.Context(), "session", s.handleOf(t, second)); err != nil {
			t.Fatal(err)
		}
		took("revoke one")
		s.anonymous(t, second)
		handle := s.handleOf(t, first)
		start = time.Now()
		n, err := s.RevokeAll(t.Context(), "session", "ann", handle)
		took("revoke all but one")
		if n != manySessions-2 || err != nil {
			t.Errorf("RevokeAll = %d, %v, want %d", n, err, manySessions-2)
		}
		if left := s.handles(t, "ann", 1); left[0] != handle {
			t.Error("the wrong session is left")
		}
		took("list one beside those that have ended")
		s.must(t, first, "/get?name=user", "ann")
	})
}

// The owner of a record is found without reading those of others.
func TestOwnedUsesTheIndex(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		for i := range 1000 {
			r := record(field("n", "1"))
			r.Owner = fmt.Sprint("owner", i)
			mustCreate(t, d.backend, fmt.Sprint("k", i), r)
		}
		explain := map[string]string{"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN ", "mysql": "EXPLAIN "}[d.backend.String()]
		if d.backend.String() == "postgresql" {
			d.Exec("ANALYZE " + d.table)
		}
		rows, err := d.Query(explain + "SELECT t.data, f.value FROM " + d.table + " t LEFT JOIN " + d.table + "_fields f ON f.id = t.id" +
			" WHERE t.owner = 'owner7' AND t.expires > 5")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var plan strings.Builder
		columns, _ := rows.Columns()
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				fmt.Fprintf(&plan, "%s ", *v.(*any))
			}
		}
		if !strings.Contains(plan.String(), d.table+"_owner") {
			t.Errorf("plan: %s", plan.String())
		}
	})
}
