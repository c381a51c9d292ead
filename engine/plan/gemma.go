package plan

import "math"

// Gemma 1: scaled embeddings, norms that multiply by 1 + weight, tanh GELU.
// transformers/models/gemma.

func readGemma(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 256000, hidden: 3072, intermediate: 24576, layers: 28, heads: 16, kvHeads: 16, headDim: 256,
		maxPos: 8192, eps: 1e-6, tied: true,
	})
	c.Activation = gemmaActivation(o)
	c.readGemmaCommon(o)
	c.Rope = readRope(o, c)
}

const tanhGELU = "gelu_pytorch_tanh"

// gemmaActivation reads the activation of a Gemma 1 config. The first release
// wrote hidden_act "gelu" but was trained with the tanh approximation, which
// transformers therefore reads into it; later configs say so again in
// hidden_activation.
func gemmaActivation(o *object) Activation {
	kind := ActGeluTanh
	if o.text("hidden_act", "gelu") != "gelu" {
		kind = o.activation("hidden_act", tanhGELU)
	}
	if o.raw("hidden_activation") != nil && o.activation("hidden_activation", "") != kind {
		o.fail("hidden_activation", "and hidden_act contradict each other")
	}
	return kind
}

// readGemmaCommon sets what all Gemma models have in common.
func (c *Config) readGemmaCommon(o *object) {
	c.NormOffset = 1
	// transformers rounds this factor to the type it computes in. That is
	// float32 here, whatever the weights' type, as in the float32 reference.
	c.EmbedScale = math.Sqrt(float64(c.Hidden))
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
}

// buildGemma: llama's layer, with what c says about scale and norms.
func buildGemma(b *Builder, c *Config) { buildLlama(b, c) }
