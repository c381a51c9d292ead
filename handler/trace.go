package handler

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// trace records the spans of a request that has been answered, if it is one
// that works with the model, and returns the id of the trace it belongs to:
// "" without a tracer and a traceparent header.
//
// A request's span has a validation span, and for each of its sequences spans
// for its time in the queue, for its prompt and for its tokens. All are made
// here, from times that are taken anyway: without a tracer nothing is done.
// Names of attributes are those of OpenTelemetry's conventions for HTTP and
// generative AI where they have one.
func (s *Server) trace(x *exchange) (traceID string) {
	ctx := context.Background()
	if x.r.Header.Get("Traceparent") != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(x.r.Header))
	}
	if s.opt.Tracer == nil || x.r.Method != http.MethodPost {
		return idOf(trace.SpanContextFromContext(ctx))
	}
	now := time.Now()
	// The path is one of the table's: a request without a route is never here.
	ctx, root := s.opt.Tracer.Start(ctx, "POST "+x.r.URL.Path,
		trace.WithTimestamp(x.begun), trace.WithSpanKind(trace.SpanKindServer))
	if root.IsRecording() {
		root.SetAttributes(s.attributes(x)...)
		if err := x.outcome.err; err != nil && x.outcome.status/100 == 5 {
			root.SetStatus(codes.Error, err.Type)
		}
		s.traceSequences(ctx, x, now)
	}
	root.End(trace.WithTimestamp(now))
	return idOf(root.SpanContext())
}

func idOf(c trace.SpanContext) string {
	if !c.HasTraceID() {
		return ""
	}
	return c.TraceID().String()
}

// attributes are those of a request's span.
func (s *Server) attributes(x *exchange) []attribute.KeyValue {
	o := &x.outcome
	attrs := []attribute.KeyValue{
		attribute.String("http.request.method", x.r.Method),
		attribute.String("http.route", x.r.URL.Path),
		attribute.Int("http.response.status_code", o.status),
		attribute.String("gen_ai.request.model", s.opt.ModelID),
		attribute.Bool("gen_ai.request.stream", x.streaming),
		attribute.String("millrace.request_id", o.id),
	}
	if o.err != nil {
		attrs = append(attrs, attribute.String("error.type", o.err.Type))
	}
	if o.job == nil {
		return attrs
	}
	p := &o.job.req.Params
	return append(attrs,
		attribute.Int("gen_ai.request.max_tokens", o.job.req.MaxNewTokens),
		attribute.Float64("gen_ai.request.temperature", float64(p.Temperature)),
		attribute.Float64("gen_ai.request.top_p", float64(p.TopP)),
		attribute.Int("gen_ai.request.top_k", int(p.TopK)),
		attribute.Int("gen_ai.usage.input_tokens", o.timing.prompt),
		attribute.Int("gen_ai.usage.output_tokens", o.timing.tokens),
		attribute.StringSlice("gen_ai.response.finish_reasons", []string{o.timing.finish}))
}

// traceSequences records the children of a request's span.
func (s *Server) traceSequences(ctx context.Context, x *exchange, now time.Time) {
	child := func(name string, from, to time.Time, attrs ...attribute.KeyValue) {
		if from.IsZero() {
			return
		}
		_, span := s.opt.Tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(attrs...))
		span.End(trace.WithTimestamp(to))
	}
	index, validated := 0, now
	for stream, text := range x.sequences() {
		if text.Tokens() == 0 {
			continue // its times may still be written
		}
		t := stream.Times()
		if index == 0 {
			validated = t.Submitted
		}
		end := t.Finished
		if end.IsZero() { // ended by a stop string, or left by its client
			end = now
		}
		choice := attribute.Int("millrace.choice", index)
		child("queue", t.Submitted, t.Admitted, choice)
		child("prefill", t.Admitted, t.FirstToken, choice, attribute.Int("millrace.cached_tokens", t.CachedTokens))
		decode := []attribute.KeyValue{choice, attribute.Int("millrace.tokens", text.Tokens()), attribute.Int("millrace.preempted", t.Preempted)}
		if x.outcome.job != nil { // all have come to their ends
			decode = append(decode, attribute.String("millrace.finish_reason", finishReason(text.Finish())))
		}
		child("decode", t.FirstToken, end, decode...)
		index++
	}
	child("validation", x.begun, validated)
}
