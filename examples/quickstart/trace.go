package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"sync"

	"github.com/sessplus/sessplus"
)

// A trace hears what one request reads from and writes to its backends.
type trace struct {
	mu     sync.Mutex // guards events
	events []sessplus.Event
}

type traceKey struct{}

// traced gives each request a trace. It stands outside the middleware, whose events have the context that it was given.
func traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), traceKey{}, new(trace))))
	})
}

func traceOf(r *http.Request) *trace { return r.Context().Value(traceKey{}).(*trace) }

// onEvent is the Options.OnEvent of the shop.
func onEvent(ctx context.Context, e sessplus.Event) {
	t := ctx.Value(traceKey{}).(*trace)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
}

// pick returns the events of these kinds.
func (t *trace) pick(kinds ...sessplus.EventKind) []sessplus.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []sessplus.Event
	for _, e := range t.events {
		if slices.Contains(kinds, e.Kind) {
			list = append(list, e)
		}
	}
	return list
}

// maxTraces is how many traces wait for a browser that may never follow its redirect.
const maxTraces = 1000

// traces hands the trace of a form to the page that follows it. A session would do as well, but a visitor who has none
// should not get one for this.
type traces struct {
	mu   sync.Mutex // guards byID
	byID map[string]*trace
}

// keep returns an id for take.
func (ts *traces) keep(t *trace) string {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.byID == nil || len(ts.byID) >= maxTraces {
		ts.byID = make(map[string]*trace)
	}
	id := rand.Text()
	ts.byID[id] = t
	return id
}

// take returns the trace of the id once, then nil.
func (ts *traces) take(id string) *trace {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.byID[id]
	delete(ts.byID, id)
	return t
}
