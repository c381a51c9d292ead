package plan

// MiniMax M2: queries and keys are normalized as a whole and rotated in part;
// experts are chosen by sigmoid and bias. transformers/models/minimax_m2.

func readMiniMaxM2(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 200064, hidden: 3072, intermediate: 1536, layers: 62, heads: 48, kvHeads: 8, headDim: 128,
		maxPos: 196608, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.MoE = c.readMoE(o, "num_local_experts", 256, 8)
	c.MoE.Normalize = true
	o.only("scoring_func", "sigmoid")
	o.only("qk_norm_type", "per_layer")
	for _, key := range []string{"use_qk_norm", "use_routing_bias"} {
		if !o.boolean(key, true) {
			o.fail(key, "false is not supported by this family")
		}
	}
	for _, t := range o.integers("attn_type_list") {
		if t != 1 {
			o.fail("attn_type_list", "must be 1 for all layers, found %d", t)
		}
	}
	c.RotaryFactor = 1
	if o.raw("rotary_dim") != nil {
		c.RotaryFactor = float64(o.dimension("rotary_dim", c.HeadDim, c.HeadDim)) / float64(c.HeadDim)
	}
	c.Rope = readRopeOf(o, c, 5e6)
}

func buildMiniMaxM2(b *Builder, c *Config) {
	b.preNorm(layer.wideNormedAttention, func(l layer, x Var) Var {
		logits := l.linear(x, "block_sparse_moe.gate", c.MoE.Experts, false)
		bias := l.Weight(l.prefix+"block_sparse_moe.e_score_correction_bias", c.MoE.Experts)
		return l.experts(x, logits, ScoreSigmoid, bias, "block_sparse_moe.experts.%d.", mixtralNames)
	})
}
