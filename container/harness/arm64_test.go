package harness_test

import (
	"archive/tar"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The image for the other architecture is made by cross compilers, and its
// binary serves, if slowly, under an emulator. This compiles everything once
// more: MILLRACE_TEST_IMAGE=all asks for it.
func TestArm64(t *testing.T) {
	if os.Getenv("MILLRACE_TEST_IMAGE") != "all" {
		t.Skip("MILLRACE_TEST_IMAGE is not all")
	}
	emulator, err := exec.LookPath("qemu-aarch64-static")
	if err != nil || runtime.GOARCH != "amd64" {
		t.Skip("qemu-aarch64-static is not installed (Debian: qemu-user-static), or this is no amd64")
	}
	const arm = "millrace:arm64"
	if err := build(t.Context(), arm, "--platform", "linux/arm64"); err != nil {
		t.Fatal(err)
	}
	image, err := engine.Inspect(t.Context(), arm)
	if err != nil {
		t.Fatal(err)
	}
	if image.Architecture != "arm64" {
		t.Errorf("the image says it is for %s", image.Architecture)
	}
	path := filepath.Join(t.TempDir(), "millrace")
	err = engine.Walk(t.Context(), arm, func(f *tar.Header, content io.Reader) error {
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
	out, err := exec.CommandContext(t.Context(), emulator, path, "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Fatalf("version: %v\n%s", err, out)
	}

	port := freePort(t)
	server := exec.CommandContext(t.Context(), emulator, path, "serve", "--hostname", "127.0.0.1", "--port", fmt.Sprint(port))
	log := new(strings.Builder)
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Log(log)
		}
	})
	c := &client{t, fmt.Sprint("http://127.0.0.1:", port), http.DefaultClient}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if a, err := c.try(http.MethodGet, "/ping", ""); err == nil && a.status == http.StatusOK {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the server does not become ready: %v %v", a, err)
		}
	}
	if text := c.ask("/invocations"); !strings.Contains(text, "Millrace is a server") {
		t.Errorf("the answer is %q", text)
	}
}
