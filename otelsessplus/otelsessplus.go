// Package otelsessplus records OpenTelemetry spans and metrics of sessplus:
//
//	onEvent, err := otelsessplus.New(nil)
//	if err != nil {
//		log.Fatal(err)
//	}
//	mgr, err := sessplus.New(configs, &sessplus.Options{OnEvent: onEvent})
//
// If the program has an OnEvent function of its own, call onEvent from it.
//
// # Spans
//
// Each backend call is a child of the request's span, if the program has started one outside the middleware, as
// otelhttp does. Its name is "OPERATION COOKIE", such as "load session", and it follows the semantic conventions for
// databases: db.system.name, db.operation.name, db.query.summary, error.type. Calls that share a round trip each have a
// span, all of the same length. A renewal, which takes several calls, is one span. Secure cookies have no spans.
//
// # Metrics
//
//	sessplus.operations          counter    {operation}  what was done to sessions, secure cookies included
//	sessplus.operation.duration  histogram  s            of the calls of backends
//	sessplus.io                  counter    By           of fields, by sessplus.direction: read or write
//	sessplus.rejected_cookies    counter    {cookie}     cookies that were rejected, by sessplus.reason
//
// The mean number of concurrent loads is the rate of the sum of sessplus.operation.duration.
//
// # Attributes
//
// Spans and metrics have the attributes sessplus.cookie (the CookieName), sessplus.backend (its name in
// Manager.Describe), sessplus.operation (load, create, save, touch, renew, rotate, destroy) and sessplus.outcome: ok,
// miss (there is no such session), gone (it has ended, so the changes are lost), unavailable (the backend did not
// answer) or failed. All values come from the configs or from short lists, so a metric has at most 7 × 5 series for
// each config, and about ten in practice. Spans and metrics contain nothing about a visitor: no handles, ids, keys,
// field names or values.
package otelsessplus

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sessplus/sessplus"
)

const scope = "github.com/sessplus/sessplus/otelsessplus"

// Options say where spans and metrics go. The zero value means the global providers of package otel.
type Options struct {
	TracerProvider trace.TracerProvider // nil: otel.GetTracerProvider()
	MeterProvider  metric.MeterProvider // nil: otel.GetMeterProvider()
}

// New returns a function for [sessplus.Options.OnEvent]. o may be nil. The function is safe for concurrent use, and
// several Managers may share it. New fails only if a provider refuses an instrument.
func New(o *Options) (onEvent func(context.Context, sessplus.Event), err error) {
	if o == nil {
		o = &Options{}
	}
	tracers, meters := o.TracerProvider, o.MeterProvider
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	meter := meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	r := &recorder{tracer: tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))}
	var errs [4]error
	r.operations, errs[0] = meter.Int64Counter("sessplus.operations", metric.WithUnit("{operation}"),
		metric.WithDescription("What was done to sessions."))
	r.duration, errs[1] = meter.Float64Histogram("sessplus.operation.duration", metric.WithUnit("s"),
		metric.WithDescription("How long calls of session backends took."),
		metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	r.io, errs[2] = meter.Int64Counter("sessplus.io", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the names and values of fields that were read or written."))
	r.rejected, errs[3] = meter.Int64Counter("sessplus.rejected_cookies", metric.WithUnit("{cookie}"),
		metric.WithDescription("Session cookies that were refused."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return r.hear, nil
}

type recorder struct {
	tracer     trace.Tracer
	operations metric.Int64Counter
	duration   metric.Float64Histogram
	io         metric.Int64Counter
	rejected   metric.Int64Counter
}

func (r *recorder) hear(ctx context.Context, e sessplus.Event) {
	cookie := attribute.String("sessplus.cookie", e.Cookie)
	if e.Kind == sessplus.EventReject {
		r.rejected.Add(ctx, 1, metric.WithAttributes(cookie, attribute.String("sessplus.reason", e.Reason)))
		return
	}
	outcome := e.Outcome()
	backend := attribute.String("sessplus.backend", e.Backend)
	attrs := []attribute.KeyValue{
		cookie,
		backend,
		attribute.String("sessplus.operation", string(e.Op)),
		attribute.String("sessplus.outcome", outcome),
	}
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	r.operations.Add(ctx, 1, set)
	if e.Bytes > 0 {
		direction := "write"
		if e.Op == sessplus.EventLoad {
			direction = "read"
		}
		r.io.Add(ctx, int64(e.Bytes), metric.WithAttributes(cookie, backend, attribute.String("sessplus.direction", direction)))
	}
	if e.Start.IsZero() {
		return
	}
	r.duration.Record(ctx, e.Duration.Seconds(), set)
	r.span(ctx, e, outcome, attrs)
}

// span makes the span of a call after the fact.
func (r *recorder) span(ctx context.Context, e sessplus.Event, outcome string, attrs []attribute.KeyValue) {
	name := string(e.Op)
	if e.Cookie != "" {
		name += " " + e.Cookie
	}
	kind := trace.SpanKindClient
	if e.Backend == "memory" {
		kind = trace.SpanKindInternal
	}
	attrs = append(attrs, system(e.Backend), semconv.DBOperationName(string(e.Op)), semconv.DBQuerySummary(name),
		attribute.Int("sessplus.fields", e.Fields), attribute.Int("sessplus.bytes", e.Bytes))
	_, span := r.tracer.Start(ctx, name, trace.WithTimestamp(e.Start), trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
	if e.Kind == sessplus.EventError {
		span.SetAttributes(semconv.ErrorTypeKey.String(outcome))
		span.SetStatus(codes.Error, "") // what the error says is in the log
	}
	span.End(trace.WithTimestamp(e.Start.Add(e.Duration)))
}

// system is the db.system.name of a backend.
func system(backend string) attribute.KeyValue {
	switch backend {
	case "redis":
		return semconv.DBSystemNameRedis
	case "firestore":
		return semconv.DBSystemNameKey.String("gcp.firestore") // the conventions have no name for it
	}
	return semconv.DBSystemNameKey.String(backend)
}
