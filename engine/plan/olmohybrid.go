package plan

// Olmo Hybrid: gated delta nets, whose states may have negative eigenvalues, with
// norms before them, between OLMo 3's attention with norms after it.
// transformers/models/olmo_hybrid.

var olmoHybridIgnored = []string{"linear_a_log_max", "linear_a_log_min", "linear_dt_init_floor", "linear_dt_max", "linear_dt_min"}

func readOlmoHybrid(o *object, c *Config) {
	c.readCommon(o, defaults{vocab: 100352, hidden: 3840, intermediate: 11008, layers: 32, heads: 30, maxPos: 65536, eps: 1e-6})
	c.Activation = o.activation("hidden_act", "silu")
	if c.Activation != ActSilu {
		o.fail("hidden_act", "must be silu in this family, whose convolution has it too")
	}
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	d := &DeltaConfig{
		KeyHeads: o.dimension("linear_num_key_heads", c.Heads, maxHeads),
		Heads:    o.dimension("linear_num_value_heads", c.Heads, maxHeads),
		Kernel:   o.dimension("linear_conv_kernel_dim", 4, 64),
		Negative: o.boolean("linear_allow_neg_eigval", true),
	}
	d.KeyWidth = o.dimension("linear_key_head_dim", max(c.Hidden*3/4/d.KeyHeads, 1), maxDimension)
	d.ValueWidth = o.dimension("linear_value_head_dim", min(2*d.KeyWidth, maxDimension), maxDimension)
	switch {
	case *o.err != nil:
		return
	case d.Heads != d.KeyHeads:
		o.fail("linear_num_value_heads", "%d is not supported by this family beside linear_num_key_heads %d", d.Heads, d.KeyHeads)
	case d.Kernel < 2:
		o.fail("linear_conv_kernel_dim", "must be at least 2, found %d", d.Kernel)
	case int64(d.Heads)*int64(max(d.KeyWidth, d.ValueWidth)) > maxDimension:
		o.fail("linear_key_head_dim", "%d and linear_value_head_dim %d times %d heads exceed %d", d.KeyWidth, d.ValueWidth, d.Heads, maxDimension)
	}
	c.Delta = d
	c.readKinds(o, func(layer int) string {
		if layer%4 == 3 || c.Layers < 4 && layer == c.Layers-1 {
			return fullAttention
		}
		return linearAttention
	}, linearAttention, fullAttention)

	params, key := o.ropeParams(), "rope_theta"
	if inside := !params.absent(key); inside && params.raw(key) != nil || !inside && (o.absent(key) || o.raw(key) != nil) {
		c.Rope = readRope(o, c)
	} else {
		params.ropeType() // null as base: no positions
	}
}

func buildOlmoHybrid(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)
		// the name of a norm, or else the one in the first checkpoints
		name := func(norm, older string) string {
			if !l.has(l.prefix+norm+".weight") && l.has(l.prefix+older+".weight") {
				return older
			}
			return norm
		}
		before, after := name("input_layernorm", "attention_layer_norm"), name("post_attention_layernorm", "feedforward_layer_norm")
		if c.Kinds[i] == linearAttention {
			x = b.Add(x, l.olmoDelta(l.norm(x, before)))
			x = b.Add(x, l.mlp(l.norm(x, after)))
			continue
		}
		x = l.addNormed(x, l.wideNormedAttention(x), after)
		x = l.addNormed(x, l.mlp(x), "post_feedforward_layernorm")
	}
	b.head(x)
}

// olmoDelta is a gated delta net whose projections and convolutions are apart.
func (l layer) olmoDelta(x Var) Var {
	const eps = 1e-5 // of the norm, whatever rms_norm_eps is
	d := l.c.Delta
	keys, values := d.KeyHeads*d.KeyWidth, d.Heads*d.ValueWidth
	conv := func(name string, width int) Var {
		h := l.linear(x, "linear_attn."+name+"_proj", width, false)
		return l.shortConv(h, "linear_attn."+name+"_conv1d", d.Kernel, false, ActSilu)
	}
	decay, beta := l.linear(x, "linear_attn.a_proj", d.Heads, false), l.linear(x, "linear_attn.b_proj", d.Heads, false)
	y := l.GatedDelta(conv("q", keys), conv("k", keys), conv("v", values), decay, beta, Delta{
		KeyHeads: d.KeyHeads, Heads: d.Heads, KeyWidth: d.KeyWidth, ValueWidth: d.ValueWidth,
		LogA: l.Weight(l.prefix+"linear_attn.A_log", d.Heads), Bias: l.Weight(l.prefix+"linear_attn.dt_bias", d.Heads),
		Eps: 1e-6, Scale: 1 / sqrt(d.KeyWidth), Negative: d.Negative,
	})
	gate := l.linear(x, "linear_attn.g_proj", values, false)
	y = l.RMSNorm(y, Norm{Weight: l.Weight(l.prefix+"linear_attn.o_norm.weight", d.ValueWidth), Eps: eps, Gate: gate, GateAt: GateAfter})
	return l.linear(y, "linear_attn.o_proj", l.c.Hidden, false)
}
