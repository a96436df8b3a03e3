package sessplus_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// configMistakes lists the ConfigErrors that err joins, as "cookie property".
func configMistakes(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error %T does not join others", err)
	}
	var list []string
	for _, e := range joined.Unwrap() {
		var c *sessplus.ConfigError
		if !errors.As(e, &c) {
			t.Fatalf("error %T is no ConfigError", e)
		}
		if c.Reason == "" || !strings.Contains(e.Error(), c.Reason) || !strings.Contains(e.Error(), c.Field) {
			t.Errorf("the text of %#v is %q", c, e)
		}
		list = append(list, c.Cookie+" "+c.Field)
	}
	return list
}

// SPEC 1.9
func TestParseConfigsReadsEveryProperty(t *testing.T) {
	t.Parallel()
	cache := sessplus.Memory()
	backends := map[string]sessplus.Backend{"cache": cache}
	type config = sessplus.Config
	tests := []struct {
		json string
		want config
	}{
		{`"cookie_name": "s"`, config{CookieName: "s"}},
		{`"session_type": "secure_cookie"`, config{Backend: sessplus.SecureCookie()}},
		{`"session_type": "cache"`, config{Backend: cache}},
		{`"session_fields": ["a", "b"]`, config{Fields: sessplus.Include("a", "b")}},
		{`"session_fields": {"include": ["a"]}`, config{Fields: sessplus.Include("a")}},
		{`"session_fields": {"exclude": ["a", "é"]}`, config{Fields: sessplus.Exclude("a", "é")}},
		{`"session_fields": {"exclude": ["a"], "include": null}`, config{Fields: sessplus.Exclude("a")}},
		{`"session_fields": "auto"`, config{Fields: sessplus.Auto()}},
		{`"cookie_domain": "example.com"`, config{Domain: "example.com"}},
		{`"cookie_path": "/app"`, config{Path: "/app"}},
		{`"cookie_httponly": true`, config{}},
		{`"cookie_httponly": false`, config{ScriptReadable: true}},
		{`"cookie_secure": true`, config{Secure: sessplus.SecureAlways}},
		{`"cookie_secure": false`, config{Secure: sessplus.SecureNever}},
		{`"cookie_secure": "auto"`, config{Secure: sessplus.SecureAuto}},
		{`"cookie_max_age": 3600`, config{MaxAge: time.Hour}},
		{`"cookie_max_age":  1.5 `, config{MaxAge: 1500 * time.Millisecond}},
		{`"cookie_max_age": 1e3`, config{MaxAge: 1000 * time.Second}},
		{`"cookie_max_age": 0`, config{}},
		{`"cookie_max_age": -1`, config{MaxAge: -time.Second}}, // for New to refuse
		{`"cookie_max_age": 34560000.000000001`, config{MaxAge: 400 * 24 * time.Hour}},
		{`"cookie_samesite": "Lax"`, config{SameSite: http.SameSiteLaxMode}},
		{`"cookie_samesite": "strict"`, config{SameSite: http.SameSiteStrictMode}},
		{`"cookie_samesite": "NONE"`, config{SameSite: http.SameSiteNoneMode}},
		{`"cookie_samesite": "\u004cax"`, config{SameSite: http.SameSiteLaxMode}},
		{`"session_lifetime": 86400`, config{Lifetime: 24 * time.Hour}},
		{`"session_lifetime": "24h"`, config{Lifetime: 24 * time.Hour}},
		{`"session_lifetime": "1h30m"`, config{Lifetime: 90 * time.Minute}},
		{`"session_lifetime": 0.25`, config{Lifetime: 250 * time.Millisecond}},
		{`"session_lifetime": -1`, config{Lifetime: -time.Second}},
		{`"session_lifetime": 9223372035`, config{Lifetime: 9223372035 * time.Second}},
		{`"session_permanent_lifetime": "744h"`, config{PermanentLifetime: 744 * time.Hour}},
		{`"session_permanent_lifetime": 60`, config{PermanentLifetime: time.Minute}},
		{`"idle_timeout": "20m"`, config{IdleTimeout: 20 * time.Minute}},
		{`"idle_timeout": 30`, config{IdleTimeout: 30 * time.Second}},
		{`"rotate_every": "15m"`, config{RotateEvery: 15 * time.Minute}},
		{`"rotate_every": 900`, config{RotateEvery: 15 * time.Minute}},
		{`"device_bound": "10m"`, config{DeviceBound: 10 * time.Minute}},
		{`"device_bound": 600`, config{DeviceBound: 10 * time.Minute}},
		{`"bound_to": "login"`, config{BoundTo: "login"}},
		{`"drop_if_gone": true`, config{DropIfGone: true}},
		{`"key_prefix": "app:"`, config{KeyPrefix: "app:"}},
		{`"use_signer": true`, config{SignID: true}},
		{`"index_by": "user_id"`, config{IndexBy: "user_id"}},
		{`"lazy": true, "optional": true, "partitioned": true`, config{Lazy: true, Optional: true, Partitioned: true}},
		{`"max_chunks": 4`, config{MaxChunks: 4}},
		{``, config{}}, // that a name is required New says
	}
	covered := make(map[string]bool)
	for _, tt := range tests {
		got, err := sessplus.ParseConfigs([]byte("[{"+tt.json+"}]"), backends)
		if err != nil || !reflect.DeepEqual(got, []config{tt.want}) {
			t.Errorf("ParseConfigs(%s) = %#v, %v, want %#v", tt.json, got, err, tt.want)
		}
		for part := range strings.SplitSeq(tt.json, `"`) {
			covered[part] = true
		}
	}
	for _, name := range jsonProperties {
		if !covered[name] {
			t.Errorf("no test of the property %q", name)
		}
		got, err := sessplus.ParseConfigs(fmt.Appendf(nil, `[{%q: null }]`, name), backends)
		if err != nil || !reflect.DeepEqual(got, []config{{}}) {
			t.Errorf("ParseConfigs of null for %q = %#v, %v, want no change", name, got, err)
		}
	}
}

