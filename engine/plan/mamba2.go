package plan

import (
	"encoding/json"
	"math"
)

// Mamba 2: a state space in place of attention (arXiv 2405.21060).
// transformers/models/mamba2.

// SSMConfig is the shape of the state space.
type SSMConfig struct {
	Groups    int // of what goes into and comes out of the state
	State     int // numbers that a channel remembers
	Kernel    int // positions that the convolution sees
	Bias      bool
	ConvBias  bool
	Min, Max  float64 // of a step's length
	ConvWidth int
}

// mamba2Keys are what Mamba2Config calls the common keys.
var mamba2Keys = map[string]string{
	"num_attention_heads": "num_heads",
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
	s := &SSMConfig{
		Groups:   o.dimension("n_groups", 8, maxDimension),
		State:    o.dimension("state_size", 128, maxDimension),
		Kernel:   o.dimension("conv_kernel", 4, 64),
		Bias:     o.boolean("use_bias", false),
		ConvBias: o.boolean("use_conv_bias", true),
	}
	inner := o.dimension("expand", 2, maxDimension) * c.Hidden
	switch {
	case *o.err != nil:
		return
	case inner != c.QWidth():
		o.fail("expand", "times hidden_size is %d, but num_heads times head_dim is %d", inner, c.QWidth())
	case c.Heads%s.Groups != 0:
		o.fail("n_groups", "%d does not divide num_heads %d", s.Groups, c.Heads)
	case s.Kernel < 2:
		o.fail("conv_kernel", "must be at least 2, found %d", s.Kernel)
	case int64(s.Groups)*int64(s.State) > maxDimension:
		o.fail("state_size", "%d times n_groups %d exceeds %d", s.State, s.Groups, maxDimension)
	}
	s.ConvWidth = inner + 2*s.Groups*s.State
	s.Min, s.Max = readStepLimit(o)
	c.SSM = s
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
	s := c.SSM
	inner, state := c.QWidth(), s.Groups*s.State
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)
		weight := func(name string, shape ...int) Weight { return l.Weight(l.prefix+"mixer."+name, shape...) }

		in := l.linear(l.norm(x, "norm"), "mixer.in_proj", inner+s.ConvWidth+c.Heads, s.Bias)
		gate, dt := l.View(in, 0, inner), l.View(in, inner+s.ConvWidth, c.Heads)
		var bias Weight
		if s.ConvBias {
			bias = weight("conv1d.bias", s.ConvWidth)
		}
		conv := l.Tensor([]int{s.ConvWidth, s.Kernel}, whole(l.prefix+"mixer.conv1d.weight", s.ConvWidth, 1, s.Kernel))
		h := l.Conv(l.View(in, inner, s.ConvWidth), conv, bias, ActSilu)
		y := l.SSM(l.View(h, 0, inner), l.View(h, inner, state), l.View(h, inner+state, state), dt, StateSpace{
			Groups: s.Groups, Heads: c.Heads, KeyWidth: s.State, ValueWidth: c.HeadDim,
			LogA: weight("A_log", c.Heads), Bias: weight("dt_bias", c.Heads), Skip: weight("D", c.Heads),
			Min: s.Min, Max: s.Max,
		})
		y = l.RMSNorm(y, Norm{Weight: weight("norm.weight", inner), Group: inner / s.Groups, Eps: c.NormEps, Gate: gate, GateAt: GateBefore})
		x = b.Add(x, l.linear(y, "mixer.out_proj", c.Hidden, s.Bias))
	}
	norm := b.Weight(b.prefix+"norm_f.weight", c.Hidden)
	b.Logits(b.RMSNorm(b.Rows(x), Norm{Weight: norm, Eps: c.NormEps}), b.output(), 0, 1, 0)
}
