// Command rollout is one process of a login site that runs as several behind a reverse proxy. docs/runbook.md says how
// to operate such a site without logging anybody out. The tests here run its procedures: changes of keys and configs,
// restarts, a failover.
//
//	SECRETS=$(openssl rand -hex 32) REDIS=127.0.0.1:6379 go run ./examples/rollout
//
// It prints nothing, and is meant for curl:
//
//	token=$(curl -s -b jar -c jar 127.0.0.1:8080/token)
//	curl -b jar -c jar -d csrf_token=$token -d user=ann -d theme=dark 127.0.0.1:8080/login
//	curl -b jar -c jar -d csrf_token=$token 127.0.0.1:8080/click
//	curl -b jar 127.0.0.1:8080/me
//
// Its environment variables:
//
//	ADDR       address to listen on, 127.0.0.1:8080 by default
//	SECRETS    secrets of the keys, the newest first, separated by commas
//	REDIS      host:port of Redis
//	SENTINELS  host:port of each sentinel, separated by commas, in place of REDIS
//	MASTER     name of the master that the sentinels watch, sessions by default
//	RELEASE    2 shortens the idle timeout, 3 and 4 move the user to another cookie
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
)

const (
	User   sessplus.Field[string] = "user"
	Clicks sessplus.Field[int]    = "clicks"
	Last   sessplus.Field[int64]  = "last" // when the visitor clicked last, in Unix milliseconds
	Plan   sessplus.Field[string] = "plan"
	Theme  sessplus.Field[string] = "theme"
	Token  sessplus.Field[string] = "csrf_token"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx is done, and then finishes the requests that it has.
func run(ctx context.Context, env func(string) string) error {
	mgr, err := sessplus.New(configs(connect(env), env("RELEASE")), &sessplus.Options{
		Keys:    keys(env("SECRETS")),
		Timeout: 2 * time.Second,
		// The proxy is the only one who can reach this process, and sets the header itself.
		SecureRequest: func(r *http.Request) bool { return r.Header.Get("X-Forwarded-Proto") == "https" },
	})
	if err != nil {
		return err
	}
	srv := &http.Server{
		Addr: cmp.Or(env("ADDR"), "127.0.0.1:8080"), Handler: mgr.Handler(site()), ReadHeaderTimeout: 5 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}

// connect returns the client of the Redis at REDIS, or of the one that the sentinels at SENTINELS name.
func connect(env func(string) string) redis.UniversalClient {
	if sentinels := env("SENTINELS"); sentinels != "" {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: cmp.Or(env("MASTER"), "sessions"), SentinelAddrs: strings.Split(sentinels, ","),
		})
	}
	return redis.NewClient(&redis.Options{Addr: env("REDIS")})
}

// keys makes a pair of each secret, the newest of which comes first.
func keys(secrets string) (pairs []sessplus.KeyPair) {
	for secret := range strings.SplitSeq(secrets, ",") {
		pairs = append(pairs, sessplus.DeriveKeyPair([]byte(secret)))
	}
	return pairs
}

// configs are those of a release. The second one shortens the idle timeout. The fourth one moves the user to the
// account, and the third one is as the first, but finds what the fourth has moved: there is a way back.
func configs(rdb redis.UniversalClient, release string) []sessplus.Config {
	form := sessplus.Config{CookieName: "form", Fields: sessplus.Include("csrf_token"), MaxAge: time.Hour}
	prefs := sessplus.Config{CookieName: "prefs", Fields: sessplus.Include("theme"), MaxAge: 365 * 24 * time.Hour}
	login := sessplus.Config{
		CookieName: "login", Backend: sessplus.Redis(rdb), Fields: sessplus.Include("user", "clicks", "last"), SignID: true,
		IdleTimeout: 8 * time.Hour,
	}
	account := login
	account.CookieName, account.Fields = "account", sessplus.Include("plan")
	switch release {
	case "2":
		login.IdleTimeout = time.Hour
	case "3":
		login.Adopt = []string{"account"}
	case "4":
		login.Fields, account.Fields = sessplus.Include("clicks", "last"), sessplus.Include("plan", "user")
		account.Adopt = []string{"login"}
	}
	return []sessplus.Config{form, prefs, login, account}
}

// site is the program: a visitor logs in, and counts clicks.
func site() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		if Token.Get(s) == "" {
			Token.Set(s, rand.Text())
		}
		io.WriteString(w, Token.Get(s))
	})
	mux.HandleFunc("POST /login", checked(func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		s.Renew("login", "account")
		User.Set(s, r.FormValue("user"))
		Plan.Set(s, "free")
		Theme.Set(s, r.FormValue("theme"))
	}))
	mux.HandleFunc("POST /click", checked(func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		Last.Set(s, time.Now().UnixMilli())
		n, err := Clicks.Update(s, func(n int) int { return n + 1 })
		if errors.Is(err, sessplus.ErrUnavailable) {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, n)
	}))
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		fmt.Fprintf(w, "%s %s %d", User.Get(s), Theme.Get(s), Clicks.Get(s))
	})
	mux.HandleFunc("POST /logout", checked(func(w http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() }))
	return mux
}

// checked passes on what comes with the token of the form.
func checked(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if token := Token.Get(sessplus.Get(r)); token == "" || token != r.FormValue("csrf_token") {
			http.Error(w, "the form is too old; reload the page", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}
