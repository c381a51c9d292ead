package backendtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// randomMask allows share of all tokens; the bits after them are set, since
// they mean nothing.
func randomMask(rng *rand.Rand, vocab int, share float64) []uint32 {
	mask := make([]uint32, device.MaskWords(vocab))
	for bit := range len(mask) * 32 {
		if bit >= vocab || rng.Float64() < share {
			mask[bit/32] |= 1 << (bit % 32)
		}
	}
	return mask
}

// only is the mask that allows some tokens.
func only(vocab int, ids ...int32) []uint32 {
	mask := make([]uint32, device.MaskWords(vocab))
	for _, id := range ids {
		mask[id/32] |= 1 << (id % 32)
	}
	return mask
}

// randomBiases has some of all magnitudes, and two of one token.
func randomBiases(rng *rand.Rand, vocab, n int) []sample.Bias {
	out := make([]sample.Bias, n)
	for i := range out {
		out[i] = sample.Bias{Token: int32(rng.IntN(vocab)), Bias: float32(rng.NormFloat64() * 3)}
	}
	out[0].Bias, out[n-1].Token = -sample.MaxBias, out[0].Token
	return out
}

// masksAndBiases tests what changes a sequence's choices besides its parameters: masks,
// which change with every token, and biases.
func (s *suite) masksAndBiases(t *testing.T) {
	const vocab, none = 1003, -1
	m := table(randomRows(31, 14, vocab), none)
	everything := samplingCases[len(samplingCases)-1].params
	for _, tt := range []struct {
		name   string
		params sample.Params
		share  float64 // of the tokens that each mask allows; 0: no masks
		biases int
	}{
		{name: "greedy, mask", params: sample.Greedy(), share: 0.5},
		{name: "greedy, sparse mask", params: sample.Greedy(), share: 0.01},
		{name: "mask", params: sampled(func(p *sample.Params) {}), share: 0.5},
		{name: "mask of all", params: sampled(func(p *sample.Params) {}), share: 1},
		{name: "mask and top_k", params: sampled(func(p *sample.Params) { p.TopK = 5 }), share: 0.3},
		{name: "mask of fewer than top_k", params: sampled(func(p *sample.Params) { p.TopK = 200 }), share: 0.01},
		{name: "mask and top_p", params: sampled(func(p *sample.Params) { p.TopP = 0.7 }), share: 0.3},
		{name: "mask and typical_p", params: sampled(func(p *sample.Params) { p.TypicalP = 0.6 }), share: 0.3},
		{name: "mask and min_p", params: sampled(func(p *sample.Params) { p.MinP = 0.3 }), share: 0.3},
		{name: "greedy, biases", params: sample.Greedy(), biases: 40},
		{name: "biases", params: sampled(func(p *sample.Params) { p.Temperature = 0.8 }), biases: 40},
		{name: "the most biases", params: sampled(func(p *sample.Params) {}), biases: sample.MaxBiases},
		{name: "mask, biases, everything", params: everything, share: 0.4, biases: 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.exactly(t, m, func(h *host) []answer {
				rng := rand.New(rand.NewPCG(5, 6))
				x := h.start(prompt(3, 9, vocab), tt.params)
				x.counts = promptCounts(x.tokens)
				if tt.biases > 0 {
					x.biases = randomBiases(rng, vocab, tt.biases)
				}
				var out []answer
				for i := range int32(24) {
					c := chunk{seq: x, n: 1, last: true, sample: true, index: i, topN: i % 6}
					if i == 0 {
						c.n, c.last = 9, false
					}
					if tt.share > 0 {
						c.mask = randomMask(rng, vocab, tt.share)
					}
					out = append(out, h.step(c)...)
					x.tokens = append(x.tokens, 0)
				}
				return out
			})
		})
	}

	t.Run("one batch, many masks", func(t *testing.T) {
		s.exactly(t, m, func(h *host) []answer { return maskTogether(h, vocab) })
	})
	t.Run("one token is allowed", func(t *testing.T) { s.forced(t, m, vocab) })
	t.Run("no token is allowed", func(t *testing.T) { s.nothingAllowed(t, m, vocab) })
	t.Run("biases ban and force", func(t *testing.T) { s.biases(t, m, vocab) })
	t.Run("set between Forward and Sample", func(t *testing.T) { s.lateChoices(t) })
	t.Run("made of the step before", func(t *testing.T) { s.overlap(t) })
}

