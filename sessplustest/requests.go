package sessplustest

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// With returns a copy of r that has the cookies of a session with these fields, as a browser would send them after a
// login:
//
//	r := sessplustest.With(t, mgr, httptest.NewRequest("GET", "/account", nil), map[string]any{"user_id": 42})
//
// The fields are set and saved as by a handler, in the backends of m. If r already has a session, that session is
// changed. The cookies are added regardless of their Domain, Path and Secure attributes. The test fails if the fields
// cannot be saved, for example because no config owns one.
func With(t testing.TB, m *sessplus.Manager, r *http.Request, fields map[string]any) *http.Request {
	t.Helper()
	w := httptest.NewRecorder()
	s, _, err := m.Load(w, r)
	if err != nil {
		t.Fatalf("sessplustest.With: the session of the request cannot be loaded: %v", err)
	}
	for name, value := range fields {
		s.Set(name, value)
	}
	if err := s.Save(); err != nil {
		t.Fatalf("sessplustest.With: the session cannot be made: %v\nThe fields belong to:\n%v", err, m.Describe())
	}
	return withCookies(r, w.Result().Cookies())
}

// Serve calls h behind the middleware of m. It returns the response, and the fields that the visitor's next request
// would find in the session:
//
//	w, fields := sessplustest.Serve(t, mgr, handler, r)
//
// h may already contain the middleware, like a router with Use. The values have the types that [sessplus.Session.Get]
// returns. The test fails if the session cannot be read afterwards. To test what a program does while its backend is
// down, call [sessplus.Manager.Handler] instead.
func Serve(t testing.TB, m *sessplus.Manager, h http.Handler, r *http.Request) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler(h).ServeHTTP(w, r)
	next := withCookies(r, w.Result().Cookies())
	next.Method, next.Body = http.MethodGet, http.NoBody
	s, _, err := m.Load(nil, next)
	if err != nil {
		t.Fatalf("sessplustest.Serve: the session cannot be read after the request: %v", err)
	}
	fields := s.Values()
	if err := s.Err(); err != nil {
		t.Fatalf("sessplustest.Serve: the session cannot be read after the request: %v", err)
	}
	return w, fields
}

// withCookies returns a copy of r as a browser would send it that was given the cookies in a response.
func withCookies(r *http.Request, set []*http.Cookie) *http.Request {
	next := r.Clone(r.Context())
	next.Header.Del("Cookie")
	for _, k := range r.Cookies() {
		if !replaced(k.Name, set) {
			next.AddCookie(k)
		}
	}
	for i, k := range set {
		ends := k.MaxAge < 0 || k.MaxAge == 0 && !k.Expires.IsZero() && k.Expires.Before(time.Now())
		if !ends && !replaced(k.Name, set[i+1:]) {
			next.AddCookie(&http.Cookie{Name: k.Name, Value: k.Value, Quoted: k.Quoted})
		}
	}
	return next
}

func replaced(name string, set []*http.Cookie) bool {
	return slices.ContainsFunc(set, func(k *http.Cookie) bool { return k.Name == name })
}
