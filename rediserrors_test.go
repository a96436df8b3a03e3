package sessplus_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// newTLSRedis starts a server that also speaks TLS, with a certificate of its own authority for "localhost".
func newTLSRedis(t *testing.T) (addr string, authority *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, secret := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	os.WriteFile(cert, text, 0o600)
	os.WriteFile(secret, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
	port := fmt.Sprint(servers.FreePort(t))
	servers.NewRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", secret, "--tls-ca-cert-file", cert,
		"--tls-auth-clients", "no")
	authority = x509.NewCertPool()
	authority.AppendCertsFromPEM(text)
	return "127.0.0.1:" + port, authority
}

// newGreeter returns the address of a server that speaks first, and no TLS.
func newGreeter(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write([]byte("220 mail.example ready\r\n"))
				c.Read(make([]byte, 1<<10))
			}()
		}
	}()
	return l.Addr().String()
}

// saysWhy makes requests that fail, and fails the test unless the log says why, and holds no value.
func saysWhy(t *testing.T, client redis.UniversalClient, want string) (took time.Duration) {
	t.Helper()
	var j journal
	b := closing(t, client)
	c := newCrowd(t, newManager(t, j.options(5*time.Second),
		sessplus.Config{CookieName: "s", Backend: b, Fields: sessplus.Include("user")},
		sessplus.Config{CookieName: "t", Backend: b, Fields: sessplus.Auto()}))
	const id, secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "NOPERM the secret"
	start := time.Now()
	var replies []*reply
	for _, cookies := range []map[string]string{{"s": id}, {"s": id, "t": id}} {
		replies = append(replies, c.askWith(c.withCookies(cookies), func(s *sessplus.Session) { s.Set("user", secret) }))
	}
	for _, fields := range [][]string{{"user"}, {"user", "plan"}} {
		replies = append(replies, c.askWith(c.visitor(), func(s *sessplus.Session) {
			for _, name := range fields {
				s.Set(name, secret)
			}
		}))
	}
	took = time.Since(start)
	failed := 0
	for _, r := range replies {
		if r.StatusCode == http.StatusServiceUnavailable {
			failed++
		}
	}
	text := j.text()
	if failed == 0 || !strings.Contains(text, want) {
		t.Errorf("%d requests failed, and the log says %q, want %q in it", failed, text, want)
	}
	if strings.Contains(text, "deadline exceeded") || strings.Contains(text, "did not answer") {
		t.Errorf("the log says %q", text)
	}
	j.keepsSecret(t, replies, id, secret, "the secret")
	return took
}

// SPEC 6.9: certificates, and servers that speak something else.
func TestErrorsOfTLS(t *testing.T) {
	t.Parallel()
	secure, authority := newTLSRedis(t)
	for want, o := range map[string]redis.Options{
		"unknown authority":         {Addr: secure, TLSConfig: &tls.Config{ServerName: "localhost"}},
		"valid for localhost, not":  {Addr: secure, TLSConfig: &tls.Config{ServerName: "redis.example", RootCAs: authority}},
		"look like a TLS handshake": {Addr: newGreeter(t), TLSConfig: &tls.Config{ServerName: "localhost", RootCAs: authority}},
		"hangs up at HELLO":         {Addr: secure},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			saysWhy(t, redis.NewClient(&o), want)
			if o.TLSConfig != nil {
				saysWhy(t, redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": o.Addr}, TLSConfig: o.TLSConfig}), want)
			}
		})
	}
	good := redis.NewClient(&redis.Options{Addr: secure, TLSConfig: &tls.Config{ServerName: "localhost", RootCAs: authority}})
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: closing(t, good)}))
	if r := s.with(func(s *sessplus.Session) { s.Set("n", 1) }); r.StatusCode != 200 {
		t.Errorf("with the right certificate: status %d", r.StatusCode)
	}
}

