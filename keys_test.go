package sessplus_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 3.10: pairs may differ in Hash, Block or both, as those of programs that come from gorilla do.
func TestKeysMayDifferInTheBlockOnly(t *testing.T) {
	t.Parallel()
	a, b := sessplus.GenerateKeyPair(), sessplus.GenerateKeyPair()
	signed := sessplus.KeyPair{Hash: a.Hash}
	block := sessplus.KeyPair{Hash: a.Hash, Block: b.Block}
	hash := sessplus.KeyPair{Hash: b.Hash, Block: a.Block}
	short := sessplus.KeyPair{Hash: a.Hash, Block: a.Block[:16]}
	for name, pair := range map[string][2]sessplus.KeyPair{ // the older, the newer
		"another block":           {a, block},
		"a shorter block":         {a, short},
		"encrypted from now on":   {signed, a},
		"no longer encrypted":     {a, signed},
		"another hash":            {a, hash},
		"another hash and signed": {hash, signed},
		"both":                    {a, b},
	} {
		for _, value := range []string{"1", strings.Repeat("x", 2000)} {
			stage := func(jar http.CookieJar, keys ...sessplus.KeyPair) *site {
				s := newSite(t, newManager(t, &sessplus.Options{Keys: keys}, sessplus.Config{CookieName: "c", MaxChunks: 2}))
				if jar != nil {
					s.client.Jar = jar // the sites differ in the port only, which cookies ignore
				}
				return s
			}
			older, newer := pair[0], pair[1]
			before := stage(nil, older)
			before.with(func(s *sessplus.Session) { s.Set("a", value) })
			read := func(stage string, s *site) *reply {
				return s.with(func(s *sessplus.Session) {
					if got := s.GetString("a"); got != value {
						t.Errorf("%s, %s: a has %d bytes, want %d", name, stage, len(got), len(value))
					}
				})
			}
			jar := before.client.Jar
			both := stage(jar, newer, older)
			if r := read("both keys", both); len(r.setCookies("c")) != 1 {
				t.Errorf("%s: %d cookies set, want it written with the newer key", name, len(r.setCookies("c")))
			}
			if r := read("both keys again", both); len(r.setCookies("c")) > 0 {
				t.Errorf("%s: the cookie is written again and again", name)
			}
			read("the newer key alone", stage(jar, newer))
		}
	}
}

// SPEC 6.4: a cookie that fits the hash of every pair, and is readable by none, is no session.
func TestCookieOfALostBlockKey(t *testing.T) {
	t.Parallel()
	a, b, c := sessplus.GenerateKeyPair(), sessplus.GenerateKeyPair(), sessplus.GenerateKeyPair()
	b.Hash, c.Hash = a.Hash, a.Hash
	before := newSite(t, newManager(t, &sessplus.Options{Keys: []sessplus.KeyPair{a}}, sessplus.Config{CookieName: "c"}))
	before.with(func(s *sessplus.Session) { s.Set("a", 1) })
	var j journal
	o := j.options(0)
	o.Keys = []sessplus.KeyPair{b, c, {Hash: a.Hash}}
	after := newSite(t, newManager(t, o, sessplus.Config{CookieName: "c"}))
	after.client.Jar = before.client.Jar
	r := after.with(func(s *sessplus.Session) {
		if s.Has("a") {
			t.Error("the field is there")
		}
	})
	if r.StatusCode != http.StatusOK {
		t.Errorf("status = %d, want 200", r.StatusCode)
	}
	j.mustWarn(t)
}

// SPEC 3.10: a request that only reads re-writes the cookie, once, and then the old key can go.
func TestOlderKeyIsReplaced(t *testing.T) {
	t.Parallel()
	older, newer := sessplus.GenerateKeyPair(), sessplus.GenerateKeyPair()
	stage := func(cfg sessplus.Config, keys ...sessplus.KeyPair) *sidSite {
		return &sidSite{site: newSite(t, newManager(t, &sessplus.Options{Keys: keys}, cfg))}
	}
	read := func(s *sessplus.Session) {}
	for name, cfg := range map[string]sessplus.Config{
		"secure cookie": {CookieName: "sid"},
		"max age":       {CookieName: "sid", MaxAge: time.Hour},
		"split":         {CookieName: "sid", MaxChunks: 3},
		"signed id":     {CookieName: "sid", Backend: sessplus.Memory(), SignID: true, MaxAge: time.Hour},
		"lazy":          {CookieName: "sid", Backend: sessplus.Memory(), SignID: true, Lazy: true},
	} {
		t.Run(name, func(t *testing.T) {
			value := "1"
			if cfg.MaxChunks > 1 {
				value = strings.Repeat("x", 4000)
			}
			seen := false
			look := func(s *sessplus.Session) { seen = s.Get("a") == value && s.Permanent("sid") }
			before, both, after := stage(cfg, older), stage(cfg, newer, older), stage(cfg, newer)
			before.ok(before.with(func(s *sessplus.Session) { s.Set("a", value); s.SetPermanent("sid", true) }))
			jar := before.client.Jar // the sites differ in the port only, which cookies ignore
			for _, c := range []*sidSite{both, after} {
				c.client = &http.Client{Jar: jar}
			}
			if r := both.visit(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }); len(r.setCookies("sid")) > 0 {
				t.Errorf("status 500: Set-Cookie = %q, want none", r.setCookies("sid"))
			}
			first := both.ok(both.with(look))
			if k := setCookie(t, first, "sid"); !seen || k == nil || k.MaxAge < 30*24*3600-60 {
				t.Errorf("both keys: read = %v, Set-Cookie = %v; want true, and one for 31 days", seen, k)
			}
			for range 2 {
				if r := both.ok(both.with(read)); len(r.Header.Values("Set-Cookie")) > 0 {
					t.Errorf("both keys, again: Set-Cookie = %q, want none", r.Header.Values("Set-Cookie"))
				}
			}
			seen = false
			if after.ok(after.with(look)); !seen {
				t.Error("the new key alone does not read the cookie")
			}
			seen = false
			if before.ok(before.with(look)); seen {
				t.Error("the old key still reads the cookie")
			}
		})
	}
}
