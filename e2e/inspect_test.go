package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/sessplus/sessplus/internal/servers"
)

// beside opens another tab of the same browser.
func (b *tab) beside() *tab {
	b.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		b.Fatalf("another tab: %v", err)
	}
	return &tab{TB: b.TB, ctx: ctx, close: b.close}
}

// becomes waits until a script says so of the page.
func (b *tab) becomes(what, script string) {
	b.Helper()
	servers.WaitFor(b, what, 20*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		defer cancel()
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script))
		return err == nil && ok
	})
}

// showsText waits until the page has the text.
func (b *tab) showsText(id, text string) {
	b.Helper()
	b.becomes(id+" shows "+text, "(document.getElementById('"+id+"')?.innerText ?? '').includes("+quoted(text)+")")
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `\'`) + "'" }

// looks sets the colors and the width of the window.
func (b *tab) looks(scheme string, width, height int64) {
	b.Helper()
	run(b, scheme, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
	run(b, "width", chromedp.EmulateViewport(width, height))
}

// picture writes the whole page into a directory, for a person to look at, and fails the test if it is wider than the
// window.
func (b *tab) picture(name string) {
	b.Helper()
	for _, look := range []struct {
		name, scheme  string
		width, height int64
	}{{"desktop-light", "light", 1200, 900}, {"desktop-dark", "dark", 1200, 900}, {"phone-light", "light", 390, 844}, {"phone-dark", "dark", 390, 844}} {
		b.looks(look.scheme, look.width, look.height)
		if wide := run(b, "its width", chromedp.Evaluate[int64]("document.documentElement.scrollWidth")); wide > look.width {
			b.Errorf("%s, %s: the page is %d pixels wide, the window %d", name, look.name, wide, look.width)
		}
		if dir := os.Getenv("SESSPLUS_SCREENSHOTS"); dir != "" {
			file := filepath.Join(dir, name+"-"+look.name+".png")
			if err := os.WriteFile(file, run(b, "screenshot", chromedp.FullScreenshot(100)), 0o644); err != nil {
				b.Error(err)
			}
		}
	}
	b.looks("light", 1200, 900)
}

func testInspect(t *testing.T, program string) {
	b := newTab(t)
	url := start(t, program, map[string]string{"REDIS_URL": "", "FIRESTORE_PROJECT": "", "FIRESTORE_EMULATOR_HOST": ""})
	b.becomes("the browser is there", "true")

	page := b.beside()
	run(page, "open it", chromedp.Navigate(url+"inspect"))
	page.showsText("stream", "Live.")
	page.picture("empty")
	if got := run(page, "its cookies", chromedp.Evaluate[string]("document.cookie")); got != "" || len(page.cookies()) != 0 {
		t.Errorf("the page has left the cookies %q", got)
	}

	// Another visitor's login and logout are seen, and this browser's too.
	run(b, "open the shop", chromedp.Navigate(url))
	other := newTab(t)
	run(other, "open the shop", chromedp.Navigate(url))
	run(other, "type the name", chromedp.SendKeys(chromedp.ID("name"), "Bob"))
	other.click("login")
	page.showsText("list", "POST /login")
	other.click("logout")
	page.showsText("list", "POST /logout")
	page.showsText("list", "destroy")
	if text := page.text("sessions"); strings.Contains(text, "user_name") {
		t.Errorf("the page shows the session of another browser: %s", text)
	}

	b.click("add-tea")
	run(b, "type the name", chromedp.SendKeys(chromedp.ID("name"), "Ann"))
	b.click("login")
	b.click("theme-dark")
	page.showsText("session-session", "user_name") // without a reload
	page.showsText("session-data", "theme")
	page.showsText("cookies", "HttpOnly")
	if source := page.source(); strings.Contains(source, "Ann") {
		t.Errorf("the page shows a value that nobody has asked for: %s", source)
	}
	before := run(page, "a countdown", chromedp.Evaluate[string]("document.querySelector('#session-data time').textContent"))
	if !strings.HasPrefix(before, "in 36") {
		t.Errorf("the end of a cookie of a year is %q", before)
	}
	page.picture("logged-in")

	page.click("show-session")
	page.showsText("session-session", `"Ann"`)
	page.picture("values")
	page.click("show-session")
	if source := page.source(); strings.Contains(source, "Ann") {
		t.Errorf("the page shows values although they were hidden again")
	}

	// A button with the keyboard alone, and the focus stays on it while the page is brought up to date.
	run(page, "focus", chromedp.Evaluate[bool]("(document.getElementById('rotate-session').focus(), true)"))
	b.click("add-tea")
	page.showsText("list", "POST /cart")
	page.becomes("the focus stays", "document.activeElement?.id === 'rotate-session'")
	old := page.cookies()["session"].Value
	run(page, "press Enter", chromedp.KeyEvent("\r"))
	page.showsText("done", "session has a new id.")
	page.becomes("the focus is on what was done", "document.activeElement?.id === 'done'")
	page.showsText("list", "rotate")
	page.picture("rotated")
	if page.cookies()["session"].Value == old {
		t.Error("the id is the same after Rotate now")
	}
	run(b, "reload", chromedp.Reload())
	b.showsData("after Rotate now")

	page.click("expire-session")
	page.showsText("session-session", "its cookie names none")
	page.picture("expired")
	run(b, "reload", chromedp.Reload())
	page.showsText("list", "miss")
	if source := b.source(); strings.Contains(source, "Hello, Ann.") {
		t.Error("the session lives after Expire now")
	}
	page.click("end-data")
	page.showsText("session-data", "no session")
	if page.cookies()["data"] != nil {
		t.Error("the cookie is there after End this session")
	}

	run(page, "pause", chromedp.Click(chromedp.ID("pause")))
	page.showsText("stream", "Paused.")
}