var jsonProperties = []string{
	"cookie_name", "session_type", "session_fields", "cookie_domain", "cookie_path", "cookie_httponly", "cookie_secure",
	"cookie_max_age", "cookie_samesite", "session_lifetime", "session_permanent_lifetime", "key_prefix", "use_signer",
	"idle_timeout", "rotate_every", "device_bound", "index_by", "bound_to", "lazy", "drop_if_gone", "optional", "partitioned", "max_chunks",
}

// SPEC 1.9
func TestParseConfigsOfNoOrManyConfigs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		json  string
		names []string
	}{
		{`[]`, nil},
		{" [\n] \r\n\t", nil},
		{`[{"cookie_name":"a"},{"cookie_name":"b"}]`, []string{"a", "b"}},
	} {
		configs, err := sessplus.ParseConfigs([]byte(tt.json), nil)
		var names []string
		for _, c := range configs {
			names = append(names, c.CookieName)
		}
		if err != nil || !slices.Equal(names, tt.names) {
			t.Errorf("ParseConfigs(%s) = %v, %v, want %v", tt.json, names, err, tt.names)
		}
	}
}

// SPEC 1.9
func TestParseConfigsRefusesWrongValues(t *testing.T) {
	t.Parallel()
	const strings_, numbers, bools = `"x" "" "true" "1"`, `0 1 -1 1.5 1e400`, `true false`
	const composed = `[] ["a"] {} {"a":1} [null]`
	wrong := map[string]string{
		"cookie_name":                numbers + " " + bools + " " + composed,
		"session_type":               `"" "x" "redis" "SECURE_COOKIE" "nil" "typed" ` + numbers + " " + bools + " " + composed,
		"session_fields":             strings_ + ` "AUTO" ` + numbers + " " + bools + ` {} {"a":1} [null] ["a",null] ["a",1] [["a"]] {"include":"a"} {"include":null} {"include":["a"],"exclude":["b"]} {"include":["a"],"exclude":[]} {"include":["a"],"other":["b"]} {"include":["a"],"other":null} {"include":["a"],"include":["b"]} {"include":[1]} {"Include":["a"]} {"auto":true}`,
		"cookie_domain":              numbers + " " + bools + " " + composed,
		"cookie_path":                numbers + " " + bools + " " + composed,
		"cookie_httponly":            strings_ + " " + numbers + " " + composed,
		"cookie_secure":              strings_ + " " + numbers + " " + composed,
		"cookie_max_age":             strings_ + ` "24h" "NaN" "Inf" 1e400 -1e400 1e300 9223372037 -9223372037 18446744073709551616 1e-10 ` + bools + " " + composed,
		"cookie_samesite":            strings_ + ` "default" ` + numbers + " " + bools + " " + composed,
		"session_lifetime":           strings_ + ` "NaN" "Inf" "NaNh" "24" "h" "24H" "3000000h" 1e400 9223372037 1e19 1e-10 ` + bools + " " + composed,
		"session_permanent_lifetime": `"NaN" "a day" 1e300 ` + bools + " " + composed,
		"idle_timeout":               `"NaN" "-" 1e300 ` + bools + " " + composed,
		"rotate_every":               `"NaN" "15" 1e300 ` + bools + " " + composed,
		"device_bound":               `"NaN" "10" 1e300 ` + bools + " " + composed,
		"bound_to":                   numbers + " " + bools + " " + composed,
		"drop_if_gone":               strings_ + " " + numbers + " " + composed,
		"key_prefix":                 numbers + " " + bools + " " + composed,
		"use_signer":                 strings_ + " " + numbers + " " + composed,
		"index_by":                   numbers + " " + bools + " " + composed,
		"lazy":                       strings_ + " " + numbers + " " + composed,
		"optional":                   strings_ + " " + numbers + " " + composed,
		"partitioned":                strings_ + " " + numbers + " " + composed,
		"max_chunks":                 strings_ + ` 1.5 9223372036854775808 1e400 -1e400 ` + bools + " " + composed,
		"secret_key":                 `null "x" 1`,
		"Cookie_Name":                `null "x"`,
		"COOKIE_PATH":                `"/"`,
	}
	backends := map[string]sessplus.Backend{"memory": sessplus.Memory(), "nil": nil, "typed": (*nilBackend)(nil)}
	for _, name := range jsonProperties {
		if wrong[name] == "" {
			t.Errorf("no test of the property %q", name)
		}
	}
	for name, values := range wrong {
		for value := range strings.FieldsSeq(strings.ReplaceAll(values, "a day", "aday")) {
			text := fmt.Sprintf(`[{"cookie_path": "/", %q: %s, "lazy": true, "cookie_name": "c"}]`, name, value)
			want := []string{"c " + name}
			switch name {
			case "cookie_path", "lazy", "cookie_name": // there twice now
				continue
			}
			configs, err := sessplus.ParseConfigs([]byte(text), backends)
			if got := configMistakes(t, err); !slices.Equal(got, want) || configs != nil {
				t.Errorf("ParseConfigs(%s) = %v, mistakes %q, want %q", text, configs, got, want)
			}
		}
	}
	for _, name := range []string{"cookie_path", "lazy", "cookie_name"} {
		for value := range strings.FieldsSeq(wrong[name]) {
			text := fmt.Sprintf(`[{"cookie_name": "c"}, {%q: %s}]`, name, value)
			_, err := sessplus.ParseConfigs([]byte(text), nil)
			if got, want := configMistakes(t, err), []string{"#1 " + name}; !slices.Equal(got, want) {
				t.Errorf("ParseConfigs(%s): mistakes %q, want %q", text, got, want)
			}
		}
	}
}