// maskTogether runs masked, biased and free sequences side by side; two share
// a mask.
func maskTogether(h *host, vocab int) []answer {
	rng := rand.New(rand.NewPCG(7, 8))
	var seqs []*seq
	for i := range limits.MaxSlots {
		p := samplingCases[(7*i+len(samplingCases)-1)%len(samplingCases)].params
		x := h.start(prompt(uint64(i), 3, vocab), p)
		x.counts = promptCounts(x.tokens)
		if i%2 == 1 {
			x.biases = randomBiases(rng, vocab, 30+i)
		}
		seqs = append(seqs, x)
	}
	var out []answer
	for i := range int32(8) {
		var chunks []chunk
		for j, x := range seqs {
			c := chunk{seq: x, n: 3, sample: true, index: i, topN: int32(j)}
			if i > 0 {
				x.tokens = append(x.tokens, 0)
				c.n, c.last = 1, true
			}
			if (int(i)+j)%3 != 0 {
				c.mask = randomMask(rng, vocab, 0.2)
			}
			chunks = append(chunks, c)
		}
		entry := h.prepare(chunks...)
		b := h.b.Batch(entry)
		b.Rows[0].Mask = b.Rows[1].Mask
		h.run(entry)
		out = append(out, h.wait(entry, chunks...)...)
	}
	return out
}

// forced: a token that is alone under the mask is certain, whatever the logits
// and filters.
func (s *suite) forced(t *testing.T, m *model, vocab int) {
	for _, p := range samplingCases {
		h := s.host(t, m, limits)
		x := h.start(prompt(3, 5, vocab), p.params)
		x.counts = promptCounts(x.tokens)
		for i, want := range []int32{0, 31, 32, int32(vocab - 1), 500} {
			c := chunk{seq: x, n: len(x.tokens) - x.computed, sample: true, index: int32(i), topN: 3, mask: only(vocab, want)}
			a := h.step(c)[0]
			if a.invalid || a.token != want || a.logprob != 0 || len(a.top) != 1 {
				t.Errorf("%s: only token %d is allowed: %+v, want it with log-probability 0 and no other", p.name, want, a)
			}
			x.tokens = append(x.tokens, want)
		}
	}
}

// nothingAllowed: the row is invalid, and its neighbours as if alone.
func (s *suite) nothingAllowed(t *testing.T, m *model, vocab int) {
	for _, p := range []sample.Params{sample.Greedy(), samplingCases[len(samplingCases)-1].params} {
		run := func(mask []uint32) []answer {
			h := s.host(t, m, limits)
			a, x, b := h.start(prompt(1, 4, vocab), p), h.start(prompt(2, 4, vocab), p), h.start(prompt(3, 4, vocab), p)
			var chunks []chunk
			for _, y := range []*seq{a, x, b} {
				y.counts = promptCounts(y.tokens)
				chunks = append(chunks, chunk{seq: y, n: 4, sample: true, topN: 5})
			}
			chunks[0].mask, chunks[1].mask = only(vocab, 5, 6, 900), mask
			return h.step(chunks...)
		}
		got, want := run(make([]uint32, device.MaskWords(vocab))), run(nil)
		if !got[1].invalid {
			t.Errorf("sample %d: %+v under a mask that allows nothing, want invalid", p.Sample, got[1])
		}
		s.unchanged(t, []answer{got[0], got[2]}, []answer{want[0], want[2]}, plan.F32)
	}
}

