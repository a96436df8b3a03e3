package e2e

import (
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

// Programs on gin and echo work behind Manager.Handler as docs/from-gorilla.md says.
func TestFrameworks(t *testing.T) {
	const flashes sessplus.Field[[]string] = "_flash"
	count := func(r *http.Request) string {
		s := sessplus.Get(r)
		s.Set("n", s.GetInt("n")+1)
		before := flashes.Pop(s)
		flashes.Set(s, append(flashes.Get(s), fmt.Sprint("flash ", s.GetInt("n"))))
		return fmt.Sprint(s.GetInt("n"), before)
	}
	engine := gin.New()
	engine.GET("/", func(c *gin.Context) { c.String(http.StatusOK, count(c.Request)) })
	e := echo.New()
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, count(c.Request())) })
	for name, h := range map[string]http.Handler{"gin": engine, "echo": e} {
		m, err := sessplus.New([]sessplus.Config{{CookieName: "session"}},
			&sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(m.Handler(h))
		defer server.Close()
		jar, _ := cookiejar.New(nil)
		browser := &http.Client{Jar: jar}
		for _, want := range []string{"1 []", "2 [flash 1]", "3 [flash 2]"} {
			r, err := browser.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if string(body) != want {
				t.Errorf("%s: %q, want %q", name, body, want)
			}
		}
	}
}
