package plan

// ERNIE 4.5 with experts: they are chosen by softmax and a bias, beside some that
// see every token. transformers/models/ernie4_5_moe.

// ernieMoEKeys: the names of attribute_map in transformers' config class.
var ernieMoEKeys = map[string]string{"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"}

func readErnie45MoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 103424, hidden: 2560, intermediate: 12288, layers: 28, heads: 20, kvHeads: 4,
		maxPos: 131072, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.AttentionBias = o.boolean("use_bias", false)
	c.OutputBias, c.MLPBias, c.HeadBias = c.AttentionBias, c.AttentionBias, c.AttentionBias
	c.MoE = c.readMoE(o, "num_experts", 64, 6)
	m := c.MoE
	m.Inner = o.dimension("moe_intermediate_size", 1536, maxDimension)
	m.Normalize = true
	if shared := o.integer("moe_num_shared_experts", 2); shared != 0 && *o.err == nil {
		m.Shared = m.Inner * o.dimension("moe_num_shared_experts", shared, maxLayers)
	}
	first, last := o.integer("moe_layer_start_index", 1), o.integer("moe_layer_end_index", -1)
	if last == -1 {
		last = c.Layers - 1
	}
	interval := o.dimension("moe_layer_interval", 1, maxLayers)
	for i := range m.Dense {
		m.Dense[i] = i < first || i > last || (i+1)%interval != 0
	}
	if least := o.float("moe_norm_min", 1e-12); least > 1e-6 { // a sum that is never less is not bounded
		o.fail("moe_norm_min", "%g is not supported by this family, only up to 1e-6", least)
	}
	c.Rope = readRopeOf(o, c, 500000)
	c.Rope.Interleaved = true
}

func buildErnie45MoE(b *Builder, c *Config) {
	b.plan.Spare = append(b.plan.Spare, b.prefix+"mtp_") // predicts further tokens
	b.preNorm(layer.plainAttention, func(l layer, x Var) Var {
		m := c.MoE
		if m.Dense[l.index] {
			return l.mlp(x)
		}
		bias := whole(l.prefix+"mlp.moe_statics.e_score_correction_bias", 1, m.Experts).transposed()
		y := l.experts(x, l.linear(x, "mlp.gate", m.Experts, false), ScoreSoftmax, l.Tensor([]int{m.Experts}, bias), "mlp.experts.%d.", mlpNames)
		if m.Shared == 0 {
			return y
		}
		return l.Add(y, l.mlpOf(x, "mlp.shared_experts.", m.Shared))
	})
}
