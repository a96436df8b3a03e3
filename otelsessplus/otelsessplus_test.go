package otelsessplus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/otelsessplus"
)

func TestMain(m *testing.M) { servers.Main(m) }

// A program has a session in Redis and one in a cookie, and a span around each request.
type program struct {
	*httptest.Server
	t      *testing.T
	redis  *servers.RedisServer
	client *http.Client
	do     chan func(*sessplus.Session)

	mu   sync.Mutex
	seen []string // what no span and no metric may hold
}

const secret = "a-very-secret-value"

func newProgram(t *testing.T, o *otelsessplus.Options) *program {
	t.Helper()
	onEvent, err := otelsessplus.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, do: make(chan func(*sessplus.Session), 1), redis: servers.NewRedis(t), seen: []string{secret, "field_name"}}
	client := redis.NewClient(&redis.Options{Addr: p.redis.Addr})
	t.Cleanup(func() { client.Close() })
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user_id", "field_name"), Backend: sessplus.Redis(client)},
		{CookieName: "local", Fields: sessplus.Include("here"), Backend: sessplus.Memory(), Lazy: true},
		{CookieName: "data", Fields: sessplus.Auto()},
	}, &sessplus.Options{
		Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}, OnEvent: onEvent, Logger: slog.New(slog.DiscardHandler), Timeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	tracer := otel.GetTracerProvider()
	if o != nil && o.TracerProvider != nil {
		tracer = o.TracerProvider
	}
	h := mgr.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		(<-p.do)(s)
		s.Save()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen = append(p.seen, s.ID("session"), s.Handle("session"))
	}))
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tracer.Tracer("program").Start(r.Context(), "request")
		defer span.End()
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
	t.Cleanup(p.Close)
	p.newVisitor()
	return p
}

func (p *program) newVisitor() {
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.client = &http.Client{Jar: jar}
}

// visit makes a request of the visitor. One whose session cannot be loaded does not run f.
func (p *program) visit(f func(*sessplus.Session), cookies ...string) {
	p.t.Helper()
	p.do <- f
	req, err := http.NewRequest("GET", p.URL, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range cookies {
		req.Header.Add("Cookie", c)
	}
	res, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	res.Body.Close()
	select {
	case <-p.do:
	default:
	}
}

func login(s *sessplus.Session) {
	s.Set("user_id", 42)
	s.Set("field_name", secret)
	s.Set("theme", "dark")
}

func read(s *sessplus.Session) { s.Get("user_id"); s.Get("theme") }

// keepsSecret fails the test if what was exported holds anything of a visitor (SPEC 7.3).
func (p *program) keepsSecret(exported any) {
	p.t.Helper()
	text, err := json.Marshal(exported)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) < 4 || !strings.Contains(string(text), "session") {
		p.t.Fatal("nothing was exported, so that this proves nothing")
	}
	for _, s := range p.seen {
		if s != "" && strings.Contains(string(text), s) {
			p.t.Errorf("%.12s… was exported", s)
		}
	}
}

type recordedSpan struct {
	name   string
	kind   trace.SpanKind
	failed bool
	attrs  map[string]string
}

func attributes(set []attribute.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, a := range set {
		m[string(a.Key)] = a.Value.String()
	}
	return m
}

