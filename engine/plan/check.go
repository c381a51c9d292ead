package plan

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Bounds of a plan. Far above any model, and small enough that no product that a
// backend forms of sizes and a batch's limits overflows 64 bits.
const (
	maxElements  = 1 << 40 // of a tensor
	maxState     = 1 << 30 // elements of a state
	maxRowsCount = 1 << 12 // of tokens that OpRows makes one row of
	maxCount     = 1 << 20 // of operations, values, tensors, tables and caches, each
	maxTotal     = 1 << 32 // of the widths of all values, elements of a position in all caches, entries of all tables
)

// operands says which operands a kind has, a letter for each place: r what is
// required, o what is optional.
type operands struct {
	in, out, weights string
	tokens           bool // needs a row per token: not after OpRows
}

var operandsOf = [numKinds]operands{
	OpEmbed:         {in: "", out: "r", weights: "o", tokens: true},
	OpEmbedPosition: {in: "", out: "r", weights: "r", tokens: true},
	OpRMSNorm:       {in: "ro", out: "r", weights: "o"},
	OpLayerNorm:     {in: "r", out: "r", weights: "oo"},
	OpLinear:        {in: "ro", out: "r", weights: "rooo"},
	OpLinearHeads:   {in: "r", out: "r", weights: "r"},
	OpRope:          {in: "r", out: "r", tokens: true},
	OpCacheWrite:    {in: "ro", tokens: true},
	OpAttention:     {in: "ro", out: "r", weights: "o", tokens: true},
	OpActivate:      {in: "ro", out: "r", weights: "oo"},
	OpAdd:           {in: "rr", out: "r"},
	OpRoute:         {in: "r", out: "rr", weights: "oo"},
	OpExperts:       {in: "rrr", out: "r", weights: "roooro"},
	OpConv:          {in: "r", out: "r", weights: "ro", tokens: true},
	OpGatedDelta:    {in: "rrrrr", out: "r", weights: "rr", tokens: true},
	OpSSM:           {in: "rrrr", out: "r", weights: "rrr", tokens: true},
	OpRows:          {in: "r", out: "r", tokens: true},
	OpLogits:        {in: "r", weights: "ro"},
	OpOutput:        {in: "r"},
	OpScale:         {in: "r", out: "r", weights: "o"},
	OpSparsify:      {in: "r", out: "r"},
	OpJoin:          {in: "rroooo", out: "r"},
	OpSelectiveScan: {in: "rrrr", out: "r", weights: "rr", tokens: true},
	OpEmbeddingBag:  {in: "rr", out: "r", weights: "r"},
	OpAllReduce:     {in: "ro", out: "r"},
}

// Check verifies all of a plan that a backend trusts: that every operation has
// the operands its kind has, in range, of fitting widths and shapes, written
// before they are read and overwritten only where that is allowed; that caches,
// groups, tables and parts of tensors are consistent; that all sizes are bounded.
// It takes plans as built, shared and lowered. The error is one line and names the
// operation. A plan that passes makes no backend fail, but for what its CheckPlan
// refuses.
func Check(p *Plan) error {
	c := checker{
		Plan:    p,
		written: make([][]span, len(p.Values)),
		before:  make([]bool, len(p.Values)),
		model:   make([]bool, len(p.Values)),
		experts: make([]choice, len(p.Values)),
		writers: make([]int, len(p.Caches)),
	}
	for _, check := range []func() error{c.sizes, c.values, c.tables, c.tensors, c.caches} {
		if err := check(); err != nil {
			return err
		}
	}
	for i := range p.Ops {
		op := &p.Ops[i]
		if err := c.op(op, i == len(p.Ops)-1); err != nil {
			return fmt.Errorf("operation %d, %v: %w", i, op.Kind, err)
		}
	}
	c.rows = false // the draft has a row per token again
	model := slices.Clone(c.written)
	for i := range p.Draft {
		if i == 1 {
			if err := c.draftState(model); err != nil {
				return fmt.Errorf("operation 0 of the draft, %v: %w", p.Draft[0].Kind, err)
			}
		}
		if err := c.draftOp(&p.Draft[i], i == len(p.Draft)-1); err != nil {
			return fmt.Errorf("operation %d of the draft, %v: %w", i, p.Draft[i].Kind, err)
		}
	}
	for i, n := range c.writers {
		if n == 0 {
			return fmt.Errorf("cache %d: no operation writes it", i)
		}
	}
	return nil
}

