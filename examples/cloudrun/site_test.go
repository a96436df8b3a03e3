//go:build !nofirestore

package main

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus/internal/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// An instance is a process of the program, as Cloud Run starts it.
type instance struct {
	*servers.Process
	addr string
}

// newProgram builds the program as the Dockerfile does. Each call of start starts an instance of it.
func newProgram(t *testing.T) (start func() instance) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "site")
	build := exec.Command("go", "build", "-trimpath", "-tags", "noredis", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	project := strings.Split(servers.Firestore(t).Collection("c").Path, "/")[1] // FIRESTORE_EMULATOR_HOST is set
	secret := base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text()))
	return func() instance {
		t.Helper()
		port := servers.FreePort(t)
		env := []string{fmt.Sprint("PORT=", port), "GOOGLE_CLOUD_PROJECT=" + project, "SESSION_SECRET=" + secret}
		p, err := servers.Start("env", append(env, program)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		i := instance{p, fmt.Sprint("127.0.0.1:", port)}
		servers.WaitFor(t, "the program serves", time.Minute, func() bool {
			if out, ended := p.Exited(); ended {
				t.Fatal(out)
			}
			c, err := net.Dial("tcp", i.addr)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		return i
	}
}

// A visitor is a browser that reaches the program through what does as Firebase Hosting: it ends TLS, has a host name
// of its own, and passes on one cookie.
type visitor struct {
	testing.TB
	*http.Client
	url string
	to  instance
}

func newVisitor(t *testing.T, to instance) *visitor {
	t.Helper()
	v := &visitor{TB: t, to: to}
	srv := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: v.to.addr})
		r.SetXForwarded()
		r.Out.Header.Del("Cookie")
		for _, c := range r.In.CookiesNamed("__session") {
			r.Out.AddCookie(c)
		}
	}})
	t.Cleanup(srv.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v.Client, v.url = srv.Client(), srv.URL
	v.Jar = jar
	v.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return v
}

// post sends a form and returns the cookies that the answer sets.
func (v *visitor) post(path string, form url.Values) []*http.Cookie {
	v.Helper()
	res, err := v.PostForm(v.url+path, form)
	if err != nil {
		v.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		v.Fatalf("POST %s = %s", path, res.Status)
	}
	return res.Cookies()
}

// shows fails the test unless the page has the one text and lacks the other.
func (v *visitor) shows(when, text, not string) {
	v.Helper()
	res, err := v.Get(v.url + "/")
	if err != nil {
		v.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		v.Fatalf("%s GET / = %s, %v", when, res.Status, err)
	}
	if !strings.Contains(string(page), text) || strings.Contains(string(page), not) {
		v.Errorf("%s the page is %s, want %q in it and not %q", when, page, text, not)
	}
}

const dark, light = `class="dark"`, `value="dark"` // the button offers the other one

// SPEC 5.13: the session and the theme come through a host that passes on one cookie.
func TestBehindFirebaseHosting(t *testing.T) {
	start := newProgram(t)
	v := newVisitor(t, start())
	v.shows("at first", "Log in", dark)
	themed, in := v.post("/theme", url.Values{"theme": {"dark"}}), v.post("/login", url.Values{"name": {"Ann"}})
	for _, c := range append(themed, in...) {
		if c.Name != "__session" || !c.Secure || !c.HttpOnly {
			t.Errorf("the program sets the cookie %v, want __session, with Secure and HttpOnly", c)
		}
	}
	v.shows("after the login", `<b id="visits">1</b>`, light)
	v.to.Stop() // Cloud Run ends instances and starts others as it likes
	v.to = start()
	v.shows("with another instance", `<b id="visits">2</b>`, light)
	v.post("/theme", url.Values{"theme": {"light"}})
	v.shows("with the light theme", `<bdi id="user">Ann</bdi>`, dark)
	v.post("/theme", url.Values{"theme": {"dark"}})
	v.post("/logout", nil)
	v.shows("after the logout", "Log in", light)
}

// A request that runs when Cloud Run ends the instance is answered, and what it has set is there.
func TestEndsGracefully(t *testing.T) {
	v := newVisitor(t, newProgram(t)())
	conn, err := net.Dial("tcp", v.to.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	form := "theme=dark"
	fmt.Fprint(conn, "POST /theme HTTP/1.1\r\nHost: site\r\nContent-Type: application/x-www-form-urlencoded\r\n")
	fmt.Fprintf(conn, "Content-Length: %d\r\n\r\n", len(form))
	v.shows("meanwhile", "Log in", dark) // the program has read the beginning, too
	stopped := make(chan struct{})
	go func() { v.to.Stop(); close(stopped) }()
	servers.WaitFor(t, "the program accepts no connections", 10*time.Second, func() bool {
		c, err := net.Dial("tcp", v.to.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	io.WriteString(conn, form)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusSeeOther || len(res.Cookies()) != 1 {
		t.Fatalf("the answer is %v, %v, want 303 and the cookie", res, err)
	}
	if res.Cookies()[0].Secure { // no proxy has said that it came over TLS
		t.Error("without X-Forwarded-Proto the cookie is Secure")
	}
	<-stopped
	if out, _ := v.to.Exited(); out != "" {
		t.Errorf("the program wrote %q", out)
	}
}
