package sessplus_test

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// The optional interfaces of a response writer.
var optionalInterfaces = []reflect.Type{
	reflect.TypeFor[http.Flusher](), reflect.TypeFor[http.Hijacker](), reflect.TypeFor[http.Pusher](),
	reflect.TypeFor[io.ReaderFrom](), reflect.TypeFor[io.StringWriter](),
}

// interfacesOf is the set of optional interfaces that w has.
func interfacesOf(w http.ResponseWriter) (has int) {
	for i, t := range optionalInterfaces {
		if reflect.TypeOf(w).Implements(t) {
			has |= 1 << i
		}
	}
	return has
}

// A callLog has every optional interface, and passes the calls on to a real response writer. It notes each with
// whether the session's cookie was in the header by then.
type callLog struct {
	http.ResponseWriter
	calls []string
	read  io.Reader // what ReadFrom was given
}

func (x *callLog) note(call string) {
	if x.Header().Get("Set-Cookie") == "" {
		call += " without a cookie"
	}
	x.calls = append(x.calls, call)
}

func (x *callLog) Flush() {
	x.note("Flush")
	x.ResponseWriter.(http.Flusher).Flush()
}

func (x *callLog) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	x.note("Hijack")
	return x.ResponseWriter.(http.Hijacker).Hijack()
}

func (x *callLog) Push(string, *http.PushOptions) error {
	x.calls = append(x.calls, "Push")
	return http.ErrNotSupported
}

func (x *callLog) ReadFrom(src io.Reader) (int64, error) {
	x.note("ReadFrom")
	x.read = src
	return x.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
}

func (x *callLog) WriteString(s string) (int, error) {
	x.note("WriteString")
	return x.ResponseWriter.(io.StringWriter).WriteString(s)
}

// writersBelow returns w with each combination of the optional interfaces: bit i stands for optionalInterfaces[i]. x
// has them all.
func writersBelow(w http.ResponseWriter, x *callLog) []http.ResponseWriter {
	return []http.ResponseWriter{
		struct{ http.ResponseWriter }{w},
		struct {
			http.ResponseWriter
			http.Flusher
		}{w, x},
		struct {
			http.ResponseWriter
			http.Hijacker
		}{w, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Pusher
		}{w, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Pusher
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Hijacker
			http.Pusher
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			http.Pusher
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			io.ReaderFrom
		}{w, x},
		struct {
			http.ResponseWriter
			http.Flusher
			io.ReaderFrom
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Hijacker
			io.ReaderFrom
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			io.ReaderFrom
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Pusher
			io.ReaderFrom
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Pusher
			io.ReaderFrom
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Hijacker
			http.Pusher
			io.ReaderFrom
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			http.Pusher
			io.ReaderFrom
		}{w, x, x, x, x},
		struct {
			http.ResponseWriter
			io.StringWriter
		}{w, x},
		struct {
			http.ResponseWriter
			http.Flusher
			io.StringWriter
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Hijacker
			io.StringWriter
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			io.StringWriter
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Pusher
			io.StringWriter
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Pusher
			io.StringWriter
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Hijacker
			http.Pusher
			io.StringWriter
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			http.Pusher
			io.StringWriter
		}{w, x, x, x, x},
		struct {
			http.ResponseWriter
			io.ReaderFrom
			io.StringWriter
		}{w, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			io.ReaderFrom
			io.StringWriter
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Hijacker
			io.ReaderFrom
			io.StringWriter
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			io.ReaderFrom
			io.StringWriter
		}{w, x, x, x, x},
		struct {
			http.ResponseWriter
			http.Pusher
			io.ReaderFrom
			io.StringWriter
		}{w, x, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Pusher
			io.ReaderFrom
			io.StringWriter
		}{w, x, x, x, x},
		struct {
			http.ResponseWriter
			http.Hijacker
			http.Pusher
			io.ReaderFrom
			io.StringWriter
		}{w, x, x, x, x},
		struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			http.Pusher
			io.ReaderFrom
			io.StringWriter
		}{w, x, x, x, x, x},
	}
}

// useInterface calls the optional method with that number.
func useInterface(w http.ResponseWriter, i int) string {
	switch i {
	case 0:
		w.(http.Flusher).Flush()
		return "Flush"
	case 1:
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			writeRaw(w, conn, "200 OK")
		}
		return "Hijack"
	case 2:
		w.(http.Pusher).Push("/style.css", nil)
		return "Push"
	case 3:
		w.(io.ReaderFrom).ReadFrom(plainReader{strings.NewReader("x")})
		return "ReadFrom"
	default:
		w.(io.StringWriter).WriteString("x")
		return "WriteString"
	}
}

