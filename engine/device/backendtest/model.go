package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/ref"
)

// model is a plan with its weights.
type model struct {
	plan    plan.Plan
	weights []weights
	format  plan.Format // of matrices; what cannot have it is F32

	// Whether a quantised format is that of embeddings, too. Their rows are multiples of
	// a scale, and rounding such rows to integers is full of ties: unless x is an
	// embedding itself, the last bit of x decides them.
	quantizeEmbeddings bool

	adopted *adopted // gives the backend packed tensors where it takes them; nil: rows

	info device.ModelInfo // what the backend that took it last said
}

// weights are a tensor's elements as a checkpoint stores them.
type weights struct {
	format plan.Format
	shape  []int
	data   []byte
}

// pages is enough for all slots to be full; with it a test can fill a backend.
func (m *model) pages(l device.Limits) int {
	return len(m.plan.Groups) * (l.MaxSlots*l.MaxPagesPerSlot + 2)
}

// states is enough for each slot to have one and to keep two.
func (m *model) states(l device.Limits) int {
	if !m.plan.HasState() {
		return 0
	}
	return 3 * l.MaxSlots
}

// load returns a backend, behind checks, that has taken m, closed when the test
// ends.
func (s *suite) load(t *testing.T, m *model, l device.Limits) device.Backend {
	t.Helper()
	m.plan.SetCacheFormat(s.opt.Cache)
	return load(t, device.Checked(s.open(t, l), l), m, l)
}

// host returns a host of such a backend.
func (s *suite) host(t *testing.T, m *model, l device.Limits) *host {
	t.Helper()
	return newHost(t, s.load(t, m, l), m, l)
}

// oracle returns a host of ref with the same model.
func (s *suite) oracle(t *testing.T, m *model, l device.Limits) *host {
	t.Helper()
	b, err := ref.Open(l)
	if err != nil {
		t.Fatal(err)
	}
	m.plan.SetCacheFormat(s.opt.Cache)
	return newHost(t, load(t, device.Checked(b, l), m, l), m, l)
}

func load(t *testing.T, b device.Backend, m *model, l device.Limits) device.Backend {
	t.Helper()
	t.Cleanup(func() { b.Close() })
	m.quantize()
	if err := b.CheckPlan(&m.plan); err != nil {
		t.Fatalf("CheckPlan: %v", err)
	}
	for i, w := range m.weights {
		announce(t, b, i, w)
		if m.adopted == nil || !m.adopted.adopt(t, b, i, w) {
			write(t, b, i, w)
		}
	}
	info, err := b.SetModel(&m.plan)
	if err != nil {
		t.Fatalf("SetModel: %v", err)
	}
	if info.WeightBytes <= 0 || len(m.plan.Groups) > 0 && info.PageBytes <= 0 || m.plan.HasState() != (info.StateBytes > 0) {
		t.Errorf("SetModel: %+v, expected positive sizes of what there is", info)
	}
	m.info = info
	if err := b.InitCache(m.pages(l), m.states(l)); err != nil {
		t.Fatalf("InitCache(%d, %d): %v", m.pages(l), m.states(l), err)
	}
	return b
}

func announce(t *testing.T, b device.Backend, i int, w weights) {
	t.Helper()
	h, err := b.NewTensor(fmt.Sprintf("tensor.%d", i), w.format, w.shape)
	if err != nil {
		t.Fatalf("NewTensor %v %v: %v", w.format, w.shape, err)
	}
	if int(h) != i {
		t.Fatalf("NewTensor: handle %d for tensor %d", h, i)
	}
}

// write gives a tensor in two parts, the later rows first, from memory that
// the backend lends if there is some.
func write(t *testing.T, b device.Backend, i int, w weights) {
	t.Helper()
	rows, cols := w.matrix()
	half := rows / 2
	for _, part := range [][2]int{{half, rows}, {0, half}} {
		first, n := part[0], part[1]-part[0]
		if n == 0 {
			continue
		}
		bytes := w.format.RowBytes(cols)
		memory, err := b.HostAlloc(n * bytes)
		if err != nil || len(memory) < n*bytes {
			t.Fatalf("HostAlloc(%d): %d bytes, %v", n*bytes, len(memory), err)
		}
		copy(memory, w.data[first*bytes:part[1]*bytes])
		if err := b.WriteTensor(device.Handle(i), first, n, memory[:n*bytes]); err != nil {
			t.Fatalf("WriteTensor %d, %d rows from %d: %v", i, n, first, err)
		}
		b.HostFree(memory)
	}
}

