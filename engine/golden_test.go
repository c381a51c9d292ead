package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/weights"
)

// golden is what transformers computed in float32; testdata/goldens.py
// describes and makes it.
type golden struct {
	Family         string
	Prompt         []int32
	PromptLogprobs []*float64 `json:"prompt_logprobs"`
	continuation
	// Cached is what it generates with a cache, where that is another thing.
	Cached *continuation
}

type continuation struct {
	Tokens   []int32
	Logprobs []float64
	Margins  []float64
}

// goldenBackend is compared with transformers: tolerance bounds the difference in
// log-probability, and a greedy token must be equal where the reference's margin
// over the second best is above margin.
type goldenBackend struct {
	name      string
	open      func(device.Limits) (device.Backend, error)
	tolerance float64
	margin    float64
}

var goldenBackends = []goldenBackend{
	{"ref", func(l device.Limits) (device.Backend, error) { return ref.Open(l) }, 1e-4, 2e-4},
	{"cpu", func(l device.Limits) (device.Backend, error) { return cpu.Open(l) }, 2e-2, 0.05},
}

// TestCUDAGoldens runs the CUDA backend, by its shim, or the library that is named. The
// shim emulates a GPU: unless all are asked for, it runs those that have something in
// their plan that those before them do not.
func TestCUDAGoldens(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector sees nothing of the library")
	}
	all := os.Getenv("MILLRACE_TEST_CUDA") == "all"
	library := cudaLibrary(t)
	caps, err := cuda.Probe(library)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	choose := func(dir string) bool { return all || !strings.Contains(caps.Detail, "shim") || isNew(t, dir, seen) }
	open := func(l device.Limits) (device.Backend, error) { return cuda.Open(library, l) }
	runGoldens(t, "testdata", []goldenBackend{{"cuda", open, 2e-2, 0.05}}, choose)
}

// TestShardedGoldens divides models among several devices of the shim: heads of keys and
// values that are divided and that are shared, experts, latent caches, windows, slopes, what
// every device computes for itself.
func TestShardedGoldens(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector sees nothing of the library")
	}
	library := cudaLibrary(t)
	if caps, err := cuda.Probe(library); err != nil || !strings.Contains(caps.Detail, "shim") {
		t.Skipf("the library is not the shim: %v", err)
	}
	t.Setenv("MILLRACE_SHIM_DEVICES", "5")
	all := os.Getenv("MILLRACE_TEST_CUDA") == "all"
	for _, tt := range []struct {
		dir   string
		n     int
		brief bool
	}{
		{"mixtral", 2, false}, {"mixtral", 4, true}, {"deepseek-v3", 2, true}, {"gemma2-v4", 2, true}, {"bloom", 5, false}, {"gpt-oss", 4, false},
		{"qwen3-next", 2, false}, {"llama-tied-bf16", 3, false}, {"olmo2-v4", 5, false}, {"qwen2-moe", 2, false}, {"minimax-m2", 2, false},
	} {
		if !all && !tt.brief {
			continue
		}
		t.Run(fmt.Sprintf("%s, %d devices", tt.dir, tt.n), func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", tt.dir, "golden.json"))
			var g golden
			if err == nil {
				err = json.Unmarshal(data, &g)
			}
			if err != nil {
				t.Fatal(err)
			}
			limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 4, MaxPagesPerSlot: 16}
			backend, err := cuda.OpenOn(library, limits, 0, tt.n)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { backend.Close() }) // after the engine has stopped
			compareGolden(t, startEngine(t, filepath.Join("testdata", tt.dir), floats{backend}, limits, 7), &g, 0, 2e-2, 0.05)
		})
	}
}

// cudaLibrary is the CUDA backend that is named, or the shim's.
func cudaLibrary(t *testing.T) string {
	t.Helper()
	library := os.Getenv("MILLRACE_CUDA_LIBRARY")
	if library == "" {
		library = filepath.Join("..", "build", "cuda", "libmillrace_cuda_shim.so")
		if _, err := os.Stat(library); err != nil {
			t.Skipf("%v: `make cuda-shim` builds it", err)
		}
	}
	return library
}

