package plan

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// harmless are keys of config.json that change no number of any family: what
// transformers' PretrainedConfig writes beside the model (as of versions 4 and 5),
// defaults of generation that it kept there once, and notes of training tools. Any
// other key must be read by the family, be one of its ignored ones, or have a
// neutral value.
var harmless = setOf(
	// what the model is, and by what it was written
	"model_type", "architectures", "auto_map", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "name_or_path",
	"_commit_hash", "tokenizer_class", "transformers.js_config", "unsloth_version", "unsloth_fixed", "model_max_length",

	// how transformers runs it
	"use_cache", "cache_implementation", "torchscript", "use_bfloat16", "tf_legacy_loss", "chunk_size_feed_forward",
	"return_dict", "output_attentions", "output_hidden_states", "output_router_logits", "pruned_heads",
	"attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
	"experts_implementation", "_experts_implementation", "base_model_tp_plan", "base_model_pp_plan", "pretraining_tp", "ep_size",

	// tokens: the end of a sequence is read by readEOS
	"bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "unk_token_id", "mask_token_id",
	"decoder_start_token_id", "prefix",

	// training
	"initializer_range", "initializer_factor", "init_std", "attention_dropout", "hidden_dropout", "dropout", "embd_pdrop",
	"resid_pdrop", "attn_pdrop", "embedding_dropout", "residual_dropout", "classifier_dropout", "gradient_checkpointing",
	"router_aux_loss_coef", "router_jitter_noise", "aux_loss_alpha", "seq_aux", "neftune_noise_alpha",

	// heads that are none of a language model
	"id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "is_decoder",
	"tie_encoder_decoder",

	// generation
	"max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
	"diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
	"no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores",
	"return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
	"exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
)

// factors are keys whose neutral value is 1.
var factors = setOf(
	"attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale", "scale_emb",
	"full_attn_mod", "interpolate_factor", "layernorm_full_attention_beta", "layernorm_linear_attention_beta",
	"layernorm_mlp_beta", "rotary_pct", "partial_rotary_factor",
)

func setOf(keys ...string) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, key := range keys {
		set[key] = true
	}
	return set
}

// refuseUnread refuses every key of o, and of the objects that were read in it,
// that nobody read and that may change a number of the model.
func refuseUnread(o *object, ignored []string) {
	if !o.read[o.name("layer_types")] {
		for _, t := range o.texts("layer_types") {
			if t != fullAttention {
				o.fail("layer_types", "%q is not supported by this family", t)
			}
		}
	}
	if !o.boolean("is_causal", true) {
		o.fail("is_causal", "false is not supported: text is generated left to right")
	}
	for _, key := range slices.Sorted(maps.Keys(o.values)) {
		if !o.read[key] && !harmless[key] && !slices.Contains(ignored, key) && !neutral(o.values[key], factors[key]) {
			o.fail(short([]byte(key)), "%s is not supported by this family", short(o.values[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.nested)) {
		refuseUnread(o.nested[key], ignored)
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

// checkArchitectures refuses checkpoints whose head is not a language model's.
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
