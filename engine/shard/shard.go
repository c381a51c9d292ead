// Package shard runs one model on several devices: a backend that is made of one for each,
// among which plan.Shard divides the model.
//
// Tensors are given to it whole, row by row, and each device gets the rows, or the columns,
// that it has. Every device is given every batch and samples every token: all of them see
// the same logits, and so choose the same.
//
// How devices add up what they have computed is their affair (plan.OpAllReduce).
package shard

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// Backend implements device.Backend. CheckPlan comes before the first tensor: it says how
// they are cut.
type Backend struct {
	shards  []device.Backend
	abandon func()        // makes shards that wait for others give up, for good
	calls   []chan func() // of each shard's goroutine
	running sync.WaitGroup

	whole   *plan.Plan // that CheckPlan has seen last
	plans   []*plan.Plan
	cuts    [][]plan.Cut // by shard and tensor
	tensors []tensor
	pages   []int64 // bytes of a page, by shard
	states  []int64
}

var _ device.Backend = (*Backend)(nil)

// tensor is one that has been announced.
type tensor struct {
	name       string
	format     plan.Format
	shape      []int
	rows, cols int // of a matrix; a vector is one row
}

// New returns a backend made of those in shards, which are alike, and closes them in
// Close. abandon is called, once, when one of them fails in a step, for which the others may
// be waiting: it makes them give up.
func New(shards []device.Backend, abandon func()) *Backend {
	b := &Backend{shards: shards, abandon: sync.OnceFunc(abandon)}
	for range shards {
		calls := make(chan func())
		b.calls = append(b.calls, calls)
		go func() {
			for call := range calls {
				call()
			}
		}()
	}
	return b
}

// each calls fn for all shards at once.
func (b *Backend) each(fn func(i int, s device.Backend) error) error {
	errs := make([]error, len(b.shards))
	b.running.Add(len(b.shards))
	for i, s := range b.shards {
		b.calls[i] <- func() {
			defer b.running.Done()
			errs[i] = fn(i, s)
		}
	}
	b.running.Wait()
	return b.explain(errs)
}

// explain returns one error, of a lost device if there is one, with the device's number.
func (b *Backend) explain(errs []error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return errors.Is(err, device.ErrLost) })
	if i < 0 {
		i = slices.IndexFunc(errs, func(err error) bool { return err != nil })
	}
	if i < 0 {
		return nil
	}
	return fmt.Errorf("device %d of %d: %w", i, len(b.shards), errs[i])
}

// step is each for calls of a step: if one shard fails in it, they no longer agree.
func (b *Backend) step(fn func(s device.Backend) error) error {
	err := b.each(func(_ int, s device.Backend) error {
		err := fn(s)
		if err != nil {
			b.abandon()
		}
		return err
	})
	if err != nil && !errors.Is(err, device.ErrLost) {
		err = fmt.Errorf("%w: %w", device.ErrLost, err)
	}
	return err
}

// Caps implements device.Backend.
func (b *Backend) Caps() device.Caps {
	caps := b.shards[0].Caps()
	caps.Detail = fmt.Sprintf("%d x %s", len(b.shards), caps.Detail)
	caps.Devices = len(b.shards)
	caps.Features &^= device.FeatureAbandon
	caps.Layout, caps.Adopted = "", 0
	for _, s := range b.shards[1:] {
		caps.Memory += s.Caps().Memory
	}
	return caps
}

// Abandon implements device.Backend; there is no FeatureAbandon.
func (b *Backend) Abandon(bool) {}

// CheckPlan implements device.Backend.
func (b *Backend) CheckPlan(p *plan.Plan) error {
	plans, cuts := make([]*plan.Plan, len(b.shards)), make([][]plan.Cut, len(b.shards))
	for i, s := range b.shards {
		shard, cut, err := plan.Shard(p, len(b.shards), i)
		if err != nil {
			return err
		}
		plans[i], cuts[i] = plan.Share(shard), cut
		if err := plan.Check(plans[i]); err != nil {
			return fmt.Errorf("shard %d of %d: %w", i, len(b.shards), err)
		}
		if err := s.CheckPlan(plans[i]); err != nil {
			return err
		}
	}
	b.whole, b.plans, b.cuts = p, plans, cuts
	return nil
}

