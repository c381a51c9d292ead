package plan

// Persimmon: queries, keys and values interleaved by head, norms of each head, a
// half of which is rotated. transformers/models/persimmon.

func readPersimmon(o *object, c *Config) {
	c.readCommon(o, defaults{
		plain: true,
		vocab: 262144, hidden: 4096, intermediate: 16384, layers: 36, heads: 64,
		maxPos: 16384, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "relu2")
	c.QKNorm = o.boolean("qk_layernorm", true)
	c.RotaryFactor = 0.5
	c.Rope = readRope(o, c)
}

func buildPersimmon(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		q, k, v := l.fusedQKV(l.layerNorm(x, "input_layernorm"), "self_attn.query_key_value", true)
		if c.QKNorm {
			q, k = l.headLayerNorm(q, "self_attn.q_layernorm"), l.headLayerNorm(k, "self_attn.k_layernorm")
		}
		x = b.Add(x, l.linear(l.attend(q, k, v, c.Rope), "self_attn.dense", c.Hidden, true))
		h := l.layerNorm(x, "post_attention_layernorm")
		x = b.Add(x, l.plainMLP(h, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", true))
	}
	b.layerNormHead(x, "final_layernorm")
}
