package device

import (
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-ai/millrace/engine/sample"
)

// checkedSlot is what earlier batches made of a slot and, in the second half,
// what the batch being checked says of it. The latter counts if it carries the
// number of that batch.
type checkedSlot struct {
	end       int32      // position after its last token; none: it was never given to a sequence
	live      int32      // its state
	chosen    bool       // a token was sampled: LastToken means something
	kept      bool       // the last row chose no token: it can be sampled again
	verifying int32      // the ring entry whose results say where it ended, or none
	set       [][]uint64 // by group: a bit for each entry of the page table that is set

	seq     mark // its sequence
	fresh   mark // its parameters
	state   mark // its state delta
	sampled mark // the row that chooses its token
	biases  int
	coming  [][]uint64 // by group: entries that the batch's page deltas set
}

// mark is an index into an array of one batch.
type mark struct {
	step  int64
	index int32
}

func (m mark) at(step int64) bool { return m.step == step }

// checkedState is what is known of a state.
type checkedState struct {
	pos     int32 // tokens that it has seen; none: it was never written; anywhere: the host wrote it
	owner   int32 // the slot whose own it is, or none
	written int64 // the batch being checked that writes it
}

func newCheckedSlot(groups, pages int) checkedSlot {
	s := checkedSlot{end: none, live: none, verifying: none}
	for range groups {
		s.set = append(s.set, make([]uint64, (pages+63)/64))
		s.coming = append(s.coming, make([]uint64, (pages+63)/64))
	}
	return s
}

func hasBit(bits []uint64, i int32) bool { return bits[i/64]>>(i%64)&1 == 1 }

// end is after the last position that a draft may write.
func (q *Seq) end() int32 { return q.KVLen + max(0, q.Drafts-1) }

func within(v int32, n int) bool { return v >= 0 && int(v) < n }

// slot returns a slot that has a sequence in the batch being checked.
func (c *checked) slot(slot int32) (*checkedSlot, error) {
	if !within(slot, c.limits.MaxSlots) {
		return nil, fmt.Errorf("slot %d of %d", slot, c.limits.MaxSlots)
	}
	s := &c.slots[slot]
	if !s.seq.at(c.step) {
		return nil, fmt.Errorf("slot %d has no sequence in the batch", slot)
	}
	return s, nil
}

// checkBatch verifies what Forward reads. It changes nothing that outlives the
// batch.
func (c *checked) checkBatch(x *Batch, caps batchCaps) error {
	c.step++
	if err := c.checkLengths(x, caps); err != nil {
		return err
	}
	if err := c.checkSeqs(x); err != nil {
		return err
	}
	if err := c.checkOwners(x); err != nil {
		return err
	}
	err := c.checkPages(x)
	for _, d := range x.Pages { // leave no bit behind
		if within(d.Slot, len(c.slots)) && within(d.Group, len(c.plan.Groups)) && within(d.Index, c.limits.MaxPagesPerSlot) {
			c.slots[d.Slot].coming[d.Group][d.Index/64] = 0
		}
	}
	if err != nil {
		return err
	}
	if err := c.checkTokens(x); err != nil {
		return err
	}
	if err := c.checkStates(x); err != nil {
		return err
	}
	if err := c.checkSpans(x); err != nil {
		return err
	}
	return c.checkRows(x)
}

func (c *checked) checkLengths(x *Batch, caps batchCaps) error {
	switch tokens := len(x.Tokens); {
	case tokens > c.limits.MaxTokens:
		return fmt.Errorf("%d tokens, the limit is %d", tokens, c.limits.MaxTokens)
	case len(x.Rows) > c.limits.MaxRows:
		return fmt.Errorf("%d rows, the limit is %d", len(x.Rows), c.limits.MaxRows)
	case capsOf(x) != caps:
		return errors.New("an array of the batch outgrew its capacity")
	case len(x.Pos) != tokens:
		return fmt.Errorf("%d positions for %d tokens", len(x.Pos), tokens)
	case len(x.Axes) > 0 && !c.caps.Has(FeatureAxes):
		return fmt.Errorf("axes of positions: %w", ErrUnsupported)
	case len(x.Axes) > 0 && len(x.Axes) != 3*tokens:
		return fmt.Errorf("%d axes of positions for %d tokens, expected three each or none", len(x.Axes), tokens)
	case len(x.Embeds) > 0 && !c.caps.Has(FeatureEmbeds):
		return fmt.Errorf("embedding rows: %w", ErrUnsupported)
	case len(x.Embeds)%c.plan.RowWidth() != 0:
		return fmt.Errorf("%d floats of embedding rows, expected whole rows of %d", len(x.Embeds), c.plan.RowWidth())
	case len(x.Spans) > 0 && !c.caps.Has(FeatureSpans):
		return fmt.Errorf("spans: %w", ErrUnsupported)
	case x.Draft && len(c.plan.Draft) == 0:
		return errors.New("a draft, and the plan has none")
	case len(x.Seqs) == 0 && len(x.Rows) == 0:
		return errors.New("nothing to do: neither sequences nor rows")
	}
	return nil
}

