package plan

// Jamba: Mamba's mixer in most layers, attention without positions in the others,
// and experts instead of some MLPs. transformers/models/jamba.

var (
	jambaKeys = map[string]string{
		"expand": "mamba_expand", "state_size": "mamba_d_state", "conv_kernel": "mamba_d_conv", "time_step_rank": "mamba_dt_rank",
		"use_bias": "mamba_proj_bias", "use_conv_bias": "mamba_conv_bias", "num_experts": "num_local_experts",
	}
	jambaIgnored = []string{
		"calc_logits_for_entire_prompt", "mamba_inner_layernorms", "n_ctx", "num_logits_to_keep", "use_associative_scan",
		"use_mamba_kernels", "use_mambapy", "layer_types", "layers_block_type", "layers_num_experts",
	}
)

func readJamba(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 65536, hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8, maxPos: 262144, eps: 1e-6,
	})
	c.readScan(o)
	c.Scan.Norms, c.Scan.Learned = true, true
	// every reports the layers that have what begins with prefix.
	every := func(prefix string, period, offset int) func(int) bool {
		period = o.dimension(prefix+"_period", period, maxLayers)
		if offset = o.integer(prefix+"_offset", offset); offset < 0 || offset >= period {
			o.fail(prefix+"_offset", "must be 0 or more and below %s_period %d, found %d", prefix, period, offset)
		}
		return func(layer int) bool { return layer%period == offset }
	}
	attends := every("attn_layer", 8, 4)
	c.Kinds = make([]string, c.Layers)
	for i := range c.Kinds {
		if c.Kinds[i] = linearAttention; attends(i) {
			c.Kinds[i] = fullAttention
		}
	}
	c.MoE = c.readMoE(o, "num_experts", 16, 2)
	mixes := every("expert_layer", 2, 1)
	for i := range c.MoE.Dense {
		c.MoE.Dense[i] = !mixes(i) || c.MoE.Experts == 1
	}
}

func buildJamba(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "input_layernorm")
		if c.Kinds[i] == linearAttention {
			h = l.mamba(h, "mamba.")
		} else {
			q, k, v := l.qkv(h)
			h = l.linear(l.attention(q, k, v, Attention{}), "self_attn.o_proj", c.Hidden, false)
		}
		x = b.Add(x, h)

		h = l.norm(x, "pre_ff_layernorm")
		if c.MoE.Dense[i] {
			h = l.mlpOf(h, "feed_forward.", c.Intermediate)
		} else {
			logits := l.linear(h, "feed_forward.router", c.MoE.Experts, false)
			h = l.experts(h, logits, ScoreSoftmax, 0, "feed_forward.experts.%d.", mlpNames)
		}
		x = b.Add(x, h)
	}
	b.normHead(x, "final_layernorm")
}
