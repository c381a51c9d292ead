package plan

// BitNet b1.58: llama with a further norm before each half's last projection and
// weights of -1, 0 and 1. transformers/models/bitnet.

func readBitNet(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 128256, hidden: 2560, intermediate: 6912, layers: 30, heads: 20, kvHeads: 5,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "relu2")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.Rope = readRopeOf(o, c, 500000)
}

func buildBitNet(b *Builder, c *Config) {
	b.preNorm(
		func(l layer, x Var) Var {
			q, k, v := l.qkv(x)
			a := l.norm(l.attend(q, k, v, c.Rope), "self_attn.attn_sub_norm")
			return l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias)
		},
		func(l layer, x Var) Var {
			gate := l.linear(x, "mlp.gate_proj", c.Intermediate, false)
			up := l.linear(x, "mlp.up_proj", c.Intermediate, false)
			h := l.norm(l.Gate(Act{Kind: c.Activation}, gate, up), "mlp.ffn_sub_norm")
			return l.linear(h, "mlp.down_proj", c.Hidden, false)
		},
	)
}
