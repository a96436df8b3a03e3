// Htmx is a page of notes, stored in the session, parts of which htmx replaces. It shows three things: a request for a
// fragment after the session has ended sends the whole page to the login, an outage shows a message and replaces
// nothing, and polling does not count as a use of the session.
//
//	go run ./examples/htmx
//
// Open http://127.0.0.1:8080; the browser fetches htmx from unpkg.com. Set REDIS_URL to keep the sessions in Redis, and
// ADDR to listen on another address.
package main

import (
	"cmp"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
)

func main() {
	backend := sessplus.Memory()
	if url := os.Getenv("REDIS_URL"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			log.Fatal("REDIS_URL is no Redis URL") // err quotes it, and it may hold a password
		}
		backend = sessplus.Redis(redis.NewClient(opts))
	}
	h, err := newSite(backend)
	if err != nil {
		log.Fatal(err)
	}
	addr := cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080")
	log.Print("http://", addr)
	srv := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	log.Fatal(srv.ListenAndServe())
}
