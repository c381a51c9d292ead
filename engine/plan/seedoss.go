package plan

// Seed-OSS: llama with biases on queries, keys and values.
// transformers/models/seed_oss.

func readSeedOSS(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 155136, hidden: 4096, intermediate: 27648, layers: 64, heads: 80, kvHeads: 8, headDim: 128,
		maxPos: 524288, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", true)
	c.OutputBias = o.boolean("attention_out_bias", false)
	c.MLPBias = o.boolean("mlp_bias", false)
	c.Rope = readRope(o, c)
}
