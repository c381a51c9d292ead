package engine

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/page"
)

// Speculation feeds tokens to the device before they are known: drafts of how a
// sequence may go on (drafter, draftHead). Each has a row, as the token before it does, and from
// these rows the device draws what plain decoding would: a draw depends on the seed, the
// index and the logits alone. A drafted token is accepted while it equals the token that
// is drawn, so the answer is that of plain decoding, bit for bit; only the number of
// steps differs. What was computed of the other drafted tokens is overwritten by the
// next step.
//
// Until the results are there, nobody knows where the sequence ended. So no step is
// launched ahead of another, the prefix cache is offered known tokens alone, and windows
// slide as if the whole draft were wrong.
//
// Recurrent layers cannot go back: their state has taken the whole draft in. So a draft
// changes a copy of the state. If all of it was right, the sequence goes on with the copy;
// if not, with the state before the draft, and what was accepted is computed once more, in
// the step after, which has no draft of this sequence. chooseDrafts counts that in.
//
// What may come in the place of each drafted token is known before the step: the
// grammar's workers follow the draft on a copy of the matcher (constrainDrafts). A draft
// ends before the first token that the grammar does not allow, and before one that may
// begin a grammar or end the reasoning. What the grammar forces after a drafted token is
// drafted too.
//
// A draft is as long as it pays (chooseDrafts), by the time that steps have taken and by
// how often the guesses of a sequence were right. The latter is known without drafts: a
// guess is compared with every token that comes. Steps that compute prompts have no
// drafts.

// MaxSpeculate is the most tokens of a draft.
const MaxSpeculate = 64

// leastGain is how much faster a draft must promise to be: the times of steps are not
// known any better.
const leastGain = 1.02

// maxLateDrafts is how many drafts of a sequence its grammar may be late with before
// it has no more.
const maxLateDrafts = 4

// speculation is what the loop keeps for drafts.
type speculation struct {
	drafters []drafter // by slot; nil: there are no drafts
	outcomes outcomes  // of all of them
	costs    costs     // of steps, but for the head
	head     draftHead
	choose   func(st *step, rows, most int) // chooseDrafts, but for tests

	// Scratch of a step.
	open     []*sequence // those that may have a draft
	guesses  [][]int32   // by slot
	order    []*sequence // whose draft got a token, one after the other
	accepted []int       // StepInfo.Accepted
}

// newSpeculation makes all that drafts need.
func (e *Engine) newSpeculation() speculation {
	n := e.cfg.Speculate
	if n == 0 {
		return speculation{}
	}
	p := speculation{
		choose:   e.chooseDrafts,
		head:     draftHead{exists: len(e.cfg.Plan.Draft) > 0, on: len(e.cfg.Plan.Draft) > 0, gain: headTrial, length: 1},
		open:     make([]*sequence, 0, e.slots),
		order:    make([]*sequence, 0, maxCostRows),
		accepted: make([]int, 0, e.slots),
	}
	for range e.slots {
		p.drafters = append(p.drafters, newDrafter(e.limits.MaxTotal))
		p.guesses = append(p.guesses, make([]int32, 0, n))
	}
	return p
}

// checkSpeculation refuses what cannot work.
func (c *Config) checkSpeculation() error {
	if caps := c.Backend.Caps(); c.Speculate > 0 && !caps.Has(device.FeatureVerify) {
		return errors.New("engine: Speculate needs a backend that verifies drafts")
	}
	return nil
}

// speculate gives sequences drafts for the step.
func (e *Engine) speculate(st *step) {
	if e.cfg.Speculate == 0 {
		return
	}
	p := &e.speculation
	p.open = p.open[:0]
	rows, prompts := 0, false
	for _, s := range e.active {
		s.draft, s.predicted = nil, 0
		switch wants := s.wants(); {
		case s.batch == st.number: // sampled again
			rows++
		case wants > 1 && s.computed >= len(s.req.Tokens): // forced text, or what was accepted
			rows += wants
		case wants > 1:
			prompts = true
		case wants == 1:
			rows++
			if !s.scoring() && s.constraint.steady() && (!e.shape.recurrent || s.from == device.NoState) {
				p.open = append(p.open, s)
			}
		}
	}
	prompts = prompts || e.mayAdmit() // or the pages of one
	if most := min(e.budget, cap(st.batch.Rows)) - rows; !prompts && len(p.open) > 0 && most > 0 {
		p.choose(st, rows, most)
		start := e.now()
		e.constrainDrafts()
		st.drafting = e.now().Sub(start)
		e.spare()
	}
	clear(p.open)
}

