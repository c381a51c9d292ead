package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// runner is an engine whose loop runs.
type runner struct {
	e      *Engine
	cancel context.CancelFunc
	result chan error
}

func start(t testing.TB, cfg Config) *runner {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &runner{e, cancel, make(chan error, 1)}
	go func() { r.result <- e.Run(ctx) }()
	t.Cleanup(cancel)
	return r
}

// stop drains the engine and expects an orderly end.
func (r *runner) stop(t testing.TB) {
	t.Helper()
	if err := r.e.Drain(context.Background()); err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := <-r.result; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// simConfig is a small engine on the simulated backend.
func simConfig(bc sim.Config) Config {
	return Config{Backend: sim.New(small, bc).Checked(), Device: small, Pages: 16, Plan: bc.Model.Plan(), EOS: []int32{bc.Model.EOS}}
}

// drainStream reads a stream to its end.
func drainStream(t testing.TB, s *Stream) (got []Token, err error) {
	t.Helper()
	for {
		toks, err := s.Next(t.Context())
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, toks...)
	}
}

func greedy(seed uint64, prompt, n int) *Request {
	return &Request{Tokens: tokens(seed, prompt), MaxNewTokens: n, Params: sample.Greedy()}
}

// kind returns the Kind of err, or -1 if it is not an *Error.
func kind(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return -1
}

// TestConcurrentClients has many goroutines submit, read, leave and give up.
func TestConcurrentClients(t *testing.T) {
	model := sim.Model{Seed: 3, Vocab: 500, First: 3, EOS: 2, EOSRate: 0.02}
	cfg := simConfig(sim.Config{Model: model})
	cfg.MaxWaiting = 50
	r := start(t, cfg)
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			for i := range 50 {
				req := greedy(uint64(i%7), 1+i, 1+(i*client)%60)
				ctx, cancel := context.WithCancel(context.Background())
				s, err := r.e.Submit(ctx, req)
				if err != nil {
					t.Errorf("Submit: %v", err)
					cancel()
					return
				}
				switch i % 5 {
				case 3:
					cancel()
				case 4:
					s.Close()
				}
				got, err := drainStream(t, s)
				want := model.Continue(req.Tokens, req.Params, 0, req.MaxNewTokens, true)
				if len(got) > len(want) || err == nil && len(got) != len(want) {
					t.Errorf("%d tokens, want %d", len(got), len(want))
				}
				for k := range got {
					if got[k].ID != want[k].Token {
						t.Errorf("token %d is %d, want %d", k, got[k].ID, want[k].Token)
						break
					}
				}
				if err != nil && (kind(err) != Cancelled || i%5 < 3) {
					t.Errorf("request %d: %v", i, err)
				}
				if times := s.Times(); err == nil && (times.Submitted.After(times.Admitted) || times.Admitted.After(times.FirstToken) || times.FirstToken.After(times.Finished)) {
					t.Errorf("times out of order: %+v", times)
				}
				s.Close()
				cancel()
				r.e.Stats()
			}
		})
	}
	wg.Wait()
	r.stop(t)
	if s := r.e.Stats(); s.Running != 0 || s.Waiting != 0 || s.PagesUsed != 0 || s.Steps[Decode].Steps == 0 || s.Steps[Prefill].Steps == 0 {
		t.Errorf("at the end: %+v", s)
	}
}

