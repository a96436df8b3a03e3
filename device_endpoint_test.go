package sessplus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/aged"
)

// A keeper is a recorder that keeps keys, which look long registered.
type keeper struct{ *recorder }

func (keeper) KeepsDeviceKeys() {}

func newKeeper(b sessplus.Backend) keeper { return keeper{&recorder{Backend: aged.Keys{Backend: b}}} }

var challengeOf = regexp.MustCompile(`^"([^"]+)";id="([^"]+)"$`)

// SPEC 14.3: what the endpoints tell browsers.
func TestDeviceBoundInstructions(t *testing.T) {
	t.Parallel()
	cfg := bound(sessplus.Memory())
	j := &journal{}
	opts := j.options(0)
	opts.DevicePath = "/auth/dbsc"
	cfg.CookieName, cfg.SameSite = "s#1", http.SameSiteStrictMode
	s := serveBound(t, newManager(t, opts, cfg, sessplus.Config{CookieName: "rest", Fields: sessplus.Auto()}), j)
	r := s.request(s.Client().Transport, "GET", "/set?name=a&value=1")
	if offer := r.Header.Get("Secure-Session-Registration"); offer != "" {
		t.Errorf("a session that names nobody is offered %q", offer)
	}
	s.get("/logout")
	mgr := s.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Renew()
		sessplus.Get(r).Set("user", "ann")
	}))
	s.Config.Handler = mgr
	s.get("/")
	if len(s.Bound()) != 1 || s.Cookie("s#1-bound") == "" {
		t.Fatalf("at another path and with another name the browser has the keys %q and the cookie %q", s.Bound(), s.Cookie("s#1-bound"))
	}
	thumbprint := s.Bound()[0]
	r = s.request(s.Client().Transport, "POST", "/auth/dbsc/s%231/refresh", "Cookie", "s#1="+s.Cookie("s#1"), "Sec-Secure-Session-Id", thumbprint)
	m := challengeOf.FindStringSubmatch(r.Header.Get("Secure-Session-Challenge"))
	if r.StatusCode != http.StatusForbidden || m == nil || m[2] != thumbprint {
		t.Fatalf("a refresh without a proof is answered %d %v", r.StatusCode, r.Header)
	}
	s.Forget("s#1-bound")
	s.get("/")
	if s.Proofs() != 1 {
		t.Errorf("the browser has proven its key %d times, want once", s.Proofs())
	}
}

// SPEC 14.3: the instructions, and the cookie as they say it.
func TestDeviceBoundAnswer(t *testing.T) {
	t.Parallel()
	s := newBoundSite(t, bound(sessplus.Memory()))
	cookie, challenge := s.offered("ann")
	proof := s.proves(challenge)
	_, others := s.offered("eve")
	for _, wrong := range []string{"", "made-up", others} { // another session's
		forged := s.proves(wrong)
		if r := s.request(s.Client().Transport, "POST", registrationPath, "Cookie", cookie, "Secure-Session-Response", forged); r.StatusCode != http.StatusForbidden {
			t.Errorf("a registration with the challenge %.12q is answered %d, want 403", wrong, r.StatusCode)
		}
	}
	for range 2 { // the same key again is fine
		r := s.request(s.Client().Transport, "POST", registrationPath, "Cookie", cookie, "Secure-Session-Response", `"`+proof+`"`)
		var got map[string]any
		if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("a registration is answered %d %v %s", r.StatusCode, r.Header, r.body)
		}
		id, _ := got["session_identifier"].(string)
		if len(id) != 43 || got["refresh_url"] != refreshPath || got["continue"] != nil || got["allowed_refresh_initiators"] != nil {
			t.Errorf("the instructions are %s", r.body)
		}
		scope := got["scope"].(map[string]any)
		credential := got["credentials"].([]any)[0].(map[string]any)
		if scope["include_site"] != false || credential["type"] != "cookie" || credential["name"] != "s-bound" || credential["attributes"] != "Path=/; HttpOnly; Secure; SameSite=Lax" {
			t.Errorf("the instructions are %s", r.body)
		}
		k, err := http.ParseSetCookie(r.setCookies("s-bound")[0])
		if err != nil || k.MaxAge != 600 || !k.HttpOnly || !k.Secure || k.SameSite != http.SameSiteLaxMode || k.Path != "/" || k.Domain != "" {
			t.Errorf("the cookie is %v, %v", k, err)
		}
	}
}

