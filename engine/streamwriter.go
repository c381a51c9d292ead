package engine

import "time"

// A StreamWriter writes a Stream by hand. It is for Generators other than an
// Engine: those of a handler's tests, for instance. It belongs to one goroutine.
type StreamWriter struct {
	stream Stream
	out    output
}

// NewStreamWriter returns the writer of a Stream of at most maxTokens tokens,
// submitted and admitted now.
func NewStreamWriter(maxTokens int) *StreamWriter {
	now := time.Now()
	w := &StreamWriter{}
	w.stream.wake = make(chan struct{}, 1)
	w.stream.times = Times{Submitted: now, Admitted: now, FirstToken: now}
	w.out = newOutput(&w.stream, maxTokens)
	return w
}

// Stream returns the reader's side.
func (w *StreamWriter) Stream() *Stream { return &w.stream }

// Prompt sets the scored prompt; call it before the first Emit.
func (w *StreamWriter) Prompt(prompt []Token) { w.stream.prompt = prompt }

// Cached sets how many tokens of the prompt were cached; call it before the first
// Emit.
func (w *StreamWriter) Cached(tokens int) { w.stream.times.CachedTokens = tokens }

// Predicted sets how many tokens were drafted from the request's prediction, right and
// wrong ones.
func (w *StreamWriter) Predicted(right, wrong int) {
	w.stream.accepted.Store(int64(right))
	w.stream.rejected.Store(int64(wrong))
}

// Emit publishes tokens together.
func (w *StreamWriter) Emit(tokens ...Token) {
	w.append(tokens)
	w.stream.publish(w.out.generated, false)
}

// End publishes the last tokens and the end: reason, or err if it is not nil.
func (w *StreamWriter) End(reason FinishReason, err error, tokens ...Token) {
	w.append(tokens)
	w.stream.finish, w.stream.err, w.stream.finished = reason, err, time.Now()
	w.stream.publish(w.out.generated, true)
}

// Closed reports whether the reader has closed the Stream.
func (w *StreamWriter) Closed() bool { return w.stream.closed.Load() }

// append adds tokens, as many as the Stream may still have.
func (w *StreamWriter) append(tokens []Token) {
	for _, t := range tokens[:min(len(tokens), w.out.most-w.out.generated)] {
		w.out.append(t)
	}
}
