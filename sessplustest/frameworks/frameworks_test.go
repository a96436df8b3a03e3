// Package frameworks_test shows how a program with net/http, chi, echo or gin has the middleware, and how a test
// gives it a logged-in user.
package frameworks_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplustest"
)

const (
	UserID sessplus.Field[int] = "user_id"
	Visits sessplus.Field[int] = "visits"
)

func newManager(t *testing.T) *sessplus.Manager {
	t.Helper()
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user_id"), Backend: sessplus.Memory()},
		{CookieName: "data", Fields: sessplus.Auto()},
	}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	if err != nil {
		t.Fatal(err)
	}
	return mgr
}

// visit is what each of the programs below does: it counts the visits of a user.
func visit(s *sessplus.Session) (status int, text string) {
	user, ok := UserID.Lookup(s)
	if !ok {
		return http.StatusUnauthorized, "Please log in."
	}
	Visits.Set(s, Visits.Get(s)+1)
	return http.StatusOK, fmt.Sprintf("user %d, visit %d", user, Visits.Get(s))
}

func serveHTTP(w http.ResponseWriter, r *http.Request) {
	status, text := visit(sessplus.Get(r))
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

// The program with each framework, as it is served.
var programs = map[string]func(mgr *sessplus.Manager) http.Handler{
	"net/http": func(mgr *sessplus.Manager) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /users/{id}", serveHTTP)
		return mgr.Handler(mux)
	},
	"chi": func(mgr *sessplus.Manager) http.Handler {
		router := chi.NewRouter()
		router.Use(mgr.Handler)
		router.Get("/users/{id}", serveHTTP)
		return router
	},
	"echo": func(mgr *sessplus.Manager) http.Handler {
		e := echo.New()
		e.Use(echo.WrapMiddleware(mgr.Handler))
		e.GET("/users/:id", func(c echo.Context) error { return c.String(visit(sessplus.Get(c.Request()))) })
		return e
	},
	"gin": func(mgr *sessplus.Manager) http.Handler {
		gin.SetMode(gin.TestMode)
		engine := gin.New()
		engine.GET("/users/:id", func(c *gin.Context) {
			status, text := visit(sessplus.Get(c.Request))
			c.String(status, "%s", text)
		})
		return mgr.Handler(engine) // gin has no middleware of net/http's form
	},
}

func TestFrameworks(t *testing.T) {
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			mgr := newManager(t)
			h := program(mgr)
			get := func() *http.Request { return httptest.NewRequest("GET", "/users/42", nil) }

			r := sessplustest.With(t, mgr, get(), map[string]any{"user_id": 42, "visits": 6})
			w, fields := sessplustest.Serve(t, mgr, h, r)
			if w.Code != http.StatusOK || w.Body.String() != "user 42, visit 7" || fields["visits"] != int64(7) {
				t.Errorf("answered %d %q, and the session holds %v", w.Code, w.Body, fields)
			}

			w, fields = sessplustest.Serve(t, mgr, h, get())
			if w.Code != http.StatusUnauthorized || len(fields) != 0 {
				t.Errorf("an unknown visitor is answered %d %q, and the session holds %v", w.Code, w.Body, fields)
			}
		})
	}
}

// A handler that is called without the middleware gets its session from Manager.Load.
func TestHandlerAlone(t *testing.T) {
	mgr := newManager(t)
	r := sessplustest.With(t, mgr, httptest.NewRequest("GET", "/users/42", nil), map[string]any{"user_id": 42})
	w := httptest.NewRecorder()
	s, r, err := mgr.Load(w, r)
	if err != nil {
		t.Fatal(err)
	}
	serveHTTP(w, r)
	if w.Code != http.StatusOK || Visits.Get(s) != 1 {
		t.Errorf("answered %d %q, and the session holds %v", w.Code, w.Body, s.Values())
	}
}
