package cpu_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// layer is one kind of layer and what a step of it costs.
type layer struct {
	name  string
	write func(b builder, x int32) // its result is added to x
	// Weights that a token meets, those that a step reads at most, bytes of state
	// that a sequence's step reads and writes, operations on them of a token.
	weights, most, state, scan int
}

// kinds are kinds of layer of about the same matrices, with states of dim rows.
func kinds(hidden, dim int) []layer {
	return []layer{
		denseLayer(hidden), expertLayer(hidden), deltaLayer(hidden, dim, false), deltaLayer(hidden, dim, true),
		selectiveLayer(hidden), mambaLayer(hidden, dim),
	}
}

func denseLayer(hidden int) layer {
	w := 3 * hidden * 5 * hidden
	return layer{name: "dense", weights: w, most: w, write: func(b builder, x int32) {
		h := b.value(hidden)
		b.norm(h, x, hidden)
		b.mlp(x, h, 5*hidden)
	}}
}

// expertLayer has 32 experts, of which a token meets 8.
func expertLayer(hidden int) layer {
	const experts, k = 32, 8
	inner := 5 * hidden / k
	w := 3 * hidden * inner
	return layer{name: "experts", weights: k * w, most: experts * w, write: func(b builder, x int32) {
		h, logits, sum := b.value(hidden), b.value(experts), b.value(hidden)
		chosen, weights := b.value(k), b.value(k)
		b.norm(h, x, hidden)
		b.linear(logits, h, plan.None, false)
		b.op(plan.OpRoute, chosen, []int32{logits}, nil, func(o *plan.Op) {
			o.Out[1], o.I[plan.RouteTopK], o.I[plan.RouteNormalize], o.F[plan.RouteScale] = weights, k, 1, 1
		})
		gate, up, down := b.tensor(experts, inner, hidden), b.tensor(experts, inner, hidden), b.tensor(experts, hidden, inner)
		b.op(plan.OpExperts, sum, []int32{h, chosen, weights}, []int32{gate, plan.None, up, plan.None, down},
			func(o *plan.Op) { o.I[plan.ActKind] = int32(plan.ActSilu) })
		b.op(plan.OpAdd, x, []int32{x, sum}, nil, func(o *plan.Op) { o.F[plan.AddScale] = 1 })
	}}
}

// deltaLayer is a delta rule whose states decay as a whole or, with channels, row by row.
func deltaLayer(hidden, dim int, channels bool) layer {
	const heads, keyHeads = 16, 8
	name, decays := "gated delta", heads
	if channels {
		name, decays = "kimi delta", heads*dim
	}
	in, out := (2*keyHeads+heads)*dim, heads*dim
	w := hidden*(in+decays+heads) + out*hidden + 3*hidden*3*hidden
	state := heads * dim * dim
	return layer{name: name, weights: w, most: w, state: 2 * 4 * state, scan: 7 * state, write: func(b builder, x int32) {
		h, qkv, gates, y := b.value(hidden), b.value(in), b.value(decays+heads), b.value(out)
		b.norm(h, x, hidden)
		b.linear(qkv, h, plan.None, false)
		b.linear(gates, h, plan.None, false)
		cache := b.cache(plan.CacheState, heads, dim, dim)
		b.op(plan.OpGatedDelta, y, []int32{
			b.view(qkv, 0, keyHeads*dim), b.view(qkv, keyHeads*dim, keyHeads*dim), b.view(qkv, 2*keyHeads*dim, out),
			b.view(gates, 0, decays), b.view(gates, decays, heads),
		}, []int32{b.tensor(heads), b.tensor(decays)}, func(o *plan.Op) {
			if channels {
				o.I[plan.DeltaChannels] = 1
			}
			o.I[plan.DeltaCache], o.I[plan.DeltaKeyHeads], o.F[plan.DeltaEps], o.F[plan.DeltaScale] = cache, keyHeads, 1e-6, 0.1
		})
		b.linear(x, y, x, false)
		b.norm(h, x, hidden)
		b.mlp(x, h, 3*hidden)
	}}
}

