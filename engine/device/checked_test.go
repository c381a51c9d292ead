package device

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// fake is a Backend that does nothing and can do everything.
type fake struct {
	caps    Caps
	ring    [RingDepth]Batch
	plan    *plan.Plan
	tensors int
	calls   []string
	err     error // of the next call
}

var checkedLimits = Limits{MaxTokens: 64, MaxRows: 32, MaxSlots: 5, MaxPagesPerSlot: 8}

const (
	checkedPages                        = 40
	checkedStates                       = 9
	checkedPageBytes, checkedStateBytes = 24, 8
	checkedVocab                        = 50
)

func newFake() *fake {
	return &fake{caps: Caps{
		Name: "fake", Ops: 1<<(plan.OpOutput+1) - 1, Formats: 7,
		Features: FeatureAdapters | FeatureEmbeds | FeatureAxes | FeatureSpans | FeatureVerify,
	}}
}

func (f *fake) call(name string) error {
	f.calls = append(f.calls, name)
	err := f.err
	f.err = nil
	return err
}

func (f *fake) Caps() Caps                 { return f.caps }
func (f *fake) CheckPlan(*plan.Plan) error { return f.call("CheckPlan") }
func (f *fake) NewTensor(string, plan.Format, []int) (Handle, error) {
	f.tensors++
	return Handle(f.tensors - 1), f.call("NewTensor")
}
func (f *fake) WriteTensor(Handle, int, int, []byte) error { return f.call("WriteTensor") }
func (f *fake) AdoptTensor(Handle, []byte, func()) error   { return f.call("AdoptTensor") }
func (f *fake) SetModel(p *plan.Plan) (ModelInfo, error) {
	f.plan = p
	return ModelInfo{PageBytes: checkedPageBytes, StateBytes: checkedStateBytes}, f.call("SetModel")
}
func (f *fake) InitCache(int, int) error {
	for i := range f.ring {
		f.ring[i] = NewBatch(checkedLimits, f.plan.Vocab, len(f.plan.Groups), f.plan.Hidden, f.plan.Hidden)
	}
	return f.call("InitCache")
}
func (f *fake) WarmUp() error                     { return f.call("WarmUp") }
func (f *fake) HostAlloc(n int) ([]byte, error)   { return make([]byte, n), f.call("HostAlloc") }
func (f *fake) HostFree([]byte)                   {}
func (f *fake) LoadAdapter(int32, *Adapter) error { return f.call("LoadAdapter") }
func (f *fake) DropAdapter(int32) error           { return f.call("DropAdapter") }
func (f *fake) ReadPage(int, []byte) error        { return f.call("ReadPage") }
func (f *fake) WritePage(int, []byte) error       { return f.call("WritePage") }
func (f *fake) ReadState(int, []byte) error       { return f.call("ReadState") }
func (f *fake) WriteState(int, []byte) error      { return f.call("WriteState") }
func (f *fake) Batch(i int) *Batch                { return &f.ring[i] }
func (f *fake) Forward(int) error                 { return f.count() }
func (f *fake) Sample(i int) error {
	x := &f.ring[i]
	x.Results = x.Results[:len(x.Rows)]
	return f.count()
}
func (f *fake) Wait(int) error { return f.count() }
func (f *fake) Stats() Stats   { return Stats{} }
func (f *fake) Abandon(bool)   {}
func (f *fake) Close() error   { return f.call("Close") }

// count is call for what is called in each step, which may not allocate.
func (f *fake) count() error {
	err := f.err
	f.err = nil
	return err
}

// checkedPlan has two groups, of which the second has a window of 20, learned
// positions up to 100 and, if asked, a recurrent layer.
func checkedPlan(state bool) *plan.Plan {
	const width = 4
	p := &plan.Plan{Family: "test", Vocab: checkedVocab, Hidden: width, MaxPos: 100}
	for range 6 {
		p.Values = append(p.Values, plan.Value{Width: width, Of: plan.None})
	}
	for _, shape := range [][]int{{checkedVocab, width}, {100, width}, {width, width}, {width, 2}} {
		p.Tensors = append(p.Tensors, plan.Tensor{Name: fmt.Sprint("tensor ", len(p.Tensors)), Shape: shape})
	}
	op := func(kind plan.Kind, out, in0, in1, weight int32) *plan.Op {
		op := plan.NewOp(kind)
		op.Out[0], op.In[0], op.In[1], op.Weight[0] = out, in0, in1, weight
		p.Ops = append(p.Ops, op)
		return &p.Ops[len(p.Ops)-1]
	}
	const none = plan.None
	op(plan.OpEmbed, 0, none, none, 0).F[plan.EmbedScale] = 1
	op(plan.OpEmbedPosition, 1, none, none, 1)
	op(plan.OpLinear, 2, 0, none, 2)
	for group, window := range []int32{0, 20} {
		p.Groups = append(p.Groups, plan.Group{Window: window})
		p.Caches = append(p.Caches, plan.Cache{Kind: plan.CacheKV, Group: int32(group), Heads: 1, KeyWidth: width, ValueWidth: width, Window: window})
		op(plan.OpCacheWrite, none, 1, 2, none).I[plan.WriteCache] = int32(group)
		at := op(plan.OpAttention, 3, 2, none, none)
		at.I[plan.AttnCache], at.I[plan.AttnHeads], at.I[plan.AttnWindow], at.I[plan.AttnSlopes] = int32(group), 1, window, none
	}
	if state {
		p.Caches = append(p.Caches, plan.Cache{Kind: plan.CacheState, Group: none, Heads: 1, KeyWidth: 1, ValueWidth: width})
		op(plan.OpConv, 4, 3, none, 3).I[plan.ConvCache] = 2
	}
	op(plan.OpRows, 5, 3, none, none)
	op(plan.OpLogits, none, 5, none, 0).F[plan.LogitsScale] = 1
	return p
}

// bytesOf is the memory of a tensor of float32.
func bytesOf(shape []int) int {
	n := 4
	for _, d := range shape {
		n *= d
	}
	return n
}

func rowsOf(shape []int) int { return bytesOf(shape) / 4 / shape[len(shape)-1] }

// loadChecked returns a checked fake that has taken a plan and is ready.
func loadChecked(t testing.TB, f *fake, p *plan.Plan) Backend {
	t.Helper()
	b := Checked(f, checkedLimits)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, w := range p.Tensors {
		_, err := b.NewTensor(w.Name, plan.F32, w.Shape)
		must(err)
		must(b.WriteTensor(Handle(i), 0, rowsOf(w.Shape), make([]byte, bytesOf(w.Shape))))
	}
	_, err := b.SetModel(p)
	must(err)
	states := 0
	if p.HasState() {
		states = checkedStates
	}
	must(b.InitCache(checkedPages, states))
	if f.caps.Has(FeatureAdapters) {
		must(b.LoadAdapter(1, &Adapter{Rank: 1, Targets: []AdapterTarget{{Tensor: 2, Rows: 4, A: make([]float32, 4), B: make([]float32, 4)}}}))
	}
	return b
}

// give adds a sequence to a batch: n tokens up to kvLen, in a slot that is new
// if fresh, with the pages that it needs for the first time.
func give(x *Batch, slot, n, kvLen int32, fresh bool) {
	start := int32(len(x.Tokens))
	for j := range n {
		x.Tokens, x.Pos = append(x.Tokens, 7), append(x.Pos, kvLen-n+j)
	}
	x.Seqs = append(x.Seqs, Seq{Slot: slot, Start: start, Count: n, KVLen: kvLen})
	first := kvLen - n
	if fresh {
		first = 0
		x.Params = append(x.Params, ParamDelta{Slot: slot, Params: sample.Greedy()})
	}
	for group := range int32(2) {
		for index := first / PageTokens; index <= (kvLen-1)/PageTokens; index++ {
			x.Pages = append(x.Pages, PageDelta{Slot: slot, Group: group, Index: index, Page: slot*8 + index})
		}
	}
}

