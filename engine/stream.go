package engine

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// Stream hands out the tokens of one request. The engine's loop writes it, one
// goroutine reads it, and neither ever waits for the other: room for tokens grows as
// they come.
//
// The reader takes tokens with Next until io.EOF or an error, and calls Close
// when it has had enough, finished or not; Close frees the sequence's pages at
// the loop's next step. Cancelling the context given to Submit does the same.
type Stream struct {
	chunk  *chunk        // the reader's
	at     int           // reader's position in chunk
	state  atomic.Int64  // see publish
	closed atomic.Bool   // the reader is gone; the loop looks once per step
	wake   chan struct{} // capacity 1: something changed
	read   int           // tokens the reader has had
	left   atomic.Bool   // the reader does not need hold any more
	hold   hold

	prompt []Token // set before the first token is published, as are
	times  Times   // Submitted, Admitted, FirstToken and CachedTokens

	finish    FinishReason
	err       error
	finished  time.Time
	preempted int
	accepted  atomic.Int64 // tokens of the prediction
	rejected  atomic.Int64
}

// Times are when things happened to a request; zero if they have not.
type Times struct {
	Submitted  time.Time
	Admitted   time.Time // first given a slot and pages
	FirstToken time.Time
	Finished   time.Time
	// CachedTokens is the part of the prompt taken from the prefix cache at
	// first, Preempted how often the sequence lost its pages and was recomputed.
	CachedTokens int
	Preempted    int
	// PredictedTokens are generated tokens that were drafted from Request.Prediction,
	// RejectedTokens those drafted from it that were wrong; so far.
	PredictedTokens int
	RejectedTokens  int
}

// Next returns tokens that have become ready since the last call, at least one,
// waiting if there are none; the slice stays valid. If there are very many
// it may take several calls. After the last token it returns io.EOF, or the
// *Error that ended the sequence.
func (s *Stream) Next(ctx context.Context) ([]Token, error) {
	for {
		state := s.state.Load()
		if n := int(state>>1) - s.read; n > 0 {
			if s.at == len(s.chunk.tokens) {
				s.chunk, s.at = s.chunk.next, 0
			}
			end := min(s.at+n, len(s.chunk.tokens))
			out := s.chunk.tokens[s.at:end:end]
			s.read += len(out)
			s.at = end
			return out, nil
		}
		if state&1 == 1 {
			s.letGo()
			if s.err != nil {
				return nil, s.err
			}
			return nil, io.EOF
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, &Error{Kind: Cancelled, Msg: "request cancelled", Err: ctx.Err()}
		}
	}
}

// Done reports whether the tokens returned so far are all: the next Next will
// return io.EOF or an error. Only the reader may call it.
func (s *Stream) Done() bool { return s.state.Load() == int64(s.read)<<1|1 }

// Finish says why the sequence ended; valid once Next has returned io.EOF or
// Done is true.
func (s *Stream) Finish() FinishReason { return s.finish }

// Prompt returns the scored prompt, one Token per prompt token, if the
// request asked for it; valid once Next has returned a token, or io.EOF.
func (s *Stream) Prompt() []Token { return s.prompt }

// Times returns when things happened; valid from the first token on, complete
// once Next has returned io.EOF or an error of the sequence.
func (s *Stream) Times() Times {
	t := s.times
	t.PredictedTokens, t.RejectedTokens = int(s.accepted.Load()), int(s.rejected.Load())
	if s.state.Load()&1 == 1 {
		t.Finished, t.Preempted = s.finished, s.preempted
	}
	return t
}

// Close ends the sequence if it still runs. It may be called more than once
// and from any goroutine.
func (s *Stream) Close() {
	s.closed.Store(true)
	s.letGo()
}

// letGo says that the reader does not need the Stream any more.
func (s *Stream) letGo() {
	if !s.left.Swap(true) {
		s.hold.letGo()
	}
}

// publish shows the reader the first n tokens, and whether there will be more. Only the
// loop calls it, and does not touch the Stream after an end. Both facts are one word:
// a reader that sees the last token sees that it is the last.
func (s *Stream) publish(n int, ended bool) {
	state := int64(n) << 1
	if ended {
		state |= 1 // finish, err, finished and preempted are final
	}
	s.state.Store(state)
	select {
	case s.wake <- struct{}{}:
	default: // the reader has a wake-up to come
	}
}
