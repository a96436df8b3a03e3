package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// indexed is a config whose sessions can be listed by user.
func indexed(b sessplus.Backend) sessplus.Config {
	return sessplus.Config{CookieName: "session", Backend: b, IndexBy: "user_id"}
}

// logIn lets a new browser log in as the user.
func (c *crowd) logIn(user any) *http.Client {
	c.Helper()
	client := c.visitor()
	c.mustAsk(client, func(s *sessplus.Session) {
		s.Renew()
		s.Set("user_id", user)
	})
	return client
}

// user is who the browser is logged in as, as text.
func (c *crowd) user(client *http.Client) string {
	c.Helper()
	var user any
	c.mustAsk(client, func(s *sessplus.Session) { s.SkipTouch(); user = s.Get("user_id") })
	if user == nil {
		return ""
	}
	return fmt.Sprint(user)
}

// handles lists the sessions of the user.
func handles(t testing.TB, m *sessplus.Manager, user string) []string {
	t.Helper()
	infos, err := m.Sessions(t.Context(), "session", user)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, i := range infos {
		list = append(list, i.Handle)
	}
	return list
}

func handleOf(c *crowd, client *http.Client) (handle string) {
	c.mustAsk(client, func(s *sessplus.Session) { s.SkipTouch(); handle = s.Handle("session") }) // nor does it rotate
	return handle
}

// SPEC 10.1: live sessions of that user, and no others, the last used first.
func TestSessionsOfAUser(t *testing.T) { onEveryBackend(t, sessionsOfAUser) }

func sessionsOfAUser(t *testing.T, b sessplus.Backend) {
	config := indexed(b)
	config.RotateEvery = 50 * time.Millisecond
	m := newManager(t, nil, config)
	c := newCrowd(t, m)
	first, second := c.logIn(42), c.logIn("42")
	other := c.logIn("ann")
	want := func(what string, user string, clients ...*http.Client) {
		t.Helper()
		expected := []string{}
		for _, client := range clients {
			expected = append(expected, handleOf(c, client))
		}
		got := handles(t, m, user)
		slices.Sort(expected)
		slices.Sort(got)
		if !slices.Equal(got, expected) {
			t.Errorf("%s: Sessions(%q) = %q, want %q", what, user, got, expected)
		}
	}
	want("a number and its text are one user", "42", first, second)
	want("another user", "ann", other)
	want("nobody", "")
	want("a user without sessions", "4")
	time.Sleep(2 * time.Millisecond) // uses, such as a rotation above, are told apart by milliseconds
	c.mustAsk(first, func(s *sessplus.Session) { s.Set("n", 1) })
	if got := handles(t, m, "42"); got[0] != handleOf(c, first) {
		t.Errorf("Sessions = %q, want the one saved last first", got)
	}
	c.mustAsk(first, func(s *sessplus.Session) { s.Renew() })
	want("a renewed one is listed once", "42", first, second)
	time.Sleep(60 * time.Millisecond)
	c.mustAsk(second, func(s *sessplus.Session) { s.Get("user_id") })
	want("a rotated one is listed once", "42", first, second)
	c.mustAsk(second, func(s *sessplus.Session) { s.Set("user_id", "ann") })
	want("whose field has changed", "42", first)
	want("whose field has changed", "ann", other, second)
	c.mustAsk(second, func(s *sessplus.Session) { s.Delete("user_id"); s.Set("n", 1) })
	want("whose field was deleted", "ann", other)
	c.mustAsk(other, func(s *sessplus.Session) { s.Destroy() })
	want("a destroyed one", "ann")
	c.mustAsk(first, func(s *sessplus.Session) { s.Clear() })
	want("an emptied one", "42")
	name := sessplus.Field[string]("user_id")
	c.mustAsk(second, func(s *sessplus.Session) { name.Update(s, func(string) string { return "eve" }) })
	want("an updated field", "eve", second)
}

