package engine

import (
	"errors"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
)

// advance has the workers move the matcher of a constrained sequence past a token that
// was sampled and did not end it, if no more of a draft are to come. follow takes in
// where that leads.
func (e *Engine) advance(s *sequence, more bool) {
	g := s.constraint
	token := s.token(s.known() - 1)
	switch {
	case g.reasoning != nil:
		e.reason(s, token)
	case len(g.pending) > 0: // the first token of the sequence, for which there was no choice
		g.pending = g.pending[1:]
	case g.matcher != nil:
		if g.unread = append(g.unread, token); more {
			break
		}
		g.compiler.Advance(g.matcher, g.unread, s.limit-s.known())
		g.moving, g.patient, g.unread = g.matcher, true, g.unread[:0]
	default:
		g.text = g.dec.Append(g.text[:0], token)
		g.watch.read(g.text)
		e.look(s)
	}
	e.publishLater(s)
}

// look goes on to look for triggers in the text that the last token completed.
func (e *Engine) look(s *sequence) {
	g := s.constraint
	t, rest := g.watch.next()
	if g.entering = t; t != nil {
		g.compiler.Enter(t.Grammar, rest, s.limit-s.known())
		g.moving, g.patient = t.Grammar, true
	} else if g.watch.over() {
		s.dropConstraint()
	}
}

// follow takes in where the workers have moved matchers, and commits forced tokens.
// It waits until the deadline for matchers that it has not waited for before, and
// reports whether anything changed.
func (e *Engine) follow(deadline time.Time) (changed bool) {
	m := &e.masking
	m.moving, m.matchers = m.moving[:0], m.matchers[:0]
	add := func(s *sequence) {
		if s.constraint != nil && s.constraint.moving != nil {
			m.moving = append(m.moving, s)
			if s.constraint.patient {
				m.matchers = append(m.matchers, s.constraint.moving)
			}
			s.constraint.patient = false
		}
	}
	for _, s := range e.active {
		add(s)
	}
	left := e.preempted
	for s := e.waiting.head; s != nil && left > 0; s = s.next {
		if s.admitted { // with its last token in flight when it was preempted
			add(s)
			left--
		}
	}
	if len(m.matchers) > 0 {
		m.moving[0].constraint.compiler.Moves(m.matchers, deadline)
	}
	for _, s := range m.moving {
		changed = e.moved(s) || changed
	}
	clear(m.moving)
	clear(m.matchers)
	for _, s := range e.active {
		if s.state == active && s.forcing() {
			e.force(s)
		}
	}
	e.sweep()
	return changed
}

// moved takes in where the matcher of s is, if that is known by now.
func (e *Engine) moved(s *sequence) bool {
	g := s.constraint
	move, ok, err := g.compiler.Moved(g.moving)
	if !ok {
		return false
	}
	g.moving = nil
	switch {
	case err != nil:
		e.end(s, NotFinished, ungrammatical(err))
		return true
	case move.Refused && g.next != nil:
		e.end(s, NotFinished, ungrammatical(errAfterReasoning))
		return true
	case move.Refused:
		e.look(s)
		return true
	case g.next != nil:
		g.matcher, g.next = g.next, nil
	case g.entering != nil:
		g.matcher = g.entering.Grammar
		g.watch.close(g.entering)
		g.watch, g.entering = nil, nil
	}
	g.pending, g.end = move.Forced, move.End
	s.stream.hold.grow(int64(len(g.pending)) * 4)
	if g.end && len(g.pending) == 0 && s.state == waiting {
		e.force(s) // it need not be computed again for that
	}
	return true
}

// force commits tokens that are the only choice, as many as a step may compute, and
// drops what a step in flight would sample instead. They are computed together, like
// a part of the prompt.
func (e *Engine) force(s *sequence) {
	g := s.constraint
	for n := e.budget - (s.known() - s.computed); n > 0 && len(g.pending) > 0; n-- {
		if !e.forced(s, g.pending[0]) {
			return
		}
		if g.reasoning != nil {
			g.text = g.dec.Append(g.text[:0], g.pending[0])
		}
		g.pending = g.pending[1:]
	}
	if g.reasoning != nil && g.reasoning.ending && len(g.pending) == 0 {
		e.answer(s, nil)
		return
	}
	if g.end && len(g.pending) == 0 && e.forced(s, g.compiler.EOS()[0]) {
		e.end(s, FinishEOS, nil)
	}
}

// forced commits a token that is the only choice, and reports whether s goes on.
func (e *Engine) forced(s *sequence, token int32) bool {
	if s.constraint.reasoning == nil && !s.rules.admits(s, token) {
		e.end(s, NotFinished, errExcluded)
		return false
	}
	e.skip(s)
	s.force(token)
	s.total = s.known()
	e.stats.generatedTokens.Add(1)
	e.stats.forcedTokens.Add(1)
	if reason := e.finished(s); reason != NotFinished {
		e.end(s, reason, nil)
		return false
	}
	e.publishLater(s)
	return true
}

var errExcluded error = &Error{Kind: Failed, Msg: "no token is possible: the request's grammar, allowed and banned tokens exclude all"}

// skip drops the sample that the step in flight, if there is one, would take for s.
// The next step computes the known tokens that are left or, if there are none,
// samples again.
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
	seqs  []*sequence
	masks [][]uint32
	first int32 // Row.Mask of the first

	// Of those that a grammar makes, and of matchers on their way.
	matchers []*grammar.Matcher
	made     [][]uint32
	errs     []error
	moving   []*sequence
	drafts   []*grammar.Draft
}

