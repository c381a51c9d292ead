package backendtest

import (
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample/sampletest"
)

// draws: many sequences of one token each, and the statistics of what follows.
func (s *suite) draws(t *testing.T) {
	const slots = 512
	steps := 100
	if s.opt.Brief {
		steps = 10
	}
	limits := device.Limits{MaxTokens: slots * 10, MaxRows: slots, MaxSlots: slots, MaxPagesPerSlot: 1, Threads: 2}
	m := table([][]float32{sampletest.Logits}, -1)
	for _, c := range sampletest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			b := s.load(t, m, limits)
			hits := make([]int, len(sampletest.Logits))
			for step := range steps {
				i := step % device.RingDepth
				x := b.Batch(i)
				x.Clear()
				x.Masks = append(x.Masks, c.Mask...)
				for slot := range int32(slots) {
					c.Params.Seed++
					drawRow(x, &c, slot)
				}
				h := host{t: t, b: b}
				h.run(i)
				for _, a := range h.wait(i) {
					if a.invalid {
						t.Fatalf("%s: invalid", a.what)
					}
					hits[a.token]++
				}
			}
			if chi, limit := sampletest.ChiSquare(hits, sampletest.Distribution(sampletest.Logits, c.Input())); chi > limit {
				t.Errorf("χ² of %d draws is %.1f, want ≤ %.1f; draws %v", slots*steps, chi, limit, hits)
			}
		})
	}
}

// drawRow gives a slot to a new sequence, which is the case's previous token.
func drawRow(x *device.Batch, c *sampletest.Case, slot int32) {
	x.Params = append(x.Params, device.ParamDelta{Slot: slot, Params: c.Params})
	for _, id := range c.Prompt {
		x.Counts = append(x.Counts, device.CountDelta{Slot: slot, Token: id})
	}
	for _, id := range c.Generated {
		x.Counts = append(x.Counts, device.CountDelta{Slot: slot, Token: id, Generated: 1})
	}
	for _, bias := range c.Biases {
		x.Biases = append(x.Biases, device.BiasDelta{Slot: slot, Token: bias.Token, Bias: bias.Bias})
	}
	row := device.Row{Token: int32(len(x.Tokens)), Slot: slot, Index: slot % 7}
	if c.Mask != nil {
		row.Mask = 1
	}
	x.Rows = append(x.Rows, row)
	x.Seqs = append(x.Seqs, device.Seq{Slot: slot, Start: row.Token, Count: 1, KVLen: 1})
	x.Tokens, x.Pos = append(x.Tokens, c.Prev), append(x.Pos, 0)
}
