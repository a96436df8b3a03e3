package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

func TestOneDeviceIsLoggedOut(t *testing.T) {
	open := newVisit(t, configs(sessplus.Memory()))
	laptop, phone := open(firefox).logIn("Ann"), open(safari).logIn("Ann")
	open(edge).logIn("Bob")

	phone.devices("Safari on iPhone", "Firefox on Linux")
	laptop.devices("Firefox on Linux", "Safari on iPhone")
	laptop.shows("just now")
	if n := strings.Count(laptop.page, "This one"); n != 1 {
		t.Errorf("%d devices are this one, want 1", n)
	}
	ended := laptop.device(1)
	laptop.submit("/logout", "device", ended)
	laptop.shows("Safari on iPhone is logged out.")
	laptop.devices("Firefox on Linux")
	if strings.Contains(laptop.page, "is logged out") {
		t.Error("the notice is shown twice")
	}
	laptop.submit("/logout", "device", ended)
	laptop.shows("That device was logged out already.")

	before := phone.cookies()
	phone.open()
	phone.isLoggedOut()
	for _, path := range []string{"/logout", "/logout/others", "/logout/all", "/role"} {
		phone.submit(path, "device", ended)
		phone.isLoggedOut()
	}
	if after := phone.cookies(); after["session"] != before["session"] {
		t.Error("a page has changed the cookie of the session that has ended, which a login in another tab may be about to replace")
	}
	laptop.devices("Firefox on Linux") // and so no form of the phone has done anything

	// SPEC 3.11: a login begins afresh under an id that has just been ended.
	phone.submit("/login", "name", "Ann")
	phone.devices("Safari on iPhone", "Firefox on Linux")

	phone.submit("/logout", "device", phone.device(0))
	phone.shows("You are logged out.", "<h1>Log in</h1>")
	if got := phone.cookies(); got["session"] != "" {
		t.Error("the cookie of the session is still there after a logout")
	}
}

// The name of a device in a form outlives the id of its session.
func TestFormFromBeforeARotation(t *testing.T) {
	list := configs(sessplus.Memory())
	list[0].RotateEvery = 20 * time.Millisecond
	open := newVisit(t, list)
	laptop, phone := open(firefox).logIn("Ann"), open(safari).logIn("Ann")
	laptop.open()
	id := phone.cookies()["session"]
	for range 3 {
		time.Sleep(25 * time.Millisecond)
		phone.open()
	}
	if phone.cookies()["session"] == id {
		t.Fatal("the session was not rotated")
	}
	laptop.submit("/logout", "device", laptop.device(1))
	laptop.shows("Safari on iPhone is logged out.")
	phone.open()
	phone.isLoggedOut()

	// Nor does it matter that the request which does it gets another id itself.
	phone.submit("/login", "name", "Ann")
	time.Sleep(25 * time.Millisecond)
	laptop.submit("/role", "role", "guest")
	laptop.shows(`id="role">guest<`)
	time.Sleep(25 * time.Millisecond)
	laptop.submit("/logout/others")
	laptop.shows("One other device is logged out.", `id="role">guest<`)
	phone.open()
	phone.isLoggedOut()
}

func TestDeviceOfAnotherUserStays(t *testing.T) {
	open := newVisit(t, configs(sessplus.Memory()))
	ann, eve := open(firefox).logIn("Ann"), open(safari).logIn("Eve")
	eve.submit("/logout", "device", ann.device(0))
	eve.shows("That device was logged out already.")
	eve.submit("/logout/others")
	eve.shows("0 other devices are logged out.")
	ann.devices("Firefox on Linux")
}

