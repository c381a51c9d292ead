package plan

import (
	"math"
	"strconv"
)

// Gemma 4's language model: Gemma 3's layer with wider heads where there is no
// window, values normalized too, last layers that read the keys and values of a
// layer before them, an embedding for each layer, and, in one model, experts beside
// the MLP. transformers/models/gemma4 and gemma4_unified.

// Gemma4Config is what a config says of Gemma 3n and 4 beside Gemma 3.
type Gemma4Config struct {
	HeadDim, KVHeads int  // of layers without a window
	Shared           int  // last layers that have no keys and values of their own
	KeyIsValue       bool // layers without a window make values of the keys' projection
	WideMLP          bool // the MLPs of the shared layers are twice as wide
	PerLayer         int  // width of the embeddings that each layer has; 0: none
	PerLayerVocab    int  // rows of their table
	LocalSpans       bool // tokens of a span see all of it in layers with a window alone
}

// gemma4Keys are what Gemma4TextConfig calls the common keys.
var gemma4Keys = map[string]string{"num_experts_per_tok": "top_k_experts"}

func readGemma4Text(o *object, c *Config) { c.readGemma4(o, 131072, 512, 256) }

// readGemma4Unified has no embeddings per layer and no experts.
func readGemma4Unified(o *object, c *Config) { c.readGemma4(o, 262144, 1024, 0) }

func (c *Config) readGemma4(o *object, maxPos, window, perLayer int) {
	c.readCommon(o, defaults{
		vocab: 262144, hidden: 2304, intermediate: 9216, layers: 30, heads: 8, kvHeads: 4, headDim: 256,
		maxPos: maxPos, eps: 1e-6, tied: true,
	})
	c.readGemma4Common(o)
	c.LogitCap = readCap(o, "final_logit_softcapping", 0)
	c.readWindows(o, readWindow(o, window), func(layer int) bool { return (layer+1)%6 != 0 })
	if *o.err != nil {
		return
	}
	c.Windows[c.Layers-1] = 0 // whatever layer_types says
	scope := o.text("use_bidirectional_attention", "")
	if scope != "" && scope != "vision" {
		o.fail("use_bidirectional_attention", "%q is not supported, only vision: text is generated left to right", scope)
	}
	g := &Gemma4Config{KeyIsValue: o.boolean("attention_k_eq_v", false), WideMLP: o.boolean("use_double_wide_mlp", false), LocalSpans: scope != "" && HasTower(c.Family)}
	c.Gemma4 = g
	c.readGlobalHeads(o)
	c.readSharedLayers(o, 0)
	if perLayer > 0 {
		c.readPerLayer(o, perLayer)
	}
	if perLayer > 0 && o.boolean("enable_moe_block", false) {
		c.MoE = c.readMoE(o, "num_experts", 0, 0)
		c.MoE.Inner = o.dimension("moe_intermediate_size", 0, maxDimension)
	}
	c.readGemma4Ropes(o)
}

// readGemma4Common reads what Gemma 3n and 4 have in common.
func (c *Config) readGemma4Common(o *object) {
	c.Activation = o.activation("hidden_activation", tanhGELU)
	c.readGemmaCommon(o)
	c.NormOffset, c.QueryScale = 0, 1
}

// readGlobalHeads reads the heads of layers without a window: transformers 5 writes
// what is different of each layer in per_layer_config, the first release wrote two
// keys.
func (c *Config) readGlobalHeads(o *object) {
	g := c.Gemma4
	g.HeadDim, g.KVHeads = c.HeadDim, c.KVHeads
	if o.absent("per_layer_config") {
		g.HeadDim = o.dimension("global_head_dim", 512, maxDimension)
		if kv := o.dimension("num_global_key_value_heads", c.KVHeads, maxHeads); g.KeyIsValue {
			g.KVHeads = kv
		}
	} else if each := o.object("per_layer_config"); each != nil {
		first := true
		for i, window := range c.Windows {
			dim, kv := c.HeadDim, c.KVHeads
			if layer := each.object(strconv.Itoa(i)); layer != nil {
				dim, kv = layer.dimension("head_dim", dim, maxDimension), layer.dimension("num_key_value_heads", kv, maxHeads)
			}
			if window == 0 && first {
				g.HeadDim, g.KVHeads, first = dim, kv, false
			}
			if window == 0 && (dim != g.HeadDim || kv != g.KVHeads) || window > 0 && (dim != c.HeadDim || kv != c.KVHeads) {
				each.fail(strconv.Itoa(i), "is not supported: all layers of a type must have the same heads")
			}
		}
	}
	if g.HeadDim%8 != 0 || c.Heads*g.HeadDim > maxDimension {
		o.fail("global_head_dim", "must be a multiple of 8, and at most %d with num_attention_heads %d, found %d", maxDimension, c.Heads, g.HeadDim)
	}
	if c.Heads%g.KVHeads != 0 {
		o.fail("num_global_key_value_heads", "%d must divide num_attention_heads %d", g.KVHeads, c.Heads)
	}
}

