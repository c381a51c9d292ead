package sample_test

import (
	"fmt"
	"math"

	"github.com/millrace-ai/millrace/engine/sample"
)

// A row of logits becomes a token. The draw depends on the seed and on how many
// tokens the sequence has, and on nothing else.
func ExampleSampler_Sample() {
	logits := []float32{1, 3, 2, float32(math.Inf(-1))} // the last cannot be chosen
	var s sample.Sampler

	greedy := sample.Greedy()
	choice, _, _ := s.Sample(append([]float32{}, logits...), &sample.Input{Params: &greedy}, 0, nil)
	fmt.Printf("greedy: token %d, log-probability %.3f\n", choice.Token, choice.Logprob)

	drawn := sample.Greedy()
	drawn.Sample, drawn.Temperature, drawn.TopK, drawn.Seed = 1, 0.7, 2, 42
	for index := range int32(5) {
		choice, _, _ := s.Sample(append([]float32{}, logits...), &sample.Input{Params: &drawn, Index: index}, 0, nil)
		fmt.Print(choice.Token, " ")
	}
	fmt.Println()
	// Output:
	// greedy: token 1, log-probability -0.408
	// 1 2 2 1 1
}

// Green is the detector's half of the watermark: it needs no model.
func ExampleGreen() {
	text := []int32{17, 4, 256, 9, 31, 8}
	green := 0
	for i, id := range text[1:] {
		if sample.Green(text[i], id) {
			green++
		}
	}
	expected := sample.WatermarkGamma * float64(len(text)-1)
	fmt.Printf("%d green, %.1f expected without a watermark\n", green, expected)
	// Output: 3 green, 2.5 expected without a watermark
}
