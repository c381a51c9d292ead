package plan

import (
	"fmt"
	"math"
	"slices"
)

// Gemma 3n's language model: several residual streams, of which each layer
// predicts all, works on one and corrects all (AltUp, arXiv 2301.13310), a low-rank
// path beside the attention (LAuReL, arXiv 2411.07501), MLPs that keep the largest
// of their activations, and what Gemma 4 took over. transformers/models/gemma3n.

// AltUpConfig is what a config says of Gemma 3n beside Gemma4Config.
type AltUpConfig struct {
	Streams, Active int // of the residual, and the one that layers work on
	ScaleActive     bool
	LaurelRank      int
	Inner           []int     // of each layer's MLP
	Dropped         []float64 // share of its activations that is dropped, per layer
}

func readGemma3nText(o *object, c *Config) {
	inner := o.intermediateSizes()
	c.readCommon(o, defaults{
		vocab: 262400, hidden: 2048, intermediate: 16384, layers: 35, heads: 8, kvHeads: 2, headDim: 256,
		maxPos: 32768, eps: 1e-6, tied: true,
	})
	c.readGemma4Common(o)
	c.LogitCap = readCap(o, "final_logit_softcapping", 30)
	c.readWindows(o, readWindow(o, 512), func(layer int) bool { return (layer+1)%5 != 0 })
	a := &AltUpConfig{
		Streams:     o.dimension("altup_num_inputs", 4, MaxIn),
		Active:      o.integer("altup_active_idx", 0),
		ScaleActive: o.boolean("altup_correct_scale", true),
		LaurelRank:  o.dimension("laurel_rank", 64, maxDimension),
		Inner:       inner,
	}
	if a.Streams < 2 || a.Active < 0 || a.Active >= a.Streams {
		o.fail("altup_active_idx", "must be 0 to less than altup_num_inputs %d, which must be 2 or more, found %d", a.Streams, a.Active)
	}
	if inner != nil && len(inner) != c.Layers {
		o.fail("intermediate_size", "has %d entries, expected num_hidden_layers %d", len(inner), c.Layers)
	}
	if *o.err != nil {
		return
	}
	if inner == nil {
		a.Inner = slices.Repeat([]int{c.Intermediate}, c.Layers)
	}
	c.AltUp, c.Gemma4 = a, &Gemma4Config{HeadDim: c.HeadDim, KVHeads: c.KVHeads}
	c.readSparsity(o)
	c.readSharedLayers(o, 15)
	c.readPerLayer(o, 256)
	if c.Gemma4.PerLayer == 0 {
		o.fail("hidden_size_per_layer_input", "must be above 0 in this family")
	}
	c.readGemma3Ropes(o)
}

// intermediateSizes reads a list of the layers' widths, nil if there is one width,
// which readCommon reads.
func (o *object) intermediateSizes() []int {
	const key = "intermediate_size"
	raw := o.raw(key)
	if len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	list := o.integers(key)
	for _, n := range list {
		if n < 1 || n > maxDimension {
			o.fail(key, "must be 1 to %d, found %d", maxDimension, n)
		}
	}
	delete(o.values, key)
	return list
}

// readSparsity reads which share of a layer's activations is dropped: those below
// that quantile of a normal distribution with their mean and deviation.
func (c *Config) readSparsity(o *object) {
	const key = "activation_sparsity_pattern"
	shares := o.floats(key)
	if shares == nil {
		shares = make([]float64, c.Layers)
		for i := 0; c.Layers > 10 && i < 10; i++ {
			shares[i] = 0.95
		}
	}
	if len(shares) != c.Layers {
		o.fail(key, "has %d entries, expected num_hidden_layers %d", len(shares), c.Layers)
		return
	}
	for _, share := range shares {
		if share < 0 || float32(share) >= 1 {
			o.fail(key, "must be 0 to less than 1, found %g", share)
		}
	}
	c.AltUp.Dropped = shares
}

func readGemma3n(o *object, c *Config) {
	readGemma3nText(o.gemmaText("gemma3n_text"), c)
	c.Tied = o.boolean("tie_word_embeddings", true)
}

