package ginsessplus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/ginsessplus"
)

// Only the pages below /shop have a session.
func ExampleNew() {
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory()}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	engine := gin.New()
	engine.Use(gin.Recovery()) // outside of the sessions: a panic saves nothing
	shop := engine.Group("/shop", ginsessplus.New(mgr))
	shop.GET("/cart", func(c *gin.Context) {
		s := sessplus.Get(c.Request)
		s.Set("item", c.Query("item"))
		c.JSON(http.StatusOK, gin.H{"cart": s.GetString("item")})
	})

	w := httptest.NewRecorder()
	engine.ServeHTTP(w, httptest.NewRequest("GET", "/shop/cart?item=bread", nil))
	fmt.Println(w.Body)
	fmt.Println(len(w.Result().Cookies()), "cookie")
	// Output:
	// {"cart":"bread"}
	// 1 cookie
}
