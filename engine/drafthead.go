package engine

import (
	"math"
	"slices"

	"github.com/millrace-ai/millrace/engine/device"
)

// draftHead is the model's own head for drafts (plan.Plan.Draft): at the end of a step it
// predicts, for each sequence that got a token, the one after it, which the next step can
// verify.
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
	costs   costs   // of it alone, by the step's rows
}

const (
	headClass  = matchClasses - 1 // of its drafts, in outcomes
	headTrial  = 1.1              // gain that it begins with
	headMemory = 16               // steps that gain looks back
	headRest   = 512              // steps
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

// took returns what the head takes in a step of so many rows; 0 if that is not known,
// so that it is tried.
func (h *draftHead) took(rows, number int) float64 {
	if took, _ := h.costs.of(rows, number, 0); !math.IsInf(took, 1) {
		return took
	}
	return 0
}

// expects reports whether there is a draft of the head for the next token of s.
func (s *sequence) expects() bool {
	return s.expectedAt == s.known() && s.expected != device.NoDraft && !s.gap
}

// expect takes in the next token of s, before it is committed, and what the head expects
// after it. Other guesses of drafts learn in drafter.read.
func (e *Engine) expect(s *sequence, r device.RowResult) {
	p := &e.speculation
	if !p.head.exists || s.state != active {
		return
	}
	if s.expects() {
		right := s.expected == r.Token
		p.drafters[s.slot].outcomes.add(headClass, right, sequenceMemory)
		p.outcomes.add(headClass, right, engineMemory)
	}
	s.expected, s.expectedAt = r.Draft, s.known()+1
}
