package plan

// Llama 1 to 3, and the many models that share its config:
// transformers/models/llama.

func readLlama(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 2048, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MLPBias = o.boolean("mlp_bias", false)
	c.Rope = readRope(o, c)
}

// buildLlama also builds families that differ in windows, biases, ropes and
// factors only.
func buildLlama(b *Builder, _ *Config) { b.preNorm(layer.plainAttention, layer.mlp) }