// NewTensor implements device.Backend.
func (b *Backend) NewTensor(name string, format plan.Format, shape []int) (device.Handle, error) {
	h := len(b.tensors)
	if b.whole == nil || h >= len(b.whole.Tensors) || !slices.Equal(shape, b.whole.Tensors[h].Shape) {
		return 0, fmt.Errorf("tensor %s of shape %v is not the next one of the plan that was checked", name, shape)
	}
	t := tensor{name: name, format: format, shape: slices.Clone(shape), rows: 1, cols: shape[len(shape)-1]}
	if len(shape) > 1 {
		t.rows = shape[len(shape)-2]
	}
	for i := range b.shards {
		if err := t.divisible(&b.cuts[i][h], len(b.shards)); err != nil {
			return 0, err
		}
	}
	for i, s := range b.shards {
		got, err := s.NewTensor(name, format, b.plans[i].Tensors[h].Shape)
		if err == nil && got != device.Handle(h) {
			err = fmt.Errorf("it is called %d, expected %d", got, h)
		}
		if err != nil {
			return 0, fmt.Errorf("device %d of %d: %w", i, len(b.shards), err)
		}
	}
	b.tensors = append(b.tensors, t)
	return device.Handle(h), nil
}

// byColumns reports whether a cut takes columns of each row. Of a vector it takes elements
// of its one row.
func (t *tensor) byColumns(c *plan.Cut) bool { return c.Ranges != nil && c.Axis == len(t.shape)-1 }

// divisible refuses to cut groups of columns that share a scale.
func (t *tensor) divisible(c *plan.Cut, shards int) error {
	if !t.byColumns(c) || !t.format.Quantized() {
		return nil
	}
	group := max(t.format.Group(), 2) // two codes may be one byte
	for _, r := range c.Ranges {
		if r.First%group != 0 || (r.First+r.N)%group != 0 && r.First+r.N != t.cols {
			return fmt.Errorf("tensor %s in format %v cannot be divided into %d shards: columns %d to %d are not whole groups of %d; fewer shards may do",
				t.name, t.format, shards, r.First, r.First+r.N, group)
		}
	}
	return nil
}

// WriteTensor implements device.Backend.
func (b *Backend) WriteTensor(h device.Handle, first, n int, src []byte) error {
	if h < 0 || int(h) >= len(b.tensors) {
		return fmt.Errorf("tensor %d of %d", h, len(b.tensors))
	}
	return b.write(h, first, n, src, b.tensors[h].format)
}

// Converts implements device.Converter. A shard may have some columns of a row, and so must see all
// that share a scale.
func (b *Backend) Converts(from, to plan.Format) bool {
	return !from.Quantized() && (!to.Quantized() || to.Group() > 0) && device.Converts(b.shards[0], from, to)
}

// ConvertTensor implements device.Converter.
func (b *Backend) ConvertTensor(h device.Handle, first, n int, src []byte, from plan.Format) error {
	if h < 0 || int(h) >= len(b.tensors) {
		return fmt.Errorf("tensor %d of %d", h, len(b.tensors))
	}
	return b.write(h, first, n, src, from)
}

func (b *Backend) write(h device.Handle, first, n int, src []byte, from plan.Format) error {
	t := &b.tensors[h]
	return b.each(func(i int, s device.Backend) error { return t.write(s, h, &b.cuts[i][h], first, n, src, from) })
}

// write gives a shard those of n rows in format from, from row first on, that it has.
func (t *tensor) write(s device.Backend, h device.Handle, c *plan.Cut, first, n int, src []byte, from plan.Format) error {
	size := from.RowBytes(t.cols)
	give := func(first, n int, src []byte) error {
		if from == t.format {
			return s.WriteTensor(h, first, n, src)
		}
		return device.ConvertTensor(s, h, first, n, src, from)
	}
	if len(src) != n*size {
		return fmt.Errorf("tensor %s: %d bytes for %d rows, expected %d", t.name, len(src), n, n*size)
	}
	switch {
	case c.Ranges == nil:
		return give(first, n, src)
	case t.byColumns(c):
		var part []byte
		for row := range n {
			part = appendColumns(part, src[row*size:][:size], from, t.cols, c.Ranges)
		}
		return give(first, n, part)
	}
	// Ranges of rows of each matrix, or of matrices, as rows of all of them.
	period, unit := t.rows, 1
	if c.Axis == 0 && len(t.shape) == 3 {
		period, unit = t.shape[0]*t.rows, t.rows
	}
	kept := 0
	for _, r := range c.Ranges {
		kept += r.N * unit
	}
	for at := first; at < first+n; {
		matrix, row := at/period, at%period
		next, to := period, matrix*kept // the next row that begins a range; where row goes
		taken := false
		for _, r := range c.Ranges {
			from, end := r.First*unit, (r.First+r.N)*unit
			if row >= from && row < end {
				to, next, taken = to+row-from, end, true
				break
			}
			if row < from {
				next = from
				break
			}
			to += end - from
		}
		count := min(next-row, first+n-at)
		if taken {
			if err := give(to, count, src[(at-first)*size:][:count*size]); err != nil {
				return err
			}
		}
		at += count
	}
	return nil
}

