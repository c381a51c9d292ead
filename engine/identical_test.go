package engine_test

import (
	"path/filepath"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/weights"
)

func TestIdenticalSim(t *testing.T) {
	enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, int) {
		return sim.New(l, sim.Config{Model: sim.Model{Vocab: 300}}), 300
	})
}

func TestIdenticalCPU(t *testing.T) {
	if testing.Short() {
		t.Skip("runs some thousand steps of two models")
	}
	t.Setenv("MILLRACE_CPU_KV", "f16") // as models of more than toy size have it
	for _, name := range []string{"llama-tied-bf16", "gemma2-v4"} {
		t.Run(name, func(t *testing.T) {
			enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, int) {
				l.Threads = 2
				b, err := cpu.Open(l)
				if err != nil {
					t.Fatal(err)
				}
				c, err := weights.Open(filepath.Join("testdata", name))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, p, err := engine.Plan(c)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := engine.Load(b, p, c, nil); err != nil {
					t.Fatal(err)
				}
				return b, p.Vocab
			})
		})
	}
}
