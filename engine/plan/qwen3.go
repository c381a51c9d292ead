package plan

// Qwen 3, dense: queries and keys are normalized per head.
// transformers/models/qwen3.

func readQwen3(o *object, c *Config) {
	d := qwenDefaults
	d.headDim = 128
	c.readCommon(o, d)
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	readQwenWindows(o, c)
	c.Rope = readRope(o, c)
}

func buildQwen3(b *Builder, _ *Config) { b.preNorm(layer.normedAttention, layer.mlp) }
