// Package plan describes a model's forward pass as a flat list of operations,
// the op plan, that every backend executes in its own way.
//
// A model family is one Go file that writes its layers against Builder as
// ordinary code. What a family cannot do is refused there, by name, before a
// weight is read. Build returns the plan as written; Lower merges and fuses
// what backends profit from, once, for all of them. ref interprets the plan as
// written, the others the lowered one, so that lowering itself is tested.
//
// Values are activation matrices [rows, width] float32, one row per token of
// the batch, named by small integers. A value may be a view: some columns of
// another. In a plan as built every value is written once (OpRope works in
// place); Share renames values so that those whose lives do not overlap have
// one memory. After OpRows the rows are those that the batch wants answers for
// instead of its tokens; no memory is used on both sides of it. The last operation
// makes the answers: logits to choose tokens from or, of an encoder, the rows
// themselves.
//
// A plan may have a second list of operations, Draft, that run after the tokens of a
// step have been chosen: those of a head that predicts one more token (multi-token
// prediction, arXiv 2412.19437 §2.2). They read what the others left of each token of
// the batch and, where those embed a token, OpEmbed embeds the one after it. After
// their OpRows the rows are the last chosen tokens of the batch's sequences, and the
// draft of each is the token with the greatest logit. A draft is a guess that the
// engine verifies, so whatever these operations compute, it changes no text. They keep
// keys and values like the others, but no states.
//
// The first operation of the draft makes the state that the head is given of each token,
// and is the only one that reads the others' values. To draft one token more, the rest runs again on
// the picked rows alone: the state of each is then what its logits were made of, its
// token the one that was drafted, and its position the next.
//
// What outlives a step is in caches, which operations name. Caches of
// positions, kv and latent, live in pages; each belongs to a group, whose
// caches share pages and one page table per slot. Caches of states hold what
// a recurrent layer knows of all positions so far, one state per slot.
package plan

import (
	"cmp"
	"slices"
	"strings"
)

// Version is the plan format; a backend refuses any other.
const Version = 5

// Kind is an operation. The values are part of the C ABI.
type Kind int32

