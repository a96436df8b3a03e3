package sessplus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sessplus/sessplus/internal/inspection"
)

// Handler is the middleware. It loads the sessions of a request, calls next with a request whose context holds them,
// and commits them before the response headers are sent. If they cannot be loaded, [Options.ErrorHandler] answers and
// next is not called. A Manager that is in the chain twice acts once; different Managers nest.
//
// Nothing is saved if next panics or responds with a status of 500 or more. If a save fails before the headers have
// been sent, the ErrorHandler answers, and what next writes is discarded.
//
// The response to a request that read or changed a session has the header Vary: Cookie. If it sets a session cookie, it
// also has Cache-Control: private, no-cache, unless next has set Cache-Control itself; then only public and s-maxage
// are replaced, by private.
//
// A response that upgrades the connection needs the Set-Cookie headers, too. WriteHeader(101) sends them. A library
// that hijacks the connection and writes a response of its own must be given the header, as in Upgrade(w, r,
// w.Header()) of gorilla/websocket. If it may have been forgotten, a warning is logged.
func (m *Manager) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.serveDevice(w, r) {
			return
		}
		outer, _ := FromContext(r.Context())
		s, inner := outer.of(m), r
		var sw *writer
		switch {
		case s == nil:
			q := newRequest(len(m.cookies))
			s, sw = &q.ctx.s, &q.writer
			s.start(m, w, r)
			inner = r.WithContext(&q.ctx)
		case s.adopt(w):
			sw = new(writer)
		default:
			next.ServeHTTP(w, r)
			return
		}
		sw.s, sw.r = s, inner
		s.encoding = w.Header().Get("Content-Encoding")
		panicked := true
		defer func() {
			handBack(r, inner)
			if !panicked {
				return
			}
			s.passBy()
			if sw.failed() { // ReverseProxy aborts then, and would cut off what the ErrorHandler has written
				if p := recover(); p != nil && p != http.ErrAbortHandler {
					panic(p)
				}
			}
		}()
		if s.refused = s.loadEager(); s.refused != nil {
			s.answerError(inner, s.refused)
			panicked = false
			return
		}
		if s.reloadForProof(w, r) {
			panicked = false
			return
		}
		next.ServeHTTP(wrap(sw), inner)
		panicked = false
		sw.commit(http.StatusOK)
		if sw.wasted() {
			s.takenOver()
		}
		if s.over() && sw.err == nil && !sw.rejected {
			s.commit(true, false) // what was changed after the headers
		}
	})
}

// Load returns the session of a request, for code that Handler cannot wrap: a framework with its own request type, an
// upgraded connection, a test. It also returns r with the session in its context, for [Get]. If r has passed through
// Handler, Load returns the session that r has.
//
// Nothing is saved before [Session.Save], which is the commit in this case and writes the cookies to w.Header(). Call
// it once, after the last change and before the response begins, even in a request that only reads, which otherwise
// does not count as a use for IdleTimeout. After that, the session behaves as it does behind Handler after the headers.
// A nil w means that the response has already begun. A Save that fails has saved nothing, and may be repeated.
//
// The error matches [ErrUnavailable] if a backend does not answer. The session is then nil, and the request must not be
// served as that of an anonymous visitor. The ErrorHandler is not called for this error or for that of Save; respond
// yourself, usually with 503 for ErrUnavailable and 409 for [ErrSessionGone].
func (m *Manager) Load(w http.ResponseWriter, r *http.Request) (*Session, *http.Request, error) {
	outer, _ := FromContext(r.Context())
	if s := outer.of(m); s != nil {
		return s, r, nil
	}
	q := newRequest(len(m.cookies))
	s := &q.ctx.s
	s.start(m, w, r)
	s.alone, s.sent, s.open = new(written), w == nil, s.open && w != nil
	if err := s.loadEager(); err != nil {
		return nil, r, err
	}
	return s, r.WithContext(&q.ctx), nil
}

