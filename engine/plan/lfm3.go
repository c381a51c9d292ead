package plan

// LFM3: LFM2 with norms on both sides of each half of a layer, windows in some
// layers, and a gate per head of attention. transformers/models/lfm3.

func readLFM3(o *object, c *Config) {
	c.readShortConvs(o, defaults{
		vocab: 128000, hidden: 2048, intermediate: 7680, layers: 24, heads: 16, kvHeads: 4, headDim: 128,
	}, 7)
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.ShortConv.Sandwich = o.boolean("use_sandwich_norm", true)
	c.ShortConv.HeadGate = o.boolean("use_attention_gate", true)
	if c.ShortConv.HeadGate && c.QWidth()*c.Layers > maxParts {
		o.fail("use_attention_gate", "is not supported with head_dim %d times %d heads in %d layers", c.HeadDim, c.Heads, c.Layers)
	}
	c.readKinds(o, func(layer int) string {
		switch {
		case layer%4 == 2:
			return fullAttention
		case layer%4 == 0 && layer > 0:
			return slidingAttention
		}
		return convLayer
	}, convLayer, slidingAttention, fullAttention)
	window := readWindow(o, 256)
	for i, kind := range c.Kinds {
		if kind == slidingAttention {
			c.Windows[i] = window
		}
		if kind == slidingAttention && window == 0 {
			o.fail("layer_types", "has %q for layer %d, but there is no sliding_window", kind, i)
		}
	}
	if o.raw("rope_parameters") == nil && o.raw("rope_scaling") == nil {
		o.values["rope_parameters"] = []byte(`{"sliding_attention":{"rope_theta":1e4},"full_attention":{"rope_type":"proportional","rope_theta":1e6,"partial_rotary_factor":0.5}}`)
	}
	full, sliding := o.ropesByLayerType()
	theta := o.float("rope_theta", 1e6)
	c.setRopes(readRopeParams(full, o, c, theta), readRopeParams(sliding, o, c, theta))
}

func buildLFM3(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)
		after := func(h Var, name string) Var {
			if c.ShortConv.Sandwich {
				h = l.norm(h, name)
			}
			return h
		}
		h := l.norm(x, "operator_norm")
		if c.Kinds[i] == convLayer {
			h = l.gatedConv(h)
		} else {
			q, k, v := l.qkv(h)
			q, k = l.headNorm(q, "self_attn.q_norm"), l.headNorm(k, "self_attn.k_norm")
			a := l.attend(q, k, v, c.rope(i))
			if c.ShortConv.HeadGate {
				a = l.headGate(h, a)
			}
			h = l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias)
		}
		x = b.Add(x, after(h, "post_operator_norm"))
		x = b.Add(x, after(l.lfm2MLP(l.norm(x, "ffn_norm")), "post_ffn_norm"))
	}
	b.normHead(x, "embedding_norm")
}

// headGate multiplies each head of a by the sigmoid of one number made of x, whose
// row of weights stands for all the head's columns.
func (l layer) headGate(x, a Var) Var {
	name := l.prefix + "self_attn.g_proj.weight"
	if older := l.prefix + "self_attn.gate_proj.weight"; !l.has(name) && l.has(older) {
		name = older
	}
	w := whole(name, l.c.Heads, l.width(x))
	parts := make([]Part, l.c.QWidth())
	for column := range parts {
		parts[column] = w.rows(column/l.c.HeadDim, 1, 1)
	}
	gate := l.Linear(x, l.Tensor([]int{l.c.QWidth(), l.width(x)}, parts...), 0)
	return l.Gate(Act{Kind: ActSigmoid}, gate, a)
}
