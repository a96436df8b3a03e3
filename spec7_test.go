package sessplus_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// get7 makes a request with exactly these cookies, as "name=value" texts, and returns what the handler f answers.
func get7(s *site, f func(*sessplus.Session) string, cookies ...string) *reply {
	s.Helper()
	req, err := http.NewRequest("GET", s.URL, nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, c := range cookies {
		req.Header.Add("Cookie", c)
	}
	return s.send(&http.Client{}, req, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, f(sessplus.Get(r))) })
}

func readA(s *sessplus.Session) string { return s.GetString("a") }

// SPEC 7.1
func TestSecureCookieIsWorthlessUnderAnotherName(t *testing.T) {
	one := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "one"}))
	two := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "two"}))
	one.with(func(s *sessplus.Session) { s.Set("a", "secret") })
	text := one.jar(one.client)["one"]
	if got := get7(one, readA, "one="+text).body; got != "secret" {
		t.Fatalf("under its own name a = %q, want secret", got)
	}
	if got := get7(two, readA, "two="+text).body; got != "" {
		t.Errorf("under another name a = %q, want nothing", got)
	}
}

// SPEC 7.1: encrypted with a Block key, readable without.
func TestBlockKeyHidesTheFields(t *testing.T) {
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
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", MaxAge: time.Hour}))
	s.with(func(s *sessplus.Session) { s.Set("a", "1") })
	text := s.jar(s.client)["c"]
	for _, good := range []string{redate(t, "c", text, time.Now()), rewrite(t, "c", text, time.Now().Add(50*time.Second)),
		rewrite(t, "c", text, time.Now().Add(-time.Hour+10*time.Second))} {
		if got := get7(s, readA, "c="+good).body; got != "1" {
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
			if res := get7(s, readA, "c="+text); res.body != "" || res.StatusCode != http.StatusOK {
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
		res := get7(s, readA, "c="+long)
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
	if res := get7(roomy, readA, "c="+whole); len(res.body) != 4000 {
		t.Fatalf("in one cookie, as long as its chunks may be: a has %d bytes, want 4000", len(res.body))
	}
	narrow := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c"}))
	if res := get7(narrow, readA, "c="+whole); res.body != "" || res.StatusCode != http.StatusOK {
		t.Errorf("longer than its chunks allow: status %d, a has %d bytes, want 200 and nothing", res.StatusCode, len(res.body))
	}
}

// quoting is a codec whose errors quote what they read, as those of encoding/json do.
type quoting struct{}

var errQuoting = errors.New("codec: cannot take s3cr3t-value")

func (quoting) Marshal(any) ([]byte, error) { return nil, errQuoting }
func (quoting) Unmarshal([]byte, any) error { return errQuoting }

// chain is every text of an error and of what it wraps.
func chain(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error() + "\n" + fmt.Sprintf("%+v %#v\n", err, err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		text += chain(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			text += chain(inner)
		}
	}
	return text
}

// SPEC 7.3: of a codec
func TestErrorsQuoteNoValue(t *testing.T) {
	const secret = "s3cr3t-value"
	var logged bytes.Buffer
	opts := &sessplus.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	b := sessplus.Memory()
	config := sessplus.Config{CookieName: "c", Backend: b}
	s := newSite(t, newManager(t, opts, config))
	var texts []string
	note := func(err error) {
		if err == nil {
			t.Error("an error was expected")
		}
		texts = append(texts, chain(err))
	}
	s.with(func(s *sessplus.Session) {
		s.Set("a", secret)
		s.Set("when", "not a time "+secret)
		s.Set("n", 12345678901)
		var n int8
		note(s.Decode("a", &n))
		note(s.Decode("n", &n))
		var when time.Time
		note(s.Decode("when", &when))
		note(s.Decode("absent", &n))
	})
	s.with(func(s *sessplus.Session) {
		s.Set("ch", map[string]any{secret: make(chan int)})
		note(s.Err())
		note(s.Save())
	})
	other := *opts
	other.Codec = quoting{}
	q := newSite(t, newManager(t, &other, config))
	q.client = s.client
	u := s.jar(s.client)["c"]
	get7(q, func(s *sessplus.Session) string {
		if v := s.Get("a"); v != nil {
			t.Errorf("Get of what cannot be decoded = %v, want nil", v)
		}
		var v any
		note(s.Decode("a", &v))
		s.Set("b", 1)
		note(s.Save())
		return ""
	}, "c="+u)
	for _, text := range append(texts, logged.String()) {
		if strings.Contains(text, secret) || strings.Contains(text, "12345678901") || strings.Contains(text, u) {
			t.Errorf("a value or an id shows: %s", text)
		}
	}
}

// replyError is an answer of Redis, or of a proxy before it, that quotes the command.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

// quotingHook answers every command so.
type quotingHook struct{ answer func(text string) error }

func (quotingHook) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h quotingHook) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		err := h.answer(fmt.Sprintf("ERR unknown command, with args beginning with: %s", cmd.Args()))
		cmd.SetErr(err)
		return err
	}
}

