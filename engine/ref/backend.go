// Package ref is the oracle: the backend that other backends are compared
// with. It interprets an op plan one operation and one row at a time, with
// weights, activations and cache in float32 and sums in float64; clear before
// fast. ops.go is the specification of each operation, package sample that of
// sampling.
//
// Calls do their work before they return, so the ring holds trivially. What
// other backends may take on trust is checked here: a descriptor that cannot
// be right is an error of Forward that changes nothing.
package ref

import (
	"errors"
	"fmt"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// Backend implements device.Backend.
type Backend struct {
	limits  device.Limits
	tensors []*tensor
	plan    *plan.Plan // nil before SetModel

	pages  int
	layers []kvLayer
	slots  []slot
	ring   [device.RingDepth]entry

	values  [][]float32 // by value: [MaxTokens * width]
	logits  []float32   // one row
	scores  []float64   // of one attention head
	sampler sample.Sampler
	top     [device.MaxTopN]sample.Alternative
}

var _ device.Backend = (*Backend)(nil)

// slot is what stays on the device for one sequence.
type slot struct {
	pages  []int32 // page table; unset entries are noPage
	last   int32   // most recently sampled token
	params sample.Params
	counts *sample.Counts
	biases []sample.Bias
}

const noPage = -1

// entry is one Batch of the ring.
type entry struct {
	batch  device.Batch
	state  state
	hidden []float32 // input of OpLogits, kept from Forward to Sample
	ids    []int32   // by token, LastToken resolved
}

type state int

const (
	idle state = iota
	forwarded
	sampled
)

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
	return &Backend{limits: limits}, nil
}

// Caps implements device.Backend.
func (b *Backend) Caps() device.Caps {
	return device.Caps{Name: "ref", Detail: "float32 Go", StepTokens: 64}
}

// NewTensor implements device.Backend.
func (b *Backend) NewTensor(name string, dtype device.DType, shape []int) (device.Handle, error) {
	if b.plan != nil {
		return 0, fmt.Errorf("ref: tensor %s announced after the model was set", name)
	}
	t, err := newTensor(name, dtype, shape)
	if err != nil {
		return 0, fmt.Errorf("ref: %w", err)
	}
	b.tensors = append(b.tensors, t)
	return device.Handle(len(b.tensors) - 1), nil
}

// WriteTensor implements device.Backend.
func (b *Backend) WriteTensor(h device.Handle, first, n int, src []byte) error {
	if h < 0 || int(h) >= len(b.tensors) {
		return fmt.Errorf("ref: tensor handle %d, there are %d", h, len(b.tensors))
	}
	if err := b.tensors[h].write(first, n, src); err != nil {
		return fmt.Errorf("ref: %w", err)
	}
	return nil
}

// SetModel implements device.Backend.
func (b *Backend) SetModel(p *plan.Plan) (device.ModelInfo, error) {
	if b.plan != nil {
		return device.ModelInfo{}, errors.New("ref: the model was already set")
	}
	for _, t := range b.tensors {
		if err := t.complete(); err != nil {
			return device.ModelInfo{}, fmt.Errorf("ref: %w", err)
		}
	}
	if err := checkPlan(p, b.tensors); err != nil {
		return device.ModelInfo{}, fmt.Errorf("ref: %w", err)
	}

	const float = 4
	info := device.ModelInfo{PageBytes: int64(p.Layers) * 2 * device.PageTokens * int64(p.KVWidth) * float}
	for _, t := range b.tensors {
		info.WeightBytes += int64(len(t.data)) * float
	}
	rows := max(b.limits.MaxTokens, b.limits.MaxRows)
	for _, width := range p.Widths {
		b.values = append(b.values, make([]float32, rows*int(width)))
		info.WorkspaceBytes += int64(rows) * int64(width) * float
	}
	b.logits = make([]float32, p.Vocab)
	info.WorkspaceBytes += int64(p.Vocab) * float
	b.plan = p
	return info, nil
}

