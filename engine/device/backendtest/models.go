package backendtest

import "github.com/millrace-ai/millrace/engine/plan"

// shape is the size of a small transformer.
type shape struct {
	heads
	vocab, hidden, inner int
	layers               int
	bias, gelu           bool
	normShift            float32
	headNorm             bool    // queries and keys normed per head
	alternate            bool    // the window on even layers only
	finalCap             float32 // of the logits
}

// transformer builds a Llama-like model.
func transformer(seed uint64, format plan.Format, s shape) *model {
	b := newBuilder(seed, s.vocab, format)
	x := b.embed(s.hidden, 1)
	act := plan.ActSilu
	if s.gelu {
		act = plan.ActGeluTanh
	}
	for layer := range s.layers {
		h := s.heads
		if s.alternate && layer%2 == 1 {
			h.window = 0
		}
		n := b.rmsNorm(x, s.hidden, s.normShift)
		q := b.linear(n, h.heads*h.headDim, s.bias)
		k := b.linear(n, h.kvHeads*h.headDim, s.bias)
		v := b.linear(n, h.kvHeads*h.headDim, s.bias)
		if s.headNorm {
			q, k = b.rmsNorm(q, h.headDim, s.normShift), b.rmsNorm(k, h.headDim, s.normShift)
		}
		b.rope(q, h.headDim, h.headDim, 1)
		b.rope(k, h.headDim, h.headDim, 1)
		x = b.add(x, b.linear(b.attend(q, k, v, h), s.hidden, s.bias), 1)

		n = b.rmsNorm(x, s.hidden, s.normShift)
		gated := b.activate(act, b.linear(n, s.inner, false), b.linear(n, s.inner, false))
		x = b.add(x, b.linear(gated, s.hidden, false), 1)
	}
	return b.logits(b.rmsNorm(x, s.hidden, s.normShift), s.finalCap)
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

// namedModel is a small model of any kind.
type namedModel struct {
	name  string
	build func(format plan.Format) *model
}

// models are small models that together have all operations and caches.
func models() []namedModel {
	var out []namedModel
	for i, s := range shapes {
		out = append(out, namedModel{s.name, func(format plan.Format) *model { return transformer(200+uint64(i), format, s.shape) }})
	}
	return append(out,
		namedModel{"groups of caches, sinks, ALiBi", groups},
		namedModel{"lowered", lowered},
		namedModel{"experts", mixture},
		namedModel{"latent", latent},
		namedModel{"recurrent", recurrent},
		namedModel{"recurrent and attention", hybrid},
		namedModel{"selective scans", selective},
		namedModel{"Kimi delta attention and latents", kimi},
		namedModel{"chunks and tables beside", chunks},
	)
}

// groups has three groups of caches, and layers that read the cache of
// another, in the manner of GPT-2: learned positions, layer norms, no gate.
func groups(format plan.Format) *model {
	b := newBuilder(210, 31, format)
	const hidden = 48
	x := b.add(b.embed(hidden, 1), b.position(hidden, 128, 2), 0.7)
	for layer, h := range []heads{
		{heads: 4, kvHeads: 2, headDim: 16, slopes: true},
		{heads: 6, kvHeads: 3, headDim: 8, valueWidth: 24, window: 20, sinks: true},
		{heads: 3, kvHeads: 1, headDim: 24, valueWidth: 8, window: 5},
		{heads: 2, kvHeads: 1, headDim: 40, sinks: true, slopes: true},
	} {
		n := b.layerNorm(x, hidden, hidden, hidden)
		q, k, v := b.linear(n, h.heads*h.headDim, true), b.linear(n, h.kvHeads*h.headDim, true), b.linear(n, h.kvHeads*h.values(), true)
		x = b.add(x, b.linear(b.attend(q, k, v, h), hidden, true), 1)
		if layer == 2 { // layers of their own queries over the caches of others
			over := heads{heads: 6, kvHeads: 3, headDim: 8, valueWidth: 24, window: 11}
			x = b.add(x, b.linear(b.attendOver(1, b.linear(n, 48, false), plan.None, over), hidden, true), 1)
			over = heads{heads: 2, kvHeads: 2, headDim: 16, sight: plan.SightCausal}
			x = b.add(x, b.linear(b.attendOver(0, b.linear(n, 32, false), plan.None, over), hidden, true), 1)
		}
		n = b.layerNorm(x, hidden, hidden, 0)
		x = b.add(x, b.linear(b.activate(plan.ActGelu, b.linear(n, 70, true), plan.None), hidden, true), 1)
	}
	return b.logits(b.layerNorm(x, hidden, hidden, hidden), 0)
}

// lowered is a transformer as lowering leaves it: one matrix for queries, keys
// and values, which are views, and all that follows a matrix in one operation.
func lowered(format plan.Format) *model {
	b := newBuilder(211, 29, format)
	const hidden, dim = 56, 16
	h := heads{heads: 4, kvHeads: 2, headDim: dim}
	x := b.embed(hidden, 1)
	for range 2 {
		qkv := b.linear(b.rmsNorm(x, hidden, 0), (4+2+2)*dim, true)
		q, k, v := b.view(qkv, 0, 4*dim), b.view(qkv, 4*dim, 2*dim), b.view(qkv, 6*dim, 2*dim)
		b.rope(q, dim, dim, 1)
		b.rope(k, dim, dim, 1)
		op := b.linearOp(b.attend(q, k, v, h), hidden, false)
		op.In[1], op.F[plan.LinearScale] = x, 1
		mid := op.Out[0]
		op = b.linearOp(b.gated(b.rmsNorm(mid, hidden, 0), 72, false, plan.ActSilu).Out[0], hidden, true)
		op.In[1], op.F[plan.LinearScale] = mid, 0.5
		x = op.Out[0]
	}
	return b.logits(b.rmsNorm(x, hidden, 0), 0)
}

// mixture has layers of experts and one that sees every token, through a gate
// of one column.
func mixture(format plan.Format) *model {
	b := newBuilder(212, 28, format)
	const hidden, dim = 40, 16
	h := heads{heads: 3, kvHeads: 1, headDim: dim}
	x := b.embed(hidden, 1)
	for _, r := range []routing{
		{experts: 8, topK: 2, score: plan.ScoreSoftmax, normalize: true},
		{experts: 12, topK: 3, score: plan.ScoreSigmoid, groups: 4, topGroups: 2, bias: true, normalize: true, scale: 1.5},
	} {
		n := b.rmsNorm(x, hidden, 0)
		q, k, v := b.linear(n, 3*dim, false), b.linear(n, dim, false), b.linear(n, dim, false)
		b.rope(q, dim, dim, 1)
		b.rope(k, dim, dim, 1)
		x = b.add(x, b.linear(b.attend(q, k, v, h), hidden, false), 1)
		n = b.rmsNorm(x, hidden, 0)
		chosen, weights := b.route(n, r)
		asked := b.experts(n, chosen, weights, r.experts, 24, plan.ActSilu, true, false)
		always := b.linear(b.activate(plan.ActSilu, b.linear(n, 24, false), b.linear(n, 24, false)), hidden, false)
		x = b.add(x, b.add(asked, b.activate(plan.ActSigmoid, b.linear(n, 1, false), always), 1), 1)
	}
	return b.logits(b.rmsNorm(x, hidden, 0), 0)
}

// latent is attention over a latent cache (DeepSeek-V2, arXiv 2405.04434, with
// the matrices of keys and values on the side of the queries), interleaved
// rotation of a part.
func latent(format plan.Format) *model {
	b := newBuilder(213, 30, format)
	const hidden, n, rank, nope, turned, value = 44, 3, 24, 12, 8, 10
	x := b.embed(hidden, 1)
	for range 2 {
		norm := b.rmsNorm(x, hidden, 0)
		q, rest := b.linear(norm, n*nope, false), b.linear(norm, n*turned, false)
		kv := b.linear(norm, rank+turned, false)
		key := b.view(kv, rank, turned)
		b.rope(rest, turned, turned, 1).I[plan.RopeInterleaved] = 1
		b.rope(key, turned, turned, 1).I[plan.RopeInterleaved] = 1
		kept := b.rmsNorm(b.view(kv, 0, rank), rank, 0)
		cache := b.cache(plan.Cache{Kind: plan.CacheLatent, Heads: 1, KeyWidth: rank + turned, ValueWidth: rank})
		b.op(plan.OpCacheWrite, 0, kept, key).I[plan.WriteCache] = cache
		seen := b.attendOver(cache, b.linearHeads(q, n, n*rank), rest, heads{heads: n, kvHeads: 1, headDim: nope + turned, valueWidth: rank})
		x = b.add(x, b.linear(b.linearHeads(seen, n, n*value), hidden, false), 1)
		norm = b.rmsNorm(x, hidden, 0)
		x = b.add(x, b.linear(b.activate(plan.ActSilu, b.linear(norm, 60, false), b.linear(norm, 60, false)), hidden, false), 1)
	}
	return b.logits(b.rmsNorm(x, hidden, 0), 0)
}

// recurrentLayer is a convolution, a recurrence and a gated norm.
func recurrentLayer(b *builder, x int32, delta bool) int32 {
	hidden := b.width(x)
	n := b.rmsNorm(x, hidden, 0)
	mixed := b.conv(b.linear(n, 36, false), 4, !delta, plan.ActSilu)
	gate := b.linear(n, 4*10, false)
	var seen int32
	if delta {
		seen = b.gatedDelta(mixed, recurrence{heads: 4, groups: 2, keyWidth: 12, valueWidth: 10}, 1e-6)
		seen = b.normOf(seen, gate, 10, b.normal(1, 0.2, 10), 0, plan.GateAfter)
	} else {
		seen = b.ssm(mixed, recurrence{heads: 4, groups: 1, keyWidth: 9, valueWidth: 10})
		seen = b.normOf(seen, gate, 20, b.normal(1, 0.2, 40), 0, plan.GateBefore)
	}
	return b.add(x, b.linear(seen, hidden, false), 1)
}

// recurrent has no cache in pages at all.
func recurrent(format plan.Format) *model {
	b := newBuilder(214, 27, format)
	x := b.embed(40, 1)
	x = recurrentLayer(b, x, true)
	x = recurrentLayer(b, x, false)
	x = recurrentLayer(b, x, true)
	return b.logits(b.rmsNorm(x, 40, 0), 0)
}

// hybrid has recurrent layers, attention and a window.
func hybrid(format plan.Format) *model {
	b := newBuilder(215, 26, format)
	const hidden, dim = 40, 16
	x := b.embed(hidden, 1)
	for _, window := range []int{0, 12} {
		x = recurrentLayer(b, x, window == 0)
		n := b.rmsNorm(x, hidden, 0)
		q, k, v := b.linear(n, 2*dim, false), b.linear(n, dim, false), b.linear(n, dim, false)
		b.rope(q, dim, dim/2, 1)
		b.rope(k, dim, dim/2, 1)
		x = b.add(x, b.linear(b.attend(q, k, v, heads{heads: 2, kvHeads: 1, headDim: dim, window: window}), hidden, false), 1)
	}
	return b.logits(b.rmsNorm(x, hidden, 0), 0)
}

// selective is in the manner of Jamba: selective scans, whose step sizes come through
// a narrow matrix and a norm, attention and experts.
func selective(format plan.Format) *model {
	b := newBuilder(216, 27, format)
	const hidden, inner, state, dim = 40, 72, 12, 16
	x := b.embed(hidden, 1)
	for layer := range 2 {
		n := b.rmsNorm(x, hidden, 0)
		mixed, gate := b.conv(b.linear(n, inner, false), 4, true, plan.ActSilu), b.linear(n, inner, false)
		seen := b.selectiveScan(mixed, inner, state)
		x = b.add(x, b.linear(b.activate(plan.ActSilu, gate, seen), hidden, false), 1)
		n = b.rmsNorm(x, hidden, 0)
		if layer == 1 {
			q, k, v := b.linear(n, 2*dim, false), b.linear(n, dim, false), b.linear(n, dim, false)
			x = b.add(x, b.linear(b.attend(q, k, v, heads{heads: 2, kvHeads: 1, headDim: dim}), hidden, false), 1)
			n = b.rmsNorm(x, hidden, 0)
		}
		chosen, weights := b.route(n, routing{experts: 6, topK: 2, score: plan.ScoreSparseMixer, jitter: 0.2})
		x = b.add(x, b.experts(n, chosen, weights, 6, 24, plan.ActSilu, true, false), 1)
	}
	return b.logits(b.rmsNorm(x, hidden, 0), 0)
}

// kimi is in the manner of Kimi Linear: a delta rule whose channels decay on their own,
// with attention over latents in between.
func kimi(format plan.Format) *model {
	b := newBuilder(217, 26, format)
	const hidden, n, rank = 44, 2, 24
	x := b.embed(hidden, 1)
	for layer := range 3 {
		norm := b.rmsNorm(x, hidden, 0)
		if layer == 1 {
			kept := b.rmsNorm(b.linear(norm, rank, false), rank, 0)
			cache := b.cache(plan.Cache{Kind: plan.CacheLatent, Heads: 1, KeyWidth: rank, ValueWidth: rank})
			b.op(plan.OpCacheWrite, 0, kept).I[plan.WriteCache] = cache
			q := b.linearHeads(b.linear(norm, n*12, false), n, n*rank)
			seen := b.attendOver(cache, q, plan.None, heads{heads: n, kvHeads: 1, headDim: 12, valueWidth: rank})
			x = b.add(x, b.linear(b.linearHeads(seen, n, n*10), hidden, false), 1)
			continue
		}
		mixed := b.conv(norm, 4, false, plan.ActSilu)
		seen := b.gatedDelta(mixed, recurrence{heads: 3, groups: 3, keyWidth: 16, valueWidth: 20, channels: true, negative: layer == 2}, 1e-6)
		seen = b.normOf(seen, b.linear(norm, 60, false), 20, b.normal(1, 0.2, 20), 0, plan.GateSigmoid)
		x = b.add(x, b.linear(seen, hidden, false), 1)
	}
	return b.logits(b.rmsNorm(x, hidden, 0), 0)
}

// chunks is in the manner of Llama 4 and Gemma 3n: attention in chunks, queries scaled
// by position, one cache for two layers, inputs of experts scaled, tables beside the
// embedding, sparse activations.
func chunks(format plan.Format) *model {
	b := newBuilder(218, 28, format)
	const hidden, dim = 40, 16
	h := heads{heads: 3, kvHeads: 1, headDim: dim}
	x := b.embed(hidden, 1)
	beside := b.beside(20, 2*8, 2)
	for layer := range 3 {
		n := b.rmsNorm(x, hidden, 0)
		q := b.linear(n, 3*dim, false)
		var seen int32
		switch layer {
		case 0:
			h.chunk = 18
			seen = b.attend(q, b.linear(n, dim, false), b.linear(n, dim, false), h)
		case 1:
			h.chunk = 0
			op := b.scaleOp(q, 1, plan.None)
			op.F[plan.ScaleLog], op.I[plan.ScaleOffset], op.I[plan.ScaleLength] = 0.3, 1, 7
			seen = b.attend(op.Out[0], b.linear(n, dim, false), b.linear(n, dim, false), h)
		default:
			h.chunk = 9
			seen = b.attendOver(0, q, plan.None, h)
		}
		x = b.add(x, b.linear(seen, hidden, false), 1)
		n = b.rmsNorm(x, hidden, 0)
		chosen, weights := b.route(n, routing{experts: 6, topK: 1, score: plan.ScoreSigmoid, groups: 2, topGroups: 1, groupBest: true, factors: true})
		asked := b.experts(n, chosen, weights, 6, 24, plan.ActSilu, true, false)
		b.plan.Ops[len(b.plan.Ops)-1].I[plan.ExpertsScaleInput] = 1
		gate := b.sparsify(b.linear(n, 32, false), 0.5)
		always := b.linear(b.activate(plan.ActGeluTanh, gate, b.linear(n, 32, false)), hidden, false)
		x = b.add(x, b.add(asked, always, 1), 1)
		if layer < 2 {
			mine := b.activate(plan.ActQuickGelu, b.linear(x, 8, false), b.view(beside, 8*layer, 8))
			bent := b.xielu(b.clipTo(b.activate(plan.ActClip, b.linear(x, 12, false), plan.None)), 0.5)
			both := b.linear(b.join(mine, b.view(x, 0, 8), bent), hidden, false)
			x = b.add(x, b.normOf(both, x, hidden, plan.None, 0, plan.GateMagnitude), 0.5)
		}
	}
	return b.logits(b.rmsNorm(x, hidden, 0), 0)
}
