package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus/internal/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// A farm is two processes of the site behind nginx with TLS.
type farm struct {
	t       *testing.T
	program string
	env     map[string]string
	addrs   [2]string
	procs   [2]*servers.Process
	nginx   []string // its command
	conf    string   // the path of its configuration
	url     string
	roots   *x509.CertPool
	readers int // of each visitor: how many requests for pages there are beside the clicks
}

func newFarm(t *testing.T, env map[string]string) *farm {
	t.Helper()
	dir := t.TempDir()
	f := &farm{t: t, env: env, program: filepath.Join(dir, "rollout")}
	if out, err := exec.Command("go", "build", "-o", f.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i := range f.addrs {
		f.addrs[i] = fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t))
		f.start(i)
	}
	f.startNginx(dir)
	return f
}

// start starts process i with the farm's environment as it is now.
func (f *farm) start(i int) {
	f.t.Helper()
	args := []string{"ADDR=" + f.addrs[i]}
	for name, value := range f.env {
		args = append(args, name+"="+value)
	}
	p, err := servers.Start("env", append(args, f.program)...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.procs[i] = p
	f.t.Cleanup(p.Kill)
	f.accepts(p, f.addrs[i])
}

func (f *farm) accepts(p *servers.Process, addr string) {
	f.t.Helper()
	servers.WaitFor(f.t, addr+" accepts connections", 20*time.Second, func() bool {
		if out, ended := p.Exited(); ended {
			f.t.Fatal(out)
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// roll restarts one process after the other, with the given change of the environment, while the proxy sends it
// nothing.
func (f *farm) roll(env map[string]string) {
	f.t.Helper()
	maps.Copy(f.env, env)
	for i, p := range f.procs {
		back := f.drain(i)
		p.Stop()
		f.start(i)
		back()
		time.Sleep(500 * time.Millisecond) // old and new side by side
	}
}

// drain lets the proxy send no more requests to a process, until back is called.
func (f *farm) drain(i int) (back func()) {
	f.t.Helper()
	up, down := f.addrs[i]+" max_fails=0", f.addrs[i]+" down"
	f.configure(up, down)
	return func() { f.configure(down, up) }
}

// configure changes the configuration of the proxy.
func (f *farm) configure(from, to string) {
	f.t.Helper()
	conf, err := os.ReadFile(f.conf)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.conf, []byte(strings.Replace(string(conf), from, to, 1)), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if out, err := exec.Command(f.nginx[0], append(f.nginx[1:], "-s", "reload")...).CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
	time.Sleep(500 * time.Millisecond) // the old worker finishes what it has
}

// startNginx starts the proxy of docs/runbook.md.
func (f *farm) startNginx(dir string) {
	f.t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx"
	}
	f.certificate(dir)
	addr := fmt.Sprintf("127.0.0.1:%d", servers.FreePort(f.t))
	conf, err := os.ReadFile("nginx.conf")
	if err != nil {
		f.t.Fatal(err)
	}
	text := strings.NewReplacer("127.0.0.1:8081", f.addrs[0], "127.0.0.1:8082", f.addrs[1], "127.0.0.1:8443", addr).Replace(string(conf))
	if os.Getuid() == 0 {
		text = "user root;\n" + text
	}
	f.conf = filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(f.conf, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.nginx = []string{nginx, "-p", dir, "-c", f.conf, "-e", filepath.Join(dir, "error.log")}
	p, err := servers.Start(nginx, append(f.nginx[1:], "-g", "daemon off;")...)
	if err != nil {
		servers.Skip(f.t, "no nginx: apt-get install nginx-light")
	}
	f.t.Cleanup(p.Kill)
	f.accepts(p, addr)
	f.url = "https://" + addr
}

// certificate writes one for 127.0.0.1, and its key.
func (f *farm) certificate(dir string) {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rollout"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		f.t.Fatal(err)
	}
	f.roots = x509.NewCertPool()
	f.roots.AddCert(cert)
}

// A load is visitors who click, and what they were answered.
type load struct {
	f    *farm
	stop chan struct{}
	wg   sync.WaitGroup

	mu                            sync.Mutex
	requests, down, failed, outed int
	lost                          int // clicks
	worst                         string
	first, last                   time.Time // when the site was down
}

// visit lets n visitors log in, each of whom then asks for pages and clicks until the load ends.
func (f *farm) visit(n int) *load {
	f.t.Helper()
	l := &load{f: f, stop: make(chan struct{})}
	for i := range n {
		c := f.visitor()
		user := fmt.Sprint("visitor", i)
		token := l.must(c, "GET", "/token", nil)
		form := url.Values{"csrf_token": {token}, "user": {user}, "theme": {"dark"}}
		l.must(c, "POST", "/login", form)
		l.wg.Go(func() { l.click(c, user, form) })
		for range f.readers {
			l.wg.Go(func() { l.read(c, user) })
		}
	}
	return l
}

func (f *farm) visitor() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar, Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: f.roots}, MaxIdleConnsPerHost: 4,
	}}
}