// SPEC 14.5: the endpoints answer 200, 403 and 503, whatever comes.
func TestDeviceBoundStatus(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		k := newKeeper(b)
		cfg := bound(b)
		cfg.Backend = k
		j := &journal{}
		opts := j.options(time.Second)
		opts.ErrorHandler = func(w http.ResponseWriter, r *http.Request, _ error) { http.Redirect(w, r, "/sorry", http.StatusFound) }
		s := serveBound(t, newManager(t, opts, cfg), j)
		s.login("ann")
		thumbprint := s.Bound()[0]
		plain := s.Client().Transport
		id := "s=" + s.Cookie("s")
		other := strings.Repeat("A", 43)
		const end = `{"continue":false}`
		for name, tt := range map[string]struct {
			path, method, cookie, session string
			status                        int
			body                          string // beginning
		}{
			"no proof":                    {refreshPath, "POST", id, thumbprint, 403, ""},
			"a string of its own":         {refreshPath, "POST", id, `"` + thumbprint + `"`, 403, ""},
			"another method":              {refreshPath, "GET", id, thumbprint, 403, ""},
			"yet another":                 {refreshPath, "OPTIONS", id, thumbprint, 403, ""},
			"no identifier":               {refreshPath, "POST", id, "", 403, ""},
			"another identifier":          {refreshPath, "POST", id, other, 200, end},
			"no id":                       {refreshPath, "POST", "", thumbprint, 200, end},
			"an id that never was":        {refreshPath, "POST", "s=" + other, thumbprint, 200, end},
			"no id at all":                {refreshPath, "POST", "s=x", thumbprint, 403, ""},
			"no id, and another after it": {refreshPath, "POST", "s=x; s=" + other, thumbprint, 200, end},
			"a registration of nothing":   {registrationPath, "POST", id, "", 403, ""},
			"one without an id":           {registrationPath, "POST", "", "", 403, ""},
			"one by another method":       {registrationPath, "GET", id, "", 403, ""},
		} {
			r := s.request(plain, tt.method, tt.path, "Cookie", tt.cookie, "Sec-Secure-Session-Id", tt.session)
			if r.StatusCode != tt.status || !strings.HasPrefix(r.body, tt.body) || len(r.Header["Set-Cookie"]) > 0 {
				t.Errorf("%s: %d %s %v, want %d %s", name, r.StatusCode, r.body, r.Header, tt.status, tt.body)
			}
			if m := challengeOf.FindStringSubmatch(r.Header.Get("Secure-Session-Challenge")); tt.path == refreshPath && tt.status == 403 && (m == nil || m[2] != thumbprint) {
				t.Errorf("%s: the challenge is %q, want a new one for the session", name, r.Header.Get("Secure-Session-Challenge"))
			}
		}

		// Down at each step: the load of the refresh, and of the registration, and its write. The browser keeps what it
		// has.
		k.setHook(downBut())
		s.Forget("s-bound")
		r := s.get("/")
		if r.StatusCode != http.StatusFound || !slices.Equal(s.Bound(), []string{thumbprint}) {
			t.Errorf("in an outage the page is answered %d, and the browser has %q", r.StatusCode, s.Bound())
		}
		if r := s.endpoint(s.Browser, refreshPath); r.StatusCode != 503 {
			t.Errorf("in an outage a refresh is answered %d", r.StatusCode)
		}
		if r := s.endpoint(s.Browser, registrationPath); r.StatusCode != 503 {
			t.Errorf("in an outage a registration is answered %d", r.StatusCode)
		}
		k.setHook(nil)
		s.reads("after the outage", "ann")

		if text := j.text(); strings.Contains(text, s.Cookie("s")) || strings.Contains(text, thumbprint) {
			t.Error("the log has an id or a key")
		}
	})
}

// SPEC 14.5: a registration whose write fails is 503, and succeeds when it is sent again.
func TestDeviceBoundRegistrationInAnOutage(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		k := newKeeper(b)
		cfg := bound(b)
		cfg.Backend = k
		s := newBoundSite(t, cfg)
		cookie, challenge := s.offered("ann")
		proof := s.proves(challenge)
		register := func() int {
			return s.request(s.Client().Transport, "POST", registrationPath, "Cookie", cookie, "Secure-Session-Response", proof).StatusCode
		}
		k.setHook(downBut("load"))
		if got := register(); got != 503 {
			t.Errorf("down at the write: %d, want 503", got)
		}
		k.setHook(nil)
		k.setAfter(func(op string) error { // it is written, and the answer is lost
			if op == "update" {
				return errDown
			}
			return nil
		})
		if got := register(); got != 503 {
			t.Errorf("the answer is lost: %d, want 503", got)
		}
		k.setAfter(nil)
		if got := register(); got != 200 {
			t.Errorf("sent again: %d, want 200", got)
		}
	})
}