// SPEC 5.2, 5.1
func TestWriterHasTheInterfacesOfTheOneBelow(t *testing.T) {
	t.Parallel()
	m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()})
	var below http.ResponseWriter
	var x *callLog
	want := 0
	s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x = &callLog{ResponseWriter: w}
			below = writersBelow(w, x)[want]
			m.Handler(h).ServeHTTP(below, r)
		})
	})
	for want = range 1 << len(optionalInterfaces) {
		if got := interfacesOf(writersBelow(nil, nil)[want]); got != want {
			t.Fatalf("base %05b has %05b", want, got)
		}
		for i := range optionalInterfaces {
			done := make(chan bool, 1)
			res := s.visitAs(s.visitor(), func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				if got := interfacesOf(w); got != want {
					t.Errorf("the writer above one with %05b has %05b of Flusher, Hijacker, Pusher, ReaderFrom, StringWriter (from the right)", want, got)
				}
				if got := w.(interface{ Unwrap() http.ResponseWriter }).Unwrap(); got != below {
					t.Errorf("Unwrap() = %T, want the writer below", got)
				}
				if interfacesOf(w)&want>>i&1 == 0 {
					return
				}
				sessplus.Get(r).Set("n", 1)
				if call := useInterface(w, i); !slices.Equal(x.calls, []string{call}) {
					t.Errorf("calls below = %q, want %s", x.calls, call)
				}
			})
			<-done
			if want>>i&1 == 1 && len(res.setCookies("sid")) != 1 {
				t.Errorf("%05b, %v: Set-Cookie = %q, want one", want, optionalInterfaces[i], res.Header.Values("Set-Cookie"))
			}
		}
	}
}

// SPEC 5.2
func TestWriterIsLikeTheServersOwn(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		outer := newManager(t, nil, sessplus.Config{CookieName: "outer"})
		m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()})
		var own int
		s := newSiteOn(t, proto, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				own = interfacesOf(w)
				outer.Handler(m.Handler(h)).ServeHTTP(w, r)
			})
		})
		ended := make(chan struct{})
		s.post(func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			if got := interfacesOf(w); got != own {
				t.Errorf("%s: interfaces %05b, want %05b as without sessplus", proto, got, own)
			}
			sessplus.Get(r).Set("n", 1)
			rc := http.NewResponseController(w)
			if err := rc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Errorf("%s: SetReadDeadline: %v", proto, err)
			}
			if err := rc.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Errorf("%s: SetWriteDeadline: %v", proto, err)
			}
			if err := rc.EnableFullDuplex(); err != nil {
				t.Errorf("%s: EnableFullDuplex: %v", proto, err)
			}
			if p, ok := w.(http.Pusher); ok {
				if err := p.Push("/style.css", nil); err == nil {
					t.Errorf("%s: Push to a client that takes none succeeds", proto)
				}
			}
			if got := w.Header().Values("Set-Cookie"); len(got) > 0 {
				t.Errorf("%s: committed by one of these: %q", proto, got)
			}
			rc.SetWriteDeadline(time.Now().Add(-time.Second))
			w.Write(make([]byte, 1<<16))
			if err := rc.Flush(); err == nil {
				t.Errorf("%s: Flush after the write deadline succeeds", proto)
			}
		})
		<-ended
	}
}

// unwrapOnly hides everything but Unwrap.
type unwrapOnly struct{ w http.ResponseWriter }

func (u unwrapOnly) Header() http.Header         { return u.w.Header() }
func (u unwrapOnly) Write(b []byte) (int, error) { return u.w.Write(b) }
func (u unwrapOnly) WriteHeader(status int)      { u.w.WriteHeader(status) }
func (u unwrapOnly) Unwrap() http.ResponseWriter { return u.w }

// SPEC 5.1, 5.2: the controller looks for the method past the writers that lack it.
func TestControllerCommitsAboveAWriterWithUnwrapOnly(t *testing.T) {
	t.Parallel()
	for _, p := range commitPoints(t) {
		if !strings.HasPrefix(p.name, "ResponseController") {
			continue
		}
		m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()})
		s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.Handler(h).ServeHTTP(unwrapOnly{w}, r) })
		})
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			if _, ok := w.(http.Flusher); ok {
				t.Errorf("%s: a Flusher, although the writer below is none", p.name)
			}
			sessplus.Get(r).Set("n", 1)
			if err := p.answer(w, r); err != nil {
				t.Errorf("%s = %v", p.name, err)
			}
		})
		if len(res.setCookies("sid")) != 1 {
			t.Errorf("%s: Set-Cookie = %q, want one", p.name, res.setCookies("sid"))
		}
	}
}