// SPEC 8: a span for each call of a backend, below that of the request.
func TestSpans(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	p := newProgram(t, &otelsessplus.Options{TracerProvider: provider})
	expect := func(step string, want ...recordedSpan) {
		t.Helper()
		all := exporter.GetSpans()
		p.keepsSecret(all)
		exporter.Reset()
		var request tracetest.SpanStub
		for _, s := range all {
			if s.Name == "request" {
				request = s
			}
		}
		var got []tracetest.SpanStub
		for _, s := range all {
			if s.Name != "request" {
				got = append(got, s)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d spans, want %d: %v", step, len(got), len(want), got)
		}
		for i, s := range got {
			w := want[i]
			if s.Name != w.name || s.SpanKind != w.kind || (s.Status.Code == codes.Error) != w.failed || s.Status.Description != "" {
				t.Errorf("%s: span %q %v %v, want %+v", step, s.Name, s.SpanKind, s.Status, w)
			}
			if s.Parent.SpanID() != request.SpanContext.SpanID() || s.SpanContext.TraceID() != request.SpanContext.TraceID() {
				t.Errorf("%s: %q is not below the request", step, s.Name)
			}
			if s.StartTime.Before(request.StartTime.Round(0)) || s.EndTime.After(request.EndTime.Round(0)) || !s.EndTime.After(s.StartTime) {
				t.Errorf("%s: %q lasts from %v to %v, the request from %v to %v",
					step, s.Name, s.StartTime, s.EndTime, request.StartTime, request.EndTime)
			}
			attrs := attributes(s.Attributes)
			for k, v := range w.attrs {
				if attrs[k] != v {
					t.Errorf("%s: %q has %s = %q, want %q", step, s.Name, k, attrs[k], v)
				}
			}
			if (attrs["error.type"] != "") != w.failed {
				t.Errorf("%s: error.type = %q", step, attrs["error.type"])
			}
		}
	}
	client, internal := trace.SpanKindClient, trace.SpanKindInternal
	p.visit(login)
	expect("login", recordedSpan{name: "create session", kind: client, attrs: map[string]string{
		"db.system.name": "redis", "db.operation.name": "create", "db.query.summary": "create session",
		"sessplus.cookie": "session", "sessplus.backend": "redis", "sessplus.operation": "create", "sessplus.outcome": "ok",
		"sessplus.fields": "2", "sessplus.bytes": fmt.Sprint(len("user_id42field_name") + len(secret) + 2),
	}})
	p.visit(read)
	expect("read", recordedSpan{name: "load session", kind: client, attrs: map[string]string{"sessplus.outcome": "ok"}})
	p.visit(func(s *sessplus.Session) { s.Set("here", 1) })
	expect("memory", recordedSpan{name: "load session", kind: client}, recordedSpan{name: "create local", kind: internal,
		attrs: map[string]string{"db.system.name": "memory"}})

	jar := p.client
	p.newVisitor()
	p.visit(read, "session="+strings.Repeat("A", 43))
	expect("unknown id", recordedSpan{name: "load session", kind: client, attrs: map[string]string{"sessplus.outcome": "miss"}})

	p.client = jar
	p.visit(func(s *sessplus.Session) {
		s.Set("user_id", 43)
		p.redis.Kill()
	})
	expect("down", recordedSpan{name: "load session", kind: client}, recordedSpan{name: "save session", kind: client, failed: true,
		attrs: map[string]string{"sessplus.outcome": "unavailable", "error.type": "unavailable"}})
}

// collect gives the data points as "NAME{KEY=VALUE,…}", with their values.
func collect(t *testing.T, reader *sdkmetric.ManualReader) (points map[string]float64, all metricdata.ResourceMetrics) {
	t.Helper()
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	points = make(map[string]float64)
	key := func(m metricdata.Metrics, set attribute.Set) string {
		var list []string
		for _, a := range set.ToSlice() {
			list = append(list, strings.TrimPrefix(string(a.Key), "sessplus.")+"="+a.Value.String())
		}
		slices.Sort(list)
		return m.Name + "{" + strings.Join(list, ",") + "}"
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					points[key(m, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Histogram[float64]:
				if m.Unit != "s" {
					t.Errorf("%s is in %q, want seconds", m.Name, m.Unit)
				}
				for _, p := range d.DataPoints {
					points[key(m, p.Attributes)] = float64(p.Count)
					if p.Sum <= 0 || p.Sum > 10 {
						t.Errorf("%s sums up to %v seconds", m.Name, p.Sum)
					}
				}
			default:
				t.Errorf("%s is a %T", m.Name, d)
			}
		}
	}
	return points, all
}

// SPEC 8: what happened is counted, and visitors add no series.
func TestMetrics(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	p := newProgram(t, &otelsessplus.Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	const visitors = 20
	for range visitors {
		p.newVisitor()
		p.visit(login)
		p.visit(read)
		p.visit(read, "session=forged")
		p.visit(func(s *sessplus.Session) { s.Destroy() })
	}
	p.visit(func(s *sessplus.Session) { s.Set("theme", strings.Repeat("x", 5000)) })
	points, all := collect(t, reader)
	p.keepsSecret(all)
	size := float64(len("user_id42field_name") + len(secret) + 2)
	redis := func(op, outcome string) string {
		return "{backend=redis,cookie=session,operation=" + op + ",outcome=" + outcome + "}"
	}
	for name, want := range map[string]float64{
		"sessplus.operations" + redis("create", "ok"):                                                visitors,
		"sessplus.operations" + redis("load", "ok"):                                                  3 * visitors,
		"sessplus.operations" + redis("destroy", "ok"):                                               visitors,
		"sessplus.operation.duration" + redis("create", "ok"):                                        visitors,
		"sessplus.operation.duration" + redis("load", "ok"):                                          3 * visitors,
		"sessplus.io{backend=redis,cookie=session,direction=read}":                                   3 * visitors * size,
		"sessplus.io{backend=redis,cookie=session,direction=write}":                                  visitors * size,
		"sessplus.rejected_cookies{cookie=session,reason=malformed}":                                 visitors,
		"sessplus.operations{backend=secure cookie,cookie=data,operation=create,outcome=ok}":         visitors,
		"sessplus.operations{backend=secure cookie,cookie=data,operation=save,outcome=failed}":       2, // Save, commit
		"sessplus.operation.duration{backend=secure cookie,cookie=data,operation=create,outcome=ok}": 0,
	} {
		if points[name] != want {
			t.Errorf("%s = %v, want %v", name, points[name], want)
		}
	}
	if len(points) > 20 {
		t.Errorf("%d series, want at most 20 for three cookies: %v", len(points), points)
	}

	p.redis.Kill()
	p.visit(read, "session="+strings.Repeat("A", 43))
	points, _ = collect(t, reader)
	if n := points["sessplus.operations"+redis("load", "unavailable")]; n != 1 {
		t.Errorf("%v loads were unavailable, want 1: %v", n, points)
	}
}

// A receiver is an OTLP collector, as far as the exporters see.
type receiver struct {
	mu      sync.Mutex
	spans   []string
	metrics []string
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var answer proto.Message
	switch r.URL.Path {
	case "/v1/traces":
		var req collectortrace.ExportTraceServiceRequest
		err, answer = proto.Unmarshal(body, &req), &collectortrace.ExportTraceServiceResponse{}
		for _, resource := range req.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, s := range scope.Spans {
					c.spans = append(c.spans, scope.Scope.Name+" "+s.Name)
				}
			}
		}
	case "/v1/metrics":
		var req collectormetrics.ExportMetricsServiceRequest
		err, answer = proto.Unmarshal(body, &req), &collectormetrics.ExportMetricsServiceResponse{}
		for _, resource := range req.ResourceMetrics {
			for _, scope := range resource.ScopeMetrics {
				for _, m := range scope.Metrics {
					c.metrics = append(c.metrics, m.Name+" "+m.Unit)
				}
			}
		}
	}
	if err != nil || answer == nil {
		http.Error(w, "no OTLP", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	data, _ := proto.Marshal(answer)
	w.Write(data)
}

// SPEC 8: spans and metrics reach a receiver of OTLP, through the global providers.
func TestOTLP(t *testing.T) {
	var c receiver
	collector := httptest.NewServer(&c)
	t.Cleanup(collector.Close)
	ctx := context.Background()
	spans, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(collector.URL+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(collector.URL+"/v1/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans))
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics)))
	otel.SetTracerProvider(tracers)
	otel.SetMeterProvider(meters)

	p := newProgram(t, nil)
	p.visit(login)
	p.visit(read, "session=forged")
	if err := tracers.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := meters.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, want := range []string{"create session", "load session"} {
		if !slices.Contains(c.spans, "github.com/sessplus/sessplus/otelsessplus "+want) {
			t.Errorf("no span %q arrived: %q", want, c.spans)
		}
	}
	for _, want := range []string{
		"sessplus.operations {operation}", "sessplus.operation.duration s", "sessplus.io By", "sessplus.rejected_cookies {cookie}",
	} {
		if !slices.Contains(c.metrics, want) {
			t.Errorf("no metric %q arrived: %q", want, c.metrics)
		}
	}
}
