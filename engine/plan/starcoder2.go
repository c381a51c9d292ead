package plan

// StarCoder 2: layer norms, an MLP without a gate, biases, a sliding window.
// transformers/models/starcoder2.

var starcoder2Keys = map[string]string{"rms_norm_eps": "norm_epsilon"}

func readStarcoder2(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 49152, hidden: 3072, intermediate: 12288, layers: 30, heads: 24, kvHeads: 2,
		maxPos: 4096, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "gelu_pytorch_tanh")
	c.AttentionBias = o.boolean("use_bias", true)
	for key, only := range map[string]string{"mlp_type": "default", "norm_type": "layer_norm"} {
		if kind := o.text(key, only); kind != only {
			o.fail(key, "%q is not supported, only %s", kind, only)
		}
	}
	c.readWindow(o, readWindow(o, 0))
	c.Rope = readRope(o, c)
}

func buildStarcoder2(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		q, k, v := l.qkv(l.layerNorm(x, "input_layernorm"))
		x = b.Add(x, l.linear(l.attend(q, k, v, c.Rope), "self_attn.o_proj", c.Hidden, c.AttentionBias))
		x = b.Add(x, l.plainMLP(l.layerNorm(x, "post_attention_layernorm"), "mlp.c_fc", "mlp.c_proj", c.AttentionBias))
	}
	b.layerNormHead(x, "norm")
}
