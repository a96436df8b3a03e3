package e2e

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"testing"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	scsredigo "github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/boj/redistore"
	ginsessions "github.com/gin-contrib/sessions"
	gincookie "github.com/gin-contrib/sessions/cookie"
	ginredis "github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"
	"github.com/gomodule/redigo/redis"
	"github.com/gorilla/sessions"
	echosession "github.com/labstack/echo-contrib/session"
	"github.com/labstack/echo/v4"
	"github.com/rbcervilla/redisstore/v9"
	goredis "github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
	"github.com/sessplus/sessplus/internal/servers"
)

var update = flag.Bool("update", false, "write ../testdata")

func TestMain(m *testing.M) { servers.Main(m) }

// The types of the program that moves, under names that do not depend on this package.
type (
	Cart   struct{ Items []Item }
	Item   struct{ Name string }
	Legacy struct{ Since time.Time } // which the moved program does not have any more
)

func init() {
	gob.RegisterName("example.com/shop.Cart", Cart{})
	gob.RegisterName("example.com/shop.Legacy", Legacy{})
	gob.Register(map[any]any{})
	gob.Register(time.Time{})
	gin.SetMode(gin.ReleaseMode)
}

var (
	hashKey  = []byte("a key of some length, as gorilla takes it")
	blockKey = []byte("0123456789abcdef0123456789abcdef")
	at       = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
)

// values are what the programs put into a session, as a gob keeps them.
func values() map[string]any {
	return map[string]any{
		"user_id": uint(42), "n": 7, "name": "Zoë", "admin": true, "at": at, "raw": []byte{0, 255}, "cart": Cart{[]Item{{"tea"}}},
		"prefs": map[any]any{"dark": true, 1: []byte("x")}, "legacy": Legacy{at},
	}
}

// wanted are the fields that values become.
func wanted() map[string]any {
	want := values()
	want["prefs"] = map[string]any{"dark": true, "1": []byte("x")}
	return want
}

// A sample is what a program on a former library has left: in the browser, and in its store.
type sample struct {
	Library string            `json:"library"` // with its version
	Cookie  string            `json:"cookie"`
	Value   string            `json:"value"`
	Keys    [][]byte          `json:"keys,omitempty"`
	Store   map[string][]byte `json:"store,omitempty"` // strings of Redis
}

// A former is a program on a former library.
type former struct {
	name     string
	module   string
	keys     [][]byte
	redis    bool
	store    bool // there is one, but not in Redis
	json     bool
	flash    string // the name of its flashes
	open     func(t *testing.T, c *goredis.Client) http.Handler
	importer func(t *testing.T, c *goredis.Client, o *adopt.Options, keys [][]byte) sessplus.Importer
	options  adopt.Options
}

// The programs know three requests: /login fills the session and adds two flashes, /who answers its user_id, or 401,
// and /visit does the same and saves the session, as programs do in which each visit starts its age anew.

func gorillaHandler(get func(r *http.Request) (*sessions.Session, error), text bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := get(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if r.URL.Path == "/login" {
			fillGorilla(s, text)
			if err := s.Save(r, w); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
			return
		}
		if user := s.Values["user_id"]; user != nil && r.URL.Path == "/visit" {
			s.Values["visits"] = "many"
			if err := s.Save(r, w); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		who(w, s.Values["user_id"])
	})
}

func fillGorilla(s *sessions.Session, text bool) {
	if text {
		s.Values["user_id"], s.Values["name"] = 42, "Zoë"
		return
	}
	for k, v := range values() {
		s.Values[k] = v
	}
	s.AddFlash("saved")
	s.AddFlash(Cart{[]Item{{"flash"}}})
}

func who(w http.ResponseWriter, user any) {
	if user == nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	fmt.Fprint(w, user)
}

func scsHandler(m *scs.SessionManager) http.Handler {
	m.Lifetime = 100 * 365 * 24 * time.Hour // the bytes are kept
	return m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			for k, v := range values() {
				m.Put(r.Context(), k, v)
			}
			m.RememberMe(r.Context(), true)
			return
		}
		if r.URL.Path == "/visit" && m.Exists(r.Context(), "user_id") {
			m.Put(r.Context(), "visits", "many")
		}
		who(w, m.Get(r.Context(), "user_id"))
	}))
}

func pool(c *goredis.Client) *redis.Pool {
	return &redis.Pool{Dial: func() (redis.Conn, error) {
		return redis.Dial("tcp", c.Options().Addr, redis.DialDatabase(c.Options().DB))
	}}
}

