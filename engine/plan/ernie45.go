package plan

// ERNIE 4.5, dense: llama whose rotations are of neighbours.
// transformers/models/ernie4_5.

func readERNIE45(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 103424, hidden: 1024, intermediate: 3072, layers: 18, heads: 16, kvHeads: 2, headDim: 128,
		maxPos: 131072, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("use_bias", false)
	c.OutputBias, c.MLPBias = c.AttentionBias, c.AttentionBias
	c.Rope = readRopeOf(o, c, 500000)
	c.Rope.Interleaved = true
}
