package servers

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An SQLServer is a PostgreSQL or MariaDB server of one test, which may kill, pause and restart it. It has no password.
type SQLServer struct {
	*Process
	Addr    string
	command []string // that starts it
	ready   []string // that succeeds when it answers
}

// NewPostgres starts a PostgreSQL server with an empty database "postgres" and user "postgres", and further settings in
// the form name=value. It ends with the test.
func NewPostgres(t testing.TB, settings ...string) *SQLServer {
	t.Helper()
	s := StartPostgres(t, t.TempDir(), settings...)
	t.Cleanup(s.Kill)
	return s
}

// StartPostgres starts a server as NewPostgres does, with its data in the directory. It ends with the tests of the
// package.
func StartPostgres(t testing.TB, dir string, settings ...string) *SQLServer {
	t.Helper()
	bin := postgresBin()
	if bin == "" {
		Skip(t, "needs PostgreSQL: apt-get install postgresql, or the DSN of a server in SESSPLUS_POSTGRES")
	}
	data := filepath.Join(dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	as := unprivileged(t, data)
	run(t, append(as, filepath.Join(bin, "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"))
	port := strconv.Itoa(FreePort(t))
	s := &SQLServer{
		Addr:    "127.0.0.1:" + port,
		command: append(as, filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", ""),
		ready:   []string{filepath.Join(bin, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", port, "-U", "postgres"},
	}
	for _, setting := range settings {
		s.command = append(s.command, "-c", setting)
	}
	s.start(t)
	return s
}

// postgresBin is the directory of PostgreSQL's programs, which Debian keeps out of the path.
func postgresBin() string {
	if all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(all) > 0 {
		return filepath.Dir(all[len(all)-1])
	}
	p, err := exec.LookPath("initdb")
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(p); err == nil {
		p = real
	}
	return filepath.Dir(p)
}

// unprivileged is the beginning of a command that runs as somebody else than root, whom PostgreSQL refuses, and who
// gets the directory and may go there.
func unprivileged(t testing.TB, dir string) []string {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		Skip(t, "PostgreSQL does not run as root, and there is no user postgres or nobody")
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	for up := filepath.Dir(dir); len(up) > len(os.TempDir()); up = filepath.Dir(up) {
		if info, err := os.Stat(up); err == nil {
			os.Chmod(up, info.Mode()|0o011)
		}
	}
	return []string{"setpriv", "--reuid", u.Uid, "--regid", u.Gid, "--clear-groups", "--pdeathsig", "KILL"}
}

// NewMariaDB starts a MariaDB server with an empty database "test" and user "root", and further arguments of its
// command line. It ends with the test.
func NewMariaDB(t testing.TB, args ...string) *SQLServer {
	t.Helper()
	s := StartMariaDB(t, t.TempDir(), args...)
	t.Cleanup(s.Kill)
	return s
}

// StartMariaDB starts a server as NewMariaDB does, with its data in the directory. It ends with the tests of the
// package.
func StartMariaDB(t testing.TB, dir string, args ...string) *SQLServer {
	t.Helper()
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		server = "/usr/sbin/mariadbd"
	}
	if _, err := os.Stat(server); err != nil {
		Skip(t, "needs MariaDB: apt-get install mariadb-server, or the DSN of a server in SESSPLUS_MYSQL")
	}
	data := filepath.Join(dir, "mariadb")
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	run(t, []string{"mariadb-install-db", "--no-defaults", "--datadir=" + data, "--user=" + u.Username,
		"--auth-root-authentication-method=normal", "--skip-test-db"})
	if err := os.Mkdir(filepath.Join(data, "test"), 0o700); err != nil { // a database is a directory
		t.Fatal(err)
	}
	host, port := "127.0.0.1", strconv.Itoa(FreePort(t))
	s := &SQLServer{
		Addr: host + ":" + port,
		command: append([]string{server, "--no-defaults", "--datadir=" + data, "--user=" + u.Username, "--bind-address=" + host, "--port=" + port,
			"--socket=" + filepath.Join(data, "s"), "--pid-file=" + filepath.Join(data, "pid"), "--innodb-buffer-pool-size=64M"}, args...),
		ready: []string{"mariadb-admin", "--no-defaults", "--connect-timeout=1", "-h", host, "-P", port, "-u", "root", "ping"},
	}
	s.start(t)
	return s
}

func run(t testing.TB, command []string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command[0], err, out)
	}
}

func (s *SQLServer) start(t testing.TB) {
	t.Helper()
	p, err := Start(s.command[0], s.command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	s.Process = p
	WaitFor(t, "the database answers", 60*time.Second, func() bool {
		if out, ended := p.Exited(); ended {
			t.Fatalf("%s ended: %s", s.command[0], out)
		}
		return exec.Command(s.ready[0], s.ready[1:]...).Run() == nil
	})
}

// Restart starts the server again on its port and with its data, after Kill.
func (s *SQLServer) Restart(t testing.TB) {
	t.Helper()
	s.start(t)
}

// children are the processes that the server has started, each in a process group of its own.
func (s *SQLServer) children() (list []int) {
	pid := s.cmd.Process.Pid
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, child := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(child); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// Pause stops the server and its children without closing their connections.
func (s *SQLServer) Pause() {
	s.Process.Pause()
	for _, child := range s.children() {
		syscall.Kill(child, syscall.SIGSTOP)
	}
}

// Resume undoes Pause.
func (s *SQLServer) Resume() {
	for _, child := range s.children() {
		syscall.Kill(child, syscall.SIGCONT)
	}
	s.Process.Resume()
}

// Kill ends the server and its children without warning, as a crash would.
func (s *SQLServer) Kill() {
	children := s.children()
	s.Process.Kill()
	for _, child := range children {
		syscall.Kill(child, syscall.SIGKILL)
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(child, 0) == nil && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
}
