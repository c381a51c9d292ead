package plan

// Phi 3 and 3.5 mini and medium: llama whose projections are stored fused and
// whose rope may leave a part of each head alone. transformers/models/phi3.

func readPhi3(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32064, hidden: 3072, intermediate: 8192, layers: 32, heads: 32,
		maxPos: 4096, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.readWindow(o, readWindow(o, 0))
	if o.raw("original_max_position_embeddings") == nil {
		o.values["original_max_position_embeddings"] = []byte("4096") // wins over the one of rope_parameters
	}
	c.RotaryFactor = 1
	c.Rope = readRope(o, c)
}

func buildPhi3(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		h := l.norm(x, "input_layernorm")
		qkv := fused{l, h, "self_attn.qkv_proj", c.QWidth() + 2*c.KVWidth()}
		q := qkv.part(0, c.QWidth())
		k := qkv.part(c.QWidth(), c.KVWidth())
		v := qkv.part(c.QWidth()+c.KVWidth(), c.KVWidth())
		a := l.attend(q, k, v, c.Rope)
		x = b.Add(x, l.linear(a, "self_attn.o_proj", c.Hidden, false))

		h = l.norm(x, "post_attention_layernorm")
		x = b.Add(x, l.fusedMLP(h))
	}
	b.head(x)
}

// fusedMLP is the gated MLP with gate and up stored as one tensor.
func (l layer) fusedMLP(x Var) Var {
	n := l.c.Intermediate
	both := fused{l, x, "mlp.gate_up_proj", 2 * n}
	h := l.Gate(Act{Kind: l.c.Activation}, both.part(0, n), both.part(n, n))
	return l.linear(h, "mlp.down_proj", l.c.Hidden, false)
}

// fused is several projections of x stored as one tensor of rows rows.
type fused struct {
	l    layer
	x    Var
	name string
	rows int
}

func (f fused) part(first, rows int) Var {
	width := f.l.width(f.x)
	w := f.l.Tensor([]int{rows, width}, whole(f.l.prefix+f.name+".weight", f.rows, width).rows(first, 1, rows))
	return f.l.Linear(f.x, w, 0)
}
