package sessplus_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sessplus/sessplus"
)

// A Directory is a backend that stores each record in a file. Only one process may use it at a time.
type Directory struct {
	path string
	mu   sync.Mutex // held by every method, which makes each an atomic step
}

// OpenDirectory returns the backend in the directory, which it makes if necessary.
func OpenDirectory(path string) (*Directory, error) {
	return &Directory{path: path}, os.MkdirAll(path, 0o700)
}

// A file is the content of one file, in JSON.
type file struct {
	Key    string
	Record *sessplus.Record
}

// name returns the name of the key's file. A key may be too long for a file name, contain a slash, or differ from
// another key only in case, so the name is a hash.
func (d *Directory) name(key string) string {
	return filepath.Join(d.path, fmt.Sprintf("%x.json", sha256.Sum256([]byte(key))))
}

// read returns the content of a file, whether or not the record has expired or ended.
func read(ctx context.Context, name string) (file, error) {
	var f file
	if err := ctx.Err(); err != nil {
		return f, err
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f, sessplus.ErrNoRecord
	} else if err != nil {
		return f, err
	}
	if json.Unmarshal(data, &f) != nil || f.Record == nil {
		return f, fmt.Errorf("%w: the file is corrupt", sessplus.ErrNoRecord) // the error of JSON quotes what it read
	}
	return f, nil
}

// write stores the record. It renames a finished file, so that a crash leaves the old record or the new one.
func (d *Directory) write(key string, r *sessplus.Record) error {
	data, err := json.Marshal(file{key, r})
	if err != nil {
		return err
	}
	name := d.name(key)
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// live returns nil if there is a record now, and otherwise the error that says why not.
func live(r *sessplus.Record) error {
	switch {
	case !r.Expires.After(time.Now()):
		return sessplus.ErrNoRecord
	case r.Mark != nil && r.Mark.Ended:
		return &sessplus.EndedError{Next: r.Mark.Next}
	}
	return nil
}

func (d *Directory) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := read(ctx, d.name(key))
	if err != nil {
		return nil, err
	}
	if err := live(f.Record); err != nil {
		return nil, err
	}
	return f.Record, nil
}

func (d *Directory) Create(ctx context.Context, key string, r *sessplus.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, err := read(ctx, d.name(key))
	switch {
	case err == nil && old.Record.Expires.After(time.Now()): // also one that has ended
		return sessplus.ErrRecordExists
	case err != nil && !errors.Is(err, sessplus.ErrNoRecord):
		return err
	}
	return d.write(key, r)
}

func (d *Directory) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := read(ctx, d.name(key))
	if err != nil {
		return sessplus.Result{}, err
	}
	result, err := c.Apply(f.Record)
	if err != nil {
		return sessplus.Result{}, err
	}
	return result, d.write(key, f.Record)
}

func (d *Directory) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := read(ctx, d.name(key))
	if err != nil {
		return nil, err
	}
	applied := e.Apply(f.Record)
	if applied != nil && !errors.As(applied, new(*sessplus.EndedError)) {
		return nil, applied
	}
	if err := d.write(key, f.Record); err != nil {
		return nil, err
	}
	return f.Record, applied
}

// each calls f for every record, whether or not it has expired or ended.
func (d *Directory) each(ctx context.Context, f func(key string, r *sessplus.Record) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != ".json" {
			continue // of a write that did not finish
		}
		switch x, err := read(ctx, filepath.Join(d.path, entry.Name())); {
		case errors.Is(err, sessplus.ErrNoRecord): // corrupt
		case err != nil:
			return err
		default:
			if err := f(x.Key, x.Record); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// Sweep removes the expired records. Call it now and then.
func (d *Directory) Sweep(ctx context.Context) error {
	return d.each(ctx, func(key string, r *sessplus.Record) error {
		if r.Expires.After(time.Now()) {
			return nil
		}
		return os.Remove(d.name(key))
	})
}

func (d *Directory) Owned(ctx context.Context, owner string) ([]sessplus.KeyedRecord, error) {
	var list []sessplus.KeyedRecord
	err := d.each(ctx, func(key string, r *sessplus.Record) error {
		if r.Owner == owner && live(r) == nil {
			list = append(list, sessplus.KeyedRecord{Key: key, Record: r})
		}
		return nil
	})
	return list, err
}

func (d *Directory) String() string { return "directory" }

// A backend of one's own: docs/backend.md explains this one.
func ExampleBackend() {
	path, err := os.MkdirTemp("", "sessions")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(path)
	backend, err := OpenDirectory(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: backend, IndexBy: "user_id"}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mgr.Describe()[0].Backend)
	browse(mgr,
		func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user_id", 42) },
		func(_ http.ResponseWriter, r *http.Request) { fmt.Println(sessplus.Get(r).GetInt("user_id")) })
	// Output:
	// directory
	// 42
}