// SPEC 10.1, SPEC 10.6: what is told of a session.
func TestInfo(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		config := indexed(b)
		config.Fields = sessplus.Include("user_id", "role")
		m := newManager(t, nil, config, sessplus.Config{CookieName: "other", Fields: sessplus.Auto()})
		c := newCrowd(t, m)
		before := time.Now().Add(-2 * time.Millisecond)
		agent := "Browser/1 (é; " + strings.Repeat("x", 300)
		req, _ := http.NewRequest("GET", c.URL+"/?n=1", nil)
		req.Header.Set("User-Agent", agent)
		c.handlers.Store("1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			s.Set("user_id", 42)
			s.Set("role", "admin")
			s.Set("color", "blue")
		}))
		res, err := c.Server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		infos, err := m.Sessions(t.Context(), "session", "42")
		if err != nil || len(infos) != 1 {
			t.Fatalf("Sessions = %v, %v; want one", infos, err)
		}
		i := infos[0]
		if i.Device != agent[:256] {
			t.Errorf("Device = %q, want the first 256 bytes of the User-Agent", i.Device)
		}
		if i.Created.Before(before) || !i.LastSaved.Equal(i.Created) || i.Expires.Sub(i.Created) != 24*time.Hour {
			t.Errorf("Created %v, LastSaved %v, Expires %v", i.Created, i.LastSaved, i.Expires)
		}
		if got := fmt.Sprint(i.Fields); got != "map[role:admin user_id:42]" {
			t.Errorf("Fields = %s, want those of this cookie", got)
		}
	})
}

// SPEC 10.1: however a user is called.
func TestUsersOfAnyName(t *testing.T) {
	t.Parallel()
	names := []any{"", " ", "a*", "[a]", "null", "{x}", "a/b", "__x__", strings.Repeat("long", 256), "a\x00b", "a\x00", "A", "a", 7, 7.5, true,
		"é", "%2F", "-", "0", -1}
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		m := newManager(t, nil, indexed(b))
		c := newCrowd(t, m)
		for _, name := range names {
			c.logIn(name)
		}
		c.logIn(nil)
		for _, name := range names {
			want := 1
			if name == "" {
				want = 0
			}
			if got := len(handles(t, m, fmt.Sprint(name))); got != want {
				t.Errorf("Sessions(%.20q) lists %d sessions, want %d", name, got, want)
			}
		}
		r := c.askWith(c.visitor(), func(s *sessplus.Session) { s.Set("user_id", []string{"a"}) })
		if r.StatusCode != http.StatusInternalServerError {
			t.Errorf("a list as the user: status %d, want 500", r.StatusCode)
		}
	})
}

// SPEC 10.2: an ended session is as after Destroy.
func TestRevoke(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		config := indexed(b)
		config.RotateEvery = 50 * time.Millisecond
		m, elsewhere := newManager(t, nil, config), newManager(t, nil, config)
		c, d := newCrowd(t, m), newCrowd(t, elsewhere)
		ctx := t.Context()
		phone, laptop, tablet := c.logIn("ann"), c.logIn("ann"), c.logIn("ann")
		eve := c.logIn("eve")
		if err := m.Revoke(ctx, "session", handleOf(c, phone)); err != nil {
			t.Fatal(err)
		}
		onPhone := d.withCookies(c.jar(phone))
		if r := d.askWith(onPhone, func(s *sessplus.Session) {
			if s.Has("user_id") {
				t.Error("a revoked session is there on another machine")
			}
			s.Set("n", 1)
		}); r.StatusCode != http.StatusConflict || len(r.setCookies("session")) > 0 {
			t.Errorf("a change under a revoked id: %d, %q; want 409 and no cookie (SPEC 3.11)", r.StatusCode, r.setCookies("session"))
		}
		// a handle from before a rotation
		old, id := handleOf(c, tablet), c.jar(tablet)["session"]
		time.Sleep(60 * time.Millisecond)
		c.mustAsk(tablet, func(s *sessplus.Session) { s.Get("user_id") })
		if c.jar(tablet)["session"] == id {
			t.Fatal("the session was not rotated")
		}
		if err := m.Revoke(ctx, "session", old); err != nil || c.user(tablet) != "" {
			t.Errorf("Revoke of a handle from before a rotation: %v; the session lives on: %q", err, c.user(tablet))
		}
		if err := m.Revoke(ctx, "session", old); err != nil {
			t.Errorf("Revoke once more: %v, want nil", err)
		}
		if err := m.Revoke(ctx, "session", strings.Repeat("a0", 32)); err != nil {
			t.Errorf("Revoke of an unknown handle: %v, want nil", err)
		}
		if got := c.user(laptop); got != "ann" {
			t.Errorf("the laptop's user = %q, want ann", got)
		}
		desk := c.logIn("ann")
		n, err := m.RevokeAll(ctx, "session", "ann", handleOf(c, laptop))
		if n != 1 || err != nil {
			t.Errorf("RevokeAll = %d, %v; want 1", n, err)
		}
		if got := c.user(laptop) + c.user(desk) + c.user(eve); got != "anneve" {
			t.Errorf("users after RevokeAll but for the laptop = %q, want ann there and eve", got)
		}
		if n, err := m.RevokeAll(ctx, "session", ""); n != 0 || err != nil {
			t.Errorf("RevokeAll of nobody = %d, %v", n, err)
		}
		if n, err := m.RevokeAll(ctx, "session", "ann"); n != 1 || err != nil || c.user(laptop) != "" {
			t.Errorf("RevokeAll = %d, %v; want 1, and the laptop logged out", n, err)
		}
	})
}

