// Command sessplus counts visits in a cookie with sessplus. With an argument it serves on that address.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/sessplus/sessplus"
)

func main() {
	m, err := sessplus.New(nil, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	if err != nil {
		log.Fatal(err)
	}
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		visits := s.GetInt("visits") + 1
		s.Set("visits", visits)
		fmt.Fprintln(w, visits)
	}))
	if len(os.Args) > 1 {
		log.Fatal(http.ListenAndServe(os.Args[1], h))
	}
}
