package main

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/sessplus/sessplus"
)

// echo answers the error that a handler returns when all middleware has returned. With
// e.Use(echo.WrapMiddleware(mgr.Handler)) the session would be saved by then, so the middleware goes around echo.
func echoRouter(mgr *sessplus.Manager) http.Handler {
	e := echo.New()
	e.GET("/pages/:page", func(c echo.Context) error {
		text, err := visit(sessplus.Get(c.Request()), c.Param("page"))
		if err != nil {
			return echo.NewHTTPError(http.StatusServiceUnavailable, "please try again")
		}
		return c.String(http.StatusOK, text)
	})
	e.GET("/fail", func(c echo.Context) error { return fail(sessplus.Get(c.Request())) })
	return mgr.Handler(e)
}
