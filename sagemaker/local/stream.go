package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

// heldBack is how long the end of what a container wrote may wait for more to
// be in one part with.
const heldBack = 10 * time.Millisecond

// The reasons for which the platform ends a request: its time is up, or its instance
// has been stopped.
var (
	errLate  = errors.New("the time for the answer is up")
	errTaken = errors.New("the instance has been stopped")
)

// invokeStream is InvokeEndpointWithResponseStream.
//
// A status of 2xx starts the stream, any other is the answer of the unary
// call. If the caller leaves, the connection to the container is closed.
func (e *Endpoint) invokeStream(w http.ResponseWriter, r *http.Request) {
	c, v := e.admit(w, r, opStream)
	if c == nil {
		return
	}
	defer e.metrics.leave()
	ctx, cancel := v.context(r, e.cfg.Limits.Stream)
	defer cancel()
	resp, f := v.open(ctx, c, "/invocations")
	if f != nil {
		e.refuse(w, c, f)
		return
	}
	defer resp.Body.Close()

	h := w.Header()
	h.Set("Content-Type", "application/vnd.amazon.eventstream")
	if v := resp.Header.Get("Content-Type"); v != "" {
		h.Set(headerType, v)
	}
	e.passAttributes(h, resp.Header)
	w.WriteHeader(http.StatusOK)
	out := &events{w: w, flush: http.NewResponseController(w), encoder: eventstream.NewEncoder()}
	out.send() // the headers

	cut := newCutter(e.cfg.Seed, e.streams.Add(1))
	err := relay(ctx, out, cut, resp.Body)
	how, message := complete, ""
	switch {
	case err == nil:
	case errors.Is(context.Cause(ctx), errLate):
		how, message = timedOut, fmt.Sprintf("The model did not end its response within %v.", e.cfg.Limits.Stream)
		out.fail("ModelStreamError", "ModelInvocationTimeExceeded", message)
	case errors.Is(context.Cause(ctx), errTaken):
		how, message = broken, "The instance was stopped before the end of the response."
		out.fail("InternalStreamFailure", "", message)
	case r.Context().Err() != nil || out.err != nil:
		how, message = cancelled, "the caller left"
	default:
		how, message = broken, fmt.Sprintf("The connection to the model broke before the end of its response: %v", err)
		out.fail("ModelStreamError", "StreamBroken", message)
	}
	if how == timedOut || how == broken {
		e.metrics.midStreamError()
	}
	v.done(how)
	e.logCall(c, http.StatusOK, message)
}

// context is the life of a streaming request: it ends with the caller, with
// the instance, and when the time is up.
func (v *invocation) context(r *http.Request, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancelTime := context.WithTimeoutCause(r.Context(), limit, errLate)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(v.in.ctx, func() { cancel(errTaken) })
	return ctx, func() {
		stop()
		cancel(nil)
		cancelTime()
	}
}

// open sends a call to the container and returns once its answer begins. With
// a fault the invocation is done, otherwise the caller ends it.
func (v *invocation) open(ctx context.Context, c *call, path string) (*http.Response, *fault) {
	cfg := v.fleet.cfg
	req, err := v.in.request(ctx, http.MethodPost, path, c.header, bytes.NewReader(c.body))
	if err != nil {
		v.done(broken)
		return nil, internal("%v", err)
	}
	resp, err := v.in.transport.RoundTrip(req)
	switch {
	case err == nil && resp.StatusCode >= 200 && resp.StatusCode <= 299:
		return resp, nil
	case err == nil:
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, messageLimit))
		if err != nil {
			v.done(broken)
		} else {
			v.done(complete)
		}
		return nil, cfg.modelError(c.who(), resp.StatusCode, string(body))
	case errors.Is(context.Cause(ctx), errLate):
		v.done(timedOut)
		return nil, cfg.timedOut(c.who())
	case errors.Is(context.Cause(ctx), context.Canceled) && v.in.ctx.Err() == nil:
		v.done(cancelled)
	default:
		v.done(broken)
	}
	return nil, cfg.crashed(c.who(), err)
}

// relay copies body to out until it ends, in the parts that cut makes. It
// returns nil only if all has arrived.
func relay(ctx context.Context, out *events, cut *cutter, body io.Reader) error {
	type read struct {
		b   []byte
		err error
	}
	reads := make(chan read)
	go func() {
		// The other half is free again once this one has been taken: the cutter
		// keeps a copy.
		var halves [2][16 << 10]byte
		for i := 0; ; i++ {
			b := halves[i%2][:]
			n, err := body.Read(b)
			select {
			case reads <- read{b[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	idle := time.NewTimer(heldBack)
	defer idle.Stop()
	for {
		select {
		case r := <-reads:
			parts := cut.push(r.b)
			if r.err != nil {
				parts = append(parts, cut.rest())
			}
			out.send(parts...)
			if r.err == io.EOF {
				return out.err
			}
			if r.err != nil {
				return r.err
			}
			idle.Reset(heldBack)
		case <-idle.C:
			out.send(cut.rest())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if out.err != nil {
			return out.err
		}
	}
}

// events writes an event stream to a caller.
type events struct {
	w       io.Writer
	flush   *http.ResponseController
	encoder *eventstream.Encoder
	err     error // the first, after which nothing is written
}

// send writes each part that is not empty as a PayloadPart and flushes.
func (s *events) send(parts ...[]byte) {
	for _, part := range parts {
		if len(part) > 0 {
			s.encode(part, "event", ":event-type", "PayloadPart", "application/octet-stream")
		}
	}
	if s.err == nil {
		s.err = s.flush.Flush()
	}
}

// fail ends the stream with an exception.
func (s *events) fail(kind, code, message string) {
	members := map[string]string{"Message": cut(message, messageLimit)}
	if code != "" {
		members["ErrorCode"] = code
	}
	payload, err := json.Marshal(members)
	if err != nil { // strings marshal always
		panic(err)
	}
	s.encode(payload, "exception", ":exception-type", kind, "application/json")
	s.send()
}

// encode writes an event with members that are headers of it, in pairs of name and
// value.
func (s *events) encode(payload []byte, message, kindHeader, kind, contentType string, members ...string) {
	if s.err != nil {
		return
	}
	var h eventstream.Headers
	h.Set(":message-type", eventstream.StringValue(message))
	h.Set(kindHeader, eventstream.StringValue(kind))
	h.Set(":content-type", eventstream.StringValue(contentType))
	for i := 0; i+1 < len(members); i += 2 {
		h.Set(members[i], eventstream.StringValue(members[i+1]))
	}
	s.err = s.encoder.Encode(s.w, eventstream.Message{Headers: h, Payload: payload})
}