// SPEC 10.2: mistakes are told.
func TestRevokeRefuses(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	plain := sessplus.Config{CookieName: "plain", Backend: b, Fields: sessplus.Include("x")}
	m := newManager(t, nil, indexed(b), plain)
	ctx := t.Context()
	good := strings.Repeat("a0", 32)
	for _, cookie := range []string{"", "unknown", "plain"} {
		_, err1 := m.Sessions(ctx, cookie, "ann")
		err2 := m.Revoke(ctx, cookie, good)
		_, err3 := m.RevokeAll(ctx, cookie, "ann")
		err4 := m.Edit(ctx, cookie, good, func(*sessplus.Session) error { return nil })
		for i, err := range []error{err1, err2, err3, err4} {
			var e *sessplus.Error
			if !errors.As(err, &e) || e.Cookie != cookie {
				t.Errorf("%q, call %d: %v, want an error that names the cookie", cookie, i, err)
			}
		}
	}
	for _, handle := range []string{"", "x", good[:63], good + "0", strings.ToUpper(good), strings.Repeat("é", 32), strings.Repeat("*", 64)} {
		err1 := m.Revoke(ctx, "session", handle)
		_, err2 := m.RevokeAll(ctx, "session", "ann", handle)
		err3 := m.Edit(ctx, "session", handle, func(*sessplus.Session) error { return nil })
		for i, err := range []error{err1, err2, err3} {
			if err == nil || !strings.Contains(err.Error(), "handle is malformed") {
				t.Errorf("%q, call %d: %v, want an error that says that the handle is malformed", handle, i, err)
			}
		}
	}
}

// SPEC 10.3: a change from outside is seen by the next request, and loses nothing of what requests change.
func TestEdit(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		const clients, edits = 64, 10
		config := indexed(b)
		patient := &sessplus.Options{Timeout: time.Minute} // eight at a time want to write one document
		m, elsewhere := newManager(t, patient, config, sessplus.Config{CookieName: "other", Fields: sessplus.Include("color")}), newManager(t, patient, config)
		c := newCrowd(t, elsewhere)
		all := make([]*http.Client, 8)
		for i := range all {
			all[i] = c.logIn("ann")
		}
		count := sessplus.Field[int]("count")
		rounds := clients / len(all)
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				client := all[i%len(all)]
				c.mustAsk(client, func(s *sessplus.Session) { s.Set(fmt.Sprint("f", i), i) })
				c.mustAsk(client, func(s *sessplus.Session) { count.Update(s, func(n int) int { return n + 1 }) })
			})
		}
		for n := range edits {
			for _, handle := range handles(t, m, "ann") {
				if err := m.Edit(t.Context(), "session", handle, func(s *sessplus.Session) error {
					s.Set("role", n)
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		}
		wg.Wait()
		for i, client := range all {
			c.mustAsk(client, func(s *sessplus.Session) {
				if got := s.GetInt("role"); got != edits-1 || s.GetInt("count") != rounds {
					t.Errorf("session %d: role %d, count %d; want %d and %d", i, got, s.GetInt("count"), edits-1, rounds)
				}
				for n := i; n < clients; n += len(all) {
					if s.GetInt(fmt.Sprint("f", n)) != n {
						t.Errorf("session %d has lost f%d", i, n)
					}
				}
			})
		}
	})
}

