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

func newBrowser(t *testing.T) *browser {
	t.Helper()
	h, err := newSite(sessplus.Memory(), 10*time.Millisecond)
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

func (b *browser) socket(ctx context.Context) *websocket.Conn {
	b.Helper()
	conn, _, err := websocket.Dial(ctx, b.url+"/socket", &websocket.DialOptions{HTTPClient: b.Client})
	if err != nil {
		b.Fatal(err)
	}
	return conn
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

func TestSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b := newBrowser(t)
	b.post("/login", url.Values{"name": {"ann"}})
	one, two := b.socket(ctx), b.socket(ctx)
	defer one.CloseNow()
	defer two.CloseNow()
	b.says(ctx, one, "hello", "ann: hello (message 1)")
	b.says(ctx, two, "hi", "ann: hi (message 2)")
	b.post("/logout", nil)
	for _, conn := range []*websocket.Conn{one, two} {
		if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("after the logout the connection ends with %v", err)
		}
	}
}

func TestEvents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b := newBrowser(t)
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
	conn := b.socket(ctx)
	defer conn.CloseNow()
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
	b := newBrowser(t)
	for _, path := range []string{"/events", "/socket"} {
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
