package e2e

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// While an old program and the new one with Keep serve the same visitors, in bursts of six, and then the new one alone,
// nobody is logged out and nothing fails (SPEC 12.3), if the load balancer does as the guides say: requests with the
// new program's cookie, which has another name, go to the new program, or all requests of a visitor go to one side.
func TestRollingDeployment(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	for balancer, name := range map[string]string{"by cookie": "sid", "by visitor": "session"} {
		for _, f := range append([]former{flaskPlus()}, formers...) {
			switch f.name {
			case "flask-firestore", "scs-redis", "gorilla-cookie", "redistore", "redisstore":
			default:
				continue // the same underneath
			}
			t.Run(f.name+"/"+balancer, func(t *testing.T) {
				t.Parallel()
				c := servers.Redis(t)
				old := httptest.NewServer(f.open(t, c))
				t.Cleanup(old.Close)
				o := f.options
				o.Keep = true
				importer := sessplus.FromCookie("session", f.importer(t, c, &o, f.keys))
				site := moved(t, sessplus.Config{
					CookieName: name, Backend: sessplus.Redis(c), KeyPrefix: "new:",
					Import: []sessplus.Importer{importer},
				}, keyPair(""))
				d := &deployment{old: old.URL, site: site.URL, cookie: name}
				d.run(t, f.keys == nil)
			})
		}
	}
}

// A deployment is what the visitors see of the two programs.
type deployment struct {
	old, site string
	cookie    string // that of the new program
	phase     atomic.Int32

	asked [2]atomic.Int64 // the old program, and the new one

	loggedOut, failed atomic.Int64
}

const (
	onlyOld = iota
	both
	onlyNew
)

// run reports what the visitors have met. If ids are not signed, a visitor had one old cookie.
func (d *deployment) run(t *testing.T, oneCookie bool) {
	const visitors, six = 8, 6
	address, _ := url.Parse(d.site)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range visitors {
		_, first := ask(t, d.old+"/login", nil)
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		jar.SetCookies(address, []*http.Cookie{{Name: first.Name, Value: first.Value, Path: "/"}})
		changes := make(chan struct{}) // is closed when the visitor's side does
		time.AfterFunc(phaseTime+rand.N(phaseTime), func() { close(changes) })
		all.Go(func() {
			for running := true; running; {
				var burst sync.WaitGroup
				for range six {
					burst.Go(func() { d.visit(t, jar, address, changes) })
				}
				burst.Wait()
				select {
				case <-stop:
					running = false
				case <-time.After(rand.N(20 * time.Millisecond)):
				}
			}
			if code := d.send(t, d.site+"/logout", jar, address, jar.Cookies(address)); code != 200 {
				t.Errorf("/logout = %d, want 200", code)
			}
			replays := map[string][]*http.Cookie{"what is left": jar.Cookies(address)}
			if oneCookie {
				replays["the old cookie"] = []*http.Cookie{first}
			}
			for what, cookies := range replays {
				if code := d.send(t, d.site+"/visit", jar, address, cookies); code != 401 && code != 409 {
					t.Errorf("after the logout, with %s: %d, want 401 or 409", what, code)
				}
			}
		})
	}
	for _, phase := range []int32{both, onlyNew} {
		time.Sleep(phaseTime)
		d.phase.Store(phase)
	}
	time.Sleep(phaseTime)
	close(stop)
	all.Wait()
	report := t.Logf
	if d.loggedOut.Load()+d.failed.Load() > 0 || d.asked[0].Load() == 0 || d.asked[1].Load() == 0 {
		report = t.Errorf
	}
	report("%d requests to the old program and %d to the new one, %d logged out, %d errors",
		d.asked[0].Load(), d.asked[1].Load(), d.loggedOut.Load(), d.failed.Load())
}

// phaseTime is how long each phase takes.
const phaseTime = 500 * time.Millisecond

// visit sends a request to one side, as a load balancer does that knows what the request brings, or whose it is.
func (d *deployment) visit(t *testing.T, jar http.CookieJar, address *url.URL, changes <-chan struct{}) {
	cookies := jar.Cookies(address)
	var toNew bool
	if d.cookie == "session" { // by visitor
		select {
		case <-changes:
			toNew = true
		default:
		}
	} else {
		taken := slices.ContainsFunc(cookies, func(k *http.Cookie) bool { return k.Name == d.cookie })
		phase := d.phase.Load()
		toNew = phase == onlyNew || phase == both && (taken || rand.N(2) == 0)
	}
	to, asked := d.old, &d.asked[0]
	if toNew {
		to, asked = d.site, &d.asked[1]
	}
	asked.Add(1)
	switch d.send(t, to+"/visit", jar, address, cookies) {
	case 200:
	case 401:
		d.loggedOut.Add(1)
	default:
		d.failed.Add(1)
	}
}

// send returns the status, and gives the jar what the response sets.
func (d *deployment) send(t *testing.T, url string, jar http.CookieJar, address *url.URL, cookies []*http.Cookie) int {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	for _, k := range cookies {
		r.AddCookie(&http.Cookie{Name: k.Name, Value: k.Value})
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	jar.SetCookies(address, res.Cookies())
	return res.StatusCode
}
