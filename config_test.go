package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// SPEC 1.4
func TestNewFindsTheMistake(t *testing.T) {
	t.Parallel()
	mem := sessplus.Memory()
	fs := servers.Firestore(t)
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { rdb.Close() })
	type c = sessplus.Config
	long := strings.Repeat("x", 257)
	pair := func(hash, block int) []sessplus.KeyPair {
		return []sessplus.KeyPair{testKeys[0], {Hash: make([]byte, hash), Block: make([]byte, block)}}
	}
	const days = 24 * time.Hour
	tests := []struct {
		name    string
		configs []c
		want    string // "cookie field"
	}{
		{"no name", []c{{}}, "#0 CookieName"},
		{"no name in the third", []c{{CookieName: "a"}, {CookieName: "b"}, {}}, "#2 CookieName"},
		{"a space in the name", []c{{CookieName: "a b"}}, "a b CookieName"},
		{"a semicolon in the name", []c{{CookieName: "a;b"}}, "a;b CookieName"},
		{"an equals sign in the name", []c{{CookieName: "a=b"}}, "a=b CookieName"},
		{"a newline in the name", []c{{CookieName: "a\n"}}, "a\n CookieName"},
		{"a letter beyond ASCII in the name", []c{{CookieName: "é"}}, "é CookieName"},
		{"a quote in the name", []c{{CookieName: `"a"`}}, `"a" CookieName`},
		{"a colon in the name", []c{{CookieName: "a:b"}}, "a:b CookieName"},
		{"a repeated name", []c{{CookieName: "a"}, {CookieName: "a"}}, "a CookieName"},
		{"the name of a chunk", []c{{CookieName: "a", MaxChunks: 3}, {CookieName: "a.2"}}, "a.2 CookieName"},
		{"the name of a chunk before", []c{{CookieName: "a.1"}, {CookieName: "a", MaxChunks: 2}}, "a.1 CookieName"},

		{"no field", []c{{CookieName: "a", Fields: sessplus.Include()}}, "a Fields"},
		{"an empty field", []c{{CookieName: "a", Fields: sessplus.Include("x", "")}}, "a Fields"},
		{"an empty excluded field", []c{{CookieName: "a", Fields: sessplus.Exclude("")}}, "a Fields"},
		{"a repeated field", []c{{CookieName: "a", Fields: sessplus.Include("x", "y", "x")}}, "a Fields"},
		{"a repeated excluded field", []c{{CookieName: "a", Fields: sessplus.Exclude("x", "x")}}, "a Fields"},
		{"a field too long", []c{{CookieName: "a", Fields: sessplus.Include(long)}}, "a Fields"},
		{"a field that is not UTF-8", []c{{CookieName: "a", Fields: sessplus.Include("\xff")}}, "a Fields"},

		{"SameSite=None by default", []c{{CookieName: "a", SameSite: http.SameSiteNoneMode}}, "a SameSite"},
		{"SameSite=None never Secure", []c{{CookieName: "a", SameSite: http.SameSiteNoneMode, Secure: sessplus.SecureNever}}, "a SameSite"},
		{"an unknown SameSite", []c{{CookieName: "a", SameSite: 9}}, "a SameSite"},
		{"a negative SameSite", []c{{CookieName: "a", SameSite: -1}}, "a SameSite"},
		{"an unknown Secure", []c{{CookieName: "a", Secure: 9}}, "a Secure"},
		{"Partitioned by default", []c{{CookieName: "a", Partitioned: true}}, "a Partitioned"},
		{"Partitioned never Secure", []c{{CookieName: "a", Partitioned: true, Secure: sessplus.SecureNever}}, "a Partitioned"},
		{"__Secure- by default", []c{{CookieName: "__Secure-a"}}, "__Secure-a Secure"},
		{"__Secure- never Secure", []c{{CookieName: "__Secure-a", Secure: sessplus.SecureNever}}, "__Secure-a Secure"},
		{"__host- by default", []c{{CookieName: "__host-a"}}, "__host-a Secure"},
		{"__HOST- never Secure", []c{{CookieName: "__HOST-a", Secure: sessplus.SecureNever}}, "__HOST-a Secure"},
		{"__Http- by default", []c{{CookieName: "__Http-a"}}, "__Http-a Secure"},
		{"__Host-Http- by default", []c{{CookieName: "__host-HTTP-a"}}, "__host-HTTP-a Secure"},
		{"__Host- with a Domain", []c{{CookieName: "__Host-a", Secure: sessplus.SecureAlways, Domain: "example.com"}}, "__Host-a Domain"},
		{"__hoSt- with a Path", []c{{CookieName: "__hoSt-a", Secure: sessplus.SecureAlways, Path: "/app"}}, "__hoSt-a Path"},
		{"__Http- for scripts", []c{{CookieName: "__Http-a", Secure: sessplus.SecureAlways, ScriptReadable: true}}, "__Http-a ScriptReadable"},
		{"__host-http- for scripts", []c{{CookieName: "__host-http-a", Secure: sessplus.SecureAlways, ScriptReadable: true}}, "__host-http-a ScriptReadable"},
		{"__Host-Http- with a Domain", []c{{CookieName: "__Host-Http-a", Secure: sessplus.SecureAlways, Domain: "example.com"}}, "__Host-Http-a Domain"},
		{"a Domain with a space", []c{{CookieName: "a", Domain: "exa mple.com"}}, "a Domain"},
		{"a Domain with a semicolon", []c{{CookieName: "a", Domain: "example.com; Secure"}}, "a Domain"},
		{"a Path with a semicolon", []c{{CookieName: "a", Path: "/; Domain=x"}}, "a Path"},
		{"a relative Path", []c{{CookieName: "a", Path: "app"}}, "a Path"},
		{"a Path with a newline", []c{{CookieName: "a", Path: "/\n"}}, "a Path"},

		{"a negative MaxAge", []c{{CookieName: "a", MaxAge: -1}}, "a MaxAge"},
		{"a MaxAge too long", []c{{CookieName: "a", MaxAge: 400*days + 1}}, "a MaxAge"},
		{"a negative PermanentLifetime", []c{{CookieName: "a", PermanentLifetime: -1, Backend: mem}}, "a PermanentLifetime"},
		{"a PermanentLifetime too long", []c{{CookieName: "a", PermanentLifetime: 401 * days}}, "a PermanentLifetime"},
		{"a negative IdleTimeout", []c{{CookieName: "a", IdleTimeout: -1, Backend: mem}}, "a IdleTimeout"},
		{"a negative Lifetime", []c{{CookieName: "a", Lifetime: -1, Backend: mem}}, "a Lifetime"},
		{"a negative Lifetime of a secure cookie", []c{{CookieName: "a", Lifetime: -1}}, "a Lifetime"},
		{"negative MaxChunks", []c{{CookieName: "a", MaxChunks: -1}}, "a MaxChunks"},
		{"very many MaxChunks", []c{{CookieName: "a", MaxChunks: 1 << 40}}, "a MaxChunks"},
		{"MaxChunks of an id", []c{{CookieName: "a", MaxChunks: 2, Backend: mem}}, "a MaxChunks"},

		{"a short Hash key", []c{{CookieName: "a", Keys: pair(16, 32)}}, "a Keys"},
		{"an odd Hash key", []c{{CookieName: "a", Keys: pair(33, 32)}}, "a Keys"},
		{"no Hash key", []c{{CookieName: "a", Keys: pair(0, 32)}}, "a Keys"},
		{"a short Block key", []c{{CookieName: "a", Keys: pair(32, 15)}}, "a Keys"},
		{"a long Block key", []c{{CookieName: "a", Keys: pair(64, 33)}}, "a Keys"},
		{"a short secret", []c{{CookieName: "a", Keys: []sessplus.KeyPair{sessplus.DeriveKeyPair(make([]byte, 31))}}}, "a Keys"},
		{"no pair of its own", []c{{CookieName: "a", Keys: []sessplus.KeyPair{}}}, "a Keys"},
		{"no pair to sign with", []c{{CookieName: "a", Keys: []sessplus.KeyPair{}, SignID: true, Backend: mem}}, "a SignID"},

		{"a nil Redis client", []c{{CookieName: "a", Backend: sessplus.Redis(nil)}}, "a Backend"},
		{"a nil *redis.Client", []c{{CookieName: "a", Backend: sessplus.Redis((*redis.Client)(nil))}}, "a Backend"},
		{"a nil *redis.ClusterClient", []c{{CookieName: "a", Backend: sessplus.Redis((*redis.ClusterClient)(nil))}}, "a Backend"},
		{"a nil Firestore client", []c{{CookieName: "a", Backend: sessplus.Firestore(nil, "sessions")}}, "a Backend"},
		{"no Firestore collection", []c{{CookieName: "a", Backend: sessplus.Firestore(new(firestore.Client), "")}}, "a Backend"},
		{"the path of a document", []c{{CookieName: "a", Backend: sessplus.Firestore(new(firestore.Client), "a/b")}}, "a Backend"},
		{"a nil backend", []c{{CookieName: "a", Backend: (*nilBackend)(nil)}}, "a Backend"},

		{"IndexBy on a secure cookie", []c{{CookieName: "a", IndexBy: "u"}}, "a IndexBy"},
		{"IndexBy of a field not included", []c{{CookieName: "a", Backend: mem, Fields: sessplus.Include("x"), IndexBy: "u"}}, "a IndexBy"},
		{"IndexBy of an excluded field", []c{{CookieName: "a", Backend: mem, Fields: sessplus.Exclude("u"), IndexBy: "u"}}, "a IndexBy"},
		{"IndexBy of another's field", []c{{CookieName: "a", Backend: mem, Fields: sessplus.Auto(), IndexBy: "u"},
			{CookieName: "b", Fields: sessplus.Include("u")}}, "a IndexBy"},
		{"IdleTimeout on a secure cookie", []c{{CookieName: "a", IdleTimeout: time.Hour}}, "a IdleTimeout"},
		{"Lazy on a secure cookie", []c{{CookieName: "a", Lazy: true}}, "a Lazy"},
		{"Optional on a secure cookie", []c{{CookieName: "a", Optional: true}}, "a Optional"},
		{"a KeyPrefix with a newline", []c{{CookieName: "a", Backend: mem, KeyPrefix: "a\nb"}}, "a KeyPrefix"},
		{"BoundTo nothing", []c{{CookieName: "a", BoundTo: "b"}}, "a BoundTo"},
		{"BoundTo a secure cookie", []c{{CookieName: "a", BoundTo: "b"}, {CookieName: "b"}}, "a BoundTo"},
		{"BoundTo itself", []c{{CookieName: "a", BoundTo: "a"}}, "a BoundTo"},

		{"shared records", []c{{CookieName: "ab", Backend: mem, KeyPrefix: "x"}, {CookieName: "b", Backend: mem, KeyPrefix: "xa"}}, "b KeyPrefix"},
		{"shared records of two Redis backends", []c{
			{CookieName: "ab", Backend: sessplus.Redis(rdb), KeyPrefix: "x"}, {CookieName: "b", Backend: sessplus.Redis(rdb), KeyPrefix: "xa"}}, "b KeyPrefix"},
		{"shared records of two Firestore backends", []c{
			{CookieName: "ab", Backend: sessplus.Firestore(fs, "s"), KeyPrefix: "x"}, {CookieName: "b", Backend: sessplus.Firestore(fs, "s"), KeyPrefix: "xa"}}, "b KeyPrefix"},
		{"shared records with the default prefix", []c{
			{CookieName: "b", Backend: mem}, {CookieName: "n:b", Backend: mem, KeyPrefix: "sessio"}}, "n:b KeyPrefix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := sessplus.New(tt.configs, &sessplus.Options{Keys: testKeys})
			got := configMistakes(t, err)
			if m != nil || !slices.Contains(got, tt.want) {
				t.Fatalf("New = %v, mistakes %q, want %q", m, got, tt.want)
			}
			cookie := tt.want[:strings.LastIndexByte(tt.want, ' ')]
			for _, g := range got {
				if !strings.HasPrefix(g, cookie+" ") {
					t.Errorf("New also blames %q", g)
				}
			}
		})
	}
}

