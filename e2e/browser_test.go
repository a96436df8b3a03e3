package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/sessplus/sessplus/internal/servers"
)

// A tab is one of a new Chromium, which ends with the test.
type tab struct {
	testing.TB
	ctx   context.Context
	close func() // closes the browser
}

func newTab(t *testing.T, more ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		const reason = "needs a browser: apt-get install chromium"
		if os.Getenv("SESSPLUS_REQUIRE_SERVERS") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	opts := []chromedp.ExecAllocatorOption{ // without UserDataDir: a new one, which goes with the browser
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WindowSize(1100, 900),
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage",
	} {
		opts = append(opts, chromedp.Flag(flag, true))
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append(opts, more...)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t, ctx, func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("the browser does not close: %v", err)
		}
	}}
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of the first call
		t.Fatalf("the browser does not start: %v", err)
	}
	return b
}

// run carries out one action in the tab, or fails the test.
func run[T any](b *tab, what string, action chromedp.Action[T]) T {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
	return v
}

// click clicks the element and waits until the page that follows is there.
func (b *tab) click(id string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	res, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.ID(id)))
	if err != nil {
		b.Fatalf("click on %s: %v", id, err)
	}
	if res == nil || res.Status != 200 {
		b.Fatalf("click on %s leads to %+v, want a page with status 200", id, res)
	}
}

// back presses the back button. It does not wait for a load, which a page that the browser has kept does without.
func (b *tab) back() {
	b.Helper()
	history := run(b, "history", chromedp.NavigationEntries())
	entry := history.Entries[history.CurrentIndex-1]
	run(b, "back", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: entry.ID})
		return err
	}))
	servers.WaitFor(b, "back to "+entry.URL, time.Minute, func() bool {
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		defer cancel()
		at, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.readyState + ' ' + location.href"))
		return err == nil && at == "complete "+entry.URL
	})
}

func (b *tab) text(id string) string {
	b.Helper()
	return run(b, "the text of "+id, chromedp.Text(chromedp.ID(id)))
}

func (b *tab) source() string {
	b.Helper()
	return run(b, "the page", chromedp.Evaluate[string]("document.documentElement.outerHTML"))
}

// showsData fails the test unless the page is that of a visitor who has logged in.
func (b *tab) showsData(when string) {
	b.Helper()
	source := b.source()
	for _, want := range []string{"Hello, Ann.", `id="count-tea">2<`} {
		if !strings.Contains(source, want) {
			b.Errorf("%s the page does not show %q: %s", when, want, source)
		}
	}
}

// showsNoData fails the test unless the page is that of somebody who is not known.
func (b *tab) showsNoData(when string) {
	b.Helper()
	source := b.source()
	for _, secret := range []string{"Ann", `id="plan"`, `id="count-tea">2<`, `data-theme="dark"`} {
		if strings.Contains(source, secret) {
			b.Errorf("%s the page shows %q: %s", when, secret, source)
		}
	}
	if !strings.Contains(source, `id="login"`) {
		b.Errorf("%s the page does not ask to log in: %s", when, source)
	}
}

// cookies returns the browser's cookie store, after it has checked that of what is there each is as promised.
func (b *tab) cookies() map[string]*network.Cookie {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	got, err := chromedp.CallBrowser(ctx, storage.GetCookies, storage.GetCookiesParams{})
	if err != nil {
		b.Fatalf("the browser's cookies: %v", err)
	}
	all := make(map[string]*network.Cookie)
	for _, c := range got.Cookies {
		all[c.Name] = c
		if !c.HTTPOnly || c.SameSite != network.CookieSameSiteLax || c.Path != "/" || c.Domain != "127.0.0.1" || c.Secure {
			b.Errorf("cookie %s: HttpOnly %v, SameSite %q, Path %q, Domain %q, Secure %v; want true, Lax, /, 127.0.0.1, false",
				c.Name, c.HTTPOnly, c.SameSite, c.Path, c.Domain, c.Secure)
		}
		if c.Name != "data" {
			if !c.Session {
				b.Errorf("cookie %s stays when the browser closes, want not", c.Name)
			}
			continue
		}
		const year = 365 * 24 * time.Hour
		if left := time.Until(time.Unix(int64(c.Expires), 0)); c.Session || left < year-time.Hour || left > year+time.Hour {
			b.Errorf("cookie %s: session %v, expires in %v; want false, %v", c.Name, c.Session, left, year)
		}
	}
	return all
}

