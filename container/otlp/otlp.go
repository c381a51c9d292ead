// Package otlp sends the spans of requests to an OpenTelemetry collector.
package otlp

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Config says where spans go and in whose name.
type Config struct {
	// Endpoint is a collector's address. http://HOST:PORT is gRPC, as TGI has
	// it, https://HOST:PORT the same over TLS. With a path (http://HOST/v1/traces)
	// or with port 4318 it is HTTP with binary bodies. Protocol, if there is one,
	// decides instead.
	Endpoint string
	Protocol string        // grpc or http/protobuf; "": by the Endpoint
	Headers  http.Header   // of each batch
	Gzip     bool          // whether batches are compressed
	Timeout  time.Duration // for a batch with all its retries; 0: 10 seconds
	Service  string        // service.name of all spans
	Version  string        // service.version
	Frozen   bool          // the process is stopped between requests, for longer than connections live: each batch has its own
	Logger   *slog.Logger
}

// Start returns a provider whose spans go to the collector, in batches and in
// the background: a slow or missing collector delays nothing and costs only
// spans. Its Shutdown sends what is left.
//
// A traceparent decides whether its request is traced; otherwise
// OTEL_TRACES_SAMPLER does, and without that all requests are traced.
func Start(cfg Config) (*trace.TracerProvider, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	c.transport.DisableKeepAlives = cfg.Frozen
	exporter, err := otlptrace.New(context.Background(), c)
	if err != nil {
		return nil, err
	}
	quiet := newReporter(cfg.Logger)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(quiet.report))
	otel.SetLogger(logr.FromSlogHandler(cfg.Logger.Handler())) // its own writes to standard error, which may block
	return trace.NewTracerProvider(
		trace.WithIDGenerator(randomIDs{}),
		trace.WithBatcher(exporter, trace.WithBatchTimeout(2*time.Second), trace.WithExportTimeout(cmp.Or(cfg.Timeout, 10*time.Second))),
		trace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", cfg.Service),
			attribute.String("service.version", cfg.Version),
		)),
	), nil
}

// randomIDs draws the ids of traces and spans from the kernel. The SDK's generator is
// state of the process, which copies of a snapshot share.
type randomIDs struct{}

// NewIDs implements trace.IDGenerator.
func (g randomIDs) NewIDs(ctx context.Context) (id oteltrace.TraceID, _ oteltrace.SpanID) {
	rand.Read(id[:]) //nolint:errcheck // never fails, by its contract
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements trace.IDGenerator.
func (randomIDs) NewSpanID(context.Context, oteltrace.TraceID) (id oteltrace.SpanID) {
	rand.Read(id[:]) //nolint:errcheck // as above
	return id
}

// Check checks the form of an endpoint.
func Check(endpoint string) error {
	_, err := newClient(Config{Endpoint: endpoint})
	return err
}