// Operations. x, y, z are In[0], In[1], In[2]; out is Out[0]; w0, w1 … are
// Weight[0], Weight[1] …; the names of I and F fields are below. "row" is one
// token's vector. What is marked "optional" may be None.
const (
	// OpEmbed: out[t] = w0[token[t]] * EmbedScale. w0 [vocab, width]. A token
	// that is a row of Batch.Embeds is that row instead, unscaled; without a
	// vocabulary all are, and there is no w0. Of such a row these are the columns
	// from EmbedFirst on; where they are not its first, there may be no w0, and any other
	// token is zeros. With EmbedBeside it is a table
	// beside the embedding, w0 [rows, width]: a token that it has no row for, and
	// one that is a row of Batch.Embeds, has row 0.
	OpEmbed Kind = iota
	// OpEmbedPosition: out[t] = w0[position[t] + EmbedOffset]. w0 [positions,
	// width]. A learned position.
	OpEmbedPosition
	// OpRMSNorm: each group g of NormGroup elements of a row on its own:
	// out = g / sqrt(mean(g²) + NormEps) * (w0 + NormShift). w0 [group] or
	// [width], optional. With a gate y, NormGate says where it comes in.
	// out may be x.
	OpRMSNorm
	// OpLayerNorm: each group g of NormGroup elements:
	// out = (g - mean(g)) / sqrt(var(g) + NormEps) * (w0 + NormShift) + w1. w0, w1
	// as in OpRMSNorm. out may be x.
	OpLayerNorm
	// OpLinear: out = x w0ᵀ + w1. w0 [width(out), width(x)], w1 [width(out)],
	// optional. In lowered plans alone, in this order: an activation
	// LinearAct, with a second matrix w2 and bias w3 a gated one:
	// act(x w0ᵀ + w1, x w2ᵀ + w3); and a residual y: y + LinearScale * that, where
	// out may be y.
	OpLinear
	// OpLinearHeads: head by head, HeadsCount of them, with a matrix for each:
	// out[h] = x[h] w0[h]ᵀ. w0 [heads, width(out)/heads, width(x)/heads].
	OpLinearHeads
	// OpRope rotates RopeHeads heads of RopeHeadDim in place (out = x): of each
	// the RopeRotary dimensions from RopeFirst on. Dimension i is paired with i +
	// rotary/2 or, if RopeInterleaved, 2i with 2i+1. The angle is position *
	// Tables[RopeTable][i]; cos and sin are multiplied by RopeScale.
	//
	// With RopeAxes, a table of 0, 1 and 2, frequency i takes the position on
	// that axis (Batch.Axes).
	//
	// With RopeOriginal > 0 frequencies depend on the length that the
	// sequence is taken for, max(Seq.RopeLen, position + 1): beyond RopeOriginal
	// they are Tables[RopeLong], if there is one; else (dynamic NTK) those of the
	// base RopeTheta * (RopeFactor*length/RopeOriginal - (RopeFactor-1)) **
	// (rotary/(rotary-2)), that is base ** (-2i/rotary).
	OpRope
	// OpCacheWrite stores one row per token at its position: in a kv cache x as
	// keys and y as values, in a latent cache x and y, y optional, joined.
	OpCacheWrite
	// OpAttention: causal attention of AttnHeads queries x over AttnCache.
	// Score = AttnScale * q·k, capped as AttnCap*tanh(s/AttnCap) if AttnCap > 0,
	// + Tables[AttnSlopes][head] * (key position - query position) if there is
	// such a table (ALiBi). AttnWindow > 0 sees only the last so many positions,
	// its own included; AttnChunk > 0 only those from the greatest multiple of
	// AttnChunk on that is not beyond its own. Softmax over them and, with sinks w0 [heads], over
	// w0[head], which has no value. Tokens of a span (Batch.Spans) see all of it,
	// unless AttnSight says otherwise: that spans do not matter, or, in an encoder, that
	// a token sees its span alone, or all of its sequence that is in the cache after the
	// step.
	// Query head h reads KV head h*Heads/AttnHeads of the cache.
	//
	// Over a latent cache, which has one head, y, optional, is the rest of each
	// query: q = x[h] joined with y[h]; the values are the first ValueWidth
	// columns of the keys.
	// out [T, heads*ValueWidth].
	OpAttention
	// OpActivate: out = act(x) with ActKind, or, with y, the gated form: act(x)
	// * y. x may be one column wide, which then stands for all of y's. w0 and w1
	// are those of ActXIELU, or the bounds of ActClip.
	OpActivate
	// OpAdd: out = x + AddScale * y. out may be either.
	OpAdd
	// OpRoute chooses RouteTopK of the experts whose logits are x, in order of
	// preference, the lower number first among equals: Out[0] [T, k] their
	// numbers, as floats, Out[1] [T, k] their weights. RouteScore says how logits
	// become scores. What is compared is score + w0, [experts], optional. With
	// RouteGroups > 1 experts are in so many equal groups, of which only the
	// RouteTopGroups with the greatest sum of their two best take part, or, with
	// RouteGroupBest, with the best one. Weights are scores, divided by RouteEps +
	// their sum if RouteNormalize, times RouteScale and w1[expert], w1 [experts],
	// optional.
	OpRoute
	// OpExperts: out = sum over k of z[k] * (act(x w0[e]ᵀ + w1[e], x w2[e]ᵀ +
	// w3[e]) w4[e]ᵀ + w5[e]), e = y[k], in order of k. w0, w2 [experts, inner,
	// width], w4 [experts, width, inner], biases [experts, inner] and [experts,
	// width], optional. Without w2 the activation has one input. ActKind and its
	// factors as in OpActivate. With ExpertsScaleInput z[k] multiplies what expert k
	// is given, x, instead of what it makes.
	OpExperts
	// OpConv is a causal convolution of each column on its own over the last
	// positions: out[t] = act(w1 + sum over j of w0[:, j] * x[t-(K-1)+j]). w0
	// [width, K], w1 [width], optional; ConvAct is ActNone or ActSilu. The K-1
	// inputs before the step's first are the state, zeros at the beginning.
	OpConv
	// OpGatedDelta is the gated delta rule (arXiv 2412.06464). With q = x, k = y
	// [T, DeltaKeyHeads*KeyWidth], v = z [T, Heads*ValueWidth], a = In[3], b =
	// In[4] [T, Heads], widths of DeltaCache; value head h takes key head
	// h*DeltaKeyHeads/Heads. Each q and k head is divided by sqrt(sum of its
	// squares + DeltaEps) if DeltaEps > 0; q is then multiplied by DeltaScale.
	// Per head, state S [KeyWidth, ValueWidth]:
	//
	//	g = exp(-exp(w0) * softplus(a + w1)), β = sigmoid(b)
	//	S = g S; S = S + k (β (v - Sᵀk))ᵀ; out = Sᵀ q
	//
	// w0, w1 [Heads]. With DeltaChannels each row of the state, a channel of the
	// key, decays on its own (Kimi delta attention, arXiv 2510.26692): a and w1 are
	// Heads*KeyWidth wide. With DeltaNegative β = 2 sigmoid(b), so that the state's
	// eigenvalues may be negative (arXiv 2411.12537).
	OpGatedDelta
	// OpSSM is the state space of Mamba 2 (arXiv 2405.21060). x [T,
	// Heads*ValueWidth], B = y, C = z [T, SSMGroups*KeyWidth], dt = In[3] [T,
	// Heads], widths of SSMCache; head h takes group h*SSMGroups/Heads. Per head,
	// state S [KeyWidth, ValueWidth]:
	//
	//	d = clamp(softplus(dt + w1), SSMMin, SSMMax)
	//	S = exp(-exp(w0) d) S + B (d x)ᵀ; out = Sᵀ C + w2 x
	//
	// w0, w1, w2 [Heads].
	OpSSM
	// OpRows: out = the rows of x that the batch wants answers for. With RowsCount > 1
	// each is made of the rows of so many tokens, the last being the one that the batch
	// names: joined in their order or, with RowsMean, their mean.
	OpRows
	// OpLogits: the logits of each row, LogitsScale * (x w0ᵀ + w1), w0 [vocab,
	// width(x)], w1 [vocab], optional, capped as LogitsCap*tanh(l/LogitsCap) if
	// LogitsCap > 0. Always last of its list; it has no out: logits are consumed by
	// sampling and never stored as a value.
	OpLogits
	// OpOutput: the rows of x are the batch's outputs, Batch.Outputs [rows,
	// width(x)]. Last in place of OpLogits, in the plan of an encoder.
	OpOutput
	// OpScale: out = x * ScaleFactor * w0, w0 [width] or [1], optional. With
	// ScaleLength > 0 also times 1 + ScaleLog * log(1 + floor((position +
	// ScaleOffset) / ScaleLength)), which is for a row per token alone. out may be x.
	OpScale
	// OpSparsify: out = max(x - (mean(x) + SparsifyDeviations * sd(x)), 0) of each
	// row, sd the root of the mean squared difference. out may be x.
	OpSparsify
	// OpJoin: out is the columns of In[0], In[1], … one after the other, of two to
	// MaxIn inputs.
	OpJoin
	// OpSelectiveScan is the state space of Mamba 1 (arXiv 2312.00752 §3). x, dt = y
	// [T, ValueWidth], B = z, C = In[3] [T, KeyWidth], widths of ScanCache, of one
	// head. Per column c, state S [KeyWidth]:
	//
	//	d = softplus(dt)
	//	S = exp(-exp(w0[c]) d) S + B d x; out = S·C + w1[c] x
	//
	// w0 [ValueWidth, KeyWidth], w1 [ValueWidth].
	OpSelectiveScan
	// OpEmbeddingBag: out = sum over k of y[k] * w0[x[k]], in order of k: x [T, n]
	// numbers of rows, as floats, y [T, n] their weights, w0 [rows, width]. A number beyond the
	// table is that of the row which is nearest, and NaN is 0. Learned positions that are
	// interpolated, or in another order than the sequence's.
	OpEmbeddingBag
	// OpAllReduce: out = the sum of x over all shards, in their order, or with y, which
	// all have: y + AddScale * that sum. out may be x or y. In the plan of a shard alone.
	OpAllReduce
	numKinds
)

