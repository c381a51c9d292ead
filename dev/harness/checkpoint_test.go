package harness_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// shape is that of a llama whose weights are random. It talks nonsense, and
// never ends by itself.
type shape struct{ hidden, inner, layers int }

// folder writes the checkpoint, with the demo model's tokenizer.
func (s shape) folder(t testing.TB) string {
	t.Helper()
	const vocab, heads, kvHeads = 2048, 8, 2
	kv := s.hidden / heads * kvHeads
	noise := noise()
	var tensors []weightstest.Tensor
	add := func(name string, shape ...int) {
		size := 2
		for _, n := range shape {
			size *= n
		}
		// Speed does not depend on the values: the same megabyte, again and again.
		data := bytes.Repeat(noise, (size+len(noise)-1)/len(noise))[:size]
		tensors = append(tensors, weightstest.Tensor{Name: name, DType: "BF16", Shape: shape, Data: data})
	}
	add("model.embed_tokens.weight", vocab, s.hidden)
	for l := range s.layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		add(p+"input_layernorm.weight", s.hidden)
		add(p+"self_attn.q_proj.weight", s.hidden, s.hidden)
		add(p+"self_attn.k_proj.weight", kv, s.hidden)
		add(p+"self_attn.v_proj.weight", kv, s.hidden)
		add(p+"self_attn.o_proj.weight", s.hidden, s.hidden)
		add(p+"post_attention_layernorm.weight", s.hidden)
		add(p+"mlp.gate_proj.weight", s.inner, s.hidden)
		add(p+"mlp.up_proj.weight", s.inner, s.hidden)
		add(p+"mlp.down_proj.weight", s.hidden, s.inner)
	}
	add("model.norm.weight", s.hidden)

	dir := readableModel(t)
	if err := os.Remove(filepath.Join(dir, "generation_config.json")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "model.safetensors"), weightstest.File(tensors...))
	path := filepath.Join(dir, "config.json")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(config), "\"eos_token_id\": [\n    2046,\n    2043\n  ]", `"eos_token_id": null`, 1)
	for old, n := range map[string]int{
		`"hidden_size": 256`: s.hidden, `"intermediate_size": 512`: s.inner, `"num_hidden_layers": 5`: s.layers,
		`"head_dim": 32`: s.hidden / heads, `"max_position_embeddings": 2048`: 32768,
	} {
		name, _, _ := strings.Cut(old, " ")
		changed := strings.Replace(text, old, fmt.Sprint(name, " ", n), 1)
		if changed == text {
			t.Fatalf("%s: no %s in it", path, old)
		}
		text = changed
	}
	write(t, path, []byte(text))
	return dir
}

// noise is a megabyte of small random bf16 numbers.
func noise() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 0, 1<<20)
	for len(block) < cap(block) {
		block = binary.LittleEndian.AppendUint16(block, uint16(math.Float32bits(float32(0.02*r.NormFloat64()))>>16))
	}
	return block
}
