package inspect_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/inspect"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplustest"
)

func TestMain(m *testing.M) { servers.Main(m) }

// A site is a program with the page at /inspect, and a browser.
type site struct {
	testing.TB
	*http.Client
	mgr  *sessplus.Manager
	url  string
	page string // the body of the last response
	do   func(s *sessplus.Session)

	handler http.Handler
}

func newSite(t testing.TB, opts *sessplus.Options, configs ...sessplus.Config) *site {
	t.Helper()
	var events inspect.Events
	o := sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}}
	if opts != nil {
		o = *opts
	}
	o.OnEvent = events.OnEvent
	mgr, err := sessplus.New(configs, &o)
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &site{TB: t, Client: &http.Client{Jar: jar}, mgr: mgr}
	mux := http.NewServeMux()
	mux.Handle("/", mgr.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.do(sessplus.Get(r)) })))
	page := inspect.New(mgr, &inspect.Options{Events: &events})
	mux.Handle("/inspect", page)
	mux.Handle("/inside", mgr.Handler(page))
	other := sessplus.Must(sessplus.New([]sessplus.Config{{CookieName: "other", Backend: sessplus.Memory()}}, nil))
	mux.Handle("/behind", mgr.Handler(other.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mgr.Get(r).Get("user") // as what checks a login does
		page.ServeHTTP(w, r)
	}))))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	b.handler = mux
	b.url = srv.URL
	return b
}

// with runs the program's handler.
func (b *site) with(do func(s *sessplus.Session)) {
	b.Helper()
	b.do = do
	b.ask("GET", "/", nil, http.StatusOK)
}

// ask sends a request as a browser does, follows redirects, and fails the test if it ends with another status.
func (b *site) ask(method, path string, form url.Values, status int, header ...string) *http.Response {
	b.Helper()
	req, err := http.NewRequest(method, b.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", b.url)
	}
	for i := 0; i < len(header); i += 2 {
		if req.Header.Del(header[i]); header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	res, err := b.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	if b.page = string(body); res.StatusCode != status {
		b.Fatalf("%s %s = %s, want %d: %s", method, path, res.Status, status, body)
	}
	return res
}

func (b *site) open() *http.Response {
	b.Helper()
	return b.ask("GET", "/inspect", nil, http.StatusOK)
}

// press presses a button of the page.
func (b *site) press(do, cookie string) {
	b.Helper()
	b.open()
	b.ask("POST", "/inspect", url.Values{"token": {b.token()}, "do": {do}, "cookie": {cookie}}, http.StatusOK)
}

func (b *site) token() string {
	b.Helper()
	found := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(b.page)
	if found == nil {
		b.Fatalf("no form in %s", b.page)
	}
	return html.UnescapeString(found[1])
}

// text is what the page says, without its tags.
func (b *site) text() string {
	plain := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(b.page, " ")
	return html.UnescapeString(strings.Join(strings.Fields(plain), " "))
}

func (b *site) shows(texts ...string) {
	b.Helper()
	for _, want := range texts {
		if !strings.Contains(b.text(), want) {
			b.Errorf("the page does not show %q: %s", want, b.text())
		}
	}
}

func (b *site) hides(texts ...string) {
	b.Helper()
	for _, secret := range texts {
		if strings.Contains(b.page, secret) {
			b.Errorf("the page shows %q: %s", secret, b.page)
		}
	}
}

// cookie is the value of one that the browser has.
func (b *site) cookie(name string) string {
	u, _ := url.Parse(b.url)
	for _, c := range b.Jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

func two(backend sessplus.Backend) []sessplus.Config {
	return []sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user", "note"), Backend: backend, IdleTimeout: time.Hour, RotateEvery: 90 * time.Minute},
		{CookieName: "data", Fields: sessplus.Auto(), MaxAge: 48 * time.Hour, MaxChunks: 2},
	}
}

func TestPageShowsWhetherASessionIsBound(t *testing.T) {
	b := newSite(t, nil, sessplus.Config{CookieName: "session", Backend: sessplus.Memory(), DeviceBound: 10 * time.Minute})
	b.with(func(s *sessplus.Session) { s.Set("user", "Ann") })
	b.open()
	b.shows("Device not bound")

	srv := httptest.NewTLSServer(b.handler)
	t.Cleanup(srv.Close)
	b.url, b.Client = srv.URL, &http.Client{Transport: sessplustest.NewBrowser(srv.Client().Transport)}
	b.with(func(s *sessplus.Session) { s.Renew(); s.Set("user", "Ann") })
	b.open()
	b.shows("Device bound to its key")
}

func TestPageShowsSessions(t *testing.T) {
	b := newSite(t, nil, two(sessplus.Memory())...)
	b.open()
	b.shows(
		"user session memory the server 1 d 1 h every 1 h 30 min",
		"any other (auto) data secure cookie the server; the browser holds it encrypted 2 d – –",
		"session memory no session", "No cookies.", "Nothing yet.")

	b.with(func(s *sessplus.Session) {
		s.Set("user", "Ann")
		s.Set("note", "<script>alert(1)</script>")
		s.Set("theme", "forest")
	})
	res := b.open()
	b.shows("session memory live", "in 59 min", "Next rotation in 1 h 29 min", "user 9", "theme 13", "Handle", "2 cookies",
		"In the browser: 50 of 4096 bytes", "of 8192 bytes", "Path=/; HttpOnly; SameSite=Lax", "until it closes", "GET / create")
	b.hides("Ann", "alert", "forest", b.cookie("session"), b.cookie("data"))
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, inline := range []string{" style=", " onclick=", "<style", "<script>"} {
		b.hides(inline) // which the policy forbids
	}

	b.ask("GET", "/inspect?show=session", nil, http.StatusOK)
	b.shows(`"Ann"`, `\u003cscript\u003e`)
	b.hides("forest", "<script>alert", b.cookie("session"))
	b.ask("GET", "/inspect?show=data", nil, http.StatusOK)
	b.shows(`"forest"`)
	b.hides("Ann")
}

func TestPageShowsOtherCodecs(t *testing.T) {
	b := newSite(t, &sessplus.Options{Codec: sessplus.Gob()}, sessplus.Config{CookieName: "session", Backend: sessplus.Memory()})
	b.with(func(s *sessplus.Session) { s.Set("user", []string{"<b>Ann"}) })
	b.ask("GET", "/inspect?show=session", nil, http.StatusOK)
	b.shows(`[]string{"<b>Ann"}`)
	b.hides("<b>Ann")
}

// A counter counts what changes records.
type counter struct {
	sessplus.Backend
	changes atomic.Int32
}

func (c *counter) Create(ctx context.Context, key string, r *sessplus.Record) error {
	c.changes.Add(1)
	return c.Backend.Create(ctx, key, r)
}

func (c *counter) Update(ctx context.Context, key string, u *sessplus.Change) (sessplus.Result, error) {
	c.changes.Add(1)
	return c.Backend.Update(ctx, key, u)
}

func (c *counter) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	c.changes.Add(1)
	return c.Backend.End(ctx, key, e)
}

