package handler

import (
	"iter"
	"net/http"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// outcome is how a request ended, for its log line and its spans.
type outcome struct {
	id     string // what log and trace call the request
	job    *job   // nil: it came to no generation, or to no end of one
	timing timing // of job
	status int    // sent, or what an error behind a stream's first token stands for
	err    *Error // the last one; nil: none
}

// statusClientGone stands for the status of a request whose client left, as
// proxies log it.
const statusClientGone = 499

// succeeded records a complete generation.
func (s *Server) succeeded(x *exchange, j *job, t timing) {
	s.metrics.finished(t)
	x.outcome.job, x.outcome.timing = j, t
}

// conclude counts, traces and logs a request that has been answered. Its
// streams must not be closed yet.
func (s *Server) conclude(x *exchange) {
	if x.outcome.status == 0 {
		x.outcome.status = http.StatusOK
	}
	var first time.Time
	for stream, text := range x.sequences() {
		if text.Tokens() == 0 {
			continue
		}
		if at := stream.Times().FirstToken; first.IsZero() || at.Before(first) {
			first = at
		}
	}
	ttft := time.Duration(0)
	if !first.IsZero() {
		ttft = first.Sub(x.begun)
		s.metrics.ttft.Observe(ttft.Seconds())
	}
	x.outcome.id = s.requestID(x)
	s.logRequest(x, ttft, s.trace(x))
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
