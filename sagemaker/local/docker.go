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
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Docker starts each container by `docker run IMAGE serve`, as SageMaker
// does: the root file system read-only with a /tmp in memory, 64 MB of shared
// memory, the model mounted read-only at /opt/ml/model.
//
// With Isolated the containers are in a docker network without a way out, as
// under EnableNetworkIsolation: no name resolves, no address outside answers.
// `docker run --network none` would leave no way in for the requests either;
// in an internal network the Linux host that runs the engine still reaches the
// containers at their addresses. Engines inside a virtual machine (Docker
// Desktop) do not offer that.
type Docker struct {
	Image    string
	Args     []string          // after the word serve
	Env      []string          // K=V, or K to pass it from this process
	Mounts   map[string]string // folder here → path in the container, read-only
	Memory   string            // as docker takes it: "8g"; "": all
	CPUs     string            // "4"; "": all
	Isolated bool
	Log      io.Writer

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
	if _, err := d.output(ctx, "image", "inspect", "--format", "{{.Id}}", d.Image); err != nil {
		pull := exec.CommandContext(ctx, d.Command, "pull", d.Image)
		pull.Stdout, pull.Stderr = d.Log, d.Log
		if err := pull.Run(); err != nil {
			return fmt.Errorf("the image %s is not here and cannot be pulled: %w", d.Image, err)
		}
	}
	if !d.Isolated {
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

// Launch starts a container and returns once it has an address.
func (d *Docker) Launch(ctx context.Context, instance int) (Container, error) {
	name := fmt.Sprintf("millrace-local-%d-%d", os.Getpid(), d.serial.Add(1))
	address := ""
	if d.network == "" {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	cmd := exec.Command(d.Command, d.runArgs(name, address)...)
	p, err := startProcess(cmd, address, prefixed(d.Log, instance))
	if err != nil {
		return nil, err
	}
	c := &dockerContainer{process: p, docker: d, name: name}
	if address == "" {
		if err := c.findAddress(ctx); err != nil {
			c.Kill()
			return nil, err
		}
	}
	return c, nil
}

// runArgs is the command line of docker. Its process stays in the foreground
// and ends with the container's exit status.
func (d *Docker) runArgs(name, publish string) []string {
	args := []string{"run", "--rm", "--name", name, "--read-only", "--tmpfs", "/tmp", "--shm-size", "64m"}
	if publish != "" {
		args = append(args, "--publish", publish+":8080")
	} else {
		args = append(args, "--network", d.network)
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
	docker *Docker
	name   string
}

// findAddress waits until the container has an address in the network.
func (c *dockerContainer) findAddress(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		ip, err := c.docker.output(ctx, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.name)
		if err == nil && net.ParseIP(ip) != nil {
			c.address = net.JoinHostPort(ip, "8080")
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("docker run ended with status %d", c.status)
		case <-ctx.Done():
			return fmt.Errorf("the container has no address in the network: %w", errors.Join(ctx.Err(), err))
		case <-time.After(startPoll):
		}
	}
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
		case <-c.exited:
		default: // there is no container yet, or no engine any more
			_ = c.cmd.Process.Signal(map[string]os.Signal{"TERM": os.Interrupt, "KILL": os.Kill}[name])
		}
	}
}
