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

const (
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	safari  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
	edge    = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0"
)

// A browser is one device of somebody.
type browser struct {
	testing.TB
	*http.Client
	url, agent string
	page       string // the body of the last response
}

// newVisit starts a site and returns what opens browsers on it.
func newVisit(t *testing.T, configs []sessplus.Config) (open func(agent string) *browser) {
	t.Helper()
	site, err := newSite(configs, sessplus.GenerateKeyPair())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(site.handler())
	t.Cleanup(srv.Close)
	return func(agent string) *browser {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		return &browser{TB: t, Client: &http.Client{Jar: jar}, url: srv.URL, agent: agent}
	}
}

// ask sends a request with the fields of a form, follows redirects, and fails the test if it ends with another status.
func (b *browser) ask(method, path string, status int, fields ...string) *http.Response {
	b.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	req, err := http.NewRequest(method, b.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("User-Agent", b.agent)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := b.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	b.page = html.UnescapeString(string(body))
	if res.StatusCode != status {
		b.Fatalf("%s %s = %s, want %d: %s", method, path, res.Status, status, body)
	}
	return res
}

func (b *browser) open() *http.Response {
	b.Helper()
	return b.ask("GET", "/", http.StatusOK)
}

func (b *browser) submit(path string, fields ...string) {
	b.Helper()
	b.ask("POST", path, http.StatusOK, fields...)
}

// logIn logs the browser in, and returns it.
func (b *browser) logIn(name string) *browser {
	b.Helper()
	b.open()
	b.submit("/login", "name", name)
	b.shows(`id="user">` + name)
	return b
}

// device returns the value of the button for the nth device of the page.
func (b *browser) device(n int) string {
	b.Helper()
	found := regexp.MustCompile(`name="device" value="([^"]+)"`).FindAllStringSubmatch(b.page, -1)
	if len(found) <= n {
		b.Fatalf("no device %d in %s", n, b.page)
	}
	return found[n][1]
}

// devices fails the test unless the page lists these, by name.
func (b *browser) devices(want ...string) {
	b.Helper()
	b.open()
	var got []string
	for _, found := range regexp.MustCompile(`<h2><bdi>(.*?)</bdi>`).FindAllStringSubmatch(b.page, -1) {
		got = append(got, found[1])
	}
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		b.Errorf("the devices are %q, want %q", got, want)
	}
}

func (b *browser) shows(texts ...string) {
	b.Helper()
	for _, text := range texts {
		if !strings.Contains(b.page, text) {
			b.Errorf("the page does not show %q: %s", text, b.page)
		}
	}
}

// isLoggedOut fails the test unless the page says that somebody else has ended the session, and shows nothing of the
// user.
func (b *browser) isLoggedOut() {
	b.Helper()
	b.shows(`id="ended"`, `id="login"`)
	if strings.Contains(b.page, `id="user"`) {
		b.Errorf("the page shows the user: %s", b.page)
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
