package engine

import (
	"math"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

// draftHead is the model's own head for drafts (plan.Plan.Draft): at the end of a step it
// predicts, for each sequence that got a token, those after it, which the next step can
// verify. Each further one takes time of its own, so they are as many as pay (chooseLength).
//
// It takes time in every step, and what it knows of a sequence has gaps if it has not run
// in all steps of it. So it runs in all steps or in none: as long as a step that has it
// promises more tokens for its time than one without (judge). After that it rests for a
// while, and is tried again on sequences that begin then.
//
// The prefix cache knows nothing of it. A shared page may have gaps, too, and at its end
// what the head made of another next token. Its drafts are worse then, and verified like
// all others.
type draftHead struct {
	exists  bool
	on      bool
	gain    float64 // how much faster steps are with it, lately
	stopped int     // number of the step when it began to rest
	costs   costs   // of it alone and of one token, by the step's rows
	further costs   // of each further token, by the sequences
	length  int     // tokens that it drafts
}

const (
	headClass  = 6   // of the first token of its drafts, in outcomes; others follow
	headTrial  = 1.1 // gain that it begins with
	headMemory = 16  // steps that gain looks back
	headRest   = 512 // steps
)

// runHead reports whether the head runs in step number, and begins a trial if it is time:
// sequences that it has not seen from their beginning would be no fair one.
func (e *Engine) runHead(number int) bool {
	h := &e.speculation.head
	if h.exists && !h.on && number-h.stopped >= headRest && !slices.ContainsFunc(e.active, func(s *sequence) bool { return s.gap }) {
		h.on, h.gain = true, headTrial
	}
	return h.on
}

// judge takes in which rates of tokens a step promised with the head and without.
func (h *draftHead) judge(with, without float64, number int) {
	if without == 0 { // not known yet
		return
	}
	if h.gain += (with/without - h.gain) / headMemory; h.gain < 1 {
		h.on, h.stopped = false, number
	}
}

// took returns what the head takes in a step of so many rows that drafts tokens of so many
// sequences; 0 if that is not known, so that it is tried.
func (h *draftHead) took(rows, sequences, tokens, number int) float64 {
	took, _ := h.costs.of(rows, number, 0)
	if math.IsInf(took, 1) {
		return 0
	}
	if tokens > 1 {
		each, _ := h.further.of(sequences, number, 0)
		if math.IsInf(each, 1) { // as long as the first, at most
			each, _ = h.costs.of(sequences, number, 0)
		}
		took += float64(tokens-1) * each
	}
	return took
}

// observe takes in how long the head took in a step of so many rows.
func (h *draftHead) observe(b *device.Batch, number int) {
	h.costs.observe(len(b.Rows), number, b.DraftTime-b.FurtherDraftTime)
	sequences, runs := 0, int32(1)
	for _, q := range b.Seqs {
		if runs = max(runs, q.Drafts); q.Drafts > 1 {
			sequences++
		}
	}
	if sequences > 0 {
		h.further.observe(sequences, number, b.FurtherDraftTime/time.Duration(runs-1))
	}
}

// chooseLength finds out how many tokens the head should draft in steps of so many rows,
// besides those of drafts: as many as make the most tokens for their time if all are fed.
func (e *Engine) chooseLength(st *step, rows, most int) {
	p := &e.speculation
	h := &p.head
	for _, s := range p.open {
		s.sure = 1
		p.drafters[s.slot].outcomes.fade(headClass + h.length)
	}
	p.outcomes.fade(headClass + h.length)
	alone, _ := p.costs.of(rows, st.number, e.pace.prompt)
	h.length = 1
	tokens, best, again, fed := float64(rows), 0.0, 0.0, rows
	for n := 1; n <= min(device.MaxDrafts, e.cfg.Speculate); n++ {
		before := fed
		for _, s := range p.open {
			if n > e.mostDrafts(s) {
				continue
			}
			sure := s.sure
			s.sure *= p.drafters[s.slot].chance(headClass+n-1, &p.outcomes)
			tokens += s.sure
			again += float64(n) * (sure - s.sure)
			fed++
		}
		took, _ := p.costs.of(fed, st.number, e.pace.prompt)
		if fed == before || fed-rows > most || math.IsInf(took, 1) {
			return
		}
		if e.shape.recurrent {
			later, _ := p.costs.of(rows+int(math.Ceil(again)), st.number, e.pace.prompt)
			took += max(0, later-alone)
		}
		if rate := tokens / (took + h.took(fed, len(p.open), n, st.number)); rate > best {
			best, h.length = rate, n
		}
	}
}

// askHead has the model's head draft tokens after the one that s gets in the step, and
// gives s pages for what it keeps of them, if nobody lacks any. It returns how many.
func (e *Engine) askHead(st *step, s *sequence) int {
	n := min(e.speculation.head.length, e.mostDrafts(s), s.limit-s.computed)
	if !st.batch.Draft || s.gap {
		return 0
	}
	groups := len(e.shape.windows)
	if more := groups * (pagesFor(s.computed+n-1) - pagesFor(s.computed)); more > e.cache.Pages.Free()-groups*len(e.active) {
		return min(n, pagesFor(s.computed)*page.Tokens-s.computed+1)
	}
	return min(n, e.extend(st, s, s.computed+n-1, s.computed)-s.computed+1)
}

// expects reports whether there is a draft of the head for the next token of s.
func (s *sequence) expects() bool {
	return s.expectedAt == s.known() && len(s.expected) > 0 && s.confirmed == 0 && !s.gap
}

// expect takes in the next token of s, before it is committed, and what the head expects
// after it. Other guesses of drafts learn in drafter.read.
func (e *Engine) expect(s *sequence, r device.RowResult) {
	p := &e.speculation
	if !p.head.exists || s.state != active || s.gap {
		return
	}
	if place := s.known() - s.expectedAt; place == s.confirmed && place < len(s.expected) {
		right := s.expected[place] == r.Token
		p.drafters[s.slot].outcomes.add(headClass+place, right, sequenceMemory)
		p.outcomes.add(headClass+place, right, engineMemory)
		if right {
			s.confirmed++
		}
	}
	if r.Drafts[0] == device.NoDraft { // more of those that came before may come
		return
	}
	s.expected, s.expectedAt, s.confirmed = s.expected[:0], s.known()+1, 0
	for _, token := range r.Drafts {
		if token == device.NoDraft {
			break
		}
		s.expected = append(s.expected, token)
	}
}
