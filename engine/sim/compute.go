package sim

import (
	"fmt"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

func (s *slot) clear() {
	for i := range s.pages {
		s.pages[i] = -1
	}
	s.length, s.hasLast, s.counts, s.biases = -1, false, 0, 0
}

// compute executes a step: deltas, then everybody reads, then everybody
// writes, then the rows.
func (b *Backend) compute(e *entry) error {
	for i := range e.batch.Params {
		p := &e.batch.Params[i]
		s := &b.slots[p.Slot]
		s.clear()
		s.params = p.Params
	}
	for _, p := range e.batch.Pages {
		b.slots[p.Slot].pages[p.Index] = p.Page
	}
	for _, c := range e.batch.Counts {
		b.slots[c.Slot].counts += countOf(c.Token, c.Generated)
	}
	for _, d := range e.batch.Biases {
		b.slots[d.Slot].biases += biasOf(sample.Bias{Token: d.Token, Bias: d.Bias})
	}
	for i := range e.batch.Seqs {
		if err := b.read(e, &e.batch.Seqs[i]); err != nil {
			return err
		}
	}
	row := 0
	for i := range e.batch.Seqs {
		n, err := b.write(e, &e.batch.Seqs[i], row)
		if err != nil {
			return err
		}
		row = n
	}
	if row != len(e.batch.Rows) {
		return fmt.Errorf("row %d belongs to no sequence of the batch, or is out of order", row)
	}
	return nil
}

// read sums up what the slot's pages hold before this step's first token.
func (b *Backend) read(e *entry, q *device.Seq) error {
	s := &b.slots[q.Slot]
	first := int(e.batch.Pos[q.Start])
	// The last token may be computed again, if nothing was sampled behind it.
	if s.length >= 0 && s.length != first && (s.length-1 != first || s.chosen) {
		return fmt.Errorf("slot %d has %d tokens, the step goes on at %d", q.Slot, s.length, first)
	}
	s.start = history{}
	for p := range first {
		page := s.pages[p/device.PageTokens]
		if page < 0 {
			return fmt.Errorf("slot %d reads position %d, which has no page", q.Slot, p)
		}
		s.start.read(b.values[int(page)*device.PageTokens+p%device.PageTokens])
	}
	return nil
}

// write computes the tokens of a sequence and its rows, which begin at row,
// and returns the row after them.
func (b *Backend) write(e *entry, q *device.Seq, row int) (int, error) {
	s := &b.slots[q.Slot]
	s.chosen = false
	h := s.start
	rows := e.batch.Rows
	for i := q.Start; i < q.Start+q.Count; i++ {
		token := e.batch.Tokens[i]
		if token == device.LastToken {
			if !s.hasLast {
				return 0, fmt.Errorf("slot %d has no last token", q.Slot)
			}
			token = s.last
		}
		page := s.pages[h.length/device.PageTokens]
		if page < 0 {
			return 0, fmt.Errorf("slot %d writes position %d, which has no page", q.Slot, h.length)
		}
		if w := b.stamp[page]; w.step == e.number && w.slot != q.Slot {
			return 0, fmt.Errorf("slots %d and %d write page %d in one step", w.slot, q.Slot, page)
		}
		b.stamp[page] = writer{e.number, q.Slot}
		at := &b.values[int(page)*device.PageTokens+h.length%device.PageTokens]
		*at = h.add(b.cfg.Model.Seed, token)
		if e.fault == FailStep || e.fault == FailLaunch {
			*at = ^*at
		}
		for ; row < len(rows) && rows[row].Token == i && rows[row].Slot == q.Slot; row++ {
			b.result(e, s, row, h.sum)
		}
	}
	s.length = h.length
	return row, nil
}

// result fills in a row of the step.
func (b *Backend) result(e *entry, s *slot, row int, sum uint64) {
	m := &b.cfg.Model
	r := &e.batch.Rows[row]
	out := &e.batch.Results[row]
	switch {
	case e.fault == FailStep || e.fault == FailLaunch:
		*out = device.RowResult{Token: -7, Logprob: 7, TopCount: 0}
		s.last, s.hasLast = 0, true
		return
	case e.fault == Invalid && row == e.number%len(e.batch.Rows):
		*out = device.RowResult{Token: -7, Invalid: 1}
		s.last, s.hasLast = 0, true
		return
	case r.Kind == device.RowScore:
		*out = device.RowResult{Token: r.Target, Logprob: score(sum, r.Target)}
		return
	}
	c := choice{x: m.draw(sum, s.counts, s.biases, &s.params, r.Index), mask: e.batch.Mask(r.Mask)}
	if !c.make(m) {
		*out = device.RowResult{Token: -7, Invalid: 1}
		s.last, s.hasLast = 0, true
		return
	}
	s.chosen = true
	*out = device.RowResult{Token: c.token, Logprob: c.logprob, TopCount: int32(c.tops(int(r.TopN)))}
	for k := range int(out.TopCount) {
		e.batch.Top[row*device.MaxTopN+k] = c.alternative(m, k)
	}
	s.last, s.hasLast = out.Token, true
	s.counts += countOf(out.Token, 1)
}

// computeFast samples every row from its slot's last token and its position.
func (b *Backend) computeFast(e *entry) {
	for i := range e.batch.Params {
		p := &e.batch.Params[i]
		b.slots[p.Slot].params = p.Params
	}
	for row := range e.batch.Rows {
		r := &e.batch.Rows[row]
		s := &b.slots[r.Slot]
		sum := mix(uint64(s.last), uint64(e.batch.Pos[r.Token]))
		if r.Kind == device.RowScore {
			e.batch.Results[row] = device.RowResult{Token: r.Target, Logprob: score(sum, r.Target)}
			continue
		}
		b.result(e, s, row, sum)
	}
}
