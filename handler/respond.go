package handler

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/telemetry"
	"github.com/millrace-ai/millrace/internal/web"
)

// answer is the form in which a route shows what was generated.
type answer interface {
	// add adds pieces of q, as they come, to an answer in one piece; none for
	// the end of a sequence that has no last piece. Calls for different
	// sequences may overlap.
	add(q *sequence, pieces []engine.Piece)
	// appendWhole appends the answer when all sequences have ended.
	appendWhole(dst []byte, all []*sequence) ([]byte, error)

	// appendEvents appends the events of pieces of q; of none, that of the end
	// of a sequence that has no last piece.
	appendEvents(dst []byte, q *sequence, pieces []engine.Piece) ([]byte, error)
	// appendEnd appends the events that follow those of all sequences.
	appendEnd(dst []byte, all []*sequence) []byte
	// appendError appends the event of an error, which ends a stream if last is
	// set; with object it has OpenAI's form.
	appendError(dst []byte, e *Error, object, last bool) []byte

	// counted are those of the sequences whose tokens and times are told.
	counted(all []*sequence) []*sequence
	// reason is what the route calls a reason to end.
	reason(r engine.FinishReason) string
}

// respond answers with what the sequences of x generate.
func (s *Server) respond(x *exchange, a answer, stream bool) error {
	x.answer = a
	if stream {
		return s.respondEvents(x, a)
	}
	if err := s.readAll(x, a.add); err != nil {
		return err
	}
	out, err := a.appendWhole(x.out[:0], x.sequences)
	x.out = out
	if err != nil {
		return err
	}
	t := x.timing(a.counted(x.sequences), a.reason)
	s.setCompute(x.w.Header(), promptChars(x.sequences))
	setTimes(x.w.Header(), &t)
	s.mayWrite(x, time.Now())
	web.WriteJSON(x.w, http.StatusOK, x.out)
	s.succeeded(x, t)
	return nil
}

// readAll reads all sequences to their ends and gives add the pieces of each as
// they come, and none for the end of one that has no last piece.
func (s *Server) readAll(x *exchange, add func(q *sequence, pieces []engine.Piece)) error {
	err := s.each(x, func(ctx context.Context, q *sequence) error {
		for {
			pieces, err := q.next(ctx)
			if err == io.EOF {
				return incomplete(err)
			}
			if err != nil {
				return err
			}
			if err := x.holdPieces(pieces); err != nil {
				return err
			}
			add(q, pieces)
			if isLast(pieces) {
				return nil
			}
		}
	})
	for _, q := range x.sequences {
		if err == nil && q.late != nil {
			add(q, nil)
		}
	}
	return err
}

// next returns the next pieces; none at the end of a sequence that was only to
// score its prompt.
func (q *sequence) next(ctx context.Context) ([]engine.Piece, error) {
	pieces, err := q.text.Next(ctx)
	for i := range pieces {
		q.score += float64(pieces[i].Logprob)
	}
	if err == io.EOF && q.job.req.MaxNewTokens == 0 {
		return nil, nil
	}
	return pieces, err
}

// isLast reports whether a sequence has ended with pieces.
func isLast(pieces []engine.Piece) bool {
	return len(pieces) == 0 || pieces[len(pieces)-1].Last
}

// each runs read for all sequences at once and returns the first error, which
// ends the others through ctx. That a deadline found a sequence waiting ends no
// other, and is not an error if any has a token: q.late keeps it.
func (s *Server) each(x *exchange, read func(ctx context.Context, q *sequence) error) error {
	one := func(ctx context.Context, q *sequence) error {
		err := read(ctx, q)
		if isExpired(err) {
			q.late = err
			return nil
		}
		return err
	}
	var err error
	if len(x.sequences) == 1 {
		err = one(x.r.Context(), x.sequences[0])
	} else {
		err = s.sideBySide(x, one)
	}
	if err != nil || generated(x.sequences) > 0 {
		return err
	}
	for _, q := range x.sequences {
		if q.late != nil {
			return q.late
		}
	}
	return nil
}

