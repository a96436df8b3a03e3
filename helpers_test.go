package sessplus_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// Most tests wait for most of the time, so that many of them can do so side by side. -parallel takes precedence.
func TestMain(m *testing.M) {
	beside := 30 * runtime.GOMAXPROCS(0)
	if raceEnabled {
		beside = 4 * runtime.GOMAXPROCS(0) // the race detector needs the processors
	}
	if os.Getenv("SESSPLUS_REDIS") != "" {
		beside = 1 // there are sixteen databases
	}
	flag.Set("test.parallel", strconv.Itoa(beside))
	debug.SetGCPercent(400) // the servers need the processors more than the tests need memory
	servers.Main(m)
}

// slow skips a test with -short that waits for a long time, mostly for the retries and the failovers of clients.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
}

// times is how often a test does again what it does at random, or with many records: an eighth as often with -short.
func times(n int) int {
	if testing.Short() {
		return (n + 7) / 8
	}
	return n
}

var testKeys = []sessplus.KeyPair{sessplus.DeriveKeyPair([]byte("a secret of thirty-two bytes or more"))}

// newManager fails the test if the configs are refused. Keys and a silent Logger are filled in where opts has none.
func newManager(t testing.TB, opts *sessplus.Options, configs ...sessplus.Config) *sessplus.Manager {
	t.Helper()
	var o sessplus.Options
	if opts != nil {
		o = *opts
	}
	if o.Keys == nil {
		o.Keys = testKeys
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := sessplus.New(configs, &o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The backends that keep records, each with a place of its own for every test.
var backends = []struct {
	name string
	open func(t *testing.T) sessplus.Backend
}{
	{"memory", func(*testing.T) sessplus.Backend { return sessplus.Memory() }},
	{"redis", func(t *testing.T) sessplus.Backend { return sessplus.Redis(servers.Redis(t)) }},
	{"autopipeline", func(t *testing.T) sessplus.Backend { return sessplus.Redis(autoPipeline(t, servers.Redis(t))) }},
	{"firestore", func(t *testing.T) sessplus.Backend { return sessplus.Firestore(servers.Firestore(t), "sessions") }},
}

// autoPipeline gives the client that sends the commands of all callers together. It closes with c.
func autoPipeline(t testing.TB, c redis.UniversalClient) redis.UniversalClient {
	t.Helper()
	p, err := c.AsyncAutoPipeline()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// onEveryBackend runs the test on each backend that keeps records, with -short on Redis once.
func onEveryBackend(t *testing.T, test func(t *testing.T, b sessplus.Backend)) {
	for _, b := range backends {
		if b.name == "autopipeline" && testing.Short() {
			continue
		}
		t.Run(b.name, func(t *testing.T) { test(t, b.open(t)) })
	}
}

// onEveryStore is onEveryBackend, and runs the test with a secure cookie, too.
func onEveryStore(t *testing.T, test func(t *testing.T, b sessplus.Backend)) {
	t.Run("secure cookie", func(t *testing.T) { test(t, sessplus.SecureCookie()) })
	onEveryBackend(t, test)
}

// stepName is what tests call a step of Backend.End.
func stepName(e *sessplus.Ending) string {
	switch {
	case e.Step == sessplus.StepTake:
		return "take"
	case e.Step == sessplus.StepRelease:
		return "release"
	case e.Token == "":
		return "delete"
	}
	return "end"
}

// settle waits until no goroutine of the library is left of the test, and fails it with their stacks if they stay
// (SPEC 6.8).
func settle(t testing.TB) {
	t.Helper()
	var left []string
	for pause := 10 * time.Millisecond; pause < 2*time.Second; pause *= 2 { // looking at all of them is expensive
		if left = libraryGoroutines(t); len(left) == 0 {
			return
		}
		time.Sleep(pause)
	}
	t.Errorf("%d goroutines of the library are left, the first:\n%s", len(left), left[0])
}

func libraryGoroutines(t testing.TB) []string {
	return goroutines(t, "github.com/sessplus/sessplus.")
}

// goroutines returns the stacks that hold the text, of goroutines that descend from a site of the test, of a test that
// it is a part of, or of one of its parts.
func goroutines(t testing.TB, text string) (stacks []string) {
	var all bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&all, 1)
	for _, stack := range strings.Split(all.String(), "\n\n") {
		_, label, _ := strings.Cut(stack, `# labels: {"test":"`)
		of, _, labeled := strings.Cut(label, `"}`)
		ours := labeled && (strings.HasPrefix(t.Name()+"/", of+"/") || strings.HasPrefix(of+"/", t.Name()+"/"))
		if ours && strings.Contains(stack, text) {
			n, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine profile: total "), " @ ")
			count, _ := strconv.Atoi(n[strings.LastIndex(n, "\n")+1:])
			stacks = append(stacks, slices.Repeat([]string{stack}, count)...)
		}
	}
	return stacks
}

// within fails the test if f takes as long as two timeouts, or nearly.
func within(t testing.TB, timeout time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took >= timeout*19/10 {
		t.Errorf("took %v, want at most the Timeout of %v and little more", took, timeout)
	}
}

// writeRaw writes a response to a connection that was taken over, with the headers that the handler had set.
func writeRaw(w http.ResponseWriter, conn io.WriteCloser, status string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %s\r\n", status)
	w.Header().Write(&b)
	b.WriteString("Connection: close\r\n\r\n")
	_, err := conn.Write(b.Bytes())
	return errors.Join(err, conn.Close())
}

// A plain type, so that io.Copy finds no WriterTo.
type plainReader struct{ io.Reader }

// noise is a text of n letters that no compression or encoding makes shorter.
func noise(n int) string {
	b := make([]byte, (n+1)/2)
	rand.Read(b)
	return hex.EncodeToString(b)[:n]
}