// biases: the largest ones decide, and the slot's next owner has none of them.
func (s *suite) biases(t *testing.T, m *model, vocab int) {
	h := s.host(t, m, limits)
	best := h.step(chunk{seq: h.start(prompt(3, 5, vocab), sample.Greedy()), n: 5, sample: true})[0].token
	other := (best + 7) % int32(vocab)
	for _, tt := range []struct {
		name   string
		biases []sample.Bias
		want   func(token int32) bool
	}{
		{"ban", []sample.Bias{{Token: best, Bias: -sample.MaxBias}}, func(token int32) bool { return token != best }},
		{"none", nil, func(token int32) bool { return token == best }},
		{"force", []sample.Bias{{Token: other, Bias: sample.MaxBias}}, func(token int32) bool { return token == other }},
		{"none again", nil, func(token int32) bool { return token == best }},
	} {
		x := h.start(prompt(3, 5, vocab), sample.Greedy())
		x.biases = tt.biases
		if a := h.step(chunk{seq: x, n: 5, sample: true})[0]; a.invalid || !tt.want(a.token) {
			t.Errorf("%s: token %d, the best without biases is %d", tt.name, a.token, best)
		}
		h.finish(x)
	}
}

// lateChoices: kinds, targets and masks that are set once the forward pass is
// enqueued count as if they had been there before.
func (s *suite) lateChoices(t *testing.T) {
	m := transformer(602, plan.F32, shapes[0].shape)
	vocab := m.plan.Vocab
	run := func(late bool) []answer {
		h := s.host(t, m, limits)
		rng := rand.New(rand.NewPCG(1, 9))
		a, b, c := h.start(prompt(1, 30, vocab), sample.Greedy()), h.start(prompt(2, 9, vocab), sample.Greedy()), h.start(prompt(3, 5, vocab), sample.Greedy())
		chunks := []chunk{
			{seq: a, n: 30, sample: true, topN: 4, mask: randomMask(rng, vocab, 0.5)},
			{seq: b, n: 9, sample: true, topN: 4, mask: randomMask(rng, vocab, 0.5)},
			{seq: c, n: 5, sample: true, topN: 4},
		}
		i := h.prepare(chunks...)
		x := h.b.Batch(i)
		x.Rows[2].Kind, x.Rows[2].Target = device.RowScore, 3
		if !late {
			h.run(i)
			return h.wait(i, chunks...)
		}
		final := clone(x)
		for r := range x.Rows {
			x.Rows[r].Kind, x.Rows[r].Target, x.Rows[r].Mask = device.RowSample, 0, 0
		}
		x.Masks = x.Masks[:0]
		h.forward(i)
		for r, row := range final.Rows {
			x.Rows[r].Kind, x.Rows[r].Target, x.Rows[r].Mask = row.Kind, row.Target, row.Mask
		}
		x.Masks = append(x.Masks, final.Masks...)
		h.sample(i)
		return h.wait(i, chunks...)
	}
	s.unchanged(t, run(true), run(false), plan.F32)
}

// overlap is the engine's way with grammars: the forward pass of a step is
// enqueued before the step before it was waited for, whose tokens decide the
// step's masks.
func (s *suite) overlap(t *testing.T) {
	m := transformer(603, plan.F32, shapes[0].shape)
	vocab := m.plan.Vocab
	// next is a mask that depends on all tokens so far.
	next := func(a []answer) []uint32 {
		rng := rand.New(rand.NewPCG(uint64(a[0].token), uint64(len(a))))
		return randomMask(rng, vocab, 0.3)
	}
	run := func(ahead bool) []answer {
		h := s.host(t, m, limits)
		p := sampled(func(p *sample.Params) { p.RepetitionPenalty, p.Watermark = 1.4, 1 })
		x, y := h.start(prompt(1, 20, vocab), p), h.start(prompt(2, 3, vocab), p)
		var (
			out     []answer
			last    []answer
			pending = -1 // entry sampled and not waited for
			chunks  []chunk
		)
		for i := range int32(12) {
			before := chunks
			chunks = nil
			for _, z := range []*seq{x, y} {
				chunks = append(chunks, chunk{seq: z, n: len(z.tokens) - z.computed, sample: true, index: i, topN: 3, last: i > 0})
				z.tokens = append(z.tokens, 0)
			}
			entry := h.prepare(chunks...)
			if !ahead && pending >= 0 {
				last = h.wait(pending, before...)
			}
			h.forward(entry)
			if ahead && pending >= 0 {
				last = h.wait(pending, before...)
			}
			if last != nil {
				out = append(out, last...)
				setMask(h.b.Batch(entry), 0, next(last))
			}
			h.sample(entry)
			pending = entry
		}
		return append(out, h.wait(pending, chunks...)...)
	}
	s.unchanged(t, run(true), run(false), plan.F32)
}

