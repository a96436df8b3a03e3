package main

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sessplus/sessplus"
)

type humaPage struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// A handler of huma gets a context and no request: FromContext returns its session. So it is with other frameworks that
// pass the context on.
func humaAPI(mgr *sessplus.Manager) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, huma.DefaultConfig("pages", "1.0.0"))
	huma.Get(api, "/pages/{page}", func(ctx context.Context, in *struct {
		Page string `path:"page"`
	}) (*humaPage, error) {
		s, _ := sessplus.FromContext(ctx)
		text, err := visit(s, in.Page)
		if err != nil {
			return nil, huma.Error503ServiceUnavailable("please try again")
		}
		return &humaPage{"text/plain; charset=utf-8", []byte(text)}, nil
	})
	huma.Get(api, "/fail", func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		s, _ := sessplus.FromContext(ctx)
		return nil, fail(s)
	})
	return mgr.Handler(mux)
}
