package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowReader takes what is written to it only once it may.
type slowReader struct {
	may  chan struct{}
	text bytes.Buffer
	err  error
}

func (r *slowReader) Write(p []byte) (int, error) {
	<-r.may
	if r.err != nil {
		return 0, r.err
	}
	return r.text.Write(p)
}

func TestLogQueueDropsWhatHasNoRoom(t *testing.T) {
	const line, room = "a line of twenty b.\n", 1000
	r := &slowReader{may: make(chan struct{})}
	q := newLogQueue(r, room)
	for range 1000 {
		if n, err := q.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if most := 1000 - room/len(line); q.Dropped() > int64(most) || q.Dropped() < int64(most-room/len(line)) {
		t.Errorf("%d lines are dropped; want %d, less those being written", q.Dropped(), most)
	}
	close(r.may)
	q.flush(patience)
	kept := strings.Count(r.text.String(), line)
	told := 0 // by one line, or by two if the first was written meanwhile
	for _, notice := range regexp.MustCompile(`millrace: (\d+) lines of the log were dropped`).FindAllStringSubmatch(r.text.String(), -1) {
		n, err := strconv.Atoi(notice[1])
		if err != nil {
			t.Fatal(err)
		}
		told += n
	}
	if int64(told) != q.Dropped() || told+kept != 1000 {
		t.Errorf("%d dropped, %d kept, and the log says\n%s", q.Dropped(), kept, r.text.String())
	}
	fmt.Fprint(q, "after\n")
	q.flush(patience)
	if !strings.HasSuffix(r.text.String(), "after\n") {
		t.Error("a line after the dropped ones is lost")
	}
}

func TestLogQueueSurvivesItsReader(t *testing.T) {
	r := &slowReader{may: make(chan struct{}), err: errors.New("broken pipe")}
	close(r.may)
	q := newLogQueue(r, 1000)
	for range 5 {
		fmt.Fprint(q, "a line\n")
	}
	q.flush(patience)
	if q.Dropped() != 5 {
		t.Errorf("%d dropped, want 5", q.Dropped())
	}
}

func TestFlushDoesNotWaitForEver(t *testing.T) {
	q := newLogQueue(&slowReader{may: make(chan struct{})}, 1000)
	fmt.Fprint(q, "a line\n")
	q.flush(time.Millisecond) // returns
}

// startUnread runs the server with a log of a page that nobody reads once the
// server is ready.
func startUnread(t *testing.T, args ...string) (p *process, log *os.File) {
	t.Helper()
	log, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	const setPipeSize, page = 1031, 4096 // F_SETPIPE_SZ
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, w.Fd(), setPipeSize, page); errno != 0 {
		t.Fatal(errno)
	}
	cmd := command(nil, append([]string{"serve", "--port", "0", "--hostname", "127.0.0.1", "--json-output"}, args...)...)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p = &process{t: t, cmd: cmd, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.exited
	})
	lines := bufio.NewReader(log)
	for {
		var line struct{ Message, Address string }
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the log ends before the server is ready: %v", err)
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if line.Address != "" {
			p.url = "http://" + line.Address
		}
		if line.Message == "ready" {
			return p.ready(), log
		}
	}
}

