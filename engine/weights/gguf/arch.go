package gguf

import (
	"fmt"
	"maps"
	"math"
)

// architecture says what a model of llama.cpp's is to transformers.
type architecture struct {
	family      string            // model_type
	prefix      string            // of tensors' names
	layers      string            // below it, of a layer's
	outer       map[string]string // names of tensors outside layers; "" are not needed; / is not below the prefix
	layer       map[string]string // names in a layer
	fixed       object            // keys of config.json with one value
	eps         string            // key of the norms' epsilon
	feedForward string            // value that intermediate_size is

	plain        bool // config.json knows neither num_key_value_heads nor head_dim
	noAttention  bool // nor heads
	noRope       bool
	noTokenIDs   bool
	permuted     bool // rows of queries and keys are interleaved
	shifted      bool // norms have 1 + weight
	partial      bool // rope rotates a part of a head
	gatedQueries bool // attn_q has more than queries

	draft       map[string]string // names in the layer after the last, which drafts tokens, that are not as in others; nil: it is left out
	draftPrefix string            // of its names; "": that of a layer

	flat       map[string]bool // vectors that are stored with two dimensions
	transposed map[string]bool
	maps       map[string]func(row []float32) // what rows stand for; nil: themselves, whatever shifted says

	read func(m *model, c object)             // writes more of config.json
	join func(m *model, prefix, block string) // makes tensors of a layer out of several
}

// with changes a copy of an architecture.
func (a architecture) with(change func(a *architecture)) *architecture {
	a.layer, a.outer = maps.Clone(a.layer), maps.Clone(a.outer)
	change(&a)
	return &a
}

// names adds to names of a layer.
func (a *architecture) names(more map[string]string) { maps.Copy(a.layer, more) }

// basic is what most architectures share: llama's names.
var basic = architecture{
	prefix: "model.", layers: "layers.", eps: "rms_norm_eps", feedForward: "feed_forward_length",
	outer: map[string]string{
		"token_embd": "embed_tokens", "output_norm": "norm", "output": "/lm_head",
		"rope_freqs": "", "rope_factors_long": "", "rope_factors_short": "",
	},
	layer: map[string]string{
		"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
		"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
		"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
		"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
		"rope_freqs": "",
	},
}

// experts are the names of experts that most architectures have.
var experts = map[string]string{
	"ffn_gate_inp":  "mlp.gate",
	"ffn_gate_exps": "mlp.experts.%d.gate_proj", "ffn_up_exps": "mlp.experts.%d.up_proj", "ffn_down_exps": "mlp.experts.%d.down_proj",
	"ffn_gate_inp_shexp": "mlp.shared_expert_gate",
	"ffn_gate_shexp":     "mlp.shared_expert.gate_proj", "ffn_up_shexp": "mlp.shared_expert.up_proj", "ffn_down_shexp": "mlp.shared_expert.down_proj",
}

// sparseBlock are the names of Mixtral's experts and of those like them.
var sparseBlock = map[string]string{
	"ffn_gate_inp":  "block_sparse_moe.gate",
	"ffn_gate_exps": "block_sparse_moe.experts.%d.w1", "ffn_up_exps": "block_sparse_moe.experts.%d.w3", "ffn_down_exps": "block_sparse_moe.experts.%d.w2",
}