var kindNames = [numKinds]string{
	"embed", "embed_position", "rmsnorm", "layernorm", "linear", "linear_heads", "rope", "cache_write", "attention",
	"activate", "add", "route", "experts", "conv", "gated_delta", "ssm", "rows", "logits", "output",
	"scale", "sparsify", "join", "selective_scan", "embedding_bag", "all_reduce",
}

func (k Kind) String() string {
	if k < 0 || k >= numKinds {
		return "unknown"
	}
	return kindNames[k]
}

// Fields of Op.I by kind. Part of the C ABI.
const (
	EmbedBeside = 0 // OpEmbed: 0 or 1
	EmbedFirst  = 1 // OpEmbed: a column of a row of Batch.Embeds
	EmbedOffset = 0 // OpEmbedPosition

	NormGroup = 0
	NormGate  = 1 // a Gate

	LinearAct = 0 // an Activation

	HeadsCount = 0

	RopeHeads       = 0
	RopeHeadDim     = 1
	RopeFirst       = 2
	RopeRotary      = 3
	RopeTable       = 4
	RopeInterleaved = 5 // 0 or 1
	RopeLong        = 6 // a table or None
	RopeOriginal    = 7 // 0: frequencies do not depend on the length
	RopeAxes        = 8 // a table or None

	WriteCache = 0

	AttnCache  = 0
	AttnHeads  = 1
	AttnWindow = 2
	AttnSlopes = 3 // a table or None
	AttnChunk  = 4
	AttnSight  = 5 // a Sight

	ActKind = 0 // an Activation; OpActivate and OpExperts

	ExpertsScaleInput = 1 // 0 or 1

	RouteTopK      = 0
	RouteScore     = 1 // a Scoring
	RouteGroups    = 2
	RouteTopGroups = 3
	RouteNormalize = 4 // 0 or 1
	RouteGroupBest = 5 // 0 or 1

	ConvCache = 0
	ConvAct   = 1 // an Activation

	DeltaCache    = 0
	DeltaKeyHeads = 1
	DeltaChannels = 2 // 0 or 1
	DeltaNegative = 3 // 0 or 1

	SSMCache  = 0
	SSMGroups = 1

	RowsCount = 0 // tokens of each row; 0: one
	RowsMean  = 1 // 0 or 1

	ScaleOffset = 0
	ScaleLength = 1

	ScanCache = 0
)

