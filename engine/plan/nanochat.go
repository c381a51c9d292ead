package plan

// nanochat: norms without weights, of the embedding too and of queries and keys
// after they were rotated, and rotations the other way round.
// transformers/models/nanochat.

func readNanochat(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 50304, hidden: 768, intermediate: 8192, layers: 12, heads: 6,
		maxPos: 2048, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "relu2")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.LogitCap = readCap(o, "final_logit_softcapping", 15)
	c.Rope = readRope(o, c)
	for i := range c.Rope.Freqs {
		c.Rope.Freqs[i] = -c.Rope.Freqs[i]
	}
}

func buildNanochat(b *Builder, c *Config) {
	norm := func(x Var, group int) Var { return b.RMSNorm(x, Norm{Group: group, Eps: c.NormEps}) }
	x := norm(b.embed(), c.Hidden)
	for i := range c.Layers {
		l := b.layer(i)

		q, k, v := l.qkv(norm(x, c.Hidden))
		q, k = l.Rope(q, c.Rope, c.HeadDim), l.Rope(k, c.Rope, c.HeadDim)
		a := l.attention(norm(q, c.HeadDim), norm(k, c.HeadDim), v, Attention{})
		x = b.Add(x, l.linear(a, "self_attn.o_proj", c.Hidden, c.AttentionBias))
		x = b.Add(x, l.plainMLP(norm(x, c.Hidden), "mlp.fc1", "mlp.fc2", false))
	}
	b.Logits(norm(b.Rows(x), c.Hidden), b.output(), 0, 1, c.LogitCap)
}
