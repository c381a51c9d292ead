package plan

import (
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

// without lacks the named tensors and has every other.
func without(names ...string) func(string) ([]int, bool) {
	return func(name string) ([]int, bool) { return nil, !slices.Contains(names, name) }
}

// tied is a checkpoint without an output head, its decoder below prefix.
func tied(prefix string) func(string) ([]int, bool) {
	return func(name string) ([]int, bool) {
		return nil, strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, "lm_head.weight")
	}
}

// examples is a config of each family that uses all it can.
var examples = []struct {
	name   string
	family string
	more   string
	names  func(string) ([]int, bool)
}{
	{"llama", "llama", `"attention_bias":true,"mlp_bias":true`, without()},
	{"mistral", "mistral", `"sliding_window":7`, without()},
	{"qwen2", "qwen2", `"tie_word_embeddings":true,"use_sliding_window":true,"sliding_window":7,"max_window_layers":1`, tied("model.")},
	{"qwen3", "qwen3", ``, without()},
	{"gemma", "gemma", ``, tied("model.")},
	{"gemma2", "gemma2", `"sliding_window":7,"query_pre_attn_scalar":64`, tied("model.")},
	{"gemma3", "gemma3_text", `"sliding_window":7,"sliding_window_pattern":2`, tied("language_model.model.")},
	{"granite_swa", "granite_swa", `"embedding_multiplier":12,"attention_multiplier":0.5,"residual_multiplier":0.25,"logits_scaling":8,"layer_rope_theta":[0,5e5],"sliding_window":7`, tied("model.")},
	{"smollm3", "smollm3", `"no_rope_layers":[1,0],"use_sliding_window":true,"sliding_window":7,"mlp_bias":true`, tied("model.")},
	{"olmo", "olmo", `"clip_qkv":8`, without()},
	{"olmo3", "olmo3", `"attention_bias":true,"sliding_window":7,"layer_types":["sliding_attention","full_attention"]`, without()},
	{"exaone4", "exaone4", `"sliding_window":7,"sliding_window_pattern":2`, without()},
	{"cohere", "cohere", `"use_qk_norm":true`, tied("model.")},
	{"cohere2", "cohere2", `"sliding_window":7,"sliding_window_pattern":2`, tied("model.")},
	{"glm4", "glm4", ``, without()},
	{"ernie4_5", "ernie4_5", `"use_bias":true`, tied("model.")},
	{"hunyuan_v1_dense", "hunyuan_v1_dense", `"rope_scaling":{"type":"dynamic","alpha":1000,"factor":1}`, without()},
	{"apertus", "apertus", ``, without()},
	{"arcee", "arcee", `"mlp_bias":true`, without()},
	{"vaultgemma", "vaultgemma", `"sliding_window":7`, tied("model.")},
	{"ministral3", "ministral3", ``, without()},
	{"llama4", "llama4_text", `"num_local_experts":4,"interleave_moe_layer_step":2,"intermediate_size_mlp":64,"attention_chunk_size":16,"no_rope_layers":[1,0]`, without()},
	{"gemma3n", "gemma3n_text", `"altup_num_inputs":2,"laurel_rank":8,"num_kv_shared_layers":0,"activation_sparsity_pattern":[0.95,0],"hidden_size_per_layer_input":8,"vocab_size_per_layer_input":90`, tied("model.language_model.")},
	{"gemma4", "gemma4_text", `"num_hidden_layers":3,"layer_types":["sliding_attention","full_attention","full_attention"],"num_kv_shared_layers":1,"use_double_wide_mlp":true,"global_head_dim":32,"hidden_size_per_layer_input":8,"vocab_size_per_layer_input":96,"sliding_window":7`, tied("model.language_model.")},
	{"gemma4 experts", "gemma4_text", `"attention_k_eq_v":true,"num_global_key_value_heads":1,"global_head_dim":32,"hidden_size_per_layer_input":0,"enable_moe_block":true,"num_experts":4,"top_k_experts":2,"moe_intermediate_size":24`, tied("model.")},
	{"phi3", "phi3", `"partial_rotary_factor":0.5,"sliding_window":7`, without()},
	{"gpt2", "gpt2", `"num_attention_heads":3,"num_key_value_heads":null,"head_dim":null,"scale_attn_by_inverse_layer_idx":true`, tied("transformer.")},
	{"gpt_neox", "gpt_neox", `"rotary_pct":0.5,"hidden_size":64,"num_key_value_heads":null,"head_dim":null`, without()},
	{"bloom", "bloom", `"n_layer":2,"n_head":6,"head_dim":null,"num_attention_heads":6,"num_key_value_heads":null`, tied("transformer.")},
	{"mixtral", "mixtral", `"num_local_experts":3`, without()},
	{"qwen3_moe", "qwen3_moe", `"num_experts":4,"num_experts_per_tok":2,"mlp_only_layers":[0],"norm_topk_prob":true`, without()},
	{"gpt_oss", "gpt_oss", `"num_local_experts":4,"sliding_window":7`, without()},
	{"gpt_oss mxfp4", "gpt_oss", `"num_local_experts":4,"intermediate_size":64,"hidden_size":64,"quantization_config":{"quant_method":"mxfp4"}`, without()},
	{"deepseek_v3", "deepseek_v3", `"n_routed_experts":8,"num_experts_per_tok":2,"n_group":4,"topk_group":2,"first_k_dense_replace":1,"kv_lora_rank":24,"q_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":16`, without()},
	{"qwen3_5", "qwen3_5_text", `"linear_num_value_heads":4,"linear_num_key_heads":2,"linear_key_head_dim":8,"linear_value_head_dim":16,"layer_types":["linear_attention","full_attention"]`, without()},
	{"mamba2", "mamba2", `"num_attention_heads":6,"num_key_value_heads":null,"n_groups":2,"state_size":8,"expand":2`, without()},
	{"phi3 longrope", "phi3", `"rope_scaling":{"type":"longrope","short_factor":[1,1,1,1,1,1,1,1],"long_factor":[1,1,2,2,3,3,4,4]},"original_max_position_embeddings":16`, without()},
	{"qwen2_moe", "qwen2_moe", `"num_experts":4,"num_experts_per_tok":2,"mlp_only_layers":[0],"moe_intermediate_size":24,"shared_expert_intermediate_size":40`, without()},
	{"qwen3_next", "qwen3_next", `"num_experts":4,"num_experts_per_tok":2,"linear_num_value_heads":4,"linear_num_key_heads":2,"linear_key_head_dim":8,"linear_value_head_dim":16,"layer_types":["linear_attention","full_attention"]`, without()},
	{"glm4_moe", "glm4_moe", `"n_routed_experts":8,"num_experts_per_tok":2,"n_group":4,"topk_group":2,"use_qk_norm":true`, without()},
	{"deepseek_v2", "deepseek_v2", `"n_routed_experts":8,"num_experts_per_tok":2,"topk_method":"group_limited_greedy","n_group":4,"topk_group":2,"kv_lora_rank":24,"q_lora_rank":null,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":16`, without()},
	{"deepseek_v32", "deepseek_v32", `"n_routed_experts":8,"num_experts_per_tok":2,"n_group":1,"topk_group":1,"kv_lora_rank":24,"q_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":16,"mlp_layer_types":["dense","sparse"]`, without()},
	{"mistral4", "mistral4", `"n_routed_experts":8,"num_experts_per_tok":2,"kv_lora_rank":24,"q_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":16`, without()},
	{"minimax_m2", "minimax_m2", `"num_local_experts":4,"num_experts_per_tok":2,"rotary_dim":8`, without()},
	{"olmoe", "olmoe", `"num_experts":4,"num_experts_per_tok":2,"clip_qkv":3`, without()},
	{"flex_olmo", "flex_olmo", `"num_experts":4,"num_experts_per_tok":2`, without()},
	{"granitemoeshared", "granitemoeshared", `"shared_intermediate_size":24,"residual_multiplier":0.5,"logits_scaling":2`, without()},
	{"ernie4_5_moe", "ernie4_5_moe", `"moe_num_experts":8,"moe_k":2,"use_bias":true,"tie_word_embeddings":false`, without()},
	{"hunyuan_v1_moe", "hunyuan_v1_moe", `"num_experts":4,"moe_topk":[2,2],"rope_scaling":{"type":"dynamic","alpha":1000}`, without()},
	{"exaone_moe", "exaone_moe", `"num_experts":4,"num_experts_per_tok":2,"sliding_window":7,"sliding_window_pattern":2`, without()},
	{"llama dynamic", "llama", `"rope_scaling":{"type":"dynamic","factor":2.0}`, without()},
	{"opt", "opt", `"word_embed_proj_dim":24,"do_layer_norm_before":false,` + plainHeads, tied("model.decoder.")},
	{"gpt_neo", "gpt_neo", `"attention_types":[[["global","local"],1]],"window_size":7,` + plainHeads, tied("transformer.")},
	{"gptj", "gptj", `"rotary_dim":8,` + plainHeads, without()},
	{"codegen", "codegen", `"rotary_dim":8,` + plainHeads, without()},
	{"gpt_bigcode", "gpt_bigcode", `` + plainHeads, tied("transformer.")},
	{"falcon", "falcon", `"num_attention_heads":6,"num_kv_heads":2,"new_decoder_architecture":true,"num_key_value_heads":null,"head_dim":null`, tied("transformer.")},
	{"falcon alibi", "falcon", `"num_attention_heads":6,"alibi":true,"multi_query":false,"parallel_attn":false,"bias":true,"num_key_value_heads":null,"head_dim":null`, tied("transformer.")},
	{"phi", "phi", `"qk_layernorm":true`, without()},
	{"persimmon", "persimmon", `"hidden_size":64,"num_key_value_heads":null,"head_dim":null`, without()},
	{"stablelm", "stablelm", `"use_qkv_bias":true,"qk_layernorm":true,"use_parallel_residual":true,"partial_rotary_factor":0.5`, without()},
	{"starcoder2", "starcoder2", `"sliding_window":7`, tied("model.")},
	{"nanochat", "nanochat", ``, without()},
	{"mpt", "mpt", `"attn_config":{"clip_qkv":6,"qk_ln":true,"alibi_bias_max":16},` + plainHeads, tied("transformer.")},
	{"dbrx", "dbrx", `"attn_config":{"clip_qkv":8,"kv_n_heads":1},"ffn_config":{"moe_num_experts":3,"moe_top_k":2,"ffn_hidden_size":16},` + plainHeads, without()},
	{"phimoe", "phimoe", `"num_local_experts":3,"attention_bias":true,"lm_head_bias":true`, without()},
	{"nemotron", "nemotron", `"mlp_bias":true`, without()},
	{"bitnet", "bitnet", `"quantization_config":{"quant_method":"bitnet","linear_class":"autobitlinear","quantization_mode":"offline"}`, without()},
	{"lfm2", "lfm2", `"layer_types":["conv","full_attention"],"conv_bias":true,"block_multiple_of":16`, tied("model.")},
	{"lfm2_moe", "lfm2_moe", `"layer_types":["conv","full_attention"],"num_dense_layers":1,"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":24`, tied("model.")},
	{"lfm3", "lfm3", `"layer_types":["conv","sliding_attention"],"sliding_window":7`, tied("model.")},
	{"nemotron_h", "nemotron_h", `"hybrid_override_pattern":"M*E-","n_groups":2,"mamba_num_heads":4,"mamba_head_dim":8,"ssm_state_size":8,"n_routed_experts":4,"moe_intermediate_size":24,"moe_shared_expert_intermediate_size":32,"moe_latent_size":16`, without()},
	{"bamba", "bamba", `"attn_layer_indices":[1],"mamba_n_heads":12,"mamba_d_state":8,"mlp_bias":true`, without()},
	{"granitemoehybrid", "granitemoehybrid", `"layer_types":["mamba","attention"],"mamba_n_heads":12,"mamba_d_state":8,"num_local_experts":4,"residual_multiplier":0.22,"logits_scaling":8,"shared_intermediate_size":24`, without()},
	{"falcon_h1", "falcon_h1", `"mamba_d_ssm":64,"mamba_n_heads":8,"mamba_d_state":8,"mamba_rms_norm":true,"ssm_in_multiplier":1.25,"ssm_multipliers":[0.5,0.25,2,3,0.7],"mlp_multipliers":[0.8,0.5]`, without()},
	{"mamba", "mamba", `"num_key_value_heads":null,"head_dim":null,"state_size":8`, tied("backbone.")},
	{"falcon_mamba", "falcon_mamba", `"num_key_value_heads":null,"head_dim":null,"state_size":8,"tie_word_embeddings":false`, without("backbone.embeddings.weight")},
	{"jamba", "jamba", `"attn_layer_period":2,"attn_layer_offset":1,"num_experts":4,"mamba_d_state":8`, without()},
	{"kimi_linear", "kimi_linear", `"layer_types":["linear_attention","full_attention"],"linear_num_heads":3,"linear_head_dim":8,"kv_lora_rank":24,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":16,"num_experts":4,"num_experts_per_token":2,"moe_intermediate_size":24`, without()},
	{"olmo_hybrid", "olmo_hybrid", `"layer_types":["linear_attention","full_attention"],"linear_num_key_heads":3,"linear_num_value_heads":3,"linear_key_head_dim":8`, without()},
	{"zamba2", "zamba2", `"layers_block_type":["mamba","hybrid"],"n_mamba_heads":12,"num_key_value_heads":4,"mamba_d_state":8,"adapter_rank":4,"use_shared_attention_adapter":true,"use_mem_rope":true`, tied("model.")},
}