func row(x *Batch, token, slot int32, kind RowKind, target, index int32) {
	x.Rows = append(x.Rows, Row{Token: token, Slot: slot, Kind: kind, Target: target, Index: index})
}

// firstBatch: slot 0 gets 20 tokens, slot 1 samples after 5, slot 3 scores.
func firstBatch(x *Batch, state bool) {
	x.Clear()
	give(x, 0, 20, 20, true)
	give(x, 1, 5, 5, true)
	give(x, 3, 6, 6, true)
	row(x, 24, 1, RowSample, 0, 0)
	row(x, 30, 3, RowScore, 9, 0)
	if state {
		for i, slot := range []int32{0, 1, 3} {
			x.States = append(x.States, StateDelta{Slot: slot, Live: slot, From: ZeroState, Save: int32(5 + i)})
		}
	}
}

// secondBatch has something of everything: slot 0 goes on with a verification,
// slot 1 with its last token, slot 2 is new and has embedding rows, a span, an
// adapter, counts and biases, slot 3 is sampled again.
func secondBatch(x *Batch, state bool) {
	x.Clear()
	give(x, 0, 3, 23, false)
	give(x, 1, 1, 6, false)
	give(x, 2, 10, 10, true)
	x.Tokens[3] = LastToken
	x.Tokens[5], x.Tokens[6] = EmbedRow(1), EmbedRow(0)
	x.Embeds = append(x.Embeds, make([]float32, 8)...)
	x.Spans = append(x.Spans, Span{Start: 4, Count: 4}, Span{Start: 8, Count: 1})
	x.Seqs[2].Adapter, x.Seqs[2].RopeLen = 1, 40
	x.Axes = x.Axes[:3*len(x.Tokens)]
	x.Counts = append(x.Counts, CountDelta{Slot: 2, Token: 3}, CountDelta{Slot: 2, Token: 4, Generated: 1})
	x.Biases = append(x.Biases, BiasDelta{Slot: 2, Token: 3, Bias: 1.5})
	row(x, 13, 2, RowSample, 0, 0)
	row(x, 0, 0, RowScore, 7, 0)
	row(x, 0, 0, RowVerify, 7, 0)
	row(x, 1, 0, RowVerify, 7, 1)
	row(x, 2, 0, RowVerify, -1, 2)
	row(x, -1, 3, RowAgain, 0, 0)
	x.Masks = append(x.Masks, make([]uint32, 2*x.MaskWords)...)
	x.Rows[0].Mask, x.Rows[5].Mask = 1, 2
	if state {
		x.States = append(x.States,
			StateDelta{Slot: 0, Live: 0, From: NoState, Save: 8},
			StateDelta{Slot: 2, Live: 2, From: ZeroState, Save: NoState})
	}
}

// runChecked runs ring entry i to its end.
func runChecked(t testing.TB, b Backend, i int) {
	t.Helper()
	if err := wholeStep(b, i); err != nil {
		t.Fatal(err)
	}
}

// wholeStep runs ring entry i to its results.
func wholeStep(b Backend, i int) error {
	for _, step := range []func(int) error{b.Forward, b.Sample, b.Wait} {
		if err := step(i); err != nil {
			return err
		}
	}
	return nil
}

// refused reports an error that does not say what it should.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error that says: %s", err, want)
	}
}

