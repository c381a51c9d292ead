package cuda_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// shapes are what models are measured with: the configurations of Qwen3-0.6B and
// Llama-3.1-8B, and one that the shim can run.
var shapes = []struct{ name, config string }{
	{"tiny", `{"model_type":"llama","architectures":["LlamaForCausalLM"],"vocab_size":256,"hidden_size":64,"intermediate_size":128,
		"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"max_position_embeddings":8192,
		"rms_norm_eps":1e-5,"hidden_act":"silu","tie_word_embeddings":true,"bos_token_id":1,"eos_token_id":2}`},
	{"0.6B", `{"model_type":"qwen3","architectures":["Qwen3ForCausalLM"],"vocab_size":151936,"hidden_size":1024,"intermediate_size":3072,
		"num_hidden_layers":28,"num_attention_heads":16,"num_key_value_heads":8,"head_dim":128,"max_position_embeddings":40960,
		"rms_norm_eps":1e-6,"hidden_act":"silu","rope_theta":1000000,"tie_word_embeddings":true,"bos_token_id":151643,"eos_token_id":151645}`},
	{"8B", `{"model_type":"llama","architectures":["LlamaForCausalLM"],"vocab_size":128256,"hidden_size":4096,"intermediate_size":14336,
		"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":128,"max_position_embeddings":131072,
		"rms_norm_eps":1e-5,"hidden_act":"silu","rope_theta":500000,"bos_token_id":128000,"eos_token_id":128001}`},
}

// model is a backend with a plan and weights of noise.
type model struct {
	b     device.Backend
	pages int // of each sequence
	seqs  int
	next  int // ring entry

	pageBytes int64
	lengths   []int
	// What the calls of each step took.
	forward, sample, wait []time.Duration
}

// newModel loads the named shape in bfloat16, for as many sequences of a length in tokens
// as have room, at most so many.
func newModel(tb testing.TB, shape string, most, length, stepTokens int) *model {
	tb.Helper()
	return newModelOf(tb, 1, planOf(tb, shape), plan.BF16, most, length, stepTokens)
}

// planOf is the plan of the named shape.
func planOf(tb testing.TB, shape string) *plan.Plan {
	tb.Helper()
	i := slices.IndexFunc(shapes, func(s struct{ name, config string }) bool { return s.name == shape })
	c, err := plan.ParseConfig([]byte(shapes[i].config), nil)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := plan.Build(c, func(name string) ([]int, bool) { return []int{c.Vocab, c.Hidden}, name == "lm_head.weight" })
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// newModelOf is the same of a plan, on so many GPUs. What cannot be quantised is in bfloat16.
func newModelOf(tb testing.TB, gpus int, p *plan.Plan, quantized plan.Format, most, length, stepTokens int) *model {
	tb.Helper()
	m := &model{pages: (length + device.PageTokens - 1) / device.PageTokens, lengths: make([]int, most)}
	var err error
	limits := device.Limits{MaxTokens: stepTokens, MaxRows: most, MaxSlots: most, MaxPagesPerSlot: m.pages}
	if gpus == 1 {
		m.b, err = cuda.Open(library(tb), limits)
	} else {
		m.b, err = cuda.OpenOn(library(tb), limits, 0, gpus)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.b.Close() })
	p = loader.Resident(m.b, p)
	if err := m.b.CheckPlan(p); err != nil {
		tb.Fatal(err)
	}
	may := plan.Quantizable(p)
	for i, t := range p.Tensors {
		format := quantized
		if format.Quantized() && !may[i] {
			format = plan.BF16
		}
		h, err := m.b.NewTensor(t.Name, format, t.Shape)
		if err != nil {
			tb.Fatal(err)
		}
		rows, cols := 1, t.Shape[len(t.Shape)-1]
		for _, n := range t.Shape[:len(t.Shape)-1] {
			rows *= n
		}
		chunk := noise(format, min(rows, max(1, 8<<20/format.RowBytes(cols))), cols)
		for first := 0; first < rows; {
			n := min(len(chunk)/format.RowBytes(cols), rows-first)
			if err := m.b.WriteTensor(h, first, n, chunk[:n*format.RowBytes(cols)]); err != nil {
				tb.Fatal(err)
			}
			first += n
		}
	}
	info, err := m.b.SetModel(p)
	if err != nil {
		tb.Fatal(err)
	}
	m.pageBytes, m.seqs = info.PageBytes, most
	if info.PageBytes > 0 {
		free, _, err := cuda.Memory(library(tb), gpus)
		if err != nil {
			tb.Fatal(err)
		}
		m.seqs = min(most, int(free*9/10/(info.PageBytes*int64(m.pages))))
	}
	if err := m.b.InitCache(m.seqs*m.pages, 0); err != nil {
		tb.Fatal(err)
	}
	if err := m.b.WarmUp(); err != nil {
		tb.Fatal(err)
	}
	return m
}

