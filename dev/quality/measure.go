package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/dev/inprocess"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// window is how many tokens are read at once; those from the middle on are scored,
// as llama-perplexity does.
const window = 512

// calibrated is int4, rounded for the calibration text, and mixed the same with as many
// matrices in 8 bits as make the layers as large as Q4_K_M's.
const (
	calibrated = "int4 calibrated"
	mixed      = "int4 calibrated mixed"
)

// mixedBits returns the bits of a weight of a model's layers in Q4_K_M. They are more than
// 4.5 since most rows are not a multiple of 256: then llama.cpp takes Q5_0 for Q4_K.
func mixedBits(model string) string {
	if strings.HasPrefix(model, "gemma3") {
		return "5.43"
	}
	return "5.53"
}

// turned are the models that no package has, whose weights lie on no grid.
var turned = []string{"smollm2-rotated", "gemma3-shuffled"}

// chosen are our formats that answer the questions, bf16 first.
var chosen = []string{"bf16", "int8", "bf16 + KV int8", "int4", calibrated, mixed}

type settings struct {
	dir, llama, out string
	millrace        string // the program
	threads, chunks int
	questions       int
	calibration     int // characters of calibration.txt
	only            []string
}

// measurer measures one model.
type measurer struct {
	*settings
	dir    string
	tokens []int32 // of the text, as llama.cpp has them
	begin  []int32 // the token that begins texts; empty: none
	table  *table
}

// Formats of llama.cpp that are made of the weights in float32.
var llamaFormats = []string{"BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q4_K_M imatrix"}