// checkSeqs verifies each sequence by itself, and that together they are all
// tokens, in order.
func (c *checked) checkSeqs(x *Batch) error {
	next := int32(0)
	for i, q := range x.Seqs {
		if !within(q.Slot, c.limits.MaxSlots) || c.slots[q.Slot].seq.at(c.step) {
			return fmt.Errorf("sequence %d: slot %d of %d, each at most once", i, q.Slot, c.limits.MaxSlots)
		}
		c.slots[q.Slot].seq = mark{c.step, int32(i)}
		if q.Start != next || q.Count < 1 || int(q.Count) > len(x.Tokens)-int(next) {
			return fmt.Errorf("sequence %d: %d tokens from %d on of %d, expected to begin at %d", i, q.Count, q.Start, len(x.Tokens), next)
		}
		next += q.Count
		if q.KVLen < q.Count || int(q.KVLen) > c.maxPos {
			return fmt.Errorf("sequence %d: %d tokens in the cache with %d new ones, the limit is %d", i, q.KVLen, q.Count, c.maxPos)
		}
		if x.Draft && (!within(q.Drafts, MaxDrafts+1) || int(q.end()) > c.maxPos) {
			return fmt.Errorf("sequence %d: %d tokens to draft after %d, the limits are %d and %d in all", i, q.Drafts, q.KVLen, MaxDrafts, c.maxPos)
		}
		for j := range q.Count {
			if got, want := x.Pos[q.Start+j], q.KVLen-q.Count+j; got != want {
				return fmt.Errorf("sequence %d: token %d at position %d, expected %d", i, q.Start+j, got, want)
			}
		}
		if q.RopeLen < 0 {
			return fmt.Errorf("sequence %d: length %d for rotations", i, q.RopeLen)
		}
		if _, ok := c.adapters[q.Adapter]; !ok && q.Adapter != 0 {
			return fmt.Errorf("sequence %d: adapter %d is not loaded", i, q.Adapter)
		}
	}
	if int(next) != len(x.Tokens) {
		return fmt.Errorf("%d tokens, %d of them belong to a sequence", len(x.Tokens), next)
	}
	return nil
}

// checkOwners verifies what comes with a new owner of a slot, and that other
// sequences go on where they ended.
func (c *checked) checkOwners(x *Batch) error {
	for i, d := range x.Params {
		s, err := c.slot(d.Slot)
		if err != nil {
			return fmt.Errorf("parameters %d: %w", i, err)
		}
		if s.fresh.at(c.step) {
			return fmt.Errorf("parameters %d: slot %d has two", i, d.Slot)
		}
		s.fresh, s.biases = mark{c.step, int32(i)}, 0
	}
	for i, d := range x.Counts {
		if _, err := c.slot(d.Slot); err != nil {
			return fmt.Errorf("count %d: %w", i, err)
		}
		if !within(d.Token, c.plan.Vocab) || d.Generated>>1 != 0 {
			return fmt.Errorf("count %d: token %d of %d, generated %d", i, d.Token, c.plan.Vocab, d.Generated)
		}
	}
	for i, d := range x.Biases {
		s, err := c.slot(d.Slot)
		switch {
		case err != nil:
			return fmt.Errorf("bias %d: %w", i, err)
		case !s.fresh.at(c.step):
			return fmt.Errorf("bias %d: slot %d has no parameters in the batch", i, d.Slot)
		case !within(d.Token, c.plan.Vocab):
			return fmt.Errorf("bias %d: token %d of %d", i, d.Token, c.plan.Vocab)
		case !(d.Bias >= -sample.MaxBias && d.Bias <= sample.MaxBias):
			return fmt.Errorf("bias %d: %v, expected a magnitude of at most %d", i, d.Bias, sample.MaxBias)
		}
		if s.biases++; s.biases > sample.MaxBiases {
			return fmt.Errorf("bias %d: slot %d has more than %d", i, d.Slot, sample.MaxBiases)
		}
	}
	for i, q := range x.Seqs {
		s := &c.slots[q.Slot]
		switch start := q.KVLen - q.Count; {
		case s.fresh.at(c.step):
		case s.end == none:
			return fmt.Errorf("sequence %d: slot %d was never given to a sequence", i, q.Slot)
		case s.verifying != none:
			return fmt.Errorf("sequence %d: slot %d goes on before Wait(%d) has told where it ended", i, q.Slot, s.verifying)
		case start < s.end && c.resumes(x, q.Slot):
		case start != s.end:
			return fmt.Errorf("sequence %d: slot %d goes on at position %d, it ended at %d", i, q.Slot, start, s.end)
		}
	}
	return nil
}

