package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/otlp"
)

// lastSpans is how long the collector has to accept the spans that are left.
const lastSpans = 2 * time.Second

// tracing sends the spans of requests to a collector, if there is one.
type tracing struct {
	tracer   trace.Tracer // nil: none
	provider *sdk.TracerProvider
	log      *slog.Logger
}

// startTracing starts tracing if --otlp-endpoint or OpenTelemetry's variables name
// a collector.
func startTracing(cfg *config.Serve, log *slog.Logger) (*tracing, error) {
	c := otlp.Config{
		Endpoint: cfg.OTLPEndpoint,
		Service:  cfg.OTLPServiceName,
		Version:  version,
		Frozen:   os.Getenv(runtimeAPI) != "",
		Logger:   log,
	}
	if err := c.Environment(os.Getenv); err != nil {
		return nil, err
	}
	if c.Endpoint == "" {
		return &tracing{}, nil
	}
	provider, err := otlp.Start(c)
	if err != nil {
		return nil, fmt.Errorf("otlp-endpoint: %w", err)
	}
	return &tracing{provider.Tracer("github.com/millrace-ai/millrace/handler"), provider, log}, nil
}

// flush sends the spans that wait to be sent.
func (t *tracing) flush() {
	if t.provider != nil {
		t.last(t.provider.ForceFlush)
	}
}

// stop sends the last spans.
func (t *tracing) stop() {
	if t.provider != nil {
		t.last(t.provider.Shutdown)
	}
}

func (t *tracing) last(send func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
	defer cancel()
	if err := send(ctx); err != nil {
		t.log.Warn("the last traces were not sent", "err", err)
	}
}
