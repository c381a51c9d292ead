package gguf

import "fmt"

// mixtures are further architectures with experts.
var mixtures = map[string]*architecture{
	"gpt-oss": family("gpt_oss", named(map[string]string{
		"post_attention_norm": "post_attention_layernorm", "attn_sinks": "self_attn.sinks", "attn_sinks.weight": "self_attn.sinks",
		"ffn_gate_inp":         "mlp.router",
		"ffn_gate_exps.weight": "mlp.experts.%d.gate_proj.weight", "ffn_up_exps.weight": "mlp.experts.%d.up_proj.weight", "ffn_down_exps.weight": "mlp.experts.%d.down_proj.weight",
		"ffn_gate_exps.bias": "mlp.experts.gate_proj_bias", "ffn_up_exps.bias": "mlp.experts.up_proj_bias", "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
	}), reads(func(m *model, c object) {
		m.copyInteger("num_local_experts", "expert_count")
		m.copyInteger("num_experts_per_tok", "expert_used_count")
		m.copyInteger("intermediate_size", "expert_feed_forward_length")
		m.copyInteger("sliding_window", "attention.sliding_window")
		c["attention_bias"] = m.has("blk.0.attn_q.bias")
		rope, _ := c["rope_parameters"].(object)
		if rope["rope_type"] == "yarn" {
			rope["truncate"] = false
		}
	})),
	"deepseek2": family("deepseek_v3", latent, nextLayer, reads(deepseek)),
	"glm4moe": family("glm4_moe", partial, nextLayer, named(sharedExperts), named(map[string]string{"post_attention_norm": "post_attention_layernorm"}),
		biases("attention_bias", ""), reads(routed), reads(func(m *model, c object) {
			c["use_qk_norm"] = m.has("blk.0.attn_q_norm.weight")
			c["first_k_dense_replace"] = m.leading("ffn_gate_inp.weight") // Solar Open's files count one that has experts
		})),
	"dots1": family("dots1", named(sharedExperts), biases("attention_bias", ""), reads(routed), reads(func(_ *model, c object) {
		c["sliding_window"] = nil
	})),
	"ernie4_5-moe": family("ernie4_5_moe", named(sharedExperts), named(map[string]string{"exp_probs_b": "mlp.moe_statics.e_score_correction_bias", "exp_probs_b.bias": "mlp.moe_statics.e_score_correction_bias"}), biases("use_bias", ""), reads(func(m *model, c object) {
		c["use_bias"] = m.has("blk.0.attn_q.bias") || m.has("output.bias")
		m.copyInteger("moe_num_experts", "expert_count")
		m.copyInteger("moe_k", "expert_used_count")
		m.copyInteger("moe_intermediate_size", "expert_feed_forward_length")
		m.copyInteger("moe_num_shared_experts", "expert_shared_count")
		m.copyInteger("moe_layer_start_index", "leading_dense_block_count")
		m.copyInteger("moe_layer_interval", "interleave_moe_layer_step")
	})),
	"minimax-m2": family("minimax_m2", named(sparseBlock), named(map[string]string{"exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias"}), reads(func(m *model, c object) {
		m.copyInteger("num_local_experts", "expert_count")
		m.copyInteger("num_experts_per_tok", "expert_used_count")
		m.copyInteger("rotary_dim", "rope.dimension_count")
	})),
	"dbrx": ownNames("dbrx", "", "blocks.", map[string]string{
		"attn_norm": "norm_attn_norm.norm_1", "attn_output_norm": "norm_attn_norm.norm_2",
		"attn_qkv": "norm_attn_norm.attn.Wqkv", "attn_output": "norm_attn_norm.attn.out_proj",
		"ffn_gate_inp": "ffn.router.layer", "ffn_gate_exps": "", "ffn_up_exps": "", "ffn_down_exps": "",
	}, map[string]string{"token_embd": "wte", "output_norm": "norm_f"}, reads(func(m *model, c object) {
		rope, _ := c["rope_parameters"].(object)
		attention := object{"kv_n_heads": m.integer("attention.head_count_kv", 1), "rope_theta": rope["rope_theta"]}
		if limit := m.number("attention.clamp_kqv", 0); limit > 0 {
			attention["clip_qkv"] = float(limit)
		}
		c["attn_config"] = attention
		c["ffn_config"] = object{
			"ffn_act_fn": object{"name": "silu"}, "ffn_hidden_size": m.integer("feed_forward_length", 0), "moe_normalize_expert_weights": 1,
			"moe_num_experts": m.integer("expert_count", 0), "moe_top_k": m.integer("expert_used_count", 0),
		}
	}), func(a *architecture) { a.join = joinDbrx }),
	"exaone-moe": family("exaone_moe", named(sharedExperts), named(map[string]string{"exp_probs_b.bias": "mlp.e_score_correction_bias"}),
		reads(routed), reads(func(m *model, c object) {
			c["num_experts"], c["num_shared_experts"] = c["n_routed_experts"], c["n_shared_experts"]
			delete(c, "n_routed_experts")
			delete(c, "n_shared_experts")
			c["sliding_window"] = nil
			m.windows(4)
		})),
	"hunyuan-moe": family("hunyuan_v1_moe", named(hunYuan), named(map[string]string{
		"ffn_gate_inp":  "mlp.gate.wg",
		"ffn_gate_exps": "mlp.experts.%d.gate_proj", "ffn_up_exps": "mlp.experts.%d.up_proj", "ffn_down_exps": "mlp.experts.%d.down_proj",
		"ffn_gate_shexp": "mlp.shared_mlp.gate_proj", "ffn_up_shexp": "mlp.shared_mlp.up_proj", "ffn_down_shexp": "mlp.shared_mlp.down_proj",
	}), biases("attention_bias", ""), reads(func(m *model, _ object) {
		m.copyInteger("num_experts", "expert_count")
		m.copyInteger("moe_topk", "expert_used_count")
		m.copyInteger("intermediate_size", "expert_shared_feed_forward_length")
		m.copyInteger("moe_intermediate_size", "expert_feed_forward_length")
		m.copyInteger("num_shared_expert", "expert_shared_count")
	})),
	// What the file does not say is as llama.cpp has it: attention in chunks of 8192
	// positions, but on each fourth layer over all and without their numbers.
	"llama4": family("llama4_text", named(map[string]string{
		"ffn_gate": "feed_forward.gate_proj", "ffn_up": "feed_forward.up_proj", "ffn_down": "feed_forward.down_proj", "ffn_gate_inp": "feed_forward.router",
		"ffn_gate_exps": "feed_forward.experts.%d.gate_proj", "ffn_up_exps": "feed_forward.experts.%d.up_proj", "ffn_down_exps": "feed_forward.experts.%d.down_proj",
		"ffn_gate_shexp": "feed_forward.shared_expert.gate_proj", "ffn_up_shexp": "feed_forward.shared_expert.up_proj", "ffn_down_shexp": "feed_forward.shared_expert.down_proj",
	}), biases("attention_bias", ""), reads(func(m *model, c object) {
		if m.integer("expert_count", 0) == 0 || m.get("attention.sliding_window") != nil {
			m.fail("a Llama 4 without experts or with a window is not supported")
		}
		m.copyInteger("num_local_experts", "expert_count")
		m.copyInteger("num_experts_per_tok", "expert_used_count")
		m.copyInteger("interleave_moe_layer_step", "interleave_moe_layer_step")
		m.copyInteger("intermediate_size", "expert_feed_forward_length")
		m.copyInteger("intermediate_size_mlp", "feed_forward_length")
		c["use_qk_norm"] = m.integer("expert_count", 0) != 128 // as in llama.cpp: not Maverick
	})),
	"phimoe": family("phimoe", named(sparseBlock), biases("attention_bias", ""), reads(func(m *model, c object) {
		m.copyInteger("num_local_experts", "expert_count")
		c["lm_head_bias"] = m.has("output.bias")
		if rope, _ := c["rope_parameters"].(object); rope["rope_type"] == "longrope" {
			rope["short_mscale"] = float(m.number("rope.scaling.attn_factor", 1))
			rope["long_mscale"] = rope["short_mscale"]
		}
		m.copyInteger("sliding_window", "attention.sliding_window")
	})),
	// The converter leaves out how queries grow with their position.
	"mistral4": family("mistral4", latent, named(map[string]string{"ffn_gate_up_exps.weight": "mlp.experts.gate_up_proj"}), reads(readLatent), reads(func(m *model, c object) {
		for i := range m.layers {
			if block := fmt.Sprintf("blk.%d.", i); m.has(block + "ffn_gate_up_exps.weight") {
				m.names[block+"ffn_down_exps.weight"] = "mlp.experts.down_proj"
			}
		}
		head := c["qk_nope_head_dim"].(int) + c["qk_rope_head_dim"].(int)
		c["partial_rotary_factor"] = float64(c["qk_rope_head_dim"].(int)) / float64(max(1, head))
		m.queryGrowth()
	})),
	"deepseek32": family("deepseek_v32", indexed),
	"glm-dsa":    family("glm_moe_dsa", indexed),
}

