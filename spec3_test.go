package sessplus_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A spec3Store is a real backend that notes how it is called, with a client to look behind it.
type spec3Store struct {
	sessplus.Backend
	rdb *redis.Client
	fs  *firestore.Client

	mu    sync.Mutex // guards what follows
	calls []string   // "load KEY", "create KEY", …
	last  *sessplus.Change
	trips []string // what was sent to Redis, a line per round trip
}

func (s *spec3Store) note(op, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, op+" "+key)
}

func (s *spec3Store) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	s.note("load", key)
	return s.Backend.Load(ctx, key)
}

func (s *spec3Store) Create(ctx context.Context, key string, r *sessplus.Record) error {
	s.note("create", key)
	return s.Backend.Create(ctx, key, r)
}

func (s *spec3Store) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	s.note("update", key)
	s.mu.Lock()
	s.last = c
	s.mu.Unlock()
	return s.Backend.Update(ctx, key, c)
}

func (s *spec3Store) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	s.note(stepName(e), key)
	return s.Backend.End(ctx, key, e)
}

// ops returns what was called since the last time, without the keys.
func (s *spec3Store) ops() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ops := []string{}
	for _, c := range s.calls {
		op, _, _ := strings.Cut(c, " ")
		ops = append(ops, op)
	}
	s.calls, s.trips = nil, nil
	return ops
}

// The store is a hook of its Redis client.
func (s *spec3Store) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *spec3Store) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.noteTrip(cmd)
		return next(ctx, cmd)
	}
}

func (s *spec3Store) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		s.noteTrip(cmds...)
		return next(ctx, cmds)
	}
}

func (s *spec3Store) noteTrip(cmds ...redis.Cmder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trips = append(s.trips, fmt.Sprint(cmds))
}

var spec3Stores = []struct {
	name string
	open func(t *testing.T) *spec3Store
}{
	{"memory", func(*testing.T) *spec3Store { return &spec3Store{Backend: sessplus.Memory()} }},
	{"redis", func(t *testing.T) *spec3Store {
		plain := servers.Redis(t)
		s := &spec3Store{rdb: plain}
		hooked := redis.NewClient(&redis.Options{Addr: plain.Options().Addr, DB: plain.Options().DB})
		t.Cleanup(func() { hooked.Close() })
		hooked.AddHook(s)
		s.Backend = sessplus.Redis(hooked)
		t.Cleanup(func() { s.everyKeyExpires(t) })
		return s
	}},
	{"firestore", func(t *testing.T) *spec3Store {
		client := servers.Firestore(t)
		return &spec3Store{Backend: sessplus.Firestore(client, "sessions"), fs: client}
	}},
}

// SPEC 3.5: every test of this file ends with it.
func (s *spec3Store) everyKeyExpires(t *testing.T) {
	ctx := context.Background()
	for key := range s.text(t) {
		ttl, err := s.rdb.PTTL(ctx, key).Result()
		if err == nil && ttl == -1 {
			t.Errorf("PTTL(%q) = none, want one", key)
		}
		if r, err := s.Backend.Load(ctx, key); err == nil && (ttl-time.Until(r.Expires)).Abs() > 2*time.Second {
			t.Errorf("PTTL(%q) = %v, want what the record says, %v", key, ttl, time.Until(r.Expires))
		}
	}
}

// text returns all that the store holds, as text by key, but the traces of records that have ended.
func (s *spec3Store) text(t *testing.T) map[string]string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	all := make(map[string]string)
	switch {
	case s.rdb != nil:
		keys, err := s.rdb.Keys(ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if hash := s.rdb.HGetAll(ctx, key).Val(); !strings.HasPrefix(hash[":mark"], "e ") {
				all[key] = fmt.Sprint(hash)
			}
		}
	case s.fs != nil:
		docs, err := s.fs.Collection("sessions").Documents(ctx).GetAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if mark, _ := d.Data()["mark"].(string); !strings.HasPrefix(mark, "e ") {
				all[d.Ref.ID] = fmt.Sprint(d.Data())
			}
		}
	default:
		s.mu.Lock()
		calls := slices.Clone(s.calls)
		s.mu.Unlock()
		for _, c := range calls {
			_, key, _ := strings.Cut(c, " ")
			if r, err := s.Backend.Load(ctx, key); err == nil {
				text := fmt.Sprint(r.Created, r.Saved, r.Expires, r.Permanent, r.Version)
				for _, f := range r.Fields {
					text += " " + f.Name + ":" + string(f.Value)
				}
				all[key] = text
			}
		}
	}
	return all
}

// A spec3Case is a site with one server-side cookie "sid", and its browser.
type spec3Case struct {
	*site
	st        *spec3Store
	cfg       sessplus.Config
	permanent bool
}