// isNew reports whether the plan of the checkpoint in dir has what is not in seen: an
// operation, a choice of one, or a format.
func isNew(t *testing.T, dir string, seen map[string]bool) bool {
	t.Helper()
	_, _, p := openPlan(t, dir, false)
	before := len(seen)
	for i := range p.Ops {
		op := &p.Ops[i]
		for j, v := range op.I {
			seen[fmt.Sprintf("%v int %d: %d", op.Kind, j, min(v, 2))] = true // numbers from 2 on are sizes
		}
		for j, v := range op.F {
			seen[fmt.Sprintf("%v float %d: %v", op.Kind, j, v == 0 || v == 1)] = true
		}
		if op.Kind == plan.OpActivate {
			seen[fmt.Sprintf("activation %d", op.I[plan.ActKind])] = true
		}
	}
	seen[fmt.Sprint("stored ", p.Stored)] = true
	return len(seen) > before
}

// extraGoldens names a folder of further goldens: goldens.py --fuzz makes them.
const extraGoldens = "MILLRACE_GOLDENS"

func TestGoldens(t *testing.T) {
	runGoldens(t, "testdata", goldenBackends, nil)
}

func TestExtraGoldens(t *testing.T) {
	dir := os.Getenv(extraGoldens)
	if dir == "" {
		t.Skipf("%s names no folder made by testdata/goldens.py --fuzz", extraGoldens)
	}
	runGoldens(t, dir, goldenBackends, nil)
}

// runGoldens runs those of a folder that are chosen, or all.
func runGoldens(t *testing.T, root string, backends []goldenBackend, choose func(dir string) bool) {
	files, err := filepath.Glob(filepath.Join(root, "*", "golden.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens in %s: %v", root, err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		if choose != nil && !choose(dir) {
			continue
		}
		var g golden
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &g)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range backends {
			if quantizedGolden(dir) {
				t.Run(fmt.Sprintf("%s/%s/as stored", filepath.Base(dir), b.name), func(t *testing.T) {
					const rounding = 0.5 // of what is multiplied, which the reference does not do
					limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 4, MaxPagesPerSlot: 16, Threads: 2}
					backend, err := b.open(limits)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { backend.Close() })
					compareGolden(t, startEngine(t, dir, backend, limits, 256), &g, 0, rounding, 2*rounding)
				})
			}
			for _, budget := range []int{256, 7} {
				t.Run(fmt.Sprintf("%s/%s/%d tokens a step", filepath.Base(dir), b.name, budget), func(t *testing.T) {
					limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 4, MaxPagesPerSlot: 16, Threads: 2}
					backend, err := b.open(limits)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { backend.Close() }) // after the engine has stopped
					e := startEngine(t, dir, floats{backend}, limits, budget)
					compareGolden(t, e, &g, 0, b.tolerance, b.margin)
				})
			}
		}
	}
}

// floats is a backend that takes no quantised formats, so that it is given what they
// stand for, which it multiplies without rounding more.
type floats struct{ device.Backend }

func (b floats) Caps() device.Caps {
	caps := b.Backend.Caps()
	caps.Formats &= 1<<plan.F32 | 1<<plan.F16 | 1<<plan.BF16
	return caps
}

// quantizedGolden reports whether the checkpoint in dir is stored in few bits.
func quantizedGolden(dir string) bool {
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	return err == nil && bytes.Contains(config, []byte(`"quant_method"`))
}

// startEngine loads the checkpoint in dir and runs an engine on it until the
// test ends.
func startEngine(t *testing.T, dir string, b device.Backend, limits device.Limits, budget int) *engine.Engine {
	t.Helper()
	cfg, p := loadCheckpoint(t, dir, b)
	return enginetest.Run(t, engine.Config{
		Backend:        b,
		Device:         limits,
		Plan:           p,
		Pages:          40 * max(1, len(p.Groups)),
		States:         states(p, 8),
		EOS:            cfg.EOS,
		Root:           page.Root(),
		MaxBatchTokens: budget,
	})
}

