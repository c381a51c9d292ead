package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// model is one of the shapes, in all formats.
type model struct {
	name, dir string
	settings  *settings
	first     bool // of the shapes
}

// The loads without a server, as llama-batched-bench defines them.
const (
	newTokens   = 64   // of the decode tests
	shortPrompt = 16   // before them
	longPrompt  = 8192 // tokens, of the part long and of pace
	longTokens  = 32   // decoded after them
	busyStreams = 8    // of the part busy
	maxStreams  = 32
)

// prompt returns the tokens of the prefill test. A recurrent model reads short ones
// badly in llama.cpp, which people notice in chats.
func (m *model) prompt() int {
	if m.name == "qwen3.5-2b" {
		return 86
	}
	return 512
}

// streams are the numbers of sequences at once. The other shapes are measured with few:
// they are slower, and show the same.
func (m *model) streams() []int {
	if m.first {
		return m.settings.streams
	}
	return slices.DeleteFunc(slices.Clone(m.settings.streams), func(n int) bool { return n > 8 })
}

// make writes the random weights and their formats, so far as they are not there.
// The file in BF16 is deleted unless it is measured: it is the largest.
func (m *model) make(pairs []pair) error {
	var ours, theirs []string
	for _, p := range pairs {
		ours, theirs = append(ours, p.ours), append(theirs, p.theirs)
		if isGGUF(p.ours) {
			theirs = append(theirs, p.ours)
		}
	}
	missing := func(path string) bool { _, err := os.Stat(path); return err != nil }
	theirs = slices.DeleteFunc(theirs, func(format string) bool { return !missing(m.gguf(format)) })
	if missing(m.checkpoint()) || len(theirs) > 0 && missing(m.gguf("BF16")) {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := m.run(filepath.Join(m.settings.dir, "venv/bin/python"), "dev/peer/model.py", m.dir, "--shape", m.name); err != nil {
			return err
		}
	}
	for _, format := range theirs {
		if err := m.quantize(format); err != nil {
			return err
		}
	}
	for _, format := range ours {
		if format != "bf16" && !isGGUF(format) {
			if err := m.quantizeOurs(format); err != nil {
				return err
			}
		}
	}
	if slices.ContainsFunc(pairs, func(p pair) bool { return p.ours == "BF16" || p.theirs == "BF16" }) {
		return nil
	}
	if err := os.Remove(m.gguf("BF16")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkpoint returns the folder of the weights in bf16, as model.py writes it.
func (m *model) checkpoint() string { return filepath.Join(m.dir, "hf") }

// ours returns what Millrace reads for a format: the checkpoint in bf16, a folder
// that `millrace quantize` has written, or a GGUF file.
func (m *model) ours(format string) string {
	switch {
	case format == "bf16":
		return m.checkpoint()
	case isGGUF(format):
		return m.gguf(format)
	}
	return filepath.Join(m.dir, format)
}

// isGGUF reports whether a format of ours is a type of GGUF.
func isGGUF(format string) bool { return format == strings.ToUpper(format) }

// quantizeOurs writes the folder of int8 or int4. One that is older than the program
// is written again, since its layout may have changed.
func (m *model) quantizeOurs(format string) error {
	program, err := os.Stat(m.settings.millrace)
	if err != nil {
		return fmt.Errorf("%w: make build writes it", err)
	}
	path := m.ours(format)
	if folder, err := os.Stat(path); err == nil && folder.ModTime().After(program.ModTime()) {
		return nil
	}
	partly := path + ".partly"
	if err := errors.Join(os.RemoveAll(path), os.RemoveAll(partly)); err != nil {
		return err
	}
	if err := m.run(m.settings.millrace, "quantize", m.checkpoint(), partly, "--quantize", format); err != nil {
		return err
	}
	return os.Rename(partly, path)
}

// gguf returns the path of the file of a type.
func (m *model) gguf(format string) string { return filepath.Join(m.dir, format+".gguf") }

// quantize writes the file of a type from that in BF16.
func (m *model) quantize(format string) error {
	if format == "BF16" {
		return nil
	}
	partly := m.gguf(format) + ".partly"
	if err := m.run(filepath.Join(m.settings.dir, "llama/bin/llama-quantize"), m.gguf("BF16"), partly, format, strconv.Itoa(m.settings.threads)); err != nil {
		return err
	}
	return os.Rename(partly, m.gguf(format))
}

// llama returns the path of a program of llama.cpp's, of the instruction set.
func (m *model) llama(program string) string {
	folder := "llama"
	if m.settings.isa != "" {
		folder += "-" + m.settings.isa
	}
	return filepath.Join(m.settings.dir, folder, "bin", program)
}

// run runs a program that makes something. Its output is an error's text.
func (m *model) run(program string, args ...string) error {
	fmt.Fprintf(os.Stderr, "%s: %s\n", m.name, filepath.Base(program))
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w %s", program, err, lastLines(string(out)))
	}
	return nil
}
