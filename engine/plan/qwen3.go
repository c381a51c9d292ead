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

func buildQwen3(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "input_layernorm")
		q, k, v := l.qkv(h)
		q = l.headNorm(q, "self_attn.q_norm")
		k = l.headNorm(k, "self_attn.k_norm")
		a := l.attend(q, k, v, c.Rope)
		x = b.Add(x, l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias))

		h = l.norm(x, "post_attention_layernorm")
		x = b.Add(x, l.mlp(h))
	}
	b.head(x)
}