func (quotingHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// SPEC 7.3: what a hook of the program writes of a command to a trace, as redisotel does, has no id and no value of a field.
func TestCommandsOfRedisPrintNoValues(t *testing.T) {
	const secret = "secret-value"
	client := servers.Redis(t)
	var mu sync.Mutex
	var printed strings.Builder
	client.AddHook(commandHook(func(_ context.Context, cmd redis.Cmder) error {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&printed, cmd, cmd.Args())
		return nil
	}))
	var ids []string
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: sessplus.Redis(client)}))
	for _, do := range []func(*sessplus.Session){
		func(s *sessplus.Session) { s.Set("a", secret); s.Set("b", secret) },
		func(s *sessplus.Session) { s.Set("a", secret+"2") },
		func(s *sessplus.Session) { s.Delete("b"); s.Set("c", secret) },
		func(s *sessplus.Session) {
			if v, err := sessplus.Field[string]("c").Update(s, func(v string) string { return v + secret }); err != nil || v != secret+secret {
				t.Errorf("Update() = %q, %v", v, err)
			}
		},
		func(s *sessplus.Session) { s.Renew() },
		func(s *sessplus.Session) {
			if s.GetString("a") != secret+"2" || s.Has("b") || s.GetString("c") != secret+secret {
				t.Error("the fields are not those that were set")
			}
		},
	} {
		s.with(func(k *sessplus.Session) {
			do(k)
			ids = append(ids, k.ID("c"))
		})
	}
	mu.Lock()
	defer mu.Unlock()
	for _, word := range append(ids[1:], secret) {
		if strings.Contains(printed.String(), word) {
			t.Errorf("%q is among what was printed:\n%s", word, printed.String())
		}
	}
	if !strings.Contains(printed.String(), "evalsha") {
		t.Errorf("no script is among what was printed:\n%s", printed.String())
	}
}

// SPEC 7.3: of a driver
func TestDriverErrorsQuoteNothing(t *testing.T) {
	for want, answer := range map[string]func(text string) error{
		"redis answers ERR":    func(text string) error { return replyError(text) },
		"redis did not answer": func(text string) error { return errors.New("redis: can't parse reply " + text) }, // of go-redis
	} {
		client := servers.NewRedis(t).Client()
		t.Cleanup(func() { client.Close() })
		client.AddHook(quotingHook{answer})
		var logged bytes.Buffer
		s := newSite(t, newManager(t, &sessplus.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))},
			sessplus.Config{CookieName: "c", Backend: sessplus.Redis(client)}))
		var text string
		s.with(func(s *sessplus.Session) {
			s.Set("a", "s3cr3t-value")
			err := s.Save()
			if !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("Save() = %v, want ErrUnavailable", err)
			}
			text = chain(err)
		})
		if text += logged.String(); strings.Contains(text, "s3cr3t-value") || !strings.Contains(text, want) {
			t.Errorf("the error shows what it should not, or not what it should: %s", text)
		}
	}
}

// SPEC 7.4: what a cookie or a record holds is data. Nothing registers types, and a deep or long text ends as one field.
func TestDecodingIsBounded(t *testing.T) {
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: sessplus.Memory()}))
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	s.with(func(s *sessplus.Session) { s.Set("a", rawJSON(deep)) })
	res := get7(s, func(s *sessplus.Session) string { return fmt.Sprint(s.Get("a") == nil) }, "c="+s.jar(s.client)["c"])
	if res.StatusCode != http.StatusOK {
		t.Errorf("status %d, want 200", res.StatusCode)
	}
	for _, file := range libraryFiles(t) {
		if strings.Contains(file, `"encoding/gob"`) && !strings.Contains(file, "func Gob() Codec") { // for those who ask for it
			t.Error("the library imports encoding/gob")
		}
	}
}

// rawJSON is JSON text as it stands.
type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func libraryFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, string(data))
		}
	}
	return files
}

