package engine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// loadDraft gives the checkpoint in dir to b, with its head.
func loadDraft(t testing.TB, dir string, b device.Backend) *plan.Plan {
	t.Helper()
	c, _, p := openPlan(t, dir, true)
	if len(p.Draft) == 0 {
		t.Fatal("no operations of a draft")
	}
	if _, err := loader.Load(b, p, c, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

var draftGoldens = []string{"qwen3_5", "qwen3_5-moe", "deepseek-v3", "glm4-moe", "nemotron-h"}

// TestDraftGoldens compares what heads draft with their description in torch.
func TestDraftGoldens(t *testing.T) {
	for _, name := range draftGoldens {
		for _, b := range goldenBackends {
			t.Run(fmt.Sprintf("%s/%s", name, b.name), func(t *testing.T) {
				dir, g := weightstest.WithDraft(t, "testdata", name)
				compareDrafts(t, dir, g, b)
			})
		}
		if name == "deepseek-v3" {
			continue // GGUF cannot express its rotation
		}
		t.Run(name+"/GGUF", func(t *testing.T) {
			_, g := weightstest.WithDraft(t, "testdata", name)
			b := goldenBackends[0]
			b.margin = 0.2 // the files are BF16
			compareDrafts(t, "loader/testdata/gguf/"+name+"+mtp.gguf", g, b)
		})
	}
}

// TestCUDADraftGoldens does so by the CUDA backend's shim, on one device and divided between two, and
// compares the text of the base's golden with the one that is generated with drafts.
func TestCUDADraftGoldens(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector sees nothing of the library")
	}
	library := cudaLibrary(t)
	if caps, err := cuda.Probe(library); err != nil || !strings.Contains(caps.Detail, "shim") {
		t.Skipf("the library is not the shim: %v", err)
	}
	t.Setenv("MILLRACE_SHIM_DEVICES", "2")
	names, least := []string{"glm4-moe"}, 2
	if os.Getenv("MILLRACE_TEST_CUDA") == "all" {
		names, least = draftGoldens, 1
	}
	for _, name := range names {
		for n := least; n <= 2; n++ {
			open := func(l device.Limits) (device.Backend, error) { return cuda.OpenOn(library, l, 0, n) }
			t.Run(fmt.Sprintf("%s, %d devices", name, n), func(t *testing.T) {
				dir, drafts := weightstest.WithDraft(t, "testdata", name)
				compareDrafts(t, dir, drafts, goldenBackend{"cuda", open, 2e-2, 0.05})
				data, err := os.ReadFile(filepath.Join("testdata", drafts.Base, "golden.json"))
				var g golden
				if err == nil {
					err = json.Unmarshal(data, &g)
				}
				if err != nil {
					t.Fatal(err)
				}
				limits := device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 4, MaxPagesPerSlot: 16}
				b, err := open(limits)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { b.Close() }) // after the engine has stopped
				c, cfg, p := openPlan(t, dir, true)
				if _, err := loader.Load(floats{b}, p, c, nil); err != nil {
					t.Fatal(err)
				}
				compareGolden(t, enginetest.Run(t, engine.Config{
					Backend: b, Device: limits, Plan: p, Pages: 40 * len(p.Groups), States: states(p, 8), EOS: cfg.EOS,
					Root: page.Root(), MaxBatchTokens: 16, Speculate: device.MaxDrafts,
				}), &g, 0, 2e-2, 0.05)
			})
		}
	}
}