// SPEC 1.4
func TestNewFindsTheMistakeInOptions(t *testing.T) {
	t.Parallel()
	signed := sessplus.Config{CookieName: "s", Backend: sessplus.Memory(), SignID: true}
	for _, tt := range []struct {
		name    string
		configs []sessplus.Config
		opts    *sessplus.Options
		want    []string
	}{
		{"no keys for the secure cookie", nil, nil, []string{"session Keys"}},
		{"no keys to sign with", []sessplus.Config{signed}, nil, []string{"s SignID"}},
		{"a wrong key", nil, &sessplus.Options{Keys: []sessplus.KeyPair{{Hash: []byte("short")}}}, []string{" Keys"}},
		{"two wrong keys", nil, &sessplus.Options{Keys: []sessplus.KeyPair{{}, {Hash: make([]byte, 32), Block: make([]byte, 1)}}}, []string{" Keys", " Keys"}},
		{"a negative Timeout", nil, &sessplus.Options{Keys: testKeys, Timeout: -1}, []string{" Timeout"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := sessplus.New(tt.configs, tt.opts)
			if got := configMistakes(t, err); m != nil || !slices.Equal(got, tt.want) {
				t.Errorf("New = %v, mistakes %q, want %q", m, got, tt.want)
			}
		})
	}
}