// sharedExperts are the names of DeepSeek's experts and of those like them.
var sharedExperts = map[string]string{
	"ffn_gate_inp": "mlp.gate", "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
	"ffn_gate_exps": "mlp.experts.%d.gate_proj", "ffn_up_exps": "mlp.experts.%d.up_proj", "ffn_down_exps": "mlp.experts.%d.down_proj",
	"ffn_gate_shexp": "mlp.shared_experts.gate_proj", "ffn_up_shexp": "mlp.shared_experts.up_proj", "ffn_down_shexp": "mlp.shared_experts.down_proj",
}

// latent are the tensors of DeepSeek's attention, beside its experts.
func latent(a *architecture) {
	a.names(sharedExperts)
	a.names(map[string]string{
		"attn_q_a": "self_attn.q_a_proj", "attn_q_a_norm": "self_attn.q_a_layernorm", "attn_q_b": "self_attn.q_b_proj",
		"attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_kv_a_norm": "self_attn.kv_a_layernorm", "attn_kv_b": "self_attn.kv_b_proj",
		"attn_k_b": "", "attn_v_b": "",
	})
	a.join = joinLatent
}

// indexed is DeepSeek's architecture with an indexer, without which sequences of up
// to index_topk positions are computed.
func indexed(a *architecture) {
	latent(a)
	a.names(map[string]string{"indexer.attn_q_b": "", "indexer.attn_k": "", "indexer.k_norm": "", "indexer.proj": ""})
	a.read = func(m *model, c object) {
		readLatent(m, c)
		c["index_topk"] = m.integer("attention.indexer.top_k", 2048)
	}
}

