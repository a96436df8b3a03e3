package sessplus

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// A writer stands between the handler and the response, to commit the session before the headers are sent. wrap gives
// it the optional interfaces of the underlying writer.
type writer struct {
	s *Session
	r *http.Request

	mu        sync.Mutex // guards err to taken; the first commit holds it, so that concurrent Writes wait
	err       error      // the commit failed, and the ErrorHandler has answered
	committed bool
	rejected  bool // the status is 500 or more: nothing is saved
	taken     bool // the connection was taken over before the response, which is not logged yet

	answers bool        // the response is that of an ErrorHandler: nothing more is saved
	asked   atomic.Bool // for the header
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.s.w }

func (w *writer) Header() http.Header {
	if !w.asked.Load() { // other goroutines may be reading it
		w.asked.Store(true)
	}
	return w.s.w.Header()
}

// commit is called before the response's headers are sent, with their status. An error means that the ErrorHandler has
// answered.
func (w *writer) commit(status int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.committed {
		return w.err
	}
	w.committed = true
	if w.answers {
		w.s.answerInstead()
		return nil
	}
	if status >= http.StatusInternalServerError {
		w.rejected = true
		w.s.passBy()
		return nil
	}
	if status == http.StatusSwitchingProtocols {
		w.s.noPage()
	}
	w.committed = false // if it panics, what the handler then answers is committed again
	fatal, _ := w.s.commit(true, false)
	w.committed = true
	if fatal != nil {
		w.err = fatal
		w.s.answerError(w.r, fatal)
	}
	return w.err
}

// failed reports whether the ErrorHandler has answered instead of the handler.
func (w *writer) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil
}

// noPage notes that the response upgrades the connection, which no cache keeps.
func (s *Session) noPage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
}

// answerError calls the ErrorHandler.
func (s *Session) answerError(r *http.Request, err error) {
	w := &writer{s: s, r: r, answers: true}
	s.m.onError(wrap(w), r, err)
	w.commit(http.StatusOK)
}

// WriteHeader commits before every status that ends the headers; 1xx responses except 101 do not (RFC 9110 section
// 15.2).
func (w *writer) WriteHeader(status int) {
	final := status >= 200 && status <= 999 || status == http.StatusSwitchingProtocols
	if final && w.commit(status) != nil {
		return
	}
	w.s.w.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return w.s.w.Write(b)
}

// FlushError is what [http.ResponseController] looks for first. It must always exist: otherwise the controller would
// unwrap this writer, and flush headers that lack the cookies.
func (w *writer) FlushError() error {
	if !reaches[http.Flusher](w.s.w) && !reaches[interface{ FlushError() error }](w.s.w) {
		return fmt.Errorf("sessplus: Flush: %w", http.ErrNotSupported)
	}
	if err := w.commit(http.StatusOK); err != nil {
		return err
	}
	return http.NewResponseController(w.s.w).Flush()
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

// What the optional interfaces of a writer do.

func (w *writer) flush() {
	if w.commit(http.StatusOK) == nil {
		w.s.w.(http.Flusher).Flush()
	}
}

func (w *writer) hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.mu.Lock()
	begun := w.committed
	w.mu.Unlock()
	if err := w.commit(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	// The controller also finds the Hijacker of a writer further down, which it would otherwise do past this one.
	conn, rw, err := http.NewResponseController(w.s.w).Hijack()
	if err == nil && !begun && w.s.cookiesToSend() != "" {
		if w.s.m.takenOver.Swap(true) {
			w.mu.Lock()
			w.taken = true
			w.mu.Unlock()
		} else {
			w.s.takenOver()
		}
	}
	return conn, rw, err
}

// takenOver warns of a connection that the program took over when the session's cookies were ready to be sent, which
// now only the program can do. Whether it does is unknown, and one warning is enough to have that checked. But it does
// not if it has never asked for the header when the handler returns: then there is one for each response.
func (s *Session) takenOver() {
	s.warn("sessplus: a connection was taken over before the Set-Cookie of a session was sent, which never reaches the visitor unless "+
		"the program writes it; check that it answers with w.Header(), as in Upgrade(w, r, w.Header()) of gorilla/websocket",
		"cookies", s.cookiesToSend())
}

// wasted reports whether a connection was taken over, and the header never asked for.
func (w *writer) wasted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken && !w.asked.Load()
}

// begunBefore warns, once, of a response that bypassed this writer, and began with the headers as they were: gin's
// Context has a writer of its own.
func (s *Session) begunBefore() {
	if b, ok := s.w.(interface{ Written() bool }); ok && b.Written() && !s.m.begunBefore.Swap(true) {
		s.warn("sessplus: a response had begun before its session was saved, so its Set-Cookie never reaches the visitor; write to the "+
			"ResponseWriter that Manager.Handler passes on (for gin use ginsessplus), or after Manager.Load call Save first",
			"cookies", s.cookiesToSend())
	}
}

// cookiesToSend names the cookies of the Set-Cookie lines that are kept for the response.
func (s *Session) cookiesToSend() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for i := range s.parts {
		if len(s.parts[i].lines) > 0 {
			names = append(names, s.parts[i].CookieName)
		}
	}
	return strings.Join(names, ", ")
}

func (w *writer) push(target string, opts *http.PushOptions) error {
	return w.s.w.(http.Pusher).Push(target, opts)
}

func (w *writer) readFrom(src io.Reader) (int64, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return w.s.w.(io.ReaderFrom).ReadFrom(src)
}

