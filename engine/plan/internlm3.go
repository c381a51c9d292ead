package plan

// InternLM 3: llama with other names for its biases. transformers/models/internlm3,
// and, where its biases differ, the code at internlm/internlm3-8b-instruct.

// internLM3Keys are what InternLM3Config calls the common keys.
var internLM3Keys = map[string]string{"attention_bias": "qkv_bias", "mlp_bias": "bias"}

func readInternLM3(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 128512, hidden: 4096, intermediate: 10240, layers: 48, heads: 32, kvHeads: 2, headDim: 128,
		maxPos: 32768, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.MLPBias = o.boolean("mlp_bias", false)
	c.OutputBias = c.MLPBias
	c.Rope = readRope(o, c)
}
