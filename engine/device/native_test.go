package device_test

import (
	"testing"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
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
	_, tensorErr := n.NewTensor("w", plan.F32, []int{1})
	_, modelErr := n.SetModel(&plan.Plan{})
	_, hostErr := n.HostAlloc(1)
	for call, err := range map[string]error{
		"CheckPlan":   n.CheckPlan(&plan.Plan{}),
		"NewTensor":   tensorErr,
		"WriteTensor": n.WriteTensor(0, 0, 1, nil),
		"AdoptTensor": n.AdoptTensor(0, nil, nil),
		"SetModel":    modelErr,
		"InitCache":   n.InitCache(1, 0),
		"WarmUp":      n.WarmUp(),
		"HostAlloc":   hostErr,
		"LoadAdapter": n.LoadAdapter(1, &device.Adapter{Rank: 1}),
		"DropAdapter": n.DropAdapter(1),
		"Forward":     n.Forward(0),
		"Sample":      n.Sample(0),
		"Wait":        n.Wait(0),
	} {
		if err == nil {
			t.Errorf("%s succeeded on a closed backend", call)
		}
	}
}

func TestNativeBeforeInitCache(t *testing.T) {
	n := openNative(t, one)
	for _, i := range []int{-1, 0, device.RingDepth} {
		if err := n.Forward(i); err == nil {
			t.Errorf("Forward(%d) succeeded without a ring", i)
		}
	}
}

// Host memory is whole pages, usable at once, and goes back once.
func TestNativeHostMemory(t *testing.T) {
	n := openNative(t, one)
	const bytes = 1 << 20
	memory, err := n.HostAlloc(bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(memory) != bytes || uintptr(unsafe.Pointer(&memory[0]))%4096 != 0 {
		t.Errorf("HostAlloc(%d) returned %d bytes at %p", bytes, len(memory), &memory[0])
	}
	memory[0], memory[bytes-1] = 1, 2
	n.HostFree(memory)
	defer func() {
		if recover() == nil {
			t.Error("memory went back twice")
		}
	}()
	n.HostFree(memory)
}

// Stats may be asked for while the backend closes.
func TestNativeStatsWhileClosing(t *testing.T) {
	n := openNative(t, one)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			n.Stats()
		}
	}()
	n.Close()
	<-done
	if got := n.Stats(); got != (device.Stats{}) {
		t.Errorf("Stats() = %+v after Close", got)
	}
}

func TestProbe(t *testing.T) {
	caps, err := cpu.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if caps.Name != "cpu" || caps.Detail == "" || caps.Threads < 1 || !caps.Lowered || caps.StepTokens < 1 ||
		caps.Ops>>plan.OpEmbeddingBag != 1 || !caps.Has(device.FeatureAdapters|device.FeatureVerify) {
		t.Errorf("Probe() = %+v", caps)
	}
}