// Each batch that cannot be right is refused with a sentence that says why, and
// changes nothing: the batch as it should be is taken after it.
func TestCheckedForward(t *testing.T) {
	for _, tt := range []struct {
		name    string
		state   bool
		corrupt func(x *Batch)
		want    string
	}{
		{"too many tokens", false, func(x *Batch) { give(x, 4, 51, 51, true) }, "65 tokens, the limit is 64"},
		{"too many rows", false, func(x *Batch) {
			for range 27 {
				row(x, 0, 0, RowScore, 1, 0)
			}
		}, "33 rows, the limit is 32"},
		{"outgrown", false, func(x *Batch) { x.Counts = append(x.Counts[:cap(x.Counts)], CountDelta{}) }, "outgrew its capacity"},
		{"a position too few", false, func(x *Batch) { x.Pos = x.Pos[:13] }, "13 positions for 14 tokens"},
		{"two axes", false, func(x *Batch) { x.Axes = x.Axes[:28] }, "28 axes of positions for 14 tokens"},
		{"a draft that the plan has not", false, func(x *Batch) { x.Draft = true }, "a draft, and the plan has none"},
		{"part of an embedding row", false, func(x *Batch) { x.Embeds = x.Embeds[:7] }, "expected whole rows of 4"},
		{"nothing", false, func(x *Batch) { x.Clear() }, "nothing to do"},

		{"slot too high", false, func(x *Batch) { x.Seqs[0].Slot = 5 }, "sequence 0: slot 5 of 5"},
		{"negative slot", false, func(x *Batch) { x.Seqs[0].Slot = -1 }, "sequence 0: slot -1 of 5"},
		{"slot twice", false, func(x *Batch) { x.Seqs[1].Slot = 0 }, "sequence 1: slot 0 of 5, each at most once"},
		{"gap between sequences", false, func(x *Batch) { x.Seqs[1].Start = 4 }, "sequence 1: 1 tokens from 4 on of 14, expected to begin at 3"},
		{"sequence without tokens", false, func(x *Batch) { x.Seqs[0].Count = 0 }, "sequence 0: 0 tokens"},
		{"sequence past the tokens", false, func(x *Batch) { x.Seqs[2].Count = 11 }, "sequence 2: 11 tokens from 4 on of 14"},
		{"token of no sequence", false, func(x *Batch) { x.Seqs[2].Count, x.Seqs[2].KVLen = 9, 9 }, "14 tokens, 13 of them belong to a sequence"},
		{"fewer in the cache than new", false, func(x *Batch) { x.Seqs[2].KVLen = 9 }, "sequence 2: 9 tokens in the cache with 10 new ones"},
		{"no such learned position", false, func(x *Batch) { x.Seqs[2].KVLen = 101 }, "sequence 2: 101 tokens in the cache with 10 new ones, the limit is 100"},
		{"position", false, func(x *Batch) { x.Pos[5]++ }, "sequence 2: token 5 at position 2, expected 1"},
		{"length for rotations", false, func(x *Batch) { x.Seqs[0].RopeLen = -1 }, "sequence 0: length -1"},
		{"adapter", false, func(x *Batch) { x.Seqs[1].Adapter = 2 }, "sequence 1: adapter 2 is not loaded"},

		{"parameters of a slot too high", false, func(x *Batch) { x.Params[0].Slot = 5 }, "parameters 0: slot 5 of 5"},
		{"parameters of an idle slot", false, func(x *Batch) { x.Params[0].Slot = 4 }, "parameters 0: slot 4 has no sequence"},
		{"parameters twice", false, func(x *Batch) { x.Params = append(x.Params, x.Params[0]) }, "parameters 1: slot 2 has two"},
		{"count of a slot too high", false, func(x *Batch) { x.Counts[1].Slot = 5 }, "count 1: slot 5 of 5"},
		{"count of a token too high", false, func(x *Batch) { x.Counts[1].Token = 50 }, "count 1: token 50 of 50"},
		{"count of a negative token", false, func(x *Batch) { x.Counts[0].Token = -1 }, "count 0: token -1 of 50"},
		{"count of neither kind", false, func(x *Batch) { x.Counts[0].Generated = 2 }, "generated 2"},
		{"bias of a slot too high", false, func(x *Batch) { x.Biases[0].Slot = 5 }, "bias 0: slot 5 of 5"},
		{"bias without parameters", false, func(x *Batch) { x.Biases[0].Slot = 1 }, "bias 0: slot 1 has no parameters in the batch"},
		{"bias of a token too high", false, func(x *Batch) { x.Biases[0].Token = 50 }, "bias 0: token 50 of 50"},
		{"bias too high", false, func(x *Batch) { x.Biases[0].Bias = 101 }, "bias 0: 101, expected a magnitude of at most 100"},
		{"bias that is NaN", false, func(x *Batch) { x.Biases[0].Bias = float32(math.NaN()) }, "bias 0: NaN"},
		{"too many biases", false, func(x *Batch) {
			for range sample.MaxBiases {
				x.Biases = append(x.Biases, x.Biases[0])
			}
		}, "bias 1024: slot 2 has more than 1024"},

		{"slot without an owner", false, func(x *Batch) { x.Params = x.Params[:0]; x.Biases = x.Biases[:0] }, "sequence 2: slot 2 was never given to a sequence"},
		{"last token once more", false, func(x *Batch) { x.Seqs[0].KVLen--; x.Pos[0], x.Pos[1], x.Pos[2] = 19, 20, 21 }, "sequence 0: slot 0 goes on at position 19, it ended at 20"},
		{"token left out", false, func(x *Batch) { x.Seqs[1].KVLen++; x.Pos[3]++ }, "sequence 1: slot 1 goes on at position 6, it ended at 5"},

		{"page of a slot too high", false, func(x *Batch) { x.Pages[0].Slot = 5 }, "page delta 0: slot 5 of 5"},
		{"page of an idle slot", false, func(x *Batch) { x.Pages[0].Slot = 4 }, "page delta 0: slot 4 has no sequence"},
		{"page of a group too high", false, func(x *Batch) { x.Pages[0].Group = 2 }, "group 2 of 2"},
		{"page index too high", false, func(x *Batch) { x.Pages[0].Index = 8 }, "index 8 of 8"},
		{"negative page index", false, func(x *Batch) { x.Pages[0].Index = -1 }, "index -1 of 8"},
		{"page too high", false, func(x *Batch) { x.Pages[0].Page = checkedPages }, "page 40 of 40"},
		{"negative page", false, func(x *Batch) { x.Pages[0].Page = -1 }, "page -1 of 40"},
		{"no page for a new owner", false, func(x *Batch) { x.Pages = x.Pages[:len(x.Pages)-1] }, "sequence 2: slot 2 has no page 0 of group 1"},
		{"a page of the owner before", false, func(x *Batch) {
			x.Params = append(x.Params, ParamDelta{Slot: 0, Params: sample.Greedy()}) // whose page 0 comes with no delta
		}, "sequence 0: slot 0 has no page 0 of group 0"},

		{"token too high", false, func(x *Batch) { x.Tokens[0] = 50 }, "sequence 0: token 0 is 50 of 50"},
		{"no such embedding row", false, func(x *Batch) { x.Tokens[4] = EmbedRow(2) }, "sequence 2: token 4 is embedding row 2 of 2"},
		{"no last token", false, func(x *Batch) { x.Tokens[0] = LastToken }, "sequence 0: token 0 is the last one, slot 0 has sampled none"},
		{"last token of the owner before", false, func(x *Batch) { x.Tokens[4] = LastToken }, "slot 2 has sampled none"},

		{"empty span", false, func(x *Batch) { x.Spans[0].Count = 0 }, "span 0: 0 tokens"},
		{"span before the tokens", false, func(x *Batch) { x.Spans[0].Start = -1 }, "span 0: 4 tokens from -1 on"},
		{"span past the tokens", false, func(x *Batch) { x.Spans[1].Count = 7 }, "span 1: 7 tokens from 8 on"},
		{"overlapping spans", false, func(x *Batch) { x.Spans[1].Start = 7 }, "span 1: 1 tokens from 7 on, expected to begin at 8 at least"},
		{"span of two sequences", false, func(x *Batch) { x.Spans[0].Start = 2 }, "span 0: 4 tokens from 2 on are of two sequences"},

		{"row of a slot too high", false, func(x *Batch) { x.Rows[0].Slot = 5 }, "row 0: slot 5 of 5"},
		{"row of an idle slot", false, func(x *Batch) { x.Rows[0].Slot = 4 }, "row 0: slot 4 has no sequence"},
		{"row of another slot", false, func(x *Batch) { x.Rows[0].Token = 3 }, "row 0: token 3 of 14 is not of slot 2"},
		{"row past the tokens", false, func(x *Batch) { x.Rows[0].Token = 14 }, "row 0: token 14 of 14"},
		{"row before the tokens", false, func(x *Batch) { x.Rows[0].Token = -1 }, "row 0: token -1 of 14"},
		{"too many alternatives", false, func(x *Batch) { x.Rows[0].TopN = 33 }, "row 0: 33 alternatives, the limit is 32"},
		{"negative alternatives", false, func(x *Batch) { x.Rows[0].TopN = -1 }, "row 0: -1 alternatives"},
		{"negative index", false, func(x *Batch) { x.Rows[0].Index = -1 }, "row 0: index -1"},
		{"output", false, func(x *Batch) { x.Rows[0].Kind = RowOutput }, "row 0: kind 4 of a plan that ends in logits"},
		{"unknown kind", false, func(x *Batch) { x.Rows[0].Kind = 5 }, "row 0: unknown kind 5"},
		{"target too high", false, func(x *Batch) { x.Rows[1].Target = 50 }, "row 1: target 50 of 50"},
		{"negative target", false, func(x *Batch) { x.Rows[1].Target = -1 }, "row 1: target -1 of 50"},
		{"slot sampled twice", false, func(x *Batch) { row(x, 12, 2, RowSample, 0, 0) }, "row 6: slot 2 is sampled twice"},
		{"sampled and verified", false, func(x *Batch) { row(x, 1, 0, RowSample, 0, 0) }, "row 6: slot 0 is sampled twice"},
		{"verified in two runs", false, func(x *Batch) { x.Rows[3], x.Rows[5] = x.Rows[5], x.Rows[3] }, "row 2: the last one of slot 0 to be verified has target 7 and token 0"},
		{"verified out of order", false, func(x *Batch) { x.Rows[2].Token = 1 }, "row 2: token 1 and index 0, then 1 and 1"},
		{"verified indices", false, func(x *Batch) { x.Rows[3].Index = 2 }, "row 2: token 0 and index 0, then 1 and 2"},
		{"verified against another token", false, func(x *Batch) { x.Rows[2].Target = 8 }, "row 2: target 8, the token fed next is 7"},
		{"verified without an end", false, func(x *Batch) { x.Rows[4].Target = 7 }, "row 4: the last one of slot 0 to be verified has target 7"},
		{"verified in part", false, func(x *Batch) { x.Rows = append(x.Rows[:4], x.Rows[5]); x.Rows[3].Target = -1 }, "row 3: the last one of slot 0 to be verified has target -1 and token 1, expected -1 and 2"},
		{"again with a token", false, func(x *Batch) { x.Rows[5].Token = 0 }, "row 5: token 0 of a row that is sampled again"},
		{"again beside tokens", false, func(x *Batch) { x.Rows[5].Slot = 1 }, "row 5: slot 1 is sampled again and has tokens in the batch"},
		{"again of an idle slot", false, func(x *Batch) { x.Rows[5].Slot = 4 }, "row 5: slot 4 has no row that can be sampled again"},
		{"again twice", false, func(x *Batch) { x.Rows = append(x.Rows, x.Rows[5]) }, "row 6: slot 3 is sampled twice"},

		{"states of no recurrent model", false, func(x *Batch) { x.States = append(x.States, StateDelta{}) }, "states of a model without recurrent layers"},
		{"state of a slot too high", true, func(x *Batch) { x.States[0].Slot = 5 }, "state delta 0: slot 5 of 5"},
		{"state of an idle slot", true, func(x *Batch) { x.States[0].Slot = 4 }, "state delta 0: slot 4 has no sequence"},
		{"states twice", true, func(x *Batch) { x.States[1].Slot = 0 }, "state delta 1: slot 0 has two"},
		{"state too high", true, func(x *Batch) { x.States[1].Live = 9 }, "state delta 1: live 9, from -2, save -1 of 9"},
		{"negative state", true, func(x *Batch) { x.States[1].Live = -1 }, "state delta 1: live -1"},
		{"begun from a state too high", true, func(x *Batch) { x.States[1].From = 9 }, "from 9"},
		{"begun from no kind of state", true, func(x *Batch) { x.States[1].From = -3 }, "from -3"},
		{"saved to a state too high", true, func(x *Batch) { x.States[0].Save = 9 }, "save 9"},
		{"saved to the state before all", true, func(x *Batch) { x.States[0].Save = ZeroState }, "save -2"},
		{"saved to itself", true, func(x *Batch) { x.States[0].Save = 0 }, "live 0, from -1, save 0"},
		{"new owner without a state", true, func(x *Batch) { x.States = x.States[:1] }, "sequence 2: slot 2 begins from no state"},
		{"new owner that goes on", true, func(x *Batch) { x.States[1].From = NoState }, "sequence 2: slot 2 begins from no state"},
		{"gone on in another state", true, func(x *Batch) { x.States[0].Live = 4 }, "sequence 0: slot 0 goes on in state 4, which is not its own"},
		{"gone on from nothing", true, func(x *Batch) { x.States[0].From = ZeroState }, "sequence 0: slot 0 goes on at position 20 from the state before all"},
		{"begun from a state of elsewhere", true, func(x *Batch) { x.States[0].From = 6 }, "slot 0 goes on at position 20 from state 6, which is at 5"},
		{"begun from a state never written", true, func(x *Batch) { x.States[0].From = 4 }, "from state 4, which is at -1"},
		{"shared state", true, func(x *Batch) { x.States[1].Live = 0 }, "sequence 2: slot 2 shares state 0 with another"},
		{"saved to another's own", true, func(x *Batch) { x.States[0].Save = 2 }, "state delta 0: state 2 is written twice"},
		{"saved to one state", true, func(x *Batch) { x.States[1].Save = 8 }, "state delta 1: state 8 is written twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			b := loadChecked(t, f, checkedPlan(tt.state))
			firstBatch(b.Batch(0), tt.state)
			runChecked(t, b, 0)
			x := b.Batch(1)
			arrays := *x
			secondBatch(x, tt.state)
			tt.corrupt(x)
			refused(t, b.Forward(1), tt.want)
			*x = arrays // an append may have left the array
			secondBatch(x, tt.state)
			runChecked(t, b, 1)
		})
	}
}

