package sessplussql_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplussql"
)

func field(name, value string) sessplus.RawField {
	return sessplus.RawField{Name: name, Value: []byte(value)}
}

// record is one that lives for an hour.
func record(fields ...sessplus.RawField) *sessplus.Record {
	now := time.Now().Truncate(time.Millisecond)
	return &sessplus.Record{Created: now, Saved: now, Expires: now.Add(time.Hour), Fields: fields}
}

func setting(fields ...sessplus.RawField) *sessplus.Change {
	now := time.Now()
	return &sessplus.Change{Now: now, Expires: now.Add(time.Hour), Set: fields}
}

// text is what a record holds, in order.
func text(r *sessplus.Record) string {
	var list []string
	for _, f := range r.Fields {
		list = append(list, fmt.Sprintf("%q=%q", f.Name, f.Value))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func mustCreate(t *testing.T, b sessplus.Backend, key string, r *sessplus.Record) {
	t.Helper()
	if err := b.Create(t.Context(), key, r); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t *testing.T, b sessplus.Backend, key string) *sessplus.Record {
	t.Helper()
	r, err := b.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustUpdate(t *testing.T, b sessplus.Backend, key string, c *sessplus.Change) sessplus.Result {
	t.Helper()
	result, err := b.Update(t.Context(), key, c)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// SPEC 2.5: names and keys differ by case and by blanks at their end, in a row of their own, too.
func TestNamesAreBytes(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		for _, size := range []int{1, 3000} {
			var fields []sessplus.RawField
			for i, name := range []string{"a", "A", "a ", "a  ", "á", "Á", "a\x00", "a\x00b", "ss", "ß", "ae", "æ"} {
				fields = append(fields, field(name, strings.Repeat(string(rune('a'+i)), size)))
			}
			want := record(fields...)
			key := fmt.Sprint("names", size)
			mustCreate(t, d.backend, key, want)
			if got := mustLoad(t, d.backend, key); text(got) != text(want) {
				t.Errorf("size %d: Load = %.200s", size, text(got))
			}
		}
		for _, key := range []string{"k", "K", "k "} {
			mustCreate(t, d.backend, key, record(field("key", key)))
		}
		for _, key := range []string{"k", "K", "k "} {
			if got := mustLoad(t, d.backend, key); string(got.Fields[0].Value) != key {
				t.Errorf("Load(%q) = %s", key, text(got))
			}
		}
	})
}

// Any bytes come back as they were, up to 1 MiB in one value.
func TestValuesAreBytes(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		all := make([]byte, 1<<20)
		for i := range all {
			all[i] = byte(rand.IntN(256))
		}
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		mustCreate(t, d.backend, "bytes", record(field("small", "")))
		mustUpdate(t, d.backend, "bytes", setting(sessplus.RawField{Name: "every", Value: every}, sessplus.RawField{Name: "all", Value: all}))
		for _, f := range mustLoad(t, d.backend, "bytes").Fields {
			want := map[string][]byte{"small": {}, "every": every, "all": all}[f.Name]
			if !bytes.Equal(f.Value, want) {
				t.Errorf("%d bytes of %s came back as other %d", len(want), f.Name, len(f.Value))
			}
		}
	})
}

// fifty are fields of 50 KB together.
func fifty() (list []sessplus.RawField) {
	for i := range 50 {
		list = append(list, field(fmt.Sprintf("note%02d", i), strings.Repeat("x", 1000)))
	}
	return list
}

// SPEC 9.2: what a change of a small field does not change, it does not write.
func TestSmallChangeOfALargeRecord(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		mustCreate(t, d.backend, "big", record(append(fifty(), field("visits", "1"))...))
		var row int
		if err := d.QueryRow("SELECT length(data) FROM " + d.table).Scan(&row); err != nil {
			t.Fatal(err)
		}
		if row > 4<<10 {
			t.Errorf("the row of the record holds %d bytes", row)
		}
		seen := mustLoad(t, d.backend, "big")
		if _, err := d.Exec("UPDATE " + d.table + "_fields SET value = 'untouched'"); err != nil {
			t.Fatal(err)
		}
		c := setting(field("visits", "2"))
		c.Seen = seen
		mustUpdate(t, d.backend, "big", c)
		mustUpdate(t, d.backend, "big", setting(field("visits", "3")))
		got := mustLoad(t, d.backend, "big")
		untouched := 0
		for _, f := range got.Fields {
			if string(f.Value) == "untouched" {
				untouched++
			}
		}
		if len(got.Fields) != 51 || untouched < 45 {
			t.Errorf("of %d fields %d were not written by the change of another", len(got.Fields), untouched)
		}
	})
}

