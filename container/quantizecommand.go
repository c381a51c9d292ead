package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/loader"
)

// quantizeCommand writes a quantized checkpoint.
type quantizeCommand struct {
	Model    string `arg:"" help:"Checkpoint to quantize: what --model-id takes."`
	Folder   string `arg:"" help:"Where to write the new one; created, and refused if there is something in it."`
	Quantize string `default:"int8" enum:"int8,int4" placeholder:"int8|int4" help:"Bits of a weight: 8 or 4. Default: int8."`
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
	start := time.Now()
	before, after, err := quantizeTo(ctx, place, q.Folder, q.Quantize)
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

// quantizeTo writes the model at a place to dir and returns the bytes of its weights
// before and after. After an error dir may hold a part of it.
func quantizeTo(ctx context.Context, place, dir, quantize string) (before, after int64, err error) {
	m, err := openModel(ctx, source.Open, place, &config.Serve{Quantize: quantize}, math.MaxInt64)
	if err != nil {
		return 0, 0, usageError{err}
	}
	defer m.checkpoint.Close()
	if name := m.checkpoint.Source(); strings.HasSuffix(strings.ToLower(name), ".gguf") {
		return 0, 0, usageError{fmt.Errorf("%s: a GGUF file is served as it is; quantize the checkpoint in safetensors", name)}
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
	written, err := loader.Write(weights, m.plan, m.checkpoint, bar)
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
