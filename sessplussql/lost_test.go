package sessplussql_test

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplussql"
)

// A cutter passes on what goes to a server and comes back. Once it is armed, it passes on what holds the word, and then
// ends the connection in place of the answer.
type cutter struct {
	net.Listener
	mu   sync.Mutex
	word []byte // nil: not armed
	cuts int
}

func newCutter(t *testing.T, server string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			var cut sync.Once
			end := func() { client.Close() }
			muted := make(chan struct{})
			go func() {
				defer up.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := client.Read(buf)
					if err != nil {
						return
					}
					if c.meets(buf[:n]) {
						close(muted)
						up.Write(buf[:n])
						time.Sleep(50 * time.Millisecond) // the server does what it was asked
						cut.Do(end)
						return
					}
					up.Write(buf[:n])
				}
			}()
			go func() {
				defer cut.Do(end)
				buf := make([]byte, 64<<10)
				for {
					n, err := up.Read(buf)
					if err != nil {
						return
					}
					select {
					case <-muted:
					default:
						client.Write(buf[:n])
					}
				}
			}()
		}
	}()
	return c
}

// arm cuts once.
func (c *cutter) arm(word string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.word = []byte(word)
}

func (c *cutter) meets(text []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.word == nil || !bytes.Contains(text, c.word) {
		return false
	}
	c.word = nil
	c.cuts++
	return true
}

// SPEC 4.5: what was done is not done twice, and counts as done, when its answer is lost.
func TestLostAnswers(t *testing.T) {
	for _, server := range []struct {
		driver  string
		dialect sessplussql.Dialect
		dsn     func(testing.TB) string
	}{{"pgx", sessplussql.PostgreSQL, sharedPostgres}, {"mysql", sessplussql.MySQL, sharedMySQL}} {
		t.Run(server.driver, func(t *testing.T) {
			dsn := server.dsn(t)
			direct := (&database{DB: open(t, server.driver, dsn), dialect: server.dialect}).create(t)
			addr := between(dsn, "@", "/")
			if strings.Contains(dsn, "@tcp(") {
				addr = between(dsn, "@tcp(", ")")
			}
			c := newCutter(t, addr)
			through := open(t, server.driver, strings.Replace(dsn, addr, c.Addr().String(), 1))
			b := sessplussql.New(through, server.dialect, &sessplussql.Options{Table: direct.table})
			for _, size := range []int{10, 3000} { // in the row of the record, and in one of its own
				word := strings.Repeat("w", size)
				key := "lost" + strconv.Itoa(size)
				c.arm(word)
				mustCreate(t, b, key, record(field("word", word), field("n", "0")))
				for i := range 10 {
					r := mustLoad(t, b, key)
					change := setting(field("n", strconv.Itoa(i+1)), field("word", strconv.Itoa(i)+word))
					change.Match = []sessplus.RawField{field("n", strconv.Itoa(i))}
					if i%2 == 0 {
						change.Seen = r
					}
					c.arm(word)
					result := mustUpdate(t, b, key, change)
					if result.Empty || result.Version == "" {
						t.Errorf("Update = %+v", result)
					}
				}
				want := record(field("n", "10"), field("word", "9"+word))
				if got := mustLoad(t, direct.backend, key); text(got) != text(want) {
					t.Errorf("Load = %.200s", text(got))
				}
			}
			if c.cuts != 22 {
				t.Errorf("%d answers were lost, want 22", c.cuts)
			}
			// Others change the record before the answer is found to be lost: nobody can tell whether it was counted.
			mustCreate(t, b, "both", record(field("n", "0")))
			change := setting(field("n", "1-lost-answer"))
			change.Match = []sessplus.RawField{field("n", "0")}
			c.arm("1-lost-answer")
			done := make(chan error)
			go func() {
				_, err := b.Update(t.Context(), "both", change)
				done <- err
			}()
			for range 1000 { // as soon as it is done
				r := mustLoad(t, direct.backend, "both")
				if string(r.Fields[0].Value) != "0" {
					mustUpdate(t, direct.backend, "both", setting(field("n", "0")))
					break
				}
				time.Sleep(time.Millisecond)
			}
			wantError(t, <-done, "lost")
			if got := mustLoad(t, direct.backend, "both"); text(got) != `"n"="0"` {
				t.Errorf("it was done twice: %s", text(got))
			}
		})
	}
}

func between(text, before, after string) string {
	_, text, _ = strings.Cut(text, before)
	text, _, _ = strings.Cut(text, after)
	return text
}

// A deadlock costs a try, and is no error.
func TestDeadlock(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		if d.dialect == sessplussql.SQLite {
			t.Skip("SQLite has one lock")
		}
		mustCreate(t, d.backend, "a", record(field("x", strings.Repeat("x", 3000)), field("n", "0")))
		var wg sync.WaitGroup
		for range 3 {
			tx, err := d.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			// This transaction has the large field, the change gets the record and waits for the field, and this one
			// wants the record.
			if _, err := tx.Exec("UPDATE " + d.table + "_fields SET value = value WHERE id = 'a'"); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if _, err := d.backend.Update(t.Context(), "a", setting(field("x", strings.Repeat("z", 3000)))); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(20 * time.Millisecond)
			tx.Exec("UPDATE " + d.table + " SET expires = expires WHERE id = 'a'") // one gets the deadlock
			tx.Rollback()
			wg.Wait()
		}
		mustLoad(t, d.backend, "a")
	})
}
