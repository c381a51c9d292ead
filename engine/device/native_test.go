package device_test

import (
	"testing"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
)

// The cpu backend stands for any table; its own tests run the suite.
func openNative(t *testing.T, limits device.Limits) *device.Native {
	t.Helper()
	n, err := cpu.Open(limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

var one = device.Limits{MaxTokens: 1, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 1, Threads: 1}

func TestNativeRefusesTables(t *testing.T) {
	future := [64]int64{99} // the version leads a table; aligned as one, and no shorter
	for _, tt := range []struct {
		name  string
		table unsafe.Pointer
	}{
		{"none", nil},
		{"of another ABI version", unsafe.Pointer(&future)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := device.NewNative(tt.table, one); err == nil {
				t.Error("NewNative succeeded")
			}
			if _, err := device.ProbeNative(tt.table); err == nil {
				t.Error("ProbeNative succeeded")
			}
		})
	}
}

func TestNativeClosed(t *testing.T) {
	n := openNative(t, one)
	for range 2 { // closing again does nothing
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, tensorErr := n.NewTensor("w", device.F32, []int{1})
	for call, err := range map[string]error{
		"NewTensor":   tensorErr,
		"WriteTensor": n.WriteTensor(0, 0, 1, nil),
		"InitKV":      n.InitKV(1),
		"Forward":     n.Forward(0),
		"Sample":      n.Sample(0),
		"Wait":        n.Wait(0),
	} {
		if err == nil {
			t.Errorf("%s succeeded on a closed backend", call)
		}
	}
}

func TestNativeBeforeInitKV(t *testing.T) {
	n := openNative(t, one)
	for _, i := range []int{-1, 0, device.RingDepth} {
		if err := n.Forward(i); err == nil {
			t.Errorf("Forward(%d) succeeded without a ring", i)
		}
	}
}

func TestProbe(t *testing.T) {
	caps, err := cpu.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if caps.Name != "cpu" || caps.Detail == "" || caps.Threads < 1 {
		t.Errorf("Probe() = %+v", caps)
	}
}
