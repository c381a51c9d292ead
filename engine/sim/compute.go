package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

// compute executes a step: deltas, then everybody reads, then everybody
// writes, then the rows.
func (b *Backend) compute(e *entry) error {
	x := &e.batch
	for i := range x.Params {
		p := &x.Params[i]
		s := &b.slots[p.Slot]
		s.params, s.counts, s.biases = p.Params, 0, 0
	}
	for _, p := range x.Pages {
		b.slots[p.Slot].pages[p.Group][p.Index] = p.Page
	}
	for _, c := range x.Counts {
		b.slots[c.Slot].counts += countOf(c.Token, c.Generated)
	}
	for _, d := range x.Biases {
		b.slots[d.Slot].biases += biasOf(sample.Bias{Token: d.Token, Bias: d.Bias})
	}
	b.resume(x)
	for i := range x.Seqs {
		b.read(x, &x.Seqs[i])
	}
	for i := range x.Seqs {
		if err := b.write(e, &x.Seqs[i]); err != nil {
			return err
		}
	}
	for _, d := range x.States {
		if d.Save != device.NoState {
			b.states[d.Save] = b.states[d.Live]
		}
	}
	for i := range x.Rows {
		r := &x.Rows[i]
		s := &b.slots[r.Slot]
		if r.Kind != device.RowAgain {
			s.hidden = b.hidden[r.Token]
		}
		b.result(e, s, i)
	}
	if x.Draft {
		return b.draft(e)
	}
	return nil
}

// draft predicts the tokens after the last one that each sequence has chosen: those that
// plain decoding would choose, but for every fourth one. It reads what the sequence's
// pages hold, as its next step will, and leaves at further positions what nobody can read.
func (b *Backend) draft(e *entry) error {
	m, x := &b.cfg.Model, &e.batch
	x.DraftTime = b.draftLatency(x)
	x.FurtherDraftTime = x.DraftTime - b.cfg.DraftLatency
	for i := range x.Rows {
		r, result := &x.Rows[i], &x.Results[i]
		for k := range result.Drafts {
			result.Drafts[k] = device.NoDraft
		}
		last := r.Kind == device.RowSample || r.Kind == device.RowVerify && result.Token != r.Target
		if !last || result.Void != 0 || result.Invalid != 0 || e.corrupt() {
			continue
		}
		s, known := &b.slots[r.Slot], int(x.Pos[r.Token])+1
		h := history{model: m, length: known, sums: s.sums}
		clear(h.sums)
		for g := range h.sums {
			for p := max(0, h.left(g)+1); p < h.length; p++ {
				h.read(g, p, *b.at(s, g, p))
			}
		}
		q := x.Seqs[slices.IndexFunc(x.Seqs, func(q device.Seq) bool { return q.Slot == r.Slot })]
		token, counts := result.Token, s.counts
		var own [device.MaxDrafts]uint64 // what plain decoding would keep of the tokens
		for k := range q.Drafts {
			for g := range h.sums {
				if p := h.left(g); k > 0 && p >= known {
					h.drop(g, p, inGroup(own[p-known], g))
				} else if k > 0 && p >= 0 {
					h.drop(g, p, *b.at(s, g, p))
				}
				if p := known + int(k) - 1; k > 0 {
					if err := b.claim(e, q.Slot, g, p); err != nil {
						return err
					}
					*b.at(s, g, p) = mix(h.sum(), 9)
				}
			}
			own[k] = h.add(uint64(uint32(token)), class{adapter: b.adapters[q.Adapter], ropeLen: q.RopeLen})
			token = m.token(m.draw(h.sum(), counts, s.biases, &s.params, r.Index+1+k))
			if mix(h.sum(), 3)%4 == 0 {
				token = m.First
			}
			counts += countOf(token, 1)
			result.Drafts[k] = token
		}
	}
	return nil
}

// draftLatency is how long the head takes: as long for each further token.
func (b *Backend) draftLatency(x *device.Batch) time.Duration {
	runs := int32(1)
	for _, q := range x.Seqs {
		runs = max(runs, q.Drafts)
	}
	return time.Duration(runs) * b.cfg.DraftLatency
}

// resume makes live states what they start as: all are read before any is
// written.
func (b *Backend) resume(x *device.Batch) {
	b.resumed = b.resumed[:0]
	for _, d := range x.States {
		from := uint64(0)
		switch d.From {
		case device.ZeroState:
		case device.NoState:
			from = b.states[d.Live]
		default:
			from = b.states[d.From]
		}
		b.resumed = append(b.resumed, from)
	}
	for i, d := range x.States {
		b.slots[d.Slot].live, b.states[d.Live] = d.Live, b.resumed[i]
	}
}

// at finds the value of a position in a group of a slot.
func (b *Backend) at(s *slot, group, position int) *uint64 {
	return &b.values[int(s.pages[group][position/device.PageTokens])*device.PageTokens+position%device.PageTokens]
}

// read sums up what the slot's pages hold before the step's first token, as far
// as that sees it.
func (b *Backend) read(x *device.Batch, q *device.Seq) {
	s := &b.slots[q.Slot]
	h := history{model: &b.cfg.Model, length: int(x.Pos[q.Start]), sums: s.sums}
	clear(h.sums)
	for g := range h.sums {
		for p := max(0, h.left(g)+1); p < h.length; p++ {
			h.read(g, p, *b.at(s, g, p))
		}
	}
}