// Fields of Op.F by kind. Part of the C ABI.
const (
	EmbedScale = 0

	NormEps   = 0
	NormShift = 1

	ActLimit = 0 // ActClampedSwiGLU, ActClip; OpActivate, OpExperts and OpLinear
	ActAlpha = 1 // ActClampedSwiGLU, ActXIELU

	LinearScale = 2

	RopeScale  = 0
	RopeFactor = 1
	RopeTheta  = 2

	AttnScale = 0
	AttnCap   = 1

	AddScale = 0 // OpAdd and OpAllReduce

	RouteScale  = 0
	RouteEps    = 1
	RouteJitter = 2 // ScoreSparseMixer

	DeltaEps   = 0
	DeltaScale = 1

	SSMMin = 0
	SSMMax = 1

	LogitsCap   = 0
	LogitsScale = 1

	ScaleFactor = 0
	ScaleLog    = 1

	SparsifyDeviations = 0
)

// Activation is a function of each element. Part of the C ABI.
type Activation int32

// Activations.
const (
	ActNone     Activation = iota
	ActSilu                // x sigmoid(x)
	ActGelu                // x Φ(x), by erf
	ActGeluTanh            // its tanh approximation
	ActRelu
	ActRelu2 // relu(x)²
	ActSigmoid
	// ActClampedSwiGLU, gated only: with g = min(x, ActLimit) and u = clamp(y,
	// ±ActLimit): g sigmoid(ActAlpha g) (u + 1).
	ActClampedSwiGLU
	ActTanh
	ActQuickGelu // x sigmoid(1.702 x)
	// ActClip: clamp(x, ±ActLimit), or in OpActivate with w0 and w1, each [1], and
	// without ActLimit: clamp(x, w0, w1).
	ActClip
	// ActXIELU, of one input and in OpActivate alone (arXiv 2411.13010 §3): with p =
	// softplus(w0), n = ActAlpha + softplus(w1), w0 and w1 [1]: p x² + ActAlpha x
	// where x > 0, else n (exp(x) - 1 - x) + ActAlpha x.
	ActXIELU
	NumActivations
)

