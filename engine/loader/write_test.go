package loader

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/weights"
)

// writeTo writes checkpoint c to a folder and opens it.
func writeTo(t *testing.T, c *weights.Checkpoint, quantize plan.Quantize) *weights.Checkpoint {
	t.Helper()
	_, p, err := Plan(c)
	if err != nil {
		t.Fatal(err)
	}
	p.Quantize = quantize
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := Write(f, p, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := w.Config(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	written, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { written.Close() })
	if written.Bytes() != w.Bytes {
		t.Errorf("%d bytes of tensors, %d said", written.Bytes(), w.Bytes)
	}
	return written
}

// TestWrite: what is written loads as what it was written from does with the same
// --quantize, bit for bit where plans are lowered.
func TestWrite(t *testing.T) {
	open := func(name string) func(*testing.T) *weights.Checkpoint {
		return func(t *testing.T) *weights.Checkpoint {
			c, err := weights.Open(filepath.Join("..", "testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
	}
	for _, name := range []string{"llama", "llama-tied-bf16", "qwen3-moe", "gemma3-vision", "mamba2", "phi3", "llama-awq", "llama-fp8-block", "llama-gptq-act-order", "llama-bnb-nf4-double", "llama-ct-nvfp4"} {
		for _, quantize := range []plan.Quantize{plan.QuantizeInt8, plan.QuantizeInt4} {
			from := open(name)
			written := writeTo(t, from(t), quantize)
			for _, lowered := range []bool{false, true} {
				want, got := &weightSink{lowered: lowered, kinds: allKinds}, &weightSink{lowered: lowered, kinds: allKinds}
				if err := loadInto(want, from(t), quantize); err != nil {
					t.Fatal(err)
				}
				if err := loadInto(got, written, plan.QuantizeNone); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				few := 0
				for i := range want.names {
					if want.formats[i].Quantized() {
						few++
					}
					// The gates of a plan that is not lowered would have stayed floats.
					if lowered && (got.formats[i] != want.formats[i] || string(got.data[i]) != string(want.data[i])) {
						t.Errorf("%s: tensor %s is %v, want %v, or other bytes", name, want.names[i], got.formats[i], want.formats[i])
					}
				}
				if few == 0 {
					t.Errorf("%s: nothing is quantized", name)
				}
			}
		}
	}
}

// TestWriteTwice: what is quantized already is refused.
func TestWriteTwice(t *testing.T) {
	config, tensors := readTensors(t, "awq")
	written := writeTo(t, openTensors(t, config, tensors), plan.QuantizeInt8)
	_, p, err := Plan(written)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(nil, p, written, nil); err == nil || !strings.Contains(err.Error(), "quantized already") {
		t.Errorf("%v, want a refusal", err)
	}
	var text map[string]any
	if err := json.Unmarshal(written.Config(), &text); err != nil || text["quantization_config"].(map[string]any)["quant_method"] != "millrace" {
		t.Errorf("config.json: %v, %s", err, written.Config())
	}
}
