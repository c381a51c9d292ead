package gguf

import (
	"fmt"
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