// A look is no use of a session, and changes neither it nor the browser: not even where the idle timeout is to be
// moved, the id to be rotated and a cookie to be written with a newer key.
func TestPageChangesNothing(t *testing.T) {
	backend := &counter{Backend: sessplus.Memory()}
	configs := []sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user"), Backend: backend, IdleTimeout: 10 * time.Second, RotateEvery: time.Millisecond, SignID: true, MaxAge: time.Hour},
		{CookieName: "data", Fields: sessplus.Auto()},
	}
	older, newer := sessplus.GenerateKeyPair(), sessplus.GenerateKeyPair()
	first := newSite(t, &sessplus.Options{Keys: []sessplus.KeyPair{older}}, configs...)
	first.with(func(s *sessplus.Session) { s.Set("user", "Ann"); s.Set("theme", "forest") })
	b := newSite(t, &sessplus.Options{Keys: []sessplus.KeyPair{newer, older}}, configs...)
	u, _ := url.Parse(b.url)
	from, _ := url.Parse(first.url)
	b.Jar.SetCookies(u, first.Jar.Cookies(from))
	time.Sleep(1100 * time.Millisecond) // more than a tenth of the idle timeout
	before := backend.changes.Load()
	first.ask("GET", "/behind", nil, http.StatusOK)
	for _, path := range []string{"/inspect", "/inspect?show=session&show=data", "/inside"} {
		res := b.ask("GET", path, nil, http.StatusOK)
		b.shows("session *inspect_test.counter live", "theme 13")
		if set := res.Header["Set-Cookie"]; len(set) > 0 {
			t.Errorf("%s sets %d cookies", path, len(set))
		}
	}
	if n := backend.changes.Load() - before; n != 0 {
		t.Errorf("the page has made %d changes", n)
	}

	b.Jar, _ = cookiejar.New(nil)
	for _, path := range []string{"/inspect", "/inside"} {
		if set := b.ask("GET", path, nil, http.StatusOK).Header["Set-Cookie"]; len(set) > 0 {
			t.Errorf("%s sets %d cookies for a stranger", path, len(set))
		}
	}
	if n := backend.changes.Load() - before; n != 0 {
		t.Errorf("the page has made %d changes for a stranger", n)
	}
	first.with(func(s *sessplus.Session) { s.Get("user") })
	if backend.changes.Load() == before {
		t.Error("a use changes nothing either")
	}
}

