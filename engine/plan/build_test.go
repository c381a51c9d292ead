package plan

import (
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

// without lacks the named tensors and has every other.
func without(names ...string) func(string) ([]int, bool) {
	return func(name string) ([]int, bool) { return nil, !slices.Contains(names, name) }
}

// tied is a checkpoint without an output head, its decoder below prefix.
func tied(prefix string) func(string) ([]int, bool) {
	return func(name string) ([]int, bool) {
		return nil, strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, "lm_head.weight")
	}
}

// examples is a config of each family that uses all it can.
var examples = []struct {
	name   string
	family string
	more   string
	names  func(string) ([]int, bool)
}{
	{"llama", "llama", `"attention_bias":true,"mlp_bias":true`, without()},
	{"mistral", "mistral", `"sliding_window":7`, without()},
	{"qwen2", "qwen2", `"tie_word_embeddings":true,"use_sliding_window":true,"sliding_window":7,"max_window_layers":1`, tied("model.")},
	{"qwen3", "qwen3", ``, without()},
	{"gemma", "gemma", ``, tied("model.")},
	{"gemma2", "gemma2", `"sliding_window":7,"query_pre_attn_scalar":64`, tied("model.")},
	{"gemma3", "gemma3_text", `"sliding_window":7,"sliding_window_pattern":2`, tied("language_model.model.")},
	{"phi3", "phi3", `"partial_rotary_factor":0.5,"sliding_window":7`, without()},
}

func mustBuild(t *testing.T, c *Config, names func(string) ([]int, bool)) *Plan {
	t.Helper()
	p, err := Build(c, names)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGoldens compares each family's plan with testdata, where a change of a
// model's mathematics shows as a diff. -update rewrites the files.
func TestGoldens(t *testing.T) {
	for _, tt := range examples {
		t.Run(tt.name, func(t *testing.T) {
			got := mustBuild(t, mustParse(t, small(tt.family, tt.more)), tt.names).String()
			file := filepath.Join("testdata", tt.name+".plan")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
			for i := range max(len(gotLines), len(wantLines)) {
				g, w := "", ""
				if i < len(gotLines) {
					g = gotLines[i]
				}
				if i < len(wantLines) {
					w = wantLines[i]
				}
				if g != w {
					t.Fatalf("%s:%d:\n got %s\nwant %s", file, i+1, g, w)
				}
			}
		})
	}
}

// TestSharedValues: after values were renamed each operation still reads what
// it read before, no operation overwrites an operand it may not, and the
// number of values does not grow with the layers.
func TestSharedValues(t *testing.T) {
	for _, tt := range examples {
		t.Run(tt.name, func(t *testing.T) {
			c := mustParse(t, small(tt.family, tt.more))
			b := newBuilder(c, tt.names)
			families[tt.family].build(b, c)
			if b.err != nil {
				t.Fatal(b.err)
			}
			before := dataflow(b.plan)
			shareValues(b.plan)
			if after := dataflow(b.plan); !slices.Equal(before, after) {
				t.Errorf("operation %d reads something else after sharing", firstDiff(before, after))
			}
			for i, op := range b.plan.Ops {
				mayShare := op.Kind == OpRMSNorm || op.Kind == OpAdd || op.Kind == OpRope
				if !mayShare && op.Out != None && (op.Out == op.In || op.Out == op.In2) {
					t.Errorf("operation %d, %v, overwrites its operand", i, op.Kind)
				}
			}
			if n := len(b.plan.Widths); n > 10 {
				t.Errorf("%d values for %d layers, want at most 10", n, c.Layers)
			}
		})
	}
}

// dataflow gives for each operation a hash of all that led to its operands.
func dataflow(p *Plan) []uint64 {
	holds := make([]uint64, len(p.Widths))
	cache := make([]uint64, p.Layers)
	seen := make([]uint64, len(p.Ops))
	for i, op := range p.Ops {
		h := fnv.New64a()
		flat := op
		flat.Out, flat.In, flat.In2 = None, None, None
		fmt.Fprintf(h, "%v", flat)
		for _, v := range []int32{op.In, op.In2} {
			if v != None {
				fmt.Fprintf(h, " %d %d", p.Widths[v], holds[v])
			}
		}
		if op.Kind == OpAttention {
			fmt.Fprintf(h, " %d", cache[op.Layer])
		}
		seen[i] = h.Sum64()
		if op.Kind == OpKVWrite {
			cache[op.Layer] = seen[i]
		}
		if op.Out != None {
			holds[op.Out] = seen[i]
		}
	}
	return seen
}

func firstDiff(a, b []uint64) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestOutputHead: which tensor the logits come from.
func TestOutputHead(t *testing.T) {
	const embedding, head = "model.embed_tokens.weight", "lm_head.weight"
	for _, tt := range []struct {
		name, more string
		names      func(string) ([]int, bool)
		embed, out string
	}{
		{"untied", `"tie_word_embeddings":false`, without(), embedding, head},
		{"tied", `"tie_word_embeddings":true`, without(head, "language_model.lm_head.weight"), embedding, embedding},
		{"said to be tied, but there", `"tie_word_embeddings":true`, without(), embedding, head},
		{"tied under the head's name", `"tie_word_embeddings":true`, without(embedding), head, head},
		{"saved without head", `"tie_word_embeddings":true`, func(name string) ([]int, bool) {
			return nil, !strings.HasPrefix(name, "model.") && !strings.Contains(name, "language_model") && name != head
		}, "embed_tokens.weight", "embed_tokens.weight"},
		{"in a multimodal model", `"tie_word_embeddings":true`, tied("model.language_model."), "model.language_model.embed_tokens.weight", "model.language_model.embed_tokens.weight"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustBuild(t, mustParse(t, small("llama", tt.more)), tt.names)
			embed, out := p.Tensors[p.Ops[0].Weight].Name, p.Tensors[p.Ops[len(p.Ops)-1].Weight].Name
			if embed != tt.embed || out != tt.out {
				t.Errorf("embedding %q, head %q; want %q, %q", embed, out, tt.embed, tt.out)
			}
		})
	}
	t.Run("untied without head", func(t *testing.T) {
		_, err := Build(mustParse(t, small("llama", ``)), tied("model."))
		if err == nil || !strings.Contains(err.Error(), `"lm_head.weight" is missing`) {
			t.Errorf("Build: %v, want an error about the head", err)
		}
	})
}

// FuzzConfig: no config makes reading or building panic, and what is accepted
// is within the bounds the engine relies on.
func FuzzConfig(f *testing.F) {
	for _, tt := range examples {
		f.Add(small(tt.family, tt.more))
	}
	f.Add([]byte(`{"model_type":"gemma3","text_config":{"num_hidden_layers":1}}`))
	f.Add(small("llama", `"rope_scaling":{"rope_type":"yarn","factor":4,"beta_fast":1e-9,"beta_slow":1e9}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		c, err := ParseConfig(config, nil)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
			return
		}
		if c.Layers > 64 || c.HeadDim > 1<<12 {
			return // right, and slow
		}
		p, err := Build(c, without())
		if err != nil {
			t.Fatalf("accepted, then: %v", err)
		}
		for _, table := range p.Tables {
			for _, freq := range table {
				if freq != freq || freq < 0 {
					t.Fatalf("frequency %g", freq)
				}
			}
		}
		if c.HeadDim%8 != 0 || c.Heads%c.KVHeads != 0 || len(c.Windows) != c.Layers {
			t.Fatalf("%+v", c)
		}
	})
}
