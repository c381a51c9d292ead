package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
)

// Config is what an Engine is made of. Zero values mean the default named.
type Config struct {
	Backend device.Backend // has its model; New reserves its caches
	Device  device.Limits  // what the backend was opened with
	Plan    *plan.Plan     // that the backend was given
	Pages   int            // to reserve, for all groups of caches
	States  int            // to reserve, one for each sequence that runs and for each snapshot; 0 without recurrent layers

	Adapters int      // that the backend has loaded already, under ids from 1 on
	EOS      []int32  // tokens that end a sequence
	Root     page.Key // page.Root of what keys and values of all requests depend on, beside tokens

	MaxInput   int // longest prompt; 0: MaxTotal - 1
	MaxTotal   int // longest prompt and output together; 0: what the pages and a slot hold
	MaxTopN    int // alternatives per token; 0: device.MaxTopN
	MaxWaiting int // requests that may wait; 0: 128

	// Memory is how many bytes requests may take beside the cache, for prompts,
	// keys and tokens, before new ones are Overloaded; 0: 128 MiB. What running
	// requests generate is counted, but never refused.
	Memory int64

	// MaxBatchTokens is the most tokens one step computes; 0: what suits the
	// backend. While sequences generate, steps that would take long are shorter
	// (pace).
	MaxBatchTokens int

	// Speculate is the most tokens of a draft, at most MaxSpeculate; 0: no drafts. With
	// drafts no step is launched ahead. Drafts of recurrent models take a state while
	// they are computed.
	Speculate int

	NoPrefixCache bool     // neither read nor write the prefix cache
	Observer      Observer // nil: none

	// Compiler returns the compiler that made the matchers of constrained requests;
	// it is called when such a request arrives. nil: requests cannot be constrained.
	Compiler func() (Compiler, error)

	Vision *Vision // nil: the model reads no images
}

// Engine generates tokens for many requests at once on one backend.
type Engine struct {
	cfg       Config
	backend   device.Backend
	limits    Limits
	budget    int // tokens of one step
	slots     int // sequences that may run at once
	shape     shape
	snapshots bool // states are kept for others to start from,
	grid      int  // after each so many tokens, and at the end of prompts
	ahead     bool // a step is launched before the results of the last are there
	now       func() time.Time

	// Shared with other goroutines.
	inbox    inbox
	wake     chan struct{} // capacity 1: look at inbox, draining and halted
	queued   atomic.Int64  // requests submitted and not yet admitted or ended
	running  atomic.Bool   // Run has been called
	draining atomic.Bool   // accept nothing, return when idle
	halted   atomic.Bool   // return after the step in flight
	done     chan struct{} // closed when Run has returned
	progress atomic.Int64  // unix nanoseconds of the last step's end, 0 when idle
	stats    counters
	account  account
	adapters *adapters

	loop
}

// loop is what the goroutine inside Run owns: nobody else touches it.
type loop struct {
	cache     *page.Cache
	waiting   queue       // not admitted, or preempted
	preempted int         // of these, how many have run before
	active    []*sequence // admitted, in order of admission
	prompts   []*sequence // scratch of schedule: those with more than a token to compute
	freeSlots []int32
	tables    [][]table // of each slot, by group

	ring        [device.RingDepth]step
	launched    int         // steps launched so far: the next uses ring[launched % RingDepth]
	inFlight    *step       // launched, not yet retired
	unpublished []*sequence // that changed since publish
	masking     masking     // scratch of mask

	speculation speculation
	images      *images

	paces    [2]pace // of steps, and of those beside an encoder, which takes part of the processor
	pace     *pace   // of these, for the step that is planned
	lengths  lengths
	outlook  outlook
	reserve  float64 // the part of the pages that admission leaves free
	luck     float64 // of the sequence that came last
	released int     // how often pages were given back, plus one
}

