package sessplus_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 10.1: sessions from before there was an IndexBy, or with another, are listed from their next use on.
func TestSessionsFromBeforeTheIndex(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		config := sessplus.Config{CookieName: "session", Backend: b}
		old := newCrowd(t, newManager(t, nil, config))
		config.IndexBy = "user_id"
		m := newManager(t, j.options(5*time.Second), config)
		c := newCrowd(t, m)
		reader, writer, idle := old.logIn("ann"), old.logIn("ann"), old.logIn("ann")
		if n := len(handles(t, m, "ann")); n != 0 {
			t.Fatalf("%d sessions are listed, want none that was not used yet", n)
		}
		for i := range 3 {
			c.mustAsk(idle, func(*sessplus.Session) {})
			c.mustAsk(reader, func(s *sessplus.Session) { s.Get("user_id") })
			if i == 0 {
				c.mustAsk(writer, func(s *sessplus.Session) { s.Set("n", 1) })
			}
			if n := len(handles(t, m, "ann")); n != 2 {
				t.Errorf("%d sessions are listed, want the 2 that were used", n)
			}
			touches := 0
			for _, kind := range j.kinds("session") {
				if kind == sessplus.EventTouch {
					touches++
				}
			}
			if want := max(0, 1-i); touches != want {
				t.Errorf("round %d: %d sessions were touched, want %d", i, touches, want)
			}
		}
		config.IndexBy = "n"
		other := newManager(t, nil, config)
		newCrowd(t, other).mustAsk(writer, func(s *sessplus.Session) { s.Get("n") })
		if n, before := len(handles(t, other, "1")), len(handles(t, m, "ann")); n != 1 || before != 1 {
			t.Errorf("by another field %d sessions are listed, and %d by the former, want 1 and 1", n, before)
		}
		config.IndexBy = ""
		gone := newCrowd(t, newManager(t, nil, config))
		gone.mustAsk(reader, func(s *sessplus.Session) { s.Set("n", 2); s.SetPermanent("session", true) })
		if gone.user(reader) != "ann" {
			t.Error("without IndexBy the session has ended")
		}
	})
}

// SPEC 10.1, SPEC 10.2, SPEC 10.3: with all other settings of a cookie.
func TestIndexByWithOtherSettings(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		config := indexed(b)
		config.Fields = sessplus.Exclude("color")
		config.Lazy, config.Optional, config.SignID, config.DropIfGone = true, true, true, true
		config.IdleTimeout, config.MaxAge, config.KeyPrefix = time.Hour, time.Hour, "x:y@z:"
		var j journal
		m := newManager(t, j.options(5*time.Second), config, sessplus.Config{CookieName: "bound", BoundTo: "session", Fields: sessplus.Include("color")})
		c := newCrowd(t, m)
		client, other := c.logIn("ann"), c.logIn("ann")
		c.mustAsk(client, func(s *sessplus.Session) { s.Set("color", "blue") })
		handle := handleOf(c, client)
		list := handles(t, m, "ann")
		if len(list) != 2 || !slices.Contains(list, handle) {
			t.Fatalf("Sessions = %q, want 2 with %q", list, handle)
		}
		j.kinds("bound")
		if err := m.Edit(t.Context(), "session", handle, func(s *sessplus.Session) error { s.Set("role", "guest"); return nil }); err != nil {
			t.Error(err)
		}
		c.mustAsk(client, func(s *sessplus.Session) {
			if got := s.GetString("role") + s.GetString("color"); got != "guestblue" {
				t.Errorf("role and color = %q, want guestblue", got)
			}
		})
		if n, err := m.RevokeAll(t.Context(), "session", "ann", handleOf(c, other)); n != 1 || err != nil {
			t.Errorf("RevokeAll = %d, %v; want 1", n, err)
		}
		c.mustAsk(client, func(s *sessplus.Session) {
			if s.Has("color") || s.Has("user_id") {
				t.Error("a revoked session, or what is bound to it, is there")
			}
		})
		if err := m.Edit(t.Context(), "session", handle, func(*sessplus.Session) error { return nil }); !errors.Is(err, sessplus.ErrSessionGone) {
			t.Errorf("Edit of an ended session: %v, want ErrSessionGone also with DropIfGone", err)
		}
		handle = handleOf(c, other)
		j.kinds("bound")
		if err := m.Edit(t.Context(), "session", handle, func(s *sessplus.Session) error {
			if err := m.Revoke(t.Context(), "session", handle); err != nil {
				t.Error(err)
			}
			s.Set("role", "late")
			return nil
		}); !errors.Is(err, sessplus.ErrSessionGone) {
			t.Errorf("Edit beside a revocation: %v, want ErrSessionGone also with DropIfGone", err)
		}
		empty := c.logIn("ann")
		c.mustAsk(empty, func(s *sessplus.Session) { s.Set("color", "red") })
		j.kinds("bound")
		if err := m.Edit(t.Context(), "session", handleOf(c, empty), func(s *sessplus.Session) error { s.Clear(); return nil }); err != nil {
			t.Error(err)
		}
		if kinds := j.kinds("bound"); len(kinds) > 0 {
			t.Errorf("of a cookie that an edit has nothing to do with there were the events %q", kinds)
		}
	})
}

