package cuda_test

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
)

const devicesVariable = "MILLRACE_SHIM_DEVICES"

// TestShards divides a model among GPUs: they answer as one does, and each time with the
// same bits.
func TestShards(t *testing.T) {
	shim(t)
	const prompt = 20
	t.Setenv(devicesVariable, "4")
	want, err := steps(t, 1, prompt)
	if err != nil {
		t.Fatal(err)
	}
	for _, gpus := range []int{2, 4} {
		got, err := steps(t, gpus, prompt)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got.results {
			if w := want.results[i]; math.Abs(float64(r.Logprob-w.Logprob)) > 2e-2 {
				t.Errorf("%d GPUs, answer %d: %+v, one GPU %+v", gpus, i, r, w)
			}
		}
		t.Setenv(graphsVariable, "off")
		again, err := steps(t, gpus, prompt)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again, got) {
			t.Errorf("%d GPUs, without graphs: %+v, with them %+v", gpus, again.results, got.results)
		}
		os.Unsetenv(graphsVariable)
	}
}

// TestMachinesForShards: what is missing for several GPUs is said.
func TestMachinesForShards(t *testing.T) {
	path := shim(t)
	for _, tt := range []struct {
		name, devices, peers string
		first, gpus          int
		want                 string
	}{
		{"one GPU", "1", "1", 0, 2, "2 GPUs are asked for, there are 1 (CUDA_VISIBLE_DEVICES may hide some)"},
		{"no GPU", "0", "1", 0, 2, "no CUDA-capable device"},
		{"no peers", "2", "0", 0, 2, "GPU 0 cannot read the memory of GPU 1"},
		{"no peers further on", "4", "0", 2, 2, "GPU 2 cannot read the memory of GPU 3"},
		{"none further on", "2", "0", 2, 1, "3 GPUs are asked for, there are 2"},
		{"too many", "16", "1", 0, 9, "a model on 9 GPUs, expected 1 to 8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(devicesVariable, tt.devices)
			t.Setenv("MILLRACE_SHIM_PEERS", tt.peers)
			if _, err := cuda.OpenOn(path, one, tt.first, tt.gpus); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("OpenOn: %v, want %q", err, tt.want)
			}
		})
	}
}

// TestLostShard runs in a process of its own, where one of two GPUs fails while the other
// waits for it.
func TestLostShard(t *testing.T) {
	shim(t)
	if os.Getenv(faultVariable) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestLostShard$")
		cmd.Env = append(os.Environ(), faultVariable+"=show_kernel:20", devicesVariable+"=2")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	_, err := steps(t, 2, 20)
	if !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "of 2: ") || !strings.Contains(err.Error(), "a fault that was asked for") {
		t.Errorf("%v, expected that a device of two is lost, and how", err)
	}
}
