package gguf

import (
	"fmt"
	"math"
)

// recurrent are architectures whose layers have a state, at least some.
var recurrent = map[string]*architecture{
	"qwen35":    family("qwen3_5_text", delta, reads(tiledHeads)),
	"qwen35moe": family("qwen3_5_moe_text", delta, qwenExperts, reads(tiledHeads)),
	"qwen3next": family("qwen3_next", delta, qwenExperts, fixed(object{"norm_topk_prob": true}), named(map[string]string{
		"ssm_ba": "linear_attn.in_proj_ba", "attn_qkv": "", "attn_gate": "",
	}), reads(func(_ *model, c object) {
		rope, _ := c["rope_parameters"].(object)
		c["partial_rotary_factor"] = rope["partial_rotary_factor"]
	}), func(a *architecture) { a.join = fusedDelta }),
	"mamba": family("mamba", mambaNames, named(map[string]string{
		"ssm_x": "mixer.x_proj", "ssm_dt": "mixer.dt_proj", "ssm_d": "mixer.D", "ssm_a": "mixer.A_log",
	}), reads(func(m *model, c object) {
		m.copyInteger("time_step_rank", "ssm.time_step_rank")
		c["use_conv_bias"], c["use_bias"] = m.has("blk.0.ssm_conv1d.bias"), m.has("blk.0.ssm_in.bias")
		if m.boolean("ssm.dt_b_c_rms", false) {
			c["model_type"] = "falcon_mamba"
		}
	})),
	"mamba2": family("mamba2", mambaNames, named(map[string]string{
		"ssm_dt.bias": "mixer.dt_bias", "ssm_norm": "mixer.norm", "ssm_d": "mixer.D", "ssm_a": "mixer.A_log",
	}), func(a *architecture) {
		a.flat = map[string]bool{"ssm_a": true, "ssm_d": true, "ssm_norm": true}
	}, reads(func(m *model, c object) {
		heads := max(1, m.integer("ssm.time_step_rank", 1))
		c["num_heads"], c["head_dim"] = heads, m.integer("ssm.inner_size", 0)/heads
		m.copyInteger("n_groups", "ssm.group_count")
		c["use_conv_bias"], c["use_bias"] = m.has("blk.0.ssm_conv1d.bias"), m.has("blk.0.ssm_in.bias")
	})),
	"kimi-linear": family("kimi_linear", latent, named(sparseBlock), named(map[string]string{
		"ffn_gate_shexp": "block_sparse_moe.shared_experts.gate_proj", "ffn_up_shexp": "block_sparse_moe.shared_experts.up_proj",
		"ffn_down_shexp": "block_sparse_moe.shared_experts.down_proj", "exp_probs_b.bias": "block_sparse_moe.gate.e_score_correction_bias",
		"ssm_conv1d_q": "self_attn.q_conv1d", "ssm_conv1d_k": "self_attn.k_conv1d", "ssm_conv1d_v": "self_attn.v_conv1d",
		"ssm_f_a": "self_attn.f_a_proj", "ssm_f_b": "self_attn.f_b_proj", "ssm_g_a": "self_attn.g_a_proj", "ssm_g_b": "self_attn.g_b_proj",
		"ssm_beta": "self_attn.b_proj", "ssm_a": "self_attn.A_log", "ssm_dt.bias": "self_attn.dt_bias", "ssm_norm": "self_attn.o_norm",
	}), func(a *architecture) {
		a.noRope = true
		a.maps = map[string]func([]float32){"ssm_a": logOfNegative}
	}, reads(kimiLinear)),
	"lfm2": family("lfm2", lfm2),
	"lfm2moe": family("lfm2_moe", lfm2, named(map[string]string{
		"ffn_gate_inp": "feed_forward.gate", "exp_probs_b.bias": "feed_forward.expert_bias",
		"ffn_gate_exps": "feed_forward.experts.%d.w1", "ffn_down_exps": "feed_forward.experts.%d.w2", "ffn_up_exps": "feed_forward.experts.%d.w3",
	}), reads(func(m *model, c object) {
		delete(c, "block_auto_adjust_ff_dim")
		m.copyInteger("num_experts", "expert_count")
		m.copyInteger("num_experts_per_tok", "expert_used_count")
		m.copyInteger("moe_intermediate_size", "expert_feed_forward_length")
		m.copyInteger("num_dense_layers", "leading_dense_block_count")
		c["use_expert_bias"] = m.has(fmt.Sprintf("blk.%d.exp_probs_b.bias", m.layers-1))
	})),
}

