package main

import (
	"fmt"
	"net/http"

	"github.com/sessplus/sessplus"
)

func serveMux(mgr *sessplus.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pages/{page}", page)
	mux.HandleFunc("GET /fail", failing)
	return mgr.Handler(mux)
}

// page and failing are handlers of net/http, which chi and gorilla/mux take as well.
func page(w http.ResponseWriter, r *http.Request) {
	text, err := visit(sessplus.Get(r), r.PathValue("page"))
	if err != nil {
		http.Error(w, "please try again", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, text)
}

func failing(w http.ResponseWriter, r *http.Request) {
	if err := fail(sessplus.Get(r)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
