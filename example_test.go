package sessplus_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"github.com/sessplus/sessplus"
)

// Visits is a field of the session, and what it holds.
const Visits sessplus.Field[int] = "visits"

// A whole program: two cookies, one session. The theme travels in an encrypted cookie, all other fields stay on the
// server.
func Example() {
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "prefs", Fields: sessplus.Include("theme")},
		{CookieName: "session", Fields: sessplus.Auto(), Backend: sessplus.Memory()},
	}, &sessplus.Options{
		Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}, // DeriveKeyPair(secret) in production
	})
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /theme/{name}", func(_ http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("theme", r.PathValue("name"))
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		visits, err := Visits.Update(s, func(n int) int { return n + 1 }) // loses no visit to a concurrent request
		if err != nil {
			log.Print(err)
			http.Error(w, "please try again", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "visit %d, theme %q\n", visits, s.GetString("theme"))
	})
	server := httptest.NewServer(mgr.Handler(mux))
	defer server.Close()

	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	for _, request := range []string{"GET /", "POST /theme/dark", "GET /"} {
		var method, path string
		fmt.Sscan(request, &method, &path)
		req, _ := http.NewRequest(method, server.URL+path, nil)
		res, err := browser.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Printf("%s: %d cookies set\n%s", request, len(res.Cookies()), body)
	}
	// Output:
	// GET /: 1 cookies set
	// visit 1, theme ""
	// POST /theme/dark: 1 cookies set
	// GET /: 0 cookies set
	// visit 2, theme "dark"
}
