package handler

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// logRequest writes the one line of a request. A complete generation has
// TGI's words and the fields of its span, whose times are texts as there; the
// fields beside the span are ours. What a client sent or got is never in it:
// of the parameters only the numbers, and messages of a client's own errors,
// which may quote a body, only for who asks for debugging.
//
// Requests that generate nothing and succeed have no line.
func (s *Server) logRequest(x *exchange, ttft time.Duration, traceID string) {
	o := &x.outcome
	level, message := slog.LevelInfo, "Success"
	switch {
	case o.status == statusClientGone:
		message = "Client gone"
	case o.err != nil && (o.status == http.StatusInternalServerError || o.status == http.StatusFailedDependency):
		level, message = slog.LevelError, "Failed"
	case o.err != nil && x.r.Method != http.MethodPost:
		level, message = slog.LevelDebug, "Failed" // health checks while loading
	case o.err != nil:
		message = "Failed"
	case o.job == nil:
		return
	}
	ctx := context.Background()
	if !s.opt.Logger.Enabled(ctx, level) {
		return
	}
	var buf [24]slog.Attr
	attrs := append(buf[:0],
		slog.String("request_id", x.outcome.id), slog.String("method", x.r.Method), slog.String("path", x.r.URL.Path),
		slog.Int("status", o.status), slog.Bool("stream", x.streaming))
	if traceID != "" {
		attrs = append(attrs, slog.String("trace_id", traceID))
	}
	for _, f := range hostFields {
		if v := x.r.Header.Get(f.header); printable(v) {
			attrs = append(attrs, slog.String(f.name, v))
		}
	}
	if ttft > 0 {
		attrs = append(attrs, slog.Float64("ttft_ms", milliseconds(ttft)))
	}
	if o.err != nil {
		attrs = append(attrs, slog.String("error_type", o.err.Type))
		if level == slog.LevelError || s.opt.Logger.Enabled(ctx, slog.LevelDebug) {
			attrs = append(attrs, slog.String("error", o.err.text()))
			if o.err.Err != nil {
				attrs = append(attrs, slog.String("cause", o.err.Err.Error()))
			}
		}
	}
	if o.job == nil {
		attrs = append(attrs, slog.Float64("total_ms", milliseconds(time.Since(x.begun))))
	} else {
		t, cached, preempted := &o.timing, 0, 0
		for stream := range x.sequences() {
			times := stream.Times()
			cached += times.CachedTokens
			preempted += times.Preempted
		}
		attrs = append(attrs,
			slog.Int("prompt_tokens", t.prompt), slog.Int("cached_tokens", cached),
			slog.Int("generated_tokens", t.tokens), slog.String("finish_reason", t.finish),
			slog.Int("preempted", preempted), slog.Float64("total_ms", milliseconds(t.total)),
			spanOf(&o.job.req, t))
	}
	if s.opt.MetricNamespace != "" && x.r.Method == http.MethodPost {
		attrs = s.appendEMF(attrs, o)
	}
	s.opt.Logger.LogAttrs(ctx, level, message, attrs...)
}

// hostFields are what SageMaker says about a request beside its id.
var hostFields = [...]struct{ name, header string }{
	{"session_id", "X-Amzn-Sagemaker-Session-Id"},
	{"adapter", "X-Amzn-Sagemaker-Adapter-Identifier"},
}

// spanOf returns the fields that TGI's span of a generation has.
func spanOf(req *engine.Request, t *timing) slog.Attr {
	p := &req.Params
	parameters := []any{
		slog.Int("max_new_tokens", req.MaxNewTokens), slog.Bool("do_sample", p.Sample == 1),
		slog.Float64("temperature", float64(p.Temperature)), slog.Int("top_k", int(p.TopK)),
		slog.Float64("top_p", float64(p.TopP)), slog.Float64("typical_p", float64(p.TypicalP)),
		slog.Float64("repetition_penalty", float64(p.RepetitionPenalty)),
		slog.Float64("frequency_penalty", float64(p.FrequencyPenalty)),
		slog.Int("top_n_tokens", req.TopN), slog.Bool("decoder_input_details", req.PromptLogprobs),
	}
	fields := []any{
		slog.Group("parameters", parameters...),
		slog.String("total_time", seconds(t.total)), slog.String("validation_time", seconds(t.validation)),
		slog.String("queue_time", seconds(t.queue)), slog.String("inference_time", seconds(t.inference)),
		slog.String("time_per_token", seconds(t.perToken)),
	}
	if p.Sample == 1 {
		fields = append(fields, slog.Uint64("seed", p.Seed))
	}
	return slog.Group("span", fields...)
}

// requestID is what the client, or SageMaker for it, calls the request; else
// its number here.
func (s *Server) requestID(x *exchange) string {
	for _, name := range [...]string{"X-Amzn-Sagemaker-Inference-Id", "X-Request-Id"} {
		if id := x.r.Header.Get(name); printable(id) {
			return id
		}
	}
	if x.outcome.job != nil {
		return x.outcome.job.req.ID
	}
	if x.r.Method == http.MethodPost {
		return strconv.FormatInt(s.requests.Add(1), 10)
	}
	return "" // a health check
}

// printable reports whether id is a name that may stand in a log.
func printable(id string) bool {
	const most = 128
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return 0 < len(id) && len(id) <= most
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// seconds writes a time as TGI's log does: seconds are never split up into
// minutes.
func seconds(d time.Duration) string {
	if d < time.Second {
		return d.String()
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}
