// Package servers starts the real servers that tests need, on free loopback ports, and ends them by their process.
//
// A test that needs a server which is not to be had is skipped with the reason, or fails if SESSPLUS_REQUIRE_SERVERS is
// set, as it is for the project's test command.
package servers

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"
)

// Skip ends the test for want of a server.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("SESSPLUS_REQUIRE_SERVERS") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

var running sync.Map // *Process: those that Main ends

// Main runs the tests of a package and ends the servers that they share. TestMain calls it:
//
//	func TestMain(m *testing.M) { servers.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	running.Range(func(p, _ any) bool {
		p.(*Process).Kill()
		return true
	})
	os.Exit(code)
}

var ports atomic.Int64 // that FreePort has tried

func init() { ports.Store(rand.Int64N(1 << 32)) }

// FreePort returns a loopback port that nobody listens on. It is none of those that the system gives to who asks for
// any (from 32768 on Linux, from 49152 elsewhere), so that no other test gets it before the server listens, or while it
// is down.
func FreePort(t testing.TB) int {
	t.Helper()
	const first, n = 20000, 12000
	for range n {
		port := int(first + ports.Add(1)%n)
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// A Process is a server that a test has started.
type Process struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{} // closed when it has ended
}

// Start starts a program in a process group of its own, so that its children end with it. The group ends with the
// tests.
func Start(name string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = attributes()
	if os.Getenv("JAVA") == "" {
		// The emulator's script then becomes the server, and ends as one. Tests are too short for thorough compiling to
		// pay: it would take more than half of the emulator's time.
		p.cmd.Env = append(os.Environ(), "JAVA=exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	running.Store(p, nil)
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *Process) signal(s syscall.Signal) { syscall.Kill(-p.cmd.Process.Pid, s) }

// Kill ends the process without warning, as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	if _, ended := p.Exited(); !ended {
		p.signal(syscall.SIGKILL)
		<-p.done
	}
	running.Delete(p)
}

// Stop lets the process end by itself, as a deployment does, and waits until it is gone.
func (p *Process) Stop() {
	p.signal(syscall.SIGTERM)
	<-p.done
	running.Delete(p)
}

// Pause stops the process without closing its connections: it accepts, and never answers.
func (p *Process) Pause() {
	p.signal(syscall.SIGSTOP)
	for deadline := time.Now().Add(10 * time.Second); p.runs() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// runs reports whether, as Linux tells, a thread of the process has not stopped yet: on a busy machine that takes a
// while.
func (p *Process) runs() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if state := bytes.LastIndex(text, []byte(") ")); err == nil && state >= 0 && text[state+2] != 'T' {
			return true
		}
	}
	return false
}

// Resume undoes Pause.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

// Exited reports whether the process has ended, and what it wrote.
func (p *Process) Exited() (string, bool) {
	select {
	case <-p.done:
		return p.out.String(), true
	default:
		return "", false
	}
}

// WaitFor tries until ok, for as long as within, or fails the test.
func WaitFor(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, within)
		}
	}
}

// A RedisServer is a redis-server of one test, which may kill, pause and restart it.
type RedisServer struct {
	*Process
	Addr string
	args []string
}

// NewRedis starts a redis-server with an empty directory and further arguments of its command line. It ends with the
// test.
func NewRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	s := startRedis(t, append([]string{"--dir", t.TempDir()}, args...))
	t.Cleanup(func() { s.Kill() })
	return s
}

func startRedis(t testing.TB, args []string) *RedisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		Skip(t, "needs redis-server: apt-get install redis-server")
	}
	port := FreePort(t)
	s := &RedisServer{Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	s.args = append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no"}, args...)
	s.start(t)
	return s
}

func (s *RedisServer) start(t testing.TB) {
	t.Helper()
	p, err := Start("redis-server", s.args...)
	if err != nil {
		t.Fatal(err)
	}
	s.Process = p
	c := s.Client()
	defer c.Close()
	WaitFor(t, "redis-server answers", 20*time.Second, func() bool {
		if out, ended := p.Exited(); ended {
			t.Fatalf("redis-server ended: %s", out)
		}
		return c.Ping(context.Background()).Err() == nil
	})
}

// Restart starts the server again on its port, after Kill. Without persistence in its arguments it is empty.
func (s *RedisServer) Restart(t testing.TB) {
	t.Helper()
	s.start(t)
}

// Client returns a new client of the server, with the defaults of go-redis.
func (s *RedisServer) Client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr})
}

var sharedRedis struct {
	sync.Mutex
	addr string
	db   atomic.Int64
}

// Redis returns a client of a server that the tests of a package share, in an emptied database. Its address is that of
// the environment variable SESSPLUS_REDIS, if there is one: host:port of a server whose databases 0 to 15 may be
// emptied.
func Redis(t testing.TB) *redis.Client {
	t.Helper()
	sharedRedis.Lock()
	defer sharedRedis.Unlock()
	if sharedRedis.addr == "" {
		sharedRedis.addr = os.Getenv("SESSPLUS_REDIS")
	}
	if sharedRedis.addr == "" {
		sharedRedis.addr = startRedis(t, []string{"--databases", "10000"}).Addr
	}
	databases := int64(10000)
	if os.Getenv("SESSPLUS_REDIS") != "" {
		databases = 16
	}
	c := redis.NewClient(&redis.Options{Addr: sharedRedis.addr, DB: int(sharedRedis.db.Add(1) % databases)})
	t.Cleanup(func() { c.Close() })
	if err := c.FlushDBAsync(context.Background()).Err(); err != nil { // the other way takes a millisecond longer
		t.Fatal(err)
	}
	return c
}