// SPEC 7.7
func TestBoundCookieIsVoidWithoutItsSession(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
		read := func(c map[string]string) string {
			s.Helper()
			return get7(s, readA, "login="+c["login"], "bound="+c["bound"]).body
		}
		if res := s.with(func(s *sessplus.Session) { s.Set("a", "1") }); res.StatusCode != http.StatusInternalServerError ||
			len(res.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("set without a session: status %d, want 500 and no Set-Cookie", res.StatusCode)
		}
		s.with(func(s *sessplus.Session) {
			s.Set("user", "ann")
			s.Set("a", "1")
		})
		ann := s.jar(s.client)
		if got := read(ann); got != "1" {
			t.Fatalf("a = %q, want 1", got)
		}
		if got := get7(s, readA, "bound="+ann["bound"]).body; got != "" {
			t.Errorf("without the session a = %q, want nothing", got)
		}

		other := s.visitor()
		s.visitAs(other, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user", "bob") })
		if got := read(map[string]string{"login": s.jar(other)["login"], "bound": ann["bound"]}); got != "" {
			t.Errorf("with another visitor's session a = %q, want nothing", got)
		}

		for _, names := range [][]string{nil, {"login"}} {
			before := s.jar(s.client)
			s.with(func(s *sessplus.Session) { s.Renew(names...) })
			after := s.jar(s.client)
			if got := read(after); got != "1" {
				t.Errorf("after Renew(%q) a = %q, want 1", names, got)
			}
			if got := read(map[string]string{"login": after["login"], "bound": before["bound"]}); got != "" {
				t.Errorf("the content from before Renew(%q) is good after it: a = %q", names, got)
			}
		}

		last := s.jar(s.client)
		s.with(func(s *sessplus.Session) { s.Destroy("login") })
		if left := s.jar(s.client); len(left) != 0 {
			t.Errorf("after the logout the browser has %v, want nothing", left)
		}
		s.with(func(s *sessplus.Session) { s.Set("user", "ann") })
		if got := read(map[string]string{"login": s.jar(s.client)["login"], "bound": last["bound"]}); got != "" {
			t.Errorf("the content from before the logout is good after the next login: a = %q", got)
		}
	})
}

// SPEC 3.4, 7.7: a session whose last field goes takes its bound cookie along.
func TestEmptiedSessionTakesItsBoundCookieAlong(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		s := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
		begin := func() {
			s.with(func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("a", "1") })
			if len(s.jar(s.client)) != 2 {
				t.Fatalf("cookies %v, want two", s.jar(s.client))
			}
		}
		begin()
		res := s.with(func(s *sessplus.Session) { s.Delete("user") })
		if jar := s.jar(s.client); len(jar) > 0 || res.StatusCode != http.StatusOK {
			t.Errorf("emptied: status %d, cookies %v, want 200 and none", res.StatusCode, jar)
		}

		begin()
		res = s.with(func(s *sessplus.Session) { s.Delete("user"); s.Set("a", "2") })
		if len(res.Header.Values("Set-Cookie")) > 0 || res.StatusCode != http.StatusInternalServerError {
			t.Errorf("set in the request that empties the session: status %d, want 500 and no Set-Cookie", res.StatusCode)
		}
		if got := get7(s, readA, "login="+s.jar(s.client)["login"], "bound="+s.jar(s.client)["bound"]).body; got != "1" {
			t.Errorf("after the failure a = %q, want 1", got)
		}

		// Two requests that take a field each, so that neither sees that it empties the session.
		other := newSite(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("x", "y")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
		other.with(func(s *sessplus.Session) { s.Set("x", 1); s.Set("y", 1); s.Set("a", "1") })
		var second http.Client
		res = other.visit(func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			s.Delete("x")
			s.Set("a", "2")
			again, _ := http.NewRequest("GET", other.URL, nil)
			again.Header["Cookie"] = r.Header["Cookie"]
			other.send(&second, again, func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Delete("y") })
		})
		if len(res.Header.Values("Set-Cookie")) > 0 || res.StatusCode != http.StatusConflict {
			t.Errorf("set while the session is emptied: status %d, want 409 and no Set-Cookie", res.StatusCode)
		}
	})
}

// SPEC 7.7
func TestBoundToNamesAServerSideCookie(t *testing.T) {
	server := sessplus.Config{CookieName: "server", Backend: sessplus.Memory(), Fields: sessplus.Include("s")}
	sealed := sessplus.Config{CookieName: "sealed", Fields: sessplus.Include("x")}
	for _, name := range []string{"absent", "sealed", "bound"} {
		_, err := sessplus.New([]sessplus.Config{server, sealed, {CookieName: "bound", BoundTo: name}}, &sessplus.Options{Keys: testKeys})
		var mistake *sessplus.ConfigError
		if !errors.As(err, &mistake) || mistake.Cookie != "bound" || mistake.Field != "BoundTo" {
			t.Errorf("BoundTo %q: New = %v, want a ConfigError of BoundTo", name, err)
		}
	}
}

// SPEC 7.7: with the session Lazy, too.
func TestBoundCookieLoadsALazySession(t *testing.T) {
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "login", Backend: sessplus.Memory(), Fields: sessplus.Include("user"), Lazy: true},
		sessplus.Config{CookieName: "bound", Fields: sessplus.Include("a"), BoundTo: "login"}))
	s.with(func(s *sessplus.Session) {
		s.Set("user", "ann")
		s.Set("a", "1")
	})
	if got := s.visit(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, readA(sessplus.Get(r))) }).body; got != "1" {
		t.Errorf("a = %q, want 1", got)
	}
}

