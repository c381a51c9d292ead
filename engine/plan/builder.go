package plan

import "fmt"

// Value names an activation matrix while a family writes its layers. Methods
// of Builder that return a Value make a new one, unless they say otherwise.
type Value int32

// Weight names a tensor of the plan.
type Weight int32

// Builder writes a plan, one operation per call. Families use each Value as
// often as they like; which values can share memory is found at the end.
type Builder struct {
	c       *Config
	has     func(name string) bool
	prefix  string // of the decoder's tensors in the checkpoint
	plan    *Plan
	tensors map[tensorKey]Weight
	tables  map[*float32]int32
	err     error
}

type tensorKey struct {
	name     string
	firstRow int
}

// decoderPrefixes are where checkpoints put a decoder: a causal language
// model, one inside a multimodal model in older and newer layout, and a model
// saved without its head.
var decoderPrefixes = []string{"model.", "language_model.model.", "model.language_model.", ""}

func newBuilder(c *Config, names func(string) ([]int, bool)) *Builder {
	b := &Builder{
		c:       c,
		has:     func(name string) bool { _, ok := names(name); return ok },
		prefix:  decoderPrefixes[0],
		tensors: map[tensorKey]Weight{},
		tables:  map[*float32]int32{},
		plan: &Plan{
			Family:  c.Family,
			Vocab:   c.Vocab,
			Hidden:  c.Hidden,
			Layers:  c.Layers,
			KVWidth: c.KVWidth(),
			MaxPos:  c.MaxPos,
		},
	}
	for _, p := range decoderPrefixes {
		if b.has(p + "norm.weight") {
			b.prefix = p
			break
		}
	}
	return b
}

// finish returns the plan, its values renamed so that memory is reused.
func (b *Builder) finish() (*Plan, error) {
	if b.err != nil {
		return nil, b.err
	}
	shareValues(b.plan)
	return b.plan, nil
}

func (b *Builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// Weight is a whole tensor of the checkpoint.
func (b *Builder) Weight(name string, shape ...int) Weight {
	return b.part(Tensor{Name: name, Shape: shape, Rows: shape[0]})
}

// WeightRows is the part of a tensor [of, cols] that begins at row first and
// has rows rows: one of several projections stored as one.
func (b *Builder) WeightRows(name string, first, rows, cols, of int) Weight {
	return b.part(Tensor{Name: name, Shape: []int{rows, cols}, FirstRow: first, Rows: of})
}

func (b *Builder) part(t Tensor) Weight {
	key := tensorKey{t.Name, t.FirstRow}
	if w, ok := b.tensors[key]; ok {
		return w
	}
	w := Weight(len(b.plan.Tensors))
	b.tensors[key] = w
	b.plan.Tensors = append(b.plan.Tensors, t)
	return w
}

// noWeight is the bias of a projection without one.
const noWeight Weight = None

func (b *Builder) value(width int) Value {
	b.plan.Widths = append(b.plan.Widths, int32(width))
	return Value(len(b.plan.Widths) - 1)
}

func (b *Builder) width(x Value) int { return int(b.plan.Widths[x]) }

func (b *Builder) emit(op Op) { b.plan.Ops = append(b.plan.Ops, op) }

// blank is an operation without operands.
func blank(kind Kind) Op {
	return Op{Kind: kind, Out: None, In: None, In2: None, Weight: None, Bias: None, Layer: None, Table: None}
}

// Embed looks up the batch's tokens in w and multiplies by scale.
func (b *Builder) Embed(w Weight, scale float64) Value {
	op, out := blank(OpEmbed), b.value(b.plan.Tensors[w].Shape[1])
	op.Out, op.Weight, op.F0 = int32(out), int32(w), float32(scale)
	b.emit(op)
	return out
}

// RMSNorm normalizes each group of len(w) elements of x and multiplies by
// w + offset.
func (b *Builder) RMSNorm(x Value, w Weight, eps, offset float64) Value {
	op, out := blank(OpRMSNorm), b.value(b.width(x))
	op.Out, op.In, op.Weight = int32(out), int32(x), int32(w)
	op.Group = int32(b.plan.Tensors[w].Shape[0])
	op.F0, op.F1 = float32(eps), float32(offset)
	b.emit(op)
	return out
}

// Linear is x wᵀ + bias.
func (b *Builder) Linear(x Value, w, bias Weight) Value {
	op, out := blank(OpLinear), b.value(b.plan.Tensors[w].Shape[0])
	op.Out, op.In, op.Weight, op.Bias = int32(out), int32(x), int32(w), int32(bias)
	b.emit(op)
	return out
}

// Rope rotates the heads of x in place and returns x.
func (b *Builder) Rope(x Value, r Rope, headDim int) Value {
	op := blank(OpRope)
	op.Out, op.In, op.Table = int32(x), int32(x), b.table(r.Freqs)
	op.Heads, op.HeadDim = int32(b.width(x)/headDim), int32(headDim)
	op.Rotary, op.F0 = int32(2*len(r.Freqs)), r.Scale
	b.emit(op)
	return x
}

// table returns the index of freqs, the same for the same slice.
func (b *Builder) table(freqs []float32) int32 {
	if t, ok := b.tables[&freqs[0]]; ok {
		return t
	}
	t := int32(len(b.plan.Tables))
	b.tables[&freqs[0]] = t
	b.plan.Tables = append(b.plan.Tables, freqs)
	return t
}

// KVWrite stores keys and values of a layer.
func (b *Builder) KVWrite(layer int, keys, values Value, headDim int) {
	op := blank(OpKVWrite)
	op.In, op.In2, op.Layer = int32(keys), int32(values), int32(layer)
	op.KVHeads, op.HeadDim = int32(b.width(keys)/headDim), int32(headDim)
	b.emit(op)
}

// Attention attends from queries q over a layer's cache, as c says.
func (b *Builder) Attention(layer int, q Value, c *Config) Value {
	op, out := blank(OpAttention), b.value(b.width(q))
	op.Out, op.In, op.Layer = int32(out), int32(q), int32(layer)
	op.Heads, op.KVHeads, op.HeadDim = int32(c.Heads), int32(c.KVHeads), int32(c.HeadDim)
	op.Window = int32(c.Windows[layer])
	op.F0, op.F1 = float32(c.QueryScale), float32(c.ScoreCap)
	b.emit(op)
	return out
}

// Gate is kind(x) * y, kind OpSiluMul or OpGeluMul.
func (b *Builder) Gate(kind Kind, x, y Value) Value { return b.pointwise(kind, x, y) }

// Add is x + y.
func (b *Builder) Add(x, y Value) Value { return b.pointwise(OpAdd, x, y) }

func (b *Builder) pointwise(kind Kind, x, y Value) Value {
	op, out := blank(kind), b.value(b.width(x))
	op.Out, op.In, op.In2 = int32(out), int32(x), int32(y)
	b.emit(op)
	return out
}

// Rows picks the rows of x that logits are wanted for. What follows works on
// those alone.
func (b *Builder) Rows(x Value) Value {
	op, out := blank(OpRows), b.value(b.width(x))
	op.Out, op.In = int32(out), int32(x)
	b.emit(op)
	return out
}

// Logits ends the plan: x wᵀ, soft capped if cap is not 0.
func (b *Builder) Logits(x Value, w Weight, cap float64) {
	op := blank(OpLogits)
	op.In, op.Weight, op.F0 = int32(x), int32(w), float32(cap)
	b.emit(op)
}
