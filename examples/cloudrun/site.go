//go:build !nofirestore

package main

import (
	_ "embed"
	"html/template"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

const (
	userName sessplus.Field[string] = "user"
	visits   sessplus.Field[int]    = "visits"
	theme    sessplus.Field[string] = "theme"
)

const day = 24 * time.Hour

func newSite(b sessplus.Backend, keys sessplus.KeyPair) (http.Handler, error) {
	sessions, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user", "visits"), Backend: b, Lifetime: 14 * day},
		{CookieName: "look", Fields: sessplus.Include("theme"), MaxAge: 365 * day},
	}, &sessplus.Options{
		Keys:         []sessplus.KeyPair{keys},
		SingleCookie: "__session", // the only one that Firebase Hosting passes on; both of the above are in it
		// Google's front end speaks TLS with the visitor, and http with this program. Nobody gets past it, and it sets
		// the header itself.
		SecureRequest: func(r *http.Request) bool { return r.Header.Get("X-Forwarded-Proto") == "https" },
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("POST /login", logIn)
	mux.HandleFunc("POST /logout", logOut)
	mux.HandleFunc("POST /theme", setTheme)
	return http.NewCrossOriginProtection().Handler(sessions.Handler(http.MaxBytesHandler(mux, 64<<10))), nil
}

func logIn(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("name"))
	if name == "" || len(name) > 40 {
		http.Error(w, "please enter a name of at most 40 bytes", http.StatusBadRequest)
		return
	}
	s := sessplus.Get(r)
	s.Renew("session")
	userName.Set(s, name) // a real program asks for a password: see examples/login
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func logOut(w http.ResponseWriter, r *http.Request) {
	sessplus.Get(r).Destroy("session") // the theme stays
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func setTheme(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if r.PostFormValue("theme") == "dark" {
		theme.Set(s, "dark")
	} else {
		theme.Delete(s)
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

type view struct {
	User   string
	Visits int
	Dark   bool
}

func page(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	v := view{User: userName.Get(s), Dark: theme.Get(s) == "dark"}
	if v.User != "" {
		v.Visits = visits.Get(s) + 1
		visits.Set(s, v.Visits)
	}
	w.Header().Set("Cache-Control", "private, no-store") // not for the CDN, nor for the back button after a logout
	if err := pageTemplate.Execute(w, v); err != nil {
		log.Print(err)
	}
}
