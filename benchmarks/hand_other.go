package main

import (
	"encoding/json"
	"net/http"

	"github.com/fxamacker/cbor/v2"
	"github.com/redis/go-redis/v9"
)

// openHandJSON reads the big session from a blob of JSON.
func openHandJSON(e *env, s scenario) *app {
	if s.place != inBig || s.do != read {
		return nil
	}
	return handBlob(e.redis(), json.Marshal, json.Unmarshal, false)
}

// openHandSkip reads the big session from a blob of CBOR and decodes one field.
func openHandSkip(e *env, s scenario) *app {
	if s.place != inBig || s.do != read {
		return nil
	}
	return handBlob(e.redis(), cbor.Marshal, cbor.Unmarshal, true)
}

// openHandAll reads all of the big session's hash before it changes a field.
func openHandAll(e *env, s scenario) *app {
	if s.place != inBig || s.do != change {
		return nil
	}
	return handBigHash(e.redis(), true)
}

// openHandBlind changes a field of a session in Redis without reading anything, so that it does not know who asks.
func openHandBlind(e *env, s scenario) *app {
	if s.place != inRedis && s.place != inBig || s.do != change {
		return nil
	}
	rdb := e.redis()
	a := handRedis(rdb, s)
	if s.place == inBig {
		a = handBigHash(rdb, true)
	}
	a.serve = handler(func(_ http.ResponseWriter, r *http.Request) bool {
		id := sessionID(r)
		return id != "" && changeRecord(r.Context(), rdb, id, "visits", next()) == nil
	})
	return a
}

// handCreate: KEYS record; ARGV expiry, then names and values.
var handCreate = redis.NewScript(`
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 1
`)

// openHandScript creates a session in one atomic step, so that no crash can leave one that never expires.
func openHandScript(e *env, s scenario) *app {
	if s.place != inRedis || s.do != create {
		return nil
	}
	rdb := e.redis()
	a := handRedis(rdb, s)
	a.serve = handler(func(w http.ResponseWriter, r *http.Request) bool {
		id := newID()
		args := []any{expiry(), "user_id", userID, "name", name, "visits", 0, "plan", plan}
		if handCreate.Run(r.Context(), rdb, []string{recordKey(id)}, args...).Err() != nil {
			return false
		}
		setCookie(w, "session", id)
		return true
	})
	return a
}