// SPEC 13.2, with values that move between the row of a record and rows of their own.
func TestHistoryOfLargeFields(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		seed := uint64(time.Now().UnixNano())
		rng := rand.New(rand.NewPCG(seed, 1))
		for round := range 4 {
			key := fmt.Sprint("history", round)
			model := record(field("a", "1"))
			mustCreate(t, d.backend, key, model)
			model.Fields = slices.Clone(model.Fields)
			seen := mustLoad(t, d.backend, key)
			now := time.Now()
			for step := range 60 {
				now = now.Add(time.Millisecond)
				c := &sessplus.Change{Now: now, Expires: now.Add(time.Hour)}
				for _, name := range []string{"a", "b", "c", "d", "e"} {
					switch rng.IntN(7) {
					case 0, 1:
						size := []int{0, 10, 500, 1500, 3000, 400_000}[rng.IntN(6)]
						c.Set = append(c.Set, field(name, strings.Repeat(string(rune('a'+step%26)), size)))
					case 2:
						c.Delete = append(c.Delete, name)
					case 3:
						i := slices.IndexFunc(model.Fields, func(f sessplus.RawField) bool { return f.Name == name })
						if i >= 0 {
							c.Match = append(c.Match, model.Fields[i])
						} else {
							c.Match = append(c.Match, sessplus.RawField{Name: name})
						}
						if rng.IntN(8) == 0 {
							c.Match[len(c.Match)-1].Value = []byte("apart")
						}
					}
				}
				if rng.IntN(3) > 0 {
					c.Seen = seen
				}
				result, got := d.backend.Update(t.Context(), key, c)
				if c.Seen = nil; got == nil && rng.IntN(2) == 0 && len(c.Set)+len(c.Delete) > 0 {
					seen.Version = result.Version // of a Seen whose fields are not those of the record
				}
				wanted, want := c.Apply(model)
				if !errors.Is(got, want) || result.Empty != wanted.Empty || result.Refilled != wanted.Refilled {
					t.Fatalf("seed %d, step %d: Update = %+v, %v, want %+v, %v", seed, step, result, got, wanted, want)
				}
				if rng.IntN(6) == 0 {
					take := &sessplus.Ending{Step: sessplus.StepTake, Token: "t", Now: now, Seen: seen}
					taken, err := d.backend.End(t.Context(), key, take)
					if err != nil || text(taken) != text(model) {
						t.Fatalf("seed %d, step %d: StepTake = %.300s, %v, want %.300s", seed, step, text(taken), err, text(model))
					}
					take.Step, take.Seen = sessplus.StepRelease, taken
					if _, err := d.backend.End(t.Context(), key, take); err != nil {
						t.Fatal(err)
					}
				}
				r := mustLoad(t, d.backend, key)
				if text(r) != text(model) {
					t.Fatalf("seed %d, step %d: Load = %.300s, want %.300s", seed, step, text(r), text(model))
				}
				if rng.IntN(2) == 0 {
					seen = r
				}
			}
			if _, err := d.backend.End(t.Context(), key, &sessplus.Ending{Step: sessplus.StepEnd, Now: now}); err != nil {
				t.Fatal(err)
			}
			if n := d.count(t, d.table+"_fields"); n > 0 {
				t.Errorf("the end of a record leaves %d values of it", n)
			}
		}
	})
}

// SPEC 4.1: a request that has changed a record beside another one, and does so again, keeps what the other has saved.
func TestVersionFitsWhatIsStored(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		mustCreate(t, d.backend, "k", record(field("a", "1")))
		seen := mustLoad(t, d.backend, "k")
		mustUpdate(t, d.backend, "k", setting(field("other", "1")))
		for i := range 3 {
			c := setting(field("mine", fmt.Sprint(i)))
			c.Seen = seen
			seen.Version = mustUpdate(t, d.backend, "k", c).Version
			c.Apply(seen)
		}
		if got, want := text(mustLoad(t, d.backend, "k")), text(record(field("a", "1"), field("other", "1"), field("mine", "2"))); got != want {
			t.Errorf("Load = %s, want %s", got, want)
		}
	})
}

