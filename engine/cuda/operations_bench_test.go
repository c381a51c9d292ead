package cuda_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// layers is a plan of one operation again and again, between an embedding and logits.
type layers struct{ *plan.Plan }

func newLayers(vocab, hidden int) (l layers, x int32) {
	l = layers{&plan.Plan{Family: "bench", Vocab: vocab, Hidden: hidden, MaxPos: 1 << 20}}
	x = l.value(hidden)
	l.op(plan.OpEmbed, x, nil, []int32{l.tensor(vocab, hidden)}, func(o *plan.Op) { o.F[plan.EmbedScale] = 1 })
	return l, x
}

// end adds the head, whose matrix is the embedding.
func (l layers) end(x int32) *plan.Plan {
	rows := l.value(l.Hidden)
	l.op(plan.OpRows, rows, []int32{x}, nil, nil)
	l.op(plan.OpLogits, plan.None, []int32{rows}, []int32{0}, func(o *plan.Op) { o.F[plan.LogitsScale] = 1 })
	return l.Plan
}

func (l layers) tensor(shape ...int) int32 {
	l.Tensors = append(l.Tensors, plan.Tensor{Name: fmt.Sprint("tensor ", len(l.Tensors)), Shape: shape})
	return int32(len(l.Tensors) - 1)
}

func (l layers) value(width int) int32 { return l.view(plan.None, 0, width) }

// view returns a value that is columns of another.
func (l layers) view(of int32, column, width int) int32 {
	l.Values = append(l.Values, plan.Value{Width: int32(width), Of: of, Column: int32(column)})
	return int32(len(l.Values) - 1)
}

func (l layers) op(kind plan.Kind, out int32, in, weights []int32, set func(o *plan.Op)) {
	o := plan.NewOp(kind)
	o.Out[0] = out
	copy(o.In[:], in)
	copy(o.Weight[:], weights)
	if set != nil {
		set(&o)
	}
	l.Ops = append(l.Ops, o)
}

// peaks of the GPU, measured once a run.
var peaks = sync.OnceValues(func() (peak struct{ bytes, operations float64 }, err error) {
	peak.bytes, peak.operations, err = cuda.Peaks(libraryPath)
	return peak, err
})

// libraryPath is what library returned, for peaks.
var libraryPath string

// operation is what a benchmark repeats: add adds one to a plan on x and returns its output;
// bytes and flops are what one reads and computes of n rows.
type operation struct {
	name         string
	hidden       int
	format       plan.Format
	rows         []int
	context      int // positions of each sequence before the step
	cache        plan.Format
	add          func(l layers, x int32) int32
	bytes, flops func(n int) float64
}

// BenchmarkOperations measures one operation as it runs in a step of n sequences: the step
// with many of them less the step without. of-copy and of-mma are shares of what the GPU
// can do (cuda.Peaks), by the bytes that the operation must move and what it computes.
func BenchmarkOperations(b *testing.B) {
	libraryPath = library(b)
	peak, err := peaks()
	if err != nil {
		b.Fatal(err)
	}
	caps, err := cuda.Probe(libraryPath)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%s: copy %.0f GB/s, mma %.0f TFLOP/s", caps.Detail, peak.bytes/1e9, peak.operations/1e12)
	b.Run("peak/copy", func(b *testing.B) { b.ReportMetric(peak.bytes/1e9, "GB/s") })
	b.Run("peak/mma", func(b *testing.B) { b.ReportMetric(peak.operations/1e12, "TFLOP/s") })
	hidden, headDim, latent, contexts := 8192, 128, 512, []int{1024, 16384}
	if emulatedLibrary(caps) {
		hidden, headDim, latent, contexts = 64, 8, 16, []int{32}
	}
	var list []operation
	for _, format := range []plan.Format{plan.BF16, plan.F8.Grouped(128), plan.W8.Grouped(32), plan.W4.Grouped(32)} {
		list = append(list, linearOf(hidden, format))
	}
	list = append(list, normOf(hidden/2))
	for _, context := range contexts {
		for _, cache := range []plan.Format{plan.F16, plan.CacheW8} {
			list = append(list, attentionOf(headDim, context, cache), latentOf(latent, context, cache))
		}
	}
	for _, o := range list {
		for _, n := range o.rows {
			if emulatedLibrary(caps) && n > 1 {
				break
			}
			b.Run(fmt.Sprintf("%s/%d", o.name, n), func(b *testing.B) { o.run(b, n, peak.bytes, peak.operations) })
		}
	}
}

func linearOf(hidden int, format plan.Format) operation {
	return operation{
		name: fmt.Sprintf("linear %s %d", nameOf(format), hidden), hidden: hidden, format: format, rows: []int{1, 8, 16, 32, 64, 128, 256},
		add: func(l layers, x int32) int32 {
			out := l.value(hidden)
			l.op(plan.OpLinear, out, []int32{x}, []int32{l.tensor(hidden, hidden)}, func(o *plan.Op) { o.F[plan.LinearScale] = 1 })
			return out
		},
		bytes: func(n int) float64 { return float64(hidden*format.RowBytes(hidden)) + float64(8*n*hidden) },
		flops: func(n int) float64 { return 2 * float64(n) * float64(hidden) * float64(hidden) },
	}
}

