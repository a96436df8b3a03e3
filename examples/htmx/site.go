package main

import (
	"bytes"
	_ "embed"
	"errors"
	"html/template"
	"log"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

const (
	userName sessplus.Field[string]   = "user"
	notes    sessplus.Field[[]string] = "notes"
)

func newSite(b sessplus.Backend) (http.Handler, error) {
	sessions, err := sessplus.New([]sessplus.Config{{
		CookieName: "session", Fields: sessplus.Include("user", "notes"), Backend: b,
		Lifetime: 12 * time.Hour, IdleTimeout: 30 * time.Minute,
	}}, &sessplus.Options{ErrorHandler: fail})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("POST /login", logIn)
	mux.HandleFunc("POST /logout", logOut)
	mux.HandleFunc("GET /notes", fragment(poll))
	mux.HandleFunc("POST /notes", fragment(add))
	mux.HandleFunc("DELETE /notes", fragment(remove))
	// htmx sends forms from this page, which the browser's own headers tell: no form needs a token.
	return http.NewCrossOriginProtection().Handler(sessions.Handler(mux)), nil
}

func page(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	show(w, "page", view{userName.Get(s), notes.Get(s)})
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

func logOut(w http.ResponseWriter, r *http.Request) {
	sessplus.Get(r).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// fragment makes a handler of what answers with the list of notes. To whom is not logged in any more it sends no list
// and no login page, which htmx would put where the list is, but the whole browser to the login.
func fragment(change func(r *http.Request, s *sessplus.Session) ([]string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		if userName.Get(s) == "" {
			toLogin(w)
			return
		}
		list, err := change(r, s)
		if err != nil {
			fail(w, r, err)
			return
		}
		show(w, "notes", view{Notes: list})
	}
}

// poll is no use of the session: a page that is left open is not a user who is there.
func poll(_ *http.Request, s *sessplus.Session) ([]string, error) {
	s.SkipTouch()
	return notes.Get(s), nil
}

// add and remove change the stored list: htmx may send several requests at once, also from other tabs.
func add(r *http.Request, s *sessplus.Session) ([]string, error) {
	text := strings.TrimSpace(r.PostFormValue("text"))
	return notes.Update(s, func(list []string) []string {
		if text == "" || len(text) > 200 || len(list) >= 20 {
			return list
		}
		return append(list, text)
	})
}

func remove(r *http.Request, s *sessplus.Session) ([]string, error) {
	text := r.FormValue("text")
	return notes.Update(s, func(list []string) []string {
		if i := slices.Index(list, text); i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
		return list
	})
}

func toLogin(w http.ResponseWriter) { w.Header().Set("HX-Redirect", "/") }

// fail answers in place of a page or of a fragment. htmx swaps nothing in for a status of 400 and more; the page has a
// line of script that shows the text.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	isFragment := r.Header.Get("HX-Request") != ""
	switch {
	case errors.Is(err, sessplus.ErrSessionGone) && isFragment:
		toLogin(w)
		w.WriteHeader(http.StatusOK)
	case errors.Is(err, sessplus.ErrSessionGone):
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case errors.Is(err, sessplus.ErrUnavailable):
		log.Print(err)
		http.Error(w, "The site cannot reach its sessions. Please try again in a moment.", http.StatusServiceUnavailable)
	default:
		log.Print(err)
		http.Error(w, "Something went wrong on our side.", http.StatusInternalServerError)
	}
}

type view struct {
	User  string
	Notes []string
}

//go:embed page.html
var pageText string

var pages = template.Must(template.New("page").Parse(pageText))

func show(w http.ResponseWriter, name string, v view) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, v); err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", "no-store") // or the back button shows it after the logout
	b.WriteTo(w)
}