// hunYuan are the names of the norms that both architectures of Hunyuan have.
var hunYuan = map[string]string{"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"}

// routed reads how experts are chosen.
func routed(m *model, c object) {
	for key, from := range map[string]string{
		"n_routed_experts": "expert_count", "num_experts_per_tok": "expert_used_count", "moe_intermediate_size": "expert_feed_forward_length",
		"n_shared_experts": "expert_shared_count", "first_k_dense_replace": "leading_dense_block_count",
		"n_group": "expert_group_count", "topk_group": "expert_group_used_count",
	} {
		m.copyInteger(key, from)
	}
	m.copyFloat("routed_scaling_factor", "expert_weights_scale")
	c["norm_topk_prob"] = m.boolean("expert_weights_norm", false)
}

// readLatent reads DeepSeek's attention and experts.
func readLatent(m *model, c object) {
	routed(m, c)
	rotated := m.integer("rope.dimension_count", 0)
	key := m.integer("attention.key_length_mla", m.integer("attention.key_length", 0))
	c["num_key_value_heads"], c["head_dim"] = c["num_attention_heads"], rotated
	c["qk_rope_head_dim"], c["qk_nope_head_dim"] = rotated, key-rotated
	c["v_head_dim"] = m.integer("attention.value_length_mla", m.integer("attention.value_length", 0))
	c["kv_lora_rank"] = m.integer("attention.kv_lora_rank", 0)
	c["q_lora_rank"] = nil
	m.copyInteger("q_lora_rank", "attention.q_lora_rank")
	if all := 10 * m.number("rope.scaling.yarn_log_multiplier", 0); all > 0 {
		m.yarnFactors(all)
	}
}

// deepseek reads DeepSeek 2 and 3, which are one architecture to llama.cpp.
func deepseek(m *model, c object) {
	readLatent(m, c)
	if m.number("attention.temperature_scale", 0) != 0 {
		m.fail("a DeepSeek whose queries grow with their position, as Mistral Large 3 is, is not supported")
	}
	if m.integer("expert_gating_func", 0) == 2 || m.has("blk."+lastLayer(m)+".exp_probs_b.bias") {
		return
	}
	c["model_type"], c["topk_method"] = "deepseek_v2", "greedy"
	if m.integer("expert_group_count", 1) > 1 {
		c["topk_method"] = "group_limited_greedy"
	}
}

// joinLatent makes the projection from the latent of keys and values of the two that
// the file has: those of keys are transposed.
func joinLatent(m *model, prefix, block string) {
	key, value := block+"attn_k_b.weight", block+"attn_v_b.weight"
	k, v := m.shape(key), m.shape(value)
	if k == nil {
		return
	}
	if len(k) != 3 || len(v) != 3 || k[0] != v[0] || k[1] != v[2] {
		m.fail("tensor %q: %v does not go with %v of %q", key, k, v, value)
		return
	}
	joined := View{Name: prefix + "self_attn.kv_b_proj.weight", Shape: []int{k[0] * (k[2] + v[1]), k[1]}}
	for h := range k[0] {
		joined.Rows = append(joined.Rows,
			Run{From: m.byName[key], First: h * k[1], N: k[2], Transposed: true},
			Run{From: m.byName[value], First: h * v[1], Step: 1, N: v[1]})
	}
	m.Tensors = append(m.Tensors, joined)
}

// joinDbrx makes matrices of all experts: of each the rows of gate and up, and, in the
// other direction, down.
func joinDbrx(m *model, prefix, block string) {
	for stem, name := range map[string]string{"gate": "w1", "up": "v1", "down": "w2"} {
		from := block + "ffn_" + stem + "_exps.weight"
		shape := m.shape(from)
		if len(shape) != 3 {
			m.fail("tensor %q: expected the matrices of experts, found %v", from, shape)
			return
		}
		i, rows, columns := m.byName[from], shape[1], shape[2]
		v := View{Name: prefix + "ffn.experts.mlp." + name, Shape: []int{shape[0] * rows, columns}, Rows: []Run{{From: i, Step: 1, N: shape[0] * rows}}}
		if stem == "down" {
			v.Shape, v.Rows = []int{shape[0] * columns, rows}, nil
			for e := range shape[0] {
				v.Rows = append(v.Rows, Run{From: i, First: e * rows, N: columns, Transposed: true})
			}
		}
		m.Tensors = append(m.Tensors, v)
	}
}
