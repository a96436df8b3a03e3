package sessplus

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// A writer stands between the handler and the response, to commit the session before the headers go. wrap gives it the
// optional interfaces of the writer below.
type writer struct {
	http.ResponseWriter // the one below
	s                   *Session
	r                   *http.Request

	mu        sync.Mutex // guards what follows; held by the first commit, so that another goroutine's Write waits for it
	committed bool
	rejected  bool  // the status is 500 or more: nothing is saved
	err       error // the commit failed, and the ErrorHandler has answered
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// commit is called before the response's headers go, with their status. An error means that the response has been given
// by the ErrorHandler.
func (w *writer) commit(status int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.committed {
		return w.err
	}
	w.committed = true
	if status >= http.StatusInternalServerError {
		w.rejected = true
		w.s.passBy()
		return nil
	}
	if fatal, _ := w.s.commit(true, false); fatal != nil {
		w.err = fatal
		w.s.m.onError(w.ResponseWriter, w.r, fatal)
	}
	return w.err
}

// WriteHeader commits before every status that ends the headers; 1xx responses except 101 do not (RFC 9110 section 15.2).
func (w *writer) WriteHeader(status int) {
	final := status >= 200 && status <= 999 || status == http.StatusSwitchingProtocols
	if final && w.commit(status) != nil {
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(b)
}

// FlushError is what [http.ResponseController] looks for first. It is always there: without it the controller would
// unwrap this writer, and flush headers that lack the cookies.
func (w *writer) FlushError() error {
	if !reaches[http.Flusher](w.ResponseWriter) && !reaches[interface{ FlushError() error }](w.ResponseWriter) {
		return fmt.Errorf("sessplus: Flush: %w", http.ErrNotSupported)
	}
	if err := w.commit(http.StatusOK); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// The optional interfaces. Each is a type of its own, so that wrap can combine exactly those of the writer below.
type (
	flusher      struct{ w *writer }
	hijacker     struct{ w *writer }
	pusher       struct{ http.Pusher }
	readerFrom   struct{ w *writer }
	stringWriter struct{ w *writer }
)

func (f flusher) Flush() {
	if f.w.commit(http.StatusOK) == nil {
		f.w.ResponseWriter.(http.Flusher).Flush()
	}
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := h.w.commit(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	// The controller also finds the Hijacker of a writer further down, which it would otherwise do past this one.
	return http.NewResponseController(h.w.ResponseWriter).Hijack()
}

func (r readerFrom) ReadFrom(src io.Reader) (int64, error) {
	if err := r.w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return r.w.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
}

func (s stringWriter) WriteString(text string) (int, error) {
	if err := s.w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return s.w.ResponseWriter.(io.StringWriter).WriteString(text)
}

// reaches reports whether a [http.ResponseController] finds a T in w.
func reaches[T any](w http.ResponseWriter) bool {
	for {
		if _, ok := w.(T); ok {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}

// wrap gives w the optional interfaces that the writer below has, and no others: a library that finds one relies on it.
func wrap(w *writer) http.ResponseWriter {
	const (
		fl = 1 << iota
		hi
		pu
		rf
		sw
	)
	has := 0
	if _, ok := w.ResponseWriter.(http.Flusher); ok {
		has |= fl
	}
	if reaches[http.Hijacker](w.ResponseWriter) {
		has |= hi
	}
	p, ok := w.ResponseWriter.(http.Pusher)
	if ok {
		has |= pu
	}
	if _, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		has |= rf
	}
	if _, ok := w.ResponseWriter.(io.StringWriter); ok {
		has |= sw
	}
	var (
		f = flusher{w}
		h = hijacker{w}
		u = pusher{p}
		r = readerFrom{w}
		s = stringWriter{w}
	)
	switch has {
	case fl:
		return struct {
			*writer
			flusher
		}{w, f}
	case hi:
		return struct {
			*writer
			hijacker
		}{w, h}
	case fl | hi:
		return struct {
			*writer
			flusher
			hijacker
		}{w, f, h}
	case pu:
		return struct {
			*writer
			pusher
		}{w, u}
	case fl | pu:
		return struct {
			*writer
			flusher
			pusher
		}{w, f, u}
	case hi | pu:
		return struct {
			*writer
			hijacker
			pusher
		}{w, h, u}
	case fl | hi | pu:
		return struct {
			*writer
			flusher
			hijacker
			pusher
		}{w, f, h, u}
	case rf:
		return struct {
			*writer
			readerFrom
		}{w, r}
	case fl | rf:
		return struct {
			*writer
			flusher
			readerFrom
		}{w, f, r}
	case hi | rf:
		return struct {
			*writer
			hijacker
			readerFrom
		}{w, h, r}
	case fl | hi | rf:
		return struct {
			*writer
			flusher
			hijacker
			readerFrom
		}{w, f, h, r}
	case pu | rf:
		return struct {
			*writer
			pusher
			readerFrom
		}{w, u, r}
	case fl | pu | rf:
		return struct {
			*writer
			flusher
			pusher
			readerFrom
		}{w, f, u, r}
	case hi | pu | rf:
		return struct {
			*writer
			hijacker
			pusher
			readerFrom
		}{w, h, u, r}
	case fl | hi | pu | rf:
		return struct {
			*writer
			flusher
			hijacker
			pusher
			readerFrom
		}{w, f, h, u, r}
	case sw:
		return struct {
			*writer
			stringWriter
		}{w, s}
	case fl | sw:
		return struct {
			*writer
			flusher
			stringWriter
		}{w, f, s}
	case hi | sw:
		return struct {
			*writer
			hijacker
			stringWriter
		}{w, h, s}
	case fl | hi | sw:
		return struct {
			*writer
			flusher
			hijacker
			stringWriter
		}{w, f, h, s}
	case pu | sw:
		return struct {
			*writer
			pusher
			stringWriter
		}{w, u, s}
	case fl | pu | sw:
		return struct {
			*writer
			flusher
			pusher
			stringWriter
		}{w, f, u, s}
	case hi | pu | sw:
		return struct {
			*writer
			hijacker
			pusher
			stringWriter
		}{w, h, u, s}
	case fl | hi | pu | sw:
		return struct {
			*writer
			flusher
			hijacker
			pusher
			stringWriter
		}{w, f, h, u, s}
	case rf | sw:
		return struct {
			*writer
			readerFrom
			stringWriter
		}{w, r, s}
	case fl | rf | sw:
		return struct {
			*writer
			flusher
			readerFrom
			stringWriter
		}{w, f, r, s}
	case hi | rf | sw:
		return struct {
			*writer
			hijacker
			readerFrom
			stringWriter
		}{w, h, r, s}
	case fl | hi | rf | sw:
		return struct {
			*writer
			flusher
			hijacker
			readerFrom
			stringWriter
		}{w, f, h, r, s}
	case pu | rf | sw:
		return struct {
			*writer
			pusher
			readerFrom
			stringWriter
		}{w, u, r, s}
	case fl | pu | rf | sw:
		return struct {
			*writer
			flusher
			pusher
			readerFrom
			stringWriter
		}{w, f, u, r, s}
	case hi | pu | rf | sw:
		return struct {
			*writer
			hijacker
			pusher
			readerFrom
			stringWriter
		}{w, h, u, r, s}
	case fl | hi | pu | rf | sw:
		return struct {
			*writer
			flusher
			hijacker
			pusher
			readerFrom
			stringWriter
		}{w, f, h, u, r, s}
	default:
		return w
	}
}