func TestLooksAreNoEvents(t *testing.T) {
	b := newSite(t, nil, two(sessplus.Memory())...)
	b.with(func(s *sessplus.Session) { s.Set("user", "Ann") })
	b.open()
	b.open()
	b.shows("1 GET / create session")
	if n := strings.Count(b.page, "<li data-no="); n != 1 {
		t.Errorf("the page shows %d events, want 1", n)
	}
}

func TestHosts(t *testing.T) {
	mgr := sessplus.Must(sessplus.New([]sessplus.Config{{CookieName: "s", Backend: sessplus.Memory()}}, nil))
	here, named := inspect.New(mgr, nil), inspect.New(mgr, &inspect.Options{Hosts: []string{"Dev.example.org"}})
	for _, tt := range []struct {
		host, remote, proxy string
		here, named         int
	}{
		{"localhost:8080", "127.0.0.1:5", "", 200, 200},
		{"LOCALHOST", "127.0.0.1:5", "", 200, 200},
		{"shop.localhost:8080", "127.0.0.1:5", "", 200, 200},
		{"127.0.0.1", "127.0.0.1:5", "", 200, 200},
		{"[::1]:8080", "[::1]:5", "", 200, 200},
		{"[::1]", "[::1]:5", "", 200, 200},
		{"dev.example.org:8080", "192.0.2.7:5", "", 403, 200},
		{"dev.example.org", "127.0.0.1:5", "Via", 403, 200},
		{"evil.example.org:8080", "127.0.0.1:5", "", 403, 403}, // DNS rebinding
		{"localhost.evil.example.org", "127.0.0.1:5", "", 403, 403},
		{"127.0.0.1.evil.example.org", "127.0.0.1:5", "", 403, 403},
		{"notlocalhost", "127.0.0.1:5", "", 403, 403},
		{"localhost", "192.0.2.7:5", "", 403, 403},
		{"192.0.2.7", "192.0.2.7:5", "", 403, 403},
		{"", "127.0.0.1:5", "", 403, 403},
		{"localhost", "127.0.0.1:5", "X-Forwarded-For", 403, 403},
		{"localhost", "127.0.0.1:5", "Forwarded", 403, 403},
		{"localhost", "127.0.0.1:5", "X-Real-Ip", 403, 403},
	} {
		for _, target := range []string{"/", "/?events=0", "/?file=script.js"} {
			for name, h := range map[string]http.Handler{"here": here, "named": named} {
				r := httptest.NewRequest("GET", target, nil)
				r.Host, r.RemoteAddr = tt.host, tt.remote
				if tt.proxy != "" {
					r.Header.Set(tt.proxy, "x")
				}
				want := tt.here
				if name == "named" {
					want = tt.named
				}
				if want == 200 && strings.Contains(target, "events") {
					want = 404 // none are kept
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != want {
					t.Errorf("%s: %s of host %q from %s, %s: status %d, want %d", name, target, tt.host, tt.remote, tt.proxy, w.Code, want)
				}
				if w.Header().Get("Content-Security-Policy") == "" {
					t.Errorf("%s of host %q has no policy", target, tt.host)
				}
			}
		}
	}
}

func TestRefusedButtons(t *testing.T) {
	b := newSite(t, nil, two(sessplus.Memory())...)
	b.with(func(s *sessplus.Session) { s.Set("user", "Ann"); s.Set("theme", "forest") })
	b.open()
	good := func(change ...string) url.Values {
		form := url.Values{"token": {b.token()}, "do": {"end"}, "cookie": {"session"}}
		for i := 0; i < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return form
	}
	for name, tt := range map[string]struct {
		form   url.Values
		header []string
		status int
	}{
		"no token":              {good("token", ""), nil, 403},
		"another token":         {good("token", "x"), nil, 403},
		"another origin":        {good(), []string{"Origin", "http://evil.example.org"}, 403},
		"an origin of a frame":  {good(), []string{"Origin", "null"}, 403},
		"another port":          {good(), []string{"Origin", "http://127.0.0.1:1"}, 403},
		"no origin":             {good(), []string{"Origin", ""}, 403},
		"a link of another":     {good(), []string{"Origin", "", "Sec-Fetch-Site", "cross-site"}, 403},
		"a sister":              {good(), []string{"Origin", "", "Sec-Fetch-Site", "same-site"}, 403},
		"no cookie":             {good("cookie", "nothing"), nil, 400},
		"no deed":               {good("do", "nothing"), nil, 400},
		"expire in the browser": {good("do", "expire", "cookie", "data"), nil, 400},
		"rotate in the browser": {good("do", "rotate", "cookie", "data"), nil, 400},
		"a large form":          {good("more", strings.Repeat("x", 5000)), nil, 403},
	} {
		t.Run(name, func(t *testing.T) {
			page := b.page
			defer func() { b.page = page }()
			res := b.ask("POST", "/inspect", tt.form, tt.status, tt.header...)
			if len(res.Header["Set-Cookie"]) > 0 {
				t.Error("it sets a cookie")
			}
		})
	}
	token := b.token()
	b.ask("GET", "/inspect?do=end&cookie=session&token="+token, nil, http.StatusOK)
	b.ask("PUT", "/inspect?do=end&cookie=session&token="+token, nil, http.StatusMethodNotAllowed)
	b.ask("POST", "/inspect?do=end&cookie=session&token="+token, nil, http.StatusForbidden) // addresses leak
	b.with(func(s *sessplus.Session) {
		if s.GetString("user") != "Ann" || s.GetString("theme") != "forest" {
			t.Error("a session has ended")
		}
	})
	b.ask("POST", "/inspect", url.Values{"token": {token}, "do": {"end"}, "cookie": {"data"}}, http.StatusOK,
		"Origin", "", "Sec-Fetch-Site", "same-origin")
	b.shows("data was ended")
}

func TestButtons(t *testing.T) {
	backends := map[string]func(t *testing.T) sessplus.Backend{
		"memory":    func(*testing.T) sessplus.Backend { return sessplus.Memory() },
		"Redis":     func(t *testing.T) sessplus.Backend { return sessplus.Redis(servers.Redis(t)) },
		"Firestore": func(t *testing.T) sessplus.Backend { return sessplus.Firestore(servers.Firestore(t), "sessions") },
	}
	for name, open := range backends {
		for _, single := range []string{"", "one"} {
			t.Run(name+" "+single, func(t *testing.T) { testButtons(t, open(t), single) })
		}
	}
}

func testButtons(t *testing.T, backend sessplus.Backend, single string) {
	configs := []sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user"), Backend: backend, IndexBy: "user"},
		{CookieName: "bound", Fields: sessplus.Include("draft"), BoundTo: "session"},
		{CookieName: "data", Fields: sessplus.Auto()},
	}
	keys := []sessplus.KeyPair{sessplus.GenerateKeyPair()}
	b := newSite(t, &sessplus.Options{Keys: keys, SingleCookie: single}, configs...)
	login := func() {
		t.Helper()
		b.with(func(s *sessplus.Session) { s.Set("user", "Ann"); s.Set("draft", "d"); s.Set("theme", "forest") })
	}
	var id string
	has := func(when, user, draft, theme string) {
		t.Helper()
		b.with(func(s *sessplus.Session) {
			id = s.ID("session")
			if s.GetString("user") != user || s.GetString("draft") != draft || s.GetString("theme") != theme {
				t.Errorf("%s the fields are %v, want %q, %q, %q", when, s.Values(), user, draft, theme)
			}
		})
	}
	login()
	has("at first", "Ann", "d", "forest")
	old := id

	b.press("rotate", "session")
	b.shows("session has a new id.", "Rotated", "POST /inspect rotate")
	has("after a rotation", "Ann", "d", "forest")
	if id == old {
		t.Error("the id is the same after a rotation")
	}
	old = id
	has("and once only", "Ann", "d", "forest")
	if id != old {
		t.Error("a rotation is repeated")
	}

	b.press("expire", "session")
	b.shows("session has expired", "POST /inspect touch")
	if list, err := b.mgr.Sessions(t.Context(), "session", "Ann"); err != nil || len(list) != 0 {
		t.Errorf("after it expired Sessions = %v, %v, want none", list, err)
	}
	has("after it expired", "", "", "forest")
	b.open()
	b.shows("GET / miss")
	b.hides("error of")
	login()
	has("after another login", "Ann", "d", "forest")

	b.press("end", "session")
	b.shows("session was ended", "POST /inspect destroy")
	has("after it ended", "", "", "forest")
	b.press("end", "data")
	has("after all ended", "", "", "")
	b.open()
	for _, name := range []string{"session", "bound", "data", "one"} {
		if b.cookie(name) != "" {
			t.Errorf("the browser still has the cookie %s", name)
		}
	}

	// A page that is out of date.
	login()
	b.open()
	form := url.Values{"token": {b.token()}, "cookie": {"session"}}
	b.with(func(s *sessplus.Session) { s.Destroy() })
	for _, do := range []string{"rotate", "expire", "end"} {
		form.Set("do", do)
		b.ask("POST", "/inspect", form, http.StatusOK)
		has("after "+do+" of nothing", "", "", "")
	}
}

