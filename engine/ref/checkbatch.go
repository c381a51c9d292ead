package ref

import (
	"fmt"
	"slices"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

// checkBatch verifies a descriptor against the limits and the page tables as
// its own deltas will leave them.
func (b *Backend) checkBatch(batch *device.Batch) error {
	if err := b.checkLengths(batch); err != nil {
		return err
	}
	for i, d := range batch.Pages {
		if !within(d.Slot, b.limits.MaxSlots) || !within(d.Index, b.limits.MaxPagesPerSlot) || !within(d.Page, b.pages) {
			return fmt.Errorf("page delta %d: slot %d of %d, index %d of %d, page %d of %d",
				i, d.Slot, b.limits.MaxSlots, d.Index, b.limits.MaxPagesPerSlot, d.Page, b.pages)
		}
	}
	for i, d := range batch.Params {
		if !within(d.Slot, b.limits.MaxSlots) {
			return fmt.Errorf("parameter delta %d: slot %d of %d", i, d.Slot, b.limits.MaxSlots)
		}
	}
	for i, d := range batch.Counts {
		if !within(d.Slot, b.limits.MaxSlots) || !within(d.Token, b.plan.Vocab) {
			return fmt.Errorf("count delta %d: slot %d of %d, token %d of %d", i, d.Slot, b.limits.MaxSlots, d.Token, b.plan.Vocab)
		}
	}
	if err := b.checkBiases(batch); err != nil {
		return err
	}
	owner, err := b.checkSeqs(batch)
	if err != nil {
		return err
	}
	return b.checkRows(batch, owner)
}

func within(v int32, n int) bool { return v >= 0 && int(v) < n }

func (b *Backend) checkLengths(batch *device.Batch) error {
	for _, l := range []struct {
		name     string
		got, max int
	}{
		{"tokens", len(batch.Tokens), b.limits.MaxTokens},
		{"sequences", len(batch.Seqs), b.limits.MaxSlots},
		{"rows", len(batch.Rows), b.limits.MaxRows},
		{"bias deltas", len(batch.Biases), b.limits.MaxTokens + sample.MaxBiases},
	} {
		if l.got > l.max {
			return fmt.Errorf("%d %s, the limit is %d", l.got, l.name, l.max)
		}
	}
	if len(batch.Pos) != len(batch.Tokens) {
		return fmt.Errorf("%d positions for %d tokens", len(batch.Pos), len(batch.Tokens))
	}
	for t, id := range batch.Tokens {
		if id != device.LastToken && !within(id, b.plan.Vocab) {
			return fmt.Errorf("token %d: id %d of %d", t, id, b.plan.Vocab)
		}
	}
	return nil
}

func (b *Backend) checkBiases(batch *device.Batch) error {
	fresh := make(map[int32]bool) // slots with a new owner in this batch
	for _, d := range batch.Params {
		fresh[d.Slot] = true
	}
	number := make(map[int32]int) // by slot
	for i, d := range batch.Biases {
		switch {
		case !fresh[d.Slot] || !within(d.Token, b.plan.Vocab):
			return fmt.Errorf("bias delta %d: slot %d has no parameters in this batch, or token %d is not of %d", i, d.Slot, d.Token, b.plan.Vocab)
		case !(d.Bias >= -sample.MaxBias && d.Bias <= sample.MaxBias):
			return fmt.Errorf("bias delta %d: bias %v, expected a magnitude of at most %d", i, d.Bias, sample.MaxBias)
		}
		if number[d.Slot]++; number[d.Slot] > sample.MaxBiases {
			return fmt.Errorf("bias delta %d: slot %d has more than %d", i, d.Slot, sample.MaxBiases)
		}
	}
	return nil
}

// checkSeqs returns the slot that each token belongs to.
func (b *Backend) checkSeqs(batch *device.Batch) (owner []int32, err error) {
	owner = make([]int32, len(batch.Tokens))
	for t := range owner {
		owner[t] = -1
	}
	seen := make([]bool, b.limits.MaxSlots)
	for i, s := range batch.Seqs {
		if !within(s.Slot, b.limits.MaxSlots) || seen[s.Slot] {
			return nil, fmt.Errorf("sequence %d: slot %d of %d, each at most once", i, s.Slot, b.limits.MaxSlots)
		}
		seen[s.Slot] = true
		if s.Start < 0 || s.Count < 0 || int(s.Start) > len(owner)-int(s.Count) {
			return nil, fmt.Errorf("sequence %d: %d tokens from %d on of %d", i, s.Count, s.Start, len(owner))
		}
		if s.KVLen < s.Count || int(s.KVLen) > b.limits.MaxPagesPerSlot*device.PageTokens {
			return nil, fmt.Errorf("sequence %d: %d tokens in the cache with %d new ones, the limit is %d", i, s.KVLen, s.Count, b.limits.MaxPagesPerSlot*device.PageTokens)
		}
		for j := range s.Count {
			t := s.Start + j
			if owner[t] != -1 {
				return nil, fmt.Errorf("sequence %d: token %d belongs to two sequences", i, t)
			}
			owner[t] = s.Slot
			if want := s.KVLen - s.Count + j; batch.Pos[t] != want {
				return nil, fmt.Errorf("sequence %d: token %d at position %d, expected %d", i, t, batch.Pos[t], want)
			}
		}
		for index := range (int(s.KVLen) + device.PageTokens - 1) / device.PageTokens {
			if b.slots[s.Slot].pages[index] == noPage && !setsPage(batch.Pages, s.Slot, int32(index)) {
				return nil, fmt.Errorf("sequence %d: slot %d has no page %d", i, s.Slot, index)
			}
		}
	}
	for t, slot := range owner {
		if slot == -1 {
			return nil, fmt.Errorf("token %d belongs to no sequence", t)
		}
	}
	return owner, nil
}

func setsPage(deltas []device.PageDelta, slot, index int32) bool {
	return slices.ContainsFunc(deltas, func(d device.PageDelta) bool { return d.Slot == slot && d.Index == index })
}

func (b *Backend) checkRows(batch *device.Batch, owner []int32) error {
	for i, r := range batch.Rows {
		if !within(r.Token, len(owner)) || !within(r.Slot, b.limits.MaxSlots) || owner[r.Token] != r.Slot {
			return fmt.Errorf("row %d: token %d of %d is not of slot %d", i, r.Token, len(owner), r.Slot)
		}
		if r.TopN < 0 || r.TopN > device.MaxTopN {
			return fmt.Errorf("row %d: %d alternatives, the limit is %d", i, r.TopN, device.MaxTopN)
		}
	}
	return b.checkKinds(batch)
}

// checkKinds verifies what Forward and Sample both see of a row's purpose.
func (b *Backend) checkKinds(batch *device.Batch) error {
	sampled := make([]bool, b.limits.MaxSlots)
	for i, r := range batch.Rows {
		switch r.Kind {
		case device.RowScore:
			if !within(r.Target, b.plan.Vocab) {
				return fmt.Errorf("row %d: target %d of %d", i, r.Target, b.plan.Vocab)
			}
		case device.RowSample:
			if sampled[r.Slot] {
				return fmt.Errorf("row %d: slot %d is sampled twice", i, r.Slot)
			}
			sampled[r.Slot] = true
		default:
			return fmt.Errorf("row %d: unknown kind %d", i, r.Kind)
		}
	}
	return nil
}

// checkChoices verifies what may have changed since Forward.
func (b *Backend) checkChoices(batch *device.Batch) error {
	if len(batch.Masks)%batch.MaskWords != 0 || len(batch.Masks) > b.limits.MaxSlots*batch.MaskWords {
		return fmt.Errorf("%d words of masks, expected at most %d masks of %d words", len(batch.Masks), b.limits.MaxSlots, batch.MaskWords)
	}
	masks := len(batch.Masks) / batch.MaskWords
	for i, r := range batch.Rows {
		if !within(r.Mask, masks+1) {
			return fmt.Errorf("row %d: mask %d of %d", i, r.Mask, masks)
		}
	}
	return b.checkKinds(batch)
}
