//go:build !nofirestore

// Cloudrun is a site for Cloud Run behind Firebase Hosting, which passes on only the cookie __session: a session in
// Firestore and a visitor's theme share it. README.md says how to deploy the site. To try it:
//
//	export SESSION_SECRET=$(head -c 32 /dev/urandom | base64)
//	docker compose -f examples/cloudrun/compose.yaml up
//
// or, with your own emulator:
//
//	gcloud emulators firestore start --host-port=127.0.0.1:8085 &
//	export FIRESTORE_EMULATOR_HOST=127.0.0.1:8085 GOOGLE_CLOUD_PROJECT=demo-site
//	go run ./examples/cloudrun
//
// and open http://127.0.0.1:8080.
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

	"cloud.google.com/go/firestore"

	"github.com/sessplus/sessplus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run serves until Cloud Run wants the instance to end, and then finishes the requests that it has.
func run(ctx context.Context) error {
	// All instances have the same secret, or each would refuse what the others have written.
	secret, err := base64.StdEncoding.DecodeString(os.Getenv("SESSION_SECRET"))
	if err != nil || len(secret) < 32 {
		return errors.New("SESSION_SECRET is not the base64 of 32 bytes or more")
	}
	client, err := firestore.NewClient(ctx, cmp.Or(os.Getenv("GOOGLE_CLOUD_PROJECT"), firestore.DetectProjectID))
	if err != nil {
		return err
	}
	defer client.Close()
	site, err := newSite(sessplus.Firestore(client, "sessions"), sessplus.DeriveKeyPair(secret))
	if err != nil {
		return err // every mistake in the configs, a line for each
	}
	srv := &http.Server{
		Addr: ":" + cmp.Or(os.Getenv("PORT"), "8080"), Handler: site,
		ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 8*time.Second) // Cloud Run kills the instance after 10
	defer cancel()
	return srv.Shutdown(grace)
}
