package engine

import (
	"context"
	"fmt"
)

// Submit hands a request to the loop and returns the Stream its tokens come
// out of. It may be called from any goroutine and never waits; the hashing of
// the prompt's pages happens here, on the caller's time. The error is an
// *Error: Invalid if the request can never work, Overloaded if too many wait,
// Stopping or Cancelled.
//
// The sequence ends when ctx does. The caller closes the Stream.
func (e *Engine) Submit(ctx context.Context, req *Request) (*Stream, error) {
	streams, err := e.SubmitN(ctx, req, []uint64{req.Params.Seed})
	if err != nil {
		return nil, err
	}
	return streams[0], nil
}

// SubmitN submits a sequence of one prompt for each of seeds, which takes the
// place of Params.Seed, and returns their Streams in that order. The prompt is
// computed once, by the first; the others start from its cached pages. All of
// them or none are accepted, as Submit would. The first one alone scores the
// prompt.
func (e *Engine) SubmitN(ctx context.Context, req *Request, seeds []uint64) ([]*Stream, error) {
	if err := e.check(req); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &Error{Kind: Cancelled, Msg: "request cancelled", Err: err}
	}
	if e.draining.Load() {
		return nil, &Error{Kind: Stopping, Msg: "the server is shutting down"}
	}
	n := int64(len(seeds))
	if waiting := e.queued.Add(n); waiting > int64(e.limits.MaxWaiting) {
		e.queued.Add(-n)
		return nil, &Error{Kind: Overloaded, Msg: fmt.Sprintf("%d requests are waiting already", e.limits.MaxWaiting)}
	}
	streams := make([]*Stream, len(seeds))
	for i, seed := range seeds {
		r := *req
		r.Params.Seed = seed
		r.PromptLogprobs = req.PromptLogprobs && i == 0
		s := e.newSequence(ctx, &r)
		if !e.inbox.put(s) {
			e.queued.Add(-1)
			return nil, &Error{Kind: Stopping, Msg: "the server is shutting down"}
		}
		streams[i] = s.stream
	}
	e.poke()
	return streams, nil
}

// check refuses what the loop, or the device, could not serve.
func (e *Engine) check(req *Request) error {
	invalid := func(format string, args ...any) error {
		return &Error{Kind: Invalid, Msg: fmt.Sprintf(format, args...)}
	}
	n := len(req.Tokens)
	switch {
	case n == 0:
		return invalid("the prompt has no tokens")
	case n > e.limits.MaxInput:
		return invalid("the prompt has %d tokens, the limit is %d", n, e.limits.MaxInput)
	case req.MaxNewTokens < 1:
		return invalid("max_new_tokens is %d, must be at least 1", req.MaxNewTokens)
	case req.MaxNewTokens > e.limits.MaxTotal-n:
		return invalid("%d prompt tokens and %d new tokens exceed the limit of %d", n, req.MaxNewTokens, e.limits.MaxTotal)
	case req.TopN < 0 || req.TopN > e.limits.MaxTopN:
		return invalid("top_n is %d, must be 0 to %d", req.TopN, e.limits.MaxTopN)
	}
	for i, t := range req.Tokens {
		if t < 0 || int(t) >= e.limits.Vocab {
			return invalid("token %d of the prompt is %d, the vocabulary has %d", i, t, e.limits.Vocab)
		}
	}
	return nil
}
