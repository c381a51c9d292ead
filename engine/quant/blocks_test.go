package quant

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
)

// TestBlocks: every type is decoded as llama.cpp's Python package does it, bit for
// bit, and packed without a loss, but for the rounding of scales.
func TestBlocks(t *testing.T) {
	data, err := os.ReadFile("testdata/blocks.json") // testdata/blocks.py writes it
	if err != nil {
		t.Fatal(err)
	}
	var cases map[string]struct{ Row, Values []byte }
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(Blocks)), slices.Sorted(maps.Keys(cases)); !slices.Equal(got, want) {
		t.Errorf("types %v, want %v", got, want)
	}
	for name, c := range cases {
		b := Blocks[name]
		got := make([]float32, len(c.Values)/4)
		b.Decode(got, c.Row)
		for i := range got {
			if want := math.Float32frombits(binary.LittleEndian.Uint32(c.Values[i*4:])); got[i] != want {
				t.Errorf("%s: element %d is %v, want %v", name, i, got[i], want)
				break
			}
		}
		packed, again := make([]byte, b.Format.RowBytes(len(got))), make([]float32, len(got))
		if b.Pack(packed, c.Row, len(got)) != b.Exact() {
			t.Errorf("%s: packed: %v", name, !b.Exact())
		}
		if !b.Exact() {
			continue
		}
		Decode(again, packed, b.Format)
		for i, v := range again {
			// A scale and a minimum are each off by half a bit of F16; the exact types by nothing.
			scale, minimum := Scale(packed, b.Format, len(got), i)
			off := math.Abs(float64(v - got[i]))
			if most := 0x1p-10 * (math.Abs(float64(scale*Code(packed, b.Format, i))) + math.Abs(float64(minimum))); off > most {
				t.Errorf("%s: element %d becomes %v, want %v", name, i, v, got[i])
				break
			}
			if b.Elements == 32 && off != 0 {
				t.Errorf("%s: element %d becomes %v, want exactly %v", name, i, v, got[i])
				break
			}
		}
	}
}

// TestPackTooLarge: scales beyond F16 are left to floats.
func TestPackTooLarge(t *testing.T) {
	b := Blocks["Q4_K"]
	row := make([]byte, b.Bytes)
	binary.LittleEndian.PutUint16(row, ToHalf(60000))
	for i := 4; i < 16; i++ {
		row[i] = 63
	}
	if b.Pack(make([]byte, b.Format.RowBytes(256)), row, 256) {
		t.Errorf("a scale of %v is packed as %v", 63*60000, plan.F16)
	}
	b = Blocks["MXFP4"]
	if b.Pack(make([]byte, b.Format.RowBytes(32)), make([]byte, b.Bytes), 32) {
		t.Errorf("a scale of 2^-128 is packed as %v", plan.F16)
	}
}