func TestLogOutEverywhere(t *testing.T) {
	open := newVisit(t, configs(sessplus.Memory()))
	laptop, phone, desk := open(firefox).logIn("Ann"), open(safari).logIn("Ann"), open(edge).logIn("Ann")
	laptop.submit("/logout/others")
	laptop.shows("2 other devices are logged out.")
	laptop.devices("Firefox on Linux")
	for _, b := range []*browser{phone, desk} {
		b.open()
		b.isLoggedOut()
		b.submit("/login", "name", "Ann")
	}
	phone.submit("/logout/all")
	phone.shows("You are logged out on all devices.", "<h1>Log in</h1>")
	if got := phone.cookies(); got["session"] != "" {
		t.Error("the cookie of the session is still there")
	}
	for _, b := range []*browser{laptop, desk} {
		b.open()
		b.isLoggedOut()
	}
}

func TestRoleOfAllDevices(t *testing.T) {
	open := newVisit(t, configs(sessplus.Memory()))
	laptop, phone, other := open(firefox).logIn("Ann"), open(safari).logIn("Ann"), open(edge).logIn("Bob")
	laptop.submit("/role", "role", "guest")
	laptop.shows("You are a guest on all devices.", `id="role">guest<`)
	phone.open()
	phone.shows(`id="role">guest<`)
	other.open()
	other.shows(`id="role">member<`)
	phone.submit("/role", "role", "member")
	laptop.open()
	laptop.shows(`id="role">member<`)
}

func TestFormsOfOtherSites(t *testing.T) {
	open := newVisit(t, configs(sessplus.Memory()))
	ann := open(firefox).logIn("Ann")
	for _, path := range []string{"/login", "/logout", "/logout/others", "/logout/all", "/role"} {
		for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
			req, err := http.NewRequest("POST", ann.url+path, strings.NewReader("name=Eve&role=guest&device="+ann.device(0)))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(header, value)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			res, err := ann.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("%s with %s %s: %s, want 403", path, header, value, res.Status)
			}
		}
	}
	ann.devices("Firefox on Linux")
	ann.shows(`id="user">Ann<`, `id="role">member<`)
}

func TestWhatClientsSayIsEscaped(t *testing.T) {
	open := newVisit(t, configs(sessplus.Memory()))
	b := open(`<script>alert("x")<`).logIn("Ann")
	res, err := b.Get(b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if page := string(body); strings.Contains(page, "<script") || !strings.Contains(page, "&lt;script&gt;alert") {
		t.Errorf("the page is %s", page)
	}
}

func TestRefusedForms(t *testing.T) {
	b := newVisit(t, configs(sessplus.Memory()))(firefox)
	for _, name := range []string{"", "  ", strings.Repeat("n", 41)} {
		b.ask("POST", "/login", http.StatusBadRequest, "name", name)
		b.shows("Please enter a name")
	}
	b.ask("GET", "/login", http.StatusMethodNotAllowed)
	b.ask("GET", "/nowhere", http.StatusNotFound)
	b.submit("/logout/all") // of nobody
	b.shows("<h1>Log in</h1>")
	if got := b.cookies(); len(got) > 0 {
		t.Errorf("the cookies are %v, want none", got)
	}
	res := b.open()
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}
}

// outage is a backend that can be down for lists and for loads.
type outage struct {
	indexer
	lists, loads bool
}

type indexer interface {
	sessplus.Indexer
	sessplus.DeviceKeeper
}

var errRefused = errors.New("connection refused")

func (o *outage) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	if o.loads {
		return nil, errRefused
	}
	return o.indexer.Load(ctx, key)
}

func (o *outage) Owned(ctx context.Context, owner string) ([]sessplus.KeyedRecord, error) {
	if o.lists {
		return nil, errRefused
	}
	return o.indexer.Owned(ctx, owner)
}

func TestBackendDown(t *testing.T) {
	o := &outage{indexer: sessplus.Memory().(indexer)}
	b := newVisit(t, configs(o))(firefox).logIn("Ann")
	down := func() {
		t.Helper()
		for _, ask := range [][2]string{{"GET", "/"}, {"POST", "/logout/others"}, {"POST", "/logout/all"}, {"POST", "/role"}} {
			b.ask(ask[0], ask[1], http.StatusServiceUnavailable)
			b.shows("You are still logged in")
			if strings.Contains(b.page, "refused") {
				t.Errorf("the page says what is inside: %s", b.page)
			}
		}
	}
	o.lists = true
	down()
	o.lists, o.loads = false, true
	down()
	o.loads = false
	b.devices("Firefox on Linux")
}