// New checks the configuration and reserves the backend's caches. The
// backend is the engine's until Run has returned; closing it is the caller's.
func New(cfg Config) (*Engine, error) {
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = 128
	}
	if cfg.MaxTopN == 0 {
		cfg.MaxTopN = device.MaxTopN
	}
	if cfg.Plan == nil {
		return nil, errors.New("engine: no Plan")
	}
	shape := newShape(cfg.Plan.Groups, cfg.Plan.HasState())
	if !shape.recurrent {
		cfg.States = 0
	}
	// The last token of a sequence is never fed back, so needs no place.
	room := shape.longest(cfg.Pages, cfg.Device.MaxPagesPerSlot) + 1
	if cfg.MaxTotal == 0 {
		cfg.MaxTotal = room
	}
	if cfg.MaxInput == 0 {
		cfg.MaxInput = cfg.MaxTotal - 1
	}
	if cfg.Memory == 0 {
		cfg.Memory = 128 << 20
	}
	caps := cfg.Backend.Caps()
	if cfg.MaxBatchTokens == 0 {
		cfg.MaxBatchTokens = min(cfg.Device.MaxTokens, cmp.Or(caps.StepTokens, 512))
	}
	if err := errors.Join(cfg.check(room), cfg.checkSpeculation(), cfg.checkVision()); err != nil {
		return nil, err
	}
	if err := cfg.Backend.InitCache(cfg.Pages, cfg.States); err != nil {
		return nil, fmt.Errorf("reserve %d pages and %d states: %w", cfg.Pages, cfg.States, err)
	}
	// Every running sequence must be able to advance in every step.
	slots := min(cfg.Device.MaxSlots, cfg.Device.MaxRows, cfg.MaxBatchTokens)
	if shape.recurrent {
		slots = min(slots, cfg.States)
	}

	e := &Engine{
		cfg:       cfg,
		backend:   cfg.Backend,
		now:       time.Now,
		budget:    cfg.MaxBatchTokens,
		ahead:     caps.LaunchDepth > 0 && cfg.Speculate == 0,
		slots:     slots,
		shape:     shape,
		snapshots: shape.recurrent && !cfg.NoPrefixCache,
		grid:      snapshotGrid,
		limits: Limits{
			MaxInput:   cfg.MaxInput,
			MaxTotal:   cfg.MaxTotal,
			MaxTopN:    cfg.MaxTopN,
			Vocab:      cfg.Plan.Vocab,
			MaxWaiting: cfg.MaxWaiting,
		},
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		adapters: newAdapters(cfg.Adapters),
		loop:     newLoop(&cfg, shape.windows, slots),
	}
	e.speculation, e.pace = e.newSpeculation(), &e.paces[0]
	e.account.budget = cfg.Memory
	e.stats.pagesTotal, e.stats.statesTotal = cfg.Pages, cfg.States
	e.stats.groups = make([]cacheCounters, len(shape.windows))
	return e, nil
}

// newLoop makes the loop of an engine with so many slots and the groups of
// caches that windows describes. All that it needs at any time is made here.
func newLoop(cfg *Config, windows []int, slots int) loop {
	l := loop{
		cache:       page.NewCache(windows, cfg.Pages, cfg.States),
		active:      make([]*sequence, 0, slots),
		prompts:     make([]*sequence, 0, slots),
		unpublished: make([]*sequence, 0, slots+cfg.MaxWaiting),
		tables:      make([][]table, slots),
		masking:     newMasking(slots),
		images:      newImages(),
		reserve:     caution,
		released:    1,
		outlook: outlook{
			running: make([]future, 0, slots),
			list:    make([]future, 0, slots+1),
			number:  -1,
		},
	}
	for slot := slots - 1; slot >= 0; slot-- {
		l.freeSlots = append(l.freeSlots, int32(slot))
	}
	for slot := range l.tables {
		l.tables[slot] = make([]table, len(windows))
		for g := range l.tables[slot] {
			l.tables[slot][g].pages = make([]page.ID, 0, min(usualTable, cfg.Device.MaxPagesPerSlot))
		}
	}
	for i := range l.ring {
		l.ring[i].init(i, cfg.Backend.Batch(i), len(windows))
	}
	return l
}

// check refuses what cannot work; room is the longest sequence that fits.
func (c *Config) check(room int) error {
	states := 0
	if c.Plan.HasState() {
		states = 1
	}
	for _, v := range []struct {
		name     string
		got      int
		min, max int
	}{
		{"Pages", c.Pages, min(1, len(c.Plan.Groups)), 1<<31 - 1},
		{"States", c.States, states, 1<<31 - 1},
		{"Adapters", c.Adapters, 0, 1<<31 - 1},
		{"Device.MaxTokens", c.Device.MaxTokens, 1, 1<<31 - 1},
		{"Device.MaxRows", c.Device.MaxRows, 1, 1<<31 - 1},
		{"Device.MaxSlots", c.Device.MaxSlots, 1, 1<<31 - 1},
		{"Device.MaxPagesPerSlot", c.Device.MaxPagesPerSlot, 1, 1<<31 - 1},
		{"MaxBatchTokens", c.MaxBatchTokens, 1, c.Device.MaxTokens},
		{"MaxTotal", c.MaxTotal, 2, room},
		{"MaxInput", c.MaxInput, 1, c.MaxTotal - 1},
		{"Speculate", c.Speculate, 0, MaxSpeculate},
		{"MaxTopN", c.MaxTopN, 1, device.MaxTopN},
		{"MaxWaiting", c.MaxWaiting, 1, 1<<31 - 1},
		{"Memory", int(c.Memory), 1, math.MaxInt},
	} {
		if v.got < v.min || v.got > v.max {
			return fmt.Errorf("engine: %s is %d, must be %d to %d", v.name, v.got, v.min, v.max)
		}
	}
	return nil
}

