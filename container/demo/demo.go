// Package demo carries the demo model: a chat model of the llama architecture
// with 3.3 million parameters, small enough to travel inside the binary. It
// knows a guide to Millrace by heart and is served when no other model is
// given, so that a newcomer's first request gets a sensible answer.
//
// The model is trained by dev/demo/train.py on the text beside it, all of it
// written for this purpose; dev/demo/README.md says how to train it again.
package demo

import (
	"embed"
	"io/fs"
)

//go:embed model/config.json model/generation_config.json model/model.safetensors model/tokenizer.json model/tokenizer_config.json
var files embed.FS

// Files returns the checkpoint as a folder in Hugging Face's layout:
// config.json, generation_config.json, model.safetensors (bf16),
// tokenizer.json and tokenizer_config.json, which holds the chat template.
// The files are part of the binary: opening one cannot fail, and several may
// be read at once.
func Files() fs.FS {
	sub, err := fs.Sub(files, "model")
	if err != nil {
		panic(err) // only if the path is not valid
	}
	return sub
}
