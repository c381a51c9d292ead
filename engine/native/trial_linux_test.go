package native

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// byteTokens is a token for each byte of text, and the end.
func byteTokens() (tokens [][]byte, eos []int32) {
	tokens = make([][]byte, 256)
	for i := range 255 {
		tokens[i] = []byte{byte(i)}
	}
	tokens[255] = []byte("\xff<eos>")
	return tokens, []int32{255}
}

func startTrials(t *testing.T) *TrialProcess {
	t.Helper()
	p, err := StartTrials(byteTokens())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

var generous = TrialLimits{Quick: time.Minute, CPU: time.Minute, Wall: 5 * time.Minute, Memory: 1 << 30, Steps: 8}

// begin starts a trial.
func begin(t *testing.T, p *TrialProcess, kind, text string, l TrialLimits) *Trial {
	t.Helper()
	trial, err := p.NewTrial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trial.Close)
	if err := trial.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := trial.Start(kind, text, l); err != nil {
		t.Fatal(err)
	}
	return trial
}

func result(t *testing.T, trial *Trial) TrialResult {
	t.Helper()
	r, err := trial.Result(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// endless is a schema that takes the library minutes and gigabytes.
var endless = func() string {
	var patterns []string
	for i := range 60 {
		patterns = append(patterns, fmt.Sprintf(`{"type":"string","pattern":"(a|b)*a(a|b){%d}"}`, i))
	}
	return `{"$ref":"#/x/0","x":[{"allOf":[` + strings.Join(patterns, ",") + `]}]}`
}()

func TestTrialsEnd(t *testing.T) {
	p := startTrials(t)
	short, small := generous, generous
	short.CPU = 50 * time.Millisecond
	small.Memory = 8 << 20
	starved := generous
	starved.Wall = time.Millisecond
	for _, tt := range []struct {
		name, kind, text string
		limits           TrialLimits
		want             TrialStatus
		message          string
	}{
		{"good", "json_schema", `{"type":"integer"}`, generous, TrialOK, ""},
		{"not of the language", "json_schema", `{"type":"intege"}`, generous, TrialRefused, "type"},
		{"no text", "lark", `start: start`, generous, TrialNoMask, "NoExtension"},
		{"a later mask", "regex", `a{99999999}`, generous, TrialNoWalk, "too many expressions"},
		{"time", "json_schema", endless, short, TrialLate, ""},
		{"no processor time", "json_schema", endless, starved, TrialBusy, ""},
		{"memory", "json_schema", endless, small, TrialDied, ""},
		{"the next", "regex", `[ab]+`, generous, TrialOK, ""},
	} {
		r := result(t, begin(t, p, tt.kind, tt.text, tt.limits))
		if r.Status != tt.want || !strings.Contains(r.Message, tt.message) {
			t.Errorf("%s: %+v, want status %d with %q", tt.name, r, tt.want, tt.message)
		}
		if r.Status == TrialOK && (r.Bytes < 1000 || r.CloneBytes < 1000 || r.CPU <= 0) {
			t.Errorf("%s: %+v takes no memory or no time", tt.name, r)
		}
	}
}

// children returns the processes that the trial process has forked.
func children(t *testing.T, p *TrialProcess) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.Pid(), p.Pid()))
	if err != nil {
		t.Skip("the kernel does not tell a process's children: ", err)
	}
	return string(b)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not after a minute: ", what)
		}
	}
}

// A trial is killed when its request is given up, and when the server ends.
func TestTrialsAreKilled(t *testing.T) {
	p := startTrials(t)
	slow := generous
	slow.Quick = 20 * time.Millisecond
	for name, kill := range map[string]func(*Trial){
		"close": (*Trial).Close,
		"context": func(trial *Trial) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("given up")
			time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
			if _, err := trial.Result(ctx); !errors.Is(err, cause) {
				t.Errorf("the result's error is %v", err)
			}
		},
	} {
		trial := begin(t, p, "json_schema", endless, slow)
		if r := result(t, trial); r.Status != TrialSlow {
			t.Fatalf("%s: the trial ended early: %+v", name, r)
		}
		if children(t, p) == "" {
			t.Errorf("%s: no process runs", name)
		}
		kill(trial)
		eventually(t, name+": the trial is gone", func() bool { return children(t, p) == "" })
	}
	p.Close()
	eventually(t, "the process is gone", func() bool { return errors.Is(syscall.Kill(p.Pid(), 0), syscall.ESRCH) })
	if _, err := p.NewTrial(); err == nil {
		t.Error("a closed process takes trials")
	}
}

// The process must see nothing of the server: no secret, no file, no connection.
func TestTrialProcessHasNothing(t *testing.T) {
	t.Setenv("API_KEY", "secret")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	syscall.Syscall(syscall.SYS_FCNTL, r.Fd(), syscall.F_SETFD, 0) // as a C library might open it
	p := startTrials(t)
	begin(t, p, "regex", "a", generous)
	proc := fmt.Sprintf("/proc/%d/", p.Pid())
	env, err := os.ReadFile(proc + "environ")
	if err != nil || strings.Contains(string(env), "secret") {
		t.Errorf("environment %q, %v", env, err)
	}
	want := []string{"pipe", "pipe", "socket"} // for what is printed, and ours
	var open []string
	eventually(t, "it has its socket and no other", func() bool {
		fds, err := filepath.Glob(proc + "fd/*")
		if err != nil {
			t.Fatal(err)
		}
		open = nil
		for _, fd := range fds {
			to, err := os.Readlink(fd)
			if err == nil && to != "/dev/urandom" { // the library's own, in a static binary
				to, _, _ = strings.Cut(to, ":")
				open = append(open, to)
			}
		}
		slices.Sort(open)
		return len(open) <= len(want) // for a moment it has the trial's
	})
	if !slices.Equal(open, want) {
		t.Errorf("open are %q, want %q", open, want)
	}
}

func FuzzParseAnswer(f *testing.F) {
	answer := func(n ...uint64) (b []byte) {
		for _, v := range n {
			b = binary.NativeEndian.AppendUint64(b, v)
		}
		return b
	}
	f.Add(answer(0, 800, 150_000, 60_000, 1<<20, 0))
	f.Add(answer(1, 0, 0, 0, 0, 4096))
	f.Add(answer(7, 0, 0, 0, 0, 0))
	f.Add(answer(0, 1<<63, 1<<62, 1<<61, 1<<60, 1<<59))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := parseAnswer(b)
		if err != nil {
			return
		}
		if r.Status >= TrialDied || n < 0 || n > maxMessage || r.CPU < 0 || r.Bytes < 0 || r.CloneBytes < 0 || r.Peak < 0 {
			t.Errorf("%x is taken for %+v with a message of %d bytes", b, r, n)
		}
	})
}
