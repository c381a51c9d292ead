package plan

// GPT-NeoX and Pythia: attention and MLP side by side on one residual, queries,
// keys and values interleaved by head, a quarter of each head rotated.
// transformers/models/gpt_neox.

// neoxKeys are what GPTNeoXConfig calls the common keys; the last two as
// transformers 4 does.
var neoxKeys = map[string]string{
	"rms_norm_eps":          "layer_norm_eps",
	"partial_rotary_factor": "rotary_pct",
	"rope_theta":            "rotary_emb_base",
}

func readNeoX(o *object, c *Config) {
	c.readCommon(o, defaults{
		plain: true,
		vocab: 50432, hidden: 6144, intermediate: 24576, layers: 44, heads: 64,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "gelu")
	c.AttentionBias = o.boolean("attention_bias", true)
	c.ParallelResidual = o.boolean("use_parallel_residual", true)
	c.RotaryFactor = 0.25
	c.Rope = readRope(o, c)
}

func buildNeoX(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		q, k, v := l.fusedQKV(l.layerNorm(x, "input_layernorm"), "attention.query_key_value", c.AttentionBias)
		a := l.linear(l.attend(q, k, v, c.Rope), "attention.dense", c.Hidden, c.AttentionBias)
		in := x
		x = b.Add(x, a)
		if !c.ParallelResidual {
			in = x
		}
		h := l.layerNorm(in, "post_attention_layernorm")
		x = b.Add(x, l.plainMLP(h, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", true))
	}
	b.layerNormHead(x, "final_layer_norm")
}

// fusedQKV is the queries, keys and values of x from one projection whose rows
// are, KV head by KV head, those of its queries, its key and its value.
func (l layer) fusedQKV(x Var, name string, bias bool) (q, k, v Var) {
	c := l.c
	all := c.QWidth() + 2*c.KVWidth()
	part := func(first, n int) Var {
		w := whole(l.prefix+name+".weight", all, l.width(x)).blocks(c.KVHeads, first, n)
		var wBias Weight
		if bias {
			wBias = l.Tensor([]int{n * c.KVHeads}, whole(l.prefix+name+".bias", all).blocks(c.KVHeads, first, n)...)
		}
		return l.Linear(x, l.Tensor([]int{n * c.KVHeads, l.width(x)}, w...), wBias)
	}
	queries := c.QWidth() / c.KVHeads
	return part(0, queries), part(queries, c.HeadDim), part(queries+c.HeadDim, c.HeadDim)
}
