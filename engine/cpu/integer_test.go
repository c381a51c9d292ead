package cpu_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// What an encoder of one linear layer returns is, to the bit, what package plan says of
// products of integers, each operation in float32 rounded on its own: whatever the
// instruction set, the shape, and how many rows share a step.
func TestIntegerProducts(t *testing.T) {
	for _, shape := range []struct{ rows, cols, most int }{
		{1, 1, 37}, {16, 17, 37}, {35, 129, 150}, {70, 40, 39}, {33, 300, 37}, {20, 1100, 37},
	} {
		for _, format := range []plan.Format{
			plan.W8, plan.W8.Grouped(32), plan.W8.Grouped(16) | plan.WithMinimum, plan.W8.Grouped(4096),
			plan.W8.Grouped(48), plan.W4.Grouped(640),
			plan.W4, plan.W4.Grouped(32), plan.W4.Grouped(128) | plan.WithMinimum,
			plan.W4.Grouped(16) | plan.CodesE2M1, plan.W4.Grouped(64) | plan.CodesIQ4NL, plan.W4 | plan.CodesNF4,
		} {
			w := randomCodes(shape.rows, shape.cols, format)
			x := make([]float32, shape.most*shape.cols)
			rng := rand.New(rand.NewPCG(uint64(shape.rows), uint64(format)))
			for i := range x {
				x[i] = float32(rng.NormFloat64())
			}
			clear(x[shape.cols : 2*shape.cols]) // a row of nothing
			want := make([][]float32, shape.most)
			for i := range want {
				want[i] = integerProduct(x[i*shape.cols:][:shape.cols], w, shape.rows, format)
			}
			for _, set := range sets {
				t.Run(fmt.Sprintf("%d by %d/%v/%s", shape.rows, shape.cols, format, set), func(t *testing.T) {
					choose(t, set)
					give := written(w, shape.rows, shape.cols, format)
					for _, n := range []int{1, 2, 4, 5, 8, 9, 17, shape.most} {
						testProduct(t, x[:n*shape.cols], shape.rows, shape.cols, format, give, want[:n])
					}
				})
			}
		}
	}
}

// giver hands the weights of a tensor over.
type giver func(device.Backend, device.Handle) error

// written hands rows over: the later ones first, and not whole panels.
func written(w []byte, rows, cols int, format plan.Format) giver {
	return func(b device.Backend, h device.Handle) error {
		size, cut := format.RowBytes(cols), rows/3
		return errors.Join(b.WriteTensor(h, cut, rows-cut, w[cut*size:]), b.WriteTensor(h, 0, cut, w[:cut*size]))
	}
}

// testProduct runs a step of the rows x.
func testProduct(t *testing.T, x []float32, rows, cols int, format plan.Format, give giver, want [][]float32) {
	t.Helper()
	p := newBuilder(0, cols)
	in, out := p.value(cols), p.value(rows)
	p.op(plan.OpEmbed, in, nil, nil, func(o *plan.Op) { o.F[plan.EmbedScale] = 1 })
	p.linear(out, in, plan.None, false)
	testLinear(t, p, out, x, rows, cols, format, give, want)
}

