package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxShards is the most devices that Shard divides a model among: as many as one machine
// connects directly.
const MaxShards = 8

// Cut is what a shard has of a tensor: these ranges of one dimension, one after the other,
// and all of the others. Without ranges it has the whole tensor.
type Cut struct {
	Axis   int     // of the tensor's shape
	Ranges []Range // in order, in steps of 1
}

// Shard returns shard i of n of p, which is as Build or Lower returns it, and of each tensor
// of p, which has the same number there, what the shard has. The n shards run side by side
// and meet in OpAllReduce: all of them do so equally often, in the same order.
//
// Attention is divided by heads; if there are fewer heads of keys and values than shards,
// several shards keep the same head. A projection from what all have to what is divided is
// cut by rows, the next one by columns, and the sum of what the shards make of it is what
// all have (arXiv 1909.08053 §3). Experts are cut like that, each of them. The embedding and
// the output head are cut by tokens. What mixes all columns of a row, as a norm of the
// whole width or a recurrent layer, every shard computes for itself.
//
// A draft is divided like the rest, but for the state that it is given of each token.
//
// A model whose heads n does not divide is refused, and so are encoders.
func Shard(p *Plan, n, i int) (*Plan, []Cut, error) {
	if err := shardable(p, n); err != nil {
		return nil, nil, err
	}
	whole := *p
	whole.Ops, whole.Draft = p.AllOps(), nil
	s := newSharding(&whole, n, i)
	s.draft = len(p.Ops)
	s.decide()
	return s.emit()
}

// shardable says why p cannot be divided by n.
func shardable(p *Plan, n int) error {
	switch {
	case n < 2 || n > MaxShards:
		return fmt.Errorf("a model in %d shards, expected 2 to %d", n, MaxShards)
	case p.Encodes():
		return errors.New("an encoder runs on one device")
	case p.Vocab < n:
		return fmt.Errorf("a vocabulary of %d in %d shards", p.Vocab, n)
	}
	heads, keys := 0, 0
	divides := func(n int) bool {
		for _, op := range p.AllOps() {
			if op.Kind != OpAttention {
				continue
			}
			heads, keys = int(op.I[AttnHeads]), int(p.Caches[op.I[AttnCache]].Heads)
			if heads%n != 0 || keys%n != 0 && n%keys != 0 {
				return false
			}
		}
		return true
	}
	if divides(n) {
		return nil
	}
	what := fmt.Sprintf("%d attention heads, %d of keys and values", heads, keys)
	var others []string
	for m := 2; m <= MaxShards; m++ {
		if divides(m) {
			others = append(others, strconv.Itoa(m))
		}
	}
	instead := "one device can run them"
	if len(others) > 0 {
		instead = alternatives(others) + " shards would do"
	}
	return fmt.Errorf("%s, cannot be divided into %d shards: %s", what, n, instead)
}

// VocabRange is which rows of a table with a row for each token a shard has.
func (p *Plan) VocabRange() Range {
	if p.Shards == 0 {
		return Range{Step: 1, N: p.Vocab}
	}
	first := p.Vocab * p.Shard / p.Shards
	return Range{First: first, Step: 1, N: p.Vocab*(p.Shard+1)/p.Shards - first}
}

// region is columns of a value that operations read and write as one.
type region struct {
	base, column, width int32
	split               bool // each shard has some of the columns
}

// slice is the part of something divided into equal pieces that a shard has: those from
// from on, up to to.
type slice struct {
	pieces, from, to int
	shared           bool // several shards have the same pieces
}

// columns is the part of width columns.
func (s slice) columns(width int) Range {
	first := width * s.from / s.pieces
	return Range{First: first, Step: 1, N: width*s.to/s.pieces - first}
}

// of is the part of a number that all pieces make together.
func (s slice) of(n int32) int32 { return int32(s.columns(int(n)).N) }

// sharding decides what of a plan is divided.
//
// A region is split if every operation that writes it is divided, and each one that reads
// it can do with a part. All are supposed to be split at first; those that cannot are taken
// out until nothing changes.
type sharding struct {
	p       *Plan // whose Ops are all, and its Draft none
	draft   int   // the first operation of the draft, or after the last one
	n, i    int
	regions []region
	at      map[region]int // number of a region, with split false
	outs    [][]int        // by operation: the regions that an OpLinear writes, by column
	caches  []bool         // whose heads are divided

	// Things that are divided in the same way are a class: regions and, after them, caches.
	class  []int   // representative of each
	slices []slice // by representative

	changed bool
}

