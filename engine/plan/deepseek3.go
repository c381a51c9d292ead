package plan

import (
	"math"
	"strconv"
)

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
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	m := &MLAConfig{
		Rank:    o.dimension("kv_lora_rank", 512, maxDimension),
		Nope:    o.dimension("qk_nope_head_dim", 128, maxDimension),
		RopeDim: o.dimension("qk_rope_head_dim", 64, maxDimension),
		Value:   o.dimension("v_head_dim", 128, maxDimension),
	}
	if o.absent("q_lora_rank") || o.raw("q_lora_rank") != nil {
		m.QueryRank = o.dimension("q_lora_rank", 1536, maxDimension)
	}
	if most := int64(c.Heads) * int64(m.Nope+m.RopeDim+m.Value+m.Rank); most > maxDimension*16 {
		o.fail("num_attention_heads", "%d times the width of a head exceeds what is supported", c.Heads)
	}
	c.MLA = m

	c.MoE = c.readMoE(o, "n_routed_experts", 256, 8)
	c.MoE.Inner = o.dimension("moe_intermediate_size", 2048, maxDimension)
	c.MoE.Groups = o.dimension("n_group", 8, maxLayers)
	c.MoE.TopGroups = o.dimension("topk_group", 4, maxLayers)
	c.MoE.Normalize = o.boolean("norm_topk_prob", true)
	c.MoE.Scale = o.float("routed_scaling_factor", 2.5)
	c.MoE.Shared = c.MoE.Inner * o.dimension("n_shared_experts", 1, maxLayers)
	dense := o.integer("first_k_dense_replace", 3)
	for i := range c.MoE.Dense {
		c.MoE.Dense[i] = i < dense
	}
	c.checkExpertGroups(o)
	if score := o.text("scoring_func", "sigmoid"); score != "sigmoid" {
		o.fail("scoring_func", "%q is not supported by this family, only sigmoid", score)
	}
	if method := o.text("topk_method", "noaux_tc"); method != "noaux_tc" {
		o.fail("topk_method", "%q is not supported by this family, only noaux_tc", method)
	}
	if n := o.integer("moe_layer_freq", 1); n != 1 {
		o.fail("moe_layer_freq", "%d is not supported by this family, only 1", n)
	}

	c.HeadDim = m.RopeDim // what is rotated
	c.Rope = readRope(o, c)
	c.Rope.Interleaved = o.boolean("rope_interleave", true)
	c.QueryScale = 1 / math.Sqrt(float64(m.Nope+m.RopeDim))
	if params := o.ropeParams(); params.ropeType() != "default" {
		factor := params.float("factor", 1)
		if all := params.float("mscale_all_dim", 0); all != 0 && factor > 1 {
			mscale := 0.1*all*math.Log(factor) + 1
			c.QueryScale *= mscale * mscale
		}
	}
}

// checkExpertGroups refuses groups that cannot give a token its experts.
func (c *Config) checkExpertGroups(o *object) {
	m := c.MoE
	switch {
	case *o.err != nil || m.Groups <= 1:
	case m.Experts%m.Groups != 0 || m.Experts/m.Groups < 2:
		o.fail("n_group", "%d does not divide %d experts into groups of at least 2", m.Groups, m.Experts)
	case m.TopGroups > m.Groups || m.TopGroups*(m.Experts/m.Groups) < m.TopK:
		o.fail("topk_group", "%d of %d groups of %d experts cannot give %d experts per token", m.TopGroups, m.Groups, m.Experts/m.Groups, m.TopK)
	}
}

func buildDeepseekV3(b *Builder, c *Config) {
	// Heads that predict further tokens are stored as layers after the last.
	b.plan.Spare = append(b.plan.Spare, b.prefix+"layers."+strconv.Itoa(c.Layers)+".")
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)
		x = b.Add(x, l.mla(l.norm(x, "input_layernorm")))

		h := l.norm(x, "post_attention_layernorm")
		if c.MoE.Dense[i] {
			x = b.Add(x, l.mlp(h))
			continue
		}
		logits := l.linear(h, "mlp.gate", c.MoE.Experts, false)
		bias := l.Weight(l.prefix+"mlp.gate.e_score_correction_bias", c.MoE.Experts)
		x = b.Add(x, l.experts(h, logits, ScoreSigmoid, bias, "mlp.experts.%d.", mlpNames))
		x = b.Add(x, l.mlpOf(h, "mlp.shared_experts.", c.MoE.Shared))
	}
	b.head(x)
}

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
	qNope, qRope := q(0, m.Nope), l.Rope(q(m.Nope, m.RopeDim), c.Rope, m.RopeDim)

	latent := l.linear(x, "self_attn.kv_a_proj_with_mqa", m.Rank+m.RopeDim, c.AttentionBias)
	key := norm(l.View(latent, 0, m.Rank), "kv_a_layernorm")
	keyRope := l.Rope(l.View(latent, m.Rank, m.RopeDim), c.Rope, m.RopeDim)

	cache := l.Cache(Cache{Kind: CacheLatent, Heads: 1, KeyWidth: int32(m.Rank + m.RopeDim), ValueWidth: int32(m.Rank)})
	l.CacheWrite(cache, key, keyRope)
	kvB := whole(l.prefix+"self_attn.kv_b_proj.weight", c.Heads*(m.Nope+m.Value), m.Rank)
	absorbed := l.LinearHeads(qNope, l.Tensor([]int{c.Heads, m.Rank, m.Nope}, kvB.transposed().blocks(c.Heads, 0, m.Nope)...))
	a := l.Attention(absorbed, Attention{Cache: cache, Heads: c.Heads, Scale: c.QueryScale, Rest: qRope})
	a = l.LinearHeads(a, l.Tensor([]int{c.Heads, m.Value, m.Rank}, kvB.blocks(c.Heads, m.Nope, m.Value)...))
	return l.linear(a, "self_attn.o_proj", c.Hidden, c.AttentionBias)
}
