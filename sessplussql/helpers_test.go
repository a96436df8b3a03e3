package sessplussql_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplussql"
	_ "modernc.org/sqlite"
)

// shared are the servers that the tests of the package share.
var shared struct {
	sync.Mutex
	dir             string
	started         []*servers.SQLServer
	postgres, mysql string // their DSNs
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sessplussql")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared.dir = dir
	code := m.Run()
	for _, s := range shared.started {
		s.Kill()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// postgresDSN is that of a server of its own, and mysqlDSN is.
func postgresDSN(s *servers.SQLServer) string {
	return "postgres://postgres@" + s.Addr + "/postgres?sslmode=disable"
}

func mysqlDSN(s *servers.SQLServer) string { return "root@tcp(" + s.Addr + ")/test" }

// sharedPostgres is the DSN of a server that tests share: the one that SESSPLUS_POSTGRES names, or one that they start.
func sharedPostgres(t testing.TB) string {
	t.Helper()
	return sharedDSN(t, &shared.postgres, "SESSPLUS_POSTGRES", servers.StartPostgres, postgresDSN)
}

// sharedMySQL is the same for MySQL and MariaDB, and SESSPLUS_MYSQL.
func sharedMySQL(t testing.TB) string {
	t.Helper()
	return sharedDSN(t, &shared.mysql, "SESSPLUS_MYSQL", servers.StartMariaDB, mysqlDSN)
}

func sharedDSN(t testing.TB, dsn *string, env string, start func(testing.TB, string, ...string) *servers.SQLServer, of func(*servers.SQLServer) string) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if *dsn == "" {
		*dsn = os.Getenv(env)
	}
	if *dsn == "" {
		s := start(t, shared.dir)
		shared.started = append(shared.started, s)
		*dsn = of(s)
	}
	return *dsn
}

func open(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(64)
	t.Cleanup(func() { db.Close() })
	return db
}

const sqliteSettings = "_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"

func openSQLite(t testing.TB, path string) *sql.DB {
	t.Helper()
	return open(t, "sqlite", "file:"+path+"?"+sqliteSettings)
}

var tables atomic.Int64

// A database is what tests run on: with tables of their own.
type database struct {
	*sql.DB
	dialect sessplussql.Dialect
	table   string
	backend *sessplussql.Backend
}

// create makes the tables, which go with the test.
func (d *database) create(t testing.TB) *database {
	t.Helper()
	d.table = fmt.Sprintf("t%d_%d", os.Getpid(), tables.Add(1))
	d.backend = sessplussql.New(d.DB, d.dialect, &sessplussql.Options{Table: d.table})
	if err := d.backend.CreateTables(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Exec("DROP TABLE " + d.table)
		d.Exec("DROP TABLE " + d.table + "_fields")
	})
	return d
}

// count returns the number of rows of a query.
func (d *database) count(t testing.TB, from string) (n int) {
	t.Helper()
	if err := d.QueryRow("SELECT count(*) FROM " + from).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// onEach runs the test on each database.
func onEach(t *testing.T, test func(t *testing.T, d *database)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, (&database{DB: openSQLite(t, filepath.Join(t.TempDir(), "s.db")), dialect: sessplussql.SQLite}).create(t))
	})
	t.Run("postgresql", func(t *testing.T) {
		test(t, (&database{DB: open(t, "pgx", sharedPostgres(t)), dialect: sessplussql.PostgreSQL}).create(t))
	})
	t.Run("mysql", func(t *testing.T) {
		test(t, (&database{DB: open(t, "mysql", sharedMySQL(t)), dialect: sessplussql.MySQL}).create(t))
	})
}
