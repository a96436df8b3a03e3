// Package e2e drives the example program in a real browser, against a real Redis and the Firestore emulator.
package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus/internal/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

func TestQuickstart(t *testing.T) {
	program := filepath.Join(t.TempDir(), "quickstart")
	build := exec.Command("go", "build", "-o", program, "./examples/quickstart")
	build.Dir = ".." // the example belongs to the parent module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./examples/quickstart: %v\n%s", err, out)
	}
	t.Run("in a browser", func(t *testing.T) { testBrowser(t, program) })
	t.Run("inspect in a browser", func(t *testing.T) { testInspect(t, program) })
	t.Run("while Redis is down", func(t *testing.T) { testRedisDown(t, program) })
	t.Run("ends when interrupted", func(t *testing.T) { testInterrupt(t, program) })
	t.Run("refuses a short secret", func(t *testing.T) { testShortSecret(t, program) })
}

// start starts the program with an environment and waits until it serves. It returns the address of its page.
func start(t *testing.T, program string, env map[string]string) string {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t))
	p, err := servers.Start(program, "-addr", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if out, _ := p.Exited(); t.Failed() {
			t.Logf("the program wrote:\n%s", out)
		}
	})
	page := "http://" + addr + "/"
	servers.WaitFor(t, "the program serves", time.Minute, func() bool {
		if out, ended := p.Exited(); ended {
			t.Fatalf("the program ended: %s", out)
		}
		res, err := http.Get(page + "style.css")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return page
}

// A store is what the program saves in, for the test to look into.
type store struct {
	testing.TB
	redis     *redis.Client
	firestore *firestore.Client
}

func newStore(t *testing.T) *store { return &store{t, servers.Redis(t), servers.Firestore(t)} }

// env is what the program needs to save there.
func (s *store) env() map[string]string {
	opts := s.redis.Options()
	return map[string]string{
		"REDIS_URL":         fmt.Sprintf("redis://%s/%d", opts.Addr, opts.DB),
		"FIRESTORE_PROJECT": strings.Split(s.firestore.Collection("c").Path, "/")[1], // the emulator's host is set
	}
}

// keys returns the keys of Redis, but for the traces of sessions that have ended.
func (s *store) keys() []string {
	s.Helper()
	ctx := context.Background()
	all, err := s.redis.Keys(ctx, "*").Result()
	if err != nil {
		s.Fatal(err)
	}
	return slices.DeleteFunc(all, func(key string) bool {
		return strings.HasPrefix(s.redis.HGet(ctx, key, ":mark").Val(), "e ")
	})
}

// session returns the fields of the session with that id, and fails the test if Redis holds anything else, or no
// expiry.
func (s *store) session(id string) map[string]string {
	s.Helper()
	ctx := context.Background()
	keys := s.keys()
	if want := recordKey("session", id); len(keys) != 1 || keys[0] != want {
		s.Fatalf("Redis has the keys %q, want %q", keys, want)
	}
	if left := s.redis.PTTL(ctx, keys[0]).Val(); left <= 0 || left > 24*time.Hour {
		s.Errorf("PTTL %s = %v, want up to 24h", keys[0], left)
	}
	hash, err := s.redis.HGetAll(ctx, keys[0]).Result()
	if err != nil {
		s.Fatal(err)
	}
	if strings.Contains(fmt.Sprint(hash), id) {
		s.Errorf("the record %v holds the id", hash)
	}
	return hash
}

// account returns the fields of the account with that id, and fails the test if Firestore holds anything else, or no
// expiry.
func (s *store) account(id string) map[string]any {
	s.Helper()
	docs := s.accounts()
	if want := recordKey("account", id); len(docs) != 1 || docs[0].Ref.ID != want {
		s.Fatalf("Firestore has %d documents, want one named %q", len(docs), want)
	}
	data := docs[0].Data()
	expires, _ := data["expires_at"].(time.Time)
	if left := time.Until(expires); left <= 0 || left > 24*time.Hour {
		s.Errorf("expires_at = %v, want a time within 24h", data["expires_at"])
	}
	if strings.Contains(fmt.Sprint(data), id) {
		s.Errorf("the document %v holds the id", data)
	}
	fields, _ := data["fields"].(map[string]any)
	return fields
}

func (s *store) accounts() []*firestore.DocumentSnapshot {
	s.Helper()
	docs, err := s.firestore.Collection("sessions").Documents(context.Background()).GetAll()
	if err != nil {
		s.Fatal(err)
	}
	return slices.DeleteFunc(docs, func(d *firestore.DocumentSnapshot) bool { // the traces of sessions that have ended
		mark, _ := d.Data()["mark"].(string)
		return strings.HasPrefix(mark, "e ")
	})
}

// isEmpty fails the test unless both are.
func (s *store) isEmpty(when string) {
	s.Helper()
	if keys := s.keys(); len(keys) > 0 {
		s.Errorf("%s Redis has the keys %q, want none", when, keys)
	}
	if docs := s.accounts(); len(docs) > 0 {
		s.Errorf("%s Firestore has %d documents, want none", when, len(docs))
	}
}

func recordKey(cookie, id string) string {
	sum := sha256.Sum256([]byte(id))
	return "session:" + cookie + ":" + hex.EncodeToString(sum[:])
}

// SPEC 6.1, 6.2: a backend that is down is no logged-out visitor, and changes nothing in the browser.
func testRedisDown(t *testing.T, program string) {
	server := servers.NewRedis(t)
	page := start(t, program, map[string]string{
		"REDIS_URL": "redis://" + server.Addr, "FIRESTORE_PROJECT": "", "FIRESTORE_EMULATOR_HOST": "",
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: time.Minute}
	ask := func(method, url string, form url.Values, status int) string {
		t.Helper()
		req, err := http.NewRequest(method, url, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != status {
			t.Fatalf("%s %s = %s, want %d: %s", method, url, res.Status, status, body)
		}
		if status == http.StatusServiceUnavailable && len(res.Header["Set-Cookie"]) > 0 {
			t.Errorf("%s %s sets cookies while Redis is down", method, url)
		}
		return string(body)
	}
	body := ask("GET", page, nil, http.StatusOK)
	token := regexp.MustCompile(`name="csrf_token" value="([^"]+)"`).FindStringSubmatch(body)
	if token == nil {
		t.Fatalf("no form in %s", body)
	}
	form := url.Values{"csrf_token": {token[1]}, "item": {"tea"}}
	ask("POST", page+"cart", form, http.StatusOK)

	server.Kill()
	ask("GET", page, nil, http.StatusServiceUnavailable)
	ask("POST", page+"cart", form, http.StatusServiceUnavailable)

	server.Restart(t) // without its data: the session has ended
	servers.WaitFor(t, "the program finds Redis again", 20*time.Second, func() bool {
		res, err := client.Get(page)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	ask("POST", page+"cart", form, http.StatusOK)
}

// command is the program on a port of its choice, in an environment of its own.
func command(program string, env ...string) *exec.Cmd {
	cmd := exec.Command(program, "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "REDIS_URL=", "FIRESTORE_PROJECT=", "FIRESTORE_EMULATOR_HOST=", "SESSION_SECRET=")
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func testInterrupt(t *testing.T, program string) {
	cmd := command(program, "SESSION_SECRET="+strings.Repeat("s", 32))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer killer.Stop()

	said := ""
	for b := make([]byte, 1); !strings.Contains(said, "open     http://127.0.0.1:") || !strings.HasSuffix(said, "\n"); {
		if _, err := out.Read(b); err != nil {
			t.Fatalf("it said %q: %v", said, err)
		}
		said += string(b)
	}
	for _, want := range []string{"keys     derived from SESSION_SECRET\n", "session  in memory", "account  in memory"} {
		if !strings.Contains(said, want) {
			t.Errorf("it said %q, want %q in it", said, want)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v, want status 0", err)
	}
}

func testShortSecret(t *testing.T, program string) {
	cmd := command(program, "SESSION_SECRET=short")
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Run()
	if status := cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(said.String(), "Keys") {
		t.Errorf("it ended with status %d and said %q, want 1 and what is wrong with Keys", status, said.String())
	}
}
