package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// sizes are the keys that make a family's config small.
const sizes = `"vocab_size":96,"hidden_size":48,"intermediate_size":80,"num_hidden_layers":2,` +
	`"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"max_position_embeddings":64`

// small returns a small config of a family with more keys, which come later
// and therefore win.
func small(family, more string) []byte {
	if more != "" {
		more = "," + more
	}
	return fmt.Appendf(nil, `{"model_type":%q,%s%s}`, family, sizes, more)
}

func mustParse(t *testing.T, config []byte) *Config {
	t.Helper()
	c, err := ParseConfig(config, nil)
	if err != nil {
		t.Fatalf("%s: %v", config, err)
	}
	return c
}

// TestBothSpellings: what transformers 4 and 5 write for the same model reads
// as the same.
func TestBothSpellings(t *testing.T) {
	for _, tt := range []struct{ family, v4, v5 string }{
		{"llama",
			`"rope_theta":5e5,"rope_scaling":{"type":"linear","factor":2.0},"torch_dtype":"bfloat16"`,
			`"rope_parameters":{"rope_type":"linear","rope_theta":500000,"factor":2.0},"dtype":"bfloat16"`},
		{"llama",
			`"rope_theta":5e5,"rope_scaling":null`,
			`"rope_parameters":{"rope_type":"default","rope_theta":500000.0}`},
		{"qwen2",
			`"rope_theta":1e6,"use_sliding_window":true,"sliding_window":8,"max_window_layers":1`,
			`"rope_parameters":{"rope_type":"default","rope_theta":1e6},"use_sliding_window":true,"sliding_window":8,"layer_types":["full_attention","sliding_attention"]`},
		{"gemma2",
			`"rope_theta":10000.0,"hidden_act":"gelu_pytorch_tanh","cache_implementation":"hybrid","sliding_window":8`,
			`"rope_parameters":{"rope_type":"default","rope_theta":10000.0},"sliding_window":8,"layer_types":["sliding_attention","full_attention"]`},
		{"gemma3_text",
			`"rope_theta":1e6,"rope_local_base_freq":5e3,"rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window_pattern":2,"sliding_window":8`,
			`"rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1e6},"sliding_attention":{"rope_type":"default","rope_theta":5e3}},"layer_types":["sliding_attention","full_attention"],"sliding_window":8`},
		{"phi3",
			`"rope_theta":10000.0,"rope_scaling":null,"partial_rotary_factor":0.5`,
			`"rope_parameters":{"rope_type":"default","rope_theta":10000.0,"partial_rotary_factor":0.5}`},
	} {
		v4, v5 := mustParse(t, small(tt.family, tt.v4)), mustParse(t, small(tt.family, tt.v5))
		if !reflect.DeepEqual(v4, v5) {
			t.Errorf("%s:\n4 reads as %+v\n5 reads as %+v", tt.family, v4, v5)
		}
	}
}