// SPEC 10.3: what an edit cannot do, and what happens when its session is renewed or ends meanwhile.
func TestEditIsNoRequest(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		config := indexed(b)
		config.Fields, config.IdleTimeout = sessplus.Exclude("color"), time.Hour
		m := newManager(t, nil, config, sessplus.Config{CookieName: "other", Fields: sessplus.Include("color")})
		c := newCrowd(t, m)
		client := c.logIn("ann")
		c.mustAsk(client, func(s *sessplus.Session) { s.Set("color", "blue") })
		handle := handleOf(c, client)
		edit := func(change func(s *sessplus.Session) error) error {
			return m.Edit(t.Context(), "session", handle, change)
		}
		mine := errors.New("mine")
		if err := edit(func(s *sessplus.Session) error { s.Set("role", "lost"); return mine }); err != mine {
			t.Errorf("an error of change: %v, want that", err)
		}
		for name, change := range map[string]func(s *sessplus.Session){
			"Renew":                   func(s *sessplus.Session) { s.Renew() },
			"SetPermanent":            func(s *sessplus.Session) { s.SetPermanent("session", true) },
			"a field of another":      func(s *sessplus.Session) { s.Set("color", "red") },
			"Renew and a change":      func(s *sessplus.Session) { s.Renew(); s.Set("role", "lost") },
			"a field of both cookies": func(s *sessplus.Session) { s.Renew("session"); s.Set("color", "red") },
		} {
			if err := edit(func(s *sessplus.Session) error { change(s); return nil }); !errors.Is(err, sessplus.ErrHeadersSent) {
				t.Errorf("%s: %v, want ErrHeadersSent", name, err)
			}
		}
		if err := edit(func(s *sessplus.Session) error {
			if s.Has("color") || s.GetString("user_id") != "ann" || s.Handle("session") != handle || s.IsNew("session") || s.ID("session") != "" {
				t.Errorf("the session of an edit: fields %q, handle %q, new %v", s.Fields(), s.Handle("session"), s.IsNew("session"))
			}
			s.Set("role", "guest")
			c.mustAsk(client, func(s *sessplus.Session) { s.Renew() })
			return nil
		}); err != nil {
			t.Errorf("beside a renewal: %v", err)
		}
		c.mustAsk(client, func(s *sessplus.Session) {
			if got := s.GetString("role") + s.GetString("color"); got != "guestblue" {
				t.Errorf("role and color = %q, want guestblue: a renewal must not undo a demotion", got)
			}
		})
		handle = handleOf(c, client)
		if err := edit(func(s *sessplus.Session) error {
			s.Set("role", "late")
			c.mustAsk(client, func(s *sessplus.Session) { s.Destroy() })
			return nil
		}); !errors.Is(err, sessplus.ErrSessionGone) {
			t.Errorf("beside a logout: %v, want ErrSessionGone", err)
		}
		if err := edit(func(s *sessplus.Session) error { t.Error("called"); return nil }); !errors.Is(err, sessplus.ErrSessionGone) {
			t.Errorf("after a logout: %v, want ErrSessionGone", err)
		}
		if c.user(client) != "" {
			t.Error("an edit has brought a session back")
		}
	})
}

// SPEC 10.3: an Edit that cannot be saved returns why, and logs nothing about a response, because there is none.
func TestEditThatFailsSaysSoOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	config := indexed(sessplus.Memory())
	config.Fields = sessplus.Include("user_id")
	m := newManager(t, &sessplus.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, config)
	c := newCrowd(t, m)
	handle := handleOf(c, c.logIn("ann"))
	log.Reset()
	err := m.Edit(t.Context(), "session", handle, func(s *sessplus.Session) error { s.Set("nobody's", 1); return nil })
	if !errors.Is(err, sessplus.ErrNoOwner) || log.Len() > 0 {
		t.Errorf("Edit = %v, want ErrNoOwner; the log has %q, want nothing", err, &log)
	}
}