// resumes reports whether a slot's step starts from a state, whose place checkStates
// verifies.
func (c *checked) resumes(x *Batch, slot int32) bool {
	return slices.ContainsFunc(x.States, func(d StateDelta) bool { return d.Slot == slot && d.From != NoState })
}

// checkPages verifies that each page that a step reads or writes is known: for
// a new owner all from the window on, otherwise those it writes, since the
// others were needed before.
func (c *checked) checkPages(x *Batch) error {
	for i, d := range x.Pages {
		s, err := c.slot(d.Slot)
		if err != nil {
			return fmt.Errorf("page delta %d: %w", i, err)
		}
		if !within(d.Group, len(c.plan.Groups)) || !within(d.Index, c.limits.MaxPagesPerSlot) || !within(d.Page, c.pages) {
			return fmt.Errorf("page delta %d: group %d of %d, index %d of %d, page %d of %d", i,
				d.Group, len(c.plan.Groups), d.Index, c.limits.MaxPagesPerSlot, d.Page, c.pages)
		}
		s.coming[d.Group][d.Index/64] |= 1 << (d.Index % 64)
	}
	for i, q := range x.Seqs {
		s := &c.slots[q.Slot]
		fresh := s.fresh.at(c.step)
		for g, group := range c.plan.Groups {
			first := q.KVLen - q.Count
			if fresh && group.Window > 0 {
				first = max(0, first-group.Window+1)
			} else if fresh {
				first = 0
			}
			end := q.KVLen
			if x.Draft {
				end = q.end()
			}
			for index := first / PageTokens; index <= (end-1)/PageTokens; index++ {
				if !hasBit(s.coming[g], index) && (fresh || !hasBit(s.set[g], index)) {
					return fmt.Errorf("sequence %d: slot %d has no page %d of group %d", i, q.Slot, index, g)
				}
			}
		}
	}
	return nil
}

func (c *checked) checkTokens(x *Batch) error {
	embeds := len(x.Embeds) / c.plan.RowWidth()
	for i, q := range x.Seqs {
		s := &c.slots[q.Slot]
		if x.Draft && !within(q.Next, c.plan.Vocab) {
			return fmt.Errorf("sequence %d: the next token is %d of %d", i, q.Next, c.plan.Vocab)
		}
		for t := q.Start; t < q.Start+q.Count; t++ {
			switch id := x.Tokens[t]; {
			case id == LastToken:
				if !s.chosen || s.fresh.at(c.step) {
					return fmt.Errorf("sequence %d: token %d is the last one, slot %d has sampled none", i, t, q.Slot)
				}
			case id < 0:
				if row := EmbedRow(0) - id; !within(row, embeds) {
					return fmt.Errorf("sequence %d: token %d is embedding row %d of %d", i, t, row, embeds)
				}
			case int(id) >= c.plan.Vocab:
				return fmt.Errorf("sequence %d: token %d is %d of %d", i, t, id, c.plan.Vocab)
			}
		}
	}
	return nil
}