// SPEC 2.4, SPEC 10.1: a stored value that names nobody, because it cannot be read, hinders nothing.
func TestIndexByOfAValueThatCannotBeRead(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		m := newManager(t, nil, indexed(b))
		c := newCrowd(t, m)
		for i, raw := range []string{"{", `["a"]`, `{"a":1}`, ""} {
			user := fmt.Sprint("ann", i)
			client := c.logIn(user)
			first, _, _ := strings.Cut(handleOf(c, client), "-")
			key := "session:session:" + first
			now := time.Now()
			if _, err := b.Update(t.Context(), key, &sessplus.Change{Set: []sessplus.RawField{{Name: "user_id", Value: []byte(raw)}}, Now: now, Expires: now}); err != nil {
				t.Fatal(err)
			}
			if n := len(handles(t, m, user)); n != 0 {
				t.Errorf("%s: %d sessions are listed, want none", raw, n)
			}
			c.mustAsk(client, func(s *sessplus.Session) { s.Set("n", 1) })
			c.mustAsk(client, func(s *sessplus.Session) { s.Renew() })
			c.mustAsk(client, func(s *sessplus.Session) {
				if s.GetInt("n") != 1 {
					t.Errorf("%s: a change was lost", raw)
				}
				s.Set("user_id", user)
			})
			if n := len(handles(t, m, user)); n != 1 {
				t.Errorf("%s: once it is set again %d sessions are listed, want 1", raw, n)
			}
		}
	})
}

// SPEC 10.1: who is to be found must be called something.
func TestIndexByRefusesValuesThatNameNobody(t *testing.T) {
	t.Parallel()
	m := newManager(t, nil, indexed(sessplus.Memory()))
	c := newCrowd(t, m)
	client := c.logIn("ann")
	c.mustAsk(client, func(s *sessplus.Session) {
		list := sessplus.Field[[]string]("user_id")
		if _, err := list.Update(s, func([]string) []string { return nil }); err == nil {
			t.Error("an Update of text as a list has succeeded")
		}
		wrong := sessplus.Field[any]("user_id")
		_, err := wrong.Update(s, func(any) any { return map[string]int{"a": 1} })
		var e *sessplus.Error
		if !errors.As(err, &e) || e.Cookie != "session" || !strings.Contains(err.Error(), "user_id") || !strings.Contains(err.Error(), "text, a number or a bool") {
			t.Errorf("Update to a map: %v, want an error that says what it must be", err)
		}
		if got := s.GetString("user_id"); got != "ann" {
			t.Errorf("the user is %q, want ann", got)
		}
	})
	if err := m.Edit(t.Context(), "session", handleOf(c, client), func(s *sessplus.Session) error {
		s.Set("user_id", []string{"a"})
		return nil
	}); err == nil || errors.Is(err, sessplus.ErrUnavailable) {
		t.Errorf("Edit that sets a list: %v, want an error that says so", err)
	}
	if n := len(handles(t, m, "ann")); n != 1 || c.user(client) != "ann" {
		t.Errorf("%d sessions of ann are listed, and the user is %q", n, c.user(client))
	}
}