// Load never mixes two states of a record whose fields have rows of their own.
func TestLoadIsOneState(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		large := func(i int) []sessplus.RawField {
			text := fmt.Sprintf("%04d", i)
			return []sessplus.RawField{field("small", text), field("a", strings.Repeat(text, 600)), field("b", strings.Repeat(text, 600))}
		}
		mustCreate(t, d.backend, "k", record(large(0)...))
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 200 {
				if _, err := d.backend.Update(t.Context(), "k", setting(large(i)...)); err != nil {
					t.Error(err)
				}
			}
		})
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		for {
			select {
			case <-done:
				return
			default:
			}
			r := mustLoad(t, d.backend, "k")
			for _, f := range r.Fields {
				if len(r.Fields) != 3 || !bytes.HasPrefix(f.Value, r.Fields[0].Value) {
					t.Fatalf("Load mixes states: %.4s and %.4s", r.Fields[0].Value, f.Value)
				}
			}
		}
	})
}

// SPEC 13.1
func TestSweep(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		for i := range 1100 {
			r := record(field("n", fmt.Sprint(i)))
			if i%50 == 0 {
				r.Fields = append(r.Fields, field("large", strings.Repeat("x", 3000)))
			}
			if i >= 30 {
				r.Expires = time.Now().Add(-time.Second)
			}
			mustCreate(t, d.backend, fmt.Sprint("k", i), r)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		total := 0
		for range 2 { // on two machines
			wg.Go(func() {
				n, err := d.backend.Sweep(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				total += n
			})
		}
		wg.Wait()
		if rows, large := d.count(t, d.table), d.count(t, d.table+"_fields"); total != 1070 || rows != 30 || large != 1 {
			t.Errorf("Sweep = %d, and leaves %d records and %d large fields, want 1070, 30 and 1", total, rows, large)
		}
		mustLoad(t, d.backend, "k0")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := d.backend.Sweep(ctx); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("Sweep with a context that is done = %d, %v", n, err)
		}
	})
}

// A record that takes the place of an expired one has nothing of it.
func TestCreateInPlaceOfAnExpiredRecord(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		large := strings.Repeat("x", 3000)
		old := record(field("old", large), field("both", large))
		old.Expires = time.Now().Add(-time.Millisecond)
		mustCreate(t, d.backend, "k", old)
		want := record(field("both", large+"new"), field("small", "1"))
		mustCreate(t, d.backend, "k", want)
		if got := mustLoad(t, d.backend, "k"); text(got) != text(want) {
			t.Errorf("Load = %.100s", text(got))
		}
		if n := d.count(t, d.table+"_fields"); n != 1 {
			t.Errorf("%d values have rows of their own, want 1", n)
		}
	})
}

// SPEC 6.4: what cannot be read is no session, with the reason.
func TestCorruptRow(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		whole := record(field("a", "s3cr3t"), field("b", strings.Repeat("x", 100)))
		for i, breakIt := range []string{
			"data = ''", "mark = 'nonsense'", "data = 'nonsense'",
			map[sessplussql.Dialect]string{
				sessplussql.SQLite: "data = substr(data, 1, length(data) - 1)", sessplussql.PostgreSQL: "data = substr(data, 1, length(data) - 1)",
				sessplussql.MySQL: "data = left(data, length(data) - 1)",
			}[d.dialect],
		} {
			key := fmt.Sprint("corrupt", i)
			mustCreate(t, d.backend, key, whole)
			if _, err := d.Exec("UPDATE " + d.table + " SET " + breakIt + " WHERE id = '" + key + "'"); err != nil {
				t.Fatal(err)
			}
			_, loaded := d.backend.Load(t.Context(), key)
			_, updated := d.backend.Update(t.Context(), key, setting(field("a", "1")))
			_, ended := d.backend.End(t.Context(), key, &sessplus.Ending{Step: sessplus.StepEnd, Now: time.Now()})
			for _, err := range []error{loaded, updated, ended} {
				if !errors.Is(err, sessplus.ErrNoRecord) || err == sessplus.ErrNoRecord || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("with %s: %v", breakIt, err)
				}
			}
		}
	})
}

