package handler

import (
	"iter"
	"net/http"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/telemetry"
)

// outcome is how a request ended, for its log line and its spans.
type outcome struct {
	job    *job             // nil: it came to no generation, or to no end of one
	timing telemetry.Timing // of job
	status int              // sent, or what an error after a stream's first token stands for
	err    *Error           // the last one; nil: none
}

// succeeded records a complete generation.
func (s *Server) succeeded(x *exchange, j *job, t telemetry.Timing) {
	s.metrics.Finished(&t)
	x.outcome.job, x.outcome.timing = j, t
}

// conclude counts, traces and logs a request that has been answered. Its
// streams must not be closed yet.
func (s *Server) conclude(x *exchange) {
	o := &x.outcome
	r := telemetry.Request{
		ID: x.w.Header().Get("X-Request-Id"), Route: x.route, HTTP: x.r, Begun: x.begun, Status: o.status, Streamed: x.streaming, Timing: o.timing, Sequences: x.told[:0],
	}
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	if r.Route == hostRoute && o.err == nil {
		r.Route = "" // it was passed on to one of the Server's routes, which counts it
	}
	if o.err != nil {
		r.Failure = &telemetry.Failure{Type: o.err.Type, Message: o.err.text(), Cause: o.err.Err}
	}
	if o.job != nil {
		r.Generated = &o.job.req
	}
	for stream, text := range x.sequences() {
		q := telemetry.Sequence{Tokens: text.Tokens()}
		if o.job != nil || q.Tokens > 0 { // else its times may still be written
			q.Times = stream.Times()
		}
		if o.job != nil { // all have come to their ends
			q.Finish = finishReason(text.Finish())
		}
		r.Sequences = append(r.Sequences, q)
	}
	x.told = r.Sequences
	s.reporter.Report(&r)
}

// sequences yields all that were generated for a request, in order.
func (x *exchange) sequences() iter.Seq2[*engine.Stream, *engine.Text] {
	return func(yield func(*engine.Stream, *engine.Text) bool) {
		if x.stream != nil && !yield(x.stream, &x.text) {
			return
		}
		for _, g := range x.others {
			if !yield(g.stream, &g.text) {
				return
			}
		}
		for _, c := range x.choices {
			if !yield(c.stream, &c.text) {
				return
			}
		}
	}
}