// selectiveLayer is that of Mamba 1, whose step sizes come through a narrow matrix.
func selectiveLayer(hidden int) layer {
	const k, dim = 4, 16
	inner, rank := 2*hidden, hidden/16
	w := hidden*2*inner + inner*(rank+2*dim) + rank*inner + inner*hidden
	state := inner * dim
	return layer{name: "mamba 1", weights: w, most: w, state: 2 * 4 * state, scan: 6 * state, write: func(b builder, x int32) {
		h, both, mixed, low, dt := b.value(hidden), b.value(2*inner), b.value(inner), b.value(rank+2*dim), b.value(inner)
		b.norm(h, x, hidden)
		b.linear(both, h, plan.None, false)
		conv, cache := b.cache(plan.CacheState, 1, k-1, inner), b.cache(plan.CacheState, 1, dim, inner)
		b.op(plan.OpConv, mixed, []int32{b.view(both, 0, inner)}, []int32{b.tensor(inner, k)}, func(o *plan.Op) {
			o.I[plan.ConvCache], o.I[plan.ConvAct] = conv, int32(plan.ActSilu)
		})
		b.linear(low, mixed, plan.None, false)
		b.linear(dt, b.view(low, 0, rank), plan.None, true)
		y := b.value(inner)
		b.op(plan.OpSelectiveScan, y, []int32{mixed, dt, b.view(low, rank, dim), b.view(low, rank+dim, dim)},
			[]int32{b.tensor(inner, dim), b.tensor(inner)}, func(o *plan.Op) { o.I[plan.ScanCache] = cache })
		b.op(plan.OpActivate, mixed, []int32{b.view(both, inner, inner), y}, nil, func(o *plan.Op) { o.I[plan.ActKind] = int32(plan.ActSilu) })
		b.linear(x, mixed, x, false)
	}}
}

func mambaLayer(hidden, dim int) layer {
	const heads, k = 32, 4
	inner := heads * dim / 2
	in := inner + 2*dim
	w := hidden*(in+heads) + inner*hidden + 3*hidden*3*hidden
	state := inner * dim
	return layer{name: "mamba 2", weights: w, most: w, state: 2 * 4 * state, scan: 5 * state, write: func(b builder, x int32) {
		h, xbc, mixed, dt, y := b.value(hidden), b.value(in), b.value(in), b.value(heads), b.value(inner)
		b.norm(h, x, hidden)
		b.linear(xbc, h, plan.None, false)
		b.linear(dt, h, plan.None, false)
		conv, cache := b.cache(plan.CacheState, 1, k-1, in), b.cache(plan.CacheState, heads, dim, dim/2)
		b.op(plan.OpConv, mixed, []int32{xbc}, []int32{b.tensor(in, k)}, func(o *plan.Op) {
			o.I[plan.ConvCache], o.I[plan.ConvAct] = conv, int32(plan.ActSilu)
		})
		b.op(plan.OpSSM, y, []int32{b.view(mixed, 0, inner), b.view(mixed, inner, dim), b.view(mixed, inner+dim, dim), dt},
			[]int32{b.tensor(heads), b.tensor(heads), b.tensor(heads)}, func(o *plan.Op) {
				o.I[plan.SSMCache], o.I[plan.SSMGroups], o.F[plan.SSMMax] = cache, 1, 100
			})
		b.linear(x, y, x, false)
		b.norm(h, x, hidden)
		b.mlp(x, h, 3*hidden)
	}}
}

// BenchmarkLayers: steps of models of one kind of layer.
func BenchmarkLayers(b *testing.B) {
	const vocab, hidden, dim, count = 256, 1024, 128, 8
	for _, kind := range kinds(hidden, dim) {
		for _, step := range []struct {
			name         string
			seqs, tokens int
		}{{"decode 1", 1, 1}, {"decode 16", 16, 1}, {"prefill 256", 1, 256}} {
			b.Run(fmt.Sprintf("%s/%s", kind.name, step.name), func(b *testing.B) {
				backend, err := cpu.Open(benchLimits(step.seqs, step.seqs*step.tokens))
				if err != nil {
					b.Fatal(err)
				}
				defer backend.Close()
				w := newBuilder(vocab, hidden)
				x, embedding := w.embed()
				for range count {
					kind.write(w, x)
				}
				p := w.head(x, embedding)
				fill(b, backend, p, plan.BF16, step.seqs*benchPages)
				d := &driver{b: backend, seqs: step.seqs, pages: benchPages, vocab: vocab, states: p.HasState()}
				d.wait(b, d.enqueue(b, 0, step.tokens, false))
				tokens := step.seqs * step.tokens
				bytes := count * (2*min(kind.weights*tokens, kind.most) + kind.state*step.seqs)
				b.ResetTimer()
				start := cpuSeconds()
				for i := range b.N {
					pos := 0
					if step.tokens == 1 {
						pos = 1 + i%(benchPages*device.PageTokens-1)
					}
					d.wait(b, d.enqueue(b, pos, step.tokens, false))
				}
				report(b, plan.BF16, start, tokens, float64(bytes), float64(count*(2*kind.weights+kind.scan)*tokens))
			})
		}
	}
}

