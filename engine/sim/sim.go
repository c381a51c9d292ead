package sim

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// Fault is something that goes wrong in a step.
type Fault int

// Faults.
const (
	NoFault    Fault = iota
	FailStep         // Wait fails; what the step should have written is garbage
	FailLaunch       // Forward fails, with the same effect
	Invalid          // one row of the step has logits that are NaN
	Lose             // the device is gone from this step on
)

// Config says what a Backend does beside computing. The zero value computes
// at once and never fails.
type Config struct {
	Model Model

	// Latency is how long a step of so many tokens takes; nil: no time. Time
	// is virtual, see Backend.Now, unless RealTime makes Wait sleep.
	Latency  func(tokens int) time.Duration
	RealTime bool

	// DraftLatency is how long the head of Model.Draft takes besides, for each token of the
	// longest draft.
	DraftLatency time.Duration

	// Fault decides what goes wrong in step number n = 0, 1, …; nil: nothing.
	Fault func(n int) Fault

	// OnWait, if set, is called while a step is in flight.
	OnWait func()

	// Synchronous asks the engine to launch no step ahead of the one it waits
	// for (Caps.LaunchDepth 0); else it is 1.
	Synchronous bool
	StepTokens  int // as in Caps; 0: all that a Batch holds

	// Fast leaves out reading, writing and checking, so that a step costs
	// nanoseconds: a token then depends on the one before and on its number
	// alone, and Model.Continue does not tell it.
	Fast bool
}

// Backend implements device.Backend.
type Backend struct {
	cfg      Config
	limits   device.Limits
	ring     [device.RingDepth]entry
	queue    []int            // entries forwarded and not yet executed
	tensors  device.Handle    // announced
	adapters map[int32]uint64 // hash by id
	steps    int

	slots   []slot
	values  []uint64 // [page][offset]
	writers []writer // by page, the last
	states  []uint64
	resumed []uint64 // what the live states of a step start as
	hidden  []uint64 // by token of the step: what the next token depends on

	now  time.Duration // virtual
	free time.Duration // when the device has done all that is enqueued
	base time.Time     // of real time
	lost error

	done, tokens, busy atomic.Int64 // of Stats
}

// entry is a Batch of the ring and its way through the queue.
type entry struct {
	batch    device.Batch
	sum      uint64 // of the inputs when they were forwarded
	choices  uint64 // of those that Sample reads, when it did
	number   int
	sampled  bool // Sample was called
	executed bool
	done     time.Duration // when the device has done it
	fault    Fault
}

// corrupt reports whether everything the step writes is wrong.
func (e *entry) corrupt() bool { return e.fault == FailStep || e.fault == FailLaunch }

// slot is what stays on the device of a sequence.
type slot struct {
	pages  [][]int32 // by group
	sums   []uint64  // by group, of what the step's next token sees
	live   int32     // its state
	params sample.Params
	counts uint64
	biases uint64
	last   int32  // the token sampled last
	hidden uint64 // after the last row
	void   bool   // an earlier RowVerify of the step chose something else
}

// writer says which slot wrote a page in which step, and for which group.
type writer struct {
	step        int
	slot, group int32
}

// New returns a backend that needs no weights: SetModel and InitCache may
// follow.
func New(limits device.Limits, cfg Config) *Backend {
	return &Backend{cfg: cfg, limits: limits, base: time.Now(), adapters: map[int32]uint64{}}
}

// Now returns the time that has passed since New, virtual unless RealTime.
func (b *Backend) Now() time.Duration {
	if b.cfg.RealTime {
		return time.Since(b.base)
	}
	return b.now
}

