package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// A model's head for drafts is loaded with --speculate alone, where the backend runs it,
// and a head that is not complete is left.
func TestDraftHead(t *testing.T) {
	dir, _ := weightstest.WithDraft(t, filepath.Join("..", "engine", "testdata"), "qwen3_5")
	drafts := func(cfg *config.Serve) bool {
		t.Helper()
		m, err := openModel(t.Context(), source.Open, dir, cfg, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		defer m.checkpoint.Close()
		return len(m.plan.Draft) > 0
	}
	inspected := func() bool {
		t.Helper()
		cfg, _, _, err := parseServe(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := describeModel(t.Context(), dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return d.DraftHead
	}
	if !inspected() {
		t.Error("inspect sees no head")
	}
	for _, tt := range []struct {
		speculate int
		device    string
		want      bool
	}{{0, "cpu", false}, {1, "auto", true}, {8, "ref", true}, {8, "cuda", true}, {8, "sim", false}} {
		if got := drafts(&config.Serve{Speculate: tt.speculate, Device: tt.device}); got != tt.want {
			t.Errorf("--speculate %d --device %s: a head %v, want %v", tt.speculate, tt.device, got, tt.want)
		}
	}
	for _, file := range []string{"model-00002-of-00002.safetensors", "model.safetensors.index.json"} {
		path := filepath.Join(dir, file)
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.ReplaceAll(data, []byte("mtp.norm.weight"), []byte("mtp.other_weight")[:len("mtp.norm.weight")]), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if inspected() || drafts(&config.Serve{Speculate: 8, Device: "cpu"}) {
		t.Error("a head without its norm is used")
	}
}