// SPEC 10.3: an edit can do all that a request can, which needs no cookie.
func TestEditOfAllKinds(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		m := newManager(t, nil, indexed(b))
		c := newCrowd(t, m)
		edit := func(client *http.Client, change func(s *sessplus.Session)) error {
			return m.Edit(t.Context(), "session", handleOf(c, client), func(s *sessplus.Session) error { change(s); return nil })
		}
		moved := c.logIn("ann")
		if err := edit(moved, func(s *sessplus.Session) { s.Set("user_id", "eve") }); err != nil {
			t.Error(err)
		}
		if got, want := handles(t, m, "eve"), []string{handleOf(c, moved)}; !slices.Equal(got, want) || len(handles(t, m, "ann")) > 0 || c.user(moved) != "eve" {
			t.Errorf("after a change of the user Sessions = %q, want %q", got, want)
		}
		for name, change := range map[string]func(*sessplus.Session){
			"emptied":   func(s *sessplus.Session) { s.Clear() },
			"destroyed": func(s *sessplus.Session) { s.Destroy() },
			"deleted":   func(s *sessplus.Session) { s.Delete("user_id") },
		} {
			client := c.logIn("ann")
			handle := handleOf(c, client)
			if err := edit(client, change); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := len(handles(t, m, "ann")); n != 0 || c.user(client) != "" {
				t.Errorf("%s: %d sessions are listed, and the user is %q", name, n, c.user(client))
			}
			if err := m.Edit(t.Context(), "session", handle, func(s *sessplus.Session) error { s.Set("role", "late"); return nil }); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("%s: another edit: %v, want ErrSessionGone", name, err)
			}
		}
		client := c.logIn("ann")
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("recovered %v", p)
				}
			}()
			edit(client, func(s *sessplus.Session) { s.Set("role", "lost"); panic("mine") })
		}()
		if err := edit(client, func(s *sessplus.Session) {
			if s.Has("role") {
				t.Error("an edit that panicked was saved")
			}
			s.Set("role", "early")
			if err := s.Save(); err != nil {
				t.Error(err)
			}
			sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 })
			s.Set("role", "guest")
		}); err != nil {
			t.Error(err)
		}
		c.mustAsk(client, func(s *sessplus.Session) {
			if s.GetString("role") != "guest" || s.GetInt("n") != 1 {
				t.Errorf("role %q, n %d; want guest and 1", s.GetString("role"), s.GetInt("n"))
			}
		})
	})
}

// SPEC 8, SPEC 10.2, SPEC 10.3: who listens hears of what is done from outside, with the handle.
func TestEventsFromOutside(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		m := newManager(t, j.options(5*time.Second), indexed(b))
		c := newCrowd(t, m)
		one, two := c.logIn("ann"), c.logIn("ann")
		first, second := handleOf(c, one), handleOf(c, two)
		hears := func(what string, want ...string) {
			t.Helper()
			j.mu.Lock()
			defer j.mu.Unlock()
			got := []string{}
			for _, e := range j.events {
				got = append(got, fmt.Sprint(e.Kind, " ", e.Handle, " ", e.Fields))
			}
			j.events = nil
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s: the events are %q, want %q", what, got, want)
			}
		}
		j.kinds("session")
		m.Edit(t.Context(), "session", first, func(s *sessplus.Session) error { s.Set("role", "guest"); return nil })
		hears("Edit", "load "+first+" 1", "save "+first+" 1")
		m.Edit(t.Context(), "session", first, func(s *sessplus.Session) error {
			sessplus.Field[int]("n").Update(s, func(n int) int { return n + 1 })
			return nil
		})
		hears("Edit with Update", "load "+first+" 2", "save "+first+" 1")
		m.Edit(t.Context(), "session", first, func(s *sessplus.Session) error { s.Get("role"); return nil })
		hears("Edit without a change", "load "+first+" 3")
		m.Revoke(t.Context(), "session", first)
		hears("Revoke", "destroy "+first+" 0")
		m.Revoke(t.Context(), "session", first)
		hears("Revoke again")
		m.RevokeAll(t.Context(), "session", "ann")
		hears("RevokeAll", "destroy "+second+" 0")
	})
}

// SPEC 10.4: of a session that was ended nothing is left which a list would read, and pay for.
func TestFirestoreListReadsNoEndedDocument(t *testing.T) {
	t.Parallel()
	client := servers.Firestore(t)
	m := newManager(t, nil, indexed(sessplus.Firestore(client, "sessions")))
	c := newCrowd(t, m)
	c.logIn("ann")
	c.mustAsk(c.logIn("ann"), func(s *sessplus.Session) { s.Destroy() })
	if n, err := m.RevokeAll(t.Context(), "session", "ann"); n != 1 || err != nil {
		t.Fatalf("RevokeAll = %d, %v; want 1", n, err)
	}
	docs, err := client.Collection("sessions").Where("owner", "==", ownerOf("ann")).Documents(t.Context()).GetAll()
	if err != nil || len(docs) > 0 {
		t.Errorf("%d documents have the owner, %v", len(docs), err)
	}
	if docs, err = client.Collection("sessions").Documents(t.Context()).GetAll(); err != nil || len(docs) < 2 {
		t.Errorf("there are %d documents, %v; want the tombstones", len(docs), err)
	}
}