// mambaNames are those of both kinds of Mamba.
func mambaNames(a *architecture) {
	a.noAttention, a.noRope, a.feedForward, a.eps, a.prefix = true, true, "", "layer_norm_epsilon", "backbone."
	a.outer["token_embd"], a.outer["output_norm"] = "embeddings", "norm_f"
	a.layer = map[string]string{"attn_norm": "norm", "ssm_in": "mixer.in_proj", "ssm_conv1d": "mixer.conv1d", "ssm_out": "mixer.out_proj"}
	a.maps = map[string]func([]float32){"ssm_a": logOfNegative}
	a.read = after(a.read, func(m *model, c object) {
		delete(c, "max_position_embeddings")
		m.copyInteger("state_size", "ssm.state_size")
		m.copyInteger("conv_kernel", "ssm.conv_kernel")
		c["expand"] = m.integer("ssm.inner_size", 0) / c["hidden_size"].(int)
	})
}

func lfm2(a *architecture) {
	a.eps = "norm_eps"
	a.outer["token_embd_norm"], a.outer["output_norm"] = "embedding_norm", "embedding_norm"
	a.names(map[string]string{
		"attn_norm": "operator_norm", "ffn_norm": "ffn_norm", "attn_output": "self_attn.out_proj",
		"attn_q_norm": "self_attn.q_layernorm", "attn_k_norm": "self_attn.k_layernorm",
		"ffn_gate": "feed_forward.w1", "ffn_down": "feed_forward.w2", "ffn_up": "feed_forward.w3",
		"shortconv.conv": "conv.conv", "shortconv.in_proj": "conv.in_proj", "shortconv.out_proj": "conv.out_proj",
	})
	a.read = after(a.read, func(m *model, c object) {
		types := make([]string, m.layers)
		for i, n := range m.integers("attention.head_count_kv", m.layers) {
			types[i] = "conv"
			if n > 0 {
				types[i] = "full_attention"
			}
		}
		c["layer_types"], c["block_auto_adjust_ff_dim"] = types, false
		m.copyInteger("conv_L_cache", "shortconv.l_cache")
		c["conv_bias"] = m.has("blk.0.shortconv.conv.bias")
	})
}

// logOfNegative undoes what is done to the decays of recurrent layers.
func logOfNegative(row []float32) {
	for i, v := range row {
		row[i] = float32(math.Log(float64(-v)))
	}
}

// kimiLinear reads which layers have attention over latents, and the others' heads.
func kimiLinear(m *model, c object) {
	readLatent(m, c)
	c["norm_topk_prob"] = m.boolean("expert_weights_norm", true) // as in llama.cpp
	attends, recurs, heads := []int{}, []int{}, 0                // counted from 1
	for i, keys := range m.integers("attention.head_count_kv", m.layers) {
		if keys > 0 {
			attends = append(attends, i+1)
			continue
		}
		recurs = append(recurs, i+1)
		block := fmt.Sprintf("blk.%d.", i)
		for _, t := range []string{"ssm_a", "ssm_conv1d_q.weight", "ssm_conv1d_k.weight", "ssm_conv1d_v.weight"} {
			// Dimensions of one come and go as a file is quantized.
			shape := m.shape(block + t)
			rows := 1
			for _, n := range shape {
				rows *= n
			}
			switch {
			case shape == nil:
			case t == "ssm_a":
				heads = rows
				m.Stored[m.byName[block+t]].Shape = []int{1, 1, rows, 1}
			default:
				taps := shape[len(shape)-1]
				m.Stored[m.byName[block+t]].Shape = []int{rows / taps, 1, taps}
			}
		}
	}
	c["linear_attn_config"] = object{
		"full_attn_layers": attends, "kda_layers": recurs, "num_heads": heads,
		"head_dim": m.integer("kda.head_dim", 0), "short_conv_kernel_size": m.integer("ssm.conv_kernel", 0),
	}
}

// qwenExperts are experts beside one that sees every token.
func qwenExperts(a *architecture) {
	moe("num_experts")(a)
	a.feedForward = ""
	a.read = after(a.read, func(m *model, _ object) {
		m.copyInteger("shared_expert_intermediate_size", "expert_shared_feed_forward_length")
	})
}

