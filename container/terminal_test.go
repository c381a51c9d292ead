package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// screen is a program on a terminal of its own.
type screen struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File
	done chan struct{} // closed when the program has ended

	mu   sync.Mutex
	text bytes.Buffer // all that was written
	seen int          // of it, what an earlier await has found
}

// onTerminal starts the program on a terminal, which is where its three
// standard files are.
func onTerminal(t *testing.T, env []string, args ...string) *screen {
	t.Helper()
	cmd := command(append([]string{"TERM=xterm", "HOME=" + t.TempDir()}, env...), args...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	if err != nil {
		t.Skipf("no terminals on this machine: %v", err)
	}
	s := &screen{t: t, cmd: cmd, tty: tty, done: make(chan struct{})}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // the program has closed its end
				break
			}
		}
		_ = cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-s.done
		tty.Close()
		if t.Failed() {
			t.Logf("on the screen:\n%s", s.all())
		}
	})
	return s
}

func (s *screen) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until text is written after what the last call found.
func (s *screen) await(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		i := bytes.Index(s.text.Bytes()[s.seen:], []byte(text))
		if i >= 0 {
			s.seen += i + len(text)
		}
		s.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%q does not appear", text)
		}
	}
}

func (s *screen) typeIn(keys string) {
	s.t.Helper()
	if _, err := s.tty.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the program's end and returns its exit status.
func (s *screen) ends() int {
	s.t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		s.t.Fatal("the program does not end")
		return 0
	}
}

const (
	ctrlC = "\x03"
	ctrlD = "\x04"
	up    = "\x1b[A"
)

// escapes are what colours a terminal's text.
var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// On a terminal the server says where it is, in short lines without JSON, in
// colour unless that is not wanted.
func TestServeOnTerminal(t *testing.T) {
	for _, tt := range []struct {
		env    []string
		colour bool
	}{{nil, true}, {[]string{"NO_COLOR=1"}, false}, {[]string{"TERM=dumb"}, false}} {
		s := onTerminal(t, tt.env, "serve", "--port", "0")
		s.await("anyone who can reach this machine may use the model: set API_KEY")
		s.await("Chat:  http://localhost:")
		s.await("Stop:  Ctrl-C")
		s.typeIn(ctrlC)
		if status := s.ends(); status != 0 {
			t.Errorf("Ctrl-C: exit status %d", status)
		}
		text := s.all()
		if strings.Contains(text, "\x1b[") != tt.colour {
			t.Errorf("%q: colour is %v, want %v", tt.env, !tt.colour, tt.colour)
		}
		for line := range strings.Lines(text) {
			if plain := escapes.ReplaceAllString(line, ""); strings.HasPrefix(plain, "{") || len(plain) > 180 {
				t.Errorf("not a line for people: %s", line)
			}
		}
	}
	s := onTerminal(t, nil, "serve", "--port", "0", "--json-output")
	s.await(`"message":"ready"`)
}

// A conversation in the terminal: commands, messages of several lines, the lines
// typed before, the end.
func TestChatOnTerminal(t *testing.T) {
	home := t.TempDir()
	saved := filepath.Join(t.TempDir(), "chat.json")
	s := onTerminal(t, []string{"XDG_CACHE_HOME=" + home}, "chat", "--model-id", tinyFolder(t), "--", "--max-total-tokens", "64")
	if status := s.ends(); status != 2 { // chat takes its model as an argument
		t.Errorf("--model-id: exit status %d", status)
	}
	s = onTerminal(t, []string{"XDG_CACHE_HOME=" + home}, "chat", "--temperature", "0")
	s.await(">>> ")
	s.typeIn("What is Millrace?\r")
	s.await("server for language models")
	s.await(">>> ")
	s.typeIn("/set max_tokens 3\r")
	s.await(">>> ")
	s.typeIn("/set temperature hot\r")
	s.await(`error: temperature: "hot" is not a number`)
	s.await(">>> ")
	s.typeIn("/retry\r")
	s.await("(cut: the answer reached its longest length)")
	s.await(">>> ")
	s.typeIn("\"\"\"first\rsecond\"\"\"\r")
	s.await("... ")
	s.await("(cut:")
	s.await(">>> ")
	s.typeIn("one \\\rtwo\r")
	s.await("... ")
	s.await("(cut:")
	s.await(">>> ")
	s.typeIn("/rest\r")
	s.await("error: unknown command /rest; /help lists the commands")
	s.await(">>> ")
	s.typeIn("/save " + saved + "\r")
	s.await("6 messages in " + saved)
	s.await(">>> ")
	s.typeIn("/help\r")
	s.await("Ctrl-C")
	s.await(">>> ")
	s.typeIn(ctrlC)
	s.await("(Ctrl-D or /quit ends)")
	s.await(">>> ")
	s.typeIn(ctrlD)
	if status := s.ends(); status != 0 {
		t.Errorf("Ctrl-D: exit status %d", status)
	}
	text, err := os.ReadFile(saved)
	if err != nil || !strings.Contains(string(text), `"first\nsecond"`) || !strings.Contains(string(text), `"one \ntwo"`) {
		t.Errorf("%v, saved:\n%s", err, text)
	}

	s = onTerminal(t, []string{"XDG_CACHE_HOME=" + home}, "chat")
	s.await(">>> ")
	s.typeIn("/load " + saved + "\r")
	s.await("6 messages from " + saved)
	s.await(">>> ")
	s.typeIn(up + up) // the last line of the chat before
	s.await("/help")
	s.typeIn(ctrlC)
	s.await(">>> ")
	s.typeIn("/bye\r")
	if status := s.ends(); status != 0 {
		t.Errorf("/bye: exit status %d", status)
	}
}

