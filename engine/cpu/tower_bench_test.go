package cpu_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// BenchmarkTower: an image through a vision tower of SigLIP's base shape, with Gemma 3's
// projector. GFLOP/s are those of the matrices and of attention.
func BenchmarkTower(b *testing.B) {
	for _, format := range []plan.Format{plan.BF16, plan.F16} {
		for _, side := range []int{224, 384, 512, 896} {
			b.Run(fmt.Sprintf("%v/%d", format, side), func(b *testing.B) { benchTower(b, format, side) })
		}
	}
}

func benchTower(b *testing.B, format plan.Format, side int) {
	const hidden, inner, layers, text, patch = 768, 3072, 12, 2048, 16
	n := side / patch * side / patch
	config := fmt.Sprintf(`{"model_type":"gemma3","mm_tokens_per_image":%d,"text_config":{"hidden_size":%d,"num_hidden_layers":1},
		"vision_config":{"model_type":"siglip_vision_model","image_size":%d,"patch_size":%d}}`, n/4, text, side, patch)
	c, err := plan.ParseConfig([]byte(config), nil)
	if err != nil {
		b.Fatal(err)
	}
	tower, err := plan.BuildTower([]byte(config), c, func(name string) ([]int, bool) { return nil, strings.HasPrefix(name, "vision_tower.vision_model.") })
	if err != nil {
		b.Fatal(err)
	}
	p := plan.Share(plan.Lower(tower.Plan))
	limits := device.Limits{MaxTokens: n, MaxRows: n, MaxSlots: 1, MaxPagesPerSlot: (n + device.PageTokens - 1) / device.PageTokens, Threads: threads()}
	backend, err := cpu.Open(limits)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { backend.Close() })
	fill(b, backend, p, format, limits.MaxPagesPerSlot)

	patches := plan.Patches{Pixels: make([]float32, n*tower.PatchWidth), Pos: make([]int32, n)}
	for i := range patches.Pixels {
		patches.Pixels[i] = float32(i%255)/127 - 1
	}
	for i := range patches.Pos {
		patches.Pos[i] = int32(i)
	}
	run := func() {
		x := backend.Batch(0)
		x.Clear()
		x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
		x.Embeds = tower.AppendRows(x.Embeds, patches)
		for i := range n {
			x.Tokens, x.Pos = append(x.Tokens, device.EmbedRow(i)), append(x.Pos, int32(i))
			if (i+1)%tower.Merge == 0 {
				x.Rows = append(x.Rows, device.Row{Token: int32(i), Kind: device.RowOutput})
			}
		}
		for i := range limits.MaxPagesPerSlot {
			x.Pages = append(x.Pages, device.PageDelta{Index: int32(i), Page: int32(i)})
		}
		x.Seqs = append(x.Seqs, device.Seq{Count: int32(n), KVLen: int32(n)})
		for _, do := range []func(int) error{backend.Forward, backend.Sample, backend.Wait} {
			if err := do(0); err != nil {
				b.Fatal(err)
			}
		}
	}
	run()
	weights := layers*(4*hidden*hidden+2*hidden*inner) + hidden*tower.PatchWidth + hidden*text/tower.Merge
	flops := 2*float64(weights)*float64(n) + layers*4*float64(n)*float64(n)*hidden
	b.ResetTimer()
	start := cpuSeconds()
	for range b.N {
		run()
	}
	report(b, format, start, n, float64(weights)*float64(format.RowBytes(hidden))/hidden, flops)
}
