package gguf

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
)

// described is a model of an architecture with integers and tensors of F32, which are
// not read.
func described(name string, values map[string]int64, tensors map[string][]int) (*Model, error) {
	h := &Header{Values: map[string]any{"general.architecture": name}}
	for key, v := range values {
		h.Values[name+"."+key] = v
	}
	for name, shape := range tensors {
		h.Tensors = append(h.Tensors, Tensor{Name: name, Shape: shape})
	}
	return Open([]*Header{h}, nil)
}

// GLM-4 as first published has queries, keys and values in one tensor.
func TestSplitQKV(t *testing.T) {
	values := map[string]int64{"block_count": 1, "attention.head_count": 4, "attention.head_count_kv": 2}
	m, err := described("chatglm", values, map[string][]int{"token_embd.weight": {50, 32}, "blk.0.attn_qkv.weight": {64, 32}, "blk.0.attn_qkv.bias": {64}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Run{}
	for _, v := range m.Tensors {
		got[strings.TrimPrefix(v.Name, "model.layers.0.self_attn.")] = Run{First: v.Rows[0].First, N: v.Rows[0].N}
	}
	for name, want := range map[string]Run{"q_proj": {N: 32}, "k_proj": {First: 32, N: 16}, "v_proj": {First: 48, N: 16}} {
		for _, suffix := range []string{".weight", ".bias"} {
			if got[name+suffix] != want {
				t.Errorf("%s is rows %+v, want %+v", name+suffix, got[name+suffix], want)
			}
		}
	}
	_, err = described("chatglm", values, map[string][]int{"token_embd.weight": {50, 32}, "blk.0.attn_qkv.weight": {63, 32}})
	if err == nil || !strings.Contains(err.Error(), "not the rows of queries, keys and values") {
		t.Errorf("err %v of too few rows", err)
	}
}

// Jamba's config has a period and an offset where a file has tensors.
func TestEvery(t *testing.T) {
	for _, tt := range []struct {
		at   []int
		want [2]int
		err  string
	}{
		{[]int{4, 12}, [2]int{8, 4}, ""},
		{[]int{3}, [2]int{16, 3}, ""},
		{nil, [2]int{17, 16}, ""},
		{[]int{0, 1, 2, 3}, [2]int{}, "not evenly spaced"}, // and not 4
		{[]int{5, 7, 9, 11, 13, 15}, [2]int{}, "not evenly spaced"},
		{[]int{1, 5, 8}, [2]int{}, "not evenly spaced"},
	} {
		m := &model{layers: 16, byName: map[string]int{}}
		for _, i := range tt.at {
			m.byName[fmt.Sprintf("blk.%d.x", i)] = i
		}
		period, offset := m.every("x")
		if tt.err != "" {
			if m.err == nil || !strings.Contains(m.err.Error(), tt.err) {
				t.Errorf("%v: err %v, want %q", tt.at, m.err, tt.err)
			}
		} else if got := [2]int{period, offset}; m.err != nil || got != tt.want {
			t.Errorf("%v: period and offset %v, err %v, want %v", tt.at, got, m.err, tt.want)
		}
	}
}

// Apertus has the numbers of its activation in the metadata.
func TestActivations(t *testing.T) {
	read := func(more map[string]any) (*Model, error) {
		values := map[string]any{
			"general.architecture": "apertus", "apertus.block_count": int64(2), "apertus.attention.head_count": int64(4),
			"xielu.alpha_p": []float64{0.25, -0.5}, "xielu.alpha_n": 2.0, "xielu.beta": 0.5,
		}
		maps.Copy(values, more)
		h := &Header{Values: values, Tensors: []Tensor{{Name: "token_embd.weight", Shape: []int{50, 32}}}}
		for i := range 2 {
			h.Tensors = append(h.Tensors, Tensor{Name: fmt.Sprintf("blk.%d.attn_norm.weight", i), Type: types[0], Shape: []int{32}, Size: 128})
		}
		return Open([]*Header{h}, nil)
	}
	m, err := read(nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float32{}
	for _, v := range m.Tensors {
		if strings.Contains(v.Name, "alpha") {
			row := []float32{1}
			v.Map(row)
			got[v.Name] = row[0]
		}
	}
	want := map[string]float32{
		"model.layers.0.mlp.act_fn.alpha_p": 0.25, "model.layers.1.mlp.act_fn.alpha_p": -0.5,
		"model.layers.0.mlp.act_fn.alpha_n": 2, "model.layers.1.mlp.act_fn.alpha_n": 2,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, tt := range []struct {
		key   string
		value any
		want  string
	}{
		{"xielu.beta", 0.75, "xielu.beta: 0.75 is not supported"},
		{"xielu.alpha_p", []float64{1}, "xielu.alpha_p must be a number for each of 2 layers"},
		{"xielu.alpha_n", "one", "xielu.alpha_n must be a number"},
		{"xielu.alpha_n", math.NaN(), "NaN of layer 0 is not a number"},
	} {
		if _, err := read(map[string]any{tt.key: tt.value}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: err %v, want %q", tt.key, tt.value, err, tt.want)
		}
	}
}

// Queries that grow with their position need the length from which on they do.
func TestQueryGrowth(t *testing.T) {
	for name, tt := range map[string]struct {
		scale float64
		yarn  bool
		want  string
	}{
		"mistral3":  {0.1, false, "original_context_length on, which is missing"},
		"mistral4":  {0.1, false, "original_context_length on, which is missing"},
		"deepseek2": {0.1, true, "as Mistral Large 3 is"},
	} {
		values := map[string]any{
			"general.architecture": name, name + ".block_count": int64(1), name + ".attention.head_count": int64(4),
			name + ".attention.temperature_scale": tt.scale,
		}
		if tt.yarn {
			values[name+".rope.scaling.type"], values[name+".rope.scaling.original_context_length"] = "yarn", int64(64)
		}
		_, err := Open([]*Header{{Values: values, Tensors: []Tensor{{Name: "token_embd.weight", Shape: []int{50, 32}}}}}, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err %v, want %q", name, err, tt.want)
		}
	}
}