func newSharding(p *Plan, n, i int) *sharding {
	s := &sharding{p: p, n: n, i: i, at: map[region]int{}, outs: make([][]int, len(p.Ops)), caches: make([]bool, len(p.Caches))}
	for c := range p.Caches {
		s.caches[c] = p.Caches[c].Kind == CacheKV
	}
	add := func(r region) int {
		if at, ok := s.at[r]; ok {
			return at
		}
		s.at[r] = len(s.regions)
		s.regions = append(s.regions, r)
		return len(s.regions) - 1
	}
	for o := range p.Ops {
		op := &p.Ops[o]
		for _, v := range op.values() {
			if op.Kind != OpLinear || v != &op.Out[0] {
				add(s.place(*v))
			}
		}
	}
	// A projection may write several regions, and columns that nobody reads.
	for o := range p.Ops {
		op := &p.Ops[o]
		if op.Kind != OpLinear {
			continue
		}
		whole := s.place(op.Out[0])
		if r, ok := s.at[whole]; ok {
			s.outs[o] = []int{r}
			continue
		}
		var inside []region
		for _, r := range s.regions {
			if r.base == whole.base && r.column >= whole.column && r.column+r.width <= whole.column+whole.width {
				inside = append(inside, r)
			}
		}
		slices.SortFunc(inside, func(a, b region) int { return int(a.column - b.column) })
		column, end := whole.column, whole.column+whole.width
		for _, r := range append(inside, region{base: whole.base, column: end}) {
			if r.column > column {
				s.outs[o] = append(s.outs[o], add(region{base: whole.base, column: column, width: r.column - column}))
			}
			if r.width > 0 {
				s.outs[o] = append(s.outs[o], add(r))
			}
			column = max(column, r.column+r.width)
		}
	}
	for r := range s.regions {
		s.regions[r].split = true
	}
	for a := range s.regions { // columns that are in two regions stay whole, and so does the value
		for b := range s.regions[:a] {
			x, y := s.regions[a], s.regions[b]
			if x.base == y.base && x.column < y.column+y.width && y.column < x.column+x.width {
				s.keepBase(x.base)
			}
		}
	}
	return s
}

// place is the region that value v is.
func (s *sharding) place(v int32) region {
	x := s.p.Values[v]
	if x.Of == None {
		return region{base: v, width: x.Width}
	}
	return region{base: x.Of, column: x.Column, width: x.Width}
}

// split reports whether value v, a region, is split.
func (s *sharding) split(v int32) bool { return v != None && s.regions[s.at[s.place(v)]].split }

// keep makes region r whole.
func (s *sharding) keep(r int) {
	if s.regions[r].split {
		s.regions[r].split, s.changed = false, true
	}
}

func (s *sharding) keepBase(base int32) {
	for r := range s.regions {
		if s.regions[r].base == base {
			s.keep(r)
		}
	}
}

// keepValues makes values whole that are there.
func (s *sharding) keepValues(list ...int32) {
	for _, v := range list {
		if v != None {
			s.keep(s.at[s.place(v)])
		}
	}
}

// decide finds what is split.
func (s *sharding) decide() {
	if s.draft < len(s.p.Ops) { // what its logits are made of becomes the state
		s.keepValues(s.p.Ops[s.draft].Out[0], s.p.Ops[len(s.p.Ops)-1].In[0])
	}
	for rowsOnly := range 2 {
		for s.changed = true; s.changed; {
			s.changed = false
			for o := range s.p.Ops {
				s.restrict(o, rowsOnly == 1)
			}
			if !s.changed {
				s.classify()
			}
		}
	}
}