// readSharedLayers reads how many of the last layers read the cache of the last
// layer of their type before them.
func (c *Config) readSharedLayers(o *object, def int) {
	const key = "num_kv_shared_layers"
	n := o.integer(key, def)
	if n < 0 || n >= c.Layers {
		o.fail(key, "must be 0 to less than num_hidden_layers %d, found %d", c.Layers, n)
		return
	}
	c.Gemma4.Shared = n
	var own, shared [2]bool // whether there are layers without and with a window
	for i, window := range c.Windows {
		own[bit(window > 0)] = own[bit(window > 0)] || i < c.Layers-n
		shared[bit(window > 0)] = shared[bit(window > 0)] || i >= c.Layers-n
	}
	for i := range own {
		if shared[i] && !own[i] {
			o.fail(key, "%d leaves layers of a type without one before them whose keys they could read", n)
		}
	}
}

// readPerLayer reads the embeddings that each layer has.
func (c *Config) readPerLayer(o *object, width int) {
	const key = "hidden_size_per_layer_input"
	c.Gemma4.PerLayer = o.integer(key, width)
	if raw := o.raw(key); raw == nil && !o.absent(key) {
		c.Gemma4.PerLayer = 0
	}
	if n := c.Gemma4.PerLayer; n < 0 || n > maxDimension/c.Layers {
		o.fail(key, "must be 0 to %d with num_hidden_layers %d, found %d", maxDimension/c.Layers, c.Layers, n)
	}
	c.Gemma4.PerLayerVocab = o.dimension("vocab_size_per_layer_input", 262144, maxDimension)
}

func (c *Config) readGemma4Ropes(o *object) {
	theta := 10000.0
	if o.raw("rope_parameters") == nil {
		o.values["rope_parameters"] = []byte(`{"full_attention":{"rope_type":"proportional","partial_rotary_factor":0.25,"rope_theta":1e6}}`)
	}
	full, sliding := o.ropesByLayerType()
	local := readRopeParams(sliding, o, c, theta)
	dim := c.HeadDim
	c.HeadDim = c.Gemma4.HeadDim
	c.setRopes(readRopeParams(full, o, c, theta), local)
	c.HeadDim = dim
}

// readGemma4 reads the config of a multimodal model, of which the language part is
// served.
func readGemma4(o *object, c *Config) {
	readGemma4Text(o.gemmaText("gemma4_text"), c)
	c.Tied = o.boolean("tie_word_embeddings", true)
}

func readGemma4UnifiedModel(o *object, c *Config) {
	readGemma4Unified(o.gemmaText("gemma4_unified_text"), c)
	c.Tied = o.boolean("tie_word_embeddings", true)
}

// gemmaText is textConfig of a model that hears, too.
func (o *object) gemmaText(kind string) *object {
	text, _ := o.textConfig(kind)
	o.raw("audio_config")
	return text
}

func buildGemma4(b *Builder, c *Config) {
	x := b.embed()
	inputs := b.perLayerInputs(x)
	caches := map[bool]int32{}
	for i := range c.Layers {
		l := b.layer(i)

		a := l.gemma4Attention(l.norm(x, "input_layernorm"), caches)
		x = l.addNormed(x, a, "post_attention_layernorm")

		inner := c.Intermediate
		if c.Gemma4.WideMLP && l.shared() {
			inner *= 2
		}
		h := l.mlpOf(l.norm(x, "pre_feedforward_layernorm"), "mlp.", inner)
		if c.MoE != nil {
			h = b.Add(l.norm(h, "post_feedforward_layernorm_1"), l.norm(l.gemma4Experts(x), "post_feedforward_layernorm_2"))
		}
		x = l.addNormed(x, h, "post_feedforward_layernorm")
		if inputs != 0 {
			x = b.Add(x, l.perLayer(x, inputs))
		}
		x = b.Scale(x, 1, l.Weight(l.prefix+"layer_scalar", 1))
	}
	b.head(x)
}

// shared reports whether the layer reads the keys and values of another.
func (l layer) shared() bool { return l.index >= l.c.Layers-l.c.Gemma4.Shared }

