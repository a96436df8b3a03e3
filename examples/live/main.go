// Live is a page that stays connected, by server-sent events and by a WebSocket. Both keep the session of their first
// request, and check regularly whether it still exists. The WebSocket also changes it:
//
//	cd examples/live && go run .
//
// Open http://127.0.0.1:8080 in two tabs and log out in one: the other one shows it at once. There are two versions of
// the socket, with coder/websocket in coder.go and with gorilla/websocket in gorilla.go; the page has a link to switch.
// To run several processes, keep the sessions in Redis:
//
//	REDIS_URL=redis://127.0.0.1:6379/0 go run .
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
	h, err := newSite(backend, time.Second, time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	addr := cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080")
	log.Print("http://", addr)
	// There is no WriteTimeout, which would end streams.
	srv := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(srv.ListenAndServe())
}