func newMasking(slots int) masking {
	return masking{
		seqs:     make([]*sequence, 0, slots),
		masks:    make([][]uint32, 0, slots),
		matchers: make([]*grammar.Matcher, 0, slots),
		made:     make([][]uint32, 0, slots),
		errs:     make([]error, slots),
		moving:   make([]*sequence, 0, slots),
		drafts:   make([]*grammar.Draft, 0, slots),
	}
}

// begin forgets those of the last batch.
func (m *masking) begin(b *device.Batch) {
	clear(m.seqs)
	m.seqs, m.masks = m.seqs[:0], m.masks[:0]
	m.first = int32(len(b.Masks)/b.MaskWords) + 1
}

// add reserves the mask of a sequence in the batch.
func (m *masking) add(b *device.Batch, s *sequence) {
	b.Masks = b.Masks[:len(b.Masks)+b.MaskWords]
	m.masks = append(m.masks, b.Mask(m.first+int32(len(m.seqs))))
	m.seqs = append(m.seqs, s)
}

// makeMasks makes the masks, each for the token after all known ones, until the
// deadline, and calls done for each with its Row.Mask, or with what is wrong.
func (e *Engine) makeMasks(deadline time.Time, done func(s *sequence, mask int32, err error)) {
	m := &e.masking
	m.matchers, m.made = m.matchers[:0], m.made[:0]
	var compiler Compiler
	for i, s := range m.seqs {
		if s.constrained() && len(s.constraint.pending) == 0 {
			compiler = s.constraint.compiler
			m.matchers, m.made = append(m.matchers, s.constraint.matcher), append(m.made, m.masks[i])
		}
	}
	if len(m.matchers) > 0 {
		compiler.Masks(m.matchers, m.made, m.errs, deadline)
	}
	made := 0
	for i, s := range m.seqs {
		var err error
		g, mask := s.constraint, m.masks[i]
		before := g != nil && g.reasoning != nil // the answer
		if before && len(g.pending) > 0 {        // its ending, whatever the rules say
			clear(mask)
			allow(mask, g.pending[:1])
			done(s, m.first+int32(i), nil)
			continue
		}
		switch {
		case !s.constrained():
			s.rules.begin(mask, e.limits.Vocab)
			if before && g.next != nil {
				forbid(mask, e.cfg.EOS...)
			}
		case len(g.pending) > 0:
			clear(mask)
			allow(mask, g.pending[:1])
		default:
			err = m.errs[made]
			made++
			switch {
			case errors.Is(err, grammar.ErrLate):
			case err != nil:
				err = ungrammatical(err)
			case before:
				g.reasoning.mayOpen(mask)
			}
		}
		if err == nil && s.rules != nil && !s.rules.narrow(mask, s, s.generated) {
			err = errExcluded
		}
		done(s, m.first+int32(i), err)
	}
	clear(m.matchers)
}

// mask sets what the rows of the step in flight may sample. A row whose mask is late
// sits the step out: the others do not wait for a slow grammar.
func (e *Engine) mask(st *step) {
	m := &e.masking
	b := st.batch
	deadline := e.maskDeadline()
	e.follow(deadline)
	m.begin(b)
	for i, s := range st.rows {
		if s == nil || s.state != active || i != s.row || b.Rows[i].Kind != device.RowSample || b.Rows[i].Mask != 0 {
			continue
		}
		switch {
		case s.undecided():
			e.sitOut(s)
		case s.masked():
			m.add(b, s)
		}
	}
	e.makeMasks(deadline, func(s *sequence, mask int32, err error) {
		switch {
		case err == nil:
			b.Rows[s.row].Mask = mask
		case errors.Is(err, grammar.ErrLate):
			e.sitOut(s)
		default:
			e.end(s, NotFinished, err)
		}
	})
	e.sweep()
}

// sitOut has a later step sample the token of s.
func (e *Engine) sitOut(s *sequence) {
	e.skip(s)
	e.stats.lateMasks.Add(1)
}

// sampleAgain adds the rows whose masks were late to the step, if the masks are there
// by now or come before the deadline.
func (e *Engine) sampleAgain(st *step, deadline time.Time) {
	m := &e.masking
	b := st.batch
	b.Masks, st.late = b.Masks[:0], 0
	used := 0
	again := func(s *sequence, mask int32) {
		s.row, s.batch = len(st.rows), st.number
		st.row(s, device.Row{
			Token: -1, Slot: s.slot, Kind: device.RowAgain, Mask: mask,
			Index: int32(s.total - len(s.req.Tokens)), TopN: int32(s.req.TopN),
		})
		s.total++
	}
	m.begin(b)
	for _, s := range e.active {
		switch {
		case !s.again():
		case s.undecided():
			st.late++
		case s.masked():
			m.add(b, s)
		case st.rowsLeft() == 0:
			st.late++
		default: // a trigger might have started a grammar, and did not
			again(s, 0)
		}
	}
	e.makeMasks(deadline, func(s *sequence, mask int32, err error) {
		switch {
		case errors.Is(err, grammar.ErrLate) || err == nil && st.rowsLeft() == 0:
			st.late++
		case err != nil:
			e.end(s, NotFinished, err)
			st.late++ // its pages are free for the next step
		default:
			copy(b.Masks[used*b.MaskWords:], b.Mask(mask)) // leave no gap where another was late
			used++
			again(s, int32(used))
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
