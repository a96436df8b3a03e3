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
	"time"

	"github.com/sessplus/sessplus"
)

func init() { rounds = 1000 }

// A browser is one device of somebody.
type browser struct {
	testing.TB
	*http.Client
	url  *url.URL
	page string // what it shows
}

func newServer(t *testing.T) *url.URL {
	t.Helper()
	a, err := newSite(sessplus.Memory(), sessplus.GenerateKeyPair(), sessplus.SecureAuto)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(a.handler())
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func open(t *testing.T, u *url.URL) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{TB: t, Client: &http.Client{Jar: jar}, url: u}
	b.get()
	return b
}

func (b *browser) took(res *http.Response, err error) (status int) {
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
	return res.StatusCode
}

func (b *browser) get() int {
	b.Helper()
	return b.took(b.Get(b.url.String()))
}

var hidden = regexp.MustCompile(`name="csrf_token" value="([^"]*)"`)

// send sends a form of the page that the browser shows, with its token.
func (b *browser) send(path string, form url.Values) int {
	b.Helper()
	m := hidden.FindStringSubmatch(b.page)
	if m == nil {
		b.Fatalf("the page has no form: %s", b.page)
	}
	form.Set("csrf_token", html.UnescapeString(m[1]))
	return b.took(b.PostForm(b.url.String()+path, form))
}

func (b *browser) logIn(form url.Values) {
	b.Helper()
	form.Set("name", "ann")
	if !form.Has("password") {
		form.Set("password", "correct horse")
	}
	b.send("/login", form)
}

// shows fails the test unless the page has the text.
func (b *browser) shows(text string) {
	b.Helper()
	if !strings.Contains(b.page, text) {
		b.Errorf("the page lacks %q: %s", text, b.page)
	}
}

func (b *browser) id() string {
	for _, k := range b.Jar.Cookies(b.url) {
		if k.Name == "session" {
			return k.Value
		}
	}
	return ""
}

const welcome = "Welcome, ann."

func TestLoginAndLogout(t *testing.T) {
	b := open(t, newServer(t))
	b.logIn(url.Values{"password": {"wrong"}})
	b.shows("not the name and password")
	b.logIn(url.Values{})
	b.shows(welcome)
	b.shows("until you close the browser")
	if b.get(); strings.Contains(b.page, welcome) {
		t.Error("the notice is shown twice")
	}
	before := b.id()
	b.logIn(url.Values{"remember": {"yes"}})
	if b.id() == before {
		t.Error("a login keeps the id from before")
	}
	b.shows("You are remembered")
	b.send("/logout", url.Values{})
	b.shows("You are logged out.")
	b.shows(`id="login"`)
	if b.id() != "" {
		t.Error("the cookie is still there after the logout")
	}
}

func TestFormsNeedTheirToken(t *testing.T) {
	b := open(t, newServer(t))
	before := hidden.FindStringSubmatch(b.page)[1]
	credentials := url.Values{"name": {"ann"}, "password": {"correct horse"}}
	if status := b.took(b.PostForm(b.url.String()+"/login", credentials)); status != http.StatusForbidden {
		t.Errorf("a form without a token is answered %d", status)
	}
	b.get()
	b.logIn(url.Values{})
	if status := b.took(b.PostForm(b.url.String()+"/logout", url.Values{"csrf_token": {before}})); status != http.StatusForbidden {
		t.Errorf("a form with the token from before the login is answered %d", status)
	}
	b.get()
	b.shows(`id="user">ann<`)
}

func TestLogOutEverywhere(t *testing.T) {
	u := newServer(t)
	phone, laptop := open(t, u), open(t, u)
	phone.logIn(url.Values{})
	laptop.logIn(url.Values{})
	laptop.send("/logout/all", url.Values{})
	laptop.shows("You are logged out of 2 session(s).")
	phone.get()
	phone.shows(`id="login"`)
}

func TestNewPasswordLogsOthersOut(t *testing.T) {
	u := newServer(t)
	phone, laptop := open(t, u), open(t, u)
	phone.logIn(url.Values{})
	laptop.logIn(url.Values{})
	before := laptop.id()
	laptop.send("/password", url.Values{"password": {"correct horse"}, "new": {"staple"}})
	laptop.shows("1 other session(s)")
	laptop.shows(`id="user">ann<`)
	if laptop.id() == before {
		t.Error("the session keeps its id when the password changes")
	}
	phone.get()
	phone.shows(`id="login"`)
	phone.logIn(url.Values{})
	phone.shows("not the name and password")
	phone.logIn(url.Values{"password": {"staple"}})
	phone.shows(welcome)
}

func TestRemembered(t *testing.T) {
	u := newServer(t)
	for remember, want := range map[string]bool{"": false, "yes": true} {
		b := open(t, u)
		form := url.Values{"name": {"ann"}, "password": {"correct horse"}, "remember": {remember}}
		form.Set("csrf_token", hidden.FindStringSubmatch(b.page)[1])
		b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		res, err := b.PostForm(u.String()+"/login", form)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		for _, k := range res.Cookies() {
			if long := k.MaxAge > int(10*day/time.Second); k.Name == "session" && long != want {
				t.Errorf("with remember=%q the cookie has the Max-Age %d", remember, k.MaxAge)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	for secret, fails := range map[string]bool{
		"": false, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=": false, "c2hvcnQ=": true, "not base64!": true,
	} {
		if _, err := keysFrom(secret); (err != nil) != fails {
			t.Errorf("keysFrom(%q) = %v", secret, err)
		}
	}
}