func buildGemma3n(b *Builder, c *Config) {
	x := b.embed()
	inputs := b.perLayerInputs(x)
	streams := []Var{x}
	for i := 1; i < c.AltUp.Streams; i++ {
		streams = append(streams, b.asLarge(x, x, "altup_projections", i-1))
	}
	caches := map[bool]int32{}
	for i := range c.Layers {
		streams = b.layer(i).gemma3n(streams, inputs, caches)
	}

	rows, n := b.Rows(b.Join(streams...)), c.Hidden
	x = b.View(rows, 0, n)
	sum := x
	for i := 1; i < c.AltUp.Streams; i++ {
		sum = b.Add(sum, b.asLarge(b.View(rows, i*n, n), x, "altup_unembed_projections", i-1))
	}
	x = b.RMSNorm(b.Scale(sum, 1/float64(c.AltUp.Streams), 0), Norm{Weight: b.Weight(b.prefix+"norm.weight", n), Eps: c.NormEps})
	b.Logits(x, b.output(), 0, 1, c.LogitCap)
}

// asLarge is a projection of x, scaled to the magnitude of y.
func (b *Builder) asLarge(x, y Var, name string, i int) Var {
	n := b.c.Hidden
	h := b.Linear(x, b.Weight(fmt.Sprintf("%s%s.%d.weight", b.prefix, name, i), n, n), 0)
	return b.RMSNorm(h, Norm{Eps: tiny, Gate: y, GateAt: GateMagnitude})
}

// tiny keeps a norm of zeros from dividing by zero.
const tiny = 1e-12

func (l layer) gemma3n(streams []Var, inputs Var, caches map[bool]int32) []Var {
	c := l.c
	predicted := l.predict(streams)
	x := predicted[c.AltUp.Active]

	h := l.norm(x, "input_layernorm")
	low := l.linear(l.linear(h, "laurel.linear_left", c.AltUp.LaurelRank, false), "laurel.linear_right", c.Hidden, false)
	laurel := l.addNormed(h, low, "laurel.post_laurel_norm")
	x = l.addNormed(x, l.gemma4Attention(h, caches), "post_attention_layernorm")
	x = l.Scale(l.Add(x, laurel), math.Sqrt(0.5), 0)
	x = l.addNormed(x, l.sparseMLP(l.norm(x, "pre_feedforward_layernorm")), "post_feedforward_layernorm")

	corrected := l.correct(predicted, x)
	first := corrected[c.AltUp.Active]
	if c.AltUp.ScaleActive {
		first = l.Scale(first, 1, l.Weight(l.prefix+"altup.correct_output_scale", c.Hidden))
	}
	first = l.perLayer(first, inputs)
	for i := range corrected[1:] {
		corrected[i+1] = l.Add(corrected[i+1], first)
	}
	return corrected
}

// sparseMLP is a gated MLP of which a layer may drop the smaller activations.
func (l layer) sparseMLP(x Var) Var {
	inner, dropped := l.c.AltUp.Inner[l.index], l.c.AltUp.Dropped[l.index]
	gate := l.linear(x, "mlp.gate_proj", inner, false)
	if dropped > 0 {
		gate = l.Sparsify(gate, math.Sqrt2*math.Erfinv(2*float64(float32(dropped))-1))
	}
	up := l.linear(x, "mlp.up_proj", inner, false)
	return l.linear(l.Gate(Act{Kind: l.c.Activation}, gate, up), "mlp.down_proj", l.c.Hidden, false)
}

// predict makes each stream of all, itself and a sum of all by factors that the
// active one gives.
func (l layer) predict(streams []Var) []Var {
	n := len(streams)
	factors := l.linear(l.modalities(streams[l.c.AltUp.Active]), "altup.prediction_coefs", n*n, false)
	predicted := make([]Var, n)
	for i, x := range streams {
		for j, y := range streams {
			x = l.Add(x, l.Gate(Act{}, l.View(factors, i*n+j, 1), y))
		}
		predicted[i] = x
	}
	return predicted
}

// correct adds to each predicted stream what the active one, x, has become beyond
// its prediction, by factors of 1 and what x gives.
func (l layer) correct(predicted []Var, x Var) []Var {
	news := l.AddScaled(x, predicted[l.c.AltUp.Active], -1)
	factors := l.linear(l.modalities(x), "altup.correction_coefs", len(predicted), false)
	corrected := make([]Var, len(predicted))
	for i, p := range predicted {
		corrected[i] = l.Add(l.Add(p, news), l.Gate(Act{}, l.View(factors, i, 1), news))
	}
	return corrected
}

// modalities are the numbers, one a stream, that factors are made of.
func (l layer) modalities(x Var) Var {
	h := l.Scale(l.norm(x, "altup.router_norm"), 1/float64(l.c.Hidden), 0)
	return l.Activate(ActTanh, l.linear(h, "altup.modality_router", l.c.AltUp.Streams, false))
}
