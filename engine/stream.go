package engine

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// Stream is one request's way out of the engine. The engine's loop writes it,
// one goroutine reads it; neither ever waits for the other: the buffer has
// room for every token the request may produce.
//
// The reader takes tokens with Next until io.EOF or an error, and calls Close
// when it has had enough, finished or not; Close frees the sequence's pages at
// the loop's next step. Cancelling the context given to Submit does the same.
type Stream struct {
	tokens  []Token       // capacity MaxNewTokens, never grown: the loop appends below cap
	ready   atomic.Int64  // tokens the reader may see
	ended   atomic.Bool   // finish, err, prompt, times are final
	closed  atomic.Bool   // the reader is gone
	wake    chan struct{} // capacity 1: something changed
	onClose func()        // tells the loop
	read    int           // reader's position

	prompt []Token // set before ready first becomes positive
	finish FinishReason
	err    error
	times  Times
}

// Times are when things happened to a request; zero if they have not.
type Times struct {
	Submitted  time.Time
	Admitted   time.Time // first given a slot and pages
	FirstToken time.Time
	Finished   time.Time
	// CachedTokens is the part of the prompt taken from the prefix cache,
	// Preempted how often the sequence lost its pages and was recomputed.
	CachedTokens int
	Preempted    int
}

// Next returns all tokens that have become ready since the last call, at
// least one, waiting if there are none; the slice is valid for ever. After
// the last token it returns io.EOF, or the *Error that ended the sequence.
func (s *Stream) Next(ctx context.Context) ([]Token, error) {
	for {
		// ended is read before ready, so that tokens published just before
		// the end are not lost.
		ended := s.ended.Load()
		if n := int(s.ready.Load()); n > s.read {
			out := s.tokens[s.read:n:n]
			s.read = n
			return out, nil
		}
		if ended {
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

// Finish says why the sequence ended; valid once Next has returned io.EOF.
func (s *Stream) Finish() FinishReason { return s.finish }

// Prompt returns the scored prompt, one Token per prompt token, if the
// request asked for it; valid once Next has returned a token.
func (s *Stream) Prompt() []Token { return s.prompt }

// Times returns when things happened; valid once Next has returned io.EOF or
// an error of the sequence, Admitted and FirstToken from the first token on.
func (s *Stream) Times() Times { return s.times }

// Close ends the sequence if it still runs. It may be called more than once
// and from any goroutine.
func (s *Stream) Close() {
	if !s.closed.Swap(true) && !s.ended.Load() && s.onClose != nil {
		s.onClose()
	}
}
