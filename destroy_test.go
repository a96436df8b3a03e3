package sessplus_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 3.9
func TestDestroyRemovesRecordAndCookie(t *testing.T) {
	t.Parallel()
	ways := map[string]func(s *sessplus.Session){
		"all":         func(s *sessplus.Session) { s.Destroy() },
		"named":       func(s *sessplus.Session) { s.Destroy("sid") },
		"twice":       func(s *sessplus.Session) { s.Destroy(); s.Destroy() },
		"saved":       func(s *sessplus.Session) { s.Destroy(); s.Save(); s.Destroy(); s.Save() },
		"after Set":   func(s *sessplus.Session) { s.Set("b", 1); s.Destroy() },
		"after Renew": func(s *sessplus.Session) { s.Renew(); s.Save(); s.Destroy() },
		"then Renew":  func(s *sessplus.Session) { s.Destroy(); s.Renew() },
		"then Delete": func(s *sessplus.Session) { s.Destroy(); s.Delete("a"); s.SetPermanent("sid", true) },
	}
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		for name, end := range ways {
			c.start()
			old := c.jar(c.client)["sid"]
			r := c.ok(c.with(func(s *sessplus.Session) {
				end(s)
				if s.Has("a") || s.ID("sid") != "" || !s.IsNew("sid") || !s.Expires("sid").IsZero() {
					t.Errorf("%s: after Destroy: fields %v, IsNew() = %v; want nothing", name, s.Fields(), s.IsNew("sid"))
				}
			}))
			if !dropsCookie(t, r, "sid") || c.jar(c.client)["sid"] != "" {
				t.Errorf("%s: Set-Cookie = %q, want a deletion", name, r.setCookies("sid"))
			}
			if all := c.st.text(t); len(all) > 0 {
				t.Errorf("%s: the store holds %v, want nothing", name, all)
			}
			c.ok(c.bring("sid="+old, func(s *sessplus.Session) {
				if s.Has("a") {
					t.Errorf("%s: the old cookie still opens the session", name)
				}
			}))
		}
	})
}

// SPEC 3.9
func TestDestroyOfWhatWasJustCreated(t *testing.T) {
	t.Parallel()
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		r := c.ok(c.with(func(s *sessplus.Session) { s.Set("a", "1"); s.Save(); s.Destroy() }))
		if k := setCookie(t, r, "sid"); k != nil && k.MaxAge >= 0 || len(c.jar(c.client)) > 0 {
			t.Errorf("Set-Cookie = %v, want none", k)
		}
		if all := c.st.text(t); len(all) > 0 {
			t.Errorf("the store holds %v, want nothing", all)
		}
	})
}

// SPEC 3.9
func TestDestroyOfASecureCookie(t *testing.T) {
	t.Parallel()
	c := &sidSite{site: newSite(t, newManager(t, nil, sessplus.Config{CookieName: "sid", MaxChunks: 4}))}
	c.ok(c.with(func(s *sessplus.Session) { s.Set("a", strings.Repeat("x", 5000)); s.SetPermanent("sid", true) }))
	if n := len(c.jar(c.client)); n < 2 {
		t.Fatalf("%d cookies, want chunks", n)
	}
	c.ok(c.with(func(s *sessplus.Session) {
		s.Destroy()
		s.Set("b", "2")
		if s.Has("a") || s.Permanent("sid") || !s.IsNew("sid") {
			t.Errorf("after Destroy: fields %v, Permanent() = %v; want a new session", s.Fields(), s.Permanent("sid"))
		}
	}))
	c.wantFields(map[string]any{"b": "2"})
	c.ok(c.with(func(s *sessplus.Session) { s.Destroy() }))
	if jar := c.jar(c.client); len(jar) > 0 {
		t.Errorf("the browser has %v, want no cookie", jar)
	}
}

// SPEC 3.9: a logout does not load first what it removes.
func TestDestroyOfALazySessionLoadsNothing(t *testing.T) {
	t.Parallel()
	for _, sign := range []bool{false, true} {
		onStores(t, func(c *sessplus.Config) { c.Lazy, c.SignID = true, sign }, func(t *testing.T, c *sidSite) {
			c.start()
			c.st.ops()
			c.ok(c.with(func(s *sessplus.Session) { s.Destroy() }))
			if ops := fmt.Sprint(c.st.ops()); ops != "[delete]" {
				t.Errorf("backend calls %v, want [delete]", ops)
			}
		})
	}
}

