package plan

import "fmt"

// rules checks the widths, shapes and numbers of an operation whose operands are
// there.
func (c *checker) rules(op *Op) error {
	var r rule
	in := func(k int) int { return c.widthOf(op.In[k]) }
	out := c.widthOf(op.Out[0])
	shape := func(k int, want ...int) { r.shape(c.Plan, op.Weight[k], k, want...) }
	i := func(k int) int { return int(op.I[k]) }

	switch op.Kind {
	case OpEmbed:
		r.between("beside", i(EmbedBeside), 0, 1)
		if i(EmbedBeside) == 1 {
			r.require(op.Weight[0] != None, "a table beside the embedding without a weight")
			r.require(i(EmbedFirst) == 0, "first column %d of a table beside the embedding", i(EmbedFirst))
			if r.err == nil {
				shape(0, c.Tensors[op.Weight[0]].Shape[0], out)
			}
			break
		}
		first := i(EmbedFirst)
		r.between("first column", first, 0, c.RowWidth()-out)
		if first == 0 || op.Weight[0] != None {
			if c.Vocab > 0 {
				r.width("output", out, c.Hidden)
			}
			r.require((op.Weight[0] == None) == (c.Vocab == 0), "weight 0 is %d, of a vocabulary of %d", op.Weight[0], c.Vocab)
		}
		r.tokenTable(c.Plan, op.Weight[0], out)

	case OpEmbedPosition:
		rows := c.Tensors[op.Weight[0]].Shape[0]
		shape(0, rows, out)
		r.between("offset", i(EmbedOffset), 0, rows-1)
		r.require(c.MaxPos <= rows-i(EmbedOffset), "%d positions from %d on, expected %d", rows-i(EmbedOffset), i(EmbedOffset), c.MaxPos)

	case OpRMSNorm, OpLayerNorm:
		r.width("output", out, in(0))
		r.divides("group", i(NormGroup), in(0))
		r.require(op.F[NormEps] >= 0, "eps %g", op.F[NormEps])
		for k := range 2 {
			if w := op.Weight[k]; w != None && len(c.Tensors[w].Shape) == 1 && c.Tensors[w].Shape[0] == in(0) {
				continue
			}
			shape(k, i(NormGroup))
		}
		if op.Kind == OpRMSNorm {
			r.between("gate", i(NormGate), 0, int(numGates)-1)
			r.require((op.In[1] != None) == (Gate(op.I[NormGate]) != GateNone), "gate %v, and input 1 is %d", Gate(op.I[NormGate]), op.In[1])
			r.width("input 1", in(1), in(0))
		}

	case OpLinear:
		shape(0, out, in(0))
		shape(1, out)
		shape(2, out, in(0))
		shape(3, out)
		r.width("input 1", in(1), out)
		r.activation(op, i(LinearAct), op.Weight[2] != None)
		r.require(op.Weight[2] != None || op.Weight[3] == None, "a second bias without a second matrix")
		r.require(op.Weight[2] == None || op.I[LinearAct] != int32(ActNone), "two matrices without an activation")

	case OpLinearHeads:
		heads := i(HeadsCount)
		r.divides("heads", heads, in(0))
		r.divides("heads", heads, out)
		if r.err == nil {
			shape(0, heads, out/heads, in(0)/heads)
		}

	case OpRope:
		r.require(op.Out[0] == op.In[0], "output %d is not input %d", op.Out[0], op.In[0])
		r.heads(in(0), i(RopeHeads), i(RopeHeadDim))
		r.between("first", i(RopeFirst), 0, i(RopeHeadDim))
		r.between("rotary", i(RopeRotary), 2, i(RopeHeadDim)-i(RopeFirst))
		r.require(i(RopeRotary)%2 == 0, "rotary %d is odd", i(RopeRotary))
		r.between("interleaved", i(RopeInterleaved), 0, 1)
		r.table(c.Plan, "table", op.I[RopeTable], i(RopeRotary)/2, false)
		r.table(c.Plan, "long table", op.I[RopeLong], i(RopeRotary)/2, true)
		r.table(c.Plan, "axes", op.I[RopeAxes], i(RopeRotary)/2, true)
		if r.err == nil && op.I[RopeAxes] != None {
			for _, axis := range c.Tables[op.I[RopeAxes]] {
				r.require(axis == 0 || axis == 1 || axis == 2, "axis %g", axis)
			}
		}
		long, original := op.I[RopeLong] != None, i(RopeOriginal)
		r.require(original == 0 || original == c.RopeOriginal && long != c.RopeDynamic, "length %d, long table %d; the plan's are %d, dynamic %v", original, op.I[RopeLong], c.RopeOriginal, c.RopeDynamic)
		r.require(original > 0 || !long, "a long table without a length")
		if original > 0 && !long {
			r.require(i(RopeRotary) > 2 && op.F[RopeTheta] > 1 && op.F[RopeFactor] > 0, "base %g, factor %g, %d dimensions", op.F[RopeTheta], op.F[RopeFactor], i(RopeRotary))
		}

	case OpCacheWrite:
		cache := r.cache(c.Plan, op.I[WriteCache], CacheKV, CacheLatent)
		if cache.Kind == CacheKV {
			r.require(op.In[1] != None, "keys without values")
			r.width("keys", in(0), int(cache.Heads)*int(cache.KeyWidth))
			r.width("values", in(1), int(cache.Heads)*int(cache.ValueWidth))
		} else {
			r.width("inputs", in(0)+max(in(1), 0), int(cache.KeyWidth))
		}
		r.write(c, op.I[WriteCache])

	case OpAttention:
		cache := r.cache(c.Plan, op.I[AttnCache], CacheKV, CacheLatent)
		heads, window := i(AttnHeads), i(AttnWindow)
		r.between("heads", heads, 1, maxDimension)
		if r.err != nil {
			break
		}
		r.require(c.writers[op.I[AttnCache]] > 0, "cache %d is not written yet", op.I[AttnCache])
		r.divides("heads of the cache", int(cache.Heads), heads)
		r.require(cache.Kind == CacheLatent || op.In[1] == None, "a rest of queries over keys and values")
		r.require(in(0)%heads == 0 && max(in(1), 0)%heads == 0, "queries %d and %d wide for %d heads", in(0), in(1), heads)
		r.width("queries", in(0)+max(in(1), 0), heads*int(cache.KeyWidth))
		r.width("output", out, heads*int(cache.ValueWidth))
		chunk := i(AttnChunk)
		r.require(window >= 0 && chunk >= 0, "window %d, chunk %d", window, chunk)
		r.require(cache.Window == 0 || within(window, int(cache.Window)) || within(chunk, int(cache.Window)), "window %d and chunk %d over a cache of %d", window, chunk, cache.Window)
		sight := Sight(i(AttnSight))
		r.between("sight", int(sight), 0, int(numSights)-1)
		r.require(sight == SightBack || (sight == SightCausal || c.Encodes()) && window == 0 && chunk == 0 && cache.Window == 0,
			"sight %d with a window of %d or a chunk of %d, or of a plan that ends in logits", sight, window, chunk)
		r.table(c.Plan, "slopes", op.I[AttnSlopes], heads, true)
		r.require(op.F[AttnCap] >= 0, "cap %g", op.F[AttnCap])
		shape(0, heads)

	case OpActivate:
		r.activation(op, i(ActKind), op.In[1] != None)
		if op.In[1] == None {
			r.width("output", out, in(0))
		} else {
			r.width("output", out, in(1))
			r.require(in(0) == 1 || in(0) == out, "input 0 is %d wide, expected 1 or %d", in(0), out)
		}
		learned := Activation(op.I[ActKind]) == ActXIELU || clipsToWeights(op)
		for k := range 2 {
			r.require((op.Weight[k] != None) == learned, "weight %d is %d, of %v", k, op.Weight[k], Activation(op.I[ActKind]))
			shape(k, 1)
		}

	case OpAdd:
		r.width("input 1", in(1), in(0))
		r.width("output", out, in(0))

	case OpAllReduce:
		r.require(c.Shards > 0, "of a plan that is not a shard's")
		r.width("input 1", in(1), in(0))
		r.width("output", out, in(0))

	case OpRoute:
		experts, k := in(0), i(RouteTopK)
		groups, top := i(RouteGroups), i(RouteTopGroups)
		r.between("top", k, 1, experts)
		r.width("output 0", out, k)
		r.width("output 1", c.widthOf(op.Out[1]), k)
		r.between("score", i(RouteScore), 0, int(numScorings)-1)
		r.between("normalize", i(RouteNormalize), 0, 1)
		r.divides("groups", groups, experts)
		r.between("top groups", top, 1, groups)
		if r.err == nil {
			r.require(groups == 1 || experts/groups >= 2, "%d groups of %d experts, expected two or more in each", groups, experts)
			r.require(k <= experts/groups*top, "%d of %d experts in %d of %d groups", k, experts, top, groups)
		}
		r.require(op.F[RouteEps] >= 0, "eps %g", op.F[RouteEps])
		r.between("group best", i(RouteGroupBest), 0, 1)
		r.require(op.F[RouteJitter] >= 0, "jitter %g", op.F[RouteJitter])
		shape(0, experts)
		shape(1, experts)

	case OpExperts:
		first := c.Tensors[op.Weight[0]].Shape
		r.require(len(first) == 3, "weight 0 has shape %v, expected three dimensions", first)
		if r.err != nil {
			break
		}
		experts, inner := first[0], first[1]
		for k, want := range [][]int{{experts, inner, in(0)}, {experts, inner}, {experts, inner, in(0)}, {experts, inner}, {experts, out, inner}, {experts, out}} {
			shape(k, want...)
		}
		r.require(op.Weight[2] != None || op.Weight[3] == None, "a second bias without a second matrix")
		r.activation(op, i(ActKind), op.Weight[2] != None)
		r.between("scale input", i(ExpertsScaleInput), 0, 1)
		r.width("input 2", in(2), in(1))
		base, at := c.place(op.In[1])
		r.require(c.experts[base] == choice{at, experts}, "input 1, value %d, does not hold a choice of %d experts", op.In[1], experts)

	case OpConv:
		cache := r.cache(c.Plan, op.I[ConvCache], CacheState)
		r.width("output", out, in(0))
		shape(0, in(0), int(cache.KeyWidth)+1)
		shape(1, in(0))
		r.require(cache.Heads == 1 && int(cache.ValueWidth) == in(0), "a state of %d heads, %d wide", cache.Heads, cache.ValueWidth)
		r.require(op.I[ConvAct] == int32(ActNone) || op.I[ConvAct] == int32(ActSilu), "activation %d", op.I[ConvAct])
		r.write(c, op.I[ConvCache])

	case OpGatedDelta:
		cache := r.cache(c.Plan, op.I[DeltaCache], CacheState)
		heads, keyHeads := int(cache.Heads), i(DeltaKeyHeads)
		r.divides("key heads", keyHeads, heads)
		r.between("channels", i(DeltaChannels), 0, 1)
		r.between("negative", i(DeltaNegative), 0, 1)
		decays := heads
		if i(DeltaChannels) == 1 {
			decays *= int(cache.KeyWidth)
		}
		for k, want := range []int{keyHeads * int(cache.KeyWidth), keyHeads * int(cache.KeyWidth), heads * int(cache.ValueWidth), decays, heads} {
			r.width(fmt.Sprintf("input %d", k), in(k), want)
		}
		r.width("output", out, in(2))
		shape(0, heads)
		shape(1, decays)
		r.require(op.F[DeltaEps] >= 0, "eps %g", op.F[DeltaEps])
		r.write(c, op.I[DeltaCache])

	case OpSSM:
		cache := r.cache(c.Plan, op.I[SSMCache], CacheState)
		heads, groups := int(cache.Heads), i(SSMGroups)
		r.divides("groups", groups, heads)
		for k, want := range []int{heads * int(cache.ValueWidth), groups * int(cache.KeyWidth), groups * int(cache.KeyWidth), heads} {
			r.width(fmt.Sprintf("input %d", k), in(k), want)
		}
		r.width("output", out, in(0))
		for k := range 3 {
			shape(k, heads)
		}
		r.require(op.F[SSMMin] <= op.F[SSMMax], "steps of %g to %g", op.F[SSMMin], op.F[SSMMax])
		r.write(c, op.I[SSMCache])

	case OpRows:
		count := i(RowsCount)
		r.between("rows of each", count, 0, maxRowsCount)
		r.between("mean", i(RowsMean), 0, 1)
		r.require(count <= 1 || c.Encodes(), "%d rows of each, of a plan that ends in logits", count)
		if r.err == nil && i(RowsMean) == 0 {
			r.width("output", out, in(0)*max(count, 1))
		} else {
			r.width("output", out, in(0))
		}

	case OpLogits:
		r.require(c.rows, "no rows were picked")
		r.tokenTable(c.Plan, op.Weight[0], in(0))
		shape(1, c.Vocab)
		r.require(op.F[LogitsCap] >= 0, "cap %g", op.F[LogitsCap])

	case OpOutput:
		r.require(c.rows, "no rows were picked")

	case OpScale:
		r.width("output", out, in(0))
		if w := op.Weight[0]; w != None && !(len(c.Tensors[w].Shape) == 1 && c.Tensors[w].Shape[0] == 1) {
			shape(0, out)
		}
		length, offset := i(ScaleLength), i(ScaleOffset)
		r.require(length >= 0 && offset >= 0 && offset <= maxPosition, "length %d, offset %d", length, offset)
		r.require(length == 0 || !c.rows, "a factor by position, after rows were picked")
		r.require(length > 0 || offset == 0 && op.F[ScaleLog] == 0, "a factor by position without a length")

	case OpSparsify:
		r.width("output", out, in(0))

	case OpJoin:
		width := 0
		for k, v := range op.In {
			r.require(v == None || k == 0 || op.In[k-1] != None, "input %d without one before", k)
			width += max(c.widthOf(v), 0)
		}
		r.width("output", out, width)

	case OpEmbeddingBag:
		r.width("input 1", in(1), in(0))
		shape(0, c.Tensors[op.Weight[0]].Shape[0], out)

	case OpSelectiveScan:
		cache := r.cache(c.Plan, op.I[ScanCache], CacheState)
		r.require(cache.Heads == 1, "a state of %d heads", cache.Heads)
		for k, want := range []int32{cache.ValueWidth, cache.ValueWidth, cache.KeyWidth, cache.KeyWidth} {
			r.width(fmt.Sprintf("input %d", k), in(k), int(want))
		}
		r.width("output", out, in(0))
		shape(0, int(cache.ValueWidth), int(cache.KeyWidth))
		shape(1, int(cache.ValueWidth))
		r.write(c, op.I[ScanCache])
	}
	return r.err
}