// A session that ends while its request is under way: the page says so, as at the next request.
func TestSessionThatEndsMeanwhile(t *testing.T) {
	w := httptest.NewRecorder()
	fail(w, httptest.NewRequest("POST", "/role", nil), fmt.Errorf("saving: %w", sessplus.ErrSessionGone))
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Errorf("status %d, Location %q; want 303 and /", w.Code, w.Header().Get("Location"))
	}
}

func TestDeviceName(t *testing.T) {
	for agent, want := range map[string]string{
		firefox: "Firefox on Linux", safari: "Safari on iPhone", edge: "Edge on Windows",
		"Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36":  "Chrome on Android",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15":  "Safari on Mac",
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 OPR/120": "Opera on ChromeOS",
		"Lynx (Linux)":             "Linux",
		"curl/8.5.0":               "curl",
		"":                         "Unknown device",
		"\u202e\u200b/1":           "Unknown device",
		"\u202eevil":               "evil",
		strings.Repeat("é", 60):    strings.Repeat("é", 39) + "…",
		"/":                        "Unknown device",
		"  a b  /c":                "a b",
		"Go-http-client/1.1 (x; y": "Go-http-client",
	} {
		if got := deviceName(agent); got != want {
			t.Errorf("deviceName(%q) = %q, want %q", agent, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	for age, want := range map[time.Duration]string{
		-time.Hour: "just now", 0: "just now", 59 * time.Second: "just now", time.Minute: "1 minute ago", 59*time.Minute + 59*time.Second: "59 minutes ago",
		time.Hour: "1 hour ago", 47 * time.Hour: "1 day ago", 30 * day: "30 days ago",
	} {
		if got := (device{LastSeen: time.Now().Add(-age)}).Ago(); got != want {
			t.Errorf("used %v ago: %q, want %q", age, got, want)
		}
	}
}

func TestRun(t *testing.T) {
	for _, name := range []string{"SESSION_SECRET", "REDIS_URL", "FIRESTORE_PROJECT", "FIRESTORE_EMULATOR_HOST"} {
		t.Setenv(name, "")
	}
	t.Run("serves until it is interrupted", func(t *testing.T) {
		ctx, interrupt := context.WithTimeout(t.Context(), 20*time.Second)
		defer interrupt()
		r, w := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- run(ctx, "127.0.0.1:0", w)
			w.Close()
		}()
		served := false
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if url, ok := strings.CutPrefix(lines.Text(), "open     "); ok {
				res, err := http.Get(url)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				served = res.StatusCode == http.StatusOK
				interrupt()
			}
		}
		if err := <-ended; err != nil || !served {
			t.Errorf("run = %v, want nil; it has served: %v", err, served)
		}
	})
	for name, test := range map[string]struct{ env, value, want string }{
		"a short secret":                            {"SESSION_SECRET", "short", "Keys"},
		"a wrong URL, without its password":         {"REDIS_URL", "http://:hidden@127.0.0.1", "no Redis URL"},
		"two places at once":                        {"REDIS_URL", "redis://:hidden@127.0.0.1", "keep one"},
		"two places at once, one of them a project": {"FIRESTORE_PROJECT", "demo", "keep one"},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			if test.want == "keep one" {
				t.Setenv("REDIS_URL", "redis://127.0.0.1")
				t.Setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
			}
			t.Setenv(test.env, test.value)
			ctx, stop := context.WithCancel(t.Context())
			stop()
			if err := run(ctx, "127.0.0.1:0", io.Discard); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("run = %v, want an error with %q", err, test.want)
			}
		})
	}
}
