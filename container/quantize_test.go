package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/plan"
)

func TestQuantizeOf(t *testing.T) {
	for _, tt := range []struct {
		asked, method string
		want          plan.Quantize
		refused       string
	}{
		{asked: "", method: "awq", want: plan.QuantizeNone},
		{asked: "none", want: plan.QuantizeNone},
		{asked: "int8", want: plan.QuantizeInt8},
		{asked: "INT4", method: "fp8", want: plan.QuantizeInt4},
		{asked: "awq", method: "awq", want: plan.QuantizeNone},
		{asked: "gptq_marlin", method: "gptq", want: plan.QuantizeNone},
		{asked: "bitsandbytes-nf4", method: "bitsandbytes", want: plan.QuantizeNone},
		{asked: "awq", method: "gptq", refused: "the checkpoint's quant_method is gptq, which needs no flag"},
		{asked: "fp8", refused: "the checkpoint is not stored so; int8 or int4"},
		{asked: "exl2", refused: "--quantize=exl2: not supported, only int8 and int4"},
	} {
		got, err := quantizeOf(tt.asked, tt.method)
		if got != tt.want || (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%q of %q: %v, %v; want %v, %q", tt.asked, tt.method, got, err, tt.want, tt.refused)
		}
	}
}

// TestQuantizeCalibrated: the text changes codes, and nothing else; what cannot be a
// calibration is refused.
func TestQuantizeCalibrated(t *testing.T) {
	from, scratch := tinyFolder(t), t.TempDir()
	text := filepath.Join(scratch, "text.txt")
	empty := filepath.Join(scratch, "empty.txt")
	for name, content := range map[string]string{text: strings.Repeat("The quick brown fox jumps over the lazy dog. ", 8), empty: ""} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var files [2][]byte
	for i, calibration := range []string{"", text} {
		dir := filepath.Join(scratch, strconv.Itoa(i))
		if err := (&quantizeCommand{Model: from, Folder: dir, Quantize: "int4", Calibration: calibration}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var err error
		if files[i], err = os.ReadFile(filepath.Join(dir, "model.safetensors")); err != nil {
			t.Fatal(err)
		}
	}
	if len(files[0]) != len(files[1]) || bytes.Equal(files[0], files[1]) {
		t.Errorf("%d bytes with a text, %d without, equal: %v", len(files[1]), len(files[0]), bytes.Equal(files[0], files[1]))
	}
	wide := filepath.Join(scratch, "wide")
	if err := (&quantizeCommand{Model: from, Folder: wide, Quantize: "int4", Calibration: text, Bits: 6}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := openModel(t.Context(), source.Open, wide, &config.Serve{}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer m.checkpoint.Close()
	kinds := map[plan.Format]int{}
	for name, f := range m.plan.Stored.Formats {
		if strings.Contains(name, "_proj") {
			kinds[f.Kind()]++
		}
	}
	if kinds[plan.W4] == 0 || kinds[plan.W8] == 0 {
		t.Errorf("projections with 6 bits: %d in four, %d in eight", kinds[plan.W4], kinds[plan.W8])
	}
	for _, tt := range []struct {
		quantize, calibration string
		bits                  float64
		want                  string
	}{
		{"int8", text, 0, "--calibration is for --quantize int4"},
		{"int4", empty, 0, "is empty"},
		{"int4", filepath.Join(scratch, "none"), 0, "no such file"},
		{"int4", "", 5, "--bits needs --calibration"},
		{"int4", text, 4, "expected 4.5 to 8.25"},
	} {
		dir := filepath.Join(scratch, "refused")
		err := (&quantizeCommand{Model: from, Folder: dir, Quantize: tt.quantize, Calibration: tt.calibration, Bits: tt.bits}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %v, want %q", tt.quantize, tt.calibration, err, tt.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s %s: a folder is left", tt.quantize, tt.calibration)
		}
	}
}

// TestQuantizeCommand: a checkpoint is written once, smaller, with the files beside
// its weights, and is a model again.
func TestQuantizeCommand(t *testing.T) {
	from, dir := tinyFolder(t), filepath.Join(t.TempDir(), "q")
	command := &quantizeCommand{Model: from, Folder: dir, Quantize: "int4"}
	if err := command.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadDir(dir)
	if err != nil || len(after) != len(before) {
		t.Errorf("%v: %v, %v; want the files of %v", dir, after, err, before)
	}
	for i, e := range after {
		if e.Name() != before[i].Name() {
			t.Errorf("file %s, want %s", e.Name(), before[i].Name())
		}
	}
	m, err := openModel(t.Context(), source.Open, dir, &config.Serve{Quantize: "none"}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer m.checkpoint.Close()
	if m.plan.Stored.Method != plan.MethodRows || len(m.plan.Stored.Formats) == 0 {
		t.Errorf("quant_method %q, formats %v", m.plan.Stored.Method, m.plan.Stored.Formats)
	}
	if err := command.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Errorf("a second time: %v", err)
	}
}
