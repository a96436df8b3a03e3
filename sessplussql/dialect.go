package sessplussql

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A Dialect is the SQL of a database.
type Dialect int

// The databases that a [Backend] supports.
const (
	SQLite     Dialect = iota + 1
	PostgreSQL         // 11 or newer
	MySQL              // MySQL 5.7 or MariaDB 10.3, or newer
)

// sqliteSettings are those that errors recommend, in the form of modernc.org/sqlite.
const sqliteSettings = "_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"

// String returns the name of the database.
func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "sqlite"
	case PostgreSQL:
		return "postgresql"
	case MySQL:
		return "mysql"
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// maxKey is how long a key may be.
const maxKey = 1024

// statements are the texts for a dialect and a table.
type statements struct {
	schema []string
	probe  string // fails unless the tables are as the schema makes them

	load, loadApart, owned string
	insert                 string
	updates                [16]string // by the columns that change, see changedExpires
	insertApart, dropApart string     // with %s for what depends on the number of rows
	clearApart, remove     string
	expired                string

	begin string
}

// statements puts the names into the texts.
func (d Dialect) statements(table string) statements {
	quote := `"`
	if d == MySQL {
		quote = "`"
	}
	r := strings.NewReplacer("{t}", quote+table+quote, "{f}", quote+table+"_fields"+quote,
		"{expires}", quote+table+"_expires"+quote, "{owner}", quote+table+"_owner"+quote)
	s := statements{
		probe:     "SELECT t.version, t.expires, t.owner, t.mark, t.data, f.name, f.value FROM {t} t, {f} f WHERE t.id = f.id AND 1 = 0",
		load:      "SELECT version, expires, mark, data FROM {t} WHERE id = ?",
		loadApart: "SELECT t.version, f.name, f.value FROM {f} f JOIN {t} t ON t.id = f.id WHERE f.id = ?",
		owned: "SELECT t.id, t.version, t.expires, t.mark, t.data, f.name, f.value FROM {t} t LEFT JOIN {f} f ON f.id = t.id" +
			" WHERE t.owner = ? AND t.expires > ?",
		insert:      "INSERT INTO {t} (id, version, expires, owner, mark, data) VALUES (?, ?, ?, ?, ?, ?)",
		insertApart: "INSERT INTO {f} (id, name, value) VALUES %s ON CONFLICT (id, name) DO UPDATE SET value = EXCLUDED.value",
		dropApart:   "DELETE FROM {f} WHERE id = ? AND name IN (%s)",
		clearApart:  "DELETE FROM {f} WHERE id = ?",
		remove:      "DELETE FROM {t} WHERE id = ? AND version = ?",
		expired:     "SELECT id FROM {t} WHERE expires <= ? ORDER BY expires LIMIT ?",
		begin:       "BEGIN",
	}
	switch d {
	case SQLite:
		s.insert += " ON CONFLICT (id) DO NOTHING"
		s.begin = "BEGIN IMMEDIATE"
		s.schema = []string{
			`CREATE TABLE IF NOT EXISTS {t} (
	id TEXT NOT NULL PRIMARY KEY,
	version INTEGER NOT NULL,
	expires INTEGER NOT NULL, -- milliseconds since 1970
	owner TEXT,
	mark TEXT,
	data BLOB NOT NULL
)`,
			`CREATE INDEX IF NOT EXISTS {expires} ON {t} (expires)`,
			`CREATE INDEX IF NOT EXISTS {owner} ON {t} (owner) WHERE owner IS NOT NULL`,
			`CREATE TABLE IF NOT EXISTS {f} (
	id TEXT NOT NULL,
	name BLOB NOT NULL,
	value BLOB NOT NULL,
	PRIMARY KEY (id, name)
)`,
		}
	case PostgreSQL:
		s.insert += " ON CONFLICT (id) DO NOTHING"
		s.expired += " FOR UPDATE SKIP LOCKED"
		s.schema = []string{
			// Room in each page lets most changes leave the indexes alone.
			`CREATE TABLE IF NOT EXISTS {t} (
	id text COLLATE "C" NOT NULL PRIMARY KEY,
	version bigint NOT NULL,
	expires bigint NOT NULL, -- milliseconds since 1970
	owner text COLLATE "C",
	mark text,
	data bytea NOT NULL
) WITH (fillfactor = 80)`,
			`CREATE INDEX IF NOT EXISTS {expires} ON {t} (expires)`,
			`CREATE INDEX IF NOT EXISTS {owner} ON {t} (owner) WHERE owner IS NOT NULL`,
			`CREATE TABLE IF NOT EXISTS {f} (
	id text COLLATE "C" NOT NULL,
	name bytea NOT NULL,
	value bytea NOT NULL,
	PRIMARY KEY (id, name)
)`,
		}
	case MySQL:
		s.insertApart = "INSERT INTO {f} (id, name, value) VALUES %s ON DUPLICATE KEY UPDATE value = VALUES(value)"
		s.expired += " FOR UPDATE"
		s.begin = "START TRANSACTION"
		s.schema = []string{
			// Binary columns compare byte by byte; text would be compared by a collation, to which A is a.
			`CREATE TABLE IF NOT EXISTS {t} (
	id VARBINARY(1024) NOT NULL PRIMARY KEY,
	version BIGINT NOT NULL,
	expires BIGINT NOT NULL, -- milliseconds since 1970
	owner VARBINARY(1024),
	mark VARBINARY(2048),
	data MEDIUMBLOB NOT NULL,
	KEY {expires} (expires),
	KEY {owner} (owner)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC`,
			`CREATE TABLE IF NOT EXISTS {f} (
	id VARBINARY(1024) NOT NULL,
	name VARBINARY(256) NOT NULL,
	value LONGBLOB NOT NULL,
	PRIMARY KEY (id, name)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC`,
		}
	}
	for i, text := range s.schema {
		s.schema[i] = r.Replace(text)
	}
	for _, text := range []*string{&s.probe, &s.load, &s.loadApart, &s.owned, &s.insert, &s.insertApart, &s.dropApart,
		&s.clearApart, &s.remove, &s.expired} {
		*text = d.numbered(r.Replace(*text))
	}
	for changed := range s.updates {
		set := ""
		for i, column := range []string{"expires", "owner", "mark", "data"} {
			if changed&(1<<i) != 0 {
				set += ", " + column + " = ?"
			}
		}
		s.updates[changed] = d.numbered(r.Replace("UPDATE {t} SET version = ?" + set + " WHERE id = ? AND version = ?"))
	}
	return s
}