// checker walks a plan in order, knowing what each value with memory of its own
// holds.
type checker struct {
	*Plan
	written [][]span // columns, in order, without neighbours
	before  []bool   // by value that is written: it has a row per token
	model   []bool   // likewise: what it holds is of the model, which the draft does not read
	experts []choice // that it holds
	writers []int    // operations that have written each cache
	rows    bool     // OpRows has been, in the list that is walked
}

// span is the columns from, from+1, …, to-1.
type span struct{ from, to int32 }

// choice is what OpRoute has written to a value: numbers below experts.
type choice struct {
	at      span
	experts int
}

func (c *checker) sizes() error {
	leastVocab := 1
	if c.Encodes() {
		leastVocab = 0
	}
	for _, n := range []struct {
		what      string
		n, lo, hi int
	}{
		{"vocabulary", c.Vocab, leastVocab, maxDimension},
		{"hidden width", c.Hidden, 1, maxDimension},
		{"width of embedding rows", c.EmbedsWidth, 0, maxDimension},
		{"maximal position", c.MaxPos, 1, maxPosition},
		{"number of operations", len(c.Ops), 1, maxCount},
		{"number of operations of the draft", len(c.Draft), 0, maxCount},
		{"number of values", len(c.Values), 1, maxCount},
		{"number of tensors", len(c.Tensors), 1, maxCount},
		{"number of tables", len(c.Tables), 0, maxCount},
		{"number of caches", len(c.Caches), 0, maxCount},
		{"number of groups", len(c.Groups), 0, len(c.Caches)},
		{"rope length", c.RopeOriginal, 0, maxPosition},
		{"number of shards", c.Shards, 0, MaxShards},
		{"shard", c.Shard, 0, max(c.Shards-1, 0)},
	} {
		if n.n < n.lo || n.n > n.hi {
			return fmt.Errorf("%s %d, expected %d to %d", n.what, n.n, n.lo, n.hi)
		}
	}
	return nil
}

func (c *checker) values() error {
	total := 0
	for i, v := range c.Values {
		if v.Width < 1 || v.Width > maxDimension {
			return fmt.Errorf("value %d: width %d, expected 1 to %d", i, v.Width, maxDimension)
		}
		if v.Of == None {
			if v.Column != 0 {
				return fmt.Errorf("value %d: column %d of no value", i, v.Column)
			}
			total += int(v.Width)
			continue
		}
		if v.Of < 0 || int(v.Of) >= len(c.Values) || c.Values[v.Of].Of != None {
			return fmt.Errorf("value %d: a view of value %d, which is none or a view", i, v.Of)
		}
		if v.Column < 0 || v.Column > c.Values[v.Of].Width-v.Width {
			return fmt.Errorf("value %d: columns %d to %d of a value %d wide", i, v.Column, int(v.Column)+int(v.Width), c.Values[v.Of].Width)
		}
	}
	if total > maxTotal {
		return fmt.Errorf("values are %d wide together, expected at most %d", total, maxTotal)
	}
	return nil
}

func (c *checker) tables() error {
	total := 0
	for i, list := range c.Tables {
		for _, f := range list {
			if !finite(f) {
				return fmt.Errorf("table %d: entry %g", i, f)
			}
		}
		if total += len(list); len(list) == 0 || total > maxTotal {
			return fmt.Errorf("table %d: %d entries, %d with those before", i, len(list), total)
		}
	}
	return nil
}

func (c *checker) tensors() error {
	for i := range c.Tensors {
		if err := c.Tensors[i].check(); err != nil {
			return fmt.Errorf("tensor %d, %s: %w", i, c.Tensors[i].Name, err)
		}
	}
	return nil
}

