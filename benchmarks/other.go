package main

import (
	"encoding/json"
	"net/http"

	"github.com/fxamacker/cbor/v2"
	"github.com/sessplus/sessplus"
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

// openHandPipeline creates a session by two commands that are sent together.
func openHandPipeline(e *env, s scenario) *app {
	if s.place != inRedis || s.do != create {
		return nil
	}
	rdb := e.redis()
	a := handRedis(rdb, s)
	a.serve = handler(func(w http.ResponseWriter, r *http.Request) bool { return createRecord(w, r, rdb) == nil })
	return a
}

// openSessplusWhole keeps the big session in one record, of which every request loads all.
func openSessplusWhole(e *env, s scenario) *app {
	if s.place != inBig {
		return nil
	}
	return sessplusIn(newManager(e, sessplus.Config{CookieName: "session", Backend: sessplus.Redis(e.redis())}), s)
}
