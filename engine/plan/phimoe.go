package plan

// Phi 3.5 MoE: Mixtral with layer norms, biases, and two experts chosen by a
// sparse mixer. transformers/models/phimoe.

func readPhimoe(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32064, hidden: 4096, intermediate: 6400, layers: 32, heads: 32, kvHeads: 8,
		maxPos: 131072, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.HeadBias = o.boolean("lm_head_bias", false)
	c.readWindow(o, readWindow(o, 0))
	c.MoE = c.readMoE(o, "num_local_experts", 16, 2)
	c.MoE.TopK = 2 // always, whatever num_experts_per_tok says
	if c.MoE.Experts < 2 {
		o.fail("num_local_experts", "must be at least 2, found %d", c.MoE.Experts)
	}
	c.MoE.Jitter = o.float("router_jitter_noise", 0.01)
	if c.MoE.Jitter < 0 {
		o.fail("router_jitter_noise", "must not be negative, found %g", c.MoE.Jitter)
	}
	c.Rope = readRopeOf(o, c, 1e6)
	if params := o.ropeParams(); params.ropeType() != "default" {
		short, long := params.float("short_mscale", 0), params.float("long_mscale", 0)
		if short <= 0 || short != long {
			params.fail("short_mscale", "must be the positive number that long_mscale is, found %g and %g", short, long)
		}
		c.Rope.Scale = float32(short)
	}
}

func buildPhimoe(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		x = b.Add(x, l.selfAttention(l.layerNorm(x, "input_layernorm"), nil))
		h := l.layerNorm(x, "post_attention_layernorm")
		chosen, weights := l.Route(l.linear(h, "block_sparse_moe.gate", c.MoE.Experts, false), Routing{
			TopK: c.MoE.TopK, Score: ScoreSparseMixer, Jitter: c.MoE.Jitter,
		})
		experts := l.expertMLPs("block_sparse_moe.experts.%d.", [3]string{"w1", "w3", "w2"})
		x = b.Add(x, l.Experts(h, chosen, weights, experts))
	}
	b.biasedHead(b.layerNorm(b.Rows(x), b.prefix+"norm"), c.HeadBias)
}