// restrict makes whole what operation o does not take, or write, split. With rowsOnly a
// projection to what is split takes its input whole: before that it is not known yet
// whether what it writes is.
func (s *sharding) restrict(o int, rowsOnly bool) {
	op := &s.p.Ops[o]
	switch op.Kind {
	case OpLinear:
		split := false
		for _, r := range s.outs[o] {
			split = split || s.regions[r].split
		}
		if Activation(op.I[LinearAct]) != ActNone || rowsOnly && split {
			s.keepValues(op.In[0])
		}
		if len(s.outs[o]) > 1 && op.In[1] != None { // one could not tell what of it is added where
			for _, r := range s.outs[o] {
				s.keep(r)
			}
			split = false
		}
		if !split {
			s.keepValues(op.In[1])
		}
	case OpRMSNorm, OpLayerNorm:
		if int(op.I[NormGroup]) == s.p.Width(op.In[0]) {
			s.keepValues(op.Out[0])
		}
		s.elementwise(op)
	case OpActivate:
		if op.In[1] != None && s.p.Width(op.In[0]) == 1 {
			s.keepValues(op.In[0])
		}
		s.elementwise(op)
	case OpRope, OpAdd, OpScale, OpLinearHeads:
		s.elementwise(op)
	case OpAttention:
		cache := op.I[AttnCache]
		latent := s.p.Caches[cache].Kind == CacheLatent
		if !latent && !s.caches[cache] {
			s.keepValues(op.Out[0])
		}
		if !s.split(op.Out[0]) {
			s.keepValues(op.In[0], op.In[1])
			if s.caches[cache] {
				s.caches[cache], s.changed = false, true
			}
		}
	case OpCacheWrite:
		if !s.caches[op.I[WriteCache]] {
			s.keepValues(op.In[0], op.In[1])
		}
	default:
		s.keepValues(op.In[:]...)
		s.keepValues(op.Out[:]...)
	}
}

// elementwise is restrict of an operation whose inputs are split if its output is.
func (s *sharding) elementwise(op *Op) {
	if !s.split(op.Out[0]) {
		s.keepValues(op.In[:]...)
	}
}

// classify finds what is split in the same way, and how, and makes whole what cannot be.
func (s *sharding) classify() {
	count := len(s.regions) + len(s.caches)
	s.class = make([]int, count)
	for k := range s.class {
		s.class[k] = k
	}
	find := func(k int) int {
		for s.class[k] != k {
			k = s.class[k]
		}
		return k
	}
	// By what each node can be divided, and whether it must be into as many pieces: heads.
	pieces, heads := make([]int, count), make([]bool, count)
	for r := range s.regions {
		pieces[r] = int(s.regions[r].width)
	}
	for c := range s.caches {
		pieces[len(s.regions)+c], heads[len(s.regions)+c] = int(s.p.Caches[c].Heads), true
	}
	join := func(a, b int) {
		if a, b = find(a), find(b); a != b {
			s.class[b] = a
			pieces[a], heads[a] = divisor(pieces[a], pieces[b]), heads[a] || heads[b]
		}
	}
	restrict := func(k, n int, ofHeads bool) {
		k = find(k)
		pieces[k], heads[k] = divisor(pieces[k], n), heads[k] || ofHeads
	}
	for o := range s.p.Ops {
		op := &s.p.Ops[o]
		var same []int // nodes
		for _, v := range op.values() {
			if op.Kind != OpLinear && s.split(*v) {
				same = append(same, s.at[s.place(*v)])
			}
		}
		switch op.Kind {
		case OpLinear:
			if len(s.outs[o]) == 1 && s.regions[s.outs[o][0]].split {
				same = append(same, s.outs[o][0])
				if s.split(op.In[1]) {
					same = append(same, s.at[s.place(op.In[1])])
				}
			}
		case OpCacheWrite:
			if s.caches[op.I[WriteCache]] {
				same = append(same, len(s.regions)+int(op.I[WriteCache]))
			}
		}
		if len(same) == 0 {
			continue
		}
		for _, k := range same[1:] {
			join(same[0], k)
		}
		switch op.Kind {
		case OpAttention:
			restrict(same[0], int(op.I[AttnHeads]), true)
		case OpRope:
			restrict(same[0], int(op.I[RopeHeads]), true)
		case OpLinearHeads:
			restrict(same[0], int(op.I[HeadsCount]), true)
		case OpRMSNorm, OpLayerNorm:
			restrict(same[0], s.p.Width(op.In[0])/int(op.I[NormGroup]), false)
		}
	}
	s.slices = make([]slice, count)
	for k := range s.class {
		if find(k) != k {
			continue
		}
		width := pieces[k]
		if k < len(s.regions) {
			width = int(s.regions[k].width)
		}
		s.slices[k] = s.slice(pieces[k], width, heads[k])
	}
	for k := range s.class {
		s.class[k] = find(k)
	}
	for r := range s.regions {
		if s.regions[r].split && s.slices[s.class[r]].pieces == 0 {
			s.keep(r)
		}
	}
	for c := range s.caches {
		// A shard that shares heads has one.
		if x := s.slices[s.class[len(s.regions)+c]]; s.caches[c] && (x.pieces == 0 || x.shared && x.pieces != int(s.p.Caches[c].Heads)) {
			s.caches[c], s.changed = false, true
		}
	}
	for o := range s.p.Ops { // what two shards have would be added twice
		op := &s.p.Ops[o]
		if op.Kind == OpLinear && s.split(op.In[0]) && s.slices[s.class[s.at[s.place(op.In[0])]]].shared {
			s.keepValues(op.In[0])
		}
	}
}

