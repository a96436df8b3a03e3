package e2e

import (
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplussql"
	_ "modernc.org/sqlite"
)

// moved serves the program after its move. It counts the visits in the session, and knows /logout.
func moved(t *testing.T, config sessplus.Config, keys ...sessplus.KeyPair) *httptest.Server {
	t.Helper()
	m, err := sessplus.New([]sessplus.Config{config}, &sessplus.Options{
		Keys: keys, Codec: sessplus.Gob(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		if r.URL.Path == "/logout" {
			s.Destroy()
			return
		}
		s.Set("seen", s.GetInt("seen")+1)
		who(w, s.Get("user_id"))
	})))
	t.Cleanup(server.Close)
	return server
}

// keyPair is derived from a secret that is long enough with the text.
func keyPair(text string) sessplus.KeyPair {
	return sessplus.DeriveKeyPair([]byte("a secret of thirty-two bytes or more: " + text))
}

// openSQLite opens the file as another process would.
func openSQLite(t *testing.T, path string) sessplus.Backend {
	t.Helper()
	const settings = "?_pragma=busy_timeout(4000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"
	db, err := sql.Open("sqlite", "file:"+path+settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b := sessplussql.New(db, sessplussql.SQLite, nil)
	if err := b.CreateTables(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// ask sends a request with the cookie. It returns the status, and the cookie that the browser has afterwards.
func ask(t *testing.T, url string, cookie *http.Cookie) (int, *http.Cookie) {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Error(err)
		return 0, cookie
	}
	if cookie != nil {
		r.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value})
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return 0, cookie
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	for _, k := range res.Cookies() {
		cookie = k
	}
	return res.StatusCode, cookie
}

// A program on each former library, with visitors who are logged in, is replaced under load by two processes of its
// moved version: bursts of six, nobody is logged out, and after a logout the old cookie is nobody's (SPEC 12.2).
func TestProgramsMove(t *testing.T) {
	for _, f := range append([]former{flaskPlus(), flaskCookies}, formers...) {
		for target, open := range map[string]func(t *testing.T, c *goredis.Client) [2]sessplus.Backend{
			"secure cookie": func(*testing.T, *goredis.Client) [2]sessplus.Backend { return [2]sessplus.Backend{} },
			"redis": func(_ *testing.T, c *goredis.Client) [2]sessplus.Backend {
				return [2]sessplus.Backend{sessplus.Redis(c), sessplus.Redis(c)}
			},
			"sqlite": func(t *testing.T, _ *goredis.Client) [2]sessplus.Backend {
				path := filepath.Join(t.TempDir(), "sessions.db")
				return [2]sessplus.Backend{openSQLite(t, path), openSQLite(t, path)}
			},
		} {
			t.Run(f.name+"/"+target, func(t *testing.T) {
				c := servers.Redis(t)
				old := httptest.NewServer(f.open(t, c))
				defer old.Close()
				var sites []string
				for _, b := range open(t, c) {
					o := f.options
					sites = append(sites, moved(t, sessplus.Config{
						CookieName: "session", Backend: b, Import: []sessplus.Importer{f.importer(t, c, &o, f.keys)},
					}, keyPair("")).URL)
				}
				testMove(t, old.URL, sites, target != "secure cookie", f.redis || f.store)
			})
		}
	}
}

// testMove replaces the program at the url old by those at the sites. If sessions neither are nor were stored, they are
// in the cookies, and each of those remains good.
func testMove(t *testing.T, old string, sites []string, stored, wereStored bool) {
	const visitors, six = 25, 6
	var requests, loggedOut, failed, ids atomic.Int64
	var all sync.WaitGroup
	for range visitors {
		all.Go(func() {
			_, before := ask(t, old+"/login", nil)
			if code, _ := ask(t, old+"/who", before); code != 200 {
				t.Errorf("the old program: %d", code)
			}
			var burst sync.WaitGroup
			var seen sync.Map
			var after atomic.Pointer[http.Cookie]
			for i := range six {
				burst.Go(func() {
					code, cookie := ask(t, sites[i%2]+"/who", before)
					requests.Add(1)
					switch {
					case code == 401:
						loggedOut.Add(1)
					case code != 200:
						failed.Add(1)
					}
					seen.Store(cookie.Value, true)
					after.Store(cookie)
				})
			}
			burst.Wait()
			seen.Range(func(any, any) bool { ids.Add(1); return true })
			if code, _ := ask(t, sites[0]+"/who", after.Load()); code != 200 {
				t.Errorf("with the new cookie: %d", code)
			}
			if code, _ := ask(t, sites[1]+"/logout", after.Load()); code != 200 {
				t.Errorf("the logout: %d", code)
			}
			for _, site := range sites {
				if code, _ := ask(t, site+"/who", before); code != 401 && code != 409 && (stored || wereStored) {
					t.Errorf("the old cookie after the logout: %d", code)
				}
			}
		})
	}
	all.Wait()
	report := t.Logf
	if loggedOut.Load()+failed.Load() > 0 || stored && ids.Load() != visitors {
		report = t.Errorf
	}
	report("%d requests, %d logged out, %d errors, %d new cookies of %d visitors",
		requests.Load(), loggedOut.Load(), failed.Load(), ids.Load(), visitors)
}
