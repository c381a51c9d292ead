package plan

// Qwen 3 with experts: Qwen 3's attention, and experts on some layers or all.
// transformers/models/qwen3_moe.

// qwen3MoEKeys: transformers 5 writes num_experts under another name.
var qwen3MoEKeys = map[string]string{"num_experts": "num_local_experts"}

func readQwen3MoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 151936, hidden: 2048, intermediate: 6144, layers: 24, heads: 32, kvHeads: 4,
		maxPos: 32768, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	window := readWindow(o, 4096)
	if o.boolean("use_sliding_window", false) {
		c.readWindow(o, window)
	}
	c.readQwenExperts(o, 128, 8, 768, false)
	c.Rope = readRope(o, c)
}

func buildQwen3MoE(b *Builder, _ *Config) {
	b.preNorm(layer.normedAttention, layer.qwenMixture)
}

// mlpNames are what most families call the projections of an MLP.
var mlpNames = [3]string{"gate_proj", "up_proj", "down_proj"}