// slice is the shard's part of width columns that can be divided into so many pieces, or a
// divisor of that many; of heads, into just as many. It has no pieces if there are too few.
func (s *sharding) slice(pieces, width int, heads bool) slice {
	if heads {
		switch {
		case pieces%s.n == 0:
			return s.share(pieces)
		case pieces > 0 && s.n%pieces == 0:
			at := s.i * pieces / s.n
			return slice{pieces, at, at + 1, true}
		}
		return slice{}
	}
	// Pieces of whole groups of quantised formats: the largest that make shares even, or
	// nearly so.
	least := 0
	for unit := 256; unit > 0; unit /= 2 {
		if width%unit != 0 || pieces%(width/unit) != 0 {
			continue
		}
		n := width / unit
		if n%s.n == 0 || n >= 8*s.n {
			return s.share(n)
		}
		if least == 0 && n >= s.n {
			least = n
		}
	}
	if least == 0 {
		return slice{}
	}
	return s.share(least)
}

func (s *sharding) share(pieces int) slice {
	return slice{pieces: pieces, from: pieces * s.i / s.n, to: pieces * (s.i + 1) / s.n}
}

// divisor is the greatest common one.
func divisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// emission is the shard's plan as it is written.
type emission struct {
	*sharding
	out    Plan
	column []int32 // by region: where it begins in its value
	cuts   []Cut
	cut    []bool // tensors of which it is known
	views  map[Value]int32
	err    error
}

func (s *sharding) emit() (*Plan, []Cut, error) {
	p := s.p
	e := &emission{
		sharding: s,
		out:      *p,
		column:   make([]int32, len(s.regions)),
		cuts:     make([]Cut, len(p.Tensors)),
		cut:      make([]bool, len(p.Tensors)),
		views:    map[Value]int32{},
	}
	e.out.Shards, e.out.Shard = s.n, s.i
	e.out.Ops = nil
	e.out.Tables = slices.Clone(p.Tables)
	e.out.Caches = slices.Clone(p.Caches)
	for c, divided := range s.caches {
		if divided {
			e.out.Caches[c].Heads = s.slices[s.class[len(s.regions)+c]].of(p.Caches[c].Heads)
		}
	}
	e.layOut()
	tokens := s.tokenTables()
	model := 0 // operations, and then those of the draft
	for o := range p.Ops {
		if o == s.draft {
			model = len(e.out.Ops)
		}
		e.op(o, tokens)
	}
	if e.err != nil {
		return nil, nil, e.err
	}
	if s.draft < len(p.Ops) {
		e.out.Ops, e.out.Draft = e.out.Ops[:model:model], e.out.Ops[model:]
	}
	e.out.Tensors = slices.Clone(p.Tensors)
	for t := range e.out.Tensors {
		x := &e.out.Tensors[t]
		x.Parts = nil
		if cut := e.cuts[t]; cut.Ranges != nil {
			x.Shape = slices.Clone(x.Shape)
			x.Shape[cut.Axis] = 0
			for _, r := range cut.Ranges {
				x.Shape[cut.Axis] += r.N
			}
		}
	}
	return &e.out, e.cuts, nil
}