// SPEC 5.2, 5.1: what cannot be done commits nothing.
func TestControllerOfAWriterThatCannot(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b})
	s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.Handler(h).ServeHTTP(struct{ http.ResponseWriter }{w}, r)
		})
	})
	s.visit(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("n", 1)
		rc := http.NewResponseController(w)
		_, _, err := rc.Hijack()
		for call, err := range map[string]error{"Flush": rc.Flush(), "Hijack": err, "SetReadDeadline": rc.SetReadDeadline(time.Now())} {
			if !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("%s = %v, want ErrNotSupported", call, err)
			}
		}
		if got := b.ops(); len(got) > 0 {
			t.Errorf("calls of the backend = %q, want none", got)
		}
	})
}

// SPEC 5.2
func TestSendfileSeesTheFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file.bin")
	content := strings.Repeat("0123456789abcdef", 1<<14)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()})
	var x *callLog
	s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x = &callLog{ResponseWriter: w}
			m.Handler(h).ServeHTTP(x, r)
		})
	})
	res := s.visit(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("n", 1)
		f, err := os.Open(name)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		if _, err := io.Copy(w, f); err != nil {
			t.Errorf("io.Copy: %v", err)
		}
		// What package net wants to see for sendfile: os.File hides only its WriteTo.
		if _, ok := x.read.(interface {
			fs.File
			io.Seeker
			syscall.Conn
		}); !ok {
			t.Errorf("ReadFrom below was given a %T, want the file", x.read)
		}
	})
	if res.body != content || len(res.setCookies("sid")) != 1 {
		t.Errorf("%d bytes and %d cookies, want %d and 1", len(res.body), len(res.setCookies("sid")), len(content))
	}
}

// SPEC 5.2, 5.5
func TestUpgradedConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}))
	s.do <- func(w http.ResponseWriter, r *http.Request) {
		sess := sessplus.Get(r)
		sess.Set("opened", true)
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "shout")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("Hijack: %v", err)
			return
		}
		defer conn.Close()
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			sess.Set("last", strings.TrimSpace(line))
			if err := sess.Save(); err != nil {
				t.Errorf("Save: %v", err)
			}
			rw.WriteString(strings.ToUpper(line))
			rw.Flush()
		}
	}
	req, _ := http.NewRequest("GET", s.URL, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "shout")
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 101 || len((&reply{res, ""}).setCookies("sid")) != 1 {
		t.Fatalf("status %d, Set-Cookie %q, want 101 and one", res.StatusCode, res.Header.Values("Set-Cookie"))
	}
	conn := res.Body.(io.ReadWriter)
	lines := bufio.NewReader(conn)
	for _, word := range []string{"one", "two"} {
		fmt.Fprintln(conn, word)
		if got, err := lines.ReadString('\n'); got != strings.ToUpper(word)+"\n" {
			t.Fatalf("answer = %q, %v, want %s", got, err, strings.ToUpper(word))
		}
		s.with(func(s *sessplus.Session) {
			if got := s.GetString("last"); got != word || !s.GetBool("opened") {
				t.Errorf("last = %q while the connection is open, want %q", got, word)
			}
		})
	}
}

// SPEC 5.2, 5.5
func TestEventStream(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		s := newSiteOn(t, proto, newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()}).Handler)
		next := make(chan string)
		s.do <- func(w http.ResponseWriter, r *http.Request) {
			sess := sessplus.Get(r)
			sess.Set("n", 0)
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-store")
			for word := range next {
				fmt.Fprintf(w, "data: %s\n\n", word)
				sess.Set("n", word)
				if err := sess.Save(); err != nil {
					t.Errorf("Save: %v", err)
				}
				w.(http.Flusher).Flush()
			}
		}
		next0 := make(chan struct{})
		go func() {
			next <- "one"
			close(next0)
		}()
		res, err := s.client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		<-next0
		if len((&reply{res, ""}).setCookies("sid")) != 1 || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v, want a cookie and the handler's Cache-Control", proto, res.Header)
		}
		lines := bufio.NewReader(res.Body)
		for _, word := range []string{"one", "two", "three"} {
			if word != "one" {
				next <- word
			}
			if got, err := lines.ReadString('\n'); got != "data: "+word+"\n" {
				t.Fatalf("%s: line = %q, %v, want %s", proto, got, err, word)
			}
			lines.ReadString('\n')
			s.with(func(s *sessplus.Session) {
				if got := s.GetString("n"); got != word {
					t.Errorf("%s: n = %q while the stream is open, want %q", proto, got, word)
				}
			})
		}
		close(next)
		io.Copy(io.Discard, lines)
		res.Body.Close()
	}
}