func rediStore(t *testing.T, c *goredis.Client) *redistore.RediStore {
	s, err := redistore.NewRediStoreWithPool(pool(c), hashKey, blockKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func cookieStore() *sessions.CookieStore { return sessions.NewCookieStore(hashKey, blockKey) }

func named(s sessions.Store) func(r *http.Request) (*sessions.Session, error) {
	return func(r *http.Request) (*sessions.Session, error) { return s.Get(r, "session") }
}

func ginHandler(s ginsessions.Store) http.Handler {
	e := gin.New()
	e.Use(ginsessions.Sessions("session", s))
	e.GET("/login", func(c *gin.Context) {
		session := ginsessions.Default(c)
		for k, v := range values() {
			session.Set(k, v)
		}
		session.AddFlash("saved")
		session.AddFlash(Cart{[]Item{{"flash"}}})
		if err := session.Save(); err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
		}
	})
	e.GET("/who", func(c *gin.Context) { who(c.Writer, ginsessions.Default(c).Get("user_id")) })
	return e
}

func echoHandler(s sessions.Store) http.Handler {
	e := echo.New()
	e.Use(echosession.Middleware(s))
	e.GET("/*", func(c echo.Context) error {
		gorillaHandler(func(*http.Request) (*sessions.Session, error) { return echosession.Get("session", c) }, false).
			ServeHTTP(c.Response(), c.Request())
		return nil
	})
	return e
}

func gorilla(_ *testing.T, _ *goredis.Client, o *adopt.Options, keys [][]byte) sessplus.Importer {
	return adopt.Gorilla(o, keys...)
}

func boj(_ *testing.T, c *goredis.Client, o *adopt.Options, keys [][]byte) sessplus.Importer {
	return adopt.RediStore(c, o, keys...)
}

func scsRedis(_ *testing.T, c *goredis.Client, o *adopt.Options, _ [][]byte) sessplus.Importer {
	return adopt.SCSRedis(c, o)
}

var pair = [][]byte{hashKey, blockKey}

// memory is the store of the program on scs's memstore.
var memory = memstore.New()

var formers = []former{
	{name: "scs-memory", module: "github.com/alexedwards/scs/v2", store: true,
		open: func(*testing.T, *goredis.Client) http.Handler {
			m := scs.New()
			m.Store = memory
			return scsHandler(m)
		},
		importer: func(_ *testing.T, _ *goredis.Client, o *adopt.Options, _ [][]byte) sessplus.Importer {
			return adopt.SCS(memory, o)
		}},
	{name: "scs-redis", module: "github.com/alexedwards/scs/redisstore", redis: true, importer: scsRedis,
		open: func(_ *testing.T, c *goredis.Client) http.Handler {
			m := scs.New()
			m.Store = scsredigo.New(pool(c))
			return scsHandler(m)
		}},
	{name: "scs-goredis-hashed", module: "github.com/alexedwards/scs/goredisstore", redis: true,
		options: adopt.Options{HashToken: true}, // through its store, which has only methods with a context
		importer: func(_ *testing.T, c *goredis.Client, o *adopt.Options, _ [][]byte) sessplus.Importer {
			return adopt.SCS(goredisstore.New(c), o)
		},
		open: func(_ *testing.T, c *goredis.Client) http.Handler {
			m := scs.New()
			m.Store, m.HashTokenInStore = goredisstore.New(c), true
			return scsHandler(m)
		}},
	{name: "gorilla-cookie", module: "github.com/gorilla/sessions", keys: pair, flash: "_flash", importer: gorilla,
		open: func(*testing.T, *goredis.Client) http.Handler { return gorillaHandler(named(cookieStore()), false) }},
	{name: "gorilla-signed", module: "github.com/gorilla/sessions", keys: pair[:1], flash: "_flash", importer: gorilla,
		open: func(*testing.T, *goredis.Client) http.Handler {
			return gorillaHandler(named(sessions.NewCookieStore(hashKey)), false)
		}},
	{name: "gin-cookie", module: "github.com/gin-contrib/sessions", keys: pair, flash: "_flash", importer: gorilla,
		open: func(*testing.T, *goredis.Client) http.Handler { return ginHandler(gincookie.NewStore(pair...)) }},
	{name: "echo-cookie", module: "github.com/labstack/echo-contrib", keys: pair, flash: "_flash", importer: gorilla,
		open: func(*testing.T, *goredis.Client) http.Handler { return echoHandler(cookieStore()) }},
	{name: "redistore", module: "github.com/boj/redistore", keys: pair, redis: true, flash: "_flash", importer: boj,
		open: func(t *testing.T, c *goredis.Client) http.Handler {
			return gorillaHandler(named(rediStore(t, c)), false)
		}},
	{name: "redistore-json", module: "github.com/boj/redistore", keys: pair, redis: true, json: true, importer: boj,
		options: adopt.Options{JSON: true, Prefix: "shop:"},
		open: func(t *testing.T, c *goredis.Client) http.Handler {
			s := rediStore(t, c)
			s.SetSerializer(redistore.JSONSerializer{})
			s.SetKeyPrefix("shop:")
			return gorillaHandler(named(s), true)
		}},
	{name: "gin-redis", module: "github.com/gin-contrib/sessions", keys: pair, redis: true, flash: "_flash", importer: boj,
		open: func(t *testing.T, c *goredis.Client) http.Handler {
			s, err := ginredis.NewStoreWithPool(pool(c), pair...)
			if err != nil {
				t.Fatal(err)
			}
			return ginHandler(s)
		}},
	{name: "echo-redis", module: "github.com/labstack/echo-contrib", keys: pair, redis: true, flash: "_flash", importer: boj,
		open: func(t *testing.T, c *goredis.Client) http.Handler { return echoHandler(rediStore(t, c)) }},
	{name: "redisstore", module: "github.com/rbcervilla/redisstore/v9", redis: true, flash: "_flash",
		importer: func(_ *testing.T, c *goredis.Client, o *adopt.Options, _ [][]byte) sessplus.Importer {
			return adopt.RedisStore(c, o)
		},
		open: func(t *testing.T, c *goredis.Client) http.Handler {
			s, err := redisstore.NewRedisStore(context.Background(), c)
			if err != nil {
				t.Fatal(err)
			}
			return gorillaHandler(named(s), false)
		}},
}

// Each importer reads what a program on the real library has left, with the types that the library gave that program,
// leaves the session there until it is told to forget it, and then neither reads it again.
func TestImportersReadTheRealLibraries(t *testing.T) {
	for _, f := range formers {
		t.Run(f.name, func(t *testing.T) {
			c := servers.Redis(t)
			h := f.open(t, c)
			visit := func(path string, cookies ...*http.Cookie) *httptest.ResponseRecorder {
				r := httptest.NewRequest("GET", path, nil)
				for _, k := range cookies {
					r.AddCookie(k)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w
			}
			w := visit("/login")
			cookies := w.Result().Cookies()
			if len(cookies) != 1 {
				t.Fatalf("status %d, %d cookies: %s", w.Code, len(cookies), w.Body)
			}
			cookie := cookies[0]
			if w := visit("/who", cookie); w.Body.String() != "42" {
				t.Fatalf("the old program: status %d, %q", w.Code, w.Body)
			}
			if *update {
				f.keep(t, c, cookie)
			}

			ctx := context.Background()
			o := f.options
			o.Keep = true
			got, err := f.importer(t, c, &o, f.keys).Import(ctx, cookie.Name, cookie.Value)
			if err != nil {
				t.Fatal(err)
			}
			if got.Forget != nil {
				t.Error("with Keep there is something to forget")
			}
			want := wanted()
			if f.json {
				want = map[string]any{"user_id": 42.0, "name": "Zoë"}
			}
			if f.flash != "" {
				want[f.flash] = []any{"saved", Cart{[]Item{{"flash"}}}}
			}
			if !reflect.DeepEqual(got.Fields, want) {
				t.Errorf("the fields are %#v,\nwant %#v", got.Fields, want)
			}
			if scs := f.flash == "" && !f.json; got.Permanent != scs {
				t.Errorf("Permanent = %t", got.Permanent)
			}
			if until := time.Until(got.Expires); f.flash != "" && (until < 29*24*time.Hour || until > 30*24*time.Hour) {
				t.Errorf("it ends in %v, want the 30 days of the library", until)
			}

			o.Keep = false
			importer := f.importer(t, c, &o, f.keys)
			if got, err = importer.Import(ctx, cookie.Name, cookie.Value); err != nil {
				t.Fatal(err)
			}
			if w := visit("/who", cookie); w.Body.String() != "42" {
				t.Fatalf("the old program, after the import: status %d, %q", w.Code, w.Body)
			}
			stored := f.redis || f.store
			if (got.Forget != nil) != stored {
				t.Fatalf("Forget is there: %t, want %t", got.Forget != nil, stored)
			}
			if !stored {
				return
			}
			for range 2 {
				if err := got.Forget(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if w := visit("/who", cookie); w.Code != http.StatusUnauthorized {
				t.Errorf("the old program, after Forget: status %d, %q", w.Code, w.Body)
			}
			if _, err := importer.Import(ctx, cookie.Name, cookie.Value); !errors.Is(err, sessplus.ErrNoRecord) {
				t.Errorf("after Forget: %v", err)
			}
			if n := c.DBSize(ctx).Val(); n != 0 {
				t.Errorf("%d keys are left", n)
			}
		})
	}
}

// keep writes the sample.
func (f *former) keep(t *testing.T, c *goredis.Client, cookie *http.Cookie) {
	s := sample{Library: f.module + " " + version(f.module), Cookie: cookie.Name, Value: cookie.Value, Keys: f.keys}
	ctx := context.Background()
	if f.redis {
		s.Store = make(map[string][]byte)
		for _, key := range c.Keys(ctx, "*").Val() {
			s.Store[key] = []byte(c.Get(ctx, key).Val())
		}
	}
	if f.name == "scs-memory" {
		data, _, _ := memory.Find(cookie.Value)
		s.Store = map[string][]byte{cookie.Value: data}
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "testdata", f.name+".json"), append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return "?"
}
