package plan

// DeepSeek V3.2 and GLM 5: V3 with an indexer, which picks for each query the
// index_topk positions that it sees. As long as there are no more positions than
// that it picks them all, so that sequences of this length need no indexer; longer
// ones are not supported. transformers/models/deepseek_v32, glm_moe_dsa.

func readDeepseekV32(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 129280, hidden: 7168, intermediate: 18432, layers: 61, heads: 128, headDim: 64,
		maxPos: 163840, eps: 1e-6,
	})
	c.readMLA(o, MLAConfig{QueryRank: 1536, Rank: 512, Nope: 128, RopeDim: 64, Value: 128})
	c.readIndexed(o, expertDefaults{
		experts: 256, topK: 8, inner: 2048, shared: 1, groups: 8, topGroups: 4, dense: 3, normalize: true, scale: 2.5,
	})
}

func readGLMMoEDSA(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 154880, hidden: 6144, intermediate: 12288, layers: 78, heads: 64, headDim: 64,
		maxPos: 202752, eps: 1e-5,
	})
	c.readMLA(o, MLAConfig{QueryRank: 2048, Rank: 512, Nope: 192, RopeDim: 64, Value: 256})
	c.readIndexed(o, expertDefaults{
		experts: 256, topK: 8, inner: 2048, shared: 1, groups: 1, topGroups: 1, dense: 3, normalize: true, scale: 2.5,
	})
}

// readIndexed reads what the two have in common, and how long sequences may be.
func (c *Config) readIndexed(o *object, d expertDefaults) {
	if c.MLA.QueryRank == 0 {
		o.fail("q_lora_rank", "must be a number in this family")
	}
	c.readExperts(o, d)
	c.readMLPTypes(o)
	o.only("scoring_func", "sigmoid")
	o.only("topk_method", "noaux_tc")
	for i, t := range o.texts("layer_types") {
		if t != "indexed_attention" {
			o.fail("layer_types", "%q for layer %d is not supported by this family, only indexed_attention", t, i)
		}
	}
	c.readLatentRope(o)
	if !c.Rope.Interleaved {
		o.fail("rope_interleave", "false is not supported by this family")
	}
	c.MaxPos = min(c.MaxPos, o.dimension("index_topk", 2048, maxPosition))
}

func buildIndexed(b *Builder, c *Config) {
	b.plan.Spare = append(b.plan.Spare,
		".indexer.wq_b.weight", ".indexer.wk.weight", ".indexer.k_norm.weight", ".indexer.k_norm.bias", ".indexer.weights_proj.weight")
	buildDeepseekV3(b, c)
}
