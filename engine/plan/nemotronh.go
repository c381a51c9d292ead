package plan

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
)

// Nemotron-H, Nemotron Nano and Nemotron 3: each layer is one of Mamba 2's mixer,
// attention without positions, an MLP without a gate, or experts of such MLPs, that
// may work in a narrower space. transformers/models/nemotron_h.

var (
	nemotronHKeys = map[string]string{
		"head_dim": "attention_head_dim", "layer_types": "layers_block_type", "state_size": "ssm_state_size",
		"n_routed_experts": "num_local_experts",
	}
	nemotronHIgnored = []string{
		"chunk_size", "expand", "mamba_proj_bias", "mamba_ssm_cache_dtype", "moe_shared_expert_overlap",
		"n_shared_experts", "norm_eps", "num_logits_to_keep", "num_nextn_predict_layers", "partial_rotary_factor",
		"rescale_prenorm_residual", "residual_in_fp32", "rope_theta", "time_step_floor", "time_step_max", "time_step_rank",
		"use_mamba_kernels",
	}
)

func readNemotronH(o *object, c *Config) {
	types := readNemotronHKinds(o)
	o.values["num_hidden_layers"] = []byte(strconv.Itoa(len(types)))
	o.override("rms_norm_eps", "layer_norm_epsilon")
	c.readCommon(o, defaults{
		vocab: 131072, hidden: 4096, intermediate: 21504, layers: 4, heads: 32, kvHeads: 8, headDim: 128, maxPos: 4096, eps: 1e-5,
	})
	c.Activation = o.activation("mlp_hidden_act", "relu2")
	if act := o.text("mamba_hidden_act", "silu"); act != "silu" {
		o.fail("mamba_hidden_act", "%q is not supported by this family, only silu", act)
	}
	c.MLPBias = o.boolean("mlp_bias", false)
	c.readSSM(o, SSMConfig{Heads: 128, HeadDim: 64, Groups: 8, State: 128}, 0)
	if *o.err != nil {
		return
	}
	if c.SSM.Min != 0 || !math.IsInf(c.SSM.Max, 1) {
		o.fail("time_step_limit", "is not supported by this family, only 0 to infinity")
	}
	c.SSM.Min = o.float("time_step_min", 0.001) // as transformers has it
	if c.SSM.Min < 0 {
		o.fail("time_step_min", "must be 0 or more, found %g", c.SSM.Min)
	}
	c.readKinds(o, func(layer int) string { return types[layer] }, linearAttention, fullAttention, moeLayer, mlpLayer)

	c.readExperts(o, expertDefaults{experts: 8, topK: 2, inner: 7688, shared: 1, groups: 1, topGroups: 1, normalize: true, scale: 1})
	c.MoE.Shared = o.dimension("moe_shared_expert_intermediate_size", 7688, maxDimension)
	if o.raw("moe_latent_size") != nil {
		c.MoE.Latent = o.dimension("moe_latent_size", 0, maxDimension)
	}
	c.draftKinds = o.texts("mtp_layers_block_type")
	if pattern := o.text("mtp_hybrid_override_pattern", ""); c.draftKinds == nil {
		for _, letter := range pattern {
			c.draftKinds = append(c.draftKinds, nemotronHKinds[letter])
		}
	}
}

// nemotronHKinds are the letters of older configs.
var nemotronHKinds = map[rune]string{'M': linearAttention, 'E': moeLayer, '*': fullAttention, '-': mlpLayer}

// readNemotronHKinds reads the kinds of layers, which are as many as there are
// layers, whatever num_hidden_layers says. Older configs have a letter for each.
func readNemotronHKinds(o *object) []string {
	if types := o.texts("layer_types"); types != nil {
		return types[:min(len(types), maxLayers+1)]
	}
	pattern := o.text("hybrid_override_pattern", "ME*-")
	types := make([]string, 0, min(len(pattern), maxLayers+1))
	for _, letter := range pattern {
		kind, ok := nemotronHKinds[letter]
		if !ok {
			o.fail("hybrid_override_pattern", "has %q, expected M, E, * and - alone", letter)
		}
		if len(types) <= maxLayers {
			types = append(types, kind)
		}
	}
	return types
}

