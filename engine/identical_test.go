package engine_test

import (
	"path/filepath"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sim"
)

func TestIdenticalSim(t *testing.T) {
	for _, tt := range []struct {
		name        string
		model       sim.Model
		synchronous bool
	}{
		{name: "all positions"},
		{name: "a step at a time", synchronous: true},
		{name: "windows", model: sim.Model{Windows: []int{0, 30}}},
		{name: "states", model: sim.Model{Windows: []int{}, Recurrent: true}, synchronous: true},
		{name: "states and windows", model: sim.Model{Windows: []int{0, 30}, Recurrent: true}},
		{name: "rotations", model: sim.Model{RopeOriginal: 70, RopeDynamic: true}},
	} {
		tt.model.Vocab = 300
		t.Run(tt.name, func(t *testing.T) {
			enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, *plan.Plan) {
				return sim.New(l, sim.Config{Model: tt.model, Synchronous: tt.synchronous}).Checked(), tt.model.Plan()
			})
		})
	}
}

func TestIdenticalCPU(t *testing.T) {
	if testing.Short() {
		t.Skip("runs some thousand steps of two models")
	}
	t.Setenv("MILLRACE_CPU_KV", "f16") // as models of more than toy size have it
	for _, name := range []string{"llama-tied-bf16", "gemma2-v4"} {
		t.Run(name, func(t *testing.T) {
			enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, *plan.Plan) {
				l.Threads = 2
				b, err := cpu.Open(l)
				if err != nil {
					t.Fatal(err)
				}
				_, p := loadCheckpoint(t, filepath.Join("testdata", name), b)
				return b, p
			})
		})
	}
}
