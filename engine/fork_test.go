package engine

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/sim"
)

// fork submits n sequences of a prompt of so many tokens.
func (w *world) fork(t testing.TB, prompt, n int) []*client {
	t.Helper()
	cs, err := w.submitN(t, greedy(1, prompt, 20), nil, make([]uint64, n))
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// The prompt of forks is computed once: the others take its full pages from
// the cache, also when it is computed in chunks and others come in between.
func TestForksShareThePrompt(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		cfg                    Config
		prompt, before, cached int
	}{
		{name: "in one step", cfg: Config{Pages: 40}, prompt: 50, cached: 48},
		{name: "in chunks", cfg: Config{Pages: 40, MaxBatchTokens: 7}, prompt: 50, cached: 48},
		{name: "after others", cfg: Config{Pages: 40}, prompt: 50, before: 6, cached: 48},
		{name: "whole pages", cfg: Config{Pages: 40}, prompt: 64, cached: 48},
		{name: "in few pages", cfg: Config{Pages: 8}, prompt: 50, cached: 48},
		{name: "too short", cfg: Config{Pages: 40}, prompt: 16, cached: 0},
		{name: "without a cache", cfg: Config{Pages: 40, NoPrefixCache: true}, prompt: 50, cached: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Device = small
			w := newWorld(t, tt.cfg, sim.Config{Model: testModel})
			for i := range tt.before {
				w.ask(t, tokens(uint64(100+i), 30), 20)
			}
			forks := w.fork(t, tt.prompt, 4)
			var last *client
			for i := range 6 {
				last = w.ask(t, tokens(uint64(200+i), 30), 5)
			}
			w.finish(t) // compares every token
			for i, c := range forks {
				want := tt.cached
				if i == 0 {
					want = 0
				}
				if got := c.stream.Times().CachedTokens; got != want {
					t.Errorf("sequence %d started from %d cached tokens, want %d", i, got, want)
				}
				if tt.cached > 0 && c.stream.times.Admitted.After(last.stream.times.Admitted) {
					t.Errorf("sequence %d was admitted after the last of many later requests", i)
				}
			}
		})
	}
}

// When the first one of a family goes before its prompt is computed, the next
// one leads; the prompt is still computed once.
func TestForksWithoutTheirLeader(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40, MaxBatchTokens: 7}, sim.Config{Model: testModel})
	forks := w.fork(t, 50, 4)
	for range 3 {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	forks[0].leave(true)
	forks[2].leave(true)
	w.finish(t)
	for i, err := range []error{nil, io.EOF, nil, io.EOF} {
		if c := forks[i]; err != nil && c.err != err {
			t.Errorf("sequence %d ended with %v", i, c.err)
		} else if err == nil && kind(c.err) != Cancelled {
			t.Errorf("sequence %d ended with %v, want Cancelled", i, c.err)
		}
	}
	if got := forks[3].stream.Times().CachedTokens; got != 48 {
		t.Errorf("the last one started from %d cached tokens, want 48", got)
	}
}

// A step of the first one fails: the others are served.
func TestForksOutliveAFailedStep(t *testing.T) {
	for fails := range 12 {
		w := newWorld(t, Config{Device: small, Pages: 40, MaxBatchTokens: 16}, sim.Config{Model: testModel, Fault: func(n int) sim.Fault {
			if n == fails {
				return sim.FailStep
			}
			return sim.NoFault
		}})
		forks := w.fork(t, 50, 3)
		w.finish(t)
		done := 0
		for _, c := range forks {
			if c.err == io.EOF {
				done++
			}
		}
		if failedAlone := fails < 4; failedAlone && done != 2 {
			t.Errorf("step %d failed with the first alone in it: %d of 3 were served", fails, done)
		}
	}
}

// Forks count as waiting, all or none are taken, and every end of the engine
// is theirs too.
func TestForksCountAndEnd(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40, MaxWaiting: 5}, sim.Config{Model: testModel})
	w.fork(t, 50, 3)
	if _, err := w.submitN(t, greedy(1, 50, 20), nil, make([]uint64, 3)); kind(err) != Overloaded {
		t.Errorf("six of five: %v, want Overloaded", err)
	}
	w.fork(t, 50, 2)
	if got := w.e.Stats().Waiting; got != 5 {
		t.Errorf("%d wait, want 5", got)
	}
	w.finish(t)

	if _, err := w.submitN(t, greedy(1, 50, 20), nil, nil); kind(err) != Internal {
		t.Errorf("no seeds: %v, want Internal", err)
	}

	for name, end := range map[string]func(*runner){
		"halted":  func(r *runner) { r.cancel() },
		"drained": func(r *runner) { _ = r.e.Drain(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := simConfig(sim.Config{Model: testModel, RealTime: true, Latency: func(int) time.Duration { return 100 * time.Microsecond }})
			cfg.MaxBatchTokens = 3
			r := start(t, cfg)
			streams, err := r.e.SubmitN(t.Context(), greedy(1, 100, 20), make([]uint64, 8))
			if err != nil {
				t.Fatal(err)
			}
			end(r)
			for i, s := range streams {
				got, err := drainStream(t, s)
				if name == "drained" && (err != nil || len(got) != 20) || name == "halted" && kind(err) != Stopping {
					t.Errorf("sequence %d: %d tokens, %v", i, len(got), err)
				}
			}
			if err := <-r.result; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if n := r.e.queued.Load(); n != 0 {
				t.Errorf("%d count as waiting at the end", n)
			}
		})
	}
}
