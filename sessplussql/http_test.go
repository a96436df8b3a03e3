package sessplussql_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplussql"
)

const count sessplus.Field[int] = "count"

const timeout = 2 * time.Second

// A site is a real server with sessions in the backend, and what it logs.
type site struct {
	*httptest.Server
	*sessplus.Manager
	mu  sync.Mutex
	log strings.Builder
}

func (s *site) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func newSite(t testing.TB, b sessplus.Backend, timeout time.Duration) *site {
	t.Helper()
	s := &site{}
	var err error
	config := sessplus.Config{CookieName: "session", Backend: b, IdleTimeout: time.Hour, IndexBy: "user"}
	s.Manager, err = sessplus.New([]sessplus.Config{config}, &sessplus.Options{
		Timeout: timeout, Logger: slog.New(slog.NewTextHandler(s, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(s.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session := sessplus.Get(r)
		before := session.GetString("user")
		switch name := r.FormValue("name"); r.URL.Path {
		case "/login":
			session.Renew()
			session.Set("user", name)
		case "/set":
			if before == "" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			before = session.GetString(name)
			session.Set(name, r.FormValue("value"))
		case "/get":
			if before == "" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			before = session.GetString(name)
		case "/handle":
			before = session.Handle("session")
		case "/count":
			n, err := count.Update(session, func(n int) int { return n + 1 })
			if err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			before = strconv.Itoa(n)
		case "/logout":
			session.Destroy()
		}
		io.WriteString(w, before)
	})))
	t.Cleanup(s.Close)
	return s
}

// visitor is a new browser.
func visitor() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
}

// ask makes a request, and returns 0 for no answer.
func (s *site) ask(c *http.Client, path string) (status int, body string) {
	res, err := c.Get(s.URL + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// must fails the test unless the request is answered so.
func (s *site) must(t testing.TB, c *http.Client, path, want string) {
	t.Helper()
	if status, body := s.ask(c, path); status != http.StatusOK || body != want {
		t.Fatalf("%s: %d %q, want 200 %q", path, status, body, want)
	}
}

// SPEC 4.1, 4.5: 64 clients of one session lose nothing.
func TestManyClientsOfOneSession(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) { // who all want one row, on a machine that may be busy
		s, c := newSite(t, d.backend, time.Minute), visitor()
		s.must(t, c, "/login?name=ann", "")
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for n := range 5 {
					if status, body := s.ask(c, fmt.Sprintf("/set?name=f%d&value=%d", i, n)); status != http.StatusOK {
						t.Errorf("client %d: %d %s", i, status, body)
					}
				}
			})
		}
		wg.Wait()
		for i := range 64 {
			s.must(t, c, fmt.Sprintf("/get?name=f%d", i), "4")
		}
		var left atomic.Int64
		left.Store(1000)
		for range 64 {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if status, body := s.ask(c, "/count"); status != http.StatusOK {
						t.Errorf("an increment: %d %s", status, body)
					}
				}
			})
		}
		wg.Wait()
		s.must(t, c, "/count", "1001")
		if s.log.Len() > 0 {
			t.Errorf("log: %s", s.log.String())
		}
	})
}

