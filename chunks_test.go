package sessplus_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

// redeployed returns the same site, and so the same browser, behind a manager of other configs.
func (s *site) redeployed(m *sessplus.Manager) *site {
	next := newSite(s.TB, m)
	next.client.Jar = s.client.Jar // a cookie is for a host, whatever its port
	return next
}

// SPEC 6.5: chunks that a former config has left behind go with the response that sets or drops the cookie.
func TestChunksOfAFormerConfigAreExpired(t *testing.T) {
	t.Parallel()
	former := sessplus.Config{CookieName: "s", MaxChunks: 4}
	set := func(s *sessplus.Session) { s.Set("user", "bob") }
	for name, config := range map[string]sessplus.Config{
		"fewer chunks":    {CookieName: "s", MaxChunks: 2},
		"never split":     {CookieName: "s"},
		"server-side":     {CookieName: "s", Backend: sessplus.Memory()},
		"lazy":            {CookieName: "s", Backend: sessplus.Memory(), Lazy: true},
		"signed id":       {CookieName: "s", Backend: sessplus.Memory(), SignID: true},
		"other configs":   {CookieName: "s", Fields: sessplus.Exclude("other")},
		"Path and Secure": {CookieName: "s", Path: "/", SameSite: http.SameSiteStrictMode, ScriptReadable: true},
	} {
		for what, f := range map[string]func(*sessplus.Session){
			"set":              set,
			"destroy":          func(s *sessplus.Session) { s.Destroy() },
			"destroy and set":  func(s *sessplus.Session) { s.Destroy(); set(s) },
			"save":             func(s *sessplus.Session) { set(s); s.Save() },
			"save and destroy": func(s *sessplus.Session) { set(s); s.Save(); s.Destroy() },
			"save twice":       func(s *sessplus.Session) { set(s); s.Save(); s.Set("n", 1); s.Save() },
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				s := newSite(t, newManager(t, nil, former))
				s.with(func(s *sessplus.Session) { s.Set("payload", noise(8200)) })
				if jar := s.jar(s.client); len(jar) != 4 {
					t.Fatalf("%d cookies, want 4", len(jar))
				}
				s = s.redeployed(newManager(t, nil, config))
				if r := s.with(func(s *sessplus.Session) { s.Get("user") }); len(r.Header["Set-Cookie"]) > 0 {
					t.Errorf("a read sets %d cookies, want none", len(r.Header["Set-Cookie"]))
				}
				r := s.with(f)
				want := []string{"s"}
				if strings.HasSuffix(what, "destroy") {
					want = nil
				}
				if got := slices.Sorted(maps.Keys(s.jar(s.client))); !slices.Equal(got, want) {
					t.Errorf("the browser has %q, want %q", got, want)
				}
				for _, k := range r.Cookies() {
					if lines := r.setCookies(k.Name); len(lines) > 1 {
						t.Errorf("%d Set-Cookie lines for %s, want 1", len(lines), k.Name)
					}
					if k.Name != "s" && (k.Path != "/" || k.SameSite != max(config.SameSite, http.SameSiteLaxMode) || k.HttpOnly == config.ScriptReadable) {
						t.Errorf("the deletion of %s has other attributes than the config", k.Name) // SPEC 5.9
					}
				}
				if r := s.with(func(s *sessplus.Session) { s.Set("n", 2) }); len(r.Header["Set-Cookie"]) > 1 {
					t.Errorf("the next request sets %d cookies, want 1 at most", len(r.Header["Set-Cookie"]))
				}
			})
		}
	}
}

