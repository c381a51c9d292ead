package plan

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// everything is a plan with every kind of operation, cache and part.
func everything(t testing.TB) *Plan {
	c := &Config{Family: "test", Vocab: 20, Hidden: 16, MaxPos: 32}
	b := newBuilder(c, family{}, func(string) ([]int, bool) { return nil, false })
	w := func(shape ...int) Weight { return b.Weight("w", shape...) }

	x := b.Embed(w(20, 16), 2)
	x = b.Add(x, b.EmbedPosition(w(34, 16), 2))

	// Attention with every option, on columns of one projection.
	h := b.LayerNorm(x, Norm{Weight: w(16), Bias: w(16), Eps: 1e-5})
	qkv := b.Linear(h, b.Tensor([]int{32, 16}, whole("qkv", 16, 16).transposed(), whole("kv", 32, 16).rows(1, 2, 16)), w(32))
	q, k, v := b.View(qkv, 0, 16), b.View(qkv, 16, 8), b.View(b.View(qkv, 16, 16), 8, 8)
	rope := Rope{Freqs: []float32{1, 0.5}, Scale: 1, Axes: []float32{0, 2}, Original: 8, Factor: 2, Theta: 10000}
	q, k = b.Rope(q, rope, 4), b.Rope(k, rope, 4)
	kv := b.Cache(Cache{Kind: CacheKV, Heads: 2, KeyWidth: 4, ValueWidth: 4, Window: 5})
	b.CacheWrite(kv, k, v)
	a := b.Attention(q, Attention{Cache: kv, Heads: 4, Window: 5, Scale: 0.5, Cap: 30, Slopes: []float32{1, 2, 3, 4}, Sinks: w(4)})
	x = b.AddScaled(x, a, 0.5)

	// A latent cache.
	latent := b.Cache(Cache{Kind: CacheLatent, Heads: 1, KeyWidth: 6, ValueWidth: 4})
	compressed := b.Linear(x, w(6, 16), 0)
	b.CacheWrite(latent, b.RMSNorm(b.View(compressed, 0, 4), Norm{Eps: 1e-6}), b.View(compressed, 4, 2))
	a = b.Attention(b.LinearHeads(x, w(2, 4, 8)), Attention{Cache: latent, Heads: 2, Scale: 1, Rest: b.Linear(x, w(4, 16), 0)})
	x = b.Add(x, b.LinearHeads(a, w(2, 8, 4)))

	// Experts.
	chosen, weights := b.Route(b.Linear(x, w(8, 16), 0), Routing{TopK: 2, Score: ScoreSigmoid, Bias: w(8), Groups: 2, TopGroups: 1, Normalize: true, Scale: 2.5})
	e := b.Experts(x, chosen, weights, MLP{
		Act:  Act{ActClampedSwiGLU, 7, 1.7},
		Gate: b.Tensor([]int{8, 32, 16}, mxfp4("blocks", "scales", 8, 16, 64).rows(0, 1, 128).cols(0, 2, 32).transposed().blocks(8, 0, 16)...), GateBias: w(8, 32),
		Up: w(8, 32, 16), UpBias: w(8, 32), Down: w(8, 16, 32), DownBias: w(8, 16),
	})
	shared := b.Gate(Act{Kind: ActSigmoid}, b.Linear(x, w(1, 16), 0), b.Activate(ActRelu2, x))
	x = b.Add(b.Add(x, e), shared)

	// Recurrent layers.
	conv := b.Conv(b.Linear(x, w(24, 16), 0), b.Tensor([]int{24, 4}, whole("conv", 24, 1, 4)), w(24), ActSilu)
	d := b.GatedDelta(b.View(conv, 0, 4), b.View(conv, 4, 4), b.View(conv, 8, 16), b.Linear(x, w(4, 16), 0), b.Linear(x, w(4, 16), 0),
		Delta{KeyHeads: 2, Heads: 4, KeyWidth: 2, ValueWidth: 4, LogA: w(4), Bias: w(4), Eps: 1e-6, Scale: 0.7})
	x = b.Add(x, b.RMSNorm(d, Norm{Weight: w(4), Eps: 1e-6, Gate: b.Linear(x, w(16, 16), 0), GateAt: GateAfter}))
	s := b.SSM(x, b.Linear(x, w(6, 16), 0), b.Linear(x, w(6, 16), 0), b.Linear(x, w(4, 16), 0),
		StateSpace{Groups: 2, Heads: 4, KeyWidth: 3, ValueWidth: 4, LogA: w(4), Bias: w(4), Skip: w(4), Max: math.Inf(1)})
	x = b.Add(x, b.RMSNorm(s, Norm{Weight: w(16), Group: 8, Eps: 1e-6, Gate: x, GateAt: GateBefore}))

	// A table beside the embedding, factors, and a selective scan.
	x = b.Add(x, b.Join(b.EmbedBeside(w(7, 4), 2), b.Sparsify(b.View(x, 0, 6), 1.6), b.ClipTo(b.Clip(b.View(x, 6, 6), 3), w(1), w(1))))
	x = b.Scale(b.ScalePosition(b.XIELU(x, w(1), w(1), 0.5), 0.1, 1, 8), 0.5, w(16))
	b.plan.EmbedsWidth = 24
	x = b.Add(x, b.EmbeddingBag(b.View(x, 0, 2), b.EmbedColumns(16, 2), w(5, 16)))
	x = b.Add(x, b.SelectiveScan(x, x, b.View(x, 0, 3), b.View(x, 3, 3), w(16, 3), w(16)))

	b.Logits(b.RMSNorm(b.Rows(x), Norm{Weight: w(16), Eps: 1e-6, Shift: 1}), w(20, 16), w(20), 0.5, 30)
	p, err := b.finish()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// encoder takes no tokens and gives rows.
func encoder(t testing.TB) *Plan {
	c := &Config{Family: "test", Hidden: 16, MaxPos: 32}
	b := newBuilder(c, family{}, func(string) ([]int, bool) { return nil, false })
	x := b.Add(b.Embed(0, 1), b.EmbedPosition(b.Weight("position", 32, 16), 0))
	kv := b.Cache(Cache{Kind: CacheKV, Heads: 2, KeyWidth: 8, ValueWidth: 8})
	b.CacheWrite(kv, x, x)
	x = b.Add(x, b.Attention(x, Attention{Cache: kv, Heads: 2, Scale: 0.5}))
	b.Output(b.Linear(b.Rows(x), b.Weight("projector", 24, 16), 0))
	p, err := b.finish()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// windowed is an encoder of patches with positions beside them, in windows, that makes one
// row of four.
func windowed(t testing.TB) *Plan {
	c := &Config{Family: "test", Hidden: 20, MaxPos: 32}
	b := newBuilder(c, family{}, func(string) ([]int, bool) { return nil, false })
	in := b.Embed(0, 1)
	x := b.Linear(b.View(in, 0, 12), b.Weight("patch", 16, 12), 0)
	x = b.Add(x, b.EmbeddingBag(b.View(in, 12, 4), b.View(in, 16, 4), b.Weight("position", 9, 16)))
	kv := b.Cache(Cache{Kind: CacheKV, Heads: 2, KeyWidth: 8, ValueWidth: 8})
	for _, sight := range []Sight{SightSpan, SightAll} {
		b.CacheWrite(kv, x, x)
		x = b.Add(x, b.Attention(x, Attention{Cache: kv, Heads: 2, Scale: 0.5, Sight: sight}))
	}
	b.Output(b.Linear(b.JoinedRows(x, 4), b.Weight("projector", 24, 64), 0))
	p, err := b.finish()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCheckWindowed: what is of encoders alone, and its operands.
func TestCheckWindowed(t *testing.T) {
	at := func(p *Plan, kind Kind) *Op {
		return &p.Ops[slices.IndexFunc(p.Ops, func(op Op) bool { return op.Kind == kind })]
	}
	for _, tt := range []struct {
		name   string
		change func(p *Plan)
		want   string
	}{
		{"sight", func(p *Plan) { at(p, OpAttention).I[AttnSight] = 4 }, "attention: sight 4, expected 0 to 3"},
		{"window and sight", func(p *Plan) { at(p, OpAttention).I[AttnWindow] = 4 }, "attention: sight 1 with a window of 4"},
		{"numbers without weights", func(p *Plan) { at(p, OpEmbeddingBag).In[1] = None }, "embedding_bag: input 1 is missing"},
		{"fewer weights than numbers", func(p *Plan) { p.Values[at(p, OpEmbeddingBag).In[1]].Width = 3 }, "embedding_bag: input 1 is 3 wide, expected 4"},
		{"table", func(p *Plan) { p.Tensors[at(p, OpEmbeddingBag).Weight[0]].Shape[1] = 15 }, "embedding_bag: weight 0, position, has shape [9 15], expected [9 16]"},
		{"rows", func(p *Plan) { at(p, OpRows).I[RowsCount] = 2 }, "rows: output is 64 wide, expected 32"},
		{"too many rows", func(p *Plan) { at(p, OpRows).I[RowsCount] = maxRowsCount + 1 }, "rows: rows of each 4097"},
		{"mean", func(p *Plan) { at(p, OpRows).I[RowsMean] = 1 }, "rows: output is 64 wide, expected 16"},
		{"columns beyond a row", func(p *Plan) { p.Ops[0].I[EmbedFirst] = 1 }, "embed: first column 1, expected 0 to 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := windowed(t)
			for i := range p.Tensors {
				p.Tensors[i].Parts = nil
			}
			tt.change(p)
			if err := Check(p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestCheckEncoder: only a plan that ends in rows takes no tokens, and then none
// at all.
func TestCheckEncoder(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *Plan)
		want   string
	}{
		{"no rows picked", func(p *Plan) {
			p.Ops = slices.DeleteFunc(p.Ops, func(op Op) bool { return op.Kind == OpRows })
			p.Ops[len(p.Ops)-2].In[0] = 0
		}, "output: no rows were picked"},
		{"vocabulary without an embedding", func(p *Plan) { p.Vocab = 7 }, "embed: weight 0 is -1, of a vocabulary of 7"},
		{"embedding without a vocabulary", func(p *Plan) { p.Ops[0].Weight[0] = 0 }, "embed: weight 0 is 0, of a vocabulary of 0"},
		{"logits without a vocabulary", func(p *Plan) {
			p.Ops[len(p.Ops)-1].Kind, p.Ops[len(p.Ops)-1].Weight[0] = OpLogits, 1
		}, "vocabulary 0, expected 1"},
		{"a weight", func(p *Plan) { p.Ops[len(p.Ops)-1].Weight[0] = 0 }, "output: weight 0 is one too many"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := encoder(t)
			tt.change(p)
			if err := Check(p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestCheckAccepts: what families build is valid, and stays so when values
// share memory.
func TestCheckAccepts(t *testing.T) {
	plans := map[string]*Plan{"everything": everything(t), "encoder": encoder(t), "windowed": windowed(t)}
	for _, tt := range examples {
		plans[tt.name] = mustBuild(t, mustParse(t, small(tt.family, tt.more)), tt.names)
	}
	for name, p := range plans {
		if err := Check(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		shared := Share(p)
		if err := Check(shared); err != nil {
			t.Errorf("%s, shared: %v\n%v", name, err, shared)
		}
		if before, after := dataflow(p), dataflow(shared); !slices.Equal(before, after) {
			t.Errorf("%s: operation %d reads something else after sharing", name, firstDiff(before, after))
		}
	}
	kinds := map[Kind]bool{}
	for _, op := range append(plans["everything"].Ops, plans["encoder"].Ops...) {
		kinds[op.Kind] = true
	}
	shards := 0
	for name, p := range plans {
		for _, n := range []int{2, 4} {
			shard, _, err := Shard(Lower(p), n, n-1)
			if err != nil {
				continue
			}
			shards++
			if err := Check(shard); err != nil {
				t.Errorf("%s, the last of %d shards: %v\n%v", name, n, err, shard)
			}
			for _, op := range shard.Ops {
				kinds[op.Kind] = true
			}
		}
	}
	if shards < len(plans) {
		t.Errorf("%d shards of %d plans", shards, len(plans))
	}
	if len(kinds) != int(numKinds) {
		t.Errorf("%d of %d kinds are tried", len(kinds), numKinds)
	}
}

// TestCheckRefuses breaks the plan with everything in one place each.
func TestCheckRefuses(t *testing.T) {
	// of is the nth operation of a kind.
	of := func(p *Plan, kind Kind, n int) *Op {
		for i := range p.Ops {
			if p.Ops[i].Kind == kind {
				if n == 0 {
					return &p.Ops[i]
				}
				n--
			}
		}
		t.Fatalf("no %v", kind)
		return nil
	}
	// change is a change to an operation.
	change := func(kind Kind, n int, f func(op *Op)) func(*Plan) {
		return func(p *Plan) { f(of(p, kind, n)) }
	}
	i := func(kind Kind, field int, value int32) func(*Plan) {
		return change(kind, 0, func(op *Op) { op.I[field] = value })
	}
	f := func(kind Kind, field int, value float64) func(*Plan) {
		return change(kind, 0, func(op *Op) { op.F[field] = float32(value) })
	}
	cache := func(c int, f func(*Cache)) func(*Plan) { return func(p *Plan) { f(&p.Caches[c]) } }
	value := func(f func(p *Plan, op *Op)) func(*Plan) {
		return func(p *Plan) { f(p, of(p, OpAdd, 0)) }
	}
	tensor := func(name string, f func(*Tensor)) func(*Plan) {
		return func(p *Plan) {
			for i := range p.Tensors {
				if p.Tensors[i].Name == name {
					f(&p.Tensors[i])
				}
			}
		}
	}

	for _, tt := range []struct {
		name   string
		change func(*Plan)
		want   string
	}{
		// the plan
		{"vocabulary", func(p *Plan) { p.Vocab = 0 }, "vocabulary 0"},
		{"hidden", func(p *Plan) { p.Hidden = 1 << 25 }, "hidden width 33554432"},
		{"positions", func(p *Plan) { p.MaxPos = 0 }, "maximal position 0"},
		{"nothing to do", func(p *Plan) { p.Ops = nil }, "number of operations 0"},
		{"no logits", func(p *Plan) { p.Ops = p.Ops[:len(p.Ops)-1] }, "rmsnorm: logits or output are the last operation"},
		{"logits twice", func(p *Plan) { p.Ops = append(p.Ops, p.Ops[len(p.Ops)-1]) }, "logits: logits or output are the last operation"},
		{"kind", change(OpAdd, 0, func(op *Op) { op.Kind = numKinds }), "operation 2, unknown: unknown kind 25"},
		{"sum over shards", change(OpAdd, 0, func(op *Op) { op.Kind = OpAllReduce }), "all_reduce: of a plan that is not a shard's"},
		{"shards", func(p *Plan) { p.Shards = 9 }, "number of shards 9, expected 0 to 8"},
		{"shard", func(p *Plan) { p.Shards, p.Shard = 2, 2 }, "shard 2, expected 0 to 1"},

		// values
		{"width", value(func(p *Plan, op *Op) { p.Values[op.Out[0]].Width = 0 }), "value 2: width 0"},
		{"column", value(func(p *Plan, op *Op) { p.Values[op.Out[0]].Column = 1 }), "value 2: column 1"},
		{"view of a view", func(p *Plan) {
			p.Values = append(p.Values, Value{1, 0, 0}, Value{1, int32(len(p.Values)), 0})
		}, "a view of value"},
		{"view outside", func(p *Plan) { p.Values = append(p.Values, Value{8, 0, 9}) }, "columns 9 to 17 of a value 16 wide"},

		// operands
		{"input missing", change(OpAdd, 0, func(op *Op) { op.In[1] = None }), "add: input 1 is missing"},
		{"input too many", change(OpAdd, 0, func(op *Op) { op.In[2] = 0 }), "add: input 2 is one too many"},
		{"input out of range", change(OpAdd, 0, func(op *Op) { op.In[1] = 1000 }), "add: input 1 is 1000 of"},
		{"output missing", change(OpAdd, 0, func(op *Op) { op.Out[0] = None }), "add: output 0 is missing"},
		{"weight missing", change(OpLinear, 0, func(op *Op) { op.Weight[0] = None }), "linear: weight 0 is missing"},
		{"weight out of range", change(OpLinear, 0, func(op *Op) { op.Weight[1] = -2 }), "linear: weight 1 is -2"},
		{"integer too many", i(OpAdd, 0, 1), "add: integer 0 is 1"},
		{"number too many", f(OpAdd, 1, 1), "add: number 1 is 1"},
		{"not a number", f(OpAdd, AddScale, math.NaN()), "add: number 0 is NaN"},
		{"not computed", change(OpAdd, 0, func(op *Op) { op.In[1] = op.Out[0] }), "add: input 1, value 2, is not computed yet"},
		{"before rows", func(p *Plan) { of(p, OpRows, 0).Kind = OpActivate }, "logits: no rows were picked"},
		{"tokens after rows", func(p *Plan) {
			n := len(p.Ops)
			p.Ops[n-2].In[0] = 2
		}, "rmsnorm: input 0, value 2, has a row per token"},
		{"memory on both sides", func(p *Plan) { p.Ops[len(p.Ops)-2].Out[0] = 2 }, "rmsnorm: output 0, value 2, has memory of rows per token"},
		{"overwritten input", change(OpActivate, 0, func(op *Op) { op.Out[0] = op.In[0] }), "overwrites input 0"},

		// operations
		{"embedding", func(p *Plan) { p.Vocab++ }, "embed: weight 0, w, has shape [20 16], expected [21 16]"},
		{"positions learned", func(p *Plan) { p.MaxPos = 33 }, "embed_position: 32 positions from 2 on, expected 33"},
		{"group", i(OpRMSNorm, NormGroup, 3), "rmsnorm: group 3"},
		{"group 0", i(OpRMSNorm, NormGroup, 0), "rmsnorm: group 0"},
		{"gate without", i(OpRMSNorm, NormGate, 1), "rmsnorm: gate after, and input 1 is -1"},
		{"eps", f(OpLayerNorm, NormEps, -1), "layernorm: eps -1"},
		{"matrix", change(OpLinear, 0, func(op *Op) { op.Weight[0] = 0 }), "linear: weight 0, w, has shape [20 16], expected [32 16]"},
		{"matrices without activation", change(OpLinear, 0, func(op *Op) { op.Weight[2] = op.Weight[0] }), "two matrices without an activation"},
		{"heads", i(OpLinearHeads, HeadsCount, 3), "linear_heads: heads 3"},
		{"rope of another", change(OpRope, 0, func(op *Op) { op.Out[0] = 2 }), "rope: output 2 is not input"},
		{"rope heads", i(OpRope, RopeHeads, 3), "rope: 3 heads of 4"},
		{"rope outside the head", i(OpRope, RopeFirst, 2), "rope: rotary 4, expected 2 to 2"},
		{"rope odd", i(OpRope, RopeRotary, 3), "rope: rotary 3 is odd"},
		{"rope table", i(OpRope, RopeTable, 2), "rope: table has 4 entries, expected 2"},
		{"rope no table", i(OpRope, RopeTable, -1), "rope: table is -1"},
		{"rope axes", i(OpRope, RopeAxes, 0), "rope: axis 0.5"},
		{"rope length", i(OpRope, RopeOriginal, 9), "rope: length 9"},
		{"rope base", f(OpRope, RopeTheta, 1), "rope: base 1"},
		{"cache", i(OpCacheWrite, WriteCache, 9), "cache_write: cache 9 of 6"},
		{"cache of another kind", i(OpCacheWrite, WriteCache, 2), "cache_write: cache 2 is one of kind state"},
		{"keys alone", change(OpCacheWrite, 0, func(op *Op) { op.In[1] = None }), "cache_write: keys without values"},
		{"latent width", change(OpCacheWrite, 1, func(op *Op) { op.In[1] = None }), "cache_write: inputs is 4 wide, expected 6"},
		{"written twice", func(p *Plan) { p.Ops = slices.Insert(p.Ops, 8, p.Ops[7]) }, "cache 0 is written twice"},
		{"not written", func(p *Plan) { p.Ops = slices.Delete(p.Ops, 7, 8) }, "attention: cache 0 is not written yet"},
		{"written by nobody", func(p *Plan) { p.Caches = append(p.Caches, p.Caches[0]) }, "cache 6: no operation writes it"},
		{"attention heads", i(OpAttention, AttnHeads, 3), "attention: heads of the cache 2, expected a divisor of 3"},
		{"attention window", i(OpAttention, AttnWindow, 0), "attention: window 0 and chunk 0 over a cache of 5"},
		{"attention slopes", i(OpAttention, AttnSlopes, 0), "attention: slopes has 2 entries, expected 4"},
		{"attention sinks", change(OpAttention, 0, func(op *Op) { op.Weight[0] = 0 }), "attention: weight 0"},
		{"activation", i(OpActivate, ActKind, int32(NumActivations)), "activate: activation 12"},
		{"activation of two", i(OpActivate, ActKind, int32(ActClampedSwiGLU)), "activate: clamped_swiglu of one input"},
		{"add", change(OpAdd, 1, func(op *Op) { op.In[1] = 4 }), "add: input 1 is 32 wide"},
		{"route", i(OpRoute, RouteTopK, 9), "route: top 9"},
		{"route in groups", i(OpRoute, RouteGroups, 8), "route: 8 groups of 8 experts"},
		{"route scoring", i(OpRoute, RouteScore, 7), "route: score 7"},
		{"experts not chosen", change(OpExperts, 0, func(op *Op) { op.In[1] = op.In[2] }), "experts: input 1, value 21, does not hold a choice of 8 experts"},
		{"experts of other number", change(OpExperts, 0, func(op *Op) { op.Weight[0] = 0 }), "experts: weight 0 has shape [20 16]"},
		{"experts limit", f(OpExperts, ActLimit, 0), "experts: limit 0"},
		{"convolution", i(OpConv, ConvAct, int32(ActRelu)), "conv: activation 4"},
		{"convolution state", cache(2, func(c *Cache) { c.KeyWidth = 4 }), "conv: weight 0, conv, has shape [24 4], expected [24 5]"},
		{"delta heads", i(OpGatedDelta, DeltaKeyHeads, 3), "gated_delta: key heads 3"},
		{"one state for two", i(OpGatedDelta, DeltaCache, 2), "gated_delta: key heads 2, expected a divisor of 1"},
		{"ssm", f(OpSSM, SSMMax, -1), "ssm: steps of 0 to -1"},
		{"embedding beside", i(OpEmbed, EmbedBeside, 2), "embed: beside 2"},
		{"attention chunk", i(OpAttention, AttnChunk, -1), "attention: window 5, chunk -1"},
		{"xielu without factors", i(OpActivate, ActKind, int32(ActXIELU)), "activate: weight 0 is -1, of xielu"},
		{"xielu joined", i(OpLinear, LinearAct, int32(ActXIELU)), "linear: xielu of two inputs, or in linear"},
		{"clip", change(OpActivate, 2, func(op *Op) { op.F[ActLimit] = 0 }), "activate: limit 0"},
		{"clip to bounds and a limit", change(OpActivate, 3, func(op *Op) { op.F[ActLimit] = 1 }), "activate: limit 1 beside learned bounds"},
		{"clip to one bound", change(OpActivate, 3, func(op *Op) { op.Weight[1] = None }), "activate: weight 1 is -1, of clip"},
		{"sight of a window", i(OpAttention, AttnSight, int32(SightCausal)), "attention: sight 3 with a window of 5"},
		{"route judges", i(OpRoute, RouteGroupBest, 2), "route: group best 2"},
		{"route factors", change(OpRoute, 0, func(op *Op) { op.Weight[1] = 0 }), "route: weight 1"},
		{"experts scaled", i(OpExperts, ExpertsScaleInput, 2), "experts: scale input 2"},
		{"delta channels", i(OpGatedDelta, DeltaChannels, 1), "gated_delta: input 3 is 4 wide, expected 8"},
		{"scale", change(OpScale, 1, func(op *Op) { op.Weight[0] = 0 }), "scale: weight 0"},
		{"scale without a length", i(OpScale, ScaleLength, 0), "scale: a factor by position without a length"},
		{"join with a gap", change(OpJoin, 0, func(op *Op) { op.In[3], op.In[2] = op.In[2], None }), "join: input 3 without one before"},
		{"join of other width", change(OpJoin, 0, func(op *Op) { op.In[2] = None }), "join: output is 16 wide, expected 10"},
		{"scan state", cache(5, func(c *Cache) { c.KeyWidth = 4 }), "selective_scan: input 2 is 3 wide, expected 4"},
		{"logits", f(OpLogits, LogitsCap, -1), "logits: cap -1"},

		// caches and tables
		{"cache kind", cache(0, func(c *Cache) { c.Kind = 3 }), "cache 0: unknown kind 3"},
		{"cache heads", cache(0, func(c *Cache) { c.Heads = 0 }), "cache 0: 0 heads"},
		{"cache group", cache(0, func(c *Cache) { c.Group = 7 }), "cache 0: group 7 of 2"},
		{"cache window", cache(0, func(c *Cache) { c.Window = 6 }), "cache 0: window 6 in a group of 5"},
		{"cache format", cache(0, func(c *Cache) { c.Format = W4.Grouped(32) }), "cache 0: format W4/32, expected F32, F16 or W8"},
		{"cache formats", cache(1, func(c *Cache) { c.Format = W8 }), "cache 1: format W8/row, expected F32"},
		{"state format", cache(2, func(c *Cache) { c.Format = W8 }), "cache 2: format W8/row"},
		{"latent heads", cache(1, func(c *Cache) { c.Heads = 2 }), "cache 1: a latent of 2 heads"},
		{"state in a group", cache(2, func(c *Cache) { c.Group = 0 }), "cache 2: a state in group 0"},
		{"large state", cache(3, func(c *Cache) { c.Heads, c.KeyWidth, c.ValueWidth = 1<<20, 1<<20, 1<<20 }), "cache 3: a state of more than"},
		{"empty group", func(p *Plan) { p.Groups = append(p.Groups, Group{}) }, "group 2: no cache is in it"},
		{"table", func(p *Plan) { p.Tables[0] = []float32{float32(math.Inf(1))} }, "table 0: entry +Inf"},

		// tensors and parts
		{"rank", tensor("conv", func(x *Tensor) { x.Shape = []int{1, 1, 24, 4} }), "tensor 18, conv: shape [1 1 24 4]"},
		{"scalar", tensor("conv", func(x *Tensor) { x.Shape = nil }), "conv: a scalar"},
		{"large tensor", tensor("conv", func(x *Tensor) { x.Shape = []int{1 << 24, 1 << 24} }), "conv: shape [16777216 16777216]"},
		{"part too short", tensor("conv", func(x *Tensor) { x.Parts[0].Rows.N-- }), "conv: parts have 23 rows, expected 24"},
		{"part too wide", tensor("conv", func(x *Tensor) { x.Parts[0].Cols.N-- }), "conv: part conv: 24 rows of 3"},
		{"part outside", tensor("conv", func(x *Tensor) { x.Parts[0].Rows.First = 1 }), "conv: part conv: rows 1, 23 more in steps of 1, of 24"},
		{"parts overlap", tensor("qkv", func(x *Tensor) { x.Parts[1].To = 0 }), "qkv: part kv: 16 rows of 16 from row 0 on, expected at most 16 of 16 from 16 on"},
		{"encoding", tensor("conv", func(x *Tensor) { x.Parts[0].Encoding = 3 }), "conv: part conv: unknown encoding 3"},
		{"scales missing", tensor("blocks", func(x *Tensor) { x.Parts[0].Scales = "" }), "part blocks: MXFP4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := everything(t)
			tt.change(p)
			err := Check(p)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Check: %v, want one line with %q", err, tt.want)
			}
		})
	}
}

// mutate changes numbers of a plan, one forevery four bytes.
func mutate(p *Plan, changes []byte) {
	for ; len(changes) >= 4; changes = changes[4:] {
		at, field, n := int(changes[1]), int(changes[2]), int32(int8(changes[3]))
		if n > 100 {
			n <<= 24
		}
		op := &p.Ops[at%len(p.Ops)]
		switch changes[0] % 10 {
		case 0:
			op.In[field%MaxIn] = n
		case 1:
			op.Out[field%MaxOut] = n
		case 2:
			op.Weight[field%MaxWeights] = n
		case 3:
			op.I[field%MaxInts] = n
		case 4:
			op.Kind = Kind(n)
		case 5:
			v := &p.Values[at%len(p.Values)]
			*[]*int32{&v.Width, &v.Of, &v.Column}[field%3] = n
		case 6:
			c := &p.Caches[at%len(p.Caches)]
			*[]*int32{(*int32)(&c.Kind), &c.Group, &c.Heads, &c.KeyWidth, &c.ValueWidth, &c.Window}[field%6] = n
		case 7:
			x := &p.Tensors[at%len(p.Tensors)]
			x.Shape[field%len(x.Shape)] = int(n)
		case 8:
			part := &p.Tensors[at%len(p.Tensors)].Parts[0]
			*[]*int{&part.To, &part.Rows.First, &part.Rows.Step, &part.Rows.N, &part.Cols.First, &part.Cols.Step, &part.Cols.N, &part.Shape[0]}[field%8] = int(n)
		case 9:
			op.F[field%MaxFloats] = math.Float32frombits(uint32(n) << 24)
		}
	}
}

// FuzzCheck changes numbers of valid plans. Check never panics, and a plan that
// passes still passes, and computes the same, when values share memory.
func FuzzCheck(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte{3, 0, 0, 1, 2, 12, 0, 7})
	f.Add([]byte{1, 0, 9, 255, 2, 4, 200, 40})
	f.Fuzz(func(t *testing.T, changes []byte) {
		p := everything(t)
		mutate(p, changes)
		if err := Check(p); err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
			return
		}
		shared := Share(p)
		if err := Check(shared); err != nil {
			t.Fatalf("valid as built, shared: %v", err)
		}
		for _, v := range p.Values {
			if v.Width > 1<<12 {
				return // right, and slow
			}
		}
		if before, after := dataflow(p), dataflow(shared); !slices.Equal(before, after) {
			t.Fatalf("operation %d reads something else after sharing", firstDiff(before, after))
		}
	})
}
