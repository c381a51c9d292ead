package lambda

import (
	"context"
	"errors"
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
	// Generation ends a margin before the platform ends the process. What has not
	// ended a quarter of the margin before is cancelled, so that there is always
	// an answer.
	margin := marginOf(time.Until(inv.deadline))
	until := inv.deadline.Add(-margin)
	ctx, cancel := context.WithDeadline(context.Background(), inv.deadline.Add(-margin/4))
	defer cancel()
	ctx = handler.WithDeadlines(ctx, handler.Deadlines{Answer: until, Stream: until})

	if f := r.awaitModel(until); f != nil {
		return r.postFailure(inv.id, f)
	}
	if e.source == queue && r.opt.Deliver == nil {
		return r.reject(inv.id, errors.New("the event has messages of an SQS queue, whose answers have nowhere to go: set QUEUE_OUTPUT to s3://BUCKET/PREFIX/"))
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
		return r.postFailure(inv.id, f)
	}
	return r.api.respond(inv.id, payload)
}

// reject fails an event that is not understood.
func (r *Runtime) reject(id string, err error) error {
	return r.postFailure(id, &failure{Type: "Function.EventNotSupported", Message: err.Error(), client: true})
}

// streams reports whether an event gets a streamed answer.
func (r *Runtime) streams(e *event) bool {
	switch r.opt.Mode {
	case Buffered:
		return false
	case Stream:
		return e.source.streams()
	}
	// A function URL or REST API streams only if it is set to, and then needs the
	// mode Stream, for its buffered answers as well.
	return e.source == direct && e.wantsStream()
}

// stream answers an event with a stream, or with a failure before it begins.
func (r *Runtime) stream(inv *invocation, from source, req *http.Request, begun func()) error {
	// The platform itself ends what takes too long.
	ctx, cancel := context.WithDeadline(context.Background(), inv.deadline.Add(postPatience))
	defer cancel()
	w := newStreamed(ctx, r.api, inv.id, from)
	f := r.serve(w, req, begun)
	switch {
	case w.begun():
		if f == nil && req.Context().Err() != nil {
			f = timeIsOver() // the handler was cancelled before its answer was complete
		}
		return w.finish(f)
	case f != nil:
		return r.postFailure(inv.id, f)
	case w.refused():
		return r.postFailure(inv.id, errorOf(w.refusal.Bytes(), w.status))
	}
	w.WriteHeader(http.StatusOK)
	return w.finish(nil)
}

func timeIsOver() *failure {
	return &failure{Type: "timeout", Message: "The function timed out before the answer was complete; set a longer timeout or ask for fewer tokens"}
}

// marginOf is how long before the deadline an event should be answered, if left
// is the time until then: a tenth of it, between 100 ms and 1 s.
func marginOf(left time.Duration) time.Duration {
	return min(max(left/10, 100*time.Millisecond), time.Second)
}

// awaitModel waits for the model until a time, after which the handler says what
// it waits for.
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

// serve calls the handler, and calls begun when its answer begins. A panic ends
// this event, not the process. A handler that returns without an answer was
// cancelled, because the time is over.
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

// watched notices when an answer begins.
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

// batch serves the records of a queue and returns the answer that lists those
// that failed.
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

// record serves one record and delivers its answer, also one that refuses it: the
// same message would be refused again. Its error is that the message should come
// again.
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
	if f := r.serve(w, req, func() {}); f != nil {
		return fmt.Errorf("%s: %s", f.Type, f.Message)
	}
	if w.status >= http.StatusBadRequest && !isClients(w.status) {
		f := errorOf(w.body.Bytes(), w.status)
		return fmt.Errorf("%s: %s", f.Type, f.Message)
	}
	return r.opt.Deliver(ctx, rec.MessageId, w.status, w.body.Bytes())
}
