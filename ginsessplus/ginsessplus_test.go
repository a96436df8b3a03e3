package ginsessplus_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/ginsessplus"
)

func init() { gin.SetMode(gin.TestMode) }

// A backend whose loads and saves can be made to fail.
type backend struct {
	sessplus.Backend
	noLoad, noSave atomic.Bool
}

var errDown = errors.New("the backend is down")

func (b *backend) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	if b.noLoad.Load() {
		return nil, errDown
	}
	return b.Backend.Load(ctx, key)
}

func (b *backend) Create(ctx context.Context, key string, r *sessplus.Record) error {
	if b.noSave.Load() {
		return errDown
	}
	return b.Backend.Create(ctx, key, r)
}

func (b *backend) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	if b.noSave.Load() {
		return sessplus.Result{}, errDown
	}
	return b.Backend.Update(ctx, key, c)
}

// A logged is what was logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A site is a gin program on a real server, with one visitor.
type site struct {
	testing.TB
	*gin.Engine
	mgr     *sessplus.Manager
	backend *backend
	log     *logged
	server  *httptest.Server
	client  *http.Client
}

// newSite has the session of each path's handlers, and /n, which tells what it holds.
func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{TB: t, Engine: gin.New(), backend: &backend{Backend: sessplus.Memory()}, log: new(logged)}
	var err error
	s.mgr, err = sessplus.New([]sessplus.Config{{CookieName: "sid", Backend: s.backend}},
		&sessplus.Options{Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.GET("/n", ginsessplus.New(s.mgr), func(c *gin.Context) { c.String(http.StatusOK, "%d", sessplus.Get(c.Request).GetInt("n")) })
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

func (s *site) get(path string) (*http.Response, string) {
	s.Helper()
	res, err := s.client.Get(s.server.URL + path)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return res, string(body)
}

// visits makes a request that is answered so, and says what the session holds afterwards.
func (s *site) visits(path string, status int, body string) (n string) {
	s.Helper()
	res, got := s.get(path)
	if res.StatusCode != status || got != body {
		s.Errorf("GET %s is answered %d %q, want %d %q", path, res.StatusCode, got, status, body)
	}
	_, n = s.get("/n")
	return n
}

// set is what a handler does with the session before it answers.
func set(c *gin.Context) { sessplus.Get(c.Request).Set("n", 1) }

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer gin.HandlerFunc
		status int
		body   string
		saved  bool
	}{
		{"nothing", func(c *gin.Context) {}, 200, "", true},
		{"a status", func(c *gin.Context) { c.Status(201) }, 201, "", true},
		{"a status of 500", func(c *gin.Context) { c.Status(500) }, 500, "", false},
		{"two statuses", func(c *gin.Context) { c.Status(500); c.Status(202) }, 202, "", true},
		{"a string", func(c *gin.Context) { c.String(200, "a") }, 200, "a", true},
		{"a string with 503", func(c *gin.Context) { c.String(503, "a") }, 503, "a", false},
		{"JSON", func(c *gin.Context) { c.JSON(200, gin.H{"a": 1}) }, 200, `{"a":1}`, true},
		{"JSON with 500", func(c *gin.Context) { c.JSON(500, gin.H{"a": 1}) }, 500, `{"a":1}`, false},
		{"a template", func(c *gin.Context) { c.HTML(200, "page", "a") }, 200, "<p>a", true},
		{"a render without a body", func(c *gin.Context) { c.JSON(204, nil) }, 204, "", true},
		{"data from a reader", func(c *gin.Context) { c.DataFromReader(200, 3, "text/plain", strings.NewReader("abc"), nil) }, 200, "abc", true},
		{"a file", func(c *gin.Context) { c.File("testdata/file.txt") }, 200, "a file\n", true},
		{"a redirect", func(c *gin.Context) { c.Redirect(303, "/elsewhere") }, 303, "<a href=\"/elsewhere\">See Other</a>.\n\n", true},
		{"an abort", func(c *gin.Context) { c.AbortWithStatus(403) }, 403, "", true},
		{"an abort with 502", func(c *gin.Context) { c.AbortWithStatus(502) }, 502, "", false},
		{"an abort with JSON", func(c *gin.Context) { c.AbortWithStatusJSON(401, gin.H{}) }, 401, "{}", true},
		{"an abort with an error", func(c *gin.Context) { c.AbortWithError(500, errDown) }, 500, "", false},
		{"WriteHeaderNow", func(c *gin.Context) { c.Status(404); c.Writer.WriteHeaderNow() }, 404, "", true},
		{"io.WriteString", func(c *gin.Context) { io.WriteString(c.Writer, "a") }, 200, "a", true},
		{"http.Error", func(c *gin.Context) { http.Error(c.Writer, "a", 500) }, 500, "a\n", false},
		{"a flush", func(c *gin.Context) { c.Writer.Flush() }, 200, "", true},
		{"a flush of the controller", func(c *gin.Context) { http.NewResponseController(c.Writer).Flush() }, 200, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.SetHTMLTemplate(template.Must(template.New("page").Parse("<p>{{.}}")))
			s.GET("/", ginsessplus.New(s.mgr), set, c.answer)
			want := map[bool]string{true: "1", false: "0"}[c.saved]
			if n := s.visits("/", c.status, c.body); n != want {
				t.Errorf("the session holds %s afterwards, want %s", n, want)
			}
		})
	}
}