// SPEC 13.1: Schema is what a migration tool needs.
func TestSchema(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		table := d.table + "_m"
		b := sessplussql.New(d.DB, d.dialect, &sessplussql.Options{Table: table})
		for range 2 { // what is there stays
			for _, statement := range strings.SplitAfter(b.Schema(), ";\n") {
				if strings.TrimSpace(statement) == "" {
					continue
				}
				if _, err := d.Exec(statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
		}
		t.Cleanup(func() {
			d.Exec("DROP TABLE " + table)
			d.Exec("DROP TABLE " + table + "_fields")
		})
		mustCreate(t, b, "k", record(field("a", strings.Repeat("x", 3000))))
		if err := b.CreateTables(t.Context()); err != nil {
			t.Error(err)
		}
		mustLoad(t, b, "k")
	})
}

// Several machines may start at once.
func TestCreateTablesTogether(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		table := d.table + "_c"
		t.Cleanup(func() {
			d.Exec("DROP TABLE " + table)
			d.Exec("DROP TABLE " + table + "_fields")
		})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := sessplussql.New(d.DB, d.dialect, &sessplussql.Options{Table: table}).CreateTables(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// wantError fails unless the error says so, is no ended session, and quotes nothing.
func wantError(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) || errors.Is(err, sessplus.ErrNoRecord) {
		t.Errorf("error = %v, want one that says %q", err, says)
	} else if strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("the error quotes a key or a value: %v", err)
	}
}

// SPEC 6.9, 7.3: errors say what a person can do about them.
func TestErrors(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		ctx := t.Context()
		all := func(b *sessplussql.Backend, says string) {
			t.Helper()
			_, loaded := b.Load(ctx, "s3cr3t-key")
			_, updated := b.Update(ctx, "s3cr3t-key", setting(field("a", "s3cr3t")))
			_, ended := b.End(ctx, "s3cr3t-key", &sessplus.Ending{Step: sessplus.StepEnd, Now: time.Now()})
			_, swept := b.Sweep(ctx)
			for _, err := range []error{loaded, updated, ended, swept, b.Create(ctx, "s3cr3t-key", record(field("a", "s3cr3t")))} {
				wantError(t, err, says)
			}
		}
		all(sessplussql.New(d.DB, d.dialect, &sessplussql.Options{Table: d.table + "_none"}), "CreateTables makes it")
		for _, wrong := range []*sessplussql.Backend{
			sessplussql.New(nil, d.dialect, nil), sessplussql.New(d.DB, 0, nil), sessplussql.New(d.DB, d.dialect, &sessplussql.Options{Table: "a; DROP TABLE b"}),
		} {
			says := "sql.DB is nil"
			if strings.HasPrefix(wrong.String(), "Dialect") {
				says = "no such dialect"
			} else if strings.Contains(wrong.Schema(), "DROP") {
				says = "Options.Table"
			}
			all(wrong, says)
			wantError(t, wrong.CreateTables(ctx), says)
		}
		// Of another library, whose table has the name that ours has by default.
		other := d.table + "_other"
		if _, err := d.Exec("CREATE TABLE " + other + " (token CHAR(43) PRIMARY KEY, data VARCHAR(100) NOT NULL, expiry INTEGER NOT NULL)"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			d.Exec("DROP TABLE " + other)
			d.Exec("DROP TABLE " + other + "_fields")
		})
		b := sessplussql.New(d.DB, d.dialect, &sessplussql.Options{Table: other})
		wantError(t, b.CreateTables(ctx), "not the one of Schema")
		if _, err := b.Load(ctx, "s3cr3t-key"); err == nil || errors.Is(err, sessplus.ErrNoRecord) {
			t.Errorf("Load from the table of somebody else = %v", err)
		}
		wantError(t, d.backend.Create(ctx, strings.Repeat("s3cr3t", 200), record()), "longer than")
		// A pool that is exhausted.
		d.SetMaxOpenConns(1)
		busy, err := d.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err = d.backend.Load(short, "s3cr3t-key")
		busy.Close()
		d.SetMaxOpenConns(0)
		wantError(t, err, "SetMaxOpenConns")
		d.Close()
		all(d.backend, "is closed")
	})
}

