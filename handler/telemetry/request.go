package telemetry

import (
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/millrace-ai/millrace/engine"
)

// Reporter reports requests that have been answered.
type Reporter struct {
	Metrics *Metrics
	Logger  *slog.Logger
	Tracer  trace.Tracer // nil: no spans
	ModelID string       // in spans, and in what CloudWatch makes metrics of
	// Namespace makes each request's line in the log one that CloudWatch makes
	// metrics of, in this namespace; the Logger must write JSON. "": off.
	Namespace string
}

// Request is one that has been answered.
type Request struct {
	ID       string // what the answer, log and trace call it
	Route    string // for the metrics; "": it is not counted
	HTTP     *http.Request
	Begun    time.Time
	Status   int // sent, or what an error after a stream's first token stands for
	Streamed bool
	Failure  *Failure // the last one; nil: none

	Adapter   string          // by name; "": the model itself
	Generated *engine.Request // what the engine was asked for; nil: no generation has come to its end
	Timing    Timing          // of Generated
	Sequences []Sequence
}

// StatusClientGone stands for the status of a request whose client left, as
// proxies log it.
const StatusClientGone = 499

// Failure is an error that a request was answered with.
type Failure struct {
	Type    string // error_type of the answer
	Message string // as the client sees it; it may quote what the client sent
	Cause   error  // nil: none
}

// Sequence is one of those generated for a request.
type Sequence struct {
	Times  engine.Times
	Tokens int    // 0: none was read, and Times may be incomplete
	Finish string // why it ended, in TGI's words
}

// Timing is where the time of a finished generation went.
type Timing struct {
	Total      time.Duration // since the request arrived
	Validation time.Duration // until it was queued, tokenizing included
	Queue      time.Duration // until it was first computed
	Inference  time.Duration // until its last token
	PerToken   time.Duration
	Prompt     int    // tokens
	Tokens     int    // generated
	Finish     string // why it ended
}

// Report counts, traces and logs r.
func (rep *Reporter) Report(r *Request) {
	ttft := r.timeToFirstToken()
	if ttft > 0 {
		rep.Metrics.ttft.Observe(ttft.Seconds())
	}
	if r.Route != "" {
		rep.Metrics.Answered(r.Route, r.HTTP.Method, r.Status)
	}
	rep.log(r, ttft, rep.trace(r))
}

// timeToFirstToken is the time until the first token of any sequence, 0 if
// there was none.
func (r *Request) timeToFirstToken() time.Duration {
	var first time.Time
	for i := range r.Sequences {
		q := &r.Sequences[i]
		if at := q.Times.FirstToken; q.Tokens > 0 && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if first.IsZero() {
		return 0
	}
	return first.Sub(r.Begun)
}

// ID is what the client, or SageMaker for it, calls the request: "" if they do
// not name it.
func ID(h http.Header) string {
	for _, name := range [...]string{"X-Amzn-Sagemaker-Inference-Id", "X-Request-Id"} {
		if id := h.Get(name); printable(id) {
			return id
		}
	}
	return ""
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
