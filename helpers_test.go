package sessplus_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus/internal/servers"

	"github.com/sessplus/sessplus"
)

// Most tests wait for most of the time, so that many of them can do so side by side. -parallel takes precedence.
func TestMain(m *testing.M) {
	beside := 8 * runtime.GOMAXPROCS(0)
	if raceEnabled {
		beside /= 2 // the race detector needs the processors
	}
	if os.Getenv("SESSPLUS_REDIS") != "" {
		beside = 1 // there are sixteen databases
	}
	flag.Set("test.parallel", strconv.Itoa(beside))
	servers.Main(m)
}

// slow skips a test with -short that waits for a long time, mostly for the retries and the failovers of clients.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
}

var testKeys = []sessplus.KeyPair{sessplus.DeriveKeyPair([]byte("a secret of thirty-two bytes or more"))}

// newManager fails the test if the configs are refused. Keys and a silent Logger are filled in where opts has none.
func newManager(t testing.TB, opts *sessplus.Options, configs ...sessplus.Config) *sessplus.Manager {
	t.Helper()
	var o sessplus.Options
	if opts != nil {
		o = *opts
	}
	if o.Keys == nil {
		o.Keys = testKeys
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := sessplus.New(configs, &o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The backends that keep records, each with a place of its own for every test.
var backends = []struct {
	name string
	open func(t *testing.T) sessplus.Backend
}{
	{"memory", func(*testing.T) sessplus.Backend { return sessplus.Memory() }},
	{"redis", func(t *testing.T) sessplus.Backend { return sessplus.Redis(servers.Redis(t)) }},
	{"autopipeline", func(t *testing.T) sessplus.Backend { return sessplus.Redis(autoPipeline(t, servers.Redis(t))) }},
	{"firestore", func(t *testing.T) sessplus.Backend { return sessplus.Firestore(servers.Firestore(t), "sessions") }},
}

// autoPipeline gives the client that sends the commands of all callers together. It closes with c.
func autoPipeline(t testing.TB, c redis.UniversalClient) redis.UniversalClient {
	t.Helper()
	p, err := c.AsyncAutoPipeline()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// onEveryBackend runs the test on each backend that keeps records.
func onEveryBackend(t *testing.T, test func(t *testing.T, b sessplus.Backend)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { test(t, b.open(t)) })
	}
}

// onEveryStore is onEveryBackend, and runs the test with a secure cookie, too.
func onEveryStore(t *testing.T, test func(t *testing.T, b sessplus.Backend)) {
	t.Run("secure cookie", func(t *testing.T) { test(t, sessplus.SecureCookie()) })
	onEveryBackend(t, test)
}

// A recorder is a real backend that records how it is called. Hooks may delay and break calls.
type recorder struct {
	sessplus.Backend
	hook  func(ctx context.Context, op string) error // is called first; its error takes the place of the call
	after func(op string) error                      // is called after a success; its error takes the place of the answer

	mu    sync.Mutex // guards the hooks, and what follows
	calls []string   // "load KEY", "create KEY", …, since they were last asked for
	keys  []string   // all that there were, in the order of their first call
	last  *sessplus.Change
}

// record notes a call, and lets the hook act.
func (b *recorder) record(ctx context.Context, op, key string) error {
	b.mu.Lock()
	b.calls = append(b.calls, op+" "+key)
	if !slices.Contains(b.keys, key) {
		b.keys = append(b.keys, key)
	}
	hook := b.hook
	b.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, op)
}

func (b *recorder) answered(op string, err error) error {
	b.mu.Lock()
	after := b.after
	b.mu.Unlock()
	if after == nil || err != nil {
		return err
	}
	return after(op)
}

func (b *recorder) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	if err := b.record(ctx, "load", key); err != nil {
		return nil, err
	}
	r, err := b.Backend.Load(ctx, key)
	return r, b.answered("load", err)
}

func (b *recorder) Create(ctx context.Context, key string, r *sessplus.Record) error {
	if err := b.record(ctx, "create", key); err != nil {
		return err
	}
	return b.answered("create", b.Backend.Create(ctx, key, r))
}

func (b *recorder) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	if err := b.record(ctx, "update", key); err != nil {
		return sessplus.Result{}, err
	}
	b.mu.Lock()
	b.last = c
	b.mu.Unlock()
	r, err := b.Backend.Update(ctx, key, c)
	return r, b.answered("update", err)
}

