package quant

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
)

var packedFormats = []plan.Format{
	plan.F32, plan.F16, plan.BF16, plan.W8, plan.W8.Grouped(32) | plan.WithMinimum,
	plan.W4.Grouped(32) | plan.CodesIQ4NL, plan.W4.Grouped(16) | plan.WithMinimum, plan.W4, plan.F8.Grouped(16), plan.F8,
}

// TestUnpack: what is packed comes back, and nothing is written elsewhere.
func TestUnpack(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 5))
	for _, f := range packedFormats {
		for _, n := range []int{1, 16, 37} {
			for _, cols := range []int{1, 2, 3, 31, 40, 129} {
				rows := make([]byte, n*f.RowBytes(cols))
				for r := range n {
					values := make([]float32, cols)
					for i := range values {
						values[i] = float32(rng.NormFloat64())
					}
					Encode(rows[r*f.RowBytes(cols):][:f.RowBytes(cols)], values, f)
				}
				packed := make([]byte, f.PackedBytes([]int{n, cols}))
				Pack(packed, rows, 0, n, cols, f)
				again := make([]byte, len(rows))
				Unpack(again, packed, n, cols, f)
				if !bytes.Equal(again, rows) {
					t.Errorf("%v, %d rows of %d columns: other bytes than were packed", f, n, cols)
				}
			}
		}
	}
}

// TestPanelsName: the layout has the name that it had when this was written. Who changes
// the layout gives it another name, writes what reads the old one, and then
// changes this.
func TestPanelsName(t *testing.T) {
	h := crc32.NewIEEE()
	rng := rand.New(rand.NewPCG(6, 7))
	const n, cols = 19, 77
	for _, f := range packedFormats {
		rows := make([]byte, n*f.RowBytes(cols))
		for i := range rows {
			rows[i] = byte(rng.Uint32())
		}
		packed := make([]byte, f.PackedBytes([]int{n, cols}))
		Pack(packed, rows, 0, n, cols, f)
		h.Write(packed)
	}
	const want = "panels16-v1 e8367639"
	if got := fmt.Sprintf("%s %08x", plan.Panels, h.Sum32()); got != want {
		t.Errorf("layout %s, want %s", got, want)
	}
}