// The columns that a change may change, in the order of their parameters.
const (
	changedExpires = 1 << iota
	changedOwner
	changedMark
	changedData
)

// numbered converts the parameters of a statement to the form that the database expects.
func (d Dialect) numbered(text string) string {
	if d != PostgreSQL {
		return text
	}
	var b strings.Builder
	n := 0
	for _, c := range text {
		if c == '?' {
			n++
			fmt.Fprintf(&b, "$%d", n)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// repeated returns text n times, separated by commas, with its parameters numbered from first.
func (d Dialect) repeated(text string, n, first int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		for _, c := range text {
			if c == '?' && d == PostgreSQL {
				fmt.Fprintf(&b, "$%d", first)
				first++
			} else {
				b.WriteRune(c)
			}
		}
	}
	return b.String()
}

// Schema returns the statements that create the tables, for a migration tool. Each ends with a semicolon. They leave
// existing tables unchanged.
func (b *Backend) Schema() string {
	return strings.Join(b.text.schema, ";\n\n") + ";\n"
}

// CreateTables creates the tables and indexes that do not exist. It returns an error if the table exists and differs
// from [Backend.Schema], or if a setting of the database is wrong.
func (b *Backend) CreateTables(ctx context.Context) error {
	return b.call(ctx, "", sweepTime, func(ctx context.Context) error {
		leave, err := b.enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
		for _, statement := range b.text.schema {
			_, err := b.db.ExecContext(ctx, statement)
			switch stateOf(err) {
			case "23505", "42P07", "42710":
				return errStale // another machine makes them at the same time
			}
			if err != nil {
				return err
			}
		}
		rows, err := b.db.QueryContext(ctx, b.text.probe)
		if err != nil {
			return err
		}
		return rows.Close()
	})
}

var validTable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`)

// check reports what is wrong with the arguments of New and the settings of the database, until nothing is.
func (b *Backend) check(ctx context.Context) error {
	if b.checked.Load() {
		return nil
	}
	switch {
	case b.db == nil:
		return &faultError{"the *sql.DB is nil"}
	case b.dialect < SQLite || b.dialect > MySQL:
		return &faultError{"there is no such dialect: use SQLite, PostgreSQL or MySQL"}
	case !validTable.MatchString(b.table):
		return &faultError{"Options.Table is no name of at most 40 ASCII letters, digits and underscores"}
	}
	if b.dialect == SQLite {
		var mode string
		var busy int
		if err := b.db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
			return err
		}
		if err := b.db.QueryRowContext(ctx, "PRAGMA busy_timeout").Scan(&busy); err != nil {
			return err
		}
		switch {
		case mode == "memory":
			return &faultError{"each connection to a database in memory has one of its own: use a file, or sessplus.Memory"}
		case mode != "wal":
			return &faultError{"the journal mode is not WAL, in which readers do not wait for a writer: open the file with " + sqliteSettings}
		case busy <= 0:
			return &faultError{"there is no busy timeout, without which a change fails while somebody else writes: open the file with " + sqliteSettings}
		}
		b.busy.Store(int64(busy) * int64(time.Millisecond))
	}
	b.checked.Store(true)
	return nil
}

// A faultError says what is wrong. It is not worth another try.
type faultError struct{ text string }

func (e *faultError) Error() string { return e.text }
