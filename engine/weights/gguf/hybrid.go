package gguf

import (
	"fmt"
	"strings"
)

// hybrids are architectures of Mamba's mixers beside attention.
var hybrids = map[string]*architecture{
	"granitehybrid": family("granitemoehybrid", permuted, mamba2Names("mamba."), named(map[string]string{
		"ffn_gate_inp": "block_sparse_moe.router.layer", "ffn_down_exps.weight": "block_sparse_moe.output_linear.weight",
		"ffn_gate_exps": "", "ffn_up_exps": "", "ffn_gate_shexp": "", "ffn_up_shexp": "", "ffn_down_shexp": "shared_mlp.output_linear",
		"ffn_gate": "", "ffn_up": "", "ffn_down": "shared_mlp.output_linear",
	}), reads(granite), reads(func(m *model, c object) {
		c["num_local_experts"] = m.integer("expert_count", 0)
		c["num_experts_per_tok"] = m.integer("expert_used_count", 0)
		c["shared_intermediate_size"] = m.integer("expert_shared_feed_forward_length", m.integer("feed_forward_length", 0))
		m.copyMamba(c, map[string]string{"conv_kernel": "mamba_d_conv", "state_size": "mamba_d_state", "group_count": "mamba_n_groups"})
		heads := max(1, m.integer("ssm.time_step_rank", 1))
		c["mamba_n_heads"], c["mamba_d_head"] = heads, m.integer("ssm.inner_size", 0)/heads
		c["mamba_expand"] = m.integer("ssm.inner_size", 0) / c["hidden_size"].(int)
		c["mamba_conv_bias"], c["mamba_proj_bias"] = m.hasLayer("ssm_conv1d.bias"), m.hasLayer("ssm_in.bias")
		c["attention_bias"] = m.hasLayer("attn_q.bias")
		c["layer_types"] = m.kinds(map[string]string{"ssm_in.weight": "linear_attention", "attn_q.weight": "full_attention"})
		if m.boolean("rope.scaling.finetuned", true) { // what llama.cpp keeps there
			c["position_embedding_type"] = "rope"
		}
		if m.get("attention.scale") == nil && m.hasLayer("attn_q.weight") {
			bamba(m, c)
		}
	}), func(a *architecture) { a.join = joinGraniteHybrid }),
	// Its factors are in the weights.
	"falcon-h1": family("falcon_h1", mamba2Names("mamba."), named(map[string]string{
		"ffn_norm": "pre_ff_layernorm.weight", "ffn_norm.weight": "pre_ff_layernorm.weight",
		"ffn_gate": "feed_forward.gate_proj", "ffn_up": "feed_forward.up_proj", "ffn_down": "feed_forward.down_proj",
	}), reads(func(m *model, c object) {
		m.copyMamba(c, map[string]string{"conv_kernel": "mamba_d_conv", "state_size": "mamba_d_state", "group_count": "mamba_n_groups", "inner_size": "mamba_d_ssm"})
		heads := max(1, m.integer("ssm.time_step_rank", 1))
		c["mamba_n_heads"], c["mamba_d_head"] = heads, m.integer("ssm.inner_size", 0)/heads
		c["mamba_conv_bias"], c["mamba_proj_bias"] = m.hasLayer("ssm_conv1d.bias"), m.hasLayer("ssm_in.bias")
		c["projectors_bias"] = m.hasLayer("ssm_out.bias")
		c["mamba_rms_norm"], c["mamba_norm_before_gate"] = m.hasLayer("ssm_norm.weight"), false // as in llama.cpp
	}), biases("attention_bias", "mlp_bias"), func(a *architecture) { a.outer["output_norm"] = "final_layernorm" }),
	"jamba": family("jamba", func(a *architecture) {
		a.noRope = true
		a.outer["output_norm"] = "final_layernorm"
		a.maps = map[string]func([]float32){"ssm_a": logOfNegative}
	}, named(map[string]string{
		"ffn_norm": "pre_ff_layernorm", "ssm_in": "mamba.in_proj", "ssm_conv1d": "mamba.conv1d", "ssm_out": "mamba.out_proj",
		"ssm_x": "mamba.x_proj", "ssm_dt": "mamba.dt_proj", "ssm_d": "mamba.D", "ssm_a": "mamba.A_log",
		"ssm_b_norm": "mamba.b_layernorm", "ssm_c_norm": "mamba.c_layernorm", "ssm_dt_norm": "mamba.dt_layernorm",
		"ffn_gate": "feed_forward.gate_proj", "ffn_up": "feed_forward.up_proj", "ffn_down": "feed_forward.down_proj", "ffn_gate_inp": "feed_forward.router",
		"ffn_gate_exps": "feed_forward.experts.%d.gate_proj", "ffn_up_exps": "feed_forward.experts.%d.up_proj", "ffn_down_exps": "feed_forward.experts.%d.down_proj",
	}), reads(func(m *model, c object) {
		delete(c, "head_dim")
		m.copyMamba(c, map[string]string{"conv_kernel": "mamba_d_conv", "state_size": "mamba_d_state", "time_step_rank": "mamba_dt_rank"})
		c["mamba_expand"] = m.integer("ssm.inner_size", 0) / c["hidden_size"].(int)
		c["mamba_conv_bias"], c["mamba_proj_bias"] = m.hasLayer("ssm_conv1d.bias"), m.hasLayer("ssm_in.bias")
		c["attn_layer_period"], c["attn_layer_offset"] = m.every("attn_q.weight")
		c["expert_layer_period"], c["expert_layer_offset"] = m.every("ffn_gate_inp.weight")
		c["num_experts"] = max(1, m.integer("expert_count", 1))
		m.copyInteger("num_experts_per_tok", "expert_used_count")
	})),
	"nemotron_h":     family("nemotron_h", nemotronH),
	"nemotron_h_moe": family("nemotron_h", nemotronH, reads(routed)),
}

