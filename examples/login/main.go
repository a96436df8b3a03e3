// Login is a site with a password login: a form with a CSRF token, "remember me", a new id at login and when the
// password changes, rotation, and "log out everywhere". Sessions are in Redis.
//
//	docker compose -f examples/login/compose.yaml up      # the site and Redis; or, with your own Redis:
//	redis-server --port 6379 --save '' &
//	SESSION_SECRET=$(head -c 32 /dev/urandom | base64) REDIS_URL=redis://127.0.0.1:6379/0 go run ./examples/login
//
// Then open http://127.0.0.1:8080 and log in as "ann" with the password "correct horse". Without REDIS_URL the sessions
// are in memory. ADDR is the address to listen on. Behind a proxy that terminates TLS, set HTTPS=1.
package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	backend := sessplus.Memory()
	if url := os.Getenv("REDIS_URL"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			return errors.New("REDIS_URL is no Redis URL") // err quotes it, and it may hold a password
		}
		client := redis.NewClient(opts)
		defer client.Close()
		backend = sessplus.Redis(client)
	}
	keys, err := keysFrom(os.Getenv("SESSION_SECRET"))
	if err != nil {
		return err
	}
	secure := sessplus.SecureAuto
	if os.Getenv("HTTPS") != "" {
		secure = sessplus.SecureAlways
	}
	site, err := newSite(backend, keys, secure)
	if err != nil {
		return err // every mistake in the configs, a line for each
	}
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           site.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than the Timeout of sessplus, so that its 503 gets through
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe() }()
	log.Printf("http://%s\n%s", srv.Addr, site.sessions.Describe())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}

// keysFrom derives the keys from a secret, so that all machines have the same and a restart logs nobody out.
func keysFrom(secret string) (sessplus.KeyPair, error) {
	if secret == "" {
		log.Print("SESSION_SECRET is not set: the keys are new, and end with this process")
		return sessplus.GenerateKeyPair(), nil
	}
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil || len(raw) < 32 {
		return sessplus.KeyPair{}, errors.New("SESSION_SECRET is not the base64 of 32 bytes or more")
	}
	return sessplus.DeriveKeyPair(raw), nil
}
