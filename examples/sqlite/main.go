// Command sqlite counts a visitor's visits in a session that is kept in a SQLite file, so that a restart logs nobody
// out.
//
//	cd examples/sqlite && go run .
//
// SESSION_DB is the file, sessions.db by default, and ADDR the address to listen on, 127.0.0.1:8080 by default.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplussql"
)

const (
	Name   sessplus.Field[string] = "name"
	Visits sessplus.Field[int]    = "visits"
)

// settings are what SQLite needs for sessions: readers that do not wait for a writer, and writers that wait for each
// other.
const settings = "?_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	addr, file := cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"), cmp.Or(os.Getenv("SESSION_DB"), "sessions.db")
	if err := run(ctx, addr, file, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, addr, file string, out io.Writer) error {
	db, err := sql.Open("sqlite", "file:"+file+settings)
	if err != nil {
		return err
	}
	defer db.Close()
	backend := sessplussql.New(db, sessplussql.SQLite, nil)
	if err := backend.CreateTables(ctx); err != nil {
		return err
	}
	go sweep(ctx, backend)
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Backend: backend, MaxAge: 30 * 24 * time.Hour, Lifetime: 30 * 24 * time.Hour},
	}, nil)
	if err != nil {
		return err // names every mistake in the configs
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "sessions are kept in %s; open http://%s/?name=Ann\n", file, l.Addr())
	srv := &http.Server{Handler: mgr.Handler(http.HandlerFunc(visit)), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}

// sweep removes expired sessions now and then.
func sweep(ctx context.Context, b *sessplussql.Backend) {
	for tick := time.Tick(10 * time.Minute); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			if _, err := b.Sweep(ctx); err != nil {
				log.Print(err)
			}
		}
	}
}

func visit(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if name := r.FormValue("name"); name != "" {
		s.Renew() // a login gets another id
		Name.Set(s, name)
	}
	Visits.Set(s, Visits.Get(s)+1)
	fmt.Fprintf(w, "%s, visit %d\n", cmp.Or(Name.Get(s), "stranger"), Visits.Get(s))
}