const emulatorHost = "FIRESTORE_EMULATOR_HOST"

var environment sync.Mutex // guards the variable emulatorHost

// givenEmulator is read before FirestoreClient sets the variable.
var givenEmulator = os.Getenv(emulatorHost)

var sharedFirestore struct {
	sync.Mutex
	process *Process
	addr    string
}

// NewFirestoreEmulator starts an emulator of one test, which may kill and pause it, and returns its address.
func NewFirestoreEmulator(t testing.TB) (*Process, string) {
	t.Helper()
	p, addr := startFirestore(t)
	t.Cleanup(p.Kill)
	return p, addr
}

func startFirestore(t testing.TB) (*Process, string) {
	t.Helper()
	program, err := emulator()
	if err != nil {
		Skip(t, err.Error())
	}
	addr := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	p, err := Start(program, "start", "--host=127.0.0.1", "--port="+port)
	if err != nil {
		t.Fatal(err)
	}
	WaitFor(t, "the Firestore emulator listens", 60*time.Second, func() bool {
		if out, ended := p.Exited(); ended {
			t.Fatalf("the Firestore emulator ended: %s", out)
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	warmUp(t, addr)
	return p, addr
}

// warmUp lets a new emulator do once what tests measure the time of: what it does first can take it seconds.
func warmUp(t testing.TB, addr string) {
	t.Helper()
	client := FirestoreAt(t, addr, "warm-up")
	WaitFor(t, "the Firestore emulator is quick", 60*time.Second, func() bool {
		start, ctx := time.Now(), context.Background()
		doc := client.Collection("warm").Doc("up")
		created, err := doc.Create(ctx, map[string]any{"a": map[string]any{"b": 1}})
		if err != nil {
			t.Fatalf("the Firestore emulator: %v", err)
		}
		doc.Get(ctx)
		change := []firestore.Update{{FieldPath: firestore.FieldPath{"a", "b"}, Value: 2}}
		doc.Update(ctx, change, firestore.LastUpdateTime(created.UpdateTime))
		doc.Update(ctx, change, firestore.LastUpdateTime(created.UpdateTime))
		doc.Delete(ctx)
		doc.Update(ctx, change, firestore.LastUpdateTime(created.UpdateTime))
		doc.Get(ctx)
		return time.Since(start) < time.Second
	})
}

// emulator finds Google's Firestore emulator.
func emulator() (string, error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("needs java for the Firestore emulator")
	}
	if p, err := exec.LookPath("cloud_firestore_emulator"); err == nil {
		return p, nil
	}
	roots := []string{os.Getenv("CLOUDSDK_ROOT_DIR"), "/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk"}
	if home, err := os.UserHomeDir(); err == nil {
		roots = append(roots, filepath.Join(home, "google-cloud-sdk"))
	}
	for _, root := range roots {
		p := filepath.Join(root, "platform", "cloud-firestore-emulator", "cloud_firestore_emulator")
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("needs the Firestore emulator: FIRESTORE_EMULATOR_HOST, or the package google-cloud-cli-firestore-emulator")
}

// Firestore returns a client of an emulator that the tests of a package share, in an empty project of its own. The
// emulator is that of FIRESTORE_EMULATOR_HOST, if that is set.
func Firestore(t testing.TB) *firestore.Client {
	t.Helper()
	sharedFirestore.Lock()
	defer sharedFirestore.Unlock()
	if sharedFirestore.addr == "" {
		sharedFirestore.addr = givenEmulator
	}
	if sharedFirestore.addr == "" {
		sharedFirestore.process, sharedFirestore.addr = startFirestore(t)
	}
	return FirestoreClient(t, sharedFirestore.addr)
}

// FirestoreAddr returns the address of the emulator that the tests of a package share.
func FirestoreAddr(t testing.TB) string {
	t.Helper()
	Firestore(t)
	return sharedFirestore.addr
}

var projects atomic.Int64

// NewProject returns the name of a Firestore project that no other test has.
func NewProject() string { return fmt.Sprintf("test-%d-%d", os.Getpid(), projects.Add(1)) }

// FirestoreClient returns a client of the emulator at addr, in an empty project of its own. From then on, it is the
// emulator of the environment, which programs inherit that a test starts.
func FirestoreClient(t testing.TB, addr string) *firestore.Client {
	t.Helper()
	c := FirestoreAt(t, addr, NewProject())
	environment.Lock()
	defer environment.Unlock()
	os.Setenv(emulatorHost, addr)
	return c
}

// FirestoreAt returns a client of the emulator at addr for the project, and leaves the environment as it is.
func FirestoreAt(t testing.TB, addr, project string) *firestore.Client {
	t.Helper()
	environment.Lock()
	defer environment.Unlock()
	// The client library takes the address of an emulator from the environment only.
	defer os.Setenv(emulatorHost, os.Getenv(emulatorHost))
	os.Setenv(emulatorHost, addr)
	c, err := firestore.NewClient(context.Background(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
