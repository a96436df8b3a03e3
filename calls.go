package sessplus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A batcher is a Backend that makes the calls of all cookies with the same client in one round trip, and applies the
// timeout itself. It uses the values of the request's context, but not its cancellation.
type batcher interface {
	client() any // comparable
	doAll(request context.Context, timeout time.Duration, calls []*call)
}

// A call is one call of a Backend for one cookie of a request, and its result.
type call struct {
	part        *part
	sessionName // of the record; the id may be missing where it is not needed

	record *Record // to create, or the answer of a load or a take
	change *Change // to update
	ending *Ending
	result Result
	err    error
	began  int64 // in Unix nanoseconds, 0 if it was not made
	took   time.Duration

	entries []string // of the index in Redis
	filed   string   // the owner whose index has the record, and since when, if an update has moved its expiry

	asked   string // the key that an ending began with
	named   string // the handle the program has passed, if any
	op      op
	patient bool // wait while somebody else has taken the record
	still   bool // do not follow the record to its successor
	moved   bool // it has followed a rotation, and has the new name
	insists bool // make it although the backend has hung
	hops    uint8
}

type op uint8

const (
	opLoad op = iota
	opCreate
	opUpdate
	opEnd

	opIndex // the following three are only for Redis
	opOwned
	opForget
)

// do makes the call.
func (c *call) do(ctx context.Context) {
	b := c.part.Backend
	switch c.op {
	case opLoad:
		c.record, c.err = b.Load(ctx, c.key)
	case opCreate:
		c.err = b.Create(ctx, c.key, c.record)
	case opUpdate:
		c.result, c.err = b.Update(ctx, c.key, c.change)
	case opEnd:
		c.record, c.err = b.End(ctx, c.key, c.ending)
	}
	if c.err == nil && c.record == nil && (c.op == opLoad || c.op == opEnd && c.ending.Step == StepTake) {
		c.err = errors.New("the backend returned neither a record nor an error")
	}
}

// run makes the calls concurrently, those to one client in one round trip, within the Timeout. Errors that Backend does
// not name match ErrUnavailable afterwards. A call follows an ended record to its successor, if that is affected as
// well, and a patient call waits for a taken record.
func (s *Session) run(calls []*call) {
	var until time.Time
	for len(calls) > 0 {
		s.runOnce(calls)
		if calls = again(calls); len(calls) == 0 {
			return
		}
		now := time.Now()
		if until.IsZero() {
			until = now.Add(s.m.timeout)
		}
		if now.After(until) {
			for _, c := range calls {
				c.err = fmt.Errorf("%w: %w", ErrUnavailable, c.err)
			}
			return
		}
		if slices.ContainsFunc(calls, func(c *call) bool { return c.err == ErrTaken }) {
			time.Sleep(rand.N(takenPause))
		}
	}
}

// takenPause is the longest pause before a call for a taken record is repeated.
const takenPause = 5 * time.Millisecond

// again returns the calls that must be repeated.
func again(calls []*call) (list []*call) {
	for _, c := range calls {
		switch {
		case c.err == nil:
		case c.patient && errors.Is(c.err, ErrTaken):
			c.err = ErrTaken
			c.change.Now = wallNow() // the take may lapse
			list = append(list, c)
		default:
			if ended := endedBy(c.err); ended != nil && c.follow(ended.Next) {
				list = append(list, c)
			}
		}
	}
	return list
}

// endedBy returns the EndedError in err, or nil.
func endedBy(err error) *EndedError {
	var e *EndedError
	errors.As(err, &e)
	return e
}

// nextKey returns the key of the ended record's successor, according to the error, or "".
func nextKey(err error) string {
	ended := endedBy(err)
	if ended == nil {
		return ""
	}
	key, _, _ := strings.Cut(ended.Next, " ")
	return key
}

// maxHops is how many renewals or rotations a call follows. A record can have more within EndGrace only if something
// renews it in a loop.
const maxHops = 100

