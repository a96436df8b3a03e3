package adopt

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/sessplus/sessplus"
)

// Gorilla imports from the cookies of a github.com/gorilla/sessions CookieStore, including those of
// gin-contrib/sessions/cookie and echo-contrib/session. keyPairs are the arguments of NewCookieStore. If the program
// called the store's MaxAge method, set Options.MaxAge to its argument, or to -1 if that was 0, which meant no limit.
// Setting the Options of the store, as gin's Options method does, only changed the browser's cookie: its content
// remained valid for 30 days, the default here. You may set a shorter MaxAge.
func Gorilla(o *Options, keyPairs ...[]byte) sessplus.Importer {
	i := newImporter("Gorilla", o)
	keys := i.newSealed(keyPairs)
	i.read = func(_ context.Context, cookie, value string) (found *sessplus.Imported, err error) {
		expires, err := keys.open(cookie, value, func(payload []byte) error {
			values, err := decodeMap(payload)
			found = &sessplus.Imported{Fields: fields(values)}
			return err
		})
		if err != nil {
			return nil, err
		}
		found.Expires = expires
		return found, nil
	}
	return i
}

// decodeMap decodes the Values of a gorilla session.
func decodeMap(data []byte) (values map[any]any, err error) {
	if err = decodeGob(data, &values); err != nil {
		values, err = splitMap(data)
	}
	return values, err
}

// sealed opens securecookies.
type sealed struct {
	codecs []*securecookie.SecureCookie
	age    time.Duration // how long one is good for; <0: no limit
}

func (i *importer) newSealed(keyPairs [][]byte) *sealed {
	s := &sealed{age: i.MaxAge}
	if s.age == 0 {
		s.age = 30 * 24 * time.Hour
	}
	if len(keyPairs) == 0 {
		i.bad = "no keys: give those of the old store"
	}
	for n := 0; n < len(keyPairs); n += 2 {
		var block []byte
		if n+1 < len(keyPairs) {
			block = append(block, keyPairs[n+1]...)
		}
		c := securecookie.New(append([]byte(nil), keyPairs[n]...), block)
		c.SetSerializer(securecookie.NopEncoder{}).MaxAge(0)
		if _, err := c.Encode("check", []byte{0}); err != nil {
			i.bad = "pair " + strconv.Itoa(n/2+1) + " of the keys cannot be used: the first of a pair must not be empty, " +
				"the second has 0, 16, 24 or 32 bytes"
		}
		s.codecs = append(s.codecs, c)
	}
	return s
}

// open gives decode the content of a securecookie under each pair of keys that fits, until it returns nil: pairs may
// differ in the block key only. It returns when the cookie ends.
func (s *sealed) open(cookie, value string, decode func(payload []byte) error) (expires time.Time, err error) {
	err = errForged
	for _, c := range s.codecs {
		var payload []byte
		if c.Decode(cookie, value, &payload) != nil {
			continue
		}
		// The date is good now: it was signed.
		text, _ := base64.URLEncoding.DecodeString(value)
		date, _, _ := strings.Cut(string(text), "|")
		seconds, _ := strconv.ParseInt(date, 10, 64)
		written := time.Unix(seconds, 0)
		if time.Until(written) > time.Minute {
			err = none("the cookie is from the future: a clock is wrong")
			continue
		}
		if s.age >= 0 {
			if expires = written.Add(s.age); !expires.After(time.Now()) {
				err = errExpired
				continue
			}
		}
		if decode(payload) == nil {
			return expires, nil
		}
		err = errDamaged
	}
	return time.Time{}, err
}
