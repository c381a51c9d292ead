package device

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/plan"
)

// Checked returns a Backend that passes on to b, which was opened with l, only what
// the interface and package plan allow: calls in their order, tensors as the plan
// describes them, valid plans, adapters and batches. What it refuses never reaches b
// and changes nothing, except that a refused Sample ends its Batch.
//
// What depends on earlier steps is followed from the deltas: which entries of a page
// table are set, where each sequence ended, what the states hold. A step costs time in proportion to its Batch and allocates nothing.
func Checked(b Backend, l Limits) Backend {
	return &checked{
		Backend:   b,
		caps:      b.Caps(),
		limits:    l,
		adapters:  map[int32]struct{}{},
		forwarded: none,
	}
}

// none is the absent ring entry, slot or state, anywhere a position that is not
// known here.
const (
	none     = -1
	anywhere = -2
)

// checked implements Backend. Calls that are not overridden need no check.
type checked struct {
	Backend
	caps   Caps
	limits Limits
	final  error // why calls cannot succeed any more

	tensors  []checkedTensor
	plan     *plan.Plan // nil before SetModel
	info     ModelInfo
	joined   int32 // tokens that OpRows makes a row of
	maxPos   int   // positions that exist, by the limits and the plan's learned positions
	adapters map[int32]struct{}

	pages     int // 0 before InitCache and of a plan without pages
	ring      [RingDepth]checkedEntry
	forwarded int // the entry that Sample must follow, or none
	ready     bool

	slots  []checkedSlot
	states []checkedState
	step   int64 // number of the batch being checked; marks what belongs to it
}

// checkedTensor is a tensor that is being loaded.
type checkedTensor struct {
	name       string
	format     plan.Format
	shape      []int
	rowBytes   int
	quantized  bool
	rows, left int      // in all, not yet written
	written    []uint64 // a bit per row; nil once the model is set
}

// checkedEntry is a ring entry.
type checkedEntry struct {
	progress progress
	caps     batchCaps
	rows     []Row  // as Forward saw them
	sum      uint64 // of the other inputs, likewise
}

type progress int

const (
	idle progress = iota
	forwarded
	sampled
)

// batchCaps are the capacities of a Batch's inputs: an append past one of them
// leaves the backend's memory.
type batchCaps [13]int

func capsOf(x *Batch) batchCaps {
	return batchCaps{
		cap(x.Tokens), cap(x.Pos), cap(x.Axes), cap(x.Embeds), cap(x.Seqs), cap(x.Rows), cap(x.Spans),
		cap(x.Pages), cap(x.States), cap(x.Params), cap(x.Counts), cap(x.Biases), cap(x.Masks),
	}
}

func (c *checked) errorf(format string, args ...any) error {
	return fmt.Errorf(c.caps.Name+": "+format, args...)
}

// passed notes what b returned: the loss of the device is final.
func (c *checked) passed(err error) error {
	if errors.Is(err, ErrLost) {
		c.final = err
	}
	return err
}

// CheckPlan implements Backend.
func (c *checked) CheckPlan(p *plan.Plan) error {
	if c.final != nil {
		return c.final
	}
	if err := c.checkPlan(p); err != nil {
		return err
	}
	return c.passed(c.Backend.CheckPlan(p))
}

func (c *checked) checkPlan(p *plan.Plan) error {
	if err := plan.Check(p); err != nil {
		return c.errorf("%w", err)
	}
	if f := p.CacheFormat(); f.Quantized() && !c.caps.Has(FeatureCache8) {
		return c.errorf("caches of format %v: %w", f, ErrUnsupported)
	}
	if len(p.Draft) > 0 && !c.caps.Has(FeatureDraft) {
		return c.errorf("a draft after sampling: %w", ErrUnsupported)
	}
	for i, op := range p.AllOps() {
		if c.caps.Ops>>op.Kind&1 == 0 {
			return c.errorf("operation %d, %v: %w", i, op.Kind, ErrUnsupported)
		}
	}
	return nil
}

