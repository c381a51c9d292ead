package plan

// Mamba: a selective scan instead of attention (arXiv 2312.00752).
// transformers/models/mamba and falcon_mamba.

// ScanConfig is the shape of the selective scan.
type ScanConfig struct {
	Inner    int // channels
	State    int // numbers that a channel remembers
	Rank     int // of what the lengths of steps are made of
	Kernel   int // positions that the convolution sees
	Bias     bool
	ConvBias bool
	Norms    bool    // what becomes steps, and what goes into and comes out of the state, is normalized
	Learned  bool    // these norms have weights
	NormEps  float64 // of these norms
}

var (
	mambaKeys    = map[string]string{"rms_norm_eps": "layer_norm_epsilon"}
	mambaIgnored = []string{
		"d_inner", "d_model", "fused_add_norm", "intermediate_size", "n_layer", "pad_vocab_size_multiple", "rescale_prenorm_residual",
		"residual_in_fp32", "rms_norm", "ssm_cfg", "time_step_floor", "time_step_init_scheme", "time_step_max", "time_step_min",
		"time_step_scale", "use_associative_scan", "use_falcon_mambapy", "use_mambapy",
	}
	mambaPrefixes = []string{"backbone.", "model.", ""}
)

func readMamba(o *object, c *Config) {
	const anyLength = 1 << 17 // the state has no end; this bounds what a server plans for
	c.readCommon(o, defaults{
		vocab: 50280, hidden: 768, intermediate: 1, layers: 32, heads: 1, plain: true, headDim: 8, maxPos: anyLength, eps: 1e-5, tied: true,
	})
	c.readScan(o)
}

func readFalconMamba(o *object, c *Config) {
	readMamba(o, c)
	c.Scan.Norms, c.Scan.NormEps = true, o.float("mixer_rms_eps", 1e-6)
	if c.Scan.NormEps < 0 || c.Scan.NormEps >= 1 {
		o.fail("mixer_rms_eps", "must be 0 to 1, found %g", c.Scan.NormEps)
	}
}

// readScan reads the shape of the selective scan, and the activation, which its
// convolution has too.
func (c *Config) readScan(o *object) {
	c.Activation = o.activation("hidden_act", "silu")
	if c.Activation != ActSilu {
		o.fail("hidden_act", "must be silu in this family")
	}
	s := &ScanConfig{
		Inner:    o.dimension("expand", 2, maxDimension) * c.Hidden,
		State:    o.dimension("state_size", 16, maxDimension),
		Rank:     (c.Hidden + 15) / 16,
		Kernel:   o.dimension("conv_kernel", 4, 64),
		Bias:     o.boolean("use_bias", false),
		ConvBias: o.boolean("use_conv_bias", true),
		NormEps:  c.NormEps,
	}
	if rank := o.raw("time_step_rank"); rank != nil && string(rank) != `"auto"` {
		s.Rank = o.dimension("time_step_rank", s.Rank, maxDimension)
	}
	if s.Inner > maxDimension {
		o.fail("expand", "times hidden_size is %d, which exceeds %d", s.Inner, maxDimension)
	}
	if s.Kernel < 2 {
		o.fail("conv_kernel", "must be at least 2, found %d", s.Kernel)
	}
	c.Scan = s
}

func buildMamba(b *Builder, c *Config) {
	if older := b.prefix + "embedding.weight"; b.has(older) && !b.has(b.prefix+b.embedName) {
		b.embedName = "embedding.weight"
	}
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)
		x = b.Add(x, l.mamba(l.norm(x, "norm"), "mixer."))
	}
	b.normHead(x, "norm_f")
}

// mamba is the mixer: a short convolution, the selective scan, and a gate.
func (l layer) mamba(x Var, prefix string) Var {
	s := l.c.Scan
	weight := func(name string, shape ...int) Weight { return l.Weight(l.prefix+prefix+name, shape...) }
	in := l.linear(x, prefix+"in_proj", 2*s.Inner, s.Bias)
	h := l.shortConv(l.View(in, 0, s.Inner), prefix+"conv1d", s.Kernel, s.ConvBias, ActSilu)

	selected := l.linear(h, prefix+"x_proj", s.Rank+2*s.State, false)
	part := func(first, width int, norm string) Var {
		v := l.View(selected, first, width)
		switch {
		case s.Learned:
			return l.RMSNorm(v, Norm{Weight: weight(norm+".weight", width), Eps: s.NormEps})
		case s.Norms:
			return l.RMSNorm(v, Norm{Eps: s.NormEps})
		}
		return v
	}
	dt := l.linear(part(0, s.Rank, "dt_layernorm"), prefix+"dt_proj", s.Inner, true)
	y := l.SelectiveScan(h, dt, part(s.Rank, s.State, "b_layernorm"), part(s.Rank+s.State, s.State, "c_layernorm"),
		weight("A_log", s.Inner, s.State), weight("D", s.Inner))
	y = l.Gate(Act{Kind: ActSilu}, l.View(in, s.Inner, s.Inner), y)
	return l.linear(y, prefix+"out_proj", l.c.Hidden, s.Bias)
}
