package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Var names an activation matrix while a family writes its layers. Methods of
// Builder that return a Var make a new one, unless they say otherwise. The zero
// Var is none, for operands that are optional.
type Var int32

// Weight names a tensor of the plan. The zero Weight is none.
type Weight int32

// index is the number in the plan, None for none.
func (x Var) index() int32    { return int32(x) - 1 }
func (w Weight) index() int32 { return int32(w) - 1 }

// Builder writes a plan, one operation per call. Families use each Var as often
// as they like; which values can share memory is found by Share.
type Builder struct {
	c         *Config
	has       func(name string) bool
	shape     func(name string) ([]int, bool)
	prefix    string   // of the decoder's tensors in the checkpoint
	embedName string   // of the embedding, below prefix
	headNames []string // of the output head
	plan      *Plan
	tensors   map[string][]Weight // by the name of their first part
	tables    map[*float32]int32
	last      Var  // the residual stream after the last layer, and
	lastNorm  Norm // the norm of it, of families that draft
	ops       int  // that are not of the draft; 0: all
	err       error
}

// decoderPrefixes are where checkpoints put a decoder: a causal language
// model, one inside a multimodal model in older and newer layout, and a model
// saved without its head.
var decoderPrefixes = []string{"model.", "language_model.model.", "model.language_model.", ""}

func newBuilder(c *Config, f family, names func(string) ([]int, bool)) *Builder {
	b := &Builder{
		c:       c,
		has:     func(name string) bool { _, ok := names(name); return ok },
		shape:   names,
		tensors: map[string][]Weight{},
		tables:  map[*float32]int32{},
		plan:    &Plan{Family: c.Family, Vocab: c.Vocab, Hidden: c.Hidden, MaxPos: c.MaxPos, Stored: c.Stored},
	}
	prefixes, root := f.prefixes, f.root
	if prefixes == nil {
		prefixes = decoderPrefixes
	}
	if root == "" {
		root = "norm.weight"
	}
	b.prefix = prefixes[0]
	for _, p := range prefixes {
		if b.has(p + root) {
			b.prefix = p
			break
		}
	}
	b.embedName, b.headNames = cmp.Or(f.embed, "embed_tokens.weight"), f.heads
	if b.headNames == nil {
		b.headNames = outputNames
	}
	b.plan.Prefix = b.prefix
	b.plan.Spare = slices.Concat(towers, f.spare)
	return b
}

// finish returns the plan, its caches in groups.
func (b *Builder) finish() (*Plan, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.ops > 0 {
		b.plan.Ops, b.plan.Draft = b.plan.Ops[:b.ops:b.ops], b.plan.Ops[b.ops:]
	}
	assignGroups(b.plan)
	return b.plan, nil
}

