package main

import (
	"errors"
	"log"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sessplus/sessplus"
)

var upgrader = websocket.Upgrader{} // refuses other origins

// gorillaSocket answers messages with gorilla/websocket. Upgrade takes the connection over, which saves the session,
// and then writes the response itself, with the header that it is given. Without w.Header() the cookie of an id that
// has just been rotated would not reach the browser, and the visitor would be logged out a minute later.
func (a *site) gorillaSocket(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if userName.Get(s) == "" {
		http.Error(w, "please log in", http.StatusUnauthorized)
		return
	}
	conn, err := upgrader.Upgrade(w, r, w.Header())
	if err != nil {
		return // it has answered
	}
	defer conn.Close()
	conn.SetReadLimit(32 << 10)
	done := make(chan struct{})
	defer close(done)
	go a.watch(done, s, func() { sayClose(conn, websocket.ClosePolicyViolation, "logged out") })
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return // the browser is gone, or has answered a close
		}
		reply, err := answer(s, string(text))
		switch {
		case errors.Is(err, sessplus.ErrSessionGone):
			sayClose(conn, websocket.ClosePolicyViolation, "logged out")
			continue // until the browser answers
		case err != nil:
			log.Print(err)
			sayClose(conn, websocket.CloseTryAgainLater, "please try again")
			continue
		}
		if err := conn.WriteMessage(websocket.TextMessage, []byte(reply)); err != nil {
			return
		}
	}
}

// sayClose tells the browser why the connection ends. Its answer ends ReadMessage; one that does not answer is cut off.
func sayClose(conn *websocket.Conn, code int, reason string) {
	conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
	time.AfterFunc(5*time.Second, func() { conn.Close() })
}
