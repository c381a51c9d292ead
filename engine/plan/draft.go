package plan

import (
	"slices"
	"strconv"
)

// Heads that predict one more token (Plan.Draft): at each position a layer of its own is
// given what the model made of the token there, and the token after it; it predicts the
// one after that. Those of the families here are alike but for the names of their tensors
// (DeepSeek V3, arXiv 2412.19437 §2.2). What they are given is the model's state after
// its last norm, as in vLLM. They share the model's embedding and output head, of which
// some checkpoints have copies.
//
// To predict more than one token a head is applied again, to its own state after its own
// last norm and to the token that it has predicted, as SGLang does, and vLLM with those of
// Qwen and Nemotron. Of a checkpoint with several heads the first one predicts all tokens:
// each of the others would have to compute every token of the text, too.

// draftLayer begins the draft and returns its layer, whose tensors are below prefix.
func (b *Builder) draftLayer(prefix string) layer {
	b.ops = len(b.plan.Ops)
	c := *b.c // with one layer more, which sees all positions
	c.Windows = append(slices.Clone(c.Windows), 0)
	if c.MoE != nil {
		m := *c.MoE
		m.Dense = append(slices.Clone(m.Dense), false)
		c.MoE = &m
	}
	b.c = &c
	return layer{b, c.Layers, prefix}
}

// draftInput joins norms of the next token's embedding and of the model's last state,
// and projects them. embed is an embedding of the layer's own, if there is one.
func (l layer) draftInput(embed, embedNorm, hiddenNorm, project string) Var {
	norm := func(x Var, name string) Var {
		return l.RMSNorm(x, Norm{Weight: l.Weight(name+".weight", l.c.Hidden), Eps: l.c.NormEps, Shift: l.c.NormOffset})
	}
	w := l.embedding()
	if l.has(embed) {
		w = l.Weight(embed, l.c.Vocab, l.embedWidth())
	}
	state := l.RMSNorm(l.last, l.lastNorm)
	x := l.Join(norm(l.Embed(w, l.c.EmbedScale), embedNorm), norm(state, hiddenNorm))
	return l.Linear(x, l.Weight(project+".weight", l.c.Hidden, 2*l.c.Hidden), 0)
}

// draftHead ends the draft with the model's output head.
func (b *Builder) draftHead(x Var, norm string) {
	x = b.RMSNorm(b.Rows(x), Norm{Weight: b.Weight(norm+".weight", b.c.Hidden), Eps: b.c.NormEps, Shift: b.c.NormOffset})
	b.Logits(x, b.output(), 0, b.c.LogitScale, b.c.LogitCap)
}

// nextLayer is the draft of checkpoints that store it as the layer after the last.
func (b *Builder) nextLayer(attention, mlp func(l layer, x Var) Var) {
	prefix := b.prefix + "layers." + strconv.Itoa(b.c.Layers) + "."
	if !b.has(prefix + "eh_proj.weight") {
		return
	}
	l := b.draftLayer(prefix)
	x := l.draftInput("", prefix+"enorm", prefix+"hnorm", prefix+"eh_proj")
	b.draftHead(l.preNormed(x, attention, mlp), prefix+"shared_head.norm")
}