// SPEC 6.9: commands that the server does not have.
func TestErrorsNameTheUnknownCommand(t *testing.T) {
	t.Parallel()
	for renamed, want := range map[string]string{
		"HGETALL":   "it does not know HGETALL",
		"EVALSHA":   "it does not know EVALSHA",
		"PEXPIREAT": "it does not know PEXPIREAT",
	} {
		t.Run(renamed, func(t *testing.T) {
			s := servers.NewRedis(t, "--rename-command", renamed, "another-name")
			saysWhy(t, s.Client(), want)
			saysWhy(t, redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": s.Addr}}), want)
		})
	}
}

// SPEC 6.9: Redis 6 hides the reason of an error in a script behind that of the script.
func TestErrorsNameTheReasonOfRedis6(t *testing.T) {
	t.Parallel()
	for reply, want := range map[string]string{
		"OOM command not allowed when used memory > 'maxmemory'.":                          "redis answers OOM",
		"MISCONF Redis is configured to save RDB snapshots, but it is currently not able.": "redis answers MISCONF",
		"WRONGTYPE Operation against a key holding the wrong kind of value":                "its key holds something else",
	} {
		client := servers.Redis(t)
		client.AddHook(commandHook(func(_ context.Context, cmd redis.Cmder) error {
			if cmd.FullName() == "evalsha" {
				return replyError(redis6Refusal + reply)
			}
			return nil
		}))
		_, err := sessplus.Redis(client).Update(t.Context(), "key", &sessplus.Change{
			Now: time.Now(), Set: []sessplus.RawField{{Name: "n", Value: []byte("1")}}, Delete: []string{"m"},
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
}

// SPEC 6.9: rights, databases and passwords.
func TestErrorsNameTheMissingRight(t *testing.T) {
	t.Parallel()
	s := servers.NewRedis(t, "--databases", "2")
	admin := s.Client()
	defer admin.Close()
	for want, rule := range map[string]string{
		"its user may not run HGETALL":   "~* +@all -hgetall",
		"its user may not run EVALSHA":   "~* +@all -evalsha",
		"its user may not run EXISTS":    "~* +@all -exists",
		"its user may not run HSET":      "~* +@all -hset",
		"its user has no right to the k": "~other:* +@all",
	} {
		t.Run(want, func(t *testing.T) {
			args := []any{"acl", "setuser", "weak", "reset", "on", ">pw"}
			for _, word := range strings.Fields(rule) {
				args = append(args, word)
			}
			if err := admin.Do(t.Context(), args...).Err(); err != nil {
				t.Fatal(err)
			}
			saysWhy(t, redis.NewClient(&redis.Options{Addr: s.Addr, Username: "weak", Password: "pw"}), want)
		})
	}
	saysWhy(t, redis.NewClient(&redis.Options{Addr: s.Addr, DB: 7}), "it has no such database")
	saysWhy(t, redis.NewClient(&redis.Options{Addr: s.Addr, Username: "weak", Password: "wrong"}), "the user or the password is wrong")
	if err := admin.Do(t.Context(), "acl", "setuser", "default", "resetpass", ">another").Err(); err != nil {
		t.Fatal(err)
	}
	saysWhy(t, s.Client(), "it wants a user to log in")
}

// SPEC 6.9: a server with too many clients.
func TestErrorOfTooManyClients(t *testing.T) {
	t.Parallel()
	s := servers.NewRedis(t, "--maxclients", "1")
	held := s.Client()
	defer held.Close()
	conn := held.Conn()
	defer conn.Close()
	servers.WaitFor(t, "the only place is taken", 10*time.Second, func() bool { return conn.Ping(t.Context()).Err() == nil })
	for _, bounded := range []bool{false, true} {
		saysWhy(t, redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: bounded}), "as many clients as its maxclients allows")
	}
	saysWhy(t, redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": s.Addr}}), "too many clients")
}

// SPEC 6.9: a pool whose connections are all in use.
func TestErrorOfAnExhaustedPool(t *testing.T) {
	s := servers.NewRedis(t)
	client := redis.NewClient(&redis.Options{Addr: s.Addr, PoolSize: 1, PipelinePoolSize: -1, PoolTimeout: 20 * time.Millisecond, MaxRetries: -1})
	conn := client.Conn()
	if err := conn.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	saysWhy(t, client, "connection pool timeout")
}

// SPEC 6.9: a server that accepts and hangs up, as a proxy does that does not know HELLO, costs few connections, and
// its error is no deadline. Once it has worked, it may come back within the Timeout.
func TestErrorOfAServerThatHangsUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accepted atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go func() {
				c.Read(make([]byte, 1))
				c.Close()
			}()
		}
	}()
	for _, bounded := range []bool{false, true} {
		accepted.Store(0)
		took := saysWhy(t, redis.NewClient(&redis.Options{Addr: l.Addr().String(), ContextTimeoutEnabled: bounded}), "hangs up at HELLO")
		if n := accepted.Load(); n > 4*8 || took > 15*time.Second {
			t.Errorf("four requests made %d connections in %v, want at most eight each", n, took)
		}
	}
	f, _ := redisBehindProxy(t)
	var j journal
	c := newCrowd(t, newManager(t, j.options(5*time.Second), sessplus.Config{CookieName: "s", Backend: f.backend}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	f.proxy.set(proxyRefuse)
	f.proxy.cut()
	if r := c.askWith(c.client, wantUser(t, "ann")); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status = %d, want 503", r.StatusCode)
	}
	if text := j.text(); strings.Contains(text, "deadline") || !strings.Contains(text, "hang") && !strings.Contains(text, "hung") {
		t.Errorf("the log says %q, want that the server hangs up", text)
	}
}

// SPEC 6.9: an address where nobody listens, through all kinds of clients.
func TestErrorsNameTheAddress(t *testing.T) {
	t.Parallel()
	slow(t)
	addr := fmt.Sprint("127.0.0.1:", servers.FreePort(t))
	for name, client := range map[string]redis.UniversalClient{
		"client":                      redis.NewClient(&redis.Options{Addr: addr}),
		"client with context timeout": redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true}),
		"autopipeline":                autoPipeline(t, closed(t, redis.NewClient(&redis.Options{Addr: addr}))),
		"cluster":                     redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			saysWhy(t, client, "connection refused")
		})
	}
}