// A replica says that it is one.
func TestReadOnly(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		mustCreate(t, d.backend, "k", record(field("a", "1")))
		seen := mustLoad(t, d.backend, "k")
		var db *sql.DB
		switch d.dialect {
		case sessplussql.SQLite:
			var seq int
			var name, path string
			if err := d.QueryRow("PRAGMA database_list").Scan(&seq, &name, &path); err != nil {
				t.Fatal(err)
			}
			db = open(t, "sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(1000)")
		case sessplussql.PostgreSQL:
			db = open(t, "pgx", sharedPostgres(t)+"&default_transaction_read_only=on")
		case sessplussql.MySQL:
			db = open(t, "mysql", sharedMySQL(t)+"?tx_read_only=1")
		}
		b := sessplussql.New(db, d.dialect, &sessplussql.Options{Table: d.table})
		mustLoad(t, b, "k")
		start := time.Now()
		c := setting(field("a", "s3cr3t"))
		c.Seen = seen
		_, err := b.Update(t.Context(), "k", c)
		wantError(t, err, "read-only")
		wantError(t, b.Create(t.Context(), "k2", record(field("a", strings.Repeat("s3cr3t", 1000)))), "read-only")
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v to say so", took)
		}
	})
}

// Values that the database does not take are too large, and not an outage.
func TestTooLarge(t *testing.T) {
	s := servers.NewMariaDB(t, "--max-allowed-packet=1M")
	for _, settings := range []string{"", "?interpolateParams=true", "?maxAllowedPacket=0"} {
		d := (&database{DB: open(t, "mysql", mysqlDSN(s)+settings), dialect: sessplussql.MySQL}).create(t)
		mustCreate(t, d.backend, "k", record(field("a", "1")))
		mustUpdate(t, d.backend, "k", setting(field("large", strings.Repeat("x", 900<<10))))
		for _, size := range []int{2 << 20, 20 << 20} {
			start := time.Now()
			_, err := d.backend.Update(t.Context(), "k", setting(field("large", strings.Repeat("s3cr3t-val", size/10))))
			if !errors.Is(err, sessplus.ErrTooLarge) || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("with %q Update with %d bytes = %.300v after %v", settings, size, err, time.Since(start))
			}
			err = d.backend.Create(t.Context(), fmt.Sprint("k", size), record(field("large", strings.Repeat("x", size))))
			if !errors.Is(err, sessplus.ErrTooLarge) {
				t.Errorf("with %q Create with %d bytes = %.300v", settings, size, err)
			}
		}
		if n := len(mustLoad(t, d.backend, "k").Fields); n != 2 {
			t.Errorf("%d fields are left, want 2", n)
		}
	}
}

// SPEC 13.1: the settings of SQLite are checked, because without them a busy site fails.
func TestSQLiteSettings(t *testing.T) {
	for settings, says := range map[string]string{
		"_pragma=busy_timeout(1000)":                                     "WAL",
		"_pragma=journal_mode(WAL)":                                      "busy timeout",
		"mode=memory&_pragma=busy_timeout(1)":                            "memory",
		"_pragma=journal_mode(TRUNCATE)&_pragma=busy_timeout(1)":         "WAL",
		"_pragma=journal_mode(WAL)&_pragma=busy_timeout(0)&_pragma=x(1)": "busy timeout",
	} {
		db := open(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "s.db")+"?"+settings)
		b := sessplussql.New(db, sessplussql.SQLite, nil)
		wantError(t, b.CreateTables(t.Context()), says)
		_, err := b.Load(t.Context(), "k")
		wantError(t, err, says)
	}
}

// A program gets the driver that it imports, and no other.
func TestNoDriver(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, driver := range []string{"modernc.org", "jackc", "go-sql-driver"} {
		if strings.Contains(string(out), driver) {
			t.Errorf("the package depends on %s", driver)
		}
	}
}
