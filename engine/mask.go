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
// does. The next step computes the known tokens that are left or, if there are
// none, samples again.
func (e *Engine) skip(s *sequence) {
	if st := e.inFlight; st != nil && s.batch == st.number && s.row >= 0 && st.rows[s.row] == s {
		r := &st.batch.Rows[s.row]
		r.Kind, r.Target, r.Mask = device.RowScore, 0, 0
		st.rows[s.row] = nil
	}
	s.total = s.known()
}

// masking is the scratch memory of masks being made, by mask.
type masking struct {
	seqs     []*sequence
	matchers []*grammar.Matcher
	masks    [][]uint32
	errs     []error
	first    int32 // Row.Mask of the first
}

func newMasking(slots int) masking {
	return masking{
		seqs:     make([]*sequence, 0, slots),
		matchers: make([]*grammar.Matcher, 0, slots),
		masks:    make([][]uint32, 0, slots),
		errs:     make([]error, slots),
	}
}

// begin forgets those of the last batch.
func (m *masking) begin(b *device.Batch) {
	clear(m.seqs)
	clear(m.matchers)
	m.seqs, m.matchers, m.masks = m.seqs[:0], m.matchers[:0], m.masks[:0]
	m.first = int32(len(b.Masks)/b.MaskWords) + 1
}

// add reserves the mask of a sequence in the batch.
func (m *masking) add(b *device.Batch, s *sequence) {
	b.Masks = b.Masks[:len(b.Masks)+b.MaskWords]
	m.masks = append(m.masks, b.Mask(m.first+int32(len(m.seqs))))
	m.seqs = append(m.seqs, s)
	m.matchers = append(m.matchers, s.guide.matcher)
}

// makeMasks computes the masks until the deadline, and has done called for each, with
// its Row.Mask or what is wrong with it.
func (e *Engine) makeMasks(deadline time.Time, done func(s *sequence, mask int32, err error)) {
	m := &e.masking
	if len(m.seqs) == 0 {
		return
	}
	if e.late != nil {
		deadline = time.Time{}
	}
	m.seqs[0].guide.compiler.Masks(m.matchers, m.masks, m.errs, deadline)
	for i, s := range m.seqs {
		err := m.errs[i]
		if e.late != nil && err == nil && e.late() {
			err = grammar.ErrLate
		}
		done(s, m.first+int32(i), err)
	}
}

// mask says what the rows of the step in flight may sample. A row whose mask is
// late sits the step out: the others do not wait for a slow grammar.
func (e *Engine) mask(st *step) {
	m := &e.masking
	b := st.batch
	m.begin(b)
	for i, s := range st.rows {
		if s != nil && s.state == active && s.constrained() && i == s.row && b.Rows[i].Kind == device.RowSample {
			m.add(b, s)
		}
	}
	e.makeMasks(e.maskDeadline(), func(s *sequence, mask int32, err error) {
		switch {
		case err == nil:
			b.Rows[s.row].Mask = mask
		case errors.Is(err, grammar.ErrLate):
			e.skip(s)
			e.stats.lateMasks.Add(1)
		default:
			e.end(s, NotFinished, ungrammatical(err))
		}
	})
	e.sweep()
}

// sampleAgain gives the step the rows whose masks were late, as far as they are
// there by now, or come until the deadline.
func (e *Engine) sampleAgain(st *step, deadline time.Time) {
	m := &e.masking
	b := st.batch
	b.Masks, st.late = b.Masks[:0], 0
	used := 0
	m.begin(b)
	for _, s := range e.active {
		if s.again() {
			m.add(b, s)
		}
	}
	e.makeMasks(deadline, func(s *sequence, mask int32, err error) {
		switch {
		case errors.Is(err, grammar.ErrLate) || st.rowsLeft() == 0:
			st.late++
		case err != nil:
			e.end(s, NotFinished, ungrammatical(err))
		default:
			copy(b.Masks[used*b.MaskWords:], b.Mask(mask)) // no gap where another was late
			used++
			s.row, s.batch = len(st.rows), st.number
			st.row(s, device.Row{
				Token: -1, Slot: s.slot, Kind: device.RowAgain, Mask: int32(used),
				Index: int32(s.total - len(s.req.Tokens)), TopN: int32(s.req.TopN),
			})
			s.total++
		}
	})
	b.Masks = b.Masks[:used*b.MaskWords]
	e.sweep()
}

// Bounds of the time that sampling waits for masks.
const (
	minPatience = 2 * time.Millisecond
	maxPatience = 25 * time.Millisecond
)

// maskDeadline is three quarters of a step from now, within bounds: waiting
// costs nothing while the forward pass runs, and it has only begun.
func (e *Engine) maskDeadline() time.Time {
	return time.Now().Add(min(max(e.pace.last*3/4, minPatience), maxPatience))
}

func ungrammatical(err error) error {
	return &Error{Kind: Failed, Msg: "generation cannot follow the request's grammar", Err: err}
}