// SPEC 14.5: older keys read challenges and bound cookies, and what they wrote is written by the newest with the next
// proof.
func TestDeviceBoundOldKeys(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	older, newer := sessplus.GenerateKeyPair(), sessplus.GenerateKeyPair()
	with := func(keys ...sessplus.KeyPair) *boundSite {
		j := &journal{}
		opts := j.options(0)
		opts.Keys = keys
		return serveBound(t, newManager(t, opts, bound(b)), j)
	}
	old, both, only := with(older), with(newer, older), with(newer)
	old.login("ann")
	read := func(s *boundSite) string {
		return s.request(s.Client().Transport, "GET", "/", "Cookie", "s="+old.Cookie("s")+"; s-bound="+old.Cookie("s-bound")).body
	}
	if read(both) != "ann" || read(only) != "" {
		t.Errorf("with both keys the page reads %q, with the newer %q; want ann, nothing", read(both), read(only))
	}
	h := old.Config.Handler
	old.Config.Handler = both.Config.Handler // a deployment
	old.Forget("s-bound")
	old.reads("after a deployment", "ann")
	if read(only) != "ann" {
		t.Error("a proof is not written with the newest key")
	}
	old.Config.Handler = h
	if read(old) != "" {
		t.Error("the older key alone reads what the newer wrote")
	}
}

// SPEC 14.5: Secure-Session-Skipped is told, and relaxes nothing.
func TestDeviceBoundSkipped(t *testing.T) {
	t.Parallel()
	s := newBoundSite(t, bound(sessplus.Memory()))
	s.login("ann")
	thumbprint := s.Bound()[0]
	for header, want := range map[string]string{
		"quota_exceeded": "quota_exceeded",
		`unreachable;session_identifier="` + thumbprint + `"`:    "unreachable",
		`server_error;session_identifier=` + thumbprint:          "server_error",
		`quota_exceeded;session_identifier="x", unreachable;a=1`: "unreachable",
		`quota_exceeded;session_identifier="x"`:                  "missing",
		"made_up":                                                "missing",
		"":                                                       "missing",
		strings.Repeat("x, ", 1000) + "quota_exceeded":           "missing",
	} {
		s.j.kinds("s")
		r := s.request(s.Client().Transport, "GET", "/", "Cookie", "s="+s.Cookie("s"), "Secure-Session-Skipped", header)
		s.j.mu.Lock()
		var reasons []string
		for _, e := range s.j.events {
			if e.Kind == sessplus.EventUnproven {
				reasons = append(reasons, e.Reason)
			}
		}
		s.j.mu.Unlock()
		if r.body != "" || !slices.Equal(reasons, []string{want}) {
			t.Errorf("%.60s: the page reads %q, the events say %q, want %q", header, r.body, reasons, want)
		}
	}
}

// SPEC 14.6: a link on another site is followed twice, once each time.
func TestDeviceBoundReload(t *testing.T) {
	t.Parallel()
	for _, lazy := range []bool{false, true} {
		cfg := bound(sessplus.Memory())
		cfg.Lazy = lazy
		s := newBoundSite(t, cfg)
		link := func(site, mode, dest string) []string {
			return []string{"Sec-Fetch-Site", site, "Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", dest}
		}
		if r := s.get("/", link("cross-site", "navigate", "document")...); r.Header.Get("Refresh") != "" {
			t.Error("a visitor without a session is to reload")
		}
		s.login("ann")
		if r := s.get("/", link("cross-site", "navigate", "document")...); r.body != "ann" || r.Header.Get("Refresh") != "" {
			t.Errorf("with a proof a link reads %q", r.body)
		}
		for _, how := range [][]string{
			link("same-origin", "navigate", "document"), link("none", "navigate", "document"), link("cross-site", "no-cors", "document"),
			link("cross-site", "navigate", "iframe"), nil,
		} {
			thief := s.Stolen()
			thief.Forget("s-bound")
			if r := s.getAs(thief, "/", how...); r.Header.Get("Refresh") != "" || r.body != "" {
				t.Errorf("%q is to reload, or reads %q", how, r.body)
			}
		}
		s.Forget("s-bound")
		r := s.get("/page?a=1&b=%22", link("cross-site", "navigate", "document")...)
		if r.StatusCode != 200 || r.Header.Get("Refresh") != "0" || r.Header.Get("Cache-Control") != "no-store" || strings.Contains(r.body, "<script") ||
			!strings.Contains(r.body, `content="0; url=./page?a=1&amp;b=%22"`) || len(r.setCookies("s"))+len(r.setCookies("s-bound")) > 0 {
			t.Errorf("a link without a proof is answered %d %v %s", r.StatusCode, r.Header, r.body)
		}
		if r := s.get("/", link("cross-site", "navigate", "document")...); r.Header.Get("Refresh") != "" || r.body != "" {
			t.Errorf("a second time it is answered %v %q, want the page of a visitor who is not known", r.Header, r.body)
		}
		if r := s.get("/", link("same-origin", "navigate", "document")...); r.body != "ann" {
			t.Errorf("the reload reads %q", r.body)
		}
		s.Forget("s-bound")
		if r := s.get("/", link("same-site", "navigate", "document")...); r.Header.Get("Refresh") != "0" {
			t.Error("after a proof the next link is not answered with a reload")
		}
	}
}

