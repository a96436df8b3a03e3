package sessplus_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/aged"
)

// SPEC 12.1, SPEC 12.2: this library as it was configured before.
func TestFormer(t *testing.T) {
	t.Parallel()
	other := []sessplus.KeyPair{sessplus.DeriveKeyPair([]byte("another secret of thirty-two bytes or more"))}
	big := strings.Repeat("x", 5000)
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		mem := sessplus.Memory()
		for _, test := range []struct {
			name          string
			before, after sessplus.Config
			options       *sessplus.Options // from before
			theme         string
		}{
			{"the name", sessplus.Config{CookieName: "old", Backend: b, Domain: "example.com"}, sessplus.Config{CookieName: "__Host-s", Secure: sessplus.SecureAlways, Backend: b}, nil, ""},
			{"the backend", sessplus.Config{CookieName: "s", Backend: mem}, sessplus.Config{CookieName: "s", Backend: b}, nil, ""},
			{"to a secure cookie", sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "c:"}, sessplus.Config{CookieName: "s"}, nil, ""},
			{"from a secure cookie", sessplus.Config{CookieName: "s"}, sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "d:"}, nil, ""},
			{"from chunks", sessplus.Config{CookieName: "s", MaxChunks: 5}, sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "e:"}, nil, big},
			{"from chunks of another name", sessplus.Config{CookieName: "old", MaxChunks: 5}, sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "e2:"}, nil, big},
			{"the prefix", sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "f:"}, sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "g:"}, nil, ""},
			{"a signature", sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "h:"}, sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "h:", SignID: true}, nil, ""},
			{"no signature", sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "i:", SignID: true}, sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "i:"}, nil, ""},
			{"keys", sessplus.Config{CookieName: "s", Keys: other}, sessplus.Config{CookieName: "s"}, nil, ""},
			{"keys of the options", sessplus.Config{CookieName: "s"}, sessplus.Config{CookieName: "s"}, &sessplus.Options{Keys: other}, ""},
			{"the codec", sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "j:"}, sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "k:"}, &sessplus.Options{Codec: sessplus.Gob()}, ""},
			{"a single cookie", sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "l:"}, sessplus.Config{CookieName: "t", Backend: b, KeyPrefix: "m:"}, &sessplus.Options{SingleCookie: "__session"}, ""},
			{"fields", sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "n:", Fields: sessplus.Include("user", "theme", "gone")},
				sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: "o:", Fields: sessplus.Include("user", "theme")}, nil, ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				if test.theme == "" {
					test.theme = "dark"
				}
				before := newCrowd(t, newManager(t, test.options, test.before))
				r := before.raw("", func(_ http.ResponseWriter, r *http.Request) {
					s := sessplus.Get(r)
					s.Set("user", "ann")
					s.Set("theme", test.theme)
					if test.name == "fields" {
						s.Set("gone", 1)
					}
					s.SetPermanent(test.before.CookieName, true)
				})
				cookies := cookiesOf(r)
				var ends time.Time
				before.raw(cookies, func(_ http.ResponseWriter, r *http.Request) { ends = sessplus.Get(r).Expires(test.before.CookieName) })
				f := sessplus.Former(test.before)
				if test.options != nil {
					f = sessplus.FormerOf(test.before, test.options)
				}
				if text := fmt.Sprintf("%v %+v %#v", f, f, f); strings.Contains(text, "secret") || len(text) > 200 {
					t.Errorf("it prints %s", text)
				}
				var j journal
				c := importing(test.after, f)
				one, two := newCrowd(t, newManager(t, j.options(0), c)), newCrowd(t, newManager(t, nil, c))
				replies := bursts(t, 6, cookies, one, two)
				for _, r := range replies {
					if !strings.HasPrefix(r.body, "ann "+test.theme) || r.body != replies[0].body {
						t.Errorf("%d %.200q, and the first %.200q", r.StatusCode, r.body, replies[0].body)
					}
				}
				stays := test.before.Backend == nil || test.after.Backend == nil
				if r := before.raw(cookies, who); (r.StatusCode == 200) != stays {
					t.Errorf("before: %d %q", r.StatusCode, r.body)
				}
				var dropped []string
				for _, k := range replies[0].Cookies() {
					if k.MaxAge < 0 {
						dropped = append(dropped, k.Name+k.Domain)
					}
				}
				if name := test.before.CookieName; name != test.after.CookieName && name == "old" && (len(dropped) == 0 || dropped[0] != name+test.before.Domain) {
					t.Errorf("dropped are %q, the cookies are %q", dropped, replies[0].Header["Set-Cookie"])
				}
				after := cookiesOf(replies[0])
				two.raw(after, func(w http.ResponseWriter, r *http.Request) {
					s, name := sessplus.Get(r), test.after.CookieName
					if got := s.Expires(name); !s.Has("user") || got.Sub(ends).Abs() > 2*time.Second || !s.Permanent(name) {
						t.Errorf("the user is there: %t; it expires %v, want %v; permanent %t", s.Has("user"), got, ends, s.Permanent(name))
					}
				})
				one.raw(after, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() })
				if r := two.raw(cookies, who); (test.after.Backend != nil || test.before.Backend != nil) && r.StatusCode != 401 {
					t.Errorf("after the logout: %d %q", r.StatusCode, r.body)
				}
				j.keepsSecret(t, nil, strings.TrimPrefix(strings.SplitN(cookies, ";", 2)[0], test.before.CookieName+"="))
			})
		}
	})
}

