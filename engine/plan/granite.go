package plan

import "maps"

// Granite 3: llama with factors on embeddings, scores, residuals and logits.
// transformers/models/granite.

func readGranite(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 2048, eps: 1e-6,
	})
	c.readGranite(o)
	c.Rope = readRope(o, c)
}

// readGranite reads what the Granite families have in common.
func (c *Config) readGranite(o *object) {
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MLPBias = o.boolean("mlp_bias", false)
	c.readGraniteFactors(o)
}

// readGraniteFactors reads the factors by which Granite models are scaled.
func (c *Config) readGraniteFactors(o *object) {
	c.EmbedScale = o.float("embedding_multiplier", 1)
	c.QueryScale = o.float("attention_multiplier", 1)
	c.ResidualScale = o.float("residual_multiplier", 1)
	divisor := o.float("logits_scaling", 1)
	if divisor == 0 {
		o.fail("logits_scaling", "must not be 0")
	}
	c.LogitScale = 1 / divisor
}

// Granite SWA: Granite with a window on three layers of four, a sink for each
// query head, and a base of the rope, or none, for each layer.
// transformers/models/granite_swa.

func readGraniteSWA(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 100352, hidden: 2560, intermediate: 8192, layers: 24, heads: 20, kvHeads: 4,
		maxPos: 8192, eps: 1e-5, tied: true,
	})
	c.readGranite(o)
	c.readWindows(o, readWindow(o, 128), func(layer int) bool { return layer%4 != 0 })
	c.readLayerThetas(o)
}

// readLayerThetas reads a rope for each layer: of the base in layer_rope_theta, 0
// being no positions, or of the one that all layers have.
func (c *Config) readLayerThetas(o *object) {
	maxPos := c.MaxPos
	c.Rope = readRope(o, c)
	thetas := o.floats("layer_rope_theta")
	if thetas == nil || *o.err != nil {
		return
	}
	if len(thetas) != c.Layers {
		o.fail("layer_rope_theta", "has %d entries, expected num_hidden_layers %d", len(thetas), c.Layers)
		return
	}
	known := map[float64]Rope{0: {}}
	c.Ropes = make([]Rope, c.Layers)
	for i, theta := range thetas {
		if theta != 0 && theta <= 1 {
			o.fail("layer_rope_theta", "must be 0 or above 1, found %g", theta)
			return
		}
		if _, ok := known[theta]; !ok {
			c.MaxPos = maxPos // which a rope may extend
			params := o.ropeParams()
			params.values = maps.Clone(params.values)
			delete(params.values, "rope_theta")
			known[theta] = readRopeParams(params, o, c, theta)
		}
		c.Ropes[i] = known[theta]
	}
}

func buildGraniteSWA(b *Builder, _ *Config) { b.preNorm(layer.sinkAttention, layer.mlp) }
