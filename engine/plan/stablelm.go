package plan

import "strconv"

// StableLM: llama with layer norms, a quarter of each head rotated, and in the
// larger ones attention and MLP side by side and a norm of its own for each head.
// transformers/models/stablelm.

func readStableLM(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 50304, hidden: 2560, intermediate: 6912, layers: 32, heads: 32, kvHeads: 32,
		maxPos: 4096, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("use_qkv_bias", false)
	c.QKNorm = o.boolean("qk_layernorm", false)
	c.ParallelResidual = o.boolean("use_parallel_residual", false)
	c.RotaryFactor = 0.25
	c.Rope = readRope(o, c)
}

func buildStableLM(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.layerNorm(x, "input_layernorm")
		q, k, v := l.qkv(h)
		if c.QKNorm {
			q, k = l.normOfHeads(q, "self_attn.q_layernorm"), l.normOfHeads(k, "self_attn.k_layernorm")
		}
		x = b.Add(x, l.linear(l.attend(q, k, v, c.Rope), "self_attn.o_proj", c.Hidden, false))
		if !c.ParallelResidual {
			h = l.layerNorm(x, "post_attention_layernorm")
		}
		x = b.Add(x, l.mlp(h))
	}
	b.layerNormHead(x, "norm")
}

// normOfHeads is a layer norm over each head of x with weights of the head's own.
func (l layer) normOfHeads(x Var, name string) Var {
	parts := make([]Part, l.width(x)/l.c.HeadDim)
	for h := range parts {
		parts[h] = whole(l.prefix+name+".norms."+strconv.Itoa(h)+".weight", l.c.HeadDim)
	}
	return l.LayerNorm(x, Norm{Weight: l.Tensor([]int{l.width(x)}, parts...), Group: l.c.HeadDim, Eps: l.c.NormEps})
}
