package adopt

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/sha3"
	"encoding/base64"
	"encoding/json"
	"hash"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// FlaskSessionPlus imports from the secure cookies of flask-session-plus. secret is the application's SECRET_KEY.
// Options.MaxAge is its cookie_max_age. Without one, such a cookie is valid forever, so set Until.
//
// Tuples become lists, Markup and UUIDs become text, bytes become a []byte, dates a [time.Time], whole numbers an int64
// (or a [json.Number] if they are too large), and other numbers a float64.
func FlaskSessionPlus(secret string, o *Options) sessplus.Importer {
	i := newImporter("FlaskSessionPlus", o)
	if secret == "" {
		i.bad = "the secret is empty: give the application's SECRET_KEY"
	}
	key := mac(sha3New, []byte(secret), "cookie-session")
	i.read = func(_ context.Context, _, value string) (*sessplus.Imported, error) {
		signed, ok := verify(sha3New, key, value)
		if !ok {
			return nil, errForged
		}
		dot := strings.LastIndexByte(signed, '.')
		if dot < 0 {
			return nil, errForged
		}
		found := new(sessplus.Imported)
		if i.MaxAge > 0 {
			written, ok := flaskTime(signed[dot+1:])
			if !ok {
				return nil, errDamaged
			}
			found.Expires = written.Add(i.MaxAge)
		}
		values, err := flaskValues(signed[:dot])
		if err != nil {
			return nil, errDamaged
		}
		found.Permanent = truth(values["_permanent"])
		delete(values, "_permanent")
		found.Fields = fields(values)
		return found, nil
	}
	return i
}

func sha3New() hash.Hash { return sha3.New256() }

func mac(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	io.WriteString(m, text)
	return m.Sum(nil)
}

// verify returns what stands before the signature, if that is good.
func verify(h func() hash.Hash, key []byte, value string) (signed string, ok bool) {
	dot := strings.LastIndexByte(value, '.')
	if dot < 0 {
		return "", false
	}
	sig, err := base64.RawURLEncoding.DecodeString(value[dot+1:])
	return value[:dot], err == nil && hmac.Equal(sig, mac(h, key, value[:dot]))
}

// flaskTime decodes the seconds since 1970 of a signed value.
func flaskTime(text string) (time.Time, bool) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(data) == 0 || len(data) > 6 {
		return time.Time{}, false
	}
	var seconds int64
	for _, b := range data {
		seconds = seconds<<8 | int64(b)
	}
	return time.Unix(seconds, 0), true
}

// maxInflated is how much is read of a payload that is compressed: a cookie holds 4 kB.
const maxInflated = 1 << 20

// flaskValues decodes the payload of a cookie, whose signature is good.
func flaskValues(payload string) (map[string]any, error) {
	text, compressed := strings.CutPrefix(payload, ".")
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil && compressed {
		var z io.ReadCloser
		if z, err = zlib.NewReader(bytes.NewReader(data)); err == nil {
			data, err = io.ReadAll(io.LimitReader(z, maxInflated+1))
		}
	}
	if err != nil || len(data) > maxInflated {
		return nil, errDamaged
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	values, ok := untag(tree).(map[string]any)
	if !ok {
		return nil, errDamaged
	}
	return values, nil
}

// untag replaces what Flask writes for the types that JSON lacks: an object with one key that begins with a space.
func untag(tree any) any {
	switch t := tree.(type) {
	case json.Number:
		return number(t)
	case []any:
		for i := range t {
			t[i] = untag(t[i])
		}
	case map[string]any:
		for k := range t {
			t[k] = untag(t[k])
		}
		if len(t) == 1 {
			for tag, v := range t {
				return tagged(t, tag, v)
			}
		}
	}
	return tree
}

// tagged returns the value that the object with this one key stands for.
func tagged(object map[string]any, tag string, v any) any {
	text, isText := v.(string)
	switch {
	case tag == " t": // a tuple
		return v
	case tag == " m" && isText: // Markup
		return v
	case tag == " di": // an object that looks like one of these
		if m, ok := v.(map[string]any); ok && len(m) == 1 {
			for k, x := range m {
				return map[string]any{strings.TrimSuffix(k, "__"): x}
			}
		}
	case tag == " b" && isText:
		if data, err := base64.StdEncoding.DecodeString(text); err == nil {
			return data
		}
	case tag == " u" && isText && len(text) == 32:
		return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
	case tag == " d" && isText:
		if date, err := http.ParseTime(text); err == nil {
			return date
		}
	}
	return object
}

// number converts a JSON number to the type that holds it.
func number(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	if f, err := n.Float64(); err == nil && (strings.ContainsAny(n.String(), ".eE") || math.Abs(f) < 1<<53) {
		return f
	}
	if u, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		return u
	}
	return n
}

// truth is what Python makes of a value.
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case int64:
		return v != 0
	}
	return true
}