// compareDrafts feeds a text in pieces, token by token, and with drafts that are right
// and wrong, to a checkpoint with a head.
func compareDrafts(t *testing.T, place string, g *weightstest.DraftGolden, b goldenBackend) {
	t.Helper()
	limits := device.Limits{MaxTokens: 16, MaxRows: 16, MaxSlots: 2, MaxPagesPerSlot: 16, Threads: 2}
	open, err := b.open(limits)
	if err != nil {
		t.Fatal(err)
	}
	backend := device.Checked(open, limits)
	t.Cleanup(func() { backend.Close() })
	p := loadDraft(t, place, floats{backend})
	f := draftFeeder{t: t, backend: backend, plan: p, tokens: g.Tokens}
	f.init()
	for f.fed < g.Prompt-1 {
		f.feed(min(7, g.Prompt-1-f.fed), 0, false)
	}
	compared := make([]int, len(g.Drafts[0]))
	for step := 0; f.fed+2 < len(g.Tokens)-1; step++ {
		drafted := min(step%3, 1)
		wrong := step%3 == 2 && !p.HasState() // which a state could not take back
		f.drafts = 1 + step%len(g.Drafts[0])
		drafts := f.feed(1, drafted, wrong)
		for i, want := range g.Drafts[f.fed-g.Prompt][:f.drafts] {
			margin := g.Margins[f.fed-g.Prompt][i]
			if margin <= b.margin {
				break // and what follows depends on it
			}
			compared[i]++
			if drafts[i] != want {
				t.Errorf("token %d drafted after %d is %d, want %d, the best by %v", i, f.fed, drafts[i], want, margin)
			}
		}
		if drafts[f.drafts] != device.NoDraft {
			t.Errorf("%d drafted, %d were asked for", drafts, f.drafts)
		}
	}
	if compared[0] < 10 || compared[1] < 5 || compared[len(compared)-1] == 0 && b.margin < 0.1 {
		t.Errorf("%d tokens of drafts compared", compared)
	}
}

// draftFeeder gives a text to a backend, which must choose the tokens of the text.
type draftFeeder struct {
	t       *testing.T
	backend device.Backend
	plan    *plan.Plan
	tokens  []int32
	fed     int // of them
	begun   bool
	drafts  int // tokens to be drafted
}

func (f *draftFeeder) init() {
	states := 0
	if f.plan.HasState() {
		states = 1
	}
	if err := f.backend.InitCache(16*len(f.plan.Groups), states); err != nil {
		f.t.Fatal(err)
	}
}

// feed computes the next n tokens of the text and, as a draft, so many of those after
// them, or others if wrong; and returns what the backend drafts.
func (f *draftFeeder) feed(n, drafted int, wrong bool) [device.MaxDrafts]int32 {
	f.t.Helper()
	x := f.backend.Batch(0)
	x.Clear()
	x.Draft = true
	if !f.begun {
		f.begun = true
		x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
		for g := range f.plan.Groups {
			for i := range 16 {
				x.Pages = append(x.Pages, device.PageDelta{Group: int32(g), Index: int32(i), Page: int32(16*g + i)})
			}
		}
		if f.plan.HasState() {
			x.States = append(x.States, device.StateDelta{From: device.ZeroState, Save: device.NoState})
		}
	}
	first := f.fed
	for i := range n + drafted {
		token := f.tokens[first+i]
		if wrong && i >= n {
			token = (token + 1) % int32(f.plan.Vocab)
		}
		x.Tokens, x.Pos = append(x.Tokens, token), append(x.Pos, int32(first+i))
	}
	x.Seqs = append(x.Seqs, device.Seq{Count: int32(n + drafted), KVLen: int32(first + n + drafted), Next: f.tokens[first+n], Drafts: int32(f.drafts)})
	if n == 1 { // no part of the prompt
		for i := range 1 + drafted {
			x.Masks = x.Masks[:len(x.Masks)+x.MaskWords]
			mask := x.Mask(int32(i + 1))
			clear(mask)
			next := f.tokens[first+1+i]
			mask[next/32] |= 1 << (next % 32)
			row := device.Row{Token: int32(i), Kind: device.RowVerify, Target: -1, Index: int32(i), Mask: int32(i + 1)}
			if i < drafted {
				row.Target = x.Tokens[i+1]
			}
			x.Rows = append(x.Rows, row)
		}
	}
	for _, call := range []func(int) error{f.backend.Forward, f.backend.Sample, f.backend.Wait} {
		if err := call(0); err != nil {
			f.t.Fatal(err)
		}
	}
	f.fed += n
	var drafts [device.MaxDrafts]int32
	for i, r := range x.Results[:len(x.Rows)] {
		if r.Void == 0 {
			drafts = r.Drafts
			f.fed += min(i, 1)
		}
	}
	if len(x.Rows) > 0 && slices.ContainsFunc(x.Results[:len(x.Rows)-1], func(r device.RowResult) bool { return r.Void == 0 && r.Drafts[0] != device.NoDraft }) && !wrong {
		f.t.Error("a token that is not the last has a draft")
	}
	return drafts
}