// appendColumns appends some columns of a row, as a row.
func appendColumns(dst, row []byte, f plan.Format, cols int, ranges []plan.Range) []byte {
	if !f.Quantized() {
		for _, r := range ranges {
			dst = append(dst, row[r.First*f.Size():][:r.N*f.Size()]...)
		}
		return dst
	}
	r := ranges[0] // columns that products add up over are one range
	codes, beside := row[:f.CodeBytes(cols)], row[f.CodeBytes(cols):]
	dst = append(dst, codes[f.CodeBytes(r.First):f.CodeBytes(r.First+r.N)]...)
	all, group := f.Groups(cols), max(f.Group(), 1)
	first, n := r.First/group, f.Groups(r.N)
	if f.Group() == 0 {
		first = 0 // one scale, which every part of the row has
	}
	scale := 2
	if f.Kind() == plan.F8 {
		scale = 4
	}
	dst = append(dst, beside[first*scale:][:n*scale]...)
	if f.Minimum() {
		dst = append(dst, beside[all*scale+first*2:][:n*2]...)
	}
	return dst
}

// AdoptTensor implements device.Backend.
func (b *Backend) AdoptTensor(device.Handle, []byte, func()) error { return device.ErrUnsupported }

// SetModel implements device.Backend. p is the plan that was checked.
func (b *Backend) SetModel(p *plan.Plan) (device.ModelInfo, error) {
	if p != b.whole {
		return device.ModelInfo{}, errors.New("a plan that was not checked before its tensors")
	}
	infos := make([]device.ModelInfo, len(b.shards))
	err := b.each(func(i int, s device.Backend) (err error) {
		infos[i], err = s.SetModel(b.plans[i])
		return err
	})
	if err != nil {
		return device.ModelInfo{}, err
	}
	// Pages are read and written one device after the other. As for memory, the device that
	// takes most decides how much all of them have left.
	var sum device.ModelInfo
	n := int64(len(b.shards))
	for _, info := range infos {
		b.pages = append(b.pages, info.PageBytes)
		b.states = append(b.states, info.StateBytes)
		sum.PageBytes += info.PageBytes
		sum.StateBytes += info.StateBytes
		sum.WeightBytes = max(sum.WeightBytes, n*info.WeightBytes)
		sum.WorkspaceBytes = max(sum.WorkspaceBytes, n*info.WorkspaceBytes)
	}
	return sum, nil
}

// InitCache implements device.Backend.
func (b *Backend) InitCache(pages, states int) error {
	return b.each(func(_ int, s device.Backend) error { return s.InitCache(pages, states) })
}

// WarmUp implements device.Backend.
func (b *Backend) WarmUp() error {
	return b.each(func(_ int, s device.Backend) error { return s.WarmUp() })
}

// HostAlloc implements device.Backend.
func (b *Backend) HostAlloc(bytes int) ([]byte, error) { return b.shards[0].HostAlloc(bytes) }

// HostFree implements device.Backend.
func (b *Backend) HostFree(memory []byte) { b.shards[0].HostFree(memory) }

// LoadAdapter implements device.Backend.
func (b *Backend) LoadAdapter(id int32, a *device.Adapter) error {
	loaded := make([]bool, len(b.shards))
	err := b.each(func(i int, s device.Backend) error {
		part := device.Adapter{Rank: a.Rank}
		for _, t := range a.Targets {
			part.Targets = append(part.Targets, b.tensors[t.Tensor].target(&b.cuts[i][t.Tensor], t, a.Rank)...)
		}
		err := s.LoadAdapter(id, &part)
		loaded[i] = err == nil
		return err
	})
	if err != nil {
		for i, s := range b.shards {
			if loaded[i] {
				err = errors.Join(err, s.DropAdapter(id))
			}
		}
	}
	return err
}

