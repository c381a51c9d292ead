package plan

// Arcee's AFM: llama with an MLP without a gate. transformers/models/arcee.

func readArcee(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 2560, intermediate: 18432, layers: 32, heads: 32,
		maxPos: 4096, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "relu2")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MLPBias = o.boolean("mlp_bias", false)
	c.Rope = readRope(o, c)
}

func buildArcee(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		q, k, v := l.qkv(l.norm(x, "input_layernorm"))
		a := l.attend(q, k, v, c.Rope)
		x = b.Add(x, l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias))

		h := l.norm(x, "post_attention_layernorm")
		x = b.Add(x, l.plainMLP(h, "mlp.up_proj", "mlp.down_proj", c.MLPBias))
	}
	b.head(x)
}
