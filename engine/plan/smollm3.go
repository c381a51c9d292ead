package plan

// SmolLM 3: llama with every fourth layer without positions.
// transformers/models/smollm3.

func readSmolLM3(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 128256, hidden: 2048, intermediate: 11008, layers: 36, heads: 16, kvHeads: 4,
		maxPos: 32768, eps: 1e-6, tied: true,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MLPBias = o.boolean("mlp_bias", false)
	c.readRopeLayers(o, 2e6)
	window := readWindow(o, 0)
	if !o.boolean("use_sliding_window", false) {
		window = 0
	}
	c.readWindows(o, window, func(layer int) bool { return window > 0 && c.Ropes[layer].Freqs == nil })
}

// readRopeLayers reads which layers have positions: those whose entry of
// no_rope_layers is 1, or all but every fourth.
func (c *Config) readRopeLayers(o *object, theta float64) {
	rope := readRopeOf(o, c, theta)
	layers := o.integers("no_rope_layers")
	interval := o.dimension("no_rope_layer_interval", 4, maxLayers)
	if len(layers) > 0 && len(layers) < c.Layers {
		o.fail("no_rope_layers", "has %d entries, expected num_hidden_layers %d", len(layers), c.Layers)
		return
	}
	if *o.err != nil {
		return
	}
	c.Rope, c.Ropes = rope, make([]Rope, c.Layers)
	for i := range c.Ropes {
		if len(layers) > 0 && layers[i] != 0 || len(layers) == 0 && (i+1)%interval != 0 {
			c.Ropes[i] = rope
		}
	}
}
