package quant

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
)

func TestDecode(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, tt := range []struct {
		name   string
		format plan.Format
		src    []byte
		want   float32
	}{
		{"float32", plan.F32, []byte{0xdb, 0x0f, 0x49, 0x40}, math.Pi},
		{"bfloat16", plan.BF16, []byte{0x49, 0x40}, 3.140625},
		{"float16 one", plan.F16, []byte{0x00, 0x3c}, 1},
		{"float16 negative", plan.F16, []byte{0x00, 0xc0}, -2},
		{"float16 largest", plan.F16, []byte{0xff, 0x7b}, 65504},
		{"float16 smallest normal", plan.F16, []byte{0x00, 0x04}, 0x1p-14},
		{"float16 largest subnormal", plan.F16, []byte{0xff, 0x03}, 1023 * 0x1p-24},
		{"float16 smallest subnormal, negative", plan.F16, []byte{0x01, 0x80}, -0x1p-24},
		{"float16 infinity", plan.F16, []byte{0x00, 0x7c}, inf},
		{"float16 zero", plan.F16, []byte{0x00, 0x00}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got [1]float32
			if Decode(got[:], tt.src, tt.format); got[0] != tt.want {
				t.Errorf("% x is %v, want %v", tt.src, got[0], tt.want)
			}
		})
	}
	if nan := Half(0x7e01); nan == nan {
		t.Errorf("float16 7e01 is %v, want NaN", nan)
	}
}

// TestEncode: every format comes back within half a step of its codes, and codes
// that were decoded come back as they were.
func TestEncode(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		format plan.Format
		error  float64 // of the greatest magnitude
	}{
		{plan.F32, 0}, {plan.F16, 0x1p-11}, {plan.BF16, 0x1p-8},
		{plan.W8, 0.5 / 126}, {plan.W8.Grouped(32), 0.5 / 126}, {plan.W8.Grouped(16) | plan.WithMinimum, 1.1 / 127},
		{plan.W4.Grouped(32), 0.51 / 7}, {plan.W4.Grouped(64) | plan.WithMinimum, 1.05 / 15}, {plan.W4, 0.51 / 7},
		{plan.W4.Grouped(16) | plan.CodesE2M1, 0.51 / 3}, {plan.W4.Grouped(32) | plan.CodesIQ4NL, 0.2}, {plan.W4.Grouped(64) | plan.CodesNF4, 0.2},
		{plan.F8.Grouped(128), 0x1p-4},
	} {
		for _, cols := range []int{1, 31, 32, 100, 129} {
			f := tt.format
			row, again := make([]float32, cols), make([]float32, cols)
			most := 0.0
			for i := range row {
				row[i] = float32(rng.NormFloat64())
				most = max(most, math.Abs(float64(row[i])))
			}
			packed := make([]byte, f.RowBytes(cols))
			Encode(packed, row, f)
			Decode(again, packed, f)
			for i, v := range row {
				if math.Abs(float64(v-again[i])) > tt.error*most {
					t.Fatalf("%v, %d columns: element %d is %v, want %v within %v", f, cols, i, again[i], v, tt.error*most)
				}
			}
		}
	}
}

// TestFormats: what does not name a format is refused.
func TestFormats(t *testing.T) {
	for _, f := range []plan.Format{plan.F32, plan.W8, plan.W8.Grouped(128), plan.W4.Grouped(32) | plan.CodesNF4, plan.F8.Grouped(128)} {
		if !f.Valid() {
			t.Errorf("%v is not valid", f)
		}
	}
	for _, f := range []plan.Format{-1, 6, plan.F32.Grouped(32), plan.W8.Grouped(40), plan.W8 | plan.CodesE2M1, plan.F8 | plan.WithMinimum, plan.W4 | plan.WithMinimum | plan.CodesNF4, 1 << 30} {
		if f.Valid() || f.String() != "unknown" {
			t.Errorf("%#x, %v, is valid", int32(f), f)
		}
	}
}

func TestActivations(t *testing.T) {
	codes, scales := Activations([]float32{127, -63.5, 0.5, 1.5, 0, 0}, plan.W8.Grouped(16))
	if want := []int8{127, -64, 0, 2, 0, 0}; !slices.Equal(codes, want) || scales[0] != 1 {
		t.Errorf("codes %v, scales %v, want %v and 1", codes, scales, want)
	}
	if _, scales = Activations([]float32{1, float32(math.Inf(-1))}, plan.W8); scales[0] == scales[0] {
		t.Errorf("the scale of an infinity is %v, want NaN", scales[0])
	}
}
