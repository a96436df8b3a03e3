// Package sessplussql stores the sessions of sessplus in the SQL database that a program already uses: SQLite,
// PostgreSQL, MySQL or MariaDB, through database/sql.
//
//	db, err := sql.Open("sqlite", "file:sessions.db"+
//		"?_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
//	if err != nil {
//		log.Fatal(err)
//	}
//	backend := sessplussql.New(db, sessplussql.SQLite, nil)
//	if err := backend.CreateTables(ctx); err != nil {
//		log.Fatal(err)
//	}
//	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: backend}}, nil)
//
// The package imports no driver. It is tested with modernc.org/sqlite, github.com/jackc/pgx/v5/stdlib and
// github.com/go-sql-driver/mysql.
//
// # Expired records
//
// Records that have expired by the program's clock count as absent, even while their rows are in the table.
// [Backend.Sweep] removes those rows. The package starts no goroutine, so call it every few minutes:
//
//	go func() {
//		for range time.Tick(10 * time.Minute) {
//			backend.Sweep(context.Background())
//		}
//	}()
//
// # Settings
//
// SQLite: the file must be in WAL mode, in which readers do not wait for a writer, and each connection needs a busy
// timeout, which should be shorter than [sessplus.Options.Timeout]. The first call checks both. Within a process, the
// changes of one [Backend] take turns, so they compete only with other processes for the lock on the file. With
// synchronous(NORMAL) a change is not flushed to disk at once: a crash of the program loses nothing, and a crash of the
// machine loses the last changes. The DSN above has these settings.
//
// PostgreSQL and MySQL: let the pool keep as many idle connections as are busy at a time (SetMaxIdleConns, 2 by
// default), because opening a connection costs more than a whole request. Connect to the primary: a replica lags
// behind, and may still have a session that was ended. After a failover, target_session_attrs=read-write (pgx) and
// rejectReadOnly=true (go-sql-driver) keep the pool away from a server that has become a replica.
//
// MySQL: a change must be smaller than the server's max_allowed_packet, 16 MiB by default, or it is
// [sessplus.ErrTooLarge].
//
// # The sessions of a user
//
// With [sessplus.Config.IndexBy] a program can list and end a user's sessions. The owner of a record is an indexed
// column, written by the same statement as the record. It costs nothing unless the user changes.
//
// # How records are kept
//
// A record is one row, with its small fields in one column. A change is one UPDATE, and thus one round trip, on
// condition that the row still has the version the request loaded. If another request was faster, the row is read
// again, and the change is applied to the new version. No lock is held between statements. A row for each field would
// make a change twice as expensive (measured on all three databases), because a transaction of two statements is four
// round trips. Fields that would make the row longer than 2 KB have rows of their own in a second table: changing a
// small field does not write them, loading takes a second round trip, and changing one is a single statement on
// PostgreSQL and a short transaction elsewhere.
package sessplussql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessplus/sessplus"
)

// Options are optional settings of a [Backend].
type Options struct {
	// Table is the name of the table, and the prefix of all other names; "" means "sessions". It may have up to 40
	// ASCII letters, digits and underscores.
	Table string
}

// A Backend stores records in a database. It implements [sessplus.Backend] and [sessplus.Indexer], is safe for
// concurrent use, and needs no Close.
type Backend struct {
	db      *sql.DB
	dialect Dialect
	table   string
	text    statements
	gate    chan struct{} // of SQLite: whoever changes something is in it

	seed   maphash.Seed
	crowds [64]atomic.Int32 // by the hash of a key

	checked  atomic.Bool
	busy     atomic.Int64 // SQLite's busy timeout, a time.Duration
	mu       sync.Mutex   // guards prepared
	prepared map[string]*sql.Stmt
}

// New returns a backend that stores records in the database. o may be nil. If the arguments or the settings of the
// database are wrong, [Backend.CreateTables] and every other call return an error.
func New(db *sql.DB, d Dialect, o *Options) *Backend {
	b := &Backend{db: db, dialect: d, table: "sessions", seed: maphash.MakeSeed(), prepared: make(map[string]*sql.Stmt)}
	if o != nil && o.Table != "" {
		b.table = o.Table
	}
	b.text = d.statements(b.table)
	if d == SQLite {
		b.gate = make(chan struct{}, 1)
	}
	return b
}