// What a backend does not promise is refused as unsupported.
func TestCheckedFeatures(t *testing.T) {
	for _, tt := range []struct {
		feature Feature
		fill    func(x *Batch)
	}{
		{FeatureEmbeds, func(x *Batch) { x.Embeds = append(x.Embeds, make([]float32, 4)...) }},
		{FeatureAxes, func(x *Batch) { x.Axes = x.Axes[:3*len(x.Tokens)] }},
		{FeatureSpans, func(x *Batch) { x.Spans = append(x.Spans, Span{Count: 1}) }},
		{FeatureVerify, func(x *Batch) { row(x, 30, 3, RowVerify, -1, 0) }},
	} {
		f := newFake()
		f.caps.Features &^= tt.feature
		b := loadChecked(t, f, checkedPlan(false))
		firstBatch(b.Batch(0), false)
		tt.fill(b.Batch(0))
		if err := b.Forward(0); !errors.Is(err, ErrUnsupported) {
			t.Errorf("feature %d: %v, want %v", tt.feature, err, ErrUnsupported)
		}
	}
	f := newFake()
	f.caps.Features = 0
	b := loadChecked(t, f, checkedPlan(false))
	if err := b.LoadAdapter(1, &Adapter{Rank: 1}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("LoadAdapter: %v, want %v", err, ErrUnsupported)
	}
	p := checkedPlan(false)
	p.SetCacheFormat(plan.W8)
	if err := b.CheckPlan(p); !errors.Is(err, ErrUnsupported) {
		t.Errorf("CheckPlan of caches in W8: %v, want %v", err, ErrUnsupported)
	}
	if err := b.CheckPlan(draftingPlan(t)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("CheckPlan of a draft: %v, want %v", err, ErrUnsupported)
	}
	f.caps.Ops &^= 1 << plan.OpAttention
	if err := Checked(f, checkedLimits).CheckPlan(checkedPlan(false)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("CheckPlan without attention: %v, want %v", err, ErrUnsupported)
	}
	f.caps.Formats = 1 << plan.F32
	if _, err := Checked(f, checkedLimits).NewTensor("w", plan.BF16, []int{2}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("NewTensor of BF16: %v, want %v", err, ErrUnsupported)
	}
}

