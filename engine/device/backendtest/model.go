package backendtest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
)

// model is a plan with its weights.
type model struct {
	plan    plan.Plan
	weights []weights
}

// weights are a tensor's elements as a checkpoint stores them.
type weights struct {
	dtype device.DType
	shape []int
	data  []byte
}

// load returns a backend that has taken m, closed when the test ends.
func (s *suite) load(t *testing.T, m *model, limits device.Limits, pages int) device.Backend {
	t.Helper()
	return load(t, s.open(t, limits), m, pages)
}

// oracle returns ref with the same model.
func oracle(t *testing.T, m *model, limits device.Limits, pages int) device.Backend {
	t.Helper()
	b, err := ref.Open(limits)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, b, m, pages)
}

func load(t *testing.T, b device.Backend, m *model, pages int) device.Backend {
	t.Helper()
	t.Cleanup(func() { b.Close() })
	for i, w := range m.weights {
		announce(t, b, i, w)
		write(t, b, i, w)
	}
	info, err := b.SetModel(&m.plan)
	if err != nil {
		t.Fatalf("SetModel: %v", err)
	}
	if info.WeightBytes <= 0 || m.plan.Layers > 0 && info.PageBytes <= 0 {
		t.Errorf("SetModel: %+v, expected positive sizes", info)
	}
	if err := b.InitKV(pages); err != nil {
		t.Fatalf("InitKV(%d): %v", pages, err)
	}
	return b
}

func announce(t *testing.T, b device.Backend, i int, w weights) {
	t.Helper()
	h, err := b.NewTensor(fmt.Sprintf("tensor.%d", i), w.dtype, w.shape)
	if err != nil {
		t.Fatalf("NewTensor %v %v: %v", w.dtype, w.shape, err)
	}
	if int(h) != i {
		t.Fatalf("NewTensor: handle %d for tensor %d", h, i)
	}
}

// write gives a tensor in two parts, the later rows first.
func write(t *testing.T, b device.Backend, i int, w weights) {
	t.Helper()
	rows, cols := w.matrix()
	half := rows / 2
	for _, part := range [][2]int{{half, rows}, {0, half}} {
		first, n := part[0], part[1]-part[0]
		if n == 0 {
			continue
		}
		bytes := cols * w.dtype.Size()
		if err := b.WriteTensor(device.Handle(i), first, n, w.data[first*bytes:part[1]*bytes]); err != nil {
			t.Fatalf("WriteTensor %d, %d rows from %d: %v", i, n, first, err)
		}
	}
}

func (w weights) matrix() (rows, cols int) {
	if len(w.shape) == 1 {
		return 1, w.shape[0]
	}
	return w.shape[0], w.shape[1]
}

// builder writes plans with random weights. A method that makes a value
// returns its number.
type builder struct {
	model
	rng   *rand.Rand
	dtype device.DType // of the weights to come
}

func newBuilder(seed uint64, vocab int, dtype device.DType) *builder {
	return &builder{
		model: model{plan: plan.Plan{Family: "test", Vocab: vocab, MaxPos: 1 << 20}},
		rng:   rand.New(rand.NewPCG(seed, 0)),
		dtype: dtype,
	}
}

func (b *builder) value(width int) int32 {
	b.plan.Widths = append(b.plan.Widths, int32(width))
	return int32(len(b.plan.Widths) - 1)
}

func (b *builder) width(v int32) int { return int(b.plan.Widths[v]) }

func (b *builder) op(op plan.Op) { b.plan.Ops = append(b.plan.Ops, op) }

// tensor adds a weight with the given elements.
func (b *builder) tensor(values []float32, shape ...int) int32 {
	b.weights = append(b.weights, weights{b.dtype, shape, encode(values, b.dtype)})
	id := len(b.plan.Tensors)
	rows, _ := b.weights[id].matrix()
	b.plan.Tensors = append(b.plan.Tensors, plan.Tensor{Name: fmt.Sprintf("tensor.%d", id), Shape: shape, Rows: rows})
	return int32(id)
}

