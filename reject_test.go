package sessplus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gorilla/securecookie"

	"github.com/sessplus/sessplus"
)

// SPEC 6.4: a cookie that other code sealed with the same keys is no session, and the log says of it what is true.
func TestTheReasonOfARejectedSecureCookieIsTrue(t *testing.T) {
	gob := func() *securecookie.SecureCookie { return securecookie.New(testKeys[0].Hash, testKeys[0].Block) }
	json := func() *securecookie.SecureCookie { return gob().SetSerializer(securecookie.JSONEncoder{}) }
	const foreign, later = "not written by sessplus", "later version"
	for _, tt := range []struct {
		name   string
		text   func() (string, error)
		is, no []string
	}{
		{"gorilla/sessions", func() (string, error) {
			return gob().Encode("s", map[any]any{"user_id": 42, "name": corruptSecret})
		}, []string{foreign, "malformed", "version 1"}, []string{"future", later}},
		{"gob of a map", func() (string, error) { return gob().Encode("s", map[string]string{"name": corruptSecret}) },
			[]string{foreign, "malformed"}, []string{"future", later}},
		{"gob of a number", func() (string, error) { return gob().Encode("s", 5) }, []string{foreign}, []string{"future"}},
		{"gob of a short text", func() (string, error) { return gob().Encode("s", "ann") }, []string{foreign}, []string{"future"}},
		{"JSON", func() (string, error) { return json().Encode("s", map[string]string{"name": corruptSecret}) },
			[]string{foreign, "malformed"}, []string{"future", later}},
		{"JSON of a number", func() (string, error) { return json().Encode("s", 5) }, []string{foreign}, []string{"future"}},
		{"zeros", func() (string, error) { return sealContent(t, strings.Repeat("\x00", 40)), nil }, []string{foreign}, []string{"future", later}},
		{"our version and garbage", func() (string, error) { return sealContent(t, "\x01\x00"+corruptSecret), nil },
			[]string{foreign, "malformed"}, []string{"future", later}},
		{"the next version", func() (string, error) { return sealContent(t, "\x02\x00"+corruptSecret), nil },
			[]string{foreign, later, "version 1"}, []string{"future"}},
		{"a flag of a later version", func() (string, error) { return sealContent(t, "\x01\x80"+corruptSecret), nil },
			[]string{foreign, later}, []string{"future"}},
		{"the day after tomorrow", func() (string, error) {
			return rewrite(t, "s", sealContent(t, "\x01\x00\x01a\x011"), time.Now().Add(48*time.Hour)), nil
		}, []string{"written in the future"}, []string{foreign, later}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := tt.text()
			if err != nil {
				t.Fatal(err)
			}
			var j journal
			s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", MaxAge: time.Hour}))
			if res := get7(s, readA, "s="+text); res.body != "" {
				t.Errorf("it is a session: a = %q", res.body)
			}
			lines := j.lines("a cookie was rejected")
			if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") {
				t.Fatalf("the log says %q, want one warning", lines)
			}
			for _, part := range tt.is {
				if !strings.Contains(lines[0], part) {
					t.Errorf("the log says %q, want %q in it", lines[0], part)
				}
			}
			for _, part := range tt.no {
				if strings.Contains(lines[0], part) {
					t.Errorf("the log says %q, which is not true of %s", lines[0], tt.name)
				}
			}
			j.keepsSecret(t, nil, corruptSecret, text)
		})
	}
}
