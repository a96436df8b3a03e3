package main

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/ginsessplus"
)

// All of gin is behind the middleware, which needs no adapter.
func ginEngine(mgr *sessplus.Manager) http.Handler {
	engine := gin.New()
	ginRoutes(engine)
	return mgr.Handler(engine)
}

// The routes of a group are behind it, inside of gin.
func ginGroup(mgr *sessplus.Manager) http.Handler {
	engine := gin.New()
	ginRoutes(engine.Group("/", ginsessplus.New(mgr)))
	return engine
}

func ginRoutes(r gin.IRoutes) {
	r.GET("/pages/:page", func(c *gin.Context) {
		text, err := visit(sessplus.Get(c.Request), c.Param("page"))
		if err != nil {
			c.String(http.StatusServiceUnavailable, "please try again")
			return
		}
		c.String(http.StatusOK, "%s", text)
	})
	r.GET("/fail", func(c *gin.Context) {
		if err := fail(sessplus.Get(c.Request)); err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
		}
	})
}
