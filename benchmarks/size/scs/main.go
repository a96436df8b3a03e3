// Command scs counts visits with scs, in memory. With an argument it serves on that address.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/alexedwards/scs/v2"
)

func main() {
	m := scs.New()
	h := m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visits := m.GetInt(r.Context(), "visits") + 1
		m.Put(r.Context(), "visits", visits)
		fmt.Fprintln(w, visits)
	}))
	if len(os.Args) > 1 {
		log.Fatal(http.ListenAndServe(os.Args[1], h))
	}
}
