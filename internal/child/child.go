// Package child runs programs that end with the process that starts them, for
// the platforms' emulators: a container must not outlive them.
package child

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Process is a program that was started. Its methods may be called after its
// end too.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts cmd in a process group of its own, so that the terminal's
// interrupt does not reach it. Where the system has a way to say that, it is
// killed when this process ends. ended, unless nil, is called between its end
// and that of Exited.
func Start(cmd *exec.Cmd, ended func()) (*Process, error) {
	p := &Process{cmd, make(chan struct{})}
	cmd.SysProcAttr = attributes()
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread ends that started the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		cmd.Wait() //nolint:errcheck // State has it
		if ended != nil {
			ended()
		}
		close(p.exited)
	}()
	return p, <-started
}

// Signal sends s.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // it may have ended

// Exited is closed when the program has ended and its output is complete.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// State says how the program ended; nil before Exited is closed.
func (p *Process) State() *os.ProcessState {
	select {
	case <-p.exited:
		return p.cmd.ProcessState
	default:
		return nil
	}
}