// plainHeads are heads for families that know no other width than hidden_size by
// their number.
const plainHeads = `"num_attention_heads":3,"num_key_value_heads":null,"head_dim":null`

func mustBuild(t *testing.T, c *Config, names func(string) ([]int, bool)) *Plan {
	t.Helper()
	p, err := Build(c, names)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGoldens compares each family's plan with testdata, where a change of a
// model's mathematics shows as a diff. -update rewrites the files.
func TestGoldens(t *testing.T) {
	for _, tt := range examples {
		t.Run(tt.name, func(t *testing.T) {
			got := mustBuild(t, mustParse(t, small(tt.family, tt.more)), tt.names).String()
			file := filepath.Join("testdata", tt.name+".plan")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
			for i := range max(len(gotLines), len(wantLines)) {
				g, w := "", ""
				if i < len(gotLines) {
					g = gotLines[i]
				}
				if i < len(wantLines) {
					w = wantLines[i]
				}
				if g != w {
					t.Fatalf("%s:%d:\n got %s\nwant %s", file, i+1, g, w)
				}
			}
		})
	}
}

// TestShare: after values were renamed each operation still reads what it read
// before, and the number of values does not grow with the layers.
func TestShare(t *testing.T) {
	for _, tt := range examples {
		t.Run(tt.name, func(t *testing.T) {
			p := mustBuild(t, mustParse(t, small(tt.family, tt.more)), tt.names)
			shared := Share(p)
			before, after := dataflow(p), dataflow(shared)
			if !slices.Equal(before, after) {
				t.Errorf("operation %d reads something else after sharing", firstDiff(before, after))
			}
			if n := len(shared.Values); n > 40 {
				t.Errorf("%d values, want at most 40", n)
			}
		})
	}
}

// dataflow gives for each operation a hash of all that led to its operands: a
// plan run with hashes of columns in place of numbers.
func dataflow(p *Plan) []uint64 {
	columns := make([][]uint64, len(p.Values)) // of values with memory of their own
	view := func(v int32) []uint64 {
		x := p.Values[v]
		of, column := v, int32(0)
		if x.Of != None {
			of, column = x.Of, x.Column
		}
		if columns[of] == nil {
			columns[of] = make([]uint64, p.Values[of].Width)
		}
		return columns[of][column:][:x.Width]
	}
	cache := make([]uint64, len(p.Caches))
	seen := make([]uint64, len(p.Ops))
	for i, op := range p.Ops {
		h := fnv.New64a()
		flat := op
		flat.Out, flat.In = [MaxOut]int32{}, [MaxIn]int32{}
		fmt.Fprintf(h, "%v", flat)
		for _, v := range op.In {
			if v != None {
				fmt.Fprintf(h, " %d", view(v))
			}
		}
		if op.Kind == OpAttention {
			fmt.Fprintf(h, " %d", cache[op.I[AttnCache]])
		}
		seen[i] = h.Sum64()
		if op.Kind == OpCacheWrite {
			cache[op.I[WriteCache]] = seen[i]
		}
		for k, v := range op.Out {
			if v == None {
				continue
			}
			for c, out := 0, view(v); c < len(out); c++ {
				out[c] = seen[i] + uint64(k*1000+c)
			}
		}
	}
	return seen
}

func firstDiff(a, b []uint64) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestOutputHead: which tensor the logits come from.
func TestOutputHead(t *testing.T) {
	const embedding, head = "model.embed_tokens.weight", "lm_head.weight"
	for _, tt := range []struct {
		name, more string
		names      func(string) ([]int, bool)
		embed, out string
	}{
		{"untied", `"tie_word_embeddings":false`, without(), embedding, head},
		{"tied", `"tie_word_embeddings":true`, without(head, "language_model.lm_head.weight"), embedding, embedding},
		{"said to be tied, but there", `"tie_word_embeddings":true`, without(), embedding, head},
		{"tied under the head's name", `"tie_word_embeddings":true`, without(embedding), head, head},
		{"saved without head", `"tie_word_embeddings":true`, func(name string) ([]int, bool) {
			return nil, !strings.HasPrefix(name, "model.") && !strings.Contains(name, "language_model") && name != head
		}, "embed_tokens.weight", "embed_tokens.weight"},
		{"in a multimodal model", `"tie_word_embeddings":true`, tied("model.language_model."), "model.language_model.embed_tokens.weight", "model.language_model.embed_tokens.weight"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustBuild(t, mustParse(t, small("llama", tt.more)), tt.names)
			embed, out := p.Tensors[p.Ops[0].Weight[0]].Name, p.Tensors[p.Ops[len(p.Ops)-1].Weight[0]].Name
			if embed != tt.embed || out != tt.out {
				t.Errorf("embedding %q, head %q; want %q, %q", embed, out, tt.embed, tt.out)
			}
		})
	}
	t.Run("untied without head", func(t *testing.T) {
		_, err := Build(mustParse(t, small("llama", ``)), tied("model."))
		if err == nil || !strings.Contains(err.Error(), `"lm_head.weight" is missing`) {
			t.Errorf("Build: %v, want an error about the head", err)
		}
	})
}