// click clicks until the load ends, and counts clicks that were answered and are not there.
func (l *load) click(c *http.Client, user string, form url.Values) {
	var clicks, unsure int
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		status, body := l.ask(c, "POST", "/click", form)
		switch status {
		case http.StatusOK:
			clicks++
		case http.StatusServiceUnavailable:
			unsure++ // it may have been counted, but the answer was lost
		}
		l.note(status, body, status == http.StatusOK)
		status, body = l.ask(c, "GET", "/me", nil)
		var theme string
		var n int
		fmt.Sscanf(strings.TrimPrefix(body, user+" "), "%s %d", &theme, &n)
		l.note(status, body, strings.HasPrefix(body, user+" dark ") && n <= clicks+unsure)
		if status == http.StatusOK && n < clicks {
			l.mu.Lock()
			l.lost += clicks - n
			l.mu.Unlock()
			clicks = n
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// read asks for pages until the load ends.
func (l *load) read(c *http.Client, user string) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		status, body := l.ask(c, "GET", "/me", nil)
		l.note(status, body, strings.HasPrefix(body, user+" dark "))
		time.Sleep(5 * time.Millisecond)
	}
}

// note counts an answer, which was as it should be or not.
func (l *load) note(status int, body string, right bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	switch {
	case status == http.StatusOK && right:
	case status == http.StatusServiceUnavailable:
		l.down++
		l.last = time.Now()
		if l.first.IsZero() {
			l.first = l.last
		}
	case status == http.StatusOK, status == http.StatusForbidden:
		l.outed++
		l.worst = cmp.Or(l.worst, fmt.Sprint(status, " ", body))
	default:
		l.failed++
		l.worst = cmp.Or(l.worst, fmt.Sprint(status, " ", body))
	}
}

// ask makes a request, and returns 0 and the error where there is no answer.
func (l *load) ask(c *http.Client, method, path string, form url.Values) (status int, body string) {
	req, err := http.NewRequest(method, l.f.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// A reload of nginx closes idle connections. Like browsers, the client then sends the request again on a new one.
	req.Header["Idempotency-Key"] = nil
	res, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(text)
}

func (l *load) must(c *http.Client, method, path string, form url.Values) string {
	l.f.t.Helper()
	status, body := l.ask(c, method, path, form)
	if status != http.StatusOK {
		l.f.t.Fatalf("%s %s: %d %s", method, path, status, body)
	}
	return body
}

// end ends the load, and fails the test if a visitor was logged out or got an error but 503.
func (l *load) end(what string) {
	l.f.t.Helper()
	close(l.stop)
	l.wg.Wait()
	l.f.t.Logf("%s: %d requests, %d logged out, %d failed, %d clicks lost, %d answered 503 (for %v)", what, l.requests, l.outed,
		l.failed, l.lost, l.down, l.last.Sub(l.first).Round(time.Millisecond))
	if l.requests == 0 || l.outed > 0 || l.failed > 0 {
		l.f.t.Errorf("%s: for example %q", what, l.worst)
	}
}

const (
	oldSecret = "the secret that the site has had for a year"
	newSecret = "the secret that takes the place of the old one"
)

// SPEC 3.10, 3.5: keys, configs and processes are replaced under load, and nobody notices.
func TestRollingDeploys(t *testing.T) {
	rdb := servers.NewRedis(t)
	f := newFarm(t, map[string]string{"REDIS": rdb.Addr, "SECRETS": oldSecret, "RELEASE": "1"})
	for _, deploy := range []struct {
		what string
		env  map[string]string
	}{
		{"restart", nil},
		{"both keys are read", map[string]string{"SECRETS": oldSecret + "," + newSecret}},
		{"the new key writes", map[string]string{"SECRETS": newSecret + "," + oldSecret}},
		{"a shorter idle timeout", map[string]string{"RELEASE": "2"}},
		{"and back", map[string]string{"RELEASE": "1"}},
	} {
		l := f.visit(8)
		time.Sleep(500 * time.Millisecond)
		f.roll(deploy.env)
		time.Sleep(500 * time.Millisecond)
		l.end(deploy.what)
		if l.down+l.lost > 0 {
			t.Errorf("%s: %d requests were answered with 503, and %d clicks lost", deploy.what, l.down, l.lost)
		}
	}
}

// SPEC 12.4: a field moves to another cookie under load, back, and there again, and nobody is without it, though pages
// ask for several things at once. For that the visitors have the new cookie already, and each of them has one process
// at a time.
func TestFieldMoves(t *testing.T) {
	rdb := servers.NewRedis(t)
	f := newFarm(t, map[string]string{"REDIS": rdb.Addr, "SECRETS": oldSecret, "RELEASE": "1"})
	f.configure("upstream site {", "upstream site { hash $cookie_login consistent;")
	f.readers = 3
	for _, deploy := range []struct{ what, release, owner string }{
		{"the old configs with Adopt", "3", "login"},
		{"a field moves", "4", "account"},
		{"a roll-back", "3", "login"},
		{"the field moves again", "4", "account"},
	} {
		before := users(t, rdb, deploy.owner)
		l := f.visit(8)
		time.Sleep(500 * time.Millisecond)
		f.roll(map[string]string{"RELEASE": deploy.release})
		time.Sleep(500 * time.Millisecond)
		l.end(deploy.what)
		if l.down+l.lost > 0 {
			t.Errorf("%s: %d requests were answered with 503, and %d clicks lost", deploy.what, l.down, l.lost)
		}
		if n := users(t, rdb, deploy.owner) - before; n != 8 {
			t.Errorf("%s: the cookie %s has got %d users, want 8", deploy.what, deploy.owner, n)
		}
	}
}

// users counts the records of a cookie that have a user.
func users(t *testing.T, rdb *servers.RedisServer, cookie string) (n int) {
	t.Helper()
	c := rdb.Client()
	defer c.Close()
	keys, err := c.Keys(t.Context(), "session:"+cookie+":*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if has, err := c.HExists(t.Context(), key, "user").Result(); err != nil {
			t.Fatal(err)
		} else if has {
			n++
		}
	}
	return n
}

