package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus/internal/servers"
)

// A place is where a scenario keeps its session.
type place int

const (
	inCookie    place = iota // all in an encrypted cookie
	inRedis                  // all in one record
	inBig                    // the same, with 50 KB beside the small fields
	inThree                  // csrf in an encrypted cookie, the user in Redis, prefs in another encrypted cookie
	inFirestore              // all in one document
	inMemory                 // all in one record of this process
	inSQLite                 // all in one row of a file
	inPostgres               // all in one row of PostgreSQL
)

// An action is what the handler does with it.
type action int

const (
	untouched action = iota // nothing
	read                    // look at the user (inThree: at csrf, user and prefs)
	change                  // look at them and change one small field (inThree: of prefs)
	create                  // store all fields; the request comes without a cookie
	readCSRF                // look at csrf only
)

// A scenario is a kind of request that all libraries are measured with.
type scenario struct {
	Name  string
	What  string
	place place
	do    action
	goal  goal
	trips int // the round trips to Redis that the handlers of "hand" and "sessplus" make
}

// A goal is what sessplus shall reach in a scenario. What is zero is not asked.
type goal struct {
	ratio   float64 // at most this many times the time of "hand"
	ns      float64 // at most this long
	allocs  float64 // at most so many
	gorilla float64 // at least this many times faster than "gorilla"
}

func (g goal) String() string {
	var list []string
	if g.ratio > 0 {
		list = append(list, fmt.Sprintf("≤ %.2f × hand", g.ratio))
	}
	if g.ns > 0 {
		list = append(list, "≤ "+duration(g.ns))
	}
	if g.allocs > 0 {
		list = append(list, fmt.Sprintf("≤ %g allocs", g.allocs))
	}
	if g.gorilla > 0 {
		list = append(list, fmt.Sprintf("≥ %g × faster than gorilla", g.gorilla))
	}
	return strings.Join(list, ", ")
}

var scenarios = []scenario{
	{"untouched-redis", "the request has a session cookie, the handler does not touch the session", inRedis, untouched, goal{ns: 1200, allocs: 6}, 0},
	{"read-cookie", "secure cookie: read", inCookie, read, goal{ratio: 1.5, gorilla: 5}, 0},
	{"change-cookie", "secure cookie: read, change a field", inCookie, change, goal{ratio: 1.5}, 0},
	{"read-redis", "Redis: read", inRedis, read, goal{ratio: 1.15}, 1},
	{"change-redis", "Redis: read, change a field", inRedis, change, goal{ratio: 1.10}, 2},
	{"new-redis", "Redis: no cookie yet, store four fields", inRedis, create, goal{ratio: 1.10}, 1},
	{"three-read", "csrf in a cookie, user in Redis, prefs in a cookie: read all", inThree, read, goal{ratio: 1.12}, 1},
	{"three-changed", "the same: read all, change prefs", inThree, change, goal{ratio: 1.12}, 1},
	{"three-one", "the same: read csrf only", inThree, readCSRF, goal{ratio: 1.5}, 0},
	{"big-read", "Redis, 50 KB: read a small field", inBig, read, goal{ratio: 0.7}, 1},
	{"big-change", "Redis, 50 KB: read a small field, change a small field", inBig, change, goal{ratio: 1.3}, 2},
	{"firestore-read", "Firestore: read", inFirestore, read, goal{ratio: 1.05}, 0},
	{"firestore-change", "Firestore: read, change a field", inFirestore, change, goal{ratio: 1.05}, 0},
	{"memory-read", "memory: read", inMemory, read, goal{}, 0},
	{"memory-change", "memory: read, change a field", inMemory, change, goal{}, 0},
	{"sqlite-read", "SQLite: read", inSQLite, read, goal{ratio: 1.15}, 0},
	{"sqlite-change", "SQLite: read, change a field", inSQLite, change, goal{ratio: 1.15}, 0},
	{"sqlite-new", "SQLite: no cookie yet, store four fields", inSQLite, create, goal{ratio: 1.15}, 0},
	{"postgres-read", "PostgreSQL: read", inPostgres, read, goal{ratio: 1.15}, 0},
	{"postgres-change", "PostgreSQL: read, change a field", inPostgres, change, goal{ratio: 1.15}, 0},
	{"postgres-new", "PostgreSQL: no cookie yet, store four fields", inPostgres, create, goal{ratio: 1.15}, 0},
}

// The session that all of them begin with.
const (
	userID = 42
	name   = "Ann"
	plan   = "gold"
	csrf   = "k3VwZQ0bJx1mYl8sTt5dAaHn2RfCq7EuoGzI9WvNpXY"
	theme  = "dark"
)

