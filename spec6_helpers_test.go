package sessplus_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A crowd is a real server whose requests may run side by side, each with a handler of its own.
type crowd struct {
	*site
	handlers sync.Map // by number: http.HandlerFunc
	count    atomic.Int64
}

func newCrowd(t testing.TB, m *sessplus.Manager) *crowd {
	t.Helper()
	c := &crowd{site: &site{TB: t}}
	c.Server = httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, _ := c.handlers.Load(r.URL.Query().Get("n"))
		h.(http.HandlerFunc)(w, r)
	})))
	t.Cleanup(c.Close)
	c.client = c.visitor()
	return c
}

// ask makes a request that h handles. It may be called by any goroutine; a request without an answer is a failure, and
// gives an empty reply.
func (c *crowd) ask(client *http.Client, h http.HandlerFunc) *reply {
	n := fmt.Sprint(c.count.Add(1))
	c.handlers.Store(n, h)
	res, err := client.Get(c.URL + "/?n=" + n)
	if err != nil {
		c.Errorf("no answer: %v", err)
		return &reply{Response: &http.Response{Header: http.Header{}}}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.Errorf("no whole answer: %v", err)
	}
	return &reply{res, string(body)}
}

func (c *crowd) askWith(client *http.Client, f func(*sessplus.Session)) *reply {
	return c.ask(client, func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
}

// mustAsk fails the test unless the answer is 200.
func (c *crowd) mustAsk(client *http.Client, f func(*sessplus.Session)) *reply {
	c.Helper()
	r := c.askWith(client, f)
	if r.StatusCode != 200 {
		c.Fatalf("status = %d, want 200; body %q", r.StatusCode, r.body)
	}
	return r
}

// A slowRequest has loaded its session, and goes on when it is told.
type slowRequest struct {
	goOn   chan struct{}
	answer chan *reply
}

// begin starts a request that loads the session and then waits; later is what it does afterwards.
func (c *crowd) begin(client *http.Client, later func(*sessplus.Session)) *slowRequest {
	r := &slowRequest{make(chan struct{}), make(chan *reply, 1)}
	loaded := make(chan struct{})
	go func() {
		r.answer <- c.askWith(client, func(s *sessplus.Session) {
			s.Fields()
			close(loaded)
			<-r.goOn
			later(s)
		})
	}()
	select {
	case <-loaded:
	case early := <-r.answer:
		c.Fatalf("the slow request was answered before its handler ran: %d %q", early.StatusCode, early.body)
	}
	return r
}

func (r *slowRequest) finish() *reply {
	close(r.goOn)
	return <-r.answer
}

// withCookies returns a browser that has only these cookies, in place of what a Set-Cookie said.
func (c *crowd) withCookies(cookies map[string]string) *http.Client {
	client := c.visitor()
	req, _ := http.NewRequest("GET", c.URL, nil)
	var list []*http.Cookie
	for name, value := range cookies {
		list = append(list, &http.Cookie{Name: name, Value: value, Path: "/"})
	}
	client.Jar.SetCookies(req.URL, list)
	return client
}

// A journal keeps all that a Manager logs and reports.
type journal struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	events []sessplus.Event
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) options(timeout time.Duration) *sessplus.Options {
	return &sessplus.Options{
		Logger:  slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Timeout: timeout,
		OnEvent: func(_ context.Context, e sessplus.Event) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.events = append(j.events, e)
		},
	}
}

// text is the log, and the errors of the events.
func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b strings.Builder
	b.Write(j.buf.Bytes())
	for _, e := range j.events {
		if e.Err != nil {
			fmt.Fprintf(&b, "event %s: %v\n", e.Kind, e.Err)
		}
	}
	return b.String()
}

// kinds are those of the events about a cookie since the last call.
func (j *journal) kinds(cookie string) []sessplus.EventKind {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []sessplus.EventKind
	for _, e := range j.events {
		if e.Cookie == cookie {
			list = append(list, e.Kind)
		}
	}
	j.events = nil
	return list
}

// keepsSecret fails the test if the log, an event or an answer holds one of the secrets (SPEC 6.9, 7.3).
func (j *journal) keepsSecret(t testing.TB, replies []*reply, secrets ...string) {
	t.Helper()
	texts := []string{j.text()}
	for _, r := range replies {
		texts = append(texts, r.body)
	}
	for _, text := range texts {
		for _, secret := range secrets {
			if secret != "" && strings.Contains(text, secret) {
				t.Errorf("a secret (%.12s…) is in: %s", secret, text)
			}
		}
	}
}