// checkStates verifies that each sequence of a recurrent model goes on from a
// state that has seen all tokens before it and that no other slot changes.
func (c *checked) checkStates(x *Batch) error {
	if len(c.states) == 0 {
		if len(x.States) > 0 {
			return errors.New("states of a model without recurrent layers")
		}
		return nil
	}
	for i, d := range x.States {
		s, err := c.slot(d.Slot)
		if err != nil {
			return fmt.Errorf("state delta %d: %w", i, err)
		}
		if s.state.at(c.step) {
			return fmt.Errorf("state delta %d: slot %d has two", i, d.Slot)
		}
		s.state = mark{c.step, int32(i)}
		if n := len(c.states); !within(d.Live, n) || d.From < ZeroState || int(d.From) >= n ||
			d.Save < NoState || int(d.Save) >= n || d.Save == d.Live {
			return fmt.Errorf("state delta %d: live %d, from %d, save %d of %d", i, d.Live, d.From, d.Save, n)
		}
	}
	for i, q := range x.Seqs {
		s := &c.slots[q.Slot]
		live, from := s.live, NoState
		if s.state.at(c.step) {
			live, from = x.States[s.state.index].Live, x.States[s.state.index].From
		}
		start := q.KVLen - q.Count
		switch {
		case s.fresh.at(c.step) && from == NoState:
			return fmt.Errorf("sequence %d: slot %d begins from no state", i, q.Slot)
		case from == NoState && (live == none || live != s.live || c.states[live].owner != q.Slot):
			return fmt.Errorf("sequence %d: slot %d goes on in state %d, which is not its own", i, q.Slot, live)
		case from == ZeroState && start != 0:
			return fmt.Errorf("sequence %d: slot %d goes on at position %d from the state before all", i, q.Slot, start)
		}
		if from == NoState {
			from = live
		}
		if from != ZeroState && c.states[from].pos != start && c.states[from].pos != anywhere {
			return fmt.Errorf("sequence %d: slot %d goes on at position %d from state %d, which is at %d", i, q.Slot, start, from, c.states[from].pos)
		}
		if c.states[live].written == c.step {
			return fmt.Errorf("sequence %d: slot %d shares state %d with another", i, q.Slot, live)
		}
		c.states[live].written = c.step
	}
	for i, d := range x.States { // copies from are made before the step
		if d.From >= 0 && d.From != d.Live && c.states[d.From].written == c.step {
			return fmt.Errorf("state delta %d: state %d, where slot %d begins, is another slot's own", i, d.From, d.Slot)
		}
	}
	for i, d := range x.States { // copies to are made after it
		if d.Save == NoState {
			continue
		}
		if c.states[d.Save].written == c.step {
			return fmt.Errorf("state delta %d: state %d is written twice", i, d.Save)
		}
		c.states[d.Save].written = c.step
	}
	return nil
}

// checkSpans verifies that spans are in order and each in one sequence.
func (c *checked) checkSpans(x *Batch) error {
	seq, next := 0, int32(0)
	for i, span := range x.Spans {
		if span.Start < next || span.Count < 1 || int(span.Count) > len(x.Tokens)-int(span.Start) {
			return fmt.Errorf("span %d: %d tokens from %d on, expected to begin at %d at least, of %d", i, span.Count, span.Start, next, len(x.Tokens))
		}
		next = span.Start + span.Count
		for x.Seqs[seq].Start+x.Seqs[seq].Count <= span.Start {
			seq++
		}
		if next > x.Seqs[seq].Start+x.Seqs[seq].Count {
			return fmt.Errorf("span %d: %d tokens from %d on are of two sequences", i, span.Count, span.Start)
		}
	}
	return nil
}

// checkRows verifies rows as Forward reads them.
func (c *checked) checkRows(x *Batch) error {
	for i, r := range x.Rows {
		if !within(r.Slot, c.limits.MaxSlots) {
			return fmt.Errorf("row %d: slot %d of %d", i, r.Slot, c.limits.MaxSlots)
		}
		s := &c.slots[r.Slot]
		if r.Kind == RowAgain {
			switch {
			case r.Token != -1:
				return fmt.Errorf("row %d: token %d of a row that is sampled again, expected -1", i, r.Token)
			case s.seq.at(c.step):
				return fmt.Errorf("row %d: slot %d is sampled again and has tokens in the batch", i, r.Slot)
			case !s.kept:
				return fmt.Errorf("row %d: slot %d has no row that can be sampled again", i, r.Slot)
			}
		} else {
			if !s.seq.at(c.step) {
				return fmt.Errorf("row %d: slot %d has no sequence in the batch", i, r.Slot)
			}
			q := x.Seqs[s.seq.index]
			if r.Token < q.Start || r.Token >= q.Start+q.Count {
				return fmt.Errorf("row %d: token %d of %d is not of slot %d", i, r.Token, len(x.Tokens), r.Slot)
			}
			if r.Token-q.Start < c.joined-1 {
				return fmt.Errorf("row %d: token %d of slot %d, a row is made of %d", i, r.Token-q.Start, r.Slot, c.joined)
			}
		}
		if r.TopN < 0 || r.TopN > MaxTopN {
			return fmt.Errorf("row %d: %d alternatives, the limit is %d", i, r.TopN, MaxTopN)
		}
		if r.Index < 0 {
			return fmt.Errorf("row %d: index %d", i, r.Index)
		}
	}
	return c.checkKinds(x)
}

