package plan

// Falcon-H1: Mamba 2's mixer beside attention in every layer, and factors at all
// places. transformers/models/falcon_h1.

// ScaleConfig is the factors of Falcon-H1.
type ScaleConfig struct {
	AttentionIn, AttentionOut float64
	SSMIn, SSMOut             float64
	SSM                       []float64 // of the parts of the mixer's projection: gate, x, B, C and steps
	MLP                       []float64 // of the gate, and of the result
}

var falconH1Ignored = []string{
	"mamba_chunk_size", "mamba_use_mlp", "mlp_expansion_factor", "num_logits_to_keep", "time_step_floor", "time_step_max", "time_step_min",
	"time_step_rank",
}

func readFalconH1(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 128000, hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8, maxPos: 8192, eps: 1e-5,
	})
	inner := o.dimension("expand", 2, maxDimension) * c.Hidden
	if o.absent("mamba_d_ssm") || o.raw("mamba_d_ssm") != nil {
		inner = o.dimension("mamba_d_ssm", 1024, maxDimension)
	}
	c.readBambaMixer(o, inner)
	c.SSM.OutBias = o.boolean("projectors_bias", false)
	switch before := o.boolean("mamba_norm_before_gate", true); {
	case !o.boolean("mamba_rms_norm", false):
		c.SSM.Norm = GateNone
	case before:
		c.SSM.Norm = GateAfter
	}
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MLPBias = o.boolean("mlp_bias", false)
	c.EmbedScale = o.float("embedding_multiplier", 1)
	c.LogitScale = o.float("lm_head_multiplier", 1)
	c.QueryScale *= o.float("key_multiplier", 1)
	c.Scales = &ScaleConfig{
		AttentionIn: o.float("attention_in_multiplier", 1), AttentionOut: o.float("attention_out_multiplier", 1),
		SSMIn: o.float("ssm_in_multiplier", 1), SSMOut: o.float("ssm_out_multiplier", 1),
		SSM: o.multipliers("ssm_multipliers", 5), MLP: o.multipliers("mlp_multipliers", 2),
	}
	o.texts("layer_types") // all are alike
	c.Rope = readRopeOf(o, c, 10000)
}

// multipliers reads n factors, each 1 where there are none.
func (o *object) multipliers(key string, n int) []float64 {
	list := o.floats(key)
	if list == nil {
		for range n {
			list = append(list, 1)
		}
	}
	if len(list) != n {
		o.fail(key, "must have %d numbers, found %d", n, len(list))
	}
	return list
}

func buildFalconH1(b *Builder, c *Config) {
	s := c.Scales
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "input_layernorm")
		mixed := l.mamba2(l.scaled(h, s.SSMIn), "mamba.")
		q, k, v := l.qkv(l.scaled(h, s.AttentionIn))
		a := l.linear(l.attend(q, k, v, c.Rope), "self_attn.o_proj", c.Hidden, c.OutputBias)
		x = b.AddScaled(b.AddScaled(x, mixed, s.SSMOut), a, s.AttentionOut)

		h = l.norm(x, "pre_ff_layernorm")
		gate := l.scaled(l.linear(h, "feed_forward.gate_proj", c.Intermediate, c.MLPBias), s.MLP[0])
		up := l.linear(h, "feed_forward.up_proj", c.Intermediate, c.MLPBias)
		h = l.linear(l.Gate(Act{Kind: c.Activation}, gate, up), "feed_forward.down_proj", c.Hidden, c.MLPBias)
		x = b.AddScaled(x, h, s.MLP[1])
	}
	b.normHead(x, "final_layernorm")
}

// scaled is x times factor.
func (b *Builder) scaled(x Var, factor float64) Var {
	if factor == 1 {
		return x
	}
	return b.Scale(x, factor, 0)
}
