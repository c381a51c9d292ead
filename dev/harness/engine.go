// Package harness builds Millrace's image with a docker engine and runs it as
// SageMaker and Lambda do.
//
// The engine is the one that answers, or one that the harness starts for
// itself in build/docker, without a bridge and without touching the machine's
// firewall. Containers are reached in their own network namespace, so that
// requests arrive even under --network none. An engine of its own starts with
// no image at all, and need not be able to pull any: the harness then makes
// stand-ins for the official images that the Dockerfiles begin with, from
// Debian's packages and from the Go and Rust that are installed here.
//
// The tests are left out unless MILLRACE_TEST_IMAGE is set; `make test-image`
// sets it.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Engine is a docker engine. Its methods may be called by any number of
// goroutines.
type Engine struct {
	dir      string // of an engine of our own, "" for one that was there
	cli      string
	env      []string // of the cli
	buildKit bool

	daemon *exec.Cmd // nil if it was running already
	ended  chan struct{}
}

// Unavailable says why no image can be built or run here.
type Unavailable struct{ Reason string }

func (u *Unavailable) Error() string { return u.Reason }

// Start returns the engine that answers, or starts one that keeps its images
// in dir. The error is an *Unavailable where neither is possible.
func Start(ctx context.Context, dir string) (*Engine, error) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return nil, &Unavailable{"they need Linux and root, to reach into containers' networks"}
	}
	e := &Engine{cli: "docker", env: os.Environ()}
	if _, err := exec.LookPath(e.cli); err == nil && e.answers(ctx) {
		e.chooseBuilder(ctx)
		return e, nil
	}
	daemon, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, &Unavailable{"no docker engine answers and dockerd is not installed (Debian: docker.io)"}
	}
	// A newer client may stand before it on the path, without the builder that
	// Debian's brings along.
	if packaged := filepath.Join(filepath.Dir(filepath.Dir(daemon)), "bin/docker"); isFile(packaged) {
		e.cli = packaged
	}
	e.dir = dir
	if err := e.launch(ctx, daemon); err != nil {
		return nil, err
	}
	e.chooseBuilder(ctx)
	return e, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// launch starts the daemon, unless one that an earlier run left behind answers.
func (e *Engine) launch(ctx context.Context, daemon string) error {
	// Sockets have short names: they lie elsewhere.
	name := fnv.New64a()
	name.Write([]byte(e.dir))
	run := filepath.Join(os.TempDir(), fmt.Sprintf("millrace-docker-%x", name.Sum64()))
	socket := "unix://" + filepath.Join(run, "docker.sock")
	e.env = append(e.env, "DOCKER_HOST="+socket, "DOCKER_CONFIG="+filepath.Join(e.dir, "config"))
	if e.answers(ctx) {
		return nil
	}
	for _, d := range []string{e.dir, run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	log, err := os.Create(filepath.Join(e.dir, "dockerd.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	e.daemon = exec.Command(daemon, "--bridge=none", "--iptables=false", "--host", socket,
		"--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(run, "exec"), "--pidfile", filepath.Join(run, "pid"))
	e.daemon.Stdout, e.daemon.Stderr = log, log
	// The daemon ends with this process, however that ends. What counts is the
	// thread that started it.
	e.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	started := make(chan error)
	e.ended = make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := e.daemon.Start()
		started <- err
		if err == nil {
			_ = e.daemon.Wait()
			close(e.ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); !e.answers(ctx); time.Sleep(50 * time.Millisecond) {
		select {
		case <-e.ended:
			return &Unavailable{"dockerd may not run here: " + lastError(log.Name())}
		default:
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			e.Close()
			return &Unavailable{"dockerd does not answer: " + lastError(log.Name())}
		}
	}
	return nil
}

// lastError returns the last line of a log, where a daemon that gives up says
// why.
func lastError(log string) string {
	data, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}

// Close ends the engine if Start has started it, and has it forget images that
// newer ones have taken the names of, and old steps of builds. (To docker's
// first builder these are what BuildKit keeps apart: its cache.)
func (e *Engine) Close() {
	if e.daemon == nil {
		return
	}
	if e.buildKit {
		_, _ = e.Docker(context.Background(), "image", "prune", "--force")
		_, _ = e.Docker(context.Background(), "builder", "prune", "--force", "--keep-storage", "8gb")
	}
	_ = e.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.ended:
	case <-time.After(20 * time.Second):
		_ = e.daemon.Process.Kill()
		<-e.ended
	}
}

func (e *Engine) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := e.Docker(ctx, "info", "--format", "{{.ServerVersion}}")
	return err == nil
}

// chooseBuilder has BuildKit build images where the client can, as people's
// clients do: by its plug-in, or by itself before there was one. The builder
// that docker began with builds the same image, for this machine's
// architecture alone.
func (e *Engine) chooseBuilder(ctx context.Context) {
	version, _ := e.Docker(ctx, "version", "--format", "{{.Client.Version}}")
	if _, err := e.Docker(ctx, "buildx", "version"); err == nil || strings.HasPrefix(version, "20.") {
		e.buildKit = true
		e.env = append(e.env, "DOCKER_BUILDKIT=1")
		return
	}
	e.env = append(e.env, "DOCKER_BUILDKIT=0")
}

// Environ is the environment in which a docker client talks to the engine.
func (e *Engine) Environ() []string { return slices.Clone(e.env) }

// Forget removes an image by its name.
func (e *Engine) Forget(image string) {
	_, _ = e.Docker(context.Background(), "rmi", "--force", image)
}

// Docker runs a command of the docker client and returns what it prints,
// without space around it. An error has the client's own words.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	return e.input(ctx, nil, args...)
}

// input is Docker with something on standard input.
func (e *Engine) input(ctx context.Context, stdin *exec.Cmd, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.cli, args...)
	cmd.Env = e.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var producing error
	if stdin != nil {
		pipe, err := stdin.StdoutPipe()
		if err != nil {
			return "", err
		}
		cmd.Stdin = pipe
		stdin.Stderr = &errs
		if err := stdin.Start(); err != nil {
			return "", err
		}
	}
	err := cmd.Run()
	if stdin != nil {
		producing = stdin.Wait()
	}
	if err = errors.Join(producing, err); err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s%s", args[0], err, tail(out.String()), tail(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// tail cuts the log of a build to what tells why it failed.
func tail(s string) string {
	const most = 4000
	return s[max(0, len(s)-most):]
}
