package plan

import (
	"encoding/json"
	"slices"
)

// Hunyuan A13B: queries and keys are normalized after they were rotated, and beside
// the experts there is one that sees every token. transformers/models/hunyuan_v1_moe.

// hunYuanMoEKeys: the names of attribute_map in transformers' config class.
var hunYuanMoEKeys = map[string]string{"num_experts_per_tok": "moe_topk"}

func readHunYuanMoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 290943, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 2048, eps: 1e-5,
	})
	c.readHunYuan(o)
	o.oneNumber("num_experts_per_tok")
	for key, want := range map[string]int{"moe_intermediate_size": c.Intermediate, "num_shared_expert": 1, "attention_head_dim": c.HeadDim} {
		if o.oneNumber(key); o.integer(key, want) != want {
			o.fail(key, "%d is not supported by this family, only %d", o.integer(key, want), want)
		}
	}
	if !o.boolean("use_mixed_mlp_moe", true) {
		o.fail("use_mixed_mlp_moe", "false is not supported by this family")
	}
	o.only("norm_type", "rms")
	c.MoE = c.readMoE(o, "num_experts", 1, 1)
	c.MoE.Normalize = true
}

// oneNumber makes a list with a number for each layer, which all must be the same,
// into the number.
func (o *object) oneNumber(key string) {
	if raw := o.raw(key); raw == nil || raw[0] != '[' {
		return
	}
	list := o.integers(key)
	switch {
	case *o.err != nil:
	case len(list) == 0 || len(slices.Compact(list)) != 1:
		o.fail(key, "must be the same for all layers, found %s", short(o.raw(key)))
	default:
		o.values[o.name(key)], _ = json.Marshal(list[0])
	}
}

func buildHunYuanMoE(b *Builder, _ *Config) {
	b.preNorm(layer.hunYuanAttention, func(l layer, x Var) Var {
		logits := l.linear(x, "mlp.gate.wg", l.c.MoE.Experts, false)
		y := l.experts(x, logits, ScoreSoftmax, 0, "mlp.experts.%d.", mlpNames)
		return l.Add(y, l.mlpOf(x, "mlp.shared_mlp.", l.c.Intermediate))
	})
}
