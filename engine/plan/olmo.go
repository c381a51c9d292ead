package plan

// OLMo 1: llama with layer norms that have no weights.
// transformers/models/olmo.

func readOLMo(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 50304, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 2048, eps: 1e-5,
	})
	c.NormEps = 1e-5
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.ClipQKV = readClip(o)
	c.Rope = readRope(o, c)
}

func buildOLMo(b *Builder, c *Config) {
	norm := Norm{Eps: c.NormEps}
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		q, k, v := l.qkv(b.LayerNorm(x, norm))
		if c.ClipQKV > 0 {
			q, k, v = b.Clip(q, c.ClipQKV), b.Clip(k, c.ClipQKV), b.Clip(v, c.ClipQKV)
		}
		a := l.attend(q, k, v, c.Rope)
		x = b.Add(x, l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias))

		x = b.Add(x, l.mlp(b.LayerNorm(x, norm)))
	}
	b.Logits(b.LayerNorm(b.Rows(x), norm), b.output(), 0, 1, 0)
}

// OLMo 2: norms after each half of a layer instead of before it, and of all
// queries and all keys. transformers/models/olmo2.

func readOLMo2(o *object, c *Config) {
	c.readOLMo2(o)
	c.Rope = readRope(o, c)
}

func (c *Config) readOLMo2(o *object) {
	c.readCommon(o, defaults{
		vocab: 50304, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
}

// OLMo 3: OLMo 2 with a window on three layers of four, which have a rope of their
// own. transformers/models/olmo3.

func readOLMo3(o *object, c *Config) {
	c.readOLMo2(o)
	c.readWindows(o, readWindow(o, 4096), func(layer int) bool { return (layer+1)%4 != 0 })
	const theta = 500000
	full, sliding := o.ropesByLayerType()
	// transformers takes a rope_theta beside for the layers that see everything only.
	c.setRopes(readRopeParams(full, o, c, o.float("rope_theta", theta)), readRopeParams(sliding, o, c, theta))
}

func buildOLMo2(b *Builder, _ *Config) { b.postNorm(layer.wideNormedAttention, layer.mlp) }

// EXAONE 4: OLMo 2 with a norm of each query and key head. In models with windows,
// the layers without have no positions. transformers/models/exaone4.

func readEXAONE4(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 102400, hidden: 4096, intermediate: 16384, layers: 32, heads: 32, kvHeads: 32,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	rope := readRope(o, c)
	window := readWindow(o, 4096)
	pattern := 0
	if window > 0 && o.raw("layer_types") == nil {
		pattern = o.dimension("sliding_window_pattern", 4, maxLayers)
	}
	o.raw("sliding_window_pattern") // of no effect beside layer_types
	c.readWindows(o, window, func(layer int) bool { return pattern > 0 && (layer+1)%pattern != 0 })
	if c.Rope = rope; window > 0 {
		c.setRopes(Rope{}, rope)
	}
}

func buildEXAONE4(b *Builder, _ *Config) { b.postNorm(layer.normedAttention, layer.mlp) }
