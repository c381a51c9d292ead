package engine_test

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// TestSecondTurnCPU asks about a history of 4,000 tokens, answers included. What
// comes from the cache, pages and states, must give the very numbers that the
// whole text gives when it is computed from scratch, in other steps.
func TestSecondTurnCPU(t *testing.T) {
	const prompt, answer, question = 3800, 200, 25
	for _, name := range []string{"qwen3_5", "mamba2", "gemma3-long"} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 1))
			history := make([]int32, prompt)
			for i := range history {
				history[i] = random.Int32N(100)
			}
			ask := func(e *engine.Engine, tokens []int32, n int) ([]engine.Token, int) {
				s := submit(t, e, &engine.Request{Tokens: tokens, MaxNewTokens: n, Params: sample.Greedy(), IgnoreEOS: true})
				got := collect(t, s)
				return got, s.Times().CachedTokens
			}
			e := startLong(t, name, 256, false)
			first, _ := ask(e, history, answer)
			turn := slices.Clone(history)
			for _, tok := range first {
				turn = append(turn, tok.ID)
			}
			for range question {
				turn = append(turn, random.Int32N(100))
			}
			got, cached := ask(e, turn, 30)
			if again := prompt + answer - cached; again > 1024 {
				t.Errorf("%d tokens of the history were computed again, want at most 1,024", again)
			}
			want, _ := ask(startLong(t, name, 100, true), turn, 30)
			for i := range want {
				if got[i].ID != want[i].ID || got[i].Logprob != want[i].Logprob {
					t.Fatalf("token %d is %d with log-probability %v, from scratch %d with %v", i, got[i].ID, got[i].Logprob, want[i].ID, want[i].Logprob)
				}
			}
		})
	}
}

// startLong runs an engine with room for long sequences on a checkpoint of
// testdata.
func startLong(t *testing.T, name string, budget int, noPrefixCache bool) *engine.Engine {
	t.Helper()
	limits := device.Limits{MaxTokens: 256, MaxRows: 8, MaxSlots: 4, MaxPagesPerSlot: 300, Threads: 2}
	native, err := cpu.Open(limits)
	if err != nil {
		t.Fatal(err)
	}
	b := device.Checked(native, limits)
	t.Cleanup(func() { b.Close() }) // after the engine has stopped
	_, p := loadCheckpoint(t, filepath.Join("testdata", name), b)
	return enginetest.Run(t, engine.Config{
		Backend: b, Device: limits, Plan: p, Pages: 600 * max(1, len(p.Groups)), States: states(p, 12),
		Root: page.Root(), MaxBatchTokens: budget, NoPrefixCache: noPrefixCache,
	})
}

// states is n for a model with recurrent layers.
func states(p *plan.Plan, n int) int {
	if p.HasState() {
		return n
	}
	return 0
}