// SPEC 12.2: both names of a session that was rotated just before the configs changed stand for one session.
func TestFormerRotated(t *testing.T) {
	t.Parallel()
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for i, order := range [][]int{{0, 1, 0, 1}, {1, 0, 1, 0}} {
			for k, secure := range []bool{false, true, false} {
				before := sessplus.Config{CookieName: "old", Backend: b, RotateEvery: time.Millisecond, KeyPrefix: fmt.Sprintf("a%d%d:", i, k), SignID: k == 2}
				after := sessplus.Config{CookieName: "s", Backend: b, KeyPrefix: fmt.Sprintf("b%d%d:", i, k)}
				if secure {
					after = sessplus.Config{CookieName: "s"}
				}
				after.Import = []sessplus.Importer{sessplus.Former(before)}
				old, now := newManager(t, nil, before), newManager(t, nil, after)
				var names [2]string
				names[0] = cookiesOf(pass(old, "", func(s *sessplus.Session) { s.Set("user", "ann") }))
				time.Sleep(5 * time.Millisecond)
				if names[1] = cookiesOf(pass(old, names[0], func(s *sessplus.Session) { s.Get("user") })); names[1] == "" || names[1] == names[0] {
					t.Errorf("the session was not rotated: %q", names)
				}
				ids := make(map[string]bool)
				var cookies string
				for _, n := range order {
					r := pass(now, names[n], func(s *sessplus.Session) {
						if user := s.GetString("user"); user != "ann" {
							t.Errorf("%v: the user is %q", order, user)
						}
						ids[s.ID("s")] = true
					})
					cookies = cookiesOf(r)
				}
				if len(ids) != 1 {
					t.Errorf("%v: there are %d sessions", order, len(ids))
				}
				pass(now, cookies, func(s *sessplus.Session) { s.Destroy() })
				for n, name := range names {
					pass(now, name, func(s *sessplus.Session) {
						if s.Has("user") {
							t.Errorf("%v: after the logout name %d is good again", order, n)
						}
					})
				}
			}
		}
	})
}

// SPEC 12.2: more cookies came under the former name than are tried, so that the session may be one that was not.
func TestFormerAmongTooMany(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	before := sessplus.Config{CookieName: "old", Backend: b}
	for _, strays := range []int{15, 16, 30} {
		var j journal
		after := importing(sessplus.Config{CookieName: "s", Backend: b}, sessplus.Former(before))
		old, now := newManager(t, nil, before), newManager(t, j.options(0), after)
		good := cookiesOf(pass(old, "", func(s *sessplus.Session) { s.Set("user", "ann") }))
		var cookies string
		for i := range strays {
			cookies += fmt.Sprintf("old=stray%d; ", i)
		}
		r := pass(now, cookies+good, func(s *sessplus.Session) {
			if found := s.Has("user"); found != (strays < 16) {
				t.Errorf("behind %d strays the session is found: %t", strays, found)
			}
			s.Set("theme", "dark")
		})
		want := 200
		if strays >= 16 {
			want = 409
		}
		if r.StatusCode != want || (len(r.setCookies("s")) > 0) != (want == 200) || strings.Contains(j.text(), "too many cookies") != (want == 409) {
			t.Errorf("behind %d strays: status %d, want %d; cookies %q; the log says %s", strays, r.StatusCode, want, r.Header["Set-Cookie"], j.text())
		}
	}
}

// SPEC 12.1: New says what is wrong with a former config.
func TestFormerWithMistakes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config sessplus.Config
		want   string
	}{
		{sessplus.Config{CookieName: "s", Import: []sessplus.Importer{sessplus.Former(sessplus.Config{CookieName: "a b"})}}, "CookieName"},
		{sessplus.Config{CookieName: "s", Import: []sessplus.Importer{nil}}, "importer 0 is nil"},
		{sessplus.Config{CookieName: "s", Import: []sessplus.Importer{sessplus.FromCookie("a;", &oldStore{})}}, `"a;" is not the name of a cookie`},
		{sessplus.Config{CookieName: "s", Import: []sessplus.Importer{sessplus.FromCookie("a", nil)}}, "importer 0 is nil"},
		{sessplus.Config{CookieName: "s", Import: []sessplus.Importer{sessplus.FromCookie("a", sessplus.Former(sessplus.Config{CookieName: "b"}))}},
			`"a" is not the cookie of importer 0, a former config; leave out FromCookie: it reads "b"`},
		{sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), Keys: []sessplus.KeyPair{}, Import: []sessplus.Importer{&oldStore{}}}, "needs a pair of keys"},
	} {
		_, err := sessplus.New([]sessplus.Config{test.config}, &sessplus.Options{Keys: testKeys})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("New = %v, want %q", err, test.want)
		}
	}
}

// SPEC 12.1: a former config reads its cookie, also if FromCookie says so once more.
func TestFormerFromItsCookie(t *testing.T) {
	t.Parallel()
	before := sessplus.Config{CookieName: "old"}
	old := newCrowd(t, newManager(t, nil, before))
	cookies := cookiesOf(old.raw("", func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user", "ann") }))
	now := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Import: []sessplus.Importer{sessplus.FromCookie("old", sessplus.Former(before))}}))
	got := ""
	r := now.raw(cookies, func(_ http.ResponseWriter, r *http.Request) { got = sessplus.Get(r).GetString("user") })
	if r.StatusCode != 200 || got != "ann" {
		t.Errorf("status %d, user = %q; want 200 and ann", r.StatusCode, got)
	}
}

// SPEC 14.4: a bound session is not imported for somebody who has its id alone.
func TestDeviceBoundSessionIsNoFormerOne(t *testing.T) {
	t.Parallel()
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