// SPEC 5.4
func TestFailedSaveReplacesTheResponse(t *testing.T) {
	t.Parallel()
	points := append(commitPoints(t), commitPoint{"return", false, func(http.ResponseWriter, *http.Request) error { return nil }})
	for _, custom := range []bool{false, true} {
		for _, p := range points {
			t.Run(fmt.Sprintf("%s custom=%t", p.name, custom), func(t *testing.T) {
				b := &recorder{Backend: sessplus.Memory(), hook: downBut()}
				handled := 0
				logged := &errorLog{}
				opts := &sessplus.Options{Logger: slog.New(logged)}
				if custom {
					opts.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
						handled++
						if !errors.Is(err, sessplus.ErrUnavailable) {
							t.Errorf("the ErrorHandler got %v, want ErrUnavailable", err)
						}
						w.WriteHeader(http.StatusTeapot)
						io.WriteString(w, "a custom answer")
					}
				}
				m := newManager(t, opts,
					sessplus.Config{CookieName: "bad", Backend: b, Fields: sessplus.Include("bad")},
					sessplus.Config{CookieName: "good", Backend: sessplus.Memory(), Fields: sessplus.Include("good")},
					sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("sealed")})
				s := newSiteOn(t, "HTTP/1.1", m.Handler)
				res := s.visit(func(w http.ResponseWriter, r *http.Request) {
					sess := sessplus.Get(r)
					for _, name := range []string{"bad", "good", "sealed"} {
						sess.Set(name, 1)
					}
					for name, value := range map[string]string{
						"Content-Type": "image/png", "Content-Length": "7", "Content-Encoding": "gzip",
						"Cache-Control": "public, max-age=3600", "Etag": `"1"`, "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
					} {
						w.Header().Set(name, value)
					}
					if err := p.answer(w, r); err != nil && !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("%s = %v, want ErrUnavailable or none", p.name, err)
					}
					if p.name == "return" {
						return
					}
					n, err := w.Write([]byte("the handler"))
					if n != 0 || !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("Write = %d, %v, want 0, ErrUnavailable", n, err)
					}
					if _, err := io.WriteString(w, "the handler"); !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("io.WriteString = %v, want ErrUnavailable", err)
					}
					if _, err := io.Copy(w, plainReader{strings.NewReader("the handler")}); !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("io.Copy = %v, want ErrUnavailable", err)
					}
					if err := http.NewResponseController(w).Flush(); !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("Flush = %v, want ErrUnavailable", err)
					}
					if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, sessplus.ErrUnavailable) {
						t.Errorf("Hijack = %v, want ErrUnavailable", err)
					}
				})
				status := http.StatusServiceUnavailable
				if custom {
					status = http.StatusTeapot
				}
				if res.StatusCode != status || strings.Contains(res.body, "the handler") || res.body == "" {
					t.Errorf("answer = %d %q, want %d of the ErrorHandler", res.StatusCode, res.body, status)
				}
				if custom && (handled != 1 || res.body != "a custom answer") {
					t.Errorf("the ErrorHandler ran %d times, body %q, want once and its own", handled, res.body)
				}
				if !custom && !logged.has(sessplus.ErrUnavailable) {
					t.Error("nothing in the log, want ErrUnavailable")
				}
				if got := res.Header.Values("Set-Cookie"); len(got) > 0 {
					t.Errorf("Set-Cookie = %q, want none", got)
				}
				for name, not := range map[string]string{
					"Content-Type": "image/png", "Content-Encoding": "gzip", "Cache-Control": "public, max-age=3600", "Etag": `"1"`,
					"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
				} {
					if res.Header.Get(name) == not {
						t.Errorf("%s = %q is left over from the handler", name, not)
					}
				}
				if res.ContentLength >= 0 && res.ContentLength != int64(len(res.body)) {
					t.Errorf("Content-Length = %d, want %d", res.ContentLength, len(res.body))
				}
			})
		}
	}
}

