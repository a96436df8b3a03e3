package sessplus_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

const corruptSecret = "ann the secret"

// isNoSession fails the test unless the visitor has no session, can get a new one, and keeps it; and unless the log has
// a warning without the content.
func isNoSession(t *testing.T, c *crowd, j *journal) {
	t.Helper()
	jar := c.jar(c.client)
	var replies []*reply
	ask := func(f func(s *sessplus.Session)) {
		t.Helper()
		replies = append(replies, c.mustAsk(c.client, f))
	}
	ask(func(s *sessplus.Session) {
		if got := s.Fields(); len(got) != 0 || s.Has("user") || !s.IsNew("s") || s.ID("s") != "" {
			t.Errorf("Fields() = %q, IsNew() = %v, want no session", got, s.IsNew("s"))
		}
	})
	j.mustWarn(t)
	ask(func(s *sessplus.Session) { s.Set("user", "bob") })
	if c.jar(c.client)["s"] == jar["s"] {
		t.Error("the cookie is the same after a new session was saved")
	}
	ask(wantUser(t, "bob"))
	j.keepsSecret(t, replies, jar["s"], corruptSecret)
}

// isUsable fails the test unless the session still works, without its corrupt part.
func isUsable(t *testing.T, c *crowd, j *journal) {
	t.Helper()
	c.mustAsk(c.client, func(s *sessplus.Session) {
		s.Fields()
		s.Get("user")
		s.Set("other", 1)
	})
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if got := s.GetInt("other"); got != 1 {
			t.Errorf("other = %d, want 1", got)
		}
		s.Clear()
	})
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "bob") })
	c.mustAsk(c.client, wantUser(t, "bob"))
	j.keepsSecret(t, nil, corruptSecret)
}

type corruptCheck func(*testing.T, *crowd, *journal)

// SPEC 6.4, 6.9, 7.3
func TestCorruptRedisRecordIsNoSession(t *testing.T) {
	t.Parallel()
	hset := func(pairs ...any) func(ctx context.Context, r *redis.Client, key string) {
		return func(ctx context.Context, r *redis.Client, key string) { r.HSet(ctx, key, pairs...) }
	}
	hdel := func(names ...string) func(ctx context.Context, r *redis.Client, key string) {
		return func(ctx context.Context, r *redis.Client, key string) { r.HDel(ctx, key, names...) }
	}
	tests := []struct {
		name    string
		corrupt func(ctx context.Context, r *redis.Client, key string)
		check   corruptCheck
	}{
		{"a string", func(ctx context.Context, r *redis.Client, key string) {
			r.Del(ctx, key)
			r.Set(ctx, key, corruptSecret, 0)
		}, isNoSession},
		{"a list", func(ctx context.Context, r *redis.Client, key string) {
			r.Del(ctx, key)
			r.RPush(ctx, key, corruptSecret)
		}, isNoSession},
		{"a stream", func(ctx context.Context, r *redis.Client, key string) {
			r.Del(ctx, key)
			r.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: []any{"a", corruptSecret}})
		}, isNoSession},
		{"no header", hdel(":record"), isNoSession},
		{"no expiry", hdel(":expires"), isNoSession},
		{"no time of saving", hdel(":saved"), isNoSession},
		{"fields only", hdel(":record", ":expires", ":saved"), isNoSession},
		{"empty header", hset(":record", ""), isNoSession},
		{"garbage header", hset(":record", corruptSecret), isNoSession},
		{"binary header", hset(":record", "\x00\xff 1 p"), isNoSession},
		{"short header", hset(":record", "1"), isNoSession},
		{"header without time", hset(":record", "1  p"), isNoSession},
		{"header with a text for a time", hset(":record", "1 "+corruptSecret+" p"), isNoSession},
		{"header with too much", hset(":record", "1 1000 p p"), isNoSession},
		{"header of a future version", hset(":record", fmt.Sprintf("2 %d p", time.Now().UnixMilli())), isNoSession},
		{"header of a far future version", hset(":record", "99999999999999999999 {\"user\":\""+corruptSecret+"\"}"), isNoSession},
		{"text for an expiry", hset(":expires", corruptSecret), isNoSession},
		{"float for an expiry", hset(":expires", "1e300"), isNoSession},
		{"huge expiry", hset(":expires", "99999999999999999999999"), isNoSession},
		{"text for the time of saving", hset(":saved", corruptSecret), isNoSession},
		{"field that is no JSON", hset("user", `"`+corruptSecret), isUsable},
		{"field of another type", hset("user", `{"a":["`+corruptSecret+`"]}`), isUsable},
		{"field without bytes", hset("user", ""), isUsable},
		{"field without a name", hset("", `"`+corruptSecret+`"`), isUsable},
		{"field with a name that is no UTF-8", hset("\xff\xfe", `"x"`), isUsable},
		{"field with a name too long", hset(strings.Repeat("x", 5000), `"x"`), isUsable},
		{"field with an unknown name of the library", hset(":unknown", "1"), isUsable},
		{"deeply nested field", hset("user", strings.Repeat("[", 1<<20)), isUsable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := servers.Redis(t)
			var j journal
			b := &recorder{Backend: sessplus.Redis(r)}
			c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", corruptSecret) })
			test.corrupt(t.Context(), r, b.keys[0])
			test.check(t, c, &j)
		})
	}
}