func TestSubmitRefuses(t *testing.T) {
	cfg := simConfig(sim.Config{Model: testModel})
	cfg.MaxInput, cfg.MaxTotal, cfg.MaxTopN = 40, 60, 5
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		change func(r *Request)
		kind   Kind // -1: taken
		says   string
	}{
		{name: "fits", change: func(r *Request) {}, kind: -1},
		{name: "fits exactly", change: func(r *Request) { r.Tokens = tokens(1, 40); r.MaxNewTokens = 20 }, kind: -1},
		{name: "no prompt", change: func(r *Request) { r.Tokens = nil }, says: "no tokens"},
		{name: "prompt too long", change: func(r *Request) { r.Tokens = tokens(1, 41) }, says: "41 tokens, the limit is 40"},
		{name: "nothing to generate", change: func(r *Request) { r.MaxNewTokens = 0 }, says: "max_new_tokens is 0"},
		{name: "too much to generate", change: func(r *Request) { r.MaxNewTokens = 51 }, says: "10 prompt tokens and 51 new tokens exceed the limit of 60"},
		{name: "far too much", change: func(r *Request) { r.MaxNewTokens = 1<<63 - 1 }, says: "exceed"},
		{name: "token beyond the vocabulary", change: func(r *Request) { r.Tokens[3] = 500 }, says: "token 3 of the prompt is 500"},
		{name: "negative token", change: func(r *Request) { r.Tokens[0] = device.LastToken }, says: "token 0 of the prompt is -2147483648"},
		{name: "too many alternatives", change: func(r *Request) { r.TopN = 6 }, says: "top_n is 6"},
		{name: "caller gone", ctx: gone, change: func(r *Request) {}, kind: Cancelled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.says != "" {
				tt.kind = Invalid
			}
			if tt.ctx == nil {
				tt.ctx = t.Context()
			}
			req := greedy(1, 10, 10)
			tt.change(req)
			_, err := e.Submit(tt.ctx, req)
			if kind(err) != tt.kind || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want kind %v saying %q", err, tt.kind, tt.says)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *Config)
		says   string
	}{
		{"no pages", func(c *Config) { c.Pages = 0 }, "Pages is 0"},
		{"no plan", func(c *Config) { c.Plan = nil }, "no Plan"},
		{"no states for recurrent layers", func(c *Config) { c.Plan = sim.Model{Vocab: 9, Recurrent: true}.Plan() }, "States is 0"},
		{"pages that one window does not fit into", func(c *Config) {
			c.Plan, c.Pages = sim.Model{Vocab: 9, Windows: []int{0, 40, 40}}.Plan(), 2
		}, "MaxTotal is 1, must be 2 to 1"},
		{"no slots", func(c *Config) { c.Device.MaxSlots = 0 }, "MaxSlots is 0"},
		{"a budget beyond the batch", func(c *Config) { c.MaxBatchTokens = 65 }, "MaxBatchTokens is 65, must be 1 to 64"},
		{"sequences no slot can hold", func(c *Config) { c.MaxTotal = 8*16 + 2 }, "MaxTotal is 130, must be 2 to 129"},
		{"sequences the pages cannot hold", func(c *Config) { c.Pages = 2; c.MaxTotal = 34 }, "MaxTotal is 34, must be 2 to 33"},
		{"prompts without room for a token", func(c *Config) { c.MaxTotal = 50; c.MaxInput = 50 }, "MaxInput is 50"},
		{"too many alternatives", func(c *Config) { c.MaxTopN = 33 }, "MaxTopN is 33"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := simConfig(sim.Config{Model: testModel})
			tt.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error saying %q", err, tt.says)
			}
		})
	}
}

// A sequence of the greatest length runs alone in a pool of just its pages.
func TestLongestSequence(t *testing.T) {
	for _, n := range []int{1, 15, 16, 17, 32} {
		w := newWorld(t, Config{Device: small, Pages: 2}, sim.Config{Model: testModel})
		w.ask(t, tokens(1, n), w.e.Limits().MaxTotal-n)
		w.ask(t, tokens(2, n), w.e.Limits().MaxTotal-n)
		w.finish(t)
	}
}

// The next turn of a conversation finds the pages of the prompt and of the
// answer, the end token's included.
func TestAnswersAreCached(t *testing.T) {
	for _, n := range []int{1, 20, 28, 29, 60} {
		w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
		first := w.ask(t, tokens(1, 20), n)
		w.finish(t)
		next := append([]int32(nil), first.req.Tokens...)
		for _, tok := range first.got {
			next = append(next, tok.ID)
		}
		second := w.ask(t, append(next, tokens(2, 18)...), 1)
		w.finish(t)
		// The last token of the answer was not fed back.
		if got, want := second.stream.Times().CachedTokens, (20+n-1)/16*16; got != want {
			t.Errorf("answer of %d: %d tokens cached, want %d", n, got, want)
		}
	}
}

