package emulator

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
)

// environment is a sandbox and the server of its Runtime API.
type environment struct {
	opt     *Options
	sandbox Sandbox
	server  *http.Server // of the sandbox's Runtime API; nil: a snapshot's
	api     http.Handler

	events    chan *invocation // unbuffered, to whoever asks for an event
	first     chan struct{}    // closed when the first event is asked for
	firstOnce sync.Once
	initError chan *failure // capacity 1

	ready     chan struct{} // closed when a snapshot may be taken
	readyOnce sync.Once
	restored  chan struct{} // closed when the environment is the copy of a snapshot

	mu     sync.Mutex
	open   map[string]*invocation // given out, or about to be
	frozen bool
	ending bool          // not to be frozen any more
	asked  chan struct{} // closed and replaced when an event is asked for
}

func newEnvironment(opt *Options) *environment {
	e := &environment{
		opt: opt, events: make(chan *invocation), first: make(chan struct{}), ready: make(chan struct{}), restored: make(chan struct{}),
		initError: make(chan *failure, 1), open: map[string]*invocation{}, asked: make(chan struct{}),
	}
	e.api = e.routes()
	return e
}

// start launches a sandbox and waits until it asks for an event, or for a
// snapshot to be taken.
func start(ctx context.Context, opt *Options, log io.Writer, limit time.Duration) (*environment, *failure) {
	// The sandbox is on this machine, or shares its network.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, &failure{Type: "Sandbox.NoPort", Message: err.Error()}
	}
	e := newEnvironment(opt)
	live := &live{}
	live.Store(e)
	e.server = &http.Server{Handler: live, ReadHeaderTimeout: 10 * time.Second}
	go e.server.Serve(listener) //nolint:errcheck // until kill closes it
	if e.sandbox, err = opt.Launcher.Launch(opt.variables(listener.Addr().String()), log); err != nil {
		e.server.Close()
		return nil, &failure{Type: "Runtime.InvalidEntrypoint", Message: fmt.Sprintf("RequestId: %s Error: %v", uuid.NewString(), err)}
	}
	done := e.first
	if opt.SnapStart {
		done = e.ready
	}
	return e, e.await(ctx, done, limit)
}

// await waits until done is closed. Otherwise the sandbox is killed.
func (e *environment) await(ctx context.Context, done <-chan struct{}, limit time.Duration) *failure {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var f *failure
	select {
	case <-done:
		return nil
	case f = <-e.initError:
	case <-e.sandbox.Exited():
		select { // it may have said why before
		case f = <-e.initError:
		default:
			f = e.exited(uuid.NewString())
		}
	case <-timer.C:
		f = timedOut(uuid.NewString(), limit)
	case <-ctx.Done():
		f = &failure{Type: "Sandbox.Closed", Message: "the emulator is ending"}
	}
	e.kill()
	return f
}

// variables are what Lambda sets for a function.
func (o *Options) variables(api string) []string {
	kind := "on-demand"
	vars := []string{}
	switch {
	case o.SnapStart:
		kind = "snap-start"
	case o.Concurrency > 1:
		kind = "lambda-managed-instances"
		vars = append(vars, fmt.Sprint("AWS_LAMBDA_MAX_CONCURRENCY=", o.Concurrency))
	}
	return append(vars,
		"AWS_LAMBDA_RUNTIME_API="+api,
		"AWS_LAMBDA_FUNCTION_NAME="+o.Function,
		"AWS_LAMBDA_FUNCTION_VERSION="+o.version(),
		fmt.Sprint("AWS_LAMBDA_FUNCTION_MEMORY_SIZE=", o.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE="+kind,
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/"+o.Function,
		"AWS_LAMBDA_LOG_STREAM_NAME=local",
		"AWS_REGION="+o.Region,
		"AWS_DEFAULT_REGION="+o.Region,
		"TZ=:UTC",
	)
}

// version is the function's. Snapshots are taken of published versions only.
func (o *Options) version() string {
	if o.SnapStart {
		return "1"
	}
	return "$LATEST"
}

// serve gives an event to the sandbox and waits for the end of its answer. It
// returns an error if the function did not answer by itself; the environment
// cannot be used again then.
func (e *environment) serve(inv *invocation, limit time.Duration) *failure {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	e.mu.Lock()
	e.open[inv.id] = inv
	inv.asked = e.asked
	e.thaw()
	e.mu.Unlock()
	select {
	case e.events <- inv:
	case <-e.sandbox.Exited():
		return e.exited(inv.id)
	case <-timer.C:
		return timedOut(inv.id, limit)
	}
	select {
	case <-inv.done:
		return nil
	case <-e.sandbox.Exited():
		select { // its last words may have been the answer
		case <-inv.done:
			return nil
		default:
			return e.exited(inv.id)
		}
	case <-timer.C:
		return timedOut(inv.id, limit)
	}
}

// awaitNext waits until the sandbox asks for the event after inv, as Lambda does
// before it returns the log: only then has the function written all of it.
func (e *environment) awaitNext(inv *invocation) {
	const grace = time.Second // for a sandbox that is deaf
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-inv.asked:
		// What the sandbox wrote before is in a pipe.
		time.Sleep(20 * time.Millisecond)
	case <-e.sandbox.Exited():
	case <-timer.C:
	}
}

func (e *environment) exited(id string) *failure {
	return &failure{Type: "Runtime.ExitError", Message: fmt.Sprintf("RequestId: %s Error: Runtime exited with error: %s", id, e.sandbox.Status())}
}

// ask handles a request for an event. It freezes the sandbox if there is none,
// which cannot be so at first: an event started the sandbox.
func (e *environment) ask() {
	e.mu.Lock()
	close(e.asked)
	e.asked = make(chan struct{})
	e.mu.Unlock()
	first := false
	e.firstOnce.Do(func() {
		first = true
		close(e.first)
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if !first && e.opt.Concurrency == 1 && len(e.open) == 0 && !e.ending {
		e.freeze()
	}
}

// freeze stops the sandbox, if it runs. The caller holds mu.
func (e *environment) freeze() {
	if !e.frozen {
		e.frozen = true
		e.sandbox.Freeze()
	}
}

// thaw has the sandbox go on, if it is frozen. The caller holds mu.
func (e *environment) thaw() {
	if e.frozen {
		e.frozen = false
		e.sandbox.Thaw()
	}
}

// take returns an event that has been handed out and not answered, which the
// caller must then answer; nil if there is none with that id.
func (e *environment) take(id string) *invocation {
	e.mu.Lock()
	defer e.mu.Unlock()
	inv := e.open[id]
	if inv != nil && inv.failed() != nil {
		return nil
	}
	taken := false
	if inv != nil {
		inv.answering.Do(func() { taken = true })
	}
	if !taken {
		return nil
	}
	return inv
}

// answered forgets an event.
func (e *environment) answered(inv *invocation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, inv.id)
}

func (e *environment) dead() bool { return isClosed(e.sandbox.Exited()) }

// kill ends the sandbox at once.
func (e *environment) kill() {
	e.sandbox.Kill()
	<-e.sandbox.Exited()
	if e.server != nil { // else its API is the snapshot's, for the next copy
		e.server.Close()
	}
}

// end ends the sandbox, which gets as much time to shut down as Lambda grants.
func (e *environment) end() {
	e.mu.Lock()
	e.ending = true
	e.thaw()
	e.mu.Unlock()
	e.sandbox.Terminate()
	const grace = 2 * time.Second // Lambda's is shorter
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	select {
	case <-e.sandbox.Exited():
	case <-ctx.Done():
	}
	e.kill()
}
