package shard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// rows is a backend that keeps the rows of one tensor.
type rows struct {
	device.Backend
	format plan.Format
	cols   int
	got    map[int][]float32
}

func (b *rows) WriteTensor(_ device.Handle, first, n int, src []byte) error {
	size := b.format.RowBytes(b.cols)
	if len(src) != n*size {
		return fmt.Errorf("%d bytes for %d rows of %d", len(src), n, size)
	}
	for i := range n {
		row := make([]float32, b.cols)
		quant.Decode(row, src[i*size:][:size], b.format)
		if b.got[first+i] != nil {
			return fmt.Errorf("row %d twice", first+i)
		}
		b.got[first+i] = row
	}
	return nil
}

// ConvertTensor implements device.Converter.
func (b *rows) ConvertTensor(h device.Handle, first, n int, src []byte, from plan.Format) error {
	converted := *b
	converted.format = from
	return converted.WriteTensor(h, first, n, src)
}

func (b *rows) Converts(from, to plan.Format) bool { return true }

// TestConvert: of rows in another format, whose scales are not made yet, each device gets its columns.
func TestConvert(t *testing.T) {
	for _, format := range []plan.Format{plan.F32, plan.BF16} {
		x := tensor{name: "w", format: plan.W8.Grouped(16), shape: []int{2, 48}, rows: 2, cols: 48}
		row, data := make([]float32, 48), make([]byte, 2*format.RowBytes(48))
		for i := range row {
			row[i] = float32(i)
		}
		quant.Encode(data, row, format)
		quant.Encode(data[len(data)/2:], row, format)
		to := &rows{format: x.format, cols: 16, got: map[int][]float32{}}
		if err := x.write(to, 0, &plan.Cut{Axis: 1, Ranges: []plan.Range{{First: 16, Step: 1, N: 16}}}, 0, 2, data, format); err != nil {
			t.Fatal(err)
		}
		if len(to.got) != 2 || !slices.Equal(to.got[1], row[16:32]) {
			t.Errorf("%v: %v, want columns 16 to 31", format, to.got)
		}
	}
}

// TestWrite gives a tensor in pieces: a shard gets the rows, or of each the columns, that
// it has, in every format.
func TestWrite(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	two := []plan.Range{{First: 1, Step: 1, N: 2}, {First: 4, Step: 1, N: 1}}
	for _, format := range []plan.Format{plan.F32, plan.BF16, plan.W8, plan.W8.Grouped(16), plan.W4.Grouped(16) | plan.WithMinimum, plan.F8.Grouped(16)} {
		for _, tt := range []struct {
			shape []int
			cut   plan.Cut
		}{
			{[]int{6, 40}, plan.Cut{}},
			{[]int{6, 40}, plan.Cut{Axis: 0, Ranges: two}},
			{[]int{3, 6, 40}, plan.Cut{Axis: 1, Ranges: two}},
			{[]int{6, 3, 40}, plan.Cut{Axis: 0, Ranges: two}},
			{[]int{3, 2, 40}, plan.Cut{Axis: 2, Ranges: []plan.Range{{First: 16, Step: 1, N: 24}}}},
			{[]int{2, 48}, plan.Cut{Axis: 1, Ranges: []plan.Range{{First: 16, Step: 1, N: 16}}}},
		} {
			t.Run(fmt.Sprint(format, tt.shape, tt.cut), func(t *testing.T) {
				x := tensor{name: "w", format: format, shape: tt.shape, rows: tt.shape[len(tt.shape)-2], cols: tt.shape[len(tt.shape)-1]}
				if err := x.divisible(&tt.cut, 2); err != nil {
					t.Fatal(err)
				}
				all, size := 1, format.RowBytes(x.cols)
				for _, n := range tt.shape[:len(tt.shape)-1] {
					all *= n
				}
				data, whole := make([]byte, all*size), make([][]float32, all)
				for r := range all {
					row := make([]float32, x.cols)
					for i := range row {
						row[i] = random.Float32()
					}
					quant.Encode(data[r*size:][:size], row, format)
					whole[r] = make([]float32, x.cols)
					quant.Decode(whole[r], data[r*size:][:size], format)
				}
				columns := []plan.Range{{Step: 1, N: x.cols}}
				if x.byColumns(&tt.cut) {
					columns = tt.cut.Ranges
				}
				var want [][]float32 // in order
				for r := range all {
					at := r // in the dimension that is cut
					switch {
					case len(tt.shape) == 3 && tt.cut.Axis == 0:
						at = r / x.rows
					case len(tt.shape) == 3:
						at = r % x.rows
					}
					if tt.cut.Ranges != nil && !x.byColumns(&tt.cut) && !slices.ContainsFunc(two, func(c plan.Range) bool { return at >= c.First && at < c.First+c.N }) {
						continue
					}
					want = append(want, whole[r][columns[0].First:][:columns[0].N])
				}
				for _, piece := range []int{1, 4, all} {
					to := &rows{format: format, cols: columns[0].N, got: map[int][]float32{}}
					for first := 0; first < all; first += piece {
						n := min(piece, all-first)
						if err := x.write(to, 0, &tt.cut, first, n, data[first*size:][:n*size], format); err != nil {
							t.Fatal(err)
						}
					}
					if len(to.got) != len(want) {
						t.Errorf("%d rows, expected %d", len(to.got), len(want))
					}
					for r, row := range want {
						if !slices.Equal(to.got[r], row) {
							t.Errorf("pieces of %d, row %d: %v, expected %v", piece, r, to.got[r], row)
						}
					}
				}
			})
		}
	}
}

