package plan

// Granite 3 with experts: Granite's factors, and experts in two tensors for all of
// them; granitemoeshared has one more that sees every token.
// transformers/models/granitemoe, granitemoeshared.

func readGraniteMoE(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 4096, intermediate: 11008, layers: 32, heads: 32,
		maxPos: 2048, eps: 1e-6,
	})
	c.readGranite(o)
	c.MoE = c.readMoE(o, "num_local_experts", 8, 2)
	c.Rope = readRope(o, c)
}

func readGraniteMoEShared(o *object, c *Config) {
	readGraniteMoE(o, c)
	if shared := o.integer("shared_intermediate_size", 0); shared != 0 && *o.err == nil {
		c.MoE.Shared = o.dimension("shared_intermediate_size", shared, maxDimension)
	}
}

func buildGraniteMoE(b *Builder, _ *Config) {
	b.preNorm(layer.plainAttention, layer.graniteMixture)
}

// graniteMixture is a layer's experts, and the one that sees every token, if there
// is one.
func (l layer) graniteMixture(x Var) Var {
	m := l.c.MoE
	chosen, weights := l.Route(l.linear(x, "block_sparse_moe.router.layer", m.Experts, false), Routing{TopK: m.TopK, Score: ScoreSoftmaxChosen})
	y := l.Experts(x, chosen, weights, l.fusedExperts("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"))
	if m.Shared == 0 {
		return y
	}
	both := fused{l, x, "shared_mlp.input_linear", 2 * m.Shared}
	shared := l.Gate(Act{Kind: l.c.Activation}, both.part(0, m.Shared), both.part(m.Shared, m.Shared))
	return l.Add(y, l.linear(shared, "shared_mlp.output_linear", l.c.Hidden, false))
}