// nilBackend is a backend of another package, for nil pointers to it.
type nilBackend struct{ sessplus.Backend }

// SPEC 1.9
func TestParseConfigsNamesThePlaceOfMistakesInTheText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		json string
		want []string
	}{
		{``, []string{" data"}},
		{`nothing`, []string{" data"}},
		{`null`, []string{" data"}},
		{`{"cookie_name": "c"}`, []string{" data"}},
		{`"auto"`, []string{" data"}},
		{"\ufeff[]", []string{" data"}},
		{`[{"cookie_name": "c"}`, []string{"c data"}},
		{`[{"cookie_name": "c", "lazy": true`, []string{"c lazy"}},
		{`[{"cookie_name": "c"}]]`, []string{"c data"}},
		{`[{"cookie_name": "c"}] []`, []string{"c data"}},
		{`[{"cookie_name": "c"}] {"lazy": true}`, []string{"c data"}},
		{`[{"cookie_name": "c"}] // a comment`, []string{"c data"}},
		{`[{"cookie_name": "c", "lazy": true,}]`, []string{"c lazy"}},
		{`[{"cookie_name": "c"},]`, []string{"#1 data"}},
		{`[,`, []string{"#0 data"}},
		{`[{`, []string{"#0 data"}},
		{`[{"lazy"`, []string{"#0 lazy"}},
		{`[{}, {"cookie_name": "c", "cookie_max_age": NaN}]`, []string{"c cookie_max_age"}},
		{`[{}, {"cookie_name": "c", "cookie_max_age": -Infinity}]`, []string{"c cookie_max_age"}},
		{`[{}, {"cookie_max_age": 0x10}]`, []string{"#1 cookie_max_age"}},
		{`[{"session_fields": ["a", "b}]`, []string{"#0 session_fields"}},
		{`[{'cookie_name': 'c'}]`, []string{"#0 data"}},
		{`[{"cookie_name": "c", "lazy": True}]`, []string{"c lazy"}},
		{"[{\"cookie_name\": \"\xff\"}]", []string{" data"}},
		{`[null, 1, "cookie_name", ["cookie_name", "x"], true, {"lazy": 1}]`,
			[]string{"#0 data", "#1 data", "#2 data", "#3 data", "#4 data", "#5 lazy"}},
		{`[{"lazy": true, "lazy": true}]`, []string{"#0 lazy"}},
		{`[{"lazy": null, "lazy": false}]`, []string{"#0 lazy"}},
		{`[{"lazy": true, "\u006cazy": true, "lazy": 1}]`, []string{"#0 lazy", "#0 lazy"}},
		{`[{"cookie_name": "c", "cookie_name": "d"}]`, []string{"c cookie_name"}},
		{`[{"cookie_name": null, "lazy": 1}, {"cookie_name": "", "lazy": 1}, {"cookie_name": 5}]`,
			[]string{"#0 lazy", "#1 lazy", "#2 cookie_name"}},
	} {
		configs, err := sessplus.ParseConfigs([]byte(tt.json), nil)
		if got := configMistakes(t, err); !slices.Equal(got, tt.want) || configs != nil {
			t.Errorf("ParseConfigs(%s) = %v, mistakes %q, want %q", tt.json, configs, got, tt.want)
		}
	}
	_, err := sessplus.ParseConfigs([]byte("[\n{\n\"lazy\": truth}]"), nil)
	if err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("ParseConfigs of a mistake in line 3 = %v", err)
	}
}