// delta is what an adapter's targets add to the product of each matrix with x.
func delta(targets []device.AdapterTarget, rank, matrices, rows int, x []float32) []float32 {
	out := make([]float32, matrices*rows)
	for _, a := range targets {
		for m := range matrices {
			for r := range a.Rows {
				for k := range rank {
					for c, v := range x {
						out[m*rows+a.First+r] += a.B[(m*a.Rows+r)*rank+k] * a.A[(m*rank+k)*len(x)+c] * v
					}
				}
			}
		}
	}
	return out
}

// TestTargets: what the shards' parts of an adapter make together is what it makes whole.
func TestTargets(t *testing.T) {
	const matrices, height, width, rank = 3, 6, 8, 2
	x, a := make([]float32, width), device.AdapterTarget{First: 1, Rows: 4, A: make([]float32, matrices*rank*width), B: make([]float32, matrices*4*rank)}
	for _, list := range [][]float32{x, a.A, a.B} { // small integers, whose sums are exact
		for i := range list {
			list[i] = float32(i*7%11 - 5)
		}
	}
	w := tensor{name: "w", shape: []int{matrices, height, width}, rows: height, cols: width}
	want := delta([]device.AdapterTarget{a}, rank, matrices, height, x)
	r := func(first, n int) plan.Range { return plan.Range{First: first, Step: 1, N: n} }

	if got := w.target(&plan.Cut{}, a, rank); !slices.Equal(delta(got, rank, matrices, height, x), want) {
		t.Errorf("whole: %v", got)
	}
	sum := make([]float32, len(want))
	for _, at := range []plan.Range{r(0, 5), r(5, 3)} {
		for i, v := range delta(w.target(&plan.Cut{Axis: 2, Ranges: []plan.Range{at}}, a, rank), rank, matrices, height, x[at.First:][:at.N]) {
			sum[i] += v
		}
	}
	if !slices.Equal(sum, want) {
		t.Errorf("columns: %v, want %v", sum, want)
	}
	for _, cut := range [][]plan.Range{{r(0, 2), r(4, 1)}, {r(2, 2), r(5, 1)}} {
		got := delta(w.target(&plan.Cut{Axis: 1, Ranges: cut}, a, rank), rank, matrices, 3, x)
		for m := range matrices {
			at := m * 3
			for _, c := range cut {
				if !slices.Equal(got[at:at+c.N], want[m*height+c.First:][:c.N]) {
					t.Errorf("rows %v of matrix %d: %v, want %v", c, m, got, want)
				}
				at += c.N
			}
		}
	}
	for _, at := range []plan.Range{r(0, 1), r(1, 2)} {
		got := delta(w.target(&plan.Cut{Axis: 0, Ranges: []plan.Range{at}}, a, rank), rank, at.N, height, x)
		if !slices.Equal(got, want[at.First*height:][:at.N*height]) {
			t.Errorf("matrices %v: %v, want %v", at, got, want)
		}
	}
}

// TestDivisible: columns that share a scale stay together.
func TestDivisible(t *testing.T) {
	x := tensor{name: "down", format: plan.W4.Grouped(32), shape: []int{4, 96}, rows: 4, cols: 96}
	err := x.divisible(&plan.Cut{Axis: 1, Ranges: []plan.Range{{First: 48, Step: 1, N: 48}}}, 2)
	const want = "tensor down in format W4/32 cannot be divided into 2 shards: columns 48 to 96 are not whole groups of 32; fewer shards may do"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	if err := x.divisible(&plan.Cut{Axis: 1, Ranges: []plan.Range{{First: 64, Step: 1, N: 32}}}, 3); err != nil {
		t.Error(err)
	}
}

// waiting is a backend whose steps wait for another until they are abandoned, or fail.
type waiting struct {
	device.Backend
	fails     error
	abandoned chan struct{}
	batch     device.Batch
}

func (b *waiting) Batch(int) *device.Batch { return &b.batch }
func (b *waiting) Close() error            { return nil }
func (b *waiting) Forward(int) error {
	if b.fails == nil {
		<-b.abandoned
	}
	return b.fails
}

// TestAbandon: a device that fails ends the waiting of the others, and is named.
func TestAbandon(t *testing.T) {
	abandoned := make(chan struct{})
	b := New([]device.Backend{&waiting{abandoned: abandoned}, &waiting{fails: errors.New("it burns")}}, func() { close(abandoned) })
	defer b.Close()
	err := b.Forward(0)
	if !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "device 1 of 2: it burns") {
		t.Errorf("%v, expected that device 1 of 2 is lost", err)
	}
	if err := b.Forward(0); !errors.Is(err, device.ErrLost) {
		t.Errorf("after that: %v", err)
	}
}

// TestOrder: what has not been checked is not cut.
func TestOrder(t *testing.T) {
	b := New([]device.Backend{&waiting{}, &waiting{}}, func() {})
	defer b.Close()
	if _, err := b.NewTensor("w", plan.F32, []int{2, 2}); err == nil || !strings.Contains(err.Error(), "tensor w") {
		t.Errorf("a tensor before the plan was checked: %v", err)
	}
	if err := b.WriteTensor(0, 0, 1, nil); err == nil {
		t.Error("rows of a tensor that was not announced")
	}
	if _, err := b.SetModel(&plan.Plan{}); err == nil {
		t.Error("a plan that was not checked")
	}
}
