// Htmx is a page of which htmx replaces parts: notes that are kept in the session. It shows what sessions need there: a
// fragment that asks too late sends the whole page to the login, an outage is told and swaps nothing, and a poll is no
// use.
//
//	go run ./examples/htmx
//
// Open http://127.0.0.1:8080; the browser fetches htmx from unpkg.com. REDIS_URL keeps the sessions in Redis, and
// ADDR is another address to listen on.
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
