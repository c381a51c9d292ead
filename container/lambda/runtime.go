package lambda

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// MegabytesPerCPU is the memory that a function gets with each of its cores.
const MegabytesPerCPU = 1769

// Mode says how answers are written.
type Mode string

// The modes.
const (
	// Auto streams to a direct invocation that asks for a stream. It answers
	// function URLs and REST APIs in one piece, which is what both expect unless
	// they are set to stream.
	Auto Mode = "auto"
	// Buffered answers in one piece, whatever the client asks for.
	Buffered Mode = "buffered"
	// Stream streams to every source that accepts streams. A function URL or REST
	// API that is set to stream needs it: it would show the JSON around a
	// buffered answer to the client.
	Stream Mode = "stream"
)

// Options configure a Runtime.
type Options struct {
	API         string // address of the Runtime API, HOST:PORT
	Handler     http.Handler
	Mode        Mode
	Concurrency int       // events at once, at least 1
	InitUntil   time.Time // when to ask for an event at the latest; zero: only once ready
	Logger      *slog.Logger

	// SnapStart says that Lambda copies the process once it is ready, and answers
	// events with the copies. BeforeSnapshot and AfterRestore, if not nil, are
	// called right before the copy is made and at the beginning of each copy's life.
	SnapStart      bool
	BeforeSnapshot func()
	AfterRestore   func() error

	// Deliver, if not nil, takes the answer to the message of a queue that has an
	// id, with its status. If nil, such messages are refused.
	Deliver func(ctx context.Context, id string, status int, answer []byte) error
	// Idle, if not nil, is called when the process may be frozen after it:
	// nothing should be left to do after it.
	Idle func()
	// Phase, if not nil, is called when each phase of a cold start begins.
	Phase func(name string)
}

// The phases of a cold start.
const (
	PhaseRestored  = "restored"   // the copy of a snapshot is ready
	PhaseNext      = "next"       // the first event is asked for
	PhaseEvent     = "event"      // it is here
	PhaseFirstByte = "first_byte" // its answer begins
	PhaseAnswered  = "answered"   // its answer is complete
)

// Runtime is the runtime of one function. Serve, Ready and Shutdown may each be
// called once; call Fail instead of Ready if there is no model.
type Runtime struct {
	opt Options
	api *api

	ready   chan struct{} // closed by Ready
	failed  chan struct{} // closed by Fail, once failure is set
	failure *failure

	mu      sync.Mutex
	asked   bool // for an event: the initialization is over
	ended   bool // no event may be asked for
	polls   context.Context
	stop    context.CancelFunc // ends polls
	running sync.WaitGroup     // events being answered
	first   sync.Once          // the first event's phases
}

// New returns a Runtime that does nothing yet.
func New(opt Options) *Runtime {
	if opt.Idle == nil {
		opt.Idle = func() {}
	}
	if opt.Phase == nil {
		opt.Phase = func(string) {}
	}
	opt.Concurrency = max(1, opt.Concurrency)
	r := &Runtime{opt: opt, api: newAPI(opt.API, opt.Concurrency), ready: make(chan struct{}), failed: make(chan struct{})}
	r.polls, r.stop = context.WithCancel(context.Background())
	return r
}