// draftingPlan is checkedPlan with a draft.
func draftingPlan(t *testing.T) *plan.Plan {
	t.Helper()
	p := checkedPlan(false)
	rows := p.Ops[slices.IndexFunc(p.Ops, func(op plan.Op) bool { return op.Kind == plan.OpRows })]
	logits, state, add := p.Ops[len(p.Ops)-1], int32(len(p.Values)), plan.NewOp(plan.OpAdd)
	for range 2 {
		p.Values = append(p.Values, plan.Value{Width: p.Values[logits.In[0]].Width, Of: plan.None})
	}
	add.In[0], add.In[1], add.Out[0] = rows.In[0], rows.In[0], state
	rows.In[0], rows.Out[0], logits.In[0] = state, state+1, state+1
	p.Draft = []plan.Op{add, rows, logits}
	if err := plan.Check(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// A draft may have so many tokens as there are pages and positions for.
func TestCheckedDrafts(t *testing.T) {
	for _, tt := range []struct {
		kvLen, drafts int32
		want          string // "": it is allowed
	}{
		{5, 0, ""},
		{5, MaxDrafts, ""},
		{5, MaxDrafts + 1, "9 tokens to draft after 5"},
		{5, -1, "-1 tokens to draft after 5"},
		{14, 3, ""},
		{14, 4, "slot 0 has no page 1 of group 0"},
		{99, 2, ""},
		{99, 3, "3 tokens to draft after 99, the limits are 8 and 100 in all"},
		{100, 1, ""},
	} {
		f := newFake()
		f.caps.Features |= FeatureDraft
		b := loadChecked(t, f, draftingPlan(t))
		x := b.Batch(0)
		give(x, 0, 5, tt.kvLen, true)
		row(x, 4, 0, RowSample, 0, 0)
		x.Draft, x.Seqs[0].Drafts = true, tt.drafts
		err := b.Forward(0)
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d tokens to draft after %d: %v, want %q", tt.drafts, tt.kvLen, err, tt.want)
		}
	}
}

// Between Forward and Sample some fields of rows may change in some ways. A
// refused Sample ends its batch and no other.
func TestCheckedSample(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(x *Batch)
		want   string // "": it is allowed
	}{
		{"nothing", func(x *Batch) {}, ""},
		{"a late mask", func(x *Batch) { x.Rows[0].Mask = 2 }, ""},
		{"no choice after all", func(x *Batch) { x.Rows[0].Kind, x.Rows[0].Target = RowScore, 0 }, ""},
		{"another target", func(x *Batch) { x.Rows[1].Target = 0 }, ""},
		{"part of a mask", func(x *Batch) { x.Masks = x.Masks[:3] }, "3 words of masks"},
		{"more masks than slots", func(x *Batch) { x.Masks = append(x.Masks, make([]uint32, 4*x.MaskWords)...) }, "an array of the batch outgrew"},
		{"mask too high", func(x *Batch) { x.Rows[0].Mask = 3 }, "row 0: mask 3 of 2"},
		{"negative mask", func(x *Batch) { x.Rows[0].Mask = -1 }, "row 0: mask -1 of 2"},
		{"mask there is not", func(x *Batch) { x.Masks = x.Masks[:0] }, "row 0: mask 1 of 0"},
		{"unknown kind", func(x *Batch) { x.Rows[0].Kind = 9 }, "row 0: unknown kind 9"},
		{"target too high", func(x *Batch) { x.Rows[1].Target = 50 }, "row 1: target 50 of 50"},
		{"sampled twice", func(x *Batch) { x.Rows[1].Kind = RowSample }, "row 2: slot 0 is sampled twice"},
		{"verified against another token", func(x *Batch) { x.Rows[3].Target = 9 }, "row 3: target 9, the token fed next is 7"},
		{"again no more", func(x *Batch) { x.Rows[5].Kind = RowScore }, "row 5: was"},
		{"again now", func(x *Batch) { x.Rows[0].Kind = RowAgain }, "row 0: was"},
		{"another token's row", func(x *Batch) { x.Rows[0].Token = 12 }, "row 0: was"},
		{"another slot's row", func(x *Batch) { x.Rows[0].Slot = 1 }, "row 0: was"},
		{"another index", func(x *Batch) { x.Rows[0].Index = 1 }, "row 0: was"},
		{"more alternatives", func(x *Batch) { x.Rows[0].TopN = 1 }, "row 0: was"},
		{"a row less", func(x *Batch) { x.Rows = x.Rows[:5] }, "changed after Forward"},
		{"another token", func(x *Batch) { x.Tokens[2]++ }, "changed after Forward"},
		{"another position", func(x *Batch) { x.Pos[0]++ }, "changed after Forward"},
		{"another axis", func(x *Batch) { x.Axes[5]++ }, "changed after Forward"},
		{"another adapter", func(x *Batch) { x.Seqs[2].Adapter = 0 }, "changed after Forward"},
		{"another page", func(x *Batch) { x.Pages[0].Page++ }, "changed after Forward"},
		{"another state", func(x *Batch) { x.States[1].Live++ }, "changed after Forward"},
		{"a span less", func(x *Batch) { x.Spans = x.Spans[:1] }, "changed after Forward"},
		{"another count", func(x *Batch) { x.Counts[0].Token++ }, "changed after Forward"},
		{"a bias less", func(x *Batch) { x.Biases = x.Biases[:0] }, "changed after Forward"},
		{"another seed", func(x *Batch) { x.Params[0].Params.Seed++ }, "changed after Forward"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := loadChecked(t, newFake(), checkedPlan(true))
			firstBatch(b.Batch(0), true)
			runChecked(t, b, 0)
			x := b.Batch(1)
			secondBatch(x, true)
			if err := b.Forward(1); err != nil {
				t.Fatal(err)
			}
			tt.change(x)
			err := b.Sample(1)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, tt.want)
			refused(t, b.Wait(1), "Wait of ring entry 1, which is idle")
			y := b.Batch(2)
			y.Clear()
			give(y, 1, 2, 8, false)
			row(y, 1, 1, RowSample, 0, 1)
			runChecked(t, b, 2)
		})
	}
}