// bamba reads a model without Granite's factors.
func bamba(m *model, c object) {
	c["model_type"], c["mlp_bias"] = "bamba", m.hasLayer("ffn_up.bias")
	for _, key := range []string{"num_local_experts", "num_experts_per_tok", "shared_intermediate_size", "position_embedding_type"} {
		delete(c, key)
	}
	m.names["output_norm.weight"] = "final_layernorm.weight"
	for i := range m.layers {
		block := fmt.Sprintf("blk.%d.", i)
		m.names[block+"ffn_norm.weight"] = "pre_ff_layernorm.weight"
		for _, stem := range []string{"gate", "up", "down"} {
			for _, suffix := range []string{".weight", ".bias"} {
				m.names[block+"ffn_"+stem+suffix] = "feed_forward." + stem + "_proj" + suffix
			}
		}
	}
}

// mamba2Names are those of a mixer of Mamba 2 below prefix.
func mamba2Names(prefix string) func(a *architecture) {
	return func(a *architecture) {
		a.names(map[string]string{
			"ssm_in": prefix + "in_proj", "ssm_conv1d": prefix + "conv1d", "ssm_out": prefix + "out_proj",
			"ssm_dt.bias": prefix + "dt_bias", "ssm_norm": prefix + "norm", "ssm_d": prefix + "D", "ssm_a": prefix + "A_log",
		})
		a.flat = map[string]bool{"ssm_a": true, "ssm_d": true, "ssm_norm": true}
		a.maps = map[string]func([]float32){"ssm_a": logOfNegative}
	}
}