// SPEC 1.4
func TestNewReportsEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := sessplus.New([]sessplus.Config{
		{CookieName: "a b", Fields: sessplus.Include("", "x", "x"), SameSite: http.SameSiteNoneMode, Partitioned: true, MaxAge: -1},
		{Lazy: true, Optional: true, IdleTimeout: time.Hour, IndexBy: "u", Lifetime: -1},
		{CookieName: "__Host-s", Domain: "example.com", Path: "/x", Backend: sessplus.Redis(nil), SignID: true, Lifetime: -1},
		{CookieName: "__Host-s", PermanentLifetime: 500 * 24 * time.Hour, Keys: []sessplus.KeyPair{{}, {Hash: make([]byte, 31)}}},
	}, &sessplus.Options{Timeout: -1})
	got := configMistakes(t, err)
	for _, want := range []string{
		" Timeout",
		"a b CookieName", "a b Fields", "a b SameSite", "a b Partitioned", "a b MaxAge", "a b Keys",
		"#1 CookieName", "#1 Lazy", "#1 Optional", "#1 IdleTimeout", "#1 IndexBy", "#1 Lifetime", "#1 Keys",
		"__Host-s Secure", "__Host-s Domain", "__Host-s Path", "__Host-s Backend", "__Host-s SignID", "__Host-s Lifetime",
		"__Host-s CookieName", "__Host-s PermanentLifetime", "__Host-s Keys",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("New does not say %q, but %q", want, got)
		}
	}
	fieldMistakes, keyMistakes := 0, 0
	for _, g := range got {
		fieldMistakes += strings.Count(g, "a b Fields")
		keyMistakes += strings.Count(g, "__Host-s Keys")
	}
	if fieldMistakes != 2 || keyMistakes != 2 {
		t.Errorf("New names %d wrong fields and %d wrong pairs, want 2 and 2: %v", fieldMistakes, keyMistakes, err)
	}
}