func normOf(hidden int) operation {
	return operation{
		name: fmt.Sprint("rmsnorm ", hidden), hidden: hidden, format: plan.BF16, rows: []int{1, 32, 256},
		add: func(l layers, x int32) int32 {
			out := l.value(hidden)
			l.op(plan.OpRMSNorm, out, []int32{x}, []int32{l.tensor(hidden)}, func(o *plan.Op) {
				o.I[plan.NormGroup], o.F[plan.NormEps] = int32(hidden), 1e-6
			})
			return out
		},
		bytes: func(n int) float64 { return float64(8 * n * hidden) },
		flops: func(n int) float64 { return 4 * float64(n) * float64(hidden) },
	}
}

// attentionOf is that of Llama's 8 billion with headDim 128: four heads share keys and
// values. It writes the cache first.
func attentionOf(headDim, context int, format plan.Format) operation {
	const heads, kvHeads = 32, 8
	q, kv := heads*headDim, kvHeads*headDim
	return operation{
		name: fmt.Sprintf("attention %s %d of %d", nameOf(format), context, headDim), hidden: q, format: plan.BF16, rows: []int{1, 32, 128},
		context: context, cache: format,
		add: func(l layers, x int32) int32 {
			if len(l.Groups) == 0 {
				l.Groups = append(l.Groups, plan.Group{})
			}
			cache := int32(len(l.Caches))
			l.Caches = append(l.Caches, plan.Cache{Kind: plan.CacheKV, Heads: kvHeads, KeyWidth: int32(headDim), ValueWidth: int32(headDim)})
			k, v, out := l.view(x, 0, kv), l.view(x, kv, kv), l.value(q)
			l.op(plan.OpCacheWrite, plan.None, []int32{k, v}, nil, func(o *plan.Op) { o.I[plan.WriteCache] = cache })
			l.op(plan.OpAttention, out, []int32{x}, nil, func(o *plan.Op) {
				o.I[plan.AttnCache], o.I[plan.AttnHeads], o.I[plan.AttnSlopes] = cache, heads, plan.None
				o.F[plan.AttnScale] = 0.1
			})
			return out
		},
		bytes: func(n int) float64 {
			return 2 * float64(n) * kvHeads * float64(format.RowBytes(headDim)) * float64(context)
		},
		flops: func(n int) float64 { return 4 * float64(n) * float64(q) * float64(context) },
	}
}

// latentOf is that of DeepSeek-V2-Lite with width 512, and of an eighth of DeepSeek-V3: 16 heads
// over one latent, an eighth of whose columns are added for positions. It writes the cache first.
func latentOf(width, context int, format plan.Format) operation {
	const heads = 16
	rest := width / 8
	return operation{
		name: fmt.Sprintf("latent attention %s %d of %d", nameOf(format), context, width), hidden: heads * (width + rest), format: plan.BF16,
		rows: []int{1, 32, 128}, context: context, cache: format,
		add: func(l layers, x int32) int32 {
			if len(l.Groups) == 0 {
				l.Groups = append(l.Groups, plan.Group{})
			}
			cache := int32(len(l.Caches))
			l.Caches = append(l.Caches, plan.Cache{Kind: plan.CacheLatent, Heads: 1, KeyWidth: int32(width + rest), ValueWidth: int32(width)})
			kept, turned, out := l.view(x, 0, width), l.view(x, width, rest), l.value(heads*width)
			l.op(plan.OpCacheWrite, plan.None, []int32{kept, turned}, nil, func(o *plan.Op) { o.I[plan.WriteCache] = cache })
			q := []int32{l.view(x, 0, heads*width), l.view(x, heads*width, heads*rest)}
			l.op(plan.OpAttention, out, q, nil, func(o *plan.Op) {
				o.I[plan.AttnCache], o.I[plan.AttnHeads], o.I[plan.AttnSlopes] = cache, heads, plan.None
				o.F[plan.AttnScale] = 0.1
			})
			return x
		},
		bytes: func(n int) float64 { return float64(n) * float64(format.RowBytes(width+rest)) * float64(context) },
		flops: func(n int) float64 { return 2 * float64(n) * heads * float64(2*width+rest) * float64(context) },
	}
}

func nameOf(format plan.Format) string { return strings.ReplaceAll(format.String(), "/", ".") }

func (o operation) run(b *testing.B, n int, copied, multiplied float64) {
	const times = 16
	of := func(times int) *model {
		l, x := newLayers(256, o.hidden)
		for range times {
			x = o.add(l, x)
		}
		p := l.end(x)
		p.SetCacheFormat(o.cache)
		return newModelOf(b, 1, p, o.format, n, o.context+device.PageTokens, max(n, 1))
	}
	empty, full := of(0), of(times)
	defer empty.b.Close()
	defer full.b.Close()
	if full.seqs < n {
		b.Skip("there is too little memory")
	}
	step := func(m *model) time.Duration {
		start := time.Now()
		m.finish(b, m.launch(b, 0, n, o.context, 1))
		return time.Since(start)
	}
	for _, m := range []*model{empty, full} {
		m.begin(b, n, o.context)
		step(m)
	}
	var with, without []time.Duration
	for range b.N {
		without, with = append(without, step(empty)), append(with, step(full))
	}
	seconds := (median(with) - median(without)) / times
	b.ReportMetric(seconds*1e6, "us")
	b.ReportMetric(o.bytes(n)/seconds/1e9, "GB/s")
	b.ReportMetric(o.bytes(n)/seconds/copied, "of-copy")
	b.ReportMetric(o.flops(n)/seconds/1e12, "TFLOP/s")
	b.ReportMetric(o.flops(n)/seconds/multiplied, "of-mma")
}
