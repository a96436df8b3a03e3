package promsessplus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/promsessplus"
)

// A program that counts its sessions on a registry of its own, which Prometheus scrapes at /metrics.
func ExampleNew() {
	reg := prometheus.NewRegistry()
	onEvent, err := promsessplus.New(reg)
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
	mux := http.NewServeMux()
	mux.Handle("/", mgr.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("user_id", 42)
	})))
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))

	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	families, err := reg.Gather()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range families {
		fmt.Println(f.GetName())
	}
	// Output:
	// sessplus_operation_duration_seconds
	// sessplus_operations_total
	// sessplus_written_bytes_total
}