// SPEC 6.5, 5.9: also when nothing but chunks is left, of a cookie with a Domain, and up to the last that there can be.
func TestChunksThatAreLeftAlone(t *testing.T) {
	t.Parallel()
	m := newManager(t, nil, sessplus.Config{CookieName: "s", Domain: "example.com"})
	h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() }))
	server := httptest.NewServer(h)
	defer server.Close()
	req, _ := http.NewRequest("GET", server.URL, nil)
	req.Header.Set("Cookie", "s.1=AAAAAAAA.BBBB; s.19=AAAAAAAA.BBBB; s.20=AAAAAAAA.BBBB; s.01=AAAAAAAA.BBBB; s.x=AAAAAAAA.BBBB")
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	var names []string
	for _, k := range res.Cookies() {
		if names = append(names, k.Name); k.MaxAge >= 0 || k.Domain != "example.com" {
			t.Errorf("%s: Max-Age %d, Domain %q, want a deletion for example.com", k.Name, k.MaxAge, k.Domain)
		}
	}
	if want := []string{"s.1", "s.19"}; !slices.Equal(names, want) {
		t.Errorf("deletions of %q, want %q", names, want)
	}
}

// SPEC 6.5: a cookie that another config has, or that was never a chunk, is left alone.
func TestCookiesThatAreNoLeftoversStay(t *testing.T) {
	t.Parallel()
	other := []sessplus.Config{
		{CookieName: "s", Fields: sessplus.Include("user")},
		{CookieName: "s.1", Fields: sessplus.Include("a"), MaxChunks: 3},
		{CookieName: "s.2", Fields: sessplus.Include("b"), Backend: sessplus.Memory()},
	}
	for _, configs := range [][]sessplus.Config{other, {other[2], other[1], other[0]}} {
		s := newSite(t, newManager(t, nil, configs...))
		large := noise(5000) // so that s.1 has the form of a chunk
		s.with(func(s *sessplus.Session) { s.Set("a", large); s.Set("b", 2); s.Set("user", "ann") })
		before := s.jar(s.client)
		delete(before, "s")
		s.with(func(s *sessplus.Session) { s.Set("user", "bob") })
		s.with(func(s *sessplus.Session) { s.Destroy("s") })
		if jar := s.jar(s.client); !maps.Equal(jar, before) || len(jar) < 3 {
			t.Errorf("the browser has %q, want %q as they were", slices.Sorted(maps.Keys(jar)), slices.Sorted(maps.Keys(before)))
		}
		s.with(func(s *sessplus.Session) {
			if s.GetString("a") != large || s.GetInt("b") != 2 {
				t.Error("s.1 or s.2 is not read")
			}
		})
	}
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s"}))
	s.client = (&crowd{site: s}).withCookies(map[string]string{"s.1": "theirs", "s.2": "dark.mode!"})
	s.with(func(s *sessplus.Session) { s.Set("user", "ann") })
	s.with(func(s *sessplus.Session) { s.Destroy() })
	if jar := s.jar(s.client); jar["s.1"] != "theirs" || jar["s.2"] != "dark.mode!" {
		t.Errorf("the browser has %d cookies, want those of the program", len(jar))
	}
}

// SPEC 6.5, 6.9: what is wrong with a cookie that has more chunks than the config takes is said by its name.
func TestLogNamesMaxChunks(t *testing.T) {
	t.Parallel()
	for kind, config := range map[string]sessplus.Config{
		"never split":  {CookieName: "s"},
		"fewer chunks": {CookieName: "s", MaxChunks: 3},
	} {
		for _, strays := range []int{0, 1, 3} {
			t.Run(fmt.Sprint(kind, " and strays ", strays), func(t *testing.T) {
				var j journal
				s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "s", MaxChunks: 4}))
				s.with(func(s *sessplus.Session) { s.Set("payload", noise(8200)) })
				s = s.redeployed(newManager(t, j.options(0), config))
				s.behind(strays, func(i int, _, _ string) string { return fmt.Sprint("stray", i) },
					func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("payload") })
				text := j.text()
				if n := strings.Count(text, "MaxChunks"); n != 1 {
					t.Errorf("%d lines name MaxChunks, want 1: %s", n, text)
				}
				if malformed := strings.Contains(text, "reason=malformed"); malformed != (strays > 0) {
					t.Errorf("a cookie is called malformed: %v, want %v", malformed, strays > 0)
				}
			})
		}
	}
}