// SPEC 5.4: middleware outside that compresses every response also compresses that of the ErrorHandler, which says so.
func TestErrorBehindCompression(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory(), hook: downBut()}
	m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b})
	s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as gorilla/handlers and others do
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			m.Handler(h).ServeHTTP(compressor{w, z}, r)
		})
	})
	for _, own := range []string{"", "br"} {
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sessplus.Get(r).Set("n", 1)
			if own != "" {
				w.Header().Set("Content-Encoding", own)
			}
			io.WriteString(w, "the handler")
		})
		if res.StatusCode != http.StatusServiceUnavailable || !res.Uncompressed || !strings.Contains(res.body, "temporarily") {
			t.Errorf("after an encoding of %q: %d %q, Content-Encoding %q", own, res.StatusCode, res.body, res.Header.Get("Content-Encoding"))
		}
	}
}

// A compressor compresses what is written.
type compressor struct {
	http.ResponseWriter
	io.Writer
}

func (c compressor) Write(b []byte) (int, error) { return c.Writer.Write(b) }

// SPEC 5.4, 5.8: the browser logs out although the server cannot (SPEC 6.2), and no cache keeps that answer.
func TestFailedDestroyIsNotCached(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	opts := &sessplus.Options{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(404) }}
	s := newSite(t, newManager(t, opts, sessplus.Config{CookieName: "sid", Backend: b}))
	s.with(func(s *sessplus.Session) { s.Set("n", 1) })
	b.setHook(downBut("load"))
	res := s.visit(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		sessplus.Get(r).Destroy()
	})
	if res.StatusCode != 404 || len(res.setCookies("sid")) != 1 {
		t.Fatalf("status %d, Set-Cookie = %q, want 404 and a deletion", res.StatusCode, res.setCookies("sid"))
	}
	if got := res.Header.Get("Cache-Control"); got != "private, no-cache" {
		t.Errorf("Cache-Control = %q, want private, no-cache", got)
	}
}

// SPEC 5.4, 4.2: what Save had put into the header goes, when the session turns out to have ended.
func TestEndedSessionTakesBackItsCookie(t *testing.T) {
	t.Parallel()
	for _, drop := range []bool{false, true} {
		m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory(), MaxAge: time.Hour, DropIfGone: drop})
		s := newSite(t, m)
		s.with(func(s *sessplus.Session) { s.Set("n", 1) })
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sess := sessplus.Get(r)
			sess.Set("n", 2)
			if err := sess.Save(); err != nil {
				t.Errorf("Save() = %v", err)
			}
			other, _ := http.NewRequest("GET", s.URL, nil)
			other.Header["Cookie"] = r.Header["Cookie"]
			s.send(&http.Client{}, other, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Renew() })
			sess.Set("n", 3)
		})
		want := http.StatusConflict
		if drop {
			want = http.StatusOK
		}
		if res.StatusCode != want {
			t.Errorf("DropIfGone=%t: status %d, want %d", drop, res.StatusCode, want)
		}
		if got := res.setCookies("sid"); len(got) > 0 {
			t.Errorf("DropIfGone=%t: %d Set-Cookie lines with the ended session's id, want none: they undo the login", drop, len(got))
		}
	}
}

// SPEC 5.4: a handler that aborts because its response cannot be written, as ReverseProxy does, leaves the visitor the
// one of the ErrorHandler. Other panics go on up (SPEC 5.6).
func TestAbortAfterAFailedSave(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "upstream") }))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	b := &recorder{Backend: sessplus.Memory(), hook: downBut()}
	var panics []any
	m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b})
	s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if p := recover(); p != nil {
					panics = append(panics, p)
				}
			}()
			m.Handler(h).ServeHTTP(w, r)
		})
	})
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	for _, then := range []any{nil, "a mistake"} {
		panics = nil
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			sessplus.Get(r).Set("n", 1)
			if then != nil {
				io.WriteString(w, "text")
				panic(then)
			}
			proxy.ServeHTTP(w, r)
		})
		if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(res.body, "temporarily") {
			t.Errorf("the answer is %d %q, want that of the ErrorHandler", res.StatusCode, res.body)
		}
		if want := len(panics) == 1 && panics[0] == then; then != nil && !want || then == nil && len(panics) > 0 {
			t.Errorf("panics %v, want %v", panics, then)
		}
	}
}