func TestStalledLog(t *testing.T) {
	p, log := startUnread(t)
	for i := range 300 {
		if status, body := p.post("/generate", `{"inputs":"the","parameters":{"max_new_tokens":1}}`); status != 200 {
			t.Fatalf("request %d: %d %s", i+1, status, body)
		}
	}
	if status, body := p.get("/ping"); status != 200 {
		t.Errorf("/ping: %d %s", status, body)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	if rest, err := io.ReadAll(log); err != nil || len(rest) == 0 {
		t.Errorf("%d bytes are left in the pipe: %v", len(rest), err)
	}
}

func TestLogReaderComesBack(t *testing.T) {
	p, log := startUnread(t)
	const requests = 50
	for range requests {
		p.post("/generate", `{"inputs":"the","parameters":{"max_new_tokens":1}}`)
	}
	read := make(chan []byte)
	go func() {
		text, err := io.ReadAll(log)
		if err != nil {
			t.Error(err)
		}
		read <- text
	}()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	text := string(<-read)
	if n := strings.Count(text, `"path":"/generate"`); n != requests {
		t.Errorf("%d requests in the log, want %d:\n%s", n, requests, text)
	}
	if !strings.Contains(text, `"message":"ended"`) {
		t.Errorf("the last line is missing:\n%s", text)
	}
}

func TestLogReaderIsGone(t *testing.T) {
	p, log := startUnread(t)
	log.Close()
	for range 3 {
		if status, body := p.post("/generate", `{"inputs":"the","parameters":{"max_new_tokens":1}}`); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	dropped := regexp.MustCompile(`(?m)^millrace_log_lines_dropped_total ([1-9].*)$`)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, metrics := p.get("/metrics"); dropped.MatchString(metrics) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no dropped line is counted")
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
}

// TestNativeFault faults on a thread of the C++ backend.
func TestNativeFault(t *testing.T) {
	p := start(t, nil).ready()
	tasks := fmt.Sprintf("/proc/%d/task", p.cmd.Process.Pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		t.Fatal(err)
	}
	native := 0
	for _, thread := range threads {
		status, err := os.ReadFile(tasks + "/" + thread.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		var blocked uint64
		_, rest, _ := strings.Cut(string(status), "SigBlk:")
		if _, err := fmt.Sscanf(rest, "%x", &blocked); err != nil {
			t.Fatal(err)
		}
		bit := func(sig syscall.Signal) uint64 { return 1 << (sig - 1) }
		if blocked&bit(syscall.SIGTERM) != 0 && blocked&bit(syscall.SIGSEGV) == 0 {
			native, err = strconv.Atoi(thread.Name())
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if native == 0 {
		t.Fatal("no thread of the backend")
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_TGKILL, uintptr(p.cmd.Process.Pid), uintptr(native), uintptr(syscall.SIGSEGV)); errno != 0 {
		t.Fatal(errno)
	}
	if status := p.wait(); status != 1 || !strings.Contains(p.logged(), "millrace: SIGSEGV (segmentation fault) on a native thread") {
		t.Errorf("exit status %d, and the log says\n%s", status, p.logged())
	}
}

// TestSignalAtOnce sends a signal as soon as there is anything in the log: the
// process ends in order, wherever it is.
func TestSignalAtOnce(t *testing.T) {
	for range 5 {
		cmd := command(nil, "serve", "--port", "0", "--hostname", "127.0.0.1", "--env")
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewReader(log)
		first, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(string(rest), `"signal":"terminated"`) {
			t.Errorf("%v, and the log says\n%s%s", err, first, rest)
		}
		timer.Stop()
	}
}

// TestEveryEndHasALine ends the process in all ways that leave it the time for a
// word: there is a line that names the cause. SIGKILL, also from a kernel that is
// out of memory, leaves none.
func TestEveryEndHasALine(t *testing.T) {
	for sig, want := range map[syscall.Signal]string{
		syscall.SIGTERM: `"message":"ended"`,
		syscall.SIGINT:  `"message":"ended"`,
		syscall.SIGHUP:  `"message":"ended"`,
		syscall.SIGQUIT: "SIGQUIT: quit\n",
		syscall.SIGABRT: "SIGABRT: abort\n",
		syscall.SIGSEGV: "millrace: SIGSEGV (segmentation fault)",
		syscall.SIGBUS:  "millrace: SIGBUS (bus error)",
		syscall.SIGILL:  "millrace: SIGILL (illegal instruction)",
		syscall.SIGFPE:  "millrace: SIGFPE (floating point exception)",
		syscall.SIGSYS:  "SIGSYS: bad system call\n",
		syscall.SIGTRAP: "SIGTRAP: trace trap\n",
	} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t, nil).ready()
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if p.wait(); !strings.Contains(p.logged(), want) {
				t.Errorf("%v; want %q in the log:\n%s", p.err, want, p.logged())
			}
		})
	}
	// How far a process comes with so little depends on the machine.
	for _, tt := range []struct{ limit, want string }{
		{"-v 1000000", ""},
		{"-v 400000", ""},
		{"-n 4", ""},
		{"-n 8", "too many open files"},
	} {
		t.Run(tt.limit, func(t *testing.T) {
			status, stderr := ended(t, exec.Command("sh", "-c", `ulimit `+tt.limit+`; exec "$0" serve --port 0 --hostname 127.0.0.1`, millrace))
			if status <= 0 || stderr == "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit status %d; want one above 0, and %q in\n%s", status, tt.want, stderr)
			}
		})
	}
}
