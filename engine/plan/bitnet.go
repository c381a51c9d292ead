package plan

// BitNet b1.58: llama with a further norm before each half's last projection, and
// weights of -1, 0 and 1 with a scale. transformers/models/bitnet. Inputs of
// projections, which it rounds to 8 bits, are taken as they are.

func readBitNet(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 128256, hidden: 2560, intermediate: 6912, layers: 30, heads: 20, kvHeads: 5,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "relu2")
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.Rope = readRopeOf(o, c, 500000)
	if q := o.object("quantization_config"); q != nil {
		c.Ternary = true
		for key, only := range map[string]string{"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"} {
			if found := q.text(key, ""); found != only {
				q.fail(key, "%q is not supported by this family, only %s", found, only)
			}
		}
		for key, n := range map[string]int{"hidden_size": c.Hidden, "intermediate_size": c.Intermediate, "num_key_value_heads": c.KVWidth()} {
			if n%4 != 0 {
				o.fail(key, "gives projections of %d rows, of which four cannot share a byte", n)
			}
		}
	}
}

func buildBitNet(b *Builder, c *Config) {
	b.preNorm(
		func(l layer, x Var) Var {
			q := l.ternaryLinear(x, "self_attn.q_proj", c.QWidth(), c.AttentionBias)
			k := l.ternaryLinear(x, "self_attn.k_proj", c.KVWidth(), c.AttentionBias)
			v := l.ternaryLinear(x, "self_attn.v_proj", c.KVWidth(), c.AttentionBias)
			a := l.norm(l.attend(q, k, v, c.Rope), "self_attn.attn_sub_norm")
			return l.ternaryLinear(a, "self_attn.o_proj", c.Hidden, c.OutputBias)
		},
		func(l layer, x Var) Var {
			gate := l.ternaryLinear(x, "mlp.gate_proj", c.Intermediate, false)
			up := l.ternaryLinear(x, "mlp.up_proj", c.Intermediate, false)
			h := l.norm(l.Gate(Act{Kind: c.Activation}, gate, up), "mlp.ffn_sub_norm")
			return l.ternaryLinear(h, "mlp.down_proj", c.Hidden, false)
		},
	)
}

// ternaryLinear is linear with a matrix that may be stored as ternary numbers.
func (l layer) ternaryLinear(x Var, name string, out int, bias bool) Var {
	if !l.c.Ternary {
		return l.linear(x, name, out, bias)
	}
	name = l.prefix + name
	w := l.Tensor([]int{out, l.width(x)}, ternary(name+".weight", name+".weight_scale", out, l.width(x))...)
	var wBias Weight
	if bias {
		wBias = l.Weight(name+".bias", out)
	}
	return l.Linear(x, w, wBias)
}