// layOut gives values the widths that they have in the shard.
func (e *emission) layOut() {
	e.out.Values = slices.Clone(e.p.Values)
	order := make([]int, len(e.regions))
	for r := range order {
		order[r] = r
		e.column[r] = e.regions[r].column
	}
	slices.SortFunc(order, func(a, b int) int { return int(e.regions[a].column - e.regions[b].column) })
	divided := map[int32]bool{}
	for _, r := range e.regions {
		divided[r.base] = divided[r.base] || r.split
	}
	ends := map[int32]int32{}
	for _, r := range order {
		x := e.regions[r]
		if !divided[x.base] {
			continue
		}
		e.column[r] = ends[x.base]
		ends[x.base] += e.widthOf(r)
	}
	for v := range e.out.Values {
		x := &e.out.Values[v]
		r, ok := e.at[e.place(int32(v))]
		switch {
		case x.Of == None && divided[int32(v)]:
			x.Width = ends[int32(v)]
		case ok && divided[x.Of]:
			x.Width, x.Column = e.widthOf(r), e.column[r]
		case x.Of != None && divided[x.Of]: // nobody names it
			*x = Value{Width: 1, Of: x.Of}
		}
	}
}

// widthOf is that of a region in the shard.
func (e *emission) widthOf(r int) int32 {
	if x := e.regions[r]; !x.split {
		return x.width
	}
	return e.slices[e.class[r]].of(e.regions[r].width)
}

// tokenTables says of each tensor whether it is a table of tokens and nothing else.
func (s *sharding) tokenTables() []bool {
	list := make([]bool, len(s.p.Tensors))
	for t := range list {
		list[t] = true
	}
	for _, op := range s.p.Ops {
		for k, t := range op.Weight {
			if t != None && !(k == 0 && (op.Kind == OpLogits || op.Kind == OpEmbed && op.I[EmbedBeside] == 0)) {
				list[t] = false
			}
		}
	}
	return list
}

// has says what the shard has of tensor t, if it is one.
func (e *emission) has(t int32, axis int, ranges ...Range) {
	if t == None {
		return
	}
	c := Cut{}
	if len(ranges) > 0 {
		c = Cut{Axis: axis, Ranges: ranges}
	}
	if e.cut[t] && !(e.cuts[t].Axis == c.Axis && slices.Equal(e.cuts[t].Ranges, c.Ranges)) && e.err == nil {
		e.err = fmt.Errorf("tensor %q cannot be divided: it is used in two ways", e.p.Tensors[t].Name)
	}
	e.cuts[t], e.cut[t] = c, true
}

// part is the columns of value v that belong to slice x: v itself, if it is split.
func (e *emission) part(v int32, x slice) int32 {
	if v == None || e.split(v) {
		return v
	}
	r := e.at[e.place(v)]
	at := x.columns(int(e.regions[r].width))
	view := Value{Width: int32(at.N), Of: e.regions[r].base, Column: e.column[r] + int32(at.First)}
	if _, ok := e.views[view]; !ok {
		e.views[view] = int32(len(e.out.Values))
		e.out.Values = append(e.out.Values, view)
	}
	return e.views[view]
}

// sum makes op write its part of a sum, and the sum over all shards what it would write.
func (e *emission) sum(op Op) {
	all := NewOp(OpAllReduce)
	all.Out[0] = op.Out[0]
	if op.Kind == OpLinear {
		all.In[1], all.F[AddScale] = op.In[1], op.F[LinearScale]
		op.In[1], op.F[LinearScale] = None, 0
	}
	all.In[0] = int32(len(e.out.Values))
	e.out.Values = append(e.out.Values, Value{Width: e.out.Values[op.Out[0]].Width, Of: None})
	op.Out[0] = all.In[0]
	e.out.Ops = append(e.out.Ops, op, all)
}

// once is a bias of a sum, which one shard adds.
func (e *emission) once(t *int32) {
	e.has(*t, 0)
	if e.i > 0 {
		*t = None
	}
}

