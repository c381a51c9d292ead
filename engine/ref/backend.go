// Package ref is the oracle: the backend that other backends are compared
// with. It interprets an op plan one operation and one row at a time, with
// weights, activations and caches in float32 and sums in float64; clear before
// fast. The functions of ops.go, attention.go and recurrent.go are the
// specification of each operation, package sample is that of sampling.
//
// Calls do their work before they return, so the ring holds trivially. Like
// every backend it trusts plans and batches; see device.Checked.
package ref

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// Backend implements device.Backend.
type Backend struct {
	limits   device.Limits
	tensors  []*tensor
	plan     *plan.Plan // nil before SetModel
	adapters map[int32]adapter

	values     [][]float32 // by value: [rows, width]; nil for views
	pages      []float32   // [pages, pageWidth]
	states     [][]float32 // by state: [stateWidth]
	pageWidth  int         // floats of a page
	stateWidth int         // floats of all caches of states, one after the other
	offsets    []int       // by cache: where it begins in a page, or in a state
	slots      []slot
	ring       [device.RingDepth]entry

	logits  []float32 // one row
	meet    Meet      // of a shard; nil: it has the whole model
	sampler sample.Sampler
	top     [device.MaxTopN]sample.Alternative

	steps, tokens, busy, bytes atomic.Int64
}

var _ device.Backend = (*Backend)(nil)

// slot is what stays on the device for one sequence.
type slot struct {
	pages  [][]int32 // by group: the page table
	live   int32     // its state
	last   int32     // most recently sampled token
	params sample.Params
	counts *sample.Counts
	biases []sample.Bias

	hidden   []float32 // input of the last operation, of the last row
	prev     int32     // the token that row belongs to
	rejected bool      // in this batch, a RowVerify chose another token than its Target
}

// entry is one Batch of the ring.
type entry struct {
	batch  device.Batch
	hidden []float32 // by row: input of the last operation, kept from Forward to Sample
	prev   []int32   // by row: the token it belongs to
	tokens []token   // of the batch, kept likewise
}

// Open returns a backend without a model.
func Open(limits device.Limits) (*Backend, error) {
	for _, l := range []struct {
		name  string
		value int
	}{
		{"MaxTokens", limits.MaxTokens},
		{"MaxRows", limits.MaxRows},
		{"MaxSlots", limits.MaxSlots},
		{"MaxPagesPerSlot", limits.MaxPagesPerSlot},
	} {
		if l.value <= 0 {
			return nil, fmt.Errorf("ref: limit %s is %d, expected a positive number", l.name, l.value)
		}
	}
	return &Backend{limits: limits, adapters: map[int32]adapter{}}, nil
}

// Meet gives what one shard has of something to the others, waits for theirs, and returns
// all, by shard. They are read before the next call.
type Meet func(x []float32) [][]float32

// OpenShard returns a backend without a model that runs plan.Shard's plans beside others.
func OpenShard(limits device.Limits, meet Meet) (*Backend, error) {
	b, err := Open(limits)
	if err == nil {
		b.meet = meet
	}
	return b, err
}

// Caps implements device.Backend.
func (b *Backend) Caps() device.Caps {
	return device.Caps{
		Name:    "ref",
		Detail:  "float32 Go",
		Devices: 1,
		Ops:     1<<(plan.OpEmbeddingBag+1) - 1,
		Formats: 1<<plan.F32 | 1<<plan.F16 | 1<<plan.BF16 | 1<<plan.W8 | 1<<plan.W4 | 1<<plan.F8,
		Features: device.FeatureAdapters | device.FeatureEmbeds | device.FeatureAxes |
			device.FeatureSpans | device.FeatureVerify | device.FeatureCache8 | device.FeatureDraft,
		StepTokens: 64,
	}
}

// CheckPlan implements device.Backend: there is nothing it cannot run.
func (b *Backend) CheckPlan(*plan.Plan) error { return nil }

// NewTensor implements device.Backend.
func (b *Backend) NewTensor(name string, format plan.Format, shape []int) (device.Handle, error) {
	b.tensors = append(b.tensors, newTensor(format, shape))
	return device.Handle(len(b.tensors) - 1), nil
}

// WriteTensor implements device.Backend.
func (b *Backend) WriteTensor(h device.Handle, first, n int, src []byte) error {
	b.tensors[h].write(first, n, src)
	return nil
}

// AdoptTensor implements device.Backend: rows are widened, so none is kept.
func (b *Backend) AdoptTensor(device.Handle, []byte, func()) error { return device.ErrUnsupported }

const floatBytes = 4

