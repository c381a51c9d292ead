package plan

import "strconv"

// layer writes parts that decoder layers have in common, with the tensor
// names they share. name arguments are relative to the layer and without
// ".weight".
type layer struct {
	*Builder
	index  int
	prefix string
}

func (b *Builder) layer(i int) layer {
	return layer{b, i, b.prefix + "layers." + strconv.Itoa(i) + "."}
}

// norm is an RMS norm over the whole row.
func (l layer) norm(x Value, name string) Value {
	return l.RMSNorm(x, l.Weight(l.prefix+name+".weight", l.width(x)), l.c.NormEps, l.c.NormOffset)
}

// headNorm is an RMS norm over each head of x.
func (l layer) headNorm(x Value, name string) Value {
	return l.RMSNorm(x, l.Weight(l.prefix+name+".weight", l.c.HeadDim), l.c.NormEps, l.c.NormOffset)
}

// linear is a projection to out columns.
func (l layer) linear(x Value, name string, out int, bias bool) Value {
	w, wBias := l.Weight(l.prefix+name+".weight", out, l.width(x)), noWeight
	if bias {
		wBias = l.Weight(l.prefix+name+".bias", out)
	}
	return l.Linear(x, w, wBias)
}

// qkv is the queries, keys and values of x, from projections of their own.
func (l layer) qkv(x Value) (q, k, v Value) {
	c := l.c
	q = l.linear(x, "self_attn.q_proj", c.QWidth(), c.AttentionBias)
	k = l.linear(x, "self_attn.k_proj", c.KVWidth(), c.AttentionBias)
	v = l.linear(x, "self_attn.v_proj", c.KVWidth(), c.AttentionBias)
	return q, k, v
}

// attend rotates queries and keys, stores keys and values, and attends.
func (l layer) attend(q, k, v Value, r Rope) Value {
	q = l.Rope(q, r, l.c.HeadDim)
	k = l.Rope(k, r, l.c.HeadDim)
	l.KVWrite(l.index, k, v, l.c.HeadDim)
	return l.Attention(l.index, q, l.c)
}

// mlp is the gated MLP: down(act(gate(x)) * up(x)).
func (l layer) mlp(x Value) Value {
	gate := l.linear(x, "mlp.gate_proj", l.c.Intermediate, l.c.MLPBias)
	up := l.linear(x, "mlp.up_proj", l.c.Intermediate, l.c.MLPBias)
	return l.linear(l.Gate(l.c.Activation, gate, up), "mlp.down_proj", l.c.Hidden, l.c.MLPBias)
}

// embed is the first operation: the tokens' embeddings.
func (b *Builder) embed() Value { return b.Embed(b.embedding(), b.c.EmbedScale) }

// head ends the plan: final norm and logits of the rows wanted.
func (b *Builder) head(x Value) {
	norm := b.Weight(b.prefix+"norm.weight", b.c.Hidden)
	x = b.RMSNorm(b.Rows(x), norm, b.c.NormEps, b.c.NormOffset)
	b.Logits(x, b.output(), b.c.LogitCap)
}

// outputNames are what checkpoints call the output head.
var outputNames = []string{"lm_head.weight", "language_model.lm_head.weight"}

// embedding is the token embedding, or, when embedding and output head are
// one tensor, whichever name the checkpoint has kept.
func (b *Builder) embedding() Weight {
	name := b.prefix + "embed_tokens.weight"
	if b.c.Tied && !b.has(name) {
		for _, head := range outputNames {
			if b.has(head) {
				name = head
				break
			}
		}
	}
	return b.Weight(name, b.c.Vocab, b.c.Hidden)
}

// output is the output head. A checkpoint that has one means it, even where
// its config says that the embedding serves as head; so transformers 5.
func (b *Builder) output() Weight {
	for _, name := range outputNames {
		if b.has(name) {
			return b.Weight(name, b.c.Vocab, b.c.Hidden)
		}
	}
	if !b.c.Tied {
		b.fail("tensor %q is missing, and config.json says tie_word_embeddings false: expected [%d %d]", outputNames[0], b.c.Vocab, b.c.Hidden)
	}
	return b.embedding()
}
