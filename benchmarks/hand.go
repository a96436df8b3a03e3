package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/fxamacker/cbor/v2"
	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
)

// This file is what one would write for each scenario alone, without a library for sessions, and as fast as it goes.

// A user is the session of four small fields.
type user struct {
	_      struct{} `cbor:",toarray"`
	UserID int
	Name   string
	Visits int
	Plan   string
}

// prefs is the second cookie of inThree.
type prefs struct {
	_     struct{} `cbor:",toarray"`
	Theme string
	Page  int
}

// The headers that caches need. net/http copies them, and so does every Add.
var (
	varyCookie = []string{"Cookie"}
	private    = []string{"private, no-cache"}
)

func openHand(e *env, s scenario) *app {
	switch s.place {
	case inCookie:
		return handCookie(s)
	case inRedis:
		return handRedis(e.redis(), s)
	case inThree:
		return handThree(e.redis(), s)
	case inBig:
		if s.do == read {
			return handBlob(e.redis(), cbor.Marshal, cbor.Unmarshal, false)
		}
		return handBigHash(e.redis(), false)
	case inFirestore:
		return handFirestore(e.firestore(), s)
	case inMemory:
		return handMemory(s)
	case inSQLite, inPostgres:
		return handSQL(e, s, 0)
	}
	return nil
}

func setCookie(w http.ResponseWriter, name, value string) {
	h := w.Header()
	h["Set-Cookie"] = append(h["Set-Cookie"], name+"="+value+"; Path=/; HttpOnly; SameSite=Lax")
	h["Cache-Control"] = private
}

func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// sessionID is the id that the request brings, or "".
func sessionID(r *http.Request) string {
	c, err := r.Cookie("session")
	if err != nil || len(c.Value) != 43 {
		return ""
	}
	return c.Value
}

// handler marks the response as one that depends on a cookie.
func handler(f func(w http.ResponseWriter, r *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Vary"] = varyCookie
		answer(w, f(w, r))
	})
}

// cborSerializer is for securecookie.
type cborSerializer struct{}

func (cborSerializer) Serialize(src any) ([]byte, error)     { return cbor.Marshal(src) }
func (cborSerializer) Deserialize(src []byte, dst any) error { return cbor.Unmarshal(src, dst) }

func newCodec() *securecookie.SecureCookie {
	return securecookie.New(hashKey, blockKey).SetSerializer(cborSerializer{})
}

func readCookie(codec *securecookie.SecureCookie, r *http.Request, name string, dst any) error {
	c, err := r.Cookie(name)
	if err != nil {
		return err
	}
	return codec.Decode(name, c.Value, dst)
}

func writeCookie(codec *securecookie.SecureCookie, w http.ResponseWriter, name string, src any) error {
	value, err := codec.Encode(name, src)
	if err == nil {
		setCookie(w, name, value)
	}
	return err
}

func handCookie(s scenario) *app {
	codec := newCodec()
	a := &app{
		login: func(w http.ResponseWriter, _ *http.Request) error {
			return writeCookie(codec, w, "session", &user{UserID: userID, Name: name, Plan: plan})
		},
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			var u user
			err := readCookie(codec, r, "session", &u)
			st.user(u)
			return err
		},
	}
	a.serve = handler(func(w http.ResponseWriter, r *http.Request) bool {
		var u user
		if readCookie(codec, r, "session", &u) != nil || u.UserID != userID {
			return false
		}
		if s.do == change {
			u.Visits = next()
			return writeCookie(codec, w, "session", &u) == nil
		}
		return true
	})
	return a
}

func (st *state) user(u user) {
	st.UserID, st.Name, st.Visits, st.Plan = u.UserID, u.Name, u.Visits, u.Plan
}

