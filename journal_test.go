package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// A journal keeps all that a Manager logs and reports.
type journal struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	events []sessplus.Event
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) options(timeout time.Duration) *sessplus.Options {
	return &sessplus.Options{
		Logger:  slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Timeout: timeout,
		OnEvent: func(_ context.Context, e sessplus.Event) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.events = append(j.events, e)
		},
	}
}

// text is the log, and the errors of the events.
func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b strings.Builder
	b.Write(j.buf.Bytes())
	for _, e := range j.events {
		if e.Err != nil {
			fmt.Fprintf(&b, "event %s: %v\n", e.Kind, e.Err)
		}
	}
	return b.String()
}

// kinds are those of the events about a cookie since the last call.
func (j *journal) kinds(cookie string) []sessplus.EventKind {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []sessplus.EventKind
	for _, e := range j.events {
		if e.Cookie == cookie {
			list = append(list, e.Kind)
		}
	}
	j.events = nil
	return list
}

// keepsSecret fails the test if the log, an event or an answer holds one of the secrets (SPEC 6.9, 7.3).
func (j *journal) keepsSecret(t testing.TB, replies []*reply, secrets ...string) {
	t.Helper()
	texts := []string{j.text()}
	for _, r := range replies {
		texts = append(texts, r.body)
	}
	for _, text := range texts {
		for _, secret := range secrets {
			if secret != "" && strings.Contains(text, secret) {
				t.Errorf("a secret (%.12s…) is in: %s", secret, text)
			}
		}
	}
}

// mustWarn fails the test unless a line of the level WARN or above is there.
func (j *journal) mustWarn(t testing.TB) {
	t.Helper()
	if text := j.text(); !strings.Contains(text, "level=WARN") && !strings.Contains(text, "level=ERROR") {
		t.Errorf("log = %q, want a warning", text)
	}
}

// A writeCounter counts what is written to backends, as OnEvent hears of it.
type writeCounter struct {
	mu sync.Mutex
	n  int
}

func (c *writeCounter) hear(_ context.Context, e sessplus.Event) {
	switch e.Kind {
	case sessplus.EventLoad, sessplus.EventMiss, sessplus.EventReject, sessplus.EventError:
	default:
		c.mu.Lock()
		c.n++
		c.mu.Unlock()
	}
}

func (c *writeCounter) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = 0
	return n
}

// An errorLog keeps the errors that were logged.
type errorLog struct {
	mu   sync.Mutex // guards errs
	errs []error
}

func (l *errorLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *errorLog) WithGroup(string) slog.Handler { return l }

func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			l.errs = append(l.errs, err)
		}
		return true
	})
	return nil
}

// has reports whether an error was logged that matches target.
func (l *errorLog) has(target error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.errs, func(err error) bool { return errors.Is(err, target) })
}
