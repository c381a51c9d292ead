package sample_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sample/sampletest"
)

// Rows of all lengths, with ties and exact sums, and one mask, set of biases
// and history each.
func TestScoresMatchSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s sample.Sampler
	for _, c := range sampletest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			for range 200 {
				logits := make([]float32, len(sampletest.Logits)+rng.IntN(60))
				for i := range logits {
					logits[i] = float32(math.Round(rng.NormFloat64()*8)) / 4
				}
				in := c.Input()
				in.Counts = sample.NewCounts(len(logits))
				for range rng.IntN(20) {
					in.Counts.Add(int32(rng.IntN(len(logits))), rng.IntN(2) == 1)
				}
				if in.Mask != nil {
					in.Mask = []uint32{rng.Uint32() | 1, rng.Uint32()} // shorter than some rows
				}
				want := sampletest.Distribution(logits, in)
				got := slices.Clone(logits)
				if _, _, ok := s.Sample(got, in, 0, nil); !ok {
					t.Fatalf("logits %v: invalid", logits)
				}
				sum := 0.0
				for _, l := range got {
					sum += math.Exp(float64(l))
				}
				for id := range want {
					if w := math.Exp(float64(got[id])) / sum; math.Abs(w-want[id]) > 1e-6 {
						t.Fatalf("logits %v: token %d has probability %v, want %v", logits, id, w, want[id])
					}
				}
			}
		})
	}
}

func TestDrawsFollowTheDistribution(t *testing.T) {
	const draws = 60_000
	for _, c := range sampletest.Cases() {
		for _, vary := range []string{"index", "seed"} {
			t.Run(c.Name+" by "+vary, func(t *testing.T) {
				var s sample.Sampler
				in := c.Input()
				row := make([]float32, len(sampletest.Logits))
				hits := make([]int, len(row))
				for i := range int32(draws) {
					if in.Index = i; vary == "seed" {
						in.Params.Seed, in.Index = uint64(i), 3
					}
					copy(row, sampletest.Logits)
					got, _, _ := s.Sample(row, in, 0, nil)
					hits[got.Token]++
				}
				if chi, limit := sampletest.ChiSquare(hits, sampletest.Distribution(sampletest.Logits, in)); chi > limit {
					t.Errorf("χ² = %.1f, want ≤ %.1f; draws %v", chi, limit, hits)
				}
			})
		}
	}
}

// The statistics must be able to fail: draws of one case are not another's.
func TestChiSquareTellsCasesApart(t *testing.T) {
	cases := sampletest.Cases()
	want := make([][]float64, len(cases))
	for i := range cases {
		want[i] = sampletest.Distribution(sampletest.Logits, cases[i].Input())
	}
	for i := range cases {
		hits := make([]int, len(sampletest.Logits))
		for id, p := range want[i] {
			hits[id] = int(math.Round(p * 50_000))
		}
		for j := range cases {
			if chi, limit := sampletest.ChiSquare(hits, want[j]); (chi <= limit) != (i == j) {
				t.Errorf("draws of %q against %q: χ² = %.1f, limit %.1f", cases[i].Name, cases[j].Name, chi, limit)
			}
		}
	}
}