// check verifies a tensor's shape and that its parts, if any, fill it.
func (t *Tensor) check() error {
	if len(t.Shape) > 3 {
		return fmt.Errorf("shape %v, expected at most three dimensions", t.Shape)
	}
	if err := checkShape(t.Shape); err != nil {
		return err
	}
	if len(t.Parts) == 0 {
		return nil
	}
	rows, cols := whole("", t.Shape...).size()
	parts := slices.SortedFunc(slices.Values(t.Parts), func(a, b Part) int { return cmp.Compare(a.To, b.To) })
	at := 0
	for _, p := range parts {
		if err := p.check(); err != nil {
			return fmt.Errorf("part %s: %w", p.Name, err)
		}
		n, width := p.size()
		if p.To != at || width != cols || n > rows-at {
			return fmt.Errorf("part %s: %d rows of %d from row %d on, expected at most %d of %d from %d on", p.Name, n, width, p.To, rows-at, cols, at)
		}
		at += n
	}
	if at != rows {
		return fmt.Errorf("parts have %d rows, expected %d", at, rows)
	}
	return nil
}

func (p *Part) check() error {
	if err := checkShape(p.Shape); err != nil {
		return err
	}
	if p.Stored != nil {
		if err := checkShape(p.Stored); err != nil && len(p.Stored) > 0 { // a scalar may be stored
			return err
		}
		if elements(p.Stored) != elements(p.Shape) || p.Encoding != EncodingPlain {
			return fmt.Errorf("shape %v of what is stored as %v", p.Shape, p.Stored)
		}
	}
	rows, cols := whole("", p.Shape...).size()
	for _, r := range []struct {
		what string
		Range
		count int
	}{{"rows", p.Rows, rows}, {"columns", p.Cols, cols}} {
		if r.First < 0 || r.First >= r.count || r.Step < 1 || r.N < 1 || r.N-1 > (r.count-1-r.First)/r.Step {
			return fmt.Errorf("%s %d, %d more in steps of %d, of %d", r.what, r.First, r.N-1, r.Step, r.count)
		}
	}
	if p.Quarter != 0 && (p.Encoding != EncodingTernary || p.Quarter < 0 || p.Quarter > 3) {
		return fmt.Errorf("quarter %d", p.Quarter)
	}
	switch p.Encoding {
	case EncodingPlain:
		if p.Scales != "" {
			return errors.New("plain elements have no scales")
		}
	case EncodingMXFP4:
		if p.Scales == "" || len(p.Shape) != 3 || cols%mxfp4Block != 0 {
			return fmt.Errorf("MXFP4 of shape %v, scales %q: expected three dimensions in blocks of %d", p.Shape, p.Scales, mxfp4Block)
		}
	case EncodingTernary:
		if p.Scales == "" || len(p.Shape) != 2 {
			return fmt.Errorf("ternary numbers of shape %v, scale %q: expected two dimensions", p.Shape, p.Scales)
		}
	default:
		return fmt.Errorf("unknown encoding %d", p.Encoding)
	}
	return nil
}