// SPEC 1.9
func TestParseConfigsReportsEveryMistake(t *testing.T) {
	t.Parallel()
	text := `[
		{"cookie_name": "a", "session_type": "wrong", "cookie_max_age": "wrong", "password": "wrong"},
		{"session_fields": {"wrong": ["wrong"]}, "cookie_samesite": "wrong", "max_chunks": "wrong"},
		{"cookie_name": "b", "session_lifetime": "wrong", "lazy": "wrong", "key_prefix": ["wrong"], "lazy": "wrong"}
	]`
	_, err := sessplus.ParseConfigs([]byte(text), map[string]sessplus.Backend{"memory": sessplus.Memory()})
	want := []string{
		"a session_type", "a cookie_max_age", "a password",
		"#1 session_fields", "#1 cookie_samesite", "#1 max_chunks",
		"b session_lifetime", "b lazy", "b key_prefix", "b lazy",
	}
	if got := configMistakes(t, err); !slices.Equal(got, want) {
		t.Errorf("ParseConfigs: mistakes %q, want %q", got, want)
	}
}

// SPEC 1.9
func TestParsedConfigsMakeAManager(t *testing.T) {
	t.Parallel()
	const text = `[
		{"cookie_name": "csrf", "session_fields": ["csrf_token"]},
		{"cookie_name": "session", "session_type": "store", "session_fields": ["user_id"], "session_lifetime": "12h",
		 "session_permanent_lifetime": 86400, "idle_timeout": 600, "use_signer": true, "lazy": true, "optional": true},
		{"cookie_name": "data", "session_fields": "auto", "cookie_secure": true, "cookie_samesite": "None", "partitioned": true}
	]`
	configs, err := sessplus.ParseConfigs([]byte(text), map[string]sessplus.Backend{"store": sessplus.Memory()})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, newManager(t, nil, configs...))
	res := s.with(func(s *sessplus.Session) {
		s.Set("csrf_token", "t")
		s.Set("user_id", 1)
		s.Set("theme", "dark")
	})
	for name, attributes := range map[string]string{
		"csrf": "HttpOnly; SameSite=Lax", "session": "HttpOnly; SameSite=Lax", "data": "HttpOnly; Secure; SameSite=None; Partitioned",
	} {
		if lines := res.setCookies(name); len(lines) != 1 || !strings.HasSuffix(lines[0], "; Path=/; "+attributes) {
			t.Errorf("Set-Cookie of %q = %q, want one with Path=/; %s", name, lines, attributes)
		}
	}
}

func FuzzParseConfigs(f *testing.F) {
	for _, seed := range []string{
		`[]`, `[{"cookie_name":"a","session_fields":{"include":["a"]}}]`, `[{"session_lifetime":"24h","cookie_max_age":1e3}]`,
		`[{"cookie_name":"a","lazy":NaN}]`, `[[["cookie_name","x"]]]`, `[{"a":{"a":[}]`, `[{"cookie_secure":"auto"},null]`, `[,{"a"`,
	} {
		f.Add([]byte(seed))
	}
	backends := map[string]sessplus.Backend{"memory": sessplus.Memory()}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := slices.Clone(data)
		configs, err := sessplus.ParseConfigs(data, backends)
		if (configs == nil) == (err == nil) {
			t.Errorf("ParseConfigs(%q) = %v, %v, want one of both", data, configs, err)
		}
		if !slices.Equal(data, before) {
			t.Errorf("ParseConfigs(%q) has changed its argument", before)
		}
		configMistakes(t, err)
		// It must not panic, whatever was parsed.
		sessplus.New(configs, &sessplus.Options{Keys: testKeys, Logger: slog.New(slog.DiscardHandler)})
	})
}
