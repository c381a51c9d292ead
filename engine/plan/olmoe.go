package plan

// OLMoE and FlexOlmo: queries and keys are normalized as a whole; experts are
// chosen by softmax. FlexOlmo normalizes what attention and experts make rather
// than what they are given. transformers/models/olmoe, flex_olmo.

// olmoeKeys: transformers 5 has another name for num_experts.
var olmoeKeys = map[string]string{"num_experts": "num_local_experts"}

func readOLMoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 50304, hidden: 2048, intermediate: 2048, layers: 16, heads: 16,
		maxPos: 4096, eps: 1e-5,
	})
	c.readOLMoEParts(o, 64, 8)
	c.ClipQKV = readClip(o)
	c.Rope = readRope(o, c)
}

func readFlexOlmo(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 100352, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 4096, eps: 1e-6,
	})
	c.readOLMoEParts(o, 7, 5)
	c.Rope = readRopeOf(o, c, 500000)
}

func (c *Config) readOLMoEParts(o *object, experts, topK int) {
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MoE = c.readMoE(o, "num_experts", experts, topK)
	c.MoE.Normalize = o.boolean("norm_topk_prob", false)
}

func buildOLMoE(b *Builder, c *Config) {
	b.preNorm(layer.olmoeAttention, layer.qwenMixture)
}

// olmoeAttention is attention whose queries, keys and values are clipped, if the
// config says so.
func (l layer) olmoeAttention(x Var) Var {
	q, k, v := l.qkv(x)
	q, k = l.norm(q, "self_attn.q_norm"), l.norm(k, "self_attn.k_norm")
	if limit := l.c.ClipQKV; limit > 0 {
		q, k, v = l.Clip(q, limit), l.Clip(k, limit), l.Clip(v, limit)
	}
	return l.linear(l.attend(q, k, v, l.c.Rope), "self_attn.o_proj", l.c.Hidden, l.c.OutputBias)
}

func buildFlexOlmo(b *Builder, _ *Config) { b.postNorm(layer.wideNormedAttention, layer.qwenMixture) }