// lookAfter is how often a loop that has nothing to do but to wait for the encoder looks
// whether those who want its rows are still there.
const lookAfter = 50 * time.Millisecond

// idle reports whether the loop has no sequence, as far as it has looked.
func (e *Engine) idle() bool { return len(e.active) == 0 && e.waiting.length == 0 }

// awaitWake sleeps until the loop is woken, or so long.
func (e *Engine) awaitWake(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-e.wake:
	case <-timer.C:
	}
}

// Limits returns what the engine accepts.
func (e *Engine) Limits() Limits { return e.limits }

// Run is the engine's loop. It works until ctx ends or Drain is done, and then
// returns nil, or until the device is lost, and then says why. Whatever was
// open ends with an Error: nobody waits for an engine that has stopped. Run may
// be called once.
func (e *Engine) Run(ctx context.Context) (err error) {
	if e.running.Swap(true) {
		return errors.New("engine: Run called twice")
	}
	runtime.LockOSThread() // backends may tie state to the thread
	defer runtime.UnlockOSThread()
	defer close(e.done)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("engine: panic: %v\n%s", p, debug.Stack())
		}
		e.shutDown(err)
		e.awaitEncoder()
	}()
	defer context.AfterFunc(ctx, func() {
		e.halted.Store(true)
		e.wakeLoop()
	})()

	for {
		worked, err := e.tick()
		switch {
		case err != nil:
			return err
		case e.halted.Load():
			return e.settle()
		case worked:
		case e.draining.Load() && e.idle() && e.inbox.closeIfEmpty():
			return nil
		default:
			if e.images.running != nil {
				e.awaitWake(lookAfter)
				break
			}
			e.progress.Store(0)
			<-e.wake
		}
	}
}

// Drain lets the engine finish: new requests are refused with Stopping, those
// accepted go on until they are done or ctx ends, and then end with Stopping.
// It returns when Run has, nil if everything was finished in time.
func (e *Engine) Drain(ctx context.Context) error {
	e.draining.Store(true)
	e.wakeLoop()
	if !e.running.Load() {
		return nil
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		e.halted.Store(true)
		e.wakeLoop()
		<-e.done
		return ctx.Err()
	}
}

// Stalled returns how long ago the last step or image ended, or work began, if there is
// work, and 0 if there is none. Steps take milliseconds to seconds: much more
// means that the device hangs.
func (e *Engine) Stalled() time.Duration {
	at := e.progress.Load()
	if at == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, at)))
}

// wakeLoop wakes the loop if it sleeps.
func (e *Engine) wakeLoop() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// settle waits for the step in flight, so that the backend can be closed and
// its tokens are not lost.
func (e *Engine) settle() error {
	last := e.inFlight
	if last == nil {
		return nil
	}
	err := e.retire(last)
	e.publish()
	return err
}

// shutDown ends every open request: with the cause of the stop if there is
// one, as an orderly end otherwise. After a panic only the lists of sequences
// are trusted, so pages are not given back: nobody needs them now.
func (e *Engine) shutDown(cause error) {
	why := &Error{Kind: Stopping, Msg: "the server is shutting down"}
	if cause != nil {
		why = &Error{Kind: Failed, Msg: "the engine has failed", Err: cause}
	}
	for s := e.inbox.close(); s != nil; s = s.next {
		s.abandon(why)
	}
	for s := e.waiting.head; s != nil; s = s.next {
		s.abandon(why)
	}
	for _, s := range e.active {
		s.abandon(why)
	}
	for _, s := range e.unpublished {
		s.abandon(why)
	}
	e.queued.Store(0)
	e.progress.Store(0)
}
