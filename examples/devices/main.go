// Devices is a site with a page "your devices", on which users see and end their sessions on all devices.
//
//	go run ./examples/devices
//
// Log in under the same name in two browsers. It needs no server. These environment variables change what it uses:
//
//	ADDR                     address to listen on, 127.0.0.1:8080 by default
//	SESSION_SECRET           32 random bytes or more, from which the keys are derived; by default, they are generated
//	REDIS_URL                keeps the sessions in Redis, as in redis://127.0.0.1:6379/0
//	FIRESTORE_PROJECT        keeps the sessions in Firestore
//	FIRESTORE_EMULATOR_HOST  keeps the sessions in the emulator at this host:port
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
)

func main() {
	addr := flag.String("addr", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"), "`address` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, *addr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until ctx is done, and says on out where the sessions are and where the page is.
func run(ctx context.Context, addr string, out io.Writer) error {
	backend, where, closeClient, err := openBackend(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	keys := sessplus.GenerateKeyPair()
	if secret := os.Getenv("SESSION_SECRET"); secret != "" {
		keys = sessplus.DeriveKeyPair([]byte(secret))
	}
	site, err := newSite(configs(backend), keys)
	if err != nil {
		return err // every mistake in the configs, a line for each
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "sessions %s\nopen     http://%s/\n", where, l.Addr())

	srv := &http.Server{
		Handler:           site.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than the Timeout of sessplus, so that its 503 gets through
		IdleTimeout:       2 * time.Minute,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}

// openBackend opens what the environment names, and says what that is.
func openBackend(ctx context.Context) (b sessplus.Backend, where string, closeClient func() error, err error) {
	url, project, emulator := os.Getenv("REDIS_URL"), os.Getenv("FIRESTORE_PROJECT"), os.Getenv("FIRESTORE_EMULATOR_HOST")
	switch inFirestore := project != "" || emulator != ""; {
	case url != "" && inFirestore:
		return nil, "", nil, errors.New("REDIS_URL and FIRESTORE_PROJECT or FIRESTORE_EMULATOR_HOST are set: keep one of them")
	case url != "":
		opts, err := redis.ParseURL(url)
		if err != nil {
			return nil, "", nil, errors.New("REDIS_URL is no Redis URL") // err quotes it, and it may hold a password
		}
		client := redis.NewClient(opts)
		return sessplus.Redis(client), "in Redis at " + opts.Addr, client.Close, nil
	case inFirestore:
		project = cmp.Or(project, "devices") // an emulator takes any
		b, client, err := openFirestore(ctx, project)
		if err != nil {
			return nil, "", nil, err
		}
		return b, fmt.Sprintf("in Firestore, project %s at %s", project, cmp.Or(emulator, "Google")), client.Close, nil
	}
	return sessplus.Memory(), "in memory (REDIS_URL or FIRESTORE_PROJECT puts them elsewhere)", func() error { return nil }, nil
}
