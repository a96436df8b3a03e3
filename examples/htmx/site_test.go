package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sessplus/sessplus"
)

// A backend that can be taken down.
type backend struct {
	sessplus.Backend
	down atomic.Bool
}

func (b *backend) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	if b.down.Load() {
		return nil, errors.New("the backend is down")
	}
	return b.Backend.Load(ctx, key)
}

// A browser is a visitor of a site of its own.
type browser struct {
	testing.TB
	*http.Client
	url     string
	backend *backend
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	b := &backend{Backend: sessplus.Memory()}
	h, err := newSite(b)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, &http.Client{Jar: jar}, srv.URL, b}
}

// htmx sends what htmx would send.
func (b *browser) htmx(method, path string, form url.Values) (res *http.Response, body string) {
	b.Helper()
	var content io.Reader = strings.NewReader(form.Encode())
	if method != "POST" { // htmx puts the fields of others into the address
		path, content = path+"?"+form.Encode(), nil
	}
	req, err := http.NewRequest(method, b.url+path, content)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("HX-Request", "true")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err = b.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return res, string(all)
}

func TestNotes(t *testing.T) {
	b := newBrowser(t)
	b.htmx("POST", "/login", url.Values{"name": {"ann"}})
	b.htmx("POST", "/notes", url.Values{"text": {"bread & butter"}})
	_, body := b.htmx("POST", "/notes", url.Values{"text": {"milk"}})
	if !strings.HasPrefix(body, `<ul id="notes"`) || !strings.Contains(body, "<span>bread &amp; butter</span>") || !strings.Contains(body, "<span>milk</span>") {
		t.Errorf("the list is %s", body)
	}
	b.htmx("DELETE", "/notes", url.Values{"text": {"bread & butter"}})
	if _, body := b.htmx("GET", "/notes", nil); strings.Contains(body, "bread") || !strings.Contains(body, "milk") {
		t.Errorf("after one is removed the list is %s", body)
	}
}

func TestFragmentOfAnEndedSessionGoesToTheLogin(t *testing.T) {
	b := newBrowser(t)
	b.htmx("POST", "/login", url.Values{"name": {"ann"}})
	cookies := b.Jar.Cookies(parse(t, b.url))
	b.htmx("POST", "/logout", nil)
	b.Jar.SetCookies(parse(t, b.url), cookies) // as another tab that has not heard of it
	for _, method := range []string{"GET", "POST", "DELETE"} {
		res, body := b.htmx(method, "/notes", url.Values{"text": {"milk"}})
		if res.Header.Get("HX-Redirect") != "/" || body != "" {
			t.Errorf("%s is answered %s with HX-Redirect %q and %q", method, res.Status, res.Header.Get("HX-Redirect"), body)
		}
	}
}

func TestOutageSwapsNothing(t *testing.T) {
	b := newBrowser(t)
	b.htmx("POST", "/login", url.Values{"name": {"ann"}})
	b.backend.down.Store(true)
	res, body := b.htmx("POST", "/notes", url.Values{"text": {"milk"}})
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "try again") || res.Header.Get("HX-Redirect") != "" {
		t.Errorf("in an outage a fragment is answered %s %q", res.Status, body)
	}
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
