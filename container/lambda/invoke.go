package lambda

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/millrace-ai/millrace/handler"
)

// invoke answers one event. begun is called when its answer begins.
func (r *Runtime) invoke(inv *invocation, begun func()) error {
	e, err := decode(inv.event)
	if err != nil {
		return r.reject(inv.id, err)
	}
	// Generation ends a margin before the platform ends the process, and what
	// does not end by itself is cancelled a quarter of it before, so that there
	// is an answer in any case.
	margin := marginOf(time.Until(inv.deadline))
	until := inv.deadline.Add(-margin)
	ctx, cancel := context.WithDeadline(context.Background(), inv.deadline.Add(-margin/4))
	defer cancel()
	ctx = handler.WithDeadlines(ctx, handler.Deadlines{Answer: until, Stream: until})

	if f := r.awaitModel(until); f != nil {
		return r.tell(inv.id, f)
	}
	if e.source == queue {
		answer := r.batch(ctx, inv, e.records)
		begun()
		return r.api.respond(inv.id, answer)
	}
	req, err := e.request(ctx)
	if err != nil {
		return r.reject(inv.id, err)
	}
	label(req, inv)

	if r.streams(e) {
		return r.stream(inv, e.source, req, begun)
	}
	w := newBuffered(e.source, req.Method)
	f := r.serve(w, req, begun)
	var payload []byte
	if f == nil {
		payload, f = w.payload()
	}
	if f != nil {
		return r.tell(inv.id, f)
	}
	return r.api.respond(inv.id, payload)
}

// reject fails an event that is not understood. It logs it as well: most such
// events have no caller who waits for the answer.
func (r *Runtime) reject(id string, err error) error {
	r.opt.Logger.Warn("an event is not served", "request_id", id, "err", err)
	return r.tell(id, &failure{Type: "Runtime.EventNotSupported", Message: err.Error()})
}

// streams reports whether an event gets its answer in pieces.
func (r *Runtime) streams(e *event) bool {
	switch r.opt.Mode {
	case Buffered:
		return false
	case Stream:
		return e.source.streams()
	}
	// A REST API that is not set to stream, as few are, would answer 502; one
	// that is set to it needs Stream, for its other answers.
	return e.source.streams() && e.source != restAPI && e.wantsStream()
}

// stream answers an event in pieces, or with a failure while there is none.
func (r *Runtime) stream(inv *invocation, from source, req *http.Request, begun func()) error {
	// The platform itself ends what it does not take in time.
	ctx, cancel := context.WithDeadline(context.Background(), inv.deadline.Add(postPatience))
	defer cancel()
	w := newStreamed(ctx, r.api, inv.id, from)
	f := r.serve(w, req, begun)
	switch {
	case w.begun():
		if f == nil && req.Context().Err() != nil {
			f = timeIsOver() // the handler was cancelled amid its answer
		}
		return w.finish(f)
	case f != nil:
		return r.tell(inv.id, f)
	case w.refused():
		return r.tell(inv.id, errorOf(w.refusal.Bytes(), w.status))
	}
	w.WriteHeader(http.StatusOK)
	return w.finish(nil)
}

func timeIsOver() *failure {
	return &failure{Type: "timeout", Message: "The function's time is over before the answer is complete; set a longer timeout or ask for fewer tokens"}
}

// marginOf is how long before its end, left from now, an event should be
// answered: a tenth, but no more than it takes to write an answer.
func marginOf(left time.Duration) time.Duration {
	return min(max(left/10, 100*time.Millisecond), time.Second)
}

// awaitModel waits for the model. If the time is over first, the handler will
// say what is missing.
func (r *Runtime) awaitModel(until time.Time) *failure {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-r.ready:
	case <-timer.C:
	case <-r.failed:
		return r.failure
	}
	return nil
}

// label names the request as the platform does, unless the client has named
// it.
func label(req *http.Request, inv *invocation) {
	for name, value := range map[string]string{"X-Request-Id": inv.id, "X-Amzn-Trace-Id": inv.traceID} {
		if value != "" && req.Header.Get(name) == "" {
			req.Header.Set(name, value)
		}
	}
}

// writer is a ResponseWriter that flushes.
type writer interface {
	http.ResponseWriter
	http.Flusher
}

// serve calls the handler, and begun before the first word of its answer. A
// panic ends this event, not the process. If the handler leaves without a
// word, it was cancelled: the time is over.
func (r *Runtime) serve(w writer, req *http.Request, begun func()) (f *failure) {
	watched := &watched{writer: w, begun: begun}
	defer func() {
		if p := recover(); p != nil {
			stack := strings.TrimSpace(string(debug.Stack()))
			f = &failure{Type: "Runtime.Panic", Message: fmt.Sprintf("panic: %v", p), Trace: strings.Split(stack, "\n")}
			r.opt.Logger.Error("an event has failed", "request_id", req.Header.Get("X-Request-Id"), "err", f.Message, "stack", stack)
			return
		}
		if watched.begun != nil && req.Context().Err() != nil {
			f := timeIsOver()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusGatewayTimeout)
			w.Write(errorBody(f.Type, f.Message))
		}
	}()
	r.opt.Handler.ServeHTTP(watched, req)
	return nil
}

// watched notices the first word of an answer.
type watched struct {
	writer
	begun func() // nil once called
}

func (w *watched) note() {
	if w.begun != nil {
		w.begun()
		w.begun = nil
	}
}

func (w *watched) WriteHeader(status int) {
	w.note()
	w.writer.WriteHeader(status)
}

func (w *watched) Write(p []byte) (int, error) {
	w.note()
	return w.writer.Write(p)
}

func (w *watched) Flush() {
	w.note()
	w.writer.Flush()
}

// batchWidth is how many records of a queue are computed together.
const batchWidth = 4

// batch serves the records of a queue and returns the answer that names the
// ones that failed.
func (r *Runtime) batch(ctx context.Context, inv *invocation, records []events.SQSMessage) []byte {
	var mu sync.Mutex
	failed := map[string]bool{}
	places := make(chan struct{}, batchWidth)
	var all sync.WaitGroup
	for _, rec := range records {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			if err := r.record(ctx, inv, rec); err != nil {
				r.opt.Logger.Warn("a record of the queue has failed", "request_id", inv.id, "record", rec.MessageId, "err", err)
				mu.Lock()
				failed[rec.MessageId] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return batchAnswer(failed)
}

// record serves one record. Its answer is discarded.
func (r *Runtime) record(ctx context.Context, inv *invocation, rec events.SQSMessage) error {
	e := &event{
		source: direct, method: http.MethodPost, path: "/invocations", body: []byte(rec.Body),
		header: http.Header{"Content-Type": {"application/json"}},
	}
	req, err := e.request(ctx)
	if err != nil {
		return err
	}
	label(req, inv)
	w := newBuffered(direct, req.Method)
	f := r.serve(w, req, func() {})
	if f == nil {
		_, f = w.payload()
	}
	if f != nil {
		return fmt.Errorf("%s: %s", f.Type, f.Message)
	}
	return nil
}