// follow redirects the call to the successor of an ended record. A logout also ends what a concurrent renewal or
// rotation has created, and a handle names the session under any id. A visitor's call follows only rotations: for
// EndGrace the old id is another name for the same session, whereas an id from before a renewal must not open it.
func (c *call) follow(next string) bool {
	key, sealed, rotated := strings.Cut(next, " ")
	switch {
	case key == "" || c.hops == maxHops || c.still:
		return false
	case c.op == opEnd && c.ending.Token == "":
		c.key, c.ending.Seen = key, nil
	case c.op == opUpdate && c.id == "":
		c.key, c.change.Seen, c.change.Exact = key, nil, false
		c.change.Expires = c.change.Now // its expiry is its own
	case c.op == opLoad && c.id == "":
		c.key = key
	case rotated && c.id != "":
		name := c.part.nameOf(openID(c.id, sealed))
		if name.key != key {
			return false
		}
		c.sessionName, c.moved = name, true
	default:
		return false
	}
	c.hops++
	return true
}

// runOnce makes the calls once, without following or waiting.
func (s *Session) runOnce(calls []*call) {
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

// endOf calls f and reports how it ended: with nil if it returned, otherwise with a function that panics or exits the
// same way. A panic in a goroutine of ours would end the process; in the request's own goroutine, net/http recovers it.
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

// group groups the calls by the client that can make them together.
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
	timeout := s.m.timeout
	if s.isHung(calls[0].part) {
		if !slices.ContainsFunc(calls, func(c *call) bool { return c.insists }) {
			for _, c := range calls {
				c.err = fmt.Errorf("%w: it did not answer this request before", ErrUnavailable)
			}
			return
		}
		timeout /= insistShare
	}
	start := time.Now()
	if batch := calls[0].part.batch; batch != nil {
		batch.doAll(s.ctx, timeout, calls)
	} else {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), timeout)
		defer cancel()
		calls[0].do(ctx)
	}
	took := time.Since(start)
	for _, c := range calls {
		c.began, c.took = start.UnixNano(), took
		switch err := c.err; {
		case err == nil, errors.Is(err, ErrNoRecord), errors.Is(err, ErrTaken), errors.Is(err, ErrRecordExists),
			errors.Is(err, ErrTooLarge), c.op == opUpdate && errors.Is(err, ErrConflict):
		default:
			c.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			if took >= timeout-timeout/deadlineShare {
				s.setHung(c.part)
			}
		}
	}
}

// deadlineShare allows for clients that give up a little early: a call that took all but this fraction of the timeout
// counts as timed out.
const deadlineShare = 64

// After a call has timed out, its backend gets no further calls from the same request, so that a hung server costs the
// Timeout only once. Save and Reload, which the program calls explicitly, try again. Only a call that undoes the end of
// a record is made nevertheless, within this part of the Timeout: a lost reply must not cost the visitor the session.
const insistShare = 4

func (s *Session) isHung(p *part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		if o := &s.parts[i]; o.hung && sameBackend(o.Backend, p.Backend) {
			return true
		}
	}
	return false
}

func (s *Session) setHung(p *part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.hung = true
}

func (s *Session) askAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		s.parts[i].hung = false
	}
	s.spent = 0
}

// looseCalls are calls of other code that may outlive their context, and are then abandoned.
type looseCalls struct {
	places chan struct{} // holds an element for each of them
	left   atomic.Int64  // how many of them are no longer waited for
}

// maxCalls is how many loose calls may be under way at once, including abandoned ones.
const maxCalls = 1000

var errManyLeft = errors.New("too many calls to it have not ended yet")

func newLooseCalls() *looseCalls { return &looseCalls{places: make(chan struct{}, maxCalls)} }

// enter takes one of the places. It waits for one to become free, or fails at once if all calls that have one were
// abandoned.
func (l *looseCalls) enter(ctx context.Context) error {
	select {
	case l.places <- struct{}{}:
		return nil
	default:
	}
	if l.left.Load() >= maxCalls {
		return errManyLeft
	}
	select {
	case l.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// within calls f in a goroutine of its own, so that f can be abandoned when ctx is done.
func (l *looseCalls) within(ctx context.Context, f func()) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	done, alone := make(chan func()), make(chan struct{})
	go func() {
		defer func() { <-l.places }()
		endOf(f, func(end func()) {
			select {
			case done <- end:
			case <-alone: // nobody is left to panic in
				l.left.Add(-1)
			}
		})
	}()
	select {
	case end := <-done:
		if end != nil {
			end()
		}
		return nil
	case <-ctx.Done():
		l.left.Add(1)
		close(alone)
		return ctx.Err()
	}
}
