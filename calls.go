package sessplus

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A batcher is a Backend that makes the calls of all cookies with an equal client in one round trip, and keeps to the
// timeout by itself. From the context of the request it takes the values, and not the end.
type batcher interface {
	client() any // comparable
	doAll(request context.Context, timeout time.Duration, calls []*call)
}

// A call is one call of a Backend for one cookie of a request, with its answer.
type call struct {
	part *part
	op   op
	key  string
	name sessionName // that is looked up, or created

	record *Record // to create, or the answer of a load or a take
	change *Change // to update
	result Result
	err    error
	took   time.Duration
	token  string // of a take that Redis may be asked twice
}

type op uint8

const (
	opLoad op = iota
	opCreate
	opUpdate
	opTake
	opDelete
)

// do makes the call at its backend.
func (c *call) do(ctx context.Context) {
	b := c.part.Backend
	switch c.op {
	case opLoad:
		c.record, c.err = b.Load(ctx, c.key)
	case opCreate:
		c.err = b.Create(ctx, strings.Clone(c.key), c.record) // which it may keep; the id is in the same memory
	case opUpdate:
		c.result, c.err = b.Update(ctx, c.key, c.change)
	case opTake:
		c.record, c.err = b.Take(ctx, c.key)
	case opDelete:
		c.err = b.Delete(ctx, c.key)
	}
	if c.err == nil && c.record == nil && (c.op == opLoad || c.op == opTake) {
		c.err = errors.New("the backend returned neither a record nor an error")
	}
}

// run makes the calls, all side by side and those to one client in one round trip, within the Timeout. The error of a
// call then matches ErrUnavailable, unless it is one that Backend names.
func (s *Session) run(calls []*call) {
	if len(calls) == 0 {
		return
	}
	if len(calls) == 1 {
		s.runGroup(calls)
		return
	}
	groups := group(calls)
	last := len(groups) - 1
	var wg sync.WaitGroup
	ends := make([]func(), last)
	returned := false
	defer func() { // however the last group ends, no goroutine outlives the request
		wg.Wait()
		for _, end := range ends {
			if end != nil && returned {
				end()
			}
		}
	}()
	for i, g := range groups[:last] {
		wg.Go(func() { endOf(func() { s.runGroup(g) }, func(end func()) { ends[i] = end }) })
	}
	s.runGroup(groups[last])
	returned = true
}

// endOf calls f, and tells how it ended: nil when it returned, else a function that does the same where it is called. A panic
// in a goroutine of ours would end the process; net/http expects it in the request's own.
func endOf(f func(), tell func(end func())) {
	end := runtime.Goexit
	defer func() {
		if p := recover(); p != nil {
			end = func() { panic(p) }
		}
		tell(end)
	}()
	f()
	end = nil
}

// group splits the calls by the client that can make them together.
func group(calls []*call) [][]*call {
	var groups [][]*call
next:
	for _, c := range calls {
		if c.part.batch != nil {
			for i, g := range groups {
				if b := g[0].part.batch; b != nil && b.client() == c.part.batch.client() {
					groups[i] = append(g, c)
					continue next
				}
			}
		}
		groups = append(groups, []*call{c})
	}
	return groups
}

// runGroup makes the calls to one client.
func (s *Session) runGroup(calls []*call) {
	if s.isHung(calls[0].part) {
		for _, c := range calls {
			c.err = fmt.Errorf("%w: it did not answer this request before", ErrUnavailable)
		}
		return
	}
	start := time.Now()
	if batch := calls[0].part.batch; batch != nil {
		batch.doAll(s.ctx, s.m.timeout, calls)
	} else {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.m.timeout)
		defer cancel()
		calls[0].do(ctx)
	}
	took := time.Since(start)
	for _, c := range calls {
		c.took = took
		switch err := c.err; {
		case err == nil, errors.Is(err, ErrNoRecord), errors.Is(err, ErrConflict), errors.Is(err, ErrRecordExists), errors.Is(err, ErrTooLarge):
		default:
			c.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			if took >= s.m.timeout-s.m.timeout/deadlineShare {
				s.setHung(c.part)
			}
		}
	}
}

// deadlineShare is which part of the timeout the end of a call may come early.
const deadlineShare = 64

// A backend that let a call run into the Timeout gets no other one from the same request, so that a server which hangs
// costs the Timeout once. What the program asks for by Save and Reload is tried again.

func (s *Session) isHung(p *part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.hung, func(b Backend) bool { return sameBackend(b, p.Backend) })
}

func (s *Session) setHung(p *part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hung = append(s.hung, p.Backend)
}

func (s *Session) askAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hung = nil
}

// handle is the part of a record's key that tells the sessions of one cookie apart.
func handle(key string) string { return key[strings.LastIndexByte(key, ':')+1:] }
