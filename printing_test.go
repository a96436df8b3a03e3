package sessplus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 7.3: what a program logs of a request shows nothing of its session: neither its context, nor those made from it, nor
// the writer, nor the request itself beyond its own headers.
func TestContextShowsNothing(t *testing.T) {
	const secret = "s3cr3t-value"
	type key struct{}
	for _, config := range []sessplus.Config{{CookieName: "sid", Backend: sessplus.Memory()}, {CookieName: "sid"}} {
		for _, managers := range [][]*sessplus.Manager{
			{newManager(t, nil, config)},
			{newManager(t, nil, config), newManager(t, nil, sessplus.Config{CookieName: "inner"})},
			{newManager(t, nil, config, sessplus.Config{CookieName: "second", Fields: sessplus.Include("x")})},
		} {
			s := newSite(t, managers...)
			s.visit(func(_ http.ResponseWriter, r *http.Request) { managers[0].Get(r).Set("user", secret) })
			cookie := s.jar(s.client)["sid"]
			if cookie == "" {
				t.Fatal("no cookie")
			}
			s.visit(func(w http.ResponseWriter, r *http.Request) {
				sess := managers[0].Get(r)
				if sess.GetString("user") != secret {
					t.Error("the session was not loaded")
				}
				sess.Set("more", secret)
				if err := sess.Save(); err != nil {
					t.Errorf("Save() = %v", err)
				}
				ctx := r.Context()
				canceled, cancel := context.WithCancel(ctx)
				defer cancel()
				timed, stop := context.WithTimeout(ctx, time.Minute)
				defer stop()
				bare := r.Clone(ctx)
				bare.Header = nil
				hex := func(text string) string { return fmt.Sprintf("%x", text) }
				for what, v := range map[string]any{
					"the context": ctx, "WithValue": context.WithValue(ctx, key{}, 1), "WithCancel": canceled, "WithTimeout": timed,
					"WithoutCancel": context.WithoutCancel(ctx), "all of them": context.WithValue(context.WithoutCancel(timed), key{}, canceled),
					"the value": ctx.Value(http.ServerContextKey), "the session": sess, "the writer": w, "the controller": http.NewResponseController(w),
					"a writer around it": struct{ http.ResponseWriter }{w}, "the request": bare, "its value": *bare, "a slice": []any{ctx, sess, w},
					"a struct": struct {
						C context.Context
						s *sessplus.Session
					}{ctx, sess}, "the manager": managers[0],
				} {
					var b bytes.Buffer
					for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
						fmt.Fprintf(&b, verb+"\n", v)
					}
					log.New(&b, "", 0).Println("ctx:", v)
					slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
					slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
					json.NewEncoder(&b).Encode(v)
					for _, hidden := range []string{secret, cookie, hex(secret), hex(cookie), strings.ToUpper(hex(secret)), fmt.Sprint([]byte(secret)), fmt.Sprintf("%#v", []byte(secret))} {
						if strings.Contains(b.String(), strings.Trim(hidden, "[]")) {
							t.Errorf("%s shows %.40s: %.500s", what, hidden, b.String())
							break
						}
					}
				}
			})
		}
	}
}
