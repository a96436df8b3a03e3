package sessplustest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplustest"
)

var sessions = sessplus.Must(sessplus.New([]sessplus.Config{
	{CookieName: "session", Fields: sessplus.Include("user_id", "cart"), Backend: sessplus.Memory()},
}, nil))

// addToCart is a handler of the program under test.
func addToCart(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	if !s.Has("user_id") {
		http.Error(w, "Please log in.", http.StatusUnauthorized)
		return
	}
	s.Set("cart", []string{r.FormValue("item")})
}

// A request of a logged-in user, and what the handler has left in the session.
func ExampleServe() {
	t := new(testing.T) // in a test, its own
	r := sessplustest.With(t, sessions, httptest.NewRequest("POST", "/cart?item=bread", nil), map[string]any{"user_id": 42})
	w, fields := sessplustest.Serve(t, sessions, http.HandlerFunc(addToCart), r)
	fmt.Println(w.Code, fields)
	// Output:
	// 200 map[cart:[bread] user_id:42]
}

// A handler that is called without the middleware needs Manager.Load, which puts the session into the request.
func ExampleWith_withoutMiddleware() {
	t := new(testing.T) // in a test, its own
	r := sessplustest.With(t, sessions, httptest.NewRequest("POST", "/cart?item=bread", nil), map[string]any{"user_id": 42})
	w := httptest.NewRecorder()
	s, r, err := sessions.Load(w, r)
	if err != nil {
		fmt.Println(err)
		return
	}
	addToCart(w, r)
	fmt.Println(w.Code, s.Get("cart"))
	// Output:
	// 200 [bread]
}