// SPEC 10.2, SPEC 6.1: an outage is told, and what it left undone is done by another try.
func TestUserSessionsInAnOutage(t *testing.T) {
	f, _ := redisBehindProxy(t)
	m := newManager(t, &sessplus.Options{Timeout: 300 * time.Millisecond}, indexed(f.backend))
	c := newCrowd(t, m)
	client := c.logIn("ann")
	handle := handleOf(c, client)
	f.proxy.set(proxyHang)
	f.proxy.cut()
	ctx := t.Context()
	var wg sync.WaitGroup
	for name, call := range map[string]func() error{
		"Sessions":  func() error { _, err := m.Sessions(ctx, "session", "ann"); return err },
		"RevokeAll": func() error { _, err := m.RevokeAll(ctx, "session", "ann"); return err },
		"Revoke":    func() error { return m.Revoke(ctx, "session", handle) },
		"Edit":      func() error { return m.Edit(ctx, "session", handle, func(*sessplus.Session) error { return nil }) },
	} {
		wg.Go(func() {
			if err := call(); !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("%s while Redis is down: %v, want ErrUnavailable", name, err)
			}
		})
	}
	wg.Wait()
	f.proxy.set(proxyServe)
	f.proxy.cut()
	if n, err := m.RevokeAll(ctx, "session", "ann"); n != 1 || err != nil {
		t.Errorf("RevokeAll when it is back = %d, %v; want 1", n, err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := m.Revoke(gone, "session", handle); !errors.Is(err, context.Canceled) {
		t.Errorf("Revoke with a context that is done: %v", err)
	}
}

// SPEC 10.2, 3.12: a session keeps its handle when it is rotated, also once nothing under its first id tells of it any
// more.
func TestHandleOutlivesRotations(t *testing.T) {
	client := servers.Redis(t)
	config := indexed(sessplus.Redis(client))
	config.RotateEvery = 20 * time.Millisecond
	m := newManager(t, nil, config)
	c := newCrowd(t, m)
	ctx := t.Context()
	rotate := func(browser *http.Client) {
		t.Helper()
		before := c.jar(browser)["session"]
		time.Sleep(25 * time.Millisecond)
		c.mustAsk(browser, func(s *sessplus.Session) { s.Get("user_id") })
		if c.jar(browser)["session"] == before {
			t.Fatal("the session was not rotated")
		}
		for _, key := range client.Keys(ctx, "session:session:*").Val() {
			if client.HExists(ctx, key, ":mark").Val() {
				client.Del(ctx, key) // as after EndGrace
			}
		}
	}
	phone, laptop := c.logIn("ann"), c.logIn("ann")
	onPhone, onLaptop := handleOf(c, phone), handleOf(c, laptop)
	for range 2 {
		rotate(phone)
		rotate(laptop)
	}
	if got := handleOf(c, phone); got != onPhone {
		t.Errorf("the handle after two rotations is %q, want %q", got, onPhone)
	}
	if got := handles(t, m, "ann"); len(got) != 2 || !slices.Contains(got, onPhone) || !slices.Contains(got, onLaptop) {
		t.Errorf("Sessions has the handles %q", got)
	}
	if err := m.Edit(ctx, "session", onPhone, func(s *sessplus.Session) error { s.Set("role", "guest"); return nil }); err != nil {
		t.Error(err)
	}
	c.mustAsk(phone, func(s *sessplus.Session) {
		if s.GetString("role") != "guest" {
			t.Error("the edit was not saved")
		}
	})
	if n, err := m.RevokeAll(ctx, "session", "ann", onLaptop); n != 1 || err != nil || c.user(phone)+c.user(laptop) != "ann" {
		t.Errorf("RevokeAll but for a handle from before = %d, %v", n, err)
	}
	if err := m.Revoke(ctx, "session", onLaptop); err != nil || c.user(laptop) != "" {
		t.Errorf("Revoke of a handle from before: %v, and the session lives on: %v", err, c.user(laptop) != "")
	}
}
