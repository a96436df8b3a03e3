package sessplustest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplustest"
)

func TestMain(m *testing.M) { servers.Main(m) }

var keys = []sessplus.KeyPair{sessplus.GenerateKeyPair()}

func newManager(t *testing.T, o *sessplus.Options, configs ...sessplus.Config) *sessplus.Manager {
	t.Helper()
	if o == nil {
		o = &sessplus.Options{}
	}
	o.Keys, o.Logger = keys, slog.New(slog.DiscardHandler)
	m, err := sessplus.New(configs, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// With and Serve do with every kind of config what a browser and a server do.
func TestWithAndServe(t *testing.T) {
	cart := sessplus.Config{CookieName: "cart", Fields: sessplus.Auto()}
	for name, open := range map[string]func(t *testing.T) *sessplus.Manager{
		"secure cookie": func(t *testing.T) *sessplus.Manager { return newManager(t, nil) },
		"secure cookie in chunks": func(t *testing.T) *sessplus.Manager {
			return newManager(t, nil, sessplus.Config{CookieName: "s", MaxChunks: 4})
		},
		"memory": func(t *testing.T) *sessplus.Manager {
			return newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Memory()})
		},
		"redis": func(t *testing.T) *sessplus.Manager {
			return newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Redis(servers.Redis(t))})
		},
		"firestore": func(t *testing.T) *sessplus.Manager {
			return newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Firestore(servers.Firestore(t), "s")})
		},
		"signed, lazy, indexed, always secure": func(t *testing.T) *sessplus.Manager {
			return newManager(t, nil, sessplus.Config{
				CookieName: "__Host-s", Backend: sessplus.Memory(), SignID: true, Lazy: true, IndexBy: "user",
				Secure: sessplus.SecureAlways, IdleTimeout: time.Hour, RotateEvery: time.Hour,
			})
		},
		"another path and domain": func(t *testing.T) *sessplus.Manager {
			return newManager(t, nil, sessplus.Config{
				CookieName: "s", Backend: sessplus.Memory(), Path: "/account", Domain: "shop.example", MaxAge: time.Hour,
			})
		},
		"bound": func(t *testing.T) *sessplus.Manager {
			bound := cart
			bound.BoundTo = "s"
			return newManager(t, nil, sessplus.Config{CookieName: "s", Fields: sessplus.Include("user"), Backend: sessplus.Memory()}, bound)
		},
		"a single cookie": func(t *testing.T) *sessplus.Manager {
			return newManager(t, &sessplus.Options{SingleCookie: "__session"},
				sessplus.Config{CookieName: "s", Fields: sessplus.Include("user"), Backend: sessplus.Memory()}, cart)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t)
			text := "bread"
			if strings.HasSuffix(name, "chunks") {
				text = strings.Repeat("x", 6000)
			}
			plain := httptest.NewRequest("POST", "/", strings.NewReader("the body"))
			plain.AddCookie(&http.Cookie{Name: "other", Value: "stays"})
			r := sessplustest.With(t, m, plain, map[string]any{"user": "ann", "cart": text})
			if len(plain.Cookies()) != 1 {
				t.Errorf("With has changed the request that it was given: %v", plain.Cookies())
			}
			if k, err := r.Cookie("other"); err != nil || k.Value != "stays" || r.Method != "POST" {
				t.Errorf("the cookie of somebody else is %v, %v", k, err)
			}
			w, fields := sessplustest.Serve(t, m, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := sessplus.Get(r)
				if s.GetString("user") != "ann" || s.GetString("cart") != text {
					t.Errorf("the handler finds %v", s.Values())
				}
				s.Set("seen", r.FormValue("none") == "" && r.ContentLength == 8)
				s.Delete("cart")
				w.WriteHeader(http.StatusAccepted)
			}), r)
			if w.Code != http.StatusAccepted {
				t.Errorf("status %d", w.Code)
			}
			if want := map[string]any{"user": "ann", "seen": true}; !reflect.DeepEqual(fields, want) {
				t.Errorf("the session holds %v, want %v", fields, want)
			}

			login := func(_ http.ResponseWriter, r *http.Request) {
				s := sessplus.Get(r)
				s.Renew()
				s.Set("user", "bob")
			}
			if _, fields = sessplustest.Serve(t, m, m.Handler(http.HandlerFunc(login)), plain); fields["user"] != "bob" {
				t.Errorf("after a login the session holds %v", fields)
			}
			r = sessplustest.With(t, m, r, map[string]any{"user": "cleo"}) // on top of what it has
			if _, fields = sessplustest.Serve(t, m, http.NotFoundHandler(), r); fields["user"] != "cleo" || len(fields) < 2 {
				t.Errorf("With twice gives %v", fields)
			}
			logout := func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() }
			if _, fields = sessplustest.Serve(t, m, http.HandlerFunc(logout), r); fields == nil || len(fields) != 0 {
				t.Errorf("after a logout the session holds %v", fields)
			}
		})
	}
}

// A recorder is the T of a test that may fail.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// fatal runs f as a test, and returns with what it failed.
func fatal(f func(t testing.TB)) string {
	var r recorder
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(&r)
	}()
	<-done
	return r.fatal
}

// What cannot be a session fails the test, and says why.
func TestWithAndServeFail(t *testing.T) {
	plain := httptest.NewRequest("GET", "/", nil)
	some := newManager(t, nil,
		sessplus.Config{CookieName: "s", Fields: sessplus.Include("user"), Backend: sessplus.Memory()},
		sessplus.Config{CookieName: "bound", Fields: sessplus.Include("theme"), BoundTo: "s"})
	down := newManager(t, nil, sessplus.Config{CookieName: "s", Backend: broken{}, Optional: true})
	for name, tt := range map[string]struct {
		f    func(t testing.TB)
		want []string
	}{
		"a field that nobody owns": {
			func(t testing.TB) { sessplustest.With(t, some, plain, map[string]any{"usre": 1}) },
			[]string{"sessplustest.With", `"usre"`, "none of the configs", `"user"`, "COOKIE"},
		},
		"a cookie that is bound to no session": {
			func(t testing.TB) { sessplustest.With(t, some, plain, map[string]any{"theme": "dark"}) },
			[]string{"sessplustest.With", `"theme"`, `bound to cookie "s"`, "set a field there"},
		},
		"a value that cannot be encoded": {
			func(t testing.TB) { sessplustest.With(t, some, plain, map[string]any{"user": func() {}}) },
			[]string{"sessplustest.With", `"user"`},
		},
		"a backend that is down": {
			func(t testing.TB) { sessplustest.With(t, down, plain, map[string]any{"user": 1}) },
			[]string{"sessplustest.With", "unavailable"},
		},
		"a backend that is down afterwards": {
			func(t testing.TB) {
				r := plain.Clone(plain.Context())
				r.AddCookie(&http.Cookie{Name: "s", Value: strings.Repeat("A", 43)})
				sessplustest.Serve(t, down, http.NotFoundHandler(), r)
			},
			[]string{"sessplustest.Serve", "cannot be read", "unavailable"},
		},
	} {
		got := fatal(tt.f)
		for _, part := range tt.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: it fails with %q, want %q in it", name, got, part)
			}
		}
	}
}

// broken is a backend that is down.
type broken struct{ sessplus.Backend }

func (broken) Load(context.Context, string) (*sessplus.Record, error) {
	return nil, io.ErrUnexpectedEOF
}
func (broken) Create(context.Context, string, *sessplus.Record) error { return io.ErrUnexpectedEOF }
