package plan

// GPTBigCode, StarCoder's first generation: GPT-2 with one key and value for all
// heads and projections stored [out, in]. transformers/models/gpt_bigcode.

func readGPTBigCode(o *object, c *Config) {
	c.readCommon(o, defaults{
		plain: true,
		vocab: 50257, hidden: 768, intermediate: 4 * o.dimension("hidden_size", 768, maxDimension), layers: 12, heads: 12,
		maxPos: 1024, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "gelu_pytorch_tanh")
	if !o.boolean("scale_attn_weights", true) {
		c.QueryScale = 1
	}
	if o.boolean("multi_query", true) {
		c.KVHeads = 1
	}
}

func buildGPTBigCode(b *Builder, c *Config) {
	x := b.Add(b.embed(), b.EmbedPosition(b.Weight(b.prefix+"wpe.weight", c.MaxPos, c.Hidden), 0))
	for i := range c.Layers {
		l := b.layerOf("h", i)

		q, k, v := l.fusedQKV(l.layerNorm(x, "ln_1"), "attn.c_attn", true)
		x = b.Add(x, l.linear(l.attention(q, k, v, Attention{}), "attn.c_proj", c.Hidden, true))
		x = b.Add(x, l.plainMLP(l.layerNorm(x, "ln_2"), "mlp.c_fc", "mlp.c_proj", true))
	}
	b.layerNormHead(x, "ln_f")
}