// Pages that a running sequence holds cost a newcomer nothing; cached ones
// that nobody holds are taken from the free ones.
func TestAdmission(t *testing.T) {
	for _, tt := range []struct {
		name   string
		seen   []int32   // a prompt served before
		ask    [][]int32 // prompts, with 16 tokens to generate each
		active int       // of these after two steps
	}{
		{name: "room for both", ask: [][]int32{tokens(1, 32), tokens(2, 32)}, active: 2},
		{name: "room for one", ask: [][]int32{tokens(1, 64), tokens(2, 64)}, active: 1},
		{name: "the prefix held by another", seen: tokens(1, 64), ask: [][]int32{tokens(1, 64), tokens(1, 64)}, active: 2},
		{name: "the prefix held by none", seen: tokens(2, 64), ask: [][]int32{tokens(1, 64), tokens(2, 64)}, active: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 8}, sim.Config{Model: testModel})
			if tt.seen != nil {
				w.ask(t, append(tt.seen, 5), 1)
				w.finish(t)
				w.e.lengths = lengths{}
			}
			for _, p := range tt.ask {
				w.ask(t, append(p, 7), 16)
			}
			for range 2 {
				if _, err := w.turn(); err != nil {
					t.Fatal(err)
				}
			}
			if got := len(w.e.active); got != tt.active {
				t.Errorf("%d active, want %d", got, tt.active)
			}
			w.finish(t)
		})
	}
}

// A long prompt leaves half of each step to others while there are any.
func TestLongPromptLeavesHalf(t *testing.T) {
	limits := device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 4, MaxPagesPerSlot: 64}
	share := func(others int) (chunks []int) {
		w := newWorld(t, Config{Device: limits, Pages: 200, MaxBatchTokens: 40}, sim.Config{Model: testModel})
		long := w.ask(t, tokens(1, 200), 1)
		for i := range others {
			w.ask(t, tokens(uint64(2+i), 200), 1)
		}
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
		for i, s := range w.e.inFlight.seqs {
			if s.stream == long.stream || others > 0 {
				chunks = append(chunks, int(w.e.inFlight.batch.Seqs[i].Count))
			}
		}
		w.finish(t)
		return chunks
	}
	for others, want := range map[int][]int{0: {40}, 1: {20, 20}, 2: {20, 20}} {
		if got := share(others); len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("beside %d others: chunks %v, want %v", others, got, want)
		}
	}
}

// Tokens of a lone sequence are published in the turn that waited for them.
func TestPublishesAtOnce(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
	c := w.ask(t, tokens(1, 10), 5)
	for turn := range 6 {
		if len(c.got) != max(0, turn-1) {
			t.Errorf("after %d turns: %d tokens", turn, len(c.got))
		}
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	w.finish(t)
}

func TestDrain(t *testing.T) {
	t.Run("lets everything finish", func(t *testing.T) {
		r := start(t, simConfig(sim.Config{Model: testModel}))
		var streams []*Stream
		for i := range 20 {
			streams = append(streams, mustSubmit(t, r.e, greedy(uint64(i), 20, 50)))
		}
		r.stop(t)
		for i, s := range streams {
			if got, err := drainStream(t, s); err != nil || len(got) != 50 {
				t.Errorf("request %d: %d tokens, %v", i, len(got), err)
			}
		}
		if _, err := r.e.Submit(t.Context(), greedy(1, 1, 1)); kind(err) != Stopping {
			t.Errorf("a request after the drain: %v, want Stopping", err)
		}
	})
	t.Run("until its deadline", func(t *testing.T) {
		halted, steps := make(chan struct{}), 0
		r := start(t, simConfig(sim.Config{Model: testModel, OnWait: func() {
			if steps++; steps > 3 {
				<-halted
			}
		}}))
		running := mustSubmit(t, r.e, greedy(1, 20, 50))
		if _, err := running.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		drained := make(chan error)
		go func() { drained <- r.e.Drain(ctx) }()
		for !r.e.halted.Load() {
			time.Sleep(100 * time.Microsecond)
		}
		close(halted)
		if err := <-drained; !errors.Is(err, context.Canceled) {
			t.Errorf("Drain: %v, want its context's end", err)
		}
		if _, err := drainStream(t, running); kind(err) != Stopping {
			t.Errorf("request: %v, want Stopping", err)
		}
		if err := <-r.result; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("ends with the context of Run", func(t *testing.T) {
		r := start(t, simConfig(sim.Config{Model: testModel}))
		r.cancel()
		if err := <-r.result; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := r.e.Submit(t.Context(), greedy(1, 1, 1)); kind(err) != Stopping {
			t.Errorf("a request afterwards: %v, want Stopping", err)
		}
	})
}

func TestRunTwice(t *testing.T) {
	r := start(t, simConfig(sim.Config{Model: testModel}))
	if _, err := drainStream(t, mustSubmit(t, r.e, greedy(1, 1, 1))); err != nil {
		t.Fatal(err)
	}
	if err := r.e.Run(t.Context()); err == nil {
		t.Error("a second Run returned nil")
	}
	r.stop(t)
}

// A failed step ends its sequences with the cause; those that wait go on.
func TestFailedStep(t *testing.T) {
	for name, fault := range map[string]sim.Fault{"when waited for": sim.FailStep, "when launched": sim.FailLaunch} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 32}, sim.Config{Model: testModel, Fault: func(n int) sim.Fault {
				if n == 5 {
					return fault
				}
				return sim.NoFault
			}})
			for i := range 6 { // two more than slots
				w.ask(t, tokens(uint64(i), 20), 20)
			}
			w.finish(t)
			for i, c := range w.clients {
				failed := kind(c.err) == Failed && strings.Contains(c.err.Error(), "injected")
				if want := i < 4; failed != want {
					t.Errorf("client %d: %v, failed %v, want %v", i, c.err, failed, want)
				}
			}
			if got := w.e.Stats().Steps; got[Decode].Failed+got[Prefill].Failed != 1 {
				t.Errorf("failed steps counted: %+v", got)
			}
		})
	}
}

