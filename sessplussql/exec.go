package sessplussql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// statement returns the prepared statement of a text, or nil if the driver prepares by itself, as pgx does. SQLite
// would otherwise parse it anew each time, and MySQL's driver make a round trip for it.
func (b *Backend) statement(ctx context.Context, text string) (*sql.Stmt, error) {
	if b.dialect == PostgreSQL {
		return nil, nil
	}
	b.mu.Lock()
	s := b.prepared[text]
	b.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := b.db.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if first := b.prepared[text]; first != nil {
		s.Close()
		return first, nil
	}
	b.prepared[text] = s
	return s, nil
}

func (b *Backend) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	s, err := b.statement(ctx, text)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return b.db.QueryContext(ctx, text, args...)
	}
	return s.QueryContext(b.unwatched(ctx, 0), args...) // to read waits for no writer
}

// unwatched returns a context that SQLite's driver need not watch over with a goroutine, which costs as much as the
// statement. It takes no connection that others have, and waits for the lock of the file no longer than wait.
func (b *Backend) unwatched(ctx context.Context, wait time.Duration) context.Context {
	if b.dialect != SQLite || ctx.Err() != nil || b.db.Stats().MaxOpenConnections > 0 {
		return ctx
	}
	if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

// exec returns the number of rows that the statement has changed.
func (b *Backend) exec(ctx context.Context, text string, args ...any) (int64, error) {
	leave, err := b.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	s, err := b.statement(ctx, text)
	if err != nil {
		return 0, err
	}
	var result sql.Result
	if s == nil {
		result, err = b.db.ExecContext(ctx, text, args...)
	} else {
		result, err = s.ExecContext(b.unwatched(ctx, time.Duration(b.busy.Load())), args...)
	}
	if err != nil {
		return 0, b.oversized(ctx, err, args)
	}
	return result.RowsAffected()
}

// oversized returns an ErrTooLarge in place of an error of MySQL with which it ends a connection that sends it more
// than it takes. Drivers see only that it has ended.
func (b *Backend) oversized(ctx context.Context, err error, args []any) error {
	size, limit := 0, 0
	for _, arg := range args {
		if value, ok := arg.([]byte); ok {
			size += len(value)
		}
	}
	if number := mysqlNumber(err); b.dialect != MySQL || size < leastPacket || number != 0 && number != 1105 {
		return err
	}
	if b.db.QueryRowContext(ctx, "SELECT @@max_allowed_packet").Scan(&limit) != nil || size < limit-leastPacket/2 {
		return err
	}
	return sessplus.ErrTooLarge
}

// leastPacket is what every server accepts, unless it is set to less than the default.
const leastPacket = 64 << 10

// enter waits until it is the turn of a change. SQLite has one writer at a time; who waits for the lock of the file
// does so by asking again and again, and the unlucky one for longer than the busy timeout.
func (b *Backend) enter(ctx context.Context) (leave func(), err error) {
	if b.gate == nil {
		return func() {}, nil
	}
	select {
	case b.gate <- struct{}{}:
		return func() { <-b.gate }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A transaction is one on a connection. All of its statements have the context, also the one that ends it, which that
// of a sql.Tx has not: a COMMIT to a server that hangs would wait for ever.
type transaction struct {
	*Backend
	ctx  context.Context
	conn *sql.Conn
}

func (t *transaction) exec(text string, args ...any) (int64, error) {
	result, err := t.conn.ExecContext(t.ctx, text, args...)
	if err != nil {
		return 0, t.oversized(t.ctx, err, args)
	}
	return result.RowsAffected()
}

// inTransaction commits what f does, unless that returns an error.
func (b *Backend) inTransaction(ctx context.Context, f func(t *transaction) error) error {
	leave, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return err
	}
	t := &transaction{b, ctx, conn}
	done := false
	defer func() {
		if !done { // the connection goes, and the transaction with it
			conn.Raw(func(any) error { return driver.ErrBadConn })
		}
		conn.Close()
	}()
	if _, err := t.exec(b.text.begin); err != nil {
		return err
	}
	end := "COMMIT"
	refused := f(t)
	if refused == errStale {
		end = "ROLLBACK"
	} else if refused != nil {
		return refused
	}
	if _, err := t.exec(end); err != nil {
		return err
	}
	done = true
	return refused
}

// read returns the row of the key, without the values that have rows of their own.
func (b *Backend) read(ctx context.Context, key string) (*state, error) {
	rows, err := b.query(ctx, b.text.load, key)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return nil, err
		}
		return nil, sessplus.ErrNoRecord
	}
	var s state
	var mark sql.NullString
	if err := rows.Scan(&s.version, &s.expires, &mark, &s.data); err != nil {
		return nil, err
	}
	s.mark = mark.String
	return &s, rows.Close()
}

