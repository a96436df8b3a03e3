package sessplus_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"github.com/sessplus/sessplus"
)

// reasons lists what the ConfigErrors that err joins say of a property of the cookie.
func reasons(t *testing.T, err error, cookie, field string) (list []string) {
	t.Helper()
	configMistakes(t, err) // fails the test if there is something else
	if err == nil {
		return nil
	}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var c *sessplus.ConfigError
		if errors.As(e, &c) && c.Cookie == cookie && c.Field == field {
			list = append(list, c.Reason)
		}
	}
	return list
}

// SPEC 1.4: a ConfigError begins with the value that is wrong, and says what would be right.
func TestAMistakeIsQuotedAndSaysWhatIsRight(t *testing.T) {
	type c = sessplus.Config
	mem, long := sessplus.Memory(), strings.Repeat("x", 300)
	always := sessplus.SecureAlways
	const hour = time.Hour
	for _, tt := range []struct {
		config c
		field  string
		quote  string
		right  string
	}{
		{c{CookieName: "-"}, "CookieName", `""`, `as in "session"`},
		{c{CookieName: "a b"}, "CookieName", `"a b"`, "letters, digits"},
		{c{CookieName: "é"}, "CookieName", `"é"`, "letters, digits"},
		{c{CookieName: long}, "CookieName", `"xxx`, "256"},
		{c{CookieName: "taken"}, "CookieName", `"taken"`, "another name"},
		{c{CookieName: "chunked.1"}, "CookieName", `"chunked.1"`, "another name"},

		{c{Fields: sessplus.Include()}, "Fields", "Include()", "Auto()"},
		{c{Fields: sessplus.Include("")}, "Fields", `""`, "1 to 256 bytes"},
		{c{Fields: sessplus.Exclude(long)}, "Fields", `"xxx`, "1 to 256 bytes"},
		{c{Fields: sessplus.Include("\xff")}, "Fields", `"\xff"`, "valid UTF-8"},
		{c{Fields: sessplus.Include("x", "x")}, "Fields", `"x"`, "once"},

		{c{Secure: 9}, "Secure", "SecureMode(9)", "SecureAlways"},
		{c{SameSite: 9}, "SameSite", "9", "http.SameSiteLaxMode"},
		{c{SameSite: http.SameSiteNoneMode}, "SameSite", "None", "SecureAlways"},
		{c{Partitioned: true}, "Partitioned", "true", "SecureAlways"},
		{c{CookieName: "__Secure-a", Secure: sessplus.SecureNever}, "Secure", "never", "SecureAlways"},
		{c{CookieName: "__Host-a"}, "Secure", "auto", "SecureAlways"},
		{c{CookieName: "__Host-a", Secure: always, Domain: "example.com"}, "Domain", `"example.com"`, "empty"},
		{c{CookieName: "__Host-a", Secure: always, Path: "/app"}, "Path", `"/app"`, `"/"`},
		{c{CookieName: "__Http-a", Secure: always, ScriptReadable: true}, "ScriptReadable", "true", "false"},

		{c{Domain: "https://example.com:8080/"}, "Domain", `"https://example.com:8080/"`, `as in "example.com"`},
		{c{Domain: "exa mple.com"}, "Domain", `"exa mple.com"`, `as in "example.com"`},
		{c{Domain: "bücher.example"}, "Domain", `"bücher.example"`, "xn--"},
		{c{Domain: "example.com."}, "Domain", `"example.com."`, `"example.com"`},
		{c{Domain: "example."}, "Domain", `"example."`, "dot"},
		{c{Domain: "com"}, "Domain", `"com"`, `as in "example.com"`},
		{c{Domain: ".intranet"}, "Domain", `".intranet"`, "empty"},
		{c{Path: "app"}, "Path", `"app"`, `"/"`},
		{c{Path: "/; Domain=x"}, "Path", `"/; Domain=x"`, "printable ASCII"},

		{c{MaxAge: -hour}, "MaxAge", "-1h0m0s", "0"},
		{c{MaxAge: 401 * 24 * hour}, "MaxAge", "9624h0m0s", "400 days"},
		{c{MaxAge: 86400}, "MaxAge", "86.4µs", "24*time.Hour"},
		{c{MaxAge: time.Second - 1}, "MaxAge", "999.999999ms", "24*time.Hour"},
		{c{Backend: mem, MaxAge: 1}, "MaxAge", "1ns", "gorilla"},
		{c{PermanentLifetime: -hour}, "PermanentLifetime", "-1h0m0s", "0"},
		{c{PermanentLifetime: 401 * 24 * hour}, "PermanentLifetime", "9624h0m0s", "400 days"},
		{c{PermanentLifetime: 86400 * 30}, "PermanentLifetime", "2.592ms", "24*time.Hour"},
		{c{Backend: mem, Lifetime: 86400}, "Lifetime", "86.4µs", "24*time.Hour"},
		{c{Backend: mem, Lifetime: time.Millisecond - 1}, "Lifetime", "999.999µs", "gorilla"},
		{c{Lifetime: 86400}, "Lifetime", "86.4µs", "24*time.Hour"},
		{c{Backend: mem, IdleTimeout: 1800}, "IdleTimeout", "1.8µs", "24*time.Hour"},
		{c{Backend: mem, Lifetime: -1}, "Lifetime", "-1ns", "IdleTimeout"},
		{c{Lifetime: -1}, "Lifetime", "-1ns", "MaxAge"},
		{c{Backend: mem, IdleTimeout: -hour}, "IdleTimeout", "-1h0m0s", "0"},
		{c{IdleTimeout: hour}, "IdleTimeout", "1h0m0s", "MaxAge"},
		{c{Backend: mem, RotateEvery: -hour}, "RotateEvery", "-1h0m0s", "0"},
		{c{Backend: mem, RotateEvery: 900}, "RotateEvery", "900ns", "24*time.Hour"},
		{c{Backend: mem, RotateEvery: time.Millisecond - 1}, "RotateEvery", "999.999µs", "gorilla"},
		{c{RotateEvery: hour}, "RotateEvery", "1h0m0s", "server-side"},
		{c{RotateEvery: -hour}, "RotateEvery", "-1h0m0s", "0"},
		{c{MaxChunks: -1}, "MaxChunks", "-1", "0"},
		{c{MaxChunks: 21}, "MaxChunks", "21", "20"},
		{c{Backend: mem, MaxChunks: 2}, "MaxChunks", "2", "0"},

		{c{Keys: []sessplus.KeyPair{}}, "Keys", "a secure cookie needs a pair", "GenerateKeyPair"},
		{c{Keys: []sessplus.KeyPair{}}, "Keys", "a secure cookie needs a pair", "DeriveKeyPair"},
		{c{Keys: []sessplus.KeyPair{{Hash: make([]byte, 16)}}}, "Keys", "pair 0: ", "32 or 64"},
		{c{Keys: []sessplus.KeyPair{{Hash: make([]byte, 32), Block: make([]byte, 8)}}}, "Keys", "pair 0: ", "16, 24 or 32"},
		{c{Keys: []sessplus.KeyPair{{}}}, "Keys", "pair 0: ", "DeriveKeyPair"},
		{c{Keys: []sessplus.KeyPair{sessplus.DeriveKeyPair([]byte("short"))}}, "Keys", "pair 0: it is empty", "shorter than 32 bytes"},
		{c{Backend: mem, Keys: []sessplus.KeyPair{}, SignID: true}, "SignID", "true", "DeriveKeyPair"},
		{c{SignID: true}, "SignID", "true", "false"},
		{c{Lazy: true}, "Lazy", "true", "false"},
		{c{Optional: true}, "Optional", "true", "false"},
		{c{IndexBy: "u"}, "IndexBy", `"u"`, "server-side"},
		{c{Backend: mem, Fields: sessplus.Include("x"), IndexBy: "u"}, "IndexBy", `"u"`, `include "x"`},
		{c{BoundTo: "nobody"}, "BoundTo", `"nobody"`, `"store"`},
		{c{BoundTo: "chunked"}, "BoundTo", `"chunked"`, `"store"`},
		{c{Backend: mem, BoundTo: "store"}, "BoundTo", `"store"`, "empty"},
		{c{Backend: mem, KeyPrefix: "a\nb"}, "KeyPrefix", `"a\nb"`, "printable ASCII"},
		{c{Backend: mem, CookieName: "re", KeyPrefix: "session:sto"}, "KeyPrefix", `"session:sto"`, "another prefix"},
		{c{Backend: (*nilBackend)(nil)}, "Backend", "*sessplus_test.nilBackend", "nil pointer"},
		{c{Backend: sessplus.Redis(nil)}, "Backend", "the Redis client is nil", ""},
		{c{Backend: sessplus.Firestore(new(firestore.Client), "a/b")}, "Backend", `"a/b"`, "odd number of names"},
	} {
		switch tt.config.CookieName {
		case "":
			tt.config.CookieName = "c"
		case "-":
			tt.config.CookieName = ""
		}
		configs := []c{
			{CookieName: "taken"}, {CookieName: "chunked", MaxChunks: 2},
			{CookieName: "store", Backend: mem}, tt.config,
		}
		_, err := sessplus.New(configs, &sessplus.Options{Keys: testKeys})
		cookie := tt.config.CookieName
		if cookie == "" {
			cookie = "#3"
		}
		got := reasons(t, err, cookie, tt.field)
		if !slices.ContainsFunc(got, func(r string) bool { return strings.HasPrefix(r, tt.quote) && strings.Contains(r, tt.right) }) {
			t.Errorf("%v: %s: New says %q, want it to begin with %s and to say %s", tt.config, tt.field, got, tt.quote, tt.right)
		}
		for _, r := range got {
			if len(r) > 700 {
				t.Errorf("%v: %s: the reason has %d bytes", tt.config, tt.field, len(r))
			}
		}
	}
	for _, tt := range []struct {
		opts         sessplus.Options
		field        string
		quote, right string
	}{
		{sessplus.Options{Timeout: -time.Second}, "Timeout", "-1s", "0"},
		{sessplus.Options{Timeout: 5}, "Timeout", "5ns", "5*time.Second"},
		{sessplus.Options{Codec: (*nilCodec)(nil)}, "Codec", "*sessplus_test.nilCodec", "JSON"},
		{sessplus.Options{SingleCookie: "my session"}, "SingleCookie", `"my session"`, "letters"},
		{sessplus.Options{Keys: []sessplus.KeyPair{{Hash: make([]byte, 5)}}}, "Keys", "pair 0: ", "32 or 64"},
	} {
		_, err := sessplus.New([]c{{CookieName: "c", Backend: mem}}, &tt.opts)
		got := reasons(t, err, "", tt.field)
		if len(got) != 1 || !strings.HasPrefix(got[0], tt.quote) || !strings.Contains(got[0], tt.right) {
			t.Errorf("Options.%s: New says %q, want it to begin with %s and to say %s", tt.field, got, tt.quote, tt.right)
		}
	}
}

