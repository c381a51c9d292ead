package gguf

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
)

// gemmas are the generations of Gemma.
var gemmas = map[string]*architecture{
	"gemma": family("gemma", shifted),
	"gemma2": family("gemma2", shifted, named(sandwich), reads(func(m *model, c object) {
		m.windows(2)
		delete(c, "layer_types") // those of the class
		m.copyFloat("attn_logit_softcapping", "attn_logit_softcapping")
		m.copyFloat("final_logit_softcapping", "final_logit_softcapping")
		// llama.cpp has it in its code: of the model with 46 layers the width of all
		// heads together, of the others that of one.
		c["query_pre_attn_scalar"] = m.headDim()
		if m.layers == 46 {
			c["query_pre_attn_scalar"] = c["hidden_size"].(int) / max(1, m.integer("attention.head_count", 1))
		}
	})),
	"gemma3": family("gemma3_text", shifted, named(sandwich), reads(func(m *model, c object) {
		m.windows(6)
		m.twoRopes(m.number("rope.freq_base_swa", 10000))
		c["query_pre_attn_scalar"] = m.headDim()
		if m.layers == 62 { // as llama.cpp has it
			c["query_pre_attn_scalar"] = c["hidden_size"].(int) / max(1, m.integer("attention.head_count", 1))
		}
		m.copyFloat("final_logit_softcapping", "final_logit_softcapping")
	})),
	"gemma4": family("gemma4_text", named(sandwich), perLayer, named(map[string]string{
		"layer_output_scale.weight": "layer_scalar", "ffn_gate_inp.weight": "router.proj.weight", "ffn_gate_inp.scale": "router.scale",
		"ffn_gate_up_exps.weight": "experts.gate_up_proj", "ffn_down_exps.weight": "experts.down_proj", "ffn_down_exps.scale": "router.per_expert_scale",
		"pre_ffw_norm_2": "pre_feedforward_layernorm_2", "post_ffw_norm_1": "post_feedforward_layernorm_1", "post_ffw_norm_2": "post_feedforward_layernorm_2",
	}), reads(gemma4)),
	"gemma3n": family("gemma3n_text", named(sandwich), perLayer, named(map[string]string{
		"altup_correct_scale.weight": "altup.correct_output_scale", "altup_correct_coef": "altup.correction_coefs", "altup_predict_coef": "altup.prediction_coefs",
		"altup_router": "altup.modality_router", "altup_router_norm": "altup.router_norm",
		"laurel_l": "laurel.linear_left", "laurel_r": "laurel.linear_right", "laurel_post_norm": "laurel.post_laurel_norm",
	}), func(a *architecture) {
		a.outer["altup_proj"], a.outer["altup_unembd_proj"] = "altup_projections.%d", "altup_unembed_projections.%d"
	}, reads(gemma3n)),
}

// perLayer is what Gemma 3n and 4 have in common: embeddings of each layer, and MLPs
// that may differ in width.
func perLayer(a *architecture) {
	a.feedForward = ""
	a.names(map[string]string{"inp_gate": "per_layer_input_gate", "proj": "per_layer_projection", "post_norm": "post_per_layer_input_norm"})
	maps.Copy(a.outer, map[string]string{
		"per_layer_token_embd": "embed_tokens_per_layer", "per_layer_model_proj": "per_layer_model_projection", "per_layer_proj_norm": "per_layer_projection_norm",
	})
	a.read = after(a.read, func(m *model, c object) {
		m.copyFloat("final_logit_softcapping", "final_logit_softcapping")
		m.copyInteger("hidden_size_per_layer_input", "embedding_length_per_layer_input")
		m.copyInteger("num_kv_shared_layers", "attention.shared_kv_layers")
		if each := m.shape("per_layer_token_embd.weight"); len(each) == 2 {
			c["vocab_size_per_layer_input"] = each[0]
		}
	})
}

// gemma4 reads Gemma 4's two kinds of layers: those without a window have heads of
// another width, and may have values that are their keys.
func gemma4(m *model, c object) {
	m.windows(6)
	full := object{"rope_type": "proportional", "rope_theta": float(m.number("rope.freq_base", 1e6)), "partial_rotary_factor": 1}
	if rope, _ := c["rope_parameters"].(object); rope["rope_type"] == "factors" { // what does not turn has a very large one
		factors, turning := rope["factors"].([]float64), 0
		for _, f := range factors {
			if f == 1 {
				turning++
			}
		}
		full["partial_rotary_factor"] = float64(turning) / float64(max(1, len(factors)))
	}
	m.twoRopes(m.number("rope.freq_base_swa", 10000))
	c["rope_parameters"].(object)["full_attention"] = full

	c["global_head_dim"] = c["head_dim"]
	m.copyInteger("head_dim", "attention.key_length_swa")
	heads := m.integers("attention.head_count_kv", m.layers)
	types, _ := c["layer_types"].([]string)
	for i, kind := range types {
		if kind == "sliding_attention" {
			c["num_key_value_heads"] = heads[i]
			continue
		}
		c["num_global_key_value_heads"] = heads[i]
		if block := fmt.Sprintf("blk.%d.", i); m.has(block+"attn_k.weight") && !m.has(block+"attn_v.weight") {
			c["attention_k_eq_v"] = true
		}
	}
	inner := m.integers("feed_forward_length", m.layers)
	c["intermediate_size"], c["use_double_wide_mlp"] = inner[0], inner[m.layers-1] == 2*inner[0]
	if n := m.integer("expert_count", 0); n > 0 {
		c["enable_moe_block"], c["num_experts"] = true, n
		m.copyInteger("top_k_experts", "expert_used_count")
		m.copyInteger("moe_intermediate_size", "expert_feed_forward_length")
	}
}

// gemma3n reads Gemma 3n's residual streams and MLPs.
func gemma3n(m *model, c object) {
	m.windows(5)
	m.twoRopes(m.number("rope.freq_base_swa", 10000))
	m.copyInteger("altup_num_inputs", "altup.num_inputs")
	m.copyInteger("altup_active_idx", "altup.active_idx")
	c["intermediate_size"] = m.integers("feed_forward_length", m.layers)
	if left := m.shape("blk.0.laurel_l.weight"); len(left) == 2 {
		c["laurel_rank"] = left[0]
	}
	// The file has how many deviations above the mean activations must be.
	deviations, _ := m.get("activation_sparsity_scale").([]float64)
	dropped := make([]json.Number, len(deviations))
	for i, d := range deviations {
		dropped[i] = float(math.Erfc(-d/math.Sqrt2) / 2)
	}
	if len(dropped) > 0 {
		c["activation_sparsity_pattern"] = dropped
	}
}
