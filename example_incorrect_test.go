package sessplus_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/sessplus/sessplus"
)

// The most frequent mistake: a handler that is not behind the middleware. Get says so at the first request.
func ExampleGet_incorrect() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		defer func() { fmt.Println(recover()) }()
		sessplus.Get(r).Set("user_id", 42)
	})
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) // not mgr.Handler(mux)
	// Output:
	// sessplus: Get: the request did not pass through Manager.Handler; wrap the handler with it
}

// The second most frequent one: a session that begins after the response has. Its cookie would come too late, and Save
// says so. The same order is fine for a session that the visitor has a cookie of already.
func ExampleSession_Set_incorrect() {
	browse(inMemory(), func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		fmt.Fprintln(w, "Hello!") // the headers go here
		s.Set("user_id", 42)      // must be above
		err := s.Save()
		fmt.Println(err)
		fmt.Println(errors.Is(err, sessplus.ErrHeadersSent))
		s.Clear()
	})
	// Output:
	// sessplus: cookie "session": save: the response headers have been sent
	// true
}

// A misspelt field that no config owns is an error, too, not a value that is lost.
func ExampleSession_Err_incorrect() {
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user_id"), Backend: sessplus.Memory()},
	}, &sessplus.Options{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
		fmt.Println("commit:", err)
		w.WriteHeader(http.StatusInternalServerError)
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	browse(mgr, func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		s.Set("userid", 42)
		fmt.Println(errors.Is(s.Err(), sessplus.ErrNoOwner))
	})
	// Output:
	// true
	// commit: sessplus: save: field "userid": none of the configs (session) owns it; one with Fields: sessplus.Auto() would
}
