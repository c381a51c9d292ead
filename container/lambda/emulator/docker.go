package emulator

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/container/lambda"
)

// Docker starts an image as Lambda does: as a user without privileges, with a
// read-only root file system and a writable /tmp, with memory as set and cores in
// proportion. The container shares the host's network, where its Runtime API is.
type Docker struct {
	Image    string
	Args     []string // instead of the image's command
	Env      []string // K=V, or K to pass it from this process
	MemoryMB int

	serial atomic.Int64
}

// mostCPUs is the largest number of cores that a function has.
const mostCPUs = 6

// Launch implements Launcher.
func (d *Docker) Launch(variables []string, log io.Writer) (Sandbox, error) {
	name := fmt.Sprintf("millrace-lambda-%d-%d", os.Getpid(), d.serial.Add(1))
	cmd := exec.Command("docker", d.command(name, variables)...)
	c, err := startProgram(cmd, log)
	if err != nil {
		return nil, err
	}
	return &container{c, name, log}, nil
}

// command returns docker's arguments.
func (d *Docker) command(name string, variables []string) []string {
	cpus := min(float64(d.MemoryMB)/lambda.MegabytesPerCPU, mostCPUs, float64(runtime.NumCPU()))
	args := []string{
		"run", "--rm", "--name", name, "--network", "host", "--user", "65534:65534", "--read-only", "--tmpfs", "/tmp:exec,size=512m",
		"--memory", fmt.Sprintf("%dm", d.MemoryMB), "--memory-swap", fmt.Sprintf("%dm", d.MemoryMB),
		"--cpus", strconv.FormatFloat(cpus, 'f', 2, 64),
	}
	for _, kv := range append(append([]string{}, d.Env...), variables...) {
		args = append(args, "--env", kv)
	}
	return append(append(args, d.Image), d.Args...)
}

// container is a Sandbox in docker. Its child process is docker's client.
type container struct {
	program
	name string
	log  io.Writer
}

// docker runs a command of docker on the container.
func (c *container) docker(args ...string) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", append(args, c.name)...).CombinedOutput()
	select {
	case <-c.Exited():
	default:
		if err != nil {
			fmt.Fprintf(c.log, "docker %s: %v: %s\n", args[0], err, out)
		}
	}
}

func (c *container) Freeze()    { c.docker("pause") }
func (c *container) Thaw()      { c.docker("unpause") }
func (c *container) Terminate() { c.docker("kill", "--signal", "TERM") }

func (c *container) Kill() {
	select {
	case <-c.Exited():
	default:
		c.docker("kill")
		c.program.Kill() // the client, if the container never came to be
	}
}
