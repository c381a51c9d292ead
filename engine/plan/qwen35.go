package plan

import "slices"

// Qwen 3.5's language model: three layers of a gated delta net to each one of
// gated attention. transformers/models/qwen3_5.

// DeltaConfig is the shape of the gated delta net.
type DeltaConfig struct {
	KeyHeads, Heads      int // heads of queries and keys, and of values
	KeyWidth, ValueWidth int // of a head
	Kernel               int // positions that the convolution sees
	Layers               []bool
	Negative             bool // the state's eigenvalues may be negative
	Fused                bool // the projections are in two tensors, by heads of keys
}

const linearAttention = "linear_attention"

func readQwen35Text(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 248320, hidden: 4096, intermediate: 12288, layers: 32, heads: 16, kvHeads: 4, headDim: 256,
		maxPos: 32768, eps: 1e-6,
	})
	c.readDelta(o)
}

// readDelta reads how gated delta nets and gated attention alternate, and both.
func (c *Config) readDelta(o *object) {
	c.Activation = o.activation("hidden_act", "silu")
	if c.Activation != ActSilu {
		o.fail("hidden_act", "must be silu in this family, whose convolution has it too")
	}
	c.NormOffset = 1
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	d := &DeltaConfig{
		KeyHeads:   o.dimension("linear_num_key_heads", 16, maxDimension),
		Heads:      o.dimension("linear_num_value_heads", 32, maxDimension),
		KeyWidth:   o.dimension("linear_key_head_dim", 128, maxDimension),
		ValueWidth: o.dimension("linear_value_head_dim", 128, maxDimension),
		Kernel:     o.dimension("linear_conv_kernel_dim", 4, 64),
		Layers:     make([]bool, c.Layers),
	}
	switch {
	case *o.err != nil:
		return
	case d.Heads%d.KeyHeads != 0:
		o.fail("linear_num_value_heads", "%d is not a multiple of linear_num_key_heads %d", d.Heads, d.KeyHeads)
	case d.Kernel < 2:
		o.fail("linear_conv_kernel_dim", "must be at least 2, found %d", d.Kernel)
	}
	c.Delta = d
	interval := o.dimension("full_attention_interval", 4, maxLayers)
	types := o.texts("layer_types")
	if types != nil && len(types) != c.Layers {
		o.fail("layer_types", "has %d entries, expected num_hidden_layers %d", len(types), c.Layers)
		return
	}
	for i := range d.Layers {
		d.Layers[i] = (i+1)%interval != 0
		if types != nil {
			if types[i] != linearAttention && types[i] != fullAttention {
				o.fail("layer_types", "%q is not supported by this family, only %s and %s", types[i], linearAttention, fullAttention)
			}
			d.Layers[i] = types[i] == linearAttention
		}
	}
	c.RotaryFactor = 0.25
	if c.Family == "qwen3_5" || c.Family == "qwen3_5_moe" {
		c.readAxes(o, []int{11, 11, 10}, 10000)
		return
	}
	// Text has one position on all axes, so which axis a frequency follows is of
	// no account.
	params := o.ropeParams()
	params.integers("mrope_section")
	params.boolean("mrope_interleaved", true)
	c.Rope = readRope(o, c)
}

// readQwen35 reads the multimodal model's config, of which the language part
// is served: text in, text out.
func readQwen35(o *object, c *Config) {
	text, _ := o.textConfig("qwen3_5_text")
	readQwen35Text(text, c)
	if !o.absent("tie_word_embeddings") {
		c.Tied = o.boolean("tie_word_embeddings", false)
	}
}

func buildQwen35(b *Builder, _ *Config) { b.preNorm(layer.deltaOrAttention, layer.mlp) }
func draftQwen35(b *Builder, _ *Config) { b.qwenDraft(layer.mlp) }

// qwenDraft is a layer of gated attention, and of mlp, that predicts one more token.
func (b *Builder) qwenDraft(mlp func(l layer, x Var) Var) {
	for _, prefix := range []string{"mtp.", "model.mtp."} {
		if !b.has(prefix + "fc.weight") {
			continue
		}
		l := b.draftLayer(prefix + "layers.0.")
		x := l.draftInput(prefix+"embed_tokens.weight", prefix+"pre_fc_norm_embedding", prefix+"pre_fc_norm_hidden", prefix+"fc")
		b.draftHead(l.preNormed(x, layer.gatedAttention, mlp), prefix+"norm")
		return
	}
}

// deltaOrAttention is what mixes positions in a layer.
func (l layer) deltaOrAttention(x Var) Var {
	if l.c.Delta.Layers[l.index] {
		return l.deltaNet(x)
	}
	return l.gatedAttention(x)
}