// Ctrl-C stops an answer, and the chat goes on.
func TestChatStopsAnswer(t *testing.T) {
	s := onTerminal(t, []string{"MILLRACE_SIM_STEP=20ms"}, "chat", "--no-history", "--", "--device", "sim")
	s.await(">>> ")
	s.typeIn("Count to a million\r")
	s.await("\n")
	time.Sleep(200 * time.Millisecond) // the answer has no end, and no text that is known
	s.typeIn(ctrlC)
	s.await("(stopped; /retry asks again)")
	s.await(">>> ")
	s.typeIn(ctrlD)
	if status := s.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// Without a terminal a chat is one question and its answer, also of a server
// that runs already and wants a key.
func TestChatWithoutTerminal(t *testing.T) {
	p := start(t, nil, "--api-key", "secret").ready()
	for _, tt := range []struct {
		name, stdin    string
		args           []string
		status         int
		stdout, stderr string
	}{
		{name: "the demo model", stdin: "What is Millrace?\n", args: []string{"--temperature", "0"}, stdout: "^Millrace is a server for language models.*\n$"},
		{name: "a running server", stdin: "What is Millrace?", args: []string{p.url + "/v1", "--api-key", "secret", "--temperature", "0"}, stdout: "^Millrace is"},
		{name: "a prompt", args: []string{"--url", p.url, "--api-key", "secret", "-p", "Hello", "-v", "--max-tokens", "2", "--system", "Be brief."}, stdout: "^.+\n$", stderr: `\(2 tokens, first after`},
		{name: "a wrong key", stdin: "x", args: []string{p.url}, status: 1, stderr: "401 Unauthorized: .*; give the key with --api-key or API_KEY"},
		{name: "a refused field", stdin: "x", args: []string{p.url, "--api-key", "secret", "--temperature=-1"}, status: 1, stderr: "422 Unprocessable Entity: .*`temperature` must be"},
		{name: "no server", stdin: "x", args: []string{"http://127.0.0.1:1"}, status: 1, stderr: "no server listens at http://127.0.0.1:1; `millrace serve` starts one"},
		{name: "no model", stdin: "x", args: []string{"/nowhere/model"}, status: 2, stderr: "/nowhere/model: no such file"},
		{name: "nothing to say", args: nil, status: 2, stderr: "standard input is empty"},
		{name: "a server and a model", stdin: "x", args: []string{"./model", "--url", p.url}, status: 2, stderr: "give one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := command(nil, append([]string{"chat"}, tt.args...)...)
			var out bytes.Buffer
			cmd.Stdin, cmd.Stdout = strings.NewReader(tt.stdin), &out
			status, stderr := ended(t, cmd)
			if status != tt.status || !regexp.MustCompile(tt.stdout).MatchString(out.String()) || !regexp.MustCompile(tt.stderr).MatchString(stderr) {
				t.Errorf("status %d, %q, %q; want %d, %q, %q", status, out.String(), stderr, tt.status, tt.stdout, tt.stderr)
			}
		})
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
}
