package plan

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// sized are the models of the table in docs/sizing.md, by size.
var sized = []string{
	"SmolLM2-135M-Instruct", "Qwen2.5-0.5B-Instruct", "Qwen3-0.6B", "gemma-3-1b-it", "TinyLlama-1.1B-Chat",
	"Llama-3.2-1B-Instruct", "gemma-2-2b-it", "gemma-3-4b-it", "Mistral-7B-Instruct-v0.3", "Qwen3-30B-A3B",
}

// TestSizingTable holds docs/sizing.md to the plans: the parameters of each
// model, and the elements that its caches keep of a token. -update rewrites the
// table.
func TestSizingTable(t *testing.T) {
	var table strings.Builder
	table.WriteString("| Model | Parameters | Weights in bf16 | Cache per token | Cache of 8,192 tokens |\n|---|---|---|---|---|\n")
	for _, name := range sized {
		config := published[name]
		c, err := ParseConfig([]byte(config), nil)
		if err != nil {
			t.Fatal(err)
		}
		names := without()
		if strings.Contains(config, `"tie_word_embeddings":true`) || strings.HasPrefix(name, "gemma") {
			names = func(tensor string) ([]int, bool) { return nil, !strings.HasSuffix(tensor, "lm_head.weight") }
		}
		p := mustBuild(t, c, names)
		parameters, token := 0, 0
		for _, tensor := range p.Tensors {
			n := 1
			for _, d := range tensor.Shape {
				n *= d
			}
			parameters += n
		}
		for _, cache := range p.Caches {
			token += 2 * cache.Elements() // in f16
		}
		fmt.Fprintf(&table, "| %s | %s | %.2f GB | %d KiB | %d MiB |\n", name, count(parameters), float64(2*parameters)/1e9, token>>10, token*8192>>20)
	}

	const file, begin, end = "../../docs/sizing.md", "<!-- models: begin -->\n", "<!-- models: end -->"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	found, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	if found == table.String() {
		return
	}
	if !*update {
		t.Fatalf("the table of %s is out of date: go test ./engine/plan -run SizingTable -update. Want:\n%s", file, &table)
	}
	if err := os.WriteFile(file, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// count writes a number of parameters as people do.
func count(n int) string {
	if n < 1e9 {
		return fmt.Sprintf("%dM", (n+5e5)/1e6)
	}
	return fmt.Sprintf("%.1fB", float64(n)/1e9)
}