// spare cuts drafts so that no sequence is preempted for their pages.
func (e *Engine) spare() {
	groups := len(e.shape.windows)
	left := max(0, e.cache.Pages.Free()-groups*len(e.active))
	for _, s := range e.speculation.open {
		pages := pagesFor(s.total)
		if more := groups * (pagesFor(s.total+len(s.draft)) - pages); more <= left {
			left -= more
		} else {
			s.draft = s.draft[:pages*page.Tokens-s.total]
		}
	}
}

// mostDrafts returns how many tokens a draft of s may have.
func (e *Engine) mostDrafts(s *sequence) int {
	most := min(e.cfg.Speculate, s.limit-s.total-1)
	if p := e.cfg.Plan; p.RopeOriginal > 0 && !p.RopeDynamic && s.ropeLen == 0 {
		most = min(most, p.RopeOriginal-s.total) // beyond that s begins again (lengthen)
	}
	if e.snapshots {
		most = min(most, e.snapshotAfter(s)-s.total-1) // the state is kept at the end of a step
	}
	return max(0, most)
}

// chooseDrafts gives drafts of together most tokens at most to sequences of a step
// that has so many rows without.
func (e *Engine) chooseDrafts(st *step, rows, most int) {
	p := &e.speculation
	for _, s := range p.open {
		d := &p.drafters[s.slot]
		d.read(s, &p.outcomes)
		most := e.mostDrafts(s)
		p.guesses[s.slot] = e.beforeEnd(s, d.draft(p.guesses[s.slot][:0], s, most))
	}
	if st.batch.Draft {
		e.chooseLength(st, rows, most)
	}
	without := e.bestDrafts(st, rows, most, false)
	if st.batch.Draft {
		p.head.judge(e.bestDrafts(st, rows, most, true), without, st.number)
	}
	for _, s := range p.open {
		if d := &p.drafters[s.slot]; d.at >= 0 && len(s.draft) > 0 && !s.byHead {
			s.predicted = max(0, len(s.req.Prediction)-d.at)
		}
	}
}

// beforeEnd cuts a guess before the first token that s may end with.
func (e *Engine) beforeEnd(s *sequence, guess []int32) []int32 {
	if end := slices.IndexFunc(guess, func(t int32) bool { return e.mayEnd(s, t) }); end >= 0 {
		return guess[:end]
	}
	return guess
}

// guess finds out how s goes on, as its drafter or the model's head have it, and how likely
// the first token is right. Of the two the one that promises more tokens counts.
func (e *Engine) guess(s *sequence, head bool) {
	found := e.speculation.guesses[s.slot]
	s.guess, s.byHead = found, false
	promised, first := e.promise(s)
	s.odds = first
	if !head || !s.expects() {
		return
	}
	expected := s.expected[:min(len(s.expected), e.mostDrafts(s))]
	s.guess, s.byHead = append(s.headGuess[:0], e.beforeEnd(s, expected)...), true
	own, likely := e.promise(s)
	agree := len(found) > 0 && len(s.guess) > 0 && found[0] == s.guess[0]
	if own <= promised {
		s.guess, s.byHead = found, false
	}
	switch {
	case agree:
		s.odds = max(first, likely)
	case s.byHead:
		s.odds = likely
	}
}

// promise estimates how many tokens of the guess of s are right up to the first that is not,
// and how likely the first one is.
func (e *Engine) promise(s *sequence) (tokens, first float64) {
	p := &e.speculation
	d, sure := &p.drafters[s.slot], 1.0
	for place := range s.guess {
		sure *= d.chance(s.guessClass(d, place), &p.outcomes)
		tokens += sure
		if place == 0 {
			first = sure
		}
	}
	return tokens, first
}

// guessClass sorts a place in the guess of s by how likely it is right.
func (s *sequence) guessClass(d *drafter, place int) int {
	if s.byHead {
		return headClass + min(place, device.MaxDrafts-1)
	}
	return matchClass(d.matched + place)
}