// deltaNet is the gated delta net: a short convolution, the recurrence, and a
// norm per head with a gate.
func (l layer) deltaNet(x Var) Var {
	d := l.c.Delta
	keys, values := d.KeyHeads*d.KeyWidth, d.Heads*d.ValueWidth
	weight := func(name string, shape ...int) Weight { return l.Weight(l.prefix+"linear_attn."+name, shape...) }

	qkv, z, beta, decay := l.deltaInputs(x)
	qkv = l.shortConv(qkv, "linear_attn.conv1d", d.Kernel, false, ActSilu)
	y := l.GatedDelta(l.View(qkv, 0, keys), l.View(qkv, keys, keys), l.View(qkv, 2*keys, values), decay, beta, Delta{
		KeyHeads: d.KeyHeads, Heads: d.Heads, KeyWidth: d.KeyWidth, ValueWidth: d.ValueWidth,
		LogA: weight("A_log", d.Heads), Bias: weight("dt_bias", d.Heads),
		Eps: 1e-6, Scale: 1 / sqrt(d.KeyWidth),
	})
	y = l.RMSNorm(y, Norm{Weight: weight("norm.weight", d.ValueWidth), Eps: l.c.NormEps, Gate: z, GateAt: GateAfter})
	return l.linear(y, "linear_attn.out_proj", l.c.Hidden, false)
}

// deltaInputs are the projections that a delta net begins with: queries, keys and
// values in one, the gate, and what beta and decay are made of. Fused, each head
// of keys has the rows of all of them, with those of the heads of values that
// share it.
func (l layer) deltaInputs(x Var) (qkv, z, beta, decay Var) {
	d := l.c.Delta
	keys, values := d.KeyHeads*d.KeyWidth, d.Heads*d.ValueWidth
	if !d.Fused {
		return l.linear(x, "linear_attn.in_proj_qkv", 2*keys+values, false), l.linear(x, "linear_attn.in_proj_z", values, false),
			l.linear(x, "linear_attn.in_proj_b", d.Heads, false), l.linear(x, "linear_attn.in_proj_a", d.Heads, false)
	}
	qkvz := whole(l.prefix+"linear_attn.in_proj_qkvz.weight", 2*(keys+values), l.width(x))
	ba := whole(l.prefix+"linear_attn.in_proj_ba.weight", 2*d.Heads, l.width(x))
	project := func(rows int, parts ...Part) Var {
		return l.Linear(x, l.Tensor([]int{rows, l.width(x)}, parts...), 0)
	}
	v, n := values/d.KeyHeads, d.Heads/d.KeyHeads // rows of one head of keys
	qkv = project(2*keys+values, slices.Concat(
		qkvz.blocks(d.KeyHeads, 0, d.KeyWidth), qkvz.blocks(d.KeyHeads, d.KeyWidth, d.KeyWidth), qkvz.blocks(d.KeyHeads, 2*d.KeyWidth, v))...)
	z = project(values, qkvz.blocks(d.KeyHeads, 2*d.KeyWidth+v, v)...)
	beta = project(d.Heads, ba.blocks(d.KeyHeads, 0, n)...)
	decay = project(d.Heads, ba.blocks(d.KeyHeads, n, n)...)
	return qkv, z, beta, decay
}

// gatedAttention is attention whose result has a gate; each head's queries and
// gate are neighbours in one projection.
func (l layer) gatedAttention(x Var) Var {
	c := l.c
	head := func(n int) Var {
		w := whole(l.prefix+"self_attn.q_proj.weight", 2*c.QWidth(), l.width(x)).blocks(c.Heads, n*c.HeadDim, c.HeadDim)
		var bias Weight
		if c.AttentionBias {
			bias = l.Tensor([]int{c.QWidth()}, whole(l.prefix+"self_attn.q_proj.bias", 2*c.QWidth()).blocks(c.Heads, n*c.HeadDim, c.HeadDim)...)
		}
		return l.Linear(x, l.Tensor([]int{c.QWidth(), l.width(x)}, w...), bias)
	}
	q, gate := l.headNorm(head(0), "self_attn.q_norm"), head(1)
	k := l.headNorm(l.linear(x, "self_attn.k_proj", c.KVWidth(), c.AttentionBias), "self_attn.k_norm")
	v := l.linear(x, "self_attn.v_proj", c.KVWidth(), c.AttentionBias)
	a := l.Gate(Act{Kind: ActSigmoid}, gate, l.attend(q, k, v, c.Rope))
	return l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias)
}
