package plan

import "slices"

// LFM2: layers of a gated short convolution between those of attention, also with
// experts. transformers/models/lfm2 and lfm2_moe.

// ShortConvConfig is the shape of LFM2's convolution.
type ShortConvConfig struct {
	Kernel int // positions that it sees
	Bias   bool

	Sandwich bool // LFM3: norms before and after each half of a layer
	HeadGate bool // LFM3: attention has a gate per head
}

var (
	lfm2Keys    = map[string]string{"rms_norm_eps": "norm_eps"}
	lfm2Ignored = []string{
		"block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_swiglu", "block_use_xavier_init",
		"conv_dim", "conv_dim_out", "conv_use_xavier_init", "num_heads", "use_pos_enc", "theta",
	}
)

func readLFM2(o *object, c *Config) {
	o.override("intermediate_size", "block_ff_dim")
	c.readShortConvs(o, defaults{vocab: 65536, hidden: 2560, intermediate: 12288, layers: 32, heads: 32, kvHeads: 8}, 3)
	multiple, factor := o.dimension("block_multiple_of", 256, maxDimension), o.float("block_ffn_dim_multiplier", 1)
	rounds := o.absent("block_ffn_dim_multiplier") || o.raw("block_ffn_dim_multiplier") != nil
	if o.boolean("block_auto_adjust_ff_dim", true) {
		c.Intermediate = c.Intermediate * 2 / 3
		if rounds {
			c.Intermediate = int(min(max(factor*float64(c.Intermediate), 0), maxDimension))
			c.Intermediate = (c.Intermediate + multiple - 1) / multiple * multiple
		}
		if c.Intermediate < 1 || c.Intermediate > maxDimension {
			o.fail("intermediate_size", "becomes %d by block_ffn_dim_multiplier and block_multiple_of, expected 1 to %d", c.Intermediate, maxDimension)
		}
	}
	attends := o.integers("full_attn_idxs")
	c.readKinds(o, func(layer int) string {
		if attends == nil || slices.Contains(attends, layer) {
			return fullAttention
		}
		return convLayer
	}, convLayer, fullAttention)
	c.Rope = readRopeOf(o, c, 1e6)
}

func readLFM2MoE(o *object, c *Config) {
	c.readShortConvs(o, defaults{vocab: 65536, hidden: 2048, intermediate: 7168, layers: 32, heads: 32, kvHeads: 8}, 3)
	if *o.err == nil && o.raw("layer_types") == nil {
		o.fail("layer_types", "is missing")
	}
	c.readKinds(o, nil, convLayer, fullAttention)
	m := c.readMoE(o, "num_experts", 32, 4)
	m.Inner = o.dimension("moe_intermediate_size", 1792, maxDimension)
	m.Normalize = o.boolean("norm_topk_prob", true)
	m.Scale = o.float("routed_scaling_factor", 1)
	m.Score, m.Eps, m.Corrected = ScoreSigmoid, 1e-6, o.boolean("use_expert_bias", true)
	dense := o.integer("num_dense_layers", 2)
	for i := range m.Dense {
		m.Dense[i] = i < dense
	}
	c.MoE = m
	c.Rope = readRopeOf(o, c, 1e6)
}

// readShortConvs reads what LFM2 and its successors have in common.
func (c *Config) readShortConvs(o *object, d defaults, kernel int) {
	o.override("tie_word_embeddings", "tie_embedding")
	d.maxPos, d.eps, d.tied = 128000, 1e-5, true
	c.readCommon(o, d)
	c.Activation = ActSilu
	c.ShortConv = &ShortConvConfig{Kernel: o.dimension("conv_L_cache", kernel, 64), Bias: o.boolean("conv_bias", false)}
	if c.ShortConv.Kernel < 2 {
		o.fail("conv_L_cache", "must be at least 2, found %d", c.ShortConv.Kernel)
	}
}

func buildLFM2(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "operator_norm")
		if c.Kinds[i] == convLayer {
			h = l.gatedConv(h)
		} else {
			q, k, v := l.qkv(h)
			q, k = l.headNorm(q, "self_attn.q_layernorm"), l.headNorm(k, "self_attn.k_layernorm")
			h = l.linear(l.attend(q, k, v, c.Rope), "self_attn.out_proj", c.Hidden, false)
		}
		x = b.Add(x, h)

		h = l.norm(x, "ffn_norm")
		if c.MoE == nil || c.MoE.Dense[i] {
			h = l.lfm2MLP(h)
		} else {
			var bias Weight
			if c.MoE.Corrected {
				bias = l.Weight(l.prefix+"feed_forward.expert_bias", c.MoE.Experts)
			}
			logits := l.linear(h, "feed_forward.gate", c.MoE.Experts, false)
			h = l.experts(h, logits, c.MoE.Score, bias, "feed_forward.experts.%d.", [3]string{"w1", "w3", "w2"})
		}
		x = b.Add(x, h)
	}
	b.normHead(x, "embedding_norm")
}

// gatedConv is a short convolution between two gates.
func (l layer) gatedConv(x Var) Var {
	n, conv := l.c.Hidden, l.c.ShortConv
	in := l.linear(x, "conv.in_proj", 3*n, conv.Bias)
	y := l.Gate(Act{}, l.View(in, 0, n), l.View(in, 2*n, n))
	y = l.shortConv(y, "conv.conv", conv.Kernel, conv.Bias, ActNone)
	return l.linear(l.Gate(Act{}, l.View(in, n, n), y), "conv.out_proj", n, conv.Bias)
}

// lfm2MLP is the gated MLP under LFM2's names.
func (l layer) lfm2MLP(x Var) Var {
	gate := l.linear(x, "feed_forward.w1", l.c.Intermediate, false)
	up := l.linear(x, "feed_forward.w3", l.c.Intermediate, false)
	return l.linear(l.Gate(Act{Kind: l.c.Activation}, gate, up), "feed_forward.w2", l.c.Hidden, false)
}
