package sessplus_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// siblingCookie is the text of a cookie whose record is in the same store.
func siblingCookie(t *testing.T, c *sidSite, name, prefix string, keys ...sessplus.KeyPair) string {
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

// SPEC 3.1
func TestWithoutCookiesAndSetsNothingIsFree(t *testing.T) {
	t.Parallel()
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
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
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
		c := &sidSite{site: newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", MaxAge: time.Hour}))}
		for name, h := range handlers {
			if lines := c.ok(c.with(h)).Header.Values("Set-Cookie"); len(lines) > 0 {
				t.Errorf("%s: Set-Cookie = %q, want none", name, lines)
			}
		}
	})
}

// SPEC 3.2
func TestIDsAreRandomAndNeverStored(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "app/%:"} {
		t.Run("prefix "+prefix, func(t *testing.T) {
			onStores(t, func(c *sessplus.Config) { c.KeyPrefix = prefix }, testIDs)
		})
	}
	t.Run("signed", func(t *testing.T) {
		onStores(t, func(c *sessplus.Config) { c.SignID = true }, testIDs)
	})
}

func testIDs(t *testing.T, c *sidSite) {
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
		key := recordKey(c.cfg, id)
		if c.st.fs != nil { // where a slash would begin a collection
			key = strings.NewReplacer("%", "%25", "/", "%2F").Replace(key)
		}
		if _, ok := all[key]; !ok {
			t.Errorf("the store has no key %q", key)
		}
	}
}

// malformedIDs makes texts of an id that cannot be ids.
func malformedIDs(id string) map[string]string {
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
		"hash":          recordKey(sessplus.Config{CookieName: "sid"}, id),
		"hex":           hex.EncodeToString(make([]byte, 32)),
		"path":          "../../sessions/x",
	}
}

// SPEC 3.3
func TestForeignIDIsNeverAdopted(t *testing.T) {
	t.Parallel()
	const ( // what the backend may hear of it
		none = "[]"
		one  = "[load]"
	)
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		t.Parallel()
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
			k := setCookie(t, r, "sid")
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

		for name, text := range malformedIDs(id0) {
			refuse(name, text, none)
		}
		if c.cfg.SignID {
			refuse("unsigned", id0, none)
			refuse("unknown and unsigned", unknown, none)
			forged := []byte(good)
			forged[len(forged)/2] ^= 1
			refuse("forged", string(forged), none)
			strange := siblingCookie(t, c, "sid", "", sessplus.GenerateKeyPair())
			refuse("signed with another key", strange, none)
			refuse("another cookie's", siblingCookie(t, c, "other", "", testKeys...), none)
		} else {
			refuse("unknown", unknown, one)
			refuse("another cookie's", siblingCookie(t, c, "other", ""), one)
		}
		refuse("another prefix's", siblingCookie(t, c, "sid", "another:"), one)

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