// SPEC 3.9: that the record is gone already is no error, and the cookie goes all the same.
func TestDestroyOfWhatIsGone(t *testing.T) {
	t.Parallel()
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		c.start()
		old := c.jar(c.client)["sid"]
		r := c.ok(c.with(func(s *sessplus.Session) {
			s.Get("a")
			c.meanwhile(func(s *sessplus.Session) { s.Destroy() })
			s.Destroy()
		}))
		if !dropsCookie(t, r, "sid") {
			t.Errorf("destroyed meanwhile: Set-Cookie = %q, want a deletion", r.setCookies("sid"))
		}
		for _, text := range []string{old, "malformed", ""} {
			if r := c.ok(c.bring("sid="+text, func(s *sessplus.Session) { s.Destroy() })); !dropsCookie(t, r, "sid") {
				t.Errorf("Destroy of %q: Set-Cookie = %q, want a deletion", text, r.setCookies("sid"))
			}
		}
	})
}

// SPEC 3.9
func TestDestroyAfterTheHeaders(t *testing.T) {
	t.Parallel()
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		for _, save := range []bool{false, true} {
			c.client = c.visitor() // the other has still the cookie of the session that has ended
			c.start()
			c.visit(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				s := sessplus.Get(r)
				s.Destroy()
				if save {
					if err := s.Save(); err != nil {
						t.Errorf("Save() = %v, want nil", err)
					}
				}
			})
			// The response ends only after the handler has returned and the record is gone.
			if all := c.st.text(t); len(all) > 0 {
				t.Errorf("save %v: the store holds %v, want nothing", save, all)
			}
			c.wantFields(map[string]any{})
		}
	})
}

// SPEC 3.9
func TestSetAfterDestroyStartsANewSession(t *testing.T) {
	t.Parallel()
	onEveryVariant(t, func(t *testing.T, c *sidSite) {
		id := c.start()
		var next string
		r := c.ok(c.with(func(s *sessplus.Session) {
			s.Destroy()
			s.Set("b", "2")
			s.Save()
			next = s.ID("sid")
			if s.Has("a") || s.Permanent("sid") || !s.IsNew("sid") {
				t.Errorf("fields %v, Permanent() = %v, IsNew() = %v; want a new session", s.Fields(), s.Permanent("sid"), s.IsNew("sid"))
			}
		}))
		if k := setCookie(t, r, "sid"); k == nil || k.MaxAge < 0 || next == id || next == "" {
			t.Errorf("Set-Cookie = %v, ID() = %q; want a new id", k, next)
		}
		c.wantFields(map[string]any{"b": "2"})
		if all := c.st.text(t); len(all) != 1 {
			t.Errorf("the store holds %v, want the new record only", all)
		}
		if rec, err := c.record(next); err != nil || rec.Permanent {
			t.Errorf("record = %v, %v; want one that is not permanent", rec, err)
		}
	})
}

// SPEC 3.9, 5.9: a browser drops a cookie only when the deletion has the attributes it was set with.
func TestDeletionRepeatsTheAttributes(t *testing.T) {
	t.Parallel()
	for name, adapt := range map[string]func(*sessplus.Config){
		"defaults": func(*sessplus.Config) {},
		"domain":   func(c *sessplus.Config) { c.Domain, c.Path = "example.com", "/app" },
		"cross": func(c *sessplus.Config) {
			c.Secure, c.SameSite, c.Partitioned = sessplus.SecureAlways, http.SameSiteNoneMode, true
		},
		"strict": func(c *sessplus.Config) {
			c.SameSite, c.ScriptReadable, c.MaxAge = http.SameSiteStrictMode, true, time.Hour
		},
	} {
		for kind, b := range map[string]sessplus.Backend{"memory": sessplus.Memory(), "secure cookie": sessplus.SecureCookie()} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				c := newSidSite(t, &store{recorder: recorder{Backend: sessplus.Memory()}}, func(c *sessplus.Config) { adapt(c); c.Backend = b })
				set := setCookie(t, c.ok(c.with(func(s *sessplus.Session) { s.Set("a", 1) })), "sid")
				for how, end := range map[string]func(*sessplus.Session){
					"Destroy": func(s *sessplus.Session) { s.Destroy() },
					"Clear":   func(s *sessplus.Session) { s.Clear() },
				} {
					r := c.bring("sid="+set.Value, end)
					k := setCookie(t, r, "sid")
					if how == "Clear" && k == nil {
						continue // destroyed before
					}
					if !dropsCookie(t, r, "sid") || k.Domain != set.Domain || k.Path != set.Path || k.Secure != set.Secure ||
						k.SameSite != set.SameSite || k.Partitioned != set.Partitioned || k.HttpOnly != set.HttpOnly {
						t.Errorf("%s: deletion %q of %q", how, k, set)
					}
				}
			})
		}
	}
}
