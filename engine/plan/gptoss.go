package plan

import "strconv"

// gpt-oss: experts with a clamped activation and biases, stored as MXFP4 or as
// 16-bit numbers, and attention with sinks, every other layer with a window.
// transformers/models/gpt_oss.

func readGPTOSS(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 201088, hidden: 2880, intermediate: 2880, layers: 36, heads: 64, kvHeads: 8, headDim: 64,
		maxPos: 131072, eps: 1e-5,
	})
	if quantization := o.object("quantization_config"); quantization != nil {
		if method := quantization.text("quant_method", ""); method != "mxfp4" {
			quantization.fail("quant_method", "%q is not supported by this family, only mxfp4", method)
		}
		quantization.texts("modules_to_not_convert")
		quantization.boolean("dequantize", false)
		if c.Hidden%32 != 0 || c.Intermediate%32 != 0 {
			o.fail("quantization_config", "mxfp4 has blocks of 32, which do not divide hidden_size %d and intermediate_size %d", c.Hidden, c.Intermediate)
		}
	}
	c.AttentionBias = o.boolean("attention_bias", true)
	c.OutputBias = c.AttentionBias
	c.readWindows(o, readWindow(o, 128), func(layer int) bool { return layer%2 == 0 })
	c.MoE = c.readMoE(o, "num_local_experts", 128, 4)
	c.MoE.MXFP4 = o.values["quantization_config"] != nil
	c.MoE.Limit = o.float("swiglu_limit", 7)
	c.MoE.Alpha = o.float("swiglu_alpha", 1.702)
	if c.MoE.Limit <= 0 {
		o.fail("swiglu_limit", "must be positive, found %g", c.MoE.Limit)
	}
	if o.object("rope_parameters") == nil && o.object("rope_scaling") == nil {
		o.values["rope_parameters"] = []byte(`{"rope_type":"yarn","factor":32,"beta_fast":32,"beta_slow":1,"truncate":false,"original_max_position_embeddings":4096}`)
	}
	if o.raw("rope_theta") == nil {
		o.values["rope_theta"] = []byte("150000")
	}
	c.Rope = readRope(o, c)
}

func buildGPTOSS(b *Builder, c *Config) {
	b.preNorm(layer.sinkAttention, func(l layer, x Var) Var {
		chosen, weights := l.Route(l.linear(x, "mlp.router", c.MoE.Experts, true), Routing{TopK: c.MoE.TopK, Score: ScoreSoftmaxChosen})
		return l.Experts(x, chosen, weights, l.gptOSSExperts())
	})
}

// gptOSSExperts are a layer's experts. Gate and up are interleaved in one
// tensor: [experts, out, in] in MXFP4, [experts, in, out] otherwise. GGUF has the
// projections of each expert.
func (l layer) gptOSSExperts() MLP {
	c, m := l.c, l.c.MoE
	prefix := l.prefix + "mlp.experts."
	separate := !l.has(prefix+"gate_up_proj_bias") && l.has(prefix+"gate_proj_bias")
	stack := func(projection, name string, first, step, out, of, in int) Weight {
		shape := []int{m.Experts, out, in}
		if separate {
			parts := make([]Part, m.Experts)
			for e := range parts {
				parts[e] = whole(prefix+strconv.Itoa(e)+"."+projection+".weight", out, in)
			}
			return l.Tensor(shape, parts...)
		}
		if m.MXFP4 {
			return l.Tensor(shape, mxfp4(prefix+name+"_blocks", prefix+name+"_scales", m.Experts, of, in).rows(first, step, m.Experts*out))
		}
		return l.Tensor(shape, whole(prefix+name, m.Experts, in, of).cols(first, step, out).transposed().blocks(m.Experts, 0, in)...)
	}
	bias := func(projection, name string, first, step, out, of int) Weight {
		if separate {
			return l.Weight(prefix+projection+"_bias", m.Experts, out)
		}
		return l.Tensor([]int{m.Experts, out}, whole(prefix+name+"_bias", m.Experts, of).cols(first, step, out))
	}
	const gate, up, down, both = "gate_proj", "up_proj", "down_proj", "gate_up_proj"
	return MLP{
		Act:      Act{Kind: ActClampedSwiGLU, Limit: m.Limit, Alpha: m.Alpha},
		Gate:     stack(gate, both, 0, 2, m.Inner, 2*m.Inner, c.Hidden),
		GateBias: bias(gate, both, 0, 2, m.Inner, 2*m.Inner),
		Up:       stack(up, both, 1, 2, m.Inner, 2*m.Inner, c.Hidden),
		UpBias:   bias(up, both, 1, 2, m.Inner, 2*m.Inner),
		Down:     stack(down, down, 0, 1, c.Hidden, c.Hidden, m.Inner),
		DownBias: bias(down, down, 0, 1, c.Hidden, c.Hidden),
	}
}