// Caps implements device.Backend: it takes every plan that ends in logits.
func (b *Backend) Caps() device.Caps {
	c := device.Caps{
		Name:        "sim",
		Detail:      "simulated, no model",
		Devices:     1,
		Ops:         1<<(plan.OpLogits+1) - 1,
		Formats:     ^uint32(0),
		Features:    device.FeatureAdapters | device.FeatureVerify,
		LaunchDepth: 1,
		StepTokens:  cmp.Or(b.cfg.StepTokens, b.limits.MaxTokens),
	}
	if b.cfg.Model.Draft {
		c.Features |= device.FeatureDraft
	}
	if b.cfg.Model.Hidden > 0 {
		c.Features |= device.FeatureEmbeds | device.FeatureAxes | device.FeatureSpans
	}
	if b.cfg.Synchronous {
		c.LaunchDepth = 0
	}
	return c
}

// CheckPlan implements device.Backend; plans are ignored.
func (b *Backend) CheckPlan(*plan.Plan) error { return nil }

// NewTensor implements device.Backend; tensors are ignored.
func (b *Backend) NewTensor(string, plan.Format, []int) (device.Handle, error) {
	b.tensors++
	return b.tensors - 1, nil
}

// WriteTensor implements device.Backend; tensors are ignored.
func (b *Backend) WriteTensor(device.Handle, int, int, []byte) error { return nil }

// AdoptTensor implements device.Backend; Caps promise no layout.
func (b *Backend) AdoptTensor(device.Handle, []byte, func()) error { return device.ErrUnsupported }

// SetModel implements device.Backend; the plan is ignored.
func (b *Backend) SetModel(*plan.Plan) (device.ModelInfo, error) {
	info := device.ModelInfo{PageBytes: 8 * device.PageTokens}
	if b.cfg.Model.Recurrent {
		info.StateBytes = 8
	}
	return info, nil
}

// InitCache implements device.Backend. All caches hold what nobody wrote.
func (b *Backend) InitCache(pages, states int) error {
	l, groups := b.limits, len(b.cfg.Model.windows())
	b.slots = make([]slot, l.MaxSlots)
	for i := range b.slots {
		s := &b.slots[i]
		s.pages, s.sums = make([][]int32, groups), make([]uint64, groups)
		for g := range groups {
			s.pages[g] = make([]int32, l.MaxPagesPerSlot)
		}
	}
	b.values = garbage(pages * device.PageTokens)
	b.states = garbage(states)
	b.writers = make([]writer, pages)
	for i := range b.writers {
		b.writers[i].step = -1
	}
	for i := range b.ring {
		b.ring[i].batch = device.NewBatch(l, b.cfg.Model.Vocab, groups, b.cfg.Model.Hidden, 0)
	}
	b.queue = make([]int, 0, device.RingDepth)
	b.hidden, b.resumed = make([]uint64, l.MaxTokens), make([]uint64, 0, l.MaxSlots)
	return nil
}

func garbage(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = mix(uint64(i), ^uint64(0))
	}
	return out
}

// WarmUp implements device.Backend.
func (b *Backend) WarmUp() error { return nil }

// HostAlloc implements device.Backend.
func (b *Backend) HostAlloc(bytes int) ([]byte, error) { return make([]byte, bytes), nil }

// HostFree implements device.Backend.
func (b *Backend) HostFree([]byte) {}

// ReadPage implements device.Backend.
func (b *Backend) ReadPage(page int, dst []byte) error { return get(dst, b.page(page)) }

// WritePage implements device.Backend.
func (b *Backend) WritePage(page int, src []byte) error { return put(b.page(page), src) }

// ReadState implements device.Backend.
func (b *Backend) ReadState(state int, dst []byte) error { return get(dst, b.states[state:][:1]) }

// WriteState implements device.Backend.
func (b *Backend) WriteState(state int, src []byte) error { return put(b.states[state:][:1], src) }

func (b *Backend) page(page int) []uint64 {
	return b.values[page*device.PageTokens:][:device.PageTokens]
}

func get(dst []byte, from []uint64) error {
	_, err := binary.Encode(dst, binary.LittleEndian, from)
	return err
}