// sideBySide is each for several sequences.
func (s *Server) sideBySide(x *exchange, read func(ctx context.Context, q *sequence) error) error {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	var (
		all   sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, q := range x.sequences {
		all.Go(func() {
			err := s.protect(x, func(*exchange) error { return read(ctx, q) })
			if err != nil {
				once.Do(func() { first = err })
				cancel()
			}
		})
	}
	all.Wait()
	return first
}

// respondEvents answers with events. Until the first token of any sequence
// exists an error is a status of its own; after it, it is an event, and the
// other sequences go on. What is ready of a sequence leaves in one write, and a
// token that is ready alone leaves at once.
func (s *Server) respondEvents(x *exchange, a answer) error {
	w := &eventWriter{s: s, x: x, answer: a, last: time.Now()}
	err := s.each(x, func(ctx context.Context, q *sequence) error {
		err := w.follow(ctx, q)
		if err == nil || len(x.sequences) == 1 {
			return err
		}
		return w.fail(err)
	})
	if err != nil {
		return err
	}
	for _, q := range x.sequences {
		if q.late == nil {
			continue
		}
		if _, err := w.write(q, nil); err != nil {
			return err
		}
	}
	if x.out = a.appendEnd(x.out[:0], x.sequences); len(x.out) > 0 {
		if err := x.send(); err != nil {
			return err
		}
	}
	s.succeeded(x, x.timing(a.counted(x.sequences), a.reason))
	return nil
}

// eventWriter writes the events of sequences that come side by side.
type eventWriter struct {
	s      *Server
	answer answer

	mu   sync.Mutex // guards x's answer and last
	x    *exchange
	last time.Time // when something was sent
}

// follow writes the events of one sequence as its pieces come.
func (w *eventWriter) follow(ctx context.Context, q *sequence) error {
	wait := newKeepAlive(ctx, w.s.opt.KeepAlive)
	defer wait.stop()
	for {
		pieces, err := q.next(wait.ctx)
		switch {
		case err == io.EOF:
			return incompleteStream()
		case err != nil && wait.expired(err):
			if wait.last, err = w.keepAlive(); err != nil {
				return err
			}
			wait.restart()
			continue
		case err != nil:
			return err
		}
		if wait.last, err = w.write(q, pieces); err != nil || isLast(pieces) {
			return err
		}
	}
}

// write sends the events of pieces and returns when.
func (w *eventWriter) write(q *sequence, pieces []engine.Piece) (at time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.x.out, err = w.answer.appendEvents(w.x.out[:0], q, pieces); err != nil {
		return w.last, err
	}
	return w.send()
}

// send writes what the answer's buffer holds; the caller holds mu.
func (w *eventWriter) send() (time.Time, error) {
	now := time.Now()
	w.s.mayWrite(w.x, now)
	w.s.beginEvents(w.x)
	if err := w.x.send(); err != nil {
		return now, err
	}
	w.last = now
	return now, nil
}

// keepAlive sends a comment if no sequence has sent anything for the interval,
// and returns when something was sent last.
func (w *eventWriter) keepAlive() (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.last) < w.s.opt.KeepAlive {
		return w.last, nil
	}
	w.x.out = append(w.x.out[:0], ":\n\n"...)
	return w.send()
}

// fail ends one of several sequences: with an event if the stream has begun. A
// late one ends when the others have.
func (w *eventWriter) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.x.streaming || isExpired(err) || clientGone(w.x.r.Context(), err) {
		return err
	}
	w.x.out = w.answer.appendError(w.x.out[:0], w.s.report(w.x, err), w.s.errorObjects(w.x.r), false)
	_, err = w.send()
	return err
}

// incompleteStream is an engine that ended without a last token.
func incompleteStream() error {
	e := failure(http.StatusInternalServerError, "incomplete_generation_stream", "Incomplete generation stream")
	e.label = "incomplete"
	return e
}

var (
	eventStreamType = []string{"text/event-stream"}
	noCache         = []string{"no-cache"}
	noBuffering     = []string{"no"}
)

// beginEvents sends the status and the headers with the first event; later it
// does nothing.
func (s *Server) beginEvents(x *exchange) {
	if x.streaming {
		return
	}
	x.streaming = true
	h := x.w.Header()
	h["Content-Type"] = eventStreamType
	h["Cache-Control"] = noCache
	h["X-Accel-Buffering"] = noBuffering
	s.setCompute(h, promptChars(x.sequences))
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

// timing ends the clock of sequences that were generated side by side: times
// until the last of them, and the tokens of all.
func (x *exchange) timing(all []*sequence, reason func(engine.FinishReason) string) telemetry.Timing {
	now, first := time.Now(), all[0].stream.Times()
	longest, queue := 1, time.Duration(0)
	for _, q := range all {
		times := q.stream.Times()
		queue = max(queue, times.Admitted.Sub(times.Submitted))
		longest = max(longest, q.text.Tokens())
	}
	inference := now.Sub(first.Admitted)
	return telemetry.Timing{
		Total:      now.Sub(x.begun),
		Validation: first.Submitted.Sub(x.begun),
		Queue:      queue,
		Inference:  inference,
		PerToken:   inference / time.Duration(longest),
		Prompt:     promptTokens(all),
		Tokens:     generated(all),
		Finish:     reasonToLog(reason, all[0].text.Finish()),
	}
}
