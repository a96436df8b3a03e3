package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// SPEC 10: the sessions of one user, in two browsers and a client of another kind, one ended from the other.
func TestDevices(t *testing.T) {
	program := filepath.Join(t.TempDir(), "devices")
	build := exec.Command("go", "build", "-o", program, "./examples/devices")
	build.Dir = ".." // the example belongs to the parent module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./examples/devices: %v\n%s", err, out)
	}
	nowhere := map[string]string{"REDIS_URL": "", "FIRESTORE_PROJECT": "", "FIRESTORE_EMULATOR_HOST": "", "SESSION_SECRET": ""}
	t.Run("memory", func(t *testing.T) { testDevices(t, start(t, program, nowhere)) })
	t.Run("redis", func(t *testing.T) {
		env := newStore(t).env()
		testDevices(t, start(t, program, map[string]string{"REDIS_URL": env["REDIS_URL"], "FIRESTORE_PROJECT": "", "FIRESTORE_EMULATOR_HOST": ""}))
	})
	t.Run("firestore", func(t *testing.T) {
		env := newStore(t).env()
		testDevices(t, start(t, program, map[string]string{"REDIS_URL": "", "FIRESTORE_PROJECT": env["FIRESTORE_PROJECT"]}))
	})
}

func testDevices(t *testing.T, page string) {
	const phoneAgent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
	laptop, phone := newTab(t), newTab(t)
	call(phone, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: phoneAgent})
	curl := newClient(t, page)

	logIn := func(b *tab) {
		t.Helper()
		run(b, "open "+page, chromedp.Navigate(page))
		run(b, "type the name", chromedp.SendKeys(chromedp.ID("name"), "Ann"))
		b.click("login")
	}
	logIn(laptop)
	logIn(phone)
	curl.ask("POST", "login", "name", "Ann")
	lists := func(b *tab, want ...string) {
		t.Helper()
		run(b, "reload", chromedp.Reload())
		got := run(b, "the devices", chromedp.Evaluate[[]string]("[...document.querySelectorAll('#devices h2')].map(e => e.innerText.trim().replace(/\\s+/g, ' '))"))
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("the devices are %q, want %q", got, want)
		}
	}
	isLoggedOut := func(b *tab) {
		t.Helper()
		run(b, "reload", chromedp.Reload())
		if source := b.source(); !strings.Contains(source, `id="ended"`) || strings.Contains(source, `id="user"`) {
			t.Errorf("the page does not say that the session was ended: %s", source)
		}
	}
	run(phone, "reload", chromedp.Reload())
	if got := run(phone, "this one", chromedp.Evaluate[string]("document.querySelector('[aria-current] bdi').innerText")); got != "Safari on iPhone" {
		t.Errorf("the phone finds itself as %q, want Safari on iPhone", got)
	}
	run(laptop, "reload", chromedp.Reload())
	screenshots(t, laptop, "devices")
	source := laptop.source()
	for _, want := range []string{"Chrome on Linux", "Safari on iPhone", "<bdi>curl</bdi>"} {
		if !strings.Contains(source, want) {
			t.Fatalf("the laptop does not list %q: %s", want, source)
		}
	}

	laptop.click("demote")
	for name, source := range map[string]string{"the laptop": laptop.source(), "curl": curl.ask("GET", "")} {
		if !strings.Contains(source, `id="role">guest<`) {
			t.Errorf("%s is no guest: %s", name, source)
		}
	}

	// The laptop ends the phone, curl the laptop.
	press := func(label string) {
		t.Helper()
		run(laptop, "a name for the button of "+label, chromedp.Evaluate[bool](
			fmt.Sprintf(`!!(document.querySelector('button[aria-label="Log out %s"]').id = 'press')`, label)))
		laptop.click("press")
	}
	press("Safari on iPhone")
	screenshots(t, laptop, "ended-one")
	isLoggedOut(phone)
	screenshots(t, phone, "logged-out")
	curl.ask("POST", "logout/others")
	isLoggedOut(laptop)
	if got := curl.ask("GET", ""); strings.Count(got, "<li ") != 1 || !strings.Contains(got, "<bdi>curl</bdi>") {
		t.Errorf("curl lists not itself alone: %s", got)
	}

	// SPEC 3.11: who was logged out logs in again at once. The phone is still on the page that tells it.
	run(phone, "type the name", chromedp.SendKeys(chromedp.ID("name"), "Ann"))
	phone.click("login")
	lists(phone, "Safari on iPhone This one", "curl")
	logIn(laptop)
	lists(laptop, "Chrome on Linux This one", "Safari on iPhone", "curl")

	phone.click("all")
	screenshots(t, phone, "login")
	if got := phone.text("notice"); got != "You are logged out on all devices." {
		t.Errorf("the phone is told %q", got)
	}
	isLoggedOut(laptop)
	if got := curl.ask("GET", ""); !strings.Contains(got, `id="ended"`) {
		t.Errorf("curl is not told that its session was ended: %s", got)
	}
}

// call sends the tab a command of the DevTools protocol.
func call[P any](b *tab, c cdp.Command[P, cdp.Empty], params P) {
	b.Helper()
	run(b, c.Method, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	}))
}

// screenshots keeps what the tab shows, if SESSPLUS_SCREENSHOTS names a directory: wide and narrow, light and dark.
func screenshots(t *testing.T, b *tab, name string) {
	t.Helper()
	dir := os.Getenv("SESSPLUS_SCREENSHOTS")
	if dir == "" {
		return
	}
	for size, width := range map[string]int64{"wide": 1100, "phone": 360} {
		for _, scheme := range []string{"light", "dark"} {
			call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 760, DeviceScaleFactor: 1})
			call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})
			file := filepath.Join(dir, fmt.Sprintf("%s-%s-%s.png", name, size, scheme))
			if err := os.WriteFile(file, run(b, "screenshot", chromedp.FullScreenshot(100)), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
}

// A client is a visitor that is no browser.
type client struct {
	testing.TB
	http.Client
	page string
}

func newClient(t *testing.T, page string) *client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t, http.Client{Jar: jar, Timeout: time.Minute}, page}
}

func (c *client) ask(method, path string, fields ...string) string {
	c.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	req, err := http.NewRequest(method, c.page+path, strings.NewReader(form.Encode()))
	if err != nil {
		c.Fatal(err)
	}
	req.Header.Set("User-Agent", "curl/8.5.0")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		c.Fatalf("%s /%s = %s, %v: %s", method, path, res.Status, err, body)
	}
	return string(body)
}