var spec3Variants = []struct {
	name      string
	adapt     func(*sessplus.Config)
	permanent bool
}{
	{"plain", func(*sessplus.Config) {}, false},
	{"lazy", func(c *sessplus.Config) { c.Lazy = true }, false},
	{"signed", func(c *sessplus.Config) { c.SignID = true }, false},
	{"idle", func(c *sessplus.Config) { c.IdleTimeout = time.Hour }, false},
	{"max age", func(c *sessplus.Config) { c.MaxAge = time.Hour }, false},
	{"endless", func(c *sessplus.Config) { c.Lifetime, c.IdleTimeout, c.MaxAge = -1, time.Hour, 48*time.Hour }, false},
	{"permanent", func(*sessplus.Config) {}, true},
	{"lazy signed idle permanent", func(c *sessplus.Config) { c.Lazy, c.SignID, c.IdleTimeout = true, true, time.Hour }, true},
}

// spec3Each runs the test with every variant of a config on every store.
func spec3Each(t *testing.T, test func(t *testing.T, c *spec3Case)) {
	for _, s := range spec3Stores {
		for _, v := range spec3Variants {
			t.Run(s.name+"/"+v.name, func(t *testing.T) {
				c := spec3Open(t, s.open(t), v.adapt)
				c.permanent = v.permanent
				test(t, c)
			})
		}
	}
}

// spec3OnStores runs the test with one config on every store.
func spec3OnStores(t *testing.T, adapt func(*sessplus.Config), test func(t *testing.T, c *spec3Case)) {
	for _, s := range spec3Stores {
		t.Run(s.name, func(t *testing.T) { test(t, spec3Open(t, s.open(t), adapt)) })
	}
}

func spec3Open(t *testing.T, st *spec3Store, adapt func(*sessplus.Config), others ...sessplus.Config) *spec3Case {
	t.Helper()
	cfg := sessplus.Config{CookieName: "sid", Backend: st}
	adapt(&cfg)
	m := newManager(t, nil, append([]sessplus.Config{cfg}, others...)...)
	return &spec3Case{site: newSite(t, m), st: st, cfg: cfg}
}

// start creates the session with a = "1", permanent if the case is, and returns its id.
func (c *spec3Case) start() (id string) {
	c.Helper()
	c.ok(c.with(func(s *sessplus.Session) {
		s.Set("a", "1")
		if c.permanent {
			s.SetPermanent("sid", true)
		}
		if err := s.Save(); err != nil {
			c.Errorf("Save() = %v, want nil", err)
		}
		id = s.ID("sid")
	}))
	if id == "" || c.jar(c.client)["sid"] == "" {
		c.Fatalf("after Set: ID() = %q, cookie %q, want both", id, c.jar(c.client)["sid"])
	}
	return id
}

// ok checks that the handler's response came through.
func (c *spec3Case) ok(r *reply) *reply {
	c.Helper()
	if r.StatusCode != http.StatusOK {
		c.Fatalf("status = %d (%s), want 200", r.StatusCode, r.body)
	}
	return r
}

