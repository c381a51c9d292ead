package sample_test

import (
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sample/sampletest"
)

func BenchmarkSample(b *testing.B) {
	const vocab = 128_000
	rng := rand.New(rand.NewPCG(5, 6))
	logits, row := make([]float32, vocab), make([]float32, vocab)
	for i := range logits {
		logits[i] = float32(rng.NormFloat64() * 3)
	}
	for _, c := range append(sampletest.Cases(), sampletest.Case{Name: "greedy", Params: sample.Greedy()}) {
		b.Run(c.Name, func(b *testing.B) {
			in := c.Input()
			top := make([]sample.Alternative, 32)
			var s sample.Sampler
			for in.Index = 0; b.Loop(); in.Index++ {
				copy(row, logits)
				s.Sample(row, in, 5, top)
			}
		})
	}
}
