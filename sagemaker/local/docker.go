package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace-ai/millrace/internal/netns"
)

// Docker starts each container by `docker run IMAGE serve`, as SageMaker
// does: the root file system read-only with a /tmp in memory, 64 MB of shared
// memory, the model mounted read-only at /opt/ml/model.
//
// With Isolated the containers have no network, as under
// EnableNetworkIsolation. `docker run --network none` leaves no way in for the
// requests either; they enter through the container's own loopback, by a socket
// made in its network namespace, which takes Linux and root. Without those
// (Unprivileged) the containers are in a docker network that is internal: no
// name resolves there and no address outside answers, but the Linux host that
// runs the engine reaches the containers at their addresses. Engines inside a
// virtual machine (Docker Desktop) offer neither.
type Docker struct {
	Image  string
	Args   []string          // after the word serve
	Env    []string          // K=V, or K to pass it from this process
	Mounts map[string]string // folder here → path in the container, read-only
	Memory string            // as docker takes it: "8g"; "": all
	CPUs   string            // "4"; "": all
	Log    io.Writer

	Isolated     bool
	Unprivileged bool

	// Command is the docker program; default "docker".
	Command string

	network string
	serial  atomic.Int64
}

// Open gets the image, if it is not here yet, and makes the network. Close
// must be called afterwards.
func (d *Docker) Open(ctx context.Context) error {
	if d.Command == "" {
		d.Command = "docker"
	}
	if d.Log == nil {
		d.Log = io.Discard
	}
	if _, err := exec.LookPath(d.Command); err != nil {
		return fmt.Errorf("an image needs docker: %w", err)
	}
	if _, err := d.output(ctx, "image", "inspect", "--format", "{{.Id}}", d.Image); err != nil {
		// What stands in the way, the engine for one, docker says itself.
		pull := exec.CommandContext(ctx, d.Command, "pull", d.Image)
		pull.Stdout, pull.Stderr = d.Log, d.Log
		if err := pull.Run(); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return fmt.Errorf("the image %s is not here and cannot be pulled: %w", d.Image, err)
		}
	}
	if !d.Isolated || !d.Unprivileged {
		return nil
	}
	name := fmt.Sprintf("millrace-local-%d", os.Getpid())
	if _, err := d.output(ctx, "network", "create", "--internal", name); err != nil {
		return err
	}
	d.network = name
	return nil
}

// Close removes the network. The containers must have ended.
func (d *Docker) Close() error {
	if d.network == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := d.output(ctx, "network", "rm", d.network)
	return err
}

// Launch starts a container. If that is isolated it returns once it has found
// the way in.
func (d *Docker) Launch(ctx context.Context, instance int) (Container, error) {
	name := fmt.Sprintf("millrace-local-%d-%d", os.Getpid(), d.serial.Add(1))
	at := port("127.0.0.1:8080") // inside
	if !d.Isolated {
		number, err := freePort()
		if err != nil {
			return nil, err
		}
		at = onThisMachine(number)
	}
	p, err := startProcess(exec.Command(d.Command, d.runArgs(name, at)...), at, prefixed(d.Log, instance))
	if err != nil {
		return nil, err
	}
	c := &dockerContainer{process: p, docker: d, name: name}
	if d.Isolated {
		if err := c.findWayIn(ctx); err != nil {
			c.Kill()
			return nil, err
		}
	}
	return c, nil
}

// runArgs is the command line of docker. Its process stays in the foreground
// and ends with the container's exit status.
func (d *Docker) runArgs(name string, publish port) []string {
	args := []string{"run", "--rm", "--name", name, "--read-only", "--tmpfs", "/tmp", "--shm-size", "64m"}
	switch {
	case d.network != "":
		args = append(args, "--network", d.network)
	case d.Isolated:
		args = append(args, "--network", "none")
	default:
		args = append(args, "--publish", string(publish)+":8080")
	}
	if d.Memory != "" {
		args = append(args, "--memory", d.Memory)
	}
	if d.CPUs != "" {
		args = append(args, "--cpus", d.CPUs)
	}
	for _, from := range slices.Sorted(maps.Keys(d.Mounts)) {
		args = append(args, "--volume", from+":"+d.Mounts[from]+":ro")
	}
	for _, kv := range d.Env {
		args = append(args, "--env", kv)
	}
	return append(append(args, d.Image, "serve"), d.Args...)
}

// output runs docker and returns what it prints, or its message as an error.
func (d *Docker) output(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, d.Command, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %s", d.Command, args[0], strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}

// dockerContainer is a container, and the docker client that waits for it.
type dockerContainer struct {
	*process
	docker    *Docker
	name      string
	namespace string // file of its network namespace; "": it is reached without
}

// findWayIn waits until the container has a network namespace, or an address.
func (c *dockerContainer) findWayIn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	format := "{{.NetworkSettings.SandboxKey}}"
	if c.docker.network != "" {
		format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
	}
	for {
		found, err := c.docker.output(ctx, "inspect", "--format", format, c.name)
		switch {
		case err != nil || found == "":
		case c.docker.network != "":
			c.port = port(net.JoinHostPort(found, "8080"))
			return nil
		default:
			c.namespace = found
			return nil
		}
		select {
		case <-c.Exited():
			return fmt.Errorf("docker run ended with status %d", c.ExitStatus())
		case <-ctx.Done():
			return fmt.Errorf("the container has no network: %w", errors.Join(ctx.Err(), err))
		case <-time.After(startPoll):
		}
	}
}

// Dial connects from inside the container's network if need be.
func (c *dockerContainer) Dial(ctx context.Context) (net.Conn, error) {
	if c.namespace == "" {
		return c.port.Dial(ctx)
	}
	return netns.Dial(ctx, c.namespace, "tcp", string(c.port))
}

// Terminate sends SIGTERM to the container's first process.
func (c *dockerContainer) Terminate() { c.signal("TERM") }

// Kill ends the container.
func (c *dockerContainer) Kill() { c.signal("KILL") }

func (c *dockerContainer) signal(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.docker.output(ctx, "kill", "--signal", name, c.name); err != nil {
		select {
		case <-c.Exited():
		default: // no container yet, or the engine has stopped
			c.Signal(map[string]syscall.Signal{"TERM": syscall.SIGINT, "KILL": syscall.SIGKILL}[name])
		}
	}
}