// bring makes a request with that Cookie header and no jar.
func (c *spec3Case) bring(cookies string, f func(*sessplus.Session)) *reply {
	c.Helper()
	req, err := http.NewRequest("GET", c.URL, nil)
	if err != nil {
		c.Fatal(err)
	}
	req.Header.Set("Cookie", cookies)
	return c.send(&http.Client{}, req, func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
}

// fields returns what the next request of the site's browser sees.
func (c *spec3Case) fields() map[string]any {
	c.Helper()
	all := make(map[string]any)
	c.ok(c.with(func(s *sessplus.Session) {
		for _, name := range s.Fields() {
			all[name] = s.Get(name)
		}
	}))
	return all
}

// wantFields fails unless the next request sees exactly these.
func (c *spec3Case) wantFields(want map[string]any) {
	c.Helper()
	if got := c.fields(); fmt.Sprint(got) != fmt.Sprint(want) {
		c.Errorf("fields of the next request = %v, want %v", got, want)
	}
}

// record looks the record of the id up in the store.
func (c *spec3Case) record(id string) (*sessplus.Record, error) {
	return c.st.Backend.Load(context.Background(), spec3Key(c.cfg, id))
}

func spec3Key(c sessplus.Config, id string) string {
	prefix := c.KeyPrefix
	if prefix == "" {
		prefix = "session:"
	}
	sum := sha256.Sum256([]byte(id))
	return prefix + c.CookieName + ":" + hex.EncodeToString(sum[:])
}

// SPEC 3.1
func TestWithoutCookiesAndSetsNothingIsFree(t *testing.T) {
	handlers := map[string]func(s *sessplus.Session){
		"nothing": func(*sessplus.Session) {},
		"reads": func(s *sessplus.Session) {
			s.Get("a")
			s.GetInt("a")
			s.Has("a")
			s.Fields()
			var v any
			s.Decode("a", &v)
			sessplus.Field[string]("a").Lookup(s)
		},
		"asks":    func(s *sessplus.Session) { s.ID("sid"); s.IsNew("sid"); s.Permanent("sid"); s.Expires("sid") },
		"removes": func(s *sessplus.Session) { s.Delete("a"); s.Pop("a"); s.Clear(); sessplus.Field[string]("a").Pop(s) },
		"ends":    func(s *sessplus.Session) { s.Destroy() },
		"renews":  func(s *sessplus.Session) { s.Renew() },
		"marks":   func(s *sessplus.Session) { s.SetPermanent("sid", true) },
		"saves":   func(s *sessplus.Session) { s.Get("a"); s.Save(); s.Reload(); s.Save() },
		"changes its mind": func(s *sessplus.Session) {
			s.Set("a", 1)
			s.Delete("a")
		},
	}
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		for name, h := range handlers {
			r := c.ok(c.with(h))
			if lines := r.Header.Values("Set-Cookie"); len(lines) > 0 {
				t.Errorf("%s: Set-Cookie = %q, want none", name, lines)
			}
			c.st.mu.Lock()
			if len(c.st.calls)+len(c.st.trips) > 0 {
				t.Errorf("%s: backend calls %q, round trips %q, want none", name, c.st.calls, c.st.trips)
			}
			c.st.mu.Unlock()
		}
		if all := c.st.text(t); len(all) > 0 {
			t.Errorf("the store holds %v, want nothing", all)
		}
	})
	t.Run("secure cookie", func(t *testing.T) {
		c := &spec3Case{site: newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", MaxAge: time.Hour}))}
		for name, h := range handlers {
			if lines := c.ok(c.with(h)).Header.Values("Set-Cookie"); len(lines) > 0 {
				t.Errorf("%s: Set-Cookie = %q, want none", name, lines)
			}
		}
	})
}

// SPEC 3.2
func TestIDsAreRandomAndNeverStored(t *testing.T) {
	for _, prefix := range []string{"", "app/%:"} {
		t.Run("prefix "+prefix, func(t *testing.T) {
			spec3OnStores(t, func(c *sessplus.Config) { c.KeyPrefix = prefix }, testIDs)
		})
	}
	t.Run("signed", func(t *testing.T) {
		spec3OnStores(t, func(c *sessplus.Config) { c.SignID = true }, testIDs)
	})
}

func testIDs(t *testing.T, c *spec3Case) {
	seen := make(map[string]bool)
	var first, varied [32]byte
	for i := range 70 { // a bit that never changes in so many is no accident
		c.client = c.visitor()
		id := c.start()
		b, err := base64.RawURLEncoding.Strict().DecodeString(id)
		if err != nil || len(id) != 43 || len(b) != 32 || seen[id] {
			t.Fatalf("ID() = %q, want 43 new characters of unpadded URL-safe base64", id)
		}
		seen[id] = true
		if text := c.jar(c.client)["sid"]; (text == id) == c.cfg.SignID {
			t.Errorf("cookie %q, id %q: equal = %v, want %v", text, id, text == id, !c.cfg.SignID)
		}
		if i == 0 {
			first = [32]byte(b)
		}
		for j := range b {
			varied[j] |= b[j] ^ first[j]
		}
	}
	for j, bits := range varied {
		if bits != 0xff {
			t.Errorf("byte %d of the ids varies in the bits %08b only", j, bits)
		}
	}
	all := c.st.text(t)
	if len(all) != len(seen) {
		t.Errorf("the store holds %d records, want %d", len(all), len(seen))
	}
	whole := fmt.Sprint(all)
	for id := range seen {
		b, _ := base64.RawURLEncoding.DecodeString(id)
		for _, trace := range []string{id, string(b), base64.RawStdEncoding.EncodeToString(b), hex.EncodeToString(b)} {
			if strings.Contains(whole, trace) {
				t.Errorf("the store holds %q of the id %q", trace, id)
			}
		}
		key := spec3Key(c.cfg, id)
		if c.st.fs != nil { // where a slash would begin a collection
			key = strings.NewReplacer("%", "%25", "/", "%2F").Replace(key)
		}
		if _, ok := all[key]; !ok {
			t.Errorf("the store has no key %q", key)
		}
	}
}

