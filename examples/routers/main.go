// Routers is the same small program with each of several routers. It shows where the middleware goes:
//
//	cd examples/routers && go run . chi
//
// Open http://127.0.0.1:8080/pages/home; without a name, the program lists the routers. One page counts its visits,
// another one fails. The sessions are in memory, so nothing needs to be installed. With connect, there are procedures
// instead of pages; connect.go says how to call them.
package main

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/sessplus/sessplus"
)

// Visits is how often a visitor has seen a page.
const Visits sessplus.Field[map[string]int] = "visits"

var routers = map[string]func(*sessplus.Manager) http.Handler{
	"servemux": serveMux,
	"chi":      chiRouter,
	"mux":      gorillaMux,
	"echo":     echoRouter,
	"gin":      ginEngine,
	"ginuse":   ginGroup,
	"huma":     humaAPI,
	"connect":  connectAPI,
}

func main() {
	var router func(*sessplus.Manager) http.Handler
	if len(os.Args) == 2 {
		router = routers[os.Args[1]]
	}
	if router == nil {
		log.Fatalf("usage: go run . %s", strings.Join(slices.Sorted(maps.Keys(routers)), "|"))
	}
	mgr, err := newManager(sessplus.Memory())
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on http://127.0.0.1:8080") // connect has no pages to open
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", router(mgr)))
}

func newManager(b sessplus.Backend) (*sessplus.Manager, error) {
	return sessplus.New([]sessplus.Config{{CookieName: "session", Fields: sessplus.Include("visits"), Backend: b}}, nil)
}

// visit counts a visit of the page.
func visit(s *sessplus.Session, page string) (string, error) {
	visits, err := Visits.Update(s, func(v map[string]int) map[string]int {
		if v == nil {
			v = map[string]int{}
		}
		v[page]++
		return v
	})
	return fmt.Sprintf("%s: visit %d\n", page, visits[page]), err
}

// fail changes the session before it fails. Nothing of that is saved.
func fail(s *sessplus.Session) error {
	Visits.Set(s, map[string]int{"home": 1000})
	return errors.New("the page is out of order")
}
