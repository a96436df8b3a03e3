// Package promsessplus exports Prometheus metrics of sessplus:
//
//	onEvent, err := promsessplus.New(prometheus.DefaultRegisterer)
//	if err != nil {
//		log.Fatal(err)
//	}
//	mgr, err := sessplus.New(configs, &sessplus.Options{OnEvent: onEvent})
//
// If the program has an OnEvent function of its own, call onEvent from it. The directory alerts has four alerting rules
// and a dashboard for Grafana.
//
// # Metrics
//
//	sessplus_operations_total            cookie, backend, operation, outcome  what was done to sessions
//	sessplus_operation_duration_seconds  cookie, backend, operation           histogram of the calls of backends
//	sessplus_read_bytes_total            cookie, backend                      names and values of loaded fields
//	sessplus_written_bytes_total         cookie, backend                      the same, saved
//	sessplus_rejected_cookies_total      cookie, reason                       cookies that were rejected
//
// operation is load, create, save, touch, renew, rotate or destroy. outcome is ok, miss (there is no such session),
// gone (it has ended, so the changes are lost), unavailable (the backend did not answer) or failed. Secure cookies have
// no calls, and are not in the histogram. The mean number of concurrent loads is the rate of
// sessplus_operation_duration_seconds_sum.
//
// All labels come from the configs or from short lists, so there are at most 7 × 5 counters and 7 histograms for each
// config, and about ten and five in practice. Labels contain nothing about a visitor.
package promsessplus

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sessplus/sessplus"
)

// New registers the metrics with reg and returns a function for [sessplus.Options.OnEvent]. The function is safe for
// concurrent use, and several Managers may share it. If reg refuses a metric, for example because it is registered
// already, New returns its error and registers none.
func New(reg prometheus.Registerer) (onEvent func(context.Context, sessplus.Event), err error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sessplus", Name: name, Help: help}, labels)
	}
	m := &metrics{
		operations: counter("operations_total", "What was done to sessions.", "cookie", "backend", "operation", "outcome"),
		read:       counter("read_bytes_total", "Bytes of the names and values of loaded fields.", "cookie", "backend"),
		written:    counter("written_bytes_total", "Bytes of the names and values of fields that were saved.", "cookie", "backend"),
		rejected:   counter("rejected_cookies_total", "Session cookies that were refused.", "cookie", "reason"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "sessplus", Name: "operation_duration_seconds", Help: "How long calls of session backends took.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"cookie", "backend", "operation"}),
	}
	all := []prometheus.Collector{m.operations, m.read, m.written, m.rejected, m.duration}
	for i, c := range all {
		if err := reg.Register(c); err != nil {
			for _, done := range all[:i] {
				reg.Unregister(done)
			}
			return nil, err
		}
	}
	return m.hear, nil
}

type metrics struct {
	operations, read, written, rejected *prometheus.CounterVec
	duration                            *prometheus.HistogramVec
}

func (m *metrics) hear(_ context.Context, e sessplus.Event) {
	if e.Kind == sessplus.EventReject {
		m.rejected.WithLabelValues(e.Cookie, e.Reason).Inc()
		return
	}
	m.operations.WithLabelValues(e.Cookie, e.Backend, string(e.Op), e.Outcome()).Inc()
	if e.Bytes > 0 {
		bytes := m.written
		if e.Op == sessplus.EventLoad {
			bytes = m.read
		}
		bytes.WithLabelValues(e.Cookie, e.Backend).Add(float64(e.Bytes))
	}
	if !e.Start.IsZero() {
		m.duration.WithLabelValues(e.Cookie, e.Backend, string(e.Op)).Observe(e.Duration.Seconds())
	}
}