// within reports whether a window is there, and at most most.
func within(window, most int) bool { return window > 0 && window <= most }

// widthOf is the width of a value, or None.
func (c *checker) widthOf(v int32) int {
	if v == None {
		return None
	}
	return c.Width(v)
}

// rule keeps the first thing that is wrong.
type rule struct{ err error }

func (r *rule) require(ok bool, format string, args ...any) {
	if !ok && r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// width compares the width of an operand, None if it is absent.
func (r *rule) width(what string, got, want int) {
	r.require(got == None || got == want, "%s is %d wide, expected %d", what, got, want)
}

func (r *rule) between(what string, n, lo, hi int) {
	r.require(n >= lo && n <= hi, "%s %d, expected %d to %d", what, n, lo, hi)
}

func (r *rule) divides(what string, n, of int) {
	r.require(n > 0 && of%max(n, 1) == 0, "%s %d, expected a divisor of %d", what, n, of)
}

func (r *rule) heads(width, heads, dim int) {
	r.require(heads > 0 && dim > 0 && heads*dim == width, "%d heads of %d in a width of %d", heads, dim, width)
}

// shape compares the shape of weight k, if it is there.
func (r *rule) shape(p *Plan, w int32, k int, want ...int) {
	if w == None || r.err != nil {
		return
	}
	got := p.Tensors[w].Shape
	same := len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = got[i] == want[i]
	}
	r.require(same, "weight %d, %s, has shape %v, expected %v", k, p.Tensors[w].Name, got, want)
}

