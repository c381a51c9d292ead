// Command peer measures the CPU backend against llama.cpp on one machine, in
// one run, on the same random weights, and prints ratios:
//
//	peer -model DIR -llama DIR [-threads 2] [-rounds 3] [-pace]
//
// DIR/hf and DIR/model.gguf are what model.py wrote; -llama names the folder
// of llama-bench and llama-batched-bench. Rounds alternate between the two
// programs and the best of each counts: the machine's noise only ever slows.
// Ours goes through the engine (Submit to the last token), llama.cpp's through
// its own benchmark programs. run.sh builds all that this needs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/weights"
)

// The loads that are compared, as llama.cpp's programs define them.
const (
	promptTokens = 512 // of the prefill test
	newTokens    = 64  // of the decode tests
	streams      = 8   // of the batched decode test
	shortPrompt  = 16  // before the decode tests
)

// speeds are tokens per second.
type speeds struct{ prefill, decode, batched float64 }

func (s *speeds) best(o speeds) {
	s.prefill, s.decode, s.batched = max(s.prefill, o.prefill), max(s.decode, o.decode), max(s.batched, o.batched)
}

func main() {
	model := flag.String("model", "", "folder that model.py wrote")
	llama := flag.String("llama", "", "folder of llama-bench and llama-batched-bench")
	threads := flag.Int("threads", 2, "threads of both")
	rounds := flag.Int("rounds", 3, "rounds; the best counts")
	paced := flag.Bool("pace", false, "measure, too, what requests wait for each other")
	flag.Parse()
	if err := run(*model, *llama, *threads, *rounds, *paced); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(model, llama string, threads, rounds int, paced bool) error {
	ours, err := start(filepath.Join(model, "hf"), threads)
	if err != nil {
		return err
	}
	defer func() { _ = ours.stop() }() // the figures are what counts
	var mine, theirs speeds
	for round := range rounds {
		s, err := ours.measure()
		if err != nil {
			return err
		}
		mine.best(s)
		if s, err = measureLlama(llama, filepath.Join(model, "model.gguf"), threads); err != nil {
			return err
		}
		theirs.best(s)
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
	}
	fmt.Printf("%s, %d threads, best of %d rounds\n", ours.caps.Detail, threads, rounds)
	fmt.Printf("%-28s %10s %10s %7s\n", "tokens/s", "millrace", "llama.cpp", "ratio")
	for _, row := range []struct {
		name         string
		mine, theirs float64
	}{
		{fmt.Sprintf("prefill, %d tokens", promptTokens), mine.prefill, theirs.prefill},
		{"decode, 1 stream", mine.decode, theirs.decode},
		{fmt.Sprintf("decode, %d streams", streams), mine.batched, theirs.batched},
	} {
		fmt.Printf("%-28s %10.1f %10.1f %7.2f\n", row.name, row.mine, row.theirs, row.mine/row.theirs)
	}
	if paced {
		return ours.pace()
	}
	return nil
}

// server is our engine on a checkpoint.
type server struct {
	engine  *engine.Engine
	backend device.Backend
	caps    device.Caps
	vocab   int
	stopped chan error
	random  *rand.Rand
}

func start(dir string, threads int) (*server, error) {
	c, err := weights.Open(dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	cfg, p, err := loader.Plan(c)
	if err != nil {
		return nil, err
	}
	limits := device.Limits{MaxTokens: promptTokens, MaxRows: streams + 1, MaxSlots: streams + 1, MaxPagesPerSlot: 1024, Threads: threads}
	b, err := cpu.Open(limits)
	if err != nil {
		return nil, err
	}
	if _, err := loader.Load(b, p, c, nil); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	// No prefix cache: each prompt is computed whole, as llama.cpp's are.
	e, err := engine.New(engine.Config{Backend: b, Device: limits, Plan: p, Pages: 4096, States: 2 * streams, EOS: cfg.EOS,
		Root: page.Root(), MaxBatchTokens: promptTokens, NoPrefixCache: true})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	s := &server{engine: e, backend: b, caps: b.Caps(), vocab: p.Vocab, stopped: make(chan error, 1), random: rand.New(rand.NewPCG(1, 2))}
	go func() { s.stopped <- e.Run(context.Background()) }()
	return s, nil
}

func (s *server) stop() error {
	return errors.Join(s.engine.Drain(context.Background()), <-s.stopped, s.backend.Close())
}

// measure runs the three loads once, after a short one that warms up.
func (s *server) measure() (v speeds, err error) {
	if _, _, err = s.generate(1, shortPrompt, 4); err != nil {
		return v, err
	}
	first, _, err := s.generate(1, promptTokens, 1)
	if err != nil {
		return v, err
	}
	v.prefill = promptTokens / first.Seconds()
	_, rest, err := s.generate(1, shortPrompt, newTokens+1)
	if err != nil {
		return v, err
	}
	v.decode = newTokens / rest.Seconds()
	_, rest, err = s.generate(streams, shortPrompt, newTokens+1)
	v.batched = streams * newTokens / rest.Seconds()
	return v, err
}

// generate runs n sequences at once and returns the time until all had their
// first token, and from then until all had their last.
func (s *server) generate(n, prompt, tokens int) (first, rest time.Duration, err error) {
	ctx := context.Background()
	begin := time.Now()
	var open []*engine.Stream
	for range n {
		ids := make([]int32, prompt)
		for i := range ids {
			ids[i] = s.random.Int32N(int32(s.vocab))
		}
		st, err := s.engine.Submit(ctx, &engine.Request{Tokens: ids, MaxNewTokens: tokens, Params: sample.Greedy(), IgnoreEOS: true})
		if err != nil {
			return 0, 0, err
		}
		defer st.Close()
		open = append(open, st)
	}
	for _, st := range open {
		if _, err := st.Next(ctx); err != nil {
			return 0, 0, err
		}
	}
	started := time.Now()
	for _, st := range open {
		for err == nil {
			_, err = st.Next(ctx)
		}
		if err != io.EOF {
			return 0, 0, err
		}
		err = nil
	}
	return started.Sub(begin), time.Since(started), nil
}

// measureLlama runs llama.cpp's programs once.
func measureLlama(dir, model string, threads int) (v speeds, err error) {
	t := strconv.Itoa(threads)
	out, err := exec.Command(filepath.Join(dir, "llama-bench"), "-m", model, "-t", t,
		"-p", strconv.Itoa(promptTokens), "-n", strconv.Itoa(newTokens), "-r", "1", "-o", "json").Output()
	if err != nil {
		return v, fmt.Errorf("llama-bench: %w", err)
	}
	var tests []struct {
		Prompt int     `json:"n_prompt"`
		Speed  float64 `json:"avg_ts"`
	}
	if err := json.Unmarshal(out, &tests); err != nil {
		return v, fmt.Errorf("llama-bench: %w", err)
	}
	for _, test := range tests {
		if test.Prompt > 0 {
			v.prefill = test.Speed
		} else {
			v.decode = test.Speed
		}
	}
	out, err = exec.Command(filepath.Join(dir, "llama-batched-bench"), "-m", model, "-t", t, "-c", "4096",
		"-npp", strconv.Itoa(shortPrompt), "-ntg", strconv.Itoa(newTokens), "-npl", strconv.Itoa(streams)).Output()
	if err != nil {
		return v, fmt.Errorf("llama-batched-bench: %w", err)
	}
	// One row of a table: | PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | …
	for line := range strings.Lines(string(out)) {
		if cells := strings.Split(line, "|"); len(cells) > 8 && strings.TrimSpace(cells[1]) == strconv.Itoa(shortPrompt) {
			v.batched, err = strconv.ParseFloat(strings.TrimSpace(cells[8]), 64)
			return v, err
		}
	}
	return v, fmt.Errorf("llama-batched-bench printed no row: %s", out)
}