func (b *recorder) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	if err := b.record(ctx, stepName(e), key); err != nil {
		return nil, err
	}
	r, err := b.Backend.End(ctx, key, e)
	return r, b.answered(stepName(e), err)
}

func (b *recorder) setHook(hook func(ctx context.Context, op string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

func (b *recorder) setAfter(after func(op string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.after = after
}

// ops returns what was called since the last time, without the keys.
func (b *recorder) ops() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	ops := []string{}
	for _, c := range b.calls {
		op, _, _ := strings.Cut(c, " ")
		ops = append(ops, op)
	}
	b.calls = nil
	return ops
}

// newest returns the key that came up last.
func (b *recorder) newest() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys[len(b.keys)-1]
}

// alive returns the records that there are of the keys seen, as text.
func (b *recorder) alive(t testing.TB) []string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []string{}
	for _, key := range b.keys {
		r, err := b.Backend.Load(t.Context(), key)
		switch {
		case err == nil:
			slices.SortFunc(r.Fields, func(x, y sessplus.RawField) int { return strings.Compare(x.Name, y.Name) })
			list = append(list, fmt.Sprintf("%s %s", key, r.Fields))
		case !errors.Is(err, sessplus.ErrNoRecord):
			t.Fatal(err)
		}
	}
	return list
}

// A store is a recorder with a client to look behind it.
type store struct {
	recorder
	rdb   *redis.Client
	fs    *firestore.Client
	trips []string // what was sent to Redis since the calls were last asked for, a line per round trip
}

func (s *store) ops() []string {
	s.mu.Lock()
	s.trips = nil
	s.mu.Unlock()
	return s.recorder.ops()
}

// The store is a hook of its Redis client.
func (s *store) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *store) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.noteTrip(cmd)
		return next(ctx, cmd)
	}
}

func (s *store) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		s.noteTrip(cmds...)
		return next(ctx, cmds)
	}
}

func (s *store) noteTrip(cmds ...redis.Cmder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trips = append(s.trips, fmt.Sprint(cmds))
}

// SPEC 3.5: every test of this file ends with it.
func (s *store) everyKeyExpires(t *testing.T) {
	ctx := context.Background()
	for key := range s.text(t) {
		ttl, err := s.rdb.PTTL(ctx, key).Result()
		if err == nil && ttl == -1 {
			t.Errorf("PTTL(%q) = none, want one", key)
		}
		if r, err := s.Backend.Load(ctx, key); err == nil && (ttl-time.Until(r.Expires)).Abs() > 2*time.Second {
			t.Errorf("PTTL(%q) = %v, want what the record says, %v", key, ttl, time.Until(r.Expires))
		}
	}
}

// text returns all that the store holds, as text by key, but the traces of records that have ended.
func (s *store) text(t *testing.T) map[string]string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	all := make(map[string]string)
	switch {
	case s.rdb != nil:
		keys, err := s.rdb.Keys(ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if hash := s.rdb.HGetAll(ctx, key).Val(); !strings.HasPrefix(hash[":mark"], "e ") {
				all[key] = fmt.Sprint(hash)
			}
		}
	case s.fs != nil:
		docs, err := s.fs.Collection("sessions").Documents(ctx).GetAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if mark, _ := d.Data()["mark"].(string); !strings.HasPrefix(mark, "e ") {
				all[d.Ref.ID] = fmt.Sprint(d.Data())
			}
		}
	default:
		s.mu.Lock()
		keys := slices.Clone(s.keys)
		s.mu.Unlock()
		for _, key := range keys {
			if r, err := s.Backend.Load(ctx, key); err == nil {
				text := fmt.Sprint(r.Created, r.Saved, r.Expires, r.Permanent, r.Version)
				for _, f := range r.Fields {
					text += " " + f.Name + ":" + string(f.Value)
				}
				all[key] = text
			}
		}
	}
	return all
}

var stores = []struct {
	name string
	open func(t *testing.T) *store
}{
	{"memory", func(*testing.T) *store { return &store{recorder: recorder{Backend: sessplus.Memory()}} }},
	{"redis", func(t *testing.T) *store {
		plain := servers.Redis(t)
		s := &store{rdb: plain}
		hooked := redis.NewClient(&redis.Options{Addr: plain.Options().Addr, DB: plain.Options().DB})
		t.Cleanup(func() { hooked.Close() })
		hooked.AddHook(s)
		s.Backend = sessplus.Redis(hooked)
		t.Cleanup(func() { s.everyKeyExpires(t) })
		return s
	}},
	{"firestore", func(t *testing.T) *store {
		client := servers.Firestore(t)
		return &store{recorder: recorder{Backend: sessplus.Firestore(client, "sessions")}, fs: client}
	}},
}

