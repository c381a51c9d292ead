package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// millrace is the program under test, built once.
var millrace string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "millrace-test-")
	if err == nil {
		millrace = filepath.Join(dir, "millrace")
		build := exec.Command("go", "build", "-buildmode=pie", "-o", millrace, "-ldflags", "-X main.version=test", ".")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience bounds every wait of these tests; nothing is expected to take long.
const patience = time.Minute

// command prepares the program with exactly this environment beside PATH.
func command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(millrace, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	return cmd
}

// process is a running server.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string // written before start returns
	exited chan struct{}
	err    error // valid once exited

	mu  sync.Mutex
	log []string // the last lines
}

// start runs the server on a free port and returns once it listens.
func start(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	cmd := command(env, append([]string{"serve", "--port", "0", "--hostname", "127.0.0.1", "--json-output"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, exited: make(chan struct{})}
	listening := make(chan struct{})
	go func() {
		log := bufio.NewReader(stderr)
		for {
			line, err := log.ReadString('\n')
			if err != nil {
				p.note(line)
				break
			}
			p.note(line)
			var first struct{ Message, Address string }
			if p.url == "" && json.Unmarshal([]byte(line), &first) == nil && first.Message == "listening" {
				p.url = "http://" + first.Address
				close(listening)
			}
		}
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("log of the server:\n%s", p.logged())
		}
	})
	select {
	case <-listening:
	case <-p.exited:
		t.Fatalf("the server ended before it listened: %v", p.err)
	case <-time.After(patience):
		t.Fatal("the server does not listen")
	}
	return p
}

func (p *process) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.log) == 1000 {
		p.log = p.log[:copy(p.log, p.log[500:])]
	}
	p.log = append(p.log, line)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "")
}

// ready waits until the server serves.
func (p *process) ready() *process {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if status, _ := p.get("/ping"); status == http.StatusOK {
			return p
		}
		select {
		case <-p.exited:
			p.t.Fatalf("the server ended before it was ready: %v", p.err)
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatal("the server does not become ready")
		}
	}
}

func (p *process) get(path string) (status int, body string) {
	p.t.Helper()
	return p.do(http.MethodGet, path, "")
}

func (p *process) post(path, body string) (status int, answer string) {
	p.t.Helper()
	return p.do(http.MethodPost, path, body)
}

func (p *process) do(method, path, body string) (int, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err.Error()
	}
	return resp.StatusCode, string(text)
}

// wait returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatal("the server does not end")
		return 0
	}
}

// refused runs the program to its end and returns its exit status and what it
// wrote to standard error.
func refused(t *testing.T, env []string, args ...string) (status int, stderr string) {
	t.Helper()
	return ended(t, command(env, args...))
}

// ended runs a command until it ends, or kills it after patience, and returns its
// exit status and what it wrote to standard error.
func ended(t *testing.T, cmd *exec.Cmd) (status int, stderr string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// writeFile makes a file that the test's end removes, and returns its path.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
