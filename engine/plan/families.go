package plan

import (
	"fmt"
	"maps"
	"slices"
)

// family is one model architecture.
type family struct {
	read  func(o *object, c *Config)
	build func(b *Builder, c *Config)
	eos   int // transformers' default end-of-sequence id, -1 for none
}

// families are the supported architectures by model_type.
var families = map[string]family{
	"llama":       {readLlama, buildLlama, 2},
	"mistral":     {readMistral, buildLlama, 2},
	"qwen2":       {readQwen2, buildLlama, -1},
	"qwen3":       {readQwen3, buildQwen3, -1},
	"gemma":       {readGemma, buildGemma, 1},
	"gemma2":      {readGemma2, buildGemma2, 1},
	"gemma3":      {readGemma3, buildGemma3, 1},
	"gemma3_text": {readGemma3Text, buildGemma3, 1},
	"phi3":        {readPhi3, buildPhi3, 32000},
}

func familyNames() []string { return slices.Collect(maps.Keys(families)) }

// Build writes the forward pass of the model that c describes. names tells
// the shape of a tensor of the checkpoint, false if there is none; it is
// asked for what checkpoints name or leave out differently, while comparing
// every shape with the plan is left to who reads the tensors.
func Build(c *Config, names func(string) (shape []int, ok bool)) (*Plan, error) {
	f, ok := families[c.Family]
	if !ok {
		return nil, fmt.Errorf("model family %q is not supported, only %s", c.Family, oneOf(familyNames()))
	}
	b := newBuilder(c, names)
	f.build(b, c)
	return b.finish()
}