// elements is how many a tensor of a shape that has been checked has.
func elements(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// mxfp4Block is the number of elements that share a scale.
const mxfp4Block = 32

func checkShape(shape []int) error {
	elements := 1
	for _, n := range shape {
		if n < 1 || n > maxDimension || n > maxElements/elements {
			return fmt.Errorf("shape %v: dimensions of 1 to %d, at most 2^40 elements", shape, maxDimension)
		}
		elements *= n
	}
	if len(shape) == 0 {
		return errors.New("a scalar, expected a vector or more")
	}
	return nil
}

func (c *checker) caches() error {
	used := make([]bool, len(c.Groups))
	total := 0
	for i := range c.Caches {
		x := &c.Caches[i]
		if x.Heads < 1 || x.KeyWidth < 1 || x.ValueWidth < 1 || x.Window < 0 ||
			max(x.Heads, x.KeyWidth, x.ValueWidth) > maxDimension || int64(x.KeyWidth)*int64(x.ValueWidth) > maxElements {
			return fmt.Errorf("cache %d: %d heads of %d and %d, window %d", i, x.Heads, x.KeyWidth, x.ValueWidth, x.Window)
		}
		switch {
		case x.Format != F32 && (x.Kind == CacheState || x.Format != c.CacheFormat()):
			return fmt.Errorf("cache %d: format %v, expected %v", i, x.Format, c.CacheFormat())
		case x.Format != F32 && x.Format != F16 && (!x.Format.Valid() || x.Format.Kind() != W8 || x.Format.Minimum()):
			return fmt.Errorf("cache %d: format %v, expected F32, F16 or W8", i, x.Format)
		case x.Kind == CacheLatent && (x.Heads != 1 || x.ValueWidth > x.KeyWidth):
			return fmt.Errorf("cache %d: a latent of %d heads, values %d of %d wide", i, x.Heads, x.ValueWidth, x.KeyWidth)
		case x.Kind == CacheState && (x.Group != None || x.Window != 0):
			return fmt.Errorf("cache %d: a state in group %d, window %d", i, x.Group, x.Window)
		case x.Kind == CacheState:
			if int64(x.KeyWidth)*int64(x.ValueWidth) > maxState/int64(x.Heads) {
				return fmt.Errorf("cache %d: a state of more than %d elements", i, maxState)
			}
		case x.Kind != CacheKV && x.Kind != CacheLatent:
			return fmt.Errorf("cache %d: unknown kind %d", i, x.Kind)
		case x.Group < 0 || int(x.Group) >= len(c.Groups):
			return fmt.Errorf("cache %d: group %d of %d", i, x.Group, len(c.Groups))
		case x.Window != c.Groups[x.Group].Window:
			return fmt.Errorf("cache %d: window %d in a group of %d", i, x.Window, c.Groups[x.Group].Window)
		default:
			used[x.Group] = true
			if total += x.Elements(); total > maxTotal {
				return fmt.Errorf("cache %d: more than %d elements for a position", i, maxTotal)
			}
		}
	}
	if g := slices.Index(used, false); g >= 0 {
		return fmt.Errorf("group %d: no cache is in it", g)
	}
	return nil
}

// place is the value that has v's memory, and which of its columns are v.
func (c *checker) place(v int32) (base int32, at span) {
	x := c.Values[v]
	if x.Of == None {
		return v, span{0, x.Width}
	}
	return x.Of, span{x.Column, x.Column + x.Width}
}

func (c *checker) op(op *Op, last bool) error {
	if op.Kind < 0 || op.Kind >= numKinds {
		return fmt.Errorf("unknown kind %d", op.Kind)
	}
	if (op.Kind == OpLogits || op.Kind == OpOutput) != last {
		return errors.New("logits or output are the last operation and no other")
	}
	if err := c.operands(op); err != nil {
		return err
	}
	if err := c.rules(op); err != nil {
		return err
	}
	return c.flow(op)
}

// draftOp checks an operation of the draft.
func (c *checker) draftOp(op *Op, last bool) error {
	switch op.Kind {
	case OpConv, OpGatedDelta, OpSSM, OpSelectiveScan: // would take in tokens that turn out to be wrong
		return errors.New("a draft keeps no states")
	case OpOutput:
		return errors.New("a draft ends in logits")
	}
	if c.Encodes() {
		return errors.New("an encoder drafts no tokens")
	}
	return c.op(op, last)
}

// draftState checks that the first operation of the draft makes a state that can be
// replaced by what the last one makes logits of. The model has written so much.
func (c *checker) draftState(model [][]span) error {
	op, last := &c.Draft[0], &c.Draft[len(c.Draft)-1]
	state, own := op.Out[0], last.In[0]
	switch {
	case state == None || op.Out[1] != None || c.Values[state].Of != None:
		return errors.New("a draft begins with an operation that makes one value, its state")
	case !c.before[state]:
		return fmt.Errorf("the state, value %d, has no row per token", state)
	case own >= 0 && int(own) < len(c.Values) && c.Width(own) != c.Width(state):
		return fmt.Errorf("the state is %d wide, and what the logits are made of %d", c.Width(state), c.Width(own))
	}
	for v, spans := range model {
		c.model[v] = len(spans) > 0 && int32(v) != state
	}
	return nil
}

// operands checks which operands there are, that they exist, and that numbers
// are finite and those that the kind does not have 0.
func (c *checker) operands(op *Op) error {
	kind := operandsOf[op.Kind]
	for _, list := range []struct {
		what, letters string
		operands      []int32
		count         int
	}{
		{"input", kind.in, op.In[:], len(c.Values)},
		{"output", kind.out, op.Out[:], len(c.Values)},
		{"weight", kind.weights, op.Weight[:], len(c.Tensors)},
	} {
		for k, v := range list.operands {
			required := k < len(list.letters) && list.letters[k] == 'r'
			switch {
			case v == None && required:
				return fmt.Errorf("%s %d is missing", list.what, k)
			case v != None && k >= len(list.letters):
				return fmt.Errorf("%s %d is one too many", list.what, k)
			case v != None && (v < 0 || int(v) >= list.count):
				return fmt.Errorf("%s %d is %d of %d", list.what, k, v, list.count)
			}
		}
	}
	for k, n := range op.I {
		if k >= len(intNames[op.Kind]) && n != 0 {
			return fmt.Errorf("integer %d is %d, expected 0", k, n)
		}
	}
	for k, f := range op.F {
		if !finite(f) || k >= len(floatNames[op.Kind]) && f != 0 {
			return fmt.Errorf("number %d is %g, expected 0 or a finite one that the kind has", k, f)
		}
	}
	return nil
}

// flow checks that inputs are written and on the same side of OpRows, that
// outputs overlap no input but where allowed, and remembers what is written.
func (c *checker) flow(op *Op) error {
	if c.rows && operandsOf[op.Kind].tokens {
		return errors.New("needs a row per token, after rows were picked")
	}
	for k, v := range op.In {
		if v == None {
			continue
		}
		base, at := c.place(v)
		if !slices.ContainsFunc(c.written[base], func(w span) bool { return w.from <= at.from && at.to <= w.to }) {
			return fmt.Errorf("input %d, value %d, is not computed yet", k, v)
		}
		if c.rows && c.before[base] {
			return fmt.Errorf("input %d, value %d, has a row per token, after rows were picked", k, v)
		}
		if !c.rows && !c.before[base] {
			return fmt.Errorf("input %d, value %d, is of the rows picked before the draft", k, v)
		}
		if c.model[base] {
			return fmt.Errorf("input %d, value %d, is of the model, of which a draft reads its state alone", k, v)
		}
	}
	if op.Kind == OpRows {
		c.rows = true
	}
	for k, v := range op.Out {
		if v == None {
			continue
		}
		base, at := c.place(v)
		if used := len(c.written[base]) > 0; used && c.rows && c.before[base] {
			return fmt.Errorf("output %d, value %d, has memory of rows per token, after rows were picked", k, v)
		} else if used && !c.rows && !c.before[base] {
			return fmt.Errorf("output %d, value %d, has memory of the rows picked before the draft", k, v)
		}
		if c.before[base] = !c.rows; c.model[base] {
			c.written[base], c.model[base] = nil, false
		}
		for j, in := range op.In {
			if in == None {
				continue
			}
			if b, from := c.place(in); b == base && from.from < at.to && at.from < from.to && !(op.mayOverwrite(j) && from == at) {
				return fmt.Errorf("output %d, value %d, overwrites input %d", k, v, j)
			}
		}
		for _, other := range op.Out[:k] {
			if b, to := c.place(other); b == base && to.from < at.to && at.from < to.to {
				return fmt.Errorf("output %d, value %d, overwrites another", k, v)
			}
		}
		c.written[base] = join(c.written[base], at)
		c.experts[base] = choice{}
	}
	if op.Kind == OpRoute {
		base, at := c.place(op.Out[0])
		c.experts[base] = choice{at, c.Width(op.In[0])}
	}
	return nil
}

// join adds a span to those of a list, which are in order and do not touch.
func join(list []span, s span) []span {
	var joined []span
	for i, x := range list {
		switch {
		case x.to < s.from:
			joined = append(joined, x)
		case x.from > s.to:
			return append(append(joined, s), list[i:]...)
		default:
			s = span{min(s.from, x.from), max(s.to, x.to)}
		}
	}
	return append(joined, s)
}

func finite(f float32) bool { return !math.IsNaN(float64(f)) && !math.IsInf(float64(f), 0) }