// NewTensor implements Backend.
func (c *checked) NewTensor(name string, format plan.Format, shape []int) (Handle, error) {
	if c.final != nil {
		return 0, c.final
	}
	if c.plan != nil {
		return 0, c.errorf("tensor %s announced after the model was set", name)
	}
	if !format.Valid() {
		return 0, c.errorf("tensor %s: unknown format %d", name, int32(format))
	}
	if c.caps.Formats>>format.Kind()&1 == 0 {
		return 0, c.errorf("tensor %s: format %v: %w", name, format, ErrUnsupported)
	}
	if len(shape) < 1 || len(shape) > 3 || slices.Min(shape) <= 0 {
		return 0, c.errorf("tensor %s: shape %v, expected one to three positive dimensions", name, shape)
	}
	if len(shape) == 1 && format.Quantized() {
		return 0, c.errorf("tensor %s: a vector in format %v", name, format)
	}
	rows, cols := 1, shape[len(shape)-1]
	for _, n := range shape[:len(shape)-1] {
		rows *= n
	}
	h, err := c.Backend.NewTensor(name, format, shape)
	if err != nil {
		return 0, c.passed(err)
	}
	if int(h) != len(c.tensors) {
		return 0, c.errorf("tensor %s: handle %d, expected %d", name, h, len(c.tensors))
	}
	c.tensors = append(c.tensors, checkedTensor{
		name: name, format: format, shape: slices.Clone(shape), quantized: format.Quantized(), rowBytes: format.RowBytes(cols),
		rows: rows, left: rows, written: make([]uint64, (rows+63)/64),
	})
	return h, nil
}

// tensor returns the one with handle h, while the backend works.
func (c *checked) tensor(h Handle) (*checkedTensor, error) {
	if c.final != nil {
		return nil, c.final
	}
	if h < 0 || int(h) >= len(c.tensors) {
		return nil, c.errorf("tensor handle %d, there are %d", h, len(c.tensors))
	}
	return &c.tensors[h], nil
}

// WriteTensor implements Backend.
func (c *checked) WriteTensor(h Handle, first, n int, src []byte) error {
	return c.write(h, first, n, src, nil)
}

// Converts implements Converter.
func (c *checked) Converts(from, to plan.Format) bool { return Converts(c.Backend, from, to) }

// ConvertTensor implements Converter.
func (c *checked) ConvertTensor(h Handle, first, n int, src []byte, from plan.Format) error {
	return c.write(h, first, n, src, &from)
}

// write checks and writes rows in the tensor's format or, if it is not nil, in format from.
func (c *checked) write(h Handle, first, n int, src []byte, from *plan.Format) error {
	t, err := c.tensor(h)
	if err != nil {
		return err
	}
	rowBytes := t.rowBytes
	if from != nil {
		if !c.Converts(*from, t.format) {
			return c.errorf("tensor %s in format %v written in %v: %w", t.name, t.format, *from, ErrUnsupported)
		}
		rowBytes = from.RowBytes(t.shape[len(t.shape)-1])
	}
	switch {
	case c.plan != nil:
		return c.errorf("tensor %s written after the model was set", t.name)
	case first < 0 || n < 0 || first > t.rows-n:
		return c.errorf("tensor %s: %d rows from %d on written, it has %d", t.name, n, first, t.rows)
	case len(src) != n*rowBytes:
		return c.errorf("tensor %s: %d bytes for %d rows, expected %d", t.name, len(src), n, n*rowBytes)
	}
	for r := first; r < first+n; r++ {
		if t.written[r/64]>>(r%64)&1 == 1 {
			return c.errorf("tensor %s: row %d written twice", t.name, r)
		}
	}
	if from == nil {
		err = c.Backend.WriteTensor(h, first, n, src)
	} else {
		err = ConvertTensor(c.Backend, h, first, n, src, *from)
	}
	if err != nil {
		return c.passed(err)
	}
	for r := first; r < first+n; r++ {
		t.written[r/64] |= 1 << (r % 64)
	}
	t.left -= n
	return nil
}

