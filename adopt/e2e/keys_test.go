package e2e

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
	"github.com/sessplus/sessplus/internal/servers"
)

// While sessions are imported, two processes whose keys differ take the same session over, and log nobody out, if each
// has the other's first pair, as the guides say (SPEC 12.2). Where both derive ids with the same pair, requests at the
// same moment get one session as well.
func TestKeysOfImports(t *testing.T) {
	before, after := keyPair("before"), keyPair("after")
	f := formers[slices.IndexFunc(formers, func(f former) bool { return f.name == "redisstore" })]
	for what, test := range map[string]struct {
		keys [2][]sessplus.KeyPair // of each process
		own  []sessplus.KeyPair    // of the config
		same bool                  // whether both derive ids with the same pair
	}{
		"the same keys":           {[2][]sessplus.KeyPair{{before}, {before}}, nil, true},
		"a pair is added behind":  {[2][]sessplus.KeyPair{{before}, {before, after}}, nil, true},
		"then it is put in front": {[2][]sessplus.KeyPair{{before, after}, {after, before}}, nil, false},
		"the config has keys":     {[2][]sessplus.KeyPair{{before}, {after}}, []sessplus.KeyPair{before}, true},
	} {
		for when, order := range map[string][]int{
			"one after the other": {0, 1}, "in the other order": {1, 0}, "at the same moment": nil,
		} {
			t.Run(what+"/"+when, func(t *testing.T) {
				concurrent := order == nil
				c := servers.Redis(t)
				old := httptest.NewServer(f.open(t, c))
				defer old.Close()
				importer := adopt.RedisStore(c, nil)
				if concurrent {
					m := &meeting{Importer: importer}
					m.both.Add(2)
					importer = m
				}
				var sites []string
				for _, keys := range test.keys {
					sites = append(sites, moved(t, sessplus.Config{
						CookieName: "session", Backend: sessplus.Redis(c), KeyPrefix: "new:", Keys: test.own,
						Import: []sessplus.Importer{importer},
					}, keys...).URL)
				}
				_, cookie := ask(t, old.URL+"/login", nil)
				cookies := make([]*http.Cookie, len(sites))
				visit := func(i int) {
					var code int
					if code, cookies[i] = ask(t, sites[i]+"/who", cookie); code != 200 {
						t.Errorf("/who with the old cookie = %d, want 200", code)
					}
				}
				var requests sync.WaitGroup
				for _, i := range order {
					visit(i)
				}
				for i := range sites {
					if concurrent {
						requests.Go(func() { visit(i) })
					}
				}
				requests.Wait()
				for _, k := range cookies {
					for _, site := range sites {
						if code, _ := ask(t, site+"/who", k); code != 200 {
							t.Errorf("/who with the new cookie = %d, want 200", code)
						}
					}
				}
				if cookies[0].Value != cookies[1].Value && (test.same || !concurrent) {
					t.Error("the visitor has two sessions")
				}
			})
		}
	}
}

// A meeting is an importer that two requests leave at the same moment.
type meeting struct {
	sessplus.Importer
	both sync.WaitGroup
}

func (m *meeting) Import(ctx context.Context, cookie, value string) (*sessplus.Imported, error) {
	found, err := m.Importer.Import(ctx, cookie, value)
	m.both.Done()
	m.both.Wait()
	return found, err
}
