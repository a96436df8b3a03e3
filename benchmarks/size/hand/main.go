// Command hand counts visits in a cookie, by hand. With an argument it serves on that address.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/gorilla/securecookie"
)

func main() {
	codec := securecookie.New(securecookie.GenerateRandomKey(32), securecookie.GenerateRandomKey(32)).SetSerializer(securecookie.JSONEncoder{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visits := 0
		if c, err := r.Cookie("session"); err == nil {
			codec.Decode("session", c.Value, &visits)
		}
		visits++
		value, err := codec.Encode("session", visits)
		if err != nil {
			http.Error(w, "cannot save", http.StatusInternalServerError)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		fmt.Fprintln(w, visits)
	})
	if len(os.Args) > 1 {
		log.Fatal(http.ListenAndServe(os.Args[1], h))
	}
}