// bestDrafts gives sequences the drafts of the step with the most tokens for its time,
// with or without the model's head; the tokens that are accepted most likely come first.
// It returns the rate, 0 if it is not known what a step takes.
func (e *Engine) bestDrafts(st *step, rows, most int, head bool) float64 {
	p := &e.speculation
	for _, s := range p.open {
		s.draft, s.sure = nil, 1
		e.guess(s, head)
	}
	alone, measured := p.costs.of(rows, st.number, e.pace.prompt)
	if !measured {
		return 0 // it is now
	}
	own := func(rows int) float64 { // of the head
		if !head {
			return 0
		}
		return p.head.took(rows, len(p.open), p.head.length, st.number)
	}
	p.order = p.order[:0]
	plain := float64(rows) / (alone + own(rows))
	tokens, best, kept := float64(rows), plain*leastGain, 0
	again := 0.0 // tokens that are then computed a second time
	for n := 1; n <= min(most, maxCostRows-rows); n++ {
		s := e.likeliest()
		if s == nil {
			break
		}
		tokens += s.odds
		s.draft = s.guess[:len(s.draft)+1]
		again += float64(len(s.draft)) * (s.sure - s.odds)
		d := &p.drafters[s.slot]
		s.sure = s.odds
		s.odds *= d.chance(s.guessClass(d, len(s.draft)), &p.outcomes)
		p.order = append(p.order, s)
		took, _ := p.costs.of(rows+n, st.number, e.pace.prompt)
		if e.shape.recurrent {
			later, _ := p.costs.of(rows+int(math.Ceil(again)), st.number, e.pace.prompt)
			took += max(0, later-alone)
		}
		took += own(rows + n)
		if rate := tokens / took; rate > best {
			best, kept = rate, n
		}
	}
	for _, s := range p.order[kept:] {
		s.draft = s.draft[:len(s.draft)-1]
	}
	clear(p.order)
	if kept == 0 {
		return plain
	}
	return best
}

// mayEnd reports whether s ends with a token, as far as that depends on the token: to
// compute it would be for nothing.
func (e *Engine) mayEnd(s *sequence, token int32) bool {
	return e.endsSequence(token) || slices.Contains(s.req.StopTokens, token)
}

// likeliest returns the sequence whose next drafted token is the most likely to be
// accepted, nil if there are no more.
func (e *Engine) likeliest() (best *sequence) {
	p := &e.speculation
	for _, s := range p.open {
		if len(s.draft) < len(s.guess) && (best == nil || s.odds > best.odds) {
			best = s
		}
	}
	return best
}

// steady reports whether it is known where a sequence with the constraint is, and
// whether it may stay there: g follows a grammar, or is in the middle of a text in which
// something may begin or end. A token that is forced is not drafted.
func (g *constraintState) steady() bool {
	switch {
	case g == nil:
		return true
	case g.moving != nil || len(g.pending) > 0 || g.end || g.lateDrafts > maxLateDrafts:
		return false
	case g.reasoning != nil:
		return g.matcher == nil && g.reasoning.inside
	}
	return g.matcher == nil || g.started
}

// constrainDrafts cuts drafts before the first token after which nobody knows yet what
// may follow.
func (e *Engine) constrainDrafts() {
	m := &e.masking
	m.moving, m.matchers, m.drafts = m.moving[:0], m.matchers[:0], m.drafts[:0]
	for _, s := range e.speculation.open {
		g := s.constraint
		switch {
		case g == nil || len(s.draft) == 0:
		case g.matcher == nil:
			s.draft = s.draft[:g.calm(s.draft)]
		default:
			if g.draft == nil {
				g.draft = new(grammar.Draft)
				s.stream.hold.grow(int64(e.cfg.Speculate+1) * int64(4*device.MaskWords(e.limits.Vocab)))
			}
			g.draft.Tokens, g.draft.Room = append(g.draft.Tokens[:0], s.draft...), s.limit-s.known()
			m.moving, m.matchers, m.drafts = append(m.moving, s), append(m.matchers, g.matcher), append(m.drafts, g.draft)
		}
	}
	if len(m.moving) == 0 {
		return
	}
	m.moving[0].constraint.compiler.Drafts(m.matchers, m.drafts, time.Now().Add(minPatience))
	for _, s := range m.moving {
		g := s.constraint
		if s.draft = nil; g.draft.Done {
			s.draft = g.draft.Tokens
		} else {
			g.draft, g.lateDrafts = nil, g.lateDrafts+1
		}
	}
	clear(m.moving)
	clear(m.matchers)
	clear(m.drafts)
}

