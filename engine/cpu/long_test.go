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
func lastLogprobs(t *testing.T, b device.Backend, p *plan.Plan, prompt []int32, chunk int) []device.Alternative {
	t.Helper()
	for pos := 0; pos < len(prompt); pos += chunk {
		n := min(chunk, len(prompt)-pos)
		batch := b.Batch(0)
		batch.Clear()
		batch.Tokens = append(batch.Tokens, prompt[pos:pos+n]...)
		for i := range int32(n) {
			at := int32(pos) + i
			batch.Pos = append(batch.Pos, at)
			if at%device.PageTokens == 0 || i == 0 {
				index := at / device.PageTokens
				// Pages stand apart and out of order.
				batch.Pages = append(batch.Pages, device.PageDelta{Index: index, Page: index * 37 % int32(longLimits.MaxPagesPerSlot+1)})
			}
		}
		if pos == 0 && p.HasState() {
			batch.States = append(batch.States, device.StateDelta{From: device.ZeroState, Save: device.NoState})
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
	for _, tt := range []struct {
		name   string
		plan   *plan.Plan
		format plan.Format // of weights
		caches []plan.Format
	}{
		{"whole", small.plan(), plan.F32, []plan.Format{plan.F32, plan.CacheW8}},
		{"whole", small.plan(), plan.BF16, []plan.Format{plan.F16}},
		{"window", windowed(small.plan(), 1300), plan.BF16, []plan.Format{plan.CacheW8}},
		{"chunk", chunked(small.plan(), 1100), plan.F32, []plan.Format{plan.F32}},
		{"every kind of layer", everything(), plan.F32, []plan.Format{plan.F32, plan.CacheW8}},
	} {
		for _, cache := range tt.caches {
			t.Run(fmt.Sprintf("%s/%v/%v", tt.name, tt.format, cache), func(t *testing.T) {
				tt.plan.SetCacheFormat(cache)
				testLongContext(t, tt.plan, tt.format)
			})
		}
	}
}

func windowed(p *plan.Plan, window int32) *plan.Plan {
	for i := range p.Ops {
		if p.Ops[i].Kind == plan.OpAttention {
			p.Ops[i].I[plan.AttnWindow] = window
		}
	}
	return p
}

func chunked(p *plan.Plan, chunk int32) *plan.Plan {
	for i := range p.Ops {
		if p.Ops[i].Kind == plan.OpAttention {
			p.Ops[i].I[plan.AttnChunk] = chunk
		}
	}
	return p
}

// everything is a model of all that differs in how work is shared out.
func everything() *plan.Plan {
	const heads, latentHeads, latent, rest = 6, 8, 24, 8 // 8 are enough for two workers
	b := newBuilder(small.vocab, small.hidden)
	x, embedding := b.embed()
	h := b.value(small.hidden)
	b.norm(h, x, small.hidden)
	b.attention(x, h, heads, 2, 16)
	alibi := &b.Ops[len(b.Ops)-2]
	alibi.I[plan.AttnSlopes] = int32(len(b.Tables))
	b.Tables = append(b.Tables, []float32{0.5, 0.1, 0.02, 0.004, 0.001, 0})
	b.norm(h, x, small.hidden)
	b.attention(x, h, heads, 2, 16)
	sinks := &b.Ops[len(b.Ops)-2]
	sinks.Weight[0], sinks.I[plan.AttnWindow] = b.tensor(heads), 1300

	b.norm(h, x, small.hidden)
	key, queries, out := b.value(latent+rest), b.value(latentHeads*(latent+rest)), b.value(latentHeads*latent)
	b.linear(key, h, plan.None, false)
	b.linear(queries, h, plan.None, false)
	cache := b.cache(plan.CacheLatent, 1, latent+rest, latent)
	b.op(plan.OpCacheWrite, plan.None, []int32{b.view(key, 0, latent), b.view(key, latent, rest)}, nil,
		func(o *plan.Op) { o.I[plan.WriteCache] = cache })
	b.attend(out, []int32{b.view(queries, 0, latentHeads*latent), b.view(queries, latentHeads*latent, latentHeads*rest)}, nil, cache, latentHeads)
	b.linear(x, out, x, false)

	for _, kind := range kinds(small.hidden, 20) { // dim 20: more than one vector, less than two
		kind.write(b, x)
	}
	return b.head(x, embedding)
}

func longPrompt() []int32 {
	prompt := make([]int32, 2500)
	for i := range prompt {
		prompt[i] = int32(i * i % small.vocab)
	}
	return prompt
}

func testLongContext(t *testing.T, p *plan.Plan, format plan.Format) {
	prompt := longPrompt()
	oracle, err := ref.Open(longLimits)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, oracle, p, format, longLimits.MaxPagesPerSlot+1)
	want := byToken(lastLogprobs(t, oracle, p, prompt, 500))

	var first []device.Alternative
	for _, run := range []struct{ threads, chunk int }{{1, 500}, {2, 500}, {2, 49}, {8, 500}, {8, 357}} {
		limits := longLimits
		limits.Threads = run.threads
		b := open(t, limits)
		fill(t, b, p, format, longLimits.MaxPagesPerSlot+1)
		got := lastLogprobs(t, b, p, prompt, run.chunk)
		b.Close()
		if first == nil {
			first = got
			tolerance := map[plan.Format]float64{plan.F32: 1e-4, plan.BF16: 2e-2}[format]
			if p.CacheFormat() != plan.F32 { // a code, or the last bit of an f16, may be the next one
				tolerance = 2e-2
			}
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
}

// The splits of one long sequence among short ones are shared by all workers:
// the same bits as on one, and as alone.
func TestLongAmongShort(t *testing.T) {
	const short = 3
	prompt := longPrompt()
	p := everything()
	p.SetCacheFormat(plan.CacheW8)
	var first []device.Alternative
	for _, run := range []struct{ threads, others int }{{1, 0}, {1, short}, {8, 0}, {8, short}} {
		limits := longLimits
		limits.MaxSlots, limits.MaxRows, limits.Threads = 1+short, 1+short, run.threads
		b := open(t, limits)
		const pages = 200
		fill(t, b, p, plan.BF16, pages)
		lastLogprobs(t, b, p, prompt, 700)
		x := b.Batch(0)
		x.Clear()
		for slot := range int32(1 + run.others) {
			pos := int32(0)
			if slot == 0 {
				pos = int32(len(prompt))
			} else {
				x.Pages = append(x.Pages, device.PageDelta{Slot: slot, Page: pages - slot})
				x.States = append(x.States, device.StateDelta{Slot: slot, Live: slot, From: device.ZeroState, Save: device.NoState})
			}
			x.Tokens, x.Pos = append(x.Tokens, 5+slot), append(x.Pos, pos)
			x.Seqs = append(x.Seqs, device.Seq{Slot: slot, Start: slot, Count: 1, KVLen: pos + 1})
			x.Rows = append(x.Rows, device.Row{Token: slot, Slot: slot, TopN: device.MaxTopN})
		}
		for _, call := range []func(int) error{b.Forward, b.Sample, b.Wait} {
			if err := call(0); err != nil {
				t.Fatal(err)
			}
		}
		got := slices.Clone(x.Top[:x.Results[0].TopCount])
		b.Close()
		if first == nil {
			first = got
		}
		if !slices.Equal(got, first) {
			t.Errorf("%d threads, %d others: %v, want %v", run.threads, run.others, got[:3], first[:3])
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
	p := everything()
	for _, tt := range []struct{ format, cache plan.Format }{
		{plan.F32, plan.F32}, {plan.F16, plan.F16}, {plan.BF16, plan.F32}, {plan.BF16, plan.CacheW8},
		{plan.W8, plan.F32}, {plan.W8.Grouped(16) | plan.WithMinimum, plan.F32}, {plan.W4.Grouped(32), plan.F32},
		{plan.W4.Grouped(16) | plan.WithMinimum, plan.CacheW8}, {plan.W4.Grouped(16) | plan.CodesE2M1, plan.F32},
		{plan.F8.Grouped(16), plan.F32},
	} {
		var first []device.Alternative
		for _, set := range []string{"avx2", "avxvnni", "wide", "avx512", "avx512vnni", "amx-emulated", "amx"} {
			t.Run(fmt.Sprintf("%v/%v/%s", tt.format, tt.cache, set), func(t *testing.T) {
				choose(t, set)
				p.SetCacheFormat(tt.cache)
				limits := longLimits
				limits.Threads = 2
				b := open(t, limits)
				defer b.Close()
				fill(t, b, p, tt.format, longLimits.MaxPagesPerSlot+1)
				got := lastLogprobs(t, b, p, prompt, 41)
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
	fill(t, b, small.plan(), plan.BF16, 32)
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
	load(t, b, p, plan.BF16)
	if _, err := b.SetModel(p); err != nil {
		t.Fatal(err)
	}
	if err := b.InitCache(math.MaxInt32, 0); err == nil {
		t.Error("InitCache of 2^31 pages succeeded")
	}
	if err := b.InitCache(2, 0); err != nil {
		t.Error(err)
	}
}
