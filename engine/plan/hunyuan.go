package plan

import "math"

// Hunyuan, dense: llama with a norm of each query and key head after the rotation.
// transformers/models/hunyuan_v1_dense.

func readHunYuan(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 290943, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 2048, eps: 1e-5,
	})
	c.readHunYuan(o)
}

// readHunYuan reads what the Hunyuan families have in common.
func (c *Config) readHunYuan(o *object) {
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	for _, key := range []string{"use_qk_norm", "use_rotary_pos_emb"} {
		if !o.boolean(key, true) {
			o.fail(key, "false is not supported by this family")
		}
	}
	c.Rope = readHunYuanRope(o, c)
}

// readHunYuanRope reads a rope that may be dynamic with an alpha: its base is
// another one from the first position on.
func readHunYuanRope(o *object, c *Config) Rope {
	params := o.ropeParams()
	alpha := params.float("alpha", 0)
	if params.ropeType() != "dynamic" || alpha == 0 {
		return readRope(o, c)
	}
	theta := params.float("rope_theta", o.float("rope_theta", 10000))
	if theta <= 1 || alpha < 1 || c.HeadDim < 4 {
		params.fail("alpha", "must be at least 1, and rope_theta above 1, found %g and %g", alpha, theta)
		return Rope{}
	}
	for _, key := range []string{"factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"} {
		params.raw(key) // of no effect beside it
	}
	dim := float64(c.HeadDim)
	return Rope{Freqs: frequencies(theta*math.Pow(alpha, dim/(dim-2)), c.HeadDim), Scale: 1}
}

func buildHunYuan(b *Builder, _ *Config) { b.preNorm(layer.hunYuanAttention, layer.mlp) }

// hunYuanAttention is attention whose queries and keys are rotated before they are
// normalized.
func (l layer) hunYuanAttention(x Var) Var {
	q, k, v := l.qkv(x)
	q, k = l.rotate(q, k, l.c.Rope)
	q, k = l.headNorm(q, "self_attn.query_layernorm"), l.headNorm(k, "self_attn.key_layernorm")
	return l.linear(l.attention(q, k, v, Attention{}), "self_attn.o_proj", l.c.Hidden, l.c.OutputBias)
}