// op writes operation o.
func (e *emission) op(o int, tokens []bool) {
	op := e.p.Ops[o]
	w := op.Weight
	switch op.Kind {
	case OpEmbed:
		if w[0] != None && tokens[w[0]] {
			e.has(w[0], 0, e.out.VocabRange())
			e.sum(op)
			return
		}
	case OpLogits:
		if tokens[w[0]] {
			e.has(w[0], 0, e.out.VocabRange())
			e.has(w[1], 0)
			e.out.Ops = append(e.out.Ops, op)
			return
		}
	case OpExperts:
		inner := e.p.Tensors[w[0]].Shape[1]
		if x := e.slice(inner, inner, false); x.pieces > 0 {
			at := x.columns(inner)
			for _, t := range w[:4] {
				e.has(t, 1, at)
			}
			e.has(w[4], 2, at)
			e.once(&op.Weight[5])
			e.sum(op)
			return
		}
	case OpLinear:
		if e.linear(o) {
			return
		}
	case OpCacheWrite:
		if e.caches[op.I[WriteCache]] {
			x := e.slices[e.class[len(e.regions)+int(op.I[WriteCache])]]
			op.In[0], op.In[1] = e.part(op.In[0], x), e.part(op.In[1], x)
			e.out.Ops = append(e.out.Ops, op)
			return
		}
	default:
		if op.Out[0] != None && e.split(op.Out[0]) {
			e.divided(op)
			return
		}
	}
	for _, t := range w {
		e.has(t, 0)
	}
	e.out.Ops = append(e.out.Ops, op)
}

// linear writes a projection that is divided, and reports whether it is.
func (e *emission) linear(o int) bool {
	op := e.p.Ops[o]
	if e.split(op.In[0]) {
		x := e.slices[e.class[e.at[e.place(op.In[0])]]]
		e.has(op.Weight[0], 1, x.columns(e.p.Width(op.In[0])))
		e.once(&op.Weight[1])
		e.sum(op)
		return true
	}
	divided := false
	var rows []Range
	first := e.place(op.Out[0]).column
	for _, r := range e.outs[o] {
		region := e.regions[r]
		at := Range{Step: 1, N: int(region.width)}
		if region.split {
			divided = true
			at = e.slices[e.class[r]].columns(int(region.width))
		}
		at.First += int(region.column - first)
		rows = append(rows, at)
	}
	if !divided {
		return false
	}
	for _, t := range op.Weight {
		e.has(t, 0, rows...)
	}
	if len(e.outs[o]) == 1 {
		op.In[1] = e.part(op.In[1], e.slices[e.class[e.outs[o][0]]])
	}
	e.out.Ops = append(e.out.Ops, op)
	return true
}

// divided writes an operation of which each shard computes some columns.
func (e *emission) divided(op Op) {
	x := e.slices[e.class[e.at[e.place(op.Out[0])]]]
	width := e.p.Width(op.Out[0])
	for k, t := range op.Weight {
		switch {
		case t == None:
		case op.Kind == OpLinearHeads:
			e.has(t, 0, x.columns(int(op.I[HeadsCount])))
		case op.Kind == OpAttention:
			e.has(t, 0, x.columns(int(op.I[AttnHeads])))
		case op.Kind != OpActivate && e.p.Tensors[t].Shape[0] == width: // a number for each column
			e.has(op.Weight[k], 0, x.columns(width))
		default:
			e.has(t, 0)
		}
	}
	for k, v := range op.In {
		if op.Kind == OpActivate && k == 0 && v != None && op.In[1] != None && e.p.Width(v) == 1 {
			continue // stands for all columns
		}
		op.In[k] = e.part(v, x)
	}
	switch op.Kind {
	case OpLinearHeads:
		op.I[HeadsCount] = x.of(op.I[HeadsCount])
	case OpRope:
		op.I[RopeHeads] = x.of(op.I[RopeHeads])
	case OpAttention:
		if t := op.I[AttnSlopes]; t != None {
			at := x.columns(int(op.I[AttnHeads]))
			op.I[AttnSlopes] = int32(len(e.out.Tables))
			e.out.Tables = append(e.out.Tables, e.p.Tables[t][at.First:][:at.N])
		}
		op.I[AttnHeads] = x.of(op.I[AttnHeads])
	}
	e.out.Ops = append(e.out.Ops, op)
}

// alternatives lists choices for a message.
func alternatives(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}
