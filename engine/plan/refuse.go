package plan

import (
	"encoding/json"
	"slices"
	"strings"
)

// numericKeys are keys of config.json that change the numbers of some
// architecture. A family reads those it implements; any other must have a
// neutral value: nothing, or 1 where the table says so.
var numericKeys = []struct {
	key string
	one bool // a factor: 1 is neutral
}{
	{key: "quantization_config"},
	{key: "compression_config"},
	{key: "per_layer_config"},
	{key: "is_encoder_decoder"},
	{key: "add_cross_attention"},
	{key: "vision_config"},
	{key: "audio_config"},

	// projections
	{key: "attention_bias"},
	{key: "attention_out_bias"},
	{key: "qkv_bias"},
	{key: "use_qkv_bias"},
	{key: "use_bias"},
	{key: "mlp_bias"},
	{key: "lm_head_bias"},

	// attention
	{key: "sliding_window"},
	{key: "attention_chunk_size"},
	{key: "attention_sink_size"},
	{key: "use_bidirectional_attention"},
	{key: "attn_logit_softcapping"},
	{key: "query_pre_attn_scalar"},
	{key: "attention_multiplier", one: true},
	{key: "attn_temperature_tuning"},
	{key: "full_attn_mod", one: true},
	{key: "clip_qkv"},
	{key: "qk_layernorm"},
	{key: "use_qk_norm"},
	{key: "alibi"},
	{key: "num_kv_shared_layers"},

	// positions
	{key: "no_rope_layers"},
	{key: "no_rope_layer_interval"},
	{key: "rope_local_base_freq"},
	{key: "rope_interleaved"},
	{key: "rope_interleave"},
	{key: "rotary_dim"},
	{key: "rotary_pct", one: true},
	{key: "partial_rotary_factor", one: true},
	{key: "mrope_section"},

	// scales
	{key: "embedding_multiplier", one: true},
	{key: "residual_multiplier", one: true},
	{key: "logits_scaling", one: true},
	{key: "logit_scale", one: true},
	{key: "scale_emb", one: true},
	{key: "scale_depth"},
	{key: "dim_model_base"},
	{key: "final_logit_softcapping"},

	// experts
	{key: "num_local_experts"},
	{key: "num_experts"},
	{key: "n_routed_experts"},
	{key: "moe_intermediate_size"},
}

// refuseUnread refuses every numeric key that no one read and that is not
// neutral.
func refuseUnread(o *object) {
	for _, k := range numericKeys {
		if !o.read[k.key] && !neutral(o.values[k.key], k.one) {
			o.fail(k.key, "%s is not supported by this family", short(o.values[k.key]))
		}
	}
	if !o.read["layer_types"] {
		for _, t := range o.texts("layer_types") {
			if t != fullAttention {
				o.fail("layer_types", "%q is not supported by this family", t)
			}
		}
	}
	if !o.boolean("is_causal", true) {
		o.fail("is_causal", "false is not supported: text is generated left to right")
	}
}

// neutral reports whether a value means "not in use", as Python's truth of it
// would, or the factor 1.
func neutral(raw json.RawMessage, one bool) bool {
	switch string(raw) {
	case "", "null", "false", `""`, "[]", "{}":
		return true
	}
	n, ok := wholeNumber(raw)
	return ok && (n == 0 || one && n == 1)
}

// checkArchitectures refuses checkpoints whose head is no language model's.
func checkArchitectures(o *object) {
	names := o.texts("architectures")
	generates := func(a string) bool {
		// A bare XxxModel is a language model saved without its head; whether
		// the embedding serves as one is for the tensors to show.
		for _, end := range []string{"ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "Model"} {
			if strings.HasSuffix(a, end) && !strings.HasSuffix(a, "RewardModel") {
				return true
			}
		}
		return false
	}
	if len(names) > 0 && !slices.ContainsFunc(names, generates) {
		o.fail("architectures", "%q does not generate text", names)
	}
}