// A site is a real server whose handlers the test gives request by request, and a browser's cookie jar.
type site struct {
	testing.TB
	*httptest.Server
	client *http.Client
	do     chan http.HandlerFunc
}

// newSite serves behind the middleware of m, or of several from the outermost to the innermost.
func newSite(t testing.TB, managers ...*sessplus.Manager) *site {
	t.Helper()
	return newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
		for _, m := range slices.Backward(managers) {
			h = m.Handler(h)
		}
		return h
	})
}

// newSiteOn is newSite for "HTTP/1.1" or "HTTP/2", with any middleware.
func newSiteOn(t testing.TB, proto string, wrap func(http.Handler) http.Handler) *site {
	t.Helper()
	s := &site{TB: t, do: make(chan http.HandlerFunc, 1)}
	s.serve(wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (<-s.do)(w, r) })), proto == "HTTP/2")
	return s
}

// serve starts the server of the site, whose goroutines can then be told from those of other tests.
func (s *site) serve(h http.Handler, http2 bool) {
	s.Server = httptest.NewUnstartedServer(h)
	s.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("test", s.Name())))
	if s.EnableHTTP2 = http2; http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	s.Cleanup(s.Close)
	s.client = s.visitor()
}

// visitor returns the client of a new browser, with an empty jar.
func (s *site) visitor() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &http.Client{Transport: s.Server.Client().Transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// A reply is a response, with its body read.
type reply struct {
	*http.Response
	body string
}

// visit makes a request of the site's own browser, which h handles. If the middleware answers instead of h, h is dropped.
func (s *site) visit(h http.HandlerFunc) *reply {
	s.Helper()
	return s.visitAs(s.client, h)
}

// visitAs is visit for another browser.
func (s *site) visitAs(c *http.Client, h http.HandlerFunc) *reply {
	s.Helper()
	req, err := http.NewRequest("GET", s.URL, nil)
	if err != nil {
		s.Fatal(err)
	}
	return s.send(c, req, h)
}

// send makes the request, which h handles. One request at a time.
func (s *site) send(c *http.Client, req *http.Request, h http.HandlerFunc) *reply {
	s.Helper()
	s.do <- h
	if c.Transport == nil { // whoever closes a test server closes the idle connections of the default one
		c = &http.Client{Transport: s.Server.Client().Transport, Jar: c.Jar, CheckRedirect: c.CheckRedirect}
	}
	res, err := c.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	select { // what the middleware did not let through
	case <-s.do:
	default:
	}
	return &reply{res, string(body)}
}

// with visits with a function of the session.
func (s *site) with(f func(*sessplus.Session)) *reply {
	s.Helper()
	return s.visit(func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
}

// jar returns the cookies that a browser would send to the site, by name.
func (s *site) jar(c *http.Client) map[string]string {
	u, err := url.Parse(s.URL)
	if err != nil {
		s.Fatal(err)
	}
	all := make(map[string]string)
	for _, k := range c.Jar.Cookies(u) {
		all[k.Name] = k.Value
	}
	return all
}

// setCookies returns the Set-Cookie lines of a response for the name.
func (r *reply) setCookies(name string) []string {
	var lines []string
	for _, line := range r.Header.Values("Set-Cookie") {
		if strings.HasPrefix(line, name+"=") {
			lines = append(lines, line)
		}
	}
	return lines
}

// visiting gives a function that makes a request in this process: from a visitor for whom first has been done, or from a
// new one.
func visiting(t testing.TB, m *sessplus.Manager, first, f func(*sessplus.Session)) func() {
	do := first
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do(sessplus.Get(r))
		w.WriteHeader(http.StatusNoContent)
	}))
	r := httptest.NewRequest("GET", "/", nil)
	if first != nil {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		for _, k := range rec.Result().Cookies() {
			r.AddCookie(k)
		}
	}
	do = f
	w := &discard{header: make(http.Header)}
	return func() {
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != http.StatusNoContent {
			t.Fatalf("status %d", w.status)
		}
	}
}

// stepName is what tests call a step of Backend.End.
func stepName(e *sessplus.Ending) string {
	switch {
	case e.Step == sessplus.StepTake:
		return "take"
	case e.Step == sessplus.StepRelease:
		return "release"
	case e.Token == "":
		return "delete"
	}
	return "end"
}

