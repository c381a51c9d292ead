package plan

// GPT-J and CodeGen: attention and MLP side by side on one norm, a part of each
// head rotated in neighbouring pairs, a bias on the output head.
// transformers/models/gptj, transformers/models/codegen.

// gptjKeys are what GPTJConfig and CodeGenConfig call the common keys.
var gptjKeys = map[string]string{
	"hidden_size":             "n_embd",
	"intermediate_size":       "n_inner",
	"num_hidden_layers":       "n_layer",
	"num_attention_heads":     "n_head",
	"max_position_embeddings": "n_positions",
	"hidden_act":              "activation_function",
	"rms_norm_eps":            "layer_norm_epsilon",
}

func readGPTJ(o *object, c *Config) {
	c.readCommon(o, defaults{
		plain: true,
		vocab: 50400, hidden: 4096, intermediate: 4 * o.dimension("hidden_size", 4096, maxDimension), layers: 28, heads: 16,
		maxPos: 2048, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "gelu_new")
	rotary := o.dimension("rotary_dim", 64, maxDimension)
	if rotary%2 != 0 || rotary > c.HeadDim {
		o.fail("rotary_dim", "%d must be an even number of the %d dimensions of a head", rotary, c.HeadDim)
		return
	}
	if c.Family == "codegen" && c.Hidden%codeGenBlocks != 0 {
		o.fail("n_embd", "%d is not a multiple of the %d blocks of this family's projections", c.Hidden, codeGenBlocks)
	}
	c.Rope = Rope{Freqs: frequencies(10000, rotary), Scale: 1, Interleaved: true}
}

func buildGPTJ(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layerOf("h", i)

		h := l.layerNorm(x, "ln_1")
		var q, k, v Var
		if c.Family == "codegen" {
			q, v, k = l.codeGenPart(h, 0), l.codeGenPart(h, 1), l.codeGenPart(h, 2)
		} else {
			q = l.linear(h, "attn.q_proj", c.QWidth(), false)
			k = l.linear(h, "attn.k_proj", c.KVWidth(), false)
			v = l.linear(h, "attn.v_proj", c.KVWidth(), false)
		}
		x = b.Add(x, l.linear(l.attend(q, k, v, c.Rope), "attn.out_proj", c.Hidden, false))
		x = b.Add(x, l.plainMLP(h, "mlp.fc_in", "mlp.fc_out", true))
	}
	b.biasedHead(b.layerNorm(b.Rows(x), b.prefix+"ln_f"), true)
}

// codeGenBlocks are the accelerators that CodeGen was trained on: its fused
// projection is the queries, values and keys of the first, then of the next.
const codeGenBlocks = 4

func (l layer) codeGenPart(x Var, n int) Var {
	width := l.c.Hidden / codeGenBlocks
	w := whole(l.prefix+"attn.qkv_proj.weight", 3*l.c.Hidden, l.c.Hidden)
	return l.Linear(x, l.Tensor([]int{l.c.Hidden, l.c.Hidden}, w.blocks(codeGenBlocks, n*width, width)...), 0)
}
