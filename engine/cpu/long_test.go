package cpu_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
)

// small has grouped heads and odd widths, so that a context of thousands of
// tokens runs in a test.
var small = shape{vocab: 97, hidden: 40, layers: 2, heads: 6, kvHeads: 2, headDim: 16, inner: 56}

// longLimits hold one sequence of 2560 tokens: three splits of attention.
var longLimits = device.Limits{MaxTokens: 700, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 160}

// lastLogprobs runs a prompt in chunks and returns the log-probabilities of
// the tokens after the last, by token.
func lastLogprobs(t *testing.T, b device.Backend, prompt []int32, chunk int) []device.Alternative {
	t.Helper()
	for pos := 0; pos < len(prompt); pos += chunk {
		n := min(chunk, len(prompt)-pos)
		batch := b.Batch(0)
		batch.Tokens, batch.Pos = append(batch.Tokens[:0], prompt[pos:pos+n]...), batch.Pos[:0]
		batch.Pages, batch.Rows, batch.Params, batch.Counts = batch.Pages[:0], batch.Rows[:0], batch.Params[:0], batch.Counts[:0]
		for i := range int32(n) {
			at := int32(pos) + i
			batch.Pos = append(batch.Pos, at)
			if at%device.PageTokens == 0 || i == 0 {
				index := at / device.PageTokens
				// Pages stand apart and out of order.
				batch.Pages = append(batch.Pages, device.PageDelta{Index: index, Page: index * 37 % int32(longLimits.MaxPagesPerSlot+1)})
			}
		}
		batch.Seqs = append(batch.Seqs[:0], device.Seq{Count: int32(n), KVLen: int32(pos + n)})
		if pos+n == len(prompt) {
			batch.Rows = append(batch.Rows, device.Row{Token: int32(n - 1), TopN: device.MaxTopN})
		}
		if err := b.Forward(0); err != nil {
			t.Fatal(err)
		}
		if err := b.Sample(0); err != nil {
			t.Fatal(err)
		}
		if err := b.Wait(0); err != nil {
			t.Fatal(err)
		}
	}
	batch := b.Batch(0)
	if batch.Results[0].Invalid != 0 {
		t.Fatal("invalid logits")
	}
	return slices.Clone(batch.Top[:batch.Results[0].TopCount])
}

// A long context is attended to in splits, by one worker or by several at
// once, however it was cut (chunks of 49 and 357 leave a last token alone):
// the same bits, near those of ref.
func TestLongContext(t *testing.T) {
	prompt := make([]int32, 2500)
	for i := range prompt {
		prompt[i] = int32(i * i % small.vocab)
	}
	for _, window := range []int32{0, 1300} {
		p := small.plan()
		for i := range p.Ops {
			if p.Ops[i].Kind == plan.OpAttention {
				p.Ops[i].Window = window
			}
		}
		for _, dtype := range []device.DType{device.F32, device.BF16} {
			t.Run(fmt.Sprintf("window %d/%v", window, dtype), func(t *testing.T) {
				oracle, err := ref.Open(longLimits)
				if err != nil {
					t.Fatal(err)
				}
				fill(t, oracle, p, dtype, longLimits.MaxPagesPerSlot+1)
				want := byToken(lastLogprobs(t, oracle, prompt, 500))

				var first []device.Alternative
				for _, run := range []struct{ threads, chunk int }{{1, 500}, {2, 500}, {2, 49}, {8, 500}, {8, 357}} {
					limits := longLimits
					limits.Threads = run.threads
					b := open(t, limits)
					fill(t, b, p, dtype, longLimits.MaxPagesPerSlot+1)
					got := lastLogprobs(t, b, prompt, run.chunk)
					b.Close()
					if first == nil {
						first = got
						tolerance := map[device.DType]float64{device.F32: 1e-4, device.BF16: 2e-2}[dtype]
						for _, a := range got {
							if w, ok := want[a.Token]; ok && math.Abs(float64(a.Logprob-w)) > tolerance {
								t.Errorf("token %d has log-probability %v, want %v ± %v", a.Token, a.Logprob, w, tolerance)
							}
						}
					}
					if !slices.Equal(got, first) {
						t.Errorf("%d threads, chunks of %d: %v, want %v", run.threads, run.chunk, got[:3], first[:3])
					}
				}
			})
		}
	}
}