// tokenTable compares the shape of weight 0, if it is there, with that of a table which has
// a row for each token, or for those of a shard.
func (r *rule) tokenTable(p *Plan, w int32, width int) {
	rows := p.Vocab
	if w != None && p.Tensors[w].Shape[0] == p.VocabRange().N {
		rows = p.VocabRange().N
	}
	r.shape(p, w, 0, rows, width)
}

func (r *rule) table(p *Plan, what string, t int32, entries int, optional bool) {
	if optional && t == None {
		return
	}
	ok := t >= 0 && int(t) < len(p.Tables)
	r.require(ok, "%s is %d of %d", what, t, len(p.Tables))
	if ok {
		r.require(len(p.Tables[t]) == entries, "%s has %d entries, expected %d", what, len(p.Tables[t]), entries)
	}
}

// cache returns the cache that an operation names, a zero one if it is none of
// the kinds.
func (r *rule) cache(p *Plan, i int32, kinds ...CacheKind) Cache {
	if i < 0 || int(i) >= len(p.Caches) {
		r.require(false, "cache %d of %d", i, len(p.Caches))
		return Cache{}
	}
	for _, kind := range kinds {
		if p.Caches[i].Kind == kind {
			return p.Caches[i]
		}
	}
	r.require(false, "cache %d is one of kind %v", i, p.Caches[i].Kind)
	return Cache{}
}

