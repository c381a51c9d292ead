package plan

import "math"

// MPT: ALiBi, norms without a bias and projections without one, queries, keys and
// values clipped in some. transformers/models/mpt, which always takes 8 for
// alibi_bias_max and knows no qk_ln: these two are as in llm-foundry.

// mptKeys are what MptConfig calls the common keys.
var mptKeys = map[string]string{
	"hidden_size":             "d_model",
	"num_hidden_layers":       "n_layers",
	"num_attention_heads":     "n_heads",
	"max_position_embeddings": "max_seq_len",
	"rms_norm_eps":            "layer_norm_epsilon",
}

func readMPT(o *object, c *Config) {
	c.readCommon(o, defaults{
		plain: true,
		vocab: 50368, hidden: 2048, intermediate: 4 * o.dimension("hidden_size", 2048, maxDimension), layers: 24, heads: 16,
		maxPos: 2048, eps: 1e-5, tied: true,
	})
	c.Activation = ActGelu
	if norm := o.text("norm_type", "low_precision_layernorm"); norm != "low_precision_layernorm" && norm != "layernorm" {
		o.fail("norm_type", "%q is not supported, only layernorm and low_precision_layernorm", norm)
	}
	attn := o.object("attn_config")
	if attn == nil {
		attn = o.nothing("attn_config")
	}
	if kind := attn.text("attn_type", "multihead_attention"); kind != "multihead_attention" {
		attn.fail("attn_type", "%q is not supported, only multihead_attention", kind)
	}
	if !attn.boolean("alibi", true) {
		attn.fail("alibi", "false is not supported by this family")
	}
	c.ClipQKV = readClip(attn)
	c.QueryScale = attn.float("softmax_scale", c.QueryScale)
	c.QKNorm = attn.boolean("qk_ln", false)
	most := attn.float("alibi_bias_max", 8)
	if most < 0 || most > 64 {
		attn.fail("alibi_bias_max", "must be 0 to 64, found %g", most)
	}
	c.Slopes = alibiSlopes(c.Heads, most)
}

// readClip reads the bound of queries, keys and values; null is none, which is 0.
func readClip(o *object) float64 {
	limit := o.float("clip_qkv", 0)
	if o.raw("clip_qkv") != nil && (limit <= 0 || limit > math.MaxFloat32) {
		o.fail("clip_qkv", "must be positive or null, found %g", limit)
	}
	return limit
}

func buildMPT(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layerOf("blocks", i)

		q, k, v := l.clippedQKV(b.scaleNorm(x, l.prefix+"norm_1"), "attn.Wqkv")
		if c.QKNorm {
			q, k = b.scaleNorm(q, l.prefix+"attn.q_ln"), b.scaleNorm(k, l.prefix+"attn.k_ln")
		}
		a := l.attention(q, k, v, Attention{Slopes: c.Slopes})
		x = b.Add(x, l.linear(a, "attn.out_proj", c.Hidden, false))
		x = b.Add(x, l.plainMLP(b.scaleNorm(x, l.prefix+"norm_2"), "ffn.up_proj", "ffn.down_proj", false))
	}
	b.Logits(b.scaleNorm(b.Rows(x), b.prefix+"norm_f"), b.output(), 0, 1, 0)
}

// clippedQKV is the queries, keys and values of x from one projection, within
// ±ClipQKV.
func (l layer) clippedQKV(x Var, name string) (q, k, v Var) {
	c := l.c
	qkv := fused{l, x, name, c.QWidth() + 2*c.KVWidth()}
	clip := func(x Var) Var {
		if c.ClipQKV == 0 {
			return x
		}
		return l.Clip(x, c.ClipQKV)
	}
	q = clip(qkv.part(0, c.QWidth()))
	k = clip(qkv.part(c.QWidth(), c.KVWidth()))
	v = clip(qkv.part(c.QWidth()+c.KVWidth(), c.KVWidth()))
	return q, k, v
}