// delta is a gated delta net on three layers of four.
func delta(a *architecture) {
	a.shifted, a.partial, a.gatedQueries = true, true, true
	a.draftPrefix = "mtp.layers.0."
	a.draft = map[string]string{
		"nextn.enorm": "/mtp.pre_fc_norm_embedding", "nextn.hnorm": "/mtp.pre_fc_norm_hidden", "nextn.eh_proj": "/mtp.fc",
		"nextn.shared_head_norm": "/mtp.norm", "nextn.embed_tokens": "/mtp.embed_tokens",
	}
	a.names(map[string]string{
		"attn_qkv": "linear_attn.in_proj_qkv", "attn_gate": "linear_attn.in_proj_z", "ssm_alpha": "linear_attn.in_proj_a", "ssm_beta": "linear_attn.in_proj_b",
		"ssm_conv1d": "linear_attn.conv1d", "ssm_norm": "linear_attn.norm", "ssm_out": "linear_attn.out_proj",
		"ssm_a": "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias", "post_attention_norm": "post_attention_layernorm",
	})
	a.maps = map[string]func([]float32){"ssm_norm": nil, "ssm_a": logOfNegative}
	a.read = after(a.read, func(m *model, c object) {
		heads := max(1, m.integer("ssm.time_step_rank", 1))
		c["linear_num_value_heads"] = heads
		c["linear_value_head_dim"] = m.integer("ssm.inner_size", 0) / heads
		m.copyInteger("linear_num_key_heads", "ssm.group_count")
		m.copyInteger("linear_key_head_dim", "ssm.state_size")
		m.copyInteger("linear_conv_kernel_dim", "ssm.conv_kernel")
		m.copyInteger("full_attention_interval", "full_attention_interval")
		if list, ok := m.get("attention.recurrent_layers").([]bool); ok && len(list) >= m.layers {
			delete(c, "full_attention_interval")
			types := make([]string, m.layers)
			for i := range types {
				types[i] = "full_attention"
				if list[i] {
					types[i] = "linear_attention"
				}
			}
			c["layer_types"] = types
		}
	})
}

// tiledHeads puts heads of values that share one of keys together, where the file has
// the first of each of these, then the second.
func tiledHeads(m *model, c object) {
	keys, heads := m.integer("ssm.group_count", 1), c["linear_num_value_heads"].(int)
	width := c["linear_value_head_dim"].(int)
	before := 2 * keys * m.integer("ssm.state_size", 0)
	if keys < 1 || width < 1 || heads%keys != 0 {
		m.fail("metadata: %d heads of values do not share %d of keys", heads, keys)
		return
	}
	order := func(first, width int) []Run {
		var runs []Run
		if first > 0 {
			runs = append(runs, Run{Step: 1, N: first})
		}
		for h := range heads {
			tiled := h%(heads/keys)*keys + h/(heads/keys)
			runs = append(runs, Run{First: first + tiled*width, Step: 1, N: width})
		}
		return runs
	}
	for i := range m.layers {
		for name, of := range map[string]struct{ first, width int }{
			"attn_qkv.weight": {before, width}, "ssm_conv1d.weight": {before, width}, "attn_gate.weight": {0, width},
			"ssm_alpha.weight": {0, 1}, "ssm_beta.weight": {0, 1}, "ssm_a": {0, 1}, "ssm_dt.bias": {0, 1},
		} {
			name = fmt.Sprintf("blk.%d.%s", i, name)
			if shape := m.shape(name); shape != nil {
				if shape[0] != of.first+heads*of.width {
					m.fail("tensor %q: %v are not the rows of %d heads of %d", name, shape, heads, of.width)
					return
				}
				m.rows[name] = order(of.first, of.width)
			}
		}
		// What consumes them has them as columns.
		name := fmt.Sprintf("blk.%d.ssm_out.weight", i)
		if shape := m.shape(name); len(shape) == 2 && shape[1] == heads*width {
			columns := order(0, width)
			m.maps[name] = func(row []float32) {
				stored := append([]float32(nil), row...)
				row = row[:0]
				for _, r := range columns {
					row = append(row, stored[r.First:][:r.N]...)
				}
			}
		}
	}
}

// fusedDelta makes the projection of queries, keys, values and gate, by heads of
// keys, of the two that the file has.
func fusedDelta(m *model, prefix, block string) {
	qkv, gate := block+"attn_qkv.weight", block+"attn_gate.weight"
	if !m.has(qkv) {
		return
	}
	keys, state := max(1, m.integer("ssm.group_count", 1)), m.integer("ssm.state_size", 0)
	values := m.integer("ssm.inner_size", 0) / keys
	shape, other := m.shape(qkv), m.shape(gate)
	if len(shape) != 2 || len(other) != 2 || shape[0] != keys*(2*state+values) || other[0] != keys*values || shape[1] != other[1] {
		m.fail("tensor %q: %v does not go with %v of %q", qkv, shape, other, gate)
		return
	}
	v := View{Name: prefix + "linear_attn.in_proj_qkvz.weight", Shape: []int{shape[0] + other[0], shape[1]}}
	for k := range keys {
		v.Rows = append(v.Rows,
			Run{From: m.byName[qkv], First: k * state, Step: 1, N: state},
			Run{From: m.byName[qkv], First: (keys + k) * state, Step: 1, N: state},
			Run{From: m.byName[qkv], First: 2*keys*state + k*values, Step: 1, N: values},
			Run{From: m.byName[gate], First: k * values, Step: 1, N: values})
	}
	m.Tensors = append(m.Tensors, v)
}