type nilCodec struct{ sessplus.Codec }

// SPEC 1.4: what only looks like one of these mistakes is right.
func TestDomainsAndShortTimesThatAreRight(t *testing.T) {
	t.Parallel()
	mem := sessplus.Memory()
	for _, c := range []sessplus.Config{
		{Domain: "localhost"}, {Domain: "LocalHost"}, {Domain: ".localhost"}, {Domain: "example.com"}, {Domain: ".example.com"},
		{Domain: "127.0.0.1"}, {Domain: "xn--bcher-kva.example"},
		{MaxAge: time.Second, PermanentLifetime: time.Second},
		{Backend: mem, Lifetime: time.Millisecond, IdleTimeout: time.Millisecond}, {Backend: mem, RotateEvery: time.Millisecond},
	} {
		c.CookieName = "c"
		if _, err := sessplus.New([]sessplus.Config{c}, &sessplus.Options{Keys: testKeys, Timeout: time.Millisecond}); err != nil {
			t.Errorf("Domain %q, MaxAge %v, Lifetime %v: %v", c.Domain, c.MaxAge, c.Lifetime, err)
		}
	}
}

// SPEC 1.4, 1.9: what a file says is quoted as it stands there, but not what may be a key.
func TestAMistakeInJSONIsQuotedAndSaysWhatIsRight(t *testing.T) {
	t.Parallel()
	backends := map[string]sessplus.Backend{"redis": sessplus.Memory()}
	for _, tt := range []struct{ property, value, quote, right string }{
		{"cookie_name", `["a"]`, `["a"]`, "text"},
		{"session_type", `"reids"`, `"reids"`, `"redis"`},
		{"session_type", `7`, `7`, `"redis"`},
		{"session_fields", `"all"`, `"all"`, `{"exclude": […]}`},
		{"session_fields", "{\"include\":\n 1}", `{"include":1}`, `{"exclude": […]}`},
		{"session_fields", `{"Include":["a"]}`, `{"Include":["a"]}`, `"include"`},
		{"session_fields", `["a",null]`, `["a",null]`, "text"},
		{"cookie_httponly", `"yes"`, `"yes"`, "true"},
		{"cookie_secure", `1`, `1`, `"auto"`},
		{"cookie_samesite", `"laxx"`, `"laxx"`, `"strict"`},
		{"cookie_max_age", `"24h"`, `"24h"`, "86400"},
		{"cookie_max_age", `1e300`, `1e300`, "86400"},
		{"session_lifetime", `"a day"`, `"a day"`, `"24h"`},
		{"session_lifetime", `true`, `true`, `"24h"`},
		{"idle_timeout", `1e-12`, `1e-12`, `"24h"`},
		{"lazy", `"true"`, `"true"`, "without quotes"},
		{"max_chunks", `1.5`, `1.5`, "whole number"},
		{"key_prefix", `"` + strings.Repeat("x", 5000) + ``, "", ""}, // not JSON
		{"max_chunks", `"` + strings.Repeat("é", 5000) + `"`, `"é`, "whole number"},
		{"lazy", `true, "lazy": false`, `false`, "once"},
		{"Cookie_Name", `"c"`, "", "cookie_name"},
	} {
		_, err := sessplus.ParseConfigs([]byte(`[{"`+tt.property+`": `+tt.value+`}]`), backends)
		cookie := "#0"
		got := reasons(t, err, cookie, tt.property)
		if len(got) != 1 || !strings.HasPrefix(got[0], tt.quote) || !strings.Contains(got[0], tt.right) || len(got[0]) > 1000 {
			t.Errorf("%s: %.50s: ParseConfigs says %q, want it to begin with %s and to say %s", tt.property, tt.value, got, tt.quote, tt.right)
		}
	}
	for _, text := range []string{
		`"secret_key": "hunter2"`, `"keys": ["hunter2"]`, `"use_signer": "hunter2"`, `"use_signer": ["hunter2"]`,
		`"session_type": "redis://:hunter2@localhost"`, `"use_signer": true, "use_signer": "hunter2"`, `"lazy": hunter2`,
	} {
		_, err := sessplus.ParseConfigs([]byte(`[{`+text+`}]`), backends)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseConfigs(%s) = %v, want an error without what may be a key", text, err)
		}
	}
}
