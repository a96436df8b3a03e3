package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sessplus/sessplus"
)

// A recorder is a real backend that records how it is called. Hooks may delay and break calls.
type recorder struct {
	sessplus.Backend
	hook  func(ctx context.Context, op string) error // is called first; its error takes the place of the call
	after func(op string) error                      // called after a success; its error replaces the answer

	mu    sync.Mutex // guards the hooks, and what follows
	calls []string   // "load KEY", "create KEY", …, since they were last asked for
	keys  []string   // all that there were, in the order of their first call
	last  *sessplus.Change
}

// record notes a call, and lets the hook act.
func (b *recorder) record(ctx context.Context, op, key string) error {
	b.mu.Lock()
	b.calls = append(b.calls, op+" "+key)
	if !slices.Contains(b.keys, key) {
		b.keys = append(b.keys, key)
	}
	hook := b.hook
	b.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, op)
}

func (b *recorder) answered(op string, err error) error {
	b.mu.Lock()
	after := b.after
	b.mu.Unlock()
	if after == nil || err != nil {
		return err
	}
	return after(op)
}

func (b *recorder) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	if err := b.record(ctx, "load", key); err != nil {
		return nil, err
	}
	r, err := b.Backend.Load(ctx, key)
	return r, b.answered("load", err)
}

func (b *recorder) Create(ctx context.Context, key string, r *sessplus.Record) error {
	if err := b.record(ctx, "create", key); err != nil {
		return err
	}
	return b.answered("create", b.Backend.Create(ctx, key, r))
}

func (b *recorder) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	if err := b.record(ctx, "update", key); err != nil {
		return sessplus.Result{}, err
	}
	b.mu.Lock()
	b.last = c
	b.mu.Unlock()
	r, err := b.Backend.Update(ctx, key, c)
	return r, b.answered("update", err)
}

func (b *recorder) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	if err := b.record(ctx, stepName(e), key); err != nil {
		return nil, err
	}
	r, err := b.Backend.End(ctx, key, e)
	return r, b.answered(stepName(e), err)
}

func (b *recorder) setHook(hook func(ctx context.Context, op string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

func (b *recorder) setAfter(after func(op string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.after = after
}

// ops returns what was called since the last time, without the keys.
func (b *recorder) ops() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	ops := []string{}
	for _, c := range b.calls {
		op, _, _ := strings.Cut(c, " ")
		ops = append(ops, op)
	}
	b.calls = nil
	return ops
}

// newest returns the key that came up last.
func (b *recorder) newest() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys[len(b.keys)-1]
}

// alive returns the records that there are of the keys seen, as text.
func (b *recorder) alive(t testing.TB) []string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []string{}
	for _, key := range b.keys {
		r, err := b.Backend.Load(t.Context(), key)
		switch {
		case err == nil:
			slices.SortFunc(r.Fields, func(x, y sessplus.RawField) int { return strings.Compare(x.Name, y.Name) })
			list = append(list, fmt.Sprintf("%s %s", key, r.Fields))
		case !errors.Is(err, sessplus.ErrNoRecord):
			t.Fatal(err)
		}
	}
	return list
}

var errDown = errors.New("down")

// downBut is the hook of a backend that is down, except for the calls named.
func downBut(except ...string) func(context.Context, string) error {
	return func(_ context.Context, op string) error {
		if slices.Contains(except, op) {
			return nil
		}
		return errDown
	}
}
