package sessplus_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/aged"
	"github.com/sessplus/sessplus/sessplustest"
)

// SPEC 14.4: a bound session is not imported for somebody who has its id alone.
func TestDeviceBoundSessionIsNoFormerOne(t *testing.T) {
	b := aged.Keys{Backend: sessplus.Memory()}
	var j journal
	o := j.options(0)
	o.Keys = []sessplus.KeyPair{sessplus.GenerateKeyPair()}
	before := bound(b)
	old := serveBound(t, newManager(t, o, before), &j)
	old.login("ann")
	after := before
	after.CookieName, after.Secure, after.Import = "__Host-s", sessplus.SecureAlways, []sessplus.Importer{sessplus.Former(before)}
	now := serveBound(t, newManager(t, o, after), &j)
	r := now.request(now.Client().Transport, "GET", "/", "Cookie", "s="+old.Cookie("s"))
	if r.body != "" || len(r.setCookies("__Host-s")) > 0 {
		t.Errorf("a stolen id is answered %q, %q", r.body, r.Header["Set-Cookie"])
	}
}

// SPEC 14.5: the endpoints take, of several ids, that of the session that the browser means.
func TestDeviceEndpointsTakeTheSessionThatIsMeant(t *testing.T) {
	s := newBoundSite(t, bound(sessplus.Memory()))
	s.login("ann")
	thumbprint := s.Bound()[0]
	ann := "s=" + s.Cookie("s")
	r := s.request(s.Client().Transport, "GET", "/login?user=eve")
	eve, _, _ := strings.Cut(r.setCookies("s")[0], ";")
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
	r = s.request(s.Client().Transport, "GET", "/login?user=bob")
	bob, _, _ := strings.Cut(r.setCookies("s")[0], ";")
	_, challenge, _ := strings.Cut(r.Header.Get("Secure-Session-Registration"), `challenge="`)
	proof, err := sessplustest.Proof(newECKey(t), strings.TrimSuffix(challenge, `"`), true)
	if err != nil {
		t.Fatal(err)
	}
	r = s.request(s.Client().Transport, "POST", registrationPath, "Cookie", eve+"; "+bob, "Secure-Session-Response", proof)
	if r.StatusCode != http.StatusOK {
		t.Errorf("beside another session's id a registration is answered %d %s", r.StatusCode, r.body)
	}
}

// SPEC 14.2, SPEC 3.12: a burst that rotates a session offers one registration.
func TestDeviceRegistrationIsOfferedOnceByABurst(t *testing.T) {
	b := aged.Keys{Backend: sessplus.Memory()}
	var j journal
	o := j.options(0)
	o.Keys = []sessplus.KeyPair{sessplus.GenerateKeyPair()}
	before := serveBound(t, newManager(t, o, sessplus.Config{CookieName: "s", Backend: b}), &j)
	before.get("/login?user=ann")
	after := bound(b)
	after.RotateEvery = 50 * time.Millisecond
	time.Sleep(60 * time.Millisecond)
	s := serveBound(t, newManager(t, o, after), &j)
	offers := make(chan int, 6)
	for range 6 {
		go func() {
			r := s.request(s.Client().Transport, "GET", "/", "Cookie", "s="+before.Cookie("s"))
			offers <- len(r.Header["Secure-Session-Registration"])
		}()
	}
	n := 0
	for range 6 {
		n += <-offers
	}
	if n != 1 {
		t.Errorf("%d registrations were offered, want 1", n)
	}
}