// InitKV implements device.Backend.
func (b *Backend) InitKV(pages int) error {
	if b.plan == nil {
		return errors.New("ref: InitKV before SetModel")
	}
	if b.layers != nil {
		return errors.New("ref: InitKV called twice")
	}
	if pages <= 0 {
		return fmt.Errorf("ref: %d KV pages, expected a positive number", pages)
	}
	b.pages = pages
	b.layers = make([]kvLayer, b.plan.Layers)
	for i := range b.layers {
		n := pages * device.PageTokens * b.plan.KVWidth
		b.layers[i] = kvLayer{make([]float32, n), make([]float32, n)}
	}
	l := b.limits
	b.scores = make([]float64, 0, l.MaxPagesPerSlot*device.PageTokens)
	b.slots = make([]slot, l.MaxSlots)
	for i := range b.slots {
		b.slots[i] = slot{
			pages:  make([]int32, l.MaxPagesPerSlot),
			params: sample.Greedy(),
			counts: sample.NewCounts(b.plan.Vocab),
		}
		for j := range b.slots[i].pages {
			b.slots[i].pages[j] = noPage
		}
	}
	for i := range b.ring {
		b.ring[i].batch = device.NewBatch(l, b.plan.Vocab)
	}
	return nil
}

// Batch implements device.Backend.
func (b *Backend) Batch(i int) *device.Batch { return &b.ring[i].batch }

// entry returns ring entry i if it is in the state that a call needs.
func (b *Backend) entry(call string, i int, want state) (*entry, error) {
	if b.layers == nil {
		return nil, fmt.Errorf("ref: %s before InitKV", call)
	}
	if i < 0 || i >= device.RingDepth {
		return nil, fmt.Errorf("ref: %s of ring entry %d, there are %d", call, i, device.RingDepth)
	}
	e := &b.ring[i]
	if e.state != want {
		return nil, fmt.Errorf("ref: %s of ring entry %d out of order", call, i)
	}
	return e, nil
}

// Forward implements device.Backend.
func (b *Backend) Forward(i int) error {
	e, err := b.entry("Forward", i, idle)
	if err != nil {
		return err
	}
	if err := b.checkBatch(&e.batch); err != nil {
		return fmt.Errorf("ref: %w", err)
	}
	b.applyDeltas(&e.batch)
	b.forward(e)
	e.state = forwarded
	return nil
}

func (b *Backend) applyDeltas(batch *device.Batch) {
	for _, d := range batch.Pages {
		b.slots[d.Slot].pages[d.Index] = d.Page
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
	e, err := b.entry("Sample", i, forwarded)
	if err != nil {
		return err
	}
	batch := &e.batch
	e.state = idle
	if err := b.checkChoices(batch); err != nil {
		return fmt.Errorf("ref: %w", err)
	}
	batch.Results = batch.Results[:len(batch.Rows)]
	batch.Top = batch.Top[:len(batch.Rows)*device.MaxTopN]
	for r, row := range batch.Rows {
		b.computeLogits(e, r)
		result, tops := b.answer(e, row)
		batch.Results[r] = result
		for j, a := range b.top[:tops] {
			batch.Top[r*device.MaxTopN+j] = device.Alternative(a)
		}
	}
	e.state = sampled
	return nil
}

// answer samples or scores the row whose logits are in b.logits; the
// alternatives are left in b.top.
func (b *Backend) answer(e *entry, row device.Row) (device.RowResult, int) {
	s := &b.slots[row.Slot]
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
			Prev:   e.ids[row.Token],
			Counts: s.counts,
			Index:  row.Index,
		}
		got, tops, ok = b.sampler.Sample(b.logits, &in, int(row.TopN), b.top[:])
	}
	if !ok {
		return device.RowResult{Invalid: 1}, 0
	}
	if row.Kind == device.RowSample {
		s.last = got.Token
		s.counts.Add(got.Token, true)
	}
	return device.RowResult{Token: got.Token, Logprob: got.Logprob, TopCount: int32(tops)}, tops
}

// Wait implements device.Backend.
func (b *Backend) Wait(i int) error {
	e, err := b.entry("Wait", i, sampled)
	if err != nil {
		return err
	}
	e.state = idle
	return nil
}

// Close implements device.Backend.
func (b *Backend) Close() error { return nil }
