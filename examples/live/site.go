package main

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

const (
	userName sessplus.Field[string] = "user"
	messages sessplus.Field[int]    = "messages" // how many the user has sent, over all of the session's tabs
)

// A site looks after each of its connections once per interval.
type site struct{ interval time.Duration }

func newSite(b sessplus.Backend, interval, rotateEvery time.Duration) (http.Handler, error) {
	sessions, err := sessplus.New([]sessplus.Config{{
		CookieName: "session", Fields: sessplus.Include("user", "messages"), Backend: b,
		Lifetime: 12 * time.Hour, IdleTimeout: 30 * time.Minute, RotateEvery: rotateEvery,
	}}, nil)
	if err != nil {
		return nil, err
	}
	a := &site{interval}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("POST /login", logIn)
	mux.HandleFunc("POST /logout", logOut)
	mux.HandleFunc("GET /events", a.events)
	mux.HandleFunc("GET /socket/coder", a.coderSocket)
	mux.HandleFunc("GET /socket/gorilla", a.gorillaSocket)
	return http.NewCrossOriginProtection().Handler(sessions.Handler(mux)), nil
}

func logIn(w http.ResponseWriter, r *http.Request) {
	name := tidy(r.PostFormValue("name"))
	if name == "" {
		http.Error(w, badName, http.StatusBadRequest)
		return
	}
	s := sessplus.Get(r)
	s.Renew()
	userName.Set(s, name) // a real program asks for a password: see examples/login
	messages.Set(s, 0)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

const badName = "please enter a name of at most 40 bytes"

// tidy returns "" for what is no name.
func tidy(name string) string {
	if name = strings.TrimSpace(name); len(name) > 40 {
		return ""
	}
	return name
}

func logOut(w http.ResponseWriter, r *http.Request) {
	sessplus.Get(r).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// events is a stream of server-sent events. The first Flush commits the session and sends the headers, so what needs a
// cookie must be done before it.
func (a *site) events(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if userName.Get(s) == "" {
		http.Error(w, "please log in", http.StatusUnauthorized)
		return
	}
	s.SkipTouch() // a page that is left open is not a user who is there: IdleTimeout goes on
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	for sent := -1; ; {
		if n := messages.Get(s); n != sent { // other tabs and other processes change it
			fmt.Fprintf(w, "event: messages\ndata: %d\n\n", n)
			sent = n
		} else {
			fmt.Fprint(w, ": still there\n\n")
		}
		if err := rc.Flush(); err != nil {
			return // the save failed, or the browser is gone
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(a.interval):
		}
		if !stillLoggedIn(s) {
			fmt.Fprint(w, "event: bye\ndata: logged out\n\n")
			return
		}
	}
}

// stillLoggedIn asks the backend anew. An outage is no logout: the connection goes on, and is looked after the next
// time.
func stillLoggedIn(s *sessplus.Session) bool {
	err := s.Reload()
	s.SkipTouch()
	if errors.Is(err, sessplus.ErrUnavailable) {
		log.Print(err)
		return true
	}
	return err == nil && userName.Get(s) != ""
}

// watch calls end when the session of a socket has ended, though nobody sends anything.
func (a *site) watch(done <-chan struct{}, s *sessplus.Session, end func()) {
	for {
		select {
		case <-done:
			return
		case <-time.After(a.interval):
		}
		if !stillLoggedIn(s) {
			end()
			return
		}
	}
}

// answer is what a socket says to a message. Its connection began long ago, so the session is changed where it is
// stored: by Update, whatever other tabs do at the same time, or by Set and Save, where the last one wins.
func answer(s *sessplus.Session, text string) (string, error) {
	if name, ok := strings.CutPrefix(text, "/name "); ok {
		if name = tidy(name); name == "" {
			return badName, nil
		}
		userName.Set(s, name)
		return "you are " + name, s.Save()
	}
	n, err := messages.Update(s, func(n int) int { return n + 1 })
	return fmt.Sprintf("%s: %s (message %d)", userName.Get(s), text, n), err
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

func page(w http.ResponseWriter, r *http.Request) {
	socket, other := "coder", "gorilla"
	if r.FormValue("socket") == other {
		socket, other = other, socket
	}
	w.Header().Set("Cache-Control", "no-store") // or the back button shows it after the logout
	user := userName.Get(sessplus.Get(r))
	if err := pageTemplate.Execute(w, map[string]string{"User": user, "Socket": socket, "Other": other}); err != nil {
		log.Print(err)
	}
}
