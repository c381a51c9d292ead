package engine

import (
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// Of layers with windows, five to each that sees all, a long sequence holds so
// few pages that four times the tokens fit.
func TestWindowsGivePagesBack(t *testing.T) {
	const length = 32 << 10
	groups := []plan.Group{{}, {Window: 1024}, {Window: 1024}, {Window: 1024}, {Window: 1024}, {Window: 1024}}
	before := len(groups) * pagesFor(length) // all groups, all positions
	now := PagesFor(groups, length)
	if ratio := float64(before) / float64(now); ratio < 4 {
		t.Errorf("a sequence of %d tokens holds %d pages, %.1f times fewer than %d", length, now, ratio, before)
	}
	s := newShape(groups, false)
	if got := s.longest(now, 1<<20); got < length || got > length+page.Tokens {
		t.Errorf("%d pages are thought to hold %d tokens, want %d", now, got, length)
	}

	// And it holds no more while it grows there.
	limits := device.Limits{MaxTokens: 256, MaxRows: 64, MaxSlots: 2, MaxPagesPerSlot: 200}
	model := testModel
	model.Windows = []int{0, 100, 100}
	const prompt, answer = 2000, 500
	// A step's tokens are in all groups until the next.
	pages := PagesFor(model.Plan().Groups, prompt+answer) + 2*pagesFor(limits.MaxTokens)
	w := newWorld(t, Config{Device: limits, Pages: pages}, sim.Config{Model: model})
	w.ask(t, tokens(1, prompt), answer)
	w.finish(t)
	if n := w.preemptions(); n > 0 {
		t.Errorf("%d sequences lost pages", n)
	}
}

// A second turn starts from the first, whatever the model keeps: all of it but
// what follows the last snapshot.
func TestSecondTurn(t *testing.T) {
	limits := device.Limits{MaxTokens: 256, MaxRows: 64, MaxSlots: 4, MaxPagesPerSlot: 400}
	for _, tt := range []struct {
		name  string
		model sim.Model
		most  int // tokens computed again
	}{
		{"all positions", sim.Model{Windows: []int{0}}, page.Tokens},
		{"windows", sim.Model{Windows: []int{0, 300, 300}}, page.Tokens},
		{"states alone", sim.Model{Windows: []int{}, Recurrent: true}, snapshotGrid + page.Tokens},
		{"states and positions", sim.Model{Windows: []int{0}, Recurrent: true}, snapshotGrid + page.Tokens},
		{"states and windows", sim.Model{Windows: []int{0, 90}, Recurrent: true}, snapshotGrid + page.Tokens},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.model.Seed, tt.model.Vocab, tt.model.First, tt.model.EOS = 1, 500, 3, 2
			w := newWorld(t, Config{Device: limits, Pages: 2000, States: 20}, sim.Config{Model: tt.model})
			const prompt, answer, question = 2500, 1596, 30 // 4,096 tokens of history
			first := w.ask(t, tokens(1, prompt), answer)
			w.finish(t)
			next := append([]int32(nil), first.req.Tokens...)
			for _, tok := range first.got {
				next = append(next, tok.ID)
			}
			before := sum(w.steps)
			second := w.ask(t, append(next, tokens(2, question)...), 40)
			w.finish(t) // compares with the text from scratch
			again := sum(w.steps) - before - question - 39
			if again > tt.most || again != prompt+answer-second.stream.Times().CachedTokens {
				t.Errorf("%d tokens of the first turn were computed again, want at most %d; %d came from the cache",
					again, tt.most, second.stream.Times().CachedTokens)
			}
			stats := w.e.Stats()
			for g, s := range stats.Groups {
				if s.Window != tt.model.Windows[g] || s.Hits == 0 || s.Cached == 0 || s.Used != 0 || s.Evicted != 0 {
					t.Errorf("group %d: %+v", g, s)
				}
			}
			if s := stats.States; tt.model.Recurrent && (s.Hits != 1 || s.Queries != 2 || s.Cached == 0 || stats.StatesTotal != 20) {
				t.Errorf("states: %+v of %d", s, stats.StatesTotal)
			}
		})
	}
}