// SetModel implements device.Backend.
func (b *Backend) SetModel(p *plan.Plan) (device.ModelInfo, error) {
	b.plan = p
	b.layOutCaches()
	info := device.ModelInfo{
		PageBytes:  int64(b.pageWidth) * floatBytes,
		StateBytes: int64(b.stateWidth) * floatBytes,
	}
	for _, t := range b.tensors {
		info.WeightBytes += int64(len(t.data)) * floatBytes
	}
	rows := max(b.limits.MaxTokens, b.limits.MaxRows)
	b.values = make([][]float32, len(p.Values))
	for i, v := range p.Values {
		if v.Of == plan.None {
			b.values[i] = make([]float32, rows*int(v.Width))
			info.WorkspaceBytes += int64(rows) * int64(v.Width) * floatBytes
		}
	}
	b.logits = make([]float32, p.Vocab)
	info.WorkspaceBytes += int64(p.Vocab) * floatBytes
	b.bytes.Add(info.WeightBytes + info.WorkspaceBytes)
	return info, nil
}

// InitCache implements device.Backend.
func (b *Backend) InitCache(pages, states int) error {
	b.pages = make([]float32, pages*b.pageWidth)
	b.states = make([][]float32, states)
	for i := range b.states {
		b.states[i] = make([]float32, b.stateWidth)
	}
	b.bytes.Add(int64(pages*b.pageWidth+states*b.stateWidth) * floatBytes)

	l := b.limits
	width, output := b.plan.Width(b.head().In[0]), 0
	if b.plan.Encodes() {
		output = width
	}
	b.slots = make([]slot, l.MaxSlots)
	for i := range b.slots {
		b.slots[i] = slot{
			pages:  make([][]int32, len(b.plan.Groups)),
			live:   device.NoState,
			params: sample.Greedy(),
			counts: sample.NewCounts(b.plan.Vocab),
			hidden: make([]float32, width),
		}
		for g := range b.plan.Groups {
			b.slots[i].pages[g] = make([]int32, l.MaxPagesPerSlot)
		}
	}
	for i := range b.ring {
		b.ring[i] = entry{
			batch:  device.NewBatch(l, b.plan.Vocab, len(b.plan.Groups), b.plan.RowWidth(), output),
			hidden: make([]float32, l.MaxRows*width),
			prev:   make([]int32, l.MaxRows),
		}
	}
	return nil
}

// head is the last operation.
func (b *Backend) head() *plan.Op { return &b.plan.Ops[len(b.plan.Ops)-1] }

// WarmUp implements device.Backend: no step is slower than another.
func (b *Backend) WarmUp() error { return nil }

// HostAlloc implements device.Backend: all memory is the host's.
func (b *Backend) HostAlloc(bytes int) ([]byte, error) { return make([]byte, bytes), nil }

// HostFree implements device.Backend; the garbage collector does the rest.
func (b *Backend) HostFree([]byte) {}

// ReadPage implements device.Backend.
func (b *Backend) ReadPage(page int, dst []byte) error { return get(dst, b.page(page)) }

// WritePage implements device.Backend.
func (b *Backend) WritePage(page int, src []byte) error { return put(b.page(page), src) }

// ReadState implements device.Backend.
func (b *Backend) ReadState(state int, dst []byte) error { return get(dst, b.states[state]) }

// WriteState implements device.Backend.
func (b *Backend) WriteState(state int, src []byte) error { return put(b.states[state], src) }

func (b *Backend) page(page int) []float32 {
	return b.pages[page*b.pageWidth:][:b.pageWidth]
}

func get(dst []byte, from []float32) error {
	_, err := binary.Encode(dst, binary.LittleEndian, from)
	return err
}

func put(to []float32, src []byte) error {
	_, err := binary.Decode(src, binary.LittleEndian, to)
	return err
}

// Batch implements device.Backend.
func (b *Backend) Batch(i int) *device.Batch { return &b.ring[i].batch }

// Forward implements device.Backend.
func (b *Backend) Forward(i int) error {
	start := time.Now()
	e := &b.ring[i]
	b.applyDeltas(&e.batch)
	b.forward(e)
	for _, d := range e.batch.States {
		if d.Save != device.NoState {
			copy(b.states[d.Save], b.states[d.Live])
		}
	}
	b.steps.Add(1)
	b.tokens.Add(int64(len(e.batch.Tokens)))
	b.busy.Add(int64(time.Since(start)))
	return nil
}

