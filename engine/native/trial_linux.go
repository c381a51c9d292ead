package native

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// trialName is MR_TRIAL_NAME of trial.h: as the name of a process it makes it a trial process.
const trialName = "millrace-grammar-trial"

// A TrialProcess compiles grammars in processes of their own, to learn what
// that costs and to be able to end it. It is this executable, started again:
// trial_linux.c takes it over before Go's runtime starts. It has the vocabulary
// as a TokenTrie has it, and forks for each trial, so that a trial costs as
// much as the compilation itself and leaves nothing behind.
//
// It gets no environment but LD_LIBRARY_PATH, and no descriptor but its socket.
type TrialProcess struct {
	process *os.Process

	mu      sync.Mutex // of sending
	control int        // -1 after Close
}

// StartTrials starts the process. It does not wait until the process is ready;
// the first Trial does.
func StartTrials(tokens [][]byte, eos []int32) (*TrialProcess, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	var env []string
	if path, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		env = []string{"LD_LIBRARY_PATH=" + path}
	}
	// A process that does not read is of no use.
	if err := syscall.SetsockoptTimeval(ours, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &syscall.Timeval{Sec: 2}); err != nil {
		syscall.Close(ours)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	process, err := os.StartProcess("/proc/self/exe", []string{trialName}, &os.ProcAttr{
		Dir:   "/",
		Env:   append([]string{}, env...), // nil would be the server's own
		Files: []*os.File{theirs, nil, nil},
		// A group of its own: a key that interrupts the server is not for it.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		syscall.Close(ours)
		return nil, err
	}
	t := &TrialProcess{process: process, control: ours}
	t.mu.Lock() // until the vocabulary is sent, which the process reads as fast as it can
	go func() {
		defer t.mu.Unlock()
		if !writeAll(t.control, vocabularyMessage(tokens, eos)) {
			process.Kill() //nolint:errcheck // it may have ended by itself
		}
	}()
	go process.Wait() //nolint:errcheck // that it ended shows at its socket
	return t, nil
}

func vocabularyMessage(tokens [][]byte, eos []int32) []byte {
	bytes := 0
	for _, t := range tokens {
		bytes += len(t)
	}
	b := make([]byte, 0, 16+4*len(tokens)+bytes+4*len(eos))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(tokens)))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(eos)))
	b = binary.NativeEndian.AppendUint64(b, uint64(bytes))
	for _, t := range tokens {
		b = binary.NativeEndian.AppendUint32(b, uint32(len(t)))
	}
	for _, t := range tokens {
		b = append(b, t...)
	}
	for _, id := range eos {
		b = binary.NativeEndian.AppendUint32(b, uint32(id))
	}
	return b
}

// socketPair returns our end, a bare descriptor that blocks, and theirs.
func socketPair() (ours int, theirs *os.File, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socketpair", err)
	}
	return pair[0], os.NewFile(uintptr(pair[1]), "trial"), nil
}

func writeAll(fd int, b []byte) bool {
	for len(b) > 0 {
		n, err := syscall.SendmsgN(fd, b, nil, nil, syscall.MSG_NOSIGNAL)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}

// Pid returns the process's number.
func (t *TrialProcess) Pid() int { return t.process.Pid }

// Close lets the process end, after the trials that it has begun.
func (t *TrialProcess) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.control >= 0 {
		syscall.Close(t.control)
	}
	t.control = -1
}

// A Trial is one grammar's. Ready, Start and Result follow one another; Close
// kills what still runs.
type Trial struct{ socket *os.File }

// NewTrial has the process fork for a trial that may begin later. The error
// says that the process has ended.
func (t *TrialProcess) NewTrial() (*Trial, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.control < 0 {
		err = os.ErrClosed
	} else {
		err = syscall.Sendmsg(t.control, []byte{0}, syscall.UnixRights(int(theirs.Fd())), nil, syscall.MSG_NOSIGNAL)
	}
	if err != nil {
		syscall.Close(ours)
		return nil, fmt.Errorf("the trial process has ended: %w", err)
	}
	if err := syscall.SetNonblock(ours, true); err != nil {
		syscall.Close(ours)
		return nil, err
	}
	return &Trial{os.NewFile(uintptr(ours), "trial")}, nil
}

// Close ends the trial if it runs.
func (t *Trial) Close() { t.socket.Close() }

// Ready waits until the trial could start. The error is the context's, or says
// that the process could not fork or has ended.
func (t *Trial) Ready(ctx context.Context) error {
	var b [1]byte
	return t.read(ctx, b[:])
}

// Start begins the trial.
func (t *Trial) Start(kind, text string, l TrialLimits) error {
	b := make([]byte, 0, 15*8+len(kind)+len(text))
	for _, n := range []int{
		len(kind), len(text),
		l.Matcher.ItemsInRow, l.Matcher.InitialFuel, l.Matcher.StepFuel, l.Matcher.StepItems, l.Matcher.LexerStates, l.Matcher.GrammarSize,
		l.Nice, l.SlowNice, int(l.Quick.Microseconds()), int(l.CPU.Microseconds()), int(l.Wall.Microseconds()), l.Memory, l.Steps,
	} {
		b = binary.NativeEndian.AppendUint64(b, uint64(n))
	}
	b = append(append(b, kind...), text...)
	_, err := t.socket.Write(b)
	return err
}

// Result waits for the trial's end, or until it is slow: then Result is called
// again. The error is the cause of ctx, which ends the trial.
func (t *Trial) Result(ctx context.Context) (TrialResult, error) {
	var header [answerHeader]byte
	if err := t.read(ctx, header[:]); err != nil {
		if ctx.Err() != nil {
			return TrialResult{}, err
		}
		return TrialResult{Status: TrialDied}, nil
	}
	r, n, err := parseAnswer(header[:])
	if err != nil {
		return TrialResult{Status: TrialDied}, nil //nolint:nilerr // so it must have gone wrong
	}
	message := make([]byte, n)
	if err := t.read(ctx, message); err != nil {
		return TrialResult{Status: TrialDied}, nil //nolint:nilerr // the same
	}
	r.Message = reason(string(message))
	return r, nil
}

// read fills b. The end of ctx closes the trial.
func (t *Trial) read(ctx context.Context, b []byte) error {
	defer context.AfterFunc(ctx, t.Close)()
	if _, err := io.ReadFull(t.socket, b); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}
