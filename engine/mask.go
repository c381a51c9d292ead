package engine

import (
	"cmp"
	"errors"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
)

// steer follows a committed token of a guided sequence that has not ended by
// it. Tokens that the grammar forces are committed too, and computed together
// in the next step; what that step's forerunner, in flight, would have sampled
// in their place is dropped.
func (e *Engine) steer(s *sequence) {
	g := s.guide
	over, err := g.read(s.token(s.known() - 1))
	if over {
		s.unguide()
	}
	if err == nil && s.constrained() {
		err = e.fastForward(s)
	}
	switch {
	case err != nil:
		e.end(s, NotFinished, ungrammatical(err))
	case s.state == ended:
	default:
		if s.constrained() {
			g.compiler.Begin(g.matcher)
		}
		e.announce(s)
	}
}

// fastForward commits what can only come next, up to the end of the sequence.
func (e *Engine) fastForward(s *sequence) error {
	g := s.guide
	first := s.generated
	for {
		if err := g.matcher.Err(); err != nil {
			return err
		}
		if g.matcher.Done() {
			e.forced(s, g.compiler.EOS()[0])
			e.end(s, cmp.Or(e.finished(s), FinishEOS), nil)
			return nil
		}
		g.forced = g.matcher.Forced(g.forced[:0])
		if len(g.forced) == 0 {
			break
		}
		for _, token := range g.forced {
			e.forced(s, token)
			if reason := e.finished(s); reason != NotFinished {
				e.end(s, reason, nil)
				return nil
			}
			if err := g.matcher.Accept(token); err != nil {
				return err
			}
		}
	}
	if s.generated > first {
		e.skip(s)
	}
	return nil
}

func (e *Engine) forced(s *sequence, token int32) {
	s.force(token)
	e.stats.generatedTokens.Add(1)
	e.stats.forcedTokens.Add(1)
}

// skip drops what the step in flight, if there is one, samples for s, before it
// does. The next step computes the known tokens that are left, the last one in any case.
func (e *Engine) skip(s *sequence) {
	if st := e.inFlight; st != nil && s.batch == st.number && s.row >= 0 && st.rows[s.row] == s {
		r := &st.batch.Rows[s.row]
		r.Kind, r.Target, r.Mask = device.RowScore, 0, 0
		st.rows[s.row] = nil
	}
	s.total = s.known()
	s.computed = min(s.computed, s.total-1)
}

// masking is the scratch memory of mask, by mask.
type masking struct {
	seqs     []*sequence
	matchers []*grammar.Matcher
	masks    [][]uint32
	errs     []error
}

func newMasking(slots int) masking {
	return masking{
		seqs:     make([]*sequence, 0, slots),
		matchers: make([]*grammar.Matcher, 0, slots),
		masks:    make([][]uint32, 0, slots),
		errs:     make([]error, slots),
	}
}

// mask says what the rows of the step in flight may sample. A row whose mask is
// late sits the step out: the others do not wait for a slow grammar.
func (e *Engine) mask(st *step) {
	m := &e.masking
	b := st.batch
	for i, s := range st.rows {
		if s == nil || s.state != active || !s.constrained() || i != s.row {
			continue
		}
		m.seqs = append(m.seqs, s)
		m.matchers = append(m.matchers, s.guide.matcher)
		b.Masks = b.Masks[:len(m.seqs)*b.MaskWords]
		b.Rows[i].Mask = int32(len(m.seqs))
		m.masks = append(m.masks, b.Mask(b.Rows[i].Mask))
	}
	if len(m.seqs) == 0 {
		return
	}
	m.seqs[0].guide.compiler.Masks(m.matchers, m.masks, m.errs, e.maskDeadline())
	for i, s := range m.seqs {
		err := m.errs[i]
		if e.late != nil && err == nil && e.late() {
			err = grammar.ErrLate
		}
		switch {
		case err == nil:
		case errors.Is(err, grammar.ErrLate):
			e.skip(s)
			e.stats.lateMasks.Add(1)
		default:
			b.Rows[s.row].Mask = 0
			e.end(s, NotFinished, ungrammatical(err))
		}
	}
	e.sweep()
	clear(m.seqs)
	clear(m.matchers)
	m.seqs, m.matchers, m.masks = m.seqs[:0], m.matchers[:0], m.masks[:0]
}

// Bounds of the time that sampling waits for masks.
const (
	minPatience = 2 * time.Millisecond
	maxPatience = 25 * time.Millisecond
)

// maskDeadline is three quarters of a step from now, within bounds: waiting
// costs nothing while the forward pass runs, and it has only begun.
func (e *Engine) maskDeadline() time.Time {
	if e.late != nil {
		return time.Time{}
	}
	return time.Now().Add(min(max(e.pace.last*3/4, minPatience), maxPatience))
}

func ungrammatical(err error) error {
	return &Error{Kind: Failed, Msg: "generation cannot follow the request's grammar", Err: err}
}