func (b *Backend) applyDeltas(batch *device.Batch) {
	for _, d := range batch.Pages {
		b.slots[d.Slot].pages[d.Group][d.Index] = d.Page
	}
	for _, d := range batch.States {
		b.slots[d.Slot].live = d.Live
		switch {
		case d.From == device.ZeroState:
			clear(b.states[d.Live])
		case d.From != device.NoState:
			copy(b.states[d.Live], b.states[d.From])
		}
	}
	for _, d := range batch.Params {
		b.slots[d.Slot].params = d.Params
		b.slots[d.Slot].counts.Reset()
		b.slots[d.Slot].biases = b.slots[d.Slot].biases[:0]
	}
	for _, d := range batch.Counts {
		b.slots[d.Slot].counts.Add(d.Token, d.Generated == 1)
	}
	for _, d := range batch.Biases {
		s := &b.slots[d.Slot]
		s.biases = append(s.biases, sample.Bias{Token: d.Token, Bias: d.Bias})
	}
}

// Sample implements device.Backend.
func (b *Backend) Sample(i int) error {
	start := time.Now()
	e := &b.ring[i]
	batch := &e.batch
	batch.Results = batch.Results[:len(batch.Rows)]
	batch.Top = batch.Top[:len(batch.Rows)*device.MaxTopN]
	if b.plan.Encodes() {
		n := len(batch.Rows) * b.plan.Width(b.head().In[0])
		batch.Outputs = append(batch.Outputs[:0], e.hidden[:n]...)
		b.busy.Add(int64(time.Since(start)))
		return nil
	}
	for _, row := range batch.Rows {
		b.slots[row.Slot].rejected = false
	}
	for r := range batch.Rows {
		result, tops := b.answer(e, r)
		batch.Results[r] = result
		for j, a := range b.top[:tops] {
			batch.Top[r*device.MaxTopN+j] = device.Alternative(a)
		}
	}
	if batch.Draft {
		drafting := time.Now()
		batch.FurtherDraftTime = b.draft(e)
		batch.DraftTime = time.Since(drafting)
	}
	b.busy.Add(int64(time.Since(start)))
	return nil
}

// answer samples or scores row r; the alternatives are left in b.top.
func (b *Backend) answer(e *entry, r int) (device.RowResult, int) {
	row := &e.batch.Rows[r]
	s := &b.slots[row.Slot]
	if s.rejected && row.Kind == device.RowVerify {
		return device.RowResult{Void: 1}, 0
	}
	width := b.plan.Width(b.head().In[0])
	b.logitsOf(b.head(), e.hidden[r*width:][:width])
	var (
		got  sample.Alternative
		tops int
		ok   bool
	)
	if row.Kind == device.RowScore {
		got, tops, ok = b.sampler.Score(b.logits, row.Target, int(row.TopN), b.top[:])
	} else {
		in := sample.Input{
			Params: &s.params,
			Mask:   e.batch.Mask(row.Mask),
			Biases: s.biases,
			Prev:   e.prev[r],
			Counts: s.counts,
			Index:  row.Index,
		}
		got, tops, ok = b.sampler.Sample(b.logits, &in, int(row.TopN), b.top[:])
		s.rejected = row.Kind == device.RowVerify && (!ok || got.Token != row.Target)
	}
	if !ok {
		return device.RowResult{Invalid: 1}, 0
	}
	if row.Kind != device.RowScore {
		s.last = got.Token
		s.counts.Add(got.Token, true)
	}
	return device.RowResult{Token: got.Token, Logprob: got.Logprob, TopCount: int32(tops)}, tops
}

// logitsOf fills b.logits with what op, an OpLogits, makes of x.
func (b *Backend) logitsOf(op *plan.Op, x []float32) {
	bias := b.weight(op.Weight[1])
	all := b.tensors[op.Weight[0]].times(0, x)
	if len(all) < len(b.logits) {
		all = b.joined(all)
	}
	for i, l := range all {
		if bias != nil {
			l += float64(bias[i])
		}
		b.logits[i] = float32(softcap(float64(op.F[plan.LogitsScale])*l, op.F[plan.LogitsCap]))
	}
}

// joined is what the shards have, one after the other.
func (b *Backend) joined(part []float64) (all []float64) {
	mine := make([]float32, len(part))
	for i, v := range part {
		mine[i] = float32(v)
	}
	for _, theirs := range b.meet(mine) {
		for _, v := range theirs {
			all = append(all, float64(v))
		}
	}
	return all
}

// Wait implements device.Backend.
func (b *Backend) Wait(int) error { return nil }

// Abandon implements device.Backend; there is no FeatureAbandon.
func (b *Backend) Abandon(bool) {}

// Stats implements device.Backend.
func (b *Backend) Stats() device.Stats {
	return device.Stats{
		Steps:  b.steps.Load(),
		Tokens: b.tokens.Load(),
		Busy:   time.Duration(b.busy.Load()),
		Bytes:  b.bytes.Load(),
	}
}

// Close implements device.Backend.
func (b *Backend) Close() error { return nil }
