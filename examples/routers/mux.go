package main

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/sessplus/sessplus"
)

func gorillaMux(mgr *sessplus.Manager) http.Handler {
	r := mux.NewRouter()
	r.Use(mgr.Handler) // its Use does not reach pages that are not found: mgr.Handler(r) does
	r.HandleFunc("/pages/{page}", func(w http.ResponseWriter, r *http.Request) {
		r.SetPathValue("page", mux.Vars(r)["page"])
		page(w, r)
	}).Methods("GET")
	r.HandleFunc("/fail", failing).Methods("GET")
	return r
}