// SPEC 6.4: a record that loses its time of expiry while a request renews it.
func TestRecordWithoutExpiryIsNotRenewed(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{"none": "", "a text": "soon"} {
		server := servers.NewRedis(t).Client()
		t.Cleanup(func() { server.Close() })
		b := &recorder{Backend: sessplus.Redis(server)}
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		answer := c.askWith(c.client, func(s *sessplus.Session) {
			server.HSet(t.Context(), b.keys[0], ":expires", value)
			s.Renew()
		})
		if lines := answer.setCookies("s"); answer.StatusCode != http.StatusOK || len(lines) > 0 { // nothing to lose
			t.Errorf("%s: status = %d, Set-Cookie = %q, want 200 and none", name, answer.StatusCode, lines)
		}
	}
}

// A silent backend answers what no backend should.
type silent struct{ sessplus.Backend }

func (silent) Load(context.Context, string) (*sessplus.Record, error) { return nil, nil }

// SPEC 6.1, 6.4: neither a record nor an error is no answer, and no panic.
func TestBackendThatAnswersNothingIsDown(t *testing.T) {
	t.Parallel()
	b := sessplus.Memory()
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	broken := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: silent{b}}))
	if answer := broken.askWith(broken.withCookies(c.jar(c.client)), func(*sessplus.Session) {}); answer.StatusCode != 503 {
		t.Errorf("status = %d, want 503", answer.StatusCode)
	}
}

// okHook answers commands with a word that no script answers, as a proxy might.
type okHook struct {
	quotingHook
	commands []string // those it answers so
	err      error
}

func (h *okHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !slices.Contains(h.commands, cmd.FullName()) {
			return next(ctx, cmd)
		}
		cmd.SetErr(h.err)
		if c, ok := cmd.(interface{ SetVal(any) }); ok && h.err == nil {
			c.SetVal("OK")
		}
		return h.err
	}
}

