package plan

// GLM 4.5 to 4.7, dots.llm1 and Solar Open: attention as in llama with DeepSeek's
// experts. transformers/models/glm4_moe, dots1, solar_open.

func readGLM4MoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 151552, hidden: 4096, intermediate: 10944, layers: 46, heads: 96, kvHeads: 8,
		maxPos: 131072, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.QKNorm = o.boolean("use_qk_norm", false)
	c.readExperts(o, expertDefaults{
		experts: 128, topK: 8, inner: 1408, shared: 1, groups: 1, topGroups: 1, dense: 1, normalize: true, scale: 1,
	})
	c.RotaryFactor = 0.5
	c.Rope = readRope(o, c)
}

func readDots1(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 152064, hidden: 4608, intermediate: 10944, layers: 62, heads: 32, kvHeads: 32,
		maxPos: 2048, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.QKNorm = true
	window := readWindow(o, 4096)
	from := o.integer("max_window_layers", 62)
	c.readWindows(o, window, func(layer int) bool { return window > 0 && layer >= from })
	c.readExperts(o, expertDefaults{inner: 1408, groups: 1, topGroups: 1, scale: 1}) // the rest has no default
	o.only("scoring_func", "sigmoid")
	o.only("topk_method", "noaux_tc")
	c.Rope = readRope(o, c)
}

func readSolarOpen(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 196608, hidden: 4096, intermediate: 10240, layers: 48, heads: 64, kvHeads: 8, headDim: 128,
		maxPos: 131072, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.readExperts(o, expertDefaults{
		experts: 128, topK: 8, inner: 1280, shared: 1, groups: 1, topGroups: 1, normalize: true, scale: 1,
	})
	clear(c.MoE.Dense) // whatever first_k_dense_replace says
	c.Rope = readRopeOf(o, c, 1e6)
}

func buildGLM4MoE(b *Builder, _ *Config) {
	b.spareLayers()
	b.preNorm(layer.glmAttention, layer.mixture)
}

func draftGLM4MoE(b *Builder, _ *Config) { b.nextLayer(layer.glmAttention, layer.mixture) }

// glmAttention is attention with norms of queries and keys if the config says so.
func (l layer) glmAttention(x Var) Var {
	if l.c.QKNorm {
		return l.normedAttention(x)
	}
	return l.plainAttention(x)
}
