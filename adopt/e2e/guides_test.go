package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/labstack/echo/v4"
	"github.com/sessplus/sessplus"
)

// Programs on gin and echo work as docs/from-gorilla.md and docs/routers.md say, and a handler that fails saves
// nothing.
func TestFrameworks(t *testing.T) {
	const flashes sessplus.Field[[]string] = "_flash"
	count := func(r *http.Request) string {
		s := sessplus.Get(r)
		s.Set("n", s.GetInt("n")+1)
		before := flashes.Pop(s)
		flashes.Set(s, append(flashes.Get(s), fmt.Sprint("flash ", s.GetInt("n"))))
		return fmt.Sprint(s.GetInt("n"), before)
	}
	m, err := sessplus.New([]sessplus.Config{{CookieName: "session"}},
		&sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	engine.GET("/", func(c *gin.Context) { c.String(http.StatusOK, count(c.Request)) })
	engine.GET("/fail", func(c *gin.Context) {
		count(c.Request)
		c.AbortWithStatus(http.StatusInternalServerError)
	})
	newEcho := func(middleware ...echo.MiddlewareFunc) *echo.Echo {
		e := echo.New()
		e.Use(middleware...)
		e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, count(c.Request())) })
		e.GET("/fail", func(c echo.Context) error {
			count(c.Request())
			return errors.New("it fails")
		})
		return e
	}
	answer := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := next(c); err != nil {
				c.Error(err)
			}
			return nil
		}
	}
	for name, h := range map[string]http.Handler{
		"gin":               m.Handler(engine),
		"echo":              m.Handler(newEcho()),
		"echo's middleware": newEcho(echo.WrapMiddleware(m.Handler), answer),
	} {
		server := httptest.NewServer(h)
		defer server.Close()
		jar, _ := cookiejar.New(nil)
		browser := &http.Client{Jar: jar}
		for _, want := range []string{"1 []", "2 [flash 1]", "3 [flash 2]"} {
			for _, path := range []string{"/fail", "/"} {
				r, err := browser.Get(server.URL + path)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(r.Body)
				r.Body.Close()
				if path == "/" && string(body) != want || path == "/fail" && r.StatusCode != http.StatusInternalServerError {
					t.Errorf("%s: %s: status %d, %q, want %q", name, path, r.StatusCode, body, want)
				}
			}
		}
	}
}