func TestStream(t *testing.T) {
	s := newSite(t)
	s.GET("/", ginsessplus.New(s.mgr), set, func(c *gin.Context) {
		n := 0
		c.Stream(func(w io.Writer) bool {
			n++
			c.SSEvent("message", n)
			sessplus.Get(c.Request).Set("n", 10*n)
			return n < 3
		})
	})
	res, body := s.get("/")
	if len(res.Cookies()) != 1 || strings.Count(body, "event:message") != 3 {
		t.Errorf("the stream has the cookies %v and the body %q", res.Cookies(), body)
	}
	if _, n := s.get("/n"); n != "30" {
		t.Errorf("the session holds %s, want 30, which was set after the last event", n)
	}
}

// The cookie comes with the headers, which a stream sends long before its end.
func TestStreamBegins(t *testing.T) {
	s := newSite(t)
	release := make(chan struct{})
	s.GET("/", ginsessplus.New(s.mgr), set, func(c *gin.Context) {
		c.Writer.Flush()
		<-release
	})
	res, err := s.client.Get(s.server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Cookies()) != 1 {
		t.Errorf("the headers of a stream have the cookies %v, want one", res.Cookies())
	}
	if _, n := s.get("/n"); n != "1" {
		t.Errorf("the session holds %s while the stream goes on, want 1", n)
	}
	close(release)
	res.Body.Close()
}

func TestPanic(t *testing.T) {
	crash := func(c *gin.Context) { panic("a panic that the test wants") }
	for name, register := range map[string]func(s *site, recovery gin.HandlerFunc){
		"Recovery outside": func(s *site, recovery gin.HandlerFunc) { s.GET("/", recovery, ginsessplus.New(s.mgr), set, crash) },
		"Recovery inside":  func(s *site, recovery gin.HandlerFunc) { s.GET("/", ginsessplus.New(s.mgr), recovery, set, crash) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			register(s, gin.RecoveryWithWriter(io.Discard))
			if n := s.visits("/", 500, ""); n != "0" {
				t.Errorf("the session holds %s after a panic, want 0", n)
			}
		})
	}
}

func TestBackendDown(t *testing.T) {
	const unavailable = "The service is temporarily unavailable. Please try again.\n"
	s := newSite(t)
	ran := false
	s.GET("/set", ginsessplus.New(s.mgr), set)
	s.GET("/", ginsessplus.New(s.mgr), func(c *gin.Context) { ran = true; c.String(200, "a") })
	s.GET("/both", ginsessplus.New(s.mgr), func(c *gin.Context) { sessplus.Get(c.Request).Set("n", 2); c.String(200, "a") })
	s.visits("/set", 200, "")

	s.backend.noLoad.Store(true)
	if res, body := s.get("/"); res.StatusCode != 503 || body != unavailable || ran {
		t.Errorf("without the backend: %d %q, and the handler ran: %t", res.StatusCode, body, ran)
	}
	s.backend.noLoad.Store(false)

	s.backend.noSave.Store(true)
	if res, body := s.get("/both"); res.StatusCode != 503 || body != unavailable || len(res.Cookies()) != 0 {
		t.Errorf("with a save that fails: %d %q with the cookies %v", res.StatusCode, body, res.Cookies())
	}
	s.backend.noSave.Store(false)
	if n := s.visits("/", 200, "a"); n != "1" {
		t.Errorf("the session holds %s afterwards, want 1", n)
	}
}

// The answer of an ErrorHandler that writes no body stands, whatever the handler says.
func TestErrorHandlerWithoutBody(t *testing.T) {
	b := &backend{Backend: sessplus.Memory()}
	b.noSave.Store(true)
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "sid", Backend: b}}, &sessplus.Options{
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusTeapot) },
	})
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	var written error
	engine.GET("/", ginsessplus.New(mgr), set, func(c *gin.Context) {
		_, written = c.Writer.WriteString("a")
		c.Status(200)
	})
	w := httptest.NewRecorder()
	engine.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusTeapot || w.Body.Len() != 0 || !errors.Is(written, errDown) {
		t.Errorf("answered %d %q, and the handler's write returned %v", w.Code, w.Body, written)
	}
}

