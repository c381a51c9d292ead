package plan

// Kimi Linear: Kimi delta attention, a gated delta rule whose keys' channels
// decay each on their own, between layers of attention over latents without
// positions; experts as DeepSeek's. transformers/models/kimi_linear.

var (
	kimiLinearKeys = map[string]string{
		"max_position_embeddings": "model_max_length", "norm_topk_prob": "moe_renormalize", "n_group": "num_expert_group",
		"n_routed_experts": "num_experts", "num_experts_per_tok": "num_experts_per_token", "n_shared_experts": "num_shared_experts",
	}
	kimiLinearIgnored = []string{"num_nextn_predict_layers", "qk_head_dim", "rope_theta", "use_grouped_topk"}
)

func readKimiLinear(o *object, c *Config) {
	o.override("n_routed_experts", "num_local_experts")
	c.readCommon(o, defaults{
		vocab: 163840, hidden: 2304, intermediate: 9216, layers: 27, heads: 32, headDim: 64, maxPos: 1048576, eps: 1e-5,
	})
	if !o.absent("q_lora_rank") && o.raw("q_lora_rank") != nil {
		c.readMLA(o, MLAConfig{QueryRank: 1536, Rank: 512, Nope: 128, RopeDim: 64, Value: 128})
	} else {
		o.values["q_lora_rank"] = []byte("null")
		c.readMLA(o, MLAConfig{Rank: 512, Nope: 128, RopeDim: 64, Value: 128})
	}
	if !o.boolean("mla_use_nope", true) {
		o.fail("mla_use_nope", "false is not supported by this family")
	}
	o.only("moe_router_activation_func", "sigmoid")
	c.readExperts(o, expertDefaults{
		experts: 256, topK: 8, inner: 1024, shared: 1, groups: 1, topGroups: 1, dense: 1, normalize: true, scale: 2.446,
	})
	c.readMLPTypes(o)

	older := o.object("linear_attn_config")
	if older == nil {
		older = o.nothing("linear_attn_config")
	}
	heads := older.dimension("num_heads", o.dimension("linear_num_heads", 32, maxHeads), maxHeads)
	width := older.dimension("head_dim", o.dimension("linear_head_dim", 128, maxDimension), maxDimension)
	kernel := older.dimension("short_conv_kernel_size", o.dimension("linear_conv_kernel_dim", 4, 64), 64)
	c.Delta = &DeltaConfig{KeyHeads: heads, Heads: heads, KeyWidth: width, ValueWidth: width, Kernel: kernel}
	if kernel < 2 {
		o.fail("linear_conv_kernel_dim", "must be at least 2, found %d", kernel)
	}
	if int64(heads)*int64(width) > maxDimension {
		o.fail("linear_num_heads", "%d times linear_head_dim %d exceeds %d", heads, width, maxDimension)
	}
	attends, recurs := older.integers("full_attn_layers"), older.integers("kda_layers") // counted from 1
	kinds := map[int]string{}
	for _, i := range attends {
		kinds[i-1] = fullAttention
	}
	for _, i := range recurs {
		kinds[i-1] = linearAttention
	}
	c.readKinds(o, func(layer int) string {
		kind, ok := kinds[layer]
		switch {
		case attends != nil && recurs != nil && !ok:
			older.fail("kda_layers", "and full_attn_layers say nothing of layer %d", layer+1)
		case attends != nil && recurs != nil:
			return kind
		case layer > 0 && layer%4 == 0:
			return fullAttention
		}
		return linearAttention
	}, linearAttention, fullAttention)
}

func buildKimiLinear(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "input_layernorm")
		if c.Kinds[i] == linearAttention {
			h = l.kimiDelta(h)
		} else {
			h = l.mla(h)
		}
		x = b.Add(x, h)

		h = l.norm(x, "post_attention_layernorm")
		if c.MoE.Dense[i] {
			prefix := "mlp."
			if again := "block_sparse_moe."; !l.has(l.prefix+prefix+"gate_proj.weight") && l.has(l.prefix+again+"gate_proj.weight") {
				prefix = again // as transformers 5 saves it
			}
			x = b.Add(x, l.mlpOf(h, prefix, c.Intermediate))
			continue
		}
		logits := l.linear(h, "block_sparse_moe.gate", c.MoE.Experts, false)
		bias := l.Weight(l.prefix+"block_sparse_moe.gate.e_score_correction_bias", c.MoE.Experts)
		x = b.Add(x, l.experts(h, logits, c.MoE.Score, bias, "block_sparse_moe.experts.%d.", [3]string{"w1", "w3", "w2"}))
		x = b.Add(x, l.mlpOf(h, "block_sparse_moe.shared_experts.", c.MoE.Shared))
	}
	b.head(x)
}

// kimiDelta is Kimi delta attention (arXiv 2510.26692).
func (l layer) kimiDelta(x Var) Var {
	d := l.c.Delta
	n := d.Heads * d.KeyWidth
	conv := func(name string) Var {
		return l.shortConv(l.linear(x, "self_attn."+name+"_proj", n, false), "self_attn."+name+"_conv1d", d.Kernel, false, ActSilu)
	}
	narrow := func(name string) Var { // by way of one head's width
		h := l.linear(x, "self_attn."+name+"_a_proj", d.KeyWidth, false)
		return l.linear(h, "self_attn."+name+"_b_proj", n, false)
	}
	beta := l.linear(x, "self_attn.b_proj", d.Heads, false)
	y := l.GatedDelta(conv("q"), conv("k"), conv("v"), narrow("f"), beta, Delta{
		KeyHeads: d.Heads, Heads: d.Heads, KeyWidth: d.KeyWidth, ValueWidth: d.ValueWidth,
		LogA: l.Tensor([]int{d.Heads}, whole(l.prefix+"self_attn.A_log", 1, 1, d.Heads, 1)),
		Bias: l.Weight(l.prefix+"self_attn.dt_bias", n),
		Eps:  1e-6, Scale: 1 / sqrt(d.KeyWidth), Channels: true,
	})
	norm := l.Weight(l.prefix+"self_attn.o_norm.weight", d.ValueWidth)
	y = l.RMSNorm(y, Norm{Weight: norm, Eps: l.c.NormEps, Gate: narrow("g"), GateAt: GateSigmoid})
	return l.linear(y, "self_attn.o_proj", l.c.Hidden, false)
}
