package sessplus_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// oneCookie is a config over b; a secure cookie may have chunks, for the tests with many fields.
func oneCookie(b sessplus.Backend) sessplus.Config {
	c := sessplus.Config{CookieName: "s", Backend: b}
	if b == sessplus.SecureCookie() {
		c.MaxChunks = 8
	}
	return c
}

// A sidSite is a site with one server-side cookie "sid", and its browser.
type sidSite struct {
	*site
	st        *store
	cfg       sessplus.Config
	permanent bool
}

// start creates the session with a = "1", permanent if the case is, and returns its id.
func (c *sidSite) start() (id string) {
	c.Helper()
	c.ok(c.with(func(s *sessplus.Session) {
		s.Set("a", "1")
		if c.permanent {
			s.SetPermanent("sid", true)
		}
		if err := s.Save(); err != nil {
			c.Errorf("Save() = %v, want nil", err)
		}
		id = s.ID("sid")
	}))
	if id == "" || c.jar(c.client)["sid"] == "" {
		c.Fatalf("after Set: ID() = %q, cookie %q, want both", id, c.jar(c.client)["sid"])
	}
	return id
}

// ok checks that the handler's response came through.
func (c *sidSite) ok(r *reply) *reply {
	c.Helper()
	if r.StatusCode != http.StatusOK {
		c.Fatalf("status = %d (%s), want 200", r.StatusCode, r.body)
	}
	return r
}

// wantFields fails unless the next request sees exactly these.
func (c *sidSite) wantFields(want map[string]any) {
	c.Helper()
	if got := c.fields(); fmt.Sprint(got) != fmt.Sprint(want) {
		c.Errorf("fields of the next request = %v, want %v", got, want)
	}
}

// record looks the record of the id up in the store.
func (c *sidSite) record(id string) (*sessplus.Record, error) {
	return c.st.Backend.Load(context.Background(), recordKey(c.cfg, id))
}

var sidVariants = []struct {
	name      string
	adapt     func(*sessplus.Config)
	permanent bool
}{
	{"plain", func(*sessplus.Config) {}, false},
	{"lazy", func(c *sessplus.Config) { c.Lazy = true }, false},
	{"signed", func(c *sessplus.Config) { c.SignID = true }, false},
	{"idle", func(c *sessplus.Config) { c.IdleTimeout = time.Hour }, false},
	{"max age", func(c *sessplus.Config) { c.MaxAge = time.Hour }, false},
	{"endless", func(c *sessplus.Config) { c.Lifetime, c.IdleTimeout, c.MaxAge = -1, time.Hour, 48*time.Hour }, false},
	{"permanent", func(*sessplus.Config) {}, true},
	{"lazy signed idle permanent", func(c *sessplus.Config) { c.Lazy, c.SignID, c.IdleTimeout = true, true, time.Hour }, true},
}

// onEveryVariant runs the test with every variant of a config on every store.
func onEveryVariant(t *testing.T, test func(t *testing.T, c *sidSite)) {
	for _, s := range stores {
		for _, v := range sidVariants {
			t.Run(s.name+"/"+v.name, func(t *testing.T) {
				c := newSidSite(t, s.open(t), v.adapt)
				c.permanent = v.permanent
				test(t, c)
			})
		}
	}
}

// onStores runs the test with one config on every store.
func onStores(t *testing.T, adapt func(*sessplus.Config), test func(t *testing.T, c *sidSite)) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) { test(t, newSidSite(t, s.open(t), adapt)) })
	}
}

func newSidSite(t *testing.T, st *store, adapt func(*sessplus.Config), others ...sessplus.Config) *sidSite {
	t.Helper()
	cfg := sessplus.Config{CookieName: "sid", Backend: st}
	adapt(&cfg)
	m := newManager(t, nil, append([]sessplus.Config{cfg}, others...)...)
	return &sidSite{site: newSite(t, m), st: st, cfg: cfg}
}

func recordKey(c sessplus.Config, id string) string {
	prefix := c.KeyPrefix
	if prefix == "" {
		prefix = "session:"
	}
	sum := sha256.Sum256([]byte(id))
	return prefix + c.CookieName + ":" + hex.EncodeToString(sum[:])
}

// meanwhile makes a request of the same browser while a handler runs.
func (c *sidSite) meanwhile(f func(*sessplus.Session)) *reply {
	c.Helper()
	return c.ok(c.with(f))
}
