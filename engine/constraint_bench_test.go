package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/token/tokentest"
)

// ordersSchema never ends within a benchmark, and has a bit of everything.
const ordersSchema = `{"type":"array","minItems":1000,"items":{"type":"object","properties":{
	"id":{"type":"integer","minimum":1,"maximum":99999},
	"name":{"type":"string","maxLength":20},
	"state":{"enum":["open","paid","shipped","returned"]},
	"tags":{"type":"array","items":{"type":"string","pattern":"^[a-z]{2,8}$"},"maxItems":3},
	"price":{"type":"number"},
	"address":{"type":"object","properties":{"street":{"type":"string"},"zip":{"type":"string","pattern":"^[0-9]{5}$"}},"required":["street","zip"],"additionalProperties":false}},
	"required":["id","name","state","price"],"additionalProperties":false}}`

// BenchmarkConstrained is what grammars cost a full batch: 32 streams of JSON, a
// vocabulary of 128,000 tokens and a device whose steps take a fixed time. It
// reports how many fewer tokens a second there are than without grammars. What
// is forced costs the row that was launched before it was known, and so counts.
func BenchmarkConstrained(b *testing.B) {
	const streams, length = 32, 150
	v := tokentest.Llama3(b, 128_000)
	vocab := v.VocabSize()
	c, err := grammar.NewCompiler(v, vocab, []int32{v.EOS()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	for _, step := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond} {
		b.Run(fmt.Sprintf("step=%v", step), func(b *testing.B) {
			limits := device.Limits{MaxTokens: 2048, MaxRows: 256, MaxSlots: streams, MaxPagesPerSlot: 32}
			backend := sim.New(limits, sim.Config{Model: sim.Model{Vocab: vocab, EOS: v.EOS()}, Fast: true,
				RealTime: true, Latency: func(int) time.Duration { return step }})
			e, err := New(Config{Backend: backend, Device: limits, Pages: streams * 32, Plan: sim.Model{Vocab: vocab}.Plan(), EOS: []int32{v.EOS()},
				Root: page.Root(), Compiler: func() (Compiler, error) { return c, nil }})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- e.Run(ctx) }()

			// serve returns the tokens per second while all streams run.
			serve := func(constrained bool) float64 {
				var open []*Stream
				for i := range streams {
					r := &Request{Tokens: tokens(uint64(i), 40), MaxNewTokens: 2 * length, Params: sample.Greedy(), IgnoreEOS: true}
					r.Params.Sample, r.Params.Seed = 1, uint64(i)
					if constrained {
						r.Constraint = &Constraint{Grammar: grammartest.Compile(b, c, grammar.JSONSchema, ordersSchema)}
					}
					open = append(open, mustSubmit(b, e, r))
				}
				generated := func() int64 { return e.Stats().GeneratedTokens }
				reach := func(n int64) {
					for generated() < n {
						time.Sleep(step / 10)
					}
				}
				before := generated()
				reach(before + 10*streams)
				start, from := time.Now(), generated()
				reach(from + length*streams)
				rate := float64(generated()-from) / time.Since(start).Seconds()
				for _, s := range open {
					s.Close()
				}
				for _, s := range open {
					if _, err := drainStream(b, s); kind(err) != Cancelled {
						b.Errorf("a stream ended early: %v", err)
					}
				}
				return rate
			}
			var constrained, free float64
			for b.Loop() {
				free += serve(false)
				constrained += serve(true)
			}
			s := e.Stats()
			b.ReportMetric(100*(1-constrained/free), "%loss")
			b.ReportMetric(100*float64(s.ForcedTokens)/float64(s.GeneratedTokens/2), "%forced")
			b.ReportMetric(100*float64(s.LateMasks)/float64(s.GeneratedTokens/2), "%late")
			b.ReportMetric(0, "ns/op")
			cancel()
			<-done
		})
	}
}