// notes is what makes a record big: 50 fields of 1 KB.
var notes = func() []string {
	list := make([]string, 50)
	for i := range list {
		list[i] = strings.Repeat(fmt.Sprintf("note %02d, ten ", i), 77)[:1000]
	}
	return list
}()

// noteNames are the names of their fields.
var noteNames = func() []string {
	list := make([]string, len(notes))
	for i := range list {
		list[i] = fmt.Sprintf("note%02d", i)
	}
	return list
}()

// lifetime is how long the sessions of all libraries live.
const lifetime = 24 * time.Hour

// The keys of all secure cookies: to sign and to encrypt.
var hashKey, blockKey = randomBytes(32), randomBytes(32)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

var changes atomic.Int64

// next is the value that a changed field gets: always another one.
func next() int { return int(changes.Add(1)) }

// A state is what is stored, for the tests to compare.
type state struct {
	UserID int
	Name   string
	Visits int // what a change changes, but inThree
	Plan   string
	CSRF   string
	Theme  string
	Page   int // what a change changes inThree
	Notes  int // bytes
}

// first is the state after the login.
func (s scenario) first() state {
	st := state{UserID: userID, Name: name, Plan: plan}
	if s.place == inThree {
		st.CSRF, st.Theme = csrf, theme
	}
	if s.place == inBig {
		for _, n := range notes {
			st.Notes += len(n)
		}
	}
	return st
}

// An app is a scenario as a program with one of the libraries has it. Its handlers answer 204.
type app struct {
	login func(w http.ResponseWriter, r *http.Request) error           // stores the first state
	serve http.Handler                                                 // what is measured
	show  func(w http.ResponseWriter, r *http.Request, s *state) error // reads everything
}

// A library opens the app of a scenario, or returns nil where it has no such thing.
type library struct {
	Name string
	open func(e *env, s scenario) *app
}

var libraries = []library{
	{"hand", openHand},
	{"scs", openSCS},
	{"gorilla", openGorilla},
	{"sessplus", openSessplus},
}

// otherWays are further ways to write a scenario, so that nobody needs to guess.
var otherWays = []library{
	{"hand-pipeline", openHandPipeline},
	{"hand-json", openHandJSON},
	{"hand-skip", openHandSkip},
	{"hand-all", openHandAll},
	{"hand-blind", openHandBlind},
	{"hand-bounded", openHandBounded},
	{"sessplus-whole", openSessplusWhole},
}

// env has the servers that apps use. They start when the first app needs them, and end with tb.
type env struct {
	tb            testing.TB
	redisArgs     []string
	redisAddr     string
	firestoreAddr string
	postgres      string // its DSN
}

// redis opens a client for one app.
func (e *env) redis() *redis.Client {
	if e.redisAddr == "" {
		e.redisAddr = servers.NewRedis(e.tb, e.redisArgs...).Addr
	}
	c := redis.NewClient(&redis.Options{Addr: e.redisAddr})
	e.tb.Cleanup(func() { c.Close() })
	return c
}

// firestore opens a client for one app, in a project of its own.
func (e *env) firestore() *firestore.Client {
	if e.firestoreAddr == "" {
		_, e.firestoreAddr = servers.NewFirestoreEmulator(e.tb)
	}
	return servers.FirestoreClient(e.tb, e.firestoreAddr)
}

// must ends the run or the test on an error that leaves nothing to measure.
func (e *env) must(err error) {
	if err != nil {
		e.tb.Helper()
		e.tb.Fatal(err)
	}
}

// logIn returns a request that carries the cookies of a new session.
func (a *app) logIn(s scenario) (*http.Request, error) {
	r := httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
	if s.do == create {
		return r, nil
	}
	w := httptest.NewRecorder()
	if err := a.login(w, r); err != nil {
		return nil, err
	}
	r = httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
	addCookies(r, w.Result().Cookies())
	return r, nil
}

// addCookies gives the request the cookies, in place of those of the same name.
func addCookies(r *http.Request, cookies []*http.Cookie) {
	old := r.Cookies()
	r.Header.Del("Cookie")
	for _, c := range old {
		replaced := false
		for _, k := range cookies {
			replaced = replaced || k.Name == c.Name
		}
		if !replaced {
			r.AddCookie(c)
		}
	}
	for _, c := range cookies {
		r.AddCookie(c)
	}
}

// atoi is for the numbers of a Redis hash. Zero is no user.
func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// answer ends a handler: 204, or 500 if the session did not hold what it should.
func answer(w http.ResponseWriter, ok bool) {
	if ok {
		w.WriteHeader(http.StatusNoContent)
	} else {
		w.WriteHeader(http.StatusInternalServerError)
	}
}
