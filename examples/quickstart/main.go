// Quickstart is a small shop whose session has several parts: a CSRF token in an encrypted cookie, the visitor and the
// cart in a server-side session, the plan in another one, and the preferences in another cookie. The page /inspect
// shows where each field is stored, and what each click does to the sessions.
//
//	go run ./examples/quickstart
//
// It needs no server. These environment variables change what it uses:
//
//	ADDR                     address to listen on, 127.0.0.1:8080 by default
//	SESSION_SECRET           32 random bytes or more, from which the keys are derived; by default, they are generated
//	REDIS_URL                keeps the session in Redis, as in redis://127.0.0.1:6379/0
//	FIRESTORE_PROJECT        keeps the account in Firestore
//	FIRESTORE_EMULATOR_HOST  keeps the account in the emulator at this host:port
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

// run serves until ctx is done, and says on out what it uses and where.
func run(ctx context.Context, addr string, out io.Writer) error {
	env, err := openEnvironment(ctx)
	if err != nil {
		return err
	}
	defer env.close()
	shop, err := newShop(env.keys, env.session, env.account)
	if err != nil {
		return err // every mistake in the configs, a line for each
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for _, line := range env.used {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "open     http://%s/\n", l.Addr())

	srv := &http.Server{
		Handler:           shop.handler(),
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

// An environment is what the program has been told to use.
type environment struct {
	keys             sessplus.KeyPair
	session, account sessplus.Backend
	used             []string // what that is, a line for each
	closers          []io.Closer
}

func openEnvironment(ctx context.Context) (*environment, error) {
	env := &environment{session: sessplus.Memory(), account: sessplus.Memory()}

	if secret := os.Getenv("SESSION_SECRET"); secret != "" {
		env.keys = sessplus.DeriveKeyPair([]byte(secret))
		env.use("keys     derived from SESSION_SECRET")
	} else {
		env.keys = sessplus.GenerateKeyPair()
		env.use("keys     generated: encrypted cookies end with this process (SESSION_SECRET keeps them)")
	}

	if url := os.Getenv("REDIS_URL"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			return nil, errors.New("REDIS_URL is no Redis URL") // err quotes it, and it may hold a password
		}
		client := redis.NewClient(opts)
		env.session = sessplus.Redis(client)
		env.use("session  in Redis at %s", opts.Addr)
		env.closers = append(env.closers, client)
	} else {
		env.use("session  in memory (REDIS_URL puts it into Redis)")
	}

	project, emulator := os.Getenv("FIRESTORE_PROJECT"), os.Getenv("FIRESTORE_EMULATOR_HOST")
	if project != "" || emulator != "" {
		project = cmp.Or(project, "quickstart") // an emulator takes any
		account, client, err := openFirestore(ctx, project)
		if err != nil {
			env.close()
			return nil, err
		}
		env.account = account
		env.use("account  in Firestore, project %s at %s", project, cmp.Or(emulator, "Google"))
		env.closers = append(env.closers, client)
	} else {
		env.use("account  in memory (FIRESTORE_PROJECT or FIRESTORE_EMULATOR_HOST puts it into Firestore)")
	}
	return env, nil
}

func (env *environment) use(format string, args ...any) {
	env.used = append(env.used, fmt.Sprintf(format, args...))
}

func (env *environment) close() {
	for _, c := range env.closers {
		c.Close()
	}
}