func TestButtonsBehindTheMiddleware(t *testing.T) {
	for _, path := range []string{"/inside", "/behind"} {
		b := newSite(t, nil, two(sessplus.Memory())...)
		b.with(func(s *sessplus.Session) { s.Set("user", "Ann") })
		before := b.cookie("session")
		b.ask("GET", path, nil, http.StatusOK)
		b.ask("POST", path, url.Values{"token": {b.token()}, "do": {"rotate"}, "cookie": {"session"}}, http.StatusOK)
		b.shows("session has a new id.")
		if n := strings.Count(b.page, `class="kind rotate"`); n != 1 || b.cookie("session") == before {
			t.Errorf("%s: %d rotations, new cookie %v; want one", path, n, b.cookie("session") != before)
		}
		b.with(func(s *sessplus.Session) {
			if s.GetString("user") != "Ann" {
				t.Errorf("%s: the session has ended", path)
			}
		})
	}
}

type outage struct{ sessplus.Backend }

func (outage) Load(context.Context, string) (*sessplus.Record, error) {
	return nil, errors.New("connection refused")
}

func TestBackendDown(t *testing.T) {
	b := newSite(t, nil, two(outage{sessplus.Memory()})...)
	b.with(func(s *sessplus.Session) { s.Set("user", "Ann") })
	res := b.ask("GET", "/inspect", nil, http.StatusServiceUnavailable)
	b.shows("The sessions cannot be loaded.", "connection refused", "user session", "GET / create")
	if len(res.Header["Set-Cookie"]) > 0 {
		t.Error("it sets a cookie")
	}

	configs := two(outage{sessplus.Memory()})
	configs[0].Optional = true
	b = newSite(t, nil, configs...)
	b.with(func(s *sessplus.Session) { s.Set("user", "Ann") })
	b.open()
	b.shows("cannot be loaded", "connection refused")
	b.hides("alert")
}

