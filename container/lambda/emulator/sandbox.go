package emulator

import (
	"io"
	"os/exec"
	"runtime"
	"syscall"
)

// Launcher starts what the function is made of.
type Launcher interface {
	// Launch starts a sandbox with variables, K=V, beside its own. It shares
	// this machine's loopback interface, where the Runtime API is.
	Launch(variables []string) (Sandbox, error)
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

// Process starts a program of this machine.
type Process struct {
	Path string
	Args []string
	Env  []string
	Log  io.Writer // its output
}

// Launch implements Launcher.
func (p *Process) Launch(variables []string) (Sandbox, error) {
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = append(append([]string{}, p.Env...), variables...)
	return startChild(cmd, p.Log)
}

// child is a Sandbox that is a child process.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// startChild starts cmd, in a process group of its own, so that the terminal's
// interrupt does not reach it. It ends with this process, where the system has
// a way to say that.
func startChild(cmd *exec.Cmd, log io.Writer) (*child, error) {
	c := &child{cmd, make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	started := make(chan error)
	go func() {
		// The death signal comes when the thread ends that started the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() //nolint:errcheck // Status has it
			close(c.exited)
		}
	}()
	return c, <-started
}

func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) } // it may have ended

func (c *child) Freeze()                 { c.signal(syscall.SIGSTOP) }
func (c *child) Thaw()                   { c.signal(syscall.SIGCONT) }
func (c *child) Terminate()              { c.signal(syscall.SIGTERM) }
func (c *child) Kill()                   { c.signal(syscall.SIGKILL) }
func (c *child) Exited() <-chan struct{} { return c.exited }
func (c *child) Status() string          { return c.cmd.ProcessState.String() }
