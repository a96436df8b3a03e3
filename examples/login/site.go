package main

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/sessplus/sessplus"
)

const (
	userName sessplus.Field[string] = "user"
	token    sessplus.Field[string] = "csrf_token"
	notice   sessplus.Field[string] = "notice" // what the last form did, for the page that follows
)

const day = 24 * time.Hour

type site struct {
	sessions *sessplus.Manager
	cookie   string // of the session: some methods want to know which one is meant
	users    *users
}

func newSite(b sessplus.Backend, keys sessplus.KeyPair, secure sessplus.SecureMode) (*site, error) {
	prefix := ""
	if secure == sessplus.SecureAlways {
		prefix = "__Host-" // no other host can set such a cookie
	}
	cookie := prefix + "session"
	sessions, err := sessplus.New([]sessplus.Config{{
		CookieName:        cookie,
		Fields:            sessplus.Include("user"),
		Backend:           b,
		Secure:            secure,
		IndexBy:           "user", // for "log out everywhere"
		Lifetime:          12 * time.Hour,
		PermanentLifetime: 90 * day, // "remember me", in place of the Lifetime
		IdleTimeout:       14 * day, // so that a forgotten device logs out by itself
		RotateEvery:       time.Hour,
	}, {
		CookieName: prefix + "forms",
		Fields:     sessplus.Include("csrf_token", "notice"),
		Secure:     secure,
	}}, &sessplus.Options{Keys: []sessplus.KeyPair{keys}, ErrorHandler: fail})
	return &site{sessions, cookie, newUsers()}, err
}

func (a *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.page)
	mux.HandleFunc("POST /login", form(a.login))
	mux.HandleFunc("POST /logout", form(a.logOut))
	mux.HandleFunc("POST /logout/all", form(a.logOutAll))
	mux.HandleFunc("POST /password", form(a.changePassword))
	return a.sessions.Handler(http.MaxBytesHandler(mux, 64<<10))
}

// form makes a handler of what a form does. It checks the form's token, and sends the browser back to the page, which
// shows once what was done.
func form(do func(r *http.Request, s *sessplus.Session) (done string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		want := token.Get(s)
		if want == "" || subtle.ConstantTimeCompare([]byte(want), []byte(r.PostFormValue("csrf_token"))) != 1 {
			show(w, http.StatusForbidden, view{Trouble: "This form is too old, or came from another site. Please load the page again."})
			return
		}
		done, err := do(r, s)
		if err != nil {
			fail(w, r, err)
			return
		}
		notice.Set(s, done)
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

func (a *site) login(r *http.Request, s *sessplus.Session) (string, error) {
	name := r.PostFormValue("name")
	if !a.users.check(name, r.PostFormValue("password")) {
		return "That is not the name and password of a user.", nil
	}
	s.Renew() // first: an id that somebody else may know is worth nothing from here on
	s.SetPermanent(a.cookie, r.PostFormValue("remember") != "")
	userName.Set(s, name)
	token.Set(s, rand.Text()) // that of the visitor from before is worth nothing, either
	return "Welcome, " + name + ".", nil
}

func (a *site) logOut(_ *http.Request, s *sessplus.Session) (string, error) {
	s.Destroy()
	return "You are logged out.", nil
}

func (a *site) logOutAll(r *http.Request, s *sessplus.Session) (string, error) {
	user := userName.Get(s)
	if user == "" {
		return "You were logged out already.", nil
	}
	n, err := a.sessions.RevokeAll(r.Context(), a.cookie, user)
	if err != nil {
		return "", err
	}
	s.Destroy() // its record has ended with the others, but not this browser's cookies
	return fmt.Sprintf("You are logged out of %d session(s).", n), nil
}

// changePassword ends what may be in the hands of whoever knew the old one: the user's other sessions, and the id of
// this.
func (a *site) changePassword(r *http.Request, s *sessplus.Session) (string, error) {
	user := userName.Get(s)
	if user == "" {
		return "Please log in.", nil
	}
	if !a.users.check(user, r.PostFormValue("password")) || r.PostFormValue("new") == "" {
		return "That is not your password, or the new one is empty.", nil
	}
	a.users.set(user, r.PostFormValue("new")) // before: a login beside this needs the new one
	n, err := a.sessions.RevokeAll(r.Context(), a.cookie, user, s.Handle(a.cookie))
	if err != nil {
		return "", err
	}
	s.Renew()
	return fmt.Sprintf("Your password is changed, and you are logged out of %d other session(s).", n), nil
}

// A view is what the page shows.
type view struct {
	User, Notice, Token, Trouble string
	Remembered                   bool
	Expires                      time.Time
}

func (a *site) page(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if !s.Has(string(token)) {
		token.Set(s, rand.Text())
	}
	show(w, http.StatusOK, view{
		User: userName.Get(s), Notice: notice.Pop(s), Token: token.Get(s),
		Remembered: s.Permanent(a.cookie), Expires: s.Expires(a.cookie),
	})
}

// fail answers when sessions cannot be loaded, saved or ended.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, sessplus.ErrSessionGone) { // ended while this request was under way: the next one says so
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	slog.ErrorContext(r.Context(), "a request failed", "error", err)
	if errors.Is(err, sessplus.ErrUnavailable) {
		show(w, http.StatusServiceUnavailable, view{Trouble: "The site cannot reach its sessions. You are still logged in; please try again in a moment."})
		return
	}
	show(w, http.StatusInternalServerError, view{Trouble: "Something went wrong on our side."})
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

func show(w http.ResponseWriter, status int, v view) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", "no-store") // or the back button shows it after the logout
	w.WriteHeader(status)
	b.WriteTo(w)
}
