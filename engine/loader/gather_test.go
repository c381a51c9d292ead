package loader

import (
	"encoding/binary"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// to is the range from first on.
func to(first, step, n int) plan.Range { return plan.Range{First: first, Step: step, N: n} }

// gathered is a checkpoint of tensors of all types, and for each of them its
// elements, by row.
func gathered(rng *rand.Rand) (tensors map[string]weightstest.Tensor, rows map[string][][]float32) {
	tensors, rows = map[string]weightstest.Tensor{"e": embeddingOf}, map[string][][]float32{}
	for _, t := range []struct {
		name, dtype string
		shape       []int
	}{
		{"f32", "F32", []int{40, 24}},
		{"f16", "F16", []int{40, 24}},
		{"bf16", "BF16", []int{40, 24}},
		{"3d", "BF16", []int{5, 8, 24}},
		{"conv", "F32", []int{24, 1, 4}},
		{"vector", "F16", []int{40}},
		{"vector32", "F32", []int{40}},
	} {
		cols, count := t.shape[len(t.shape)-1], 1
		for _, n := range t.shape {
			count *= n
		}
		if len(t.shape) == 1 {
			cols = 1
		}
		x := weightstest.Tensor{Name: t.name, DType: t.dtype, Shape: t.shape}
		for i := range count {
			v := float32(rng.IntN(200)-100) / 4 // all types hold it
			switch t.dtype {
			case "F32":
				x.Data = binary.LittleEndian.AppendUint32(x.Data, math.Float32bits(v))
			case "BF16":
				x.Data = binary.LittleEndian.AppendUint16(x.Data, uint16(math.Float32bits(v)>>16))
			case "F16":
				x.Data = binary.LittleEndian.AppendUint16(x.Data, quant.ToHalf(v))
			}
			if i%cols == 0 {
				rows[t.name] = append(rows[t.name], nil)
			}
			rows[t.name][i/cols] = append(rows[t.name][i/cols], v)
		}
		tensors[t.name] = x
	}

	// [3, 6, 64] in MXFP4
	const matrices, height, width = 3, 6, 64
	blocks := weightstest.Tensor{Name: "blocks", DType: "U8", Shape: []int{matrices, height, width / 32, 16}}
	scales := weightstest.Tensor{Name: "scales", DType: "U8", Shape: []int{matrices, height, width / 32}}
	elements := []float64{0, 0.5, 1, 1.5, 2, 3, 4, 6, math.Copysign(0, -1), -0.5, -1, -1.5, -2, -3, -4, -6}
	for range matrices * height {
		var row []float32
		for range width / 32 {
			scale := rng.IntN(255)
			scales.Data = append(scales.Data, byte(scale))
			for range 16 {
				b := byte(rng.IntN(256))
				blocks.Data = append(blocks.Data, b)
				for _, e := range []byte{b & 15, b >> 4} {
					row = append(row, float32(elements[e]*math.Pow(2, float64(scale-127))))
				}
			}
		}
		rows["blocks"] = append(rows["blocks"], row)
	}
	tensors["blocks"], tensors["scales"] = blocks, scales
	return tensors, rows
}

// TestLoadParts: tensors made of parts in every way, against picking their
// elements one by one.
func TestLoadParts(t *testing.T) {
	tensors, rows := gathered(rand.New(rand.NewPCG(1, 2)))
	part := func(name string, at int, r, c plan.Range) plan.Part {
		return plan.Part{Name: name, Shape: tensors[name].Shape, Rows: r, Cols: c, To: at}
	}
	transposed := func(p plan.Part) plan.Part { p.Transpose = true; return p }
	mx := func(at int, r, c plan.Range) plan.Part {
		return plan.Part{Name: "blocks", Shape: []int{3, 6, 64}, Rows: r, Cols: c, To: at, Encoding: plan.EncodingMXFP4, Scales: "scales"}
	}
	all := to(0, 1, 24)
	for _, tt := range []struct {
		name   string
		shape  []int
		format plan.Format
		parts  []plan.Part
	}{
		{"whole", []int{40, 24}, plan.F16, []plan.Part{part("f16", 0, to(0, 1, 40), all)}},
		{"rows", []int{7, 24}, plan.BF16, []plan.Part{part("bf16", 0, to(9, 1, 7), all)}},
		{"two tensors of one type", []int{9, 24}, plan.BF16, []plan.Part{part("bf16", 0, to(9, 1, 7), all), part("3d", 7, to(3, 1, 2), all)}},
		{"two types", []int{9, 24}, plan.F32, []plan.Part{part("bf16", 2, to(9, 1, 7), all), part("f16", 0, to(3, 1, 2), all)}},
		{"a wider type", []int{9, 24}, plan.F32, []plan.Part{part("bf16", 0, to(9, 1, 7), all), part("f32", 7, to(3, 1, 2), all)}},
		{"strided rows", []int{13, 24}, plan.F32, []plan.Part{part("f32", 0, to(2, 3, 13), all)}},
		{"columns", []int{40, 6}, plan.F16, []plan.Part{part("f16", 0, to(0, 1, 40), to(4, 1, 6))}},
		{"strided columns", []int{40, 12}, plan.F32, []plan.Part{part("f32", 0, to(0, 1, 40), to(1, 2, 12))}},
		{"transposed", []int{24, 40}, plan.BF16, []plan.Part{transposed(part("bf16", 0, to(0, 1, 40), all))}},
		{"transposed, wider", []int{24, 40}, plan.F32, []plan.Part{transposed(part("bf16", 0, to(0, 1, 40), to(0, 1, 12))), transposed(part("f16", 12, to(0, 1, 40), to(12, 1, 12)))}},
		{"experts' own matrices", []int{2, 8, 24}, plan.BF16, []plan.Part{part("bf16", 0, to(0, 1, 8), all), part("bf16", 8, to(32, 1, 8), all)}},
		{"experts, interleaved and transposed", []int{5, 12, 8}, plan.BF16, func() (list []plan.Part) {
			for e := range 5 {
				list = append(list, transposed(part("3d", e*12, to(e*8, 1, 8), to(1, 2, 12))))
			}
			return list
		}()},
		{"interleaved heads", []int{20, 24}, plan.F16, func() (list []plan.Part) {
			for h := range 5 {
				list = append(list, part("f16", h*4, to(h*8+2, 1, 4), all))
			}
			return list
		}()},
		{"a convolution", []int{24, 4}, plan.F32, []plan.Part{part("conv", 0, all, to(0, 1, 4))}},
		{"a vector", []int{40}, plan.F16, []plan.Part{part("vector", 0, to(0, 1, 40), to(0, 1, 1))}},
		{"a vector of parts", []int{30}, plan.F32, []plan.Part{part("vector", 10, to(0, 2, 20), to(0, 1, 1)), part("vector32", 0, to(30, 1, 10), to(0, 1, 1))}},
		{"a row as a vector", []int{24}, plan.F32, []plan.Part{transposed(part("f32", 0, to(7, 1, 1), all))}},
		{"a vector as a row", []int{2, 40}, plan.F16, []plan.Part{transposed(part("vector", 0, to(0, 1, 40), to(0, 1, 1))), transposed(part("vector", 1, to(0, 1, 40), to(0, 1, 1)))}},
		{"mxfp4", []int{3, 6, 64}, plan.BF16, []plan.Part{mx(0, to(0, 1, 18), to(0, 1, 64))}},
		{"mxfp4, interleaved", []int{3, 3, 64}, plan.BF16, []plan.Part{mx(0, to(1, 2, 9), to(0, 1, 64))}},
		{"mxfp4, columns transposed", []int{20, 6}, plan.BF16, []plan.Part{transposed(mx(0, to(6, 1, 6), to(3, 3, 20)))}},
	} {
		p := planOf(plan.Tensor{Name: "made", Shape: tt.shape, Parts: tt.parts})
		p.Prefix = "none."
		load := func(t *testing.T, c *weights.Checkpoint) {
			r := &weightSink{}
			if _, err := Load(r, p, c, nil); err != nil {
				t.Fatal(err)
			}
			var want []float32
			parts := slices.SortedFunc(slices.Values(tt.parts), func(a, b plan.Part) int { return a.To - b.To })
			for _, p := range parts {
				outer, inner := p.Rows, p.Cols
				if p.Transpose {
					outer, inner = inner, outer
				}
				for i := range outer.N {
					for j := range inner.N {
						row, col := outer.First+i*outer.Step, inner.First+j*inner.Step
						if p.Transpose {
							row, col = col, row
						}
						want = append(want, rows[p.Name][row][col])
					}
				}
			}
			if r.formats[1] != tt.format || slices.Contains(r.written[1], false) {
				t.Errorf("format %v, want %v; rows written: %v", r.formats[1], tt.format, r.written[1])
			}
			data := r.data[1]
			for i, w := range want {
				var got float32
				switch r.formats[1] {
				case plan.F32:
					got = math.Float32frombits(binary.LittleEndian.Uint32(data[i*4:]))
				case plan.BF16:
					got = math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[i*2:])) << 16)
				case plan.F16:
					got = quant.Half(binary.LittleEndian.Uint16(data[i*2:]))
				}
				if math.Float32bits(got) != math.Float32bits(w) {
					t.Fatalf("element %d is %g, want %g", i, got, w)
				}
			}
		}
		t.Run(tt.name, func(t *testing.T) { load(t, openTensors(t, `{}`, tensors)) })
		t.Run(tt.name+", streamed", func(t *testing.T) { load(t, openBackwards(t, tensors)) })
	}
}