// handChange: KEYS record; ARGV expiry, then names and values. It answers 0 if the record has gone.
var handChange = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 1
`)

// handCreate: KEYS record; ARGV expiry, then names and values. No crash can leave a record that never expires.
var handCreate = redis.NewScript(`
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 1
`)

var errGone = errors.New("the session has gone")

func recordKey(id string) string { return "hand:" + id }

func expiry() int64 { return time.Now().Add(lifetime).UnixMilli() }

// loadUser reads the hash of a session.
func loadUser(ctx context.Context, rdb *redis.Client, id string) (user, error) {
	if id == "" {
		return user{}, errGone
	}
	hash, err := rdb.HGetAll(ctx, recordKey(id)).Result()
	if err != nil {
		return user{}, err
	}
	if len(hash) == 0 {
		return user{}, errGone
	}
	return user{UserID: atoi(hash["user_id"]), Name: hash["name"], Visits: atoi(hash["visits"]), Plan: hash["plan"]}, nil
}

func changeRecord(ctx context.Context, rdb *redis.Client, id, field string, value int) error {
	found, err := handChange.Run(ctx, rdb, []string{recordKey(id)}, expiry(), field, value).Int()
	if err == nil && found == 0 {
		err = errGone
	}
	return err
}

// createRecord stores a session by a pipeline: quicker than handCreate, and two steps for the server.
func createRecord(w http.ResponseWriter, r *http.Request, rdb *redis.Client, more ...any) error {
	id := newID()
	pipe := rdb.Pipeline()
	pipe.HSet(r.Context(), recordKey(id), append([]any{"user_id", userID, "name", name, "visits", 0, "plan", plan}, more...)...)
	pipe.PExpireAt(r.Context(), recordKey(id), time.Now().Add(lifetime))
	_, err := pipe.Exec(r.Context())
	if err == nil {
		setCookie(w, "session", id)
	}
	return err
}

// lazyKey is where untouched puts a session into the context of a request, for a handler that may want it.
type lazyKey struct{}

type lazy struct {
	rdb    *redis.Client
	r      *http.Request
	user   user
	loaded bool
}

func (l *lazy) get() (user, error) {
	var err error
	if !l.loaded {
		l.user, err = loadUser(l.r.Context(), l.rdb, sessionID(l.r))
		l.loaded = err == nil
	}
	return l.user, err
}

func handRedis(rdb *redis.Client, s scenario) *app {
	a := &app{
		login: func(w http.ResponseWriter, r *http.Request) error { return createRecord(w, r, rdb) },
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			u, err := loadUser(r.Context(), rdb, sessionID(r))
			st.user(u)
			return err
		},
	}
	switch s.do {
	case untouched:
		next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, true) })
		a.serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next(w, r.WithContext(context.WithValue(r.Context(), lazyKey{}, &lazy{rdb: rdb, r: r})))
		})
		a.show = func(_ http.ResponseWriter, r *http.Request, st *state) error {
			u, err := (&lazy{rdb: rdb, r: r}).get()
			st.user(u)
			return err
		}
	case read:
		a.serve = handler(func(_ http.ResponseWriter, r *http.Request) bool {
			u, err := loadUser(r.Context(), rdb, sessionID(r))
			return err == nil && u.UserID == userID
		})
	case change:
		a.serve = handler(func(_ http.ResponseWriter, r *http.Request) bool {
			id := sessionID(r)
			u, err := loadUser(r.Context(), rdb, id)
			return err == nil && u.UserID == userID && changeRecord(r.Context(), rdb, id, "visits", next()) == nil
		})
	case create:
		a.serve = handler(func(w http.ResponseWriter, r *http.Request) bool {
			id := newID()
			args := []any{expiry(), "user_id", userID, "name", name, "visits", 0, "plan", plan}
			if handCreate.Run(r.Context(), rdb, []string{recordKey(id)}, args...).Err() != nil {
				return false
			}
			setCookie(w, "session", id)
			return true
		})
	}
	return a
}

func handThree(rdb *redis.Client, s scenario) *app {
	codec := newCodec()
	readAll := func(r *http.Request) (token string, u user, p prefs, err error) {
		err = errors.Join(readCookie(codec, r, "csrf", &token), readCookie(codec, r, "prefs", &p))
		if err == nil {
			u, err = loadUser(r.Context(), rdb, sessionID(r))
		}
		return token, u, p, err
	}
	a := &app{
		login: func(w http.ResponseWriter, r *http.Request) error {
			return errors.Join(writeCookie(codec, w, "csrf", csrf), writeCookie(codec, w, "prefs", &prefs{Theme: theme}), createRecord(w, r, rdb))
		},
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			token, u, p, err := readAll(r)
			st.CSRF, st.Theme, st.Page = token, p.Theme, p.Page
			st.user(u)
			return err
		},
	}
	a.serve = handler(func(w http.ResponseWriter, r *http.Request) bool {
		if s.do == readCSRF {
			var token string
			return readCookie(codec, r, "csrf", &token) == nil && token == csrf
		}
		token, u, p, err := readAll(r)
		ok := err == nil && token == csrf && u.UserID == userID && p.Theme == theme
		if ok && s.do == change {
			p.Page = next()
			ok = writeCookie(codec, w, "prefs", &p) == nil
		}
		return ok
	})
	return a
}

// bigUser is the session of 50 KB, kept as one blob.
type bigUser struct {
	UserID int      `cbor:"1,keyasint" json:"user_id"`
	Name   string   `cbor:"2,keyasint" json:"name"`
	Visits int      `cbor:"3,keyasint" json:"visits"`
	Plan   string   `cbor:"4,keyasint" json:"plan"`
	Notes  []string `cbor:"5,keyasint" json:"notes"`
}

// handBlob keeps the big session as one blob. With skip, the handler decodes only the field that it wants.
func handBlob(rdb *redis.Client, marshal func(any) ([]byte, error), unmarshal func([]byte, any) error, skip bool) *app {
	load := func(r *http.Request, dst any) error {
		id := sessionID(r)
		if id == "" {
			return errGone
		}
		b, err := rdb.Get(r.Context(), recordKey(id)).Bytes()
		if err != nil {
			return err
		}
		return unmarshal(b, dst)
	}
	a := &app{
		login: func(w http.ResponseWriter, r *http.Request) error {
			id := newID()
			b, err := marshal(&bigUser{UserID: userID, Name: name, Plan: plan, Notes: notes})
			if err == nil {
				err = rdb.Set(r.Context(), recordKey(id), b, lifetime).Err()
			}
			setCookie(w, "session", id)
			return err
		},
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			var u bigUser
			err := load(r, &u)
			st.UserID, st.Name, st.Visits, st.Plan = u.UserID, u.Name, u.Visits, u.Plan
			for _, n := range u.Notes {
				st.Notes += len(n)
			}
			return err
		},
	}
	a.serve = handler(func(_ http.ResponseWriter, r *http.Request) bool {
		if skip {
			var u struct {
				UserID int `cbor:"1,keyasint"`
			}
			return load(r, &u) == nil && u.UserID == userID
		}
		var u bigUser
		return load(r, &u) == nil && u.UserID == userID
	})
	return a
}

// handBigHash keeps the big session as a hash, of which a request reads the field that it looks at, or all.
func handBigHash(rdb *redis.Client, all bool) *app {
	a := &app{
		login: func(w http.ResponseWriter, r *http.Request) error {
			var more []any
			for i, n := range notes {
				more = append(more, noteNames[i], n)
			}
			return createRecord(w, r, rdb, more...)
		},
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			hash, err := rdb.HGetAll(r.Context(), recordKey(sessionID(r))).Result()
			st.UserID, st.Name, st.Visits, st.Plan = atoi(hash["user_id"]), hash["name"], atoi(hash["visits"]), hash["plan"]
			for _, n := range noteNames {
				st.Notes += len(hash[n])
			}
			return err
		},
	}
	a.serve = handler(func(_ http.ResponseWriter, r *http.Request) bool {
		id := sessionID(r)
		if id == "" {
			return false
		}
		if all {
			u, err := loadUser(r.Context(), rdb, id)
			if err != nil || u.UserID != userID {
				return false
			}
		} else if n, err := rdb.HGet(r.Context(), recordKey(id), "user_id").Int(); err != nil || n != userID {
			return false
		}
		return changeRecord(r.Context(), rdb, id, "visits", next()) == nil
	})
	return a
}

// handDocument is a session in Firestore.
type handDocument struct {
	UserID  int       `firestore:"user_id"`
	Name    string    `firestore:"name"`
	Visits  int       `firestore:"visits"`
	Plan    string    `firestore:"plan"`
	Expires time.Time `firestore:"expires"`
}

func handFirestore(client *firestore.Client, s scenario) *app {
	sessions := client.Collection("hand")
	load := func(r *http.Request) (doc *firestore.DocumentRef, d handDocument, err error) {
		id := sessionID(r)
		if id == "" {
			return nil, d, errGone
		}
		doc = sessions.Doc(id)
		snap, err := doc.Get(r.Context())
		if err == nil {
			err = snap.DataTo(&d)
		}
		if err == nil && !d.Expires.After(time.Now()) {
			err = errGone
		}
		return doc, d, err
	}
	a := &app{
		login: func(w http.ResponseWriter, r *http.Request) error {
			id := newID()
			_, err := sessions.Doc(id).Create(r.Context(), handDocument{userID, name, 0, plan, time.Now().Add(lifetime)})
			setCookie(w, "session", id)
			return err
		},
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			_, d, err := load(r)
			st.user(user{UserID: d.UserID, Name: d.Name, Visits: d.Visits, Plan: d.Plan})
			return err
		},
	}
	a.serve = handler(func(_ http.ResponseWriter, r *http.Request) bool {
		doc, d, err := load(r)
		if err != nil || d.UserID != userID {
			return false
		}
		if s.do == change { // Update fails if the document has gone
			_, err = doc.Update(r.Context(), []firestore.Update{{Path: "visits", Value: next()}, {Path: "expires", Value: time.Now().Add(lifetime)}})
		}
		return err == nil
	})
	return a
}

func handMemory(s scenario) *app {
	type record struct {
		user
		expires time.Time
	}
	var mu sync.RWMutex // guards sessions
	sessions := make(map[string]record)
	load := func(r *http.Request) (id string, found record, ok bool) {
		id = sessionID(r)
		mu.RLock()
		found, ok = sessions[id]
		mu.RUnlock()
		return id, found, ok && found.expires.After(time.Now())
	}
	a := &app{
		login: func(w http.ResponseWriter, _ *http.Request) error {
			id := newID()
			mu.Lock()
			sessions[id] = record{user{UserID: userID, Name: name, Plan: plan}, time.Now().Add(lifetime)}
			mu.Unlock()
			setCookie(w, "session", id)
			return nil
		},
		show: func(_ http.ResponseWriter, r *http.Request, st *state) error {
			_, found, _ := load(r)
			st.user(found.user)
			return nil
		},
	}
	a.serve = handler(func(_ http.ResponseWriter, r *http.Request) bool {
		id, found, ok := load(r)
		if !ok || found.UserID != userID {
			return false
		}
		if s.do == change {
			n := next()
			mu.Lock()
			found, ok = sessions[id]
			if ok {
				found.Visits = n
				sessions[id] = found
			}
			mu.Unlock()
		}
		return ok
	})
	return a
}
