package sessplus

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Something that may happen in every request is not logged in every request. What a Manager remembers for that is
// bounded.

// warn writes a line to the log. It never gets an id, the value of a cookie or of a field, or the text of a foreign
// error.
func (s *Session) warn(msg string, attrs ...any) { s.m.log.Log(s.ctx, slog.LevelWarn, msg, attrs...) }

// reject reports a cookie of the request that is not a session. After a change of keys, or of the library that wrote
// the cookies, every visitor brings one, so the log has one line a minute for each cookie and reason. Events report
// all.
func (s *Session) reject(p *part, reason error) {
	const msg = "sessplus: a cookie was rejected"
	attrs := []any{"cookie", p.CookieName, "reason", reason.Error()}
	if errors.Is(reason, errExpired) { // as every cookie eventually is
		s.m.log.Log(s.ctx, slog.LevelDebug, msg, attrs...)
	} else if due, leftOut := s.m.rejected.due(rejection{p.index, reason.Error()}, time.Now()); due {
		if leftOut > 0 {
			attrs = append(attrs, "left_out", leftOut)
		}
		s.warn(msg, attrs...)
	}
	s.rejected(p.cookie, reason)
}

// A rejection is the key by which lines about rejected cookies are counted.
type rejection struct {
	cookie int
	reason string // one of a few, which quote nothing
}

// rejections counts the lines. It is safe for concurrent use.
type rejections struct {
	mu    sync.Mutex
	lines map[rejection]*rejectionLine
}

type rejectionLine struct {
	last    time.Time // when it was written
	leftOut int       // since then
}

// due reports whether a line should be logged now, and how many were left out since the last one.
func (r *rejections) due(k rejection, now time.Time) (due bool, leftOut int) {
	const pause = time.Minute
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lines[k]
	switch {
	case l == nil:
		if r.lines == nil {
			r.lines = make(map[rejection]*rejectionLine)
		}
		r.lines[k] = &rejectionLine{last: now}
		return true, 0
	case now.Sub(l.last) < pause:
		l.leftOut++
		return false, 0
	}
	leftOut = l.leftOut
	*l = rejectionLine{last: now}
	return true, leftOut
}

// tellForeign logs which fields of a record the cookie does not own, each once: another version of the program has
// stored them, as in a rolling deployment or before a rollback, or another program has.
func (s *Session) tellForeign(c *cookie, fields []string) {
	if names := s.m.foreign.add(c.index, fields); len(names) > 0 {
		s.warn("sessplus: a session holds fields that its cookie does not own; they read as absent, and its next save removes them",
			"cookie", c.CookieName, "fields", names)
	}
}

// namesTold remembers which fields were logged. It is safe for concurrent use.
type namesTold struct {
	mu    sync.Mutex
	names map[nameTold]bool
}

type nameTold struct {
	cookie int
	name   string
}

// maxNamesTold is how many names are remembered. Further ones are not logged.
const maxNamesTold = 1000

// add returns those of the names that are new.
func (t *namesTold) add(cookie int, names []string) (fresh []string) {
	if len(names) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		if len(t.names) >= maxNamesTold {
			break
		}
		if len(name) > maxFieldName { // in a record that something else has written
			name = name[:maxFieldName]
		}
		if !t.names[nameTold{cookie, name}] {
			if t.names == nil {
				t.names = make(map[nameTold]bool)
			}
			name = strings.Clone(name) // or it would keep the whole record in memory
			t.names[nameTold{cookie, name}] = true
			fresh = append(fresh, name)
		}
	}
	return fresh
}