// sandwich are the names of norms after each half of a layer, besides those before.
var sandwich = map[string]string{
	"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}

// postNorms are those of layers that have them alone.
var postNorms = map[string]string{"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}

// family is llama's architecture under another model_type.
func family(name string, changes ...func(a *architecture)) *architecture {
	return basic.with(func(a *architecture) {
		a.family = name
		for _, change := range changes {
			change(a)
		}
	})
}

// biases writes which projections have a bias.
func biases(attention, mlp string) func(a *architecture) {
	return func(a *architecture) {
		a.read = after(a.read, func(m *model, c object) {
			if attention != "" {
				c[attention] = m.has("blk.0.attn_q.bias") || m.has("blk.0.attn_qkv.bias")
			}
			if mlp != "" {
				c[mlp] = m.has("blk.0.ffn_up.bias")
			}
		})
	}
}

func after(first, then func(m *model, c object)) func(m *model, c object) {
	if first == nil {
		return then
	}
	return func(m *model, c object) {
		first(m, c)
		then(m, c)
	}
}

func permuted(a *architecture) { a.permuted = true }
func shifted(a *architecture)  { a.shifted = true }
func partial(a *architecture)  { a.partial = true }

func named(more map[string]string) func(a *architecture) {
	return func(a *architecture) { a.names(more) }
}

func reads(read func(m *model, c object)) func(a *architecture) {
	return func(a *architecture) { a.read = after(a.read, read) }
}

func fixed(values object) func(a *architecture) {
	return func(a *architecture) { a.fixed = values }
}

// nextLayer are the names of a head for drafts that is a layer after the last.
func nextLayer(a *architecture) {
	a.draft = map[string]string{
		"nextn.enorm": "enorm", "nextn.hnorm": "hnorm", "nextn.eh_proj": "eh_proj", "nextn.shared_head_norm": "shared_head.norm",
	}
}

func epsilon(key string) func(a *architecture) { return func(a *architecture) { a.eps = key } }

// moe reads how many experts there are, under key, and their width.
func moe(key string) func(a *architecture) {
	return func(a *architecture) {
		a.names(experts)
		a.read = after(a.read, func(m *model, c object) {
			m.copyInteger(key, "expert_count")
			m.copyInteger("num_experts_per_tok", "expert_used_count")
			m.copyInteger("moe_intermediate_size", "expert_feed_forward_length")
		})
	}
}

// architectures are those that are supported.
var architectures = func() map[string]*architecture {
	all := map[string]*architecture{}
	for _, some := range []map[string]*architecture{dense, gemmas, mixtures, recurrent, hybrids, older} {
		maps.Copy(all, some)
	}
	return all
}()

// dense are llama's architecture and those like it, with experts or without.
var dense = map[string]*architecture{
	"llama": family("llama", permuted, biases("attention_bias", "mlp_bias"), named(sparseBlock), reads(func(m *model, c object) {
		if n := m.integer("expert_count", 0); n > 0 {
			c["model_type"], c["num_local_experts"], c["num_experts_per_tok"] = "mixtral", n, m.integer("expert_used_count", 2)
			delete(c, "attention_bias")
			delete(c, "mlp_bias")
		}
	})),
	"mistral3": family("mistral", permuted, fixed(object{"sliding_window": nil}), reads(func(m *model, c object) {
		if m.number("attention.temperature_scale", 0) != 0 {
			c["model_type"] = "ministral3"
		}
		if all := m.number("rope.scaling.yarn_log_multiplier", 0); all > 0 {
			m.yarnFactors(all)
		}
		m.queryGrowth()
	})),
	"apertus": family("apertus", biases("attention_bias", ""), named(map[string]string{"attn_norm": "attention_layernorm", "ffn_norm": "feedforward_layernorm"}),
		reads(activations)),
	"qwen2": family("qwen2"),
	// A Qwen that sees, without what sees: the three axes of a text's positions are one.
	"qwen2vl": family("qwen2"),
	"qwen3vl": family("qwen3", biases("attention_bias", "")),
	"qwen3":   family("qwen3", biases("attention_bias", "")),
	"qwen2moe": family("qwen2_moe", moe("num_experts"), reads(func(m *model, c object) {
		m.copyInteger("shared_expert_intermediate_size", "expert_shared_feed_forward_length")
		c["qkv_bias"] = m.has("blk.0.attn_q.bias")
	})),
	"qwen3moe": family("qwen3_moe", moe("num_experts"), fixed(object{"norm_topk_prob": true}), biases("attention_bias", "")),
	"phi3": family("phi3", partial, named(map[string]string{"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}), reads(func(m *model, c object) {
		if n := m.integer("rope.scaling.original_context_length", 0); n > 0 {
			c["original_max_position_embeddings"] = n
		}
		c["sliding_window"] = nil
		if n := m.integer("attention.sliding_window", 0); n > 0 {
			c["sliding_window"] = n
		}
	})),
	"phi2": family("phi", partial, epsilon("layer_norm_eps"), named(map[string]string{
		"attn_output": "self_attn.dense", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
	}), func(a *architecture) { a.outer["output_norm"] = "final_layernorm" }, reads(func(m *model, c object) {
		// The file has four times the width of the stream whatever the model has.
		if up := m.shape("blk.0.ffn_up.weight"); len(up) == 2 {
			c["intermediate_size"] = up[0]
		}
	})),
	"starcoder2": family("starcoder2", epsilon("norm_epsilon"), named(map[string]string{"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}), biases("use_bias", "")),
	"stablelm": family("stablelm", partial, epsilon("layer_norm_eps"), biases("use_qkv_bias", ""), reads(func(m *model, c object) {
		c["use_parallel_residual"] = m.boolean("use_parallel_residual", true) && !m.has("blk.0.ffn_norm.weight")
		c["qk_layernorm"] = m.has("blk.0.attn_q_norm.weight")
	}), named(map[string]string{"attn_q_norm": "self_attn.q_layernorm.norms.%d", "attn_k_norm": "self_attn.k_layernorm.norms.%d"})),
	"olmo": family("olmo", permuted, epsilon(""), reads(func(m *model, c object) { m.copyFloat("clip_qkv", "attention.clamp_kqv") })),
	"olmo2": family("olmo2", named(postNorms), biases("attention_bias", ""), reads(func(m *model, c object) {
		if m.integer("attention.sliding_window", 0) > 0 {
			c["model_type"] = "olmo3"
			m.windows(4)
			m.twoRopes(m.number("rope.freq_base_swa", m.number("rope.freq_base", 10000)))
		}
	})),
	"olmoe":   family("olmoe", moe("num_experts"), reads(func(m *model, c object) { delete(c, "moe_intermediate_size") })),
	"granite": family("granite", permuted, biases("attention_bias", "mlp_bias"), reads(granite)),
	"granitemoe": family("granitemoe", permuted, moe("num_local_experts"), biases("attention_bias", ""), reads(granite), reads(func(m *model, c object) {
		delete(c, "moe_intermediate_size")
		if n := m.integer("expert_shared_feed_forward_length", 0); n > 0 {
			c["model_type"], c["shared_intermediate_size"] = "granitemoeshared", n
		}
	}), named(map[string]string{
		"ffn_gate_inp": "block_sparse_moe.router.layer", "ffn_down_exps.weight": "block_sparse_moe.output_linear.weight",
		"ffn_gate_exps": "", "ffn_up_exps": "", "ffn_gate_shexp": "", "ffn_up_shexp": "", "ffn_down_shexp": "shared_mlp.output_linear",
	}), func(a *architecture) {
		a.join = func(m *model, prefix, block string) {
			m.joined(prefix+"block_sparse_moe.input_linear.weight", block+"ffn_gate_exps.weight", block+"ffn_up_exps.weight")
			if m.has(block + "ffn_gate_shexp.weight") {
				m.joined(prefix+"shared_mlp.input_linear.weight", block+"ffn_gate_shexp.weight", block+"ffn_up_shexp.weight")
			}
		}
	}),
	"command-r": family("cohere", epsilon("layer_norm_eps"), biases("attention_bias", ""), reads(func(m *model, c object) {
		m.copyFloat("logit_scale", "logit_scale")
		c["use_qk_norm"] = m.has("blk.0.attn_q_norm.weight")
	})),
	"cohere2": family("cohere2", epsilon("layer_norm_eps"), biases("attention_bias", ""), reads(func(m *model, c object) {
		m.copyFloat("logit_scale", "logit_scale")
		m.windows(4)
	})),
	"exaone4": family("exaone4", named(postNorms), reads(func(m *model, c object) {
		c["sliding_window"] = nil
		m.windows(4)
	})),
	"smollm3": family("smollm3", biases("attention_bias", "mlp_bias"), permuted, reads(func(m *model, c object) {
		// The file does not say which layers have no positions: llama.cpp takes each fourth.
		c["no_rope_layer_interval"] = 4
	})),
	"arcee": family("arcee", permuted, biases("attention_bias", "mlp_bias")),
	// That of llama.cpp has SiLU, as the models before Microsoft's own had it.
	"bitnet": family("bitnet", fixed(object{"hidden_act": "silu"}), named(map[string]string{
		"attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm",
	})),
	"ernie4_5": family("ernie4_5", biases("use_bias", "")),
	"seed_oss": family("seed_oss", named(map[string]string{"post_attention_norm": "post_attention_layernorm"}), reads(func(m *model, c object) {
		c["attention_bias"], c["attention_out_bias"] = m.has("blk.0.attn_q.bias"), m.has("blk.0.attn_output.bias")
	})),
	"glm4": family("glm4", partial, biases("attention_bias", ""), named(map[string]string{
		"ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.gate_up_proj", "post_attention_norm": "post_self_attn_layernorm", "post_ffw_norm": "post_mlp_layernorm",
	})),
	"granite_swa": family("granite_swa", permuted, biases("attention_bias", "mlp_bias"), reads(granite), named(map[string]string{
		"attn_sinks": "self_attn.sinks", "attn_sinks.weight": "self_attn.sinks",
	}), reads(func(m *model, c object) {
		if m.integer("expert_count", 0) > 0 {
			m.fail("a model with experts is not supported in this architecture")
		}
		m.windows(4)
		if turns, ok := m.get("attention.rope_pattern").([]bool); ok && len(turns) >= m.layers {
			thetas := make([]any, m.layers)
			for i := range thetas {
				if thetas[i] = 0; turns[i] {
					thetas[i] = float(m.number("rope.freq_base", 10000))
				}
			}
			c["layer_rope_theta"] = thetas
		}
	})),
	"hunyuan-dense": family("hunyuan_v1_dense", named(hunYuan), biases("attention_bias", "")),
	"chatglm": family("glm", biases("attention_bias", ""), named(map[string]string{"ffn_up": "mlp.gate_up_proj", "attn_qkv": ""}),
		func(a *architecture) { a.join = splitQKV }),
	"nemotron": family("nemotron", shifted, partial, epsilon("norm_eps"), biases("attention_bias", "mlp_bias")),
}

// granite reads the factors of Granite.
func granite(m *model, _ object) {
	m.copyFloat("attention_multiplier", "attention.scale")
	m.copyFloat("embedding_multiplier", "embedding_scale")
	m.copyFloat("residual_multiplier", "residual_scale")
	m.copyFloat("logits_scaling", "logit_scale")
}

// yarnFactors writes how much larger YaRN makes scores: all of it is theirs, none that
// of positions.
func (m *model) yarnFactors(all float64) {
	if rope, _ := m.config["rope_parameters"].(object); rope["rope_type"] == "yarn" {
		rope["mscale"], rope["mscale_all_dim"] = float(all), float(all)
	}
}

// queryGrowth writes how much queries grow with the logarithm of their position.
func (m *model) queryGrowth() {
	growth := m.number("attention.temperature_scale", 0)
	if growth == 0 {
		return
	}
	rope, _ := m.config["rope_parameters"].(object)
	if rope["original_max_position_embeddings"] == nil {
		m.fail("metadata: %s.attention.temperature_scale: queries grow from rope.scaling.original_context_length on, which is missing", m.name)
		return
	}
	rope["llama_4_scaling_beta"] = float(growth)
}

// activations makes tensors of the two numbers that each layer of Apertus has for its
// activation, which the metadata have.
func activations(m *model, _ object) {
	for _, beta := range m.floats("xielu.beta") {
		if beta != 0.5 {
			m.fail("metadata: xielu.beta: %v is not supported, only 0.5", beta)
		}
	}
	for from, name := range map[string]string{"xielu.alpha_p": "alpha_p", "xielu.alpha_n": "alpha_n"} {
		for i, alpha := range m.floats(from) {
			if math.IsNaN(alpha) || math.IsInf(alpha, 0) {
				m.fail("metadata: %s: %v of layer %d is not a number", from, alpha, i)
			}
			m.constant(fmt.Sprintf("%slayers.%d.mlp.act_fn.%s", m.arch.prefix, i, name), fmt.Sprintf("blk.%d.attn_norm.weight", i), float32(alpha))
		}
	}
}

// splitQKV makes the projections of queries, keys and values of one that is all three.
func splitQKV(m *model, prefix, block string) {
	width := m.headDim()
	for _, suffix := range []string{".weight", ".bias"} {
		from := block + "attn_qkv" + suffix
		shape := m.shape(from)
		if shape == nil {
			continue
		}
		keys := m.integer("attention.head_count_kv", 1) * width
		if queries := shape[0] - 2*keys; queries != m.integer("attention.head_count", 0)*width {
			m.fail("tensor %q: %v are not the rows of queries, keys and values", from, shape)
			return
		}
		first := 0
		for _, part := range []struct {
			name string
			rows int
		}{{"q", shape[0] - 2*keys}, {"k", keys}, {"v", keys}} {
			v := View{Name: prefix + "self_attn." + part.name + "_proj" + suffix, Shape: append([]int{part.rows}, shape[1:]...)}
			v.Rows = []Run{{From: m.byName[from], First: first, Step: 1, N: part.rows}}
			m.Tensors = append(m.Tensors, v)
			first += part.rows
		}
	}
}

// joined makes a tensor of several whose rows follow each other, expert by expert.
func (m *model) joined(name string, from ...string) {
	first := m.shape(from[0])
	if len(first) < 2 {
		m.fail("tensor %q is missing", from[0])
		return
	}
	blocks := 1
	if len(first) == 3 {
		blocks = first[0]
	}
	v := View{Name: name, Shape: append([]int(nil), first...)}
	rows := 0
	for b := range blocks {
		for _, f := range from {
			shape := m.shape(f)
			if len(shape) != len(first) || shape[len(shape)-1] != first[len(first)-1] || len(first) == 3 && shape[0] != blocks {
				m.fail("tensor %q: %v does not go with %v of %q", f, shape, first, from[0])
				return
			}
			n := rowsOf(shape) / blocks
			v.Rows = append(v.Rows, Run{From: m.byName[f], First: b * n, Step: 1, N: n})
			rows += n
		}
	}
	v.Shape[len(first)-2] = rows / blocks
	m.Tensors = append(m.Tensors, v)
}
