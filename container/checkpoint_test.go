package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// tinyTokenizer is a folder with a tokenizer of tinyVocab tokens.
const (
	tinyTokenizer = "../engine/token/testdata/llama3"
	tinyVocab     = 648
)

// tinyFiles returns the files of a llama checkpoint with random weights: it
// talks nonsense, but always the same.
func tinyFiles(t testing.TB) map[string][]byte {
	t.Helper()
	const hidden, inner, layers = 32, 64, 2
	r := rand.New(rand.NewPCG(1, 2))
	var tensors []weightstest.Tensor
	add := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		data := make([]byte, 0, 4*n)
		for range n {
			v := float32(0.05 * r.NormFloat64())
			if len(shape) == 1 {
				v = 1
			}
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		tensors = append(tensors, weightstest.Tensor{Name: name, DType: "F32", Shape: shape, Data: data})
	}
	add("model.embed_tokens.weight", tinyVocab, hidden)
	for l := range layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		add(p+"input_layernorm.weight", hidden)
		for _, x := range []string{"q", "k", "v", "o"} {
			add(p+"self_attn."+x+"_proj.weight", hidden, hidden)
		}
		add(p+"post_attention_layernorm.weight", hidden)
		add(p+"mlp.gate_proj.weight", inner, hidden)
		add(p+"mlp.up_proj.weight", inner, hidden)
		add(p+"mlp.down_proj.weight", hidden, inner)
	}
	add("model.norm.weight", hidden)

	config, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu",
		"vocab_size": tinyVocab, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
		"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
		"rope_theta": 10000.0, "tie_word_embeddings": true, "torch_dtype": "float32", "bos_token_id": 640, "eos_token_id": 642,
	})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"config.json": config, "model.safetensors": weightstest.File(tensors...)}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
		if files[name], err = os.ReadFile(filepath.Join(tinyTokenizer, name)); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func tinyFolder(t testing.TB) string {
	t.Helper()
	return weightstest.Folder(t, tinyFiles(t))
}
