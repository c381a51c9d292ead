package adapter

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// of returns the plan of a checkpoint in engine/testdata, as written and as
// backends want it.
func of(tb testing.TB, name string) (written, lowered *plan.Plan) {
	tb.Helper()
	c, err := weights.Open(filepath.Join("..", "testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	_, p, err := loader.Plan(c, false)
	if err != nil {
		tb.Fatal(err)
	}
	return p, plan.Share(plan.Lower(p))
}

// files is an adapter in memory: the keys of its config, changed, and its tensors.
func files(change map[string]any, tensors ...weightstest.Tensor) fstest.MapFS {
	config := map[string]any{
		"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": []string{"q_proj", "v_proj"}, "bias": "none", "lora_dropout": 0.1,
		"use_dora": false, "modules_to_save": nil, "rank_pattern": map[string]int{}, "init_lora_weights": true, "task_type": "CAUSAL_LM",
	}
	maps.Copy(config, change)
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // made of plain values
	}
	return fstest.MapFS{ConfigFile: {Data: text}, WeightsFile: {Data: weightstest.File(tensors...)}}
}

const qProj = "base_model.model.model.layers.0.self_attn.q_proj"

func tensor(name string, value float32, shape ...int) weightstest.Tensor {
	t := weightstest.Tensor{Name: name, DType: "F32", Shape: shape}
	n := 1
	for _, d := range shape {
		n *= d
	}
	for range n {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(value))
	}
	return t
}

// pair are A and B of a module of testdata/llama, whose queries are 40 of 40.
func pair(module string, in, rank, out int) []weightstest.Tensor {
	return []weightstest.Tensor{tensor(module+".lora_A.weight", 1, rank, in), tensor(module+".lora_B.weight", 0.5, out, rank)}
}

