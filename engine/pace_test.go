package engine

import (
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/vision"
)

const ms = time.Millisecond

// clocked is a world whose steps take what cost says of their tokens and of
// those that one of its sequences has computed.
func clocked(t *testing.T, synchronous bool, cost func(tokens, context int) time.Duration) *world {
	limits := device.Limits{MaxTokens: 2048, MaxRows: 2048, MaxSlots: 16, MaxPagesPerSlot: 600}
	var w *world
	w = newWorld(t, Config{Device: limits, Pages: 2000}, sim.Config{Model: testModel, Synchronous: synchronous, Latency: func(tokens int) time.Duration {
		longest := 0
		for _, s := range w.e.active {
			longest = max(longest, s.computed)
		}
		return cost(tokens, longest)
	}})
	return w
}

// While a long prompt is read, sequences that generate do not wait for it.
func TestLongPromptBesideReaders(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cost   func(tokens, context int) time.Duration
		decode time.Duration // about what a step of 8 tokens takes
	}{
		{"a fast device", func(n, _ int) time.Duration { return 5*ms + time.Duration(n)*50*time.Microsecond }, 6 * ms},
		{"a slow one", func(n, _ int) time.Duration { return 30*ms + time.Duration(n)*ms }, 38 * ms},
		{"slow decodes", func(n, _ int) time.Duration { return 90*ms + time.Duration(n)*ms/2 }, 94 * ms},
		{"a prompt that costs more and more", func(n, context int) time.Duration {
			return 20*ms + time.Duration(n)*ms/4 + time.Duration(n)*time.Duration(context)*50*time.Nanosecond
		}, 22 * ms},
		{"slower than a page in time", func(n, _ int) time.Duration { return time.Duration(n) * 10 * ms }, 80 * ms},
	} {
		for _, synchronous := range []bool{true, false} {
			w := clocked(t, synchronous, tt.cost)
			for i := range 8 {
				w.ask(t, tokens(uint64(i), 20), 900)
			}
			for range 20 {
				if _, err := w.turn(); err != nil {
					t.Fatal(err)
				}
			}
			long := w.ask(t, tokens(99, 8192), 1)
			readers := w.clients[:8]
			begun, last, longest := w.b.Now(), w.b.Now(), time.Duration(0)
			for !long.over && !readers[0].over {
				got := len(readers[0].got)
				if _, err := w.turn(); err != nil {
					t.Fatal(err)
				}
				if len(readers[0].got) > got {
					longest = max(longest, w.b.Now()-last)
					last = w.b.Now()
				}
			}
			bound := max(2*tt.decode, 100*ms) * 6 / 5
			if least := tt.cost(8+page.Tokens, 0); least > bound {
				bound = least // a page has to go on
			}
			t.Logf("%s: longest gap %v, bound %v, prompt read in %v", tt.name, longest, bound, w.b.Now()-begun)
			if longest > bound {
				t.Errorf("%s: readers waited %v, want at most %v", tt.name, longest, bound)
			}
			if !long.over && len(readers[0].got) < 899 {
				t.Errorf("%s: the prompt was not read", tt.name)
			}
		}
	}
}