// adopt lets a Handler commit the session that [Manager.Load] has returned to code outside it, unless that code has
// already saved it.
func (s *Session) adopt(w http.ResponseWriter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone == nil || s.sent {
		return false
	}
	s.alone, s.w = nil, w
	return true
}

// handBack copies what the router and the handler have put into their copy of the request back to the original:
// net/http removes the temporary files of only its own request, and outer middleware that logs or measures looks at the
// route and the form.
func handBack(r, inner *http.Request) {
	r.Pattern = inner.Pattern
	r.Form, r.PostForm, r.MultipartForm = inner.Form, inner.PostForm, inner.MultipartForm
}

// A request is what the middleware allocates for each request, at once.
type request struct {
	ctx     sessionContext
	session session
	writer  writer
}

func newRequest(parts int) *request {
	var q *request
	if parts == 1 {
		one := new(struct {
			request
			parts [1]part
		})
		q, one.session.parts = &one.request, one.parts[:]
	} else {
		q = new(request)
		q.session.parts = make([]part, parts)
	}
	q.ctx.s.session = &q.session
	return q
}

// A sessionContext is the context of the handler's request: the original one, and the session. Programs log contexts,
// and derived contexts print the String of their parent, so that reveals nothing.
type sessionContext struct {
	s Session
}

func (c *sessionContext) Deadline() (time.Time, bool) { return c.s.ctx.Deadline() }
func (c *sessionContext) Done() <-chan struct{}       { return c.s.ctx.Done() }
func (c *sessionContext) Err() error                  { return c.s.ctx.Err() }

func (c *sessionContext) Value(key any) any {
	if key == (contextKey{}) {
		return &c.s
	}
	if key == (inspection.Key{Session: &c.s}) {
		return inspector{&c.s}
	}
	return c.s.ctx.Value(key)
}

func (c *sessionContext) String() string { return "sessplus.Context" }

// Format implements [fmt.Formatter] for every verb.
func (c *sessionContext) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// uri is what the browser requested, "" outside a request.
func (s *Session) uri() string {
	switch {
	case s.request == nil:
		return ""
	case s.request.RequestURI == "": // not from a server
		return s.request.URL.Path
	}
	return s.request.RequestURI
}

// defaultErrorHandler answers in plain text that reveals nothing about the error, and logs it.
func (m *Manager) defaultErrorHandler(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusInternalServerError, "The request could not be completed."
	switch {
	case errors.Is(err, ErrUnavailable):
		status, text = http.StatusServiceUnavailable, "The service is temporarily unavailable. Please try again."
	case errors.Is(err, ErrSessionGone):
		status, text = http.StatusConflict, "Your session has ended. Please reload the page."
	}
	m.log.ErrorContext(r.Context(), "sessplus: a request failed", "status", status, "error", err)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, status)
}

type contextKey struct{}

// FromContext returns the session of the innermost [Manager] that the context's request has passed through, and whether
// there is one.
func FromContext(ctx context.Context) (*Session, bool) {
	s, ok := ctx.Value(contextKey{}).(*Session)
	return s, ok
}

// Get returns the session of the innermost [Manager] that the request has passed through. It panics if there is none:
// the handler is not behind [Manager.Handler], or something has replaced the request or its context.
func Get(r *http.Request) *Session {
	s, ok := FromContext(r.Context())
	if !ok {
		panic("sessplus: Get: the request did not pass through Manager.Handler; wrap the handler with it")
	}
	return s
}

// Get returns the session of this Manager, for programs that nest several. It panics if the request has not passed
// through its Handler.
func (m *Manager) Get(r *http.Request) *Session {
	s, _ := FromContext(r.Context())
	if s = s.of(m); s == nil {
		panic("sessplus: Manager.Get: the request did not pass through this Manager's Handler; wrap the handler with it")
	}
	return s
}

// of returns the session of m among s and the sessions of the Managers around it, or nil.
func (s *Session) of(m *Manager) *Session {
	for s != nil && s.m != m {
		s, _ = FromContext(s.ctx)
	}
	return s
}
