package plan

import "math"

// GPT-2: layer norms, learned positions, projections stored [in, out] (Conv1D),
// queries, keys and values as one. transformers/models/gpt2.

// gpt2Keys are what GPT2Config calls the common keys.
var gpt2Keys = map[string]string{
	"hidden_size":             "n_embd",
	"intermediate_size":       "n_inner",
	"num_hidden_layers":       "n_layer",
	"num_attention_heads":     "n_head",
	"max_position_embeddings": "n_positions",
	"hidden_act":              "activation_function",
	"rms_norm_eps":            "layer_norm_epsilon",
}

func readGPT2(o *object, c *Config) {
	hidden := o.dimension("hidden_size", 768, maxDimension)
	c.readCommon(o, defaults{
		plain: true,
		vocab: 50257, hidden: 768, intermediate: 4 * hidden, layers: 12, heads: 12,
		maxPos: 1024, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "gelu_new")
	if !o.boolean("scale_attn_weights", true) {
		c.QueryScale = 1
	}
	c.ScaleByLayer = o.boolean("scale_attn_by_inverse_layer_idx", false)
}

func buildGPT2(b *Builder, c *Config) {
	x := b.Add(b.embed(), b.EmbedPosition(b.Weight(b.prefix+"wpe.weight", c.MaxPos, c.Hidden), 0))
	for i := range c.Layers {
		l := b.layerOf("h", i)

		h := l.layerNorm(x, "ln_1")
		var qkv [3]Var
		for j := range qkv {
			qkv[j] = l.conv1D(h, "attn.c_attn", j*c.Hidden, c.Hidden, 3*c.Hidden)
		}
		scale := c.QueryScale
		if c.ScaleByLayer {
			scale /= float64(i + 1)
		}
		a := l.attention(qkv[0], qkv[1], qkv[2], Attention{Scale: scale})
		x = b.Add(x, l.conv1D(a, "attn.c_proj", 0, c.Hidden, c.Hidden))

		h = b.Activate(c.Activation, l.conv1D(l.layerNorm(x, "ln_2"), "mlp.c_fc", 0, c.Intermediate, c.Intermediate))
		x = b.Add(x, l.conv1D(h, "mlp.c_proj", 0, c.Hidden, c.Hidden))
	}
	b.layerNormHead(x, "ln_f")
}

// conv1D is a projection whose matrix is stored [width(x), of]: out columns
// from first on.
func (l layer) conv1D(x Var, name string, first, out, of int) Var {
	w := whole(l.prefix+name+".weight", l.width(x), of).cols(first, 1, out).transposed()
	bias := whole(l.prefix+name+".bias", of).rows(first, 1, out)
	return l.Linear(x, l.Tensor([]int{out, l.width(x)}, w), l.Tensor([]int{out}, bias))
}

// alibiSlopes returns the slope of each head's bias by distance (ALiBi, arXiv
// 2108.12409): a geometric series down to 2^-most for the greatest power of two of
// heads, and every second term of the next finer one for those left.
func alibiSlopes(heads int, most float64) []float32 {
	power := 1 << int(math.Log2(float64(heads)))
	slopes := make([]float32, heads)
	for h := range slopes {
		if h < power {
			slopes[h] = float32(math.Pow(2, -most/float64(power)*float64(h+1)))
		} else {
			slopes[h] = float32(math.Pow(2, -most/float64(2*power)*float64(2*(h-power)+1)))
		}
	}
	return slopes
}
