package plan

// Phi 1, 1.5 and 2: attention and MLP side by side on one norm, biases
// everywhere, a half of each head rotated. transformers/models/phi.

func readPhi(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 51200, hidden: 2048, intermediate: 8192, layers: 24, heads: 32,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "gelu_new")
	c.AttentionBias = true
	c.QKNorm = o.boolean("qk_layernorm", false)
	c.RotaryFactor = 0.5
	c.Rope = readRope(o, c)
}

func buildPhi(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.layerNorm(x, "input_layernorm")
		q, k, v := l.qkv(h)
		if c.QKNorm {
			q, k = l.headLayerNorm(q, "self_attn.q_layernorm"), l.headLayerNorm(k, "self_attn.k_layernorm")
		}
		x = b.Add(x, l.linear(l.attend(q, k, v, c.Rope), "self_attn.dense", c.Hidden, true))
		x = b.Add(x, l.plainMLP(h, "mlp.fc1", "mlp.fc2", true))
	}
	b.biasedHead(b.layerNorm(b.Rows(x), b.prefix+"final_layernorm"), true)
}
