package plan

import (
	"encoding/json"
	"math"
)

// Mamba 2: a state space in place of attention (arXiv 2405.21060).
// transformers/models/mamba2.

// SSMConfig is the shape of the state space.
type SSMConfig struct {
	Heads    int  // of what goes through the state
	HeadDim  int  // of a head
	Groups   int  // of what goes into and comes out of the state
	State    int  // numbers that a channel remembers
	Kernel   int  // positions that the convolution sees
	Bias     bool // the projection before it has one
	OutBias  bool // the projection after it has one
	ConvBias bool
	Min, Max float64 // of a step's length
	Norm     Gate    // where the gate of the norm comes in; GateNone: there is a gate alone
	NormEps  float64 // of this norm
}

// inner is the width of what goes through the state.
func (s *SSMConfig) inner() int { return s.Heads * s.HeadDim }

// mamba2Keys are what Mamba2Config calls the common keys.
var mamba2Keys = map[string]string{
	"num_attention_heads": "num_heads",
	"mamba_num_heads":     "num_heads",
	"mamba_head_dim":      "head_dim",
	"rms_norm_eps":        "layer_norm_epsilon",
}

func readMamba2(o *object, c *Config) {
	const anyLength = 1 << 17 // the state has no end; this bounds what a server plans for
	c.readCommon(o, defaults{
		vocab: 32768, hidden: 4096, intermediate: 1, layers: 64, heads: 128, headDim: 64,
		maxPos: anyLength, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	if c.Activation != ActSilu {
		o.fail("hidden_act", "must be silu in this family")
	}
	c.readSSM(o, SSMConfig{Heads: c.Heads, HeadDim: c.HeadDim, Groups: 8, State: 128}, o.dimension("expand", 2, maxDimension)*c.Hidden)
}

// readSSM reads the shape of the state space, of which s has the defaults. Heads
// are inner wide together; 0 if the config does not say. A head's width may be
// "auto": what follows from the others.
func (c *Config) readSSM(o *object, s SSMConfig, inner int) {
	s.Heads = o.dimension("mamba_num_heads", s.Heads, maxHeads)
	if string(o.raw("mamba_head_dim")) == `"auto"` || s.HeadDim == 0 && o.raw("mamba_head_dim") == nil {
		s.HeadDim = max(inner/s.Heads, 1)
	} else {
		s.HeadDim = o.dimension("mamba_head_dim", s.HeadDim, maxDimension)
	}
	s.Groups = o.dimension("n_groups", s.Groups, maxDimension)
	s.State = o.dimension("state_size", s.State, maxDimension)
	s.Kernel = o.dimension("conv_kernel", 4, 64)
	s.Bias = o.boolean("use_bias", false)
	s.OutBias = s.Bias
	s.ConvBias = o.boolean("use_conv_bias", true)
	s.Norm, s.NormEps = GateBefore, c.NormEps
	s.Min, s.Max = readStepLimit(o)
	c.SSM = &s
	switch {
	case *o.err != nil:
		return
	case inner != 0 && inner != s.inner():
		o.fail("expand", "times hidden_size is %d, but %s times %s is %d", inner, o.name("mamba_num_heads"), o.name("mamba_head_dim"), s.inner())
	case s.Heads%s.Groups != 0:
		o.fail("n_groups", "%d does not divide %s %d", s.Groups, o.name("mamba_num_heads"), s.Heads)
	case s.Kernel < 2:
		o.fail("conv_kernel", "must be at least 2, found %d", s.Kernel)
	case s.HeadDim%8 != 0:
		o.fail("mamba_head_dim", "must be a multiple of 8, found %d", s.HeadDim)
	case int64(s.Heads)*int64(s.HeadDim) > maxDimension:
		o.fail("mamba_head_dim", "%d times %s %d exceeds %d", s.HeadDim, o.name("mamba_num_heads"), s.Heads, maxDimension)
	case int64(s.Groups)*int64(s.State) > maxDimension:
		o.fail("state_size", "%d times %s %d exceeds %d", s.State, o.name("n_groups"), s.Groups, maxDimension)
	}
}

// readStepLimit reads time_step_limit, whose infinity transformers 5 writes as
// an object.
func readStepLimit(o *object) (least, most float64) {
	const key = "time_step_limit"
	var list []json.RawMessage
	if !o.get(key, "a list of two numbers", &list) {
		return 0, math.Inf(1)
	}
	var limits []float64
	for _, raw := range list {
		var number float64
		var special struct {
			Float string `json:"__float__"`
		}
		if json.Unmarshal(raw, &number) != nil {
			if json.Unmarshal(raw, &special) != nil || special.Float != "Infinity" {
				break
			}
			number = math.Inf(1)
		}
		limits = append(limits, number)
	}
	if len(limits) != 2 || len(list) != 2 || limits[0] < 0 || limits[1] < limits[0] {
		o.fail(key, "must be two numbers, 0 or more and in order, found %s", short(o.raw(key)))
		return 0, math.Inf(1)
	}
	return limits[0], limits[1]
}

func buildMamba2(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)
		x = b.Add(x, l.mamba2(l.norm(x, "norm"), "mixer."))
	}
	b.normHead(x, "norm_f")
}

// mamba2 is the mixer: a projection, a short convolution, the state space, and a
// norm with a gate.
func (l layer) mamba2(x Var, prefix string) Var {
	s := l.c.SSM
	weight := func(name string, shape ...int) Weight { return l.Weight(l.prefix+prefix+name, shape...) }
	inner, state := s.inner(), s.Groups*s.State
	conv := inner + 2*state

	in := l.linear(x, prefix+"in_proj", inner+conv+s.Heads, s.Bias)
	gate, dt, mixed := l.View(in, 0, inner), l.View(in, inner+conv, s.Heads), l.View(in, inner, conv)
	if l.c.Scales != nil {
		f := l.c.Scales.SSM
		gate, dt = l.scaled(gate, f[0]), l.scaled(dt, f[4])
		mixed = l.Join(l.scaled(l.View(mixed, 0, inner), f[1]), l.scaled(l.View(mixed, inner, state), f[2]), l.scaled(l.View(mixed, inner+state, state), f[3]))
	}
	h := l.shortConv(mixed, prefix+"conv1d", s.Kernel, s.ConvBias, ActSilu)
	y := l.SSM(l.View(h, 0, inner), l.View(h, inner, state), l.View(h, inner+state, state), dt, StateSpace{
		Groups: s.Groups, Heads: s.Heads, KeyWidth: s.State, ValueWidth: s.HeadDim,
		LogA: weight("A_log", s.Heads), Bias: weight("dt_bias", s.Heads), Skip: weight("D", s.Heads),
		Min: s.Min, Max: s.Max,
	})
	if s.Norm == GateNone {
		y = l.Gate(Act{Kind: ActSilu}, gate, y)
	} else {
		y = l.RMSNorm(y, Norm{Weight: weight("norm.weight", inner), Group: inner / s.Groups, Eps: s.NormEps, Gate: gate, GateAt: s.Norm})
	}
	return l.linear(y, prefix+"out_proj", l.c.Hidden, s.OutBias)
}