// calm returns how many tokens of a draft leave a sequence where it is, in its reasoning
// or before a trigger.
func (g *constraintState) calm(draft []int32) int {
	n, r := len(draft), g.reasoning
	if r != nil && r.Budget >= 0 {
		n = max(0, min(n, r.Budget-r.count-1))
	}
	for ; n > 0; n-- {
		if r != nil {
			g.text = g.dec.Peek(append(g.text[:0], r.text...), draft[:n]...)
			if !bytes.Contains(g.text, []byte(r.Close)) {
				break
			}
			continue
		}
		g.text = g.dec.Peek(append(g.text[:0], g.watch.text...), draft[:n]...)
		if !g.watch.within(g.text) {
			break
		}
	}
	return n
}

// forces reports whether the grammar of s leaves no choice in the place of a token of
// the draft, or in the one after it: the draft may have been cut since it was followed,
// for want of pages.
func (s *sequence) forces(place int) bool {
	if !s.constrained() || s.constraint.draft == nil {
		return false
	}
	forced := s.constraint.draft.Forced
	return place < len(forced) && forced[place]
}

// verify adds to the step the draft of s, after the token with an index in the batch,
// and rows that verify it. It reports whether it did; if not, the sequence is to have
// a row without a draft.
func (e *Engine) verify(st *step, s *sequence, token int32) bool {
	b := st.batch
	first, index := len(b.Rows), s.total-len(s.req.Tokens)
	n := len(s.draft)
	for i := 0; i <= n; i++ {
		row := device.Row{
			Token: token + int32(i), Slot: s.slot, Kind: device.RowVerify,
			Target: -1, Index: int32(index + i), TopN: int32(s.req.TopN),
		}
		if s.rules.hold(index+i) || s.constraint.masks() {
			if row.Mask = e.draftMask(b, s, i); row.Mask == 0 {
				n = i - 1
				break
			}
		}
		st.row(s, row)
	}
	for n > 0 && s.forces(n) { // nothing is drawn there
		n--
	}
	b.Rows, st.rows = b.Rows[:first+n+1], st.rows[:first+n+1]
	rows := b.Rows[first:]
	if s.draft = s.draft[:max(0, n)]; n <= 0 {
		if len(rows) > 0 {
			rows[0].Kind, rows[0].Target = device.RowSample, 0
		}
		return len(rows) > 0
	}
	for i, t := range s.draft {
		rows[i].Target = t
		b.Tokens = append(b.Tokens, t)
		b.Pos = append(b.Pos, int32(s.total+i))
	}
	return true
}

// masks reports whether each token of a draft needs a mask.
func (g *constraintState) masks() bool { return g != nil && (g.matcher != nil || g.next != nil) }

// draftMask makes the mask of a place in the draft of s, or after it, and returns its
// Row.Mask; 0 if it would leave no token, or no room for the masks of others.
func (e *Engine) draftMask(b *device.Batch, s *sequence, place int) int32 {
	made := len(b.Masks) / b.MaskWords
	if made+len(e.active) >= e.cfg.Device.MaxSlots {
		return 0
	}
	b.Masks = b.Masks[:len(b.Masks)+b.MaskWords]
	mask := b.Mask(int32(made + 1))
	switch g := s.constraint; {
	case s.forces(place):
		clear(mask)
		allow(mask, s.draft[place:place+1])
	case s.constrained():
		copy(mask, g.draft.Masks[place*b.MaskWords:])
	default:
		s.rules.begin(mask, e.limits.Vocab)
		if g != nil && g.next != nil { // the end must not come before the answer
			forbid(mask, e.cfg.EOS...)
		}
	}
	switch {
	case s.rules != nil && !s.rules.narrow(mask, s, s.generated+place):
		b.Masks = b.Masks[:made*b.MaskWords]
		return 0
	case place > 0 && slices.Equal(mask, b.Mask(int32(made))): // as that of the place before
		b.Masks = b.Masks[:made*b.MaskWords]
		return int32(made)
	}
	return int32(made + 1)
}

