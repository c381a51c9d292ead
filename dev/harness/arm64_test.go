package harness_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
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
		t.Skip("qemu-aarch64-static is not installed (Debian: qemu-user-static), or this is not amd64")
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
	path := binaryOf(t, arm)
	out, err := exec.CommandContext(t.Context(), emulator, path, "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Fatalf("version: %v\n%s", err, out)
	}

	port := freePort(t)
	c := program(t, nil, port, emulator, path, "serve", "--hostname", "127.0.0.1", "--port", fmt.Sprint(port))
	c.await("/ping")
	if text := c.ask("/invocations"); !strings.Contains(text, "Millrace is a server") {
		t.Errorf("the answer is %q", text)
	}
}