// Nor for the prompt about an image, though steps took longer while the image was encoded.
func TestImagePromptBesideReaders(t *testing.T) {
	limits := device.Limits{MaxTokens: 1024, MaxRows: 1024, MaxSlots: 16, MaxPagesPerSlot: 100}
	var w *world
	p := &painter{}
	w = newWorld(t, Config{Device: limits, Pages: 2000, NoPrefixCache: true, Vision: p.vision(1<<20, vision.Causal)}, sim.Config{
		Model: seeing, Synchronous: true,
		Latency: func(n int) time.Duration {
			took := 16*ms + time.Duration(n)*ms
			if w.e.images.running != nil {
				took = took * 5 / 2
			}
			return took
		},
	})
	busy := 0
	p.late = func() bool { busy--; return busy > 0 }
	for i := range 8 {
		r := look(20+i, nil)
		r.MaxNewTokens, r.IgnoreEOS = 900, true
		if _, err := w.submit(r); err != nil {
			t.Fatal(err)
		}
	}
	readers := w.clients[:8]
	last, longest, read := w.b.Now(), time.Duration(0), 0
	until := func(done func() bool) {
		t.Helper()
		for !done() {
			if readers[0].over {
				t.Fatal("no reader is left")
			}
			got := len(readers[0].got)
			if _, err := w.turn(); err != nil {
				t.Fatal(err)
			}
			if len(readers[0].got) > got {
				if got > 0 {
					longest = max(longest, w.b.Now()-last)
				}
				last = w.b.Now()
				read++
			}
		}
	}
	until(func() bool { return read > 20 })
	longest = 0
	for i := range uint64(6) {
		art := paint(i, 200, false, false)
		busy = 20
		viewer, err := w.submit(look(240, map[int]*painting{10: &art}))
		if err != nil {
			t.Fatal(err)
		}
		until(func() bool { return len(viewer.got) > 0 })
	}
	if longest > promptStep {
		t.Errorf("readers waited %v, want at most %v", longest, promptStep)
	}
}

// The first long prompt beside readers is not judged by the few tokens of theirs, which
// took no time.
func TestFirstPromptBesideReaders(t *testing.T) {
	w := clocked(t, true, func(n, _ int) time.Duration { return max(24*ms, 8*ms+time.Duration(n)*ms) })
	w.ask(t, tokens(1, 1000), 1)
	w.finish(t)
	reader := w.ask(t, tokens(1, 4), 900)
	for i := range uint64(7) {
		w.ask(t, tokens(i+2, 4), 900)
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	long := w.ask(t, tokens(99, 1000), 1)
	last, longest := w.b.Now(), time.Duration(0)
	for !long.over && !reader.over {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, w.b.Now()-last)
		last = w.b.Now()
	}
	if longest > promptStep {
		t.Errorf("readers waited %v, want at most %v", longest, promptStep)
	}
}

// Nobody is kept waiting by a prompt that is alone.
func TestLongPromptAlone(t *testing.T) {
	w := clocked(t, true, func(n, _ int) time.Duration { return time.Duration(n) * ms })
	w.ask(t, tokens(1, 8192), 1)
	w.finish(t)
	if got := len(w.steps); got != 4 {
		t.Errorf("%d steps for a prompt of 4 times what a step holds", got)
	}
}

// On a device that is not kept ahead, a request that arrives during a step has
// its first token when the step and its prompt are done.
func TestFirstTokenBesideReader(t *testing.T) {
	for _, tt := range []struct {
		synchronous bool
		want        time.Duration
	}{{true, 200 * ms}, {false, 300 * ms}} {
		w := clocked(t, tt.synchronous, func(int, int) time.Duration { return 100 * ms })
		w.ask(t, tokens(1, 20), 100)
		for range 10 {
			if _, err := w.turn(); err != nil {
				t.Fatal(err)
			}
		}
		var second *client
		var at time.Duration
		w.onWait = func() {
			w.onWait = nil
			at = w.b.Now()
			second = w.ask(t, tokens(2, 20), 1)
		}
		for second == nil || len(second.got) == 0 {
			if _, err := w.turn(); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.b.Now() - at; got != tt.want {
			t.Errorf("synchronous %v: first token after %v, want %v", tt.synchronous, got, tt.want)
		}
	}
}

// Without a step ahead, nothing is computed for a sequence that has ended.
func TestNothingInVain(t *testing.T) {
	model := sim.Model{Seed: 5, Vocab: 100, First: 3, EOS: 2, EOSRate: 0.05}
	w := newWorld(t, Config{Device: small, Pages: 32}, sim.Config{Model: model, Synchronous: true})
	known := 0
	for i := range 4 {
		prompt := tokens(uint64(i), 5)
		for k := range prompt {
			prompt[k] %= 100
		}
		w.ask(t, prompt, 60)
	}
	w.finish(t)
	for _, c := range w.clients {
		known += len(c.req.Tokens) + len(c.got) - 1
	}
	if got := sum(w.steps); got != known {
		t.Errorf("%d tokens computed, want %d", got, known)
	}
}