// refusedChoices: what may change after Forward and cannot be right is refused
// by Sample. That ends the batch alone: its ring entry can be used again, and
// other sequences go on as if nothing had been.
func (s *suite) refusedChoices(t *testing.T) {
	m := tiny()
	vocab := int32(m.plan.Vocab)
	for _, tt := range []struct {
		name string
		bad  func(b *device.Batch)
	}{
		{"mask too high", func(b *device.Batch) { b.Rows[0].Mask = 2 }},
		{"negative mask", func(b *device.Batch) { b.Rows[0].Mask = -1 }},
		{"mask there is not", func(b *device.Batch) { b.Masks = b.Masks[:0] }},
		{"more masks than slots", func(b *device.Batch) {
			for range limits.MaxSlots {
				b.Masks = append(b.Masks, b.Masks[0])
			}
		}},
		{"row of an unknown kind", func(b *device.Batch) { b.Rows[0].Kind = 7 }},
		{"scored token too high", func(b *device.Batch) { b.Rows[1].Target = vocab }},
		{"negative scored token", func(b *device.Batch) { b.Rows[1].Target = -1 }},
		{"slot sampled twice", func(b *device.Batch) { b.Rows[1].Kind = device.RowSample }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := func(refuse bool) []answer {
				h := s.host(t, m, limits)
				x, y := h.start(prompt(1, 20, m.plan.Vocab), sample.Greedy()), h.start(prompt(2, 9, m.plan.Vocab), sample.Greedy())
				out := h.step(chunk{seq: y, n: 8, sample: true, topN: 4})
				if refuse {
					i := h.prepare(chunk{seq: x, n: 20, sample: true, mask: only(m.plan.Vocab, 3)})
					b := h.b.Batch(i)
					b.Rows = append(b.Rows, device.Row{Token: 3, Slot: x.slot, Kind: device.RowScore})
					h.forward(i)
					masks := b.Masks
					tt.bad(b)
					err := h.b.Sample(i)
					b.Masks = masks // an append may have left the array
					if err == nil || errors.Is(err, device.ErrLost) {
						t.Errorf("Sample: %v, want an error that leaves the device alive", err)
					}
					if err := h.b.Wait(i); err == nil {
						t.Error("Wait succeeded though Sample was refused")
					}
				}
				for i := range int32(device.RingDepth) {
					c := chunk{seq: y, n: 1, sample: true, topN: 4, index: i}
					out = append(out, h.step(c)...)
					y.tokens = append(y.tokens, i)
				}
				return out
			}
			got, want := run(true), run(false)
			if !s.opt.NoNumerics {
				s.unchanged(t, got, want, plan.F32)
			}
		})
	}
	t.Run(fmt.Sprintf("mask of a part of %d words", device.MaskWords(70)), func(t *testing.T) {
		m := table(randomRows(1, 3, 70), -1)
		h := s.host(t, m, limits)
		i := h.prepare(chunk{seq: h.start([]int32{1}, sample.Greedy()), n: 1, sample: true, mask: only(70, 3)})
		b := h.b.Batch(i)
		b.Masks = b.Masks[:len(b.Masks)-1]
		b.Rows[0].Mask = 0
		h.forward(i)
		if err := h.b.Sample(i); err == nil {
			t.Error("Sample succeeded")
		}
	})
}
