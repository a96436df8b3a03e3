package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/markbates/goth"
	"github.com/markbates/goth/gothic"
	"github.com/markbates/goth/providers/faux"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
)

// gothic logs a visitor in with our session as its store, and its end leaves what the program keeps.
func TestGothic(t *testing.T) {
	goth.UseProviders(&faux.Provider{})
	m, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("cart", "user_id"), Backend: sessplus.Memory()},
		{CookieName: "oauth", Fields: sessplus.Include("faux")},
	}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	if err != nil {
		t.Fatal(err)
	}
	gothic.Store = adopt.Store(m, "oauth")
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("cart", "tea")
		address, err := gothic.GetAuthURL(w, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		io.WriteString(w, address)
	})
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		user, err := gothic.CompleteUserAuth(w, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s := sessplus.Get(r)
		s.Renew("session")
		s.Set("user_id", "user of "+user.Provider)
	})
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		fmt.Fprint(w, s.GetString("user_id"), " ", s.GetString("cart"), " ", s.Fields())
	})
	server := httptest.NewServer(m.Handler(mux))
	defer server.Close()
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	get := func(path string) string {
		t.Helper()
		r, err := browser.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d, %s", path, r.StatusCode, body)
		}
		return string(body)
	}
	address, err := url.Parse(get("/login?provider=faux"))
	if err != nil {
		t.Fatal(err)
	}
	get("/callback?provider=faux&code=1&state=" + url.QueryEscape(address.Query().Get("state")))
	if got := get("/who"); got != "user of faux tea [cart user_id]" {
		t.Errorf("after the login: %q", got)
	}
	gothic.Store = nil
}
