// Package plan describes a model's forward pass as a flat list of operations,
// the op plan, that every backend executes in its own way: ref interprets it,
// cpu fuses neighbours, sim ignores it.
//
// A model family is one Go file that writes its layers against Builder as
// ordinary code. What a family cannot do is refused there, by name, before a
// weight is read.
//
// Values are activation matrices [T, width] float32, one row per token of the
// batch, named by small integers; operations overwrite their out value. Values
// whose lives do not overlap have been given one name, so an executor that
// keeps a buffer per value needs about ten, however many layers there are.
// After OpRows the rows are the batch's logit rows instead of its tokens; no
// name is used on both sides of it.
package plan

// Version is the plan format; a backend refuses any other.
const Version = 1

// Kind is an operation. The values are part of the C ABI.
type Kind int32

// Operations, with x = In, y = In2, w = Weight. "row" is one token's vector.
const (
	// OpEmbed: Out[t] = w[token[t]] * F0. w [vocab, width].
	OpEmbed Kind = iota
	// OpRMSNorm: each group of Group elements of a row on its own:
	// Out = x / sqrt(mean(x²) + F0) * (w + F1). w [Group]; Group = width for
	// an ordinary norm, head_dim for a norm per head. Out may be In.
	OpRMSNorm
	// OpLinear: Out = x wᵀ + bias. w [width(Out), width(In)], bias [width(Out)] or none.
	OpLinear
	// OpRope rotates Heads heads of HeadDim in place (Out = In), the first
	// Rotary dimensions of each, pairing i with i + Rotary/2 ("neox" order):
	// the angle is pos * Tables[Table][i]; cos and sin are multiplied by F0.
	OpRope
	// OpKVWrite stores x as keys and y as values of Layer, KVHeads heads of
	// HeadDim, at each token's position.
	OpKVWrite
	// OpAttention: causal attention of queries x (Heads of HeadDim) over the
	// cached keys and values of Layer (KVHeads): softmax(F0 q·k), scores
	// capped as F1 tanh(s/F1) if F1 > 0; Window > 0 sees only the last Window
	// positions, its own included. Query head h reads KV head h*KVHeads/Heads.
	// Out [T, Heads*HeadDim].
	OpAttention
	// OpSiluMul: Out = silu(x) * y.
	OpSiluMul
	// OpGeluMul: Out = gelu_tanh(x) * y.
	OpGeluMul
	// OpAdd: Out = x + y. Out may be either.
	OpAdd
	// OpRows: Out = the rows of x that the batch wants logits for.
	OpRows
	// OpLogits: the logits x wᵀ of each row, w [vocab, width(In)], capped as
	// F0 tanh(l/F0) if F0 > 0. Always last; Out is -1: logits are consumed by
	// sampling and never stored as a value.
	OpLogits
	numKinds
)

var kindNames = [numKinds]string{"embed", "rmsnorm", "linear", "rope", "kv_write", "attention", "silu_mul", "gelu_mul", "add", "rows", "logits"}

func (k Kind) String() string {
	if k < 0 || k >= numKinds {
		return "unknown"
	}
	return kindNames[k]
}

// None is the absent value, weight or table.
const None = -1

// Op is one operation. C layout; unused fields are None (indices) or 0.
type Op struct {
	Kind   Kind
	Out    int32 // value
	In     int32 // value
	In2    int32 // value
	Weight int32 // tensor
	Bias   int32 // tensor
	Layer  int32
	Table  int32 // rope frequencies

	Heads   int32
	KVHeads int32
	HeadDim int32
	Rotary  int32
	Group   int32
	Window  int32

	F0, F1 float32
}

// Tensor is a weight the plan needs. Handles are indices into Plan.Tensors.
type Tensor struct {
	Name  string // as in the checkpoint
	Shape []int  // of the part that is used: [n] or [rows, cols]
	// FirstRow is where the part begins in the checkpoint's tensor, whose
	// leading dimension is Rows: a fused projection is read as its parts.
	FirstRow int
	Rows     int
}

// Plan is a model's forward pass. Immutable once built.
type Plan struct {
	Family  string // "llama", …, for messages
	Vocab   int    // rows of the embedding, tokenizer padding included
	Hidden  int
	Layers  int
	KVWidth int     // KVHeads*HeadDim of a layer, the same for all
	MaxPos  int     // longest sequence the checkpoint claims
	Widths  []int32 // width of each value
	Tables  [][]float32
	Tensors []Tensor
	Ops     []Op
}
