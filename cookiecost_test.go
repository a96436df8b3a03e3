package sessplus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// SPEC 7.2: what cookies cost is bounded by what they may hold, also when they fill the whole header of a request.
func TestLargeCookieHeaderCostsLittle(t *testing.T) {
	const size = 900_000
	long := strings.Repeat("A", size)
	chunks := func(each int) string { // well-formed, of one writing
		var b strings.Builder
		for n := 0; b.Len() < size; n++ {
			fmt.Fprintf(&b, "c=3.%08d.%s; c.1=%08d.%s; c.2=%08d.%s; ", n, long[:each], n, long[:each], n, long[:each])
		}
		return b.String()
	}
	many := func(pair string) string { return strings.Repeat(pair, size/len(pair)) }
	numbered := func(format string) string {
		var b strings.Builder
		for n := 0; b.Len() < size; n++ {
			fmt.Fprintf(&b, format, n)
		}
		return b.String()
	}
	headers := map[string]string{
		"one long":              "c=" + long,
		"a long chunk":          "c=3.tag.AAAA; c.1=tag." + long + "; c.2=tag.A",
		"a long last chunk":     "c=3.tag.AAAA; c.1=tag.A; c.2=tag." + long,
		"a long first chunk":    "c=2.tag." + long + "; c.1=tag.A",
		"a long tag":            "c=2." + long[:size/3] + ".A; c.1=" + long[:size/3] + ".A",
		"eight and a long one":  numbered8("c=2.tag.%d; ") + "c.1=tag." + long,
		"many chunks":           chunks(4000),
		"many short chunks":     chunks(10),
		"many empty":            many("c=;"),
		"many different":        numbered("c=%d; "),
		"many different chunks": numbered("c=2.tag.%d; c.1=tag.%[1]d; "),
		"many ids":              numbered("c=%043d; "),
	}
	var spent uint64
	for kind, config := range map[string]sessplus.Config{
		"secure cookie": {CookieName: "c"},
		"split":         {CookieName: "c", MaxChunks: 3},
		"split most":    {CookieName: "c", MaxChunks: 20},
		"server-side":   {CookieName: "c", Backend: sessplus.Memory()},
		"signed id":     {CookieName: "c", Backend: sessplus.Memory(), SignID: true},
	} {
		h := newManager(t, nil, config).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Get("a") }))
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			h.ServeHTTP(w, r)
			runtime.ReadMemStats(&after)
			spent = after.TotalAlloc - before.TotalAlloc
		}))
		server.Config.MaxHeaderBytes = 1 << 20
		server.Start()
		t.Cleanup(server.Close)
		for name, header := range headers {
			req, err := http.NewRequest("GET", server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Cookie", header)
			start := time.Now()
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			took := time.Since(start)
			if res.StatusCode != http.StatusOK {
				t.Errorf("%s, %s: status %d", kind, name, res.StatusCode)
			}
			if spent > size || took > 5*time.Second {
				t.Errorf("%s, %s: %d bytes of memory and %v for a header of %d bytes", kind, name, spent, took, len(header))
			}
		}
	}
}

// numbered8 repeats the format for the numbers below 8.
func numbered8(format string) string {
	var b strings.Builder
	for n := range 8 {
		fmt.Fprintf(&b, format, n)
	}
	return b.String()
}