func (w *writer) writeString(text string) (int, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return w.s.w.(io.StringWriter).WriteString(text)
}

// wrap gives w the optional interfaces of the underlying writer, and no others, because a library that finds one relies
// on it.
func wrap(w *writer) http.ResponseWriter {
	has := 0
	if _, ok := w.s.w.(http.Flusher); ok {
		has |= 1
	}
	if reaches[http.Hijacker](w.s.w) {
		has |= 2
	}
	if _, ok := w.s.w.(http.Pusher); ok {
		has |= 4
	}
	if _, ok := w.s.w.(io.ReaderFrom); ok {
		has |= 8
	}
	if _, ok := w.s.w.(io.StringWriter); ok {
		has |= 16
	}
	return wraps[has](w)
}

// The 32 sets of optional interfaces, by the bits of wrap. Each type is the one without its highest bit and a method
// more. They contain only the pointer to the writer, so creating one allocates nothing.
type (
	w0  struct{ *writer }
	w1  struct{ w0 }
	w2  struct{ w0 }
	w3  struct{ w1 }
	w4  struct{ w0 }
	w5  struct{ w1 }
	w6  struct{ w2 }
	w7  struct{ w3 }
	w8  struct{ w0 }
	w9  struct{ w1 }
	w10 struct{ w2 }
	w11 struct{ w3 }
	w12 struct{ w4 }
	w13 struct{ w5 }
	w14 struct{ w6 }
	w15 struct{ w7 }
	w16 struct{ w0 }
	w17 struct{ w1 }
	w18 struct{ w2 }
	w19 struct{ w3 }
	w20 struct{ w4 }
	w21 struct{ w5 }
	w22 struct{ w6 }
	w23 struct{ w7 }
	w24 struct{ w8 }
	w25 struct{ w9 }
	w26 struct{ w10 }
	w27 struct{ w11 }
	w28 struct{ w12 }
	w29 struct{ w13 }
	w30 struct{ w14 }
	w31 struct{ w15 }
)

func (w w1) Flush()                                           { w.flush() }
func (w w2) Hijack() (net.Conn, *bufio.ReadWriter, error)     { return w.hijack() }
func (w w3) Hijack() (net.Conn, *bufio.ReadWriter, error)     { return w.hijack() }
func (w w4) Push(target string, opts *http.PushOptions) error { return w.push(target, opts) }
func (w w5) Push(target string, opts *http.PushOptions) error { return w.push(target, opts) }
func (w w6) Push(target string, opts *http.PushOptions) error { return w.push(target, opts) }
func (w w7) Push(target string, opts *http.PushOptions) error { return w.push(target, opts) }
func (w w8) ReadFrom(src io.Reader) (int64, error)            { return w.readFrom(src) }
func (w w9) ReadFrom(src io.Reader) (int64, error)            { return w.readFrom(src) }
func (w w10) ReadFrom(src io.Reader) (int64, error)           { return w.readFrom(src) }
func (w w11) ReadFrom(src io.Reader) (int64, error)           { return w.readFrom(src) }
func (w w12) ReadFrom(src io.Reader) (int64, error)           { return w.readFrom(src) }
func (w w13) ReadFrom(src io.Reader) (int64, error)           { return w.readFrom(src) }
func (w w14) ReadFrom(src io.Reader) (int64, error)           { return w.readFrom(src) }
func (w w15) ReadFrom(src io.Reader) (int64, error)           { return w.readFrom(src) }
func (w w16) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w17) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w18) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w19) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w20) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w21) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w22) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w23) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w24) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w25) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w26) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w27) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w28) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w29) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w30) WriteString(text string) (int, error)            { return w.writeString(text) }
func (w w31) WriteString(text string) (int, error)            { return w.writeString(text) }

// wraps makes the type with those bits.
var wraps = [...]func(w *writer) http.ResponseWriter{
	func(w *writer) http.ResponseWriter { return w0{w} },
	func(w *writer) http.ResponseWriter { return w1{w0{w}} },
	func(w *writer) http.ResponseWriter { return w2{w0{w}} },
	func(w *writer) http.ResponseWriter { return w3{w1{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w4{w0{w}} },
	func(w *writer) http.ResponseWriter { return w5{w1{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w6{w2{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w7{w3{w1{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w8{w0{w}} },
	func(w *writer) http.ResponseWriter { return w9{w1{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w10{w2{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w11{w3{w1{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w12{w4{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w13{w5{w1{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w14{w6{w2{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w15{w7{w3{w1{w0{w}}}}} },
	func(w *writer) http.ResponseWriter { return w16{w0{w}} },
	func(w *writer) http.ResponseWriter { return w17{w1{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w18{w2{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w19{w3{w1{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w20{w4{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w21{w5{w1{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w22{w6{w2{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w23{w7{w3{w1{w0{w}}}}} },
	func(w *writer) http.ResponseWriter { return w24{w8{w0{w}}} },
	func(w *writer) http.ResponseWriter { return w25{w9{w1{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w26{w10{w2{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w27{w11{w3{w1{w0{w}}}}} },
	func(w *writer) http.ResponseWriter { return w28{w12{w4{w0{w}}}} },
	func(w *writer) http.ResponseWriter { return w29{w13{w5{w1{w0{w}}}}} },
	func(w *writer) http.ResponseWriter { return w30{w14{w6{w2{w0{w}}}}} },
	func(w *writer) http.ResponseWriter { return w31{w15{w7{w3{w1{w0{w}}}}}} },
}
