package sessplus_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/sessplus/sessplus"
)

// SPEC 7.1
func TestSecureCookieIsWorthlessUnderAnotherName(t *testing.T) {
	t.Parallel()
	one := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "one"}))
	two := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "two"}))
	one.with(func(s *sessplus.Session) { s.Set("a", "secret") })
	text := one.jar(one.client)["one"]
	if got := one.answerTo(readA, "one="+text).body; got != "secret" {
		t.Fatalf("under its own name a = %q, want secret", got)
	}
	if got := two.answerTo(readA, "two="+text).body; got != "" {
		t.Errorf("under another name a = %q, want nothing", got)
	}
}

// SPEC 7.1: encrypted with a Block key, readable without.
func TestBlockKeyHidesTheFields(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		keys sessplus.KeyPair
		want bool
	}{
		{"encrypted", testKeys[0], false},
		{"signed", sessplus.KeyPair{Hash: testKeys[0].Hash}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Keys: []sessplus.KeyPair{tt.keys}}))
			s.with(func(s *sessplus.Session) { s.Set("a", "visible-value") })
			outer, err := base64.URLEncoding.DecodeString(s.jar(s.client)["c"])
			if err != nil {
				t.Fatal(err)
			}
			inner, err := base64.URLEncoding.DecodeString(strings.Split(string(outer), "|")[1])
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(inner, []byte("visible-value")); got != tt.want {
				t.Errorf("the value shows: %v, want %v", got, tt.want)
			}
		})
	}
}

// redate gives a secure cookie another date, and signs it anew as somebody with the key could.
func redate(t *testing.T, name, text string, when time.Time) string {
	t.Helper()
	raw, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(string(raw), "|", 3)
	signed := fmt.Sprintf("%d|%s", when.Unix(), parts[1])
	mac := hmac.New(sha256.New, testKeys[0].Hash)
	mac.Write([]byte(name + "|" + signed))
	return base64.URLEncoding.EncodeToString(append([]byte(signed+"|"), mac.Sum(nil)...))
}

// rewrite gives the content of a secure cookie another time, too: what a server whose clock is wrong would write.
func rewrite(t *testing.T, name, text string, when time.Time) string {
	t.Helper()
	k := securecookie.New(testKeys[0].Hash, testKeys[0].Block).SetSerializer(securecookie.NopEncoder{})
	var content []byte
	if err := k.Decode(name, text, &content); err != nil {
		t.Fatal(err)
	}
	head := binary.BigEndian.Uint64(content)&^(1<<48-1) | uint64(when.UnixMilli())&(1<<48-1)
	binary.BigEndian.PutUint64(content, head)
	text, err := k.Encode(name, content)
	if err != nil {
		t.Fatal(err)
	}
	return redate(t, name, text, when)
}

// SPEC 7.6
func TestTimeStampOfASecureCookie(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", MaxAge: time.Hour}))
	s.with(func(s *sessplus.Session) { s.Set("a", "1") })
	text := s.jar(s.client)["c"]
	for _, good := range []string{redate(t, "c", text, time.Now()), rewrite(t, "c", text, time.Now().Add(50*time.Second)),
		rewrite(t, "c", text, time.Now().Add(-time.Hour+10*time.Second))} {
		if got := s.answerTo(readA, "c="+good).body; got != "1" {
			t.Fatalf("written anew with a date that is good a = %q, want 1", got)
		}
	}
	for name, when := range map[string]time.Time{
		"two minutes ahead":  time.Now().Add(2 * time.Minute),
		"ten years ahead":    time.Now().AddDate(10, 0, 0),
		"older than its age": time.Now().Add(-time.Hour - 2*time.Second),
		"the epoch":          time.Unix(0, 0),
		"before the epoch":   time.Unix(-5, 0),
	} {
		for i, text := range []string{redate(t, "c", text, when), rewrite(t, "c", text, when)} {
			if res := s.answerTo(readA, "c="+text); res.body != "" || res.StatusCode != http.StatusOK {
				t.Errorf("%s, content too: %v: status %d, a = %q, want 200 and nothing", name, i == 1, res.StatusCode, res.body)
			}
		}
	}
}

// SPEC 7.2
func TestTooLongCookieIsNotDecoded(t *testing.T) {
	for _, chunks := range []int{1, 3} {
		s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", MaxChunks: chunks}))
		long := strings.Repeat("A", chunks*4096+100)
		short := strings.Repeat("A", 100)
		res := s.answerTo(readA, "c="+long)
		if res.StatusCode != http.StatusOK || res.body != "" || len(res.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%d chunks: status %d %q", chunks, res.StatusCode, res.body)
		}
		// A long cookie costs no more than a short one.
		measure := func(cookie string) float64 {
			m := newManager(t, nil, sessplus.Config{CookieName: "c", MaxChunks: chunks})
			h := m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			r, err := http.NewRequest("GET", "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Cookie", "c="+cookie)
			return testing.AllocsPerRun(20, func() { h.ServeHTTP(&discard{header: make(http.Header)}, r) })
		}
		if a, b := measure(long), measure(short); a > b {
			t.Errorf("%d chunks: a too long cookie costs %v allocations, a short forged one %v", chunks, a, b)
		}
	}

	// Not even one that is sealed well, as by a server with a larger MaxChunks.
	roomy := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", MaxChunks: 3}))
	roomy.with(func(s *sessplus.Session) { s.Set("a", strings.Repeat("1", 4000)) })
	jar, whole := roomy.jar(roomy.client), ""
	for i, name := range []string{"c", "c.1"} {
		parts := strings.SplitN(jar[name], ".", 3-i)
		whole += parts[len(parts)-1]
	}
	if res := roomy.answerTo(readA, "c="+whole); len(res.body) != 4000 {
		t.Fatalf("in one cookie, as long as its chunks may be: a has %d bytes, want 4000", len(res.body))
	}
	narrow := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c"}))
	if res := narrow.answerTo(readA, "c="+whole); res.body != "" || res.StatusCode != http.StatusOK {
		t.Errorf("longer than its chunks allow: status %d, a has %d bytes, want 200 and nothing", res.StatusCode, len(res.body))
	}
}