func TestRead(t *testing.T) {
	written, lowered := of(t, "llama")
	width, queries := written.Hidden, written.Hidden
	good := pair(qProj, width, 2, queries)
	a, err := Read(files(nil, good...), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*plan.Plan{written, lowered} {
		d, err := a.Fit(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Targets) != 1 || d.Rank != 2 || d.Targets[0].Rows != queries || d.Targets[0].A[1] != 1 || d.Targets[0].B[1] != 1 {
			t.Errorf("targets %+v of rank %d, want one of %d rows with A 1 and B 1, which is 0.5 times alpha 4 by rank 2", d.Targets, d.Rank, queries)
		}
	}

	with := func(name string, replacement weightstest.Tensor) []weightstest.Tensor {
		list := slices.Clone(good)
		for i := range list {
			if list[i].Name == name {
				list[i] = replacement
			}
		}
		return list
	}
	a0, b0 := qProj+".lora_A.weight", qProj+".lora_B.weight"
	odd := tensor(a0, 1, 2, width)
	binary.LittleEndian.PutUint32(odd.Data[4*(width+3):], math.Float32bits(float32(math.NaN())))
	for _, tt := range []struct {
		name   string
		fsys   fstest.MapFS
		expect []string
	}{
		{"no config", fstest.MapFS{}, []string{ConfigFile, "file does not exist"}},
		{"no weights", fstest.MapFS{ConfigFile: files(nil)[ConfigFile]}, []string{WeightsFile, "file does not exist"}},
		{"a pickle", fstest.MapFS{ConfigFile: files(nil)[ConfigFile], "adapter_model.bin": {Data: []byte("\x80\x02")}}, []string{"adapter_model.bin", "safetensors"}},
		{"too large", files(nil, tensor(a0, 1, 1000, 1000)), []string{WeightsFile, "expected at most 1048576"}},
		{"another method", files(map[string]any{"peft_type": "LOHA"}, good...), []string{ConfigFile, `"LOHA"`, "only LORA"}},
		{"DoRA", files(map[string]any{"use_dora": true}, good...), []string{ConfigFile, "use_dora", "not supported"}},
		{"DoRA's tensor", files(nil, append(good, tensor(qProj+".lora_magnitude_vector", 1, queries))...), []string{"lora_magnitude_vector", "DoRA"}},
		{"modules_to_save", files(map[string]any{"modules_to_save": []string{"lm_head"}}, good...), []string{"modules_to_save", "not supported"}},
		{"a module saved whole", files(nil, append(good, tensor("base_model.model.lm_head.weight", 1, 4, 4))...), []string{"lm_head.weight", "modules_to_save"}},
		{"trained tokens", files(map[string]any{"trainable_token_indices": []int{1}}, good...), []string{"trainable_token_indices"}},
		{"biases", files(map[string]any{"bias": "lora_only"}, good...), []string{"bias", `"lora_only"`, "only none"}},
		{"biases of the adapter", files(map[string]any{"lora_bias": true}, good...), []string{"lora_bias", "not supported"}},
		{"PiSSA", files(map[string]any{"init_lora_weights": "pissa_niter_16"}, good...), []string{"init_lora_weights", "changes the weights of the base model"}},
		{"an unknown key", files(map[string]any{"use_next_thing": 7}, good...), []string{"use_next_thing", "7 is not supported"}},
		{"rank 0", files(map[string]any{"r": 0}, good...), []string{"r: expected a rank of 1 to 4096, found 0"}},
		{"a rank in words", files(map[string]any{"r": "two"}, good...), []string{`r: expected a number, found "two"`}},
		{"huge alpha", files(map[string]any{"lora_alpha": 1e9}, good...), []string{ConfigFile, "lora_alpha 1e+09", "at most 10000"}},
		{"infinite alpha", files(map[string]any{"alpha_pattern": map[string]float64{"q_proj": 1e300}}, good...), []string{"lora_alpha 1e+300"}},
		{"Python's lookahead", files(map[string]any{"target_modules": "(?!vision).*q_proj"}, good...), []string{"target_modules", "regular expression", "(?!"}},
		{"a hostile pattern", files(map[string]any{"target_modules": strings.Repeat("(a{1000}){1000}", 3)}, good...), []string{"target_modules", "regular expression"}},
		{"a long pattern", files(map[string]any{"target_modules": strings.Repeat("a|", 20000)}, good...), []string{"40000 bytes, expected at most 16384"}},
		{"not targeted", files(map[string]any{"target_modules": []string{"k_proj"}}, good...), []string{WeightsFile, "q_proj", "not a target of " + ConfigFile}},
		{"excluded", files(map[string]any{"exclude_modules": []string{"q_proj"}}, good...), []string{"not a target"}},
		{"another layer", files(map[string]any{"layers_to_transform": []int{1}}, good...), []string{"not a target"}},
		{"not tensors", fstest.MapFS{ConfigFile: files(nil)[ConfigFile], WeightsFile: {Data: []byte("hello")}}, []string{WeightsFile, "not a safetensors file"}},
		{"truncated", fstest.MapFS{ConfigFile: files(nil)[ConfigFile], WeightsFile: {Data: weightstest.File(good...)[:900]}}, []string{WeightsFile, "truncated"}},
		{"no pairs", files(nil), []string{"no tensors"}},
		{"no B", files(nil, good[0]), []string{a0, "expected a lora_B beside it, found none"}},
		{"no A", files(nil, good[1]), []string{b0, "expected a lora_A beside it, found none"}},
		{"twice", files(nil, append(good, tensor(qProj+".lora_A.default.weight", 1, 2, width))...), []string{"lora_A.default.weight", a0}},
		{"an embedding", files(nil, tensor("base_model.model.model.embed_tokens.lora_embedding_A", 1, 2, 4)), []string{"lora_embedding_A", "embeddings are not supported"}},
		{"integers", files(nil, with(a0, weightstest.Tensor{Name: a0, DType: "I8", Shape: []int{2, width}, Data: make([]byte, 2*width)})...), []string{a0, "expected type F32, F16 or BF16, found I8"}},
		{"one dimension", files(nil, with(a0, tensor(a0, 1, 2*width))...), []string{a0, "expected two dimensions", fmt.Sprint([]int{2 * width})}},
		{"another rank of A", files(nil, with(a0, tensor(a0, 1, 3, width))...), []string{a0, "rank 2", fmt.Sprint([]int{3, width})}},
		{"another rank of B", files(nil, with(b0, tensor(b0, 1, queries, 3))...), []string{b0, "rank 2", fmt.Sprint([]int{queries, 3})}},
		{"NaN", files(nil, with(a0, odd)...), []string{a0, "element [1 3] is NaN, expected a number"}},
		{"an infinity", files(nil, with(b0, tensor(b0, float32(math.Inf(-1)), queries, 2))...), []string{b0, "element [0 0] is -Inf"}},
	} {
		refused(t, tt.name, tt.expect, func() error { _, err := Read(tt.fsys, 1<<20); return err })
	}
	for _, tt := range []struct {
		name   string
		fsys   fstest.MapFS
		expect []string
	}{
		{"another base", files(nil, pair(qProj, 2*width, 2, queries)...), []string{a0, fmt.Sprintf("needs shape [2 %d] for rank 2, found [2 %d]", width, 2*width)}},
		{"another base's outputs", files(nil, pair(qProj, width, 2, queries+8)...), []string{b0, fmt.Sprintf("[%d 2]", queries), fmt.Sprintf("found [%d 2]", queries+8)}},
		{"a layer too many", files(nil, pair(strings.Replace(qProj, "0", "9", 1), width, 2, queries)...), []string{"no module", "model.layers.9.self_attn.q_proj"}},
		{"the embedding", files(map[string]any{"target_modules": []string{"embed_tokens"}}, pair("base_model.model.model.embed_tokens", written.Vocab, 2, width)...), []string{"embeddings are not supported"}},
		{"the head", files(map[string]any{"target_modules": []string{"lm_head"}}, pair("base_model.model.lm_head", width, 2, written.Vocab)...), []string{"the output layer are not supported"}},
		{"one module under two names", files(nil, append(good, pair("base_model.model.layers.0.self_attn.q_proj", width, 2, queries)...)...), []string{"as well"}},
		{"a tower alone", files(nil, pair("base_model.model.vision_tower.layers.0.self_attn.q_proj", 8, 2, 8)...), []string{"beside the language model"}},
		{"experts it has not", files(map[string]any{"target_parameters": []string{"mlp.experts.down_proj"}}, pair("base_model.model.model.layers.0.mlp.experts", 8, 2, 8)...), []string{"no module", "experts.down_proj"}},
	} {
		a, err := Read(tt.fsys, 1<<20)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		refused(t, tt.name, tt.expect, func() error { _, err := a.Fit(lowered); return err })
	}
}

// refused holds what was done to an error with all of these parts, in one line.
func refused(t *testing.T, name string, parts []string, do func() error) {
	t.Helper()
	err := do()
	if err == nil {
		t.Errorf("%s: no error, want one with %q", name, parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %q in it, on one line", name, err, part)
		}
	}
}

// What PEFT's patterns select.
func TestTargets(t *testing.T) {
	const q, experts = "model.layers.1.self_attn.q_proj", "model.layers.12.mlp.experts.1.w1"
	for _, tt := range []struct {
		change map[string]any
		module string
		want   bool
	}{
		{map[string]any{"target_modules": []string{"proj"}}, q, false},
		{map[string]any{"target_modules": []string{"self_attn.q_proj"}}, q, true},
		{map[string]any{"target_modules": []string{q}}, q, true},
		{map[string]any{"target_modules": "ALL-LINEAR"}, q, true},
		{map[string]any{"target_modules": "q_proj"}, q, false}, // a pattern matches whole names
		{map[string]any{"target_modules": `.*\.(q|v)_proj`}, q, true},
		{map[string]any{"exclude_modules": `.*q.*`}, q, false},
		{map[string]any{"layers_to_transform": 1}, q, true},
		{map[string]any{"layers_to_transform": []int{}}, q, true},
		{map[string]any{"layers_to_transform": []int{0, 2}}, q, false},
		{map[string]any{"target_modules": []string{"w1"}, "layers_to_transform": []int{12}}, experts, true}, // not the expert's number
		{map[string]any{"target_modules": []string{"w1"}, "layers_to_transform": []int{1}}, experts, false},
		{map[string]any{"target_modules": []string{"w1"}, "layers_to_transform": []int{1}, "layers_pattern": "experts"}, experts, true},
		{map[string]any{"layers_to_transform": []int{1}, "layers_pattern": []string{"h", "layers"}}, q, true},
		{map[string]any{"layers_to_transform": []int{1}, "layers_pattern": []string{"h"}}, q, false},
	} {
		c, err := parseConfig(files(tt.change)[ConfigFile].Data)
		if err != nil {
			t.Errorf("%v: %v", tt.change, err)
		} else if got := c.wants(tt.module); got != tt.want {
			t.Errorf("%v: wants %s: %v", tt.change, tt.module, got)
		}
	}
}

// Whatever the files hold, reading and fitting end with an adapter whose matrices
// have the sizes that its plan needs, or with an error of one line.
func FuzzRead(f *testing.F) {
	_, p := of(f, "mixtral")
	for _, name := range []string{"mixtral-names-v4", "mixtral", "llama-pattern"} {
		dir := weights.Folder(filepath.Join("..", "testdata", "adapters", name))
		config, err := readFile(dir, ConfigFile, 1<<20)
		if err != nil {
			f.Skip(err)
		}
		data, err := readFile(dir, WeightsFile, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(config, data)
	}
	f.Add([]byte(`{"peft_type":"LORA","target_modules":"(a|b)*","rank_pattern":{"^(":1}}`), weightstest.File())
	f.Fuzz(func(t *testing.T, config, data []byte) {
		a, err := Read(fstest.MapFS{ConfigFile: {Data: config}, WeightsFile: {Data: data}}, 1<<20)
		if err == nil {
			d, fitErr := a.Fit(p)
			if err = fitErr; err == nil {
				for _, target := range d.Targets {
					shape := p.Tensors[target.Tensor].Shape
					matrices := 1
					if len(shape) == 3 {
						matrices = shape[0]
					}
					rows, cols := shape[len(shape)-2], shape[len(shape)-1]
					if target.First < 0 || target.First+target.Rows > rows || len(target.A) != matrices*d.Rank*cols || len(target.B) != matrices*target.Rows*d.Rank {
						t.Fatalf("rows %d to %d of %v, %d and %d numbers at rank %d", target.First, target.First+target.Rows, shape, len(target.A), len(target.B), d.Rank)
					}
				}
				return
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of several lines: %q", err)
		}
	})
}