// anyClient is a client of go-redis that a program has wrapped, by value and not comparable.
type anyClient struct {
	sessplus.RedisClient
	_ []string
}

// SPEC 1.4
func TestNewAcceptsWhatIsRight(t *testing.T) {
	t.Parallel()
	mem := sessplus.Memory()
	fs := servers.Firestore(t)
	rdb := servers.Redis(t)
	type c = sessplus.Config
	const days = 24 * time.Hour
	wrapped := sessplus.Redis(anyClient{RedisClient: rdb})
	for name, configs := range map[string][]c{
		"the minimum":              {{CookieName: "a"}},
		"every character":          {{CookieName: "!#$%&'*+-.^_`|~09azAZ"}},
		"names in another case":    {{CookieName: "a"}, {CookieName: "A"}},
		"a name like a chunk":      {{CookieName: "a", MaxChunks: 2}, {CookieName: "a.2"}, {CookieName: "a.1x"}},
		"one backend, one prefix":  {{CookieName: "a", Backend: mem}, {CookieName: "b", Backend: mem}},
		"two memories, one key":    {{CookieName: "ab", Backend: mem, KeyPrefix: "x"}, {CookieName: "b", Backend: sessplus.Memory(), KeyPrefix: "xa"}},
		"two collections, one key": {{CookieName: "ab", Backend: sessplus.Firestore(fs, "s"), KeyPrefix: "x"}, {CookieName: "b", Backend: sessplus.Firestore(fs, "t"), KeyPrefix: "xa"}},
		"collisions":               {{CookieName: "a", Fields: sessplus.Include("x")}, {CookieName: "b", Fields: sessplus.Include("x")}},
		"two that take the rest":   {{CookieName: "a", Fields: sessplus.Auto()}, {CookieName: "b", Fields: sessplus.Auto(), Backend: mem}},
		"exclude nothing":          {{CookieName: "a", Fields: sessplus.Exclude()}},
		"a field of 256 bytes":     {{CookieName: "a", Fields: sessplus.Include(strings.Repeat("é", 128), "*", "a.b")}},
		"SameSite=None":            {{CookieName: "a", SameSite: http.SameSiteNoneMode, Secure: sessplus.SecureAlways, Partitioned: true}},
		"prefixes": {{CookieName: "__Host-a", Secure: sessplus.SecureAlways, Path: "/"}, {CookieName: "__Secure-a", Secure: sessplus.SecureAlways, Domain: "example.com", Path: "/x"},
			{CookieName: "__Host-Http-a", Secure: sessplus.SecureAlways}, {CookieName: "__Host-b", Secure: sessplus.SecureAlways, ScriptReadable: true}, {CookieName: "__Hosta"}},
		"a domain with a dot":   {{CookieName: "a", Domain: ".example.com", Path: "/a b"}},
		"an address":            {{CookieName: "a", Domain: "127.0.0.1"}},
		"the longest ages":      {{CookieName: "a", MaxAge: 400 * days, PermanentLifetime: 400 * days}},
		"a long Lifetime":       {{CookieName: "a", Backend: mem, Lifetime: 4000 * days}},
		"no absolute end":       {{CookieName: "a", Backend: mem, Lifetime: -1, IdleTimeout: time.Hour}},
		"no keys for a store":   {{CookieName: "a", Backend: mem, Keys: []sessplus.KeyPair{}}},
		"its own keys":          {{CookieName: "a", Keys: []sessplus.KeyPair{{Hash: make([]byte, 64)}, {Hash: make([]byte, 32), Block: make([]byte, 24)}}}},
		"lazy, optional":        {{CookieName: "a", Backend: sessplus.Redis(rdb), Lazy: true, Optional: true, DropIfGone: true, SignID: true}},
		"bound":                 {{CookieName: "a", BoundTo: "b"}, {CookieName: "b", Backend: mem}},
		"a client by value":     {{CookieName: "a", Backend: wrapped}, {CookieName: "b", Backend: wrapped}},
		"the secure cookie":     {{CookieName: "a", Backend: sessplus.SecureCookie(), MaxChunks: 4}, {CookieName: "b"}},
		"a secure KeyPrefix":    {{CookieName: "a", KeyPrefix: "app:"}},
		"SecureNever elsewhere": {{CookieName: "a", Secure: sessplus.SecureNever, SameSite: http.SameSiteDefaultMode}},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("New panics: %v", p)
				}
			}()
			if m, err := sessplus.New(configs, &sessplus.Options{Keys: testKeys}); err != nil || m == nil {
				t.Errorf("New = %v, %v, want no mistake", m, err)
			}
		})
	}
}

