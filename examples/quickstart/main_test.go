package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

func TestVisit(t *testing.T) {
	b := newSite(t)()

	res := b.open()
	b.shows("Log in", `data-theme="light"`, "no password is needed")
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}
	if got := b.cookies(); len(got) != 1 || got["csrf"] == "" {
		t.Errorf("the first page left the cookies %v, want csrf alone", got)
	}

	b.submit("/cart", "item", "tea")
	b.submit("/cart", "item", "tea")
	b.submit("/cart", "item", "honey")
	b.shows(`id="count-tea">2<`, `id="count-honey">1<`, `id="total">3<`)
	before := b.cookies()

	b.submit("/login", "name", " Ann ")
	b.shows("Hello, Ann.", `id="plan">free<`, `id="total">3<`)
	for name := range before {
		if b.cookies()[name] == before[name] {
			t.Errorf("the cookie %s is the same after the login", name)
		}
	}

	b.submit("/plan", "plan", "pro")
	b.submit("/theme", "theme", "dark")
	b.open()
	b.shows("Hello, Ann.", `id="plan">pro<`, `data-theme="dark"`, `id="total">3<`)

	b.submit("/cart/empty")
	b.shows("Hello, Ann.", `id="total">0<`)

	b.submit("/logout")
	b.shows("Log in")
	b.hides("Ann", `id="plan"`, `data-theme="dark"`)
	if got := b.cookies(); len(got) != 1 || got["csrf"] == "" {
		t.Errorf("the logout left the cookies %v, want a new csrf alone", got)
	}
}

func TestInspect(t *testing.T) {
	open := newSite(t)
	b := open()
	b.open()
	b.submit("/login", "name", "Ann")
	b.took(b.Get(b.url + "/inspect"))(http.StatusOK)
	b.shows("user_name", "POST <code>/login</code>", `class="kind create"`)
	b.hides("Ann")
}

func TestLogoutEndsTheRecord(t *testing.T) {
	b := newSite(t)()
	b.open()
	b.submit("/login", "name", "Ann")
	stolen := b.cookies()
	b.submit("/logout")

	req, err := http.NewRequest("GET", b.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"session", "account"} {
		req.AddCookie(&http.Cookie{Name: name, Value: stolen[name]})
	}
	b.took(http.DefaultClient.Do(req))(http.StatusOK)
	b.hides("Ann")
}

func TestWrongTokenIsForbidden(t *testing.T) {
	open := newSite(t)
	mine, other := open(), open()
	other.open()
	for _, path := range []string{"/login", "/logout", "/cart", "/cart/empty", "/theme", "/plan"} {
		for name, token := range map[string]string{"none": "", "made up": "x", "another visitor's": other.token()} {
			t.Run(path+" "+name, func(t *testing.T) {
				b := mine
				b.TB = t
				b.open()
				before := b.cookies()
				b.took(b.PostForm(b.url+path, url.Values{"csrf_token": {token}, "name": {"Eve"}, "item": {"tea"}, "theme": {"dark"}}))(http.StatusForbidden)
				if after := b.cookies(); len(after) != 1 || after["csrf"] != before["csrf"] {
					t.Errorf("the cookies are %v, want %v", after, before)
				}
			})
		}
	}
	t.Run("without a session", func(t *testing.T) {
		b := open()
		b.took(b.PostForm(b.url+"/login", url.Values{"csrf_token": {""}, "name": {"Eve"}}))(http.StatusForbidden)
		if got := b.cookies(); len(got) != 0 {
			t.Errorf("the cookies are %v, want none", got)
		}
	})
}

func TestRefusedForms(t *testing.T) {
	tests := []struct {
		path, name, value string
		status            int
	}{
		{"/login", "name", "  ", http.StatusBadRequest},
		{"/login", "name", strings.Repeat("n", 41), http.StatusBadRequest},
		{"/cart", "item", "gold", http.StatusBadRequest},
		{"/theme", "theme", `"><script>`, http.StatusBadRequest},
		{"/plan", "plan", "gold", http.StatusBadRequest},
		{"/plan", "plan", "pro", http.StatusForbidden}, // not logged in
		{"/nowhere", "", "", http.StatusNotFound},
	}
	b := newSite(t)()
	for _, tt := range tests {
		t.Run(tt.path+" "+tt.value, func(t *testing.T) {
			b.TB = t
			b.open()
			b.took(b.PostForm(b.url+tt.path, url.Values{"csrf_token": {b.token()}, tt.name: {tt.value}}))(tt.status)
			if got := b.cookies(); len(got) != 1 {
				t.Errorf("the cookies are %v, want csrf alone", got)
			}
		})
	}
	for _, path := range []string{"/login", "/logout", "/cart"} {
		b.TB = t
		b.took(b.Get(b.url + path))(http.StatusMethodNotAllowed)
	}
}

func TestNamesAreEscaped(t *testing.T) {
	b := newSite(t)()
	b.open()
	b.submit("/login", "name", `<script>alert("x")</script>`)
	b.hides("<script>")
	b.shows("&lt;script&gt;")
}

// outage is a backend that is down.
type outage struct{ sessplus.Backend }

func (outage) Load(context.Context, string) (*sessplus.Record, error) {
	return nil, errors.New("connection refused")
}

func TestBackendDown(t *testing.T) {
	shop, err := newShop(sessplus.GenerateKeyPair(), outage{sessplus.Memory()}, sessplus.Memory())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(shop.handler())
	defer srv.Close()
	req, err := http.NewRequest("GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(&http.Cookie{Name: "session", Value: strings.Repeat("A", 43)})
	b := &browser{TB: t}
	b.took(http.DefaultClient.Do(req))(http.StatusServiceUnavailable)
	b.hides("connection refused")
}

func TestRun(t *testing.T) {
	for _, name := range []string{"SESSION_SECRET", "REDIS_URL", "FIRESTORE_PROJECT", "FIRESTORE_EMULATOR_HOST"} {
		t.Setenv(name, "")
	}
	t.Run("serves until it is interrupted", func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		r, w := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- run(ctx, "127.0.0.1:0", w)
			w.Close()
		}()
		var said []string
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			said = append(said, lines.Text())
			if url, ok := strings.CutPrefix(lines.Text(), "open     "); ok {
				(&browser{TB: t}).took(http.Get(url))(http.StatusOK)
				interrupt()
			}
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run = %v, want nil", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("run did not end")
		}
		for i, want := range []string{"keys     generated", "session  in memory", "account  in memory", "open     http://127.0.0.1:"} {
			if i >= len(said) || !strings.HasPrefix(said[i], want) {
				t.Errorf("it said %q, want line %d to begin with %q", said, i+1, want)
			}
		}
	})
	t.Run("refuses a short secret", func(t *testing.T) {
		t.Setenv("SESSION_SECRET", "short")
		err := run(t.Context(), "127.0.0.1:0", io.Discard)
		var mistake *sessplus.ConfigError
		if !errors.As(err, &mistake) || mistake.Field != "Keys" {
			t.Errorf("run = %v, want a ConfigError of Keys", err)
		}
	})
	t.Run("refuses a wrong URL without quoting it", func(t *testing.T) {
		t.Setenv("REDIS_URL", "http://:password@127.0.0.1")
		if err := run(t.Context(), "127.0.0.1:0", io.Discard); err == nil || strings.Contains(err.Error(), "password") {
			t.Errorf("run = %v, want an error without the password", err)
		}
	})
}
