package plan

// DBRX: experts stored as three matrices of all, norms without a bias, queries,
// keys and values clipped. transformers/models/dbrx.

// dbrxKeys are what DbrxConfig calls the common keys.
var dbrxKeys = map[string]string{
	"hidden_size":             "d_model",
	"num_hidden_layers":       "n_layers",
	"num_attention_heads":     "n_heads",
	"max_position_embeddings": "max_seq_len",
	"num_experts_per_tok":     "moe_top_k",
}

func readDbrx(o *object, c *Config) {
	ffn := o.object("ffn_config")
	if ffn == nil {
		ffn = o.nothing("ffn_config")
	}
	c.readCommon(o, defaults{
		plain: true,
		vocab: 32000, hidden: 2048, intermediate: ffn.dimension("ffn_hidden_size", 3584, maxDimension), layers: 24, heads: 16,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = ActSilu
	if act := ffn.object("ffn_act_fn"); act != nil {
		c.Activation = act.activation("name", "silu")
	}
	c.MoE = c.readMoE(ffn, "moe_num_experts", 4, 1)
	// The weights are divided by their norm, whose order this is.
	switch order := ffn.float("moe_normalize_expert_weights", 1); {
	case ffn.raw("moe_normalize_expert_weights") == nil && !ffn.absent("moe_normalize_expert_weights"):
	case order == 1:
		c.MoE.Normalize = true
	default:
		ffn.fail("moe_normalize_expert_weights", "%g is not supported, only 1 and null", order)
	}

	attn := o.object("attn_config")
	if attn == nil {
		attn = o.nothing("attn_config")
	}
	c.KVHeads = attn.dimension("kv_n_heads", 1, maxHeads)
	if c.Heads%c.KVHeads != 0 {
		o.fail("num_attention_heads", "%d is not a multiple of attn_config.kv_n_heads %d", c.Heads, c.KVHeads)
	}
	c.ClipQKV = readClip(attn)
	c.Rope = readRopeParams(o.ropeParams(), o, c, attn.float("rope_theta", 10000)) // there in version 4
}

func buildDbrx(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layerOf("blocks", i)

		q, k, v := l.clippedQKV(b.scaleNorm(x, l.prefix+"norm_attn_norm.norm_1"), "norm_attn_norm.attn.Wqkv")
		x = b.Add(x, l.linear(l.attend(q, k, v, c.Rope), "norm_attn_norm.attn.out_proj", c.Hidden, false))

		h := b.scaleNorm(x, l.prefix+"norm_attn_norm.norm_2")
		chosen, weights := l.Route(l.linear(h, "ffn.router.layer", c.MoE.Experts, false), Routing{TopK: c.MoE.TopK, Normalize: c.MoE.Normalize})
		x = b.Add(x, l.Experts(h, chosen, weights, l.dbrxExperts()))
	}
	b.Logits(b.scaleNorm(b.Rows(x), b.prefix+"norm_f"), b.output(), 0, 1, 0)
}

// dbrxExperts are a layer's experts: of each its rows of w1, v1 and, in the other
// direction, w2.
func (l layer) dbrxExperts() MLP {
	c, m := l.c, l.c.MoE
	all := func(name string) Part {
		return whole(l.prefix+"ffn.experts.mlp."+name, m.Experts*m.Inner, c.Hidden)
	}
	return MLP{
		Act:  Act{Kind: c.Activation},
		Gate: l.Tensor([]int{m.Experts, m.Inner, c.Hidden}, all("w1")),
		Up:   l.Tensor([]int{m.Experts, m.Inner, c.Hidden}, all("v1")),
		Down: l.Tensor([]int{m.Experts, c.Hidden, m.Inner}, all("w2").transposed().blocks(m.Experts, 0, m.Inner)...),
	}
}
