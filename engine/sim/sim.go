package sim

import (
	"errors"
	"fmt"
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
	Invalid          // one row of the step has logits that are no numbers
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

	// Fault decides what goes wrong in step number n = 0, 1, …; nil: nothing.
	Fault func(n int) Fault

	// OnWait, if set, is called while a step is in flight.
	OnWait func()

	// Synchronous asks the engine to launch no step ahead of the one it waits
	// for (Caps.LaunchDepth 0); else it is 1.
	Synchronous bool

	// Fast leaves out reading, writing and checking, so that a step costs
	// nanoseconds: the tokens then depend on the last token alone, and
	// Model.Continue does not tell them.
	Fast bool
}

// Backend implements device.Backend.
type Backend struct {
	cfg     Config
	limits  device.Limits
	ring    [device.RingDepth]entry
	queue   []int         // entries forwarded and not yet executed
	tensors device.Handle // announced
	steps   int

	slots  []slot
	values []uint64 // [page][offset]
	stamp  []writer // by page

	now  time.Duration // virtual
	free time.Duration // when the device has done all that is enqueued
	base time.Time     // of real time
	lost error
}

// entry is a Batch of the ring and its way through the queue.
type entry struct {
	batch    device.Batch
	sum      uint64 // of the inputs when they were forwarded
	choices  uint64 // of those that Sample reads, when it did
	number   int
	inFlight bool // from Forward to Wait
	sampled  bool
	executed bool
	done     time.Duration
	fault    Fault
}

// slot is the state of a sequence that stays on the device.
type slot struct {
	pages   []int32
	params  sample.Params
	counts  uint64
	biases  uint64
	length  int   // tokens computed so far; -1: the first may start anywhere
	last    int32 // the token sampled last
	hasLast bool
	chosen  bool // a token was sampled behind the last one computed
	batch   int  // marks of check: the batch that last had this slot,
	renewed int  // and gave it parameters,
	sampled int  // and a token
	start   history
}

// writer says which slot writes a page in which step.
type writer struct {
	step int
	slot int32
}

// New returns a backend that needs no weights: SetModel and InitKV may follow.
func New(limits device.Limits, cfg Config) *Backend {
	return &Backend{cfg: cfg, limits: limits, base: time.Now()}
}

// Now returns the time that has passed since New, virtual unless RealTime.
func (b *Backend) Now() time.Duration {
	if b.cfg.RealTime {
		return time.Since(b.base)
	}
	return b.now
}

// Caps implements device.Backend.
func (b *Backend) Caps() device.Caps {
	depth := 1
	if b.cfg.Synchronous {
		depth = 0
	}
	return device.Caps{Name: "sim", Detail: "simulated, no model", LaunchDepth: depth, StepTokens: b.limits.MaxTokens}
}

// NewTensor implements device.Backend; tensors are ignored.
func (b *Backend) NewTensor(string, device.DType, []int) (device.Handle, error) {
	b.tensors++
	return b.tensors - 1, nil
}

// WriteTensor implements device.Backend; tensors are ignored.
func (b *Backend) WriteTensor(device.Handle, int, int, []byte) error { return nil }

// SetModel implements device.Backend; the plan is ignored.
func (b *Backend) SetModel(*plan.Plan) (device.ModelInfo, error) {
	return device.ModelInfo{PageBytes: 8 * device.PageTokens}, nil
}

// InitKV implements device.Backend.
func (b *Backend) InitKV(pages int) error {
	l := b.limits
	b.slots = make([]slot, l.MaxSlots)
	for i := range b.slots {
		b.slots[i] = slot{pages: make([]int32, l.MaxPagesPerSlot), batch: -1, renewed: -1, sampled: -1}
		b.slots[i].clear()
	}
	b.values = make([]uint64, pages*device.PageTokens)
	for i := range b.values {
		b.values[i] = mix(uint64(i), ^uint64(0)) // nothing anyone wrote
	}
	b.stamp = make([]writer, pages)
	for i := range b.stamp {
		b.stamp[i].step = -1
	}
	for i := range b.ring {
		b.ring[i].batch = device.NewBatch(l, b.cfg.Model.Vocab)
	}
	b.queue = make([]int, 0, device.RingDepth)
	return nil
}

// Batch implements device.Backend.
func (b *Backend) Batch(i int) *device.Batch { return &b.ring[i].batch }

// Close implements device.Backend.
func (b *Backend) Close() error { return nil }

// Forward implements device.Backend. Nothing happens before Wait, so that a
// caller who relies on more is found out.
func (b *Backend) Forward(i int) error {
	e := &b.ring[i]
	if b.lost != nil {
		return b.lost
	}
	if e.inFlight {
		return b.lose(fmt.Errorf("Forward(%d) before Wait(%d)", i, i))
	}
	for j := range b.ring {
		if b.ring[j].inFlight && !b.ring[j].sampled {
			return b.lose(fmt.Errorf("Forward(%d) before Sample(%d)", i, j))
		}
	}
	e.number = b.steps
	b.steps++
	e.fault = NoFault
	if b.cfg.Fault != nil {
		e.fault = b.cfg.Fault(e.number)
	}
	if !b.cfg.Fast {
		if err := b.check(&e.batch); err != nil {
			return b.lose(err)
		}
		clear(e.batch.Results)
		e.sum = checksum(&e.batch)
	}
	e.inFlight, e.sampled, e.executed = true, false, false
	b.queue = append(b.queue, i)
	if b.cfg.Latency != nil {
		b.free = max(b.free, b.Now()) + b.cfg.Latency(len(e.batch.Tokens))
	}
	e.done = b.free
	if e.fault == FailLaunch {
		b.executeThrough(e)
		e.inFlight = false
		return errors.New("sim: injected launch failure")
	}
	return nil
}

// Sample implements device.Backend.
func (b *Backend) Sample(i int) error {
	e := &b.ring[i]
	switch {
	case b.lost != nil:
		return b.lost
	case !e.inFlight || e.sampled:
		return b.lose(fmt.Errorf("Sample(%d) does not follow Forward(%d)", i, i))
	case !b.cfg.Fast:
		if err := b.checkChoices(e); err != nil {
			return b.lose(err)
		}
		e.choices = choices(&e.batch)
	}
	e.sampled = true
	return nil
}

// Wait implements device.Backend.
func (b *Backend) Wait(i int) error {
	e := &b.ring[i]
	switch {
	case b.lost != nil:
		return b.lost
	case !e.inFlight || !e.sampled:
		return b.lose(fmt.Errorf("Wait(%d) without Forward and Sample", i))
	}
	if b.cfg.OnWait != nil {
		b.cfg.OnWait()
	}
	b.executeThrough(e)
	if b.cfg.RealTime {
		time.Sleep(e.done - b.Now()) // what is left of the step's time
	} else {
		b.now = max(b.now, e.done)
	}
	e.inFlight = false
	switch {
	case b.lost != nil:
		return b.lost
	case e.fault == Lose:
		return b.lose(errors.New("injected loss"))
	case e.fault == FailStep:
		return errors.New("sim: injected step failure")
	}
	return nil
}

func (b *Backend) lose(reason error) error {
	b.lost = fmt.Errorf("sim: %w: %w", device.ErrLost, reason)
	return b.lost
}

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
	switch {
	case b.cfg.Fast:
		b.computeFast(e)
	case checksum(&e.batch) != e.sum || e.sampled && choices(&e.batch) != e.choices:
		_ = b.lose(fmt.Errorf("batch %d was changed while in flight", i)) // Wait reports it
	default:
		if err := b.compute(e); err != nil {
			_ = b.lose(err) // Wait reports it
		}
	}
}
