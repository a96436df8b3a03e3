package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplustest"
)

func init() { gin.SetMode(gin.TestMode) }

// A downBackend answers no load.
type downBackend struct{ sessplus.Backend }

func (downBackend) Load(context.Context, string) (*sessplus.Record, error) {
	return nil, errors.New("the backend is down")
}

func eachRouter(t *testing.T, b sessplus.Backend, f func(t *testing.T, mgr *sessplus.Manager, h http.Handler)) {
	for name, router := range routers {
		if name == "connect" { // has no pages: see connect_test.go
			continue
		}
		t.Run(name, func(t *testing.T) {
			mgr, err := newManager(b)
			if err != nil {
				t.Fatal(err)
			}
			f(t, mgr, router(mgr))
		})
	}
}

func TestVisits(t *testing.T) {
	eachRouter(t, sessplus.Memory(), func(t *testing.T, mgr *sessplus.Manager, h http.Handler) {
		get := func(path string) *http.Request { return httptest.NewRequest("GET", path, nil) }
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/pages/home"))
		if w.Code != http.StatusOK || w.Body.String() != "home: visit 1\n" || len(w.Result().Cookies()) != 1 {
			t.Errorf("a new visitor gets %d %q with the cookies %v", w.Code, w.Body, w.Result().Cookies())
		}
		r := sessplustest.With(t, mgr, get("/pages/home"), map[string]any{"visits": map[string]int{"home": 6}})
		w, fields := sessplustest.Serve(t, mgr, h, r)
		if w.Code != http.StatusOK || w.Body.String() != "home: visit 7\n" {
			t.Errorf("answered %d %q, and the session holds %v", w.Code, w.Body, fields)
		}
	})
}

// Whatever a framework makes of an error, nothing of a request that failed is saved.
func TestErrorSavesNothing(t *testing.T) {
	eachRouter(t, sessplus.Memory(), func(t *testing.T, mgr *sessplus.Manager, h http.Handler) {
		w := httptest.NewRecorder() // not sessplustest.Serve, which would put the middleware around all
		h.ServeHTTP(w, httptest.NewRequest("GET", "/fail", nil))
		if w.Code != http.StatusInternalServerError || len(w.Result().Cookies()) != 0 {
			t.Errorf("answered %d %q with the cookies %v", w.Code, w.Body, w.Result().Cookies())
		}
	})
}

// While the backend is down nobody looks like a new visitor, because no handler runs.
func TestBackendDown(t *testing.T) {
	eachRouter(t, downBackend{sessplus.Memory()}, func(t *testing.T, mgr *sessplus.Manager, h http.Handler) {
		r := httptest.NewRequest("GET", "/pages/home", nil)
		r.AddCookie(&http.Cookie{Name: "session", Value: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusServiceUnavailable || len(w.Result().Cookies()) != 0 {
			t.Errorf("answered %d %q with the cookies %v", w.Code, w.Body, w.Result().Cookies())
		}
	})
}

// A handler that is called without the middleware gets its session from Manager.Load.
func TestHandlerAlone(t *testing.T) {
	mgr, err := newManager(sessplus.Memory())
	if err != nil {
		t.Fatal(err)
	}
	r := sessplustest.With(t, mgr, httptest.NewRequest("GET", "/pages/home", nil), map[string]any{"visits": map[string]int{"home": 6}})
	r.SetPathValue("page", "home")
	w := httptest.NewRecorder()
	s, r, err := mgr.Load(w, r)
	if err != nil {
		t.Fatal(err)
	}
	page(w, r)
	if w.Code != http.StatusOK || Visits.Get(s)["home"] != 7 {
		t.Errorf("answered %d %q, and the session holds %v", w.Code, w.Body, s.Values())
	}
}
