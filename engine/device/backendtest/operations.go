package backendtest

import (
	"fmt"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// compare runs a script on the backend and on ref and compares the answers.
func (s *suite) compare(t *testing.T, m *model, format plan.Format, script func(h *host) []answer) {
	t.Helper()
	near(t, script(s.host(t, m, limits)), script(s.oracle(t, m, limits)), s.tolerance(format))
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

// operation is a plan whose logits show all of the output of one operation.
type operation struct {
	name  string
	build func(b *builder) *model
}

// No more tokens than alternatives: an answer is the whole distribution.
const opVocab = 29

// operations compares each operation alone, in every form it has.
func (s *suite) operations(t *testing.T) {
	cases := inputOps()
	inputs := len(cases)
	for _, list := range [][]operation{linearOps(), epilogueOps(), expertOps()} {
		cases = append(cases, list...)
	}
	multiply := len(cases) // so many, and none of the others, have weights to quantise
	for _, list := range [][]operation{normOps(), activateOps(), ropeOps(), routeOps(), recurrentOps()} {
		cases = append(cases, list...)
	}
	formats := s.formats(t)
	for i, tt := range cases {
		for _, format := range formats {
			if format.Quantized() && i >= multiply {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", tt.name, format), func(t *testing.T) {
				m := tt.build(newBuilder(uint64(i), opVocab, format))
				m.quantizeEmbeddings = i < inputs
				s.compare(t, m, format, scoreSome(opVocab))
			})
		}
	}
}

// inputOps are embeddings, additions and logits.
func inputOps() []operation {
	return []operation{
		{"embed", func(b *builder) *model { return b.logits(b.embed(40, 1), 0) }},
		{"embed scaled", func(b *builder) *model { return b.logits(b.embed(52, 1.75), 0) }},
		{"embed of weights that float16 holds as subnormals", func(b *builder) *model {
			return b.logits(b.embedOf(b.normal(0, 1e-5, opVocab, 40), 40, 1e5), 0)
		}},
		{"embed_position", func(b *builder) *model {
			x := b.embed(36, 1)
			return b.logits(b.add(x, b.position(36, 128, 0), 1), 0)
		}},
		{"embed_position with an offset", func(b *builder) *model {
			x := b.embed(36, 1)
			return b.logits(b.add(x, b.position(36, 128, 3), 1), 0)
		}},
		{"embed beside", func(b *builder) *model {
			x := b.embed(36, 1)
			return b.logits(b.add(x, b.linear(b.beside(opVocab-9, 20, 1.5), 36, false), 1), 0)
		}},
		{"embed beside with more rows than tokens", func(b *builder) *model {
			x := b.embed(36, 1)
			return b.logits(b.add(x, b.beside(opVocab+9, 36, 1), 1), 0)
		}},
		{"scale", func(b *builder) *model { return b.logits(b.scaleOp(b.embed(37, 1), 1.7, plan.None).Out[0], 0) }},
		{"scale by a weight", func(b *builder) *model {
			x := b.embed(37, 1)
			return b.logits(b.scaleOp(b.scaleOp(x, 0.5, b.normal(1, 0.4, 37)).Out[0], 3, b.normal(0.7, 0.1, 1)).Out[0], 0)
		}},
		{"scale by position, in place", func(b *builder) *model {
			x := b.embed(40, 0.5)
			op := b.scaleOp(x, 1, b.normal(1, 0.4, 40))
			op.F[plan.ScaleLog], op.I[plan.ScaleOffset], op.I[plan.ScaleLength], op.Out[0] = 0.6, 1, 4, x
			return b.logits(x, 0)
		}},
		{"sparsify", func(b *builder) *model {
			x := b.embed(61, 1)
			return b.logits(b.add(b.sparsify(x, 0.4), b.sparsify(b.view(x, 0, 61), 1.6), 1), 0)
		}},
		{"sparsify in place", func(b *builder) *model {
			x := b.linear(b.embed(40, 1), 48, true)
			b.sparsify(x, -0.3)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = x
			return b.logits(x, 0)
		}},
		{"join", func(b *builder) *model {
			x := b.embed(40, 1)
			return b.logits(b.join(b.linear(x, 13, false), b.view(x, 5, 20), x, b.linear(x, 1, true)), 0)
		}},
		{"join after rows were picked", func(b *builder) *model {
			rows := b.rows(b.embed(40, 1))
			return b.logitsOf(b.scaleOp(b.join(rows, rows), 0.4, plan.None).Out[0], b.normal(0, 0.3, opVocab, 80), 0)
		}},
		{"logits capped", func(b *builder) *model { return b.logits(b.embed(24, 3), 2.5) }},
		{"logits scaled, with a bias", func(b *builder) *model {
			m := b.logits(b.embed(24, 3), 0)
			bias := b.normal(0, 2, opVocab)
			op := &b.plan.Ops[len(b.plan.Ops)-1]
			op.Weight[1], op.F[plan.LogitsScale], op.F[plan.LogitsCap] = bias, 0.3, 4
			return m
		}},
		{"tied logits", func(b *builder) *model {
			x := b.embed(24, 0.3)
			return b.logitsOf(b.rows(x), b.plan.Ops[0].Weight[0], 0)
		}},
		{"add", func(b *builder) *model {
			x := b.embed(40, 1)
			return b.logits(b.add(x, b.linear(x, 40, false), 1), 0)
		}},
		{"add scaled", func(b *builder) *model {
			x := b.embed(40, 1)
			return b.logits(b.add(x, b.linear(x, 40, false), -0.37), 0)
		}},
		{"add in place", func(b *builder) *model {
			x := b.embed(36, 1)
			y := b.linear(x, 36, false)
			b.add(x, y, 2)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = x
			b.add(y, x, 0.5)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = x
			return b.logits(x, 0)
		}},
		{"add of views into a view", func(b *builder) *model {
			x := b.embed(70, 1)
			y := b.linear(x, 61, false)
			out := b.linear(x, 70, false)
			b.op(plan.OpAdd, 0, b.view(x, 33, 37), b.view(y, 5, 37)).F[plan.AddScale] = 1
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = b.view(out, 7, 37)
			return b.logits(out, 0)
		}},
		{"operations after rows were picked", func(b *builder) *model {
			rows := b.rows(b.embed(40, 1))
			n := b.rmsNorm(b.add(rows, b.linear(rows, 40, true), 1), 40, 0)
			return b.logitsOf(n, b.normal(0, 0.3, opVocab, 40), 0)
		}},
	}
}

func normOps() []operation {
	norm := func(width, group, weights int, gate plan.Gate) func(b *builder) *model {
		return func(b *builder) *model {
			x := b.embed(width, 2)
			w, y := int32(plan.None), int32(plan.None)
			if weights > 0 {
				w = b.normal(1, 0.3, weights)
			}
			if gate != plan.GateNone {
				y = b.linear(x, width, false)
			}
			return b.logits(b.normOf(x, y, group, w, 0, gate), 0)
		}
	}
	layer := func(width, group, weights, biases int) func(b *builder) *model {
		return func(b *builder) *model { return b.logits(b.layerNorm(b.embed(width, 2), group, weights, biases), 0) }
	}
	return []operation{
		{"rmsnorm", norm(72, 72, 72, plan.GateNone)},
		{"rmsnorm of an odd width", norm(37, 37, 37, plan.GateNone)},
		{"rmsnorm without weights", norm(40, 40, 0, plan.GateNone)},
		{"rmsnorm per head", norm(72, 24, 24, plan.GateNone)},
		{"rmsnorm per head, weights for each", norm(72, 24, 72, plan.GateNone)},
		{"rmsnorm per head, no weights", norm(60, 12, 0, plan.GateNone)},
		{"rmsnorm, gate after", norm(44, 44, 44, plan.GateAfter)},
		{"rmsnorm, gate before", norm(44, 44, 44, plan.GateBefore)},
		{"rmsnorm per head, gate after", norm(60, 20, 20, plan.GateAfter)},
		{"rmsnorm per head, gate before, weights for each", norm(60, 20, 60, plan.GateBefore)},
		{"rmsnorm, gate of a sigmoid", norm(44, 44, 44, plan.GateSigmoid)},
		{"rmsnorm per head, gate of a sigmoid", norm(60, 20, 60, plan.GateSigmoid)},
		{"rmsnorm, gate of a magnitude", norm(44, 44, 0, plan.GateMagnitude)},
		{"rmsnorm per head, gate of a magnitude", norm(60, 20, 20, plan.GateMagnitude)},
		{"rmsnorm in place, gate of a magnitude", func(b *builder) *model {
			x := b.embed(40, 2)
			b.normOf(x, b.linear(x, 40, false), 40, plan.None, 0, plan.GateMagnitude)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = x
			return b.logits(x, 0)
		}},
		{"rmsnorm of values near its epsilon", func(b *builder) *model { return b.logits(b.rmsNorm(b.embed(40, 0.004), 40, 0), 0) }},
		{"rmsnorm shifted weights", func(b *builder) *model { return b.logits(b.rmsNorm(b.embed(36, 1), 36, 1), 0) }},
		{"rmsnorm in place", func(b *builder) *model {
			x := b.embed(40, 2)
			b.rmsNorm(x, 8, 1)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = x
			return b.logits(x, 0)
		}},
		{"rmsnorm of a view in place", func(b *builder) *model {
			x := b.embed(50, 2)
			v := b.view(x, 13, 24)
			b.rmsNorm(v, 8, 0)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = v
			return b.logits(x, 0)
		}},
		{"layernorm", layer(72, 72, 72, 72)},
		{"layernorm of an odd width, no bias", layer(37, 37, 37, 0)},
		{"layernorm without weights", layer(40, 40, 0, 0)},
		{"layernorm per head", layer(72, 24, 24, 24)},
		{"layernorm per head, weights for each", layer(72, 24, 72, 0)},
		{"layernorm, shifted weights", func(b *builder) *model {
			x := b.layerNorm(b.embed(40, 2), 20, 20, 20)
			b.plan.Ops[len(b.plan.Ops)-1].F[plan.NormShift] = 1
			return b.logits(x, 0)
		}},
		{"layernorm far from zero", func(b *builder) *model {
			x := b.embed(40, 0.5)
			op := b.linearOp(x, 40, false)
			op.Weight[1] = b.normal(30, 0.1, 40)
			return b.logits(b.layerNorm(op.Out[0], 40, 40, 40), 0)
		}},
		{"layernorm in place", func(b *builder) *model {
			x := b.embed(40, 2)
			b.layerNorm(x, 10, 10, 10)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = x
			return b.logits(x, 0)
		}},
	}
}

func linearOps() []operation {
	var cases []operation
	for _, width := range [][2]int{{40, 56}, {72, 40}, {37, 53}, {8, 8}, {264, 24}, {33, 130}, {24, 1}} {
		for _, bias := range []bool{false, true} {
			cases = append(cases, operation{
				fmt.Sprintf("linear %d to %d, bias %v", width[0], width[1], bias),
				func(b *builder) *model { return b.logits(b.linear(b.embed(width[0], 1), width[1], bias), 0) },
			})
		}
	}
	for _, width := range [][3]int{{4, 32, 64}, {3, 21, 39}, {1, 16, 24}, {7, 7, 14}} {
		cases = append(cases, operation{
			fmt.Sprintf("linear_heads, %d of %d to %d", width[0], width[1], width[2]),
			func(b *builder) *model { return b.logits(b.linearHeads(b.embed(width[1], 1), width[0], width[2]), 0) },
		})
	}
	return append(cases,
		operation{"linear from a view", func(b *builder) *model {
			return b.logits(b.linear(b.view(b.embed(61, 1), 11, 41), 40, true), 0)
		}},
		operation{"linear into views", func(b *builder) *model {
			x := b.embed(40, 1)
			out := b.value(67)
			for _, v := range []int32{b.view(out, 0, 30), b.view(out, 30, 37)} {
				op := b.linearOp(x, b.width(v), true)
				op.Out[0] = v
			}
			return b.logits(out, 0)
		}},
		operation{"linear_heads from a view into a view", func(b *builder) *model {
			x := b.embed(50, 1)
			out := b.linear(x, 50, false)
			b.linearHeads(b.view(x, 9, 24), 3, 36)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = b.view(out, 10, 36)
			return b.logits(out, 0)
		}},
	)
}

// unary are the activations of one input.
var unary = []plan.Activation{
	plan.ActNone, plan.ActSilu, plan.ActGelu, plan.ActGeluTanh, plan.ActRelu, plan.ActRelu2, plan.ActSigmoid,
	plan.ActTanh, plan.ActQuickGelu, plan.ActClip,
}

// pairs are the gated ones.
var pairs = append(unary[1:len(unary):len(unary)], plan.ActClampedSwiGLU)

// epilogueOps are what lowering adds to a linear operation.
func epilogueOps() []operation {
	var cases []operation
	for _, act := range unary[1:] {
		cases = append(cases, operation{fmt.Sprintf("linear, activation %d", act), func(b *builder) *model {
			op := b.linearOp(b.embed(40, 2), 61, act%2 == 0)
			op.I[plan.LinearAct] = int32(act)
			clamp(op, act)
			return b.logits(op.Out[0], 0)
		}})
	}
	for _, act := range pairs {
		cases = append(cases, operation{fmt.Sprintf("linear, gated %d", act), func(b *builder) *model {
			return b.logits(b.gated(b.embed(40, 2), 61, act%2 == 0, act).Out[0], 0)
		}})
	}
	for _, scale := range []float32{1, 0.22} {
		cases = append(cases, operation{fmt.Sprintf("linear, residual scaled by %v", scale), func(b *builder) *model {
			x := b.embed(40, 1)
			op := b.linearOp(b.linear(x, 72, false), 40, true)
			op.In[1], op.F[plan.LinearScale] = x, scale
			return b.logits(op.Out[0], 0)
		}})
	}
	return append(cases,
		operation{"linear, gated, residual in place", func(b *builder) *model {
			x := b.embed(40, 1)
			op := b.gated(b.linear(x, 33, false), 40, true, plan.ActSilu)
			op.In[1], op.F[plan.LinearScale], op.Out[0] = x, 0.7, x
			return b.logits(x, 0)
		}},
		operation{"linear, activation and residual of views into a view", func(b *builder) *model {
			x := b.embed(80, 1)
			out := b.linear(x, 90, false)
			op := b.linearOp(b.view(x, 7, 40), 37, true)
			op.I[plan.LinearAct], op.F[plan.LinearScale] = int32(plan.ActRelu2), -0.4
			op.In[1] = b.view(x, 41, 37)
			op.Out[0] = b.view(out, 50, 37)
			return b.logits(out, 0)
		}},
	)
}

func activateOps() []operation {
	var cases []operation
	for _, act := range unary {
		cases = append(cases, operation{fmt.Sprintf("activate %d", act), func(b *builder) *model {
			return b.logits(b.activate(act, b.linear(b.embed(40, 2), 61, false), plan.None), 0)
		}})
	}
	for _, act := range pairs {
		cases = append(cases,
			operation{fmt.Sprintf("activate gated %d", act), func(b *builder) *model {
				x := b.embed(40, 2)
				return b.logits(b.activate(act, b.linear(x, 104, false), b.linear(x, 104, false)), 0)
			}},
			operation{fmt.Sprintf("activate gated %d by one column", act), func(b *builder) *model {
				x := b.embed(40, 1)
				return b.logits(b.activate(act, b.linear(x, 1, false), b.linear(x, 53, false)), 0)
			}},
		)
	}
	for _, beta := range []float32{0, 0.5} {
		cases = append(cases, operation{fmt.Sprintf("activate, xielu with %v", beta), func(b *builder) *model {
			return b.logits(b.xielu(b.linear(b.embed(40, 2), 61, false), beta), 0)
		}})
	}
	return append(cases, operation{"activate of views into a view", func(b *builder) *model {
		x := b.embed(40, 2)
		both, out := b.linear(x, 74, false), b.linear(x, 60, false)
		b.activate(plan.ActSilu, b.view(both, 0, 37), b.view(both, 37, 37))
		b.plan.Ops[len(b.plan.Ops)-1].Out[0] = b.view(out, 20, 37)
		return b.logits(out, 0)
	}})
}

func ropeOps() []operation {
	rope := func(width, headDim, rotary int, scale float32, change func(b *builder, op *plan.Op)) func(b *builder) *model {
		return func(b *builder) *model {
			x := b.embed(width, 1)
			op := b.rope(x, headDim, rotary, scale)
			if change != nil {
				change(b, op)
			}
			return b.logits(x, 0)
		}
	}
	dynamic := func(b *builder, op *plan.Op) {
		b.plan.RopeOriginal, b.plan.RopeDynamic = 7, true
		op.I[plan.RopeOriginal], op.F[plan.RopeFactor], op.F[plan.RopeTheta] = 7, 2.5, 10000
	}
	long := func(b *builder, op *plan.Op) {
		b.plan.RopeOriginal = 7
		op.I[plan.RopeOriginal], op.I[plan.RopeLong] = 7, b.table(frequencies(int(op.I[plan.RopeRotary]), 0.31)...)
	}
	return []operation{
		{"rope", rope(48, 16, 16, 1, nil)},
		{"rope of a part, scaled", rope(120, 40, 12, 1.3, nil)},
		{"rope of the last part", rope(120, 40, 12, 1, func(b *builder, op *plan.Op) { op.I[plan.RopeFirst] = 28 })},
		{"rope of two dimensions", rope(24, 8, 2, 1, nil)},
		{"rope interleaved", rope(48, 16, 16, 1, func(b *builder, op *plan.Op) { op.I[plan.RopeInterleaved] = 1 })},
		{"rope interleaved of a middle part", rope(90, 30, 14, 0.9, func(b *builder, op *plan.Op) {
			op.I[plan.RopeInterleaved], op.I[plan.RopeFirst] = 1, 5
		})},
		{"rope with a long table", rope(48, 16, 16, 1, long)},
		{"rope with a long table, interleaved", rope(48, 24, 10, 1.2, func(b *builder, op *plan.Op) {
			op.I[plan.RopeInterleaved] = 1
			long(b, op)
		})},
		{"rope dynamic", rope(48, 16, 16, 1, dynamic)},
		{"rope dynamic of a part", rope(48, 24, 12, 1, func(b *builder, op *plan.Op) {
			op.I[plan.RopeFirst] = 12
			dynamic(b, op)
		})},
		{"rope of a view", func(b *builder) *model {
			x := b.embed(70, 1)
			b.rope(b.view(x, 19, 48), 24, 24, 1)
			return b.logits(x, 0)
		}},
	}
}

// routeOps show what was chosen and the weights: by experts without a hidden
// layer to speak of, whose outputs are their own.
func routeOps() []operation {
	var cases []operation
	for _, r := range []routing{
		{experts: 5, topK: 1, score: plan.ScoreSoftmax},
		{experts: 8, topK: 3, score: plan.ScoreSoftmax},
		{experts: 8, topK: 3, score: plan.ScoreSoftmax, normalize: true},
		{experts: 8, topK: 8, score: plan.ScoreSoftmax, bias: true, scale: 2},
		{experts: 9, topK: 2, score: plan.ScoreSoftmaxChosen},
		{experts: 9, topK: 4, score: plan.ScoreSoftmaxChosen, bias: true},
		{experts: 16, topK: 4, score: plan.ScoreSigmoid},
		{experts: 16, topK: 4, score: plan.ScoreSigmoid, bias: true, normalize: true, scale: 2.5},
		{experts: 16, topK: 3, score: plan.ScoreSigmoid, groups: 4, topGroups: 2, bias: true, normalize: true},
		{experts: 12, topK: 4, score: plan.ScoreSoftmax, groups: 3, topGroups: 1},
		{experts: 70, topK: 9, score: plan.ScoreSoftmax, normalize: true},
		{experts: 16, topK: 4, score: plan.ScoreSoftmax, groups: 4, topGroups: 2, groupBest: true, scale: 16},
		{experts: 8, topK: 3, score: plan.ScoreSigmoid, normalize: true, factors: true},
		{experts: 9, topK: 4, score: plan.ScoreSoftmaxChosen, factors: true, scale: 0.5},
		{experts: 16, topK: 2, score: plan.ScoreSparseMixer, jitter: 0.01},
		{experts: 16, topK: 3, score: plan.ScoreSparseMixer, jitter: 0.6},
	} {
		cases = append(cases, operation{fmt.Sprintf("route %+v", r), func(b *builder) *model {
			x := b.embed(32, 1)
			chosen, weights := b.route(x, r)
			return b.logits(b.experts(x, chosen, weights, r.experts, 8, plan.ActNone, false, true), 0)
		}})
	}
	return append(cases, operation{"route among equals", func(b *builder) *model {
		// Logits of 0 for all: the first experts are chosen.
		x := b.embed(32, 1)
		op := b.linearOp(x, 6, false)
		op.Weight[0] = b.normal(0, 0, 6, 32)
		logits, chosen, weights := op.Out[0], b.value(2), b.value(2)
		op = b.op(plan.OpRoute, 0, logits)
		op.Out = [plan.MaxOut]int32{chosen, weights}
		op.I[plan.RouteTopK], op.I[plan.RouteGroups], op.I[plan.RouteTopGroups], op.F[plan.RouteScale] = 2, 1, 1, 1
		return b.logits(b.experts(x, chosen, weights, 6, 12, plan.ActNone, false, true), 0)
	}})
}

func expertOps() []operation {
	var cases []operation
	for _, act := range pairs {
		cases = append(cases, operation{fmt.Sprintf("experts gated %d", act), func(b *builder) *model {
			x := b.embed(40, 2)
			chosen, weights := b.route(x, routing{experts: 6, topK: 2, score: plan.ScoreSoftmax})
			return b.logits(b.experts(x, chosen, weights, 6, 25, act, true, act%2 == 1), 0)
		}})
	}
	for _, act := range unary {
		cases = append(cases, operation{fmt.Sprintf("experts ungated %d", act), func(b *builder) *model {
			x := b.embed(40, 2)
			chosen, weights := b.route(x, routing{experts: 6, topK: 2, score: plan.ScoreSoftmax})
			return b.logits(b.experts(x, chosen, weights, 6, 25, act, false, act%2 == 1), 0)
		}})
	}
	for _, k := range []int{1, 3} {
		cases = append(cases, operation{fmt.Sprintf("experts, inputs scaled, %d each", k), func(b *builder) *model {
			x := b.embed(40, 2)
			chosen, weights := b.route(x, routing{experts: 6, topK: k, score: plan.ScoreSigmoid})
			out := b.experts(x, chosen, weights, 6, 25, plan.ActSilu, true, false)
			b.plan.Ops[len(b.plan.Ops)-1].I[plan.ExpertsScaleInput] = 1
			return b.logits(out, 0)
		}})
	}
	return append(cases, operation{"experts of views into a view", func(b *builder) *model {
		x := b.embed(50, 2)
		out := b.linear(x, 60, false)
		in := b.view(x, 9, 33)
		chosen, weights := b.route(in, routing{experts: 6, topK: 2, score: plan.ScoreSoftmax})
		b.experts(in, chosen, weights, 6, 25, plan.ActSilu, true, true)
		b.plan.Ops[len(b.plan.Ops)-1].Out[0] = b.view(out, 20, 33)
		return b.logits(out, 0)
	}})
}

func recurrentOps() []operation {
	var cases []operation
	for _, kernel := range []int{2, 3, 4, 7} {
		for _, act := range []plan.Activation{plan.ActNone, plan.ActSilu} {
			cases = append(cases, operation{fmt.Sprintf("conv of %d, activation %d", kernel, act), func(b *builder) *model {
				return b.logits(b.conv(b.embed(41, 1), kernel, kernel%2 == 0, act), 0)
			}})
		}
	}
	for i, r := range []recurrence{
		{heads: 1, groups: 1, keyWidth: 8, valueWidth: 8},
		{heads: 4, groups: 2, keyWidth: 12, valueWidth: 10},
		{heads: 3, groups: 3, keyWidth: 33, valueWidth: 17},
		{heads: 2, groups: 1, keyWidth: 64, valueWidth: 128},
		{heads: 6, groups: 1, keyWidth: 5, valueWidth: 3},
	} {
		cases = append(cases,
			operation{fmt.Sprintf("gated_delta %+v", r), func(b *builder) *model {
				eps := float32(1e-6)
				if i == 0 { // as they are: small enough that the rule is stable
					x := b.embed(40, 0.3)
					return b.logits(b.gatedDelta(x, r, 0), 0)
				}
				return b.logits(b.gatedDelta(b.embed(40, 1), r, eps), 0)
			}},
			operation{fmt.Sprintf("ssm %+v", r), func(b *builder) *model { return b.logits(b.ssm(b.embed(40, 1), r), 0) }},
		)
	}
	for i, r := range []recurrence{
		{heads: 1, groups: 1, keyWidth: 8, valueWidth: 8, channels: true},
		{heads: 4, groups: 4, keyWidth: 33, valueWidth: 17, channels: true},
		{heads: 4, groups: 2, keyWidth: 12, valueWidth: 10, channels: true, negative: true},
		{heads: 3, groups: 1, keyWidth: 24, valueWidth: 16, negative: true},
		{heads: 2, groups: 2, keyWidth: 64, valueWidth: 64, channels: true},
	} {
		cases = append(cases, operation{fmt.Sprintf("gated_delta %+v", r), func(b *builder) *model {
			if i == 0 {
				return b.logits(b.gatedDelta(b.embed(40, 0.3), r, 0), 0)
			}
			return b.logits(b.gatedDelta(b.embed(40, 1), r, 1e-6), 0)
		}})
	}
	for _, w := range [][2]int{{16, 16}, {41, 7}, {5, 1}, {96, 32}, {130, 3}} {
		cases = append(cases, operation{fmt.Sprintf("selective_scan %d by %d", w[0], w[1]), func(b *builder) *model {
			return b.logits(b.selectiveScan(b.embed(40, 1), w[0], w[1]), 0)
		}})
	}
	return append(cases,
		operation{"selective_scan of views into a view", func(b *builder) *model {
			x := b.embed(40, 1)
			all := b.linear(x, 2*23+2*6, false)
			out := b.linear(x, 31, false)
			b.selectiveScan(x, 23, 6)
			op := &b.plan.Ops[len(b.plan.Ops)-1]
			in := []int32{b.view(all, 0, 23), b.view(all, 23, 23), b.view(all, 46, 6), b.view(all, 52, 6)}
			copy(op.In[:], in)
			op.Out[0] = b.view(out, 5, 23)
			return b.logits(out, 0)
		}},
		operation{"conv of a view into a view", func(b *builder) *model {
			x := b.embed(50, 1)
			out := b.linear(x, 60, false)
			b.conv(b.view(x, 9, 33), 4, true, plan.ActSilu)
			b.plan.Ops[len(b.plan.Ops)-1].Out[0] = b.view(out, 20, 33)
			return b.logits(out, 0)
		}},
		operation{"gated_delta of views into a view", func(b *builder) *model {
			r := recurrence{heads: 4, groups: 2, keyWidth: 6, valueWidth: 5}
			x := b.embed(40, 1)
			all := b.linear(x, 2*12+20+8, false)
			out := b.linear(x, 31, false)
			b.gatedDelta(x, r, 1e-6)
			op := &b.plan.Ops[len(b.plan.Ops)-1]
			in := []int32{b.view(all, 0, 12), b.view(all, 12, 12), b.view(all, 24, 20), b.view(all, 44, 4), b.view(all, 48, 4)}
			copy(op.In[:], in)
			op.Out[0] = b.view(out, 11, 20)
			return b.logits(out, 0)
		}},
		operation{"ssm of views into a view", func(b *builder) *model {
			r := recurrence{heads: 4, groups: 2, keyWidth: 6, valueWidth: 5}
			x := b.embed(40, 1)
			all := b.linear(x, 20+2*12+4, false)
			out := b.linear(x, 31, false)
			b.ssm(x, r)
			op := &b.plan.Ops[len(b.plan.Ops)-1]
			in := []int32{b.view(all, 0, 20), b.view(all, 20, 12), b.view(all, 32, 12), b.view(all, 44, 4)}
			copy(op.In[:], in)
			op.Out[0] = b.view(out, 11, 20)
			return b.logits(out, 0)
		}},
	)
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
		{heads: 4, kvHeads: 2, headDim: 24, valueWidth: 16},
		{heads: 3, kvHeads: 1, headDim: 13, valueWidth: 33, window: 20},
		{heads: 4, kvHeads: 2, headDim: 16, sinks: true},
		{heads: 8, kvHeads: 2, headDim: 64, window: 12, sinks: true},
		{heads: 4, kvHeads: 4, headDim: 16, slopes: true},
		{heads: 6, kvHeads: 1, headDim: 32, valueWidth: 40, window: 9, cap: 2, sinks: true, slopes: true},
		{heads: 4, kvHeads: 2, headDim: 16, chunk: 16},
		{heads: 5, kvHeads: 1, headDim: 24, chunk: 11, sinks: true},
		{heads: 2, kvHeads: 2, headDim: 40, chunk: 1},
		{heads: 4, kvHeads: 1, headDim: 64, chunk: 20, window: 7, cap: 2},
	} {
		for _, format := range formats {
			t.Run(fmt.Sprintf("%+v/%v", h, format), func(t *testing.T) {
				b := newBuilder(100+uint64(i), vocab, format)
				x := b.embed(40, 1)
				q := b.linear(x, h.heads*h.headDim, false)
				k := b.linear(x, h.kvHeads*h.headDim, false)
				v := b.linear(x, h.kvHeads*h.values(), false)
				rotary := h.headDim / 2 * 2
				b.rope(q, h.headDim, rotary, 1)
				b.rope(k, h.headDim, rotary, 1)
				m := b.logits(b.attend(q, k, v, h), 0)
				s.compare(t, m, format, attendSome(vocab))
			})
		}
	}
	for i, l := range []struct{ heads, first, rest, values, window int }{
		{1, 16, 0, 16, 0}, {4, 24, 8, 24, 0}, {3, 33, 7, 20, 9}, {16, 64, 16, 64, 0}, {2, 512, 64, 512, 0},
	} {
		for _, format := range formats {
			t.Run(fmt.Sprintf("latent %+v/%v", l, format), func(t *testing.T) {
				b := newBuilder(130+uint64(i), vocab, format)
				x := b.embed(40, 1)
				cache := b.cache(plan.Cache{
					Kind: plan.CacheLatent, Heads: 1, KeyWidth: int32(l.first + l.rest), ValueWidth: int32(l.values), Window: int32(l.window),
				})
				q, kept := b.linear(x, l.heads*l.first, false), b.linear(x, l.first, false)
				rest, key := int32(plan.None), int32(plan.None)
				if l.rest > 0 {
					rest, key = b.linear(x, l.heads*l.rest, false), b.linear(x, l.rest, false)
				}
				b.op(plan.OpCacheWrite, 0, kept, key).I[plan.WriteCache] = cache
				h := heads{heads: l.heads, headDim: l.first + l.rest, valueWidth: l.values, window: l.window}
				s.compare(t, b.logits(b.attendOver(cache, q, rest, h), 0), format, attendSome(vocab))
			})
		}
	}
}