// fuzzSeeds are configs of branches that examples do not take.
var fuzzSeeds = [][2]string{
	{"qwen2_moe", `"num_experts":4,"use_sliding_window":true,"sliding_window":5,"max_window_layers":1,"decoder_sparse_step":2`},
	{"glm4_moe", `"n_routed_experts":8,"partial_rotary_factor":0.25,"attention_bias":true,"first_k_dense_replace":9`},
	{"glm4_moe_lite", `"n_routed_experts":8,"q_lora_rank":null,"mlp_layer_types":["sparse","dense"]`},
	{"dots1", `"n_routed_experts":8,"num_experts_per_tok":2,"n_shared_experts":1,"max_window_layers":1,"sliding_window":3`},
	{"solar_open", `"n_routed_experts":8,"first_k_dense_replace":1`},
	{"deepseek_v2", `"n_routed_experts":8,"num_experts_per_tok":2,"topk_method":"greedy","mlp_bias":true`},
	{"glm_moe_dsa", `"n_routed_experts":8,"index_topk":7,"layer_types":["indexed_attention","indexed_attention"]`},
	{"mistral4", `"n_routed_experts":8,"rope_scaling":{"type":"yarn","factor":2,"llama_4_scaling_beta":0.1,"original_max_position_embeddings":16}`},
	{"ernie4_5_moe", `"moe_num_experts":8,"moe_num_shared_experts":0,"moe_layer_end_index":0,"moe_layer_interval":2`},
	{"hunyuan_v1_moe", `"moe_intermediate_size":[80,80],"num_shared_expert":[1,1],"moe_topk":1`},
	{"exaone_moe", `"num_experts":4,"num_experts_per_tok":2,"sliding_window":null,"mlp_layer_types":["sparse","dense"]`},
	{"mixtral", `"num_local_experts":1,"num_experts_per_tok":1,"sliding_window":5`},
	{"qwen3_moe", `"num_experts":6,"num_experts_per_tok":6,"decoder_sparse_step":2,"norm_topk_prob":false,"shared_expert_intermediate_size":0`},
	{"gpt_oss", `"num_local_experts":3,"num_experts_per_tok":3,"sliding_window":null,"layer_types":["full_attention","full_attention"]`},
	{"gpt_oss", `"swiglu_limit":0.5,"attention_bias":false,"rope_scaling":{"rope_type":"yarn","factor":32,"truncate":false}`},
	{"deepseek_v3", `"q_lora_rank":null,"n_routed_experts":4,"n_group":1,"topk_group":1,"num_experts_per_tok":4,"first_k_dense_replace":0,"attention_bias":true`},
	{"deepseek_v3", `"first_k_dense_replace":9,"rope_interleave":false,"rope_scaling":{"type":"yarn","factor":40,"mscale":1.0,"mscale_all_dim":1.0}`},
	{"qwen3_5_text", `"full_attention_interval":1`},
	{"qwen3_5_text", `"full_attention_interval":7,"linear_num_value_heads":2,"linear_num_key_heads":2,"linear_key_head_dim":4,"linear_value_head_dim":4,"linear_conv_kernel_dim":2,"tie_word_embeddings":true`},
	{"mamba2", `"num_attention_heads":6,"num_key_value_heads":null,"n_groups":1,"state_size":1,"conv_kernel":2,"use_bias":true,"use_conv_bias":false,"time_step_limit":[0.1,1]`},
	{"lfm2", `"full_attn_idxs":[0],"block_auto_adjust_ff_dim":false,"block_ff_dim":24,"tie_embedding":false`},
	{"lfm3", `"use_sandwich_norm":false,"use_attention_gate":false,"rope_parameters":{"full_attention":{"rope_type":"linear","factor":2},"sliding_attention":{"rope_theta":500}}`},
	{"nemotron_h", `"layers_block_type":["moe","mlp"],"n_routed_experts":4,"n_group":2,"topk_group":1,"use_bias":true,"mlp_hidden_act":"silu"`},
	{"granitemoehybrid", `"num_local_experts":0,"position_embedding_type":"rope","mamba_n_heads":12,"mamba_d_head":"auto"`},
	{"falcon_h1", `"mamba_d_ssm":null,"mamba_n_heads":12,"mamba_rms_norm":false,"projectors_bias":true`},
	{"mamba", `"num_key_value_heads":null,"head_dim":null,"time_step_rank":"auto","expand":3,"use_bias":true,"use_conv_bias":false`},
	{"jamba", `"num_experts":1,"num_experts_per_tok":1,"mamba_dt_rank":5`},
	{"kimi_linear", `"linear_attn_config":{"full_attn_layers":[2],"kda_layers":[1],"head_dim":8,"num_heads":2,"short_conv_kernel_size":3},"q_lora_rank":16,"n_shared_experts":2`},
	{"olmo_hybrid", `"rope_parameters":{"rope_theta":null},"linear_allow_neg_eigval":false,"layer_types":["full_attention","linear_attention"]`},
	{"zamba2", `"layers_block_type":["hybrid","hybrid"],"n_mamba_heads":6,"num_mem_blocks":1,"add_bias_linear":true,"tie_word_embeddings":false`},
	{"gpt2", `"num_attention_heads":3,"num_key_value_heads":null,"head_dim":null,"n_inner":7,"activation_function":"relu","scale_attn_weights":false,"tie_word_embeddings":false`},
	{"gpt_neox", `"use_parallel_residual":false,"rotary_pct":1.0,"hidden_size":64,"num_key_value_heads":null,"head_dim":null,"attention_bias":false`},
	{"opt", `"layer_norm_elementwise_affine":false,"enable_bias":false,"_remove_final_layer_norm":true,` + plainHeads},
	{"gpt_neo", `"attention_types":[[["local"],-1],[[],9],[["global"],2]],` + plainHeads},
	{"gpt_bigcode", `"multi_query":false,"scale_attn_weights":false,` + plainHeads},
	{"falcon", `"num_attention_heads":6,"multi_query":true,"parallel_attn":false,"num_key_value_heads":null,"head_dim":null`},
	{"RefinedWeb", `"n_head_kv":1,` + plainHeads},
	{"mpt", `"attn_config":{"softmax_scale":0},` + plainHeads},
	{"dbrx", `"ffn_config":{"moe_normalize_expert_weights":null,"moe_top_k":4,"ffn_act_fn":{"name":"gelu"}},"rope_theta":2,` + plainHeads},
	{"phimoe", `"num_local_experts":2,"rope_scaling":{"type":"longrope","short_mscale":1.2,"long_mscale":1.2,"short_factor":[1,1,1,1,1,1,1,1],"long_factor":[1,1,2,2,3,3,4,4]}`},
	{"bloom", `"apply_residual_connection_post_layernorm":true,"n_head":5,"num_attention_heads":5,"num_key_value_heads":null,"head_dim":null,"hidden_size":40`},
}