// SPEC 14.7: what is bound to a session without a proof is void, and stays in the browser.
func TestDeviceBoundTo(t *testing.T) {
	t.Parallel()
	cfg := bound(sessplus.Memory())
	cfg.Fields = sessplus.Include("user")
	s := newBoundSite(t, cfg, sessplus.Config{CookieName: "theme", Fields: sessplus.Include("theme"), BoundTo: "s"})
	s.login("ann")
	s.get("/set?name=theme&value=dark")
	if got := s.get("/theme").body; got != "dark" {
		t.Fatalf("the theme is %q", got)
	}
	thief := s.Stolen()
	thief.Forget("s-bound")
	if r := s.getAs(thief, "/theme"); r.body != "" || len(r.Header["Set-Cookie"]) > 0 {
		t.Errorf("without a proof the theme is %q", r.body)
	}
	if r := s.getAs(thief, "/set?name=theme&value=light"); r.StatusCode != http.StatusConflict {
		t.Errorf("without a proof the theme is set: %d", r.StatusCode)
	}
	s.Forget("s-bound")
	if got := s.get("/theme").body; got != "dark" {
		t.Errorf("after a proof the theme is %q", got)
	}
}

// SPEC 14.7, 14.9: a person sees which sessions are bound, and ends them.
func TestDeviceBoundRevoked(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		cfg := bound(b)
		cfg.IndexBy = "user"
		s := newBoundSite(t, cfg)
		s.login("ann")
		s.request(s.Client().Transport, "GET", "/login?user=ann") // of a browser that does not bind
		list, err := s.m.Sessions(t.Context(), "s", "ann")
		slices.SortFunc(list, func(a, b sessplus.Info) int { // the bound one last; both may be of one millisecond
			return strings.Compare(fmt.Sprint(a.Bound), fmt.Sprint(b.Bound))
		})
		if err != nil || len(list) != 2 || list[0].Bound || !list[1].Bound {
			t.Fatalf("Sessions = %+v, %v, want one that is bound", list, err)
		}
		thief := s.Stolen()
		if err := s.m.Revoke(t.Context(), "s", list[1].Handle); err != nil {
			t.Fatal(err)
		}
		if got := s.getAs(thief, "/").body; got != "" {
			t.Errorf("a copy of both cookies reads %q after the revocation", got)
		}
		s.Forget("s-bound")
		s.reads("after the revocation", "")
		if len(s.Bound()) > 0 {
			t.Errorf("after the revocation the browser has %q", s.Bound())
		}
	})
}

// SPEC 14.8, 9.2: a refresh reads once and writes nothing, and a page costs no call more.
func TestDeviceBoundCost(t *testing.T) {
	t.Parallel()
	k := newKeeper(sessplus.Memory())
	cfg := bound(k)
	cfg.Backend, cfg.IdleTimeout = k, time.Hour
	s := newBoundSite(t, cfg)
	s.login("ann")
	key := recordKey(cfg, s.Cookie("s"))
	back := time.Now().Add(30 * time.Minute) // as if it had not been used for half of the timeout
	seen, err := k.Backend.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Backend.Update(t.Context(), key, &sessplus.Change{Now: time.Now(), Seen: seen, Exact: true, Expires: back}); err != nil {
		t.Fatal(err)
	}
	s.Forget("s-bound")
	k.ops()
	s.get("/static")
	if got := k.ops(); !slices.Equal(got, []string{"load", "load", "load"}) { // challenge, proof, page
		t.Errorf("a proof makes the calls %q, want a load for each request", got)
	}
	if r, err := k.Backend.Load(t.Context(), key); err != nil || r.Expires.After(back.Add(time.Second)) {
		t.Errorf("a proof moves the end to %v, %v", r.Expires, err)
	}
	s.get("/")
	if got := k.ops(); !slices.Equal(got, []string{"load", "update"}) {
		t.Errorf("a page that uses the session makes the calls %q, want load and the touch", got)
	}
	s.get("/")
	if got := k.ops(); !slices.Equal(got, []string{"load"}) {
		t.Errorf("a page makes the calls %q, want one load", got)
	}
}