func buildNemotronH(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		x = b.layer(i).nemotronLayer(x, c.Kinds[i])
	}
	b.normHead(x, "norm_f")
}

// nemotronLayer adds to x what a layer of the kind makes of a norm of it.
func (l layer) nemotronLayer(x Var, kind string) Var {
	c, h := l.c, l.norm(x, "norm")
	switch kind {
	case linearAttention:
		h = l.mamba2(h, "mixer.")
	case fullAttention:
		q := l.linear(h, "mixer.q_proj", c.QWidth(), false)
		k, v := l.linear(h, "mixer.k_proj", c.KVWidth(), false), l.linear(h, "mixer.v_proj", c.KVWidth(), false)
		h = l.linear(l.attention(q, k, v, Attention{}), "mixer.o_proj", c.Hidden, false)
	case mlpLayer:
		h = l.ungatedMLP(h, "mixer.", c.Intermediate)
	case moeLayer:
		h = l.nemotronExperts(h)
	}
	return l.Add(x, h)
}

// draftNemotronH writes the layers that predict one more token. Layers of Mamba among
// them would take in tokens that turn out to be wrong: then there is no draft.
func draftNemotronH(b *Builder, c *Config) {
	n := len(c.draftKinds)
	for _, kind := range c.draftKinds {
		if kind = cmp.Or(olderKinds[kind], kind); kind != fullAttention && kind != moeLayer && kind != mlpLayer {
			return
		}
	}
	layer := func(i int) string { return "mtp.layers." + strconv.Itoa(i) + "." }
	if n == 0 || !b.has(layer(0)+"eh_proj.weight") {
		return
	}
	l := b.draftLayer(layer(0))
	x := l.draftInput("", layer(0)+"enorm", layer(0)+"hnorm", layer(0)+"eh_proj")
	for i, kind := range c.draftKinds {
		l.prefix = layer(i)
		x = l.nemotronLayer(x, cmp.Or(olderKinds[kind], kind))
	}
	b.draftHead(x, l.prefix+"final_layernorm")
}

// ungatedMLP is plainMLP with projections below prefix, inner wide between.
func (l layer) ungatedMLP(x Var, prefix string, inner int) Var {
	up := l.linear(x, prefix+"up_proj", inner, l.c.MLPBias)
	return l.linear(l.Activate(l.c.Activation, up), prefix+"down_proj", l.c.Hidden, l.c.MLPBias)
}

func (l layer) nemotronExperts(x Var) Var {
	m := l.c.MoE
	chosen, weights := l.Route(l.linear(x, "mixer.gate", m.Experts, false), Routing{
		TopK: m.TopK, Score: m.Score, Bias: l.Weight(l.prefix+"mixer.gate.e_score_correction_bias", m.Experts),
		Groups: m.Groups, TopGroups: m.TopGroups, Normalize: m.Normalize, Eps: m.eps(m.Score), Scale: m.Scale,
	})
	in := x
	if m.Latent > 0 {
		in = l.linear(x, "mixer.fc1_latent_proj", m.Latent, l.c.MLPBias)
	}
	stack := func(name string, rows, cols int) Weight {
		parts := make([]Part, m.Experts)
		for e := range parts {
			parts[e] = whole(fmt.Sprintf("%smixer.experts.%d.%s.weight", l.prefix, e, name), rows, cols)
		}
		return l.Tensor([]int{m.Experts, rows, cols}, parts...)
	}
	width := l.width(in)
	y := l.Experts(in, chosen, weights, MLP{
		Act: Act{Kind: l.c.Activation}, Gate: stack("up_proj", m.Inner, width), Down: stack("down_proj", width, m.Inner),
	})
	if m.Latent > 0 {
		y = l.linear(y, "mixer.fc2_latent_proj", l.c.Hidden, l.c.MLPBias)
	}
	return l.Add(y, l.ungatedMLP(x, "mixer.shared_experts.", m.Shared))
}