// checkKinds verifies what rows are for.
func (c *checked) checkKinds(x *Batch) error {
	for i := range x.Rows {
		r := &x.Rows[i]
		s := &c.slots[r.Slot]
		switch {
		case r.Kind < RowSample || r.Kind > RowOutput:
			return fmt.Errorf("row %d: unknown kind %d", i, r.Kind)
		case (r.Kind == RowOutput) != c.plan.Encodes():
			return fmt.Errorf("row %d: kind %d of a plan that ends in %v", i, r.Kind, c.plan.Ops[len(c.plan.Ops)-1].Kind)
		}
		switch r.Kind {
		case RowOutput:
			if r.Target != 0 || r.Index != 0 || r.TopN != 0 {
				return fmt.Errorf("row %d: target %d, index %d and %d alternatives of an output, expected 0", i, r.Target, r.Index, r.TopN)
			}
			continue
		case RowScore:
			if !within(r.Target, c.plan.Vocab) {
				return fmt.Errorf("row %d: target %d of %d", i, r.Target, c.plan.Vocab)
			}
			continue
		case RowSample, RowAgain:
		case RowVerify:
			if err := c.checkVerify(x, i); err != nil {
				return fmt.Errorf("row %d: %w", i, err)
			}
			if i > 0 && x.Rows[i-1].Kind == RowVerify && x.Rows[i-1].Slot == r.Slot {
				continue
			}
		}
		if s.sampled.at(c.step) {
			return fmt.Errorf("row %d: slot %d is sampled twice", i, r.Slot)
		}
		s.sampled = mark{c.step, int32(i)}
	}
	return nil
}

// checkVerify verifies a row of a run of RowVerify with the one after it.
func (c *checked) checkVerify(x *Batch, i int) error {
	if !c.caps.Has(FeatureVerify) {
		return fmt.Errorf("verification: %w", ErrUnsupported)
	}
	r := &x.Rows[i]
	q := x.Seqs[c.slots[r.Slot].seq.index]
	if i+1 == len(x.Rows) || x.Rows[i+1].Kind != RowVerify || x.Rows[i+1].Slot != r.Slot {
		if r.Target != -1 || r.Token != q.Start+q.Count-1 {
			return fmt.Errorf("the last one of slot %d to be verified has target %d and token %d, expected -1 and %d", r.Slot, r.Target, r.Token, q.Start+q.Count-1)
		}
		return nil
	}
	next := &x.Rows[i+1]
	if next.Token != r.Token+1 || next.Index != r.Index+1 {
		return fmt.Errorf("token %d and index %d, then %d and %d, expected to follow each other", r.Token, r.Index, next.Token, next.Index)
	}
	if fed := x.Tokens[next.Token]; r.Target != fed || fed < 0 {
		return fmt.Errorf("target %d, the token fed next is %d", r.Target, fed)
	}
	return nil
}

// checkChoices verifies what may have changed since Forward, and that nothing
// else did.
func (c *checked) checkChoices(x *Batch, e *checkedEntry) error {
	if capsOf(x) != e.caps {
		return errors.New("an array of the batch outgrew its capacity")
	}
	if len(x.Rows) != len(e.rows) || checksum(x) != e.sum {
		return errors.New("the batch was changed after Forward")
	}
	words := max(1, x.MaskWords) // 0 without a vocabulary
	if c.plan.Encodes() && len(x.Masks) > 0 {
		return fmt.Errorf("%d words of masks for outputs", len(x.Masks))
	}
	if len(x.Masks)%words != 0 || len(x.Masks) > c.limits.MaxSlots*words {
		return fmt.Errorf("%d words of masks, expected at most %d masks of %d", len(x.Masks), c.limits.MaxSlots, x.MaskWords)
	}
	c.step++
	for i, q := range x.Seqs {
		c.slots[q.Slot].seq = mark{c.step, int32(i)}
	}
	masks := len(x.Masks) / words
	for i, r := range x.Rows {
		was := e.rows[i]
		if r.Token != was.Token || r.Slot != was.Slot || r.Index != was.Index || r.TopN != was.TopN || (r.Kind == RowAgain) != (was.Kind == RowAgain) {
			return fmt.Errorf("row %d: was %+v at Forward and is %+v, only kind, target and mask may change, and no row to or from being sampled again", i, was, r)
		}
		if !within(r.Mask, masks+1) {
			return fmt.Errorf("row %d: mask %d of %d", i, r.Mask, masks)
		}
	}
	return c.checkKinds(x)
}

