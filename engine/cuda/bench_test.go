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
	// Time spent in the calls.
	forward, sample, wait time.Duration
}

// newModel loads the named shape in bfloat16, for as many sequences of a length in tokens
// as have room, at most so many.
func newModel(tb testing.TB, shape string, most, length, stepTokens int) *model {
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
	m := &model{pages: (length + device.PageTokens - 1) / device.PageTokens}
	m.b, err = cuda.Open(library(tb), device.Limits{MaxTokens: stepTokens, MaxRows: most, MaxSlots: most, MaxPagesPerSlot: m.pages})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.b.Close() })
	p = loader.Resident(m.b, p)
	noise := make([]byte, 8<<20)
	for i := 0; i < len(noise); i += 2 { // ±2^-6 to 2^-4, any fraction
		noise[i], noise[i+1] = byte(i*31>>3), byte(0x3c+i*7%2|i*13%256&0x80)
	}
	for _, t := range p.Tensors {
		h, err := m.b.NewTensor(t.Name, plan.BF16, t.Shape)
		if err != nil {
			tb.Fatal(err)
		}
		rows, rowBytes := 1, 2*t.Shape[len(t.Shape)-1]
		for _, n := range t.Shape[:len(t.Shape)-1] {
			rows *= n
		}
		for first := 0; first < rows; {
			n := min(len(noise)/rowBytes, rows-first)
			if err := m.b.WriteTensor(h, first, n, noise[:n*rowBytes]); err != nil {
				tb.Fatal(err)
			}
			first += n
		}
	}
	info, err := m.b.SetModel(p)
	if err != nil {
		tb.Fatal(err)
	}
	free, _, err := cuda.Memory(library(tb))
	if err != nil {
		tb.Fatal(err)
	}
	m.pageBytes = info.PageBytes
	m.lengths = make([]int, most)
	m.seqs = min(most, int(free*9/10/(info.PageBytes*int64(m.pages))))
	if err := m.b.InitCache(m.seqs*m.pages, 0); err != nil {
		tb.Fatal(err)
	}
	if err := m.b.WarmUp(); err != nil {
		tb.Fatal(err)
	}
	return m
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
			if at%device.PageTokens == 0 {
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
	m.forward += forwarded.Sub(start)
	m.sample += time.Since(forwarded)
	return i
}

func (m *model) finish(tb testing.TB, i int) {
	start := time.Now()
	if err := m.b.Wait(i); err != nil {
		tb.Fatal(err)
	}
	m.wait += time.Since(start)
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

// measuredShapes are those of MILLRACE_BENCH_SHAPES, separated by commas, or those of real models.
func measuredShapes() []string {
	if list := os.Getenv("MILLRACE_BENCH_SHAPES"); list != "" {
		return strings.Split(list, ",")
	}
	return []string{"0.6B", "8B"}
}

// BenchmarkDecode is a token of each of n sequences after a prompt, one step ahead as the
// engine goes. forward-us, sample-us and wait-us are what the calls take, host-us the first two.
//
// With MILLRACE_SHIM_SCHEDULE=null and MILLRACE_SHIM_MEMORY=60000 the device does nothing, and
// what is measured is the time of the host alone.
func BenchmarkDecode(b *testing.B) {
	const context, most = 1024, 512
	for _, shape := range measuredShapes() {
		m := newModel(b, shape, 256, context+most, 2048)
		m.prompts(b, context, 2048)
		for _, seqs := range []int{1, 8, 32, 64, 128, 256} {
			if seqs > m.seqs {
				b.Logf("%s: there is memory for %d sequences of %d tokens", shape, m.seqs, context+most)
				break
			}
			b.Run(fmt.Sprintf("%s/%d", shape, seqs), func(b *testing.B) {
				m.forward, m.sample, m.wait = 0, 0, 0
				running := m.launch(b, 0, seqs, context, 1)
				for i := 1; i < b.N; i++ {
					next := m.launch(b, 0, seqs, context+i%most, 1)
					m.finish(b, running)
					running = next
				}
				m.finish(b, running)
				us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(b.N) }
				b.ReportMetric(us(m.forward), "forward-us")
				b.ReportMetric(us(m.sample), "sample-us")
				b.ReportMetric(us(m.wait), "wait-us")
				b.ReportMetric(us(m.forward+m.sample), "host-us")
				b.ReportMetric(float64(seqs)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		m.b.Close()
	}
}

// BenchmarkPrefill is a prompt in one step.
func BenchmarkPrefill(b *testing.B) {
	for _, shape := range measuredShapes() {
		m := newModel(b, shape, 1, 2048, 2048)
		for _, tokens := range []int{128, 512, 2048} {
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