// Gate says where the gate of an OpRMSNorm comes in. Part of the C ABI.
type Gate int32

// Gates.
const (
	GateNone      Gate = iota // there is none
	GateAfter                 // norm(x) * silu(y)
	GateBefore                // norm(x * silu(y))
	GateSigmoid               // norm(x) * sigmoid(y)
	GateMagnitude             // norm(x) * sqrt(mean(y²)), of the same group
	numGates
)

// Scoring is how OpRoute makes scores of logits. Part of the C ABI.
type Scoring int32

// Scorings.
const (
	ScoreSoftmax       Scoring = iota // softmax over all experts
	ScoreSoftmaxChosen                // logits are compared; softmax over the chosen
	ScoreSigmoid                      // sigmoid of each
	// ScoreSparseMixer: logits are compared, and each chosen expert's weight is its
	// softmax over those that are neither chosen before nor far from it, where (l -
	// logit)/max(|logit|, l) > 2 RouteJitter is far from logit l (arXiv 2409.12136).
	ScoreSparseMixer
	numScorings
)

// Sight is what a token sees of its sequence. Part of the C ABI.
type Sight int32

// Sights. SightSpan and SightAll are of encoders, whose sequences are whole in one step.
const (
	SightBack   Sight = iota // what is not after it, and its span
	SightSpan                // its span alone; itself where there is none
	SightAll                 // all that is in the cache after the step
	SightCausal              // what is not after it, whatever its span is
	numSights
)

// None is the absent value, weight or table.
const None = -1

// Numbers of Op's fields. Part of the C ABI.
const (
	MaxIn      = 6
	MaxOut     = 2
	MaxWeights = 8
	MaxInts    = 16
	MaxFloats  = 6
)

// Op is one operation. C layout; what is not used is None in In, Out and
// Weight, and 0 in I and F.
type Op struct {
	Kind   Kind
	In     [MaxIn]int32      // values
	Out    [MaxOut]int32     // values
	Weight [MaxWeights]int32 // tensors
	I      [MaxInts]int32
	F      [MaxFloats]float32
}

// NewOp returns an operation without operands.
func NewOp(kind Kind) Op {
	op := Op{Kind: kind}
	for _, list := range [][]int32{op.In[:], op.Out[:], op.Weight[:]} {
		for i := range list {
			list[i] = None
		}
	}
	return op
}

// Value is an activation matrix. C layout.
type Value struct {
	Width  int32
	Of     int32 // the value it is a view of, itself no view; None: it has memory of its own
	Column int32 // of Of, where the view begins
}

