package plan

// Helium: llama whose rotations are of neighbours. transformers/models/helium.

func readHelium(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 48000, hidden: 2560, intermediate: 7040, layers: 24, heads: 20, kvHeads: 20, headDim: 128,
		maxPos: 4096, eps: 1e-8,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.MLPBias = o.boolean("mlp_bias", false)
	if *o.err == nil && c.QWidth() != c.Hidden {
		o.fail("head_dim", "%d times num_attention_heads %d must be hidden_size %d in this family", c.HeadDim, c.Heads, c.Hidden)
	}
	c.Rope = readRopeOf(o, c, 100000)
	c.Rope.Interleaved = true
}
