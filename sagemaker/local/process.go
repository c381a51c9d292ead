package local

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"github.com/millrace-ai/millrace/internal/child"
)

// Processes starts each container as a child process on a port of its own,
// which it must take from SAGEMAKER_BIND_TO_PORT.
type Processes struct {
	Path string   // of the program
	Args []string // with the word serve
	Env  []string // its whole environment, except what the platform sets
	Log  io.Writer
}

// Launch starts the program.
func (p *Processes) Launch(_ context.Context, instance int) (Container, error) {
	number, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = append(append([]string{}, p.Env...),
		"SAGEMAKER_BIND_TO_PORT="+strconv.Itoa(number),
		"SAGEMAKER_SAFE_PORT_RANGE=21000-21999")
	return startProcess(cmd, onThisMachine(number), prefixed(p.Log, instance))
}

// process is a Container that is a child process. It gets the terminal's ^C
// through Terminate only.
type process struct {
	port
	*child.Process
}

// startProcess starts cmd with its output going to log.
func startProcess(cmd *exec.Cmd, at port, log *lineWriter) (*process, error) {
	cmd.Stdout, cmd.Stderr = log, log
	started, err := child.Start(cmd, log.end)
	return &process{at, started}, err
}

func (p *process) Terminate() { p.Signal(syscall.SIGTERM) }
func (p *process) Kill()      { p.Signal(syscall.SIGKILL) }

func (p *process) ExitStatus() int {
	state := p.State()
	if state == nil {
		return -1
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// freePort returns a port that was free just now. SageMaker passes a port by
// its number, so that another process may take it in between; the instance
// then fails its health check and says why.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func onThisMachine(number int) port {
	return port(net.JoinHostPort("127.0.0.1", strconv.Itoa(number)))
}

// lineWriter writes whole lines with a prefix. Several may share an io.Writer.
type lineWriter struct {
	to     io.Writer
	prefix string
	mu     sync.Mutex
	line   []byte
}

func prefixed(to io.Writer, instance int) *lineWriter {
	if to == nil {
		to = io.Discard
	}
	return &lineWriter{to: to, prefix: fmt.Sprintf("[%d] ", instance)}
}

// Write implements io.Writer. It never fails: a log that cannot be written is
// no reason for a container to stop.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = append(w.line, b...)
	for {
		i := bytes.IndexByte(w.line, '\n')
		if i < 0 {
			return len(b), nil
		}
		_, _ = w.to.Write(append([]byte(w.prefix), w.line[:i+1]...))
		w.line = w.line[i+1:]
	}
}

// end writes the last line if it has no end of its own.
func (w *lineWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.line) > 0 {
		_, _ = w.to.Write(append(append([]byte(w.prefix), w.line...), '\n'))
		w.line = nil
	}
}
