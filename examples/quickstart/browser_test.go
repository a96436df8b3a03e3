package main

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

// A browser is a visitor of the shop.
type browser struct {
	testing.TB
	*http.Client
	url  string
	page string // the body of the last response
}

func newSite(t *testing.T) (open func() *browser) {
	t.Helper()
	shop, err := newShop(sessplus.GenerateKeyPair(), sessplus.Memory(), sessplus.Memory())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(shop.handler())
	t.Cleanup(srv.Close)
	return func() *browser {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		return &browser{TB: t, Client: &http.Client{Jar: jar}, url: srv.URL}
	}
}

// took reads a response, and fails the test if its status is another one.
func (b *browser) took(res *http.Response, err error) func(status int) *http.Response {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	b.page = string(body)
	return func(status int) *http.Response {
		b.Helper()
		if res.StatusCode != status {
			b.Fatalf("%s %s = %s, want %d: %s", res.Request.Method, res.Request.URL, res.Status, status, b.page)
		}
		return res
	}
}

// open shows the page.
func (b *browser) open() *http.Response {
	b.Helper()
	return b.took(b.Get(b.url))(http.StatusOK)
}

var tokenPattern = regexp.MustCompile(`name="csrf_token" value="([^"]+)"`)

// token returns that of the forms of the page.
func (b *browser) token() string {
	b.Helper()
	found := tokenPattern.FindStringSubmatch(b.page)
	if found == nil {
		b.Fatalf("no form with a token in %s", b.page)
	}
	return html.UnescapeString(found[1])
}

// submit sends a form of the page, and follows the redirect.
func (b *browser) submit(path string, fields ...string) {
	b.Helper()
	form := url.Values{"csrf_token": {b.token()}}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	b.took(b.PostForm(b.url+path, form))(http.StatusOK)
}

func (b *browser) shows(texts ...string) {
	b.Helper()
	for _, text := range texts {
		if !strings.Contains(b.page, text) {
			b.Errorf("the page does not show %q: %s", text, b.page)
		}
	}
}

func (b *browser) hides(texts ...string) {
	b.Helper()
	for _, text := range texts {
		if strings.Contains(b.page, text) {
			b.Errorf("the page shows %q: %s", text, b.page)
		}
	}
}

// cookies returns what the browser would send.
func (b *browser) cookies() map[string]string {
	u, err := url.Parse(b.url)
	if err != nil {
		b.Fatal(err)
	}
	all := make(map[string]string)
	for _, c := range b.Jar.Cookies(u) {
		all[c.Name] = c.Value
	}
	return all
}