// A crowd is a real server whose requests may run side by side, each with a handler of its own.
type crowd struct {
	*site
	handlers sync.Map // by number: http.HandlerFunc
	count    atomic.Int64
}

func newCrowd(t testing.TB, m *sessplus.Manager) *crowd {
	t.Helper()
	c := &crowd{site: &site{TB: t}}
	c.serve(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, _ := c.handlers.Load(r.URL.Query().Get("n"))
		h.(http.HandlerFunc)(w, r)
	})), false)
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

// settle waits until no goroutine of the library is left of the test, and fails it with their stacks if they stay (SPEC 6.8).
func settle(t testing.TB) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = libraryGoroutines(t); len(left) == 0 {
			return
		}
	}
	t.Errorf("%d goroutines of the library are left, the first:\n%s", len(left), left[0])
}

func libraryGoroutines(t testing.TB) []string {
	return goroutines(t, "github.com/sessplus/sessplus.")
}

// goroutines returns the stacks that hold the text, of goroutines that descend from a site of the test, of a test that it is
// a part of, or of one of its parts.
func goroutines(t testing.TB, text string) (stacks []string) {
	var all bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&all, 1)
	for _, stack := range strings.Split(all.String(), "\n\n") {
		_, label, _ := strings.Cut(stack, `# labels: {"test":"`)
		of, _, labeled := strings.Cut(label, `"}`)
		ours := labeled && (strings.HasPrefix(t.Name()+"/", of+"/") || strings.HasPrefix(of+"/", t.Name()+"/"))
		if ours && strings.Contains(stack, text) {
			n, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine profile: total "), " @ ")
			count, _ := strconv.Atoi(n[strings.LastIndex(n, "\n")+1:])
			stacks = append(stacks, slices.Repeat([]string{stack}, count)...)
		}
	}
	return stacks
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
	t.Run("autopipeline", func(t *testing.T) {
		f, _ := redisBehindProxy(t)
		through := redis.NewClient(&redis.Options{Addr: f.proxy.addr()})
		t.Cleanup(func() { through.Close() })
		f.backend = sessplus.Redis(autoPipeline(t, through))
		test(t, f)
	})
	t.Run("firestore", func(t *testing.T) {
		addr := servers.FirestoreAddr(t)
		p := newProxy(t, addr)
		project := fmt.Sprintf("fault-%d-%d", os.Getpid(), projects.Add(1))
		test(t, faulty{
			sessplus.Firestore(servers.FirestoreAt(t, p.addr(), project), "sessions"),
			sessplus.Firestore(servers.FirestoreAt(t, addr, project), "sessions"), p,
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

// through is the site's browser at another program, whose manager has these configs.
func (s *site) through(configs ...sessplus.Config) *site {
	s.Helper()
	other := newSite(s.TB, newManager(s.TB, nil, configs...))
	other.client = s.client // a jar does not tell ports apart
	return other
}

// fields returns what the site's browser has there, by the names of its fields.
func (s *site) fields() map[string]any {
	s.Helper()
	all := make(map[string]any)
	s.with(func(s *sessplus.Session) {
		for _, name := range s.Fields() {
			all[name] = s.Get(name)
		}
	})
	return all
}

// A writeCounter counts what is written to backends, as OnEvent hears of it.
type writeCounter struct {
	mu sync.Mutex
	n  int
}

func (c *writeCounter) hear(_ context.Context, e sessplus.Event) {
	switch e.Kind {
	case sessplus.EventLoad, sessplus.EventMiss, sessplus.EventReject, sessplus.EventError:
	default:
		c.mu.Lock()
		c.n++
		c.mu.Unlock()
	}
}

func (c *writeCounter) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = 0
	return n
}

// oneCookie is a config over b; a secure cookie may have chunks, for the tests with many fields.
func oneCookie(b sessplus.Backend) sessplus.Config {
	c := sessplus.Config{CookieName: "s", Backend: b}
	if b == sessplus.SecureCookie() {
		c.MaxChunks = 8
	}
	return c
}

// A sidSite is a site with one server-side cookie "sid", and its browser.
type sidSite struct {
	*site
	st        *store
	cfg       sessplus.Config
	permanent bool
}

// start creates the session with a = "1", permanent if the case is, and returns its id.
func (c *sidSite) start() (id string) {
	c.Helper()
	c.ok(c.with(func(s *sessplus.Session) {
		s.Set("a", "1")
		if c.permanent {
			s.SetPermanent("sid", true)
		}
		if err := s.Save(); err != nil {
			c.Errorf("Save() = %v, want nil", err)
		}
		id = s.ID("sid")
	}))
	if id == "" || c.jar(c.client)["sid"] == "" {
		c.Fatalf("after Set: ID() = %q, cookie %q, want both", id, c.jar(c.client)["sid"])
	}
	return id
}

// ok checks that the handler's response came through.
func (c *sidSite) ok(r *reply) *reply {
	c.Helper()
	if r.StatusCode != http.StatusOK {
		c.Fatalf("status = %d (%s), want 200", r.StatusCode, r.body)
	}
	return r
}

// fields returns what the next request of the site's browser sees.
func (c *sidSite) fields() map[string]any {
	c.Helper()
	all := make(map[string]any)
	c.ok(c.with(func(s *sessplus.Session) {
		for _, name := range s.Fields() {
			all[name] = s.Get(name)
		}
	}))
	return all
}

// wantFields fails unless the next request sees exactly these.
func (c *sidSite) wantFields(want map[string]any) {
	c.Helper()
	if got := c.fields(); fmt.Sprint(got) != fmt.Sprint(want) {
		c.Errorf("fields of the next request = %v, want %v", got, want)
	}
}

// record looks the record of the id up in the store.
func (c *sidSite) record(id string) (*sessplus.Record, error) {
	return c.st.Backend.Load(context.Background(), recordKey(c.cfg, id))
}

var sidVariants = []struct {
	name      string
	adapt     func(*sessplus.Config)
	permanent bool
}{
	{"plain", func(*sessplus.Config) {}, false},
	{"lazy", func(c *sessplus.Config) { c.Lazy = true }, false},
	{"signed", func(c *sessplus.Config) { c.SignID = true }, false},
	{"idle", func(c *sessplus.Config) { c.IdleTimeout = time.Hour }, false},
	{"max age", func(c *sessplus.Config) { c.MaxAge = time.Hour }, false},
	{"endless", func(c *sessplus.Config) { c.Lifetime, c.IdleTimeout, c.MaxAge = -1, time.Hour, 48*time.Hour }, false},
	{"permanent", func(*sessplus.Config) {}, true},
	{"lazy signed idle permanent", func(c *sessplus.Config) { c.Lazy, c.SignID, c.IdleTimeout = true, true, time.Hour }, true},
}

// onEveryVariant runs the test with every variant of a config on every store.
func onEveryVariant(t *testing.T, test func(t *testing.T, c *sidSite)) {
	for _, s := range stores {
		for _, v := range sidVariants {
			t.Run(s.name+"/"+v.name, func(t *testing.T) {
				c := newSidSite(t, s.open(t), v.adapt)
				c.permanent = v.permanent
				test(t, c)
			})
		}
	}
}

// onStores runs the test with one config on every store.
func onStores(t *testing.T, adapt func(*sessplus.Config), test func(t *testing.T, c *sidSite)) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) { test(t, newSidSite(t, s.open(t), adapt)) })
	}
}