// Serve asks for events and answers them until Shutdown or Fail, and then returns
// nil. It returns an error if the Runtime API fails, which a process cannot
// survive.
func (r *Runtime) Serve() error {
	defer r.stop()
	var patience <-chan time.Time
	if !r.opt.InitUntil.IsZero() {
		timer := time.NewTimer(time.Until(r.opt.InitUntil))
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-r.ready:
	case <-patience:
		r.opt.Logger.Info("asking for the first event before the model is ready; it will wait")
	case <-r.failed:
		return nil
	case <-r.polls.Done():
		return nil
	}
	if r.opt.SnapStart {
		if restored, err := r.restore(); !restored || err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.asked = !r.ended
	r.mu.Unlock()
	if !r.asked {
		return nil
	}

	r.opt.Phase(PhaseNext)
	results := make(chan error, r.opt.Concurrency)
	for range r.opt.Concurrency {
		go func() { results <- r.loop() }()
	}
	var first error
	for range r.opt.Concurrency {
		if err := <-results; err != nil && first == nil {
			first = err
			r.stop()
		}
	}
	return first
}

// restore has the snapshot taken and returns in each copy of it. It reports false
// if the runtime has ended meanwhile.
func (r *Runtime) restore() (bool, error) {
	if r.opt.BeforeSnapshot != nil {
		r.opt.BeforeSnapshot()
	}
	if err := r.api.restore(r.polls); err != nil {
		if r.polls.Err() != nil {
			return false, nil //nolint:nilerr // Shutdown has ended the wait
		}
		return false, err
	}
	if r.opt.AfterRestore != nil {
		if err := r.opt.AfterRestore(); err != nil {
			return false, errors.Join(err, r.api.failRestore(&failure{Type: "Runtime.AfterRestoreError", Message: err.Error()}))
		}
	}
	r.opt.Phase(PhaseRestored)
	return true, nil
}

// loop answers one event after another.
func (r *Runtime) loop() error {
	for {
		inv, err := r.api.next(r.polls)
		if err != nil {
			if r.polls.Err() != nil {
				return nil //nolint:nilerr // Shutdown has ended the wait
			}
			return err
		}
		if !r.begin() {
			return nil // the process is ending; the platform will say so
		}
		err = r.answer(inv)
		r.running.Done()
		if err != nil {
			return err
		}
		if r.opt.Concurrency == 1 {
			r.opt.Idle()
		}
	}
}

// begin counts an event as running, unless the runtime has ended.
func (r *Runtime) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.running.Add(1)
	}
	return !r.ended
}

// answer answers one event. Its error is that the platform did not accept the
// answer, for a reason that concerns more than this event.
func (r *Runtime) answer(inv *invocation) error {
	phase := func(string) {}
	r.first.Do(func() { phase = r.opt.Phase })
	phase(PhaseEvent)
	err := r.invoke(inv, func() { phase(PhaseFirstByte) })
	phase(PhaseAnswered)

	var refused *statusError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.status == http.StatusRequestEntityTooLarge:
		return r.postFailure(inv.id, &failure{Type: "payload_too_large", Message: err.Error()})
	}
	return r.survivable(inv.id, err)
}

// postFailure reports that an event has failed. Lambda's metric Errors counts
// every failure; the log line tells alarms which ones to subtract.
func (r *Runtime) postFailure(id string, f *failure) error {
	if f.client {
		r.opt.Logger.Warn("an event was refused", "request_id", id, "refused", true, "error_type", f.platformType(), "err", f.Message)
	}
	return r.survivable(id, r.api.fail(id, f))
}

// survivable logs an error of posting an answer that concerns only this answer,
// because it was too late or its stream was cut. It returns other errors.
func (r *Runtime) survivable(id string, err error) error {
	var refused *statusError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.status < http.StatusInternalServerError,
		errors.Is(err, context.DeadlineExceeded):
		r.opt.Logger.Warn("an answer was not accepted", "request_id", id, "err", err)
		return nil
	}
	return err
}

// Ready lets events through to the handler.
func (r *Runtime) Ready() { close(r.ready) }

// Shutdown asks for no more events and waits until the running ones are
// answered, or ctx ends.
func (r *Runtime) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.stop()
	idle := make(chan struct{})
	go func() {
		r.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Fail reports that there will be no model, because of err. Before the first
// event this fails the initialization; afterwards it fails the waiting events.
// The process should then exit with a status other than 0.
func (r *Runtime) Fail(ctx context.Context, kind string, err error) error {
	r.failure = &failure{Type: kind, Message: err.Error()}
	close(r.failed)
	r.mu.Lock()
	r.ended = true
	asked := r.asked
	r.mu.Unlock()
	if !asked {
		return r.api.failInit(r.failure)
	}
	return r.Shutdown(ctx)
}

// FailInit reports to the Runtime API at address that the initialization failed,
// for a process that has no Runtime yet.
func FailInit(address, kind string, err error) error {
	return newAPI(address, 1).failInit(&failure{Type: kind, Message: err.Error()})
}
