package plan

// BLOOM: biases by distance in place of positions (ALiBi), a norm after the
// embedding, queries, keys and values interleaved by head.
// transformers/models/bloom.

// bloomKeys are what BloomConfig calls the common keys. Positions end nowhere;
// seq_length is what the model was trained with.
var bloomKeys = map[string]string{
	"num_hidden_layers":       "n_layer",
	"num_attention_heads":     "n_head",
	"max_position_embeddings": "seq_length",
	"rms_norm_eps":            "layer_norm_epsilon",
}

func readBloom(o *object, c *Config) {
	if o.raw("n_embed") != nil { // of the first checkpoints; it wins
		o.values["hidden_size"] = o.values["n_embed"]
	}
	hidden := o.dimension("hidden_size", 64, maxDimension)
	c.readCommon(o, defaults{
		plain: true,
		vocab: 250880, hidden: 64, intermediate: 4 * hidden, layers: 2, heads: 8,
		maxPos: 2048, eps: 1e-5, tied: true,
	})
	c.Activation = ActGeluTanh
	c.PostNormResidual = o.boolean("apply_residual_connection_post_layernorm", false)
}

func buildBloom(b *Builder, c *Config) {
	slopes := alibiSlopes(c.Heads, 8)
	x := b.layerNorm(b.embed(), b.prefix+"word_embeddings_layernorm")
	for i := range c.Layers {
		l := b.layerOf("h", i)

		h := l.layerNorm(x, "input_layernorm")
		if c.PostNormResidual {
			x = h
		}
		q, k, v := l.fusedQKV(h, "self_attention.query_key_value", true)
		a := l.attention(q, k, v, Attention{Slopes: slopes})
		x = b.Add(x, l.linear(a, "self_attention.dense", c.Hidden, true))

		h = l.layerNorm(x, "post_attention_layernorm")
		if c.PostNormResidual {
			x = h
		}
		x = b.Add(x, l.plainMLP(h, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", true))
	}
	b.layerNormHead(x, "ln_f")
}