func TestParseConfigDefaults(t *testing.T) {
	t.Run("llama leaves out what it may", func(t *testing.T) {
		c := mustParse(t, []byte(`{"model_type":"llama","hidden_size":64,"num_attention_heads":4,"intermediate_size":80,"num_hidden_layers":1,"vocab_size":9}`))
		if c.KVHeads != 4 || c.HeadDim != 16 || c.MaxPos != 2048 || c.Tied || c.NormEps != 1e-6 || !slices.Equal(c.EOS, []int32{2}) {
			t.Errorf("%+v", c)
		}
	})
	t.Run("null heads are all heads even where the class says 8", func(t *testing.T) {
		if c := mustParse(t, small("mistral", `"num_key_value_heads":null`)); c.KVHeads != 4 {
			t.Errorf("KVHeads = %d, want 4", c.KVHeads)
		}
	})
	t.Run("numbers with a point are whole", func(t *testing.T) {
		if c := mustParse(t, small("llama", `"hidden_size":48.0,"max_position_embeddings":1.28e2`)); c.Hidden != 48 || c.MaxPos != 128 {
			t.Errorf("Hidden %d, MaxPos %d", c.Hidden, c.MaxPos)
		}
	})
	t.Run("the text part of a published gemma3", func(t *testing.T) {
		c := mustParse(t, []byte(`{"model_type":"gemma3","architectures":["Gemma3ForConditionalGeneration"],"eos_token_id":[1,106],
			"mm_tokens_per_image":256,"vision_config":{"hidden_size":1152},
			"text_config":{"hidden_size":2560,"intermediate_size":10240,"model_type":"gemma3_text","num_hidden_layers":34,
			"rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024}}`))
		if c.Heads != 8 || c.KVHeads != 4 || c.HeadDim != 256 || c.Vocab != 262208 || !c.Tied || !slices.Equal(c.EOS, []int32{1, 106}) {
			t.Errorf("%+v", c)
		}
		if c.Windows[4] != 1024 || c.Windows[5] != 0 || c.Rope.Freqs[0] != 0.125 || c.Ropes[4].Freqs[0] != 1 {
			t.Errorf("windows %v, frequencies %g and %g", c.Windows, c.Rope.Freqs[0], c.Ropes[4].Freqs[0])
		}
	})
	t.Run("the first gemma's gelu is the tanh one", func(t *testing.T) {
		if c := mustParse(t, small("gemma", `"hidden_act":"gelu","hidden_activation":null`)); c.Activation != ActGeluTanh {
			t.Errorf("Activation = %v", c.Activation)
		}
	})
	t.Run("neutral values of keys that are not supported", func(t *testing.T) {
		mustParse(t, small("llama", `"sliding_window":null,"num_experts":0,"logits_scaling":1.0,"quantization_config":null,`+
			`"layer_types":["full_attention","full_attention"],"no_rope_layers":[],"use_qk_norm":false,"partial_rotary_factor":1.0`))
	})
}

func TestWindows(t *testing.T) {
	for _, tt := range []struct {
		name, family, more string
		want               []int
	}{
		{"mistral by default", "mistral", ``, []int{4096, 4096}},
		{"mistral without", "mistral", `"sliding_window":null`, []int{0, 0}},
		{"mistral with agreeing layer_types", "mistral", `"sliding_window":7,"layer_types":["sliding_attention","sliding_attention"]`, []int{7, 7}},
		{"qwen2 turned off", "qwen2", `"sliding_window":7,"max_window_layers":0`, []int{0, 0}},
		{"qwen2 from a layer on", "qwen2", `"use_sliding_window":true,"sliding_window":7,"max_window_layers":1`, []int{0, 7}},
		{"qwen3 by layer_types", "qwen3", `"use_sliding_window":true,"sliding_window":7,"layer_types":["sliding_attention","full_attention"]`, []int{7, 0}},
		{"gemma2 alternates", "gemma2", `"sliding_window":7`, []int{7, 0}},
		{"gemma3 by pattern", "gemma3_text", `"sliding_window":7,"sliding_window_pattern":2`, []int{7, 0}},
		{"phi3 by default", "phi3", ``, []int{0, 0}},
		{"phi3 with", "phi3", `"sliding_window":2047`, []int{2047, 2047}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c := mustParse(t, small(tt.family, tt.more)); !slices.Equal(c.Windows, tt.want) {
				t.Errorf("Windows = %v, want %v", c.Windows, tt.want)
			}
		})
	}
}

func TestEOS(t *testing.T) {
	for _, tt := range []struct {
		name, config, generation string
		want                     []int32
	}{
		{"a number", `"eos_token_id":7`, ``, []int32{7}},
		{"a list", `"eos_token_id":[7,9]`, ``, []int32{7, 9}},
		{"generation_config wins", `"eos_token_id":7`, `{"eos_token_id":[8,9]}`, []int32{8, 9}},
		{"generation_config without any", `"eos_token_id":7`, `{"temperature":0.7}`, []int32{7}},
		{"none at all is the family's", ``, ``, []int32{2}},
		{"null is none", `"eos_token_id":null`, ``, nil},
		{"outside the vocabulary", `"eos_token_id":[-1,95,96]`, ``, []int32{95}},
		{"named twice", `"eos_token_id":[3,3]`, ``, []int32{3}},
		{"whole floats", `"eos_token_id":3.0`, ``, []int32{3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var generation []byte
			if tt.generation != "" {
				generation = []byte(tt.generation)
			}
			c, err := ParseConfig(small("llama", tt.config), generation)
			if err != nil || !slices.Equal(c.EOS, tt.want) {
				t.Errorf("EOS = %v, %v; want %v", c.EOS, err, tt.want)
			}
		})
	}
	for _, bad := range []string{`{"eos_token_id":"</s>"}`, `{"eos_token_id":[1,null]}`, `[]`, `{`} {
		if _, err := ParseConfig(small("llama", ``), []byte(bad)); err == nil || !strings.Contains(err.Error(), "generation_config.json") {
			t.Errorf("generation_config.json %s: %v, want an error that names it", bad, err)
		}
	}
}