// write remembers that an operation writes cache i, which one alone may, except in an
// encoder, whose layers may use one cache in turns: nothing is read of it in a later step.
func (r *rule) write(c *checker, i int32) {
	if r.err == nil {
		r.require(c.writers[i] == 0 || c.Encodes() && c.Caches[i].Kind != CacheState, "cache %d is written twice", i)
		c.writers[i]++
	}
}

// activation checks a kind and its factors; gated says that it has two inputs.
func (r *rule) activation(op *Op, kind int, gated bool) {
	r.between("activation", kind, 0, int(NumActivations)-1)
	clamped := Activation(kind) == ActClampedSwiGLU
	r.require(!clamped || gated, "%v of one input", Activation(kind))
	clip := Activation(kind) == ActClip
	if clip && clipsToWeights(op) {
		r.require(!gated && op.F[ActLimit] == 0, "limit %g beside learned bounds, or bounds of two inputs", op.F[ActLimit])
	} else {
		r.require(!clamped && !clip || op.F[ActLimit] > 0, "limit %g", op.F[ActLimit])
	}
	r.require(Activation(kind) != ActXIELU || !gated && op.Kind == OpActivate, "%v of two inputs, or in %v", ActXIELU, op.Kind)
}

// clipsToWeights reports whether op is an ActClip whose bounds are weights.
func clipsToWeights(op *Op) bool {
	return op.Kind == OpActivate && Activation(op.I[ActKind]) == ActClip && op.Weight[0] != None
}
