package cpu_test

import (
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/device/backendtest"
)

// sets are the instruction sets to test, best last.
var sets = []string{"portable", "avx2", "wide", "avx512"}

func TestConformance(t *testing.T) {
	for _, set := range sets {
		t.Run(set, func(t *testing.T) {
			choose(t, set)
			backendtest.Run(t, open, backendtest.Options{BitExact: true})
		})
	}
}

// TestConformanceHalfCache is the suite with the cache that models of more than
// toy size have.
func TestConformanceHalfCache(t *testing.T) {
	t.Setenv("MILLRACE_CPU_KV", "f16")
	backendtest.Run(t, open, backendtest.Options{BitExact: true})
}

// choose makes backends opened during t run on an instruction set.
func choose(t *testing.T, set string) {
	t.Setenv("MILLRACE_CPU_ISA", set)
	b, err := cpu.Open(device.Limits{MaxTokens: 1, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 1, Threads: 1})
	if err != nil {
		t.Skip(err)
	}
	b.Close()
}

func open(t *testing.T, limits device.Limits) device.Backend {
	t.Helper()
	b, err := cpu.Open(limits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
