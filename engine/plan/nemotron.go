package plan

// Nemotron 3, 4 and Minitron: layer norms that multiply by 1 + weight, an MLP
// without a gate, a half of each head rotated. transformers/models/nemotron.

func readNemotron(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 256000, hidden: 6144, intermediate: 24576, layers: 32, heads: 48,
		maxPos: 4096, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "relu2")
	c.NormOffset = 1
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MLPBias = o.boolean("mlp_bias", false)
	c.RotaryFactor = 0.5
	c.Rope = readRope(o, c)
}

func buildNemotron(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		x = b.Add(x, l.selfAttention(l.layerNorm(x, "input_layernorm"), nil))
		x = b.Add(x, l.plainMLP(l.layerNorm(x, "post_attention_layernorm"), "mlp.up_proj", "mlp.down_proj", c.MLPBias))
	}
	b.layerNormHead(x, "norm")
}