// CacheKind is what a cache holds. Part of the C ABI.
type CacheKind int32

// Kinds of cache.
const (
	CacheKV     CacheKind = iota // keys and values of Heads heads, in pages
	CacheLatent                  // a row of KeyWidth, its first ValueWidth columns being the values, in pages; Heads is 1
	CacheState                   // [Heads, KeyWidth, ValueWidth] float32, one per slot; a convolution's is [1, K-1, width]
	numCacheKinds
)

// Cache is what one or more layers keep between steps. C layout.
type Cache struct {
	Kind       CacheKind
	Group      int32 // of pages, 0 … len(Plan.Groups)-1; None for a state
	Heads      int32
	KeyWidth   int32 // of a head
	ValueWidth int32 // of a head
	Window     int32 // positions that any layer reads back, the current included; 0: all

	// Format is how pages hold the keys and values, or the latents, of each head, as
	// rows of that format: W8, F16, which a backend may keep in float32, or F32,
	// the zero value, for what the backend chooses. All caches in pages have the
	// same.
	Format Format
}

// Elements is what a position takes of a kv or latent cache, or a slot of a state.
func (c *Cache) Elements() int {
	switch c.Kind {
	case CacheKV:
		return int(c.Heads) * (int(c.KeyWidth) + int(c.ValueWidth))
	case CacheLatent:
		return int(c.KeyWidth)
	}
	return int(c.Heads) * int(c.KeyWidth) * int(c.ValueWidth)
}

// Bytes is what a position takes of a kv or latent cache whose heads are rows of format
// f.
func (c *Cache) Bytes(f Format) int {
	bytes := f.RowBytes(int(c.KeyWidth))
	if c.Kind == CacheKV {
		bytes += f.RowBytes(int(c.ValueWidth))
	}
	return int(c.Heads) * bytes
}

// CacheW8 is W8 with scales for groups that are small enough for keys, a few columns of
// which are often much larger than the others.
const CacheW8 = W8 | 32<<groupShift

// SetCacheFormat sets the format of all caches in pages.
func (p *Plan) SetCacheFormat(f Format) {
	for i := range p.Caches {
		if p.Caches[i].Kind != CacheState {
			p.Caches[i].Format = f
		}
	}
}

// CacheFormat is that of the caches in pages, F32 if there are none.
func (p *Plan) CacheFormat() Format {
	for i := range p.Caches {
		if p.Caches[i].Kind != CacheState {
			return p.Caches[i].Format
		}
	}
	return F32
}

// Group is a set of caches that share pages. The caches of each group take
// about the same bytes per page, so that all groups draw on one pool.
type Group struct {
	Window int32 // of its caches
}

// Tensor is a weight the plan needs. Handles are indices into Plan.Tensors.
// Its format is the loader's choice.
type Tensor struct {
	Name  string // the first part's name in the checkpoint, for messages
	Shape []int  // [n], [rows, cols] or [matrices, rows, cols]
	Parts []Part // from which it is put together; they fill it without overlap
}

// Part is a region of a tensor of the checkpoint that becomes whole rows of a
// Tensor of the plan. On both sides rows are counted through all matrices, and a
// vector [n] counts as n rows of one element. The Go side alone knows of parts: a
// backend is given rows.
type Part struct {
	Name      string // in the checkpoint
	Shape     []int  // of the whole tensor there; compared before anything is read
	Stored    []int  // there, if it is another one of as many elements, such as a convolution's or, empty, a scalar's; nil: Shape
	Rows      Range  // there; all dimensions but the last are rows
	Cols      Range
	Transpose bool     // Cols.N rows of Rows.N columns, rather than Rows.N of Cols.N
	To        int      // the row of the plan's tensor where it goes
	Encoding  Encoding // of the elements there
	Scales    string   // the tensor of scales, of those that have them
	Quarter   int      // EncodingTernary: 0 to 3
}

