package plan

import (
	"cmp"
	"strconv"
)

// layer writes parts that decoder layers have in common, with the tensor
// names they share. name arguments are relative to the layer and without
// ".weight".
type layer struct {
	*Builder
	index  int
	prefix string
}

func (b *Builder) layer(i int) layer { return b.layerOf("layers", i) }

// layerOf is layer i of a checkpoint that calls the list of them name.
func (b *Builder) layerOf(name string, i int) layer {
	return layer{b, i, b.prefix + name + "." + strconv.Itoa(i) + "."}
}

// layerNorm is a layer norm over the whole row, with a bias.
func (b *Builder) layerNorm(x Var, name string) Var {
	n := b.width(x)
	return b.LayerNorm(x, Norm{
		Weight: b.Weight(name+".weight", n), Bias: b.Weight(name+".bias", n), Eps: b.c.NormEps, Shift: b.c.NormOffset,
	})
}

// scaleNorm is a layer norm over the whole row, without a bias.
func (b *Builder) scaleNorm(x Var, name string) Var {
	return b.LayerNorm(x, Norm{Weight: b.Weight(name+".weight", b.width(x)), Eps: b.c.NormEps})
}

func (l layer) layerNorm(x Var, name string) Var { return l.Builder.layerNorm(x, l.prefix+name) }

// headLayerNorm is a layer norm over each head of x, with a bias.
func (l layer) headLayerNorm(x Var, name string) Var {
	n := l.c.HeadDim
	return l.LayerNorm(x, Norm{Weight: l.Weight(l.prefix+name+".weight", n), Bias: l.Weight(l.prefix+name+".bias", n), Eps: l.c.NormEps})
}

// norm is an RMS norm over the whole row.
func (l layer) norm(x Var, name string) Var {
	return l.RMSNorm(x, Norm{Weight: l.Weight(l.prefix+name+".weight", l.width(x)), Eps: l.c.NormEps, Shift: l.c.NormOffset})
}

// headNorm is an RMS norm over each head of x.
func (l layer) headNorm(x Var, name string) Var {
	return l.RMSNorm(x, Norm{Weight: l.Weight(l.prefix+name+".weight", l.c.HeadDim), Eps: l.c.NormEps, Shift: l.c.NormOffset})
}

// linear is a projection to out columns.
func (l layer) linear(x Var, name string, out int, bias bool) Var {
	w, wBias := l.Weight(l.prefix+name+".weight", out, l.width(x)), Weight(0)
	if bias {
		wBias = l.Weight(l.prefix+name+".bias", out)
	}
	return l.Linear(x, w, wBias)
}

// qkv is the queries, keys and values of x, from projections of their own.
func (l layer) qkv(x Var) (q, k, v Var) {
	c := l.c
	q = l.linear(x, "self_attn.q_proj", c.QWidth(), c.AttentionBias)
	k = l.linear(x, "self_attn.k_proj", c.KVWidth(), c.AttentionBias)
	v = l.linear(x, "self_attn.v_proj", c.KVWidth(), c.AttentionBias)
	return q, k, v
}

// rotate rotates queries and keys, unless r is none.
func (l layer) rotate(q, k Var, r Rope) (Var, Var) {
	if r.Freqs == nil {
		return q, k
	}
	return l.Rope(q, r, l.c.HeadDim), l.Rope(k, r, l.c.HeadDim)
}

// attend rotates queries and keys, scales queries by their positions if c says so,
// stores keys and values in a cache of the layer's, and attends.
func (l layer) attend(q, k, v Var, r Rope) Var {
	q, k = l.rotate(q, k, r)
	if l.c.QueryGrowth != 0 {
		q = l.ScalePosition(q, l.c.QueryGrowth, 0, l.c.QueryLength)
	}
	return l.attention(q, k, v, Attention{})
}

