package cuda_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/cuda"
)

// TestSelfTest runs in processes of their own: in one all kernels do what they should, in the
// others one does nothing, or all are switched off.
func TestSelfTest(t *testing.T) {
	path := shim(t)
	const wantVariable = "MILLRACE_TEST_DETAIL"
	if want, ok := os.LookupEnv(wantVariable); ok {
		b, err := cuda.Open(path, one)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if got := b.Caps().Detail; got != "CPU shim sm_80"+want {
			t.Errorf("the detail is %q, want %q after the GPU's name", got, want)
		}
		return
	}
	for _, tt := range []struct{ variable, want string }{
		{"", ""},
		{"MILLRACE_CUDA_TILED=off", "; tiled kernels off"},
		{"MILLRACE_SHIM_SKIP=(tiled_kernel<kind, tiling>):9", "; self-test failed: bf16:more"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSelfTest$")
		cmd.Env = append(os.Environ(), wantVariable+"="+tt.want)
		if tt.variable != "" {
			cmd.Env = append(cmd.Env, tt.variable)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with %q: %v\n%s", tt.variable, err, strings.TrimSpace(string(out)))
		}
	}
}