// mustWarn fails the test unless a line of the level WARN or above is there.
func (j *journal) mustWarn(t testing.TB) {
	t.Helper()
	if text := j.text(); !strings.Contains(text, "level=WARN") && !strings.Contains(text, "level=ERROR") {
		t.Errorf("log = %q, want a warning", text)
	}
}

// A proxy stands before a server, and can be told to break.
type proxy struct {
	l      net.Listener
	target string

	mu    sync.Mutex
	cond  *sync.Cond
	mode  proxyMode
	conns map[net.Conn]bool
	onUp  func([]byte) proxyMode // called with what clients send, tells the mode from then on; may be nil
}

type proxyMode int

const (
	proxyServe  proxyMode = iota
	proxyHang             // accepts, and passes nothing on
	proxyMute             // passes requests on, and holds the answers
	proxyRefuse           // closes new connections at once
)

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: target, conns: make(map[net.Conn]bool)}
	p.cond = sync.NewCond(&p.mu)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.set(proxyServe)
	})
	go func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(down)
		}
	}()
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) set(m proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	p.cond.Broadcast()
}

// watch sees what clients send from now on.
func (p *proxy) watch(f func([]byte) proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onUp = f
}

// cut closes all connections; what is held of an answer is lost.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
	p.cond.Broadcast()
}

func (p *proxy) serve(down net.Conn) {
	p.mu.Lock()
	if p.mode == proxyRefuse {
		p.mu.Unlock()
		down.Close()
		return
	}
	p.conns[down] = true
	p.mu.Unlock()
	up, err := net.Dial("tcp", p.target)
	if err != nil {
		down.Close()
		return
	}
	defer up.Close()
	go func() {
		p.pump(up, down, down, true)
		up.Close()
	}()
	p.pump(down, up, down, false)
	down.Close()
}

// pump copies as long as the mode lets it; pair is what tells whether the connection was cut.
func (p *proxy) pump(dst, src, pair net.Conn, isUp bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		if isUp && p.onUp != nil {
			p.mode = p.onUp(buf[:n])
		}
		for p.conns[pair] && (p.mode == proxyHang || p.mode == proxyMute && !isUp) {
			p.cond.Wait()
		}
		alive := p.conns[pair]
		p.mu.Unlock()
		if !alive {
			return
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// settle waits until no goroutine of the library is left, and fails the test with their stacks if they stay (SPEC 6.8).
func settle(t testing.TB) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = libraryGoroutines(); len(left) == 0 {
			return
		}
	}
	t.Errorf("%d goroutines of the library are left, the first:\n%s", len(left), left[0])
}

func libraryGoroutines() []string {
	buf := make([]byte, 4<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return slices.DeleteFunc(stacks, func(s string) bool { return !strings.Contains(s, "github.com/sessplus/sessplus.") })
}

// within fails the test if f takes as long as two timeouts, or nearly.
func within(t testing.TB, timeout time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took >= timeout*19/10 {
		t.Errorf("took %v, want at most the Timeout of %v and little more", took, timeout)
	}
}

// A faulty backend has a proxy before its server, and a way past it.
type faulty struct {
	backend, direct sessplus.Backend
	proxy           *proxy
}

// behindProxy runs the test on each backend that has a network.
func behindProxy(t *testing.T, test func(t *testing.T, f faulty)) {
	t.Run("redis", func(t *testing.T) {
		f, _ := redisBehindProxy(t)
		test(t, f)
	})
	t.Run("firestore", func(t *testing.T) {
		servers.Firestore(t)
		addr := os.Getenv("FIRESTORE_EMULATOR_HOST")
		p := newProxy(t, addr)
		project := fmt.Sprintf("fault-%d-%d", os.Getpid(), projects.Add(1))
		test(t, faulty{
			sessplus.Firestore(firestoreAt(t, p.addr(), project), "sessions"),
			sessplus.Firestore(firestoreAt(t, addr, project), "sessions"), p,
		})
	})
}

func redisBehindProxy(t *testing.T) (f faulty, direct *redis.Client) {
	t.Helper()
	s := servers.NewRedis(t)
	p := newProxy(t, s.Addr)
	through := redis.NewClient(&redis.Options{Addr: p.addr()})
	direct = s.Client()
	t.Cleanup(func() { through.Close(); direct.Close() })
	return faulty{sessplus.Redis(through), sessplus.Redis(direct), p}, direct
}

var projects atomic.Int64

// firestoreAt returns a client of the emulator at addr, without changing which emulator the other tests use.
func firestoreAt(t testing.TB, addr, project string) *firestore.Client {
	t.Helper()
	const name = "FIRESTORE_EMULATOR_HOST"
	old := os.Getenv(name)
	defer os.Setenv(name, old)
	os.Setenv(name, addr)
	c, err := firestore.NewClient(context.Background(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
