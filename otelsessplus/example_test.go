package otelsessplus_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/otelsessplus"
)

// A program whose session calls are spans below those of its requests, which otelhttp makes in others.
func ExampleNew() {
	spans := tracetest.NewInMemoryExporter() // in a program, one of the OTLP exporters
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	defer provider.Shutdown(context.Background())
	onEvent, err := otelsessplus.New(&otelsessplus.Options{TracerProvider: provider})
	if err != nil {
		fmt.Println(err)
		return
	}
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory()}},
		&sessplus.Options{OnEvent: onEvent})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := mgr.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user_id", 42) }))

	ctx, span := provider.Tracer("program").Start(context.Background(), "GET /")
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	span.End()
	for _, s := range spans.GetSpans() {
		fmt.Println(s.Name)
	}
	// Output:
	// create session
	// GET /
}