// SPEC 6.5
func TestLargeSecureCookieIsSplit(t *testing.T) {
	t.Parallel()
	const chunks = 4
	for _, name := range []string{"s", "__Host-" + strings.Repeat("n", 200)} {
		t.Run(name[:1], func(t *testing.T) {
			config := sessplus.Config{CookieName: name, MaxChunks: chunks}
			if len(name) > 1 {
				config.Secure = sessplus.SecureAlways
			}
			c := newCrowd(t, newManager(t, nil, config))
			jar := make(map[string]string) // by hand, because of the __Host- cookies over http
			ask := func(f func(*sessplus.Session)) *reply {
				answer := c.askWith(c.withCookies(jar), f)
				for _, k := range answer.Cookies() {
					if k.MaxAge < 0 {
						delete(jar, k.Name)
					} else {
						jar[k.Name] = k.Value
					}
				}
				return answer
			}
			seen := make(map[int]bool)
			sizes := []int{10, 2000, 3000, 5000, 7000, 8200, 3000, 8200, 5000, 10, 3000}
			for _, n := range sizes {
				payload := noise(n)
				answer := ask(func(s *sessplus.Session) { s.Set("payload", payload) })
				if answer.StatusCode != 200 {
					t.Fatalf("payload of %d bytes: status = %d, want 200", n, answer.StatusCode)
				}
				names := slices.Sorted(maps.Keys(jar))
				seen[len(names)] = true
				for i, got := range names {
					want := name
					if i > 0 {
						want = fmt.Sprintf("%s.%d", name, i)
					}
					if got != want {
						t.Errorf("payload of %d bytes: the browser has %q, want no left-over and no gap", n, names)
					}
					if size := len(got) + len(jar[got]); size > cookieLimit {
						t.Errorf("payload of %d bytes: cookie %s has %d bytes", n, got, size)
					}
				}
				set := make(map[string]int)
				for _, k := range answer.Cookies() {
					if set[k.Name]++; set[k.Name] > 1 {
						t.Errorf("two Set-Cookie for %s", k.Name)
					}
				}
				ask(func(s *sessplus.Session) {
					if s.GetString("payload") != payload {
						t.Errorf("payload of %d bytes is another in the next request", n)
					}
				})
			}
			for n := 1; n <= chunks; n++ {
				if !seen[n] {
					t.Errorf("no payload took %d cookies: %v", n, seen)
				}
			}
			answer := ask(func(s *sessplus.Session) { s.Set("payload", noise(8200)) })
			if answer.StatusCode != 200 || len(jar) < 2 {
				t.Fatalf("status = %d with %d cookies, want 200 and several", answer.StatusCode, len(jar))
			}
			ask(func(s *sessplus.Session) { s.Destroy() })
			if len(jar) != 0 {
				t.Errorf("%d cookies after Destroy, want none", len(jar))
			}
		})
	}
}

// SPEC 6.5: no more chunks than MaxChunks, and as many.
func TestSecureCookieFillsAllItsChunks(t *testing.T) {
	t.Parallel()
	const chunks = 3
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", MaxChunks: chunks}))
	largest, smallestRefused := 0, 1<<20
	for low, high := 0, 3*cookieLimit; low < high-1; {
		n := (low + high) / 2
		answer := c.askWith(c.client, func(s *sessplus.Session) { s.Set("payload", noise(n)) })
		if answer.StatusCode == 200 {
			low = n
			sum := 0
			for _, size := range answer.sizes() {
				sum += size
			}
			largest = max(largest, sum)
			if len(answer.sizes()) > chunks {
				t.Fatalf("%d cookies, want at most %d", len(answer.sizes()), chunks)
			}
		} else {
			high, smallestRefused = n, n
		}
	}
	if largest < chunks*cookieLimit-4 {
		t.Errorf("the largest cookies have %d bytes, and a payload of %d is refused, want %d bytes or nearly", largest, smallestRefused, chunks*cookieLimit)
	}
	payload := noise(smallestRefused - 1)
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("payload", payload) })
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if s.GetString("payload") != payload {
			t.Error("the largest payload is another in the next request")
		}
	})
}

