package cpu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// BenchmarkDraftHead: what the head of Qwen3.5-2B's shape takes to draft a first token and
// each further one, beside steps that compute one token to five, which is what verifies them.
// All are the shortest of the runs.
func BenchmarkDraftHead(b *testing.B) {
	const most = 4
	for _, vocab := range []int{32000, 248320} {
		b.Run(fmt.Sprintf("vocabulary of %d", vocab), func(b *testing.B) {
			c, err := plan.ParseConfig(fmt.Appendf(nil, `{"model_type":"qwen3_5_text","hidden_size":2048,"intermediate_size":6144,
				"num_hidden_layers":24,"num_attention_heads":8,"num_key_value_heads":2,"head_dim":256,"vocab_size":%d,
				"tie_word_embeddings":true,"linear_num_key_heads":16,"linear_num_value_heads":16,"linear_key_head_dim":128,
				"linear_value_head_dim":128,"linear_conv_kernel_dim":4,"full_attention_interval":4,"max_position_embeddings":4096}`, vocab), nil)
			if err != nil {
				b.Fatal(err)
			}
			c.Draft = true
			p, err := plan.Build(c, func(name string) ([]int, bool) { return nil, name != "mtp.embed_tokens.weight" })
			if err != nil {
				b.Fatal(err)
			}
			p = plan.Share(plan.Lower(p))
			limits := benchLimits(1, most+1)
			limits.MaxRows = most + 1
			backend, err := cpu.Open(limits)
			if err != nil {
				b.Fatal(err)
			}
			defer backend.Close()
			fill(b, backend, p, plan.W8, len(p.Groups)*benchPages)
			steps := [most + 1]float64{math.Inf(1), math.Inf(1), math.Inf(1), math.Inf(1), math.Inf(1)}
			first, further := math.Inf(1), math.Inf(1)
			b.ResetTimer()
			for range b.N {
				pos, start := 0, b.Elapsed()
				for n := range steps {
					x := backend.Batch(0)
					verify(x, p, pos, n+1)
					x.Draft, x.Seqs[0].Drafts = true, most
					for _, call := range []func(int) error{backend.Forward, backend.Sample, backend.Wait} {
						if err := call(0); err != nil {
							b.Fatal(err)
						}
					}
					now := b.Elapsed()
					steps[n] = min(steps[n], (now - start - x.DraftTime).Seconds())
					first = min(first, (x.DraftTime - x.FurtherDraftTime).Seconds())
					further = min(further, x.FurtherDraftTime.Seconds()/(most-1))
					pos, start = pos+n+1, now
				}
			}
			for n, seconds := range steps {
				b.ReportMetric(1e3*seconds, fmt.Sprintf("ms/step-of-%d", n+1))
			}
			b.ReportMetric(1e3*first, "ms/first")
			b.ReportMetric(1e3*further, "ms/further")
		})
	}
}

// verify fills a batch with the next n tokens of one sequence and a row for each.
func verify(x *device.Batch, p *plan.Plan, pos, n int) {
	x.Clear()
	if pos == 0 {
		x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
		x.States = append(x.States, device.StateDelta{From: device.ZeroState, Save: device.NoState})
		for i := range int32(len(p.Groups)) {
			for page := range int32(2) {
				x.Pages = append(x.Pages, device.PageDelta{Group: i, Index: page, Page: i*benchPages + page})
			}
		}
	}
	for i := range n {
		x.Tokens, x.Pos = append(x.Tokens, int32(7*(pos+i))), append(x.Pos, int32(pos+i))
		row := device.Row{Token: int32(i), Kind: device.RowVerify, Target: -1}
		if i < n-1 {
			row.Target = int32(7 * (pos + i + 1))
		}
		x.Rows = append(x.Rows, row)
	}
	x.Seqs = append(x.Seqs, device.Seq{Count: int32(n), KVLen: int32(pos + n)})
}
