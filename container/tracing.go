package main

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/otlp"
)

// lastSpans is what the collector gets at the end to take the last spans.
const lastSpans = 2 * time.Second

// startTracing returns the tracer of requests, nil without an endpoint, and
// what ends it.
func (s *server) startTracing(cfg *config.Serve) (trace.Tracer, func(), error) {
	if cfg.OTLPEndpoint == "" {
		return nil, func() {}, nil
	}
	provider, err := otlp.Start(otlp.Config{
		Endpoint: cfg.OTLPEndpoint,
		Service:  cfg.OTLPServiceName,
		Version:  version,
		Logger:   s.log,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("otlp-endpoint: %w", err)
	}
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			s.log.Warn("the last traces are not sent", "err", err)
		}
	}
	return provider.Tracer("github.com/millrace-ai/millrace/handler"), stop, nil
}
