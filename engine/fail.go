package engine

import (
	"context"
	"fmt"
	"math"
)

var nan = float32(math.NaN())

func cancelled(ctx context.Context) error {
	return &Error{Kind: Cancelled, Msg: "request cancelled", Err: ctx.Err()}
}

func expired(s *sequence) error {
	what := "the time limit of the request passed before its first token"
	if s.generated > 0 {
		what = fmt.Sprintf("the time limit of the request passed while it waited for memory, after %d tokens", s.generated)
	}
	return &Error{Kind: Expired, Msg: what}
}

// failInvalid ends a sequence whose logits were NaN or infinite. The fault may be
// in its pages, so nothing may start from them; sequences that share them will
// notice.
func (e *Engine) failInvalid(s *sequence) {
	e.cache.Forget(s.keys)
	e.end(s, NotFinished, &Error{Kind: Failed, Msg: "the model produced no valid logits for this request (NaN or infinite)"})
}

// fail ends the sequences of a step that the device could not compute. The others
// go on, but pages and states that the step should have written hold something else:
// the cache forgets them, and sequences that were admitted meanwhile, and may have
// started from one, are computed again.
func (e *Engine) fail(st *step, cause error) {
	why := &Error{Kind: Failed, Msg: "the forward pass failed", Err: cause}
	for _, members := range [][]*sequence{st.seqs, st.rows} {
		for _, s := range members {
			if s != nil && s.state != ended {
				e.end(s, NotFinished, why)
			}
		}
	}
	clear(st.rows)
	e.forget(st)
	if after := e.inFlight; after != nil {
		e.forget(after)
		e.restart(after)
	}
	e.sweep()
}

func (e *Engine) forget(st *step) {
	for _, id := range st.registered {
		e.cache.Pages.Forget(id)
	}
	for _, id := range st.snapshots {
		e.cache.States.Forget(id)
	}
	st.registered, st.snapshots = st.registered[:0], st.snapshots[:0]
}

// restart drops what a step in flight computes and makes its sequences wait to
// be computed again.
func (e *Engine) restart(st *step) {
	for _, members := range [][]*sequence{st.rows, st.seqs} {
		for i := len(members) - 1; i >= 0; i-- { // the first is to be first in line
			s := members[i]
			if s == nil || s.state != active {
				continue
			}
			e.release(s)
			e.requeue(s)
			s.total = s.known()
			s.scored = len(s.score)
		}
	}
	clear(st.rows)
}