// AdoptTensor implements Backend.
func (c *checked) AdoptTensor(h Handle, packed []byte, release func()) error {
	t, err := c.tensor(h)
	if err != nil {
		return err
	}
	switch {
	case c.caps.Layout != plan.Panels || c.caps.Adopted>>t.format.Kind()&1 == 0 || len(t.shape) < 2:
		return c.errorf("tensor %s: packed, %v %v: %w", t.name, t.format, t.shape, ErrUnsupported)
	case c.plan != nil:
		return c.errorf("tensor %s adopted after the model was set", t.name)
	case t.left < t.rows:
		return c.errorf("tensor %s adopted, though it has been written", t.name)
	case len(packed) != t.format.PackedBytes(t.shape):
		return c.errorf("tensor %s: %d bytes packed, expected %d", t.name, len(packed), t.format.PackedBytes(t.shape))
	case uintptr(unsafe.Pointer(unsafe.SliceData(packed)))%PackedAlign != 0:
		return c.errorf("tensor %s: packed memory is not aligned to %d bytes", t.name, PackedAlign)
	}
	if err := c.Backend.AdoptTensor(h, packed, release); err != nil {
		return c.passed(err)
	}
	for i := range t.written {
		t.written[i] = ^uint64(0)
	}
	t.left = 0
	return nil
}

// SetModel implements Backend.
func (c *checked) SetModel(p *plan.Plan) (ModelInfo, error) {
	if c.final != nil {
		return ModelInfo{}, c.final
	}
	if c.plan != nil {
		return ModelInfo{}, c.errorf("the model was already set")
	}
	if err := c.checkPlan(p); err != nil {
		return ModelInfo{}, err
	}
	if len(c.tensors) != len(p.Tensors) {
		return ModelInfo{}, c.errorf("%d tensors announced, the plan has %d", len(c.tensors), len(p.Tensors))
	}
	quantizable := plan.Quantizable(p)
	for i := range c.tensors {
		t := &c.tensors[i]
		if t.quantized && !quantizable[i] {
			return ModelInfo{}, c.errorf("tensor %s is quantised, and more than a factor of products", t.name)
		}
		if !slices.Equal(t.shape, p.Tensors[i].Shape) {
			return ModelInfo{}, c.errorf("tensor %s: shape %v, expected %v", t.name, t.shape, p.Tensors[i].Shape)
		}
		if t.left > 0 {
			return ModelInfo{}, c.errorf("tensor %s: %d of %d rows were never written", t.name, t.left, t.rows)
		}
	}
	info, err := c.Backend.SetModel(p)
	if err != nil {
		return info, c.passed(err)
	}
	for i := range c.tensors {
		c.tensors[i].written = nil
	}
	c.plan, c.info = p, info
	c.maxPos = c.limits.MaxPagesPerSlot * PageTokens
	for _, op := range p.AllOps() {
		if op.Kind == plan.OpRows {
			c.joined = op.I[plan.RowsCount]
		}
		if op.Kind == plan.OpEmbedPosition {
			c.maxPos = min(c.maxPos, p.Tensors[op.Weight[0]].Shape[0]-int(op.I[plan.EmbedOffset]))
		}
	}
	return info, nil
}

// InitCache implements Backend.
func (c *checked) InitCache(pages, states int) error {
	switch {
	case c.final != nil:
		return c.final
	case c.plan == nil:
		return c.errorf("InitCache before SetModel")
	case c.ready:
		return c.errorf("InitCache called twice")
	case pages < 0 || pages == 0 && len(c.plan.Groups) > 0:
		return c.errorf("%d pages, expected a positive number", pages)
	case c.plan.HasState() && states <= 0:
		return c.errorf("%d states, expected a positive number", states)
	case !c.plan.HasState() && states != 0:
		return c.errorf("%d states of a model without recurrent layers", states)
	}
	if err := c.Backend.InitCache(pages, states); err != nil {
		return c.passed(err)
	}
	c.pages, c.ready = pages, true
	c.slots = make([]checkedSlot, c.limits.MaxSlots)
	for i := range c.slots {
		c.slots[i] = newCheckedSlot(len(c.plan.Groups), c.limits.MaxPagesPerSlot)
	}
	c.states = make([]checkedState, states)
	for i := range c.states {
		c.states[i] = checkedState{pos: none, owner: none}
	}
	for i := range c.ring {
		c.ring[i] = checkedEntry{caps: capsOf(c.Backend.Batch(i)), rows: make([]Row, 0, c.limits.MaxRows)}
	}
	return nil
}

// WarmUp implements Backend.
func (c *checked) WarmUp() error {
	switch {
	case c.final != nil:
		return c.final
	case !c.ready:
		return c.errorf("WarmUp before InitCache")
	case c.busy():
		return c.errorf("WarmUp while a batch is in flight")
	}
	return c.passed(c.Backend.WarmUp())
}

