package plan

// Qwen 2 and 2.5: llama with biases on queries, keys and values, and
// optionally a sliding window on the later layers.
// transformers/models/qwen2.

func readQwen2(o *object, c *Config) {
	c.readCommon(o, qwenDefaults)
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = true
	o.raw("attention_bias") // is ignored in this family
	readQwenWindows(o, c)
	c.Rope = readRope(o, c)
}

var qwenDefaults = defaults{
	vocab: 151936, hidden: 4096, intermediate: 22016, layers: 32, heads: 32, kvHeads: 32,
	maxPos: 32768, eps: 1e-6,
}

// readQwenWindows: layers from max_window_layers on have the window, if
// use_sliding_window turns it on.
func readQwenWindows(o *object, c *Config) {
	window := readWindow(o, 4096)
	if !o.boolean("use_sliding_window", false) {
		window = 0
	}
	from := o.integer("max_window_layers", 28)
	c.readWindows(o, window, func(layer int) bool { return window > 0 && layer >= from })
}
