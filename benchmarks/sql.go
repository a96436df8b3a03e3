package main

import (
	"context"
	"database/sql"
	"net/http"
	"path/filepath"
	"time"

	"github.com/alexedwards/scs/postgresstore"
	"github.com/alexedwards/scs/sqlite3store"
	"github.com/alexedwards/scs/v2"
	"github.com/fxamacker/cbor/v2"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplussql"
	_ "modernc.org/sqlite"
)

// sql opens the database of a place for one app: a file of its own, or the PostgreSQL server.
func (e *env) sql(p place) *sql.DB {
	driver, dsn := "pgx", e.postgres
	if p == inSQLite {
		driver, dsn = "sqlite", "file:"+filepath.Join(e.tb.TempDir(), "sessions.db")+
			"?_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"
	} else if dsn == "" {
		e.postgres = "postgres://postgres@" + servers.NewPostgres(e.tb).Addr + "/postgres?sslmode=disable"
		dsn = e.postgres
	}
	db, err := sql.Open(driver, dsn)
	e.must(err)
	db.SetMaxIdleConns(64)
	e.tb.Cleanup(func() { db.Close() })
	return db
}

// sqlBackend is where sessplus keeps its records in the database.
func (e *env) sqlBackend(p place) sessplus.Backend {
	d := sessplussql.PostgreSQL
	if p == inSQLite {
		d = sessplussql.SQLite
	}
	b := sessplussql.New(e.sql(p), d, &sessplussql.Options{Table: "sessplus"})
	e.must(b.CreateTables(context.Background()))
	return b
}

// scsSQL is the store of scs for the database.
func (e *env) scsSQL(p place) scs.Store {
	db := e.sql(p)
	blob, time := "BYTEA", "TIMESTAMPTZ"
	if p == inSQLite {
		blob, time = "BLOB", "REAL"
	}
	_, err := db.Exec("CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, data " + blob + " NOT NULL, expiry " + time + " NOT NULL)")
	e.must(err)
	_, err = db.Exec("CREATE INDEX IF NOT EXISTS sessions_expiry_idx ON sessions (expiry)")
	e.must(err)
	if p == inSQLite {
		return sqlite3store.NewWithCleanupInterval(db, 0)
	}
	return postgresstore.NewWithCleanupInterval(db, 0)
}

// handSQL keeps a user as one blob, with prepared statements. A change writes the blob that the request has read, so
// that of two at the same time one is lost. A statement may take as long as within, if that is not 0.
func handSQL(e *env, s scenario, within time.Duration) *app {
	db := e.sql(s.place)
	blob := "BYTEA"
	if s.place == inSQLite {
		blob = "BLOB"
	}
	_, err := db.Exec("CREATE TABLE IF NOT EXISTS hand (id TEXT PRIMARY KEY, data " + blob + " NOT NULL, expires BIGINT NOT NULL)")
	e.must(err)
	_, err = db.Exec("CREATE INDEX IF NOT EXISTS hand_expires ON hand (expires)") // for those that have expired
	e.must(err)
	prepare := func(text string) *sql.Stmt {
		statement, err := db.Prepare(text)
		e.must(err)
		return statement
	}
	selects := prepare("SELECT data FROM hand WHERE id = $1 AND expires > $2")
	updates := prepare("UPDATE hand SET data = $1, expires = $2 WHERE id = $3")
	inserts := prepare("INSERT INTO hand (id, data, expires) VALUES ($1, $2, $3)")
	bounded := func(r *http.Request) (context.Context, context.CancelFunc) {
		if within == 0 {
			return r.Context(), func() {}
		}
		return context.WithTimeout(r.Context(), within)
	}
	load := func(r *http.Request) (u user, err error) {
		id := sessionID(r)
		if id == "" {
			return user{}, errGone
		}
		ctx, cancel := bounded(r)
		defer cancel()
		var data []byte
		if err = selects.QueryRowContext(ctx, id, time.Now().UnixMilli()).Scan(&data); err == nil {
			err = cbor.Unmarshal(data, &u)
		}
		return u, err
	}
	store := func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := bounded(r)
		defer cancel()
		id := newID()
		data, err := cbor.Marshal(&user{UserID: userID, Name: name, Plan: plan})
		if err == nil {
			_, err = inserts.ExecContext(ctx, id, data, expiry())
		}
		if err == nil {
			setCookie(w, "session", id)
		}
		return err
	}
	return &app{
		login: store,
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			u, err := load(r)
			st.user(u)
			return err
		},
		serve: handler(func(w http.ResponseWriter, r *http.Request) bool {
			if s.do == create {
				return store(w, r) == nil
			}
			u, err := load(r)
			if err != nil || u.UserID != userID || s.do == read {
				return err == nil && u.UserID == userID
			}
			ctx, cancel := bounded(r)
			defer cancel()
			u.Visits = next()
			data, err := cbor.Marshal(&u)
			if err == nil {
				_, err = updates.ExecContext(ctx, data, expiry(), sessionID(r))
			}
			return err == nil
		}),
	}
}

// openHandBounded is "hand" with a bound on how long a statement takes, which the databases' drivers watch over with a
// goroutine. The requests of a real server have a context that can end, and cost as much without one.
func openHandBounded(e *env, s scenario) *app {
	if s.place != inSQLite && s.place != inPostgres {
		return nil
	}
	return handSQL(e, s, 5*time.Second)
}