func newSidSite(t *testing.T, st *store, adapt func(*sessplus.Config), others ...sessplus.Config) *sidSite {
	t.Helper()
	cfg := sessplus.Config{CookieName: "sid", Backend: st}
	adapt(&cfg)
	m := newManager(t, nil, append([]sessplus.Config{cfg}, others...)...)
	return &sidSite{site: newSite(t, m), st: st, cfg: cfg}
}

func recordKey(c sessplus.Config, id string) string {
	prefix := c.KeyPrefix
	if prefix == "" {
		prefix = "session:"
	}
	sum := sha256.Sum256([]byte(id))
	return prefix + c.CookieName + ":" + hex.EncodeToString(sum[:])
}

// setCookie returns the cookie that a response sets, or nil.
func setCookie(t testing.TB, r *reply, name string) *http.Cookie {
	t.Helper()
	lines := r.setCookies(name)
	if len(lines) == 0 {
		return nil
	}
	if len(lines) > 1 {
		t.Errorf("Set-Cookie = %q, want one of each name", lines)
	}
	k, err := http.ParseSetCookie(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// wantMaxAge fails unless the response sets the cookie with a Max-Age of about want and an Expires that says the same;
// zero stands for neither, negative for no cookie at all.
func wantMaxAge(t *testing.T, what string, r *reply, want time.Duration) {
	t.Helper()
	k := setCookie(t, r, "sid")
	if k == nil || want < 0 {
		if k != nil || want >= 0 {
			t.Errorf("%s: Set-Cookie = %v, want Max-Age %v (negative: no cookie)", what, k, want)
		}
		return
	}
	got := time.Duration(k.MaxAge) * time.Second
	const slack = 30 * time.Second
	if want == 0 && (k.MaxAge != 0 || !k.Expires.IsZero()) || want > 0 && (got > want || got < want-slack) {
		t.Errorf("%s: Set-Cookie = %v, want Max-Age %v", what, k, want)
	}
	if want > 0 && time.Until(k.Expires).Abs() > got+2*time.Second || want > 0 && time.Until(k.Expires) < got-slack {
		t.Errorf("%s: Set-Cookie = %v, want an Expires that says the same as Max-Age", what, k)
	}
}

// dropsCookie reports whether the response makes the browser drop the cookie.
func dropsCookie(t *testing.T, r *reply, name string) bool {
	t.Helper()
	k := setCookie(t, r, name)
	return k != nil && k.MaxAge < 0 && k.Value == "" && k.Expires.Before(time.Now().Add(-time.Hour))
}

// meanwhile makes a request of the same browser while a handler runs.
func (c *sidSite) meanwhile(f func(*sessplus.Session)) *reply {
	c.Helper()
	return c.ok(c.with(f))
}

var errDown = errors.New("down")

// downBut is the hook of a backend that is down, except for the calls named.
func downBut(except ...string) func(context.Context, string) error {
	return func(_ context.Context, op string) error {
		if slices.Contains(except, op) {
			return nil
		}
		return errDown
	}
}

// An errorLog keeps the errors that were logged.
type errorLog struct {
	mu   sync.Mutex // guards errs
	errs []error
}

func (l *errorLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *errorLog) WithGroup(string) slog.Handler            { return l }

func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			l.errs = append(l.errs, err)
		}
		return true
	})
	return nil
}

