package telemetry

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
func (rep *Reporter) trace(r *Request) (traceID string) {
	ctx := context.Background()
	if r.HTTP.Header.Get("Traceparent") != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.HTTP.Header))
	}
	if rep.Tracer == nil || r.HTTP.Method != http.MethodPost {
		return idOf(trace.SpanContextFromContext(ctx))
	}
	now := time.Now()
	// The path is one of the table's: a request without a route is never here.
	ctx, root := rep.Tracer.Start(ctx, "POST "+r.HTTP.URL.Path,
		trace.WithTimestamp(r.Begun), trace.WithSpanKind(trace.SpanKindServer))
	if root.IsRecording() {
		root.SetAttributes(rep.attributes(r)...)
		if r.Failure != nil && r.Status/100 == 5 {
			root.SetStatus(codes.Error, r.Failure.Type)
		}
		rep.traceSequences(ctx, r, now)
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
func (rep *Reporter) attributes(r *Request) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		attribute.String("http.request.method", r.HTTP.Method),
		attribute.String("http.route", r.HTTP.URL.Path),
		attribute.Int("http.response.status_code", r.Status),
		attribute.String("gen_ai.request.model", rep.ModelID),
		attribute.Bool("gen_ai.request.stream", r.Streamed),
		attribute.String("millrace.request_id", r.ID),
	}
	if r.Failure != nil {
		attrs = append(attrs, attribute.String("error.type", r.Failure.Type))
	}
	if r.Generated == nil {
		return attrs
	}
	p := &r.Generated.Params
	return append(attrs,
		attribute.Int("gen_ai.request.max_tokens", r.Generated.MaxNewTokens),
		attribute.Float64("gen_ai.request.temperature", float64(p.Temperature)),
		attribute.Float64("gen_ai.request.top_p", float64(p.TopP)),
		attribute.Int("gen_ai.request.top_k", int(p.TopK)),
		attribute.Int("gen_ai.usage.input_tokens", r.Timing.Prompt),
		attribute.Int("gen_ai.usage.output_tokens", r.Timing.Tokens),
		attribute.StringSlice("gen_ai.response.finish_reasons", []string{r.Timing.Finish}))
}

// traceSequences records the children of a request's span.
func (rep *Reporter) traceSequences(ctx context.Context, r *Request, now time.Time) {
	child := func(name string, from, to time.Time, attrs ...attribute.KeyValue) {
		if from.IsZero() {
			return
		}
		_, span := rep.Tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(attrs...))
		span.End(trace.WithTimestamp(to))
	}
	index, validated := 0, now
	for i := range r.Sequences {
		q, t := &r.Sequences[i], &r.Sequences[i].Times
		if q.Tokens == 0 {
			continue
		}
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
		decode := []attribute.KeyValue{choice, attribute.Int("millrace.tokens", q.Tokens), attribute.Int("millrace.preempted", t.Preempted)}
		if r.Generated != nil { // all have come to their ends
			decode = append(decode, attribute.String("millrace.finish_reason", q.Finish))
		}
		child("decode", t.FirstToken, end, decode...)
		index++
	}
	child("validation", r.Begun, validated)
}