// normal adds a weight of normal random elements around mean.
func (b *builder) normal(mean, deviation float64, shape ...int) int32 {
	n := 1
	for _, d := range shape {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(mean + deviation*b.rng.NormFloat64())
	}
	return b.tensor(values, shape...)
}

func (b *builder) embed(width int, scale float32) int32 {
	out := b.value(width)
	b.op(op(plan.OpEmbed, out, plan.None, plan.None, plan.Op{Weight: b.normal(0, 1, b.plan.Vocab, width), Bias: plan.None, F0: scale}))
	return out
}

func (b *builder) rmsNorm(x int32, group int, shift float32) int32 {
	out := b.value(b.width(x))
	b.op(op(plan.OpRMSNorm, out, x, plan.None, plan.Op{
		Weight: b.normal(1-float64(shift), 0.3, group), Bias: plan.None, Group: int32(group), F0: 1e-5, F1: shift,
	}))
	return out
}

func (b *builder) linear(x int32, width int, bias bool) int32 {
	out := b.value(width)
	w := b.normal(0, 1/math.Sqrt(float64(b.width(x))), width, b.width(x))
	with := int32(plan.None)
	if bias {
		with = b.normal(0, 0.5, width)
	}
	b.op(op(plan.OpLinear, out, x, plan.None, plan.Op{Weight: w, Bias: with}))
	return out
}

// rope rotates x in place.
func (b *builder) rope(x int32, headDim, rotary int, scale float32) {
	table := make([]float32, rotary/2)
	for i := range table {
		table[i] = float32(math.Pow(10000, -2*float64(i)/float64(rotary)))
	}
	b.plan.Tables = append(b.plan.Tables, table)
	b.op(op(plan.OpRope, x, x, plan.None, plan.Op{
		Weight: plan.None, Bias: plan.None, Table: int32(len(b.plan.Tables) - 1),
		Heads: int32(b.width(x) / headDim), HeadDim: int32(headDim), Rotary: int32(rotary), F0: scale,
	}))
}

// heads is the shape of an attention.
type heads struct {
	heads, kvHeads, headDim int
	window                  int
	cap                     float32
}

// attend is KV write and attention of the next layer.
func (b *builder) attend(q, k, v int32, h heads) int32 {
	layer := int32(b.plan.Layers)
	b.plan.Layers++
	b.plan.KVWidth = h.kvHeads * h.headDim
	b.op(op(plan.OpKVWrite, plan.None, k, v, plan.Op{
		Weight: plan.None, Bias: plan.None, Layer: layer, KVHeads: int32(h.kvHeads), HeadDim: int32(h.headDim),
	}))
	out := b.value(b.width(q))
	b.op(op(plan.OpAttention, out, q, plan.None, plan.Op{
		Weight: plan.None, Bias: plan.None, Layer: layer,
		Heads: int32(h.heads), KVHeads: int32(h.kvHeads), HeadDim: int32(h.headDim), Window: int32(h.window),
		F0: float32(1 / math.Sqrt(float64(h.headDim))), F1: h.cap,
	}))
	return out
}

// binary is OpSiluMul, OpGeluMul or OpAdd.
func (b *builder) binary(kind plan.Kind, x, y int32) int32 {
	out := b.value(b.width(x))
	b.op(op(kind, out, x, y, plan.Op{Weight: plan.None, Bias: plan.None}))
	return out
}

// logits ends the plan with OpRows and OpLogits and returns the model.
func (b *builder) logits(x int32, cap float32) *model {
	w := b.normal(0, 2/math.Sqrt(float64(b.width(x))), b.plan.Vocab, b.width(x))
	return b.logitsOf(x, w, cap)
}