// openPlan opens the checkpoint in dir until the test ends, and makes its plan, with the
// operations of its head for drafts if draft is set.
func openPlan(t testing.TB, dir string, draft bool) (*weights.Checkpoint, *plan.Config, *plan.Plan) {
	t.Helper()
	c, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	cfg, p, err := loader.Plan(c, draft)
	if err != nil {
		t.Fatal(err)
	}
	return c, cfg, p
}

// loadCheckpoint gives the checkpoint in dir to b.
func loadCheckpoint(t testing.TB, dir string, b device.Backend) (*plan.Config, *plan.Plan) {
	t.Helper()
	return loadWithCache(t, dir, b, plan.F32)
}

func loadWithCache(t testing.TB, dir string, b device.Backend, cache plan.Format) (*plan.Config, *plan.Plan) {
	t.Helper()
	c, cfg, p := openPlan(t, dir, false)
	p.SetCacheFormat(cache)
	if _, err := loader.Load(b, p, c, nil); err != nil {
		t.Fatal(err)
	}
	return cfg, p
}

// compareGolden scores prompt and continuation together as one prompt, and
// generates the continuation beside it. Where it depends on the cache, that is on
// the length at each token, the prompt is scored alone.
func compareGolden(t *testing.T, e *engine.Engine, g *golden, adapter int32, tolerance, margin float64) {
	t.Helper()
	want, all := g.continuation, slices.Concat(g.Prompt, g.Tokens)
	if g.Cached != nil {
		want, all = *g.Cached, g.Prompt
	}
	scored := submit(t, e, &engine.Request{Tokens: all, MaxNewTokens: 1, Params: sample.Greedy(), PromptLogprobs: true, Adapter: adapter})
	generated := submit(t, e, &engine.Request{Tokens: g.Prompt, MaxNewTokens: len(want.Tokens), Params: sample.Greedy(), IgnoreEOS: true, Adapter: adapter})

	worst := 0.0
	check := func(what string, i int, got float32, want float64) {
		d := math.Abs(float64(got) - want)
		worst = max(worst, d)
		if !(d <= tolerance) {
			t.Errorf("%s %d: log-probability %v, want %v ± %v", what, i, got, want, tolerance)
		}
	}

	collect(t, scored)
	if got := len(scored.Prompt()); got != len(all) {
		t.Fatalf("%d prompt tokens scored, want %d", got, len(all))
	}
	for i, tok := range scored.Prompt() {
		switch {
		case i >= len(g.Prompt):
			check("fed token", i-len(g.Prompt), tok.Logprob, want.Logprobs[i-len(g.Prompt)])
		case g.PromptLogprobs[i] != nil:
			check("prompt token", i, tok.Logprob, *g.PromptLogprobs[i])
		}
	}

	tokens := collect(t, generated)
	if len(tokens) != len(want.Tokens) {
		t.Fatalf("%d tokens generated, want %d", len(tokens), len(want.Tokens))
	}
	for i, tok := range tokens {
		if tok.ID != want.Tokens[i] {
			if want.Margins[i] > margin {
				t.Errorf("greedy token %d is %d, want %d, the best by %v", i, tok.ID, want.Tokens[i], want.Margins[i])
			}
			break // from here on the texts differ
		}
		check("greedy token", i, tok.Logprob, want.Logprobs[i])
	}
	t.Logf("largest difference in log-probability: %.2g", worst)
}

func submit(t *testing.T, e *engine.Engine, r *engine.Request) *engine.Stream {
	t.Helper()
	s, err := e.Submit(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func collect(t *testing.T, s *engine.Stream) (tokens []engine.Token) {
	t.Helper()
	for {
		next, err := s.Next(context.Background())
		tokens = append(tokens, next...)
		if errors.Is(err, io.EOF) {
			return tokens
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
