package cuda_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/device/backendtest"
	"github.com/millrace-ai/millrace/engine/plan"
)

const (
	// libraryVariable names the library to test, instead of the shim's.
	libraryVariable = "MILLRACE_CUDA_LIBRARY"
	// allVariable asks for the whole suite also where the shim emulates the GPU.
	allVariable = "MILLRACE_TEST_CUDA"
)

// library returns the path of the library to test, or skips.
func library(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(libraryVariable); path != "" {
		return path
	}
	path, err := filepath.Abs("../../build/cuda/libmillrace_cuda_shim.so")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%v: `make cuda-shim` builds it", err)
	}
	return path
}

func open(t *testing.T, limits device.Limits) device.Backend {
	t.Helper()
	b, err := cuda.Open(library(t), limits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func conformance(t *testing.T, opt backendtest.Options) {
	opt.BitExact = true
	opt.Brief = emulated(t) && os.Getenv(allVariable) != "all"
	backendtest.Run(t, open, opt)
}

func TestConformance(t *testing.T) {
	conformance(t, backendtest.Options{})
}

// TestConformanceHalfCache is the suite with the cache that models of more than toy size
// have.
func TestConformanceHalfCache(t *testing.T) {
	conformance(t, backendtest.Options{Cache: plan.F16, Tolerance: 2e-3})
}

// TestConformanceCodes is the suite with keys and values in codes of eight bits.
func TestConformanceCodes(t *testing.T) {
	conformance(t, backendtest.Options{Cache: plan.W8.Grouped(16), Tolerance: 3e-2, HalfTolerance: 0.1})
}

var one = device.Limits{MaxTokens: 1, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 1}

func TestOpenRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.so")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nonexistent.so", empty} {
		if _, err := cuda.Open(path, one); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s): %v, expected an error that names it", path, err)
		}
	}
}

// emulated reports whether the library runs kernels on the CPU.
func emulated(t *testing.T) bool {
	t.Helper()
	caps, err := cuda.Probe(library(t))
	if err != nil {
		t.Fatal(err)
	}
	return emulatedLibrary(caps)
}

// emulatedLibrary reports whether caps are those of the shim.
func emulatedLibrary(caps device.Caps) bool { return strings.Contains(caps.Detail, "shim") }

// shim returns the path of the shim's library, or skips where another one is tested.
func shim(t *testing.T) string {
	t.Helper()
	if !emulated(t) {
		t.Skip("the library is not the shim")
	}
	return library(t)
}

func TestMachinesThatWillNotDo(t *testing.T) {
	path := shim(t)
	for _, tt := range []struct{ name, variable, value, want string }{
		{"no GPU", "MILLRACE_SHIM_DEVICES", "0", "no CUDA-capable device"},
		{"no driver", "MILLRACE_SHIM_DRIVER", "0", "no NVIDIA driver"},
		{"an old driver", "MILLRACE_SHIM_DRIVER", "12040", "driver is for CUDA 12.4, needed is one for 13.0 (580 or newer)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.variable, tt.value)
			caps, err := cuda.Probe(path)
			if err != nil || caps.Name != "" || !strings.Contains(caps.Detail, tt.want) {
				t.Errorf("Probe: %q, %q, %v, want no name and %q", caps.Name, caps.Detail, err, tt.want)
			}
			if _, err := cuda.Open(path, one); !errors.Is(err, device.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open: %v, want %q", err, tt.want)
			}
		})
	}
	caps, err := cuda.Probe(path)
	if err != nil || caps.Name != "cuda" || caps.Memory <= 0 {
		t.Errorf("Probe: %+v, %v", caps, err)
	}
	if free, total, err := cuda.Memory(path, 1); err != nil || total != caps.Memory || free <= 0 || free > total {
		t.Errorf("Memory: %d of %d, %v; Probe says %d", free, total, err, caps.Memory)
	}
}

func TestTooLittleMemory(t *testing.T) {
	t.Setenv("MILLRACE_SHIM_MEMORY", "2")
	b, err := cuda.Open(shim(t), one)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const want = "device memory for large, of which 2.0 of 2.0 MiB are free"
	if _, err := b.NewTensor("large", plan.F32, []int{1024, 1024}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a tensor of 4 MiB: %v, want %q", err, want)
	}
	if _, err := b.NewTensor("small", plan.F32, []int{16, 16}); err != nil {
		t.Errorf("a tensor that fits, after one that does not: %v", err)
	}
}

// TestLostDevice runs in a process of its own, where a kernel fails: that is final.
func TestLostDevice(t *testing.T) {
	path := shim(t)
	const variable = "MILLRACE_SHIM_FAULT"
	if os.Getenv(variable) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestLostDevice$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"=store_rows_kernel:2")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	b, err := cuda.Open(path, one)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.NewTensor("w", plan.F32, []int{2, 1}); err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil; i++ {
		if i == 10 {
			t.Fatal("ten rows were written to a device that is lost at the second")
		}
		err = b.WriteTensor(0, i%2, 1, make([]byte, 4)) // says what those before it met
	}
	for range 2 {
		if !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "storing tensors up to w: kernel store_rows_kernel: a fault that was asked for") {
			t.Errorf("WriteTensor: %v, want that the device is lost, and how", err)
		}
		err = b.WriteTensor(0, 0, 1, make([]byte, 4))
	}
}
