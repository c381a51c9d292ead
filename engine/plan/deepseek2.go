package plan

// DeepSeek V2: V3's attention, and experts chosen by softmax.
// transformers/models/deepseek_v2.

func readDeepseekV2(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 102400, hidden: 4096, intermediate: 11008, layers: 32, heads: 32, headDim: 64,
		maxPos: 2048, eps: 1e-6,
	})
	c.readMLA(o, MLAConfig{QueryRank: 1536, Rank: 512, Nope: 128, RopeDim: 64, Value: 128})
	c.MLPBias = o.boolean("mlp_bias", false)
	method := o.text("topk_method", "greedy")
	if method == "greedy" { // of one group, whatever there are
		o.values["n_group"], o.values["topk_group"] = []byte("1"), []byte("1")
	} else if method != "group_limited_greedy" {
		o.fail("topk_method", "%q is not supported by this family, only greedy and group_limited_greedy", method)
	}
	c.readExperts(o, expertDefaults{experts: 64, inner: 1407, shared: 2, scale: 1})
	c.MoE.Score, c.MoE.Corrected, c.MoE.GroupBest = ScoreSoftmax, false, true
	if c.MoE.Normalize {
		o.fail("norm_topk_prob", "true is not supported by this family")
	}
	o.only("scoring_func", "softmax")
	c.readLatentRope(o)
}
