package sampletest

import "github.com/millrace-ai/millrace/engine/sample"

// Logits is the row that the Cases are of.
var Logits = []float32{1.5, 0.2, -1, 2.1, 0.9, -0.4, 1.1, 0.6, -2, 1.8, 0.1, -0.7}

// Case is a way to sample from Logits.
type Case struct {
	Name              string
	Params            sample.Params
	Mask              []uint32
	Biases            []sample.Bias
	Prev              int32
	Prompt, Generated []int32 // what was seen
}

// Input returns the case as package sample takes it.
func (c *Case) Input() *sample.Input {
	counts := sample.NewCounts(len(Logits))
	for _, id := range c.Prompt {
		counts.Add(id, false)
	}
	for _, id := range c.Generated {
		counts.Add(id, true)
	}
	return &sample.Input{Params: &c.Params, Mask: c.Mask, Biases: c.Biases, Prev: c.Prev, Counts: counts}
}

// Cases returns one for each step of the definition and one of all together.
func Cases() []Case {
	out := []Case{
		{Name: "plain"},
		{Name: "temperature", Params: sample.Params{Temperature: 0.6}},
		{Name: "top_k", Params: sample.Params{TopK: 4}},
		{Name: "top_p", Params: sample.Params{TopP: 0.83}},
		{Name: "typical_p", Params: sample.Params{TypicalP: 0.47}},
		{Name: "top_k, top_p and typical_p", Params: sample.Params{Temperature: 1.7, TopK: 9, TopP: 0.93, TypicalP: 0.71}},
		{Name: "min_p", Params: sample.Params{MinP: 0.23}},
		{Name: "typical_p and min_p", Params: sample.Params{Temperature: 1.4, TypicalP: 0.81, MinP: 0.4}},
		{Name: "repetition penalty", Params: sample.Params{RepetitionPenalty: 1.6}},
		{Name: "frequency penalty", Params: sample.Params{FrequencyPenalty: 0.7}},
		{Name: "presence penalty", Params: sample.Params{PresencePenalty: 1.1}},
		{Name: "biases", Biases: []sample.Bias{{Token: 8, Bias: 3}, {Token: 3, Bias: -100}, {Token: 0, Bias: -0.75}, {Token: 8, Bias: 0.5}}},
		{Name: "mask", Mask: []uint32{0xf0f}},
		{Name: "mask and filters", Mask: []uint32{0x7f7}, Params: sample.Params{TopK: 8, TopP: 0.95, TypicalP: 0.93}},
		{Name: "watermark", Params: sample.Params{Watermark: 1}},
		{
			Name: "all",
			Params: sample.Params{
				Temperature: 1.7, TopK: 9, TopP: 0.95, TypicalP: 0.9, MinP: 0.15,
				RepetitionPenalty: 1.3, FrequencyPenalty: 0.3, PresencePenalty: 0.4, Watermark: 1,
			},
			Mask:   []uint32{0xfbd},
			Biases: []sample.Bias{{Token: 2, Bias: 1.5}, {Token: 9, Bias: -1}},
		},
	}
	for i := range out {
		c, off := &out[i], sample.Greedy()
		c.Params.Sample, c.Params.Seed = 1, 7
		c.Prev, c.Prompt, c.Generated = 5, []int32{0, 2, 3, 3}, []int32{3, 6, 6, 6, 9}
		for _, f := range []struct{ to, off *float32 }{
			{&c.Params.Temperature, &off.Temperature},
			{&c.Params.TopP, &off.TopP},
			{&c.Params.TypicalP, &off.TypicalP},
			{&c.Params.RepetitionPenalty, &off.RepetitionPenalty},
		} {
			if *f.to == 0 {
				*f.to = *f.off
			}
		}
	}
	return out
}
