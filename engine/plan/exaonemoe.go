package plan

// K-EXAONE: EXAONE 4's attention, whose layers without a window have no positions,
// with norms before it, and DeepSeek's experts. transformers/models/exaone_moe.

// exaoneMoEKeys: it has names of its own for what the experts' keys are elsewhere.
var exaoneMoEKeys = map[string]string{"n_routed_experts": "num_experts", "n_shared_experts": "num_shared_experts"}

func readExaoneMoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 102400, hidden: 4096, intermediate: 16384, layers: 32, heads: 32, kvHeads: 32,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	window := readWindow(o, 4096)
	pattern := 1
	if window > 0 && o.texts("layer_types") == nil {
		pattern = o.dimension("sliding_window_pattern", 4, maxLayers)
	}
	o.raw("sliding_window_pattern") // of no effect beside layer_types
	c.readWindows(o, window, func(layer int) bool { return (layer+1)%pattern != 0 })
	c.readExperts(o, expertDefaults{
		experts: 64, topK: 8, inner: 1024, shared: 1, groups: 1, topGroups: 1, dense: 1, normalize: true, scale: 2.5,
	})
	c.readMLPTypes(o)
	o.only("scoring_func", "sigmoid")
	o.only("topk_method", "noaux_tc")
	if c.Rope = readRope(o, c); window > 0 && *o.err == nil {
		c.setRopes(Rope{}, c.Rope)
	}
}

func buildExaoneMoE(b *Builder, _ *Config) {
	b.preNorm(layer.normedAttention, layer.mixture)
}
