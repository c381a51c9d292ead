package plan

// Granite 4: Mamba 2's mixer or attention, with or without positions, then an MLP
// that sees every token and, in some models, experts beside it.
// transformers/models/granitemoehybrid.

var graniteHybridIgnored = []string{"init_method", "mamba_chunk_size", "normalization_function", "router_aux_loss_coef"}

func readGraniteHybrid(o *object, c *Config) {
	c.readCommon(o, defaults{vocab: 32000, hidden: 4096, intermediate: 11008, layers: 32, heads: 32, maxPos: 2048, eps: 1e-6})
	c.readBambaMixer(o, o.dimension("expand", 2, maxDimension)*c.Hidden)
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.EmbedScale = o.float("embedding_multiplier", 1)
	c.ResidualScale = o.float("residual_multiplier", 1)
	c.QueryScale = o.float("attention_multiplier", 1)
	if scaling := o.float("logits_scaling", 1); scaling > 0 {
		c.LogitScale = 1 / scaling
	} else {
		o.fail("logits_scaling", "must be positive, found %g", scaling)
	}
	c.readKinds(o, func(int) string { return linearAttention }, linearAttention, fullAttention)
	if rope := readRope(o, c); o.text("position_embedding_type", "") == "rope" {
		c.Rope = rope
	}
	inner := o.dimension("shared_intermediate_size", 1024, maxDimension)
	if o.integer("num_local_experts", 8) != 0 {
		c.MoE = c.readMoE(o, "num_local_experts", 8, 2)
		c.MoE.Shared = inner
	} else {
		o.integer("num_experts_per_tok", 0)
		c.Intermediate = inner
	}
}

func buildGraniteHybrid(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		x = b.AddScaled(x, l.mamba2OrAttention(l.norm(x, "input_layernorm")), c.ResidualScale)

		h := l.norm(x, "post_attention_layernorm")
		inner := c.Intermediate
		if c.MoE != nil {
			inner = c.MoE.Shared
			logits := l.linear(h, "block_sparse_moe.router.layer", c.MoE.Experts, false)
			chosen, weights := l.Route(logits, Routing{TopK: c.MoE.TopK, Score: ScoreSoftmaxChosen})
			experts := l.fusedExperts("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight")
			x = b.AddScaled(x, l.Experts(h, chosen, weights, experts), c.ResidualScale)
		}
		both := fused{l, h, "shared_mlp.input_linear", 2 * inner}
		h = b.Gate(Act{Kind: c.Activation}, both.part(0, inner), both.part(inner, inner))
		x = b.AddScaled(x, l.linear(h, "shared_mlp.output_linear", c.Hidden, false), c.ResidualScale)
	}
	b.head(x)
}
