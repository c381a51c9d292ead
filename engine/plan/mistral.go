package plan

// Mistral: llama with a sliding window on every layer, or on none.
// transformers/models/mistral.

func readMistral(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8,
		maxPos: 131072, eps: 1e-6,
	})
	c.Activation = o.activation("hidden_act", "silu")
	window := readWindow(o, 4096)
	for i := range c.Windows {
		c.Windows[i] = window
	}
	for i, t := range o.texts("layer_types") {
		if (t == slidingAttention) != (window > 0) {
			o.fail("layer_types", "%q for layer %d is not supported: this family has sliding_window on all layers or on none", t, i)
		}
	}
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