// A forged, truncated, swapped or foreign cookie is answered as a new visitor is (SPEC 6.4, SPEC 7.1).
func TestForgedCookieIsAnsweredLikeNone(t *testing.T) {
	s := newSite(t, newManager(t, nil,
		sessplus.Config{CookieName: "sid", Backend: sessplus.Memory(), Fields: sessplus.Include("user"), SignID: true},
		sessplus.Config{CookieName: "data"}))
	s.with(func(s *sessplus.Session) {
		s.Set("user", "ann")
		s.Set("a", "1")
	})
	good := s.jar(s.client)
	visit := func(cookies ...string) string {
		res := get7(s, func(s *sessplus.Session) string { return fmt.Sprint(s.Fields(), s.IsNew("sid"), s.ID("sid")) }, cookies...)
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

// SPEC 7.8: every test that SECURITY.md names is there.
func TestSecurityDocumentNamesTests(t *testing.T) {
	doc, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_test.go") {
			data, err := os.ReadFile(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			all += string(data)
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z][A-Za-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1)
	if len(named) < 20 {
		t.Errorf("SECURITY.md names %d tests, want at least 20", len(named))
	}
	for _, m := range named {
		if !strings.Contains(all, "func "+m[1]+"(") {
			t.Errorf("SECURITY.md names %s, which is no test", m[1])
		}
	}
}

// careless is a backend that returns records which have expired.
type careless struct{ sessplus.Backend }

func (c careless) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	r, err := c.Backend.Load(ctx, key)
	if err == nil {
		r.Expires = time.Now().Add(-time.Millisecond)
	}
	return r, err
}

// SPEC 3.5: the expiry of a record counts whatever its backend does.
func TestExpiredRecordOfACarelessBackendIsNoSession(t *testing.T) {
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: careless{sessplus.Memory()}}))
	s.with(func(s *sessplus.Session) { s.Set("a", "1") })
	if got := s.visit(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, readA(sessplus.Get(r))) }).body; got != "" {
		t.Errorf("a = %q, want nothing", got)
	}
}

// SPEC 7.1: nothing altered is accepted, not even where base64 has bits to spare.
func TestAlteredSecureCookieIsRefused(t *testing.T) {
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
			if got := get7(s, readA, "c="+altered).body; got != "" && altered != text {
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
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: sessplus.Memory(), SignID: true}))
	s.with(func(s *sessplus.Session) { s.Set("a", "1") })
	text := s.jar(s.client)["c"]
	if got := get7(s, readA, "c="+text).body; got != "1" {
		t.Fatalf("a = %q, want 1", got)
	}
	at := len(strings.TrimRight(text, "=")) - 1
	for _, c := range alphabet {
		if altered := text[:at] + string(c) + text[at+1:]; altered != text && get7(s, readA, "c="+altered).body != "" {
			t.Fatalf("with %q in place of %q near its end the cookie is accepted", c, text[at])
		}
	}
}

// SPEC 7.3: whoever prints a session shows nothing of it, and no event has its id.
func TestSessionAndEventsShowNothing(t *testing.T) {
	const secret = "s3cr3t-value"
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, IdleTimeout: time.Hour}))
		var id string
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", secret) })
		c.mustAsk(c.client, func(s *sessplus.Session) {
			id = s.ID("s")
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
				if text := fmt.Sprintf(verb, s); strings.Contains(text, secret) || strings.Contains(text, id) || strings.Contains(text, fmt.Sprintf("%x", id)) {
					t.Errorf("%s shows %q", verb, text)
				}
			}
			s.Set("user", "x")
			s.Save()
			s.Renew()
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy() })
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, e := range j.events {
			if text := fmt.Sprintf("%+v", e); strings.Contains(text, id) || strings.Contains(text, secret) || len(e.Handle) != 64 {
				t.Errorf("the event %s shows more than a handle: %s", e.Kind, text)
			}
		}
	})
}

// SPEC 7.7: a request that has learned of the end of its session does not open what is bound to it.
func TestBoundCookieAfterTheEndOfItsSession(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		c := newCrowd(t, newManager(t, nil,
			sessplus.Config{CookieName: "login", Backend: b, Fields: sessplus.Include("user")},
			sessplus.Config{CookieName: "bound", Fields: sessplus.Include("cart"), BoundTo: "login"}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("cart", "apples") })
		c.askWith(c.client, func(s *sessplus.Session) {
			s.Get("user")
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy("login") })
			if err := s.Reload(); !errors.Is(err, sessplus.ErrSessionGone) {
				t.Errorf("Reload() = %v, want ErrSessionGone", err)
			}
			if got := s.Get("cart"); got != nil {
				t.Errorf("cart = %v after the session has ended, want nil", got)
			}
		})
	})
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
