package cpu_test

import (
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/device/backendtest"
	"github.com/millrace-ai/millrace/engine/plan"
)

// sets are the instruction sets to test, but those that differ in products of bf16 alone.
var sets = []string{"portable", "dotprod", "i8mm", "avx2", "avxvnni", "wide", "avx512", "avx512vnni", "amx-emulated", "amx"}

// dotSets are those that have dot products of bf16, in tiles of 8 and of 16 rows.
var dotSets = []string{"amx-emulated", "bf16-emulated", "avx512bf16", "amx"}

// TestConformance is the suite in full with the best set that this machine has, and without
// most of its repetitions with the others.
func TestConformance(t *testing.T) {
	best, err := cpu.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range slices.Concat(sets, []string{"bf16-emulated", "avx512bf16"}) {
		// avxvnni has the floats of avx2, and TestIntegerProducts compares its integers; so it
		// is with i8mm and dotprod, and with all that have AVX-512's floats but the best of them.
		// bf16-emulated has the floats of wide.
		switch set {
		case "avxvnni", "i8mm", "amx-emulated", "wide":
			continue
		case "avx512", "avx512vnni", "avx512bf16":
			if set != best.Detail {
				continue
			}
		}
		t.Run(set, func(t *testing.T) {
			choose(t, set)
			backendtest.Run(t, open, backendtest.Options{BitExact: true, Brief: set != best.Detail})
		})
	}
}

// TestConformanceHalfCache is the suite with the cache that models of more than
// toy size have.
func TestConformanceHalfCache(t *testing.T) {
	backendtest.Run(t, open, backendtest.Options{BitExact: true, Cache: plan.F16, Tolerance: 2e-3})
}

// TestConformanceCodes is the suite with keys and values in codes of eight bits, whose
// groups are smaller than most heads. Where what a code stands for differs in its last bit,
// it may be the next one.
func TestConformanceCodes(t *testing.T) {
	b := open(t, device.Limits{MaxTokens: 1, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 1, Threads: 1})
	caps := b.Caps()
	b.Close()
	if !caps.Has(device.FeatureCache8) {
		t.Skip("no codes in caches without the instructions of f16")
	}
	backendtest.Run(t, open, backendtest.Options{BitExact: true, Cache: plan.W8.Grouped(16), Tolerance: 3e-2, HalfTolerance: 0.1})
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