// encode rounds values to a format.
func encode(values []float32, format plan.Format, shape []int) weights {
	w := weights{format: format, shape: shape}
	rows, cols := w.matrix()
	size := format.RowBytes(cols)
	w.data = make([]byte, rows*size)
	for r := range rows {
		quant.Encode(w.data[r*size:][:size], values[r*cols:][:cols], format)
	}
	return w
}

// quantize brings the matrices of m that can have it into its format.
func (m *model) quantize() {
	list := plan.Quantizable(&m.plan)
	for _, op := range m.plan.Ops {
		if op.Kind == plan.OpEmbed && op.Weight[0] != plan.None && !m.quantizeEmbeddings {
			list[op.Weight[0]] = false
		}
	}
	for i, may := range list {
		if w := m.weights[i]; may && m.format.Quantized() && w.format == plan.F32 {
			values := make([]float32, len(w.data)/4)
			quant.Decode(values, w.data, plan.F32)
			m.weights[i] = encode(values, m.format, w.shape)
		}
	}
}

func (w weights) matrix() (rows, cols int) {
	rows, cols = 1, w.shape[len(w.shape)-1]
	for _, n := range w.shape[:len(w.shape)-1] {
		rows *= n
	}
	return rows, cols
}

// builder writes plans with random weights. A method that makes a value
// returns its number.
type builder struct {
	model
	rng *rand.Rand
}

func newBuilder(seed uint64, vocab int, format plan.Format) *builder {
	return &builder{
		model: model{plan: plan.Plan{Family: "test", Vocab: vocab, MaxPos: 1 << 20}, format: format},
		rng:   rand.New(rand.NewPCG(seed, 0)),
	}
}

func (b *builder) value(width int) int32 {
	b.plan.Values = append(b.plan.Values, plan.Value{Width: int32(width), Of: plan.None})
	return int32(len(b.plan.Values) - 1)
}

// view is width columns of a value, from column on.
func (b *builder) view(of int32, column, width int) int32 {
	b.plan.Values = append(b.plan.Values, plan.Value{Width: int32(width), Of: of, Column: int32(column)})
	return int32(len(b.plan.Values) - 1)
}

func (b *builder) width(v int32) int { return b.plan.Width(v) }

// op appends an operation with a new value of that width as its output, or
// none if width is 0. What it returns can be changed until the next call.
func (b *builder) op(kind plan.Kind, width int, in ...int32) *plan.Op {
	op := plan.NewOp(kind)
	copy(op.In[:], in)
	if width > 0 {
		op.Out[0] = b.value(width)
	}
	b.plan.Ops = append(b.plan.Ops, op)
	return &b.plan.Ops[len(b.plan.Ops)-1]
}

func (b *builder) table(values ...float32) int32 {
	b.plan.Tables = append(b.plan.Tables, values)
	return int32(len(b.plan.Tables) - 1)
}

