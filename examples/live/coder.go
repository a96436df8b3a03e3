package main

import (
	"context"
	"errors"
	"log"
	"net/http"

	"github.com/coder/websocket"

	"github.com/sessplus/sessplus"
)

// coderSocket answers messages with coder/websocket. Accept sends the headers, and with them the session's cookie.
func (a *site) coderSocket(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if userName.Get(s) == "" {
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
	go a.watch(ctx.Done(), s, func() { conn.Close(websocket.StatusPolicyViolation, "logged out") })
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		reply, err := answer(s, string(text))
		switch {
		case errors.Is(err, sessplus.ErrSessionGone):
			conn.Close(websocket.StatusPolicyViolation, "logged out")
			return
		case err != nil:
			log.Print(err)
			conn.Close(websocket.StatusTryAgainLater, "please try again")
			return
		}
		if err := conn.Write(ctx, websocket.MessageText, []byte(reply)); err != nil {
			return
		}
	}
}