// ReadPage implements Backend.
func (c *checked) ReadPage(page int, dst []byte) error {
	if err := c.checkCopy("ReadPage", "page", page, c.pages, len(dst), c.info.PageBytes); err != nil {
		return err
	}
	return c.passed(c.Backend.ReadPage(page, dst))
}

// WritePage implements Backend.
func (c *checked) WritePage(page int, src []byte) error {
	if err := c.checkCopy("WritePage", "page", page, c.pages, len(src), c.info.PageBytes); err != nil {
		return err
	}
	return c.passed(c.Backend.WritePage(page, src))
}

// ReadState implements Backend.
func (c *checked) ReadState(state int, dst []byte) error {
	if err := c.checkCopy("ReadState", "state", state, len(c.states), len(dst), c.info.StateBytes); err != nil {
		return err
	}
	return c.passed(c.Backend.ReadState(state, dst))
}

// WriteState implements Backend.
func (c *checked) WriteState(state int, src []byte) error {
	if err := c.checkCopy("WriteState", "state", state, len(c.states), len(src), c.info.StateBytes); err != nil {
		return err
	}
	if err := c.Backend.WriteState(state, src); err != nil {
		return c.passed(err)
	}
	c.states[state] = checkedState{pos: anywhere, owner: none}
	return nil
}

// checkCopy checks a call that copies a page or a state, number i of n.
func (c *checked) checkCopy(call, what string, i, n, length int, want int64) error {
	switch {
	case c.final != nil:
		return c.final
	case !c.ready:
		return c.errorf("%s before InitCache", call)
	case c.busy():
		return c.errorf("%s while a batch is in flight", call)
	case i < 0 || i >= n:
		return c.errorf("%s of %s %d, there are %d", call, what, i, n)
	case int64(length) != want:
		return c.errorf("%s of %d bytes, a %s has %d", call, length, what, want)
	}
	return nil
}

// busy reports whether a batch is in flight.
func (c *checked) busy() bool {
	return slices.ContainsFunc(c.ring[:], func(e checkedEntry) bool { return e.progress != idle })
}

// HostAlloc implements Backend.
func (c *checked) HostAlloc(bytes int) ([]byte, error) {
	if c.final != nil {
		return nil, c.final
	}
	if bytes <= 0 {
		return nil, c.errorf("%d bytes of host memory, expected a positive number", bytes)
	}
	memory, err := c.Backend.HostAlloc(bytes)
	return memory, c.passed(err)
}

// LoadAdapter implements Backend.
func (c *checked) LoadAdapter(id int32, a *Adapter) error {
	switch {
	case c.final != nil:
		return c.final
	case !c.caps.Has(FeatureAdapters):
		return c.errorf("adapters: %w", ErrUnsupported)
	case c.plan == nil:
		return c.errorf("LoadAdapter before SetModel")
	case id < 1:
		return c.errorf("adapter %d, numbers begin with 1", id)
	case a.Rank <= 0:
		return c.errorf("adapter %d: rank %d, expected a positive number", id, a.Rank)
	}
	if _, taken := c.adapters[id]; taken {
		return c.errorf("adapter %d is loaded already", id)
	}
	for i := range a.Targets {
		if err := c.checkTarget(a, &a.Targets[i]); err != nil {
			return c.errorf("adapter %d: target %d: %w", id, i, err)
		}
	}
	if err := c.Backend.LoadAdapter(id, a); err != nil {
		return c.passed(err)
	}
	c.adapters[id] = struct{}{}
	return nil
}

// Adaptable returns the tensors that an operation multiplies with and an adapter may
// change.
func Adaptable(op *plan.Op) []int32 {
	var weights []int32
	switch op.Kind {
	case plan.OpLinear:
		weights = []int32{op.Weight[0], op.Weight[2]}
	case plan.OpLinearHeads:
		weights = []int32{op.Weight[0]}
	case plan.OpExperts:
		weights = []int32{op.Weight[0], op.Weight[2], op.Weight[4]}
	}
	return slices.DeleteFunc(weights, func(w int32) bool { return w == plan.None })
}

