package plan

// Gemma 3's language model: Gemma 2's layer with a norm per query and key
// head instead of the score cap, five layers with a window and their own rope
// to each one without. transformers/models/gemma3.

func readGemma3Text(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 262208, hidden: 2304, intermediate: 9216, layers: 26, heads: 8, kvHeads: 4, headDim: 256,
		maxPos: 131072, eps: 1e-6, tied: true,
	})
	c.Activation = o.activation("hidden_activation", tanhGELU)
	c.readGemmaCommon(o)
	c.readQueryScale(o)
	// attn_logit_softcapping stays unread: transformers ignores it in this
	// family and others apply it, so a checkpoint that sets it is refused.
	c.LogitCap = readCap(o, "final_logit_softcapping", 0)
	pattern := o.dimension("sliding_window_pattern", 6, maxLayers)
	c.readWindows(o, readWindow(o, 4096), func(layer int) bool { return (layer+1)%pattern != 0 })
	c.readGemma3Ropes(o)
}

// readGemma3Ropes reads the rope of layers without and with a window.
func (c *Config) readGemma3Ropes(o *object) {
	full, sliding := o.ropesByLayerType()
	c.setRopes(
		readRopeParams(full, o, c, o.float("rope_theta", 1e6)),
		readRopeParams(sliding, o, c, o.float("rope_local_base_freq", 1e4)),
	)
}

// ropesByLayerType returns the parameters of layers without and with a window:
// transformers 5 writes a set for each, transformers 4 puts them beside each
// other, its rope_scaling being for the former only.
func (o *object) ropesByLayerType() (global, local *object) {
	global, local = o.nothing("rope_parameters"), o.nothing("rope_parameters")
	if params := o.object("rope_parameters"); params != nil {
		full, sliding := params.object(fullAttention), params.object(slidingAttention)
		if full == nil && sliding == nil {
			params.fail(fullAttention, "and %s are missing", slidingAttention)
		}
		if full != nil {
			global = full
		}
		if sliding != nil {
			local = sliding
		}
	}
	if scaling := o.object("rope_scaling"); scaling != nil {
		for key, value := range global.values {
			if scaling.absent(key) {
				scaling.values[key] = value
			}
		}
		global.read = scaling.read // it wins where both have a key
		global = scaling
	}
	for _, params := range []*object{global, local} {
		params.raw("truncate") // transformers does not look for it there
		delete(params.values, "truncate")
	}
	return global, local
}

// readGemma3 reads the multimodal model's config, of which the language part
// is served: text in, text out.
func readGemma3(o *object, c *Config) {
	text, _ := o.textConfig("gemma3_text")
	readGemma3Text(text, c)
	c.Tied = o.boolean("tie_word_embeddings", true)
	if c.LogitCap != 0 {
		text.fail("final_logit_softcapping", "is not supported beside a vision tower, where transformers ignores it")
	}
}

func buildGemma3(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "input_layernorm")
		q, k, v := l.qkv(h)
		q = l.headNorm(q, "self_attn.q_norm")
		k = l.headNorm(k, "self_attn.k_norm")
		a := l.attend(q, k, v, c.rope(i))
		a = l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias)
		x = b.Add(x, l.norm(a, "post_attention_layernorm"))

		h = l.norm(x, "pre_feedforward_layernorm")
		x = b.Add(x, l.norm(l.mlp(h), "post_feedforward_layernorm"))
	}
	b.head(x)
}