// target is what a shard has of an adapter's target.
func (t *tensor) target(c *plan.Cut, a device.AdapterTarget, rank int) []device.AdapterTarget {
	matrices := len(a.A) / max(rank*t.cols, 1)
	switch {
	case c.Ranges == nil:
		return []device.AdapterTarget{a}
	case t.byColumns(c): // of the sum, each shard adds its part
		var part []float32
		for row := range matrices * rank {
			for _, r := range c.Ranges {
				part = append(part, a.A[row*t.cols+r.First:][:r.N]...)
			}
		}
		a.A = part
		return []device.AdapterTarget{a}
	case len(t.shape) == 3 && c.Axis == 0:
		var down, up []float32
		for _, r := range c.Ranges {
			down = append(down, a.A[r.First*rank*t.cols:][:r.N*rank*t.cols]...)
			up = append(up, a.B[r.First*a.Rows*rank:][:r.N*a.Rows*rank]...)
		}
		a.A, a.B = down, up
		return []device.AdapterTarget{a}
	}
	var list []device.AdapterTarget
	at := 0 // of the shard's rows
	for _, r := range c.Ranges {
		from, to := max(r.First, a.First), min(r.First+r.N, a.First+a.Rows)
		if from < to {
			some := device.AdapterTarget{Tensor: a.Tensor, First: at + from - r.First, Rows: to - from, A: a.A}
			for m := range matrices {
				some.B = append(some.B, a.B[(m*a.Rows+from-a.First)*rank:][:(to-from)*rank]...)
			}
			list = append(list, some)
		}
		at += r.N
	}
	return list
}

// DropAdapter implements device.Backend.
func (b *Backend) DropAdapter(id int32) error {
	return b.each(func(_ int, s device.Backend) error { return s.DropAdapter(id) })
}

// inParts calls fn with each shard's part of something of so many bytes.
func (b *Backend) inParts(bytes []int64, all []byte, fn func(s device.Backend, part []byte) error) error {
	for i, s := range b.shards {
		n := min(bytes[i], int64(len(all)))
		if err := fn(s, all[:n]); err != nil {
			return fmt.Errorf("device %d of %d: %w", i, len(b.shards), err)
		}
		all = all[n:]
	}
	if len(all) > 0 {
		return fmt.Errorf("%d bytes too many", len(all))
	}
	return nil
}

// ReadPage implements device.Backend.
func (b *Backend) ReadPage(page int, dst []byte) error {
	return b.inParts(b.pages, dst, func(s device.Backend, part []byte) error { return s.ReadPage(page, part) })
}

// WritePage implements device.Backend.
func (b *Backend) WritePage(page int, src []byte) error {
	return b.inParts(b.pages, src, func(s device.Backend, part []byte) error { return s.WritePage(page, part) })
}

// ReadState implements device.Backend.
func (b *Backend) ReadState(state int, dst []byte) error {
	return b.inParts(b.states, dst, func(s device.Backend, part []byte) error { return s.ReadState(state, part) })
}

// WriteState implements device.Backend.
func (b *Backend) WriteState(state int, src []byte) error {
	return b.inParts(b.states, src, func(s device.Backend, part []byte) error { return s.WriteState(state, part) })
}

// Batch implements device.Backend: it is the first shard's.
func (b *Backend) Batch(i int) *device.Batch { return b.shards[0].Batch(i) }

// Forward implements device.Backend.
func (b *Backend) Forward(i int) error {
	from := b.Batch(i)
	for _, s := range b.shards[1:] {
		s.Batch(i).CopyInputs(from)
	}
	return b.step(func(s device.Backend) error { return s.Forward(i) })
}

// Sample implements device.Backend.
func (b *Backend) Sample(i int) error {
	from := b.Batch(i)
	for _, s := range b.shards[1:] {
		to := s.Batch(i)
		to.Rows = append(to.Rows[:0], from.Rows...)
		to.Masks = append(to.Masks[:0], from.Masks...)
		to.Draft = from.Draft
	}
	return b.step(func(s device.Backend) error { return s.Sample(i) })
}

// Wait implements device.Backend.
func (b *Backend) Wait(i int) error {
	if err := b.step(func(s device.Backend) error { return s.Wait(i) }); err != nil {
		return err
	}
	// What one device chose and another did not would be wrong from then on.
	first := b.Batch(i)
	for k, s := range b.shards[1:] {
		other := s.Batch(i)
		for r := range min(len(first.Rows), len(first.Results), len(other.Results)) {
			if x, y := &first.Results[r], &other.Results[r]; x.Token != y.Token || x.Invalid != y.Invalid || x.Void != y.Void {
				return fmt.Errorf("%w: devices 0 and %d chose tokens %d and %d", device.ErrLost, k+1, x.Token, y.Token)
			}
		}
	}
	return nil
}

// Stats implements device.Backend.
func (b *Backend) Stats() device.Stats {
	stats := b.shards[0].Stats()
	for _, s := range b.shards[1:] {
		stats.Bytes += s.Stats().Bytes
	}
	return stats
}

// Close implements device.Backend.
func (b *Backend) Close() error {
	var errs []error
	for _, s := range b.shards {
		errs = append(errs, s.Close())
	}
	for _, calls := range b.calls {
		close(calls)
	}
	b.calls = nil
	return errors.Join(errs...)
}
