package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A program on each former library, with visitors who are logged in, is replaced under load by two processes of its
// moved version: bursts of six, nobody is logged out, and after a logout the old cookie is nobody's (SPEC 12.2).
func TestProgramsMove(t *testing.T) {
	for _, f := range formers {
		t.Run(f.name, func(t *testing.T) {
			c := servers.Redis(t)
			old := httptest.NewServer(f.open(t, c))
			defer old.Close()
			o := f.options
			var sites []string
			for range 2 {
				m, err := sessplus.New([]sessplus.Config{{
					CookieName: "session", Backend: sessplus.Redis(c), KeyPrefix: "new:", Import: []sessplus.Importer{f.importer(t, c, &o, f.keys)},
				}}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.DeriveKeyPair([]byte("a secret of thirty-two bytes or more"))}, Codec: sessplus.Gob()})
				if err != nil {
					t.Fatal(err)
				}
				site := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := sessplus.Get(r)
					if r.URL.Path == "/logout" {
						s.Destroy()
						return
					}
					s.Set("seen", s.GetInt("seen")+1)
					who(w, s.Get("user_id"))
				})))
				defer site.Close()
				sites = append(sites, site.URL)
			}
			ask := func(url string, cookie *http.Cookie) (int, *http.Cookie) {
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
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				for _, k := range res.Cookies() {
					cookie = k
				}
				return res.StatusCode, cookie
			}
			const visitors, six = 25, 6
			var requests, loggedOut, failed, ids atomic.Int64
			var all sync.WaitGroup
			for range visitors {
				all.Go(func() {
					_, before := ask(old.URL+"/login", nil)
					if code, _ := ask(old.URL+"/who", before); code != 200 {
						t.Errorf("the old program: %d", code)
					}
					var burst sync.WaitGroup
					var seen sync.Map
					var after atomic.Pointer[http.Cookie]
					for i := range six {
						burst.Go(func() {
							code, cookie := ask(sites[i%2]+"/who", before)
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
					if code, _ := ask(sites[0]+"/who", after.Load()); code != 200 {
						t.Errorf("with the new cookie: %d", code)
					}
					if code, _ := ask(sites[1]+"/logout", after.Load()); code != 200 {
						t.Errorf("the logout: %d", code)
					}
					for _, site := range sites {
						if code, _ := ask(site+"/who", before); code != 401 && code != 409 {
							t.Errorf("the old cookie after the logout: %d", code)
						}
					}
				})
			}
			all.Wait()
			if loggedOut.Load()+failed.Load() > 0 || ids.Load() != visitors {
				t.Error(fmt.Sprint(loggedOut.Load(), " logged out, ", failed.Load(), " errors, ", ids.Load(), " sessions of ", visitors, " visitors"))
			}
			t.Logf("%d requests, %d logged out, %d errors, %d sessions of %d visitors", requests.Load(), loggedOut.Load(), failed.Load(), ids.Load(), visitors)
		})
	}
}
