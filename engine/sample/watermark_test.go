package sample_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sample/sampletest"
)

// write draws a text from a source of random logits with some twenty likely tokens
// a step.
func write(seed uint64, n int, watermark int32) []int32 {
	const vocab = 1000
	p := sample.Greedy()
	p.Sample, p.Seed, p.Watermark = 1, seed, watermark
	rng := rand.New(rand.NewPCG(seed, 99))
	logits := make([]float32, vocab)
	in := sample.Input{Params: &p, Prev: int32(seed % vocab)}
	text := []int32{in.Prev}
	var s sample.Sampler
	for in.Index = 0; int(in.Index) < n; in.Index++ {
		for i := range logits {
			logits[i] = float32(2 * rng.NormFloat64())
		}
		got, _, _ := s.Sample(logits, &in, 0, nil)
		in.Prev = got.Token
		text = append(text, got.Token)
	}
	return text
}

func TestWatermarkIsDetected(t *testing.T) {
	const texts, length, threshold = 100, 200, 4.0
	highest, lowest := math.Inf(-1), math.Inf(1)
	for seed := range uint64(texts) {
		plain, marked := sampletest.WatermarkZ(write(seed, length, 0)), sampletest.WatermarkZ(write(seed, length, 1))
		highest, lowest = max(highest, plain), min(lowest, marked)
		if plain >= threshold {
			t.Errorf("seed %d: text without the watermark has z = %.2f, want < %v", seed, plain, threshold)
		}
		if marked <= threshold {
			t.Errorf("seed %d: text with the watermark has z = %.2f, want > %v", seed, marked, threshold)
		}
	}
	t.Logf("%d texts of %d tokens: z up to %.2f without, from %.2f on with the watermark", texts, length, highest, lowest)
}

// About gamma of the ids is green after any token, and of the tokens before any
// id; neighbours agree no more often than chance has it.
func TestGreenIsUniform(t *testing.T) {
	const n = 20_000
	within := func(what string, count func(i int32) bool, share float64) {
		t.Helper()
		green := 0.0
		for i := range int32(n) {
			if count(i) {
				green++
			}
		}
		if z := (green - share*n) / math.Sqrt(n*share*(1-share)); math.Abs(z) > 4 {
			t.Errorf("%s: %.0f of %d, %.1f standard errors off %v", what, green, n, z, share)
		}
	}
	const gamma = sample.WatermarkGamma
	const same = gamma*gamma + (1-gamma)*(1-gamma)
	for _, at := range []int32{0, 1, 2, 77, 50_000, 128_000} {
		within("ids green after one token", func(i int32) bool { return sample.Green(at, i) }, gamma)
		within("tokens before which one id is green", func(i int32) bool { return sample.Green(i, at) }, gamma)
		within("ids that agree after neighbours", func(i int32) bool { return sample.Green(at, i) == sample.Green(at+1, i) }, same)
		within("neighbours that agree", func(i int32) bool { return sample.Green(at, i) == sample.Green(at, i+1) }, same)
	}
}

// Backends in other languages compute the same.
func TestGreenKnownAnswers(t *testing.T) {
	for _, tt := range []struct {
		prev int32
		want uint32 // bit id
	}{
		{0, 0x7a4dda0d},
		{1, 0x046e2abb},
		{31_999, 0xfed25034},
		{128_255, 0xfdd995c3},
	} {
		got := uint32(0)
		for id := range int32(32) {
			if sample.Green(tt.prev, id) {
				got |= 1 << id
			}
		}
		if got != tt.want {
			t.Errorf("after token %d the green ids below 32 are %#x, want %#x", tt.prev, got, tt.want)
		}
	}
}