// 64 clients with a session each, in two processes as far as SQLite can tell, wait for each other and lose nothing.
func TestSQLiteManyClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	var sites []*site
	for range 2 {
		b := sessplussql.New(openSQLite(t, path), sessplussql.SQLite, nil)
		if err := b.CreateTables(t.Context()); err != nil {
			t.Fatal(err)
		}
		sites = append(sites, newSite(t, b, 30*time.Second))
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			c := visitor()
			c.Jar, _ = cookiejar.New(nil)
			if status, body := sites[i%2].ask(c, "/login?name=ann"); status != http.StatusOK {
				t.Errorf("client %d: login: %d %s", i, status, body)
			}
			for n := range 20 {
				s := sites[(i+n)%2] // cookies have no port
				if status, body := s.ask(c, fmt.Sprintf("/set?name=n&value=%d", n+1)); status != http.StatusOK || n > 0 && body != fmt.Sprint(n) {
					t.Errorf("client %d, change %d: %d %s", i, n, status, body)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, s := range sites {
		if s.log.Len() > 0 {
			t.Errorf("log: %s", s.log.String())
		}
	}
}

// The restart of a program logs nobody out who has a session in a file.
func TestRestartOnSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	c := visitor()
	for i := range 3 {
		db := openSQLite(t, path)
		b := sessplussql.New(db, sessplussql.SQLite, nil)
		if err := b.CreateTables(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := newSite(t, b, timeout)
		if i == 0 {
			s.must(t, c, "/login?name=ann", "")
		}
		s.must(t, c, fmt.Sprintf("/set?name=n&value=%d", i), map[bool]string{true: "", false: fmt.Sprint(i - 1)}[i == 0])
		s.Close()
		db.Close()
	}
}

// A faulty database can be broken and repaired, in two ways or more.
type faulty struct {
	name          string
	dialect       sessplussql.Dialect
	db            func(t *testing.T) *sql.DB
	breakIt, heal func(t *testing.T)
}

// onEachFault runs the test with each database and each way to break it.
func onEachFault(t *testing.T, test func(t *testing.T, f faulty)) {
	for _, server := range []struct {
		name    string
		dialect sessplussql.Dialect
		driver  string
		start   func(t testing.TB) (*servers.SQLServer, string)
	}{
		{"postgresql", sessplussql.PostgreSQL, "pgx", func(t testing.TB) (*servers.SQLServer, string) {
			s := servers.NewPostgres(t)
			return s, postgresDSN(s)
		}},
		{"mysql", sessplussql.MySQL, "mysql", func(t testing.TB) (*servers.SQLServer, string) {
			s := servers.NewMariaDB(t)
			return s, mysqlDSN(s)
		}},
	} {
		t.Run(server.name, func(t *testing.T) {
			s, dsn := server.start(t)
			db := func(t *testing.T) *sql.DB { return open(t, server.driver, dsn) }
			for _, f := range []faulty{
				{"killed", server.dialect, db, func(*testing.T) { s.Kill() }, func(t *testing.T) { s.Restart(t) }},
				{"paused", server.dialect, db, func(*testing.T) { s.Pause() }, func(*testing.T) { s.Resume() }},
			} {
				t.Run(f.name, func(t *testing.T) { test(t, f) })
			}
		})
	}
	t.Run("sqlite/locked", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s.db")
		var lock *sql.Conn
		test(t, faulty{"locked", sessplussql.SQLite, func(t *testing.T) *sql.DB { return openSQLite(t, path) }, func(t *testing.T) {
			var err error
			if lock, err = openSQLite(t, path).Conn(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, err := lock.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T) {
			if _, err := lock.ExecContext(context.Background(), "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
		}})
	})
}

// SPEC 6.1, 6.2, 6.3, 6.9: while the database is away nobody is logged out, every answer comes within the Timeout, and
// all is as it was when it is back.
func TestFaults(t *testing.T) {
	onEachFault(t, func(t *testing.T, f faulty) {
		b := sessplussql.New(f.db(t), f.dialect, &sessplussql.Options{Table: "faults_" + f.name})
		if err := b.CreateTables(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := newSite(t, b, timeout)
		c := visitor()
		s.must(t, c, "/login?name=ann", "")
		s.must(t, c, "/set?name=n&value=s3cr3t", "")
		for range 8 { // connections of the pool, each of which will be a dead one
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() { s.ask(c, "/get?name=n") })
			}
			wg.Wait()
		}
		f.breakIt(t)
		paths := []string{"/get?name=n", "/set?name=n&value=lost", "/count", "/logout"}
		if f.dialect == sessplussql.SQLite {
			paths = paths[1:] // who reads does not wait for who writes
		}
		for _, path := range paths[:len(paths)-1] {
			start := time.Now()
			res, err := c.Get(s.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if took := time.Since(start); res.StatusCode != http.StatusServiceUnavailable || took > timeout+time.Second || len(res.Header["Set-Cookie"]) > 0 {
				t.Errorf("%s: %d after %v, Set-Cookie %d, want 503 within %v and none", path, res.StatusCode, took, len(res.Header["Set-Cookie"]), timeout)
			}
		}
		f.heal(t)
		servers.WaitFor(t, "the database is back", 20*time.Second, func() bool {
			status, body := s.ask(c, "/get?name=n")
			if status == http.StatusUnauthorized || status == http.StatusOK && body != "s3cr3t" && body != "lost" {
				t.Fatalf("a visitor was answered %d %q", status, body)
			}
			return status == http.StatusOK
		})
		s.must(t, c, "/logout", "ann")
		log := s.log.String()
		if !strings.Contains(log, "level=") || strings.Contains(log, "s3cr3t") {
			t.Errorf("log: %s", log)
		}
		t.Logf("log: %s", log)
	})
}

// SPEC 6.1: a server that is killed under load, and starts again, loses nothing that was confirmed, and logs nobody
// out.
func TestKilledUnderLoad(t *testing.T) {
	onEachFault(t, func(t *testing.T, f faulty) {
		b := sessplussql.New(f.db(t), f.dialect, &sessplussql.Options{Table: "load_" + f.name})
		if err := b.CreateTables(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := newSite(t, b, timeout)
		var stop atomic.Bool
		var wg sync.WaitGroup
		var good, bad atomic.Int64
		type client struct {
			*http.Client
			acked, tried int
		}
		var clients []*client
		for range 16 {
			c := &client{Client: visitor()}
			s.must(t, c.Client, "/login?name=ann", "")
			clients = append(clients, c)
		}
		for _, c := range clients {
			wg.Go(func() {
				for !stop.Load() {
					c.tried++
					switch status, body := s.ask(c.Client, fmt.Sprintf("/set?name=n&value=%d", c.tried)); status {
					case http.StatusOK:
						if n, _ := strconv.Atoi(body); n < c.acked {
							t.Errorf("%d was stored, and %d had been confirmed", n, c.acked)
						}
						c.acked = c.tried
						good.Add(1)
					case http.StatusServiceUnavailable:
						bad.Add(1)
					default:
						t.Errorf("a visitor was answered %d %q, want 200 or 503", status, body)
						return
					}
				}
			})
		}
		for range 2 {
			time.Sleep(300 * time.Millisecond)
			f.breakIt(t)
			time.Sleep(timeout + time.Second)
			f.heal(t)
			before := good.Load()
			servers.WaitFor(t, "visitors are served again", 20*time.Second, func() bool { return good.Load() > before+50 })
		}
		stop.Store(true)
		wg.Wait()
		for _, c := range clients {
			status, body := s.ask(c.Client, "/get?name=n")
			if n, err := strconv.Atoi(body); status != http.StatusOK || err != nil || n < c.acked || n > c.tried {
				t.Errorf("%d %q is stored, %d was confirmed, %d asked for", status, body, c.acked, c.tried)
			}
		}
		t.Logf("%d answers were good, %d were 503", good.Load(), bad.Load())
	})
}