// stream reads the events from a number on.
func (b *site) stream(from string, header ...string) (next func() string) {
	b.Helper()
	req, err := http.NewRequest("GET", b.url+"/inspect?events="+from, nil)
	if err != nil {
		b.Fatal(err)
	}
	if len(header) > 0 {
		req.Header.Set(header[0], header[1])
	}
	res, err := b.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { res.Body.Close() })
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "text/event-stream" {
		b.Fatalf("the stream has status %d and type %q", res.StatusCode, got)
	}
	lines := bufio.NewScanner(res.Body)
	return func() string {
		b.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return data
			}
		}
		b.Fatalf("the stream has ended: %v", lines.Err())
		return ""
	}
}

func TestStream(t *testing.T) {
	b := newSite(t, nil, two(sessplus.Memory())...)
	next := b.stream("0")
	b.do = func(s *sessplus.Session) { s.Set("user", "Ann"); s.Set("theme", "forest") }
	b.ask("GET", "/<b>?secret", nil, http.StatusOK)
	b.with(func(s *sessplus.Session) { s.Get("user") })
	for i, want := range []string{
		`<b>1</b> GET <code>/%3Cb%3E</code></span> <b class="kind create">create</b> <code class="cookie">session</code>`,
		`<b>1</b> GET <code>/%3Cb%3E</code></span> <b class="kind create">create</b> <code class="cookie">data</code>`,
		`<b>2</b> GET <code>/</code></span> <b class="kind load">load</b> <code class="cookie">session</code>`,
	} {
		if got := next(); !strings.Contains(got, want) || !strings.Contains(got, fmt.Sprintf(`data-no="%d"`, i+1)) || strings.Contains(got, "secret") {
			t.Errorf("event %d is %s, want %s", i+1, got, want)
		}
	}
	if got := b.stream("0", "Last-Event-Id", "2")(); !strings.Contains(got, `data-no="3"`) {
		t.Errorf("after the second event comes %s", got)
	}
	if got := b.stream("77")(); !strings.Contains(got, `data-no="1"`) { // the page is from before a restart
		t.Errorf("after an event of a former program comes %s", got)
	}
	b.ask("GET", "/inspect?events=x", nil, http.StatusBadRequest)
}

