package gguf

import "fmt"

// older are architectures before llama, which have names of their own.
var older = map[string]*architecture{
	"gpt2": ownNames("gpt2", "layer_norm_epsilon", "h.", map[string]string{
		"attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
	}, map[string]string{"token_embd": "wte", "position_embd": "wpe"}, func(a *architecture) {
		a.noRope = true
		a.transposed = map[string]bool{"attn_qkv": true, "attn_output": true, "ffn_up": true, "ffn_down": true}
	}, reads(func(m *model, c object) { m.innerWidth(c, "n_inner") })),
	"starcoder": ownNames("gpt_bigcode", "layer_norm_epsilon", "h.", map[string]string{
		"attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
	}, map[string]string{"token_embd": "wte", "position_embd": "wpe"}, func(a *architecture) { a.noRope = true }, reads(func(m *model, c object) {
		m.innerWidth(c, "n_inner")
		if m.integer("attention.head_count_kv", 1) != 1 {
			m.fail("keys and values of more than one head are not supported in this architecture")
		}
	})),
	"gptneox": ownNames("gpt_neox", "layer_norm_eps", "layers.", map[string]string{
		"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_qkv": "attention.query_key_value", "attn_output": "attention.dense",
		"ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
	}, map[string]string{"token_embd": "embed_in", "output_norm": "final_layer_norm", "output": "/embed_out"}, partial, func(a *architecture) {
		a.prefix = "gpt_neox."
	}, reads(func(m *model, c object) {
		m.copyInteger("intermediate_size", "feed_forward_length")
		c["use_parallel_residual"] = m.boolean("use_parallel_residual", true)
		c["attention_bias"] = m.has("blk.0.attn_qkv.bias")
		m.regroup(m.integer("attention.head_count", 1))
	})),
	"bloom": ownNames("bloom", "layer_norm_epsilon", "h.", falconNames, map[string]string{
		"token_embd": "word_embeddings", "token_embd_norm": "word_embeddings_layernorm",
	}, func(a *architecture) { a.noRope = true }, reads(func(m *model, _ object) { m.regroup(m.integer("attention.head_count", 1)) })),
	"mpt": ownNames("mpt", "", "blocks.", map[string]string{
		"attn_norm": "norm_1", "ffn_norm": "norm_2", "attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj", "attn_q_norm": "attn.q_ln", "attn_k_norm": "attn.k_ln",
		"ffn_up": "ffn.up_proj", "ffn_down": "ffn.down_proj",
	}, map[string]string{"token_embd": "wte", "output_norm": "norm_f"}, func(a *architecture) { a.noRope = true }, reads(func(m *model, c object) {
		if kv := m.integer("attention.head_count_kv", 0); kv > 0 && kv != m.integer("attention.head_count", 0) || m.has("position_embd.weight") {
			m.fail("grouped heads and learned positions are not supported in this architecture")
		}
		attention := object{"alibi": true, "alibi_bias_max": float(m.number("attention.max_alibi_bias", 8)), "qk_ln": m.has("blk.0.attn_q_norm.weight")}
		if limit := m.number("attention.clamp_kqv", 0); limit > 0 {
			attention["clip_qkv"] = float(limit)
		}
		c["attn_config"] = attention
	})),
	"falcon": ownNames("falcon", "layer_norm_epsilon", "h.", falconNames, map[string]string{"token_embd": "word_embeddings"}, reads(func(m *model, c object) {
		m.innerWidth(c, "ffn_hidden_size")
		groups := m.integer("attention.head_count_kv", 1)
		c["num_kv_heads"] = groups
		c["new_decoder_architecture"] = groups > 1 || m.has("blk.0.attn_norm_2.weight")
		c["num_ln_in_parallel_attn"] = 1
		if m.has("blk.0.attn_norm_2.weight") {
			c["num_ln_in_parallel_attn"] = 2
			for i := range m.layers {
				for _, suffix := range []string{".weight", ".bias"} {
					m.names[fmt.Sprintf("blk.%d.attn_norm%s", i, suffix)] = "ln_mlp" + suffix
				}
			}
		}
		m.regroup(groups)
	})),
}

var falconNames = map[string]string{
	"attn_norm": "input_layernorm", "attn_norm_2": "ln_attn", "ffn_norm": "post_attention_layernorm",
	"attn_qkv": "self_attention.query_key_value", "attn_output": "self_attention.dense",
	"ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
}

// ownNames is an architecture whose tensors are called otherwise.
func ownNames(family, eps, layers string, layer, outer map[string]string, changes ...func(a *architecture)) *architecture {
	a := &architecture{
		family: family, prefix: "transformer.", layers: layers, eps: eps, plain: true, layer: layer,
		outer: map[string]string{"output_norm": "ln_f", "output": "/lm_head"},
	}
	for name, to := range outer {
		a.outer[name] = to
	}
	for _, change := range changes {
		change(a)
	}
	return a
}

// innerWidth writes the width of the MLP, which the file has as four times that of
// the stream whatever the model has.
func (m *model) innerWidth(c object, key string) {
	if up := m.shape("blk.0.ffn_up.weight"); len(up) == 2 {
		c[key] = up[0]
	}
}

// regroup puts queries, keys and values that share a head of keys together, where the
// file has all queries, then all keys, then all values.
func (m *model) regroup(groups int) {
	heads := m.integer("attention.head_count", 1)
	if groups < 1 || heads%groups != 0 {
		m.fail("metadata: %d heads of queries do not share %d of keys", heads, groups)
		return
	}
	width := m.shape("token_embd.weight")[1] / heads
	for i := range m.layers {
		for _, suffix := range []string{".weight", ".bias"} {
			name := fmt.Sprintf("blk.%d.attn_qkv%s", i, suffix)
			shape := m.shape(name)
			if shape == nil {
				continue
			}
			if shape[0] != (heads+2*groups)*width {
				m.fail("tensor %q: %v are not the rows of %d heads of %d", name, shape, heads+2*groups, width)
				return
			}
			queries := heads / groups * width
			for g := range groups {
				m.rows[name] = append(m.rows[name], Run{First: g * queries, Step: 1, N: queries},
					Run{First: heads*width + g*width, Step: 1, N: width}, Run{First: (heads+groups)*width + g*width, Step: 1, N: width})
			}
		}
	}
}
