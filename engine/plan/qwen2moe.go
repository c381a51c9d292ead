package plan

import "slices"

// Qwen 1.5 and 2 with experts: Qwen 2's attention, and beside the experts one that
// sees every token, with a gate. transformers/models/qwen2_moe.

func readQwen2MoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 151936, hidden: 2048, intermediate: 5632, layers: 24, heads: 16, kvHeads: 16,
		maxPos: 32768, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("qkv_bias", true)
	window := 0
	if o.boolean("use_sliding_window", false) {
		window = readWindow(o, 4096)
	}
	o.raw("sliding_window") // transformers writes 0 where it is not in use
	until := o.integer("max_window_layers", 28)
	c.readWindows(o, window, func(layer int) bool { return window > 0 && layer%2 == 0 && layer < until })
	c.readQwenExperts(o, 60, 4, 1408, false)
	c.MoE.Shared = o.dimension("shared_expert_intermediate_size", 5632, maxDimension)
	c.Rope = readRope(o, c)
}

// readQwenExperts reads which layers have experts and how they are chosen.
func (c *Config) readQwenExperts(o *object, experts, topK, inner int, normalize bool) {
	c.MoE = c.readMoE(o, "num_experts", experts, topK)
	c.MoE.Inner = o.dimension("moe_intermediate_size", inner, maxDimension)
	c.MoE.Normalize = o.boolean("norm_topk_prob", normalize)
	step := o.dimension("decoder_sparse_step", 1, maxLayers)
	dense := o.integers("mlp_only_layers")
	for i := range c.MoE.Dense {
		c.MoE.Dense[i] = (i+1)%step != 0 || slices.Contains(dense, i)
	}
}

func buildQwen2MoE(b *Builder, _ *Config) {
	b.preNorm(layer.plainAttention, layer.qwenMixture)
}

// qwenMixture is a layer's MLP, or its experts and the one that sees every token,
// if there is one.
func (l layer) qwenMixture(x Var) Var {
	m := l.c.MoE
	if m.Dense[l.index] {
		return l.mlp(x)
	}
	y := l.experts(x, l.linear(x, "mlp.gate", m.Experts, false), ScoreSoftmax, 0, "mlp.experts.%d.", mlpNames)
	if m.Shared == 0 {
		return y
	}
	gate := l.linear(x, "mlp.shared_expert_gate", 1, false)
	return l.Add(y, l.Gate(Act{Kind: ActSigmoid}, gate, l.mlpOf(x, "mlp.shared_expert.", m.Shared)))
}