func (c *checked) checkTarget(a *Adapter, t *AdapterTarget) error {
	if t.Tensor < 0 || t.Tensor >= len(c.plan.Tensors) {
		return fmt.Errorf("tensor %d of %d", t.Tensor, len(c.plan.Tensors))
	}
	if !slices.ContainsFunc(c.plan.Ops, func(op plan.Op) bool { return slices.Contains(Adaptable(&op), int32(t.Tensor)) }) {
		return fmt.Errorf("tensor %d is not the matrix of a linear layer", t.Tensor)
	}
	shape := c.plan.Tensors[t.Tensor].Shape
	matrices, rows, cols := 1, shape[len(shape)-2], shape[len(shape)-1]
	if len(shape) == 3 {
		matrices = shape[0]
	}
	switch {
	case t.First < 0 || t.Rows <= 0 || t.First > rows-t.Rows:
		return fmt.Errorf("%d rows from %d on of %d", t.Rows, t.First, rows)
	case len(t.A) != matrices*a.Rank*cols:
		return fmt.Errorf("%d elements of A, expected %d times %d times %d", len(t.A), matrices, a.Rank, cols)
	case len(t.B) != matrices*t.Rows*a.Rank:
		return fmt.Errorf("%d elements of B, expected %d times %d times %d", len(t.B), matrices, t.Rows, a.Rank)
	}
	return nil
}

// DropAdapter implements Backend.
func (c *checked) DropAdapter(id int32) error {
	if c.final != nil {
		return c.final
	}
	if _, ok := c.adapters[id]; !ok {
		return c.errorf("adapter %d is not loaded", id)
	}
	for i := range c.ring {
		if c.ring[i].progress == idle {
			continue
		}
		for _, s := range c.Backend.Batch(i).Seqs {
			if s.Adapter == id {
				return c.errorf("adapter %d is in use by slot %d", id, s.Slot)
			}
		}
	}
	delete(c.adapters, id)
	return c.passed(c.Backend.DropAdapter(id))
}

// entry returns ring entry i if it is in the state that a call needs.
func (c *checked) entry(call string, i int, want progress) (*checkedEntry, error) {
	switch {
	case c.final != nil:
		return nil, c.final
	case !c.ready:
		return nil, c.errorf("%s before InitCache", call)
	case i < 0 || i >= RingDepth:
		return nil, c.errorf("%s of ring entry %d, there are %d", call, i, RingDepth)
	}
	e := &c.ring[i]
	if e.progress != want {
		return nil, c.errorf("%s of ring entry %d, which %s", call, i, [...]string{
			idle: "is idle", forwarded: "waits for Sample", sampled: "waits for Wait",
		}[e.progress])
	}
	return e, nil
}

// Forward implements Backend.
func (c *checked) Forward(i int) error {
	e, err := c.entry("Forward", i, idle)
	if err != nil {
		return err
	}
	if c.forwarded != none {
		return c.errorf("Forward of ring entry %d before Sample of entry %d", i, c.forwarded)
	}
	x := c.Backend.Batch(i)
	if err := c.checkBatch(x, e.caps); err != nil {
		return c.errorf("%w", err)
	}
	if err := c.Backend.Forward(i); err != nil {
		return c.passed(err)
	}
	c.commit(x)
	e.rows, e.sum = append(e.rows[:0], x.Rows...), checksum(x)
	e.progress, c.forwarded = forwarded, i
	return nil
}

// Sample implements Backend.
func (c *checked) Sample(i int) error {
	e, err := c.entry("Sample", i, forwarded)
	if err != nil {
		return err
	}
	x := c.Backend.Batch(i)
	e.progress, c.forwarded = idle, none
	if err := c.checkChoices(x, e); err != nil {
		_ = c.passed(c.Backend.Wait(i)) // until nothing reads the batch; the error is why it was refused
		return c.errorf("%w", err)
	}
	if err := c.Backend.Sample(i); err != nil {
		return c.passed(err)
	}
	c.commitChoices(x, i)
	e.progress = sampled
	return nil
}

// Wait implements Backend.
func (c *checked) Wait(i int) error {
	e, err := c.entry("Wait", i, sampled)
	if err != nil {
		return err
	}
	e.progress = idle
	err = c.passed(c.Backend.Wait(i))
	c.commitResults(c.Backend.Batch(i), i, err == nil)
	return err
}

// Close implements Backend.
func (c *checked) Close() error {
	c.final = c.errorf("backend is closed")
	return c.Backend.Close()
}