func (b *builder) logitsOf(x, w int32, cap float32) *model {
	rows := b.value(b.width(x))
	b.op(op(plan.OpRows, rows, x, plan.None, plan.Op{Weight: plan.None, Bias: plan.None}))
	b.op(op(plan.OpLogits, plan.None, rows, plan.None, plan.Op{Weight: w, Bias: plan.None, F0: cap}))
	b.plan.Hidden = b.width(x)
	return &b.model
}

// op fills the value operands in and marks an unused table as absent.
func op(kind plan.Kind, out, in, in2 int32, rest plan.Op) plan.Op {
	rest.Kind, rest.Out, rest.In, rest.In2 = kind, out, in, in2
	if kind != plan.OpRope {
		rest.Table = plan.None
	}
	if kind != plan.OpKVWrite && kind != plan.OpAttention {
		rest.Layer = plan.None
	}
	return rest
}

// shape is the size of a small transformer.
type shape struct {
	heads
	vocab, hidden, inner int
	layers               int
	bias, gelu           bool
	normShift            float32
	headNorm             bool    // queries and keys normed per head
	alternate            bool    // the window on even layers only
	finalCap             float32 // of the logits
}

// transformer builds a Llama-like model.
func transformer(seed uint64, dtype device.DType, s shape) *model {
	b := newBuilder(seed, s.vocab, dtype)
	x := b.embed(s.hidden, 1)
	act := plan.OpSiluMul
	if s.gelu {
		act = plan.OpGeluMul
	}
	for layer := range s.layers {
		h := s.heads
		if s.alternate && layer%2 == 1 {
			h.window = 0
		}
		n := b.rmsNorm(x, s.hidden, s.normShift)
		q := b.linear(n, h.heads*h.headDim, s.bias)
		k := b.linear(n, h.kvHeads*h.headDim, s.bias)
		v := b.linear(n, h.kvHeads*h.headDim, s.bias)
		if s.headNorm {
			q, k = b.rmsNorm(q, h.headDim, s.normShift), b.rmsNorm(k, h.headDim, s.normShift)
		}
		b.rope(q, h.headDim, h.headDim, 1)
		b.rope(k, h.headDim, h.headDim, 1)
		x = b.binary(plan.OpAdd, x, b.linear(b.attend(q, k, v, h), s.hidden, s.bias))

		n = b.rmsNorm(x, s.hidden, s.normShift)
		gated := b.binary(act, b.linear(n, s.inner, false), b.linear(n, s.inner, false))
		x = b.binary(plan.OpAdd, x, b.linear(gated, s.hidden, false))
	}
	return b.logits(b.rmsNorm(x, s.hidden, s.normShift), s.finalCap)
}

// encode stores float32 values as a checkpoint of that type does, rounding to
// nearest even.
func encode(values []float32, dtype device.DType) []byte {
	out := make([]byte, 0, len(values)*dtype.Size())
	for _, v := range values {
		switch dtype {
		case device.F32:
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		case device.F16:
			out = binary.LittleEndian.AppendUint16(out, half(v))
		case device.BF16:
			bits := math.Float32bits(v)
			if v == v { // rounding would carry a NaN's payload away
				bits += 0x7fff + bits>>16&1
			}
			out = binary.LittleEndian.AppendUint16(out, uint16(bits>>16))
		}
	}
	return out
}

// half rounds to IEEE 754 binary16.
func half(v float32) uint16 {
	sign := uint16(math.Float32bits(v) >> 16 & 0x8000)
	a := math.Abs(float64(v))
	switch {
	case a != a:
		return sign | 0x7e00
	case a >= 65520:
		return sign | 0x7c00
	case a < 0x1p-14: // subnormal: units of 2^-24
		return sign | uint16(math.RoundToEven(a*0x1p24))
	}
	fraction, exponent := math.Frexp(a) // a = fraction * 2^exponent, fraction in [1/2, 1)
	// The fraction's leading bit is added to the exponent, and so is the carry
	// of one that rounds up to 1.
	return sign | (uint16(exponent+13)<<10 + uint16(math.RoundToEven(fraction*2048)))
}