// SPEC 1.5
func TestNewCopiesWhatItIsGiven(t *testing.T) {
	mem := sessplus.Memory()
	pair := func() sessplus.KeyPair {
		return sessplus.KeyPair{Hash: bytes.Repeat([]byte{1}, 32), Block: bytes.Repeat([]byte{2}, 32)}
	}
	names, excluded := []string{"a", "b"}, []string{"a", "b"}
	configs := []sessplus.Config{
		{CookieName: "inc", Fields: sessplus.Include(names...), Keys: []sessplus.KeyPair{pair()}},
		{CookieName: "exc", Fields: sessplus.Exclude(excluded...), Backend: mem, SignID: true, MaxAge: time.Hour},
	}
	opts := &sessplus.Options{Keys: []sessplus.KeyPair{pair()}, Logger: slog.New(slog.DiscardHandler)}
	m, err := sessplus.New(configs, opts)
	if err != nil {
		t.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	const managers = 100 // so that a few goroutines of other tests do not matter
	for range managers {
		if _, err := sessplus.New(configs, opts); err != nil {
			t.Fatal(err)
		}
	}
	if n := runtime.NumGoroutine() - goroutines; n > managers/2 {
		t.Errorf("%d Managers have started %d goroutines", managers, n)
	}
	if _, ok := any(m).(io.Closer); ok {
		t.Error("a Manager needs Close")
	}
	before := fmt.Sprint(m.Describe())

	names[0], excluded[0] = "c", "c"
	for _, keys := range [][]sessplus.KeyPair{configs[0].Keys, opts.Keys} {
		clear(keys[0].Hash)
		clear(keys[0].Block)
		keys[0] = sessplus.GenerateKeyPair()
	}
	configs[0], configs[1] = sessplus.Config{CookieName: "x"}, sessplus.Config{CookieName: "y"}
	*opts = sessplus.Options{
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			t.Error("an ErrorHandler that was set later is called")
		},
		OnEvent: func(context.Context, sessplus.Event) { t.Error("an OnEvent that was set later is called") },
		Codec:   failingCodec{},
	}
	list := m.Describe()
	list[0].Cookie = "changed"
	if after := fmt.Sprint(m.Describe()); after != before {
		t.Errorf("Describe = %s, want %s as before", after, before)
	}

	s := newSite(t, m)
	s.with(func(s *sessplus.Session) {
		s.Set("a", 1)
		s.Set("z", 2)
	})
	keys := []sessplus.KeyPair{pair()}
	got := s.through(
		sessplus.Config{CookieName: "inc", Fields: sessplus.Include("a"), Keys: keys},
		sessplus.Config{CookieName: "exc", Fields: sessplus.Include("z"), Keys: keys, Backend: mem, SignID: true},
	).fields()
	if want := map[string]any{"a": int64(1), "z": int64(2)}; !reflect.DeepEqual(got, want) {
		t.Errorf("with the keys of New %v can be read, want %v", got, want)
	}
}

