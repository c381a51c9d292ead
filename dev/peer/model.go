package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/millrace-ai/millrace/dev/inprocess"
)

// model is one of the shapes, in all formats.
type model struct {
	name, dir string
	settings  *settings
}

// The loads without a server, as llama-batched-bench defines them.
const (
	newTokens   = 64   // of the decode tests
	shortPrompt = 16   // before them
	longPrompt  = 8192 // tokens, of the part long and of pace
	longTokens  = 32   // decoded after them
)

// prompt returns the tokens of the prefill test. A recurrent model reads short ones
// badly in llama.cpp, which people notice in chats.
func (m *model) prompt() int {
	if m.name == "qwen3.5-2b" {
		return 86
	}
	return 512
}

// make writes the random weights, if they are not there.
func (m *model) make() error {
	if _, err := os.Stat(m.gguf("BF16")); err == nil {
		return nil
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return err
	}
	return m.run(filepath.Join(m.settings.dir, "venv/bin/python"), "dev/peer/model.py", m.dir, "--shape", m.name)
}

// gguf returns the path of the file of a type.
func (m *model) gguf(format string) string { return filepath.Join(m.dir, format+".gguf") }

// quantized makes the file of a type, if it is not there.
func (m *model) quantized(format string) (path string, err error) {
	path = m.gguf(format)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	partly := path + ".partly"
	if err := m.run(m.llama("llama-quantize"), m.gguf("BF16"), partly, format, strconv.Itoa(m.settings.threads)); err != nil {
		return "", inprocess.Missing(err)
	}
	return path, os.Rename(partly, path)
}

func (m *model) llama(program string) string {
	return filepath.Join(m.settings.dir, "llama/bin", program)
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
