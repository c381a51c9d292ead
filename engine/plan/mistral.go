package plan

// Mistral: llama with a sliding window on every layer, or on none.
// transformers/models/mistral.

func readMistral(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8,
		maxPos: 131072, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.readWindow(o, readWindow(o, 4096))
	c.Rope = readRope(o, c)
}

// Ministral 8B of 2024: Mistral with layers of both kinds.
// transformers/models/ministral.

func readMinistral(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8,
		maxPos: 131072, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	window := readWindow(o, 4096)
	c.readWindows(o, window, func(int) bool { return window > 0 })
	c.Rope = readRope(o, c)
}

// readWindow reads sliding_window; null is none, which is 0.
func readWindow(o *object, def int) int {
	if o.raw("sliding_window") == nil && !o.absent("sliding_window") {
		return 0
	}
	if def == 0 && o.absent("sliding_window") {
		return 0
	}
	return o.dimension("sliding_window", def, maxPosition)
}

// Ministral 3: Mistral whose queries grow with the logarithm of their position.
// transformers/models/ministral3.

func readMinistral3(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 131072, hidden: 4096, intermediate: 14336, layers: 34, heads: 32, kvHeads: 8, headDim: 128,
		maxPos: 262144, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.readWindow(o, readWindow(o, 0))
	if o.raw("rope_parameters") == nil && o.raw("rope_scaling") == nil {
		o.values["rope_parameters"] = []byte(`{"rope_type":"yarn","rope_theta":1e6,"factor":16,"original_max_position_embeddings":16384,` +
			`"mscale":1,"mscale_all_dim":1,"llama_4_scaling_beta":0.1}`)
	}
	params := o.ropeParams()
	params.raw("max_position_embeddings") // of no effect
	c.QueryGrowth = params.float("llama_4_scaling_beta", 0)
	c.QueryLength = int(originalLength(params, o, c))
	c.Rope = readRope(o, c)
}

// readMistral3 reads the config of Mistral 3's multimodal models, of which the
// language part is served. transformers/models/mistral3.
func readMistral3(o *object, c *Config) {
	text, kind := o.textConfig("mistral", "ministral3", "mistral4")
	switch kind {
	case "ministral3":
		readMinistral3(text, c)
	case "mistral4":
		readMistral4(text, c)
	default:
		readMistral(text, c)
	}
	c.Tied = o.boolean("tie_word_embeddings", true)
}

func buildMistral3(b *Builder, c *Config) {
	if c.MLA != nil {
		buildDeepseekV3(b, c)
		return
	}
	buildLlama(b, c)
}