// SPEC 6.4, 6.5
func TestBrokenChunksAreNoSession(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(now, before map[string]string)
	}{
		{"first missing", func(now, _ map[string]string) { delete(now, "s") }},
		{"middle missing", func(now, _ map[string]string) { delete(now, "s.1") }},
		{"last missing", func(now, _ map[string]string) { delete(now, "s.2") }},
		{"only the first", func(now, _ map[string]string) { delete(now, "s.1"); delete(now, "s.2") }},
		{"swapped", func(now, _ map[string]string) { now["s.1"], now["s.2"] = now["s.2"], now["s.1"] }},
		{"first twice", func(now, _ map[string]string) { now["s.1"] = now["s"] }},
		{"first of an older writing", func(now, before map[string]string) { now["s"] = before["s"] }},
		{"middle of an older writing", func(now, before map[string]string) { now["s.1"] = before["s.1"] }},
		{"last of an older writing", func(now, before map[string]string) { now["s.2"] = before["s.2"] }},
		{"middle of an older writing with the tag of the new", func(now, before map[string]string) {
			tag, _, _ := strings.Cut(now["s.1"], ".")
			_, text, _ := strings.Cut(before["s.1"], ".")
			now["s.1"] = tag + "." + text
		}},
		{"truncated", func(now, _ map[string]string) { now["s.2"] = now["s.2"][:len(now["s.2"])-4] }},
		{"empty", func(now, _ map[string]string) { now["s.1"] = "" }},
		{"fewer announced", func(now, _ map[string]string) { now["s"] = "2" + now["s"][1:] }},
		{"more announced", func(now, _ map[string]string) { now["s"] = "4" + now["s"][1:] }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var j journal
			c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", MaxChunks: 4}))
			write := func() map[string]string {
				c.mustAsk(c.client, func(s *sessplus.Session) {
					s.Set("user", corruptSecret)
					s.Set("payload", noise(6000))
				})
				jar := c.jar(c.client)
				if len(jar) != 3 {
					t.Fatalf("%d cookies, want 3", len(jar))
				}
				return jar
			}
			before, now := write(), write()
			good := maps.Clone(now)
			test.spoil(now, before)
			c.client = c.withCookies(now)
			c.mustAsk(c.client, func(s *sessplus.Session) {
				if got := s.Fields(); len(got) != 0 {
					t.Errorf("Fields() = %q, want none", got)
				}
			})
			if now["s"] != "" {
				j.mustWarn(t)
			}
			answer := c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "bob") })
			if got := c.jar(c.client); len(got) != 1 || got["s"] == "" {
				t.Errorf("%d cookies after a new session was saved, want one", len(got))
			}
			c.mustAsk(c.client, wantUser(t, "bob"))
			j.keepsSecret(t, []*reply{answer}, corruptSecret, good["s"], good["s.1"][:60], good["s.2"][:60])
			c.client = c.withCookies(good)
			c.mustAsk(c.client, wantUser(t, corruptSecret))
		})
	}
}

// SPEC 6.5: of several cookies with the name of a chunk, a stray one does not shadow the good one (SPEC 5.10).
func TestStrayChunkDoesNotShadowTheGoodOne(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", MaxChunks: 4}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("payload", noise(6000)) })
	jar := c.jar(c.client)
	c.handlers.Store("stray", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { wantUser(t, "ann")(sessplus.Get(r)) }))
	req, _ := http.NewRequest("GET", c.URL+"/?n=stray", nil)
	req.Header.Set("Cookie", fmt.Sprintf("s.1=stray; s=%s; s.2=AAAAAAAA.stray; s.1=%s; s.2=%s", jar["s"], jar["s.1"], jar["s.2"]))
	res, err := c.Server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}