// TestOneModelUnderTwoNames: configs of the same model in other words.
func TestOneModelUnderTwoNames(t *testing.T) {
	const latent = `"n_routed_experts":8,"num_experts_per_tok":2,"n_group":1,"topk_group":1,"kv_lora_rank":24,"q_lora_rank":16,` +
		`"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":16`
	for _, tt := range []struct{ name, config, want string }{
		{"Kimi K2", string(small("kimi_k2", latent)), string(small("deepseek_v3", latent))},
		{"Mistral Small 4", `{"model_type":"mistral3","text_config":` + string(small("mistral4", latent)) + `,"tie_word_embeddings":false}`, string(small("mistral4", latent))},
		{"an indexer that picks everything", string(small("deepseek_v32", latent+`,"index_topk":64`)), string(small("deepseek_v3", latent))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, want := mustBuild(t, mustParse(t, []byte(tt.config)), without()), mustBuild(t, mustParse(t, []byte(tt.want)), without())
			_, gotOps, _ := strings.Cut(got.String(), "\n")
			_, wantOps, _ := strings.Cut(want.String(), "\n")
			if gotOps != wantOps || got.MaxPos != want.MaxPos {
				t.Errorf("%d positions:\n%s\nwant %d:\n%s", got.MaxPos, got, want.MaxPos, want)
			}
		})
	}
	t.Run("longer than what an indexer picks", func(t *testing.T) {
		if c := mustParse(t, small("glm_moe_dsa", latent+`,"index_topk":9`)); c.MaxPos != 9 {
			t.Errorf("MaxPos = %d, want 9", c.MaxPos)
		}
	})
}