// BenchmarkAttention: one token of each of some sequences of 1000, over keys and
// values of grouped heads and over latents.
func BenchmarkAttention(b *testing.B) {
	const vocab, hidden, count, context = 256, 1024, 2, 1000
	const latent, rest, chunk = 512, 64, 512
	overLatent := func(b builder, x, h int32, heads int) {
		key, queries, out := b.value(latent+rest), b.value(heads*(latent+rest)), b.value(heads*latent)
		b.linear(key, h, plan.None, false)
		b.linear(queries, h, plan.None, false)
		cache := b.cache(plan.CacheLatent, 1, latent+rest, latent)
		b.op(plan.OpCacheWrite, plan.None, []int32{key}, nil, func(o *plan.Op) { o.I[plan.WriteCache] = cache })
		b.attend(out, []int32{queries}, nil, cache, heads)
		b.linear(x, out, x, false)
	}
	for _, tt := range []struct {
		name  string
		seqs  int
		heads int
		width int // elements a token's cache takes in a layer
		write func(b builder, x, h int32, heads int)
	}{
		{"grouped", 4, 16, 2 * 2 * 128, func(b builder, x, h int32, heads int) { b.attention(x, h, heads, 2, 128) }},
		{"chunks", 4, 16, 2 * 2 * 128, func(b builder, x, h int32, heads int) {
			b.attention(x, h, heads, 2, 128)
			for i := range b.Ops {
				if op := &b.Ops[i]; op.Kind == plan.OpAttention {
					op.I[plan.AttnChunk] = chunk
				}
			}
		}},
		{"latent", 4, 16, latent + rest, overLatent},
		{"latent of one", 1, 16, latent + rest, overLatent},
	} {
		b.Run(tt.name, func(b *testing.B) {
			w := newBuilder(vocab, hidden)
			x, embedding := w.embed()
			h := w.value(hidden)
			for range count {
				w.norm(h, x, hidden)
				tt.write(w, x, h, tt.heads)
			}
			p := w.head(x, embedding)
			backend, err := cpu.Open(benchLimits(tt.seqs, tt.seqs*100))
			if err != nil {
				b.Fatal(err)
			}
			defer backend.Close()
			fill(b, backend, p, plan.BF16, tt.seqs*benchPages)
			d := &driver{b: backend, seqs: tt.seqs, pages: benchPages, vocab: vocab}
			for pos := 0; pos < context; pos += 100 {
				d.wait(b, d.enqueue(b, pos, 100, false))
			}
			weights := 0
			for _, t := range p.Tensors[1:] { // without the embedding, of which a row is read
				if len(t.Shape) == 2 {
					weights += t.Shape[0] * t.Shape[1]
				}
			}
			b.ResetTimer()
			start := cpuSeconds()
			for range b.N {
				d.wait(b, d.enqueue(b, context, 1, false))
			}
			seen := context
			if tt.name == "chunks" {
				seen = context%chunk + 1
			}
			report(b, plan.BF16, start, tt.seqs, 2*float64(weights)+float64(count*tt.seqs*seen*2*tt.width), float64(2*weights*tt.seqs))
		})
	}
}

// BenchmarkLongContext: attention of Qwen2-0.5B's shape at the end of 8192 positions, a
// step of a prompt or one token, by format of the cache. Weights are narrow and the vocabulary
// is small, so that it takes nearly all of the time. Keys and values of earlier steps are
// taken as they are, zeros.
func BenchmarkLongContext(b *testing.B) {
	const context, layers = 8192, 2
	s := shape{vocab: 256, hidden: 64, layers: layers, heads: 14, kvHeads: 2, headDim: 64, inner: 64}
	for _, tokens := range []int{256, 1} {
		for _, cache := range []plan.Format{plan.F32, plan.F16, plan.CacheW8} {
			b.Run(fmt.Sprintf("%d/%v", tokens, cache), func(b *testing.B) {
				limits := benchLimits(1, tokens)
				limits.MaxPagesPerSlot = context / device.PageTokens
				backend, err := cpu.Open(limits)
				if err != nil {
					b.Fatal(err)
				}
				defer backend.Close()
				p := s.plan()
				p.SetCacheFormat(cache)
				fill(b, backend, p, plan.BF16, limits.MaxPagesPerSlot)
				d := &driver{b: backend, seqs: 1, pages: limits.MaxPagesPerSlot, vocab: s.vocab}
				x := backend.Batch(0)
				for i := range int32(limits.MaxPagesPerSlot) {
					x.Pages = append(x.Pages, device.PageDelta{Index: i, Page: i})
				}
				if err := backend.Forward(0); err != nil {
					b.Fatal(err)
				}
				d.wait(b, 0)
				b.ResetTimer()
				start := cpuSeconds()
				for range b.N {
					d.wait(b, d.enqueue(b, context-tokens, tokens, false))
				}
				seen := float64(tokens) * (context - float64(tokens)/2)
				kv := 0
				for i := range p.Caches {
					kv += p.Caches[i].Bytes(cache)
				}
				report(b, plan.BF16, start, tokens, float64(kv)*context, layers*seen*float64(s.heads*s.headDim)*2*2)
			})
		}
	}
}

