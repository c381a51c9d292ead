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

// Apertus: Arcee with a learned activation, xIELU, and a norm of each query and key
// head. transformers/models/apertus.

func readApertus(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 131072, hidden: 4096, intermediate: 14336, layers: 32, heads: 32,
		maxPos: 65536, eps: 1e-5,
	})
	if c.Activation = ActXIELU; o.text("hidden_act", "xielu") != "xielu" {
		c.Activation = o.activation("hidden_act", "")
	}
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	if !o.boolean("qk_norm", true) {
		o.fail("qk_norm", "false is not supported by this family")
	}
	if o.raw("rope_parameters") == nil && o.raw("rope_scaling") == nil {
		o.values["rope_parameters"] = []byte(`{"rope_type":"llama3","rope_theta":12e6,"factor":8,"original_max_position_embeddings":8192,` +
			`"low_freq_factor":1,"high_freq_factor":4}`)
	}
	c.Rope = readRopeOf(o, c, 12e6)
}

func buildApertus(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		x = b.Add(x, l.normedAttention(l.norm(x, "attention_layernorm")))

		h := l.linear(l.norm(x, "feedforward_layernorm"), "mlp.up_proj", c.Intermediate, false)
		if c.Activation == ActXIELU {
			h = b.XIELU(h, l.Weight(l.prefix+"mlp.act_fn.alpha_p", 1), l.Weight(l.prefix+"mlp.act_fn.alpha_n", 1), 0.5)
		} else {
			h = b.Activate(c.Activation, h)
		}
		x = b.Add(x, l.linear(h, "mlp.down_proj", c.Hidden, false))
	}
	b.head(x)
}

func buildArcee(b *Builder, c *Config) {
	b.preNorm(layer.plainAttention, func(l layer, x Var) Var { return l.plainMLP(x, "mlp.up_proj", "mlp.down_proj", c.MLPBias) })
}
