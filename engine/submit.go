package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
)

// Submit hands a request to the loop and returns the Stream of its tokens. It may
// be called from any goroutine and never waits; the pages of the prompt are hashed
// here, on the caller's time. The error is an
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

// SubmitN submits one sequence for each of seeds, which replaces Params.Seed, all of
// the same prompt, and returns their Streams in that order. The first computes the
// prompt; the others start from its cached pages. Either all are accepted or none.
// Only the first scores the prompt.
func (e *Engine) SubmitN(ctx context.Context, req *Request, seeds []uint64) ([]*Stream, error) {
	if err := e.check(req); err != nil {
		req.Constraint.Close()
		return nil, err
	}
	return e.submit(ctx, req, seeds, nil)
}

// submit is SubmitN of a request that is checked. keys are those of its prompt's pages;
// nil: they are not known yet.
func (e *Engine) submit(ctx context.Context, req *Request, seeds []uint64, keys []page.Key) ([]*Stream, error) {
	if err := e.accepts(ctx, req, len(seeds)); err != nil {
		req.Constraint.Close()
		return nil, err
	}
	n := int64(len(seeds))
	leader, streams, err := e.family(ctx, req, seeds, keys)
	if err != nil {
		e.queued.Add(-n)
		return nil, err
	}
	if !e.inbox.put(leader) {
		e.queued.Add(-n)
		leader.abandon(errStopping)
		for _, s := range streams {
			s.Close()
		}
		return nil, errStopping
	}
	e.wakeLoop()
	return streams, nil
}

var errStopping error = &Error{Kind: Stopping, Msg: "the server is shutting down"}

// accepts checks whether n sequences of req may come in, and counts them as
// waiting if they may.
func (e *Engine) accepts(ctx context.Context, req *Request, n int) error {
	switch {
	case n < 1:
		return &Error{Kind: Internal, Msg: "no seeds: nothing to generate"}
	case n > 1 && req.MaxNewTokens == 0:
		return invalid("%d sequences that generate nothing: must be 1", n)
	}
	if err := ctx.Err(); err != nil {
		return &Error{Kind: Cancelled, Msg: "request cancelled", Err: err}
	}
	if e.draining.Load() {
		return errStopping
	}
	if waiting := e.queued.Add(int64(n)); waiting > int64(e.limits.MaxWaiting) {
		e.queued.Add(-int64(n))
		return &Error{Kind: Overloaded, Msg: fmt.Sprintf("%d sequences would be waiting, the limit is %d", waiting, e.limits.MaxWaiting)}
	}
	return nil
}

// family makes the sequences of a request, all but the first held by the first, and
// returns their Streams. If it fails, their grammars are closed.
func (e *Engine) family(ctx context.Context, req *Request, seeds []uint64, keys []page.Key) (leader *sequence, streams []*Stream, err error) {
	first, other := requestBytes(req, e.limits.Vocab, false), requestBytes(req, e.limits.Vocab, true)
	bytes := first + int64(len(seeds)-1)*other
	constraints := make([]*Constraint, len(seeds))
	constraints[0] = req.Constraint
	if err := e.account.take(bytes); err != nil {
		req.Constraint.Close()
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			e.account.used.Add(-bytes)
			for _, g := range constraints {
				g.Close()
			}
		}
	}()
	for i := range constraints[1:] {
		if constraints[i+1], err = req.Constraint.clone(); err != nil {
			kind := Failed
			if errors.Is(err, grammar.ErrBusy) {
				kind = Overloaded
			}
			return nil, nil, &Error{Kind: kind, Msg: "the request's grammar cannot be copied", Err: err}
		}
	}
	rules, err := e.newRules(req)
	if err != nil {
		return nil, nil, err
	}
	root := e.root(req, e.ropeLen(len(req.Tokens)))
	if keys == nil {
		keys = e.promptKeys(req)
	}
	spans := e.cfg.Vision.spans(req)
	for i, seed := range seeds {
		constraint, err := e.newConstraintState(constraints[i])
		if err != nil {
			return nil, nil, err
		}
		r := *req
		r.Params.Seed = seed
		r.PromptLogprobs = req.PromptLogprobs && i == 0
		s := e.newSequence(ctx, &r, root, keys)
		keys = keys[:len(keys):len(keys)] // only the first may append in place
		s.constraint, s.rules, r.Constraint = constraint, rules, nil
		s.pictures = newPictures(req, spans)
		streams = append(streams, s.stream)
		if i == 0 {
			leader = s
			continue
		}
		s.state = held
		leader.forks = append(leader.forks, s)
	}
	for _, s := range streams[1:] {
		s.hold.open(&e.account, other)
	}
	streams[0].hold.open(&e.account, first)
	return leader, streams, nil
}

// promptKeys returns the keys of the pages of a request's prompt, nil without a prefix cache.
func (e *Engine) promptKeys(req *Request) []page.Key {
	if e.cfg.NoPrefixCache {
		return nil
	}
	return e.root(req, e.ropeLen(len(req.Tokens))).AppendKeys(make([]page.Key, 0, keysRoom(req)), req.Tokens, contents(req)...)
}

func invalid(format string, args ...any) error {
	return &Error{Kind: Invalid, Msg: fmt.Sprintf(format, args...)}
}

// check refuses what the loop, or the device, could not serve.
func (e *Engine) check(req *Request) error {
	n := len(req.Tokens)
	switch {
	case n == 0:
		return invalid("the prompt has no tokens")
	case n > e.limits.MaxInput:
		return invalid("the prompt has %d tokens, the limit is %d", n, e.limits.MaxInput)
	case req.MaxNewTokens < 1 && !(req.MaxNewTokens == 0 && req.PromptLogprobs):
		return invalid("max_new_tokens is %d, must be at least 1", req.MaxNewTokens)
	case req.MaxNewTokens > e.limits.MaxTotal-n:
		return invalid("%d prompt tokens and %d new tokens exceed the limit of %d", n, req.MaxNewTokens, e.limits.MaxTotal)
	case req.Adapter != 0 && !e.adapters.has(req.Adapter):
		return invalid("there is no adapter %d", req.Adapter)
	case req.TopN < 0 || req.TopN > e.limits.MaxTopN:
		return invalid("top_n is %d, must be 0 to %d", req.TopN, e.limits.MaxTopN)
	}
	if err := req.Repetition.check(); err != nil {
		return err
	}
	if err := e.checkImages(req); err != nil {
		return err
	}
	for i, t := range req.Tokens {
		if t < 0 || int(t) >= e.limits.Vocab {
			return invalid("token %d of the prompt is %d, the vocabulary has %d", i, t, e.limits.Vocab)
		}
	}
	for i, t := range req.Prediction {
		if t < 0 || int(t) >= e.limits.Vocab {
			return invalid("token %d of the prediction is %d, the vocabulary has %d", i, t, e.limits.Vocab)
		}
	}
	if n := len(req.LogitBias); n > sample.MaxBiases {
		return invalid("logit_bias has %d tokens, the limit is %d", n, sample.MaxBiases)
	}
	for _, b := range req.LogitBias {
		if b.Token < 0 || int(b.Token) >= e.limits.Vocab {
			return invalid("logit_bias names token %d, the vocabulary has %d", b.Token, e.limits.Vocab)
		}
		if !(b.Bias >= -sample.MaxBias && b.Bias <= sample.MaxBias) {
			return invalid("logit_bias of token %d is %v, must be %d to %d", b.Token, b.Bias, -sample.MaxBias, sample.MaxBias)
		}
	}
	return nil
}