// attendSome has more positions than any window of the tests, over several
// pages.
func attendSome(vocab int) func(h *host) []answer {
	return func(h *host) []answer {
		a := h.start(prompt(3, 70, vocab), sample.Greedy())
		b := h.start(prompt(4, 70, vocab), sample.Greedy())
		out := h.step(chunk{seq: a, n: 50, score: true}, chunk{seq: b, n: 7})
		out = append(out, h.step(chunk{seq: b, n: 33, score: true}, chunk{seq: a, n: 1, score: true})...)
		for range 4 {
			out = append(out, h.step(chunk{seq: a, n: 1, score: true}, chunk{seq: b, n: 1, score: true})...)
		}
		return out
	}
}

// layers compares whole small models, and experts with few and with many
// tokens of each.
func (s *suite) layers(t *testing.T) {
	for _, tt := range models() {
		for _, format := range formats {
			t.Run(fmt.Sprintf("%s/%v", tt.name, format), func(t *testing.T) {
				m := tt.build(format)
				s.compare(t, m, format, scoreSome(m.plan.Vocab))
			})
		}
	}
	for _, n := range []int{1, 2, 90} {
		t.Run(fmt.Sprintf("experts of %d tokens", n), func(t *testing.T) {
			m := mixture(plan.F32)
			s.compare(t, m, plan.F32, func(h *host) []answer {
				return h.step(chunk{seq: h.start(prompt(9, n, m.plan.Vocab), sample.Greedy()), n: n, score: true})
			})
		})
	}
	// Experts of as many rows as the largest blocks of a backend take.
	for _, format := range s.formats(t) {
		t.Run(fmt.Sprintf("each expert of 90 tokens/%v", format), func(t *testing.T) {
			b := newBuilder(215, 28, format)
			const hidden, experts = 64, 2
			x := b.rmsNorm(b.embed(hidden, 1), hidden, 0)
			chosen, weights := b.route(x, routing{experts: experts, topK: experts, score: plan.ScoreSoftmax})
			m := b.logits(b.experts(x, chosen, weights, experts, 96, plan.ActSilu, true, true), 0)
			s.compare(t, m, format, func(h *host) []answer {
				a, b := h.start(prompt(9, 90, m.plan.Vocab), sample.Greedy()), h.start(prompt(8, 50, m.plan.Vocab), sample.Greedy())
				out := h.step(chunk{seq: a, n: 90, score: true})
				out = append(out, h.step(chunk{seq: b, n: 47, score: true})...)
				return append(out, h.step(chunk{seq: b, n: 3, score: true})...)
			})
		})
	}
}