// backwards is a store that streams pieces from the last to the first.
type backwards struct {
	fs.FS
	data []byte // of the one weight file
}

func (s *backwards) Size(string) (int64, error) { return int64(len(s.data)), nil }

func (s *backwards) ReadAt(_ string, p []byte, offset int64) error {
	copy(p, s.data[offset:])
	return nil
}

func (s *backwards) Stream(pieces []weights.Piece, take func(int, []byte) error) error {
	for i, p := range slices.Backward(pieces) {
		data := slices.Clone(s.data[p.Offset:][:p.Length])
		if err := take(i, data); err != nil {
			return err
		}
		clear(data) // it was valid during the call
	}
	return nil
}

func (s *backwards) Close() error { return nil }

func openBackwards(t *testing.T, tensors map[string]weightstest.Tensor) *weights.Checkpoint {
	t.Helper()
	data := weightstest.File(slices.Collect(maps.Values(tensors))...)
	c, err := weights.OpenStore(&backwards{fstest.MapFS{"config.json": {Data: []byte("{}")}, "model.safetensors": {}}, data})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestLoadManyPieces: parts that come in many pieces, several of them of the
// same source.
func TestLoadManyPieces(t *testing.T) {
	const n, width = 3 * loadPiece / 4096, 1024 // 12 MB in F32
	x := weightstest.Tensor{Name: "w", DType: "F32", Shape: []int{n, width}, Data: make([]byte, n*width*4)}
	for i := range n * width {
		binary.LittleEndian.PutUint32(x.Data[i*4:], uint32(i))
	}
	part := plan.Part{Name: "w", Shape: []int{n, width}, Rows: to(0, 1, n), Cols: to(0, 1, width)}
	turned, odd := part, part
	turned.Transpose = true
	odd.Rows = to(1, 2, n/2)
	c := openTensors(t, `{}`, map[string]weightstest.Tensor{"e": embeddingOf, "w": x})
	r := &weightSink{}
	_, err := Load(r, planOf(
		plan.Tensor{Name: "w", Shape: []int{n, width}, Parts: []plan.Part{part}},
		plan.Tensor{Name: "turned", Shape: []int{width, n}, Parts: []plan.Part{turned}},
		plan.Tensor{Name: "odd", Shape: []int{n / 2, width}, Parts: []plan.Part{odd}},
	), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := func(tensor, i int) uint32 { return binary.LittleEndian.Uint32(r.data[tensor][i*4:]) }
	for i := range n {
		for j := range width {
			want := uint32(i*width + j)
			if at(1, i*width+j) != want || at(2, j*n+i) != want || i%2 == 1 && at(3, i/2*width+j) != want {
				t.Fatalf("row %d, column %d: %d, transposed %d, want %d", i, j, at(1, i*width+j), at(2, j*n+i), want)
			}
		}
	}
}

// TestLoadRefusesMXFP4: blocks and scales that do not fit each other.
func TestLoadRefusesMXFP4(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(map[string]weightstest.Tensor)
		want   string
	}{
		{"no scales", func(m map[string]weightstest.Tensor) { delete(m, "scales") }, `tensor "scales" is missing, expected [3 6 2]`},
		{"no blocks", func(m map[string]weightstest.Tensor) { delete(m, "blocks") }, `tensor "blocks" is missing, expected [3 6 2 16]`},
		{"fewer scales", func(m map[string]weightstest.Tensor) {
			m["scales"] = weightstest.Tensor{Name: "scales", DType: "U8", Shape: []int{3, 6, 1}, Data: make([]byte, 18)}
		}, `tensor "scales": config.json needs shape [3 6 2], found [3 6 1]`},
		{"scales of another type", func(m map[string]weightstest.Tensor) {
			m["scales"] = weightstest.Tensor{Name: "scales", DType: "F16", Shape: []int{3, 6, 2}, Data: make([]byte, 72)}
		}, `tensor "scales": expected type U8, found F16`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tensors, _ := gathered(rand.New(rand.NewPCG(1, 2)))
			tt.change(tensors)
			p := planOf(plan.Tensor{Name: "made", Shape: []int{3, 6, 64}, Parts: []plan.Part{
				{Name: "blocks", Shape: []int{3, 6, 64}, Rows: to(0, 1, 18), Cols: to(0, 1, 64), Encoding: plan.EncodingMXFP4, Scales: "scales"},
			}})
			p.Prefix = "none."
			r := &weightSink{}
			_, err := Load(r, p, openTensors(t, `{}`, tensors), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(r.names) > 0 {
				t.Errorf("%v after %d tensors, want %q", err, len(r.names), tt.want)
			}
		})
	}
}

// TestMXFP4Values: every element under every scale is what it is, in BF16, too, but
// where it is out of range.
func TestMXFP4Values(t *testing.T) {
	for scale, values := range mxfp4Values() {
		for e, got := range values {
			want := math.Ldexp([]float64{0, 0.5, 1, 1.5, 2, 3, 4, 6}[e%8], scale-127)
			if e >= 8 {
				want = -want
			}
			if float64(got) != want && !(math.Abs(want) > math.MaxFloat32 && math.IsInf(float64(got), 0)) || math.Float32bits(got)&0xffff != 0 {
				t.Fatalf("element %d, scale %d is %g, want %g", e, scale, got, want)
			}
		}
	}
}