// spec3Malformed makes texts of an id that cannot be ids.
func spec3Malformed(id string) map[string]string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, id[42])
	return map[string]string{
		"empty":         "",
		"a letter":      "x",
		"short":         id[:42],
		"long":          id + "A",
		"padded":        id + "=",
		"much too long": strings.Repeat("A", 8000),
		"not canonical": id[:42] + string(alphabet[last^1]),
		"standard":      id[:41] + "+" + id[42:],
		"slash":         id[:41] + "/" + id[42:],
		"glob":          strings.Repeat("*", 43),
		"dot":           id[:42] + ".",
		"blank":         id[:20] + " " + id[21:],
		"percent":       "%41" + id[3:],
		"non-ASCII":     strings.Repeat("é", 21) + "A",
		"hash":          spec3Key(sessplus.Config{CookieName: "sid"}, id),
		"hex":           hex.EncodeToString(make([]byte, 32)),
		"path":          "../../sessions/x",
	}
}

// SPEC 3.3
func TestForeignIDIsNeverAdopted(t *testing.T) {
	const ( // what the backend may hear of it
		none = "[]"
		one  = "[load]"
	)
	spec3Each(t, func(t *testing.T, c *spec3Case) {
		id0 := c.start()
		good := c.jar(c.client)["sid"]
		refuse := func(name, text, want string) {
			t.Helper()
			c.st.ops()
			c.ok(c.bring("sid="+text, func(s *sessplus.Session) {
				if s.Has("a") || len(s.Fields()) > 0 || s.ID("sid") != "" || !s.IsNew("sid") || s.Permanent("sid") || !s.Expires("sid").IsZero() {
					t.Errorf("%s: fields %v, IsNew() = %v; want no session", name, s.Fields(), s.IsNew("sid"))
				}
			}))
			if ops := fmt.Sprint(c.st.ops()); ops != want {
				t.Errorf("%s: the backend heard %v, want %v", name, ops, want)
			}
			var id string
			r := c.ok(c.bring("sid="+text, func(s *sessplus.Session) {
				s.Set("b", 1)
				s.Save()
				id = s.ID("sid")
			}))
			k := spec3SetCookie(t, r, "sid")
			if k == nil || k.Value == text || id == "" || strings.Contains(text, id) {
				t.Errorf("%s: after Set: cookie %v, ID() = %q; want a new id", name, k, id)
			}
			if stored, err := c.record(text); err == nil && text != id0 || err != nil && !errors.Is(err, sessplus.ErrNoRecord) {
				t.Errorf("%s: the store has a record %v of the text, error %v", name, stored, err)
			}
		}
		random := make([]byte, 32)
		rand.Read(random)
		unknown := base64.RawURLEncoding.EncodeToString(random)

		for name, text := range spec3Malformed(id0) {
			refuse(name, text, none)
		}
		if c.cfg.SignID {
			refuse("unsigned", id0, none)
			refuse("unknown and unsigned", unknown, none)
			forged := []byte(good)
			forged[len(forged)/2] ^= 1
			refuse("forged", string(forged), none)
			strange := spec3Sibling(t, c, "sid", "", sessplus.GenerateKeyPair())
			refuse("signed with another key", strange, none)
			refuse("another cookie's", spec3Sibling(t, c, "other", "", testKeys...), none)
		} else {
			refuse("unknown", unknown, one)
			refuse("another cookie's", spec3Sibling(t, c, "other", ""), one)
		}
		refuse("another prefix's", spec3Sibling(t, c, "sid", "another:"), one)

		c.ok(c.bring("sid="+good, func(s *sessplus.Session) {
			if s.Get("a") != "1" {
				t.Errorf("the good cookie: Get = %v, want 1", s.Get("a"))
			}
			s.Destroy()
		}))
		c.ok(c.bring("sid="+good, func(s *sessplus.Session) { // see ended_test.go for the rest
			if s.Has("a") || s.ID("sid") != "" {
				t.Error("a destroyed id opens the session")
			}
		}))
	})
}

// spec3Sibling is the text of a cookie whose record is in the same store.
func spec3Sibling(t *testing.T, c *spec3Case, name, prefix string, keys ...sessplus.KeyPair) string {
	t.Helper()
	cfg := c.cfg
	cfg.CookieName, cfg.KeyPrefix, cfg.Keys = name, prefix, keys
	s := newSite(t, newManager(t, nil, cfg))
	s.with(func(s *sessplus.Session) { s.Set("a", "another's") })
	text := s.jar(s.client)[name]
	if text == "" {
		t.Fatal("no cookie")
	}
	return text
}

// spec3SetCookie returns the cookie that a response sets, or nil.
func spec3SetCookie(t testing.TB, r *reply, name string) *http.Cookie {
	t.Helper()
	lines := r.setCookies(name)
	if len(lines) == 0 {
		return nil
	}
	if len(lines) > 1 {
		t.Errorf("Set-Cookie = %q, want one of each name", lines)
	}
	k, err := http.ParseSetCookie(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	return k
}