// hasCookies returns the store and fails the test unless it has exactly these cookies.
func (b *tab) hasCookies(when string, names ...string) map[string]*network.Cookie {
	b.Helper()
	all := b.cookies()
	for _, name := range names {
		if all[name] == nil {
			b.Fatalf("%s the browser has no cookie %s", when, name)
		}
	}
	if len(all) != len(names) {
		b.Errorf("%s the browser has %d cookies, want %v", when, len(all), names)
	}
	return all
}

func testBrowser(t *testing.T, program string) {
	b := newTab(t)
	stored := newStore(t)
	url := start(t, program, stored.env())

	run(b, "open "+url, chromedp.Navigate(url))
	b.showsNoData("at first")
	first := b.hasCookies("at first", "csrf") // SPEC 3.1: nothing but the form's token
	stored.isEmpty("at first")

	// A cart before the login: there is a session whose id somebody might know.
	b.click("add-tea")
	b.click("add-tea")
	anonymous := b.hasCookies("with a cart", "csrf", "session")
	if got := stored.session(anonymous["session"].Value)["cart"]; got != `{"tea":2}` {
		t.Errorf("with a cart Redis has the cart %s, want 2 tea", got)
	}

	run(b, "type the name", chromedp.SendKeys(chromedp.ID("name"), "Ann"))
	b.click("login")
	b.showsData("after the login")
	in := b.hasCookies("after the login", "csrf", "session", "account")
	if in["session"].Value == anonymous["session"].Value { // SPEC 3.8
		t.Error("the session has the same id after the login")
	}
	if in["csrf"].Value == first["csrf"].Value {
		t.Error("the csrf cookie is the same after the login")
	}
	session := stored.session(in["session"].Value) // and so not the old record
	if session["user_name"] != `"Ann"` || session["cart"] != `{"tea":2}` {
		t.Errorf("after the login Redis has %v, want Ann and the cart", session)
	}
	if got := stored.account(in["account"].Value)["plan"]; got != `"free"` {
		t.Errorf("after the login Firestore has the plan %v, want free", got)
	}

	run(b, "reload", chromedp.Reload())
	b.showsData("after a reload")

	b.click("theme-dark")
	b.click("upgrade")
	if file := os.Getenv("SESSPLUS_SCREENSHOT"); file != "" {
		if err := os.WriteFile(file, run(b, "screenshot", chromedp.FullScreenshot(100)), 0o644); err != nil {
			t.Error(err)
		}
	}
	run(b, "reload", chromedp.Reload())
	b.showsData("with another theme and plan")
	if got := run(b, "the theme", chromedp.Evaluate[string]("document.documentElement.dataset.theme")); got != "dark" {
		t.Errorf("the theme is %q, want dark", got)
	}
	if got := b.text("plan"); got != "pro" {
		t.Errorf("the plan is %q, want pro", got)
	}
	all := b.hasCookies("with another theme", "csrf", "session", "account", "data")
	for _, name := range []string{"session", "account"} { // SPEC 3.6: sent at creation and renewal only
		if all[name].Value != in[name].Value {
			t.Errorf("the cookie %s has changed without a login", name)
		}
	}
	if got := stored.account(all["account"].Value)["plan"]; got != `"pro"` {
		t.Errorf("Firestore has the plan %v, want pro", got)
	}
	if got := run(b, "document.cookie", chromedp.Evaluate[string]("document.cookie")); got != "" {
		t.Errorf("a script reads the cookies %q, want none", got)
	}

	b.click("logout")
	b.showsNoData("after the logout")
	out := b.hasCookies("after the logout", "csrf") // for the form to log in again
	if out["csrf"].Value == all["csrf"].Value {
		t.Error("the csrf cookie is the same after the logout")
	}
	stored.isEmpty("after the logout")

	// Back to every page that was shown. Entry 0 is the empty page of a new tab.
	for n := run(b, "history", chromedp.NavigationEntries()).CurrentIndex; n > 1; n-- {
		b.back()
		b.showsNoData("after the back button")
	}
	b.hasCookies("after the back button", "csrf")
	stored.isEmpty("after the back button")
}