// complete fills in the values that have rows of their own. It is errStale if r, made of s, is not what is stored any
// more.
func (b *Backend) complete(ctx context.Context, key string, s *state, r *sessplus.Record) error {
	missing := make(map[string]int)
	for i, f := range r.Fields {
		if isApart(f.Value) {
			missing[f.Name] = i
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := b.query(ctx, b.text.loadApart, key)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var version int64
		var name string
		var value []byte
		if err := rows.Scan(&version, &name, &value); err != nil {
			return err
		}
		if version != s.version {
			return errStale
		}
		if value == nil {
			value = []byte{}
		}
		if i, ok := missing[name]; ok {
			r.Fields[i].Value = value
			delete(missing, name)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	now, err := b.read(ctx, key)
	if err == nil && now.version == s.version {
		err = errCorrupt
	} else if err == nil {
		err = errStale
	}
	return err
}

// owned returns what is stored under an owner. One statement sees one state of all records, so that none is missing
// whose session gets another key meanwhile.
func (b *Backend) owned(ctx context.Context, owner string) ([]sessplus.KeyedRecord, error) {
	rows, err := b.query(ctx, b.text.owned, owner, time.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []sessplus.KeyedRecord
	at := make(map[string]int) // in list; a record comes once for each value with a row of its own
	for rows.Next() {
		var key string
		var s state
		var mark sql.NullString
		var name, value []byte
		if err := errors.Join(ctx.Err(), rows.Scan(&key, &s.version, &s.expires, &mark, &s.data, &name, &value)); err != nil {
			return nil, err
		}
		i, known := at[key]
		if !known {
			s.mark = mark.String
			r, err := s.record()
			if err != nil {
				continue // it cannot be loaded either
			}
			r.Version = s.String()
			i = len(list)
			at[key], list = i, append(list, sessplus.KeyedRecord{Key: key, Record: r})
		}
		for j, f := range list[i].Fields {
			if isApart(f.Value) && f.Name == string(name) {
				list[i].Fields[j].Value = append([]byte{}, value...)
			}
		}
	}
	list = slices.DeleteFunc(list, func(r sessplus.KeyedRecord) bool { return len(apartOf(r.Record)) > 0 }) // corrupt
	return list, errors.Join(rows.Err(), rows.Close())
}

// values is the list of parameters of an insert.
func (s *state) values(key string) []any {
	return []any{key, s.version, s.expires, text(s.owner), text(s.mark), []byte(s.data)}
}

// text is NULL for "".
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// insert stores a new record. It reports whether there was none.
func (b *Backend) insert(ctx context.Context, key string, s *state, d difference) (created bool, err error) {
	if len(d.put) == 0 {
		created, err = b.some(b.exec(ctx, b.text.insert, s.values(key)...))
		return created, err
	}
	if b.dialect == PostgreSQL && len(d.put) <= togetherRows {
		return b.together(ctx, b.text.insert, s.values(key), 1, d)
	}
	err = b.inTransaction(ctx, func(t *transaction) error {
		if created, err = b.some(t.exec(b.text.insert, s.values(key)...)); err != nil {
			return err
		}
		if !created {
			return errStale
		}
		return b.putApart(t, key, d)
	})
	if !created && err == errStale {
		err = nil
	}
	return created, err
}

// some reports whether a statement has changed a row. That there is a record is no error.
func (b *Backend) some(n int64, err error) (bool, error) {
	if b.dialect == MySQL && mysqlNumber(err) == 1062 {
		return false, nil
	}
	return n > 0, err
}

// update makes the row after of what was before, or is errStale.
func (b *Backend) update(ctx context.Context, key string, before, after *state, d difference) error {
	changes, args := 0, make([]any, 1, 7)
	args[0] = after.version
	if after.expires != before.expires { // which SQLite would otherwise write to the index all the same
		changes |= changedExpires
		args = append(args, after.expires)
	}
	if after.owner != before.owner {
		changes |= changedOwner
		args = append(args, text(after.owner))
	}
	if after.mark != before.mark {
		changes |= changedMark
		args = append(args, text(after.mark))
	}
	if after.data != before.data {
		changes |= changedData
		args = append(args, []byte(after.data))
	}
	args = append(args, key, before.version)
	statement := b.text.updates[changes]
	rows := len(d.put) + len(d.drop)
	changed := false
	var err error
	switch {
	case rows == 0:
		changed, err = b.some(b.exec(ctx, statement, args...))
	case b.dialect == PostgreSQL && (rows <= togetherRows || d.all && len(d.put) == 0):
		changed, err = b.together(ctx, statement, args, len(args)-1, d)
	default:
		return b.inTransaction(ctx, func(t *transaction) error {
			if changed, err := b.some(t.exec(statement, args...)); err != nil {
				return err
			} else if !changed {
				return errStale
			}
			return b.putApart(t, key, d)
		})
	}
	if err == nil && !changed {
		err = errStale
	}
	return err
}

// How many rows, and how many bytes of them, go into one statement. What is a single row may be longer.
const (
	togetherRows  = 100
	togetherBytes = 256 << 10
)

// putApart makes the difference in the rows that fields of the key have of their own.
func (b *Backend) putApart(t *transaction, key string, d difference) error {
	if d.all {
		if _, err := t.exec(b.text.clearApart, key); err != nil {
			return err
		}
		d.drop = nil
	}
	for len(d.drop) > 0 {
		n := min(len(d.drop), togetherRows)
		args := []any{key}
		for _, name := range d.drop[:n] {
			args = append(args, []byte(name))
		}
		if _, err := t.exec(fmt.Sprintf(b.text.dropApart, b.dialect.repeated("?", n, 2)), args...); err != nil {
			return err
		}
		d.drop = d.drop[n:]
	}
	for len(d.put) > 0 {
		var args []any
		n, size := 0, 0
		for n < min(len(d.put), togetherRows) && (n == 0 || size+len(d.put[n].Value) <= togetherBytes) {
			f := d.put[n]
			args = append(args, key, []byte(f.Name), f.Value)
			size += len(f.Value)
			n++
		}
		if _, err := t.exec(fmt.Sprintf(b.text.insertApart, b.dialect.repeated("(?, ?, ?)", n, 1)), args...); err != nil {
			return err
		}
		d.put = d.put[n:]
	}
	return nil
}

// together makes a change of a record's row, whose key is a parameter of that number, and the difference in other rows
// in one statement of PostgreSQL. It reports whether it was made.
func (b *Backend) together(ctx context.Context, statement string, args []any, key int, d difference) (bool, error) {
	var s strings.Builder
	fmt.Fprintf(&s, "WITH t AS (%s RETURNING id)", statement)
	if d.all {
		fmt.Fprintf(&s, ", d AS (%s AND EXISTS (SELECT FROM t))", strings.Replace(b.text.clearApart, "$1", fmt.Sprintf("$%d", key), 1))
	} else if len(d.drop) > 0 {
		in := b.dialect.repeated("?", len(d.drop), len(args)+1)
		for _, name := range d.drop {
			args = append(args, []byte(name))
		}
		drop := fmt.Sprintf(b.text.dropApart, in)
		fmt.Fprintf(&s, ", d AS (%s AND EXISTS (SELECT FROM t))", strings.Replace(drop, "$1", fmt.Sprintf("$%d", key), 1))
	}
	if len(d.put) > 0 {
		rows := b.dialect.repeated("(?::bytea, ?::bytea)", len(d.put), len(args)+1)
		for _, f := range d.put {
			args = append(args, []byte(f.Name), f.Value)
		}
		from := fmt.Sprintf("SELECT t.id, v.name, v.value FROM t, (VALUES %s) AS v (name, value)", rows)
		fmt.Fprintf(&s, ", p AS (%s)", strings.Replace(fmt.Sprintf(b.text.insertApart, "\x00"), "VALUES \x00", from, 1))
	}
	s.WriteString(" SELECT count(*) FROM t")
	var n int64
	err := b.db.QueryRowContext(ctx, s.String(), args...).Scan(&n)
	return n > 0, err
}

// remove deletes what has expired, unless it has changed.
func (b *Backend) remove(ctx context.Context, key string, version int64) error {
	return b.inTransaction(ctx, func(t *transaction) error {
		n, err := t.exec(b.text.remove, key, version)
		if err != nil || n == 0 {
			return err
		}
		_, err = t.exec(b.text.clearApart, key)
		return err
	})
}

// A step of Sweep removes so many rows, and may take so long if the context does not say.
const (
	sweepRows = 500
	sweepTime = 30 * time.Second
)

// Sweep removes expired records and returns how many it has removed. It removes 500 records at a time, in one short
// transaction each, until none is left or ctx is done. Several machines may sweep concurrently.
func (b *Backend) Sweep(ctx context.Context) (int, error) {
	total := 0
	for {
		n := 0
		err := b.call(ctx, "", sweepTime, func(ctx context.Context) (err error) {
			n, err = b.sweepOnce(ctx)
			return err
		})
		total += n
		if err != nil || n < sweepRows {
			return total, err
		}
	}
}

func (b *Backend) sweepOnce(ctx context.Context) (int, error) {
	n := 0
	err := b.inTransaction(ctx, func(t *transaction) error {
		rows, err := t.conn.QueryContext(ctx, b.text.expired, time.Now().UnixMilli(), sweepRows)
		if err != nil {
			return err
		}
		defer rows.Close()
		var keys []any
		for rows.Next() {
			var key string
			if err := rows.Scan(&key); err != nil {
				return err
			}
			keys = append(keys, key)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(keys) == 0 {
			return err
		}
		in := " WHERE id IN (" + b.dialect.repeated("?", len(keys), 1) + ")"
		for _, table := range []string{b.text.clearApart, b.text.remove} {
			from, _, _ := strings.Cut(table, " WHERE ")
			if _, err := t.exec(from+in, keys...); err != nil {
				return err
			}
		}
		n = len(keys)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