func TestConfigRefusals(t *testing.T) {
	for _, tt := range []struct {
		family, more string
		want         string // after "config.json: "
	}{
		// families
		{"", ``, `model_type is missing`},
		{"kimi_k25", ``, `model_type "kimi_k25" is not supported: its checkpoints wrap Kimi K2`},
		{"glm4_moe", `"n_routed_experts":8,"n_group":3`, `n_group 3 does not divide 8 experts`},
		{"glm4_moe", `"n_routed_experts":8,"n_group":4,"topk_group":1,"num_experts_per_tok":3`, `topk_group 1 of 4 groups of 2 experts cannot give 3`},
		{"glm4_moe_lite", `"n_routed_experts":8,"mlp_layer_types":["dense"]`, `mlp_layer_types has 1 entries, expected num_hidden_layers 2`},
		{"deepseek_v2", `"num_experts_per_tok":2,"topk_method":"noaux_tc"`, `topk_method "noaux_tc" is not supported`},
		{"deepseek_v2", `"num_experts_per_tok":2,"norm_topk_prob":true`, `norm_topk_prob true is not supported`},
		{"deepseek_v32", `"q_lora_rank":null`, `q_lora_rank must be a number`},
		{"dots1", ``, `n_routed_experts must be 1 to 4096, found 0`},
		{"minimax_m2", `"use_qk_norm":false`, `use_qk_norm false is not supported`},
		{"minimax_m2", `"layernorm_mlp_beta":2`, `layernorm_mlp_beta 2 is not supported`},
		{"minimax_m2", `"attn_type_list":[1,0]`, `attn_type_list must be 1`},
		{"mistral4", `"rope_parameters":{"rope_type":"yarn","factor":2,"partial_rotary_factor":0.1}`, `rope_parameters.partial_rotary_factor 0.1 of a head`},
		{"ernie4_5_moe", `"moe_norm_min":0.5`, `moe_norm_min 0.5 is not supported`},
		{"hunyuan_v1_moe", `"num_experts":4,"moe_topk":[1,2]`, `moe_topk must be the same for all layers`},
		{"hunyuan_v1_moe", `"num_experts":4,"moe_intermediate_size":[64,64]`, `moe_intermediate_size 64 is not supported`},
		{"qwen2_moe", `"num_experts":3,"num_experts_per_tok":4`, `num_experts_per_tok is 4, of 3 experts`},
		{"rwkv", ``, `model_type "rwkv" is not supported, only `},
		{"llama", `"architectures":["LlamaForSequenceClassification"]`, `architectures ["LlamaForSequenceClassification"] does not generate text`},
		{"gemma3", `"text_config":{"model_type":"gemma3n_text"}`, `text_config.model_type "gemma3n_text" is not supported`},

		// rope
		{"llama", `"rope_scaling":{"type":"dynamic","factor":0.5}`, `rope_scaling.factor must be at least 1, found 0.5`},
		{"llama", `"rope_scaling":{"type":"ntk"}`, `rope_scaling.rope_type "ntk" is not supported`},
		{"llama", `"rope_parameters":{"rope_type":"longrope","short_factor":[1]}`, `rope_parameters.short_factor must have a number for each of 8 frequencies, found 1`},
		{"llama", `"rope_scaling":{"rope_type":"default","mrope_section":[2,3,3]}`, `rope_scaling.mrope_section is not supported`},
		{"llama", `"rope_scaling":{"rope_type":"linear"}`, `rope_scaling.factor must be a positive number, found 0`},
		{"llama", `"rope_scaling":{"rope_type":"linear","factor":-2}`, `rope_scaling.factor must be a positive number, found -2`},
		{"llama", `"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":5,"high_freq_factor":4}`, `rope_scaling.high_freq_factor must not be below low_freq_factor`},
		{"llama", `"rope_scaling":{"rope_type":"yarn","factor":4,"original_max_position_embeddings":0}`, `rope_scaling.original_max_position_embeddings must be 1 to`},
		{"llama", `"rope_scaling":"linear"`, `rope_scaling must be an object, found "linear"`},
		{"llama", `"rope_theta":0`, `rope_parameters.rope_theta must be above 1, found 0`},
		{"llama", `"rope_theta":1e999`, `rope_theta must be a finite number, found 1e999`},
		{"llama", `"partial_rotary_factor":0.5`, `partial_rotary_factor 0.5 is not supported by this family`},
		{"qwen2", `"rope_parameters":{"full_attention":{"rope_theta":1e4}}`, `rope_parameters.full_attention is not supported by this family`},
		{"phi3", `"rope_scaling":{"type":"su","short_factor":[1,1,1,1,1,1,1,1],"long_factor":[1,1,1,1,1,1,1,0]}`, `rope_scaling.long_factor must be positive numbers, found 0`},
		{"phi3", `"rope_scaling":{"type":"linear","factor":2}`, `rope_scaling.rope_type "linear" is not supported by this family`},
		{"phi3", `"partial_rotary_factor":0.35`, `partial_rotary_factor 0.35 of head_dim 16 must be an even number`}, // 5.6, cut to 5
		{"phi3", `"partial_rotary_factor":1.5`, `partial_rotary_factor 1.5 of head_dim 16 must be an even number`},
		{"gemma3_text", `"rope_parameters":{"rope_theta":1e6}`, `rope_parameters.full_attention and sliding_attention are missing`},

		// keys that change numbers
		{"llama", `"quantization_config":{"quant_method":"aqlm"}`, `quantization_config.quant_method "aqlm" is not supported, only awq, `},
		{"llama", `"quantization_config":{"quant_method":"mxfp4"}`, `quantization_config.quant_method "mxfp4" is not supported by this family`},
		{"llama", `"quantization_config":{"quant_method":"awq","version":"gemv"}`, `quantization_config.version "gemv" is not supported, only gemm`},
		{"llama", `"quantization_config":{"quant_method":"gptq","bits":3}`, `quantization_config.bits 3 is not supported, only [4 8]`},
		{"llama", `"quantization_config":{"quant_method":"fp8","fmt":"e5m2"}`, `quantization_config.fmt "e5m2" is not supported`},
		{"llama", `"quantization_config":{"quant_method":"modelopt","quant_algo":"W4A8_AWQ"}`, `quantization_config.quant_algo "W4A8_AWQ" is not supported`},
		{"llama", `"quantization_config":{"quant_method":"compressed-tensors","format":"marlin-24"}`, `quantization_config.format "marlin-24" is not supported`},
		{"llama", `"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"group_0":{"weights":{"num_bits":2}}}}`,
			`quantization_config.config_groups.group_0.weights.num_bits 2 is not supported`},
		{"llama", `"quantization_config":{"quant_method":"compressed-tensors","transform_config":{"config_groups":{"u":{}}}}`, `transform_config {"config_groups":`},
		{"llama", `"hidden_act":"mish"`, `hidden_act "mish" is not supported`},
		{"gemma2", `"hidden_activation":"mish"`, `hidden_activation "mish" is not supported`},
		{"gemma", `"hidden_act":"silu","hidden_activation":"gelu_pytorch_tanh"`, `hidden_activation and hidden_act contradict`},
		{"llama", `"sliding_window":4096`, `sliding_window 4096 is not supported`},
		{"llama", `"num_local_experts":8`, `num_local_experts 8 is not supported`},
		{"llama", `"attention_multiplier":0.5`, `attention_multiplier 0.5 is not supported`},
		{"llama", `"logits_scaling":8.0`, `logits_scaling 8.0 is not supported`},
		{"llama", `"residual_multiplier":0.22`, `residual_multiplier 0.22 is not supported`},
		{"llama", `"clip_qkv":8`, `clip_qkv 8 is not supported`},
		{"granite", `"logits_scaling":0`, `logits_scaling must not be 0`},
		{"granite_swa", `"layer_rope_theta":[0]`, `layer_rope_theta has 1 entries, expected num_hidden_layers 2`},
		{"granite_swa", `"layer_rope_theta":[0,0.5]`, `layer_rope_theta must be 0 or above 1, found 0.5`},
		{"smollm3", `"no_rope_layers":[1]`, `no_rope_layers has 1 entries, expected num_hidden_layers 2`},
		{"exaone4", `"sliding_window_pattern":"LLLG"`, `sliding_window_pattern must be a whole number`},
		{"cohere2", `"position_embedding_type":"alibi"`, `position_embedding_type "alibi" is not supported by this family, only rope_gptj`},
		{"helium", ``, `head_dim 16 times num_attention_heads 4 must be hidden_size 48`},
		{"hunyuan_v1_dense", `"use_qk_norm":false`, `use_qk_norm false is not supported`},
		{"hunyuan_v1_dense", `"rope_scaling":{"type":"dynamic","alpha":-1}`, `rope_scaling.alpha must be`},
		{"mistral3", `"text_config":{"model_type":"llama"}`, `text_config.model_type "llama" is not supported, only ministral3, mistral`},
		{"llama4_text", `"layer_types":["chunked_attention"]`, `layer_types has 1 entries, expected num_hidden_layers 2`},
		{"llama4_text", `"layer_types":["chunked_attention","sliding_attention"]`, `layer_types "sliding_attention" is not supported`},
		{"llama4_text", `"attention_chunk_size":null,"layer_types":["chunked_attention","full_attention"]`, `but there is no attention_chunk_size`},
		{"llama4_text", `"num_experts_per_tok":99`, `num_experts_per_tok is 99, of 16 experts`},
		{"gemma3n_text", `"altup_active_idx":4`, `altup_active_idx must be 0 to less than altup_num_inputs 4`},
		{"gemma3n_text", `"intermediate_size":[8]`, `intermediate_size has 1 entries, expected num_hidden_layers 2`},
		{"gemma3n_text", `"activation_sparsity_pattern":[0.5,1]`, `activation_sparsity_pattern must be 0 to less than 1, found 1`},
		{"gemma3n_text", ``, `num_kv_shared_layers must be 0 to less than num_hidden_layers 2, found 15`},
		{"gemma4_text", `"num_kv_shared_layers":1`, `num_kv_shared_layers 1 leaves layers of a type without one before them`},
		{"gemma4_text", `"global_head_dim":12`, `global_head_dim must be a multiple of 8`},
		{"gemma4_text", `"attention_k_eq_v":true,"num_global_key_value_heads":3`, `num_global_key_value_heads 3 must divide num_attention_heads 4`},
		{"gemma4_text", `"per_layer_config":{"1":{"head_dim":32,"intermediate_size":8}}`, `per_layer_config.1.intermediate_size 8 is not supported`},
		{"gemma4_text", `"per_layer_config":{"0":{"head_dim":32}}`, `per_layer_config.0 is not supported: all layers of a type must have the same heads`},
		{"gemma4_text", `"use_bidirectional_attention":"all"`, `use_bidirectional_attention "all" is not supported`},
		{"gemma4_text", `"enable_moe_block":true`, `num_experts must be 1 to 4096, found 0`},
		{"gemma4_text", `"hidden_size_per_layer_input":99999999`, `hidden_size_per_layer_input must be 0 to`},
		{"gemma4_text", `"rope_parameters":{"full_attention":{"rope_type":"proportional","partial_rotary_factor":2}}`, `partial_rotary_factor must be 0 to 1`},
		{"llama", `"no_rope_layers":[1,0]`, `no_rope_layers [1,0] is not supported`},
		{"llama", `"use_qk_norm":true`, `use_qk_norm true is not supported`},
		{"llama", `"vision_config":{"hidden_size":8}`, `vision_config {"hidden_size":8} is not supported`},
		{"llama", `"layer_types":["full_attention","sliding_attention"]`, `layer_types "sliding_attention" is not supported`},
		{"llama", `"final_logit_softcapping":30.0`, `final_logit_softcapping 30.0 is not supported`},
		{"llama", `"is_causal":false`, `is_causal false is not supported`},
		{"mistral", `"attention_bias":true`, `attention_bias true is not supported`},
		{"mistral", `"layer_types":["full_attention","sliding_attention"]`, `layer_types "full_attention" for layer 0 is not supported`},
		{"gemma", `"use_bidirectional_attention":true`, `use_bidirectional_attention true is not supported`},
		{"gemma3_text", `"attn_logit_softcapping":50.0`, `attn_logit_softcapping 50.0 is not supported`},
		{"gemma3_text", `"layer_types":["full_attention","chunked_attention"]`, `layer_types "chunked_attention" is not supported`},
		{"gemma3", `"text_config":{"final_logit_softcapping":30.0}`, `text_config.final_logit_softcapping is not supported`},
		{"gemma3", `"text_config":{"query_pre_attn_scalar":0}`, `text_config.query_pre_attn_scalar must be positive`},

		// keys that nobody read
		{"llama", `"some_new_scale":1`, `some_new_scale 1 is not supported by this family`},
		{"llama", `"text_config":{"hidden_size":8}`, `text_config {"hidden_size":8} is not supported by this family`},
		{"llama", `"rope_scaling":{"rope_type":"linear","factor":2,"beta_fast":32}`, `rope_scaling.beta_fast 32 is not supported by this family`},
		{"gemma3_text", `"rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"some":1}}`, `rope_parameters.full_attention.some 1 is not supported`},

		// experts, latents and states
		{"mixtral", `"num_experts_per_tok":9`, `num_experts_per_tok is 9, of 8 experts`},
		{"mixtral", `"num_local_experts":4096,"num_hidden_layers":64`, `num_local_experts 4096 times num_hidden_layers 64 exceeds 131072`},
		{"mixtral", `"num_local_experts":0`, `num_local_experts must be 1 to 4096, found 0`},
		{"mixtral", `"num_local_experts":100000`, `num_local_experts must be 1 to 4096, found 100000`},
		{"qwen3_moe", `"moe_intermediate_size":-8`, `moe_intermediate_size must be 1 to 16777216, found -8`},
		{"qwen3_moe", `"mlp_only_layers":[0.5]`, `mlp_only_layers must be a list of whole numbers, found [0.5]`},
		{"gpt_oss", `"quantization_config":{"quant_method":"awq"}`, `quantization_config.quant_method "awq" is not supported by this family, only mxfp4`},
		{"gpt_oss", `"swiglu_limit":0`, `swiglu_limit must be positive, found 0`},
		{"deepseek_v3", `"n_group":7`, `n_group 7 does not divide 256 experts into groups of at least 2`},
		{"deepseek_v3", `"n_group":8,"topk_group":9`, `topk_group 9 of 8 groups of 32 experts cannot give 8 experts per token`},
		{"deepseek_v3", `"n_group":128,"topk_group":2`, `topk_group 2 of 128 groups of 2 experts cannot give 8 experts per token`},
		{"deepseek_v3", `"scoring_func":"softmax"`, `scoring_func "softmax" is not supported by this family`},
		{"deepseek_v3", `"kv_lora_rank":0`, `kv_lora_rank must be 1 to 16777216, found 0`},
		{"qwen3_5_text", `"linear_num_value_heads":5,"linear_num_key_heads":2`, `linear_num_value_heads 5 is not a multiple of linear_num_key_heads 2`},
		{"qwen3_5_text", `"linear_conv_kernel_dim":1`, `linear_conv_kernel_dim must be at least 2, found 1`},
		{"qwen3_5_text", `"linear_conv_kernel_dim":65`, `linear_conv_kernel_dim must be 1 to 64, found 65`},
		{"qwen3_5_text", `"layer_types":["full_attention","mamba"]`, `layer_types "mamba" is not supported by this family`},
		{"mamba2", `"expand":3`, `expand times hidden_size is 144, but num_heads times head_dim is 64`},
		{"mamba2", `"hidden_size":32,"n_groups":3`, `n_groups 3 does not divide num_heads 4`},
		{"mamba2", `"hidden_size":32,"n_groups":2,"time_step_limit":[1,0.5]`, `time_step_limit must be two numbers, 0 or more and in order, found [1,0.5]`},
		{"lfm2", `"conv_L_cache":1`, `conv_L_cache must be at least 2, found 1`},
		{"lfm2", `"layer_types":["conv","mamba"]`, `layer_types "mamba" is not supported by this family, only conv, full_attention`},
		{"lfm2", `"block_ffn_dim_multiplier":-1`, `intermediate_size becomes 0 by block_ffn_dim_multiplier and block_multiple_of`},
		{"lfm2_moe", ``, `layer_types is missing`},
		{"lfm3", `"layer_types":["sliding_attention","conv"],"sliding_window":null`, `layer_types has "sliding_attention" for layer 0, but there is no sliding_window`},
		{"nemotron_h", `"hybrid_override_pattern":"MX"`, `hybrid_override_pattern has 'X', expected M, E, * and - alone`},
		{"nemotron_h", `"attention_bias":true`, `attention_bias true is not supported by this family`},
		{"nemotron_h", `"time_step_limit":[0,0.5]`, `time_step_limit is not supported by this family, only 0 to infinity`},
		{"nemotron_h", `"n_group":3`, `n_group 3 does not divide 8 experts into groups of at least 2`},
		{"bamba", `"mamba_n_heads":10`, `mamba_expand times hidden_size is 96, but mamba_n_heads times mamba_d_head is 90`},
		{"bamba", `"mamba_n_heads":12,"mamba_n_groups":5`, `mamba_n_groups 5 does not divide mamba_n_heads 12`},
		{"granitemoehybrid", `"mamba_n_heads":12,"logits_scaling":0`, `logits_scaling must be positive, found 0`},
		{"granitemoehybrid", `"mamba_n_heads":12,"layer_types":["mamba"]`, `layer_types has 1 entries, expected num_hidden_layers 2`},
		{"falcon_h1", `"mamba_d_ssm":64,"mamba_n_heads":8,"ssm_multipliers":[1,2]`, `ssm_multipliers must have 5 numbers, found 2`},
		{"falcon_h1", `"mamba_d_ssm":64,"mamba_n_heads":8,"hidden_act":"gelu"`, `hidden_act must be silu in this family`},
		{"mamba", `"num_key_value_heads":null,"head_dim":null,"expand":16777216`, `expand times hidden_size is 805306368, which exceeds 16777216`},
		{"falcon_mamba", `"num_key_value_heads":null,"head_dim":null,"mixer_rms_eps":2`, `mixer_rms_eps must be 0 to 1, found 2`},
		{"jamba", `"attn_layer_offset":8`, `attn_layer_offset must be 0 or more and below attn_layer_period 8, found 8`},
		{"kimi_linear", `"linear_attn_config":{"full_attn_layers":[1],"kda_layers":[]}`, `kda_layers and full_attn_layers say nothing of layer 2`},
		{"kimi_linear", `"mla_use_nope":false`, `mla_use_nope false is not supported by this family`},
		{"olmo_hybrid", `"linear_num_value_heads":3`, `linear_num_value_heads 3 is not supported by this family beside linear_num_key_heads 4`},
		{"zamba2", `"n_mamba_heads":12,"layers_block_type":["mamba","moe"]`, `layers_block_type "moe" is not supported by this family`},
		{"zamba2", `"n_mamba_heads":12,"layers_block_type":["mamba","hybrid"],"use_shared_attention_adapter":true`, `num_key_value_heads 2 is not supported beside use_shared_attention_adapter, only num_attention_heads 4`},
		{"zamba2", `"n_mamba_heads":12,"layers_block_type":["mamba","hybrid"],"use_long_context":true`, `use_long_context true is not supported by this family`},

		// values
		{"llama", `"hidden_size":"48"`, `hidden_size must be a whole number, found "48"`},
		{"llama", `"hidden_size":48.5`, `hidden_size must be a whole number, found 48.5`},
		{"llama", `"hidden_size":-48`, `hidden_size must be 1 to 16777216, found -48`},
		{"llama", `"hidden_size":0`, `hidden_size must be 1 to 16777216, found 0`},
		{"llama", `"hidden_size":1e300`, `hidden_size must be a whole number, found 1e300`},
		{"llama", `"vocab_size":99999999999`, `vocab_size must be 1 to 16777216, found 99999999999`},
		{"llama", `"num_hidden_layers":1000000`, `num_hidden_layers must be 1 to 4096, found 1000000`},
		{"llama", `"num_hidden_layers":-1`, `num_hidden_layers must be 1 to 4096, found -1`},
		{"llama", `"num_attention_heads":16777216`, `num_attention_heads must be 1 to 4096, found 16777216`},
		{"llama", `"num_attention_heads":4096,"num_hidden_layers":64`, `num_attention_heads 4096 times num_hidden_layers 64 exceeds 131072`},
		{"llama", `"head_dim":4194304,"num_attention_heads":8`, `head_dim 4194304 times num_attention_heads 8 exceeds`},
		{"llama", `"num_key_value_heads":3`, `num_attention_heads 4 is not a multiple of num_key_value_heads 3`},
		{"llama", `"num_key_value_heads":0`, `num_key_value_heads must be 1 to 4096, found 0`},
		{"llama", `"head_dim":12`, `head_dim must be a multiple of 8, found 12`},
		{"llama", `"head_dim":null,"hidden_size":50`, `hidden_size 50 is not a multiple of num_attention_heads 4, and head_dim is not given`},
		{"llama", `"rms_norm_eps":-1`, `rms_norm_eps must be 0 to 1, found -1`},
		{"llama", `"rms_norm_eps":true`, `rms_norm_eps must be a finite number, found true`},
		{"llama", `"tie_word_embeddings":1`, `tie_word_embeddings must be true or false, found 1`},
		{"llama", `"eos_token_id":"</s>"`, `eos_token_id must be a token id or a list of them, found "</s>"`},
		{"mistral", `"sliding_window":0`, `sliding_window must be 1 to 2147483647, found 0`},
		{"gemma2", `"layer_types":["full_attention"]`, `layer_types has 1 entries, expected num_hidden_layers 2`},
		{"gemma2", `"sliding_window":null`, `layer_types has "sliding_attention" for layer 0, but there is no sliding_window`},
		{"gemma2", `"attn_logit_softcapping":-1.0`, `attn_logit_softcapping must be positive or null, found -1`},
	} {
		t.Run(tt.family+" "+tt.more, func(t *testing.T) {
			c, err := ParseConfig(small(tt.family, tt.more), nil)
			if err == nil {
				t.Fatalf("accepted as %+v, want an error with %q", c, tt.want)
			}
			if !strings.HasPrefix(err.Error(), "config.json: ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line \"config.json: …\" with %q", err, tt.want)
			}
		})
	}
	for _, text := range []string{``, `null`, `[]`, `{"model_type":`, `{"model_type":7}`, `{"rms_norm_eps":NaN}`} {
		if _, err := ParseConfig([]byte(text), nil); err == nil || !strings.HasPrefix(err.Error(), "config.json: ") {
			t.Errorf("%q: %v, want an error that names config.json", text, err)
		}
	}
}
