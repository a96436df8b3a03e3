// Command gorilla counts visits in a cookie with gorilla/sessions. With an argument it serves on that address.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
)

func main() {
	store := sessions.NewCookieStore(securecookie.GenerateRandomKey(32), securecookie.GenerateRandomKey(32))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k, _ := store.Get(r, "session")
		visits, _ := k.Values["visits"].(int)
		visits++
		k.Values["visits"] = visits
		if err := k.Save(r, w); err != nil {
			http.Error(w, "cannot save", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, visits)
	})
	if len(os.Args) > 1 {
		log.Fatal(http.ListenAndServe(os.Args[1], h))
	}
}