func (s *settings) measure(name string) (*table, error) {
	m := &measurer{settings: s, dir: filepath.Join(s.dir, name)}
	var err error
	if m.table, err = readTable(m.kept(), name, s.chunks); err != nil {
		return nil, err
	}
	if err := m.tokenize(); err != nil {
		return nil, err
	}
	shipped := !slices.Contains(turned, name)
	for _, format := range llamaFormats {
		if !m.wants(llama, format) {
			continue
		}
		path, err := m.quantized(format)
		if err != nil {
			return nil, err
		}
		if err := m.peer(format, path); err != nil {
			return nil, err
		}
	}
	if m.wants(llama, "BF16 + KV Q8_0") {
		if err := m.peer("BF16 + KV Q8_0", filepath.Join(m.dir, "BF16.gguf"), "-ctk", "q8_0", "-ctv", "q8_0"); err != nil {
			return nil, err
		}
	}
	if shipped && m.wants(llama, "shipped") {
		if err := m.peer("shipped", filepath.Join(m.dir, "shipped.gguf")); err != nil {
			return nil, err
		}
	}
	hf := filepath.Join(m.dir, "hf")
	for _, o := range []struct {
		name    string
		options inprocess.Options
	}{
		{"bf16", inprocess.Options{Path: hf}},
		{"int8", inprocess.Options{Path: hf, Quantize: plan.QuantizeInt8}},
		{"int4", inprocess.Options{Path: hf, Quantize: plan.QuantizeInt4}},
		{calibrated, inprocess.Options{Path: filepath.Join(m.dir, calibrated)}},
		{mixed, inprocess.Options{Path: filepath.Join(m.dir, mixed)}},
		{"bf16 + KV int8", inprocess.Options{Path: hf, Cache: plan.CacheW8}},
		{"Q8_0", inprocess.Options{Path: filepath.Join(m.dir, "Q8_0.gguf")}},
		{"Q4_0", inprocess.Options{Path: filepath.Join(m.dir, "Q4_0.gguf")}},
		{"Q4_K_M", inprocess.Options{Path: filepath.Join(m.dir, "Q4_K_M.gguf")}},
		{"shipped", inprocess.Options{Path: filepath.Join(m.dir, "shipped.gguf")}},
	} {
		if !m.wants(millrace, o.name) || o.name == "shipped" && !shipped {
			continue
		}
		var err error
		switch o.name {
		case calibrated:
			err = m.calibrate(hf, calibrated)
		case mixed:
			err = m.calibrate(hf, mixed, "--bits", mixedBits(name))
		}
		if err != nil {
			return nil, err
		}
		err = m.ours(o.name, o.options)
		var missing *inprocess.MissingError
		if errors.As(err, &missing) {
			fmt.Fprintf(os.Stderr, "%s: %s is skipped: %v\n", name, o.name, err)
			m.table.Skipped = append(m.table.Skipped, fmt.Sprintf("%s: %v", o.name, err))
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	m.table.gates()
	return m.table, nil
}

// wants reports whether a row is measured. The two in bf16 are, unless they were
// before: the others are compared with them.
func (m *measurer) wants(engine, format string) bool {
	return m.only == nil || slices.Contains(m.only, format) || format == base(engine) && math.IsNaN(m.table.find(engine, format))
}

// kept is the file of the model's table, so that a run which measures some rows keeps
// the others.
func (m *measurer) kept() string { return filepath.Join(m.dir, "measured.json") }

func (m *measurer) text() string { return filepath.Join(m.settings.dir, "text.txt") }

// run runs one of llama.cpp's programs.
func (m *measurer) run(program string, args ...string) (out []byte, err error) {
	out, err = exec.Command(filepath.Join(m.llama, program), args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", program, err, out[max(0, len(out)-2000):])
	}
	return out, nil
}

// tokenize reads the text as llama.cpp does, so that the windows are the same.
func (m *measurer) tokenize() error {
	read := func(ids *[]int32, more ...string) error {
		out, err := exec.Command(filepath.Join(m.llama, "llama-tokenize"), append(more, "-m", filepath.Join(m.dir, "F32.gguf"),
			"-f", m.text(), "--ids", "--no-parse-special", "--log-disable")...).Output()
		if err == nil {
			err = json.Unmarshal(out, ids)
		}
		if err != nil {
			return fmt.Errorf("llama-tokenize: %w", err)
		}
		return nil
	}
	var bare []int32
	if err := errors.Join(read(&m.tokens), read(&bare, "--no-bos")); err != nil {
		return err
	}
	m.begin = m.tokens[:len(m.tokens)-len(bare)]
	if len(m.tokens) < window*m.chunks {
		return fmt.Errorf("the text has %d tokens; %d windows need %d", len(m.tokens), m.chunks, window*m.chunks)
	}
	return nil
}

// quantized makes the file of one of llamaFormats, if it is not there.
func (m *measurer) quantized(format string) (path string, err error) {
	path = filepath.Join(m.dir, format+".gguf")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	source, partly, kind := filepath.Join(m.dir, "F32.gguf"), path+".partly", format
	var args []string
	if format == "Q4_K_M imatrix" {
		kind = "Q4_K_M"
		weights := filepath.Join(m.dir, "imatrix.gguf")
		text, err := m.calibrationText()
		if err != nil {
			return "", err
		}
		if _, err := m.run("llama-imatrix", "-m", source, "-f", text, "-o", weights, "-c", strconv.Itoa(window),
			"-t", strconv.Itoa(m.threads)); err != nil {
			return "", err
		}
		args = []string{"--imatrix", weights}
	}
	if _, err := m.run("llama-quantize", append(args, source, partly, kind, strconv.Itoa(m.threads))...); err != nil {
		return "", err
	}
	return path, os.Rename(partly, path)
}

// calibrationText returns the path of the text that both programs calibrate with.
func (m *measurer) calibrationText() (path string, err error) {
	text, err := os.ReadFile(filepath.Join(m.settings.dir, "calibration.txt"))
	if err != nil {
		return "", err
	}
	path = filepath.Join(m.dir, "calibration.txt")
	runes := []rune(string(text))
	return path, os.WriteFile(path, []byte(string(runes[:min(len(runes), m.calibration)])), 0o644)
}

// calibrate makes the folder of a calibrated checkpoint, if it is not there.
func (m *measurer) calibrate(hf, name string, args ...string) error {
	path := filepath.Join(m.dir, name)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	partly := path + ".partly"
	if err := os.RemoveAll(partly); err != nil {
		return err
	}
	text, err := m.calibrationText()
	if err != nil {
		return err
	}
	args = append([]string{"quantize", hf, partly, "--quantize", "int4", "--calibration", text}, args...)
	out, err := exec.Command(m.millrace, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("millrace quantize: %w\n%s", err, out[max(0, len(out)-2000):])
	}
	return os.Rename(partly, path)
}

var (
	finalEstimate = regexp.MustCompile(`Final estimate: PPL = ([0-9.]+)`)
	estimate      = regexp.MustCompile(`\[([0-9]+)\]([0-9.]+),`)
)

// windowsOf reads the logarithms of the perplexities of each window from what
// llama-perplexity prints: that of all windows so far.
func windowsOf(out []byte) (windows []float64) {
	before := 0.0
	for i, found := range estimate.FindAllSubmatch(out, -1) {
		n, err := strconv.Atoi(string(found[1]))
		ppl, e := strconv.ParseFloat(string(found[2]), 64)
		if err != nil || e != nil || n != i+1 {
			return nil
		}
		sum := float64(n) * math.Log(ppl)
		windows, before = append(windows, sum-before), sum
	}
	return windows
}

// peer adds llama.cpp's perplexity of a file.
func (m *measurer) peer(name, path string, args ...string) error {
	fmt.Fprintf(os.Stderr, "%s: llama.cpp %s\n", m.table.Model, name)
	out, err := m.run("llama-perplexity", append(args, "-m", path, "-f", m.text(), "-c", strconv.Itoa(window), "-b", strconv.Itoa(window),
		"--chunks", strconv.Itoa(m.chunks), "-t", strconv.Itoa(m.threads))...)
	if err != nil {
		return err
	}
	found := finalEstimate.FindSubmatch(out)
	if found == nil {
		return fmt.Errorf("llama-perplexity printed no estimate:\n%s", out[max(0, len(out)-2000):])
	}
	ppl, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	m.table.put(row{Engine: llama, Format: name, Perplexity: ppl, Bytes: info.Size(), Date: today(), Windows: windowsOf(out)})
	return m.table.write(m.kept())
}

// ours adds our perplexity of a checkpoint.
func (m *measurer) ours(name string, o inprocess.Options) error {
	fmt.Fprintf(os.Stderr, "%s: Millrace %s\n", m.table.Model, name)
	o.Threads, o.Rows, o.Slots, o.Pages = m.threads, window, choiceSlots, 1024
	e, err := inprocess.Start(o)
	if err != nil {
		return err
	}
	windows, err := perplexities(e, m.tokens[:window*m.chunks], m.begin)
	if err == nil {
		m.table.put(row{Engine: millrace, Format: name, Perplexity: perplexity(windows), Windows: windows, Bytes: e.Info.WeightBytes, Date: today()})
		err = m.table.write(m.kept())
	}
	if err == nil && m.questions > 0 && slices.Contains(chosen, name) {
		err = m.choices(e, name)
	}
	return errors.Join(err, e.Stop())
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }

// perplexity is that of all windows, whose logarithms are given.
func perplexity(windows []float64) float64 {
	sum := 0.0
	for _, v := range windows {
		sum += v
	}
	return math.Exp(sum / float64(len(windows)))
}

// perplexities scores windows of tokens as llama-perplexity does: each from its
// middle on, and its first token is replaced by begin, if there is one. It returns the
// logarithms of their perplexities.
func perplexities(e *inprocess.Engine, tokens, begin []int32) (windows []float64, err error) {
	ctx := context.Background()
	for ; len(tokens) > 0; tokens = tokens[window:] {
		ids := slices.Clone(tokens[:window])
		copy(ids, begin)
		s, err := e.Submit(ctx, &engine.Request{Tokens: ids, PromptLogprobs: true, Params: sample.Greedy()})
		if err != nil {
			return nil, err
		}
		_, err = s.Next(ctx)
		s.Close()
		if err != io.EOF {
			return nil, fmt.Errorf("scoring ended with %w", err)
		}
		sum := 0.0
		scored := s.Prompt()[window/2+1:]
		for _, t := range scored {
			sum -= float64(t.Logprob)
		}
		windows = append(windows, sum/float64(len(scored)))
	}
	return windows, nil
}
