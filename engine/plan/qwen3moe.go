package plan

import "slices"

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
	c.MoE = c.readMoE(o, "num_experts", 128, 8)
	c.MoE.Inner = o.dimension("moe_intermediate_size", 768, maxDimension)
	c.MoE.Normalize = o.boolean("norm_topk_prob", false)
	step := o.dimension("decoder_sparse_step", 1, maxLayers)
	dense := o.integers("mlp_only_layers")
	for i := range c.MoE.Dense {
		c.MoE.Dense[i] = (i+1)%step != 0 || slices.Contains(dense, i)
	}
	c.Rope = readRope(o, c)
}

func buildQwen3MoE(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		q, k, v := l.qkv(l.norm(x, "input_layernorm"))
		q = l.headNorm(q, "self_attn.q_norm")
		k = l.headNorm(k, "self_attn.k_norm")
		x = b.Add(x, l.linear(l.attend(q, k, v, c.Rope), "self_attn.o_proj", c.Hidden, c.OutputBias))

		h := l.norm(x, "post_attention_layernorm")
		if c.MoE.Dense[i] {
			x = b.Add(x, l.mlp(h))
			continue
		}
		logits := l.linear(h, "mlp.gate", c.MoE.Experts, false)
		x = b.Add(x, l.experts(h, logits, ScoreSoftmax, 0, "mlp.experts.%d.", mlpNames))
	}
	b.head(x)
}

// mlpNames are what most families call the projections of an MLP.
var mlpNames = [3]string{"gate_proj", "up_proj", "down_proj"}
