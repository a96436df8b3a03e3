package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/sessplus/sessplus"
)

const (
	userName sessplus.Field[string] = "user"
	messages sessplus.Field[int]    = "messages" // how many the user has sent, over all of the session's tabs
)

// A site looks after each of its connections once per interval.
type site struct{ interval time.Duration }

func newSite(b sessplus.Backend, interval time.Duration) (http.Handler, error) {
	sessions, err := sessplus.New([]sessplus.Config{{
		CookieName: "session", Fields: sessplus.Include("user", "messages"), Backend: b,
		Lifetime: 12 * time.Hour, IdleTimeout: 30 * time.Minute,
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
	mux.HandleFunc("GET /socket", a.socket)
	return http.NewCrossOriginProtection().Handler(sessions.Handler(mux)), nil
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
	messages.Set(s, 0)
	http.Redirect(w, r, "/", http.StatusSeeOther)
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

// socket answers each message with how many there were. Accept sends the headers, and with them the session's cookie.
func (a *site) socket(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	user := userName.Get(s)
	if user == "" {
		http.Error(w, "please log in", http.StatusUnauthorized)
		return
	}
	conn, err := websocket.Accept(w, r, nil) // refuses other origins
	if err != nil {
		return // it has answered
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go a.watch(ctx, s, conn)
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		// Update changes the stored value at once, whatever other tabs do at the same time.
		n, err := messages.Update(s, func(n int) int { return n + 1 })
		switch {
		case errors.Is(err, sessplus.ErrSessionGone):
			conn.Close(websocket.StatusPolicyViolation, "logged out")
			return
		case err != nil:
			log.Print(err)
			conn.Close(websocket.StatusTryAgainLater, "please try again")
			return
		}
		if err := conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "%s: %s (message %d)", user, text, n)); err != nil {
			return
		}
	}
}

// watch closes the connection when the session has ended, though nobody sends anything.
func (a *site) watch(ctx context.Context, s *sessplus.Session, conn *websocket.Conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.interval):
		}
		if !stillLoggedIn(s) {
			conn.Close(websocket.StatusPolicyViolation, "logged out")
			return
		}
	}
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

func page(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	user := userName.Get(s)
	w.Header().Set("Cache-Control", "no-store") // or the back button shows it after the logout
	if err := pageTemplate.Execute(w, user); err != nil {
		log.Print(err)
	}
}
