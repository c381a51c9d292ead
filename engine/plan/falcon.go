package plan

import "math"

// Falcon, in its three architectures: of 40B and later (attention and MLP side by
// side, grouped keys), of 7B (side by side on one norm, one key for all heads) and
// of RW (one after the other, ALiBi). transformers/models/falcon; RefinedWeb and
// RefinedWebModel are what the first releases called 40B's and the other two.

var (
	// falconKeys are what FalconConfig calls the common keys.
	falconKeys = map[string]string{
		"intermediate_size": "ffn_hidden_size",
		"hidden_act":        "activation",
		"rms_norm_eps":      "layer_norm_epsilon",
	}
	// refinedWebKeys are what the first releases called them.
	refinedWebKeys = map[string]string{
		"num_hidden_layers":   "n_layer",
		"num_attention_heads": "n_head",
		"num_kv_heads":        "n_head_kv",
		"rms_norm_eps":        "layer_norm_epsilon",
	}
)

func readFalcon(o *object, c *Config) {
	if o.raw("n_embed") != nil { // of the first checkpoints; it wins
		o.values["hidden_size"] = o.values["n_embed"]
	}
	c.readCommon(o, defaults{
		plain: true,
		vocab: 65024, hidden: 4544, intermediate: 4 * o.dimension("hidden_size", 4544, maxDimension), layers: 32, heads: 71,
		maxPos: 2048, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "gelu")
	c.AttentionBias = o.boolean("bias", false)
	kvHeads := o.dimension("num_kv_heads", c.Heads, maxHeads)
	c.ParallelResidual = o.boolean("parallel_attn", true)
	multiQuery := o.boolean("multi_query", true)
	norms := o.integer("num_ln_in_parallel_attn", 2)
	if o.boolean("new_decoder_architecture", c.Family == "RefinedWeb") {
		c.ParallelResidual, c.KVHeads, c.TwoNorms = true, kvHeads, norms == 2
		if c.Heads%c.KVHeads != 0 {
			o.fail("num_attention_heads", "%d is not a multiple of num_kv_heads %d", c.Heads, c.KVHeads)
		}
	} else if multiQuery {
		c.KVHeads = 1
	}
	if rope := readRope(o, c); !o.boolean("alibi", false) {
		c.Rope = rope
	} else {
		// The slopes are rounded to bfloat16, and scaled as the scores are.
		c.Slopes = alibiSlopes(c.Heads, 8)
		for i, s := range c.Slopes {
			bits := math.Float32bits(s)
			rounded := math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
			c.Slopes[i] = rounded * float32(c.QueryScale)
		}
	}
}

func buildFalcon(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layerOf("h", i)

		first, second := "input_layernorm", "post_attention_layernorm"
		if c.TwoNorms {
			first, second = "ln_attn", "ln_mlp"
		}
		in := l.layerNorm(x, first)
		h := in
		if c.TwoNorms {
			h = l.layerNorm(x, second)
		}
		q, k, v := l.fusedQKV(in, "self_attention.query_key_value", c.AttentionBias)
		if c.Slopes == nil {
			q, k = l.Rope(q, c.Rope, c.HeadDim), l.Rope(k, c.Rope, c.HeadDim)
		}
		a := l.attention(q, k, v, Attention{Slopes: c.Slopes})
		x = b.Add(x, l.linear(a, "self_attention.dense", c.Hidden, c.AttentionBias))
		if !c.ParallelResidual {
			h = l.layerNorm(x, second)
		}
		x = b.Add(x, l.plainMLP(h, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", c.AttentionBias))
	}
	b.layerNormHead(x, "ln_f")
}
