package handler

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

var (
	eventStreamType = []string{"text/event-stream"}
	noCache         = []string{"no-cache"}
	noBuffering     = []string{"no"}
)

// generateEvents answers with one event per token. Until the first token
// exists an error is a status of its own. Tokens that are ready together
// leave in one write; a lone one leaves at once.
func (s *Server) generateEvents(x *exchange, req *generateRequest) error {
	j, err := s.start(x, req, true)
	if err != nil {
		return err
	}
	wait := newKeepAlive(x.r.Context(), s.opt.KeepAlive)
	defer wait.stop()
	index := 0
	for {
		pieces, err := x.text.Next(wait.ctx)
		now := time.Now()
		s.mayWrite(x, now)
		switch {
		case err == io.EOF:
			return incompleteStream()
		case err != nil && wait.expired(err):
			if wait.silent(now) {
				s.beginEvents(x, j.chars)
				x.out = append(x.out[:0], ":\n\n"...)
				if err := x.send(); err != nil {
					return err
				}
				wait.last = now
			}
			wait.restart()
			continue
		case err != nil:
			return err
		}
		s.beginEvents(x, j.chars)
		x.out = x.out[:0]
		for i := range pieces {
			index++
			x.out = x.appendEvent(x.out, j, index, &pieces[i])
		}
		if err := x.send(); err != nil {
			return err
		}
		if pieces[len(pieces)-1].Last {
			s.succeeded(x, j, x.timing(j, &x.generation))
			return nil
		}
		wait.last = now
	}
}

// incompleteStream is an engine that ended without a last token.
func incompleteStream() error {
	e := failure(http.StatusInternalServerError, "incomplete_generation_stream", "Incomplete generation stream")
	e.label = "incomplete"
	return e
}

// beginEvents sends the status and the headers with the first event; later it
// does nothing. chars are those of the prompts.
func (s *Server) beginEvents(x *exchange, chars int) {
	if x.streaming {
		return
	}
	x.streaming = true
	h := x.w.Header()
	h["Content-Type"] = eventStreamType
	h["Cache-Control"] = noCache
	h["X-Accel-Buffering"] = noBuffering
	s.setCompute(h, chars)
	x.w.WriteHeader(http.StatusOK)
}

// send writes x.out and makes it leave.
func (x *exchange) send() error {
	if _, err := x.w.Write(x.out); err != nil {
		return errClientGone
	}
	err := http.NewResponseController(x.w).Flush()
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return errClientGone
	}
	return nil
}

// appendEvent appends the event of one token, the index-th from 1.
func (x *exchange) appendEvent(dst []byte, j *job, index int, p *engine.Piece) []byte {
	dst = append(dst, `data: {"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	dst = append(dst, `,"token":`...)
	dst = appendToken(dst, p.ID, p.Text, p.Logprob, p.Special)
	if len(p.Top) > 0 {
		dst = append(dst, `,"top_tokens":`...)
		dst = appendTop(dst, x.tok, p.Top)
	}
	if !p.Last {
		return append(dst, `,"generated_text":null,"details":null}`+"\n\n"...)
	}
	dst = append(dst, `,"generated_text":`...)
	dst = x.appendText(dst, j)
	dst = append(dst, `,"details":`...)
	if j.details {
		dst = append(dst, '{')
		dst = x.appendEnding(dst)
		dst = append(dst, `,"input_length":`...)
		dst = strconv.AppendInt(dst, int64(len(j.req.Tokens)), 10)
		dst = append(dst, '}')
	} else {
		dst = append(dst, "null"...)
	}
	return append(dst, "}\n\n"...)
}

// keepAlive bounds the wait for the next event. One timer serves a whole
// stream as long as its events come faster than the interval: an expiry that
// finds recent events only starts a new wait.
type keepAlive struct {
	parent   context.Context
	interval time.Duration
	last     time.Time // when something was sent; at first, when the wait began
	ctx      context.Context
	cancel   context.CancelFunc
}

func newKeepAlive(parent context.Context, interval time.Duration) *keepAlive {
	k := &keepAlive{parent: parent, interval: interval, last: time.Now(), cancel: func() {}}
	k.restart()
	return k
}

// restart begins the next wait.
func (k *keepAlive) restart() {
	k.cancel()
	k.ctx, k.cancel = context.WithDeadline(k.parent, k.last.Add(k.interval))
}

// expired reports whether err is the end of the wait, not of the request.
func (k *keepAlive) expired(err error) bool {
	var e *engine.Error
	return k.ctx.Err() != nil && k.parent.Err() == nil && errors.As(err, &e) && e.Kind == engine.Cancelled
}

// silent reports whether nothing was sent for the whole interval.
func (k *keepAlive) silent(now time.Time) bool { return now.Sub(k.last) >= k.interval }

func (k *keepAlive) stop() { k.cancel() }
