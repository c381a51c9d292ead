package emulator

import (
	"io"
	"os/exec"
	"syscall"

	"github.com/millrace-ai/millrace/internal/child"
)

// Launcher starts sandboxes of the function.
type Launcher interface {
	// Launch starts a sandbox with variables, K=V, added to its own, and its
	// output going to log. It shares the host's loopback interface, where the
	// Runtime API is.
	Launch(variables []string, log io.Writer) (Sandbox, error)
}

// Sandbox is a started function. Its methods may be called after its end, too.
type Sandbox interface {
	Freeze()
	Thaw()
	Terminate() // asks it to end
	Kill()
	Exited() <-chan struct{}
	Status() string // how it ended, valid once Exited is closed
}

// Process starts a program on the host.
type Process struct {
	Path string
	Args []string
	Env  []string
	CRIU string // program that takes snapshots of the process; "": none are taken
}

// Launch implements Launcher.
func (p *Process) Launch(variables []string, log io.Writer) (Sandbox, error) {
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = append(append([]string{}, p.Env...), variables...)
	if p.CRIU != "" {
		return startCopied(p.CRIU, cmd, log)
	}
	return startProgram(cmd, log)
}

// program is a Sandbox that is a child process.
type program struct{ *child.Process }

// startProgram starts cmd with its output going to log.
func startProgram(cmd *exec.Cmd, log io.Writer) (program, error) {
	cmd.Stdout, cmd.Stderr = log, log
	started, err := child.Start(cmd, nil)
	return program{started}, err
}

func (p program) Freeze()        { p.Signal(syscall.SIGSTOP) }
func (p program) Thaw()          { p.Signal(syscall.SIGCONT) }
func (p program) Terminate()     { p.Signal(syscall.SIGTERM) }
func (p program) Kill()          { p.Signal(syscall.SIGKILL) }
func (p program) Status() string { return p.State().String() }