// noise returns rows of weights: numbers of 2^-7 to 2^-5, or codes with a scale of 2^-9.
func noise(format plan.Format, rows, cols int) []byte {
	out := make([]byte, 0, rows*format.RowBytes(cols))
	for r := range rows {
		for i := range format.CodeBytes(cols) {
			x := byte((r*31 + i) * 2654435761 >> 24)
			switch {
			case format == plan.BF16 && i%2 == 1:
				x = x&0x80 | 0x3c
			case format.Kind() == plan.F8:
				x &^= 0x40 // below 2
			}
			out = append(out, x)
		}
		for range format.Groups(cols) {
			switch format.Kind() {
			case plan.F8:
				out = append(out, 0, 0, 0, 0x3b)
			case plan.W8, plan.W4:
				out = append(out, 0, 0x18)
			}
		}
	}
	return out
}

// begin tells the device of n sequences and their pages, as if each had a length. What is
// in the pages is anything.
func (m *model) begin(tb testing.TB, n, length int) {
	for s := range int32(n) {
		i := m.next
		m.next = (i + 1) % device.RingDepth
		b := m.b.Batch(i)
		b.Clear()
		b.Params = append(b.Params, device.ParamDelta{Slot: s, Params: sample.Greedy()})
		for place := range int32(m.pages) {
			if m.pageBytes > 0 {
				b.Pages = append(b.Pages, device.PageDelta{Slot: s, Index: place, Page: s*int32(m.pages) + place})
			}
		}
		b.Tokens, b.Pos = append(b.Tokens, 0), append(b.Pos, int32(length))
		b.Seqs = append(b.Seqs, device.Seq{Slot: s, Count: 1, KVLen: int32(length + 1)})
		b.Rows = append(b.Rows, device.Row{Slot: s})
		for _, call := range []func(int) error{m.b.Forward, m.b.Sample, m.b.Wait} {
			if err := call(i); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// fill writes a batch of n tokens of each of the sequences [first, first+seqs), which have
// lengths so far; the last one is sampled. It returns the batch's ring entry.
func (m *model) fill(first, seqs int, lengths []int, n int) int {
	i := m.next
	m.next = (i + 1) % device.RingDepth
	b := m.b.Batch(i)
	b.Clear()
	for s := int32(first); s < int32(first+seqs); s++ {
		pos := lengths[s]
		if pos == 0 {
			b.Params = append(b.Params, device.ParamDelta{Slot: s, Params: sample.Greedy()})
		}
		start := int32(len(b.Tokens))
		for at := pos; at < pos+n; at++ {
			id := int32(at % 251)
			if pos > 0 {
				id = device.LastToken
			}
			b.Tokens, b.Pos = append(b.Tokens, id), append(b.Pos, int32(at))
			if at%device.PageTokens == 0 && m.pageBytes > 0 {
				place := at / device.PageTokens
				b.Pages = append(b.Pages, device.PageDelta{Slot: s, Index: int32(place), Page: s*int32(m.pages) + int32(place)})
			}
		}
		b.Seqs = append(b.Seqs, device.Seq{Slot: s, Start: start, Count: int32(n), KVLen: int32(pos + n)})
		b.Rows = append(b.Rows, device.Row{Token: start + int32(n) - 1, Slot: s})
	}
	return i
}

// launch enqueues such a batch of sequences of one length.
func (m *model) launch(tb testing.TB, first, seqs, length, n int) int {
	for i := range m.lengths {
		m.lengths[i] = length
	}
	i := m.fill(first, seqs, m.lengths, n)
	start := time.Now()
	if err := m.b.Forward(i); err != nil {
		tb.Fatal(err)
	}
	forwarded := time.Now()
	if err := m.b.Sample(i); err != nil {
		tb.Fatal(err)
	}
	m.sample = append(m.sample, time.Since(forwarded))
	m.forward = append(m.forward, forwarded.Sub(start))
	return i
}

func (m *model) finish(tb testing.TB, i int) {
	start := time.Now()
	if err := m.b.Wait(i); err != nil {
		tb.Fatal(err)
	}
	m.wait = append(m.wait, time.Since(start))
}

// prompts brings every sequence to a length, in steps of at most so many tokens, with
// sequences of equal length together.
func (m *model) prompts(tb testing.TB, length, stepTokens int) {
	for first := 0; first < m.seqs; {
		n := min(max(1, stepTokens/length), m.seqs-first)
		m.finish(tb, m.launch(tb, first, n, 0, length))
		first += n
	}
}

// median is in seconds. It sorts the list.
func median(list []time.Duration) float64 {
	slices.Sort(list)
	return list[len(list)/2].Seconds()
}

// measuredShapes are those of MILLRACE_BENCH_SHAPES, separated by commas, or those of real
// models. "tiny" alone is measured with little work, which the shim does in a second.
func measuredShapes() []string {
	if list := os.Getenv("MILLRACE_BENCH_SHAPES"); list != "" {
		return strings.Split(list, ",")
	}
	return []string{"0.6B", "8B"}
}

// BenchmarkDecode is a token of each of n sequences after 1024 others, one step ahead as the
// engine goes. Keys and values of those are anything.
//
// forward-us, sample-us and wait-us are medians of what the calls take.
//
// With MILLRACE_SHIM_SCHEDULE=null and MILLRACE_SHIM_MEMORY=60000 the device does nothing, and
// what is measured is the time of the host alone.
func BenchmarkDecode(b *testing.B) {
	context, most, batches := 1024, 512, []int{1, 8, 32, 64, 128, 256}
	if slices.Equal(measuredShapes(), []string{"tiny"}) {
		context, most, batches = 8, 8, []int{1, 4}
	}
	for _, shape := range measuredShapes() {
		m := newModel(b, shape, batches[len(batches)-1], context+most, 2048)
		m.begin(b, m.seqs, context)
		for _, seqs := range batches {
			if seqs > m.seqs {
				b.Logf("%s: there is memory for %d sequences of %d tokens", shape, m.seqs, context+most)
				break
			}
			b.Run(fmt.Sprintf("%s/%d", shape, seqs), func(b *testing.B) {
				m.forward, m.sample, m.wait = nil, nil, nil
				running := m.launch(b, 0, seqs, context, 1)
				for i := 1; i < b.N; i++ {
					next := m.launch(b, 0, seqs, context+i%most, 1)
					m.finish(b, running)
					running = next
				}
				m.finish(b, running)
				b.ReportMetric(median(m.forward)*1e6, "forward-us")
				b.ReportMetric(median(m.sample)*1e6, "sample-us")
				b.ReportMetric(median(m.wait)*1e6, "wait-us")
				b.ReportMetric(float64(seqs)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		m.b.Close()
	}
}

// BenchmarkPrefill is a prompt in one step.
func BenchmarkPrefill(b *testing.B) {
	prompts := []int{128, 512, 2048}
	if slices.Equal(measuredShapes(), []string{"tiny"}) {
		prompts = []int{16}
	}
	for _, shape := range measuredShapes() {
		m := newModel(b, shape, 1, 2048, 2048)
		for _, tokens := range prompts {
			b.Run(fmt.Sprintf("%s/%d", shape, tokens), func(b *testing.B) {
				for range b.N {
					m.finish(b, m.launch(b, 0, 1, 0, tokens))
				}
				b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		m.b.Close()
	}
}