// Of many events the last ones are kept, and a browser that has not listened for long gets those.
func TestManyEvents(t *testing.T) {
	var events inspect.Events
	mgr := sessplus.Must(sessplus.New([]sessplus.Config{{CookieName: "s", Backend: sessplus.Memory()}}, &sessplus.Options{OnEvent: events.OnEvent}))
	for range 250 {
		events.OnEvent(t.Context(), sessplus.Event{Kind: sessplus.EventError, Op: sessplus.EventSave, Cookie: "s", Err: errors.New("<i>")})
	}
	r := httptest.NewRequest("GET", "http://localhost/", nil)
	r.RemoteAddr = "127.0.0.1:5"
	w := httptest.NewRecorder()
	inspect.New(mgr, &inspect.Options{Events: &events}).ServeHTTP(w, r)
	page := w.Body.String()
	if n := strings.Count(page, "<li data-no="); n != 100 || !strings.Contains(page, `data-no="250"`) || strings.Contains(page, `data-no="150"`) {
		t.Errorf("the page has %d events, want 151 to 250", n)
	}
	if !strings.Contains(page, "error of save") || !strings.Contains(page, "&lt;i&gt;") || !strings.Contains(page, "outside of a request") {
		t.Errorf("the error is not told: %s", page)
	}
}

// A stream holds up no shutdown for longer than programs wait.
func TestStreamEndsBeforeShutdownGivesUp(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 8 seconds")
	}
	t.Parallel()
	var events inspect.Events
	mgr := sessplus.Must(sessplus.New([]sessplus.Config{{CookieName: "s", Backend: sessplus.Memory()}}, &sessplus.Options{OnEvent: events.OnEvent}))
	srv := httptest.NewServer(inspect.New(mgr, &inspect.Options{Events: &events}))
	defer srv.Close()
	res, err := http.Get(srv.URL + "?events=0")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Config.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v, want nil", err)
	}
}

func TestFiles(t *testing.T) {
	b := newSite(t, nil, two(sessplus.Memory())...)
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "script.js": "text/javascript; charset=utf-8"} {
		if got := b.ask("GET", "/inspect?file="+name, nil, http.StatusOK).Header.Get("Content-Type"); got != kind {
			t.Errorf("%s is %q, want %q", name, got, kind)
		}
		b.hides("http://", "https://", "//cdn") // nothing is fetched from elsewhere
	}
	for _, name := range []string{"page.html", "../inspect.go", "", "."} {
		b.ask("GET", "/inspect?file="+url.QueryEscape(name), nil, http.StatusNotFound)
	}
}

// The page works wherever it is mounted.
func TestMounts(t *testing.T) {
	mgr := sessplus.Must(sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory()}}, nil))
	mux := http.NewServeMux()
	mux.Handle("/", mgr.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user", "Ann") })))
	mux.Handle("/a/b/", http.StripPrefix("/a/b", inspect.New(mgr, nil)))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	jar, _ := cookiejar.New(nil)
	b := &site{TB: t, Client: &http.Client{Jar: jar}, url: srv.URL}
	b.ask("GET", "/", nil, http.StatusOK)
	b.ask("GET", "/a/b/", nil, http.StatusOK)
	b.shows("The program keeps no events")
	res := b.ask("POST", "/a/b/", url.Values{"token": {b.token()}, "do": {"end"}, "cookie": {"session"}}, http.StatusOK)
	if got := res.Request.URL.Path; got != "/a/b/" {
		t.Errorf("the button leads to %s, want /a/b/", got)
	}
	b.shows("session was ended")
}
