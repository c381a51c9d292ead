package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// startPoll is the pause between pings of a container that starts, shorter
	// than the platform's so that a laptop's user does not wait for the next.
	startPoll = 100 * time.Millisecond

	// failuresToReplace pings in a row replace an instance. A single failure
	// takes it out of service until the next good one. AWS documents no number.
	failuresToReplace = 3

	// lastBytes is what callers get to read the end of an answer after the
	// container has ended.
	lastBytes = 2 * time.Second
)

// phase is where an endpoint is in its life.
type phase int

const (
	creating phase = iota
	inService
	deleting
)

// fleet is the instances of an endpoint: it starts, watches, replaces and stops
// them, and knows which of them gets a call.
type fleet struct {
	cfg *Config

	mu        sync.Mutex
	phase     phase
	instances []*instance // by number less one; nil before the first start
	sessions  map[string]session
	refused   map[string]string // adapter → why the container does not serve it
	rng       *rand.Rand
	stopped   []Stopped // instances that have ended, in order
}

func newFleet(cfg *Config) *fleet {
	return &fleet{
		cfg:       cfg,
		instances: make([]*instance, cfg.Instances),
		sessions:  map[string]session{},
		refused:   map[string]string{},
		rng:       rand.New(rand.NewPCG(cfg.Seed, 1)),
	}
}

func (fl *fleet) inService() bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.phase == inService
}

func (fl *fleet) setPhase(p phase) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.phase = p
}

// run starts the instances, calls work once all are in service, keeps them
// alive until ctx ends, and stops them. The context of work ends when they begin
// to stop. run returns once all have ended, and work has; its error says why the
// endpoint did not come into service.
func (fl *fleet) run(ctx context.Context, work func(context.Context)) error {
	// Callers hear that the endpoint is being deleted before its instances stop.
	keeping, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		fl.setPhase(deleting)
		cancel()
	})()
	var keepers sync.WaitGroup
	started := make(chan error, fl.cfg.Instances)
	for number := 1; number <= fl.cfg.Instances; number++ {
		keepers.Go(func() { fl.keep(keeping, number, started) })
	}
	var failure error
	for range fl.cfg.Instances {
		if err := <-started; err != nil && failure == nil {
			failure = err
			cancel()
		}
	}
	if failure == nil {
		fl.setPhase(inService)
		work(keeping)
		<-keeping.Done()
	}
	fl.setPhase(deleting)
	keepers.Wait()
	if errors.Is(failure, context.Canceled) {
		return nil
	}
	return failure
}

// kill ends all containers at once.
func (fl *fleet) kill() {
	fl.mu.Lock()
	instances := slices.Clone(fl.instances)
	fl.mu.Unlock()
	for _, in := range instances {
		if in != nil {
			in.container.Kill()
		}
	}
}

// refusal says why the containers do not serve an adapter; "" if they do.
func (fl *fleet) refusal(adapter string) string {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.refused[adapter]
}

// keep runs one instance after the other under a number until ctx ends. The
// first start's outcome goes to started.
func (fl *fleet) keep(ctx context.Context, number int, started chan<- error) {
	log := fl.cfg.Log.With("instance", number)
	for first := true; ; first = false {
		in, err := fl.start(ctx, number)
		failed := first && err != nil
		if first {
			started <- err
		}
		if err == nil {
			log.Info("in service", "address", in.container.Address())
			err = fl.watch(ctx, in)
		}
		if in != nil {
			fl.stop(in)
		}
		if ctx.Err() != nil || failed {
			return
		}
		log.Warn("replacing the instance", "why", err)
		if in != nil {
			continue
		}
		select { // what cannot be launched is not tried in a busy loop
		case <-ctx.Done():
			return
		case <-time.After(fl.cfg.Limits.PingEvery):
		}
	}
}

// start launches a container and waits until it is healthy and serves its
// adapters. With an error, too, an instance is returned if there is one to stop.
func (fl *fleet) start(ctx context.Context, number int) (*instance, error) {
	c, err := fl.cfg.Launcher.Launch(ctx, number)
	if err != nil {
		return nil, fmt.Errorf("start the container of instance %d: %w", number, err)
	}
	in := newInstance(number, c, fl.cfg.Limits.Connect)
	fl.mu.Lock()
	fl.instances[number-1] = in
	fl.mu.Unlock()
	window := time.NewTimer(fl.cfg.Limits.Startup)
	defer window.Stop()
	for {
		err := in.ping(ctx, fl.cfg.Limits.Ping)
		if err == nil {
			break
		}
		select {
		case <-time.After(startPoll):
		case <-c.Exited():
			return in, fmt.Errorf("the container of instance %d ended with status %d before it was healthy", number, c.ExitStatus())
		case <-ctx.Done():
			return in, ctx.Err()
		case <-window.C:
			return in, fmt.Errorf("the primary container for production variant %s did not pass the ping health check within %v; the last answer: %w",
				fl.cfg.Variant, fl.cfg.Limits.Startup, err)
		}
	}
	fl.registerAdapters(ctx, in)
	fl.setState(in, serving)
	return in, nil
}

// watch polls an instance in service until ctx ends, or returns why the
// instance is to be replaced.
func (fl *fleet) watch(ctx context.Context, in *instance) error {
	tick := time.NewTicker(fl.cfg.Limits.PingEvery)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.container.Exited():
			return fmt.Errorf("the container has ended with status %d", in.container.ExitStatus())
		case <-tick.C:
		}
		err := in.ping(ctx, fl.cfg.Limits.Ping)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			if failures > 0 {
				fl.cfg.Log.Info("healthy again", "instance", in.number)
				fl.setState(in, serving)
			}
			failures = 0
			continue
		}
		if failures++; failures == failuresToReplace && in.container.Exited() != nil {
			return fmt.Errorf("%d health checks failed: %w", failures, err)
		}
		fl.cfg.Log.Warn("health check failed: out of service", "instance", in.number, "why", err)
		fl.setState(in, unhealthy)
	}
}

// stop ends an instance: SIGTERM, SIGKILL if it takes too long, then the end
// of the requests that are left. How it went is kept for the summary.
func (fl *fleet) stop(in *instance) {
	began := time.Now()
	inFlight := fl.setState(in, stopping)
	in.container.Terminate()
	report := Stopped{Instance: in.number, InFlight: inFlight}
	exited := in.container.Exited()
	if exited == nil {
		exited = in.drained
	}
	select {
	case <-exited:
	case <-time.After(fl.cfg.Limits.Stop):
		report.Killed = true
		in.container.Kill()
		if own := in.container.Exited(); own != nil {
			<-own
		}
	}
	report.Took = time.Since(began)
	select {
	case <-in.drained:
	case <-time.After(lastBytes):
	}
	in.cancel()
	in.transport.CloseIdleConnections()
	select {
	case <-in.drained:
	case <-time.After(lastBytes): // a caller that does not read
	}

	fl.mu.Lock()
	defer fl.mu.Unlock()
	report.ExitStatus = in.container.ExitStatus()
	report.Ending = in.ending
	fl.stopped = append(fl.stopped, report)
	for id, s := range fl.sessions {
		if s.in == in {
			delete(fl.sessions, id)
		}
	}
	fl.cfg.Log.Info("instance stopped", "instance", in.number, "how", report.String())
}

// setState moves an instance on, unless it is stopping already, and returns
// how many requests it has.
func (fl *fleet) setState(in *instance, s state) (outstanding int) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if in.state == stopping {
		return in.outstanding
	}
	in.state = s
	if s == stopping && in.outstanding == 0 {
		close(in.drained)
	}
	return in.outstanding
}