// SPEC 14.3: what is not an endpoint goes to the program, also another manager's.
func TestDeviceBoundNested(t *testing.T) {
	t.Parallel()
	inner := bound(sessplus.Memory())
	inner.CookieName = "inner"
	outer := newBoundSite(t, bound(sessplus.Memory()))
	m := newManager(t, nil, inner)
	outer.Config.Handler = outer.m.Handler(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login":
			for _, s := range []*sessplus.Session{outer.m.Get(r), m.Get(r)} {
				s.Renew()
				s.Set("user", "ann")
			}
		case "/both":
			if outer.m.Get(r).DeviceBound("s") && m.Get(r).DeviceBound("inner") {
				w.Write([]byte("both"))
			}
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	})))
	outer.get("/login")
	outer.Forget("s-bound")
	outer.Forget("inner-bound")
	if got := outer.get("/both").body; got != "both" || len(outer.Bound()) != 2 || outer.Proofs() != 2 {
		t.Errorf("of two managers %q are proven; the browser has %q", got, outer.Bound())
	}
	for _, path := range []string{"/.sessplus/device", "/.sessplus/device/x/refresh", refreshPath + "/", registrationPath + "x"} {
		if r := outer.request(outer.Client().Transport, "POST", path); r.StatusCode != http.StatusTeapot {
			t.Errorf("%s is answered %d, not by the program", path, r.StatusCode)
		}
	}
}

// SPEC 14.7: Load, and an Edit, are no way around.
func TestDeviceBoundBesideTheMiddleware(t *testing.T) {
	t.Parallel()
	cfg := bound(sessplus.Memory())
	cfg.IndexBy = "user"
	s := newBoundSite(t, cfg)
	s.login("ann")
	r, _ := http.NewRequestWithContext(context.Background(), "GET", s.URL, nil)
	r.AddCookie(&http.Cookie{Name: "s", Value: s.Cookie("s")})
	for bound, want := range map[string]string{"": "", s.Cookie("s-bound"): "ann"} {
		r := r.Clone(r.Context())
		if bound != "" {
			r.AddCookie(&http.Cookie{Name: "s-bound", Value: bound})
		}
		session, _, err := s.m.Load(nil, r)
		if err != nil || session.GetString("user") != want || session.DeviceBound("s") != (want != "") {
			t.Errorf("Load reads %q, %v, want %q", session.GetString("user"), err, want)
		}
	}
	list, err := s.m.Sessions(t.Context(), "s", "ann")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := s.m.Edit(t.Context(), "s", list[0].Handle, func(s *sessplus.Session) error { s.Set("role", "admin"); return nil }); err != nil {
		t.Errorf("Edit of a bound session: %v", err)
	}
	s.Forget("s-bound")
	s.reads("after an Edit", "ann")
}

// SPEC 14.5: the endpoints take, of several ids, that of the session that the browser means.
func TestDeviceEndpointsTakeTheSessionThatIsMeant(t *testing.T) {
	t.Parallel()
	s := newBoundSite(t, bound(sessplus.Memory()))
	s.login("ann")
	thumbprint := s.Bound()[0]
	ann := "s=" + s.Cookie("s")
	eve, _ := s.offered("eve")
	refresh := func(cookies string) *reply {
		return s.request(s.Client().Transport, "POST", refreshPath, "Cookie", cookies, "Sec-Secure-Session-Id", thumbprint)
	}
	if r := refresh(eve + "; " + ann); r.StatusCode != http.StatusForbidden {
		t.Errorf("beside another session's id a refresh is answered %d %s", r.StatusCode, r.body)
	}
	many := ""
	for i := range 8 {
		many += "s=" + strings.Repeat(string(rune('A'+i)), 42) + "A; "
	}
	if r := refresh(many + ann); r.StatusCode != http.StatusForbidden {
		t.Errorf("behind many ids a refresh is answered %d %s", r.StatusCode, r.body)
	}
	bob, challenge := s.offered("bob")
	r := s.request(s.Client().Transport, "POST", registrationPath, "Cookie", eve+"; "+bob, "Secure-Session-Response", s.proves(challenge))
	if r.StatusCode != http.StatusOK {
		t.Errorf("beside another session's id a registration is answered %d %s", r.StatusCode, r.body)
	}
}
