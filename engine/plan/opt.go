package plan

// OPT: learned positions that begin at 2, biases everywhere, in some sizes norms
// after the residuals, and in some embeddings narrower than the model.
// transformers/models/opt.

// optKeys are what OPTConfig calls the common keys.
var optKeys = map[string]string{
	"intermediate_size": "ffn_dim",
	"hidden_act":        "activation_function",
}

func readOPT(o *object, c *Config) {
	c.readCommon(o, defaults{
		plain: true,
		vocab: 50272, hidden: 768, intermediate: 3072, layers: 12, heads: 12,
		maxPos: 2048, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "relu")
	c.MLPBias = o.boolean("enable_bias", true)
	c.AttentionBias, c.OutputBias = c.MLPBias, c.MLPBias
	c.PlainNorms = !o.boolean("layer_norm_elementwise_affine", true)
	c.PostNorm = !o.boolean("do_layer_norm_before", true)
	c.NoFinalNorm = o.boolean("_remove_final_layer_norm", false) || c.PostNorm
	c.EmbedWidth = o.dimension("word_embed_proj_dim", c.Hidden, maxDimension)
}

func buildOPT(b *Builder, c *Config) {
	norm := func(x Var, name string) Var {
		if c.PlainNorms {
			return b.LayerNorm(x, Norm{Eps: c.NormEps})
		}
		return b.layerNorm(x, name)
	}
	positions := b.EmbedPosition(b.Weight(b.prefix+"embed_positions.weight", c.MaxPos+2, c.Hidden), 2)
	var x Var
	narrow := c.EmbedWidth != c.Hidden
	if narrow {
		x = b.Linear(b.EmbedBeside(b.embedding(), 1), b.Weight(b.prefix+"project_in.weight", c.Hidden, c.EmbedWidth), 0)
	} else {
		x = b.embed()
	}
	x = b.Add(x, positions)
	for i := range c.Layers {
		l := b.layer(i)

		h := x
		if !c.PostNorm {
			h = norm(x, l.prefix+"self_attn_layer_norm")
		}
		q, k, v := l.qkv(h)
		a := l.attention(q, k, v, Attention{})
		x = b.Add(x, l.linear(a, "self_attn.out_proj", c.Hidden, c.OutputBias))
		if c.PostNorm {
			x = norm(x, l.prefix+"self_attn_layer_norm")
		}

		h = x
		if !c.PostNorm {
			h = norm(x, l.prefix+"final_layer_norm")
		}
		x = b.Add(x, l.plainMLP(h, "fc1", "fc2", c.MLPBias))
		if c.PostNorm {
			x = norm(x, l.prefix+"final_layer_norm")
		}
	}
	x = b.Rows(x)
	if !c.NoFinalNorm {
		x = norm(x, b.prefix+"final_layer_norm")
	}
	if narrow {
		x = b.Linear(x, b.Weight(b.prefix+"project_out.weight", c.EmbedWidth, c.Hidden), 0)
	}
	b.Logits(x, b.output(), 0, 1, 0)
}