// Equal prompts share the state at their end, also those that come as forks.
func TestPromptsShareStates(t *testing.T) {
	model := testModel
	model.Recurrent = true
	w := newWorld(t, Config{Device: small, Pages: 40, States: 12}, sim.Config{Model: model})
	forks := w.fork(t, 50, 4)
	w.finish(t)
	forks = append(forks, w.fork(t, 50, 1)...)
	w.finish(t)
	for i, c := range forks {
		want := 48
		if i == 0 {
			want = 0
		}
		if got := c.stream.Times().CachedTokens; got != want {
			t.Errorf("sequence %d started from %d tokens, want %d", i, got, want)
		}
	}
}

// With no more states than sequences nothing is kept, and nothing goes wrong.
func TestStatesWithoutSnapshots(t *testing.T) {
	model := testModel
	model.Recurrent = true
	for states := 1; states <= 5; states++ {
		w := newWorld(t, Config{Device: small, Pages: 40, States: states}, sim.Config{Model: model})
		for i := range 8 {
			w.ask(t, tokens(uint64(i%3), 50), 20)
		}
		w.finish(t)
		if got, want := w.e.slots, min(states, small.MaxSlots); got != want {
			t.Errorf("%d states: %d sequences run, want %d", states, got, want)
		}
	}
}

// Requests share pages only with those of the same adapter and salt.
func TestRootsOfRequests(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 80, Adapters: 2}, sim.Config{Model: testModel})
	for _, tt := range []struct {
		adapter int32
		salt    string
		cached  int
	}{{0, "", 0}, {1, "", 0}, {2, "", 0}, {0, "a", 0}, {1, "a", 0}, {0, "", 32}, {1, "", 32}, {1, "a", 32}, {0, "b", 0}} {
		c, err := w.submit(&Request{Tokens: tokens(1, 40), MaxNewTokens: 3, Params: sample.Greedy(), Adapter: tt.adapter, CacheSalt: tt.salt})
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t) // compares with what the adapter makes of the prompt
		if got := c.stream.Times().CachedTokens; got != tt.cached {
			t.Errorf("adapter %d, salt %q: %d tokens from the cache, want %d", tt.adapter, tt.salt, got, tt.cached)
		}
	}
	if _, err := w.e.Submit(t.Context(), &Request{Tokens: tokens(1, 4), MaxNewTokens: 1, Adapter: 3}); kind(err) != Invalid {
		t.Errorf("an adapter there is not: %v", err)
	}
}

// Where rotations change with the length, a sequence is computed again when it
// grows beyond, once, and prompts find the pages of their own kind alone.
func TestRotationsByLength(t *testing.T) {
	limits := device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 2, MaxPagesPerSlot: 20}
	for _, dynamic := range []bool{false, true} {
		model := testModel
		model.RopeOriginal, model.RopeDynamic = 100, dynamic
		w := newWorld(t, Config{Device: limits, Pages: 60}, sim.Config{Model: model})
		w.ask(t, tokens(1, 90), 60) // grows beyond
		w.finish(t)
		w.ask(t, tokens(1, 120), 20) // is
		w.ask(t, tokens(1, 120), 20)
		w.ask(t, tokens(1, 60), 20) // never is
		w.finish(t)                 // compares every token
		again := 1
		if dynamic {
			again = 0
		}
		if got := w.clients[0].stream.Times().Preempted; got != again {
			t.Errorf("dynamic %v: computed again %d times, want %d", dynamic, got, again)
		}
		if got := w.clients[3].stream.Times().CachedTokens; got != 48 {
			t.Errorf("dynamic %v: a short prompt found %d tokens of a short one, want 48", dynamic, got)
		}
	}
}

// A late mask costs a step, not a token: what was computed is sampled again.
func TestLateMaskComputesNothing(t *testing.T) {
	for _, synchronous := range []bool{false, true} {
		w := newWorld(t, Config{Device: small, Pages: 32}, sim.Config{Model: grammarModel, Synchronous: synchronous})
		turn := 0
		w.e.cfg.Compiler = lateIf(func() bool { turn++; return turn%2 == 1 })
		spec := &constraintSpec{grammar: &testGrammars[0]}
		r := constrainedRequest(20)
		cs, err := w.submitN(t, r, spec, []uint64{1})
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t)
		stats := w.e.Stats()
		known := len(r.Tokens) + len(cs[0].got)
		if computed := sum(w.steps); computed >= known {
			t.Errorf("synchronous %v: %d tokens computed of %d", synchronous, computed, known)
		}
		if stats.LateMasks == 0 {
			t.Error("no mask was late")
		}
	}
}
