package plan

import "slices"

// Llama 4's language model: attention within chunks, on every fourth layer over
// everything and without positions, and experts whose input is scaled, beside one
// that sees every token. transformers/models/llama4.

// Llama4Config is what a config says of Llama 4 beside others.
type Llama4Config struct {
	Chunks     []int // per layer: positions of a chunk; 0: all are one
	DenseInner int   // width of the MLPs of layers without experts
}

func readLlama4Text(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 202048, hidden: 5120, intermediate: 8192, layers: 48, heads: 40, kvHeads: 8, headDim: 128,
		maxPos: 131072, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.QKNorm = o.boolean("use_qk_norm", true)
	c.MoE = c.readMoE(o, "num_local_experts", 16, 1)
	c.MoE.Shared = c.Intermediate
	step := o.dimension("interleave_moe_layer_step", 1, maxLayers)
	sparse := o.integers("moe_layers")
	for i := range c.MoE.Dense {
		c.MoE.Dense[i] = sparse == nil && (i+1)%step != 0 || sparse != nil && !slices.Contains(sparse, i)
	}
	c.Llama4 = &Llama4Config{DenseInner: o.dimension("intermediate_size_mlp", 16384, maxDimension)}
	c.readRopeLayers(o, 500000)
	for i := range c.Ropes {
		c.Ropes[i].Interleaved = true
	}
	c.readChunks(o)
	floor, scale := o.dimension("floor_scale", 8192, maxPosition), o.float("attn_scale", 0.1)
	if tuning := o.raw("attn_temperature_tuning"); tuning == nil || !neutral(tuning, false) { // true, or 4 as first published
		c.QueryLength, c.QueryGrowth = floor, scale
	}
}

// readChunks reads the chunks of layers with positions, unless layer_types says
// which layers have them.
func (c *Config) readChunks(o *object) {
	const key, chunked = "attention_chunk_size", "chunked_attention"
	size := 0
	if o.absent(key) || o.raw(key) != nil {
		size = o.dimension(key, 8192, maxPosition)
	}
	types := o.texts("layer_types")
	if types != nil && len(types) != c.Layers {
		o.fail("layer_types", "has %d entries, expected num_hidden_layers %d", len(types), c.Layers)
	}
	if *o.err != nil {
		return
	}
	c.Llama4.Chunks = make([]int, c.Layers)
	for i := range c.Layers {
		on := c.Ropes[i].Freqs != nil
		if types != nil {
			on = types[i] == chunked
			if !on && types[i] != fullAttention {
				o.fail("layer_types", "%q is not supported, only %s and %s", types[i], fullAttention, chunked)
			}
			if on && size == 0 {
				o.fail("layer_types", "has %q for layer %d, but there is no %s", chunked, i, key)
			}
		}
		if on {
			c.Llama4.Chunks[i] = size
		}
	}
}

func readLlama4(o *object, c *Config) {
	text, _ := o.textConfig("llama4_text")
	readLlama4Text(text, c)
	c.Tied = o.boolean("tie_word_embeddings", c.Tied)
}

func buildLlama4(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		x = b.Add(x, l.chunkedAttention(l.norm(x, "input_layernorm")))

		h := l.norm(x, "post_attention_layernorm")
		if c.MoE.Dense[i] {
			x = b.Add(x, l.mlpOf(h, "feed_forward.", c.Llama4.DenseInner))
			continue
		}
		logits := l.linear(h, "feed_forward.router", c.MoE.Experts, false)
		chosen, weights := b.Route(logits, Routing{TopK: c.MoE.TopK, Score: ScoreSigmoid})
		x = b.Add(x, l.mlpOf(h, "feed_forward.shared_expert.", c.MoE.Shared))
		x = b.Add(x, b.Experts(h, chosen, weights, l.llama4Experts()))
	}
	b.head(x)
}

func (l layer) chunkedAttention(x Var) Var {
	c, rope, chunk := l.c, l.c.rope(l.index), l.c.Llama4.Chunks[l.index]
	q, k, v := l.qkv(x)
	q, k = l.rotate(q, k, rope)
	if c.QKNorm && rope.Freqs != nil {
		norm := Norm{Group: c.HeadDim, Eps: c.NormEps}
		q, k = l.RMSNorm(q, norm), l.RMSNorm(k, norm)
	}
	if c.QueryGrowth != 0 && rope.Freqs == nil {
		q = l.ScalePosition(q, c.QueryGrowth, 1, c.QueryLength)
	}
	cache := l.Cache(Cache{
		Kind: CacheKV, Heads: int32(c.KVHeads), KeyWidth: int32(c.HeadDim), ValueWidth: int32(c.HeadDim), Window: int32(chunk),
	})
	l.CacheWrite(cache, k, v)
	a := l.Attention(q, Attention{Cache: cache, Heads: c.Heads, Chunk: chunk, Scale: c.QueryScale})
	return l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias)
}

// llama4Experts are a layer's experts, stored [experts, in, out], gate before up, or
// one by one: so GGUF and quantized checkpoints have them.
func (l layer) llama4Experts() (experts MLP) {
	const together = "feed_forward.experts."
	if !l.has(l.prefix+together+"gate_up_proj") && l.has(l.prefix+together+"0.gate_proj.weight") {
		experts = l.expertMLPs(together+"%d.", mlpNames)
	} else {
		experts = l.transposedExperts(together+"gate_up_proj", together+"down_proj")
	}
	experts.ScaleInput = true
	return experts
}
