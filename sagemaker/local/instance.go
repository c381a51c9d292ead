package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// hostHeader and agent are what containers see of the platform.
	hostHeader = "model.aws.local:8080"
	agent      = "AHC/2.0"

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

type state int

const (
	starting state = iota
	serving
	unhealthy
	stopping
)

func (s state) String() string {
	return [...]string{"starting", "in service", "unhealthy", "stopping"}[s]
}

// instance is one container and the requests it is working on.
type instance struct {
	number    int
	container Container
	transport *http.Transport
	ctx       context.Context // ends with the instance: so do its requests
	cancel    context.CancelFunc
	drained   chan struct{} // closed once it is stopping and has no flights

	// Guarded by Endpoint.mu.
	state   state
	flights int
	ending  Ending
}

func (e *Endpoint) newInstance(number int, c Container) *instance {
	in := &instance{number: number, container: c, drained: make(chan struct{})}
	in.ctx, in.cancel = context.WithCancel(context.Background())
	in.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, e.cfg.Limits.Connect)
			defer cancel()
			conn, err := c.Dial(ctx)
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				return nil, fmt.Errorf("the container did not accept a connection within %v", e.cfg.Limits.Connect)
			}
			return conn, err
		},
		DisableCompression:  true, // Accept-Encoding is not the caller's
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     time.Minute,
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.instances[number-1] = in
	return in
}

// request makes a request to the container that looks as the platform's do.
func (in *instance) request(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+in.container.Address()+path, body)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	req.Host = hostHeader
	req.Header.Set("User-Agent", agent)
	return req, nil
}

// keep runs one instance after the other under a number until ctx ends. The
// first start's outcome goes to started.
func (e *Endpoint) keep(ctx context.Context, number int, started chan<- error) {
	log := e.cfg.Log.With("instance", number)
	for first := true; ; first = false {
		in, err := e.start(ctx, number)
		failed := first && err != nil
		if first {
			started <- err
		}
		if err == nil {
			log.Info("in service", "address", in.container.Address())
			err = e.watch(ctx, in)
		}
		if in != nil {
			e.stop(in)
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
		case <-time.After(e.cfg.Limits.PingEvery):
		}
	}
}

// start launches a container and waits until it is healthy and serves its
// adapters. The instance is returned with an error, too, if there is one to stop.
func (e *Endpoint) start(ctx context.Context, number int) (*instance, error) {
	c, err := e.cfg.Launcher.Launch(ctx, number)
	if err != nil {
		return nil, fmt.Errorf("start the container of instance %d: %w", number, err)
	}
	in := e.newInstance(number, c)
	window := time.NewTimer(e.cfg.Limits.Startup)
	defer window.Stop()
	for {
		err := e.ping(ctx, in)
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
				e.cfg.Variant, e.cfg.Limits.Startup, err)
		}
	}
	e.registerAdapters(ctx, in)
	e.setState(in, serving)
	return in, nil
}

// watch polls an instance in service until ctx ends, or returns why the
// instance is to be replaced.
func (e *Endpoint) watch(ctx context.Context, in *instance) error {
	tick := time.NewTicker(e.cfg.Limits.PingEvery)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.container.Exited():
			return fmt.Errorf("the container has ended with status %d", in.container.ExitStatus())
		case <-tick.C:
		}
		err := e.ping(ctx, in)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			if failures > 0 {
				e.cfg.Log.Info("healthy again", "instance", in.number)
				e.setState(in, serving)
			}
			failures = 0
			continue
		}
		if failures++; failures == failuresToReplace && in.container.Exited() != nil {
			return fmt.Errorf("%d health checks failed: %w", failures, err)
		}
		e.cfg.Log.Warn("health check failed: out of service", "instance", in.number, "why", err)
		e.setState(in, unhealthy)
	}
}

// ping asks for the health of a container, on a connection of its own.
func (e *Endpoint) ping(ctx context.Context, in *instance) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Limits.Ping)
	defer cancel()
	req, err := in.request(ctx, http.MethodGet, "/ping", nil, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := in.transport.RoundTrip(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("/ping was not answered within %v", e.cfg.Limits.Ping)
	}
	if err != nil {
		return fmt.Errorf("/ping: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	if err != nil {
		return fmt.Errorf("/ping: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/ping answered %d, expected 200: %s", resp.StatusCode, body)
	}
	return nil
}

// stop ends an instance: SIGTERM, SIGKILL if it takes too long, then the end
// of the requests that are left. How it went is kept for the summary.
func (e *Endpoint) stop(in *instance) {
	began := time.Now()
	inFlight := e.setState(in, stopping)
	in.container.Terminate()
	report := Stopped{Instance: in.number, InFlight: inFlight}
	exited := in.container.Exited()
	if exited == nil {
		exited = in.drained
	}
	select {
	case <-exited:
	case <-time.After(e.cfg.Limits.Stop):
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
	case <-time.After(lastBytes): // a caller who does not read
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	report.ExitStatus = in.container.ExitStatus()
	report.Ending = in.ending
	e.stopped = append(e.stopped, report)
	for id, s := range e.sessions {
		if s.in == in {
			delete(e.sessions, id)
		}
	}
	e.cfg.Log.Info("instance stopped", "instance", in.number, "how", report.String())
}

// setState moves an instance on, unless it is stopping already, and returns
// how many requests it has.
func (e *Endpoint) setState(in *instance, s state) (flights int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if in.state == stopping {
		return in.flights
	}
	in.state = s
	if s == stopping && in.flights == 0 {
		close(in.drained)
	}
	return in.flights
}
