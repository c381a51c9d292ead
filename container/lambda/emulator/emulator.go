package emulator

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Lambda's limits on events and answers, in bytes.
const (
	payloadLimit = 6 << 20 // an event, and an answer in one piece
	asyncLimit   = 1 << 20 // an event that nobody waits for
	streamLimit  = 200 << 20
)

// Options describe a function.
type Options struct {
	Function    string // name
	Region      string
	MemoryMB    int
	Timeout     time.Duration // of an event
	InitTimeout time.Duration // of the initialization ahead of an event
	// Concurrency is how many events one environment takes at once. More than
	// one is a function on managed instances, which is never frozen.
	Concurrency int
	// StreamURL says that the function URL has the invoke mode RESPONSE_STREAM;
	// otherwise it has AWS's default, BUFFERED.
	StreamURL bool
	// SnapStart says that environments are restored from a snapshot of an
	// initialized one.
	SnapStart bool
	Launcher  Launcher
	Log       io.Writer // gets what Lambda and the sandboxes log

	// New sets Lambda's.
	longest int           // answer in pieces, in bytes
	restore time.Duration // until the copy of a snapshot asks for its first event
}

// Emulator runs one function. It is an http.Handler with Lambda's invoke APIs;
// all other paths are the function URL's.
type Emulator struct {
	opt   Options
	log   *tail
	slots chan struct{} // capacity Concurrency

	ctx  context.Context // ends with Close
	stop context.CancelFunc

	mu       sync.Mutex
	env      *environment // nil: none is there
	snapshot *snapshot    // nil: none is taken
}

// New returns an Emulator whose environment starts with the first event.
func New(opt Options) *Emulator {
	opt.Concurrency = max(1, opt.Concurrency)
	opt.longest = cmp.Or(opt.longest, streamLimit)
	opt.restore = cmp.Or(opt.restore, restoreLimit)
	m := &Emulator{opt: opt, log: &tail{out: opt.Log}, slots: make(chan struct{}, opt.Concurrency)}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// Close ends the environment. Running events fail.
func (m *Emulator) Close() {
	m.stop()
	m.mu.Lock()
	env, snapshot := m.env, m.snapshot
	m.env, m.snapshot = nil, nil
	m.mu.Unlock()
	if env != nil {
		env.end()
	}
	if snapshot != nil {
		snapshot.close()
	}
}

// ServeHTTP implements http.Handler.
func (m *Emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if call, ok := parseCall(r); ok {
		m.serveCall(w, r, call)
		return
	}
	m.serveURL(w, r)
}

// invoke runs the function with an event. It returns once the answer begins, or
// when there is none. ctx bounds only the wait for a free environment: Lambda
// goes on when a caller has left.
func (m *Emulator) invoke(ctx context.Context, event []byte) *invocation {
	inv := newInvocation(event)
	m.begin(ctx, inv)
	return inv
}

// begin is invoke for an invocation that is made already.
func (m *Emulator) begin(ctx context.Context, inv *invocation) {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		inv.fail(&failure{Type: "Sandbox.Abandoned", Message: "the caller has left"})
		close(inv.ended)
		return
	}
	go func() {
		defer func() { <-m.slots }()
		defer close(inv.ended)
		m.run(inv)
	}()
	<-inv.begun
}

// run runs an event to its end and logs it as Lambda does.
func (m *Emulator) run(inv *invocation) {
	env, cold, err := m.environment()
	if err != nil {
		inv.fail(err)
		m.logf("%s", err.Message)
		return
	}
	begin := time.Now()
	inv.deadline = begin.Add(m.opt.Timeout)
	m.log.begin()
	m.logf("START RequestId: %s Version: %s", inv.id, m.opt.version())
	if f := env.serve(inv, m.opt.Timeout); f != nil {
		inv.fail(f)
		m.discard(env)
		m.logf("%s", f.Message)
	}
	took := time.Since(begin)
	if inv.wantsLog {
		env.awaitNext(inv)
	}
	report := fmt.Sprintf("REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB",
		inv.id, milliseconds(took), (took + cold + time.Millisecond - 1).Milliseconds(), m.opt.MemoryMB)
	switch {
	case cold > 0 && m.opt.SnapStart:
		report += fmt.Sprintf("\tRestore Duration: %.2f ms", milliseconds(cold))
	case cold > 0:
		report += fmt.Sprintf("\tInit Duration: %.2f ms", milliseconds(cold))
	}
	if f := inv.failed(); f != nil {
		report += "\tStatus: " + f.status()
	}
	m.logf("END RequestId: %s", inv.id)
	m.logf("%s", report)
	inv.log = m.log.text()
}

// environment returns the environment, and how long its initialization, or its
// restoration, took if this event has started it.
func (m *Emulator) environment() (*environment, time.Duration, *failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.env != nil {
		if !m.env.dead() {
			return m.env, 0, nil
		}
		m.env.kill() // it has ended between events
		m.env = nil
	}
	if m.opt.SnapStart {
		return m.restore()
	}
	// An initialization that takes too long is repeated within the time of the
	// event.
	for _, limit := range []time.Duration{m.opt.InitTimeout, m.opt.Timeout} {
		begin := time.Now()
		env, f := start(m.ctx, &m.opt, m.log, limit)
		took := time.Since(begin)
		if f == nil {
			m.env = env
			return env, took, nil
		}
		m.logf("INIT_REPORT Init Duration: %.2f ms\tPhase: init\tStatus: %s", milliseconds(took), f.status())
		if !f.timeout {
			return nil, 0, f
		}
	}
	return nil, 0, timedOut(uuid.NewString(), m.opt.Timeout)
}

// discard ends an environment that has failed.
func (m *Emulator) discard(env *environment) {
	env.kill()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.env == env {
		m.env = nil
	}
}

func (m *Emulator) logf(format string, args ...any) { fmt.Fprintf(m.log, format+"\n", args...) }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