// nemotronH is Nemotron-H, whose layers are each one of four kinds.
func nemotronH(a *architecture) {
	mamba2Names("mixer.")(a)
	a.permuted, a.noRope, a.feedForward, a.eps, a.prefix = true, true, "", "layer_norm_epsilon", "backbone."
	a.outer["token_embd"], a.outer["output_norm"] = "embeddings", "norm_f"
	a.names(map[string]string{
		"attn_norm": "norm", "attn_q": "mixer.q_proj", "attn_k": "mixer.k_proj", "attn_v": "mixer.v_proj", "attn_output": "mixer.o_proj",
		"ffn_up": "mixer.up_proj", "ffn_down": "mixer.down_proj", "ffn_gate_inp": "mixer.gate", "exp_probs_b.bias": "mixer.gate.e_score_correction_bias",
		"ffn_up_exps": "mixer.experts.%d.up_proj", "ffn_down_exps": "mixer.experts.%d.down_proj",
		"ffn_up_shexp": "mixer.shared_experts.up_proj", "ffn_down_shexp": "mixer.shared_experts.down_proj",
		"ffn_latent_down": "mixer.fc1_latent_proj", "ffn_latent_up": "mixer.fc2_latent_proj",
	})
	// Two layers that draft tokens are one in the file.
	a.draftPrefix = "mtp.layers.0."
	a.draft = map[string]string{
		"nextn.enorm": "enorm", "nextn.hnorm": "hnorm", "nextn.eh_proj": "eh_proj",
		"post_attention_norm": "/mtp.layers.1.norm", "nextn.shared_head_norm": "/mtp.layers.1.final_layernorm",
	}
	for stem, name := range a.layer {
		if strings.HasPrefix(stem, "ffn_") || strings.HasPrefix(stem, "exp_") {
			a.draft[stem] = "/mtp.layers.1." + name
		}
	}
	a.read = after(a.read, func(m *model, c object) {
		if m.draftLayers() > 0 {
			c["mtp_layers_block_type"] = []string{"full_attention", "moe"}
		}
		m.copyMamba(c, map[string]string{"conv_kernel": "conv_kernel", "state_size": "ssm_state_size", "group_count": "n_groups"})
		heads := max(1, m.integer("ssm.time_step_rank", 1))
		c["mamba_num_heads"], c["mamba_head_dim"] = heads, m.integer("ssm.inner_size", 0)/heads
		c["use_conv_bias"], c["use_bias"] = m.hasLayer("ssm_conv1d.bias"), m.hasLayer("ssm_in.bias")
		c["mlp_bias"] = m.hasLayer("ffn_up.bias") || m.hasLayer("ffn_up_shexp.bias")
		c["layer_types"] = m.kinds(map[string]string{
			"ssm_in.weight": "linear_attention", "attn_q.weight": "full_attention", "ffn_gate_inp.weight": "moe", "ffn_up.weight": "mlp",
		})
		for i := range m.layers {
			if up := m.shape(fmt.Sprintf("blk.%d.ffn_up.weight", i)); len(up) == 2 {
				c["intermediate_size"] = up[0]
			}
		}
		m.copyInteger("moe_shared_expert_intermediate_size", "expert_shared_feed_forward_length")
		m.copyInteger("moe_latent_size", "moe_latent_size")
	})
}

// copyMamba copies whole numbers of the state space under other names.
func (m *model) copyMamba(c object, names map[string]string) {
	for from, to := range names {
		c[to] = m.integer("ssm."+from, 0)
	}
}

// hasLayer reports whether any layer has a tensor.
func (m *model) hasLayer(tensor string) bool {
	for i := range m.layers {
		if m.has(fmt.Sprintf("blk.%d.%s", i, tensor)) {
			return true
		}
	}
	return false
}

// leading is how many layers come before the first that has a tensor.
func (m *model) leading(tensor string) int {
	for i := range m.layers {
		if m.has(fmt.Sprintf("blk.%d.%s", i, tensor)) {
			return i
		}
	}
	return m.layers
}

// kinds says of each layer what it is by the tensor that it has.
func (m *model) kinds(by map[string]string) []string {
	list := make([]string, m.layers)
	for i := range list {
		for tensor, kind := range by {
			if m.has(fmt.Sprintf("blk.%d.%s", i, tensor)) {
				list[i] = kind
			}
		}
		if list[i] == "" {
			m.fail("layer %d: has no tensors of any kind that a %s model has", i, m.name)
		}
	}
	return list
}

// every returns period and offset of the layers that have a tensor: those whose number
// leaves the offset when it is divided by the period.
func (m *model) every(tensor string) (period, offset int) {
	var at []int
	for i := range m.layers {
		if m.has(fmt.Sprintf("blk.%d.%s", i, tensor)) {
			at = append(at, i)
		}
	}
	switch len(at) {
	case 0:
		return m.layers + 1, m.layers // a layer that is not there
	case 1:
		return m.layers, at[0]
	}
	period, offset = at[1]-at[0], at[0]
	for k, i := range at {
		if i != offset+k*period || offset >= period || k == len(at)-1 && i+period < m.layers {
			m.fail("tensor %q: the layers %v that have it are not evenly spaced", tensor, at)
			break
		}
	}
	return period, offset
}

// joinGraniteHybrid makes gate and up projections one tensor: of the experts, and of the
// MLP that sees every token.
func joinGraniteHybrid(m *model, prefix, block string) {
	if m.has(block + "ffn_gate_exps.weight") {
		m.joined(prefix+"block_sparse_moe.input_linear.weight", block+"ffn_gate_exps.weight", block+"ffn_up_exps.weight")
	}
	for _, suffix := range []string{"_shexp.weight", ".weight"} {
		if name := block + "ffn_gate" + suffix; m.has(name) && m.names[name] == "" {
			m.joined(prefix+"shared_mlp.input_linear.weight", block+"ffn_gate"+suffix, block+"ffn_up"+suffix)
		}
	}
}