// SPEC 6.4: what Redis never answers is an outage, and no panic.
func TestOddAnswersOfRedisAreAnOutage(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"OK": nil, "NOSCRIPT": replyError("NOSCRIPT No matching script")} {
		client := servers.NewRedis(t).Client()
		t.Cleanup(func() { client.Close() })
		hook := &okHook{err: err}
		client.AddHook(hook)
		c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(client)}))
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
		for what, f := range map[string]func(s *sessplus.Session){
			"load":    func(s *sessplus.Session) {},
			"set":     func(s *sessplus.Session) { s.Set("n", 1) },
			"renew":   func(s *sessplus.Session) { s.Renew() },
			"destroy": func(s *sessplus.Session) { s.Destroy() },
		} {
			hook.commands = map[string][]string{"load": {"hgetall"}, "destroy": {"evalsha", "eval"}}[what]
			if hook.commands == nil {
				hook.commands = []string{"evalsha", "eval"}
			}
			if err == nil && (what == "load" || what == "destroy") {
				continue // not a reply of theirs
			}
			visitor := c.withCookies(c.jar(c.client))
			if answer := c.askWith(visitor, f); answer.StatusCode != 503 {
				t.Errorf("%s to %s: status = %d, want 503", name, what, answer.StatusCode)
			}
			hook.commands = nil
			c.mustAsk(c.client, wantUser(t, "ann"))
		}
	}
}

// SPEC 6.4: corrupt on its own, a record hurts no other of the same round trip.
func TestCorruptRecordHurtsNoOther(t *testing.T) {
	t.Parallel()
	r := servers.Redis(t)
	b := sessplus.Redis(r)
	c := newCrowd(t, newManager(t, nil,
		sessplus.Config{CookieName: "bad", Backend: b, Fields: sessplus.Include("plan")},
		sessplus.Config{CookieName: "good", Backend: b, Fields: sessplus.Include("user")}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann"); s.Set("plan", "gold") })
	key, _, err := r.Scan(t.Context(), 0, "session:bad:*", 100).Result()
	if err != nil || len(key) != 1 {
		t.Fatalf("Scan() = %d keys, %v, want 1", len(key), err)
	}
	r.Del(t.Context(), key[0])
	r.Set(t.Context(), key[0], "a text", 0)
	c.mustAsk(c.client, func(s *sessplus.Session) {
		wantUser(t, "ann")(s)
		if s.Has("plan") {
			t.Error("plan is there, want it absent")
		}
		s.Set("plan", "free")
		s.Set("user", "bob")
	})
	c.mustAsk(c.client, func(s *sessplus.Session) {
		wantUser(t, "bob")(s)
		if got := s.Get("plan"); got != "free" {
			t.Errorf("plan = %v, want free", got)
		}
	})
}

// SPEC 4.2, 6.4: a record that something else has replaced while the request ran.
func TestRecordThatTurnsIntoSomethingElseIsGone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*sessplus.Session){
		"set":   func(s *sessplus.Session) { s.Set("user", "bob") },
		"renew": func(s *sessplus.Session) { s.Renew() },
	} {
		t.Run(name, func(t *testing.T) {
			r := servers.Redis(t)
			b := &recorder{Backend: sessplus.Redis(r)}
			c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: b}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			slow := c.begin(c.client, change)
			r.Del(t.Context(), b.keys[0])
			r.RPush(t.Context(), b.keys[0], "a list")
			want := map[string]int{"set": 409, "renew": 200}[name] // a mere renewal has nothing to lose
			if answer := slow.finish(); answer.StatusCode != want || len(answer.setCookies("s")) > 0 {
				t.Errorf("status = %d, want %d", answer.StatusCode, want)
			}
		})
	}
}