// What the runbook warns of: a field that moves while the old configs do not look for it in its new place.
func TestFieldThatIsNotFoundEverywhere(t *testing.T) {
	rdb := servers.NewRedis(t)
	f := newFarm(t, map[string]string{"REDIS": rdb.Addr, "SECRETS": oldSecret, "RELEASE": "1"})
	l := &load{f: f}
	c := f.visitor()
	form := url.Values{"csrf_token": {l.must(c, "GET", "/token", nil)}, "user": {"ann"}, "theme": {"dark"}}
	l.must(c, "POST", "/login", form)
	f.env["RELEASE"] = "4"
	f.procs[0].Stop()
	f.start(0)
	var bodies []string
	for range 20 {
		l.must(c, "POST", "/click", form)
		bodies = append(bodies, l.must(c, "GET", "/me", nil))
	}
	if !slices.ContainsFunc(bodies, func(body string) bool { return strings.HasPrefix(body, " ") }) {
		t.Errorf("the user was always there: %q", bodies)
	}
}

// What the runbook warns of: a key that writes before all processes read it.
func TestKeyThatIsNotReadEverywhere(t *testing.T) {
	rdb := servers.NewRedis(t)
	f := newFarm(t, map[string]string{"REDIS": rdb.Addr, "SECRETS": oldSecret})
	f.env["SECRETS"] = newSecret + "," + oldSecret
	f.procs[0].Stop()
	f.start(0)
	l := &load{f: f}
	c := f.visitor()
	form := url.Values{"csrf_token": {l.must(c, "GET", "/token", nil)}}
	var statuses []int
	for range 20 {
		status, _ := l.ask(c, "POST", "/login", form)
		statuses = append(statuses, status)
	}
	if !slices.Contains(statuses, http.StatusForbidden) {
		t.Errorf("every form was accepted: %v", statuses)
	}
}

// SPEC 6.1, 6.7: while Redis fails over, requests are answered with 503, and nobody is logged out.
func TestFailoverUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until the sentinels agree")
	}
	set := servers.NewSentinelSet(t)
	f := newFarm(t, map[string]string{"SENTINELS": strings.Join(set.Addrs, ","), "MASTER": servers.SentinelMaster, "SECRETS": oldSecret})
	l := f.visit(8)
	time.Sleep(time.Second)
	set.Master.Kill()
	rdb := set.Client(t)
	servers.WaitFor(t, "the replica is the master", 30*time.Second, func() bool {
		return rdb.Set(t.Context(), "probe", 1, time.Minute).Err() == nil
	})
	time.Sleep(3 * time.Second)
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	l.end("failover")
	if last.IsZero() || time.Since(last) < time.Second {
		t.Errorf("the site was down until %v ago", time.Since(last))
	}
}
