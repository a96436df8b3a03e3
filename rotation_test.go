package sessplus_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

// SPEC 3.10: pairs may differ in Hash, Block or both, as those of programs that come from gorilla do.
func TestKeysMayDifferInTheBlockOnly(t *testing.T) {
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
