package main

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sessplus/sessplus"
)

type (
	request  = connect.Request[wrapperspb.StringValue]
	response = connect.Response[wrapperspb.StringValue]
)

const (
	visitProcedure = "/pages.v1.Pages/Visit"
	failProcedure  = "/pages.v1.Pages/Fail"
)

// A procedure of connect-go gets the request's context: FromContext returns its session. Generated code would have the
// types and the paths:
//
//	curl -b jar -c jar --json '"home"' http://127.0.0.1:8080/pages.v1.Pages/Visit
func connectAPI(mgr *sessplus.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(visitProcedure, connect.NewUnaryHandler(visitProcedure,
		func(ctx context.Context, page *request) (*response, error) {
			s, _ := sessplus.FromContext(ctx)
			text, err := visit(s, page.Msg.Value)
			if err != nil {
				return nil, connect.NewError(connect.CodeUnavailable, errors.New("please try again"))
			}
			return connect.NewResponse(wrapperspb.String(text)), nil
		}))
	mux.Handle(failProcedure, connect.NewUnaryHandler(failProcedure,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			s, _ := sessplus.FromContext(ctx)
			return nil, connect.NewError(connect.CodeInternal, fail(s))
		}))
	return mgr.Handler(mux)
}