// SPEC 6.4, 6.9, 7.3
func TestCorruptFirestoreRecordIsNoSession(t *testing.T) {
	t.Parallel()
	type updates = []firestore.Update
	set := func(value any, path ...string) updates { return updates{{FieldPath: path, Value: value}} }
	tests := []struct {
		name    string
		corrupt updates // nil: the document gets other contents
		check   corruptCheck
	}{
		{"other contents", nil, isNoSession},
		{"version as text", set(corruptSecret, "version"), isNoSession},
		{"version as float", set(1.5, "version"), isNoSession},
		{"future version", set(2, "version"), isNoSession},
		{"no expiry", set(firestore.Delete, "expires_at"), isNoSession},
		{"expiry as number", set(12345, "expires_at"), isNoSession},
		{"expiry as text", set(corruptSecret, "expires_at"), isNoSession},
		{"creation as null", set(nil, "created_at"), isNoSession},
		{"time of saving as map", set(map[string]any{"a": corruptSecret}, "saved_at"), isNoSession},
		{"permanent as text", set("true", "permanent"), isNoSession},
		{"permanent as null", set(nil, "permanent"), isNoSession},
		{"no fields", set(firestore.Delete, "fields"), isNoSession},
		{"fields as array", set([]any{corruptSecret}, "fields"), isNoSession},
		{"fields as text", set(corruptSecret, "fields"), isNoSession},
		{"field as number", set(7, "fields", "user"), isUsable},
		{"field as map", set(map[string]any{"a": corruptSecret}, "fields", "user"), isUsable},
		{"field as null", set(nil, "fields", "user"), isUsable},
		{"field that is no JSON", set(`"`+corruptSecret, "fields", "user"), isUsable},
		{"field as bytes", set([]byte{0xff, 0xfe}, "fields", "user"), isUsable},
		{"field without bytes", set("", "fields", "user"), isUsable},
		{"field without a name", set(`"x"`, "fields", "~"), isUsable},
		{"field with a name too long", set(`"x"`, "fields", strings.Repeat("x", 1000)), isUsable},
		{"field escaped for nothing", set(`"x"`, "fields", "~plain"), isUsable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fs := servers.Firestore(t)
			var j journal
			c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: sessplus.Firestore(fs, "sessions")}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", corruptSecret) })
			docs, err := fs.Collection("sessions").Documents(t.Context()).GetAll()
			if err != nil || len(docs) != 1 {
				t.Fatalf("%d documents, %v, want 1", len(docs), err)
			}
			if test.corrupt == nil {
				_, err = docs[0].Ref.Set(t.Context(), map[string]any{"user": corruptSecret})
			} else {
				_, err = docs[0].Ref.Update(t.Context(), test.corrupt)
			}
			if err != nil {
				t.Fatal(err)
			}
			test.check(t, c, &j)
		})
	}
}

