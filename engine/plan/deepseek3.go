package plan

import "math"

// DeepSeek V3: attention over latents (MLA, arXiv 2405.04434 §2.1), experts in
// groups chosen by sigmoid and bias, one that sees every token, and the first
// layers dense. transformers/models/deepseek_v3.

// MLAConfig is the shape of an attention over latents.
type MLAConfig struct {
	QueryRank int // of the queries' latent; 0: there is none
	Rank      int // of the latent that is cached
	Nope      int // width of a head's part that is not rotated
	RopeDim   int // width of its part that is
	Value     int // width of a head's values
}

func readDeepseekV3(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 129280, hidden: 7168, intermediate: 18432, layers: 61, heads: 128, headDim: 64,
		maxPos: 4096, eps: 1e-6,
	})
	c.readMLA(o, MLAConfig{QueryRank: 1536, Rank: 512, Nope: 128, RopeDim: 64, Value: 128})
	c.readExperts(o, expertDefaults{
		experts: 256, topK: 8, inner: 2048, shared: 1, groups: 8, topGroups: 4, dense: 3, normalize: true, scale: 2.5,
	})
	o.only("scoring_func", "sigmoid")
	o.only("topk_method", "noaux_tc")
	c.readLatentRope(o)
}

// readMLA reads the shape of an attention over latents; d are the defaults.
func (c *Config) readMLA(o *object, d MLAConfig) {
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	m := &MLAConfig{
		Rank:    o.dimension("kv_lora_rank", d.Rank, maxDimension),
		Nope:    o.dimension("qk_nope_head_dim", d.Nope, maxDimension),
		RopeDim: o.dimension("qk_rope_head_dim", d.RopeDim, maxDimension),
		Value:   o.dimension("v_head_dim", d.Value, maxDimension),
	}
	if o.absent("q_lora_rank") || o.raw("q_lora_rank") != nil {
		m.QueryRank = o.dimension("q_lora_rank", d.QueryRank, maxDimension)
	}
	if most := int64(c.Heads) * int64(m.Nope+m.RopeDim+m.Value+m.Rank); most > maxDimension*16 {
		o.fail("num_attention_heads", "%d times the width of a head exceeds what is supported", c.Heads)
	}
	c.MLA = m
	c.HeadDim = m.RopeDim // what is rotated
	c.QueryScale = 1 / math.Sqrt(float64(m.Nope+m.RopeDim))
}

// readLatentRope reads the position embedding of an attention over latents; YaRN
// makes its scores larger.
func (c *Config) readLatentRope(o *object) {
	c.Rope = readRope(o, c)
	c.Rope.Interleaved = o.boolean("rope_interleave", true)
	if params := o.ropeParams(); params.ropeType() != "default" {
		factor := params.float("factor", 1)
		if all := params.float("mscale_all_dim", 0); all != 0 && factor > 1 {
			mscale := 0.1*all*math.Log(factor) + 1
			c.QueryScale *= mscale * mscale
		}
	}
}

// readGLM4MoELite reads GLM 4.7 Flash: V3 with other sizes.
func readGLM4MoELite(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 154880, hidden: 2048, intermediate: 10240, layers: 47, heads: 20, headDim: 64,
		maxPos: 202752, eps: 1e-5,
	})
	c.readMLA(o, MLAConfig{QueryRank: 768, Rank: 512, Nope: 192, RopeDim: 64, Value: 256})
	c.readExperts(o, expertDefaults{
		experts: 64, topK: 4, inner: 1536, shared: 1, groups: 1, topGroups: 1, dense: 1, normalize: true, scale: 1.8,
	})
	c.readMLPTypes(o)
	o.only("scoring_func", "sigmoid")
	o.only("topk_method", "noaux_tc")
	c.RotaryFactor = 1
	c.readLatentRope(o)
}

func buildDeepseekV3(b *Builder, _ *Config) {
	b.spareLayers()
	b.preNorm(layer.mla, layer.mixture)
}

func draftDeepseekV3(b *Builder, _ *Config) { b.nextLayer(layer.mla, layer.mixture) }

// mla is attention over latents, what would make keys and values of them
// absorbed into queries and results: q·(W k) = (Wᵀ q)·k. So the cache holds one
// row of Rank + RopeDim numbers for all heads.
func (l layer) mla(x Var) Var {
	const eps = 1e-6 // of the latents' norms, whatever rms_norm_eps is
	c, m := l.c, l.c.MLA
	norm := func(x Var, name string) Var {
		return l.RMSNorm(x, Norm{Weight: l.Weight(l.prefix+"self_attn."+name+".weight", l.width(x)), Eps: eps})
	}
	in, qName := x, "self_attn.q_proj"
	if m.QueryRank > 0 {
		in = norm(l.linear(x, "self_attn.q_a_proj", m.QueryRank, c.AttentionBias), "q_a_layernorm")
		qName = "self_attn.q_b_proj"
	}
	head := m.Nope + m.RopeDim
	q := func(first, n int) Var {
		parts := whole(l.prefix+qName+".weight", c.Heads*head, l.width(in)).blocks(c.Heads, first, n)
		return l.Linear(in, l.Tensor([]int{c.Heads * n, l.width(in)}, parts...), 0)
	}
	qNope, qRope := q(0, m.Nope), q(m.Nope, m.RopeDim)
	if c.Rope.Freqs != nil {
		qRope = l.Rope(qRope, c.Rope, m.RopeDim)
	}
	if c.QueryGrowth != 0 {
		qNope = l.ScalePosition(qNope, c.QueryGrowth, 0, c.QueryLength)
		qRope = l.ScalePosition(qRope, c.QueryGrowth, 0, c.QueryLength)
	}

	latent := l.linear(x, "self_attn.kv_a_proj_with_mqa", m.Rank+m.RopeDim, c.AttentionBias)
	key := norm(l.View(latent, 0, m.Rank), "kv_a_layernorm")
	keyRope := l.View(latent, m.Rank, m.RopeDim)
	if c.Rope.Freqs != nil {
		keyRope = l.Rope(keyRope, c.Rope, m.RopeDim)
	}

	cache := l.Cache(Cache{Kind: CacheLatent, Heads: 1, KeyWidth: int32(m.Rank + m.RopeDim), ValueWidth: int32(m.Rank)})
	l.CacheWrite(cache, key, keyRope)
	kvB := whole(l.prefix+"self_attn.kv_b_proj.weight", c.Heads*(m.Nope+m.Value), m.Rank)
	absorbed := l.LinearHeads(qNope, l.Tensor([]int{c.Heads, m.Rank, m.Nope}, kvB.transposed().blocks(c.Heads, 0, m.Nope)...))
	a := l.Attention(absorbed, Attention{Cache: cache, Heads: c.Heads, Scale: c.QueryScale, Rest: qRope})
	a = l.LinearHeads(a, l.Tensor([]int{c.Heads, m.Value, m.Rank}, kvB.blocks(c.Heads, m.Nope, m.Value)...))
	return l.linear(a, "self_attn.o_proj", c.Hidden, c.AttentionBias)
}
