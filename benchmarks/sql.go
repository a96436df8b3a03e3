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
	if p == inSQLite {
		_, err := db.Exec("CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, data BLOB NOT NULL, expiry REAL NOT NULL)")
		e.must(err)
		return sqlite3store.NewWithCleanupInterval(db, 0)
	}
	_, err := db.Exec("CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)")
	e.must(err)
	return postgresstore.NewWithCleanupInterval(db, 0)
}

// handSQL keeps a user as one blob, with prepared statements. A change writes the blob that the request has read, so that of two
// at the same time one is lost.
func handSQL(e *env, s scenario) *app {
	db := e.sql(s.place)
	blob := "BYTEA"
	if s.place == inSQLite {
		blob = "BLOB"
	}
	_, err := db.Exec("CREATE TABLE IF NOT EXISTS hand (id TEXT PRIMARY KEY, data " + blob + " NOT NULL, expires BIGINT NOT NULL)")
	e.must(err)
	prepare := func(text string) *sql.Stmt {
		statement, err := db.Prepare(text)
		e.must(err)
		return statement
	}
	selects := prepare("SELECT data FROM hand WHERE id = $1 AND expires > $2")
	updates := prepare("UPDATE hand SET data = $1, expires = $2 WHERE id = $3")
	inserts := prepare("INSERT INTO hand (id, data, expires) VALUES ($1, $2, $3)")
	load := func(r *http.Request) (u user, err error) {
		id := sessionID(r)
		if id == "" {
			return user{}, errGone
		}
		var data []byte
		if err = selects.QueryRowContext(r.Context(), id, time.Now().UnixMilli()).Scan(&data); err == nil {
			err = cbor.Unmarshal(data, &u)
		}
		return u, err
	}
	store := func(w http.ResponseWriter, r *http.Request) error {
		id := newID()
		data, err := cbor.Marshal(&user{UserID: userID, Name: name, Plan: plan})
		if err == nil {
			_, err = inserts.ExecContext(r.Context(), id, data, expiry())
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
			u.Visits = next()
			data, err := cbor.Marshal(&u)
			if err == nil {
				_, err = updates.ExecContext(r.Context(), data, expiry(), sessionID(r))
			}
			return err == nil
		}),
	}
}
