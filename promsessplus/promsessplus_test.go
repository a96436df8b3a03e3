package promsessplus_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/promsessplus"
)

func TestMain(m *testing.M) { servers.Main(m) }

const secret = "a-very-secret-value"

// SPEC 8: a scrape over HTTP gives what has happened, under names and labels that follow Prometheus' conventions, and
// visitors add no series.
func TestScrape(t *testing.T) {
	reg := prometheus.NewRegistry()
	onEvent, err := promsessplus.New(reg)
	if err != nil {
		t.Fatal(err)
	}
	server := servers.NewRedis(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { client.Close() })
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user_id", "field_name"), Backend: sessplus.Redis(client)},
		{CookieName: "data", Fields: sessplus.Auto()},
	}, &sessplus.Options{
		Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}, OnEvent: onEvent, Logger: slog.New(slog.DiscardHandler), Timeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	do, handle := func(*sessplus.Session) {}, ""
	mux := http.NewServeMux()
	mux.Handle("/", mgr.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		if do(s); s.Handle("session") != "" {
			handle = s.Handle("session")
		}
	})))
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	program := httptest.NewServer(mux)
	t.Cleanup(program.Close)
	get := func(c *http.Client, path, cookie string) string {
		t.Helper()
		req, err := http.NewRequest("GET", program.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if cookie != "" {
			req.Header.Set("Cookie", cookie)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	visit := func(c *http.Client, cookie string, f func(*sessplus.Session)) {
		t.Helper()
		do = f
		get(c, "/", cookie)
	}
	const visitors = 10
	for range visitors {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &http.Client{Jar: jar}
		visit(c, "", func(s *sessplus.Session) {
			s.Set("user_id", 42)
			s.Set("field_name", secret)
			s.Set("theme", "dark")
		})
		visit(c, "", func(s *sessplus.Session) { s.Set("user_id", 43) })
		visit(c, "", func(s *sessplus.Session) { s.Destroy() })
	}
	visit(http.DefaultClient, "session=forged", func(*sessplus.Session) {})
	visit(http.DefaultClient, "session="+strings.Repeat("A", 43), func(*sessplus.Session) {})
	visit(http.DefaultClient, "", func(s *sessplus.Session) { s.Set("theme", strings.Repeat("x", 5000)) })
	server.Kill()
	visit(http.DefaultClient, "session="+strings.Repeat("A", 43), func(*sessplus.Session) {})

	text := get(http.DefaultClient, "/metrics", "")
	for _, line := range []string{
		`sessplus_operations_total{backend="redis",cookie="session",operation="create",outcome="ok"} 10`,
		`sessplus_operations_total{backend="redis",cookie="session",operation="load",outcome="ok"} 20`,
		`sessplus_operations_total{backend="redis",cookie="session",operation="load",outcome="miss"} 1`,
		`sessplus_operations_total{backend="redis",cookie="session",operation="load",outcome="unavailable"} 1`,
		`sessplus_operations_total{backend="redis",cookie="session",operation="save",outcome="ok"} 10`,
		`sessplus_operations_total{backend="redis",cookie="session",operation="destroy",outcome="ok"} 10`,
		`sessplus_operations_total{backend="secure cookie",cookie="data",operation="create",outcome="ok"} 10`,
		`sessplus_operations_total{backend="secure cookie",cookie="data",operation="save",outcome="failed"} 1`,
		`sessplus_operation_duration_seconds_count{backend="redis",cookie="session",operation="load"} 22`,
		`sessplus_read_bytes_total{backend="redis",cookie="session"} 800`,
		`sessplus_written_bytes_total{backend="redis",cookie="session"} 490`,
		`sessplus_rejected_cookies_total{cookie="session",reason="malformed"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the scrape lacks %s", line)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^sessplus_\w+(_total|_count)\{`).FindAllString(text, -1)); n > 25 {
		t.Errorf("%d series, want at most 25 for two cookies", n)
	}
	for _, s := range []string{secret, handle, "field_name", "forged"} {
		if s == "" || strings.Contains(text, s) {
			t.Errorf("%q was exported (SPEC 7.3)", s)
		}
	}
	if strings.Contains(text, `operation_duration_seconds_count{backend="secure cookie"`) {
		t.Error("a secure cookie is in the histogram of calls")
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// refusing registers up to left collectors, and then no more.
type refusing struct {
	prometheus.Registerer
	left int
}

func (r *refusing) Register(c prometheus.Collector) error {
	if r.left == 0 {
		return errors.New("refused")
	}
	r.left--
	return r.Registerer.Register(c)
}

// What was registered before a refusal is taken back.
func TestRegistryThatRefuses(t *testing.T) {
	reg := prometheus.NewRegistry()
	for left := range 5 {
		if _, err := promsessplus.New(&refusing{reg, left}); err == nil {
			t.Fatalf("no error when the registry refuses after %d", left)
		}
	}
	if _, err := promsessplus.New(reg); err != nil {
		t.Errorf("after that nothing can be registered: %v", err)
	}
}