func byToken(top []device.Alternative) map[int32]float32 {
	m := map[int32]float32{}
	for _, a := range top {
		m[a.Token] = a.Logprob
	}
	return m
}

// Every set with fused multiply-adds gives the same bits.
func TestSetsAgree(t *testing.T) {
	prompt := make([]int32, 60)
	for i := range prompt {
		prompt[i] = int32(i * 11 % small.vocab)
	}
	for _, dtype := range []device.DType{device.F32, device.F16, device.BF16} {
		var first []device.Alternative
		for _, set := range []string{"avx2", "wide", "avx512"} {
			t.Run(fmt.Sprintf("%v/%s", dtype, set), func(t *testing.T) {
				choose(t, set)
				limits := longLimits
				limits.Threads = 2
				b := open(t, limits)
				defer b.Close()
				fill(t, b, small.plan(), dtype, longLimits.MaxPagesPerSlot+1)
				got := lastLogprobs(t, b, prompt, 41)
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					t.Errorf("got %v, want %v as the first set", got[:3], first[:3])
				}
			})
		}
	}
}

// A step of the engine's shape allocates nothing.
func TestStepAllocatesNothing(t *testing.T) {
	limits := device.Limits{MaxTokens: 8, MaxRows: 8, MaxSlots: 8, MaxPagesPerSlot: 4, Threads: 2}
	b := open(t, limits)
	defer b.Close()
	fill(t, b, small.plan(), device.BF16, 32)
	d := &driver{b: b, seqs: 8, pages: 4, vocab: small.vocab}
	pos := 0
	if allocs := testing.AllocsPerRun(30, func() {
		d.wait(t, d.enqueue(t, pos, 1, pos > 0))
		pos++
	}); allocs != 0 {
		t.Errorf("%v allocations a step", allocs)
	}
}

// Limits and settings that cannot be right.
func TestOpenRefuses(t *testing.T) {
	good := device.Limits{MaxTokens: 1, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 1}
	for _, tt := range []struct {
		name string
		bad  func(l *device.Limits)
		set  string
	}{
		{name: "no tokens", bad: func(l *device.Limits) { l.MaxTokens = 0 }},
		{name: "negative rows", bad: func(l *device.Limits) { l.MaxRows = -1 }},
		{name: "slots beyond int32", bad: func(l *device.Limits) { l.MaxSlots = 1 << 40 }},
		{name: "too many pages a slot", bad: func(l *device.Limits) { l.MaxPagesPerSlot = 1 << 25 }},
		{name: "too many threads", bad: func(l *device.Limits) { l.Threads = 100000 }},
		{name: "unknown instruction set", bad: func(*device.Limits) {}, set: "mmx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("MILLRACE_CPU_ISA", tt.set)
			limits := good
			tt.bad(&limits)
			if b, err := cpu.Open(limits); err == nil {
				b.Close()
				t.Error("Open succeeded")
			}
		})
	}
}

// A cache larger than any address space is refused, and a smaller one still
// works.
func TestNoMemory(t *testing.T) {
	b := open(t, device.Limits{MaxTokens: 4, MaxRows: 4, MaxSlots: 1, MaxPagesPerSlot: 2})
	defer b.Close()
	s := small
	s.layers = 64 // 2^31 of its pages are beyond 47 bits of address
	p := s.plan()
	load(t, b, p, device.BF16)
	if _, err := b.SetModel(p); err != nil {
		t.Fatal(err)
	}
	if err := b.InitKV(math.MaxInt32); err == nil {
		t.Error("InitKV of 2^31 pages succeeded")
	}
	if err := b.InitKV(2); err != nil {
		t.Error(err)
	}
}
