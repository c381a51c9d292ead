package sim

import (
	"fmt"
	"math"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

// check verifies what package device asks of a Batch, as far as it can be
// seen without the state of earlier steps.
func (b *Backend) check(x *device.Batch) error {
	l, vocab := b.limits, b.cfg.Model.Vocab
	pages := len(b.stamp)
	if len(x.Seqs) == 0 {
		return fmt.Errorf("a batch without sequences")
	}
	if len(x.Tokens) != len(x.Pos) || len(x.Tokens) > l.MaxTokens || len(x.Rows) > l.MaxRows {
		return fmt.Errorf("%d tokens, %d positions, %d rows; at most %d, %d", len(x.Tokens), len(x.Pos), len(x.Rows), l.MaxTokens, l.MaxRows)
	}
	next := int32(0)
	for i, q := range x.Seqs {
		if q.Slot < 0 || int(q.Slot) >= l.MaxSlots || b.slots[q.Slot].batch == b.steps {
			return fmt.Errorf("sequence %d: slot %d out of range or in the batch twice", i, q.Slot)
		}
		b.slots[q.Slot].batch = b.steps // marks membership for what follows
		if q.Start != next || q.Count < 1 || int(q.Start+q.Count) > len(x.Tokens) {
			return fmt.Errorf("sequence %d: tokens %d+%d of %d, expected to start at %d", i, q.Start, q.Count, len(x.Tokens), next)
		}
		next += q.Count
		for t := q.Start; t < next; t++ {
			if x.Pos[t] != q.KVLen-(next-t) {
				return fmt.Errorf("sequence %d: token %d at position %d, expected %d", i, t, x.Pos[t], q.KVLen-(next-t))
			}
			if id := x.Tokens[t]; id != device.LastToken && (id < 0 || int(id) >= vocab) {
				return fmt.Errorf("sequence %d: token %d is %d, the vocabulary has %d", i, t, id, vocab)
			}
		}
		if int(q.KVLen) > l.MaxPagesPerSlot*device.PageTokens {
			return fmt.Errorf("sequence %d: %d tokens in a slot of %d pages", i, q.KVLen, l.MaxPagesPerSlot)
		}
	}
	if int(next) != len(x.Tokens) {
		return fmt.Errorf("%d tokens, %d belong to sequences", len(x.Tokens), next)
	}
	in := func(slot int32) bool {
		return slot >= 0 && int(slot) < l.MaxSlots && b.slots[slot].batch == b.steps
	}
	for i, p := range x.Params {
		if !in(p.Slot) {
			return fmt.Errorf("parameters %d: slot %d is not in the batch", i, p.Slot)
		}
		b.slots[p.Slot].renewed = b.steps
	}
	if err := b.checkBiases(x); err != nil {
		return err
	}
	for i, p := range x.Pages {
		if !in(p.Slot) || p.Index < 0 || int(p.Index) >= l.MaxPagesPerSlot || p.Page < 0 || int(p.Page) >= pages {
			return fmt.Errorf("page delta %d: %+v", i, p)
		}
	}
	for i, c := range x.Counts {
		if !in(c.Slot) || c.Token < 0 || int(c.Token) >= vocab || c.Generated>>1 != 0 {
			return fmt.Errorf("count %d: %+v", i, c)
		}
	}
	for i, r := range x.Rows {
		if !in(r.Slot) || r.Token < 0 || int(r.Token) >= len(x.Tokens) || r.TopN < 0 || r.TopN > device.MaxTopN {
			return fmt.Errorf("row %d: %+v", i, r)
		}
	}
	return nil
}

// checkBiases: all biases of a sequence come with its parameters, so a slot
// that had none of its own in the batch cannot get any.
func (b *Backend) checkBiases(x *device.Batch) error {
	last, n := int32(-1), 0
	for i, d := range x.Biases {
		if d.Slot != last {
			last, n = d.Slot, 0
		}
		n++
		switch {
		case d.Slot < 0 || int(d.Slot) >= b.limits.MaxSlots || b.slots[d.Slot].renewed != b.steps:
			return fmt.Errorf("bias %d: slot %d has no parameters in the batch", i, d.Slot)
		case d.Token < 0 || int(d.Token) >= b.cfg.Model.Vocab:
			return fmt.Errorf("bias %d: token %d, the vocabulary has %d", i, d.Token, b.cfg.Model.Vocab)
		case !(d.Bias >= -sample.MaxBias && d.Bias <= sample.MaxBias):
			return fmt.Errorf("bias %d: %v, at most ±%d", i, d.Bias, sample.MaxBias)
		case n > sample.MaxBiases:
			return fmt.Errorf("bias %d: slot %d has more than %d", i, d.Slot, sample.MaxBiases)
		}
	}
	return nil
}

// checkChoices verifies what Sample reads and Forward does not.
func (b *Backend) checkChoices(e *entry) error {
	x := &e.batch
	if len(x.Masks)%x.MaskWords != 0 || len(x.Masks) > b.limits.MaxSlots*x.MaskWords {
		return fmt.Errorf("%d words of masks, expected at most %d masks of %d", len(x.Masks), b.limits.MaxSlots, x.MaskWords)
	}
	for i, r := range x.Rows {
		if r.Mask < 0 || int(r.Mask) > len(x.Masks)/x.MaskWords {
			return fmt.Errorf("row %d: mask %d of %d", i, r.Mask, len(x.Masks)/x.MaskWords)
		}
		switch r.Kind {
		case device.RowScore:
			if r.Target < 0 || int(r.Target) >= b.cfg.Model.Vocab {
				return fmt.Errorf("row %d: target %d, the vocabulary has %d", i, r.Target, b.cfg.Model.Vocab)
			}
		case device.RowSample:
			if b.slots[r.Slot].sampled == e.number {
				return fmt.Errorf("row %d: slot %d is sampled twice", i, r.Slot)
			}
			b.slots[r.Slot].sampled = e.number
		default:
			return fmt.Errorf("row %d: kind %d", i, r.Kind)
		}
	}
	return nil
}

// choices sums up the inputs of a Batch that count from Sample on.
func choices(x *device.Batch) uint64 {
	h := mix(uint64(len(x.Masks)), uint64(x.MaskWords))
	for _, r := range x.Rows {
		h = mix(h, uint64(uint32(r.Target))<<32|uint64(uint32(r.Mask))<<1|uint64(r.Kind))
	}
	for _, w := range x.Masks {
		h = mix(h, uint64(w))
	}
	return h
}

// checksum sums up the other inputs, which count from Forward on.
func checksum(x *device.Batch) uint64 {
	h := mix(uint64(len(x.Tokens)), uint64(len(x.Rows)))
	add := func(a, b int32) { h = mix(h, uint64(uint32(a))<<32|uint64(uint32(b))) }
	for i := range x.Tokens {
		add(x.Tokens[i], x.Pos[i])
	}
	for _, q := range x.Seqs {
		add(q.Slot, q.Start)
		add(q.Count, q.KVLen)
	}
	for _, r := range x.Rows {
		add(r.Token, r.Slot)
		add(r.Index, r.TopN)
	}
	for _, p := range x.Pages {
		add(p.Slot, p.Index)
		add(p.Page, 0)
	}
	for i := range x.Params {
		p := &x.Params[i]
		add(p.Slot, int32(math.Float32bits(p.Params.Temperature)))
		h = mix(h, p.Params.Seed)
	}
	for _, c := range x.Counts {
		add(c.Slot, c.Token)
		add(c.Generated, 0)
	}
	for _, d := range x.Biases {
		add(d.Slot, d.Token)
		add(int32(math.Float32bits(d.Bias)), 0)
	}
	return h
}