// attention stores keys and values in a cache of the layer's and attends as c
// says; more is what a family has besides, or instead of c's scale.
func (l layer) attention(q, k, v Var, more Attention) Var {
	c := l.c
	more.Cache = l.Cache(Cache{
		Kind: CacheKV, Heads: int32(c.KVHeads), KeyWidth: int32(c.HeadDim), ValueWidth: int32(c.HeadDim),
		Window: int32(c.Windows[l.index]),
	})
	more.Heads, more.Window, more.Cap = c.Heads, c.Windows[l.index], c.ScoreCap
	if more.Scale == 0 {
		more.Scale = c.QueryScale
	}
	l.CacheWrite(more.Cache, k, v)
	return l.Attention(q, more)
}

// plainMLP is an MLP without a gate: down(act(up(x))), its projections called up
// and down.
func (l layer) plainMLP(x Var, up, down string, bias bool) Var {
	h := l.Activate(l.c.Activation, l.linear(x, up, l.c.Intermediate, bias))
	return l.linear(h, down, l.c.Hidden, bias)
}

// plainAttention is attention with projections of its own.
func (l layer) plainAttention(x Var) Var { return l.selfAttention(x, nil) }

// normedAttention is the same with a norm of each query and key head.
func (l layer) normedAttention(x Var) Var { return l.selfAttention(x, layer.headNorm) }

// wideNormedAttention is the same with one norm of all queries, and one of all keys.
func (l layer) wideNormedAttention(x Var) Var { return l.selfAttention(x, layer.norm) }

// sinkAttention is attention with a sink for each query head.
func (l layer) sinkAttention(x Var) Var {
	q, k, v := l.qkv(x)
	q, k = l.rotate(q, k, l.c.rope(l.index))
	a := l.attention(q, k, v, Attention{Sinks: l.Weight(l.prefix+"self_attn.sinks", l.c.Heads)})
	return l.linear(a, "self_attn.o_proj", l.c.Hidden, l.c.OutputBias)
}

// mamba2OrAttention is what mixes positions in layers of two kinds.
func (l layer) mamba2OrAttention(x Var) Var {
	if l.c.Kinds[l.index] == linearAttention {
		return l.mamba2(x, "mamba.")
	}
	return l.plainAttention(x)
}

// selfAttention is attention with projections of its own; norm, which may be nil,
// is applied to queries and keys before they are rotated.
func (l layer) selfAttention(x Var, norm func(l layer, x Var, name string) Var) Var {
	q, k, v := l.qkv(x)
	if norm != nil {
		q, k = norm(l, q, "self_attn.q_norm"), norm(l, k, "self_attn.k_norm")
	}
	return l.linear(l.attend(q, k, v, l.c.rope(l.index)), "self_attn.o_proj", l.c.Hidden, l.c.OutputBias)
}

// mlp is the gated MLP: down(act(gate(x)) * up(x)).
func (l layer) mlp(x Var) Var { return l.mlpOf(x, "mlp.", l.c.Intermediate) }

// mlpOf is a gated MLP whose projections are below prefix and inner wide between.
func (l layer) mlpOf(x Var, prefix string, inner int) Var {
	gate := l.linear(x, prefix+"gate_proj", inner, l.c.MLPBias)
	up := l.linear(x, prefix+"up_proj", inner, l.c.MLPBias)
	return l.linear(l.Gate(Act{Kind: l.c.Activation}, gate, up), prefix+"down_proj", l.c.Hidden, l.c.MLPBias)
}

// shortConv is a causal convolution of each column over the last kernel
// positions; the checkpoint has its weights as [width, 1, kernel].
func (l layer) shortConv(x Var, name string, kernel int, bias bool, act Activation) Var {
	n, wBias := l.width(x), Weight(0)
	if bias {
		wBias = l.Weight(l.prefix+name+".bias", n)
	}
	w := l.Tensor([]int{n, kernel}, whole(l.prefix+name+".weight", n, 1, kernel))
	return l.Conv(x, w, wBias, act)
}

