package plan

import (
	"fmt"
	"strings"
)

// Mixtral: Mistral with eight MLPs a layer, two of which see each token.
// transformers/models/mixtral.

// MoEConfig is what a config says of a mixture of experts.
type MoEConfig struct {
	Experts   int
	TopK      int     // experts that see a token
	Inner     int     // width between an expert's projections
	Normalize bool    // the weights of the chosen add up to 1
	Jitter    float64 // of ScoreSparseMixer

	Dense        []bool  // per layer: it has an MLP in place of experts
	Score        Scoring // how they are chosen
	Corrected    bool    // by scores with a bias added
	Groups       int     // of experts; 0: one
	TopGroups    int     // that take part for a token
	GroupBest    bool    // a group is judged by its best expert, rather than its two best
	Scale        float64 // of the weights; 0: 1
	Shared       int     // width between the projections of the expert that sees every token; 0: none
	Latent       int     // width of what the experts are given and make; 0: the residual stream's
	Eps          float64 // added to the sum of scores that divides; 0: what most families add
	Limit, Alpha float64 // of ActClampedSwiGLU
	MXFP4        bool    // the experts are stored so
}

// readMoE reads how many experts there are, under key, and how many see a token.
func (c *Config) readMoE(o *object, key string, experts, topK int) *MoEConfig {
	const maxExperts = 1 << 12
	m := &MoEConfig{
		Experts: o.dimension(key, experts, maxExperts),
		TopK:    o.dimension("num_experts_per_tok", topK, maxExperts),
		Inner:   c.Intermediate,
		Dense:   make([]bool, c.Layers),
	}
	if m.Experts*c.Layers > maxParts {
		o.fail(key, "%d times num_hidden_layers %d exceeds %d", m.Experts, c.Layers, maxParts)
	}
	if m.TopK > m.Experts && *o.err == nil {
		o.fail("num_experts_per_tok", "is %d, of %d experts", m.TopK, m.Experts)
	}
	return m
}

func readMixtral(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8,
		maxPos: 131072, eps: 1e-5,
	})
	c.Activation = o.activation("hidden_act", "silu")
	c.readWindow(o, readWindow(o, 0))
	c.MoE = c.readMoE(o, "num_local_experts", 8, 2)
	c.MoE.Normalize = true
	c.Rope = readRopeOf(o, c, 1e6)
}

func buildMixtral(b *Builder, c *Config) {
	b.preNorm(layer.plainAttention, func(l layer, x Var) Var {
		logits := l.linear(x, "block_sparse_moe.gate", c.MoE.Experts, false)
		return l.experts(x, logits, ScoreSoftmax, 0, "block_sparse_moe.experts.%d.", mixtralNames)
	})
}

// mixtralNames are what Mixtral calls the projections of an expert.
var mixtralNames = [3]string{"w1", "w3", "w2"}

// experts sends each token of x to the experts that the logits prefer. Each
// expert has tensors of its own, called names (gate, up, down) below prefix,
// in which %d is its number. bias is added to the scores that are compared.
func (l layer) experts(x, logits Var, score Scoring, bias Weight, prefix string, names [3]string) Var {
	m := l.c.MoE
	chosen, weights := l.Route(logits, Routing{
		TopK: m.TopK, Score: score, Bias: bias, Groups: m.Groups, TopGroups: m.TopGroups, GroupBest: m.GroupBest,
		Normalize: m.Normalize, Eps: m.eps(score), Scale: m.Scale,
	})
	return l.Experts(x, chosen, weights, l.expertMLPs(prefix, names))
}

// expertMLPs are the projections of experts. Some checkpoints keep those of all
// experts together, as transformers 5 has them in memory.
func (l layer) expertMLPs(prefix string, names [3]string) MLP {
	m := l.c.MoE
	name := func(e int, projection string) string {
		return l.prefix + fmt.Sprintf(prefix, e) + projection + ".weight"
	}
	together := strings.TrimSuffix(prefix, "%d.")
	if !l.has(name(0, names[0])) && l.has(l.prefix+together+"gate_up_proj") {
		return l.fusedExperts(together+"gate_up_proj", together+"down_proj")
	}
	stack := func(projection string, rows, cols int) Weight {
		parts := make([]Part, m.Experts)
		for e := range parts {
			parts[e] = whole(name(e, projection), rows, cols)
		}
		return l.Tensor([]int{m.Experts, rows, cols}, parts...)
	}
	return MLP{
		Act:  Act{Kind: l.c.Activation},
		Gate: stack(names[0], m.Inner, l.c.Hidden),
		Up:   stack(names[1], m.Inner, l.c.Hidden),
		Down: stack(names[2], l.c.Hidden, m.Inner),
	}
}

// fusedExperts are the projections of experts in two tensors for all of them:
// gateUp [experts, gate and up, hidden] and down [experts, hidden, inner], or
// transposed, as the shape of gateUp tells.
func (l layer) fusedExperts(gateUp, down string) MLP {
	m := l.c.MoE
	if shape, ok := l.shape(l.prefix + gateUp); ok && len(shape) == 3 && shape[1] == l.c.Hidden && shape[2] == 2*m.Inner && shape[1] != shape[2] {
		return l.transposedExperts(gateUp, down)
	}
	both := whole(l.prefix+gateUp, m.Experts, 2*m.Inner, l.c.Hidden)
	return MLP{
		Act:  Act{Kind: l.c.Activation},
		Gate: l.Tensor([]int{m.Experts, m.Inner, l.c.Hidden}, both.blocks(m.Experts, 0, m.Inner)...),
		Up:   l.Tensor([]int{m.Experts, m.Inner, l.c.Hidden}, both.blocks(m.Experts, m.Inner, m.Inner)...),
		Down: l.Weight(l.prefix+down, m.Experts, l.c.Hidden, m.Inner),
	}
}

// transposedExperts are the same in tensors gateUp [experts, hidden, gate and up] and
// down [experts, inner, hidden].
func (l layer) transposedExperts(gateUp, down string) MLP {
	m, hidden := l.c.MoE, l.c.Hidden
	both, last := whole(l.prefix+gateUp, m.Experts, hidden, 2*m.Inner), whole(l.prefix+down, m.Experts, m.Inner, hidden)
	stack := func(p Part, rows, cols int) Weight {
		return l.Tensor([]int{m.Experts, rows, cols}, p.transposed().blocks(m.Experts, 0, cols)...)
	}
	return MLP{
		Act:  Act{Kind: l.c.Activation},
		Gate: stack(both.cols(0, 1, m.Inner), m.Inner, hidden),
		Up:   stack(both.cols(m.Inner, 1, m.Inner), m.Inner, hidden),
		Down: stack(last, hidden, m.Inner),
	}
}

// eps is what transformers adds to the sum of sigmoids that it divides by.
func (m *MoEConfig) eps(score Scoring) float64 {
	if m.Eps > 0 {
		return m.Eps
	}
	if score == ScoreSigmoid {
		return 1e-20
	}
	return 0
}
