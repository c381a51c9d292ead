package gguf

import (
	"fmt"
	"slices"
)

// makeConfig writes config.json: what all architectures have in common, then what
// is the architecture's own.
func (m *model) makeConfig() {
	a, c := m.arch, m.config
	embedding := m.shape("token_embd.weight")
	if len(embedding) != 2 {
		m.fail("tensor %q is missing", "token_embd.weight")
		return
	}
	m.layers = m.integer("block_count", 0) - m.integer("nextn_predict_layers", 0)
	if m.layers < 1 || m.layers > len(m.Stored) {
		m.fail("metadata: %s.block_count: %d layers in a file of %d tensors", m.name, m.layers, len(m.Stored))
		return
	}
	c["model_type"] = a.family
	c["vocab_size"] = embedding[0]
	c["hidden_size"] = embedding[1]
	c["num_hidden_layers"] = m.layers
	c["tie_word_embeddings"] = !m.has("output.weight")
	m.copyInteger("max_position_embeddings", "context_length")
	if !a.noAttention {
		m.copyInteger("num_attention_heads", "attention.head_count")
		heads := m.integer("attention.head_count", 0)
		if heads < 1 || heads > embedding[1] {
			m.fail("metadata: %s.attention.head_count must be 1 or more, found %d", m.name, heads)
			return
		}
		if !a.plain {
			if _, each := m.get("attention.head_count_kv").([]int64); each {
				c["num_key_value_heads"] = max(1, slices.Max(m.integers("attention.head_count_kv", m.layers)))
			} else {
				c["num_key_value_heads"] = m.integer("attention.head_count_kv", heads)
			}
			c["head_dim"] = m.headDim()
		}
		if a.permuted {
			m.unpermute(heads, c["num_key_value_heads"].(int))
		}
	}
	if a.feedForward != "" {
		m.copyInteger("intermediate_size", a.feedForward)
	}
	if eps := m.number("attention.layer_norm_rms_epsilon", m.number("attention.layer_norm_epsilon", -1)); a.eps != "" && eps >= 0 {
		c[a.eps] = float(eps)
	}
	if !a.noRope {
		c["rope_parameters"] = m.rope()
	}
	for key, value := range a.fixed {
		c[key] = value
	}
	if a.read != nil && m.err == nil {
		a.read(m, c)
	}
	m.tokenIDs()
}

// copyInteger copies a whole number of the architecture to config.json.
func (m *model) copyInteger(to, from string) {
	if m.get(from) != nil {
		m.config[to] = m.integer(from, 0)
	}
}

func (m *model) copyFloat(to, from string) {
	if m.get(from) != nil {
		m.config[to] = float(m.number(from, 0))
	}
}

// headDim is the width of a head.
func (m *model) headDim() int {
	heads := max(1, m.integer("attention.head_count", 1))
	without := m.shape("token_embd.weight")[1] / heads
	if q := m.shape("blk.0.attn_q.weight"); len(q) == 2 && !m.arch.gatedQueries {
		without = q[0] / heads
	}
	return m.integer("attention.key_length", without)
}

// unpermute puts rows of queries and keys into transformers' order: llama.cpp
// stores the two halves of each head that rope rotates interleaved.
func (m *model) unpermute(heads, keyHeads int) {
	for i := range m.layers + m.draftLayers() {
		for _, p := range []struct {
			stem  string
			heads int
		}{{"attn_q", heads}, {"attn_k", keyHeads}} {
			for _, suffix := range []string{".weight", ".bias"} {
				name := fmt.Sprintf("blk.%d.%s%s", i, p.stem, suffix)
				shape := m.shape(name)
				if shape == nil {
					continue
				}
				if p.heads < 1 || shape[0]%(2*p.heads) != 0 {
					m.fail("tensor %q: %v are not the rows of %d heads", name, shape, p.heads)
					return
				}
				half := shape[0] / p.heads / 2
				for h := range p.heads {
					m.rows[name] = append(m.rows[name], Run{First: 2 * half * h, Step: 2, N: half}, Run{First: 2*half*h + 1, Step: 2, N: half})
				}
			}
		}
	}
}

// rope writes the parameters of the position embedding.
func (m *model) rope() object {
	r := object{"rope_type": "default"}
	if m.get("rope.freq_base") != nil {
		r["rope_theta"] = float(m.number("rope.freq_base", 0))
	}
	if dims := m.integer("rope.dimension_count", 0); dims > 0 && m.arch.partial {
		r["partial_rotary_factor"] = float64(dims) / float64(m.headDim())
	}
	kind, _ := m.get("rope.scaling.type").(string)
	factor := m.number("rope.scaling.factor", m.number("rope.scale_linear", 1))
	switch {
	case m.has("rope_freqs.weight"):
		r["rope_type"], r["factors"] = "factors", m.vector("rope_freqs.weight")
	case m.has("rope_factors_long.weight") && m.has("rope_factors_short.weight"):
		r["rope_type"] = "longrope"
		r["long_factor"], r["short_factor"] = m.vector("rope_factors_long.weight"), m.vector("rope_factors_short.weight")
		if n := m.integer("rope.scaling.original_context_length", 0); n > 0 {
			r["original_max_position_embeddings"] = n
		}
	case kind == "yarn":
		r["rope_type"], r["factor"] = kind, float(factor)
		if n := m.integer("rope.scaling.original_context_length", 0); n > 0 {
			r["original_max_position_embeddings"] = n
		}
		for key, from := range map[string]string{"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow", "attention_factor": "yarn_attn_factor"} {
			if m.get("rope.scaling."+from) != nil {
				r[key] = float(m.number("rope.scaling."+from, 0))
			}
		}
	case factor != 1 && factor > 0 && (kind == "linear" || kind == ""):
		r["rope_type"], r["factor"] = "linear", float(factor)
	}
	return r
}

// twoRopes gives layers with a window a position embedding of their own.
func (m *model) twoRopes(theta float64) {
	m.config["rope_parameters"] = object{
		"full_attention":    m.config["rope_parameters"],
		"sliding_attention": object{"rope_type": "default", "rope_theta": float(theta)},
	}
}

// layerTypes writes which layers have a window.
func (m *model) layerTypes(sliding []bool) {
	types := make([]string, len(sliding))
	for i, s := range sliding {
		types[i] = "full_attention"
		if s {
			types[i] = "sliding_attention"
		}
	}
	m.config["layer_types"] = types
}

// windows writes the window of attention and which layers have it: those of the
// metadata, or all but each every-th.
func (m *model) windows(every int) {
	window := m.integer("attention.sliding_window", 0)
	if window == 0 {
		return
	}
	m.config["sliding_window"] = window
	sliding := make([]bool, m.layers)
	given, listed := m.get("attention.sliding_window_pattern").([]bool)
	if n, ok := m.get("attention.sliding_window_pattern").(int64); ok && n > 0 {
		every = int(n)
	}
	for i := range sliding {
		sliding[i] = every > 0 && (i+1)%every != 0
		if listed && i < len(given) {
			sliding[i] = given[i]
		}
	}
	m.layerTypes(sliding)
}

// tokenIDs writes the ids of tokens that begin and end a text.
func (m *model) tokenIDs() {
	for key, name := range map[string]string{"bos_token_id": "bos", "eos_token_id": "eos"} {
		if id, ok := m.values["tokenizer.ggml."+name+"_token_id"].(int64); ok && id >= 0 && !m.arch.noTokenIDs {
			m.config[key] = id
		}
	}
}