// BenchmarkLongAmongShort: one token of each of 8 sequences, one of which has
// more positions than all others together. They are taken as they are, zeros.
func BenchmarkLongAmongShort(b *testing.B) {
	const long, short, seqs = 32768, 48, 8
	s := shape{vocab: 256, hidden: 1024, layers: 4, heads: 8, kvHeads: 2, headDim: 128, inner: 1024}
	limits := benchLimits(seqs, seqs)
	limits.MaxPagesPerSlot = long / device.PageTokens
	backend := s.load(b, plan.BF16, limits, limits.MaxPagesPerSlot+seqs*short/device.PageTokens)
	x := backend.Batch(0)
	page := int32(0)
	for i := range int32(seqs) {
		length := int32(short)
		if i == 0 {
			length = long
		}
		for index := range length / device.PageTokens {
			x.Pages = append(x.Pages, device.PageDelta{Slot: i, Index: index, Page: page})
			page++
		}
		x.Tokens, x.Pos = append(x.Tokens, i), append(x.Pos, length-1)
		x.Seqs = append(x.Seqs, device.Seq{Slot: i, Start: i, Count: 1, KVLen: length})
		x.Rows = append(x.Rows, device.Row{Token: i, Slot: i})
	}
	step := func() {
		for _, call := range []func(int) error{backend.Forward, backend.Sample, backend.Wait} {
			if err := call(0); err != nil {
				b.Fatal(err)
			}
		}
	}
	step()
	b.ResetTimer()
	start := cpuSeconds()
	for range b.N {
		step()
	}
	kv := float64(s.layers * 2 * s.kvHeads * s.headDim * 2 * long)
	report(b, plan.BF16, start, seqs, kv+2*float64(s.layerWeights()+s.headWeights()), 0)
}

// BenchmarkAdapters: one token of each of 32 sequences of a third of Qwen2-0.5B, with 8
// adapters of all linear layers in turns. of-base is their speed over that of the same
// steps without: steps of both kinds alternate, so that what else the machine does
// slows both.
func BenchmarkAdapters(b *testing.B) {
	const seqs, adapters, rank, context = 32, 8, 16, 64
	s := qwen05
	s.layers, s.vocab = s.layers/3, s.vocab/3
	p := s.plan()
	backend, err := cpu.Open(benchLimits(seqs, seqs*context))
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	fill(b, backend, p, plan.BF16, seqs*benchPages)
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]float32, rank*s.inner)
	for i := range noise {
		noise[i] = 0.01 * (rng.Float32() - 0.5)
	}
	weights, q, kv := 0, s.heads*s.headDim, s.kvHeads*s.headDim
	for id := range int32(adapters) {
		a := device.Adapter{Rank: rank}
		target := func(tensor int32, first, rows int) {
			cols := p.Tensors[tensor].Shape[1]
			a.Targets = append(a.Targets, device.AdapterTarget{Tensor: int(tensor), First: first, Rows: rows, A: noise[:rank*cols], B: noise[:rows*rank]})
			weights += rank * (cols + rows)
		}
		for i := range p.Ops {
			op := &p.Ops[i]
			for _, w := range device.Adaptable(op) {
				if rows := p.Tensors[w].Shape[0]; rows == q+2*kv {
					target(w, 0, q)
					target(w, q, kv)
					target(w, q+kv, kv)
				} else {
					target(w, 0, rows)
				}
			}
		}
		if err := backend.LoadAdapter(id+1, &a); err != nil {
			b.Fatal(err)
		}
	}
	d := &driver{b: backend, seqs: seqs, pages: benchPages, vocab: s.vocab}
	d.wait(b, d.enqueue(b, 0, context, false))
	d.wait(b, d.enqueue(b, context, 1, false))
	var base, adapted time.Duration
	var baseCPU, adaptedCPU float64
	b.ResetTimer()
	for range b.N {
		for _, x := range []struct {
			adapters int32
			time     *time.Duration
			cpu      *float64
		}{{0, &base, &baseCPU}, {adapters, &adapted, &adaptedCPU}} {
			d.adapters = x.adapters
			start, used := time.Now(), cpuSeconds()
			d.wait(b, d.enqueue(b, context, 1, false))
			*x.time += time.Since(start)
			*x.cpu += cpuSeconds() - used
		}
	}
	b.StopTimer()
	b.ReportMetric(base.Seconds()/adapted.Seconds(), "of-base")
	b.ReportMetric(baseCPU/adaptedCPU, "of-base-cpu")
	b.ReportMetric(float64(b.N*seqs)/adapted.Seconds(), "tokens/s")
	b.ReportMetric(float64(2*weights)/1e6, "adapter-MB")
}
