package telemetry

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// log writes the one line of a request. A complete generation has
// TGI's words and the fields of its span, whose times are texts as there; the
// fields beside the span are ours, with times in numbers that can be summed. What a client sent or got is never in it:
// of the parameters only the numbers, and messages of a client's own errors,
// which may quote a body, only for who asks for debugging.
//
// Requests that generate nothing and succeed have no line.
func (rep *Reporter) log(r *Request, ttft time.Duration, traceID string) {
	level, message := slog.LevelInfo, "Success"
	switch {
	case r.Status == StatusClientGone:
		message = "Client gone"
	case r.Failure != nil && (r.Status == http.StatusInternalServerError || r.Status == http.StatusFailedDependency):
		level, message = slog.LevelError, "Failed"
	case r.Failure != nil && r.HTTP.Method != http.MethodPost:
		level, message = slog.LevelDebug, "Failed" // health checks while loading
	case r.Failure != nil:
		level, message = slog.LevelWarn, "Failed"
	case r.Generated == nil:
		return
	}
	ctx := context.Background()
	if !rep.Logger.Enabled(ctx, level) {
		return
	}
	var buf [26]slog.Attr
	attrs := append(buf[:0],
		slog.String("request_id", r.ID), slog.String("method", r.HTTP.Method), slog.String("path", r.HTTP.URL.Path),
		slog.Int("status", r.Status), slog.Bool("stream", r.Streamed))
	if traceID != "" {
		attrs = append(attrs, slog.String("trace_id", traceID))
	}
	for _, f := range hostFields {
		if v := r.HTTP.Header.Get(f.header); printable(v) {
			attrs = append(attrs, slog.String(f.name, v))
		}
	}
	if name := cmp.Or(r.Adapter, r.HTTP.Header.Get("X-Amzn-Sagemaker-Adapter-Identifier")); printable(name) {
		attrs = append(attrs, slog.String("adapter", name))
	}
	if ttft > 0 {
		attrs = append(attrs, slog.Float64("ttft_ms", milliseconds(ttft)))
	}
	if r.Failure != nil {
		attrs = append(attrs, slog.String("error_type", r.Failure.Type))
		if level == slog.LevelError || rep.Logger.Enabled(ctx, slog.LevelDebug) {
			attrs = append(attrs, slog.String("error", r.Failure.Message))
			if r.Failure.Cause != nil {
				attrs = append(attrs, slog.String("cause", r.Failure.Cause.Error()))
			}
		}
	}
	if r.Generated == nil {
		attrs = append(attrs, slog.Float64("total_ms", milliseconds(time.Since(r.Begun))))
	} else {
		t, cached, preempted := &r.Timing, 0, 0
		for i := range r.Sequences {
			cached += r.Sequences[i].Times.CachedTokens
			preempted += r.Sequences[i].Times.Preempted
		}
		attrs = append(attrs,
			slog.Int("prompt_tokens", t.Prompt), slog.Int("cached_tokens", cached),
			slog.Int("generated_tokens", t.Tokens), slog.String("finish_reason", t.Finish),
			slog.Int("preempted", preempted), slog.Float64("queue_ms", milliseconds(t.Queue)),
			slog.Float64("inference_ms", milliseconds(t.Inference)), slog.Float64("total_ms", milliseconds(t.Total)),
			spanOf(r.Generated, t))
	}
	if rep.Namespace != "" && r.HTTP.Method == http.MethodPost {
		attrs = rep.appendEMF(attrs, r)
	}
	rep.Logger.LogAttrs(ctx, level, message, attrs...)
}

// hostFields are what SageMaker says about a request beside its id.
var hostFields = [...]struct{ name, header string }{
	{"session_id", "X-Amzn-Sagemaker-Session-Id"},
}

// spanOf returns the fields that TGI's span of a generation has.
func spanOf(req *engine.Request, t *Timing) slog.Attr {
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
		slog.String("total_time", seconds(t.Total)), slog.String("validation_time", seconds(t.Validation)),
		slog.String("queue_time", seconds(t.Queue)), slog.String("inference_time", seconds(t.Inference)),
		slog.String("time_per_token", seconds(t.PerToken)),
	}
	if p.Sample == 1 {
		fields = append(fields, slog.Uint64("seed", p.Seed))
	}
	return slog.Group("span", fields...)
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
