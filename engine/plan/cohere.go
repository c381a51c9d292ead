package plan

// Command R and R+: attention and MLP side by side, layer norms without biases,
// and logits with a factor. transformers/models/cohere.

// cohereKeys are what CohereConfig calls the common keys.
var cohereKeys = map[string]string{"rms_norm_eps": "layer_norm_eps"}

func readCohere(o *object, c *Config) {
	c.readCohere(o)
	c.QKNorm = o.boolean("use_qk_norm", false)
	c.Rope = readRopeOf(o, c, 500000)
	c.Rope.Interleaved = true
}

func (c *Config) readCohere(o *object) {
	c.readCommon(o, defaults{
		vocab: 256000, hidden: 8192, intermediate: 22528, layers: 40, heads: 64,
		maxPos: 8192, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.LogitScale = o.float("logit_scale", 0.0625)
}

// Command R7B and Command A: Cohere with a window on three layers of four, which
// alone have positions. transformers/models/cohere2.

func readCohere2(o *object, c *Config) {
	c.readCohere(o)
	pattern := o.dimension("sliding_window_pattern", 4, maxLayers)
	c.readWindows(o, readWindow(o, 4096), func(layer int) bool { return (layer+1)%pattern != 0 })
	rope := readRope(o, c)
	rope.Interleaved = true
	c.setRopes(Rope{}, rope)
	for key, only := range map[string]string{"position_embedding_type": "rope_gptj", "order_of_interleaved_layers": "local_attn_first"} {
		if found := o.text(key, only); found != only {
			o.fail(key, "%q is not supported by this family, only %s", found, only)
		}
	}
}

func buildCohere(b *Builder, c *Config) {
	norm := func(x Var, name string) Var {
		return b.LayerNorm(x, Norm{Weight: b.Weight(name+".weight", c.Hidden), Eps: c.NormEps})
	}
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := norm(x, l.prefix+"input_layernorm")
		q, k, v := l.qkv(h)
		if c.QKNorm {
			q, k = l.normOfEachHead(q, "self_attn.q_norm"), l.normOfEachHead(k, "self_attn.k_norm")
		}
		a := l.attend(q, k, v, c.rope(i))
		x = b.Add(x, l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias))
		x = b.Add(x, l.mlp(h))
	}
	b.Logits(norm(b.Rows(x), b.prefix+"norm"), b.output(), 0, c.LogitScale, 0)
}

// normOfEachHead is a layer norm over each head of x, with weights for each, which
// the checkpoint has as [heads, width of a head].
func (l layer) normOfEachHead(x Var, name string) Var {
	heads, dim := l.width(x)/l.c.HeadDim, l.c.HeadDim
	parts := make([]Part, heads)
	for h := range parts {
		parts[h] = whole(l.prefix+name+".weight", heads, dim).rows(h, 1, 1).transposed()
	}
	return l.LayerNorm(x, Norm{Weight: l.Tensor([]int{heads * dim}, parts...), Group: dim, Eps: l.c.NormEps})
}
