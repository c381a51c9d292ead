package harness_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binaryOf copies the program out of an image. It is linked statically: it runs
// outside as well as inside.
func binaryOf(t testing.TB, image string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "millrace")
	err := engine.Walk(t.Context(), image, func(f *tar.Header, content io.Reader) error {
		if f.Name != "usr/local/bin/millrace" {
			return nil
		}
		binary, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		return os.WriteFile(path, binary, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// program starts a server on this machine, which listens on port. It ends
// with the test.
func program(t testing.TB, env []string, port int, name string, args ...string) *client {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
	cmd.Env = env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, &log)
		}
	})
	return &client{t, fmt.Sprint("http://127.0.0.1:", port), http.DefaultClient}
}

// await waits until a path answers with 200.
func (c *client) await(path string) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		a, err := c.try(http.MethodGet, path, "")
		if err == nil && a.status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("GET %s: %v %v; want 200", path, a, err)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The program's own emulators of SageMaker and of Lambda run the image.
func TestEmulators(t *testing.T) {
	binary := binaryOf(t, tag)
	for _, tt := range []struct {
		name string
		args []string
		path string
	}{
		{"SageMaker", []string{"sagemaker", "local", "--network-none"}, "/endpoints/millrace/invocations"},
		{"Lambda", []string{"lambda", "local"}, "/invocations"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := freePort(t)
			c := program(t, engine.Environ(), port, binary, append(tt.args, "--image", tag, "--port", fmt.Sprint(port))...)
			var a answer
			for deadline := time.Now().Add(patience); a.status != http.StatusOK; time.Sleep(100 * time.Millisecond) {
				var err error
				if a, err = c.try(http.MethodPost, tt.path, question); time.Now().After(deadline) {
					t.Fatalf("%d %s %v", a.status, a.body, err)
				}
			}
			if !strings.Contains(a.body, "Millrace is a server") {
				t.Errorf("the answer is %q", a.body)
			}
		})
	}
}
