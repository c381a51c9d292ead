package plan

import "strconv"

// Parts of families whose experts are those of DeepSeek: small ones, in groups,
// beside one that sees every token.

// expertDefaults are the values of a family's config class.
type expertDefaults struct {
	experts, topK, inner, shared int
	groups, topGroups            int
	dense                        int // layers, from the first on, that have an MLP
	normalize                    bool
	scale                        float64
}

// readExperts reads how a family's experts are chosen: by a sigmoid and a bias, as
// most do it, unless the family says otherwise afterwards.
func (c *Config) readExperts(o *object, d expertDefaults) {
	c.MoE = c.readMoE(o, "n_routed_experts", d.experts, d.topK)
	m := c.MoE
	m.Score, m.Corrected = ScoreSigmoid, true
	m.Inner = o.dimension("moe_intermediate_size", d.inner, maxDimension)
	m.Groups = o.dimension("n_group", d.groups, maxLayers)
	m.TopGroups = o.dimension("topk_group", d.topGroups, maxLayers)
	m.Normalize = o.boolean("norm_topk_prob", d.normalize)
	m.Scale = o.float("routed_scaling_factor", d.scale)
	m.Shared = m.Inner * o.dimension("n_shared_experts", d.shared, maxLayers)
	if m.Shared > maxDimension {
		o.fail("n_shared_experts", "times moe_intermediate_size is %d, which exceeds %d", m.Shared, maxDimension)
	}
	dense := o.integer("first_k_dense_replace", d.dense)
	for i := range m.Dense {
		m.Dense[i] = i < dense
	}
	c.checkExpertGroups(o)
	if n := o.integer("moe_layer_freq", 1); n != 1 {
		o.fail("moe_layer_freq", "%d is not supported by this family, only 1", n)
	}
}

// only refuses a value of key that is not the one that a family has.
func (o *object) only(key, value string) {
	if found := o.text(key, value); found != value {
		o.fail(key, "%q is not supported by this family, only %s", found, value)
	}
}

// readMLPTypes reads which layers have an MLP and which have experts from
// mlp_layer_types, if it is there.
func (c *Config) readMLPTypes(o *object) {
	types := o.texts("mlp_layer_types")
	if types != nil && len(types) != c.Layers {
		o.fail("mlp_layer_types", "has %d entries, expected num_hidden_layers %d", len(types), c.Layers)
		return
	}
	for i, t := range types {
		if t != "dense" && t != "sparse" {
			o.fail("mlp_layer_types", "%q is not supported, only dense and sparse", t)
		}
		c.MoE.Dense[i] = t == "dense"
	}
}

// checkExpertGroups refuses groups that cannot give a token its experts.
func (c *Config) checkExpertGroups(o *object) {
	m := c.MoE
	switch {
	case *o.err != nil || m.Groups <= 1:
	case m.Experts%m.Groups != 0 || m.Experts/m.Groups < 2:
		o.fail("n_group", "%d does not divide %d experts into groups of at least 2", m.Groups, m.Experts)
	case m.TopGroups > m.Groups || m.TopGroups*(m.Experts/m.Groups) < m.TopK:
		o.fail("topk_group", "%d of %d groups of %d experts cannot give %d experts per token", m.TopGroups, m.Groups, m.Experts/m.Groups, m.TopK)
	}
}

// mixture is a layer's MLP, or its experts and the one that sees every token.
func (l layer) mixture(x Var) Var {
	m := l.c.MoE
	if m.Dense[l.index] {
		return l.mlp(x)
	}
	var bias Weight
	if m.Corrected {
		name := l.prefix + "mlp.gate.e_score_correction_bias"
		if above := l.prefix + "mlp.e_score_correction_bias"; !l.has(name) && l.has(above) {
			name = above // so K-EXAONE
		}
		bias = l.Weight(name, m.Experts)
	}
	logits := l.linear(x, "mlp.gate", m.Experts, false)
	y := l.experts(x, logits, m.Score, bias, "mlp.experts.%d.", mlpNames)
	return l.Add(y, l.mlpOf(x, "mlp.shared_experts.", m.Shared))
}

// spareLayers leaves what predicts further tokens, which checkpoints store as
// layers after the last.
func (b *Builder) spareLayers() {
	b.plan.Spare = append(b.plan.Spare, b.prefix+"layers."+strconv.Itoa(b.c.Layers)+".")
}
