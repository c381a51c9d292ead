package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"time"

	"github.com/millrace-ai/millrace/internal/netns"
)

// Container is a container that runs or ran.
type Container struct {
	ID     string
	URL    string       // of the server, as Client reaches it
	Client *http.Client // connects inside the container's network

	engine *Engine
}

// Run starts a container of an image whose server listens on port. options are
// those of docker run, args go to the entry point.
func (e *Engine) Run(ctx context.Context, image string, port int, options []string, args ...string) (*Container, error) {
	run := append([]string{"run", "--detach", "--pull", "never"}, options...)
	id, err := e.Docker(ctx, append(append(run, image), args...)...)
	if err != nil {
		return nil, err
	}
	c := &Container{ID: id, URL: fmt.Sprintf("http://127.0.0.1:%d", port), engine: e}
	pid, err := e.Docker(ctx, "inspect", "--format", "{{.State.Pid}}", id)
	if err != nil {
		return nil, err
	}
	namespace := fmt.Sprintf("/proc/%s/ns/net", pid)
	// A connection through the container's own loopback: no other way leads
	// into a network namespace that has nothing else.
	transport := &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return netns.Dial(ctx, namespace, network, address)
		},
	}
	c.Client = &http.Client{Transport: transport}
	return c, nil
}

// Running reports whether the container has not ended.
func (c *Container) Running(ctx context.Context) bool {
	state, err := c.engine.Docker(ctx, "inspect", "--format", "{{.State.Running}}", c.ID)
	return err == nil && state == "true"
}

// Signal sends a signal to the container's first process.
func (c *Container) Signal(ctx context.Context, name string) error {
	_, err := c.engine.Docker(ctx, "kill", "--signal", name, c.ID)
	return err
}

// Wait waits until the container ends, and returns its exit status.
func (c *Container) Wait(ctx context.Context) (status int, err error) {
	text, err := c.engine.Docker(ctx, "wait", c.ID)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// Log returns what the container has written so far.
func (c *Container) Log(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, c.engine.cli, "logs", c.ID)
	cmd.Env = c.engine.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s%v\n", out, err)
	}
	return string(out)
}

// Remove ends the container at once and removes it. One that cannot be removed
// goes with its engine's folder.
func (c *Container) Remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c.Client.CloseIdleConnections()
	_, _ = c.engine.Docker(ctx, "rm", "--force", "--volumes", c.ID)
}