// commit notes what Forward did.
func (c *checked) commit(x *Batch) {
	for _, d := range x.Params {
		s := &c.slots[d.Slot]
		s.chosen, s.kept, s.verifying = false, false, none
		for _, bits := range s.set {
			clear(bits)
		}
	}
	for _, d := range x.Pages {
		c.slots[d.Slot].set[d.Group][d.Index/64] |= 1 << (d.Index % 64)
	}
	for _, d := range x.States {
		s := &c.slots[d.Slot]
		if s.live != none && c.states[s.live].owner == d.Slot {
			c.states[s.live].owner = none
		}
		s.live = d.Live
	}
	for _, q := range x.Seqs {
		s := &c.slots[q.Slot]
		s.end, s.kept = q.KVLen, false
		if s.live != none {
			c.states[s.live].pos, c.states[s.live].owner = q.KVLen, q.Slot
		}
	}
	for _, d := range x.States {
		if d.Save != NoState {
			c.states[d.Save].pos, c.states[d.Save].owner = c.slots[d.Slot].end, none
		}
	}
	for _, r := range x.Rows {
		c.slots[r.Slot].kept = true
	}
}

// commitChoices notes what Sample of ring entry i did.
func (c *checked) commitChoices(x *Batch, i int) {
	for _, r := range x.Rows {
		s := &c.slots[r.Slot]
		s.kept = r.Kind == RowScore
		s.chosen = s.chosen || r.Kind != RowScore && r.Kind != RowOutput
		if r.Kind == RowVerify {
			s.verifying = int32(i)
		}
	}
}

// commitResults notes where the sequences that were verified ended: after the
// last token that was chosen.
func (c *checked) commitResults(x *Batch, i int, ok bool) {
	for r, row := range x.Rows {
		s := &c.slots[row.Slot]
		if row.Kind == RowVerify && s.verifying == int32(i) && ok && x.Results[r].Void == 0 {
			s.end = x.Pos[row.Token] + 1
		}
	}
	for _, row := range x.Rows {
		if s := &c.slots[row.Slot]; row.Kind == RowVerify && s.verifying == int32(i) {
			s.verifying = none
		}
	}
}

// checksum sums up the inputs that Forward reads, but for the rows and the
// floats of Embeds.
func checksum(x *Batch) uint64 {
	h := uint64(14695981039346656037) // FNV-1a, a word at a time
	add := func(v ...int32) {
		for _, v := range v {
			h = (h ^ uint64(uint32(v))) * 1099511628211
			h ^= h >> 29
		}
	}
	add(int32(len(x.Tokens)), int32(len(x.Axes)), int32(len(x.Embeds)), int32(len(x.Seqs)), int32(len(x.Spans)),
		int32(len(x.Pages)), int32(len(x.States)), int32(len(x.Params)), int32(len(x.Counts)), int32(len(x.Biases)))
	add(x.Tokens...)
	add(x.Pos...)
	add(x.Axes...)
	for _, q := range x.Seqs {
		add(q.Slot, q.Start, q.Count, q.KVLen, q.Adapter, q.RopeLen, q.Next, q.Drafts)
	}
	if x.Draft {
		add(1)
	}
	for _, s := range x.Spans {
		add(s.Start, s.Count)
	}
	for _, d := range x.Pages {
		add(d.Slot, d.Group, d.Index, d.Page)
	}
	for _, d := range x.States {
		add(d.Slot, d.Live, d.From, d.Save)
	}
	for _, d := range x.Params {
		add(d.Slot, int32(d.Params.Seed), int32(d.Params.Seed>>32), d.Params.TopK)
	}
	for _, d := range x.Counts {
		add(d.Slot, d.Token, d.Generated)
	}
	for _, d := range x.Biases {
		add(d.Slot, d.Token)
	}
	return h
}