// What several batches say together: where sequences go on, whose states are
// whose, and what can be sampled again.
func TestCheckedOverTime(t *testing.T) {
	next := func(fill func(x *Batch)) func(b Backend, x *Batch) error {
		return func(b Backend, x *Batch) error {
			x.Clear()
			fill(x)
			return b.Forward(0)
		}
	}
	for _, tt := range []struct {
		name  string
		state bool
		void  int // rows of the verification in the second batch that are void
		then  func(b Backend, x *Batch) error
		want  string
	}{
		{"goes on", false, 0, next(func(x *Batch) { give(x, 0, 1, 24, false) }), ""},
		{"goes on at the first wrong guess", false, 1, next(func(x *Batch) { give(x, 0, 1, 23, false) }), ""},
		{"goes on at the first guess, which was wrong", false, 2, next(func(x *Batch) { give(x, 0, 1, 22, false) }), ""},
		{"goes on after a wrong guess", false, 1, next(func(x *Batch) { give(x, 0, 1, 24, false) }), "goes on at position 23, it ended at 22"},
		{"the last token is known after a verification", false, 1, next(func(x *Batch) { give(x, 0, 1, 23, false); x.Tokens[0] = LastToken }), ""},
		{"a page that was given before", false, 0, next(func(x *Batch) { give(x, 0, 1, 24, false); x.Pages = x.Pages[:0] }), ""},
		{"a page that was not", false, 0, next(func(x *Batch) { give(x, 0, 10, 33, false); x.Pages = x.Pages[:2] }), "slot 0 has no page 2 of group 1"},
		{"a new owner behind the window", false, 0, next(func(x *Batch) {
			give(x, 4, 1, 60, true) // group 1 is read from position 40 on
			x.Pages = append(x.Pages[:4], x.Pages[6:]...)
		}), ""},
		{"a new owner without its window", false, 0, next(func(x *Batch) {
			give(x, 4, 1, 60, true)
			x.Pages = append(x.Pages[:4], x.Pages[7:]...)
		}), "slot 4 has no page 2 of group 1"},
		{"a new owner with a part of its prompt", false, 0, next(func(x *Batch) { give(x, 1, 4, 50, true) }), ""},
		{"sampled again after it was chosen", false, 0, next(func(x *Batch) { row(x, -1, 1, RowAgain, 0, 0); x.Rows[0].Slot = 3 }), "slot 3 has no row that can be sampled again"},
		{"sampled again after it was sampled", false, 0, next(func(x *Batch) { row(x, -1, 2, RowAgain, 0, 0) }), "slot 2 has no row"},
		{"sampled again after it went on", false, 0, next(func(x *Batch) { row(x, -1, 1, RowAgain, 0, 0) }), "slot 1 has no row"},

		{"its own state goes on", true, 0, next(func(x *Batch) { give(x, 1, 1, 7, false) }), ""},
		{"a state that guesses went into", true, 1, next(func(x *Batch) { give(x, 0, 1, 23, false) }), "goes on at position 22 from state 0, which is at 23"},
		{"a state from before the guesses", true, 1, next(func(x *Batch) {
			give(x, 0, 3, 23, false)
			x.States = append(x.States, StateDelta{Slot: 0, Live: 5, From: 5, Save: NoState})
		}), ""},
		{"a state from elsewhere", true, 1, next(func(x *Batch) {
			give(x, 0, 3, 23, false)
			x.States = append(x.States, StateDelta{Slot: 0, Live: 6, From: 6, Save: NoState})
		}), "goes on at position 20 from state 6, which is at 5"},
		{"back without a state", false, 1, next(func(x *Batch) { give(x, 0, 3, 23, false) }), "goes on at position 20, it ended at 22"},
		{"ahead of a state", true, 1, next(func(x *Batch) {
			give(x, 0, 1, 24, false)
			x.States = append(x.States, StateDelta{Slot: 0, Live: 0, From: 0, Save: NoState})
		}), "goes on at position 23, it ended at 22"},
		{"a saved state", true, 0, next(func(x *Batch) {
			give(x, 4, 3, 26, true)
			x.States = append(x.States, StateDelta{Slot: 4, Live: 4, From: 8, Save: NoState})
		}), ""},
		{"another's own, after which that goes on", true, 0, next(func(x *Batch) {
			give(x, 1, 1, 7, false)
			give(x, 4, 3, 26, true)
			x.States = append(x.States, StateDelta{Slot: 4, Live: 4, From: 0, Save: NoState})
		}), ""},
		{"another's own, which goes on", true, 0, next(func(x *Batch) {
			give(x, 0, 1, 24, false)
			give(x, 4, 3, 26, true)
			x.States = append(x.States, StateDelta{Slot: 4, Live: 4, From: 0, Save: NoState})
		}), "state 0, where slot 4 begins, is another slot's own"},
		{"an idle slot's own", true, 0, next(func(x *Batch) {
			give(x, 4, 3, 3, true)
			x.States = append(x.States, StateDelta{Slot: 4, Live: 3, From: ZeroState, Save: NoState})
		}), ""},
		{"a state that another took", true, 0, func(b Backend, x *Batch) error {
			x.Clear()
			give(x, 4, 3, 3, true)
			x.States = append(x.States, StateDelta{Slot: 4, Live: 1, From: ZeroState, Save: NoState})
			if err := wholeStep(b, 0); err != nil {
				return err
			}
			x.Clear()
			give(x, 1, 1, 7, false)
			return b.Forward(0)
		}, "slot 1 goes on in state 1, which is not its own"},
		{"a state that was saved over", true, 0, func(b Backend, x *Batch) error {
			x.Clear()
			give(x, 4, 3, 3, true)
			x.States = append(x.States, StateDelta{Slot: 4, Live: 4, From: ZeroState, Save: 1})
			if err := wholeStep(b, 0); err != nil {
				return err
			}
			x.Clear()
			give(x, 1, 1, 7, false)
			return b.Forward(0)
		}, "slot 1 goes on in state 1, which is not its own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			b := loadChecked(t, f, checkedPlan(tt.state))
			firstBatch(b.Batch(0), tt.state)
			runChecked(t, b, 0)
			secondBatch(b.Batch(1), tt.state)
			for _, step := range []func(int) error{b.Forward, b.Sample} {
				if err := step(1); err != nil {
					t.Fatal(err)
				}
			}
			x := b.Batch(1)
			clear(x.Results)
			for r := 4; r > 4-tt.void; r-- {
				x.Results[r].Void = 1
			}
			y := b.Batch(2)
			y.Clear()
			give(y, 0, 1, 24, false)
			refused(t, b.Forward(2), "slot 0 goes on before Wait(1) has told where it ended")
			if err := b.Wait(1); err != nil {
				t.Fatal(err)
			}
			err := tt.then(b, b.Batch(0))
			if tt.want != "" {
				refused(t, err, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// Calls out of order never reach the backend.
func TestCheckedCalls(t *testing.T) {
	p := checkedPlan(false)
	f := newFake()
	b := Checked(f, checkedLimits)
	refused(t, b.InitCache(1, 0), "InitCache before SetModel")
	refused(t, b.WarmUp(), "WarmUp before InitCache")
	refused(t, b.Forward(0), "Forward before InitCache")
	refused(t, b.LoadAdapter(1, &Adapter{Rank: 1}), "LoadAdapter before SetModel")
	_, err := b.HostAlloc(0)
	refused(t, err, "0 bytes of host memory")
	if len(f.calls) != 0 {
		t.Errorf("calls %v reached the backend", f.calls)
	}

	b = loadChecked(t, f, p)
	_, err = b.NewTensor("late", plan.F32, []int{1})
	refused(t, err, "tensor late announced after the model was set")
	refused(t, b.WriteTensor(0, 0, 1, make([]byte, 16)), "written after the model was set")
	_, err = b.SetModel(p)
	refused(t, err, "the model was already set")
	refused(t, b.InitCache(1, 0), "InitCache called twice")
	for _, call := range []struct {
		name string
		call func(int) error
	}{{"Forward", b.Forward}, {"Sample", b.Sample}, {"Wait", b.Wait}} {
		for _, i := range []int{-1, RingDepth} {
			refused(t, call.call(i), fmt.Sprintf("%s of ring entry %d, there are 3", call.name, i))
		}
	}
	refused(t, b.Sample(0), "Sample of ring entry 0, which is idle")
	refused(t, b.Wait(0), "Wait of ring entry 0, which is idle")
	firstBatch(b.Batch(0), false)
	if err := b.Forward(0); err != nil {
		t.Fatal(err)
	}
	refused(t, b.Forward(0), "Forward of ring entry 0, which waits for Sample")
	refused(t, b.Wait(0), "Wait of ring entry 0, which waits for Sample")
	refused(t, b.Forward(1), "Forward of ring entry 1 before Sample of entry 0")
	refused(t, b.WarmUp(), "WarmUp while a batch is in flight")
	if err := b.Sample(0); err != nil {
		t.Fatal(err)
	}
	refused(t, b.Forward(0), "Forward of ring entry 0, which waits for Wait")
	refused(t, b.Sample(0), "Sample of ring entry 0, which waits for Wait")
	if err := b.Wait(0); err != nil {
		t.Fatal(err)
	}
	refused(t, b.Wait(0), "Wait of ring entry 0, which is idle")
	if err := b.WarmUp(); err != nil {
		t.Error(err)
	}

	// A batch that failed leaves the device alive, one that lost it does not.
	secondBatch(b.Batch(1), false)
	f.err = errors.New("failed")
	refused(t, b.Forward(1), "failed")
	runChecked(t, b, 1)
	f.err = fmt.Errorf("gone: %w", ErrLost)
	if err := b.WarmUp(); !errors.Is(err, ErrLost) {
		t.Errorf("WarmUp of a lost device: %v", err)
	}
	if err := b.Forward(2); !errors.Is(err, ErrLost) {
		t.Errorf("Forward on a lost device: %v", err)
	}

	b = loadChecked(t, newFake(), p)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, b.Forward(0), "backend is closed")
	_, err = b.NewTensor("w", plan.F32, []int{1})
	refused(t, err, "backend is closed")
}

// Copies of pages and states are of what there is, whole, and between batches.
func TestCheckedCopies(t *testing.T) {
	f := newFake()
	b := Checked(f, checkedLimits)
	page, state := make([]byte, checkedPageBytes), make([]byte, checkedStateBytes)
	refused(t, b.ReadPage(0, page), "ReadPage before InitCache")
	b = loadChecked(t, f, checkedPlan(true))
	f.calls = nil
	refused(t, b.ReadPage(-1, page), "ReadPage of page -1, there are 40")
	refused(t, b.WritePage(checkedPages, page), "WritePage of page 40, there are 40")
	refused(t, b.WritePage(0, state), "WritePage of 8 bytes, a page has 24")
	refused(t, b.ReadState(checkedStates, state), "ReadState of state 9, there are 9")
	refused(t, b.WriteState(0, page), "WriteState of 24 bytes, a state has 8")
	if len(f.calls) != 0 {
		t.Errorf("calls %v reached the backend", f.calls)
	}
	for i, copies := range []func() error{
		func() error { return b.ReadPage(1, page) },
		func() error { return b.WritePage(2, page) },
		func() error { return b.ReadState(3, state) },
		func() error { return b.WriteState(8, state) },
	} {
		if err := copies(); err != nil || len(f.calls) != i+1 {
			t.Errorf("copy %d: error %v, calls %v", i, err, f.calls)
		}
	}

	// A sequence may go on from a state that was written, wherever it begins.
	firstBatch(b.Batch(0), true)
	runChecked(t, b, 0)
	x := b.Batch(1)
	x.Clear()
	give(x, 4, 3, 26, true)
	x.States = append(x.States, StateDelta{Slot: 4, Live: 4, From: 8, Save: NoState})
	if err := b.Forward(1); err != nil {
		t.Error(err)
	}
	refused(t, b.ReadPage(0, page), "ReadPage while a batch is in flight")

	b = loadChecked(t, newFake(), checkedPlan(false))
	refused(t, b.ReadState(0, state), "ReadState of state 0, there are 0")
}

func TestCheckedTensors(t *testing.T) {
	b := Checked(newFake(), checkedLimits)
	for _, tt := range []struct {
		name   string
		format plan.Format
		shape  []int
		want   string
	}{
		{"scalar", plan.F32, nil, "tensor bad: shape []"},
		{"four dimensions", plan.F32, []int{2, 2, 2, 2}, "tensor bad: shape [2 2 2 2]"},
		{"empty", plan.F32, []int{4, 0}, "tensor bad: shape [4 0]"},
		{"negative", plan.F32, []int{-4, 4}, "tensor bad: shape [-4 4]"},
		{"unknown format", plan.Format(7), []int{4, 4}, "tensor bad: unknown format 7"},
	} {
		_, err := b.NewTensor("bad", tt.format, tt.shape)
		refused(t, err, tt.want)
	}
	h, err := b.NewTensor("w", plan.BF16, []int{2, 35, 5}) // 70 rows of 10 bytes
	if err != nil {
		t.Fatal(err)
	}
	if err := b.WriteTensor(h, 60, 9, make([]byte, 90)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		h              Handle
		first, n, size int
		want           string
	}{
		{1, 0, 1, 10, "tensor handle 1, there are 1"},
		{-1, 0, 1, 10, "tensor handle -1"},
		{0, 70, 1, 10, "tensor w: 1 rows from 70 on written, it has 70"},
		{0, -1, 1, 10, "tensor w: 1 rows from -1 on"},
		{0, 0, 71, 710, "tensor w: 71 rows from 0 on"},
		{0, 0, -1, 0, "tensor w: -1 rows"},
		{0, 0, 1, 9, "tensor w: 9 bytes for 1 rows, expected 10"},
		{0, 68, 2, 20, "tensor w: row 68 written twice"},
		{0, 0, 61, 610, "tensor w: row 60 written twice"},
	} {
		refused(t, b.WriteTensor(tt.h, tt.first, tt.n, make([]byte, tt.size)), tt.want)
	}
	if err := b.WriteTensor(h, 0, 60, make([]byte, 600)); err != nil {
		t.Errorf("after refused calls: %v", err)
	}
}

func TestCheckedAdopted(t *testing.T) {
	f := newFake()
	f.caps.Layout, f.caps.Adopted = plan.Panels, 1<<plan.BF16
	b := Checked(f, checkedLimits)
	shape := []int{2, 35, 5}
	size := plan.BF16.PackedBytes(shape)
	if size != 2*3*16*6*2 {
		t.Fatalf("%d bytes packed", size)
	}
	memory := make([]byte, 2*size+PackedAlign)
	memory = memory[PackedAlign-uintptr(unsafe.Pointer(&memory[0]))%PackedAlign:]
	for _, format := range []plan.Format{plan.BF16, plan.F32} {
		if _, err := b.NewTensor("w", format, shape); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.NewTensor("v", plan.BF16, []int{5}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.NewTensor("begun", plan.BF16, shape); err != nil {
		t.Fatal(err)
	}
	if err := b.WriteTensor(3, 69, 1, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		h      Handle
		packed []byte
		want   string
	}{
		{4, memory[:size], "tensor handle 4, there are 4"},
		{-1, memory[:size], "tensor handle -1"},
		{0, memory[:size-1], "tensor w: 1151 bytes packed, expected 1152"},
		{0, memory[1 : 1+size], "tensor w: packed memory is not aligned to 64 bytes"},
		{1, memory[:2*size], "tensor w: packed, F32 [2 35 5]: not supported"},
		{2, memory[:size], "tensor v: packed, BF16 [5]: not supported"},
		{3, memory[:size], "tensor begun adopted, though it has been written"},
	} {
		refused(t, b.AdoptTensor(tt.h, tt.packed, nil), tt.want)
	}
	if err := b.AdoptTensor(0, memory[:size], nil); err != nil {
		t.Errorf("after refused calls: %v", err)
	}
	refused(t, b.AdoptTensor(0, memory[:size], nil), "tensor w adopted, though it has been written")
	refused(t, b.WriteTensor(0, 0, 1, make([]byte, 10)), "tensor w: row 0 written twice")

	f.caps.Layout = "panels16-v0"
	refused(t, Checked(f, checkedLimits).AdoptTensor(0, memory[:size], nil), "tensor handle 0, there are 0")
	b = Checked(f, checkedLimits)
	f.tensors = 0
	if _, err := b.NewTensor("w", plan.BF16, shape); err != nil {
		t.Fatal(err)
	}
	refused(t, b.AdoptTensor(0, memory[:size], nil), "tensor w: packed, BF16 [2 35 5]: not supported")
}

func TestCheckedModel(t *testing.T) {
	p := checkedPlan(true)
	announce := func(b Backend, change func(i int, shape []int) []int, rows func(i int) int) {
		for i, w := range p.Tensors {
			shape := change(i, append([]int(nil), w.Shape...))
			h, err := b.NewTensor(w.Name, plan.F32, shape)
			if err != nil {
				t.Fatal(err)
			}
			n := min(rowsOf(shape), rows(i))
			if err := b.WriteTensor(h, 0, n, make([]byte, n*4*shape[1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	same := func(_ int, shape []int) []int { return shape }
	all := func(int) int { return math.MaxInt }

	b := Checked(newFake(), checkedLimits)
	_, err := b.SetModel(p)
	refused(t, err, "0 tensors announced, the plan has 4")
	b = Checked(newFake(), checkedLimits)
	announce(b, func(i int, shape []int) []int { shape[0] += i / 3; return shape }, all)
	_, err = b.SetModel(p)
	refused(t, err, "tensor tensor 3: shape [5 2], expected [4 2]")
	b = Checked(newFake(), checkedLimits)
	announce(b, same, func(i int) int { return 99 })
	_, err = b.SetModel(p)
	refused(t, err, "tensor tensor 1: 1 of 100 rows were never written")

	b = Checked(newFake(), checkedLimits)
	announce(b, same, all)
	bad := checkedPlan(true)
	bad.Ops[0].Weight[0] = 9
	_, err = b.SetModel(bad)
	refused(t, err, "operation 0, embed")
	refused(t, b.CheckPlan(bad), "operation 0, embed")
	if _, err := b.SetModel(p); err != nil {
		t.Fatalf("after a refused plan: %v", err)
	}
	refused(t, b.InitCache(0, 1), "0 pages")
	refused(t, b.InitCache(1, 0), "0 states")
	if err := b.InitCache(1, 1); err != nil {
		t.Fatal(err)
	}
	b = Checked(newFake(), checkedLimits)
	announce(b, same, all)
	if _, err := b.SetModel(checkedPlan(false)); err != nil {
		t.Fatal(err)
	}
	refused(t, b.InitCache(1, 1), "1 states of a model without recurrent layers")
}

func TestCheckedAdapters(t *testing.T) {
	b := loadChecked(t, newFake(), checkedPlan(false))
	a, low := make([]float32, 8), make([]float32, 6)
	for _, tt := range []struct {
		id     int32
		rank   int
		target AdapterTarget
		want   string
	}{
		{0, 2, AdapterTarget{}, "adapter 0, numbers begin with 1"},
		{1, 2, AdapterTarget{}, "adapter 1 is loaded already"},
		{2, 0, AdapterTarget{}, "adapter 2: rank 0"},
		{2, 2, AdapterTarget{Tensor: 4}, "target 0: tensor 4 of 4"},
		{2, 2, AdapterTarget{Tensor: 0}, "target 0: tensor 0 is not the matrix of a linear layer"},
		{2, 2, AdapterTarget{Tensor: 2, First: 2, Rows: 3, A: a, B: low}, "target 0: 3 rows from 2 on of 4"},
		{2, 2, AdapterTarget{Tensor: 2, First: 1, Rows: 3, A: a[1:], B: low}, "target 0: 7 elements of A, expected 1 times 2 times 4"},
		{2, 2, AdapterTarget{Tensor: 2, First: 1, Rows: 3, A: a, B: low[1:]}, "target 0: 5 elements of B, expected 1 times 3 times 2"},
		{2, 2, AdapterTarget{Tensor: 2, First: 1, Rows: 3, A: a, B: low}, ""},
	} {
		err := b.LoadAdapter(tt.id, &Adapter{Rank: tt.rank, Targets: []AdapterTarget{tt.target}})
		if tt.want != "" {
			refused(t, err, tt.want)
		} else if err != nil {
			t.Error(err)
		}
	}
	refused(t, b.DropAdapter(3), "adapter 3 is not loaded")
	firstBatch(b.Batch(0), false)
	runChecked(t, b, 0)
	secondBatch(b.Batch(1), false)
	if err := b.Forward(1); err != nil {
		t.Fatal(err)
	}
	refused(t, b.DropAdapter(1), "adapter 1 is in use by slot 2")
	if err := b.DropAdapter(2); err != nil {
		t.Error(err)
	}
	for _, step := range []func(int) error{b.Sample, b.Wait} {
		if err := step(1); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.DropAdapter(1); err != nil {
		t.Error(err)
	}
}

// A batch of nothing but rows that are sampled again has no sequence.
func TestCheckedAgainAlone(t *testing.T) {
	b := loadChecked(t, newFake(), checkedPlan(true))
	firstBatch(b.Batch(0), true)
	runChecked(t, b, 0)
	x := b.Batch(1)
	x.Clear()
	row(x, -1, 3, RowAgain, 0, 0)
	runChecked(t, b, 1)
}

// checkedEncoder takes no tokens and gives rows.
func checkedEncoder() *plan.Plan {
	p := checkedPlan(false)
	p.Vocab, p.Ops[0].Weight[0] = 0, plan.None
	output := plan.NewOp(plan.OpOutput)
	output.In[0] = p.Ops[len(p.Ops)-1].In[0]
	p.Ops[len(p.Ops)-1] = output
	return p
}

// An encoder's batch has embedding rows and asks for outputs; what is of tokens
// and of sampling is refused.
func TestCheckedEncoder(t *testing.T) {
	batch := func(x *Batch) {
		x.Clear()
		for slot := range int32(2) {
			give(x, slot, 6, 6, true)
		}
		for i := range x.Tokens {
			x.Tokens[i] = EmbedRow(i)
		}
		x.Embeds = append(x.Embeds, make([]float32, 4*len(x.Tokens))...)
		x.Spans = append(x.Spans, Span{Start: 0, Count: 6}, Span{Start: 6, Count: 6})
		for i := range x.Tokens {
			row(x, int32(i), int32(i)/6, RowOutput, 0, 0)
		}
	}
	for _, tt := range []struct {
		name string
		bad  func(x *Batch)
		want string
	}{
		{"a token", func(x *Batch) { x.Tokens[1] = 0 }, "token 1 is 0 of 0"},
		{"the last token", func(x *Batch) { x.Tokens[1] = LastToken }, "token 1 is the last one"},
		{"a row to sample", func(x *Batch) { x.Rows[2].Kind = RowSample }, "row 2: kind 0 of a plan that ends in output"},
		{"alternatives", func(x *Batch) { x.Rows[2].TopN = 1 }, "row 2: target 0, index 0 and 1 alternatives"},
		{"a target", func(x *Batch) { x.Rows[2].Target = -1 }, "row 2: target -1"},
		{"a bias", func(x *Batch) { x.Biases = append(x.Biases, BiasDelta{}) }, "bias 0: token 0 of 0"},
		{"a count", func(x *Batch) { x.Counts = append(x.Counts, CountDelta{}) }, "count 0: token 0 of 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := loadChecked(t, newFake(), checkedEncoder())
			batch(b.Batch(0))
			tt.bad(b.Batch(0))
			refused(t, b.Forward(0), tt.want)
			batch(b.Batch(0))
			runChecked(t, b, 0)
		})
	}
	mean := checkedEncoder()
	rows := &mean.Ops[slices.IndexFunc(mean.Ops, func(op plan.Op) bool { return op.Kind == plan.OpRows })]
	rows.I[plan.RowsCount], rows.I[plan.RowsMean] = 3, 1
	joining := loadChecked(t, newFake(), mean)
	batch(joining.Batch(0))
	refused(t, joining.Forward(0), "row 0: token 0 of slot 0, a row is made of 3")
	batch(joining.Batch(0))
	joining.Batch(0).Rows = slices.DeleteFunc(joining.Batch(0).Rows, func(r Row) bool { return r.Token%6 < 2 })
	runChecked(t, joining, 0)
	p := checkedEncoder() // one that takes tokens as well, which is why there is room for masks
	p.Vocab, p.Ops[0].Weight[0] = checkedVocab, 0
	b := loadChecked(t, newFake(), p)
	for name, bad := range map[string]func(x *Batch){
		"row 1: mask 1 of 0":    func(x *Batch) { x.Rows[1].Mask = 1 },
		"2 words of masks":      func(x *Batch) { x.Masks = x.Masks[:2] },
		"row 1: kind 1 of a pl": func(x *Batch) { x.Rows[1].Kind = RowScore },
	} {
		x := b.Batch(0)
		batch(x)
		if err := b.Forward(0); err != nil {
			t.Fatal(err)
		}
		before := x.Masks
		bad(x)
		refused(t, b.Sample(0), name)
		x.Masks = before
	}
}

func TestCheckedAllocates(t *testing.T) {
	b := loadChecked(t, newFake(), checkedPlan(true))
	n := testing.AllocsPerRun(50, func() {
		firstBatch(b.Batch(0), true)
		runChecked(t, b, 0)
		secondBatch(b.Batch(1), true)
		runChecked(t, b, 1)
	})
	if n != 0 {
		t.Errorf("%v allocations in two steps, want none", n)
	}
}

func BenchmarkChecked(b *testing.B) {
	c := loadChecked(b, newFake(), checkedPlan(true))
	for b.Loop() {
		firstBatch(c.Batch(0), true)
		runChecked(b, c, 0)
		secondBatch(c.Batch(1), true)
		runChecked(b, c, 1)
	}
}
