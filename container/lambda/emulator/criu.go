package emulator

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/millrace-ai/millrace/internal/child"
)

// FindCRIU returns CRIU's program if there is one that works on this machine for
// this user, else "".
func FindCRIU() string {
	path, err := exec.LookPath("criu")
	if err != nil || exec.Command(path, "check").Run() != nil {
		return ""
	}
	return path
}

// copied is a program that CRIU makes copies of.
type copied struct {
	program
	criu string
	pid  int
	pipe string // that its output goes to, as CRIU calls it
}

// startCopied starts cmd with its output going to log.
func startCopied(criu string, cmd *exec.Cmd, log io.Writer) (*copied, error) {
	out, name, err := outputPipe(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	started, err := child.Start(cmd, nil)
	if err != nil {
		return nil, err
	}
	return &copied{program{started}, criu, cmd.Process.Pid, name}, nil
}

// outputPipe returns the writing end of a pipe to log, with its name.
func outputPipe(log io.Writer) (*os.File, string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
	if err != nil {
		return nil, "", err
	}
	go func() {
		defer r.Close()
		io.Copy(log, r) //nolint:errcheck // a log that does not take it
	}()
	return w, name, nil
}

// images are the files of a snapshot.
type images struct {
	dir string
	of  *copied
}

// Snapshot implements Snapshotter.
func (c *copied) Snapshot() (Snapshot, error) {
	dir, err := os.MkdirTemp("", "millrace-snapshot-")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.criu, "dump", "--tree", strconv.Itoa(c.pid), "--images-dir", dir, "--shell-job", "--tcp-close", "--log-file", "dump.log")
	if err := cmd.Run(); err != nil {
		err = fmt.Errorf("criu dump: %w%s", err, lastErrors(filepath.Join(dir, "dump.log")))
		os.RemoveAll(dir) //nolint:errcheck // only room on the disk
		return nil, err
	}
	<-c.Exited()
	return &images{dir, c}, nil
}

// Restore implements Snapshot.
func (s *images) Restore(log io.Writer) (Sandbox, error) {
	out, _, err := outputPipe(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	const first = 3 // descriptor of ExtraFiles
	cmd := exec.Command(s.of.criu, "restore", "--images-dir", s.dir, "--shell-job", "--tcp-close", "--log-file", "restore.log",
		"--inherit-fd", fmt.Sprintf("fd[%d]:%s", first, s.of.pipe))
	cmd.ExtraFiles = []*os.File{out}
	started, err := child.Start(cmd, nil)
	if err != nil {
		return nil, err
	}
	return &restored{started, s, cmd.Process.Pid}, nil
}

// Close implements Snapshot.
func (s *images) Close() { os.RemoveAll(s.dir) } //nolint:errcheck // only room on the disk

// restored is a copy. Its process is CRIU's child, and CRIU ends with it.
type restored struct {
	*child.Process
	from *images
	criu int // its process
}

// signal sends s to the copy, or to CRIU while there is none.
func (r *restored) signal(s syscall.Signal) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.from.of.pid))
	_, fields, _ := bytes.Cut(stat, []byte(") "))
	var state string
	var parent int
	if err == nil {
		_, err = fmt.Sscan(string(fields), &state, &parent)
	}
	if err == nil && parent == r.criu {
		_ = syscall.Kill(r.from.of.pid, s) // it may have ended
		return
	}
	r.Signal(s)
}

func (r *restored) Freeze()    { r.signal(syscall.SIGSTOP) }
func (r *restored) Thaw()      { r.signal(syscall.SIGCONT) }
func (r *restored) Terminate() { r.signal(syscall.SIGTERM) }
func (r *restored) Kill()      { r.signal(syscall.SIGKILL) }
func (r *restored) Status() string {
	return r.State().String() + lastErrors(filepath.Join(r.from.dir, "restore.log"))
}

// lastErrors returns what CRIU's log says of errors, if it failed, in the form of an
// appendix.
func lastErrors(file string) string {
	data, _ := os.ReadFile(file) //nolint:errcheck // then there is nothing to say
	if !bytes.Contains(data, []byte(" FAILED.")) {
		return ""
	}
	text := ""
	for line := range bytes.Lines(data) {
		if bytes.Contains(line, []byte("Error")) {
			text += ": " + string(bytes.TrimSpace(line))
		}
	}
	return text
}