// write computes the tokens of a sequence.
func (b *Backend) write(e *entry, q *device.Seq) error {
	s, m := &b.slots[q.Slot], &b.cfg.Model
	h := history{model: m, length: int(e.batch.Pos[q.Start]), sums: s.sums}
	if m.Recurrent {
		h.state = b.states[s.live]
	}
	c := class{adapter: b.adapters[q.Adapter], ropeLen: q.RopeLen}
	spans := e.batch.Spans
	for i := q.Start; i < q.Start+q.Count; i++ {
		token := b.token(e, s, i)
		for len(spans) > 0 && spans[0].Start+spans[0].Count <= i {
			spans, c.span = spans[1:], 0
		}
		if len(spans) > 0 && spans[0].Start == i {
			for j := i; j < i+spans[0].Count; j++ {
				c.span = mix(c.span, b.token(e, s, j))
			}
		}
		if len(e.batch.Axes) > 0 {
			axes, n := e.batch.Axes, int32(len(e.batch.Tokens))
			c.axes = axesHash([]int32{axes[i], axes[n+i], axes[2*n+i]}, h.length)
		}
		for g := range h.sums {
			if p := h.left(g); p >= 0 && i > q.Start { // the first token's read left it out
				h.drop(g, p, *b.at(s, g, p))
			}
		}
		p := h.length
		v := h.add(token, c)
		if e.corrupt() {
			v = ^v
		}
		for g := range h.sums {
			if err := b.claim(e, q.Slot, g, p); err != nil {
				return err
			}
			*b.at(s, g, p) = inGroup(v, g)
		}
		b.hidden[i] = h.sum()
	}
	if m.Recurrent {
		if e.corrupt() {
			h.state = ^h.state
		}
		b.states[s.live] = h.state
	}
	s.void = false
	return nil
}

// claim notes that a slot writes a position of a group, whose page nobody else may write
// in the same step.
func (b *Backend) claim(e *entry, slot int32, group, position int) error {
	page, mine := b.slots[slot].pages[group][position/device.PageTokens], writer{e.number, slot, int32(group)}
	if w := b.writers[page]; w.step == e.number && w != mine {
		return fmt.Errorf("slot %d for group %d and slot %d for group %d write page %d in one step", w.slot, w.group, slot, group, page)
	}
	b.writers[page] = mine
	return nil
}

// token is what stands for token i of the batch, which is of s.
func (b *Backend) token(e *entry, s *slot, i int32) uint64 {
	switch t := e.batch.Tokens[i]; {
	case t == device.LastToken:
		return uint64(uint32(s.last))
	case t < 0:
		hidden := b.cfg.Model.Hidden
		return rowHash(e.batch.Embeds[int(-1-t)*hidden:][:hidden])
	default:
		return uint64(uint32(t))
	}
}

// result fills in a row of the step from its slot's hidden row.
func (b *Backend) result(e *entry, s *slot, row int) {
	m := &b.cfg.Model
	r := &e.batch.Rows[row]
	out := &e.batch.Results[row]
	verify := r.Kind == device.RowVerify
	switch {
	case verify && s.void:
		*out = device.RowResult{Void: 1}
		return
	case e.corrupt():
		*out = device.RowResult{Token: -7, Logprob: 7, TopCount: 0}
		s.last, s.hidden = 0, ^s.hidden
		return
	case r.Kind == device.RowScore:
		c := score(s.hidden, r.Target)
		b.answer(e, row, &c)
		return
	}
	c := choice{x: m.draw(s.hidden, s.counts, s.biases, &s.params, r.Index), mask: e.batch.Mask(r.Mask)}
	if e.fault == Invalid && row == e.number%len(e.batch.Rows) || !c.make(m) {
		*out = device.RowResult{Token: -7, Invalid: 1}
		s.last, s.void = 0, verify
		return
	}
	b.answer(e, row, &c)
	s.last, s.void = c.token, verify && c.token != r.Target
	s.counts += countOf(c.token, 1)
}

// answer writes a choice and its alternatives as the result of a row.
func (b *Backend) answer(e *entry, row int, c *choice) {
	tops := c.tops(int(e.batch.Rows[row].TopN))
	e.batch.Results[row] = device.RowResult{Token: c.token, Logprob: c.logprob, TopCount: int32(tops)}
	for k := range tops {
		e.batch.Top[row*device.MaxTopN+k] = c.alternative(&b.cfg.Model, k)
	}
}

// computeFast samples every row from its slot's last token and its number.
func (b *Backend) computeFast(e *entry) {
	for i := range e.batch.Params {
		p := &e.batch.Params[i]
		b.slots[p.Slot].params = p.Params
	}
	for _, q := range e.batch.Seqs {
		b.slots[q.Slot].void = false
	}
	for row := range e.batch.Rows {
		r := &e.batch.Rows[row]
		s := &b.slots[r.Slot]
		s.hidden = mix(uint64(s.last), uint64(r.Index))
		b.result(e, s, row)
	}
}