// verified commits a token that was drawn where a draft has target next; -1: it ends
// there. A token that the grammar forces is not drawn without a draft.
func (e *Engine) verified(s *sequence, r device.RowResult, top []device.Alternative, target int32, now time.Time) {
	s.total = s.known() + 1 // what comes after this token may be wrong
	s.computed = s.known()
	forced, right := s.forces(s.accepted), r.Token == target
	if right {
		s.accepted++
	}
	if !forced {
		s.commit(r, top)
		e.committed(s, now, right)
		return
	}
	s.constraint.unread = append(s.constraint.unread, r.Token)
	e.forced(s, r.Token)
	s.counted = s.known() // the device has
}

// settleDrafts takes in how much of the drafts of a step was accepted, and gives back the
// pages of the rest. It reports whether there were any.
func (e *Engine) settleDrafts(st *step) bool {
	p := &e.speculation
	p.accepted = p.accepted[:0]
	for _, s := range st.seqs {
		if s.drafted == 0 {
			continue
		}
		p.accepted = append(p.accepted, s.accepted)
		if n := min(s.predicted, s.drafted); n > 0 {
			accepted := min(s.accepted, n)
			s.stream.accepted.Add(int64(accepted))
			s.stream.rejected.Add(int64(n - accepted))
		}
		e.stats.draftedTokens.Add(int64(s.drafted))
		e.stats.acceptedTokens.Add(int64(s.accepted))
		right := s.accepted == s.drafted
		s.drafted, s.accepted, s.predicted = 0, 0, 0
		if s.state != active {
			continue
		}
		if s.spare != page.None {
			e.rejoin(s, right)
			e.releaseComputed(s)
		}
		for g := range s.tables {
			t := &s.tables[g]
			keep := max(pagesFor(s.computed), t.first)
			e.cache.Pages.Release(t.pages[keep:])
			t.pages = t.pages[:keep]
		}
		e.slide(s)
	}
	return len(p.accepted) > 0
}

// costs is what steps without prompts took by their rows, recently. A step that hangs
// changes little, and one that is quick much: what else the machine does only makes
// steps longer.
type costs struct {
	took [maxCostRows + 1]float64 // nanoseconds
	seen [maxCostRows + 1]int     // number of the last such step, plus one; 0: none
}

const (
	maxCostRows = 256
	costMemory  = 128 // steps
)

// observe takes in a step of so many rows.
func (c *costs) observe(rows, number int, span time.Duration) {
	if rows > maxCostRows {
		return
	}
	took, at := float64(span), &c.took[rows]
	switch {
	case !c.recent(rows, number):
		*at = took
	case took < *at:
		*at += (took - *at) / 2
	default:
		*at += (min(took, 2**at) - *at) / 8
	}
	c.seen[rows] = number + 1
}

func (c *costs) recent(rows, number int) bool {
	return c.seen[rows] > 0 && number-c.seen[rows] < costMemory
}

// of returns what a step of so many rows takes, and whether that was seen. Otherwise it
// is taken to be what one of fewer rows takes and each for every further one, which is
// what tokens of prompts take, or less if one of more rows took less. Such a guess may be
// too good: then it is tried, and known.
func (c *costs) of(rows, number int, each float64) (took float64, seen bool) {
	if rows > maxCostRows {
		return math.Inf(1), false
	}
	if c.recent(rows, number) {
		return c.took[rows], true
	}
	below, above := rows-1, rows+1
	for below > 0 && !c.recent(below, number) {
		below--
	}
	for above <= maxCostRows && !c.recent(above, number) {
		above++
	}
	switch {
	case above > maxCostRows && below == 0:
		return math.Inf(1), false
	case below == 0:
		return c.took[above], false
	}
	took = c.took[below] + float64(rows-below)*each
	if above <= maxCostRows {
		part := float64(rows-below) / float64(above-below)
		took = min(took, c.took[below]+part*(c.took[above]-c.took[below]))
	}
	return took, false
}