// A forged, truncated, swapped or foreign cookie is answered as a new visitor is (SPEC 6.4, SPEC 7.1).
func TestForgedCookieIsAnsweredLikeNone(t *testing.T) {
	t.Parallel()
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "sid", Backend: sessplus.Memory(), Fields: sessplus.Include("user"), SignID: true},
		sessplus.Config{CookieName: "data"}))
	s.with(func(s *sessplus.Session) {
		s.Set("user", "ann")
		s.Set("a", "1")
	})
	good := s.jar(s.client)
	visit := func(cookies ...string) string {
		res := s.answerTo(func(s *sessplus.Session) string { return fmt.Sprint(s.Fields(), s.IsNew("sid"), s.ID("sid")) }, cookies...)
		res.Header.Del("Date")
		return fmt.Sprint(res.StatusCode, res.Header, res.body)
	}
	want := visit()
	sid, data := good["sid"], good["data"]
	for _, cookies := range [][]string{
		{"sid=" + sid[1:]}, {"sid=" + sid[:len(sid)-3]}, {"sid=" + data}, {"data=" + sid}, {"data=" + data[1:]}, {"data=" + data[:40]},
		{"sid=", "data="}, {"sid=x", "data=y"}, {"SID=" + sid}, {"data=" + strings.ToLower(data)}, {"sid=" + strings.Repeat("A", 43)},
		{"data=" + data + "A"}, {"data=" + data + "===="}, {"sid"}, {"=" + sid}, {"sid=\xff\xfe"},
	} {
		if got := visit(cookies...); got != want {
			t.Errorf("%.60q is answered %s, a new visitor %s", cookies, got, want)
		}
	}
}

// SPEC 7.1: nothing altered is accepted, not even where base64 has bits to spare.
func TestAlteredSecureCookieIsRefused(t *testing.T) {
	t.Parallel()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c"}))
	padded := 0
	for n := range 12 {
		s.with(func(s *sessplus.Session) { s.Set("a", strings.Repeat("x", n+1)) })
		text := s.jar(s.client)["c"]
		at := len(strings.TrimRight(text, "=")) - 1
		padded += len(text) - 1 - at
		for _, c := range alphabet {
			altered := text[:at] + string(c) + text[at+1:]
			if got := s.answerTo(readA, "c="+altered).body; got != "" && altered != text {
				t.Fatalf("with %q in place of %q near its end the cookie is accepted", c, text[at])
			}
		}
	}
	if padded == 0 {
		t.Error("no cookie had bits to spare, so the test shows nothing")
	}
}

// SPEC 7.1: the signature of an id covers every bit of the cookie, as that of a secure cookie does.
func TestAlteredSignedIDIsRefused(t *testing.T) {
	t.Parallel()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: sessplus.Memory(), SignID: true}))
	s.with(func(s *sessplus.Session) { s.Set("a", "1") })
	text := s.jar(s.client)["c"]
	if got := s.answerTo(readA, "c="+text).body; got != "1" {
		t.Fatalf("a = %q, want 1", got)
	}
	at := len(strings.TrimRight(text, "=")) - 1
	for _, c := range alphabet {
		if altered := text[:at] + string(c) + text[at+1:]; altered != text && s.answerTo(readA, "c="+altered).body != "" {
			t.Fatalf("with %q in place of %q near its end the cookie is accepted", c, text[at])
		}
	}
}

// SPEC 7.2, 7.4: what a cookie costs is bounded by what it may hold, before it is decoded and after.
func TestCookieCostsLittleMemory(t *testing.T) {
	cost := func(config sessplus.Config, text string) uint64 {
		m := newManager(t, nil, config)
		h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("a") }))
		r, err := http.NewRequest("GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", config.CookieName+"="+text)
		const times = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			h.ServeHTTP(&discard{header: make(http.Header)}, r)
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / times
	}
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c"}))
	s.with(func(s *sessplus.Session) { s.Set("a", "1") })
	for _, tt := range []struct {
		name   string
		config sessplus.Config
		text   string
	}{
		{"a good cookie", sessplus.Config{CookieName: "c"}, s.jar(s.client)["c"]},
		{"a too long cookie", sessplus.Config{CookieName: "c"}, strings.Repeat("A", 500_000)},
		{"a too long signed id", sessplus.Config{CookieName: "c", Backend: sessplus.Memory(), SignID: true}, strings.Repeat("A", 500_000)},
	} {
		if got := cost(tt.config, tt.text); got > 100_000 {
			t.Errorf("%s costs %d bytes of memory, want at most 100000", tt.name, got)
		}
	}
}

// SPEC 6.5: the limit is exact. Values come in steps of four bytes, so names of four lengths try every remainder.
func TestSecureCookieMayHave4096Bytes(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
