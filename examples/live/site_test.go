package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sessplus/sessplus"
)

// A browser is a visitor of a site of its own.
type browser struct {
	testing.TB
	*http.Client
	url string
}

const interval = 10 * time.Millisecond

func newBrowser(t *testing.T, interval, rotateEvery time.Duration) *browser {
	t.Helper()
	h, err := newSite(sessplus.Memory(), interval, rotateEvery)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, &http.Client{Jar: jar}, srv.URL}
}

func (b *browser) post(path string, form url.Values) {
	b.Helper()
	res, err := b.PostForm(b.url+path, form)
	if err != nil {
		b.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b.Fatalf("POST %s = %s", path, res.Status)
	}
}

func (b *browser) page() string {
	b.Helper()
	res, err := b.Get(b.url)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

func (b *browser) socket(ctx context.Context, library string) (*websocket.Conn, *http.Response) {
	b.Helper()
	conn, res, err := websocket.Dial(ctx, b.url+"/socket/"+library, &websocket.DialOptions{HTTPClient: b.Client})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.CloseNow() })
	return conn, res
}

func (b *browser) says(ctx context.Context, conn *websocket.Conn, text, want string) {
	b.Helper()
	if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		b.Fatal(err)
	}
	_, got, err := conn.Read(ctx)
	if err != nil || string(got) != want {
		b.Errorf("%q is answered %q, %v, want %q", text, got, err, want)
	}
}

func eachLibrary(t *testing.T, f func(t *testing.T, ctx context.Context, library string)) {
	for _, library := range []string{"coder", "gorilla"} {
		t.Run(library, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			f(t, ctx, library)
		})
	}
}

func TestSocket(t *testing.T) {
	eachLibrary(t, func(t *testing.T, ctx context.Context, library string) {
		b := newBrowser(t, interval, time.Hour)
		b.post("/login", url.Values{"name": {"ann"}})
		one, _ := b.socket(ctx, library)
		two, _ := b.socket(ctx, library)
		b.says(ctx, one, "hello", "ann: hello (message 1)")
		b.says(ctx, two, "hi", "ann: hi (message 2)")
		b.says(ctx, one, "/name  ben ", "you are ben")
		b.says(ctx, one, "/name "+strings.Repeat("x", 41), badName)
		if page := b.page(); !strings.Contains(page, "Hello, <bdi>ben</bdi>") {
			t.Errorf("a socket has set the name ben, and the page is %s", page)
		}
		b.post("/logout", nil)
		for _, conn := range []*websocket.Conn{one, two} {
			if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("after the logout the connection ends with %v", err)
			}
		}
	})
}

// A message that comes before the site has looked after the connection finds that the session has ended.
func TestMessageAfterLogout(t *testing.T) {
	eachLibrary(t, func(t *testing.T, ctx context.Context, library string) {
		b := newBrowser(t, time.Hour, time.Hour)
		b.post("/login", url.Values{"name": {"ann"}})
		conn, _ := b.socket(ctx, library)
		b.post("/logout", nil)
		if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, text, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("a message after the logout is answered %q, %v", text, err)
		}
	})
}

// SPEC 5.1: the session is saved before the 101, which brings the browser the cookie of a new id.
func TestSocketBringsCookie(t *testing.T) {
	eachLibrary(t, func(t *testing.T, ctx context.Context, library string) {
		b := newBrowser(t, interval, time.Millisecond)
		b.post("/login", url.Values{"name": {"ann"}})
		time.Sleep(2 * time.Millisecond)
		conn, res := b.socket(ctx, library)
		if cookies := res.Cookies(); len(cookies) != 1 || cookies[0].Name != "session" || cookies[0].Value == "" {
			t.Errorf("the response %s has the cookies %v, want that of the rotated id", res.Status, cookies)
		}
		b.says(ctx, conn, "hello", "ann: hello (message 1)")
	})
}

func TestEvents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b := newBrowser(t, interval, time.Hour)
	b.post("/login", url.Values{"name": {"ann"}})
	req, err := http.NewRequestWithContext(ctx, "GET", b.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() (event string) {
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok && lines.Scan() {
				return name + " " + strings.TrimPrefix(lines.Text(), "data: ")
			}
		}
		return "none"
	}
	if got := next(); got != "messages 0" {
		t.Errorf("the first event is %q", got)
	}
	conn, _ := b.socket(ctx, "coder")
	b.says(ctx, conn, "hello", "ann: hello (message 1)")
	if got := next(); got != "messages 1" {
		t.Errorf("after a message the event is %q", got)
	}
	b.post("/logout", nil)
	if got := next(); got != "bye logged out" {
		t.Errorf("after the logout the event is %q", got)
	}
	if got := next(); got != "none" {
		t.Errorf("and then there is %q", got)
	}
}

func TestAnonymous(t *testing.T) {
	b := newBrowser(t, interval, time.Hour)
	for _, path := range []string{"/events", "/socket/coder", "/socket/gorilla"} {
		res, err := b.Get(b.url + path)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized || len(res.Cookies()) != 0 {
			t.Errorf("GET %s = %s with the cookies %v", path, res.Status, res.Cookies())
		}
	}
}
