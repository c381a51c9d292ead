package engine

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// fast returns an engine whose backend costs next to nothing.
func fast(t testing.TB, slots int) *Engine {
	t.Helper()
	limits := device.Limits{MaxTokens: 2048, MaxRows: 2048, MaxSlots: slots, MaxPagesPerSlot: 256}
	b := sim.New(limits, sim.Config{Model: sim.Model{Vocab: 32000, EOS: 2}, Fast: true})
	e, err := New(Config{
		Backend: b, Device: limits, Pages: 64 * 256, Plan: sim.Model{Vocab: 32000}.Plan(), EOS: []int32{2},
		Root: page.Root(), MaxWaiting: 4096,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustSubmit(t testing.TB, e *Engine, req *Request) *Stream {
	t.Helper()
	s, err := e.Submit(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestNoAllocation holds the loop to allocating nothing: what a request needs
// was allocated by Submit.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	request := func(i, n int) *Request {
		p := sample.Greedy()
		p.RepetitionPenalty = 1 + float32(i%2)
		return &Request{Tokens: tokens(uint64(i), 40), MaxNewTokens: n, Params: p}
	}
	t.Run("decode", func(t *testing.T) {
		e := fast(t, 64)
		for i := range 64 {
			mustSubmit(t, e, request(i, 1000))
		}
		for range 10 {
			e.tick()
		}
		if got := testing.AllocsPerRun(500, func() { e.tick() }); got != 0 {
			t.Errorf("%g allocations per step", got)
		}
		if running := e.Stats().Running; running != 64 {
			t.Errorf("%d sequences ran, want 64", running)
		}
	})
	t.Run("arrivals and ends", func(t *testing.T) {
		e := fast(t, 16)
		for i := range 2000 {
			mustSubmit(t, e, request(i, 1+i%30))
		}
		for range 10 {
			e.tick()
		}
		if got := testing.AllocsPerRun(500, func() { e.tick() }); got != 0 {
			t.Errorf("%g allocations per step", got)
		}
		if s := e.Stats(); s.Running == 0 || s.Waiting == 0 || s.Steps[Prefill].Steps < 200 {
			t.Errorf("too quiet to tell: %+v", s)
		}
	})
	t.Run("windows and states", func(t *testing.T) {
		model := testModel
		model.Windows, model.Recurrent = []int{0, 40}, true
		e, err := New(Config{
			Backend: sim.New(small, sim.Config{Model: model}).Checked(), Device: small, Plan: model.Plan(),
			Pages: 40, States: 10, MaxWaiting: 1000,
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			mustSubmit(t, e, request(i%5, 30))
		}
		for range 50 {
			e.tick()
		}
		if got := testing.AllocsPerRun(500, func() { e.tick() }); got != 0 {
			t.Errorf("%g allocations per step", got)
		}
		if s := e.Stats(); s.Running == 0 || s.Waiting == 0 || s.CachedTokens == 0 {
			t.Errorf("too quiet to tell: %+v", s)
		}
	})
	t.Run("drafts", func(t *testing.T) {
		roomy := small // for masks
		roomy.MaxSlots = 16
		b := sim.New(roomy, sim.Config{Model: testModel, Latency: func(int) time.Duration { return time.Millisecond }})
		e, err := New(Config{Backend: b.Checked(), Device: roomy, Pages: 40, Plan: testModel.Plan(), MaxWaiting: 5000, Speculate: 8})
		if err != nil {
			t.Fatal(err)
		}
		e.now = func() time.Time { return time.Unix(1, 0).Add(b.Now()) }
		for i := range 5000 {
			r := request(i%5, 30) // which fit in a stream's first chunk
			r.AllowedTokens = []int32{7}
			mustSubmit(t, e, r)
		}
		for range 100 {
			e.tick()
		}
		if got := testing.AllocsPerRun(500, func() { e.tick() }); got != 0 {
			t.Errorf("%g allocations per step", got)
		}
		if s := e.Stats(); s.Running == 0 || s.Waiting == 0 || s.AcceptedTokens == 0 {
			t.Errorf("too quiet to tell: %+v", s)
		}
	})
	t.Run("constrained", func(t *testing.T) {
		limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 16, MaxPagesPerSlot: 64}
		e, err := New(Config{
			Backend: sim.New(limits, sim.Config{Model: grammarModel}).Checked(), Device: limits, Pages: 16 * 64,
			Plan: grammarModel.Plan(), EOS: []int32{grammarModel.EOS}, Compiler: lateIf(onTime),
		})
		if err != nil {
			t.Fatal(err)
		}
		endless := &testGrammar{kind: "regex", text: `([ab]{4}true, |[xy][0-9])*1`}
		for i := range 16 {
			r := constrainedRequest(900)
			r.Tokens, r.TopN = []int32{int32(4 + i)}, 0
			r.Params.Sample, r.Params.Seed = 1, uint64(i)
			spec := &constraintSpec{grammar: endless}
			if i%2 == 0 {
				spec = &constraintSpec{triggers: []triggerSpec{{"w", false, endless}}} // never comes
			}
			r.Constraint, r.IgnoreEOS = spec.compile(t), true
			mustSubmit(t, e, r)
		}
		for range 30 {
			e.tick()
		}
		if got := testing.AllocsPerRun(200, func() { e.tick() }); got != 0 {
			t.Errorf("%g allocations per step", got)
		}
		if s := e.Stats(); s.Running < 8 || s.ForcedTokens == 0 {
			t.Errorf("too quiet to tell: %+v", s)
		}
		e.shutDown(nil)
	})
	t.Run("preemptions", func(t *testing.T) {
		b := sim.New(small, sim.Config{Model: testModel}).Checked()
		e, err := New(Config{Backend: b, Device: small, Pages: 9, Plan: testModel.Plan(), MaxWaiting: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			mustSubmit(t, e, request(i, 60))
		}
		turn := func() {
			e.expectShort()
			e.tick()
		}
		for range 50 {
			turn()
		}
		if got := testing.AllocsPerRun(500, turn); got != 0 {
			t.Errorf("%g allocations per step", got)
		}
		if s := e.Stats(); s.Preemptions < 10 {
			t.Errorf("%d preemptions, too few to tell", s.Preemptions)
		}
	})
}

// BenchmarkStep is one step of so many decoding sequences, sim's share
// included.
func BenchmarkStep(b *testing.B) {
	for _, n := range []struct {
		name string
		seqs int
	}{{"1", 1}, {"64", 64}, {"256", 256}} {
		b.Run(n.name, func(b *testing.B) {
			e := fast(b, n.seqs)
			var streams []*Stream
			refill := func() {
				for _, s := range streams {
					s.Close() // gives back the memory of what nobody has read
				}
				streams = streams[:0]
				for i := range n.seqs {
					streams = append(streams, mustSubmit(b, e, &Request{Tokens: tokens(uint64(i), 40), MaxNewTokens: 1000, Params: sample.Greedy()}))
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if worked, _ := e.tick(); !worked {
					b.StopTimer()
					refill()
					b.StartTimer()
				}
			}
		})
	}
}

// BenchmarkSubmit is the caller's part of a request with 512 prompt tokens.
func BenchmarkSubmit(b *testing.B) {
	e := fast(b, 64)
	req := &Request{Tokens: tokens(1, 512), MaxNewTokens: 200, Params: sample.Greedy()}
	b.ReportAllocs()
	for b.Loop() {
		if _, streams, err := e.family(context.Background(), req, []uint64{1}, nil); err != nil {
			b.Fatal(err)
		} else {
			e.account.used.Add(-streams[0].hold.bytes)
		}
	}
}

// BenchmarkServe is what the engine adds to one-token requests and to streams
// of 200 tokens from 64 clients at once, backend excluded: one op is a request.
func BenchmarkServe(b *testing.B) {
	for _, n := range []struct {
		name   string
		tokens int
	}{{"1 token", 1}, {"200 tokens", 200}} {
		b.Run(n.name, func(b *testing.B) {
			e := fast(b, 64)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- e.Run(ctx) }()
			prompt := tokens(1, 20)
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s := mustSubmit(b, e, &Request{Tokens: prompt, MaxNewTokens: n.tokens, Params: sample.Greedy()})
					if got, err := drainStream(b, s); err != nil || len(got) != n.tokens {
						b.Errorf("%d tokens, %v", len(got), err)
					}
				}
			})
			b.ReportMetric(float64(n.tokens*b.N)/b.Elapsed().Seconds(), "tokens/s")
			cancel()
			<-done
		})
	}
}