// tensor adds a weight with the given elements.
func (b *builder) tensor(values []float32, shape ...int) int32 {
	format := b.format
	if format.Quantized() {
		format = plan.F32 // until it is known what for
	}
	b.weights = append(b.weights, encode(values, format, shape))
	id := len(b.plan.Tensors)
	b.plan.Tensors = append(b.plan.Tensors, plan.Tensor{Name: fmt.Sprintf("tensor.%d", id), Shape: shape})
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

// matrix adds weights that keep the size of the values they are multiplied with.
func (b *builder) matrix(shape ...int) int32 {
	return b.normal(0, 1/math.Sqrt(float64(shape[len(shape)-1])), shape...)
}

func (b *builder) embed(width int, scale float32) int32 {
	return b.embedOf(b.normal(0, 1, b.plan.Vocab, width), width, scale)
}

func (b *builder) embedOf(w int32, width int, scale float32) int32 {
	b.plan.Hidden = width
	op := b.op(plan.OpEmbed, width)
	op.Weight[0], op.F[plan.EmbedScale] = w, scale
	return op.Out[0]
}

// embedRows takes rows of a width in place of tokens: a plan without a vocabulary.
func (b *builder) embedRows(width int) int32 {
	b.plan.Hidden = width
	op := b.op(plan.OpEmbed, width)
	op.F[plan.EmbedScale] = 1
	return op.Out[0]
}

// position is a learned position of so many, of which the first offset mean
// nothing.
func (b *builder) position(width, positions, offset int) int32 {
	w := b.normal(0, 1, positions+offset, width)
	b.plan.MaxPos = min(b.plan.MaxPos, positions)
	op := b.op(plan.OpEmbedPosition, width)
	op.Weight[0], op.I[plan.EmbedOffset] = w, int32(offset)
	return op.Out[0]
}

func (b *builder) rmsNorm(x int32, group int, shift float32) int32 {
	w := b.normal(1-float64(shift), 0.3, group)
	return b.normOf(x, plan.None, group, w, shift, plan.GateNone)
}

// normOf is OpRMSNorm with all it can have; gate and w may be None.
func (b *builder) normOf(x, gate int32, group int, w int32, shift float32, how plan.Gate) int32 {
	op := b.op(plan.OpRMSNorm, b.width(x), x, gate)
	op.Weight[0], op.I[plan.NormGroup], op.I[plan.NormGate] = w, int32(group), int32(how)
	op.F[plan.NormEps], op.F[plan.NormShift] = 1e-5, shift
	return op.Out[0]
}

// layerNorm has weights and biases of as many elements, 0 for none.
func (b *builder) layerNorm(x int32, group, weights, biases int) int32 {
	w, bias := int32(plan.None), int32(plan.None)
	if weights > 0 {
		w = b.normal(1, 0.3, weights)
	}
	if biases > 0 {
		bias = b.normal(0, 0.3, biases)
	}
	op := b.op(plan.OpLayerNorm, b.width(x), x)
	op.Weight[0], op.Weight[1], op.I[plan.NormGroup], op.F[plan.NormEps] = w, bias, int32(group), 1e-5
	return op.Out[0]
}

func (b *builder) linear(x int32, width int, bias bool) int32 {
	return b.linearOp(x, width, bias).Out[0]
}

func (b *builder) linearOp(x int32, width int, bias bool) *plan.Op {
	w, with := b.matrix(width, b.width(x)), int32(plan.None)
	if bias {
		with = b.normal(0, 0.5, width)
	}
	op := b.op(plan.OpLinear, width, x)
	op.Weight[0], op.Weight[1] = w, with
	return op
}

// gated is OpLinear with two matrices and an activation.
func (b *builder) gated(x int32, width int, bias bool, act plan.Activation) *plan.Op {
	w2, b2 := b.matrix(width, b.width(x)), int32(plan.None)
	if bias {
		b2 = b.normal(0, 0.5, width)
	}
	op := b.linearOp(x, width, bias)
	op.Weight[2], op.Weight[3], op.I[plan.LinearAct] = w2, b2, int32(act)
	clamp(op, act)
	return op
}

// clamp sets the numbers of an activation that has some, small enough to matter.
func clamp(op *plan.Op, act plan.Activation) {
	switch act {
	case plan.ActClampedSwiGLU:
		op.F[plan.ActLimit], op.F[plan.ActAlpha] = 1.1, 1.702
	case plan.ActClip:
		op.F[plan.ActLimit] = 0.8
	}
}

func (b *builder) linearHeads(x int32, heads, width int) int32 {
	w := b.matrix(heads, width/heads, b.width(x)/heads)
	op := b.op(plan.OpLinearHeads, width, x)
	op.Weight[0], op.I[plan.HeadsCount] = w, int32(heads)
	return op.Out[0]
}

// frequencies are those of RoPE with base 10000, times scale.
func frequencies(rotary int, scale float64) []float32 {
	table := make([]float32, rotary/2)
	for i := range table {
		table[i] = float32(scale * math.Pow(10000, -2*float64(i)/float64(rotary)))
	}
	return table
}

// rope rotates the first dimensions of each head of x in place.
func (b *builder) rope(x int32, headDim, rotary int, scale float32) *plan.Op {
	table := b.table(frequencies(rotary, 1)...)
	op := b.op(plan.OpRope, 0, x)
	op.Out[0] = x
	op.I[plan.RopeHeads], op.I[plan.RopeHeadDim] = int32(b.width(x)/headDim), int32(headDim)
	op.I[plan.RopeRotary], op.I[plan.RopeTable], op.F[plan.RopeScale] = int32(rotary), table, scale
	op.I[plan.RopeLong], op.I[plan.RopeAxes] = plan.None, plan.None
	return op
}

// heads is the shape of an attention.
type heads struct {
	heads, kvHeads, headDim int
	valueWidth              int // of a head; 0: headDim
	window, chunk           int
	cap                     float32
	sinks, slopes           bool
	sight                   plan.Sight
}

func (h heads) values() int {
	if h.valueWidth > 0 {
		return h.valueWidth
	}
	return h.headDim
}

// seen is how many positions back a token may see, 0 for all.
func (h heads) seen() int {
	if h.window == 0 || h.chunk == 0 {
		return h.window + h.chunk
	}
	return min(h.window, h.chunk)
}

// cache adds a cache; those of one window share a group.
func (b *builder) cache(c plan.Cache) int32 {
	if c.Kind == plan.CacheState {
		c.Group = plan.None
	} else {
		c.Group = plan.None
		for g, group := range b.plan.Groups {
			if group.Window == c.Window {
				c.Group = int32(g)
			}
		}
		if c.Group == plan.None {
			c.Group = int32(len(b.plan.Groups))
			b.plan.Groups = append(b.plan.Groups, plan.Group{Window: c.Window})
		}
	}
	b.plan.Caches = append(b.plan.Caches, c)
	return int32(len(b.plan.Caches) - 1)
}

// attend writes a cache of its own and attends over it.
func (b *builder) attend(q, k, v int32, h heads) int32 {
	cache := b.cache(plan.Cache{
		Kind: plan.CacheKV, Heads: int32(h.kvHeads), KeyWidth: int32(h.headDim), ValueWidth: int32(h.values()), Window: int32(h.seen()),
	})
	b.op(plan.OpCacheWrite, 0, k, v).I[plan.WriteCache] = cache
	return b.attendOver(cache, q, plan.None, h)
}

// attendOver attends over a cache that was written before. rest is of queries
// over a latent cache.
func (b *builder) attendOver(cache, q, rest int32, h heads) int32 {
	sinks, slopes := int32(plan.None), int32(plan.None)
	if h.sinks {
		sinks = b.normal(0, 1, h.heads)
	}
	if h.slopes {
		table := make([]float32, h.heads)
		for i := range table {
			table[i] = float32(math.Exp2(-8 * float64(i+1) / float64(h.heads)))
		}
		slopes = b.table(table...)
	}
	op := b.op(plan.OpAttention, h.heads*h.values(), q, rest)
	op.Weight[0] = sinks
	op.I[plan.AttnCache], op.I[plan.AttnHeads] = cache, int32(h.heads)
	op.I[plan.AttnWindow], op.I[plan.AttnSlopes], op.I[plan.AttnChunk] = int32(h.window), slopes, int32(h.chunk)
	op.I[plan.AttnSight] = int32(h.sight)
	op.F[plan.AttnScale], op.F[plan.AttnCap] = float32(1/math.Sqrt(float64(h.headDim))), h.cap
	return op.Out[0]
}

// activate is act(x), or with y the gated form.
func (b *builder) activate(act plan.Activation, x, y int32) int32 {
	width := b.width(x)
	if y != plan.None {
		width = b.width(y)
	}
	op := b.op(plan.OpActivate, width, x, y)
	op.I[plan.ActKind] = int32(act)
	clamp(op, act)
	return op.Out[0]
}

func (b *builder) add(x, y int32, scale float32) int32 {
	op := b.op(plan.OpAdd, b.width(x), x, y)
	op.F[plan.AddScale] = scale
	return op.Out[0]
}

// routing is how experts are chosen.
type routing struct {
	experts, topK     int
	score             plan.Scoring
	groups, topGroups int
	bias, normalize   bool
	groupBest         bool
	factors           bool
	jitter            float32
	scale             float32 // 0: 1
}

// route chooses experts for x, by logits of which no two are close.
func (b *builder) route(x int32, r routing) (chosen, weights int32) {
	w := b.normal(0, 3/math.Sqrt(float64(b.width(x))), r.experts, b.width(x))
	op := b.op(plan.OpLinear, r.experts, x)
	op.Weight[0] = w
	logits, bias := op.Out[0], int32(plan.None)
	if r.bias {
		bias = b.normal(0, 0.2, r.experts)
	}
	factors := int32(plan.None)
	if r.factors {
		factors = b.normal(1, 0.4, r.experts)
	}
	chosen, weights = b.value(r.topK), b.value(r.topK)
	op = b.op(plan.OpRoute, 0, logits)
	op.Out = [plan.MaxOut]int32{chosen, weights}
	op.Weight[0], op.I[plan.RouteTopK], op.I[plan.RouteScore] = bias, int32(r.topK), int32(r.score)
	op.I[plan.RouteGroups], op.I[plan.RouteTopGroups] = int32(max(1, r.groups)), int32(max(1, r.topGroups))
	op.F[plan.RouteScale], op.F[plan.RouteJitter] = 1, r.jitter
	if r.groupBest {
		op.I[plan.RouteGroupBest] = 1
	}
	op.Weight[1] = factors
	if r.scale != 0 {
		op.F[plan.RouteScale] = r.scale
	}
	if r.normalize {
		op.I[plan.RouteNormalize], op.F[plan.RouteEps] = 1, 1e-6
	}
	return chosen, weights
}

func (b *builder) experts(x, chosen, weights int32, experts, inner int, act plan.Activation, gated, bias bool) int32 {
	width := b.width(x)
	w := [plan.MaxWeights]int32{plan.None, plan.None, plan.None, plan.None, plan.None, plan.None, plan.None, plan.None}
	w[0], w[4] = b.matrix(experts, inner, width), b.matrix(experts, width, inner)
	if gated {
		w[2] = b.matrix(experts, inner, width)
	}
	if bias {
		w[1], w[5] = b.normal(0, 0.3, experts, inner), b.normal(0, 0.3, experts, width)
	}
	if gated && bias {
		w[3] = b.normal(0, 0.3, experts, inner)
	}
	op := b.op(plan.OpExperts, width, x, chosen, weights)
	op.Weight, op.I[plan.ActKind] = w, int32(act)
	clamp(op, act)
	return op.Out[0]
}

func (b *builder) conv(x int32, kernel int, bias bool, act plan.Activation) int32 {
	width := b.width(x)
	cache := b.cache(plan.Cache{Kind: plan.CacheState, Heads: 1, KeyWidth: int32(kernel - 1), ValueWidth: int32(width)})
	w, with := b.matrix(width, kernel), int32(plan.None)
	if bias {
		with = b.normal(0, 0.3, width)
	}
	op := b.op(plan.OpConv, width, x)
	op.Weight[0], op.Weight[1], op.I[plan.ConvCache], op.I[plan.ConvAct] = w, with, cache, int32(act)
	return op.Out[0]
}

// recurrence is the shape of a recurrent layer.
type recurrence struct {
	heads, groups, keyWidth, valueWidth int
	channels, negative                  bool // of a delta rule
}

// gatedDelta makes its inputs of x.
func (b *builder) gatedDelta(x int32, r recurrence, eps float32) int32 {
	decays := r.heads
	if r.channels {
		decays *= r.keyWidth
	}
	cache := b.cache(plan.Cache{Kind: plan.CacheState, Heads: int32(r.heads), KeyWidth: int32(r.keyWidth), ValueWidth: int32(r.valueWidth)})
	q, k := b.linear(x, r.groups*r.keyWidth, false), b.linear(x, r.groups*r.keyWidth, false)
	v, decay, rate := b.linear(x, r.heads*r.valueWidth, false), b.linear(x, decays, false), b.linear(x, r.heads, false)
	w0, w1 := b.normal(-1, 0.5, r.heads), b.normal(0, 0.5, decays)
	op := b.op(plan.OpGatedDelta, r.heads*r.valueWidth, q, k, v, decay, rate)
	op.Weight[0], op.Weight[1], op.I[plan.DeltaCache], op.I[plan.DeltaKeyHeads] = w0, w1, cache, int32(r.groups)
	op.F[plan.DeltaEps], op.F[plan.DeltaScale] = eps, float32(1/math.Sqrt(float64(r.keyWidth)))
	if r.channels {
		op.I[plan.DeltaChannels] = 1
	}
	if r.negative {
		op.I[plan.DeltaNegative] = 1
	}
	return op.Out[0]
}

// ssm makes its inputs of x.
func (b *builder) ssm(x int32, r recurrence) int32 {
	cache := b.cache(plan.Cache{Kind: plan.CacheState, Heads: int32(r.heads), KeyWidth: int32(r.keyWidth), ValueWidth: int32(r.valueWidth)})
	in, from, to := b.linear(x, r.heads*r.valueWidth, false), b.linear(x, r.groups*r.keyWidth, false), b.linear(x, r.groups*r.keyWidth, false)
	dt := b.linear(x, r.heads, false)
	w0, w1, w2 := b.normal(0, 0.5, r.heads), b.normal(-1, 0.5, r.heads), b.normal(1, 0.3, r.heads)
	op := b.op(plan.OpSSM, r.heads*r.valueWidth, in, from, to, dt)
	op.Weight[0], op.Weight[1], op.Weight[2] = w0, w1, w2
	op.I[plan.SSMCache], op.I[plan.SSMGroups] = cache, int32(r.groups)
	op.F[plan.SSMMin], op.F[plan.SSMMax] = 0.05, 1
	return op.Out[0]
}

// selectiveScan makes its inputs of x.
func (b *builder) selectiveScan(x int32, width, state int) int32 {
	cache := b.cache(plan.Cache{Kind: plan.CacheState, Heads: 1, KeyWidth: int32(state), ValueWidth: int32(width)})
	in, dt := b.linear(x, width, false), b.linear(x, width, true)
	from, to := b.linear(x, state, false), b.linear(x, state, false)
	w0, w1 := b.normal(0, 0.5, width, state), b.normal(1, 0.3, width)
	op := b.op(plan.OpSelectiveScan, width, in, dt, from, to)
	op.Weight[0], op.Weight[1], op.I[plan.ScanCache] = w0, w1, cache
	return op.Out[0]
}

// scaleOp multiplies x with a factor and, unless it is plan.None, w.
func (b *builder) scaleOp(x int32, factor float32, w int32) *plan.Op {
	op := b.op(plan.OpScale, b.width(x), x)
	op.Weight[0], op.F[plan.ScaleFactor] = w, factor
	return op
}

func (b *builder) sparsify(x int32, deviations float32) int32 {
	op := b.op(plan.OpSparsify, b.width(x), x)
	op.F[plan.SparsifyDeviations] = deviations
	return op.Out[0]
}

func (b *builder) join(list ...int32) int32 {
	width := 0
	for _, x := range list {
		width += b.width(x)
	}
	return b.op(plan.OpJoin, width, list...).Out[0]
}

// beside is a table of so many rows beside the embedding.
func (b *builder) beside(rows, width int, scale float32) int32 {
	w := b.normal(0, 1, rows, width)
	op := b.op(plan.OpEmbed, width)
	op.Weight[0], op.I[plan.EmbedBeside], op.F[plan.EmbedScale] = w, 1, scale
	return op.Out[0]
}

// xielu has learned factors of its own.
func (b *builder) xielu(x int32, beta float32) int32 {
	w0, w1 := b.normal(0.5, 0.3, 1), b.normal(-0.5, 0.3, 1)
	op := b.op(plan.OpActivate, b.width(x), x)
	op.Weight[0], op.Weight[1], op.I[plan.ActKind], op.F[plan.ActAlpha] = w0, w1, int32(plan.ActXIELU), beta
	return op.Out[0]
}

// clipTo has learned bounds, not far from each other.
func (b *builder) clipTo(x int32) int32 {
	least, most := b.normal(-0.5, 0.1, 1), b.normal(0.4, 0.1, 1)
	op := b.op(plan.OpActivate, b.width(x), x)
	op.Weight[0], op.Weight[1], op.I[plan.ActKind] = least, most, int32(plan.ActClip)
	return op.Out[0]
}

// logits ends the plan with OpRows and OpLogits and returns the model.
func (b *builder) logits(x int32, cap float32) *model {
	w := b.normal(0, 2/math.Sqrt(float64(b.width(x))), b.plan.Vocab, b.width(x))
	return b.logitsOf(b.rows(x), w, cap)
}

func (b *builder) rows(x int32) int32 { return b.op(plan.OpRows, b.width(x), x).Out[0] }

// logitsOf ends the plan with OpLogits of picked rows.
func (b *builder) logitsOf(rows, w int32, cap float32) *model {
	op := b.op(plan.OpLogits, 0, rows)
	op.Weight[0], op.F[plan.LogitsCap], op.F[plan.LogitsScale] = w, cap, 1
	return &b.model
}

// output ends the plan of an encoder with picked rows.
func (b *builder) output(rows int32) *model {
	b.op(plan.OpOutput, 0, rows)
	return &b.model
}
