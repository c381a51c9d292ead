package plan

// Qwen 3.5 and 3.6 with experts, and Qwen 3 Next, which came before them: gated
// delta nets and gated attention, with Qwen 2's experts.
// transformers/models/qwen3_5_moe, qwen3_next.

func readQwen35MoEText(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 248320, hidden: 2048, intermediate: 5632, layers: 40, heads: 16, kvHeads: 2, headDim: 256,
		maxPos: 32768, eps: 1e-6,
	})
	c.readDelta(o)
	c.MoE = c.readMoE(o, "num_experts", 256, 8)
	c.MoE.Inner = o.dimension("moe_intermediate_size", 512, maxDimension)
	c.MoE.Shared = o.dimension("shared_expert_intermediate_size", 512, maxDimension)
	c.MoE.Normalize = true
}

// readQwen35MoE reads the multimodal model's config, as readQwen35 does.
func readQwen35MoE(o *object, c *Config) {
	text, _ := o.textConfig("qwen3_5_moe_text")
	readQwen35MoEText(text, c)
	if !o.absent("tie_word_embeddings") {
		c.Tied = o.boolean("tie_word_embeddings", false)
	}
}

func readQwen3Next(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 151936, hidden: 2048, intermediate: 5632, layers: 48, heads: 16, kvHeads: 2, headDim: 256,
		maxPos: 32768, eps: 1e-6,
	})
	c.readDelta(o)
	if *o.err != nil {
		return
	}
	c.Delta.Fused = true
	c.readQwenExperts(o, 512, 10, 512, true)
	c.MoE.Shared = o.dimension("shared_expert_intermediate_size", 512, maxDimension)
}

func buildQwen35MoE(b *Builder, _ *Config) { b.preNorm(layer.deltaOrAttention, layer.qwenMixture) }
func draftQwen35MoE(b *Builder, _ *Config) { b.qwenDraft(layer.qwenMixture) }