// A lost device and a panic fail what is open, and Run says why.
func TestRunFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cause func(step int) sim.Fault
		says  string
	}{
		{"device lost", func(int) sim.Fault { return sim.Lose }, "device lost"},
		{"panic", func(int) sim.Fault { panic("a bug") }, "a bug"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin := make(chan struct{})
			cfg := simConfig(sim.Config{Model: testModel, Fault: func(n int) sim.Fault {
				if n < 2 {
					return sim.NoFault
				}
				<-begin
				return tt.cause(n)
			}})
			r := start(t, cfg)
			var streams []*Stream
			for i := range 10 {
				streams = append(streams, mustSubmit(t, r.e, greedy(uint64(i), 20, 50)))
			}
			close(begin)
			for i, s := range streams {
				if _, err := drainStream(t, s); kind(err) != Failed || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("request %d: %v, want Failed saying %q", i, err, tt.says)
				}
			}
			if err := <-r.result; err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Run: %v, want it to say %q", err, tt.says)
			}
			if _, err := r.e.Submit(t.Context(), greedy(1, 1, 1)); err == nil {
				t.Error("a request was taken afterwards")
			}
		})
	}
}

// recorder is an Observer that keeps everything.
type recorder struct{ steps []StepInfo }

func (r *recorder) Step(s StepInfo) { r.steps = append(r.steps, s) }

func TestObserver(t *testing.T) {
	rec := &recorder{}
	w := newWorld(t, Config{Device: small, Pages: 16, Observer: rec, MaxBatchTokens: 16}, sim.Config{Model: testModel})
	w.ask(t, tokens(1, 20), 3)
	w.finish(t)
	var got []StepInfo
	for _, s := range rec.steps {
		if s.Plan < 0 || s.Forward < 0 || s.Apply < 0 {
			t.Errorf("negative time: %+v", s)
		}
		s.Plan, s.Forward, s.Apply = 0, 0, 0
		got = append(got, s)
	}
	want := []StepInfo{
		{Method: Prefill, Sequences: 1, Admitted: 1, Tokens: 16},
		{Method: Prefill, Sequences: 1, Tokens: 4},
		{Method: Decode, Sequences: 1, Decodes: 1, Tokens: 1},
		{Method: Decode, Sequences: 1, Decodes: 1, Tokens: 1},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("steps %+v, want %+v", got, want)
	}
}