// has reports whether an error was logged that matches target.
func (l *errorLog) has(target error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.errs, func(err error) bool { return errors.Is(err, target) })
}

// post makes a request that no client repeats, and returns the error of the round trip.
func (s *site) post(h http.HandlerFunc) (*http.Response, error) {
	s.Helper()
	s.do <- h
	res, err := s.client.Post(s.URL, "text/plain", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res, err
}

// writeRaw writes a response to a connection that was taken over, with the headers that the handler had set.
func writeRaw(w http.ResponseWriter, conn io.WriteCloser, status string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %s\r\n", status)
	w.Header().Write(&b)
	b.WriteString("Connection: close\r\n\r\n")
	_, err := conn.Write(b.Bytes())
	return errors.Join(err, conn.Close())
}

// A plain type, so that io.Copy finds no WriterTo.
type plainReader struct{ io.Reader }

// A commandHook sees each command that is sent alone, and may answer it with an error in place of the server.
type commandHook func(ctx context.Context, cmd redis.Cmder) error

func (h commandHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h commandHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := h(ctx, cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (h commandHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A tripCounter counts the round trips of a go-redis client.
type tripCounter struct{ n atomic.Int64 }

func (*tripCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *tripCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.n.Add(1)
		return next(ctx, cmd)
	}
}

func (h *tripCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.n.Add(1)
		return next(ctx, cmds)
	}
}

const cookieLimit = 4096 // of name and value together

// noise is a text of n letters that no compression or encoding makes shorter.
func noise(n int) string {
	b := make([]byte, (n+1)/2)
	rand.Read(b)
	return hex.EncodeToString(b)[:n]
}

// sizes returns name and value of each Set-Cookie that sets one, by name.
func (r *reply) sizes() map[string]int {
	m := make(map[string]int)
	for _, k := range r.Cookies() {
		if k.MaxAge >= 0 {
			m[k.Name] = len(k.Name) + len(k.Value)
		}
	}
	return m
}

// answerTo makes a request with exactly these cookies, as "name=value" texts, and returns what the handler f answers.
func (s *site) answerTo(f func(*sessplus.Session) string, cookies ...string) *reply {
	s.Helper()
	req, err := http.NewRequest("GET", s.URL, nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, c := range cookies {
		req.Header.Add("Cookie", c)
	}
	return s.send(&http.Client{}, req, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, f(sessplus.Get(r))) })
}

// bring makes a request with that Cookie header and no jar.
func (s *site) bring(cookies string, f func(*sessplus.Session)) *reply {
	s.Helper()
	return s.answerTo(func(s *sessplus.Session) string {
		f(s)
		return ""
	}, cookies)
}

func readA(s *sessplus.Session) string { return s.GetString("a") }
