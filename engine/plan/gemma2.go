package plan

import "math"

// Gemma 2: norms before and after each half of a layer, soft caps on scores
// and logits, a window on every other layer. transformers/models/gemma2.

func readGemma2(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 256000, hidden: 2304, intermediate: 9216, layers: 26, heads: 8, kvHeads: 4, headDim: 256,
		maxPos: 8192, eps: 1e-6, tied: true,
	})
	c.Activation = o.activation("hidden_activation", tanhGELU)
	c.readGemmaCommon(o)
	c.readQueryScale(o)
	c.ScoreCap = readCap(o, "attn_logit_softcapping", 50)
	c.LogitCap = readCap(o, "final_logit_softcapping", 30)
	c.readWindows(o, readWindow(o, 4096), func(layer int) bool { return layer%2 == 0 })
	c.Rope = readRope(o, c)
}

// readQueryScale reads the number whose root divides attention scores.
func (c *Config) readQueryScale(o *object) {
	scalar := o.float("query_pre_attn_scalar", 256)
	if scalar <= 0 {
		o.fail("query_pre_attn_scalar", "must be positive, found %g", scalar)
	}
	c.QueryScale = 1 / math.Sqrt(scalar)
}

// readCap reads a soft cap; null is none, which is 0.
func readCap(o *object, key string, def float64) float64 {
	if o.raw(key) == nil && !o.absent(key) {
		return 0
	}
	limit := o.float(key, def)
	if limit <= 0 && !o.absent(key) {
		o.fail(key, "must be positive or null, found %g", limit)
	}
	return limit
}

// buildVaultGemma: Gemma 2 without the norms after each half.
// transformers/models/vaultgemma.
func buildVaultGemma(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)
		x = b.Add(x, l.plainAttention(l.norm(x, "input_layernorm")))
		x = b.Add(x, l.mlp(l.norm(x, "pre_feedforward_layernorm")))
	}
	b.head(x)
}

func buildGemma2(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "input_layernorm")
		q, k, v := l.qkv(h)
		a := l.attend(q, k, v, c.Rope)
		a = l.linear(a, "self_attn.o_proj", c.Hidden, c.OutputBias)
		x = b.Add(x, l.norm(a, "post_attention_layernorm"))

		h = l.norm(x, "pre_feedforward_layernorm")
		x = b.Add(x, l.norm(l.mlp(h), "post_feedforward_layernorm"))
	}
	b.head(x)
}
