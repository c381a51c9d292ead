package backendtest

import (
	"fmt"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// compare runs a script on the backend and on ref and compares the answers.
func (s *suite) compare(t *testing.T, m *model, dtype device.DType, script func(h *host) []answer) {
	t.Helper()
	got := script(newHost(t, s.load(t, m, limits, pages), limits, pages))
	want := script(newHost(t, oracle(t, m, limits, pages), limits, pages))
	near(t, got, want, s.tolerance(dtype))
}

// scoreSome scores every token of a prompt, then a few of two sequences in one
// batch, after a step that wants nothing back.
func scoreSome(vocab int) func(h *host) []answer {
	return func(h *host) []answer {
		a := h.start(prompt(1, 24, vocab), sample.Greedy())
		b := h.start(prompt(2, 24, vocab), sample.Greedy())
		out := h.step(chunk{seq: a, n: 19, score: true})
		if none := h.step(chunk{seq: a, n: 1}, chunk{seq: b, n: 3}); len(none) != 0 {
			h.t.Errorf("%d answers to a step without rows", len(none))
		}
		out = append(out, h.step(chunk{seq: b, n: 1, score: true}, chunk{seq: a, n: 2, score: true})...)
		return append(out, h.step(chunk{seq: a, n: 1, score: true})...)
	}
}

// operations compares each operation alone, between an embedding and logits
// that show all of its output.
func (s *suite) operations(t *testing.T) {
	// No more tokens than alternatives: an answer is the whole distribution.
	const vocab = 29
	cases := []struct {
		name  string
		build func(b *builder) *model
	}{
		{"embed", func(b *builder) *model { return b.logits(b.embed(40, 1), 0) }},
		{"embed scaled", func(b *builder) *model { return b.logits(b.embed(52, 1.75), 0) }},
		{"embed of weights that float16 holds as subnormals", func(b *builder) *model {
			x := b.value(40)
			b.op(op(plan.OpEmbed, x, plan.None, plan.None, plan.Op{Weight: b.normal(0, 1e-5, vocab, 40), Bias: plan.None, F0: 1e5}))
			return b.logits(x, 0)
		}},
		{"logits capped", func(b *builder) *model { return b.logits(b.embed(24, 3), 2.5) }},
		{"tied logits", func(b *builder) *model {
			x := b.embed(24, 0.3)
			return b.logitsOf(x, b.plan.Ops[0].Weight, 0)
		}},
		{"rmsnorm", func(b *builder) *model { return b.logits(b.rmsNorm(b.embed(72, 2), 72, 0), 0) }},
		{"rmsnorm of values near its epsilon", func(b *builder) *model { return b.logits(b.rmsNorm(b.embed(40, 0.004), 40, 0), 0) }},
		{"rmsnorm shifted weights", func(b *builder) *model { return b.logits(b.rmsNorm(b.embed(36, 1), 36, 1), 0) }},
		{"rmsnorm per head", func(b *builder) *model { return b.logits(b.rmsNorm(b.embed(72, 2), 24, 0), 0) }},
		{"rmsnorm in place", func(b *builder) *model {
			x := b.embed(40, 2)
			b.rmsNorm(x, 8, 1)
			b.plan.Ops[1].Out = x
			return b.logits(x, 0)
		}},
		{"add", func(b *builder) *model {
			x := b.embed(40, 1)
			return b.logits(b.binary(plan.OpAdd, x, b.linear(x, 40, false)), 0)
		}},
		{"add in place", func(b *builder) *model {
			x := b.embed(36, 1)
			b.binary(plan.OpAdd, x, b.linear(x, 36, false))
			b.plan.Ops[2].Out = x
			return b.logits(x, 0)
		}},
		{"silu_mul", func(b *builder) *model {
			x := b.embed(40, 2)
			return b.logits(b.binary(plan.OpSiluMul, b.linear(x, 104, false), b.linear(x, 104, false)), 0)
		}},
		{"gelu_mul", func(b *builder) *model {
			x := b.embed(40, 2)
			return b.logits(b.binary(plan.OpGeluMul, b.linear(x, 68, false), b.linear(x, 68, false)), 0)
		}},
		{"rope", func(b *builder) *model {
			x := b.embed(48, 1)
			b.rope(x, 16, 16, 1)
			return b.logits(x, 0)
		}},
		{"rope of a part, scaled", func(b *builder) *model {
			x := b.embed(120, 1)
			b.rope(x, 40, 12, 1.3)
			return b.logits(x, 0)
		}},
		{"rows of the embedding again after logit rows", func(b *builder) *model {
			x := b.embed(40, 1)
			rows := b.value(40)
			b.op(op(plan.OpRows, rows, x, plan.None, plan.Op{Weight: plan.None, Bias: plan.None}))
			w := b.normal(0, 0.3, vocab, 40)
			n := b.rmsNorm(b.binary(plan.OpAdd, rows, b.linear(rows, 40, true)), 40, 0)
			b.op(op(plan.OpLogits, plan.None, n, plan.None, plan.Op{Weight: w, Bias: plan.None}))
			b.plan.Hidden = 40
			return &b.model
		}},
	}
	for _, width := range [][2]int{{40, 56}, {72, 40}, {37, 53}, {8, 8}, {264, 24}, {33, 130}} {
		for _, bias := range []bool{false, true} {
			cases = append(cases, struct {
				name  string
				build func(b *builder) *model
			}{
				fmt.Sprintf("linear %d to %d, bias %v", width[0], width[1], bias),
				func(b *builder) *model { return b.logits(b.linear(b.embed(width[0], 1), width[1], bias), 0) },
			})
		}
	}
	for i, tt := range cases {
		for _, dtype := range dtypes {
			t.Run(fmt.Sprintf("%s/%v", tt.name, dtype), func(t *testing.T) {
				m := tt.build(newBuilder(uint64(i), vocab, dtype))
				s.compare(t, m, dtype, scoreSome(vocab))
			})
		}
	}
}

// attention compares attention over a paged cache for the head shapes that
// checkpoints have.
func (s *suite) attention(t *testing.T) {
	const vocab = 31
	for i, h := range []heads{
		{heads: 1, kvHeads: 1, headDim: 8},
		{heads: 4, kvHeads: 4, headDim: 8, cap: 1.5},
		{heads: 3, kvHeads: 1, headDim: 16},
		{heads: 6, kvHeads: 2, headDim: 24, window: 5},
		{heads: 5, kvHeads: 5, headDim: 40, window: 1},
		{heads: 8, kvHeads: 2, headDim: 64},
		{heads: 7, kvHeads: 1, headDim: 64, window: 16, cap: 3},
		{heads: 4, kvHeads: 2, headDim: 72, window: 17},
		{heads: 3, kvHeads: 3, headDim: 80},
		{heads: 2, kvHeads: 1, headDim: 96, cap: 0.5},
		{heads: 9, kvHeads: 3, headDim: 120, window: 33},
		{heads: 4, kvHeads: 1, headDim: 128},
		{heads: 2, kvHeads: 2, headDim: 256, window: 7, cap: 2},
	} {
		for _, dtype := range dtypes {
			name := fmt.Sprintf("%d heads on %d of %d, window %d, cap %v/%v", h.heads, h.kvHeads, h.headDim, h.window, h.cap, dtype)
			t.Run(name, func(t *testing.T) {
				b := newBuilder(100+uint64(i), vocab, dtype)
				x := b.embed(40, 1)
				q := b.linear(x, h.heads*h.headDim, false)
				k := b.linear(x, h.kvHeads*h.headDim, false)
				v := b.linear(x, h.kvHeads*h.headDim, false)
				b.rope(q, h.headDim, h.headDim, 1)
				b.rope(k, h.headDim, h.headDim, 1)
				m := b.logits(b.attend(q, k, v, h), 0)
				s.compare(t, m, dtype, func(h *host) []answer {
					// Longer than any window here, over several pages.
					a := h.start(prompt(3, 70, vocab), sample.Greedy())
					b := h.start(prompt(4, 70, vocab), sample.Greedy())
					out := h.step(chunk{seq: a, n: 50, score: true}, chunk{seq: b, n: 7})
					out = append(out, h.step(chunk{seq: b, n: 33, score: true}, chunk{seq: a, n: 1, score: true})...)
					for range 4 {
						out = append(out, h.step(chunk{seq: a, n: 1, score: true}, chunk{seq: b, n: 1, score: true})...)
					}
					return out
				})
			})
		}
	}
}

// shapes are small transformers with the features that families combine.
var shapes = []struct {
	name  string
	shape shape
}{
	{"grouped heads", shape{heads: heads{heads: 6, kvHeads: 2, headDim: 16}, vocab: 30, hidden: 72, inner: 100, layers: 2}},
	{"biases, odd widths", shape{heads: heads{heads: 3, kvHeads: 1, headDim: 24}, vocab: 27, hidden: 37, inner: 51, layers: 2, bias: true}},
	{"windows on every other layer, caps, gelu", shape{
		heads: heads{heads: 4, kvHeads: 2, headDim: 40, window: 9, cap: 4}, vocab: 32, hidden: 56, inner: 88, layers: 3,
		gelu: true, normShift: 1, alternate: true, finalCap: 6,
	}},
	{"head norms", shape{heads: heads{heads: 4, kvHeads: 4, headDim: 32}, vocab: 25, hidden: 40, inner: 64, layers: 2, headNorm: true}},
	{"wide", shape{heads: heads{heads: 8, kvHeads: 4, headDim: 64}, vocab: 32, hidden: 264, inner: 400, layers: 1}},
}

// layers compares whole small models.
func (s *suite) layers(t *testing.T) {
	for i, tt := range shapes {
		for _, dtype := range dtypes {
			t.Run(fmt.Sprintf("%s/%v", tt.name, dtype), func(t *testing.T) {
				m := transformer(200+uint64(i), dtype, tt.shape)
				s.compare(t, m, dtype, scoreSome(tt.shape.vocab))
			})
		}
	}
}
