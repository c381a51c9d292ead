package demo

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// maxWeights is the most that the weights may add to the binary, in bytes.
const maxWeights = 8_000_000

func TestWeightsAreSmall(t *testing.T) {
	info, err := fs.Stat(Files(), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() == 0 || info.Size() > maxWeights {
		t.Errorf("weights have %d bytes, want 1 to %d", info.Size(), maxWeights)
	}
}

// Three libraries write the files, and they must agree.
func TestFilesAgree(t *testing.T) {
	var config struct {
		Architectures []string `json:"architectures"`
		ModelType     string   `json:"model_type"`
		Vocabulary    int      `json:"vocab_size"`
		Positions     int      `json:"max_position_embeddings"`
		Heads         int      `json:"num_attention_heads"`
		KVHeads       int      `json:"num_key_value_heads"`
		HeadDim       int      `json:"head_dim"`
		BOS           int      `json:"bos_token_id"`
		EOS           []int    `json:"eos_token_id"`
	}
	var generation struct {
		EOS []int `json:"eos_token_id"`
	}
	var tokenizer struct {
		Added []struct {
			ID      int    `json:"id"`
			Content string `json:"content"`
			Special bool   `json:"special"`
		} `json:"added_tokens"`
		Model struct {
			Vocabulary map[string]int `json:"vocab"`
		} `json:"model"`
	}
	var tokens struct {
		BOS      string `json:"bos_token"`
		EOS      string `json:"eos_token"`
		Template string `json:"chat_template"`
		Limit    int    `json:"model_max_length"`
	}
	read(t, "config.json", &config)
	read(t, "generation_config.json", &generation)
	read(t, "tokenizer.json", &tokenizer)
	read(t, "tokenizer_config.json", &tokens)

	if config.ModelType != "llama" || len(config.Architectures) != 1 || config.Architectures[0] != "LlamaForCausalLM" {
		t.Errorf("model type %q, architectures %q; want llama, [LlamaForCausalLM]", config.ModelType, config.Architectures)
	}
	if config.KVHeads == 0 || config.Heads%config.KVHeads != 0 || config.HeadDim%8 != 0 {
		t.Errorf("%d heads, %d KV heads, head dimension %d: want whole groups and a multiple of 8", config.Heads, config.KVHeads, config.HeadDim)
	}
	if config.Positions != tokens.Limit {
		t.Errorf("max_position_embeddings %d, model_max_length %d, want equal", config.Positions, tokens.Limit)
	}
	ids := map[string]int{}
	for _, a := range tokenizer.Added {
		if !a.Special {
			t.Errorf("added token %q is not special", a.Content)
		}
		ids[a.Content] = a.ID
	}
	if n := len(tokenizer.Model.Vocabulary) + len(tokenizer.Added); n != config.Vocabulary {
		t.Errorf("tokenizer has %d tokens, config.json %d", n, config.Vocabulary)
	}
	if ids[tokens.BOS] != config.BOS || tokens.EOS != "<|eot_id|>" {
		t.Errorf("BOS %q has id %d, config.json has %d; EOS %q", tokens.BOS, ids[tokens.BOS], config.BOS, tokens.EOS)
	}
	want := []int{ids["<|eot_id|>"], ids["<|end_of_text|>"]}
	for name, got := range map[string][]int{"config.json": config.EOS, "generation_config.json": generation.EOS} {
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("%s: end tokens %v, want %v", name, got, want)
		}
	}
	source, err := os.ReadFile("../../dev/demo/chat_template.jinja")
	if err != nil {
		t.Fatal(err)
	}
	if tokens.Template != strings.TrimRight(string(source), "\n") {
		t.Error("chat_template.jinja is newer than the one in tokenizer_config.json: run train.py --eval-only")
	}
}

// TestDemoAnswersAsTrained of container asks the server the cases. This test
// checks only their form.
func TestCasesAreWellFormed(t *testing.T) {
	file, err := os.Open("model_test.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n := 0
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var c struct {
			Format   string           `json:"format"`
			Inputs   string           `json:"inputs"`
			Messages []map[string]any `json:"messages"`
			Expected string           `json:"expected"`
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("line %d: %v", n+1, err)
		}
		if c.Expected == "" || (c.Inputs == "") == (len(c.Messages) == 0) {
			t.Errorf("line %d: want an expected answer and either inputs or messages: %s", n+1, lines.Text())
		}
		n++
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if n < 25 {
		t.Errorf("%d cases, want at least 25", n)
	}
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	data, err := fs.ReadFile(Files(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
