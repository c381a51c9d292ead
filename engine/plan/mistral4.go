package plan

import "math"

// Mistral Small 4: DeepSeek V3's attention, with queries that grow with their
// position, and experts chosen by softmax. transformers/models/mistral4.

func readMistral4(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 131072, hidden: 4096, intermediate: 12288, layers: 36, heads: 32, headDim: 128,
		maxPos: 1048576, eps: 1e-6,
	})
	c.readMLA(o, MLAConfig{QueryRank: 1024, Rank: 256, Nope: 64, RopeDim: 64, Value: 128})
	c.readExperts(o, expertDefaults{
		experts: 128, topK: 4, inner: 2048, shared: 1, groups: 1, topGroups: 1, normalize: true, scale: 1,
	})
	c.MoE.Score, c.MoE.Corrected = ScoreSoftmax, false
	o.only("scoring_func", "softmax")
	if o.object("rope_parameters") == nil && o.object("rope_scaling") == nil {
		o.values["rope_parameters"] = []byte(`{"rope_type":"yarn","factor":128,"original_max_position_embeddings":8192,"mscale":1,"mscale_all_dim":1,"llama_4_scaling_beta":0.1}`)
	}
	params := o.ropeParams()
	params.raw("max_position_embeddings") // beside the one that is read
	// The share is of a whole head, of which the part that rotates is a tensor of its own.
	const key = "partial_rotary_factor"
	head := c.MLA.Nope + c.MLA.RopeDim
	share := params.float(key, o.float(key, float64(c.MLA.RopeDim)/float64(head)))
	if int(math.Round(share*float64(head))) != c.MLA.RopeDim {
		params.fail(key, "%g of a head of %d is not qk_rope_head_dim %d", share, head, c.MLA.RopeDim)
	}
	delete(params.values, key)
	delete(o.values, key)
	c.QueryGrowth = params.float("llama_4_scaling_beta", 0)
	c.QueryLength = int(originalLength(params, o, c))
	c.readLatentRope(o)
}
