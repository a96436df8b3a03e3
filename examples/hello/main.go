// Command hello counts a visitor's visits in a server-side session, and keeps a colour in an encrypted cookie.
//
//	go run ./examples/hello
//
// Open http://127.0.0.1:8080/?color=red, and then http://127.0.0.1:8080.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/sessplus/sessplus"
)

const Visits sessplus.Field[int] = "visits"

func main() {
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("visits"), Backend: sessplus.Memory()},
		{CookieName: "data", Fields: sessplus.Auto()}, // all other fields, in the cookie itself
	}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	if err != nil {
		log.Fatal(err) // names every mistake in the configs
	}
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		visits, err := Visits.Update(s, func(n int) int { return n + 1 }) // loses no visit to a concurrent request
		if err != nil {
			log.Print(err)
			http.Error(w, "please try again", http.StatusServiceUnavailable)
			return
		}
		if c := r.FormValue("color"); c != "" {
			s.Set("color", c)
		}
		fmt.Fprintf(w, "visit %d, color %q\n", visits, s.GetString("color"))
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", mgr.Handler(http.DefaultServeMux)))
}