// String returns the name of the dialect.
func (b *Backend) String() string { return b.dialect.String() }

// KeepsDeviceKeys implements [sessplus.DeviceKeeper].
func (b *Backend) KeepsDeviceKeys() {}

// Load implements [sessplus.Backend].
func (b *Backend) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	var r *sessplus.Record
	err := b.call(ctx, key, callTime, func(ctx context.Context) error {
		s, err := b.read(ctx, key)
		if err != nil {
			return err
		}
		now := time.Now()
		if r, err = s.record(); err != nil {
			return err
		}
		if err = gone(r, now); err != nil {
			return err
		}
		r.Version = s.String()
		return b.complete(ctx, key, s, r)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// gone returns nil if r is a record at that time, and else the error of Load.
func gone(r *sessplus.Record, now time.Time) error {
	switch {
	case !r.Expires.After(now):
		return sessplus.ErrNoRecord
	case r.Mark != nil && r.Mark.Ended:
		return &sessplus.EndedError{Next: r.Mark.Next}
	}
	return nil
}

// Owned implements [sessplus.Indexer].
func (b *Backend) Owned(ctx context.Context, owner string) (list []sessplus.KeyedRecord, err error) {
	err = b.call(ctx, "", callTime, func(ctx context.Context) error {
		list, err = b.owned(ctx, owner)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Create implements [sessplus.Backend].
func (b *Backend) Create(ctx context.Context, key string, r *sessplus.Record) error {
	s, apart := encode(r)
	return b.call(ctx, key, callTime, func(ctx context.Context) error {
		created, err := b.insert(ctx, key, s, apart)
		if created || err != nil {
			return err
		}
		old, err := b.read(ctx, key)
		switch {
		case errors.Is(err, sessplus.ErrNoRecord) && old == nil:
			return errStale
		case err != nil:
			return err
		case old.version == s.version:
			return nil // the answer was lost
		case old.expires > time.Now().UnixMilli():
			return sessplus.ErrRecordExists
		}
		if err := b.remove(ctx, key, old.version); err != nil {
			return err
		}
		return errStale // what had expired is out of the way
	})
}

// Update implements [sessplus.Backend].
func (b *Backend) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	var result sessplus.Result
	start := time.Now()
	ch := change{seen: c.Seen, match: c.Match, apply: func(r *sessplus.Record) (err error) {
		result, err = c.Apply(r)
		return err
	}}
	s, err := b.change(ctx, key, ch)
	if errors.Is(err, sessplus.ErrConflict) {
		b.spread(ctx, key, time.Since(start))
	}
	if err != nil {
		return sessplus.Result{}, err
	}
	result.Version = s.String()
	return result, nil
}

// spread makes requests that repeatedly collide on a record come back one after another, the slower the more they are
// and the longer it took. If all of 64 tried at once what only one of them can do, the database would be busy with the
// refusals.
func (b *Backend) spread(ctx context.Context, key string, took time.Duration) {
	crowd := b.crowd(key)
	n := crowd.Add(1)
	defer crowd.Add(-1)
	select {
	case <-ctx.Done():
	case <-time.After(rand.N(min(time.Duration(n)*max(2*took, leastSpread), mostSpread))):
	}
}

// crowd counts those who pause because of a record.
func (b *Backend) crowd(key string) *atomic.Int32 {
	return &b.crowds[maphash.String(b.seed, key)%uint64(len(b.crowds))]
}

// Who has met others pauses for at most mostSpread, and for at most leastSpread if that was only one who was quick.
const (
	leastSpread = 3 * time.Millisecond
	mostSpread  = 500 * time.Millisecond
)

// End implements [sessplus.Backend].
func (b *Backend) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	s, err := b.change(ctx, key, change{seen: e.Seen, apply: e.Apply})
	if err != nil || e.Step != sessplus.StepTake {
		return nil, err
	}
	var r *sessplus.Record
	err = b.call(ctx, key, callTime, func(ctx context.Context) error {
		if r, err = s.record(); err != nil {
			return err
		}
		r.Version = s.String()
		if err = b.complete(ctx, key, s, r); err == errStale { // a taken record changes only if it is ended
			if s, err = b.read(ctx, key); err == nil {
				return errStale
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// A change is what Update and End have in common.
type change struct {
	seen  *sessplus.Record
	match []sessplus.RawField
	apply func(r *sessplus.Record) error // what it does to r counts even if it returns an EndedError
}

// change writes what c makes of the record, and returns the row as it is then. It writes at once if the row is still as
// it was when the caller loaded it, and else reads it first, until nobody else writes in between.
//
// When the answer to a write is lost, the version of the row tells whether it was made, unless somebody else has
// written since. To make it again then does no harm but for a compare-and-set, which might be done twice.
func (b *Backend) change(ctx context.Context, key string, c change) (*state, error) {
	var before, after *state
	crowd := len(c.match) > 0 && b.crowd(key).Load() > 0 // then check first whether another was faster
	if c.seen != nil && c.seen.Version != "" && !crowd {
		before = parseState(c.seen.Version)
	}
	hint := before != nil // before is what the caller knew, and may be old
	var tried []*state    // whose answers were lost
	err := b.call(ctx, key, callTime, func(ctx context.Context) error {
		for {
			var err error
			if before == nil {
				if before, err = b.read(ctx, key); err != nil {
					return err
				}
				hint = false
				if i := slices.IndexFunc(tried, func(s *state) bool { return s.version == before.version }); i >= 0 {
					after = tried[i]
					return nil
				}
				if len(tried) > 0 && len(c.match) > 0 && tried[len(tried)-1].from != before.version {
					return &faultError{"the answer to a change was lost, and others have changed the record since"}
				}
			}
			wrote := false
			after, wrote, err = b.apply(ctx, key, before, hint, c)
			if hint && !wrote && (err == nil || refusal(err)) {
				before = nil // so it is as far as the caller knew
				continue
			}
			before = nil
			if err != nil && after != nil && !refusal(err) && err != errStale {
				tried = append(tried, after)
			}
			if err == errStale && hint {
				hint = false
				continue // the first retry need not wait
			}
			return err
		}
	})
	return after, err
}

// refusal reports whether err is one with which a change answers that it does not apply.
func refusal(err error) bool {
	return errors.Is(err, sessplus.ErrNoRecord) || errors.Is(err, sessplus.ErrConflict) || errors.Is(err, sessplus.ErrTaken)
}

// apply makes the change to the row as it was before, if it still is so, and returns what was, or was to be, made of
// it.
func (b *Backend) apply(ctx context.Context, key string, before *state, hint bool, c change) (after *state, wrote bool, err error) {
	r, err := before.record()
	if err != nil {
		return nil, false, err
	}
	was := apartOf(r)
	before.owner = listedUnder(r)
	if slices.ContainsFunc(c.match, func(f sessplus.RawField) bool { return slices.Contains(was, f.Name) }) {
		if hint {
			return nil, false, sessplus.ErrConflict // to be found out
		}
		if err := b.complete(ctx, key, before, r); err != nil {
			return nil, false, err
		}
	}
	refused := c.apply(r)
	if refused != nil && !errors.As(refused, new(*sessplus.EndedError)) {
		return nil, false, refused
	}
	after, apart := encodeAfter(r, was)
	after.from = before.version
	if after.same(before) && len(apart.put)+len(apart.drop) == 0 {
		return before, false, refused
	}
	if err := b.update(ctx, key, before, after, apart); err != nil {
		return after, false, err
	}
	return after, true, refused
}

// callTime is how long a call may take if its context does not say.
const callTime = 5 * time.Second

// errStale asks for a retry: another request has changed the row.
var errStale = errors.New("others were faster")

// call makes sure once that the settings are right, and then calls f until it succeeds or another try would not help,
// or ctx is done.
func (b *Backend) call(ctx context.Context, key string, within time.Duration, f func(ctx context.Context) error) error {
	if len(key) > maxKey {
		return fmt.Errorf("%s: a key is longer than %d bytes", b, maxKey)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	var last error // that is not the end of ctx
	for attempt := 0; ; attempt++ {
		err := b.check(ctx)
		if err == nil {
			err = f(ctx)
		}
		switch {
		case err == nil:
			return nil
		case refusal(err), errors.Is(err, sessplus.ErrRecordExists):
			return err
		}
		again, told := b.explain(ctx, err)
		if !again && ctx.Err() == nil {
			return told
		}
		if ctx.Err() == nil || last == nil {
			last = told
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", last, ctx.Err())
		case <-time.After(rand.N(5 * time.Millisecond << min(attempt, 5))):
		}
	}
}