// Range is First, First+Step, …, N of them.
type Range struct{ First, Step, N int }

// Encoding is how a checkpoint stores the elements of a Part.
type Encoding int

// Encodings.
const (
	EncodingPlain Encoding = iota // as F32, F16 or BF16
	// EncodingMXFP4: Name [matrices, rows, cols/32, 16] U8, two e2m1 numbers a
	// byte, the lower half first; Scales [matrices, rows, cols/32] U8, exponents
	// of 2 with bias 127. Shape is [matrices, rows, cols]. BF16 holds it exactly.
	EncodingMXFP4
	// EncodingTernary: Name [rows/4, cols] U8, four numbers of two bits a byte, of
	// which Quarter says which one is meant, the lowest first: 0, 1 and 2 stand for
	// -1, 0 and 1 times the one element of Scales. Shape is [rows/4, cols].
	EncodingTernary
)

// Plan is a model's forward pass. Immutable once built.
type Plan struct {
	Family  string // "llama", …, for messages
	Vocab   int    // rows of the embedding, tokenizer padding included; 0 only if the plan ends in OpOutput: it takes no tokens
	Hidden  int    // width of the residual stream
	MaxPos  int    // longest sequence the checkpoint claims
	Values  []Value
	Tables  [][]float32
	Tensors []Tensor
	Caches  []Cache
	Groups  []Group
	Ops     []Op
	Draft   []Op // after sampling; nil: the plan drafts no tokens

	// EmbedsWidth is that of a row of Batch.Embeds, where it is not Hidden: RowWidth.
	EmbedsWidth int

	// RopeOriginal is the length beyond which rotations depend on the length of
	// the sequence, 0 if they never do. With RopeDynamic they depend on the length
	// itself, else on its being beyond.
	RopeOriginal int
	RopeDynamic  bool

	// Prefix begins the names of the decoder's tensors in the checkpoint, all of
	// which the plan uses but for those in Spare: names that begin so, or, if the
	// entry begins with a dot, end so.
	Prefix string
	Spare  []string

	Stored   Quantization // how the checkpoint stores matrices
	Quantize Quantize     // what becomes of those that it stores as floats

	// Shards is how many plans Shard has divided the model into, of which this is number
	// Shard; 0: it is whole. Tables with a row for each token may have VocabRange of them:
	// OpEmbed makes zeros of tokens that it has no row for and, but for shard 0, of rows of
	// Batch.Embeds; OpLogits makes what it has rows for, and the shards show each other
	// theirs.
	Shards, Shard int

	// Wide are names of tensors that QuantizeInt4 leaves in 8 bits.
	Wide map[string]bool
}

// HasState reports whether the model has recurrent layers.
func (p *Plan) HasState() bool {
	return slices.ContainsFunc(p.Caches, func(c Cache) bool { return c.Kind == CacheState })
}

// Encodes reports whether the plan ends in OpOutput: its answers are rows, not
// tokens.
func (p *Plan) Encodes() bool { return len(p.Ops) > 0 && p.Ops[len(p.Ops)-1].Kind == OpOutput }

// RowWidth is the width of a row of Batch.Embeds.
func (p *Plan) RowWidth() int { return cmp.Or(p.EmbedsWidth, p.Hidden) }

// AllOps are the operations and those of the draft.
func (p *Plan) AllOps() []Op { return slices.Concat(p.Ops, p.Draft) }

// Width returns the width of a value.
func (p *Plan) Width(v int32) int { return int(p.Values[v].Width) }

// Spares reports whether a checkpoint may have a tensor called name that the plan
// does not use.
func (p *Plan) Spares(name string) bool {
	return slices.ContainsFunc(p.Spare, func(s string) bool {
		return strings.HasPrefix(s, ".") && strings.HasSuffix(name, s) || strings.HasPrefix(name, s)
	})
}
