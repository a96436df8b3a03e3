package sessplus

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

var formatKeys = []KeyPair{DeriveKeyPair([]byte("a secret of thirty-two bytes or more"))}

// releasedCookie is a secure cookie named "n" as version 1 of the format wrote it, and when.
func releasedCookie(t testing.TB) (text string, written time.Time) {
	data, err := os.ReadFile("testdata/securecookie-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	text = strings.TrimSpace(string(data))
	var content sealedContent
	_, err = newSealer(formatKeys).open("n", text, &data, &content)
	if err != nil {
		t.Fatal(err)
	}
	return text, content.written
}

// Cookies that a released version wrote are read by every later one.
func TestReleasedCookie(t *testing.T) {
	t.Parallel()
	text, written := releasedCookie(t)
	c := newCookie(0, Config{CookieName: "n", Keys: formatKeys}, nil)
	r, older, err := c.unseal(text, nil, nil, written)
	if err != nil || older || !r.Permanent || len(r.Fields) != 2 || r.Fields[0].Name != "a" || string(r.Fields[1].Value) != `"x"` {
		t.Errorf("unseal = %+v, %v, %v", r, older, err)
	}
}

// FuzzCookie opens arbitrary text as a secure cookie: nothing but what was sealed is accepted, and nothing panics.
func FuzzCookie(f *testing.F) {
	text, written := releasedCookie(f)
	c := newCookie(0, Config{CookieName: "n", MaxChunks: 3, Keys: formatKeys}, nil)
	for _, seed := range []string{
		"", text, text + "=", text[1:], text[:len(text)-1], "2." + text, "1." + text, strings.Repeat("A", 5000), "20.x.y", "MXx8",
		text[:len(text)-2] + "R=", "2.tag." + text[:50],
	} {
		f.Add(seed, "tag."+text[50:])
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		r, _, err := c.unseal(first, []candidate{{first, 0}, {second, 1}}, nil, written)
		whole := strings.TrimPrefix(first, "2.tag.") + strings.TrimPrefix(second, "tag.")
		if err == nil && first != text && whole != text {
			t.Errorf("unseal(%q, %q) = %+v", first, second, r)
		}
		if err != nil && len(first) > 12 && strings.Contains(err.Error(), first) {
			t.Errorf("the error quotes the cookie: %v", err)
		}
	})
}

// FuzzContent decodes arbitrary bytes as the content of a secure cookie, and encodes again what it accepts.
func FuzzContent(f *testing.F) {
	now := time.UnixMilli(1700000000123)
	f.Add((&sealedContent{now, true, bytes.Repeat([]byte{7}, 32), []RawField{{"a", []byte("1")}, {"b", nil}}}).encode())
	f.Add((&sealedContent{written: now}).encode())
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 'a', 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, again sealedContent
		err := first.decode(bytes.Clone(data))
		if err != nil {
			return
		}
		err = again.decode(first.encode())
		if err != nil || first.permanent != again.permanent || !first.written.Equal(again.written) || !bytes.Equal(first.bound, again.bound) ||
			len(again.fields) != len(first.fields) {
			t.Fatalf("decoded %+v, then %+v, %v", first, again, err)
		}
		for i := range again.fields {
			if again.fields[i].Name != first.fields[i].Name || !bytes.Equal(again.fields[i].Value, first.fields[i].Value) {
				t.Errorf("field %d: %v, then %v", i, first.fields[i], again.fields[i])
			}
		}
	})
}

// FuzzRecord decodes arbitrary hashes of Redis and documents of Firestore as records: each is a record with all its
// parts, or none.
func FuzzRecord(f *testing.F) {
	f.Add(`{":record":"1 1700000000000 p",":expires":"1700000000000",":saved":"1700000000000","a":"1","::b":"2"}`)
	f.Add(`{":record":"2 x",":expires":"","":""}`)
	f.Add(`{":record":"1 1 -",":expires":"9223372036854775807",":saved":"-9223372036854775808",":":"",":other":""}`)
	f.Add(`{"created_at":0,"saved_at":0,"expires_at":0,"permanent":true,"fields":{"~__x__":"1","n":2}}`)
	f.Add(`{"created_at":0,"saved_at":0,"expires_at":0,"fields":{}}`)
	f.Add(`{"version":2,"created_at":0,"saved_at":0,"expires_at":0,"fields":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		hash := make(map[string]string)
		if json.Unmarshal([]byte(text), &hash) == nil {
			if r, err := decodeRedis(hash); err == nil {
				for _, field := range r.Fields {
					if hash[redisName2(field.Name)] != string(field.Value) {
						t.Errorf("decodeRedis(%q) has %q=%q", hash, field.Name, field.Value)
					}
				}
			}
		}
		doc := make(map[string]any)
		d := json.NewDecoder(strings.NewReader(text))
		if d.Decode(&doc) != nil {
			return
		}
		for key, value := range doc { // JSON has neither whole numbers nor times
			if n, ok := value.(float64); ok {
				doc[key] = int64(n)
				if strings.HasSuffix(key, "_at") {
					doc[key] = time.Unix(int64(n), 0)
				}
			}
		}
		decodeFirestore(doc, time.Now())
	})
}

// redisName2 is redisName, also for the empty name, which only a foreign hash has.
func redisName2(name string) string {
	if name == "" {
		return ""
	}
	return redisName(name)
}

// FuzzID accepts exactly the texts of 32 bytes.
func FuzzID(f *testing.F) {
	f.Add(newID())
	f.Add("")
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("A", 42) + "B")
	f.Add(strings.Repeat("A", 42) + "\n")
	f.Add(strings.Repeat("A", 42) + "=")
	f.Add(strings.Repeat("A", 42) + "Q")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if want := err == nil && len(b) == idBytes && len(text) == 43; validID(text) != want {
			t.Errorf("validID(%q) = %v, want %v", text, !want, want)
		}
	})
}