func put(to []uint64, src []byte) error {
	_, err := binary.Decode(src, binary.LittleEndian, to)
	return err
}

// LoadAdapter implements device.Backend. What the adapter holds counts, not its
// id: pages of another adapter that had the id before are detected.
func (b *Backend) LoadAdapter(id int32, a *device.Adapter) error {
	b.adapters[id] = adapterHash(a)
	return nil
}

// DropAdapter implements device.Backend.
func (b *Backend) DropAdapter(id int32) error {
	delete(b.adapters, id)
	return nil
}

// Batch implements device.Backend.
func (b *Backend) Batch(i int) *device.Batch { return &b.ring[i].batch }

// Abandon implements device.Backend; there is no FeatureAbandon.
func (b *Backend) Abandon(bool) {}

// Stats implements device.Backend.
func (b *Backend) Stats() device.Stats {
	return device.Stats{Steps: b.done.Load(), Tokens: b.tokens.Load(), Busy: time.Duration(b.busy.Load())}
}

// Close implements device.Backend.
func (b *Backend) Close() error { return nil }

// Forward implements device.Backend. Nothing happens before Wait, so that a
// caller that relies on more is detected.
func (b *Backend) Forward(i int) error {
	e := &b.ring[i]
	e.number, e.fault = b.steps, NoFault
	b.steps++
	if b.cfg.Fault != nil {
		e.fault = b.cfg.Fault(e.number)
	}
	if !b.cfg.Fast {
		clear(e.batch.Results)
		e.sum = checksum(&e.batch)
	}
	e.sampled, e.executed = false, false
	b.queue = append(b.queue, i)
	began := max(b.free, b.Now())
	if b.cfg.Latency != nil {
		b.free = began + b.cfg.Latency(len(e.batch.Tokens))
		if e.batch.Draft {
			b.free += b.draftLatency(&e.batch)
		}
		b.busy.Add(int64(b.free - began))
	}
	e.done = b.free
	if e.fault == FailLaunch {
		b.executeThrough(e)
		return errors.New("sim: injected launch failure")
	}
	return nil
}

// Sample implements device.Backend.
func (b *Backend) Sample(i int) error {
	e := &b.ring[i]
	if !b.cfg.Fast {
		e.choices = choices(&e.batch)
	}
	e.sampled = true
	return nil
}

// Wait implements device.Backend.
func (b *Backend) Wait(i int) error {
	e := &b.ring[i]
	if b.cfg.OnWait != nil {
		b.cfg.OnWait()
	}
	b.executeThrough(e)
	if b.cfg.RealTime {
		time.Sleep(e.done - b.Now()) // what is left of the step's time
	} else {
		b.now = max(b.now, e.done)
	}
	switch {
	case b.lost != nil:
		return b.lost
	case e.fault == Lose:
		b.lose(errors.New("injected loss"))
		return b.lost
	case e.fault == FailStep:
		return errors.New("sim: injected step failure")
	}
	return nil
}

// lose ends it all; the next Wait says why.
func (b *Backend) lose(reason error) { b.lost = fmt.Errorf("sim: %w: %w", device.ErrLost, reason) }

// executeThrough runs the queue, in order, up to and with e.
func (b *Backend) executeThrough(e *entry) {
	for !e.executed && b.lost == nil {
		b.execute()
	}
}

// execute runs the oldest entry of the queue.
func (b *Backend) execute() {
	i := b.queue[0]
	b.queue = append(b.queue[:0], b.queue[1:]...)
	e := &b.ring[i]
	e.executed = true
	b.done.Add(1)
	b.tokens.Add(int64(len(e.batch.Tokens)))
	switch {
	case b.cfg.Fast:
		b.computeFast(e)
	case checksum(&e.batch) != e.sum || e.sampled && choices(&e.batch) != e.choices:
		b.lose(fmt.Errorf("batch %d was changed while in flight", i))
	default:
		if err := b.compute(e); err != nil {
			b.lose(err)
		}
	}
}