// sealContent makes a secure cookie of a content that the library would not write. The time of writing comes after its
// first two bytes.
func sealContent(t *testing.T, content string) string {
	t.Helper()
	if len(content) >= 2 {
		now := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
		content = content[:2] + string(now[2:]) + content[2:]
	}
	text, err := securecookie.New(testKeys[0].Hash, testKeys[0].Block).SetSerializer(securecookie.NopEncoder{}).Encode("s", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// flip changes one bit of the bytes that the base64 text stands for.
func flip(t *testing.T, text string, at int) string {
	t.Helper()
	b, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	b[(at+len(b))%len(b)] ^= 1
	return base64.URLEncoding.EncodeToString(b)
}

// SPEC 6.4, 6.9, 7.2
func TestBrokenSecureCookieIsNoSession(t *testing.T) {
	t.Parallel()
	value := "\x04user\x10\"" + corruptSecret + "\""
	tests := []struct {
		name  string
		spoil func(t *testing.T, text string) string
	}{
		{"truncated", func(_ *testing.T, text string) string { return text[:len(text)-8] }},
		{"cut in half", func(_ *testing.T, text string) string { return text[:len(text)/2] }},
		{"one letter", func(*testing.T, string) string { return "x" }},
		{"no base64", func(*testing.T, string) string { return "!!!!" }},
		{"first bit changed", func(t *testing.T, text string) string { return flip(t, text, 0) }},
		{"bit of the content changed", func(t *testing.T, text string) string { return flip(t, text, 40) }},
		{"last bit changed", func(t *testing.T, text string) string { return flip(t, text, -1) }},
		{"other keys", func(t *testing.T, _ string) string {
			k := sessplus.GenerateKeyPair()
			text, _ := securecookie.New(k.Hash, k.Block).Encode("s", "forged")
			return text
		}},
		{"of another cookie", func(t *testing.T, _ string) string {
			text, _ := securecookie.New(testKeys[0].Hash, testKeys[0].Block).SetSerializer(securecookie.NopEncoder{}).Encode("t", []byte("\x01\x00"+value))
			return text
		}},
		{"twice", func(_ *testing.T, text string) string { return text + text }},
		{"far too long", func(_ *testing.T, text string) string { return strings.Repeat(text, 200) }},
		{"no content", func(t *testing.T, _ string) string { return sealContent(t, "") }},
		{"version only", func(t *testing.T, _ string) string { return sealContent(t, "\x01") }},
		{"future version", func(t *testing.T, _ string) string { return sealContent(t, "\x02\x00"+value) }},
		{"unknown flags", func(t *testing.T, _ string) string { return sealContent(t, "\x01\x80"+value) }},
		{"name without value", func(t *testing.T, _ string) string { return sealContent(t, "\x01\x00\x04user") }},
		{"length past the end", func(t *testing.T, _ string) string { return sealContent(t, "\x01\x00\x04user\x7fx") }},
		{"endless length", func(t *testing.T, _ string) string {
			return sealContent(t, "\x01\x00"+strings.Repeat("\xff", 12))
		}},
		{"largest length", func(t *testing.T, _ string) string {
			return sealContent(t, "\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
		}},
		{"bound to nothing", func(t *testing.T, _ string) string { return sealContent(t, "\x01\x02"+strings.Repeat("b", 32)+value) }},
		{"bound, cut", func(t *testing.T, _ string) string { return sealContent(t, "\x01\x02bound") }},
		{"a chunk that says it is of many", func(_ *testing.T, text string) string { return "20.AAAAAAAA." + text }},
		{"a chunk of less than none", func(_ *testing.T, text string) string { return "-1.AAAAAAAA." + text }},
		{"a chunk of a huge number", func(_ *testing.T, text string) string { return "99999999999999999999.A." + text }},
		{"dots", func(*testing.T, string) string { return "..." }},
	}
	for _, test := range tests {
		for _, chunks := range []int{0, 5} {
			t.Run(fmt.Sprint(test.name, ", MaxChunks ", chunks), func(t *testing.T) {
				var j journal
				c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", MaxChunks: chunks}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", corruptSecret) })
				c.client = c.withCookies(map[string]string{"s": sealContent(t, "\x01\x00"+value)})
				// A good one is accepted, so the others are not refused for their form alone.
				c.mustAsk(c.client, wantUser(t, corruptSecret))
				c.client = c.withCookies(map[string]string{"s": test.spoil(t, c.jar(c.client)["s"])})
				isNoSession(t, c, &j)
			})
		}
	}
}

// SPEC 3.3, 6.4: a planted id costs no error, whatever the backend.
func TestBrokenIDIsNoSession(t *testing.T) {
	t.Parallel()
	id := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		for _, signed := range []bool{false, true} {
			for _, text := range []string{"", "x", "../../x", id, id[:42], id + "A", id[:42] + "!", id[:42] + "B", strings.Repeat("A", 5000), "%00", "*"} {
				t.Run(fmt.Sprintf("%.8s… of %d, signed %v", strings.ReplaceAll(text, "/", "-"), len(text), signed), func(t *testing.T) {
					var j journal
					c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, SignID: signed}))
					c.client = c.withCookies(map[string]string{"s": text})
					c.mustAsk(c.client, func(s *sessplus.Session) {
						if !s.IsNew("s") || len(s.Fields()) > 0 {
							t.Error("there is a session, want none")
						}
						s.Set("user", "ann")
					})
					if got := c.jar(c.client)["s"]; got == text || strings.Contains(got, id) {
						t.Error("the planted id was adopted")
					}
					c.mustAsk(c.client, wantUser(t, "ann"))
					if len(text) > 10 {
						j.keepsSecret(t, nil, text)
					}
				})
			}
		}
	})
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
	t.Parallel()
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: careless{sessplus.Memory()}}))
	s.with(func(s *sessplus.Session) { s.Set("a", "1") })
	if got := s.visit(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, readA(sessplus.Get(r))) }).body; got != "" {
		t.Errorf("a = %q, want nothing", got)
	}
}
