package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v4"

	"github.com/sessplus/sessplus"
)

// These tests show why docs/routers.md puts a middleware outside of the sessions, or inside.

type wrapper = func(http.Handler) http.Handler

// A browser makes requests of a handler that has its own middleware.
type browser struct {
	testing.TB
	server *httptest.Server
	client *http.Client
	todo   chan http.HandlerFunc
}

// newBrowser lists the middleware from the outermost to the innermost.
func newBrowser(t testing.TB, chain ...wrapper) *browser {
	t.Helper()
	b := &browser{TB: t, todo: make(chan http.HandlerFunc, 1)}
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (<-b.todo)(w, r) })
	for i := len(chain) - 1; i >= 0; i-- {
		h = chain[i](h)
	}
	b.server = httptest.NewServer(h)
	t.Cleanup(b.server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b.client = &http.Client{Jar: jar}
	return b
}

func (b *browser) visit(h http.HandlerFunc) (status int) {
	b.Helper()
	b.todo <- h
	res, err := b.client.Get(b.server.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil { // ends when the handler has
		b.Fatal(err)
	}
	return res.StatusCode
}

// user says who is logged in.
func (b *browser) user() (user string) {
	b.Helper()
	b.visit(func(w http.ResponseWriter, r *http.Request) { user = sessplus.Get(r).GetString("user") })
	return user
}

func logIn(s *sessplus.Session, user string) {
	s.Renew()
	s.Set("user", user)
}

func sessions(t testing.TB) *sessplus.Manager {
	t.Helper()
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "sid", Backend: sessplus.Memory()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return mgr
}

const deadline = 50 * time.Millisecond

// http.TimeoutHandler keeps the response until the handler has returned. Outside of the sessions it keeps the cookies
// as well, and drops them when the time is over: by then a login has ended the session from before, and the browser
// never hears of the new one.
func TestTimeoutHandler(t *testing.T) {
	timeout := func(next http.Handler) http.Handler { return http.TimeoutHandler(next, deadline, "too slow") }
	for name, c := range map[string]struct {
		chain func(sessions, notify wrapper) []wrapper
		want  string
	}{
		"inside":  {func(sessions, notify wrapper) []wrapper { return []wrapper{sessions, timeout, notify} }, "ann"},
		"outside": {func(sessions, notify wrapper) []wrapper { return []wrapper{timeout, notify, sessions} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{}, 1) // what is inside of the timeout
			notify := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r)
					ended <- struct{}{}
				})
			}
			b := newBrowser(t, c.chain(sessions(t).Handler, notify)...)
			b.visit(func(_ http.ResponseWriter, r *http.Request) { logIn(sessplus.Get(r), "ann") })
			<-ended
			status := b.visit(func(_ http.ResponseWriter, r *http.Request) {
				logIn(sessplus.Get(r), "ann again")
				<-r.Context().Done()
			})
			<-ended
			if user := b.user(); status != http.StatusServiceUnavailable || user != c.want {
				t.Errorf("a login that was too slow is answered %d, and then %q is logged in, want %q", status, user, c.want)
			}
		})
	}
}

// chi's Timeout answers 504 when the handler has returned. Outside of the sessions, that is after they were saved.
func TestChiTimeout(t *testing.T) {
	m := sessions(t)
	for name, c := range map[string]struct {
		chain []wrapper
		want  string
	}{
		"inside":  {[]wrapper{m.Handler, middleware.Timeout(deadline)}, ""},
		"outside": {[]wrapper{middleware.Timeout(deadline), m.Handler}, "ann"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, c.chain...)
			status := b.visit(func(_ http.ResponseWriter, r *http.Request) {
				sessplus.Get(r).Set("user", "ann")
				<-r.Context().Done() // and it returns without an answer
			})
			if user := b.user(); status != http.StatusGatewayTimeout || user != c.want {
				t.Errorf("a slow request is answered %d, and %q is logged in, want %q", status, user, c.want)
			}
		})
	}
}

// A Recoverer inside makes of a panic a handler that returned: what it has changed after the headers is saved.
func TestRecoverer(t *testing.T) {
	m := sessions(t)
	quiet := middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: discard{}, NoColor: true})
	for name, c := range map[string]struct {
		chain []wrapper
		want  string
	}{
		"outside": {[]wrapper{quiet, middleware.Recoverer, m.Handler}, "ann"},
		"inside":  {[]wrapper{quiet, m.Handler, middleware.Recoverer}, "half of a change"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, c.chain...)
			b.visit(func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user", "ann") })
			b.visit(func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).Flush()
				sessplus.Get(r).Set("user", "half of a change")
				panic("a panic that the test wants")
			})
			if user := b.user(); user != c.want {
				t.Errorf("after the panic, %q is logged in, want %q", user, c.want)
			}
		})
	}
}

type discard struct{}

func (discard) Print(...any) {}

// The middleware inside of echo saves before echo answers the error of a handler.
func TestEchoInside(t *testing.T) {
	m := sessions(t)
	e := echo.New()
	e.Use(echo.WrapMiddleware(m.Handler))
	e.GET("/", func(c echo.Context) error { return fail(sessplus.Get(c.Request())) })
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusInternalServerError || len(w.Result().Cookies()) != 1 {
		t.Errorf("answered %d with the cookies %v: echo.go may be simpler now", w.Code, w.Result().Cookies())
	}
}
