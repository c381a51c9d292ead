package plan

// GLM-4 of 2024: llama with gate and up projection stored as one, and rotations of
// neighbours in half of each head. transformers/models/glm.

// GLM-4 of 2025: norms after each half of a layer too. transformers/models/glm4.

func readGLM(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 151552, hidden: 4096, intermediate: 13696, layers: 40, heads: 32, kvHeads: 2, headDim: 128,
		maxPos: 131072, eps: 1.5625e-7,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", true)
	c.RotaryFactor = 0.5
	c.Rope = readRope(o, c)
	c.Rope.Interleaved = true
	if o.raw("eos_token_id") == nil {
		o.values["eos_token_id"] = []byte("[151329,151336,151338]")
	}
}

func buildGLM(b *Builder, _ *Config) { b.preNorm(layer.plainAttention, layer.fusedMLP) }

func buildGLM4(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		a := l.plainAttention(l.norm(x, "input_layernorm"))
		x = l.addNormed(x, a, "post_self_attn_layernorm")
		x = l.addNormed(x, l.fusedMLP(l.norm(x, "post_attention_layernorm")), "post_mlp_layernorm")
	}
	b.head(x)
}
