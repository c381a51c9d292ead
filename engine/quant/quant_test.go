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

// TestEncode: every format comes back within half a step of its codes, or, where
// the scale is what loses least of all elements, near it.
func TestEncode(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		format plan.Format
		error  float64 // of the greatest magnitude
	}{
		{plan.F32, 0}, {plan.F16, 0x1p-11}, {plan.BF16, 0x1p-8},
		{plan.W8, 0.5 / 126}, {plan.W8.Grouped(32), 0.5 / 126}, {plan.W8.Grouped(16) | plan.WithMinimum, 1.1 / 127},
		{plan.W4.Grouped(32), 0.15}, {plan.W4.Grouped(64) | plan.WithMinimum, 0.2}, {plan.W4, 0.15},
		{plan.W4.Grouped(16) | plan.CodesE2M1, 0.2}, {plan.W4.Grouped(32) | plan.CodesIQ4NL, 0.2}, {plan.W4.Grouped(64) | plan.CodesNF4, 0.2},
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
	for _, f := range []plan.Format{plan.F32, plan.W8, plan.W8.Grouped(128), plan.W4.Grouped(32) | plan.CodesNF4, plan.W4.Grouped(64) | plan.WithMinimum, plan.F8.Grouped(128)} {
		if again, ok := plan.ParseFormat(f.String()); !f.Valid() || !ok || again != f {
			t.Errorf("%v is not valid, or parsed as %v", f, again)
		}
	}
	for _, name := range []string{"", "W4", "W8/", "W8/40", "W8/032", "W4/32 nf", "F8/32+min", "W4/32+min nf4", "F32/32", "W8/row/32", "unknown"} {
		if f, ok := plan.ParseFormat(name); ok {
			t.Errorf("%q is parsed as %v", name, f)
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

// TestScales: the scales of W4 lose less than those of the greatest magnitudes would,
// 0.0094 and 0.0091 of the squares.
func TestScales(t *testing.T) {
	const rows, cols = 100, 512
	for _, tt := range []struct {
		format plan.Format
		most   float64
	}{
		{plan.W4.Grouped(32), 0.0078},
		{plan.W4.Grouped(64) | plan.WithMinimum, 0.0082},
		{plan.W4.Grouped(32) | plan.CodesIQ4NL, 0.0065},
	} {
		f := tt.format
		rng := rand.New(rand.NewPCG(5, 6))
		row, again, packed := make([]float32, cols), make([]float32, cols), make([]byte, f.RowBytes(cols))
		sum, all := 0.0, 0.0
		for range rows {
			for i := range row {
				row[i] = float32(rng.NormFloat64())
			}
			Encode(packed, row, f)
			Decode(again, packed, f)
			for i, v := range row {
				sum += float64(v-again[i]) * float64(v-again[i])
				all += float64(v) * float64(v)
			}
		}
		if sum/all > tt.most {
			t.Errorf("%v loses %.4f, at most %.4f wanted", f, sum/all, tt.most)
		}
	}
}

// TestNearest: codes by search are those of the nearest numbers, the lower one of two
// that are as near.
func TestNearest(t *testing.T) {
	for _, f := range []plan.Format{plan.W4 | plan.CodesIQ4NL, plan.W4 | plan.CodesNF4} {
		table := f.Table()
		for v := float32(-140); v < 140; v += 0.125 {
			want := 0
			for i, c := range table {
				if d := v - float32(c); d*d < (v-float32(table[want]))*(v-float32(table[want])) {
					want = i
				}
			}
			if got := nearest(table, v); int(got) != want {
				t.Fatalf("%v: the code of %v is %d, want %d", f, v, got, want)
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	row := make([]float32, 4096)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range row {
		row[i] = float32(rng.NormFloat64())
	}
	for _, f := range []plan.Format{plan.W8.Grouped(64), plan.W4.Grouped(32), plan.W4.Grouped(32) | plan.CodesIQ4NL} {
		b.Run(f.String(), func(b *testing.B) {
			dst := make([]byte, f.RowBytes(len(row)))
			b.SetBytes(int64(len(row)) * 2)
			for b.Loop() {
				Encode(dst, row, f)
			}
		})
	}
}
