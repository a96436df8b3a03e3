//go:build !noredis

package adopt

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
)

// SCSRedis is [SCS] for sessions that scs/redisstore or scs/goredisstore has stored in Redis. It needs only a client,
// not these packages, which have no releases. The default Prefix is "scs:session:".
func SCSRedis(c redis.UniversalClient, o *Options) sessplus.Importer {
	i := newImporter("SCSRedis", o)
	if c == nil {
		i.bad = "the client is nil"
		return i
	}
	prefix := i.prefix("scs:session:")
	find := func(ctx context.Context, token string) ([]byte, bool, error) {
		data, _, err := getRedis(ctx, c, prefix+token)
		if err == errUnknown {
			return nil, false, nil
		}
		return data, err == nil, err
	}
	remove := func(ctx context.Context, token string) error { return c.Del(ctx, prefix+token).Err() }
	i.read = i.scs(nil, find, remove)
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