// preNorm writes a decoder whose layers add to the residual stream what attention,
// and then mlp, make of a norm of it.
func (b *Builder) preNorm(attention, mlp func(l layer, x Var) Var) {
	x := b.embed()
	if b.c.Levels > 0 {
		b.plan.EmbedsWidth = (1 + b.c.Levels) * b.c.Hidden
	}
	for i := range b.c.Layers {
		x = b.layer(i).preNormed(x, attention, mlp)
		if i < b.c.Levels {
			x = b.Add(x, b.EmbedColumns((1+i)*b.c.Hidden, b.c.Hidden))
		}
	}
	b.head(x)
}

// preNormed is one such layer.
func (l layer) preNormed(x Var, attention, mlp func(l layer, x Var) Var) Var {
	x = l.AddScaled(x, attention(l, l.norm(x, "input_layernorm")), l.c.ResidualScale)
	return l.AddScaled(x, mlp(l, l.norm(x, "post_attention_layernorm")), l.c.ResidualScale)
}

// postNorm writes a decoder whose layers have a norm after attention and after MLP.
func (b *Builder) postNorm(attention, mlp func(l layer, x Var) Var) {
	x := b.embed()
	for i := range b.c.Layers {
		l := b.layer(i)
		x = l.addNormed(x, attention(l, x), "post_attention_layernorm")
		x = l.addNormed(x, mlp(l, x), "post_feedforward_layernorm")
	}
	b.head(x)
}

// addNormed is x + norm(y).
func (l layer) addNormed(x, y Var, name string) Var { return l.Add(x, l.norm(y, name)) }

// embed is the first operation: the tokens' embeddings.
func (b *Builder) embed() Var { return b.Embed(b.embedding(), b.c.EmbedScale) }

// head ends the plan: final norm and logits of the rows wanted.
func (b *Builder) head(x Var) { b.normHead(x, "norm") }

// normHead is head for families that call the last norm name.
func (b *Builder) normHead(x Var, name string) {
	b.last = x
	b.lastNorm = Norm{Weight: b.Weight(b.prefix+name+".weight", b.c.Hidden), Eps: b.c.NormEps, Shift: b.c.NormOffset}
	x = b.RMSNorm(b.Rows(x), b.lastNorm)
	var bias Weight
	if b.c.HeadBias {
		bias = b.Weight("lm_head.bias", b.c.Vocab)
	}
	b.Logits(x, b.output(), bias, b.c.LogitScale, b.c.LogitCap)
}

// layerNormHead is head for families with layer norms, the last called name.
func (b *Builder) layerNormHead(x Var, name string) {
	b.Logits(b.layerNorm(b.Rows(x), b.prefix+name), b.output(), 0, 1, b.c.LogitCap)
}

// biasedHead ends the plan with the logits of x, from an output head that may have
// a bias.
func (b *Builder) biasedHead(x Var, bias bool) {
	w, wBias := b.output(), Weight(0)
	if bias {
		wBias = b.Weight("lm_head.bias", b.c.Vocab)
	}
	b.Logits(x, w, wBias, 1, 0)
}

// outputNames are what most checkpoints call the output head.
var outputNames = []string{"lm_head.weight", "language_model.lm_head.weight"}

// embedding is the token embedding, or, when embedding and output head are
// one tensor, whichever name the checkpoint has kept.
func (b *Builder) embedding() Weight {
	name := b.prefix + b.embedName
	if b.c.Tied && !b.has(name) {
		for _, head := range b.headNames {
			if b.has(head) {
				name = head
				break
			}
		}
	}
	return b.Weight(name, b.c.Vocab, b.embedWidth())
}

// embedWidth is the width of the embedding and of the output head.
func (b *Builder) embedWidth() int { return cmp.Or(b.c.EmbedWidth, b.c.Hidden) }

// output is the output head. A checkpoint that has one means it, even where
// its config says that the embedding serves as head; so transformers 5.
func (b *Builder) output() Weight {
	for _, name := range b.headNames {
		if b.has(name) {
			return b.Weight(name, b.c.Vocab, b.embedWidth())
		}
	}
	if !b.c.Tied {
		b.fail("tensor %q is missing, and config.json says tie_word_embeddings false: expected [%d %d]", b.headNames[0], b.c.Vocab, b.embedWidth())
	}
	return b.embedding()
}