func (b *Builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// Weight is a whole tensor of the checkpoint.
func (b *Builder) Weight(name string, shape ...int) Weight {
	return b.Tensor(shape, whole(name, shape...))
}

// Tensor is a tensor of the given shape made of parts, whose rows follow each
// other. The same parts give the same Weight.
func (b *Builder) Tensor(shape []int, parts ...Part) Weight {
	parts, at := slices.Clone(parts), 0
	for i := range parts {
		parts[i].To = at
		rows, _ := parts[i].size()
		at += rows
	}
	name := parts[0].Name
	for _, w := range b.tensors[name] {
		t := &b.plan.Tensors[w.index()]
		if slices.Equal(t.Shape, shape) && slices.EqualFunc(t.Parts, parts, Part.equal) {
			return w
		}
	}
	b.plan.Tensors = append(b.plan.Tensors, Tensor{Name: name, Shape: shape, Parts: parts})
	w := Weight(len(b.plan.Tensors))
	b.tensors[name] = append(b.tensors[name], w)
	return w
}

// Cache declares a cache and returns its index; its Group is found later.
// Layers that read the same cache share the index.
func (b *Builder) Cache(c Cache) int32 {
	b.plan.Caches = append(b.plan.Caches, c)
	return int32(len(b.plan.Caches) - 1)
}

// table returns the index of a table, the same for the same slice; None for nil.
func (b *Builder) table(list []float32) int32 {
	if list == nil {
		return None
	}
	if t, ok := b.tables[&list[0]]; ok {
		return t
	}
	t := int32(len(b.plan.Tables))
	b.tables[&list[0]] = t
	b.plan.Tables = append(b.plan.Tables, list)
	return t
}

func (b *Builder) value(v Value) Var {
	b.plan.Values = append(b.plan.Values, v)
	return Var(len(b.plan.Values))
}

func (b *Builder) width(x Var) int { return b.plan.Width(x.index()) }

// View is width columns of x, the first being column. What is written to one is
// in the other.
func (b *Builder) View(x Var, column, width int) Var {
	v := Value{Width: int32(width), Of: x.index(), Column: int32(column)}
	if base := b.plan.Values[v.Of]; base.Of != None {
		v.Of, v.Column = base.Of, v.Column+base.Column
	}
	return b.value(v)
}

// op begins an operation with inputs and weights in their order.
func op(kind Kind, in []Var, weights ...Weight) Op {
	o := NewOp(kind)
	for i, x := range in {
		o.In[i] = x.index()
	}
	for i, w := range weights {
		o.Weight[i] = w.index()
	}
	return o
}

// emit ends an operation that makes a value of width columns.
func (b *Builder) emit(o Op, width int) Var {
	out := b.value(Value{Width: int32(width), Of: None})
	o.Out[0] = out.index()
	b.plan.Ops = append(b.plan.Ops, o)
	return out
}

// outWidth is the width that a matrix w gives a product with it.
func (b *Builder) outWidth(w Weight) int {
	s := b.plan.Tensors[w.index()].Shape
	return s[len(s)-2]
}

// Embed looks up the batch's tokens in w [vocab, hidden] and multiplies by scale.
// A plan without a vocabulary has no w.
func (b *Builder) Embed(w Weight, scale float64) Var {
	o := op(OpEmbed, nil, w)
	o.F[EmbedScale] = float32(scale)
	return b.emit(o, b.plan.Hidden)
}

// EmbedBeside looks up the batch's tokens in a table beside the embedding, w
// [rows, width], and multiplies by scale; tokens that have no row take row 0.
func (b *Builder) EmbedBeside(w Weight, scale float64) Var {
	o := op(OpEmbed, nil, w)
	o.I[EmbedBeside], o.F[EmbedScale] = 1, float32(scale)
	return b.emit(o, b.plan.Tensors[w.index()].Shape[1])
}

// EmbedPosition looks up the batch's positions, plus offset, in w [positions,
// width].
func (b *Builder) EmbedPosition(w Weight, offset int) Var {
	o := op(OpEmbedPosition, nil, w)
	o.I[EmbedOffset] = int32(offset)
	return b.emit(o, b.plan.Tensors[w.index()].Shape[1])
}

// Norm is what an RMS norm or a layer norm has beside its input.
type Norm struct {
	Weight Weight  // optional
	Bias   Weight  // LayerNorm; optional
	Group  int     // elements that are normalized together; 0: as many as Weight has, or all
	Eps    float64 //
	Shift  float64 // added to Weight
	Gate   Var     // RMSNorm: optional, comes in where GateAt says
	GateAt Gate
}

// RMSNorm is OpRMSNorm.
func (b *Builder) RMSNorm(x Var, n Norm) Var {
	o := op(OpRMSNorm, []Var{x, n.Gate}, n.Weight)
	o.I[NormGate] = int32(n.GateAt)
	return b.norm(o, x, n)
}

// LayerNorm is OpLayerNorm.
func (b *Builder) LayerNorm(x Var, n Norm) Var {
	return b.norm(op(OpLayerNorm, []Var{x}, n.Weight, n.Bias), x, n)
}

func (b *Builder) norm(o Op, x Var, n Norm) Var {
	group := n.Group
	if group == 0 && n.Weight != 0 {
		group = b.plan.Tensors[n.Weight.index()].Shape[0]
	}
	if group == 0 {
		group = b.width(x)
	}
	o.I[NormGroup], o.F[NormEps], o.F[NormShift] = int32(group), float32(n.Eps), float32(n.Shift)
	return b.emit(o, b.width(x))
}

// Linear is x wᵀ + bias, bias optional.
func (b *Builder) Linear(x Var, w, bias Weight) Var {
	return b.emit(op(OpLinear, []Var{x}, w, bias), b.outWidth(w))
}

// LinearHeads multiplies each head of x by a matrix of its own, w [heads, width
// of an output head, width of a head of x].
func (b *Builder) LinearHeads(x Var, w Weight) Var {
	heads := b.plan.Tensors[w.index()].Shape[0]
	o := op(OpLinearHeads, []Var{x}, w)
	o.I[HeadsCount] = int32(heads)
	return b.emit(o, heads*b.outWidth(w))
}

// Rope rotates the heads of x in place and returns x.
func (b *Builder) Rope(x Var, r Rope, headDim int) Var {
	o := op(OpRope, []Var{x})
	o.Out[0] = x.index()
	o.I[RopeHeads], o.I[RopeHeadDim] = int32(b.width(x)/headDim), int32(headDim)
	o.I[RopeFirst], o.I[RopeRotary] = int32(r.First), int32(2*len(r.Freqs))
	o.I[RopeTable], o.I[RopeLong], o.I[RopeAxes] = b.table(r.Freqs), b.table(r.Long), b.table(r.Axes)
	o.I[RopeInterleaved] = bit(r.Interleaved)
	o.F[RopeScale] = r.Scale
	if r.Original > 0 {
		o.I[RopeOriginal] = int32(r.Original)
		o.F[RopeFactor], o.F[RopeTheta] = r.Factor, r.Theta
		b.plan.RopeOriginal, b.plan.RopeDynamic = r.Original, r.Long == nil
	}
	b.plan.Ops = append(b.plan.Ops, o)
	return x
}

// CacheWrite stores keys and values of a kv cache, or the two parts of a latent
// cache's rows, the second being optional.
func (b *Builder) CacheWrite(cache int32, x, y Var) {
	o := op(OpCacheWrite, []Var{x, y})
	o.I[WriteCache] = cache
	b.plan.Ops = append(b.plan.Ops, o)
}

// Attention is what an attention has beside its queries.
type Attention struct {
	Cache  int32
	Heads  int       // of the queries
	Window int       // positions seen, its own included; 0: all
	Chunk  int       // only those of the same chunk of so many are seen; 0: all
	Scale  float64   // scores are multiplied by it
	Cap    float64   // soft cap of scores; 0: none
	Slopes []float32 // ALiBi, per head; nil: none
	Sinks  Weight    // [heads], optional
	Sight  Sight
	Rest   Var // over a latent cache: the rest of each query; optional
}

// Attention is OpAttention of queries q.
func (b *Builder) Attention(q Var, a Attention) Var {
	o := op(OpAttention, []Var{q, a.Rest}, a.Sinks)
	o.I[AttnCache], o.I[AttnHeads], o.I[AttnWindow] = a.Cache, int32(a.Heads), int32(a.Window)
	o.I[AttnSlopes], o.I[AttnChunk], o.I[AttnSight] = b.table(a.Slopes), int32(a.Chunk), int32(a.Sight)
	o.F[AttnScale], o.F[AttnCap] = float32(a.Scale), float32(a.Cap)
	return b.emit(o, a.Heads*int(b.plan.Caches[a.Cache].ValueWidth))
}

// Act is an activation and, if it has them, its factors.
type Act struct {
	Kind  Activation
	Limit float64
	Alpha float64
}

func (a Act) set(o *Op) {
	o.I[ActKind], o.F[ActLimit], o.F[ActAlpha] = int32(a.Kind), float32(a.Limit), float32(a.Alpha)
}

// Activate is act(x).
func (b *Builder) Activate(act Activation, x Var) Var {
	o := op(OpActivate, []Var{x})
	o.I[ActKind] = int32(act)
	return b.emit(o, b.width(x))
}

// Clip is clamp(x, ±limit).
func (b *Builder) Clip(x Var, limit float64) Var {
	o := op(OpActivate, []Var{x})
	Act{Kind: ActClip, Limit: limit}.set(&o)
	return b.emit(o, b.width(x))
}

// ClipTo is clamp(x, least, most), each [1].
func (b *Builder) ClipTo(x Var, least, most Weight) Var {
	o := op(OpActivate, []Var{x}, least, most)
	o.I[ActKind] = int32(ActClip)
	return b.emit(o, b.width(x))
}

// XIELU is ActXIELU with its learned factors, each [1].
func (b *Builder) XIELU(x Var, positive, negative Weight, beta float64) Var {
	o := op(OpActivate, []Var{x}, positive, negative)
	Act{Kind: ActXIELU, Alpha: beta}.set(&o)
	return b.emit(o, b.width(x))
}

// Gate is act(x) * y, or what act makes of both. x may be one column wide.
func (b *Builder) Gate(act Act, x, y Var) Var {
	o := op(OpActivate, []Var{x, y})
	act.set(&o)
	return b.emit(o, b.width(y))
}

// Add is x + y.
func (b *Builder) Add(x, y Var) Var { return b.AddScaled(x, y, 1) }

// AddScaled is x + scale * y.
func (b *Builder) AddScaled(x, y Var, scale float64) Var {
	o := op(OpAdd, []Var{x, y})
	o.F[AddScale] = float32(scale)
	return b.emit(o, b.width(x))
}

// Routing is how OpRoute chooses experts.
type Routing struct {
	TopK              int
	Score             Scoring
	Bias              Weight // [experts], compared but not weighed; optional
	Factors           Weight // [experts], by which the weights are multiplied; optional
	Groups, TopGroups int    // 0: one group
	GroupBest         bool   // a group is judged by its best expert, rather than its two best
	Normalize         bool
	Eps               float64 // added to the sum that divides
	Scale             float64 // of the weights; 0: 1
	Jitter            float64 // ScoreSparseMixer
}

// Route chooses experts by their logits: OpRoute. It returns their numbers and
// their weights, each [T, TopK].
func (b *Builder) Route(logits Var, r Routing) (experts, weights Var) {
	o := op(OpRoute, []Var{logits}, r.Bias, r.Factors)
	o.I[RouteTopK], o.I[RouteScore] = int32(r.TopK), int32(r.Score)
	o.I[RouteGroups], o.I[RouteTopGroups] = int32(max(r.Groups, 1)), int32(max(r.TopGroups, 1))
	o.I[RouteNormalize], o.I[RouteGroupBest] = bit(r.Normalize), bit(r.GroupBest)
	o.F[RouteEps], o.F[RouteScale], o.F[RouteJitter] = float32(r.Eps), float32(r.Scale), float32(r.Jitter)
	if r.Scale == 0 {
		o.F[RouteScale] = 1
	}
	weights = b.value(Value{Width: int32(r.TopK), Of: None})
	o.Out[1] = weights.index()
	return b.emit(o, r.TopK), weights
}

// MLP is the projections of all experts: Gate and Up [experts, inner, width],
// Down [experts, width, inner], biases [experts, inner] and [experts, width],
// optional. Without Up the activation has one input.
type MLP struct {
	Act                        Act
	Gate, Up, Down             Weight
	GateBias, UpBias, DownBias Weight
	ScaleInput                 bool // the weights multiply what experts are given
}

// Experts is OpExperts of x with what Route returned.
func (b *Builder) Experts(x, experts, weights Var, m MLP) Var {
	o := op(OpExperts, []Var{x, experts, weights}, m.Gate, m.GateBias, m.Up, m.UpBias, m.Down, m.DownBias)
	m.Act.set(&o)
	o.I[ExpertsScaleInput] = bit(m.ScaleInput)
	return b.emit(o, b.outWidth(m.Down))
}

// Conv is a causal convolution of each column of x with w [width, K]; act is
// ActNone or ActSilu, bias optional. It declares its cache of states.
func (b *Builder) Conv(x Var, w, bias Weight, act Activation) Var {
	o := op(OpConv, []Var{x}, w, bias)
	k := b.plan.Tensors[w.index()].Shape[1]
	o.I[ConvCache] = b.Cache(Cache{Kind: CacheState, Heads: 1, KeyWidth: int32(k - 1), ValueWidth: int32(b.width(x))})
	o.I[ConvAct] = int32(act)
	return b.emit(o, b.width(x))
}

// Delta is what a gated delta rule has beside its inputs.
type Delta struct {
	KeyHeads, Heads      int     // heads of q and k, and of v
	KeyWidth, ValueWidth int     // of a head
	LogA, Bias           Weight  // w0 and w1 of OpGatedDelta
	Eps                  float64 // of the norms of q and k; 0: none
	Scale                float64 // of q
	Channels             bool    // each channel of a key decays on its own
	Negative             bool    // β is up to 2
}

// GatedDelta is OpGatedDelta. It declares its cache of states.
func (b *Builder) GatedDelta(q, k, v, decay, beta Var, d Delta) Var {
	o := op(OpGatedDelta, []Var{q, k, v, decay, beta}, d.LogA, d.Bias)
	o.I[DeltaCache] = b.Cache(Cache{Kind: CacheState, Heads: int32(d.Heads), KeyWidth: int32(d.KeyWidth), ValueWidth: int32(d.ValueWidth)})
	o.I[DeltaKeyHeads] = int32(d.KeyHeads)
	o.I[DeltaChannels], o.I[DeltaNegative] = bit(d.Channels), bit(d.Negative)
	o.F[DeltaEps], o.F[DeltaScale] = float32(d.Eps), float32(d.Scale)
	return b.emit(o, d.Heads*d.ValueWidth)
}

// StateSpace is what a state space has beside its inputs.
type StateSpace struct {
	Groups, Heads        int    // of b and c, and of x
	KeyWidth, ValueWidth int    // of a head: the state's size, and x's
	LogA, Bias, Skip     Weight // w0, w1 and w2 of OpSSM
	Min, Max             float64
}

// SSM is OpSSM. It declares its cache of states.
func (b *Builder) SSM(x, in, out, dt Var, s StateSpace) Var {
	o := op(OpSSM, []Var{x, in, out, dt}, s.LogA, s.Bias, s.Skip)
	o.I[SSMCache] = b.Cache(Cache{Kind: CacheState, Heads: int32(s.Heads), KeyWidth: int32(s.KeyWidth), ValueWidth: int32(s.ValueWidth)})
	o.I[SSMGroups] = int32(s.Groups)
	o.F[SSMMin], o.F[SSMMax] = float32(s.Min), float32(min(s.Max, math.MaxFloat32))
	return b.emit(o, b.width(x))
}

// SelectiveScan is OpSelectiveScan, logA [width, state] and skip [width]. It
// declares its cache of states.
func (b *Builder) SelectiveScan(x, dt, in, out Var, logA, skip Weight) Var {
	o := op(OpSelectiveScan, []Var{x, dt, in, out}, logA, skip)
	o.I[ScanCache] = b.Cache(Cache{Kind: CacheState, Heads: 1, KeyWidth: int32(b.width(in)), ValueWidth: int32(b.width(x))})
	return b.emit(o, b.width(x))
}

// Scale is x * factor * w, w [width] or [1], optional.
func (b *Builder) Scale(x Var, factor float64, w Weight) Var {
	o := op(OpScale, []Var{x}, w)
	o.F[ScaleFactor] = float32(factor)
	return b.emit(o, b.width(x))
}

// ScalePosition is x times 1 + factor * log(1 + floor((position + offset) / length)).
func (b *Builder) ScalePosition(x Var, factor float64, offset, length int) Var {
	o := op(OpScale, []Var{x})
	o.F[ScaleFactor], o.F[ScaleLog] = 1, float32(factor)
	o.I[ScaleOffset], o.I[ScaleLength] = int32(offset), int32(length)
	return b.emit(o, b.width(x))
}

// Sparsify is what of x is more than deviations standard deviations above its
// row's mean.
func (b *Builder) Sparsify(x Var, deviations float64) Var {
	o := op(OpSparsify, []Var{x})
	o.F[SparsifyDeviations] = float32(deviations)
	return b.emit(o, b.width(x))
}

// Join is the columns of two to MaxIn values one after the other.
func (b *Builder) Join(list ...Var) Var {
	width := 0
	for _, x := range list {
		width += b.width(x)
	}
	return b.emit(op(OpJoin, list), width)
}

// bit is an integer field that is 0 or 1.
func bit(on bool) int32 {
	if on {
		return 1
	}
	return 0
}

// Rows picks the rows of x that answers are wanted for. What follows works on
// those alone.
func (b *Builder) Rows(x Var) Var { return b.emit(op(OpRows, []Var{x}), b.width(x)) }

// JoinedRows picks the rows of x that answers are wanted for, each joined with the count-1
// before it.
func (b *Builder) JoinedRows(x Var, count int) Var {
	o := op(OpRows, []Var{x})
	o.I[RowsCount] = int32(count)
	return b.emit(o, count*b.width(x))
}

// MeanRows is the same with the mean of those rows.
func (b *Builder) MeanRows(x Var, count int) Var {
	o := op(OpRows, []Var{x})
	o.I[RowsCount], o.I[RowsMean] = int32(count), 1
	return b.emit(o, b.width(x))
}

// EmbeddingBag is OpEmbeddingBag of rows of w [rows, width].
func (b *Builder) EmbeddingBag(rows, weights Var, w Weight) Var {
	return b.emit(op(OpEmbeddingBag, []Var{rows, weights}, w), b.plan.Tensors[w.index()].Shape[1])
}

// EmbedColumns are columns of the rows that stand for tokens, zeros for other tokens.
func (b *Builder) EmbedColumns(first, width int) Var {
	o := op(OpEmbed, nil)
	o.I[EmbedFirst], o.F[EmbedScale] = int32(first), 1
	return b.emit(o, width)
}

// Logits ends the plan: scale * (x wᵀ + bias), soft capped if cap is not 0.
func (b *Builder) Logits(x Var, w, bias Weight, scale, cap float64) {
	o := op(OpLogits, []Var{x}, w, bias)
	o.F[LogitsScale], o.F[LogitsCap] = float32(scale), float32(cap)
	b.plan.Ops = append(b.plan.Ops, o)
}

// Output ends the plan of an encoder, whose outputs are the rows of x.
func (b *Builder) Output(x Var) { b.plan.Ops = append(b.plan.Ops, op(OpOutput, []Var{x})) }
