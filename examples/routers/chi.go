package main

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/sessplus/sessplus"
)

func chiRouter(mgr *sessplus.Manager) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer) // outside of the sessions: a panic saves nothing
	r.Use(mgr.Handler)
	r.Use(middleware.Timeout(10 * time.Second)) // inside: a request that is too slow saves nothing
	r.Get("/pages/{page}", page)
	r.Get("/fail", failing)
	return r
}
