package main

import (
	_ "embed"
	"errors"
	"html/template"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
)

const (
	userName sessplus.Field[string] = "user"
	clicks   sessplus.Field[int]    = "clicks"
)

type site struct{ sessions *sessplus.Manager }

func newSite(client *redis.ClusterClient) (http.Handler, error) {
	sessions, err := sessplus.New([]sessplus.Config{{
		CookieName: "session", Fields: sessplus.Include("user", "clicks"), Backend: sessplus.Redis(client),
		// Each record is one key, on whichever server. The index of a user's sessions is another key, on another one.
		IndexBy:     "user",
		IdleTimeout: 2 * time.Hour,
	}}, nil)
	if err != nil {
		return nil, err
	}
	a := &site{sessions}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("POST /login", logIn)
	mux.HandleFunc("POST /click", click)
	mux.HandleFunc("POST /logout", a.logOutEverywhere)
	return http.NewCrossOriginProtection().Handler(sessions.Handler(http.MaxBytesHandler(mux, 64<<10))), nil
}

func logIn(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("name"))
	if name == "" || len(name) > 40 {
		http.Error(w, "please enter a name of at most 40 bytes", http.StatusBadRequest)
		return
	}
	s := sessplus.Get(r)
	s.Renew()
	userName.Set(s, name) // a real program asks for a password: see examples/login
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func click(w http.ResponseWriter, r *http.Request) {
	_, err := clicks.Update(sessplus.Get(r), func(n int) int { return n + 1 })
	if err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *site) logOutEverywhere(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if user := userName.Get(s); user != "" {
		if _, err := a.sessions.RevokeAll(r.Context(), "session", user); err != nil {
			fail(w, err)
			return
		}
	}
	s.Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// fail answers as the library does when it cannot load or save: who is told to come back is still logged in.
func fail(w http.ResponseWriter, err error) {
	log.Print(err)
	switch {
	case errors.Is(err, sessplus.ErrUnavailable):
		http.Error(w, "please try again in a moment", http.StatusServiceUnavailable)
	case errors.Is(err, sessplus.ErrSessionGone):
		http.Error(w, "you are logged out", http.StatusConflict)
	default:
		http.Error(w, "something went wrong on our side", http.StatusInternalServerError)
	}
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

func page(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	w.Header().Set("Cache-Control", "no-store") // or the back button shows it after the logout
	if err := pageTemplate.Execute(w, map[string]any{"User": userName.Get(s), "Clicks": clicks.Get(s)}); err != nil {
		log.Print(err)
	}
}
