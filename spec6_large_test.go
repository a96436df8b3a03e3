package sessplus_test

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

const cookieLimit = 4096 // of name and value together

// noise is a text of n letters that no compression or encoding makes shorter.
func noise(n int) string {
	b := make([]byte, (n+1)/2)
	rand.Read(b)
	return hex.EncodeToString(b)[:n]
}

// sizes returns name and value of each Set-Cookie that sets one, by name.
func (r *reply) sizes() map[string]int {
	m := make(map[string]int)
	for _, k := range r.Cookies() {
		if k.MaxAge >= 0 {
			m[k.Name] = len(k.Name) + len(k.Value)
		}
	}
	return m
}

// SPEC 6.5: the limit is exact. Values come in steps of four bytes, so names of four lengths try every remainder.
func TestSecureCookieMayHave4096Bytes(t *testing.T) {
	for extra := range 4 {
		name := "name" + strings.Repeat("x", extra)
		t.Run(name, func(t *testing.T) {
			var got error
			c := newCrowd(t, newManager(t, &sessplus.Options{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				got = err
				w.WriteHeader(500)
			}}, sessplus.Config{CookieName: name}))
			largest, refused := 0, false
			for n := 2150; n < 2350; n++ {
				got = nil
				answer := c.askWith(c.client, func(s *sessplus.Session) { s.Set("small", 1); s.Set("payload", noise(n)) })
				size := answer.sizes()[name]
				switch {
				case answer.StatusCode == 200 && !refused && size <= cookieLimit:
					largest = size
					c.mustAsk(c.client, func(s *sessplus.Session) {
						if got := s.GetString("payload"); len(got) != n {
							t.Fatalf("payload has %d bytes in the next request, want %d", len(got), n)
						}
					})
				case answer.StatusCode == 500 && size == 0:
					refused = true
					if !errors.Is(got, sessplus.ErrTooLarge) || !strings.Contains(got.Error(), `"payload"`) || strings.Contains(got.Error(), `"small"`) {
						t.Fatalf("error = %v, want ErrTooLarge naming the payload", got)
					}
				default:
					t.Fatalf("payload of %d bytes: status = %d, cookie of %d bytes", n, answer.StatusCode, size)
				}
			}
			if want := cookieLimit - (cookieLimit-len(name))%4; !refused || largest != want {
				t.Errorf("the largest cookie has %d bytes, then refused: %v, want %d and true", largest, refused, want)
			}
		})
	}
}

// SPEC 6.5, 6.6
func TestTooLargeCookieLeavesTheOldOne(t *testing.T) {
	for _, chunks := range []int{0, 1, 3} {
		t.Run(fmt.Sprint("MaxChunks ", chunks), func(t *testing.T) {
			var j journal
			c := newCrowd(t, newManager(t, j.options(0),
				sessplus.Config{CookieName: "s", MaxChunks: chunks, Fields: sessplus.Exclude("user")},
				sessplus.Config{CookieName: "m", Backend: sessplus.Memory(), Fields: sessplus.Include("user")}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("theme", "dark"); s.Set("user", "ann") })
			jar := c.jar(c.client)
			payload := noise(cookieLimit * max(chunks, 1))
			answer := c.askWith(c.client, func(s *sessplus.Session) {
				s.Set("payload", payload)
				s.Set("zoom", 2)
				s.Set("user", "bob")
				if err := s.Save(); !errors.Is(err, sessplus.ErrTooLarge) || !strings.Contains(err.Error(), `"payload"`) ||
					!strings.Contains(err.Error(), "server-side backend") {
					t.Errorf("Save() = %v, want ErrTooLarge that names the largest field and says where to keep it", err)
				}
			})
			if answer.StatusCode != 500 || strings.Contains(answer.body, "payload") || strings.Contains(answer.body, "large") {
				t.Errorf("status = %d, body %q, want 500 that says nothing of the inside", answer.StatusCode, answer.body)
			}
			if lines := answer.Header.Values("Set-Cookie"); len(lines) > 0 {
				t.Errorf("Set-Cookie = %q, want none", lines)
			}
			if !maps.Equal(c.jar(c.client), jar) {
				t.Error("the cookies have changed")
			}
			j.mustWarn(t)
			j.keepsSecret(t, []*reply{answer}, payload[:50], jar["s"])
			c.mustAsk(c.client, func(s *sessplus.Session) {
				wantUser(t, "ann")(s)
				if got := s.Get("theme"); got != "dark" || s.Has("payload") {
					t.Errorf("theme = %v, payload is there: %v, want dark, false", got, s.Has("payload"))
				}
			})
		})
	}
}

// SPEC 6.6: a record that Firestore has no room for is too large, and not an outage; the old one stays.
func TestTooLargeForFirestore(t *testing.T) {
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Firestore(servers.Firestore(t), "sessions")}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	for name, fields := range map[string]map[string]int{
		"one value":          {"a": 1_048_490},
		"a larger one":       {"a": 2 << 20},
		"much larger":        {"a": 9 << 20},
		"together":           {"a": 600_000, "b": 600_000},
		"with what is there": {"a": 1_048_400},
	} {
		start := time.Now()
		for _, client := range []*http.Client{c.client, c.visitor()} {
			answer := c.askWith(client, func(s *sessplus.Session) {
				for field, size := range fields {
					s.Set(field, strings.Repeat("x", size-2))
				}
				if err := s.Save(); !errors.Is(err, sessplus.ErrTooLarge) || errors.Is(err, sessplus.ErrUnavailable) {
					t.Errorf("%s: Save() = %v, want ErrTooLarge", name, err)
				}
			})
			if answer.StatusCode != 500 {
				t.Errorf("%s: status = %d, want 500", name, answer.StatusCode)
			}
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	c.mustAsk(c.client, wantUser(t, "ann"))
}

// SPEC 6.5
func TestLargeSecureCookieIsSplit(t *testing.T) {
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
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", MaxChunks: 4}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("payload", noise(6000)) })
	jar := c.jar(c.client)
	c.handlers.Store("stray", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { wantUser(t, "ann")(sessplus.Get(r)) }))
	req, _ := http.NewRequest("GET", c.URL+"/?n=stray", nil)
	req.Header.Set("Cookie", fmt.Sprintf("s.1=stray; s=%s; s.2=AAAAAAAA.stray; s.1=%s; s.2=%s", jar["s"], jar["s.1"], jar["s.2"]))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}