// gemma4Attention is an attention whose queries, keys and values are normalized. A
// shared layer reads the cache of the last layer of its type, by whether it has a
// window.
func (l layer) gemma4Attention(x Var, caches map[bool]int32) Var {
	c, g, window := l.c, l.c.Gemma4, l.c.Windows[l.index]
	dim, kvHeads := c.HeadDim, c.KVHeads
	if window == 0 {
		dim, kvHeads = g.HeadDim, g.KVHeads
	}
	head := func(x Var, name string) Var {
		n := Norm{Weight: l.Weight(l.prefix+"self_attn."+name+".weight", dim), Eps: c.NormEps}
		return l.Rope(l.RMSNorm(x, n), c.rope(l.index), dim)
	}
	q := head(l.linear(x, "self_attn.q_proj", c.Heads*dim, c.AttentionBias), "q_norm")
	if l.shared() {
		for _, name := range []string{"k_proj.", "v_proj.", "k_norm.", "v_norm."} {
			l.plan.Spare = append(l.plan.Spare, l.prefix+"self_attn."+name) // which checkpoints have
		}
	} else {
		k := l.linear(x, "self_attn.k_proj", kvHeads*dim, c.AttentionBias)
		v := k
		if window > 0 || !g.KeyIsValue {
			v = l.linear(x, "self_attn.v_proj", kvHeads*dim, c.AttentionBias)
		}
		caches[window > 0] = l.Cache(Cache{
			Kind: CacheKV, Heads: int32(kvHeads), KeyWidth: int32(dim), ValueWidth: int32(dim), Window: int32(window),
		})
		v = l.RMSNorm(v, Norm{Group: dim, Eps: c.NormEps})
		l.CacheWrite(caches[window > 0], head(k, "k_norm"), v)
	}
	sight := SightBack
	if g.LocalSpans && window == 0 {
		sight = SightCausal
	}
	a := l.Attention(q, Attention{Cache: caches[window > 0], Heads: c.Heads, Window: window, Scale: c.QueryScale, Sight: sight})
	return l.linear(a, "self_attn.o_proj", c.Hidden, c.AttentionBias)
}

// gemma4Experts are the experts beside the MLP. The router has a norm of its own.
func (l layer) gemma4Experts(x Var) Var {
	c, m := l.c, l.c.MoE
	h := l.RMSNorm(x, Norm{Weight: l.Weight(l.prefix+"router.scale", c.Hidden), Eps: c.NormEps})
	logits := l.linear(l.Scale(h, 1/sqrt(c.Hidden), 0), "router.proj", m.Experts, false)
	chosen, weights := l.Route(logits, Routing{
		TopK: m.TopK, Score: ScoreSoftmax, Normalize: true, Factors: l.Weight(l.prefix+"router.per_expert_scale", m.Experts),
	})
	return l.Experts(l.norm(x, "pre_feedforward_layernorm_2"), chosen, weights, l.fusedExperts("experts.gate_up_proj", "experts.down_proj"))
}

// perLayerInputs are the embeddings of the tokens for all layers, side by side: from
// a table of their own, and from a projection of x, the common ones. None, if the
// model has none.
func (b *Builder) perLayerInputs(x Var) Var {
	c, g := b.c, b.c.Gemma4
	if g.PerLayer == 0 {
		return 0
	}
	width := c.Layers * g.PerLayer
	own := b.EmbedBeside(b.Weight(b.prefix+"embed_tokens_per_layer.weight", g.PerLayerVocab, width), sqrt(g.PerLayer))
	h := b.Linear(x, b.Weight(b.prefix+"per_layer_model_projection.weight", width, c.Hidden), 0)
	norm := Norm{Weight: b.Weight(b.prefix+"per_layer_projection_norm.weight", g.PerLayer), Eps: c.NormEps}
	h = b.RMSNorm(b.Scale(h, 1/sqrt(c.Hidden), 0), norm)
	return b.Scale(b.Add(h, own), math.Sqrt(0.5), 0)
}

// perLayer is what a layer adds of its part of inputs, gated by x.
func (l layer) perLayer(x, inputs Var) Var {
	n := l.c.Gemma4.PerLayer
	gate := l.linear(x, "per_layer_input_gate", n, false)
	h := l.Gate(Act{Kind: l.c.Activation}, gate, l.View(inputs, l.index*n, n))
	return l.norm(l.linear(h, "per_layer_projection", l.c.Hidden, false), "post_per_layer_input_norm")
}
