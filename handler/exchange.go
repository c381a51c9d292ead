package handler

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/telemetry"
	"github.com/millrace-ai/millrace/internal/web"
)

// exchange is one request and its answer. Exchanges are pooled for their
// buffers; nothing of one may be kept after the handler has returned.
type exchange struct {
	w     http.ResponseWriter
	r     *http.Request
	route string // for the metrics
	begun time.Time

	allowed time.Time // when the deadline for writing was set last

	// streaming is set once the answer is an event stream, whose status
	// cannot change any more.
	streaming bool

	// inParts is set once a part of a long answer has left.
	inParts bool

	answer    answer      // the form of the answer; nil: not known yet
	sequences []*sequence // that are generated for it
	adapters  []*adapter.Use

	outcome outcome              // how it ended
	told    []telemetry.Sequence // of the request's report

	permits int64        // of Server.permits that are held
	memory  *memory      // the server's
	held    atomic.Int64 // bytes of it
	shape   bodyShape    // of the body
	shown   bool         // the answer has the tokens' log-probabilities

	body []byte // of the request
	out  []byte // of the answer, or of the events about to be written
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// maxKept is the capacity beyond which a buffer is left to the garbage
// collector: one huge request must not hold its memory for ever.
const maxKept = 1 << 20

// serve runs h for one request to a route and answers its error or panic.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, route string, h handlerFunc) {
	x := exchanges.Get().(*exchange)
	x.w, x.r, x.route, x.begun, x.memory = w, r, route, time.Now(), &s.memory
	s.answerError(x, s.protect(x, h))
	s.conclude(x)
	for _, q := range x.sequences {
		q.close()
	}
	for _, use := range x.adapters {
		use.Release()
	}
	s.permits.Add(-x.permits)
	s.memory.held.Add(-x.held.Load())
	clear(x.sequences)
	*x = exchange{sequences: x.sequences[:0], told: x.told[:0], body: kept(x.body), out: kept(x.out)}
	exchanges.Put(x)
}

// kept is the buffer that a pooled value keeps of b.
func kept(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

// protect turns a panic of h into an error.
func (s *Server) protect(x *exchange, h handlerFunc) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			err = web.Panicked(p)
		}
	}()
	return h(x)
}

// answerError tells the client about err, in the way still open: a status and a
// body, or the last event of a stream.
func (s *Server) answerError(x *exchange, err error) {
	if err == nil {
		return
	}
	if clientGone(x.r.Context(), err) {
		s.metrics.Failed("dropped")
		x.outcome.status = telemetry.StatusClientGone
		return
	}
	e := s.report(x, err)
	if !x.streaming {
		s.writeError(x.w, x.r, e)
		return
	}
	x.out = x.answer.appendError(x.out[:0], e, s.errorObjects(x.r), true)
	x.send() //nolint:errcheck // the client is gone; no one is left to tell
}

// report counts what failed, keeps it for the log and returns what the client
// sees of it.
func (s *Server) report(x *exchange, err error) *Error {
	e := asError(err)
	s.metrics.Failed(e.label)
	x.outcome.err, x.outcome.status = e, e.Status
	return e
}

// takePermits takes the places of n generations, all or none; they are given
// back when the exchange ends. To tokenize takes the place of one.
func (s *Server) takePermits(x *exchange, n int) error {
	if n > s.opt.MaxConcurrentRequests {
		return invalid("%d sequences are more than the %d that may run at once", n, s.opt.MaxConcurrentRequests)
	}
	if s.permits.Add(int64(n)) > int64(s.opt.MaxConcurrentRequests) {
		s.permits.Add(int64(-n))
		return overloaded(nil)
	}
	x.permits += int64(n)
	return nil
}

// mayWrite gives the client time to take what is written from now on. The
// deadline moves in strides, because moving it costs as much as an event.
func (s *Server) mayWrite(x *exchange, now time.Time) {
	if now.Sub(x.allowed) < s.writePatience/3 {
		return
	}
	x.allowed = now
	// Not every http.ResponseWriter has deadlines; then someone else watches.
	http.NewResponseController(x.w).SetWriteDeadline(now.Add(s.writePatience)) //nolint:errcheck // said above
}

// readBody reads the request's body into x.body, and takes the memory for it
// and for what is decoded from it. It takes memory as the bytes arrive, not as
// they are announced: a client that is slow to send must not keep others out.
func (s *Server) readBody(x *exchange) error {
	// boto3 sends no content type unless it is told one.
	lenient := x.r.URL.Path == "/invocations" && len(x.r.Header["Content-Type"]) == 0
	if !lenient && !isJSON(x.r.Header.Get("Content-Type")) {
		return failure(http.StatusUnsupportedMediaType, "unsupported_media_type", "Expected request with `Content-Type: application/json`")
	}
	// A body that fails leaves the deadline in place: net/http reads on.
	conn := http.NewResponseController(x.w)
	conn.SetReadDeadline(time.Now().Add(s.bodyPatience)) //nolint:errcheck // as in mayWrite
	announced := x.r.ContentLength                       // -1: unknown
	if err := s.checkSize(announced); err != nil {
		return err
	}
	x.body = x.body[:0]
	for {
		if len(x.body) == cap(x.body) {
			size := max(4<<10, 2*cap(x.body))
			if announced >= 0 {
				size = int(min(int64(size), announced+1)) // one more, to see the end without growing
			}
			x.body = append(make([]byte, 0, max(size, len(x.body)+1)), x.body...)
		}
		n, err := x.r.Body.Read(x.body[len(x.body):cap(x.body)])
		x.body = x.body[:len(x.body)+n]
		if err := s.checkSize(int64(len(x.body))); err != nil {
			return err
		}
		if err := x.hold(int64(n)); err != nil {
			return err
		}
		switch {
		case err == io.EOF:
			conn.SetReadDeadline(time.Time{}) //nolint:errcheck // as in mayWrite
			x.shape = shapeOf(x.body)
			return x.hold(x.shape.decoded())
		case err != nil:
			return unreadable(err)
		}
	}
}

// checkSize refuses a body of n bytes that is too large.
func (s *Server) checkSize(n int64) error {
	const kind = "payload_too_large"
	switch most := s.memory.most.Load(); {
	case n > s.opt.PayloadLimit:
		return failure(http.StatusRequestEntityTooLarge, kind, "Failed to buffer the request body: length limit exceeded")
	case n > most:
		return failure(http.StatusRequestEntityTooLarge, kind, "Failed to buffer the request body: there is memory for %d bytes", most)
	}
	return nil
}

// bodyShape is what the memory that a body takes depends on.
type bodyShape struct{ bytes, values, objects int64 }

func shapeOf(data []byte) bodyShape {
	values, objects := body.Count(data)
	return bodyShape{int64(len(data)), int64(values), int64(objects)}
}

// decoded is how many bytes what is decoded from a body takes at most: a copy of
// its strings, and lists of values (strings, numbers) and of objects (messages,
// calls), which double as they grow.
func (b bodyShape) decoded() int64 { return b.bytes + 64*b.values + 320*b.objects }

// rendering is how many bytes a template takes for a chat of such a body: the
// variables as text, as a tree, and as the values of the template.
func (b bodyShape) rendering() int64 { return 8*b.bytes + 128*b.values + 1024*b.objects }

// unreadable is a body that broke off: mostly the client has gone.
func unreadable(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", errClientGone, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failure(http.StatusRequestTimeout, "request_timeout", "The request body did not arrive in time")
	}
	e := failure(http.StatusBadRequest, "bad_request", "Failed to buffer the request body")
	e.Err = err
	return e
}
