package engine

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

// Bounds of how many small requests pass one that does not fit yet, and for how
// many steps: behind a great one that waits, pages would lie idle, but it is
// not to wait for ever.
const (
	maxPasses    = 64
	maxPassSteps = 256
	passDepth    = 16 // so far behind it they are looked for
)

// reserve is the part of the pages that admission leaves for sequences that
// run longer than predicted.
const reserve = 1.0 / 64

// admit makes a waiting sequence active if there is room for it, with the
// cached prefix of its tokens: the first one, or one of those behind it while
// they may pass. One that was preempted lets nobody pass. It returns nil if
// there is none.
func (e *Engine) admit(st *step, now time.Time) *sequence {
	head := e.waiting.head
	for s, depth := head, 0; s != nil && depth <= passDepth && len(e.freeSlots) > 0; s, depth = s.next, depth+1 {
		if s.refused != e.released { // else nothing was given back since
			hits := e.lookUp(s, e.hits[:0])
			if !e.hasRoom(st, s, len(hits)) {
				return nil // the next step's batch has
			}
			if e.fits(st, s, hits) {
				if s != head {
					head.passed++
				}
				e.activate(st, s, hits, now)
				return s
			}
			s.refused = e.released
			if s.blocked == 0 {
				s.blocked = st.number + 1
			}
		}
		if head.admitted || head.passed >= maxPasses || st.number-head.blocked >= maxPassSteps {
			return nil
		}
	}
	return nil
}

// hasRoom reports whether what a new sequence needs goes into the batch.
func (e *Engine) hasRoom(st *step, s *sequence, hits int) bool {
	b := st.batch
	counts := 0
	if s.req.Params.Counts() {
		counts = s.total
	}
	return len(b.Pages)+hits < cap(b.Pages) && len(b.Params) < cap(b.Params) &&
		len(b.Counts)+counts <= cap(b.Counts) && len(b.Biases)+len(s.req.LogitBias) <= cap(b.Biases)
}

// activate gives s a slot and the pages it was found in the cache.
func (e *Engine) activate(st *step, s *sequence, hits []page.ID, now time.Time) {
	b := st.batch
	e.active = append(e.active, s)
	e.waiting.remove(s)
	s.state = active
	s.slot = e.freeSlots[len(e.freeSlots)-1]
	e.freeSlots = e.freeSlots[:len(e.freeSlots)-1]
	b.Params = append(b.Params, device.ParamDelta{Slot: s.slot, Params: s.req.Params})
	for _, bias := range s.req.LogitBias {
		b.Biases = append(b.Biases, device.BiasDelta{Slot: s.slot, Token: bias.Token, Bias: bias.Bias})
	}
	s.counted = s.total
	for i := range s.total {
		if !s.req.Params.Counts() {
			break
		}
		count := device.CountDelta{Slot: s.slot, Token: s.token(i)}
		if i >= len(s.req.Tokens) {
			count.Generated = 1
		}
		b.Counts = append(b.Counts, count)
	}
	s.pages = e.tables[s.slot][:0]
	for _, id := range hits {
		e.pool.Share(id)
		st.page(s, id)
	}
	s.computed = len(hits) * page.Tokens
	s.registered = len(hits)
	s.blocked, s.passed = 0, 0
	if s.admitted {
		e.preempted--
	} else {
		s.admitted = true
		s.stream.times.Admitted = now
		s.stream.times.CachedTokens = s.computed
		e.stats.cachedTokens.Add(int64(s.computed))
		e.stats.promptTokens.Add(int64(len(s.req.Tokens)))
		e.queued.Add(-1)
	}
	st.admitted++
}

// lookUp appends to dst the cached pages that s can start from. The last token
// is always computed, since its logits are wanted, and so is what is scored.
func (e *Engine) lookUp(s *sequence, dst []page.ID) []page.ID {
	if e.cfg.NoPrefixCache || s.scoring() {
		return dst
	}
	return e.pool.LongestPrefix(dst, s.fullPages(e.cfg.Root, (s.total-1)/page.Tokens))
}

// future is what admission expects of a sequence: it has pages for so many
// tokens now and for one more after each step, until it ends. Of the first
// shared ones it is not the only user.
type future struct{ tokens, steps, shared int }

// fits predicts whether s can run to its end beside those who run. Memory is
// fullest just before one of them ends: at each of those moments the pages of
// all who are left, at the length they then have, must be there. This is the
// admission of Past-Future (arXiv 2507.10150), with ends spread evenly over what
// lengths predicts where that draws at random. The prediction may be wrong;
// preemption makes up for it. A lone sequence always fits, by Submit's limits.
func (e *Engine) fits(st *step, s *sequence, hits []page.ID) bool {
	if len(e.active) == 0 {
		return true
	}
	e.predict(st)
	candidate := e.future(s)
	for _, id := range hits {
		if e.pool.Used(id) {
			candidate.shared++
		}
	}
	e.futures = append(e.futures[:0], candidate)
	common := e.pool.Total() - e.pool.Free() // pages of several sequences
	for _, r := range e.active {
		f := e.future(r)
		f.shared = e.sharedPages(r, hits)
		common -= len(r.pages) - f.shared
		e.futures = append(e.futures, f)
	}
	return common+peak(e.futures) <= e.pool.Total()-int(reserve*float64(e.pool.Total()))
}

// predict brings the expected lengths up to date, once a step.
func (e *Engine) predict(st *step) {
	if e.predicted == st.number+1 {
		return
	}
	e.predicted = st.number + 1
	for _, s := range e.active {
		e.lengths.see(s.generated)
	}
	left := e.preempted
	for s := e.waiting.head; s != nil && left > 0; s = s.next {
		if s.admitted {
			e.lengths.see(s.generated)
			left--
		}
	}
	e.lengths.update()
}

// future predicts how s goes on. The last token of a sequence takes no place.
func (e *Engine) future(s *sequence) future {
	end := min(s.limit, len(s.req.Tokens)+e.lengths.predict(s.generated, s.luck)) - 1
	tokens := min(s.total, s.limit-1)
	return future{tokens: tokens, steps: max(0, end-tokens)}
}

// sharedPages returns how many of the first pages of r others use, too, or
// will, once one has started from hits. Who shares a page shares all before it.
func (e *Engine) sharedPages(r *sequence, hits []page.ID) int {
	return sort.Search(len(r.pages), func(i int) bool {
		id := r.pages[i]
		return !e.pool.Shared(id) && (i >= len(hits) || hits[i] != id)
	})
}

// peak returns the greatest number of pages that sequences will have together,
// beside those they share. It orders them.
func peak(futures []future) int {
	slices.SortFunc(futures, func(a, b future) int { return cmp.Compare(b.steps, a.steps) })
	// A sequence of n tokens has ceil(n/16) pages. Their sum, after any number of
	// steps, follows from the sum of quotients and how often each remainder occurs.
	pages, most := 0, 0
	var remainders [page.Tokens]int
	for i, f := range futures {
		up := f.tokens + page.Tokens - 1
		pages += up/page.Tokens - f.shared
		remainders[up%page.Tokens]++
		then := pages + (i+1)*(f.steps/page.Tokens)
		for r := page.Tokens - f.steps%page.Tokens; r < page.Tokens; r++ {
			then += remainders[r]
		}
		most = max(most, then)
	}
	return most
}
