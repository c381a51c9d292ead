package realweights

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/engine/weights/gguf"
)

// TestGGUFTokenizers compares the tokenizers that are made of metadata with
// llama.cpp's: all pre-tokenizers that it knows, and SentencePiece's kind with and
// without a space in front.
func TestGGUFTokenizers(t *testing.T) {
	data, err := os.ReadFile("testdata/tokenizers.json") // tokenizers.py writes it
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Texts []string
		BPE   []struct {
			Names []string
			IDs   [][]int32
		}
		Prefix   [][]int32
		NoPrefix [][]int32 `json:"no_prefix"`
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	for _, g := range golden.BPE {
		for _, name := range g.Names {
			compareTokens(t, "testdata/bpe.gguf", "tokenizer.ggml.pre", name, golden.Texts, g.IDs)
		}
	}
	compareTokens(t, "testdata/spm.gguf", "tokenizer.ggml.add_space_prefix", true, golden.Texts, golden.Prefix)
	compareTokens(t, "testdata/spm.gguf", "tokenizer.ggml.add_space_prefix", false, golden.Texts, golden.NoPrefix)
}

// compareTokens opens a file with another value for a key.
func compareTokens(t *testing.T, file, key string, value any, texts []string, want [][]int32) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	readAt := func(p []byte, offset int64) error {
		copy(p, data[offset:])
		return nil
	}
	h, err := gguf.Parse(int64(len(data)), readAt)
	if err != nil {
		t.Fatal(err)
	}
	h.Values[key] = value
	m, err := gguf.Open([]*gguf.Header{h}, func(_ int, p []byte, offset int64) error { return readAt(p, offset) })
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := m.Texts["tokenizer.json"]()
	if err != nil {
		t.Fatalf("%v: %v", value, err)
	}
	tok, err := token.LoadBytes(tokenizer, nil)
	if err != nil {
		t.Fatalf("%v: %v", value, err)
	}
	defer tok.Close()
	for i, text := range texts {
		got, err := tok.Encode(text, true)
		if err != nil || !slices.Equal(got, want[i]) {
			t.Errorf("%v: %q is\n%v, %v; want\n%v", value, text, got, err, want[i])
		}
	}
}
