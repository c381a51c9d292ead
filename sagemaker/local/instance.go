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
	drained   chan struct{} // closed once it is stopping and no invocation is left

	// Guarded by fleet.mu.
	state       state
	outstanding int // invocations
	ending      Ending
}

// newInstance returns the instance of a container that accepts a connection within
// a time.
func newInstance(number int, c Container, accept time.Duration) *instance {
	in := &instance{number: number, container: c, drained: make(chan struct{})}
	in.ctx, in.cancel = context.WithCancel(context.Background())
	in.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, accept)
			defer cancel()
			conn, err := c.Dial(ctx)
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				return nil, fmt.Errorf("the container did not accept a connection within %v", accept)
			}
			return conn, err
		},
		DisableCompression:  true, // Accept-Encoding is not the caller's
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     time.Minute,
	}
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

// ping asks for the health of a container, on a connection of its own, and waits
// at most limit for the answer.
func (in *instance) ping(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := in.request(ctx, http.MethodGet, "/ping", nil, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := in.transport.RoundTrip(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("/ping was not answered within %v", limit)
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
