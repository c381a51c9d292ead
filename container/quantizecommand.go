package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/calibrate"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/quant"
)

// quantizeCommand writes a quantized checkpoint.
type quantizeCommand struct {
	Model    string `arg:"" help:"Checkpoint to quantize: what --model-id takes."`
	Folder   string `arg:"" help:"Where to write the new one; created, and refused if there is something in it."`
	Quantize string `default:"int8" enum:"int8,int4" placeholder:"int8|int4" help:"Bits of a weight: 8 or 4. Default: int8."`

	Calibration string  `placeholder:"FILE" help:"Text that the model reads first, so that weights of 4 bits are rounded where it does least harm (GPTQ). A hundred thousand characters of what it is used for are enough."`
	Bits        float64 `placeholder:"N" help:"With --calibration: bits that a weight may take on average, at least 4.5; the matrices that lose the greatest share of their products are kept in 8. Default: 4.5."`
}

// Run quantizes until ctx ends.
func (q *quantizeCommand) Run(ctx context.Context) error {
	place, err := locateModel(q.Model)
	if err == nil && place == "" {
		err = errors.New("which model?")
	}
	if err == nil {
		err = emptyFolder(q.Folder)
	}
	if err != nil {
		return usageError{fmt.Errorf("quantize: %w", err)}
	}
	if q.Calibration != "" && q.Quantize != "int4" {
		return usageError{errors.New("quantize: --calibration is for --quantize int4: 8 bits lose next to nothing")}
	}
	switch {
	case q.Bits != 0 && q.Calibration == "":
		return usageError{errors.New("quantize: --bits needs --calibration, which tells what loses most")}
	case q.Bits != 0 && !(q.Bits >= 4.5 && q.Bits <= 8.25):
		return usageError{fmt.Errorf("quantize: --bits=%g: expected 4.5 to 8.25", q.Bits)}
	}
	start := time.Now()
	before, after, err := q.write(ctx, place)
	if err != nil {
		return fmt.Errorf("quantize: %w", err)
	}
	_, err = fmt.Fprintf(os.Stderr, "%s, %s of weights instead of %s, %.1f s\n", q.Folder, size(after), size(before), time.Since(start).Seconds())
	return err
}

// emptyFolder refuses a folder with something in it, and a file.
func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s: there is something in it, and nothing is overwritten", dir)
	}
	return err
}

// write writes the model at a place and returns the bytes of its weights before and
// after. After an error the folder may hold a part of it.
func (q *quantizeCommand) write(ctx context.Context, place string) (before, after int64, err error) {
	dir := q.Folder
	// With the head that drafts tokens, so that it is written, too.
	m, err := openModel(ctx, source.Open, place, &config.Serve{Quantize: q.Quantize, Device: "cpu", Speculate: 1}, math.MaxInt64)
	if err != nil {
		return 0, 0, usageError{err}
	}
	defer m.checkpoint.Close()
	if name := m.checkpoint.Source(); strings.HasSuffix(strings.ToLower(name), ".gguf") {
		return 0, 0, usageError{fmt.Errorf("%s: a GGUF file is served as it is; quantize the checkpoint in safetensors", name)}
	}
	recipe := loader.Recipe{Bits: q.Bits}
	if q.Calibration != "" {
		plain := *m
		plain.draft = false // what is measured are rows of tokens before sampling
		if err = plain.read(); err == nil {
			recipe.Moments, err = measure(ctx, &plain, q.Calibration)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, 0, err
	}
	// The weights come last: without them, a folder is not a model.
	weights, err := os.CreateTemp(dir, "quantize-*.tmp")
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(weights.Name())
	defer weights.Close()
	bar, finish := progressBar(os.Stderr)
	written, err := loader.Write(weights, m.plan, m.checkpoint, recipe, bar)
	finish()
	if err != nil {
		return 0, 0, err
	}
	text, err := written.Config(m.checkpoint.Config())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
	}
	if err == nil {
		err = copyBeside(m.files, dir)
	}
	if err == nil {
		err = errors.Join(weights.Chmod(0o644), weights.Close())
	}
	if err == nil {
		err = os.Rename(weights.Name(), filepath.Join(dir, "model.safetensors"))
	}
	return m.checkpoint.Bytes(), written.Bytes, err
}

// calibrationWindow is how many tokens of the text are read at once.
const calibrationWindow = 512

// measure reads a text with the model.
func measure(ctx context.Context, m *model, file string) (map[string]*quant.Moments, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError{fmt.Errorf("--calibration: %w", err)}
	}
	if m.checkpoint.Streamed() {
		return nil, usageError{errors.New("--calibration: the weights are read twice; download them into a folder first")}
	}
	tokenizer, err := m.loadTokenizer()
	if err != nil {
		return nil, err
	}
	defer tokenizer.Close()
	ids, err := tokenizer.Encode(string(text), true)
	if err != nil {
		return nil, fmt.Errorf("--calibration: %w", err)
	}
	// Each window begins as a text does.
	begin := ids[:tokenizer.LeadingSpecial()]
	var windows [][]int32
	for window := range slices.Chunk(ids[len(begin):], min(calibrationWindow, m.plan.MaxPos)-len(begin)) {
		windows = append(windows, slices.Concat(begin, window))
	}
	if len(windows) == 0 {
		return nil, usageError{fmt.Errorf("--calibration: %s is empty", file)}
	}
	bar, finish := progressBar(os.Stderr)
	defer finish()
	calibration := &calibrate.Measurement{
		Open:       func(l device.Limits) (device.Backend, error) { return cpu.Open(l) },
		Plan:       m.plan,
		Checkpoint: m.checkpoint,
		Windows:    windows,
		Progress: func(done, total int) { // bytes of the text
			bar(int64(done)*int64(len(text))/int64(total), int64(len(text)))
		},
	}
	return calibration.Run(ctx)
}

// copyBeside copies the files beside the weights, such as the tokenizer.
func copyBeside(files fs.FS, dir string) error {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || name == "config.json" || strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".safetensors.index.json") ||
			strings.HasSuffix(name, ".bin") || strings.HasSuffix(name, ".pth") {
			continue
		}
		data, err := fs.ReadFile(files, name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