type failingCodec struct{}

func (failingCodec) Marshal(any) ([]byte, error) { return nil, errors.New("not this codec") }
func (failingCodec) Unmarshal([]byte, any) error { return errors.New("not this codec") }

// SPEC 1.6
func TestNoConfigsAreOneSecureCookie(t *testing.T) {
	t.Parallel()
	for _, configs := range [][]sessplus.Config{nil, {}} {
		s := newSite(t, newManager(t, nil, configs...))
		res := s.with(func(s *sessplus.Session) {
			for _, name := range []string{"user_id", "*", "anything"} {
				s.Set(name, name)
			}
		})
		jar := s.jar(s.client)
		if len(jar) != 1 || len(res.setCookies("session")) != 1 || len(jar["session"]) < 50 {
			t.Errorf("cookies %q, want a secure one named session", jar)
		}
		want := map[string]any{"user_id": "user_id", "*": "*", "anything": "anything"}
		if got := s.fields(); !reflect.DeepEqual(got, want) {
			t.Errorf("fields %v, want %v", got, want)
		}
	}
}

// SPEC 1.7
func TestDescribe(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { rdb.Close() })
	m := newManager(t, nil,
		sessplus.Config{CookieName: "csrf", Fields: sessplus.Include("token"), Keys: []sessplus.KeyPair{{Hash: make([]byte, 32)}}, MaxAge: time.Hour},
		sessplus.Config{CookieName: "session", Fields: sessplus.Include("user", "data"), Backend: sessplus.Redis(rdb)},
		sessplus.Config{CookieName: "mem", Fields: sessplus.Exclude("token", "user"), Backend: sessplus.Memory(), Lifetime: -1, IdleTimeout: time.Hour},
		sessplus.Config{CookieName: "rest", Fields: sessplus.Auto()},
		sessplus.Config{CookieName: "plan", Fields: sessplus.Include("plan"), Backend: sessplus.Firestore(servers.Firestore(t), "s"), Lifetime: time.Hour},
	)
	type r = sessplus.FieldRoute
	const day = 24 * time.Hour
	include, exclude := `include "user", "data"`, `exclude "token", "user"`
	want := []r{
		{"csrf", "secure cookie", "token", `include "token"`, time.Hour, sessplus.VisibleSigned},
		{"session", "redis", "data", include, day, sessplus.VisibleNever},
		{"session", "redis", "user", include, day, sessplus.VisibleNever},
		{"mem", "memory", "data", exclude, -1, sessplus.VisibleNever},
		{"mem", "memory", "plan", exclude, -1, sessplus.VisibleNever},
		{"mem", "memory", "", exclude, -1, sessplus.VisibleNever},
		{"rest", "secure cookie", "", "auto", 30 * day, sessplus.VisibleEncrypted},
		{"plan", "firestore", "plan", `include "plan"`, time.Hour, sessplus.VisibleNever},
	}
	var got []r = m.Describe() // as programs may have it
	if !slices.Equal(got, want) {
		t.Errorf("Describe:\ngot  %q\nwant %q", got, want)
	}
	for _, route := range got {
		for _, part := range []string{route.Cookie, route.Backend, route.Field, string(route.Visibility)} {
			if !strings.Contains(route.String(), part) {
				t.Errorf("String = %q does not say %q", route, part)
			}
		}
		if strings.Contains(route.String(), "no absolute end") != (route.Lifetime < 0) {
			t.Errorf("String = %q, but the Lifetime is %v", route, route.Lifetime)
		}
	}
	lines := strings.Split(m.Describe().String(), "\n")
	if len(lines) != 1+len(want) {
		t.Fatalf("the table has %d lines, want a head and %d: %q", len(lines), len(want), lines)
	}
	for i, parts := range [][]string{{"COOKIE", "LIFETIME"}, {"csrf", `"token"`, "signed", "1h0m0s"}, 4: {"mem", "no absolute end"}, 7: {"rest", "(auto)"}} {
		for _, part := range parts {
			if !strings.Contains(lines[i], part) || part != parts[0] && !strings.HasPrefix(lines[i], parts[0]) {
				t.Errorf("line %d of the table is %q, want %q in it", i, lines[i], parts)
			}
		}
		if at := strings.Index(lines[0], "BACKEND"); i > 0 && lines[i][at-1] != ' ' {
			t.Errorf("line %d of the table is not aligned: %q", i, lines[i])
		}
	}
}
