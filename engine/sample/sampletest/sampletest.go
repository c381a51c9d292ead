// Package sampletest is what tests of sampling share: the definition of package
// sample once more, read literally and in float64, cases for each of its steps,
// and the statistics that tell whether draws follow it.
package sampletest

import (
	"math"
	"slices"
	"sort"

	"github.com/millrace-ai/millrace/engine/sample"
)

// Distribution returns the probability of each token, steps 2 to 12 of the
// definition done by sorting. in.Params.Sample must be 1.
func Distribution(logits []float32, in *sample.Input) []float64 {
	kept := processed(logits, in)
	kept.temper(float64(in.Params.Temperature))
	sort.SliceStable(kept, func(i, j int) bool { return kept[i].p > kept[j].p })
	if k := int(in.Params.TopK); k > 0 && k < len(kept) {
		end := k
		for end < len(kept) && kept[end].p == kept[k-1].p {
			end++
		}
		kept = kept[:end].normalised()
	}
	if p := float64(in.Params.TopP); p < 1 {
		kept = kept.prefix(p)
	}
	if p := float64(in.Params.TypicalP); p < 1 {
		h := 0.0
		for _, k := range kept {
			h -= k.p * math.Log(k.p)
		}
		sort.SliceStable(kept, func(i, j int) bool { return kept[i].id < kept[j].id })
		sort.SliceStable(kept, func(i, j int) bool {
			return math.Abs(-math.Log(kept[i].p)-h) < math.Abs(-math.Log(kept[j].p)-h)
		})
		kept = kept.prefix(p)
	}
	if p := float64(in.Params.MinP); p > 0 {
		best := 0.0
		for _, k := range kept {
			best = max(best, k.p)
		}
		kept = slices.DeleteFunc(kept, func(k token) bool { return k.p < p*best }).normalised()
	}
	out := make([]float64, len(logits))
	for _, k := range kept {
		out[k.id] = k.p
	}
	return out
}

type token struct {
	id int32
	l  float64
	p  float64
}

type tokens []token

// processed is steps 2 to 7: the tokens that can be chosen.
func processed(logits []float32, in *sample.Input) (kept tokens) {
	p := in.Params
	for i, logit := range logits {
		id, l := int32(i), float64(logit)
		if in.Mask != nil && !sample.Allowed(in.Mask, id) || math.IsInf(l, -1) {
			continue
		}
		for _, b := range in.Biases {
			if b.Token == id {
				l += float64(b.Bias)
			}
		}
		if p.Watermark == 1 && sample.Green(in.Prev, id) {
			l += sample.WatermarkDelta
		}
		if p.Counts() && in.Counts.Seen(id) {
			if l < 0 {
				l *= float64(p.RepetitionPenalty)
			} else {
				l /= float64(p.RepetitionPenalty)
			}
			n := in.Counts.Generated(id)
			l -= float64(p.FrequencyPenalty) * float64(n)
			if n > 0 {
				l -= float64(p.PresencePenalty)
			}
		}
		kept = append(kept, token{id: id, l: l})
	}
	return kept
}

// temper is step 8, and the softmax.
func (k tokens) temper(t float64) {
	peak := math.Inf(-1)
	for _, x := range k {
		peak = max(peak, x.l)
	}
	for i := range k {
		k[i].p = math.Exp((k[i].l - peak) / t)
	}
	k.normalised()
}

func (k tokens) normalised() tokens {
	sum := 0.0
	for _, x := range k {
		sum += x.p
	}
	for i := range k {
		k[i].p /= sum
	}
	return k
}

// prefix keeps tokens while the mass before them is less than mass.
func (k tokens) prefix(mass float64) tokens {
	sum := 0.0
	for i, x := range k {
		if i > 0 && sum >= mass {
			k = k[:i]
			break
		}
		sum += x.p
	}
	return k.normalised()
}

// ChiSquare compares how often each token was drawn with its probability, and
// returns Pearson's statistic and its 99.9 % quantile by Wilson and Hilferty's
// approximation. A token of no probability that was drawn makes it infinite.
func ChiSquare(hits []int, want []float64) (chi, limit float64) {
	draws, freedom := 0.0, -1.0
	for _, h := range hits {
		draws += float64(h)
	}
	for id, p := range want {
		switch {
		case p > 0:
			d := float64(hits[id]) - p*draws
			chi += d * d / (p * draws)
			freedom++
		case hits[id] > 0:
			return math.Inf(1), 0
		}
	}
	const z = 3.0902
	a := 2 / (9 * freedom)
	return chi, freedom * math.Pow(1-a+z*math.Sqrt(a), 3)
}

// WatermarkZ is the detector: by how many standard errors the green tokens of a
// text exceed what text without the watermark has. A pair of neighbours counts
// once, since nothing new is seen the second time.
func WatermarkZ(text []int32) float64 {
	seen := make(map[[2]int32]bool)
	green := 0.0
	for i := 1; i < len(text); i++ {
		pair := [2]int32{text[i-1], text[i]}
		if !seen[pair] && sample.Green(pair[0], pair[1]) {
			green++
		}
		seen[pair] = true
	}
	const gamma = sample.WatermarkGamma
	n := float64(len(seen))
	return (green - gamma*n) / math.Sqrt(n*gamma*(1-gamma))
}
