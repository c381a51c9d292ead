package handler

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// Deadlines bound the time of a request whose host does not wait for ever: a
// generation that still runs then ends with the tokens it has, finish_reason
// length and "cut": "deadline" beside it. One without a token is a 504, or an
// empty choice beside others that have some. Zero: no bound.
type Deadlines struct {
	Answer time.Time // of an answer in one piece
	Stream time.Time // of a stream
}

type deadlinesKey struct{}

// WithDeadlines gives a request's context the deadlines of what it generates.
// Earlier ones that it has hold.
func WithDeadlines(ctx context.Context, d Deadlines) context.Context {
	if old, ok := ctx.Value(deadlinesKey{}).(Deadlines); ok {
		d = Deadlines{earlier(d.Answer, old.Answer), earlier(d.Stream, old.Stream)}
	}
	return context.WithValue(ctx, deadlinesKey{}, d)
}

// earlier returns the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}

// deadlineOf returns the deadline that ctx has for an answer, or for a stream.
func deadlineOf(ctx context.Context, stream bool) time.Time {
	d, _ := ctx.Value(deadlinesKey{}).(Deadlines) // zero without any
	if stream {
		return d.Stream
	}
	return d.Answer
}

// isExpired reports whether err is that of a generation that its deadline found
// waiting: before its first token, or, which is rare, for memory after some.
func isExpired(err error) bool {
	var e *engine.Error
	return errors.As(err, &e) && e.Kind == engine.Expired
}

// appendReason appends the member that says why a generation ended, in the
// words of its route, and beside it what "length" does not tell.
func appendReason(dst []byte, reason string, finish engine.FinishReason) []byte {
	dst = append(dst, `"finish_reason":"`...)
	dst = append(dst, reason...)
	dst = append(dst, '"')
	switch {
	case finish == engine.FinishDeadline:
		dst = append(dst, `,"cut":"deadline"`...)
	case finish == engine.FinishRepetition && reason == repetition: // vLLM's words
		dst = append(dst, `,"stop_reason":"repetition_detected"`...)
	case finish == engine.FinishRepetition:
		dst = append(dst, `,"cut":"repetition"`...)
	}
	return dst
}

// reasonToLog is a reason in a route's words, or the one that they do not have.
func reasonToLog(words func(engine.FinishReason) string, r engine.FinishReason) string {
	switch r {
	case engine.FinishDeadline:
		return "deadline"
	case engine.FinishRepetition:
		return repetition
	}
	return words(r)
}
