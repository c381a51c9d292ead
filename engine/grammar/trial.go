package grammar

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine/native"
)

// What a trial may take. Grammars that people write take a few milliseconds
// and a megabyte.
const (
	trialQuick  = 50 * time.Millisecond // of processor time: so long it has a quick place
	trialCPU    = 500 * time.Millisecond
	trialWall   = 1400 * time.Millisecond
	trialMemory = 128 << 20
	quickTrials = 2
	slowTrials  = 4
	quickNice   = 5  // what waits for a mask or a token goes first
	slowNice    = 10 // where there are others
	heavyNice   = 2  // of what is compiled in the server, one at a time
	// trialSteps is how many tokens of a text are tried: a mask may cost more than
	// it may where the first does not, most of all under a regular expression.
	trialSteps, trialRegexSteps = 24, 64
	// trialIdle is how long the trial process waits for the next grammar.
	trialIdle = 5 * time.Minute
)

// errNoTrial says that there is no process to try grammars in.
var errNoTrial = errors.New("no process to try grammars in")

// trials tries grammars in a process of its own before they are compiled here:
// a compilation cannot be interrupted, but a process can be killed, and it
// gives all its memory back. The process has the vocabulary and does exactly
// what the server would do; what it takes the server will take, so only what
// it proves to be cheap is compiled here.
//
// A trial begins in a quick place. What takes longer moves to a slow one, or
// ends where there is none, so that a flood of hostile grammars, which are
// slow, does not keep the others from theirs.
type trials struct {
	start func() (*native.TrialProcess, error)

	quick, slow chan struct{}
	memory      int           // of one, in bytes
	wall        time.Duration // trialWall; tests on busy machines take more

	mu      sync.Mutex
	process *native.TrialProcess // nil when idle
	spare   *native.Trial        // forked before it is wanted
	users   int                  // trials that run
	idle    *time.Timer
	closed  bool
}

func newTrials(start func() (*native.TrialProcess, error)) *trials {
	t := &trials{
		start: start,
		quick: make(chan struct{}, quickTrials),
		slow:  make(chan struct{}, slowTrials),
		wall:  trialWall,
	}
	t.idle = time.AfterFunc(trialIdle, t.rest)
	return t
}

// run tries a grammar. The error is the context's, ErrBusy, or errNoTrial.
func (t *trials) run(ctx context.Context, kind Kind, source string, limits native.MatcherLimits) (r native.TrialResult, err error) {
	place := t.quick
	select {
	case place <- struct{}{}:
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	defer func() { <-place }()
	trial, err := t.take(ctx)
	if err != nil {
		return r, err
	}
	defer t.put(trial)
	defer context.AfterFunc(ctx, trial.Close)()
	steps := trialSteps
	if kind == Regex {
		steps = trialRegexSteps
	}
	nice := quickNice
	if len(t.slow) > 0 {
		nice = slowNice
	}
	if err := trial.Start(string(kind), source, native.TrialLimits{
		Matcher:  limits,
		Nice:     quickNice,
		SlowNice: nice,
		Quick:    trialQuick,
		CPU:      trialCPU,
		Wall:     t.wall,
		Memory:   t.memory,
		Steps:    steps,
	}); err != nil {
		return native.TrialResult{Status: native.TrialDied}, nil
	}
	if r, err = trial.Result(ctx); err != nil || r.Status != native.TrialSlow {
		return r, err
	}
	select {
	case t.slow <- struct{}{}:
	default:
		return r, ErrBusy
	}
	<-place
	place = t.slow
	return trial.Result(ctx)
}

// take returns a trial that can start at once.
func (t *trials) take(ctx context.Context) (*native.Trial, error) {
	t.mu.Lock()
	t.users++
	t.mu.Unlock()
	var err error
	for range 2 { // a process that was killed while it was idle shows only now
		var trial *native.Trial
		var process *native.TrialProcess
		if trial, process, err = t.next(); err == nil {
			if err = trial.Ready(ctx); err == nil {
				return trial, nil
			}
			trial.Close()
			if ctx.Err() != nil {
				t.put(nil)
				return nil, context.Cause(ctx)
			}
		}
		t.mu.Lock()
		if process == t.process {
			t.stop()
		}
		t.mu.Unlock()
	}
	t.put(nil)
	return nil, fmt.Errorf("%w: %w", errNoTrial, err)
}

// next returns the spare trial or a new one, of a new process where there is none.
func (t *trials) next() (*native.Trial, *native.TrialProcess, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if trial := t.spare; trial != nil {
		t.spare = nil
		return trial, t.process, nil
	}
	if t.process == nil {
		if t.closed {
			return nil, nil, os.ErrClosed
		}
		process, err := t.start()
		if err != nil {
			return nil, nil, err
		}
		t.process = process
	}
	trial, err := t.process.NewTrial()
	return trial, t.process, err
}

// put ends a trial that next gave, nil if it gave none, and has the next one forked.
func (t *trials) put(trial *native.Trial) {
	if trial != nil {
		trial.Close()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
	if t.closed {
		t.stop()
		return
	}
	if t.process != nil && t.spare == nil {
		t.spare, _ = t.process.NewTrial() //nolint:errcheck // then the next trial finds out
	}
	t.idle.Reset(trialIdle)
}

// rest ends the process if nobody needs it.
func (t *trials) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 {
		t.stop()
	}
}

// stop lets the process end after the trials that run. The caller holds mu.
func (t *trials) stop() {
	if t.spare != nil {
		t.spare.Close()
		t.spare = nil
	}
	if t.process != nil {
		t.process.Close()
		t.process = nil
	}
}

func (t *trials) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.idle.Stop()
	t.stop()
}