// testLinear runs a step of the rows x through p, whose one tensor is a matrix of rows by cols,
// and compares what value out then is.
func testLinear(t *testing.T, p builder, out int32, x []float32, rows, cols int, format plan.Format, give giver, want [][]float32) {
	t.Helper()
	n := len(want)
	b := open(t, device.Limits{MaxTokens: n, MaxRows: n, MaxSlots: 1, MaxPagesPerSlot: 4, Threads: 2})
	defer b.Close()
	last := p.value(rows)
	p.op(plan.OpRows, last, []int32{out}, nil, nil)
	p.op(plan.OpOutput, plan.None, []int32{last}, nil, nil)
	h, err := b.NewTensor("w", format, []int{rows, cols})
	if err != nil {
		t.Fatal(err)
	}
	if err := give(b, h); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetModel(p.Plan); err != nil {
		t.Fatal(err)
	}
	if err := b.InitCache(0, 0); err != nil {
		t.Fatal(err)
	}
	batch := b.Batch(0)
	batch.Clear()
	for i := range int32(n) {
		batch.Tokens, batch.Pos = append(batch.Tokens, device.EmbedRow(int(i))), append(batch.Pos, i)
		batch.Rows = append(batch.Rows, device.Row{Token: i, Kind: device.RowOutput})
	}
	batch.Embeds = append(batch.Embeds[:0], x...)
	batch.Seqs = append(batch.Seqs, device.Seq{Count: int32(n), KVLen: int32(n)})
	for _, step := range []func(int) error{b.Forward, b.Sample, b.Wait} {
		if err := step(0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if got := batch.Outputs[i*rows:][:rows]; !slices.EqualFunc(got, want[i], same) {
			t.Fatalf("%d rows: row %d is %v, want %v", n, i, got, want[i])
		}
	}
}

// integerProduct is x times each of rows rows w.
func integerProduct(x []float32, w []byte, rows int, format plan.Format) []float32 {
	codes, scales := quant.Activations(x, format)
	size, group := format.RowBytes(len(x)), format.Group()
	if group == 0 {
		group = len(x)
	}
	out := make([]float32, rows)
	for r := range out {
		row := w[r*size:][:size]
		for g, d := range scales {
			products, sum := int32(0), int32(0)
			for i := g * group; i < min((g+1)*group, len(x)); i++ {
				products += int32(codes[i]) * int32(quant.Code(row, format, i))
				sum += int32(codes[i])
			}
			scale, minimum := quant.Scale(row, format, len(x), g*group)
			part := float32(float32(float32(products)*d) * scale)
			out[r] += part
			if format.Minimum() {
				part = float32(float32(float32(sum)*d) * minimum)
				out[r] += part
			}
		}
	}
	return out
}

// A NaN or an infinity among the columns of a group makes the result NaN, and that of no
// other row. A group of numbers too small to be divided by is as good as nothing.
func TestIntegerProductOfOddRows(t *testing.T) {
	const rows, cols = 20, 48
	format := plan.W8.Grouped(16)
	w := randomCodes(rows, cols, format)
	for _, odd := range []float32{float32(math.NaN()), float32(math.Inf(-1)), 1e-40} {
		for _, set := range sets {
			t.Run(fmt.Sprintf("%v/%s", odd, set), func(t *testing.T) {
				choose(t, set)
				x := make([]float32, 3*cols)
				for i := range x {
					x[i] = float32(i%7) - 3
				}
				for i := range 16 {
					x[cols+16+i] = 0
				}
				x[cols+20] = odd
				want := make([][]float32, 3)
				for i := range want {
					want[i] = integerProduct(x[i*cols:][:cols], w, rows, format)
				}
				testProduct(t, x, rows, cols, format, written(w, rows, cols, format), want)
			})
		}
	}
}

// Kernels read nothing beyond the panels of an adopted tensor: the page that follows them is not
// mapped in this test, and would not be in a file that ends there.
func TestIntegerProductsReadNothingElse(t *testing.T) {
	const rows, most = 40, 40
	for _, cols := range []int{17, 72, 129} {
		for _, format := range []plan.Format{
			plan.W8, plan.W8.Grouped(48), plan.W4, plan.W4.Grouped(32) | plan.WithMinimum,
		} {
			w := randomCodes(rows, cols, format)
			packed := beforeUnmapped(t, format.PackedBytes([]int{rows, cols}))
			quant.Pack(packed, w, 0, rows, cols, format)
			x := make([]float32, most*cols)
			for i := range x {
				x[i] = float32(i%7) - 3
			}
			want := make([][]float32, most)
			for i := range want {
				want[i] = integerProduct(x[i*cols:][:cols], w, rows, format)
			}
			adopted := func(b device.Backend, h device.Handle) error { return b.AdoptTensor(h, packed, nil) }
			for _, set := range sets {
				t.Run(fmt.Sprintf("%d/%v/%s", cols, format, set), func(t *testing.T) {
					choose(t, set)
					for _, n := range []int{1, 8, most} {
						testProduct(t, x[:n*cols], rows, cols, format, adopted, want[:n])
					}
				})
			}
		}
	}
}

// beforeUnmapped returns n bytes of zeros that end where memory does.
func beforeUnmapped(t *testing.T, n int) []byte {
	t.Helper()
	page := os.Getpagesize()
	pages := (n + page - 1) / page * page
	m, err := unix.Mmap(-1, 0, pages+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mprotect(m[pages:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return m[pages-n : pages : pages]
}

func same(a, b float32) bool { return a == b || a != a && b != b }
