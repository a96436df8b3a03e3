package sessplus_test

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"sync"

	"github.com/sessplus/sessplus"
)

const flash sessplus.Field[[]string] = "flash"

// addFlash leaves a message for the next page. Requests that add side by side lose none.
func addFlash(s *sessplus.Session, message string) error {
	_, err := flash.Update(s, func(queue []string) []string { return append(queue, message) })
	return err
}

// takeFlash returns the messages, each of them to one request only.
func takeFlash(s *sessplus.Session) ([]string, error) {
	if len(flash.Get(s)) == 0 {
		return nil, nil // as for most pages, which need no write then
	}
	var taken []string
	_, err := flash.Update(s, func(queue []string) []string {
		taken = queue // assigned and not appended, because this runs again if another request was faster
		return nil
	})
	if err != nil {
		return nil, err // what was taken last may still be in the store
	}
	return taken, nil
}

// A queue of flash messages, in a server-side session. Pop would do for one message that one request sets; what another
// request adds between the load and the save of this one would go unseen.
func Example_flash() {
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory()}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("user", "Ann")
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		if err := addFlash(sessplus.Get(r), r.FormValue("file")+" has been uploaded"); err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
		}
	})
	var mu sync.Mutex
	var shown []string
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		messages, err := takeFlash(sessplus.Get(r))
		if err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		shown = append(shown, messages...)
	})
	server := httptest.NewServer(mgr.Handler(mux))
	defer server.Close()
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	get := func(path string) {
		res, err := browser.Get(server.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		res.Body.Close()
	}

	get("/login")
	var requests sync.WaitGroup
	for _, file := range []string{"a", "b", "c", "d"} {
		requests.Go(func() { get("/upload?file=" + file) })
		requests.Go(func() { get("/page") })
	}
	requests.Wait()
	get("/page") // what was added since

	slices.Sort(shown)
	for _, message := range shown {
		fmt.Println(message)
	}
	// Output:
	// a has been uploaded
	// b has been uploaded
	// c has been uploaded
	// d has been uploaded
}
