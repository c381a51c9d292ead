package cuda_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/cuda"
)

// TestSelfTest opens the backend here, where all kernels do what they should, and in processes
// of their own, where one does nothing, or all are switched off.
func TestSelfTest(t *testing.T) {
	path := shim(t)
	const wantVariable = "MILLRACE_TEST_DETAIL"
	want, child := os.LookupEnv(wantVariable)
	b, err := cuda.Open(path, one)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := b.Caps().Detail; got != "CPU shim sm_80"+want {
		t.Errorf("the detail is %q, want %q after the GPU's name", got, want)
	}
	if child {
		return
	}
	for _, tt := range []struct{ variable, want string }{
		{"MILLRACE_CUDA_TILED=off", "; tiled kernels off"},
		{"MILLRACE_SHIM_SKIP=(tiled_kernel<kind, tiling>):9", "; self-test failed: bf16:more"},
		{"MILLRACE_SHIM_SKIP=(attend_tiled_kernel<width, many, coded>):5", "; self-test failed: attention:128"},
		{"MILLRACE_SHIM_SKIP=(attend_tiled_kernel<width, many, coded>):14", "; self-test failed: int8-attention:128"},
		{"MILLRACE_SHIM_SKIP=(attend_latent_kernel<coded>):5", "; self-test failed: int8-latent-attention"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSelfTest$")
		cmd.Env = append(os.Environ(), wantVariable+"="+tt.want, tt.variable)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with %s: %v\n%s", tt.variable, err, strings.TrimSpace(string(out)))
		}
	}
}
