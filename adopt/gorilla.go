package adopt

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
)

// Gorilla imports from the cookies of a github.com/gorilla/sessions CookieStore, including those of
// gin-contrib/sessions/cookie and echo-contrib/session. keyPairs are the arguments of NewCookieStore. If the program
// called the store's MaxAge method, Options.MaxAge is its argument, or -1 for 0, which meant no limit. Setting the
// Options of the store, as gin's Options method does, only changed the browser's cookie: its content remained valid for
// 30 days, the default here. A shorter MaxAge is fine.
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

// RediStore imports the sessions of github.com/boj/redistore, including those of gin-contrib/sessions/redis and
// echo-contrib/session: a signed cookie with an id, and a string in Redis under "session_" and the id. keyPairs are the
// arguments of NewRediStore. As there, a session ends when its string expires or its cookie is older than MaxAge.
func RediStore(c redis.UniversalClient, o *Options, keyPairs ...[]byte) sessplus.Importer {
	i := newImporter("RediStore", o)
	keys := i.newSealed(keyPairs)
	if c == nil {
		i.bad = "the client is nil"
	}
	prefix := i.prefix("session_")
	i.read = func(ctx context.Context, cookie, value string) (*sessplus.Imported, error) {
		var id string
		expires, err := keys.open(cookie, value, func(payload []byte) error { return decodeGob(payload, &id) })
		if err != nil {
			return nil, err
		}
		if id == "" {
			return nil, errUnknown
		}
		found, err := i.stored(ctx, c, prefix+id, value, id)
		if err != nil {
			return nil, err
		}
		found.Expires = earlier(found.Expires, expires)
		return found, nil
	}
	return i
}

// RedisStore imports the sessions of github.com/rbcervilla/redisstore/v9: a cookie that is an id, and a string in Redis
// under "session:" and the id. The id must consist of 16 to 256 letters, digits, "-", "_", "+", "/", "=" and ".", which
// any sensible KeyGen generates.
func RedisStore(c redis.UniversalClient, o *Options) sessplus.Importer {
	i := newImporter("RedisStore", o)
	if c == nil {
		i.bad = "the client is nil"
	}
	prefix := i.prefix("session:")
	i.read = func(ctx context.Context, _, id string) (*sessplus.Imported, error) {
		// Nobody has signed it, and a colon could lead to other keys of the program.
		if len(id) < 16 || len(id) > 256 || strings.Trim(id, idBytes) != "" {
			return nil, errNotOurs
		}
		return i.stored(ctx, c, prefix+id, id)
	}
	return i
}

const idBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=."

// stored reads the values that a gorilla store keeps in Redis under the key. secrets must not be in the text of an
// error.
func (i *importer) stored(ctx context.Context, c redis.UniversalClient, key string, secrets ...string) (*sessplus.Imported, error) {
	data, expires, err := getRedis(ctx, c, key)
	switch {
	case err == errUnknown:
		return nil, err
	case err != nil:
		return nil, down(err, secrets...)
	case len(data) > maxStored:
		return nil, errDamaged
	}
	found := &sessplus.Imported{
		Expires: expires,
		Forget:  func(ctx context.Context) error { return down(c.Del(ctx, key).Err(), secrets...) },
	}
	if i.JSON {
		var values map[string]any
		err = json.Unmarshal(data, &values)
		found.Fields = fields(values)
	} else {
		var values map[any]any
		values, err = decodeMap(data)
		found.Fields = fields(values)
	}
	if err != nil {
		return nil, errDamaged
	}
	return found, nil
}

// getRedis returns the string under the key, and when it expires. In a transaction a Cluster client asks the master: a
// replica may not have heard of the session yet.
func getRedis(ctx context.Context, c redis.UniversalClient, key string) (data []byte, expires time.Time, err error) {
	var get *redis.StringCmd
	var ttl *redis.DurationCmd
	_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		get, ttl = p.Get(ctx, key), p.PTTL(ctx, key)
		return nil
	})
	switch {
	case get.Err() == redis.Nil, redis.HasErrorPrefix(get.Err(), "WRONGTYPE"), get.Err() == nil && ttl.Val() == -2:
		return nil, time.Time{}, errUnknown
	case err != nil:
		return nil, time.Time{}, err
	}
	if ttl.Val() >= 0 {
		expires = time.Now().Add(ttl.Val())
	}
	data, err = get.Bytes()
	return data, expires, err
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