// FuzzConfig: no config makes reading or building panic, and what is accepted
// is within the bounds the engine relies on and builds a valid plan, for
// checkpoints with an output head and without, in every form.
func FuzzConfig(f *testing.F) {
	for _, tt := range examples {
		f.Add(small(tt.family, tt.more))
	}
	for _, more := range fuzzSeeds {
		f.Add(small(more[0], more[1]))
	}
	for _, config := range published {
		f.Add([]byte(config))
	}
	f.Add([]byte(`{"model_type":"mistral3","text_config":{"model_type":"mistral4","num_hidden_layers":1,"hidden_size":64}}`))
	f.Add([]byte(`{"model_type":"qwen3_5_moe","text_config":{"num_hidden_layers":1,"hidden_size":64}}`))
	f.Add([]byte(`{"model_type":"gemma3","text_config":{"num_hidden_layers":1}}`))
	f.Add([]byte(`{"model_type":"gemma4"}`))
	f.Add([]byte(`{"model_type":"gpt_neo","num_layers":0}`))
	f.Add(small("llama", `"rope_scaling":{"rope_type":"yarn","factor":4,"beta_fast":1e-9,"beta_slow":1e9}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		c, err := ParseConfig(config, nil)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
			return
		}
		if c.Layers > 64 || c.HeadDim > 1<<12 {
			return // right, and slow
		}
		for _, names := range [][]string{nil, {"lm_head.weight", "language_model.lm_head.weight", "embed_out.weight"}} {
			if names != nil && !c.Tied {
				continue // refused: the head is missing
			}
			p, err := Build(c, without(names...))
			if err != nil {
				t.Fatalf("accepted, then: %v", err)
			}
			lowered := Lower(p)
			for form, q := range map[string]*Plan{"built": p, "shared": Share(p), "lowered": lowered, "lowered and shared": Share(lowered)} {
				if err := Check(q); err != nil {
					t.Fatalf("accepted, then, %s: %v", form, err)
				}
			}
			for _, table := range p.Tables {
				for _, freq := range table {
					if freq != freq || freq < 0 && c.Family != "nanochat" { // which rotates the other way round
						t.Fatalf("frequency %g", freq)
					}
				}
			}
		}
		if HasTower(c.Family) {
			tower, err := BuildTower(config, c, without())
			if err == nil && len(tower.Ops) < 1<<12 {
				err = Check(tower.Plan)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
		}
		if c.HeadDim%8 != 0 || c.Heads%c.KVHeads != 0 || len(c.Windows) != c.Layers {
			t.Fatalf("%+v", c)
		}
	})
}