// A middleware further out goes on after c.Next with gin's own writer and with the session.
func TestMiddlewareOutside(t *testing.T) {
	s := newSite(t)
	var status int
	var n int
	s.Use(func(c *gin.Context) {
		before := c.Writer
		c.Next()
		if c.Writer != before {
			t.Error("the writer is not the one from before")
		}
		status = c.Writer.Status()
		if inner, ok := sessplus.FromContext(c.Request.Context()); ok {
			n = inner.GetInt("n")
		}
	})
	s.GET("/", ginsessplus.New(s.mgr), set, func(c *gin.Context) { c.Status(404) })
	if s.visits("/", 404, ""); status != 404 || n != 1 {
		t.Errorf("outside, the status is %d and the session holds %d", status, n)
	}
}

func TestPlaces(t *testing.T) {
	for name, register := range map[string]func(s *site){
		"a group": func(s *site) {
			s.Group("/group", ginsessplus.New(s.mgr)).GET("/x", set, func(c *gin.Context) { c.String(200, "a") })
		},
		"twice": func(s *site) {
			s.GET("/group/x", ginsessplus.New(s.mgr), ginsessplus.New(s.mgr), set, func(c *gin.Context) { c.String(200, "a") })
		},
		"an engine's NoRoute": func(s *site) { s.NoRoute(ginsessplus.New(s.mgr), set, func(c *gin.Context) { c.String(200, "a") }) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			register(s)
			if n := s.visits("/group/x", 200, "a"); n != "1" {
				t.Errorf("the session holds %s, want 1", n)
			}
		})
	}
	t.Run("a page that is not found", func(t *testing.T) {
		s := newSite(t)
		s.Use(ginsessplus.New(s.mgr), set)
		if n := s.visits("/nowhere", 404, "404 page not found"); n != "1" {
			t.Errorf("the session holds %s, want 1", n)
		}
	})
}

// WebSocket libraries take the connection over, with the header or after WriteHeader(101).
func TestUpgrade(t *testing.T) {
	for name, upgrade := range map[string]func(c *gin.Context) error{
		"Hijack": func(c *gin.Context) error {
			h := c.Writer.Header() // as gorilla/websocket does, which is given the header
			conn, _, err := c.Writer.Hijack()
			if err != nil {
				return err
			}
			defer conn.Close()
			var b strings.Builder
			h.Write(&b)
			_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n%s\r\n", b.String())
			return err
		},
		"WriteHeaderNow": func(c *gin.Context) error { // as coder/websocket does
			c.Header("Connection", "Upgrade")
			c.Header("Upgrade", "test")
			c.Writer.WriteHeader(http.StatusSwitchingProtocols)
			c.Writer.WriteHeaderNow()
			conn, _, err := http.NewResponseController(c.Writer).Hijack()
			if err != nil {
				return err
			}
			return conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			failed := make(chan error, 1)
			s.GET("/", ginsessplus.New(s.mgr), set, func(c *gin.Context) { failed <- upgrade(c) })
			req, err := http.NewRequest("GET", s.server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "test")
			res, err := s.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			bufio.NewReader(res.Body).ReadByte()
			res.Body.Close()
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != 101 || len(res.Cookies()) != 1 {
				t.Errorf("the upgrade is answered %d with the cookies %v", res.StatusCode, res.Cookies())
			}
			if _, n := s.get("/n"); n != "1" {
				t.Errorf("the session holds %s, want 1", n)
			}
		})
	}
}

// A http.ResponseController reaches the connection.
func TestDeadline(t *testing.T) {
	s := newSite(t)
	s.GET("/", ginsessplus.New(s.mgr), func(c *gin.Context) {
		if err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
	})
	s.visits("/", 200, "")
}

// What this package is for: with the obvious adapter, gin's Context writes past the middleware. The log tells of it.
func TestObviousAdapter(t *testing.T) {
	s := newSite(t)
	s.GET("/", func(c *gin.Context) {
		s.mgr.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
	}, set, func(c *gin.Context) { c.String(200, "a") })
	if n := s.visits("/", 200, "a"); n != "0" {
		t.Errorf("the session holds %s: gin's Context does not write past the middleware any more", n)
	}
	if text := s.log.String(); !strings.Contains(text, "response had begun before its session was saved") || !strings.Contains(text, "cookies=sid") {
		t.Errorf("the log does not tell of it: %q", text)
	}
}
