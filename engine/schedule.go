package engine

import (
	"slices"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

// schedule fills st with the work of the next step. Sequences that need one
// token come first, since someone is reading them; then prompts that are
// under way; then those that wait. It follows vLLM's version 1 scheduler: a
// budget of tokens and no phases. While someone reads, the budget for prompts is
// what can be computed in good time (pace). Half of it is for the oldest prompt;
// of the others those go first that a step can finish, the shortest before all,
// so nobody with little to compute waits until others have computed much.
func (e *Engine) schedule(st *step) {
	st.reset(e.launched, e.budget, e.now())
	e.pace = &e.paces[0]
	if e.images.running != nil {
		e.pace = &e.paces[1]
	}
	st.pace = e.pace
	e.lengthen(st)
	patience := time.Duration(0)
	if !e.ahead { // nothing is computed meanwhile
		patience = minPatience
	}
	e.follow(time.Now().Add(patience))
	e.sampleAgain(st, time.Now())
	st.batch.Draft = e.runHead(st.number)
	e.speculate(st)
	prompts := 0    // sequences that would take all they can get
	waited := false // someone waits for a token of this step
	for i := 0; i < len(e.active); i++ {
		switch s := e.active[i]; {
		case s.batch == st.number || s.wants() == 0: // sampled again, or at its end
		case s.wants() == 1:
			e.place(st, s, 1)
			waited = waited || s.total > len(s.req.Tokens)+1
		default:
			prompts++
		}
	}
	st.decodes = len(st.seqs)
	forced := st.left
	if waited {
		st.left = min(st.left, e.pace.prompts(st.decodes, promptStep))
		forced = min(st.left, e.pace.prompts(st.decodes, forcedStep))
	}
	st.share = max(1, st.left/2)

	if e.mayAdmit() {
		prompts += min(e.waiting.length, len(e.freeSlots))
	}
	prompt := func(s *sequence) {
		n := e.chunk(st, s, prompts > 1)
		if s.computed >= len(s.req.Tokens) {
			n = min(n, forced)
			forced -= n
		}
		if n > 0 {
			e.place(st, s, n)
		}
	}
	rest := e.prompts[:0]
	for i := 0; i < len(e.active) && st.left > 0; i++ { // which place may shorten
		s := e.active[i]
		if s.batch == st.number || s.wants() <= 1 {
			continue
		}
		if len(rest) == 0 {
			prompt(s)
		}
		rest = append(rest, s)
	}
	if len(rest) > 0 {
		rest = rest[1:]
	}
	slices.SortStableFunc(rest, func(a, b *sequence) int { return a.wants() - b.wants() })
	for ; len(rest) > 0 && rest[0].wants() <= st.left; rest = rest[1:] {
		if rest[0].state == active { // and was not preempted for another
			prompt(rest[0])
		}
	}

	// Nothing new is admitted while running sequences lack pages; and one that was
	// preempted in this step may have a token in flight, so cannot come back before
	// the next.
	for !st.closed && st.left > 0 && st.rowsLeft() > 0 {
		s := e.admit(st, st.planned)
		if s == nil {
			break
		}
		e.place(st, s, e.chunk(st, s, prompts > 1))
	}
	for _, s := range rest {
		if st.left > 0 && s.state == active {
			prompt(s)
		}
	}
	clear(e.prompts[:cap(e.prompts)])

	// Not before: within a step, one sequence cannot read what another writes.
	for _, s := range st.seqs {
		e.register(s, st)
		e.slide(s)
		if s.computed >= len(s.req.Tokens) {
			e.releaseForks(s)
		}
	}
	e.fillAxes(st)
	e.cache.States.Release(st.pinned)
	st.pinned = st.pinned[:0]
	if st.empty() { // nothing else is to be done
		for _, s := range e.active {
			if s.constraint != nil {
				s.constraint.patient = true
			}
		}
		changed := e.follow(time.Now().Add(maxPatience))
		e.sampleAgain(st, time.Now().Add(maxPatience))
		if changed {
			st.late++ // what there is to do now is for the next step
		}
	}
}

// chunk returns how many tokens of s this step may compute. A long prompt
// leaves half of what there is for prompts to the others that want some.
func (e *Engine) chunk(st *step, s *sequence, others bool) int {
	n := min(s.wants(), st.left)
	if e.snapshots {
		n = min(n, e.snapshotAfter(s)-s.computed)
	}
	if others {
		n = min(n, st.share)
	}
	switch rows := st.rowsLeft(); {
	case s.scoring():
		if n = s.uncut(st, e.scorable(s, n, rows)); e.scorable(s, n, rows) < n {
			return 0 // the next step has rows for the whole span
		}
		return n
	case n == s.wants() && rows == 0:
		n-- // the last token is what yields a sample
	}
	return s.uncut(st, n)
}

// scorable returns how many of the next n tokens of s so many rows are enough for: each
// yields a score or a sample, but for those before an image token.
func (e *Engine) scorable(s *sequence, n, rows int) int {
	for i := range n {
		target := s.computed + i + 1
		if target < s.scored || target < len(s.req.Tokens) && e.isImageToken(s, target) {
			continue
		}
		if rows == 0 {
			return i
		}
		rows--
	}
	return n
}

// place puts the next n tokens of s into the step, or as many as it can get
// pages for.
func (e *Engine) place(st *step, s *sequence, n int) {
	drafts := len(s.draft)
	known, least := s.computed+n, s.computed+s.least(s.computed)
	deltas := len(st.batch.Pages)
	have := e.extend(st, s, known+len(s.draft), least)
	if have < least {
		return
	}
	n = min(n, have-s.computed)
	if span := s.spanAcross(s.computed + n); span != nil {
		n = int(span.Start) - s.computed
		e.trim(st, s, deltas, s.computed+n)
	}
	s.draft = s.draft[:min(len(s.draft), max(0, have-known))]
	b := st.batch
	start := len(b.Tokens)
	e.addTokens(b, s, s.computed, s.computed+n)
	s.addSpans(b, start, n)
	if s.req.Params.Counts() {
		// The device counts what it samples, but not what was forced.
		for p := max(s.counted, s.computed); p < min(s.computed+n, s.known()); p++ {
			b.Counts = append(b.Counts, device.CountDelta{Slot: s.slot, Token: s.token(p), Generated: 1})
			s.counted = p + 1
		}
	}
	e.addScoreRows(st, s, start, n)
	if e.shape.recurrent && len(s.draft) > 0 && !e.branch(st, s) {
		s.draft = nil
	}
	if len(s.draft) == 0 {
		e.state(st, s, s.computed+n)
	}
	s.computed += n
	s.row = -1
	if len(s.draft) > 0 {
		row := len(st.rows)
		if e.verify(st, s, int32(start+n-1)) {
			s.row = row
			s.drafted = len(s.draft)
			s.computed += s.drafted
			n += s.drafted
		}
		if s.spare != page.None && s.drafted == 0 { // the draft could not be verified
			st.pinned, s.spare = append(st.pinned, s.spare), page.None
		}
	}
	e.releaseComputed(s)
	if s.drafted < drafts { // some of it has no use for its pages
		e.trim(st, s, deltas, s.computed)
	}
	next := int32(0)
	if s.computed < s.known() {
		next = s.token(s.computed)
	}
	s.gap = s.gap || !b.Draft
	b.Seqs = append(b.Seqs, device.Seq{
		Slot: s.slot, Start: int32(start), Count: int32(n), KVLen: int32(s.computed),
		Adapter: s.req.Adapter, RopeLen: s.ropeLen, Next: next,
	})
	st.seqs = append(st.seqs, s)
	switch {
	case s.row >= 0: // with a draft
		s.total++
	case s.computed == s.total && !s.forcing():
		e.addSampleRow(st, s, int32(start+n-1))
		s.total++
	}
	if s.row >= 0 {
		b.Seqs[len(b.Seqs)-1].Drafts = int32(e.askHead(st, s))
	}
	st.left -= n
	s.batch = st.number
}

// addScoreRows adds rows that score tokens of the prompt, after each of the next n tokens
// of s, the first of which is the one at index start: the logits of one token score the next.
func (e *Engine) addScoreRows(st *step, s *sequence, start, n int) {
	for target := max(s.scored, s.computed+1); target <= s.computed+n && s.scoring(); target++ {
		s.scored = target + 1
		if e.isImageToken(s, target) {
			continue
		}
		st.row(s, device.Row{
			Token:  int32(start + target - 1 - s.computed),
			Slot:   s.slot,
			Kind:   device.RowScore,
			Target: s.req.Tokens[target],
			TopN:   int32(s.req.TopN),
		})
	}
}

// addSampleRow adds the row that samples what comes after the token of s at an index of the
// batch, with its mask if that is known by now.
func (e *Engine) addSampleRow(st *step, s *sequence, token int32) {
	b := st.batch
	s.row = len(st.rows)
	row := device.Row{
		Token: token,
		Slot:  s.slot,
		Kind:  device.RowSample,
		Index: int32(s.total - len(s.req.Tokens)),
		TopN:  int32(s.req.TopN),
	}
	switch {
	case s.constraint != nil || s.rules.wait():
		st.awaitsMasks = true
	case s.rules.hold(int(row.Index)):
		b.Masks = b.Masks[:len(b.Masks)+b.MaskWords]
		row.Mask = int32(len(b.Masks) / b.MaskWords)
		s.rules.begin(b.Mask(row.Mask), e.limits.Vocab)
		s.rules.narrow(b.Mask(row.Mask), s, int(row.Index)) // leaves some: newRules has made sure
	}
	st.row(s, row)
}

// preempt takes pages and slot from the sequence admitted last, which waits
// first in line to be computed again. A token of it that is in flight is
// delivered as usual.
func (e *Engine) preempt(s *sequence) {
	e.release(s)
	e.active = e.active[:len(e.active)-1]
	e.requeue(s)
	e.reserve = min(e.reserve+caution, maxReserve)
}

// requeue makes a released sequence wait in front of all others.
func (e *Engine) requeue(s *sequence) {
	s.state = waiting
	s.computed, s.draft, s.pictures.asked = 0, nil, 0
	e.images.changes++ // it can be made to let go of rows
	s.preempted++
	e.preempted++
	e.waiting.pushFront(s)
	e.stats.preemptions.Add(1)
}
