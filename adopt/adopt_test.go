package adopt_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
	"github.com/sessplus/sessplus/internal/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// The types of the program that has moved. Its Legacy is no more.
type (
	Cart struct{ Items []Item }
	Item struct{ Name string }
)

func init() {
	gob.RegisterName("example.com/shop.Cart", Cart{})
	gob.Register(map[any]any{})
	gob.Register(map[string]any{})
	gob.Register(time.Time{})
}

var (
	ctx = context.Background()
	at  = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
)

// A sample is what e2e has kept of a program on a former library.
type sample struct {
	Library, Cookie, Value string
	Keys                   [][]byte
	Store                  map[string][]byte
}

func readSample(t testing.TB, name string) (s sample) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill puts the sample into the store that it is from.
func (s sample) fill(t testing.TB, c *redis.Client) {
	t.Helper()
	for key, data := range s.Store {
		if err := c.Set(ctx, key, data, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// importers are the importers of the samples. Their cookies are as old as the samples.
var importers = map[string]func(c *redis.Client, o adopt.Options, keys [][]byte) sessplus.Importer{
	"scs-redis": func(c *redis.Client, o adopt.Options, _ [][]byte) sessplus.Importer { return adopt.SCSRedis(c, &o) },
	"scs-goredis-hashed": func(c *redis.Client, o adopt.Options, _ [][]byte) sessplus.Importer {
		o.HashToken = true
		return adopt.SCSRedis(c, &o)
	},
	"gorilla-cookie": gorilla, "gorilla-signed": gorilla, "gin-cookie": gorilla, "echo-cookie": gorilla,
	"redistore": rediStore, "gin-redis": rediStore, "echo-redis": rediStore,
	"redistore-json": func(c *redis.Client, o adopt.Options, keys [][]byte) sessplus.Importer {
		o.JSON, o.Prefix = true, "shop:"
		return rediStore(c, o, keys)
	},
	"redisstore": func(c *redis.Client, o adopt.Options, _ [][]byte) sessplus.Importer { return adopt.RedisStore(c, &o) },
}

func gorilla(_ *redis.Client, o adopt.Options, keys [][]byte) sessplus.Importer {
	return adopt.Gorilla(&o, keys...)
}

func rediStore(c *redis.Client, o adopt.Options, keys [][]byte) sessplus.Importer {
	return adopt.RediStore(c, &o, keys...)
}

// The bytes that the former libraries have left are read, whatever the importers become. The type that the program
// does not have any more costs its field and nothing else, and the error in its place names the type (SPEC 12.5).
func TestTestdata(t *testing.T) {
	for name, open := range importers {
		t.Run(name, func(t *testing.T) {
			s, c := readSample(t, name), servers.Redis(t)
			s.fill(t, c)
			got, err := open(c, adopt.Options{MaxAge: -1}, s.Keys).Import(ctx, s.Cookie, s.Value)
			if err != nil {
				t.Fatalf("%s: %v", s.Library, err)
			}
			want := map[string]any{"user_id": 42.0, "name": "Zoë"}
			if name != "redistore-json" {
				legacy, _ := got.Fields["legacy"].(error)
				if legacy == nil || legacy.Error() != "it has the type example.com/shop.Legacy, which is not registered with encoding/gob" {
					t.Errorf("legacy = %v", got.Fields["legacy"])
				}
				want = map[string]any{
					"user_id": uint(42), "n": 7, "name": "Zoë", "admin": true, "at": at, "raw": []byte{0, 255},
					"cart": Cart{[]Item{{"tea"}}}, "prefs": map[string]any{"dark": true, "1": []byte("x")}, "legacy": legacy,
				}
				if !strings.HasPrefix(name, "scs") {
					want["_flash"] = []any{"saved", Cart{[]Item{{"flash"}}}}
				}
			}
			if !reflect.DeepEqual(got.Fields, want) {
				t.Errorf("the fields are %#v,\nwant %#v", got.Fields, want)
			}
			if got.Permanent != strings.HasPrefix(name, "scs") {
				t.Errorf("Permanent = %t", got.Permanent)
			}
			sealed := len(s.Store) == 0
			if left := time.Until(got.Expires); sealed != got.Expires.IsZero() ||
				got.Permanent && left < 90*365*24*time.Hour || !sealed && !got.Permanent && (left < time.Hour-time.Minute || left > time.Hour) {
				t.Errorf("Expires = %v", got.Expires)
			}
			// All but the field that is lost can be stored by the codecs.
			delete(got.Fields, "legacy")
			for field, v := range got.Fields {
				if _, err := sessplus.Gob().Marshal(v); err != nil {
					t.Errorf("%s: %v", field, err)
				}
				if _, err := json.Marshal(v); err != nil {
					t.Errorf("%s: %v", field, err)
				}
			}
		})
	}
}

// The samples become sessions that handlers read with the typed getters and Field, under JSON.
func TestFieldsFitSessions(t *testing.T) {
	s := readSample(t, "gorilla-cookie")
	found, err := adopt.Gorilla(&adopt.Options{MaxAge: -1}, s.Keys...).Import(ctx, s.Cookie, s.Value)
	if err != nil {
		t.Fatal(err)
	}
	delete(found.Fields, "legacy")
	site := newSite(t, sessplus.Config{CookieName: "session", Backend: sessplus.Memory()})
	site.do(func(x *sessplus.Session) {
		for name, v := range found.Fields {
			x.Set(name, v)
		}
	})
	site.do(func(x *sessplus.Session) {
		got := []any{
			x.GetInt("user_id"), x.GetString("name"), x.GetTime("at"), x.GetBytes("raw"), sessplus.Field[Cart]("cart").Get(x),
			x.Get("prefs"), sessplus.Field[[]any]("_flash").Pop(x)[0],
		}
		want := []any{
			42, "Zoë", at, []byte{0, 255}, Cart{[]Item{{"tea"}}}, map[string]any{"dark": true, "1": "eA=="}, "saved",
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %#v,\nwant %#v", got, want)
		}
	})
}

// none fails the test if the error is not ErrNoRecord, without a reason, or with the value in it.
func wantNone(t *testing.T, what string, err error, secrets ...string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s is a session", what)
	case !errors.Is(err, sessplus.ErrNoRecord):
		t.Errorf("%s: %v, want one that matches ErrNoRecord", what, err)
	case !strings.HasPrefix(err.Error(), "adopt: ") || len(err.Error()) < 30:
		t.Errorf("%s: the error %q says too little", what, err)
	}
	wantSecret(t, what, err, secrets...)
}

func wantSecret(t *testing.T, what string, err error, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if err != nil && strings.Contains(fmt.Sprintf("%+v", err), s) {
			t.Errorf("%s: the error holds it: %v", what, err)
		}
	}
}

// What is forged, damaged, expired or of another form is no session, for a reason that does not hold the value; a
// store that does not answer is another error; and with either nobody is logged out by the other (SPEC 6.1,
// SPEC 7.3).
func TestRefused(t *testing.T) {
	for name, open := range importers {
		t.Run(name, func(t *testing.T) {
			s, c := readSample(t, name), servers.Redis(t)
			s.fill(t, c)
			good := adopt.Options{MaxAge: -1}
			i := open(c, good, s.Keys)
			for what, value := range map[string]string{
				"an empty value":      "",
				"a truncated value":   s.Value[:len(s.Value)-1],
				"a longer value":      s.Value + "A",
				"a changed value":     "AAAA" + s.Value[4:],
				"a value of 5 kB":     strings.Repeat("A", 5000),
				"another form":        "not one of theirs",
				"an id of ours":       "4t6ejCx2N0o4xHmL1mFZsJ0rXmYw7wT4aKq2iP3Vv0g",
				"an id that is not":   strings.Repeat("A", len(s.Value)),
				"a key of others":     "session:" + strings.Repeat("ab", 32),
				"control bytes":       "\x00\r\n" + s.Value[3:],
				"two values":          s.Value + "," + s.Value,
				"a wrong base64 tail": s.Value[:len(s.Value)-2] + "!!",
			} {
				_, err := i.Import(ctx, s.Cookie, value)
				wantNone(t, what, err, s.Value)
			}
			if _, err := open(c, adopt.Options{MaxAge: -1, Until: time.Now().Add(-time.Second)}, s.Keys).Import(ctx, s.Cookie, s.Value); err == nil ||
				!strings.Contains(err.Error(), "Until") {
				t.Errorf("after Until: %v", err)
			} else {
				wantNone(t, "after Until", err, s.Value)
			}
			if _, err := open(c, adopt.Options{MaxAge: -1, Until: time.Now().Add(time.Hour)}, s.Keys).Import(ctx, s.Cookie, s.Value); err != nil {
				t.Errorf("before Until: %v", err)
			}
			if s.Keys != nil {
				other := append([][]byte(nil), s.Keys...)
				other[0] = []byte("another key")
				_, err := open(c, good, other).Import(ctx, s.Cookie, s.Value)
				wantNone(t, "another hash key", err, s.Value)
				if len(s.Keys) == 2 {
					other[0], other[1] = s.Keys[0], []byte("another key 0123")
					_, err = open(c, good, other).Import(ctx, s.Cookie, s.Value)
					wantNone(t, "another block key", err, s.Value)
					// Keys are rotated: the pair that fits is the last one, also if only its block key does.
					if _, err = open(c, good, append(other, s.Keys...)).Import(ctx, s.Cookie, s.Value); err != nil {
						t.Errorf("the second pair: %v", err)
					}
				}
				_, err = i.Import(ctx, "other", s.Value)
				wantNone(t, "under another cookie's name", err, s.Value)
				_, err = open(c, adopt.Options{MaxAge: time.Nanosecond}, s.Keys).Import(ctx, s.Cookie, s.Value)
				wantNone(t, "older than MaxAge", err, s.Value)
				for _, bad := range [][][]byte{nil, {nil}, {s.Keys[0], []byte("a key of 13 b")}, {s.Keys[0], nil, nil}} {
					_, err := open(c, good, bad).Import(ctx, s.Cookie, s.Value)
					if err == nil || errors.Is(err, sessplus.ErrNoRecord) || !strings.Contains(err.Error(), "key") {
						t.Errorf("with keys that cannot be used: %v, want an error that says so and logs nobody out", err)
					}
				}
			}
			if s.Store == nil {
				return
			}
			for key, data := range s.Store {
				for what, bytes := range map[string][]byte{
					"nothing stored": {}, "half of it": data[:len(data)/2], "something else": []byte("{]"), "too much": make([]byte, 5<<20),
				} {
					c.Set(ctx, key, bytes, time.Hour)
					_, err := i.Import(ctx, s.Cookie, s.Value)
					wantNone(t, what, err, s.Value, key)
				}
				c.Del(ctx, key)
				c.HSet(ctx, key, "a", "b")
				_, err := i.Import(ctx, s.Cookie, s.Value)
				wantNone(t, "a hash of another program", err, s.Value, key)
				c.Del(ctx, key)
				_, err = i.Import(ctx, s.Cookie, s.Value)
				wantNone(t, "a session that is gone", err, s.Value, key)
			}
			down := redis.NewClient(&redis.Options{Addr: deadAddr(t), MaxRetries: -1})
			defer down.Close()
			_, err := open(down, good, s.Keys).Import(ctx, s.Cookie, s.Value)
			if err == nil || errors.Is(err, sessplus.ErrNoRecord) || !strings.Contains(err.Error(), "refused") {
				t.Errorf("a store that is down: %v", err)
			}
			wantSecret(t, "a store that is down", err, s.Value)
			done, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := i.Import(done, s.Cookie, s.Value); !errors.Is(err, context.Canceled) || errors.Is(err, sessplus.ErrNoRecord) {
				t.Errorf("a context that has ended: %v", err)
			}
		})
	}
}

// deadAddr is an address at which nobody answers.
func deadAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

// Without a client or store an importer says so, and what it prints holds neither keys nor options.
func TestMistakes(t *testing.T) {
	for _, i := range []sessplus.Importer{
		adopt.SCS(nil, nil), adopt.SCSRedis(nil, nil), adopt.RediStore(nil, nil, []byte("secret key")), adopt.RedisStore(nil, nil),
		adopt.FlaskSessionPlus("", nil), adopt.FlaskFirestore(nil, "sessions", "secret key", nil), adopt.Gorilla(nil),
	} {
		_, err := i.Import(ctx, "session", strings.Repeat("A", 43))
		if err == nil || errors.Is(err, sessplus.ErrNoRecord) || !strings.HasPrefix(err.Error(), fmt.Sprint(i)+": ") && !strings.HasPrefix(err.Error(), "adopt: ") {
			t.Errorf("%v: %v", i, err)
		}
	}
	i := adopt.RediStore(nil, &adopt.Options{Prefix: "a prefix"}, []byte("secret key"))
	for _, verb := range []string{"%v", "%+v", "%s", "%#v"} {
		if text := fmt.Sprintf(verb, i); strings.Contains(text, "secret key") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

// The session of a signed cookie ends when its cookie was too old for the former library: 30 days after it was
// written, or what MaxAge says, and the one in Redis when its string expires if that is earlier.
func TestEnds(t *testing.T) {
	c := servers.Redis(t)
	key := []byte("a hash key")
	codec := securecookie.New(key, nil)
	value, err := codec.Encode("session", map[any]any{"n": 1})
	if err != nil {
		t.Fatal(err)
	}
	id, err := codec.Encode("session", "ID")
	if err != nil {
		t.Fatal(err)
	}
	var stored bytes.Buffer
	if err := gob.NewEncoder(&stored).Encode(map[any]any{"n": 1}); err != nil {
		t.Fatal(err)
	}
	set := func(ttl time.Duration) {
		if err := c.Set(ctx, "session_ID", stored.Bytes(), ttl).Err(); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	for _, test := range []struct {
		what   string
		maxAge time.Duration
		ttl    time.Duration // of the string; -1: a secure cookie
		want   time.Duration // 0: no end
	}{
		{"a cookie", 0, -1, 30 * day},
		{"a cookie with MaxAge", day, -1, day},
		{"a cookie without a limit", -1, -1, 0},
		{"a string that expires first", 0, time.Hour, time.Hour},
		{"a cookie that expires first", time.Hour, day, time.Hour},
		{"a string that never expires", 0, 0, 30 * day},
		{"neither expires", -1, 0, 0},
	} {
		i, v := adopt.Gorilla(&adopt.Options{MaxAge: test.maxAge}, key), value
		if test.ttl >= 0 {
			set(test.ttl)
			i, v = adopt.RediStore(c, &adopt.Options{MaxAge: test.maxAge}, key), id
		}
		got, err := i.Import(ctx, "session", v)
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		left := time.Until(got.Expires)
		if got.Expires.IsZero() != (test.want == 0) || test.want > 0 && (left > test.want || left < test.want-time.Minute) {
			t.Errorf("%s ends in %v, want %v", test.what, left, test.want)
		}
	}
}

// A time stamp ahead of the clock is refused, as our own is (SPEC 7.6).
func TestFromTheFuture(t *testing.T) {
	key := []byte("a hash key")
	sign := func(date int64) string { return signCookie(key, "session", date, gobOf(t, map[any]any{"n": 1})) }
	now := time.Now().Unix()
	if _, err := adopt.Gorilla(nil, key).Import(ctx, "session", sign(now+30)); err != nil {
		t.Errorf("30 s ahead: %v", err)
	}
	_, err := adopt.Gorilla(nil, key).Import(ctx, "session", sign(now+3600))
	wantNone(t, "an hour ahead", err)
	_, err = adopt.Gorilla(nil, key).Import(ctx, "session", sign(now-31*24*3600))
	wantNone(t, "31 days old", err)
}

func gobOf(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A codec of the program's is the store's: values and deadline come from it.
func TestSCSCodec(t *testing.T) {
	store := memstore.NewWithCleanupInterval(0)
	token := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	codec := lineCodec{}
	data, err := codec.Encode(time.Now().Add(time.Hour), map[string]any{"name": "Ann"})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Commit(token, data, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, err = adopt.SCS(store, nil).Import(ctx, "session", token)
	wantNone(t, "without the codec", err, token)
	got, err := adopt.SCS(struct {
		scs.Store
		scs.Codec
	}{store, codec}, nil).Import(ctx, "session", token)
	if err != nil || !reflect.DeepEqual(got.Fields, map[string]any{"name": "Ann"}) || time.Until(got.Expires) < 59*time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	data, _ = codec.Encode(time.Now().Add(-time.Second), map[string]any{"name": "Ann"})
	if err := store.Commit(token, data, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, err = adopt.SCS(struct {
		scs.Store
		scs.Codec
	}{store, codec}, nil).Import(ctx, "session", token)
	wantNone(t, "past its deadline", err, token)
}

type lineCodec struct{}

func (lineCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return fmt.Appendf(nil, "%d %s", deadline.Unix(), values["name"]), nil
}

func (lineCodec) Decode(data []byte) (time.Time, map[string]any, error) {
	var seconds int64
	var name string
	if _, err := fmt.Sscan(string(data), &seconds, &name); err != nil {
		return time.Time{}, nil, err
	}
	return time.Unix(seconds, 0), map[string]any{"name": name}, nil
}

// A store that fails is down, and what it says is passed on without the token, which its driver may quote (SPEC 7.3).
func TestSCSStoreFails(t *testing.T) {
	token := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	_, err := adopt.SCS(failing{}, nil).Import(ctx, "session", token)
	if err == nil || errors.Is(err, sessplus.ErrNoRecord) || !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "disk") {
		t.Errorf("the error is %v", err)
	}
	wantSecret(t, "a store that fails", err, token)
}

var errDisk = errors.New("the disk is full")

type failing struct{}

func (failing) Find(token string) ([]byte, bool, error) {
	return nil, false, fmt.Errorf("no row %q: %w: %w", token, errDisk, sessplus.ErrNoRecord)
}
func (failing) Delete(string) error                    { return errDisk }
func (failing) Commit(string, []byte, time.Time) error { return errDisk }

// All requests of a visitor get the same session, at the same time.
func TestConcurrently(t *testing.T) {
	s, c := readSample(t, "redistore"), servers.Redis(t)
	s.fill(t, c)
	i := adopt.RediStore(c, &adopt.Options{MaxAge: -1}, s.Keys...)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				got, err := i.Import(ctx, s.Cookie, s.Value)
				if err != nil || got.Fields["user_id"] != uint(42) {
					t.Errorf("%v, %v", got, err)
					return
				}
				got.Fields["user_id"] = 0 // it belongs to the caller
			}
		})
	}
	wg.Wait()
}

// Keys that are no text become it, and those that cannot cost their field, as do values that no codec takes.
func TestKeysAndValues(t *testing.T) {
	type name string
	key := []byte("a hash key")
	gob.Register(name(""))
	gob.Register([2]int{})
	value, err := securecookie.New(key, nil).Encode("session", map[any]any{
		1: "int", uint8(2): "uint", true: "bool", name("x"): "named", "1": "text", [2]int{}: "array", "binary": "\xff",
		"deep": []any{map[any]any{[2]int{}: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := adopt.Gorilla(nil, key).Import(ctx, "session", value)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"(a key of type [2]int)", "deep"} {
		if _, ok := got.Fields[field].(error); !ok {
			t.Errorf("%s = %v, want an error", field, got.Fields[field])
		}
		delete(got.Fields, field)
	}
	want := map[string]any{"1": "text", "2": "uint", "true": "bool", "x": "named", "binary": []byte{0xff}}
	if !reflect.DeepEqual(got.Fields, want) {
		t.Errorf("the fields are %v, want %v", got.Fields, want)
	}
}

// The unsigned id of rbcervilla's store does not lead to the keys of others, of this library say, nor a short one
// anywhere.
func TestRedisStoreReadsNoOtherKeys(t *testing.T) {
	s, c := readSample(t, "redisstore"), servers.Redis(t)
	for _, id := range []string{"shop:" + strings.Repeat("ab", 32), "1", "a b c d e f g h i j"} {
		for _, data := range s.Store {
			if err := c.Set(ctx, "session:"+id, data, time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := adopt.RedisStore(c, nil).Import(ctx, "session", id)
		wantNone(t, "an id of another form", err)
	}
}
